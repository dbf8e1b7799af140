/*
 * The toy database of a host, and its clients.
 *
 * Rows with a value and a version.  A transaction locks its rows as PostgreSQL
 * would (strengths and conflict table of its row locks), reads them under the
 * lock, and names in its writeset what it has read: so whoever applies it sees
 * at once whether an update got lost.  An applier clears away local
 * transactions that hold a row and are not sent yet.  Commits happen in seqno
 * order only.
 *
 * The database's own journal is flushed now and then: after a crash the store
 * stands anywhere between the last flush and the last commit.  What was
 * published to it outlives the provider.
 */
#include "sim/sim.h"

#include <stdlib.h>

static const mg_key_strength strength_of[] = {
	[OP_INCREMENT] = MG_KEY_NO_KEY_UPDATE,[OP_REKEY] = MG_KEY_UPDATE,[OP_REFER] = MG_KEY_KEY_SHARE
};

/* ----------------------------------------------------------------------- rows */

bool
op_apply(sim_row *rows, const sim_op *op)
{
	sim_row    *row = &rows[op->row];

	if (row->version != op->version)
		return false;
	if (op->kind == OP_REFER)
		return true;
	if (row->value != op->value)
		return false;
	row->value++;
	if (op->kind == OP_REKEY)
		row->version++;
	return true;
}

uint64_t
rows_content(const world *w, const sim_row *rows)
{
	uint64_t	sum = 0;

	for (int r = 0; r < w->n_rows; r++)
		sum += mg_mix64(((uint64_t) r << 48) + rows[r].value * 65536 + rows[r].version + 1);
	return sum;
}

/* ---------------------------------------------------------------------- store */

/* The position from which a new core has to go on. */
mg_seqno
store_published(const sim_host *h)
{
	const sim_store *s = &h->store;

	return s->n_published > 0 ? s->pending[s->head + s->n_published - 1].seqno : s->committed;
}

void
store_publish(sim_host *h)
{
	h->store.n_published = h->store.n_pending;
}

void
store_deliver(world *w, sim_host *h, const sim_delivery *d)
{
	sim_store  *s = &h->store;

	if (s->n_pending == 0)
	{
		s->head = 0;
		s->commit_us = w->now + (int64_t) rnd(w, (uint64_t) w->apply_us);
	}
	if (s->head + s->n_pending == s->cap)
	{
		if (s->n_pending > 0)
			memmove(s->pending, s->pending + s->head, s->n_pending * sizeof(*d));
		s->head = 0;
		if (s->n_pending * 2 >= s->cap)
		{
			s->cap = s->cap ? s->cap * 2 : 64;
			s->pending = mg_realloc(s->pending, s->cap * sizeof(*d));
		}
	}
	s->pending[s->head + s->n_pending++] = *d;
}

static bool
ops_conflict(const sim_op *a, uint32_t n_a, const sim_op *b, uint32_t n_b)
{
	for (uint32_t i = 0; i < n_a; i++)
		for (uint32_t j = 0; j < n_b; j++)
			if (a[i].row == b[j].row &&
				mg_key_strengths_conflict(strength_of[a[i].kind], strength_of[b[j].kind]))
				return true;
	return false;
}

static void
client_reset(world *w, sim_client *c)
{
	bool		again = c->phase != CLIENT_IDLE;

	memset(c, 0, sizeof(*c));
	c->at_us = w->now + (again ? 1 + (int64_t) rnd(w, (uint64_t) (2 * w->think_us)) : 0);
}

static void
release_later(sim_host *h, uint64_t trx)
{
	if (h->n_release < sizeof(h->release) / sizeof(h->release[0]))
		h->release[h->n_release++] = trx;
}

/* Whoever works on a row that an applier needs is cleared away. */
static void
clear_the_way(world *w, sim_host *h, const sim_delivery *d)
{
	for (int i = 0; i < w->n_clients; i++)
	{
		sim_client *c = &h->clients[i];
		sim_trx    *t = &w->trx[c->trx];

		if ((c->phase != CLIENT_WORKING && c->phase != CLIENT_SENT && c->phase != CLIENT_PASSED) ||
			!ops_conflict(t->ops, t->n, d->ops, d->n_ops))
			continue;
		if (c->phase != CLIENT_WORKING)
		{
			c->must_fail = true;
			continue;
		}
		w->sum.cleared_away++;
		t->state = TRX_ABORTED;
		if (c->reserved)
			release_later(h, c->trx);
		client_reset(w, c);
	}
}

