/*
 * A machine: disk, clock, and a process around a core that does what the
 * provider worker does.
 *
 * A round takes in what has come, feeds it to the core, ends the round and
 * carries out the effects one by one; a crash may come between any two.  What
 * was appended goes to the system at the end of the round, to the disk when a
 * flush is done.  SAVE, TRUNCATE and RESET_LOG are durable at once.
 *
 * The damage of bytes is kept as a mark on the record: its checksum would not
 * match.  When the log is opened it ends before the first such record; if that
 * one had been flushed the log has lost what was promised, and says so until
 * the core has saved its state after having been told.
 */
#include "sim/sim.h"

#include <stdlib.h>

#define FRAMES_PER_ROUND	256
#define READ_RECORDS		48
#define IDLE_US				(20 * MS)

bool
host_is(const sim_host *h, mg_node_state state)
{
	return h->running && mg_node_get_state(h->node) == state;
}

bool
host_works(const sim_host *h)
{
	return h->running && mg_state_is_synced(mg_node_get_state(h->node));
}

bool
host_leads(const sim_host *h)
{
	return h->running && mg_node_self(h->node) != 0 && mg_node_leader(h->node) == mg_node_self(h->node);
}

/* ------------------------------------------------------------------------ log */

bool
log_has(const sim_log *log, mg_seqno seqno)
{
	return seqno >= log->first && seqno <= log->last && seqno != 0;
}

sim_record *
log_at(sim_log *log, mg_seqno seqno)
{
	return &log->ring[seqno & (log->cap - 1)];
}

void
log_spoil(sim_log *log, mg_seqno seqno)
{
	sim_record *r = log_at(log, seqno);

	log->n_bad += !r->bad;
	r->bad = true;
}

void
log_unspoil(sim_log *log)
{
	for (mg_seqno s = log->first; s <= log->last; s++)
		log_at(log, s)->bad = false;
	log->n_bad = 0;
}

static void
log_drop(sim_log *log, mg_seqno seqno)
{
	sim_record *r = log_at(log, seqno);

	log->n_bad -= r->bad;
	free(r->bytes);
	memset(r, 0, sizeof(*r));
}

static void
log_cut(sim_log *log, mg_seqno last)
{
	while (log->last > last && log->last >= log->first)
		log_drop(log, log->last--);
	if (log->written > last)
		log->written = last;
	if (log->flushed > last)
		log->flushed = last;
}

void
log_empty(sim_log *log)
{
	log_cut(log, log->first > 0 ? log->first - 1 : 0);
	log->first = 1;
	log->last = log->written = log->flushed = 0;
}

void
log_copy(sim_log *to, const sim_log *from)
{
	log_empty(to);
	free(to->ring);
	*to = *from;
	to->ring = NULL;
	if (from->cap == 0)
		return;
	to->ring = mg_alloc(to->cap * sizeof(sim_record));
	for (mg_seqno s = from->first; s <= from->last; s++)
	{
		sim_record *r = log_at(to, s);

		*r = from->ring[s & (from->cap - 1)];
		r->bytes = malloc(r->len);
		memcpy(r->bytes, from->ring[s & (from->cap - 1)].bytes, r->len);
	}
}

static void
log_append(world *w, sim_host *h, mg_seqno seqno, const uint8_t *bytes, size_t len)
{
	sim_log    *log = &h->log;
	sim_record *r;

	if (log->last < log->first)
	{
		log->first = seqno;
		log->last = log->written = log->flushed = seqno - 1;
	}
	if (seqno != log->last + 1)
		sim_fail(w, "%s appends seqno %llu behind seqno %llu", h->name, (unsigned long long) seqno,
				 (unsigned long long) log->last);
	if (log->last + 2 - log->first > log->cap)
	{
		sim_log		old = *log;

		log->cap = old.cap ? old.cap * 2 : 256;
		log->ring = mg_alloc(log->cap * sizeof(sim_record));
		for (mg_seqno s = old.first; s <= old.last; s++)
			*log_at(log, s) = *log_at(&old, s);
		free(old.ring);
	}
	log->last = seqno;
	r = log_at(log, seqno);
	r->bytes = malloc(len);
	memcpy(r->bytes, bytes, len);
	r->len = (uint32_t) len;
	r->bad = false;
	r->hash = mg_mix64((uint64_t) mg_crc32c(0, bytes, len) << 32 | len);
}

/* What a crash takes away.  The last record may be torn: it is there, but bad. */
static void
log_lose(world *w, sim_host *h, mg_seqno keep, bool torn)
{
	sim_log    *log = &h->log;

	for (mg_seqno s = keep + 1; s <= log->last && s >= log->first; s++)
	{
		w->sum.lost_records++;
		check_lost(w, s);
	}
	if (torn && keep < log->last && keep + 1 >= log->first)
	{
		log_cut(log, keep + 1);
		log_spoil(log, keep + 1);
		log->written = keep + 1;
		w->sum.torn_tails++;
		TRACE(w, h->index, "torn record at seqno %llu", (unsigned long long) keep + 1);
		return;
	}
	log_cut(log, keep);
}

/* What a starting process finds. */
static void
log_open(world *w, sim_host *h)
{
	sim_log    *log = &h->log;

	for (mg_seqno s = log->first; s <= log->last; s++)
	{
		if (!log_at(log, s)->bad)
			continue;
		if (s <= log->flushed)
			log->damaged = true;
		for (mg_seqno t = s; t <= log->last; t++)
			check_lost(w, t);
		TRACE(w, h->index, "the log ends before seqno %llu%s", (unsigned long long) s, log->damaged ? ", it is damaged" : "");
		log_cut(log, s - 1);
		break;
	}
	log->written = log->flushed = log->last;
	log->generation = 0;
}

static void
flush_request(world *w, sim_host *h)
{
	sim_event	e = {.type = EVENT_FLUSH,.a = h->index,.life = h->life};

	if (h->flushing || h->log.written <= h->log.flushed)
		return;
	h->flushing = true;
	e.b = ++h->flush;
	e.seqno = h->log.written;
	e.generation = h->log.generation;
	e.at = w->now + (h->slow_flush_us > 0 ? h->slow_flush_us : between(w, w->flush_us / 4, w->flush_us * 2));
	world_push(w, &e);
}

void
host_flushed(world *w, sim_host *h, const sim_event *event)
{
	if (!h->running || !h->flushing || event->b != h->flush)
		return;
	h->flushing = false;
	if (h->disk_full && percent(w, 30))
	{
		TRACE(w, h->index, "flush fails: no space");
		w->sum.disk_full++;
		host_crash(w, h, CRASH_PROVIDER, SECOND);
		return;
	}
	if (event->generation == h->log.generation && event->seqno > h->log.flushed)
	{
		h->log.flushed = event->seqno <= h->log.last ? event->seqno : h->log.last;
		h->flush_news = true;
		host_wake(w, h, between(w, 5, 60));
	}
	flush_request(w, h);
}

/*
 * Room for new records: what nobody needs, if there are more than the ring holds;
 * what this node does not need, if there are more than fit at all.
 */
static void
log_recycle(world *w, sim_host *h)
{
	sim_log    *log = &h->log;
	mg_seqno	needed = mg_node_log_needed(h->node);
	mg_seqno	here = mg_node_log_needed_here(h->node);

	if (w->ring_records == 0)
		return;
	if (h->store.durable < here)
		here = h->store.durable;
	if (here < needed)
		needed = here;
	while (log->last >= log->first && log->last - log->first >= (mg_seqno) w->ring_records &&
		   log->first <= needed && log->first <= log->flushed)
	{
		log_drop(log, log->first++);
		w->sum.recycled++;
	}
	while (w->log_limit > 0 && log->last >= log->first && log->last - log->first >= (mg_seqno) w->log_limit &&
		   log->first <= here && log->first <= log->flushed)
	{
		log_drop(log, log->first++);
		w->sum.dropped_though_needed++;
	}
}

/* ------------------------------------------------------------------- the loop */

void
host_wake(world *w, sim_host *h, int64_t in_us)
{
	sim_event	e = {.at = w->now + in_us,.type = EVENT_ROUND,.a = h->index};

	if (!h->running || h->paused || (h->round_us != 0 && h->round_us <= e.at))
		return;
	h->round_us = e.at;
	world_push(w, &e);
}

void
host_feed(world *w, sim_host *h, mg_input *in)
{
	in->now_us = host_time(w, h);
	mg_node_step(h->node, in, &h->fx);
}

static void
feed_type(world *w, sim_host *h, mg_input_type type)
{
	mg_input	in = {.type = type,.peer = -1,.slot = -1};

	host_feed(w, h, &in);
}