static void
commit_one(world *w, sim_host *h)
{
	sim_store  *s = &h->store;
	sim_delivery *d = &s->pending[s->head];
	sim_client *c = d->client >= 0 ? &h->clients[d->client] : NULL;

	if (d->seqno != s->committed + 1)
		sim_fail(w, "the store of %s commits seqno %llu behind seqno %llu", h->name, (unsigned long long) d->seqno,
				 (unsigned long long) s->committed);
	if (c != NULL && (c->phase != CLIENT_PASSED || c->seqno != d->seqno))
		c = NULL;
	if (d->passed)
	{
		if (c == NULL)
			clear_the_way(w, h, d);
		for (uint32_t i = 0; i < d->n_ops; i++)
			if (!op_apply(s->rows, &d->ops[i]) && !s->orphan)
				sim_fail(w, "%s cannot apply seqno %llu: row %u has value %llu version %llu, not %llu and %llu",
						 h->name, (unsigned long long) d->seqno, d->ops[i].row,
						 (unsigned long long) s->rows[d->ops[i].row].value,
						 (unsigned long long) s->rows[d->ops[i].row].version,
						 (unsigned long long) d->ops[i].value, (unsigned long long) d->ops[i].version);
	}
	s->committed = d->seqno;
	s->head++;
	s->n_pending--;
	if (s->n_published > 0)
		s->n_published--;
	if (c != NULL)
	{
		sim_trx    *t = &w->trx[c->trx];

		TRACE(w, h->index, "client %d: trx %llu committed at seqno %llu", d->client, (unsigned long long) c->trx,
			  (unsigned long long) d->seqno);
		t->state = TRX_ACKED;
		t->seqno = d->seqno;
		w->sum.acked++;
		h->n_acked++;
		if (t->flags == MG_ENTRY_MEMORY)
			w->sum.volatile_acked++;
		client_reset(w, c);
	}
}

static void
store_flush(world *w, sim_host *h)
{
	sim_store  *s = &h->store;

	memcpy(s->durable_rows, s->rows, sizeof(s->rows));
	s->durable = s->committed;
	s->flush_us = w->now + between(w, 5 * MS, 300 * MS);
}

void
store_advance(world *w, sim_host *h)
{
	sim_store  *s = &h->store;
	bool		any = false;

	while (s->n_published > 0 && s->commit_us <= w->now)
	{
		commit_one(w, h);
		any = true;
		s->commit_us += (int64_t) rnd(w, (uint64_t) w->apply_us);
	}
	if (s->commit_us < w->now)
		s->commit_us = w->now;
	if (any && !s->orphan && s->committed <= w->n_history &&
		rnd(w, 16) == 0)
	{
		/* A reader's snapshot is a prefix of the one history. */
		w->sum.snapshot_reads++;
		if (s->committed > 0 && rows_content(w, s->rows) != w->history[s->committed].content)
			sim_fail(w, "the store of %s at seqno %llu is not what the history makes of it", h->name,
					 (unsigned long long) s->committed);
	}
	if (w->now >= s->flush_us && !h->disk_full)
		store_flush(w, h);
}

void
store_set(sim_store *s, const sim_row *rows, mg_seqno committed, uint64_t epoch)
{
	memcpy(s->rows, rows, sizeof(s->rows));
	memcpy(s->durable_rows, rows, sizeof(s->rows));
	s->committed = s->durable = committed;
	s->n_pending = s->n_published = s->head = 0;
	s->orphan = s->empty = false;
	s->epoch = epoch;
}

/* ------------------------------------------------------------- after a crash */

static void
trx_unknown(world *w, sim_client *c)
{
	w->trx[c->trx].state = TRX_UNKNOWN;
	w->sum.unknown++;
}

void
store_restart(world *w, sim_host *h, crash_kind how)
{
	sim_store  *s = &h->store;
	mg_seqno	to;

	s->n_pending = s->n_published;
	for (int i = 0; i < w->n_clients; i++)
	{
		sim_client *c = &h->clients[i];

		if (c->phase == CLIENT_IDLE)
			continue;
		if (how == CRASH_PROVIDER)
		{
			if (c->phase == CLIENT_WORKING && !c->reserved)
				continue;
			if (c->phase == CLIENT_PASSED && s->n_published > 0 &&
				c->seqno <= s->pending[s->head + s->n_published - 1].seqno)
				continue;		/* the verdict was told, the turn comes */
		}
		if (c->phase == CLIENT_SENT || c->phase == CLIENT_PASSED)
			trx_unknown(w, c);
		else
			w->trx[c->trx].state = c->phase == CLIENT_WORKING ? TRX_ABORTED : TRX_UNKNOWN;
		client_reset(w, c);
	}
	h->n_release = 0;			/* the member's new life ends what the old one has reserved */
	if (how == CRASH_PROVIDER)
		return;

	s->n_pending = s->n_published = s->head = 0;
	to = s->durable + rnd(w, s->committed - s->durable + 1);
	if (s->orphan && to > w->n_history)
		to = s->durable;
	memcpy(s->rows, s->durable_rows, sizeof(s->rows));
	for (mg_seqno q = s->durable + 1; q <= to; q++)
		if (w->history[q].passed)
			for (uint32_t i = 0; i < w->history[q].e.n_ops; i++)
				(void) op_apply(s->rows, &w->history[q].e.ops[i]);
	s->committed = to;
	if (!s->orphan && to > 0)
		s->epoch = w->history[to].e.h.epoch;	/* noted before the first commit of that epoch */
	store_flush(w, h);
}

/* -------------------------------------------------------------------- clients */

static uint64_t
trx_new(world *w, sim_host *h)
{
	sim_trx    *t;

	if (++w->n_trx >= w->trx_cap)
	{
		w->trx_cap = w->trx_cap ? w->trx_cap * 2 : 4096;
		w->trx = mg_realloc(w->trx, w->trx_cap * sizeof(sim_trx));
	}
	t = &w->trx[w->n_trx];
	memset(t, 0, sizeof(*t));
	t->state = TRX_WORKING;
	t->host = h->index;
	if (percent(w, w->volatile_percent))
		t->flags = MG_ENTRY_MEMORY;
	t->n = 1 + (uint8_t) rnd(w, OPS_MAX);
	for (int i = 0; i < t->n; i++)
	{
		sim_op	   *op = &t->ops[i];
		bool		again;

		op->kind = percent(w, 70) ? OP_INCREMENT : percent(w, 50) ? OP_REKEY : OP_REFER;
		do
		{
			again = false;
			op->row = (uint32_t) rnd(w, (uint64_t) w->n_rows);
			for (int j = 0; j < i; j++)
				again = again || t->ops[j].row == op->row;
		} while (again);
	}
	if (t->ops[0].kind == OP_REFER)
		t->ops[0].kind = OP_INCREMENT;
	return w->n_trx;
}

/* All locks or none: nobody here waits for a lock. */
static bool
lock_rows(world *w, sim_host *h, sim_client *me)
{
	sim_trx    *t = &w->trx[me->trx];

	for (int i = 0; i < w->n_clients; i++)
	{
		sim_client *c = &h->clients[i];

		if (c != me && (c->phase == CLIENT_WORKING || c->phase == CLIENT_SENT || c->phase == CLIENT_PASSED) &&
			ops_conflict(w->trx[c->trx].ops, w->trx[c->trx].n, t->ops, t->n))
			return false;
	}
	for (int i = 0; i < t->n; i++)
	{
		t->ops[i].value = h->store.rows[t->ops[i].row].value;
		t->ops[i].version = h->store.rows[t->ops[i].row].version;
	}
	return true;
}

static void
put_u32(uint8_t **p, uint32_t v)
{
	mg_store_u32(*p, v);
	*p += 4;
}

static void
put_u64(uint8_t **p, uint64_t v)
{
	mg_store_u64(*p, v);
	*p += 8;
}