static void
seeds_for(world *w, sim_host *h, char *to, size_t cap)
{
	size_t		len = 0;

	to[0] = '\0';
	for (int i = 0; i < w->n; i++)
		if (i != h->index)
			len += (size_t) snprintf(to + len, cap - len, "%s%s", len > 0 ? "," : "", w->hosts[i].address);
}

static void
join(world *w, sim_host *h)
{
	char		seeds[HOSTS_MAX * 33];
	mg_input	in = {.type = MG_IN_JOIN,.peer = -1,.slot = -1,.up = h->wants_snapshot};

	seeds_for(w, h, seeds, sizeof(seeds));
	in.text = seeds;
	TRACE(w, h->index, "asks for admission at seqno %llu%s", (unsigned long long) h->delivered,
		  h->wants_snapshot ? ", with a snapshot" : "");
	host_feed(w, h, &in);
	h->join_us = w->now + 12 * SECOND;
	h->again = true;
}

void
host_bootstrap(world *w, sim_host *h, bool force)
{
	mg_input	in = {.type = MG_IN_BOOTSTRAP,.peer = -1,.slot = -1,.up = force,.uuid = w->uuid};

	TRACE(w, h->index, "bootstrap%s", force ? " by force" : "");
	h->wait_bootstrap = true;
	host_feed(w, h, &in);
	host_wake(w, h, 1);
}

void
host_desync(world *w, sim_host *h)
{
	mg_input	in = {.type = MG_IN_DESYNC,.peer = -1,.slot = -1};

	in.up = h->desynced || h->donations > 0;
	in.seqno = h->pinned;
	host_feed(w, h, &in);
	host_wake(w, h, 1);
}

static void
node_make(world *w, sim_host *h)
{
	mg_node_config c;
	mg_gtid		position = {.uuid = w->uuid};

	memset(&c, 0, sizeof(c));
	c.role = h->role;
	c.segment = h->segment;
	c.weight = h->weight;
	snprintf(c.name, sizeof(c.name), "%s", h->name);
	snprintf(c.cluster_name, sizeof(c.cluster_name), "sim");
	snprintf(c.address, sizeof(c.address), "%s", h->address);
	snprintf(c.sql_address, sizeof(c.sql_address), "%s", h->address);
	c.incarnation = rnd(w, UINT64_MAX) | 1;
	c.keepalive_us = 100 * MS;
	c.suspect_us = w->suspect_us;
	c.inactive_us = w->inactive_us;
	c.resend_us = 300 * MS;
	c.fetch_us = 10 * MS;
	c.join_timeout_us = 10 * SECOND;
	c.fc_limit = w->fc_limit;
	c.data_epoch = h->store.epoch;
	position.seqno = h->delivered;
	if (h->role == MG_ROLE_ARBITRATOR || h->store.empty)
		memset(&position, 0, sizeof(position));
	h->node = mg_node_new(&c, &position, host_time(w, h));
	h->log.generation = 0;
	h->ticked_us = 0;
	h->told_first = 0;
	h->flush_news = false;
	h->state_seen = MG_STATE_OPEN;
	h->led_epoch = 0;
	for (int p = 0; p < MG_PEERS_MAX; p++)
		h->conn[p].to = -1;
	host_desync(w, h);
}

/* One between the effects of a start, or of a busy round. */
static void
maybe_arm_crash(world *w, sim_host *h)
{
	h->crash_after = -1;
	if (w->faults && percent(w, 8))
	{
		h->crash_after = (int) rnd(w, 12);
		h->crash_how = (crash_kind) rnd(w, 3);
		h->restart_in_us = spread(w, 20 * MS, 2 * SECOND);
	}
}