/* Builds the writeset and hands it to the core. */
static void
submit(world *w, sim_host *h, int slot, uint64_t trx, uint16_t flags)
{
	uint8_t		bytes[MG_WRITESET_HEADER_BYTES + OPS_MAX * 8 + OPS_MAX * 32 + 2048];
	uint8_t    *p = bytes + MG_WRITESET_HEADER_BYTES;
	sim_trx    *t = &w->trx[trx];
	mg_key		keys[OPS_MAX];
	uint32_t	n = t->n;
	mg_writeset_header hd;
	mg_input	in = {.type = MG_IN_SUBMIT,.slot = slot,.peer = -1};
	uint32_t	crc;
	bool		bare = slot < 0;

	memset(&hd, 0, sizeof(hd));
	hd.flags = flags;
	hd.last_seen = h->store.committed;
	hd.trx_id = trx;
	hd.time_us = (uint64_t) w->now;
	if (bare)
		n = 0;
	for (uint32_t i = 0; i < n; i++)
		keys[i] = mg_key_make(mg_mix64(t->ops[i].row + 1), (flags & MG_WS_RESERVE) != 0 ? MG_KEY_UPDATE : strength_of[t->ops[i].kind]);
	mg_keys_normalize(keys, &n);
	for (uint32_t i = 0; i < n; i++)
		put_u64(&p, keys[i]);
	hd.n_keys = n;
	if (!bare && (flags & MG_WS_RESERVE) == 0)
	{
		uint32_t	more = rnd(w, 40) == 0 ? (uint32_t) rnd(w, 1800) : (uint32_t) rnd(w, 40);

		for (int i = 0; i < t->n; i++)
		{
			*p++ = MG_EVENT_UPDATE;
			put_u32(&p, 21);
			*p++ = t->ops[i].kind;
			put_u32(&p, t->ops[i].row);
			put_u64(&p, t->ops[i].value);
			put_u64(&p, t->ops[i].version);
			hd.n_events++;
		}
		*p++ = MG_EVENT_MESSAGE;
		put_u32(&p, more);
		memset(p, 0x5a, more);
		p += more;
		hd.n_events++;
	}
	hd.events_len = (uint32_t) (p - bytes) - MG_WRITESET_HEADER_BYTES - n * 8;
	crc = mg_writeset_crc_begin(&hd);
	crc = mg_crc32c(crc, bytes + MG_WRITESET_HEADER_BYTES, (size_t) (p - bytes) - MG_WRITESET_HEADER_BYTES);
	mg_writeset_header_encode(&hd, crc, bytes);
	in.flags = t->flags;
	in.last_seen = hd.last_seen;
	in.bytes = bytes;
	in.len = (size_t) (p - bytes);
	if (slot >= 0)
	{
		h->clients[slot].last_seen = hd.last_seen;
		t->state = TRX_SENT;
	}
	TRACE(w, h->index, "client %d: submits trx %llu%s%s last_seen %llu durability %d", slot, (unsigned long long) trx,
		  (flags & MG_WS_RESERVE) != 0 ? " (reserve)" : "", (flags & MG_WS_RELEASE) != 0 ? " (release)" : "",
		  (unsigned long long) hd.last_seen, t->flags);
	host_feed(w, h, &in);
}

static void
client_begin(world *w, sim_host *h, sim_client *c)
{
	c->trx = trx_new(w, h);
	if (percent(w, w->reserve_percent))
	{
		c->phase = CLIENT_RESERVING;
		w->trx[c->trx].reserve = true;
		w->trx[c->trx].flags = MG_ENTRY_MAJORITY;
		submit(w, h, (int) (c - h->clients), c->trx, MG_WS_RESERVE);
		return;
	}
	if (!lock_rows(w, h, c))
	{
		w->trx[c->trx].state = TRX_ABORTED;
		c->at_us = w->now + 1 + (int64_t) rnd(w, (uint64_t) w->think_us);
		return;
	}
	c->phase = CLIENT_WORKING;
	c->at_us = w->now + (int64_t) rnd(w, (uint64_t) w->work_us + 1);
}

static void
client_act(world *w, sim_host *h, int slot)
{
	sim_client *c = &h->clients[slot];

	switch (c->phase)
	{
		case CLIENT_IDLE:
			if (!w->load)
				break;
			/* Sometimes somebody tries it where it cannot work. */
			if (!host_works(h) && rnd(w, 20) != 0)
			{
				c->at_us = w->now + 20 * MS + (int64_t) rnd(w, (uint64_t) w->think_us);
				break;
			}
			client_begin(w, h, c);
			break;
		case CLIENT_RESERVED:
			if (h->store.committed < c->seqno || !lock_rows(w, h, c))
			{
				c->at_us = w->now + MS;
				break;
			}
			c->phase = CLIENT_WORKING;
			c->reserved = true;
			c->at_us = w->now + (int64_t) rnd(w, (uint64_t) w->work_us + 1);
			if (rnd(w, 5) == 0)
			{
				w->trx[c->trx].state = TRX_ABORTED;
				release_later(h, c->trx);
				client_reset(w, c);
			}
			break;
		case CLIENT_WORKING:
			c->phase = CLIENT_SENT;
			submit(w, h, slot, c->trx, c->reserved ? MG_WS_RELEASE : 0);
			break;
		case CLIENT_RESERVING:
		case CLIENT_SENT:
		case CLIENT_PASSED:
			break;
	}
}

static bool
acts(const sim_client *c)
{
	return c->phase == CLIENT_IDLE || c->phase == CLIENT_RESERVED || c->phase == CLIENT_WORKING;
}