void
host_start(world *w, sim_host *h)
{
	mg_input	in = {.peer = -1,.slot = -1};

	if (h->running)
		return;
	log_open(w, h);
	h->running = true;
	h->paused = false;
	h->evicted = h->leaving = h->needs_snapshot = false;
	h->join_us = 0;
	h->delivered = store_published(h);
	h->view_id = 0;
	for (mg_seqno s = h->log.last; s >= h->log.first && s > 0 && h->view_id == 0; s--)
		if (log_at(&h->log, s)->bytes[2] == MG_ENTRY_VIEW)
			h->view_id = s;
	node_make(w, h);
	w->sum.restarts++;
	TRACE(w, h->index, "starts at seqno %llu, log %llu..%llu%s%s", (unsigned long long) h->delivered,
		  (unsigned long long) h->log.first, (unsigned long long) h->log.last,
		  h->log.damaged ? ", damaged" : "", h->have_saved ? "" : ", no identity");
	if (h->have_saved)
	{
		in.type = MG_IN_RESTORE;
		in.bytes = h->saved;
		in.len = h->saved_len;
		host_feed(w, h, &in);
		for (mg_seqno s = h->log.first; s <= h->log.last; s++)
		{
			in.type = MG_IN_RECOVER;
			in.seqno = s;
			in.bytes = log_at(&h->log, s)->bytes;
			in.len = log_at(&h->log, s)->len;
			host_feed(w, h, &in);
		}
		if (h->log.damaged)
			w->sum.damaged_starts++;
		in = (mg_input) {.type = MG_IN_START,.peer = -1,.slot = -1,.up = !h->log.damaged};
		host_feed(w, h, &in);
	}
	maybe_arm_crash(w, h);
	h->round_us = 0;
	host_wake(w, h, 1);
}

/* A new core over the same data: the cluster went on without the old one. */
static void
node_renew(world *w, sim_host *h)
{
	for (int c = 0; c < w->n_clients; c++)
		client_unknown(w, h, c);
	h->n_release = 0;			/* they were the old member's */
	mg_node_free(h->node);
	mg_effects_reset(&h->fx);
	h->delivered = h->store.committed;
	h->evicted = h->needs_snapshot = false;
	node_make(w, h);
	if (h->have_saved)
	{
		mg_input	in = {.type = MG_IN_RESTORE,.peer = -1,.slot = -1};

		in.bytes = h->saved;
		in.len = h->saved_len;
		host_feed(w, h, &in);
		if (h->delivered >= h->log.first && h->delivered <= h->log.last && h->delivered > 0)
		{
			in = (mg_input) {.type = MG_IN_RECOVER,.peer = -1,.slot = -1,.seqno = h->delivered};
			in.bytes = log_at(&h->log, h->delivered)->bytes;
			in.len = log_at(&h->log, h->delivered)->len;
			host_feed(w, h, &in);
		}
	}
	TRACE(w, h->index, "a new node at seqno %llu", (unsigned long long) h->delivered);
}

void
host_rejoin(world *w, sim_host *h)
{
	node_renew(w, h);
	join(w, h);
}

static void
restart_call(world *w, int a, int life)
{
	if (!w->hosts[a].running && (int) w->hosts[a].life == life)
		host_start(w, &w->hosts[a]);
}

static void
release_inbox(sim_host *h)
{
	for (size_t i = 0; i < h->n_inbox; i++)
		frame_release(h->inbox[i]);
	h->n_inbox = 0;
}

/* restart_in_us < 0: somebody else starts it again. */
void
host_crash(world *w, sim_host *h, crash_kind how, int64_t restart_in_us)
{
	static const char *const names[] = {"the provider ends", "killed", "power failure"};

	if (!h->running)
		return;
	TRACE(w, h->index, "%s (log written %llu flushed %llu last %llu, store %llu durable %llu)", names[how],
		  (unsigned long long) h->log.written, (unsigned long long) h->log.flushed,
		  (unsigned long long) h->log.last, (unsigned long long) h->store.committed,
		  (unsigned long long) h->store.durable);
	if (how == CRASH_PROVIDER)
		w->sum.provider_ends++;
	else if (how == CRASH_KILL)
		w->sum.kills++;
	else
		w->sum.power_failures++;
	mg_node_free(h->node);
	h->node = NULL;
	mg_effects_reset(&h->fx);
	mg_effects_reset(&h->doing);
	release_inbox(h);
	h->running = h->paused = h->flushing = false;
	transfer_end_of(w, h);
	h->quiet = how == CRASH_POWER;
	h->round_us = 0;
	h->crash_after = -1;
	h->life++;
	h->alone_us = 0;
	h->wait_bootstrap = false;

	/* The process's buffer is gone in any case. */
	log_lose(w, h, h->log.written, false);
	if (how == CRASH_POWER)
	{
		mg_seqno	keep = h->log.flushed + rnd(w, h->log.written - h->log.flushed + 1);

		log_lose(w, h, keep, percent(w, 50));
	}
	store_restart(w, h, how);

	for (int i = 0; i < w->n; i++)
		for (int p = 0; p < MG_PEERS_MAX; p++)
			if (w->hosts[i].running && w->hosts[i].conn[p].to == h->index)
				host_wake(w, &w->hosts[i], between(w, 100, 3 * MS));
	if (restart_in_us >= 0)
		world_call(w, restart_in_us, restart_call, h->index, (int) h->life);
}