void
clients_act(world *w, sim_host *h)
{
	while (h->n_release > 0 && host_works(h))
		submit(w, h, -1, h->release[--h->n_release], MG_WS_RELEASE);
	for (int i = 0; i < w->n_clients; i++)
		if (acts(&h->clients[i]) && h->clients[i].at_us <= w->now)
			client_act(w, h, i);
}

int64_t
clients_next(const world *w, const sim_host *h)
{
	int64_t		next = 0;

	if (h->role != MG_ROLE_DATA)
		return 0;
	for (int i = 0; i < w->n_clients; i++)
	{
		const sim_client *c = &h->clients[i];

		if (acts(c) && (c->phase != CLIENT_IDLE || w->load) && (next == 0 || c->at_us < next))
			next = c->at_us;
	}
	return next;
}

bool
clients_idle(const sim_host *h)
{
	for (int i = 0; i < CLIENTS_MAX; i++)
		if (h->clients[i].phase != CLIENT_IDLE)
			return false;
	return h->n_release == 0 || h->out;
}

/* ---- outcomes ---- */

static sim_client *
client_of(world *w, sim_host *h, int slot, const char *what)
{
	if (slot < 0 || slot >= w->n_clients ||
		(h->clients[slot].phase != CLIENT_SENT && h->clients[slot].phase != CLIENT_RESERVING))
		sim_fail(w, "%s: %s for slot %d, where nobody waits for it", h->name, what, slot);
	return &h->clients[slot];
}

void
client_passed(world *w, sim_host *h, int slot, mg_seqno seqno, uint64_t trx_id)
{
	sim_client *c = client_of(w, h, slot, "delivery");

	if (c->trx != trx_id || c->phase != CLIENT_SENT)
		sim_fail(w, "%s: seqno %llu is of trx %llu, slot %d waits for trx %llu", h->name, (unsigned long long) seqno,
				 (unsigned long long) trx_id, slot, (unsigned long long) c->trx);
	if (c->must_fail)
		sim_fail(w, "%s: trx %llu passed at seqno %llu (last_seen %llu) though a row of its was changed meanwhile", h->name,
				 (unsigned long long) trx_id, (unsigned long long) seqno, (unsigned long long) c->last_seen);
	c->phase = CLIENT_PASSED;
	c->seqno = seqno;
}

void
client_verdict(world *w, sim_host *h, int slot, mg_verdict verdict, mg_seqno seqno)
{
	sim_client *c = client_of(w, h, slot, "verdict");
	sim_trx    *t = &w->trx[c->trx];

	if (verdict == MG_VERDICT_PASS)
	{
		if (c->phase != CLIENT_RESERVING)
			sim_fail(w, "%s: slot %d is told that it passed, without a delivery", h->name, slot);
		w->sum.reservations++;
		c->phase = CLIENT_RESERVED;
		c->seqno = seqno;
		c->at_us = w->now;
		t->state = TRX_WORKING;
		return;
	}
	TRACE(w, h->index, "client %d: trx %llu failed at seqno %llu: %s", slot, (unsigned long long) c->trx,
		  (unsigned long long) seqno, mg_verdict_name(verdict));
	w->sum.conflicts++;
	if (verdict == MG_VERDICT_TOO_OLD)
	{
		w->sum.too_old++;
		if (!w->clocks_lie)
			sim_fail(w, "%s: trx %llu at seqno %llu (last_seen %llu) is below the floor", h->name, (unsigned long long) c->trx,
					 (unsigned long long) seqno, (unsigned long long) c->last_seen);
	}
	if (c->phase == CLIENT_SENT)
		t->seqno = seqno;
	t->state = TRX_FAILED;
	client_reset(w, c);
}

void
client_unknown(world *w, sim_host *h, int slot)
{
	sim_client *c = &h->clients[slot];

	if (c->phase != CLIENT_SENT && c->phase != CLIENT_RESERVING)
		return;
	TRACE(w, h->index, "client %d: trx %llu unknown", slot, (unsigned long long) c->trx);
	if (c->reserved || c->phase == CLIENT_RESERVING)
		release_later(h, c->trx);
	trx_unknown(w, c);
	client_reset(w, c);
}

void
client_refused(world *w, sim_host *h, int slot)
{
	sim_client *c;

	if (slot < 0)
		return;					/* a release: the member's next view ends what it holds, or it is sent again */
	c = client_of(w, h, slot, "refusal");
	w->sum.refused++;
	TRACE(w, h->index, "client %d: trx %llu refused", slot, (unsigned long long) c->trx);
	if (c->reserved)
		release_later(h, c->trx);
	w->trx[c->trx].state = TRX_REFUSED;
	client_reset(w, c);
}