/* ------------------------------------------------------------------ connections */

static void
tell_link(world *w, sim_host *h, int p, bool up)
{
	mg_input	in = {.type = MG_IN_LINK,.peer = p,.up = up,.slot = -1};

	TRACE(w, h->index, "link to n%d %s", h->conn[p].to, up ? "up" : "down");
	host_feed(w, h, &in);
}

/* A closed socket is seen at once; where nothing comes through, only after a while, if ever. */
static void
watch_links(world *w, sim_host *h)
{
	for (int p = 0; p < MG_PEERS_MAX; p++)
	{
		sim_conn   *c = &h->conn[p];
		sim_host   *to;
		bool		through;

		if (c->to < 0)
			continue;
		to = &w->hosts[c->to];
		through = world_reaches(w, h->index, c->to) && world_reaches(w, c->to, h->index);
		if (!c->up)
		{
			if (w->now < c->retry_us)
				continue;
			c->retry_us = w->now + between(w, 10 * MS, 60 * MS);
			if (!to->running || to->paused || !through)
				continue;
			c->up = true;
			c->life = to->life;
			c->broken_us = 0;
			tell_link(w, h, p, true);
			continue;
		}
		if (to->running && to->life == c->life && through)
		{
			c->broken_us = 0;
			continue;
		}
		if (c->broken_us == 0)
		{
			c->broken_us = w->now;
			c->patience_us = percent(w, 30) ? between(w, 200 * MS, 2 * SECOND) : 10 * SECOND;
		}
		if ((through && to->life != c->life && (to->running || !to->quiet)) ||
			w->now - c->broken_us > c->patience_us)
		{
			c->up = false;
			c->broken_us = 0;
			c->retry_us = w->now + between(w, 5 * MS, 60 * MS);
			tell_link(w, h, p, false);
		}
	}
}

/* -------------------------------------------------------------------- effects */

static void
send_frame(world *w, sim_host *h, uint32_t mask, const uint8_t *bytes, size_t len)
{
	sim_frame  *f = malloc(sizeof(sim_frame) + len);

	f->refs = 1;
	f->len = (uint32_t) len;
	memcpy(f->bytes, bytes, len);
	for (int p = 0; p < MG_PEERS_MAX; p++)
		if ((mask & (UINT32_C(1) << p)) != 0 && h->conn[p].to >= 0)
			world_send(w, h->index, h->conn[p].to, f);
	frame_release(f);
}

static void
append(world *w, sim_host *h, const mg_effect *e, const uint8_t *at)
{
	sim_entry	entry;

	if (h->role == MG_ROLE_ARBITRATOR)
		sim_fail(w, "the arbitrator %s is told to append seqno %llu", h->name, (unsigned long long) e->seqno);
	log_append(w, h, e->seqno, at, e->len);
	if (at[2] == MG_ENTRY_VIEW)
	{
		entry_parse(w, at, e->len, &entry);
		if (entry.view != NULL)
		{
			h->view_id = e->seqno;
			if (entry.view->members_id == e->seqno || (host_leads(h) && entry.view->members_id > mg_node_delivered(h->node)))
				h->change_id = e->seqno;
			TRACE(w, h->index, "append view %llu epoch %llu: %u members, %u joined, %u left (%u)", (unsigned long long) e->seqno,
				  (unsigned long long) entry.h.epoch, entry.view->n, entry.view->joined, entry.view->left, entry.view->left_how);
		}
		entry_free(&entry);
	}
}

/* Returns false if a record cannot be read: the process ends. */
static bool
read_log(world *w, sim_host *h, int peer, mg_seqno from)
{
	mg_input	in = {.type = MG_IN_LOG_READ,.peer = peer,.slot = -1,.generation = h->log.generation};

	w->sum.log_reads++;
	for (mg_seqno s = from; log_has(&h->log, s) && s < from + READ_RECORDS; s++)
	{
		sim_record *r = log_at(&h->log, s);

		if (r->bad)
		{
			TRACE(w, h->index, "cannot read seqno %llu", (unsigned long long) s);
			return false;
		}
		in.seqno = s;
		in.bytes = r->bytes;
		in.len = r->len;
		host_feed(w, h, &in);
	}
	h->again = true;
	return true;
}

/* Returns false if the log cannot be read. */
static bool
deliver(world *w, sim_host *h, const mg_effect *e)
{
	sim_delivery d;
	sim_entry	entry;
	sim_record *r;

	if (e->seqno != h->delivered + 1)
		sim_fail(w, "%s is handed seqno %llu behind seqno %llu", h->name, (unsigned long long) e->seqno,
				 (unsigned long long) h->delivered);
	if (!log_has(&h->log, e->seqno))
		sim_fail(w, "%s is handed seqno %llu, which is not in its log", h->name, (unsigned long long) e->seqno);
	r = log_at(&h->log, e->seqno);
	if (r->bad)
		return false;
	h->delivered = e->seqno;
	if (e->epoch > h->store.epoch)
		h->store.epoch = e->epoch;
	entry_parse(w, r->bytes, r->len, &entry);
	check_delivery(w, h, e, r, &entry);

	memset(&d, 0, sizeof(d));
	d.seqno = e->seqno;
	d.kind = e->kind;
	d.client = -1;
	d.trx_id = entry.trx_id;
	d.hash = r->hash;
	d.passed = e->kind != MG_DELIVER_SKIP;
	d.n_ops = entry.n_ops;
	memcpy(d.ops, entry.ops, sizeof(d.ops));
	entry_free(&entry);
	if (e->kind == MG_DELIVER_LOCAL)
	{
		client_passed(w, h, e->slot, e->seqno, d.trx_id);
		d.client = e->slot;
	}
	store_deliver(w, h, &d);
	return true;
}

static void
save(world *w, sim_host *h, const uint8_t *bytes, size_t len)
{
	(void) w;
	h->saved = mg_realloc(h->saved, len + 1);
	memcpy(h->saved, bytes, len);
	h->saved_len = len;
	h->have_saved = true;
	h->log.damaged = false;
}

static void
answer(world *w, sim_host *h, bool ok, const char *text)
{
	TRACE(w, h->index, "answer: %s (%s)", text, ok ? "done" : "refused");
	if (h->wait_bootstrap)
	{
		h->wait_bootstrap = false;
		w->sum.bootstraps_refused += !ok;
		return;
	}
	if (h->leaving)
	{
		h->leaving = false;
		if (ok && strstr(mg_node_reason(h->node), "as its last member") != NULL)
		{
			/* While it waited for its turn the others went: it has to come back. */
			host_crash(w, h, CRASH_PROVIDER, SECOND);
		}
		else if (ok)
		{
			h->out = true;
			h->n_release = 0;
			w->sum.leaves++;
		}
		return;
	}
	if (ok)
	{
		w->sum.joins++;
		h->join_us = 0;
		return;
	}
	w->sum.join_refusals++;
	h->join_us = w->now + SECOND;
}

/* The core cannot join with the data that is here. */
static void
needs_snapshot(world *w, sim_host *h, bool nothing_lost, const char *text)
{
	TRACE(w, h->index, "needs a snapshot: %s", text);
	if (!nothing_lost && !check_may_be_inconsistent(w))
		sim_fail(w, "%s is refused: %s", h->name, text);
	h->needs_snapshot = true;
	h->leaving = false;
	h->join_us = w->now + between(w, 0, 200 * MS);
	host_wake(w, h, 1);
}

/* Carries out one effect; false if the process has ended with it. */
static bool
carry_out(world *w, sim_host *h, const mg_effect *e, const uint8_t *at)
{
	bool		writes = e->type == MG_FX_APPEND || e->type == MG_FX_SAVE || e->type == MG_FX_TRUNCATE ||
		e->type == MG_FX_RESET_LOG;

	if (writes && h->disk_full)
	{
		w->sum.disk_full++;
		TRACE(w, h->index, "no space on the disk");
		host_crash(w, h, CRASH_PROVIDER, SECOND);
		return false;
	}
	switch (e->type)
	{
		case MG_FX_NONE:
			break;
		case MG_FX_CONNECT:
			h->conn[e->peer] = (sim_conn) {.to = world_host_of(w, (const char *) at),.retry_us = w->now + between(w, 0, 3 * MS)};
			host_wake(w, h, 3 * MS);
			break;
		case MG_FX_DISCONNECT:
			h->conn[e->peer].to = -1;
			break;
		case MG_FX_SEND:
			send_frame(w, h, e->peers, at, e->len);
			break;
		case MG_FX_SAVE:
			save(w, h, at, e->len);
			break;
		case MG_FX_APPEND:
			append(w, h, e, at);
			break;
		case MG_FX_TRUNCATE:
			w->sum.truncations++;
			TRACE(w, h->index, "truncate behind %llu (last %llu)", (unsigned long long) e->seqno, (unsigned long long) h->log.last);
			check_truncate(w, h, e->seqno);
			if (e->seqno + 1 < h->log.first)
				log_empty(&h->log);
			else
				log_cut(&h->log, e->seqno);
			h->log.written = h->log.last;
			h->log.generation = e->generation;
			break;
		case MG_FX_RESET_LOG:
			w->sum.resets++;
			log_empty(&h->log);
			h->log.generation = e->generation;
			h->log.damaged = false;
			break;
		case MG_FX_READ_LOG:
			if (!read_log(w, h, e->peer, e->seqno))
			{
				host_crash(w, h, CRASH_PROVIDER, SECOND);
				return false;
			}
			break;
		case MG_FX_DELIVER:
			if (!deliver(w, h, e))
			{
				host_crash(w, h, CRASH_PROVIDER, SECOND);
				return false;
			}
			break;
		case MG_FX_VERDICT:
			client_verdict(w, h, e->slot, e->verdict, e->seqno);
			break;
		case MG_FX_UNKNOWN:
			client_unknown(w, h, e->slot);
			break;
		case MG_FX_REFUSED:
			client_refused(w, h, e->slot);
			break;
		case MG_FX_STATE:
			break;
		case MG_FX_EVICTED:
			w->sum.evictions++;
			TRACE(w, h->index, "evicted");
			if (w->log_limit > 0 && (strstr(mg_node_reason(h->node), "log reaches back") != NULL ||
									 strstr(mg_node_reason(h->node), "gone on too far") != NULL))
				check_gone(w, h->identity);	/* what the limit has done */
			h->evicted = true;
			h->leaving = false;
			h->join_us = w->now + between(w, 0, SECOND);
			break;
		case MG_FX_SNAPSHOT:
			needs_snapshot(w, h, e->ok, (const char *) at);
			break;
		case MG_FX_ANSWER:
			{
				uint32_t	life = h->life;

				answer(w, h, e->ok, (const char *) at);
				if (h->life != life)
					return false;
			}
			break;
		case MG_FX_LOG:
			TRACE(w, h->index, "%s", (const char *) at);
			break;
	}
	return true;
}

static void
carry_out_all(world *w, sim_host *h)
{
	mg_effects	swap = h->doing;
	uint32_t	life = h->life;

	h->doing = h->fx;
	h->fx = swap;
	mg_effects_reset(&h->fx);
	for (size_t i = 0; i < h->doing.n; i++)
	{
		const mg_effect *e = &h->doing.list[i];

		if (h->crash_after >= 0 && h->crash_after-- == 0)
		{
			w->sum.mid_effect_crashes++;
			TRACE(w, h->index, "ends between two effects");
			host_crash(w, h, h->crash_how, h->restart_in_us);
			return;
		}
		if (!carry_out(w, h, e, h->doing.bytes.data + e->at) || h->life != life)
			return;
	}
	mg_effects_reset(&h->doing);
}

/* ---------------------------------------------------------------------- a round */

/* Its own way in, as a restarted server's settings say. */
static void
maybe_join(world *w, sim_host *h)
{
	mg_node_state state = mg_node_get_state(h->node);

	if (state == MG_STATE_INCONSISTENT && !h->wants_snapshot)
	{
		if (!check_may_be_inconsistent(w))
			sim_fail(w, "%s is inconsistent: %s", h->name, mg_node_reason(h->node));
		h->wants_snapshot = true;
		h->join_us = w->now + between(w, 0, 2 * SECOND);	/* its operator has it rebuilt */
	}
	if (h->out || h->wait_bootstrap || h->store.n_pending > 0 || w->now < h->join_us || h->transfer != 0)
		return;
	if (h->needs_snapshot)
		transfer_begin(w, h);
	else if (h->evicted || state == MG_STATE_INCONSISTENT)
		host_rejoin(w, h);
	else if (state == MG_STATE_OPEN)
		join(w, h);
}

static void
take_frames(world *w, sim_host *h)
{
	mg_input	in = {.type = MG_IN_RECEIVE,.peer = -1,.slot = -1};
	size_t		n = h->n_inbox < FRAMES_PER_ROUND ? h->n_inbox : FRAMES_PER_ROUND;

	for (size_t i = 0; i < n; i++)
	{
		in.bytes = h->inbox[i]->bytes;
		in.len = h->inbox[i]->len;
		host_feed(w, h, &in);
		frame_release(h->inbox[i]);
	}
	h->n_inbox -= n;
	if (h->n_inbox > 0)
	{
		memmove(h->inbox, h->inbox + n, h->n_inbox * sizeof(sim_frame *));
		h->again = true;
	}
}

static void
take_flush(world *w, sim_host *h)
{
	mg_input	in = {.type = MG_IN_FLUSHED,.peer = -1,.slot = -1};

	if (!h->flush_news)
		return;
	h->flush_news = false;
	in.seqno = h->log.flushed;
	in.generation = h->log.generation;
	host_feed(w, h, &in);
}

static void
schedule_next(world *w, sim_host *h)
{
	int64_t		next = IDLE_US;
	int64_t		client = clients_next(w, h);

	if (mg_node_wants_tick(h->node))
		next = MS;
	if (client > 0 && client - w->now < next)
		next = client - w->now;
	if (h->store.n_pending > 0 && h->store.commit_us - w->now < next)
		next = h->store.commit_us - w->now;
	if (h->again || next < 1)
		next = 1 + (int64_t) rnd(w, 20);
	host_wake(w, h, next);
}

void
host_round(world *w, sim_host *h)
{
	mg_input	in = {.peer = -1,.slot = -1};
	int64_t		local = host_time(w, h);
	uint32_t	life = h->life;
	int			turn = (int) rnd(w, 3);

	h->round_us = 0;
	if (!h->running || h->paused)
		return;
	h->again = false;
	store_advance(w, h);
	in.type = MG_IN_COMMITTED;
	in.seqno = h->store.committed;
	host_feed(w, h, &in);

	for (int k = 0; k < 3; k++)
		switch ((turn + k) % 3)
		{
			case 0:
				take_frames(w, h);
				break;
			case 1:
				if (h->role == MG_ROLE_DATA)
					clients_act(w, h);
				break;
			case 2:
				take_flush(w, h);
				break;
		}
	if (h->log.first != h->told_first && h->log.last >= h->log.first)
	{
		h->told_first = in.seqno = h->log.first;
		in.type = MG_IN_LOG_FIRST;
		host_feed(w, h, &in);
	}
	watch_links(w, h);
	if (local - h->ticked_us >= MS || h->ticked_us == 0)
	{
		h->ticked_us = local;
		feed_type(w, h, MG_IN_TICK);
	}
	feed_type(w, h, MG_IN_ROUND_END);
	carry_out_all(w, h);
	if (h->life != life || !h->running)
		return;
	h->log.written = h->log.last;
	flush_request(w, h);
	store_publish(h);
	check_host(w, h);
	maybe_join(w, h);
	if (h->life != life || !h->running)
		return;
	log_recycle(w, h);
	schedule_next(w, h);
}

/* ------------------------------------------------------------------------- life */

void
host_init(world *w, int i)
{
	sim_host   *h = &w->hosts[i];

	h->index = i;
	h->crash_after = -1;
	h->log.first = 1;
	h->clock_us = (int64_t) rnd(w, 1000) * SECOND + SECOND;
	h->clock_rate = 1000;
	h->weight = 1;
	h->out = true;
	snprintf(h->name, sizeof(h->name), "n%d", i);
	snprintf(h->address, sizeof(h->address), "n%d:100", i);
	for (int p = 0; p < MG_PEERS_MAX; p++)
		h->conn[p].to = -1;
}

void
host_free(sim_host *h)
{
	mg_node_free(h->node);
	mg_effects_free(&h->fx);
	mg_effects_free(&h->doing);
	release_inbox(h);
	free(h->inbox);
	log_empty(&h->log);
	free(h->log.ring);
	mg_free(h->saved);
	transfer_free(h);
	free(h->store.pending);
}
