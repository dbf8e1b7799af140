/*
 * What must hold after every step.
 *
 * One history: the first node that delivers a seqno writes it down, everybody
 * else must deliver the same bytes with the same verdict.  The verdict must be
 * the oracle's: a walk over the history as the rules of certification say them,
 * without an index.  A store kept along with it shows a lost update at once.
 *
 * What a client was told is compared with the history when either of them
 * changes, and all of it at the end.
 *
 * Entries of durability memory or local may get lost by crashes; then the
 * history forks.  It may do so only if from there on there is nothing else, and
 * every one of these entries was among what some crash has lost; who has the
 * lost entries in its store must never deliver anything on top of them.
 */
#include "sim/sim.h"

#include <stdlib.h>

/* -------------------------------------------------------------------- entries */

void
entry_parse(world *w, const uint8_t *bytes, size_t len, sim_entry *e)
{
	mg_reader	r;
	mg_writeset ws;
	mg_event	event;
	uint32_t	at = 0;

	memset(e, 0, sizeof(*e));
	mg_reader_init(&r, bytes, len);
	if (mg_entry_decode(&r, &e->h) != MG_OK)
		sim_fail(w, "an entry of %zu bytes cannot be decoded", len);
	if (e->h.type == MG_ENTRY_VIEW)
	{
		e->view = malloc(sizeof(mg_view));
		if (mg_view_decode(&r, e->view) != MG_OK)
		{
			entry_free(e);
			sim_fail(w, "a view's entry cannot be decoded");
		}
		return;
	}
	if (mg_writeset_open(r.p, mg_reader_left(&r), &ws) != MG_OK)
		sim_fail(w, "a writeset in the order is not what a client has sent");
	e->is_writeset = true;
	e->ws_flags = ws.header.flags;
	e->last_seen = ws.header.last_seen;
	e->trx_id = ws.header.trx_id;
	e->n_keys = ws.header.n_keys;
	for (uint32_t i = 0; i < e->n_keys && i < OPS_MAX; i++)
		e->keys[i] = mg_writeset_key(&ws, i);
	while (mg_writeset_next_event(&ws, &at, &event))
		if (event.type == MG_EVENT_UPDATE && e->n_ops < OPS_MAX)
		{
			sim_op	   *op = &e->ops[e->n_ops++];

			op->kind = event.body[0];
			op->row = mg_load_u32(event.body + 1);
			op->value = mg_load_u64(event.body + 5);
			op->version = mg_load_u64(event.body + 13);
		}
}

void
entry_free(sim_entry *e)
{
	free(e->view);
	e->view = NULL;
}

/* --------------------------------------------------------------------- oracle */

static bool
keys_conflict(const sim_entry *a, const sim_entry *b)
{
	for (uint32_t i = 0; i < a->n_keys; i++)
		for (uint32_t j = 0; j < b->n_keys; j++)
			if (a->keys[i] >> 2 == b->keys[j] >> 2 && (a->keys[i] & 3) + (b->keys[j] & 3) >= 3)
				return true;
	return false;
}

static bool
oracle_passes(world *w, mg_seqno seqno, const sim_entry *e, mg_seqno floor)
{
	if (e->last_seen < floor || e->last_seen >= seqno)
		return false;
	for (uint32_t i = 0; i < w->n_reserved; i++)
		if (w->reserved[i].origin != e->h.origin &&
			keys_conflict(&w->history[w->reserved[i].seqno].e, e))
			return false;
	if ((e->ws_flags & MG_WS_RESERVE) != 0)
		return true;
	for (mg_seqno s = e->last_seen + 1; s < seqno; s++)
	{
		const sim_history *other = &w->history[s];

		if (other->passed && other->e.is_writeset && (other->e.ws_flags & MG_WS_RESERVE) == 0 &&
			other->e.h.origin != e->h.origin && keys_conflict(&other->e, e))
			return false;
	}
	return true;
}

/* The last seqno that must be committed before this one is applied. */
static mg_seqno
oracle_depends(world *w, mg_seqno seqno, const sim_entry *e, mg_seqno floor)
{
	for (mg_seqno s = seqno - 1; s > floor; s--)
	{
		const sim_history *other = &w->history[s];

		if (other->passed && other->e.is_writeset && (other->e.ws_flags & MG_WS_RESERVE) == 0 &&
			keys_conflict(&other->e, e))
			return s;
	}
	return 0;
}

static void
oracle_conclude(world *w, mg_seqno seqno, const sim_history *x)
{
	const sim_entry *e = &x->e;

	if (e->view != NULL)
	{
		uint32_t	kept = 0;

		for (uint32_t i = 0; i < w->n_reserved; i++)
		{
			int			m = mg_view_find(e->view, w->reserved[i].origin);

			/* Who has left, or has forgotten it in a new life, holds nothing any more. */
			if (m >= 0 && e->view->members[m].life == w->reserved[i].life)
				w->reserved[kept++] = w->reserved[i];
		}
		w->n_reserved = kept;
		w->last_view = seqno;
		return;
	}
	if ((e->ws_flags & MG_WS_RELEASE) != 0)
		for (uint32_t i = w->n_reserved; i-- > 0;)
			if (w->reserved[i].origin == e->h.origin && w->reserved[i].trx_id == e->trx_id)
				w->reserved[i] = w->reserved[--w->n_reserved];
	if (x->passed && (e->ws_flags & MG_WS_RESERVE) != 0 &&
		w->n_reserved < sizeof(w->reserved) / sizeof(w->reserved[0]))
		w->reserved[w->n_reserved++] = (sim_reservation) {e->h.origin, (uint32_t) (e->h.msgno >> 40), e->trx_id, seqno};
}

/* -------------------------------------------------------------------- history */

static bool view_survives(world *w, const mg_view *view, const sim_host *without);

void
check_lost(world *w, mg_seqno seqno)
{
	if (seqno >= w->lost_cap)
	{
		size_t		cap = w->lost_cap ? w->lost_cap : 1024;

		while (cap <= seqno)
			cap *= 2;
		w->lost = mg_realloc(w->lost, cap);
		memset(w->lost + w->lost_cap, 0, cap - w->lost_cap);
		w->lost_cap = cap;
	}
	w->lost[seqno] = 1;
}

void
check_log_lost(world *w, const sim_host *h)
{
	for (mg_seqno s = h->log.first; s <= h->log.last; s++)
		check_lost(w, s);
}

void
check_destroyed(world *w, sim_host *h)
{
	h->destroyed = true;
	h->destroyed_at = w->n_history;
	check_gone(w, h->identity);
}

void
check_gone(world *w, mg_member_id id)
{
	if (id != 0 && w->n_dead < sizeof(w->dead) / sizeof(w->dead[0]))
		w->dead[w->n_dead++] = id;
}

static bool
is_volatile(const sim_entry *e)
{
	return e->is_writeset && e->h.flags == MG_ENTRY_MEMORY;
}

/* Only the loss of what was not promised to last explains a node whose data differs. */
bool
check_may_be_inconsistent(const world *w)
{
	return w->sum.forks > 0 || (w->n_history > 0 && is_volatile(&w->history[w->n_history].e) &&
								w->n_history < w->lost_cap && w->lost[w->n_history] != 0);
}

/* The history up to `to` again, for what is kept along with it. */
static void
history_replay(world *w, mg_seqno to)
{
	memset(w->rows, 0, sizeof(w->rows));
	w->n_reserved = 0;
	w->last_view = 0;
	for (mg_seqno s = 1; s <= to; s++)
	{
		sim_history *x = &w->history[s];

		if (x->passed)
			for (uint32_t i = 0; i < x->e.n_ops; i++)
				(void) op_apply(w->rows, &x->e.ops[i]);
		oracle_conclude(w, s, x);
	}
}

/* Another entry than before at `seqno`: is that what the promise allows? */
static void
history_fork(world *w, sim_host *h, mg_seqno seqno)
{
	for (mg_seqno s = seqno; s <= w->n_history; s++)
		if (!is_volatile(&w->history[s].e) || s >= w->lost_cap || w->lost[s] == 0)
			sim_fail(w, "%s delivers another entry at seqno %llu than was delivered before (epoch %llu), up to seqno %llu",
					 h->name, (unsigned long long) seqno, (unsigned long long) w->history[seqno].e.h.epoch,
					 (unsigned long long) w->n_history);
	w->sum.forks++;
	TRACE(w, h->index, "entries of volatile durability from seqno %llu to %llu are lost", (unsigned long long) seqno,
		  (unsigned long long) w->n_history);
	for (mg_seqno s = seqno; s <= w->n_history; s++)
	{
		sim_trx    *t = w->history[s].e.trx_id <= w->n_trx ? &w->trx[w->history[s].e.trx_id] : NULL;

		if (t != NULL && t->found == s)
		{
			t->found = 0;
			if (t->state == TRX_ACKED || t->state == TRX_FAILED)
			{
				w->sum.volatile_lost++;
				t->state = TRX_UNKNOWN;
			}
		}
		entry_free(&w->history[s].e);
	}
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *o = &w->hosts[i];

		if (o != h && o->role == MG_ROLE_DATA && (o->store.committed >= seqno || (o->running && o->delivered >= seqno)))
			o->store.orphan = true;
	}
	w->n_history = seqno - 1;
	history_replay(w, seqno - 1);
}

/* A change of members above `seqno` that is being agreed: the least that is in any log.  0: none. */
static mg_seqno
change_above(world *w, mg_seqno seqno)
{
	mg_seqno	change = 0;

	for (int i = 0; i < w->n; i++)
		if (w->hosts[i].change_id > seqno && log_has(&w->hosts[i].log, w->hosts[i].change_id) &&
			(change == 0 || w->hosts[i].change_id < change))
			change = w->hosts[i].change_id;
	return change;
}

/*
 * How many of those that count have it on disk?  What crashes cannot take away
 * any more.  That is a majority of the data; or, if a change of members that is
 * being agreed takes it along, of all, where arbitrators stand for that change.
 */
static void
check_durable(world *w, sim_host *h, mg_seqno seqno, uint64_t hash)
{
	const sim_history *x = &w->history[seqno];
	const mg_view *view = x->view_before != 0 ? w->history[x->view_before].e.view : NULL;
	mg_seqno	change = change_above(w, seqno);
	uint64_t	all = 0,
				yes = 0,
				data = 0,
				data_yes = 0,
				disks = 0;

	if (view == NULL || !x->e.is_writeset || is_volatile(&x->e))
		return;
	for (uint32_t m = 0; m < view->n; m++)
	{
		int			i = world_host_of(w, view->members[m].address);
		sim_host   *o = i >= 0 ? &w->hosts[i] : NULL;
		bool		arbitrator = view->members[m].role == MG_ROLE_ARBITRATOR;
		bool		has = o == NULL || o->destroyed ||
			(arbitrator && change != 0 && (!o->running || mg_node_stands_for(o->node) >= change));

		/* It has given that membership up, and does not count where that is known. */
		if (o != NULL && (o->running ? mg_node_self(o->node) : o->identity) != view->members[m].id)
			has = true;

		all += view->members[m].weight;
		if (o != NULL && log_has(&o->log, seqno) && seqno <= o->log.flushed && log_at(&o->log, seqno)->hash == hash)
		{
			has = true;
			disks++;
		}
		/* Recycled: it had been flushed. */
		if (o != NULL && seqno < o->log.first && o->log.first > 1)
			has = true;
		if (has)
			yes += view->members[m].weight;
		if (!arbitrator)
			data += view->members[m].weight;
		if (!arbitrator && has)
			data_yes += view->members[m].weight;
	}
	if (disks == 0 || (data_yes * 2 <= data && (change == 0 || yes * 2 <= all)))
	{
		for (int i = 0; i < w->n; i++)
			TRACE(w, i, "has flushed seqno %llu, member %u", (unsigned long long) w->hosts[i].log.flushed, w->hosts[i].identity);
		sim_fail(w, "%s delivers seqno %llu, which only %llu of %llu have on disk", h->name, (unsigned long long) seqno,
				 (unsigned long long) data_yes, (unsigned long long) data);
	}
}

static void
check_client_told(world *w, mg_seqno seqno)
{
	const sim_history *x = &w->history[seqno];
	uint64_t	id = x->e.trx_id;
	sim_trx    *t;

	if (!x->e.is_writeset)
		return;
	if (id == 0 || id > w->n_trx)
		sim_fail(w, "seqno %llu is of trx %llu, which nobody has sent", (unsigned long long) seqno, (unsigned long long) id);
	t = &w->trx[id];
	if ((x->e.ws_flags & MG_WS_RESERVE) != 0)
	{
		if (t->reserve_found != 0)
			sim_fail(w, "the reservation of trx %llu has two places: seqno %llu and %llu", (unsigned long long) id,
					 (unsigned long long) t->reserve_found, (unsigned long long) seqno);
		t->reserve_found = seqno;
		return;
	}
	if (x->e.n_ops == 0)
		return;					/* a bare release */
	if (t->found != 0)
		sim_fail(w, "trx %llu has two places: seqno %llu and %llu", (unsigned long long) id,
				 (unsigned long long) t->found, (unsigned long long) seqno);
	t->found = seqno;
	if (!x->passed)
		return;
	if (t->state == TRX_UNKNOWN)
		w->sum.unknown_passed++;
	if (t->state == TRX_FAILED || t->state == TRX_REFUSED || t->state == TRX_ABORTED || t->state == TRX_WORKING)
		sim_fail(w, "trx %llu is at seqno %llu, but its client was told that nothing happened (%d)",
				 (unsigned long long) id, (unsigned long long) seqno, t->state);
}

/*
 * A flipped bit that nobody has met yet, on a disk that the view cannot do
 * without because the others have left it since: it does not happen.
 */
static void
mend_what_is_needed(world *w, const mg_view *view)
{
	if (view_survives(w, view, NULL))
		return;
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		if (h->running && h->destroyed && h->log.n_bad > 0 && !h->log.damaged && mg_view_find(view, h->identity) >= 0)
		{
			TRACE(w, i, "the log is whole again");
			log_unspoil(&h->log);
			h->destroyed = false;
		}
	}
}

/* The first delivery of the next seqno. */
static void
history_add(world *w, sim_host *h, mg_seqno seqno, const sim_record *record, sim_entry *e, bool passed)
{
	sim_history *x;
	sim_history *before;

	if (seqno + 1 >= w->history_cap)
	{
		w->history_cap = w->history_cap ? w->history_cap * 2 : 4096;
		w->history = mg_realloc(w->history, w->history_cap * sizeof(sim_history));
		if (seqno == 1)
			memset(&w->history[0], 0, sizeof(sim_history));
	}
	w->n_history = seqno;
	w->sum.history++;
	x = &w->history[seqno];
	before = &w->history[seqno - 1];
	x->hash = record->hash;
	x->passed = passed;
	x->e = *e;
	e->view = NULL;
	x->floor = x->e.h.floor > before->floor ? x->e.h.floor : before->floor;
	x->view_before = w->last_view;
	if (x->floor >= seqno)
		sim_fail(w, "seqno %llu has floor %llu", (unsigned long long) seqno, (unsigned long long) x->floor);
	if (x->e.h.epoch < before->e.h.epoch)
		sim_fail(w, "epoch %llu at seqno %llu behind epoch %llu", (unsigned long long) x->e.h.epoch,
				 (unsigned long long) seqno, (unsigned long long) before->e.h.epoch);
	if (x->e.is_writeset)
	{
		bool		expected = oracle_passes(w, seqno, &x->e, x->floor);

		if (passed != expected)
			sim_fail(w, "seqno %llu of member %u (trx %llu, last_seen %llu, floor %llu) %s at %s, the oracle says it %s",
					 (unsigned long long) seqno, x->e.h.origin, (unsigned long long) x->e.trx_id,
					 (unsigned long long) x->e.last_seen, (unsigned long long) x->floor, passed ? "passes" : "fails",
					 h->name, expected ? "passes" : "fails");
	}
	if (passed)
		for (uint32_t i = 0; i < x->e.n_ops; i++)
			if (!op_apply(w->rows, &x->e.ops[i]))
				sim_fail(w, "lost update: seqno %llu (trx %llu of member %u, last_seen %llu) read row %u with value %llu version %llu, it has %llu and %llu",
						 (unsigned long long) seqno, (unsigned long long) x->e.trx_id, x->e.h.origin,
						 (unsigned long long) x->e.last_seen, x->e.ops[i].row,
						 (unsigned long long) x->e.ops[i].value, (unsigned long long) x->e.ops[i].version,
						 (unsigned long long) w->rows[x->e.ops[i].row].value,
						 (unsigned long long) w->rows[x->e.ops[i].row].version);
	x->content = rows_content(w, w->rows);
	check_client_told(w, seqno);
	check_durable(w, h, seqno, record->hash);
	if (x->e.view != NULL)
	{
		const mg_view *last = w->last_view != 0 ? w->history[w->last_view].e.view : NULL;

		w->sum.views++;
		if (last != NULL && last->leader != x->e.view->leader)
			w->sum.leader_changes++;
		if (x->e.view->joined != 0 && x->e.view->left_how == MG_LEFT_RESTARTED)
			w->sum.rejoined_views++;
	}
	oracle_conclude(w, seqno, x);
	if (x->e.view != NULL)
		mend_what_is_needed(w, x->e.view);
}

void
check_delivery(world *w, sim_host *h, const mg_effect *fx, const sim_record *record, sim_entry *e)
{
	mg_seqno	seqno = fx->seqno;
	bool		passed = e->is_writeset && fx->verdict == MG_VERDICT_PASS;
	bool		applies = passed && e->n_ops > 0;

	w->sum.deliveries++;
	if (h->store.orphan)
		sim_fail(w, "%s delivers seqno %llu on top of entries that the cluster has lost", h->name, (unsigned long long) seqno);
	if (seqno <= w->n_history && w->history[seqno].hash != record->hash)
		history_fork(w, h, seqno);
	if (seqno > w->n_history + 1)
		sim_fail(w, "%s delivers seqno %llu, nobody has delivered seqno %llu", h->name, (unsigned long long) seqno,
				 (unsigned long long) seqno - 1);
	if (seqno == w->n_history + 1)
		history_add(w, h, seqno, record, e, passed);
	else if (w->history[seqno].passed != passed)
		sim_fail(w, "%s finds that seqno %llu %s, others that it %s", h->name, (unsigned long long) seqno,
				 passed ? "passes" : "fails", passed ? "fails" : "passes");
	if (applies != (fx->kind != MG_DELIVER_SKIP))
		sim_fail(w, "%s: seqno %llu is delivered as %s", h->name, (unsigned long long) seqno,
				 applies ? "nothing to apply" : "something to apply");
	if (applies)
	{
		mg_seqno	needs = oracle_depends(w, seqno, e, w->history[seqno].floor);

		if (fx->depends >= seqno || fx->depends < needs)
			sim_fail(w, "%s: seqno %llu depends on %llu, delivered as depending on %llu", h->name,
					 (unsigned long long) seqno, (unsigned long long) needs, (unsigned long long) fx->depends);
	}
}

/* What was delivered anywhere may be cut nowhere. */
void
check_truncate(world *w, sim_host *h, mg_seqno seqno)
{
	if (seqno < h->delivered)
		sim_fail(w, "%s is told to cut its log behind seqno %llu, it has delivered seqno %llu", h->name,
				 (unsigned long long) seqno, (unsigned long long) h->delivered);
	for (mg_seqno s = seqno + 1; s <= h->log.last && s <= w->n_history; s++)
		if (log_has(&h->log, s) && log_at(&h->log, s)->hash == w->history[s].hash && !is_volatile(&w->history[s].e))
			sim_fail(w, "%s is told to cut seqno %llu, which was delivered", h->name, (unsigned long long) s);
}

/* ----------------------------------------------------------------------- nodes */

/* Its log must hold all that was delivered: elections choose such a one. */
static void
check_new_leader(world *w, sim_host *h)
{
	/* One whose votes came late: a later epoch has gone on already. */
	if (w->n_history > 0 && w->history[w->n_history].e.h.epoch > mg_node_epoch(h->node))
		return;
	for (mg_seqno s = h->log.first > 1 ? h->log.first : 1; s <= w->n_history; s++)
	{
		if (is_volatile(&w->history[s].e))
			continue;
		if (!log_has(&h->log, s) || log_at(&h->log, s)->hash != w->history[s].hash)
			sim_fail(w, "%s leads epoch %llu without seqno %llu, which was delivered", h->name,
					 (unsigned long long) mg_node_epoch(h->node), (unsigned long long) s);
	}
}

/* Who is connected with `h`, in any direction and over others, weighs so much of its view. */
static bool
is_among_majority(world *w, const sim_host *h)
{
	const mg_view *view = mg_node_view(h->node);
	bool		in[HOSTS_MAX] = {false};
	bool		more = true;
	uint64_t	all = 0,
				reached = 0;
	bool		half = false;	/* is enough while a member has lost its identity */

	in[h->index] = true;
	while (more)
	{
		more = false;
		for (int i = 0; i < w->n; i++)
			for (int j = 0; j < w->n; j++)
				if (in[i] && !in[j] && w->hosts[j].running && !w->hosts[j].paused &&
					(world_reaches(w, i, j) || world_reaches(w, j, i)))
					in[j] = more = true;
	}
	for (uint32_t m = 0; m < view->n; m++)
	{
		int			i = world_host_of(w, view->members[m].address);

		all += view->members[m].weight;
		if (i < 0 || in[i])
			reached += view->members[m].weight;
		if (i < 0 || w->hosts[i].identity != view->members[m].id)
			half = true;
	}
	return reached * 2 > all || (half && reached * 2 == all);
}

/* Less than a majority is there: writes must have ended within the time to notice it. */
static void
check_alone(world *w, sim_host *h)
{
	bool		alone = !is_among_majority(w, h);

	if (!alone || w->clocks_lie)
	{
		h->alone_us = 0;
		return;
	}
	if (h->alone_us == 0 || h->alone_us < w->stirred_us || h->alone_in != mg_node_view(h->node)->members_id)
		h->alone_us = w->now;
	h->alone_in = mg_node_view(h->node)->members_id;	/* who counts has changed: it is alone since then */
	if (host_works(h) && w->now - h->alone_us > 2 * w->suspect_us + SECOND / 2)
		sim_fail(w, "%s has less than a majority for %lld ms and still takes writes", h->name,
				 (long long) ((w->now - h->alone_us) / MS));
}

static bool
is_weightless(const mg_view *view, mg_member_id id)
{
	int			m = mg_view_find(view, id);

	return m >= 0 && view->members[m].weight == 0;
}

void
check_host(world *w, sim_host *h)
{
	mg_node_state state = mg_node_get_state(h->node);
	uint64_t	epoch = mg_node_epoch(h->node);

	h->identity = mg_node_self(h->node);
	if (state != h->state_seen)
	{
		TRACE(w, h->index, "is %s now: %s", mg_node_state_name(state), mg_node_reason(h->node));
		h->state_seen = state;
	}
	if (host_leads(h) && h->led_epoch != epoch)
	{
		h->led_epoch = epoch;
		w->sum.elections++;
		TRACE(w, h->index, "leads epoch %llu", (unsigned long long) epoch);
		if (h->role == MG_ROLE_ARBITRATOR)
			sim_fail(w, "the arbitrator %s leads", h->name);
		if (is_weightless(mg_node_view(h->node), h->identity) && h->change_id <= mg_node_view(h->node)->id)
			sim_fail(w, "%s leads, whose weight is 0", h->name);
		if (epoch < EPOCHS_MAX)
		{
			if (w->epoch_leader[epoch] != 0 && w->epoch_leader[epoch] != h->index + 1)
				sim_fail(w, "two leaders in epoch %llu: n%d and %s", (unsigned long long) epoch,
						 w->epoch_leader[epoch] - 1, h->name);
			w->epoch_leader[epoch] = (int8_t) (h->index + 1);
		}
		check_new_leader(w, h);
		if (w->faults && percent(w, w->unlucky))
		{
			h->crash_after = (int) rnd(w, 60);
			h->crash_how = (crash_kind) rnd(w, 3);
			h->restart_in_us = spread(w, 20 * MS, 3 * SECOND);
		}
	}
	if (h->destroyed && host_works(h) && h->log.n_bad == 0 &&
		(h->role == MG_ROLE_ARBITRATOR || h->log.flushed >= h->destroyed_at))
		h->destroyed = false;
	if (mg_node_delivered(h->node) > mg_node_held(h->node) && h->role == MG_ROLE_DATA)
		sim_fail(w, "%s has delivered seqno %llu and holds seqno %llu", h->name,
				 (unsigned long long) mg_node_delivered(h->node), (unsigned long long) mg_node_held(h->node));
	check_alone(w, h);
}

/* ------------------------------------------------------------- what may be broken */

/* Another member of the view has every change of members that was ever appended, so that no arbitrator asks for more. */
static bool
somebody_has_all(world *w, const mg_view *view, const sim_host *without)
{
	mg_seqno	newest = 0;
	uint64_t	hash = 0;

	for (int i = 0; i < w->n; i++)
	{
		sim_host   *o = &w->hosts[i];

		if (o->change_id > newest && log_has(&o->log, o->change_id))
		{
			newest = o->change_id;
			hash = log_at(&o->log, newest)->hash;
		}
	}
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *o = &w->hosts[i];

		if (o != without && o->role == MG_ROLE_DATA && !o->out && !o->destroyed &&
			mg_view_find(view, o->identity) >= 0 && !o->log.damaged &&
			(newest < o->log.first || (log_has(&o->log, newest) && log_at(&o->log, newest)->hash == hash)) && o->log.flushed >= newest && o->log.flushed >= w->n_history)
			return true;
	}
	return false;
}

static bool
view_survives(world *w, const mg_view *view, const sim_host *without)
{
	bool		arbitrated = false;
	uint64_t	all = 0,
				left = 0,
				data = 0,
				data_left = 0;

	for (uint32_t m = 0; m < view->n; m++)
	{
		int			i = world_host_of(w, view->members[m].address);
		bool		good = i >= 0 && &w->hosts[i] != without && !w->hosts[i].destroyed && !w->hosts[i].log.damaged &&
			w->hosts[i].identity == view->members[m].id;

		arbitrated = arbitrated || view->members[m].role == MG_ROLE_ARBITRATOR;
		all += view->members[m].weight;
		left += good ? view->members[m].weight : 0;
		if (view->members[m].role == MG_ROLE_DATA)
		{
			data += view->members[m].weight;
			data_left += good ? view->members[m].weight : 0;
		}
	}
	/* Arbitrators let a view go on with less than a majority of the data: then that less must stay. */
	return left * 2 > all && data_left * 2 > data && (!arbitrated || somebody_has_all(w, view, without));
}

/* Do all of its members that hold data, `without` this one, know the last view as delivered? */
static bool
all_know_the_view(const world *w, const sim_host *without)
{
	const mg_view *view = w->history[w->last_view].e.view;

	for (uint32_t m = 0; m < view->n; m++)
	{
		int			i = world_host_of(w, view->members[m].address);
		const sim_host *h = i >= 0 ? &w->hosts[i] : NULL;

		if (h != NULL && h != without && h->role == MG_ROLE_DATA &&
			(!h->running || mg_node_delivered(h->node) < view->members_id))
			return false;
	}
	return true;
}

/* Are the others a majority in every view on its way, with all that was delivered?  The run leaves the promise such disks. */
bool
check_may_miss(world *w, const sim_host *h)
{
	/* A node that has to be rebuilt because of what was lost from memory would count as well. */
	if (w->volatile_percent > 0)
		return false;
	if (w->last_view == 0 || !view_survives(w, w->history[w->last_view].e.view, h))
		return false;
	if (!all_know_the_view(w, h))
	{
		/* To them the members before count as well. */
		mg_seqno	before = w->history[w->history[w->last_view].e.view->members_id].view_before;

		if (before != 0 && !view_survives(w, w->history[before].e.view, h))
			return false;
	}
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *o = &w->hosts[i];

		for (mg_seqno s = o->log.first > w->last_view ? o->log.first : w->last_view; s <= o->log.last; s++)
			if (log_has(&o->log, s) && log_at(&o->log, s)->bytes[2] == MG_ENTRY_VIEW)
			{
				sim_entry	e;
				bool		survives;

				entry_parse(w, log_at(&o->log, s)->bytes, log_at(&o->log, s)->len, &e);
				survives = view_survives(w, e.view, h);
				entry_free(&e);
				if (!survives)
					return false;
			}
	}
	return true;
}

/*
 * Does everybody who is away still find the cluster by somebody it knows, if
 * this one leaves?  Who finds nobody waits for an operator's leave() and join().
 */
bool
check_may_leave(world *w, const sim_host *leaver)
{
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *o = &w->hosts[i];
		sim_entry	e;
		bool		found = false;

		if (o == leaver || o->out || o->role != MG_ROLE_DATA || host_works(o) || !log_has(&o->log, o->view_id))
			continue;
		entry_parse(w, log_at(&o->log, o->view_id)->bytes, log_at(&o->log, o->view_id)->len, &e);
		for (uint32_t m = 0; e.view != NULL && m < e.view->n; m++)
		{
			int			k = world_host_of(w, e.view->members[m].address);

			found = found || (k >= 0 && k != i && &w->hosts[k] != leaver && !w->hosts[k].out && !w->hosts[k].leaving);
		}
		entry_free(&e);
		if (!found)
			return false;
	}
	return true;
}

/* ----------------------------------------------------------------- the operator */

static bool
is_dead(const world *w, mg_member_id id)
{
	for (uint32_t k = 0; k < w->n_dead; k++)
		if (w->dead[k] == id)
			return true;
	return false;
}

/*
 * Those of this view that are still there do not suffice for it, and what is
 * missing was destroyed, or holds what memory has lost.
 */
static bool
is_beyond_repair(const world *w, const mg_view *view)
{
	uint64_t	all = 0,
				there = 0;
	mg_seqno	data = 0,
				log = 0;
	bool		explained = false;

	for (uint32_t m = 0; m < view->n; m++)
	{
		int			i = world_host_of(w, view->members[m].address);
		const sim_host *h = i >= 0 ? &w->hosts[i] : NULL;

		all += view->members[m].weight;
		if (h == NULL || !h->running || mg_node_self(h->node) != view->members[m].id || host_is(h, MG_STATE_INCONSISTENT))
		{
			explained = explained || is_dead(w, view->members[m].id) || (h != NULL && h->store.orphan);
			continue;
		}
		there += view->members[m].weight;
		if (h->role == MG_ROLE_DATA && h->store.committed > data)
			data = h->store.committed;
		if (h->role == MG_ROLE_DATA && view->members[m].weight > 0 && h->log.last > log)
			log = h->log.last;
	}
	return there * 2 <= all ? explained : data > log;
}

bool
check_needs_operator(world *w)
{
	if (w->last_view != 0 && is_beyond_repair(w, w->history[w->last_view].e.view))
		return true;
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];
		bool		yes = false;

		/* The newest view in its log: the node cannot do without its members. */
		if (h->running && h->view_id > w->last_view && log_has(&h->log, h->view_id) &&
			log_at(&h->log, h->view_id)->bytes[2] == MG_ENTRY_VIEW)
		{
			sim_entry	e;

			entry_parse(w, log_at(&h->log, h->view_id)->bytes, log_at(&h->log, h->view_id)->len, &e);
			yes = is_beyond_repair(w, e.view);
			entry_free(&e);
		}
		if (yes)
			return true;
	}
	return false;
}

/* How far does this node hold what was delivered, in its data and its log? */
static mg_seqno
held_of_history(world *w, sim_host *h)
{
	mg_seqno	s = h->store.orphan || h->store.empty ? 0 : h->store.committed;

	if (s < h->log.first && s + 1 < h->log.first)
		return s;
	while (s + 1 <= w->n_history && log_has(&h->log, s + 1) && log_at(&h->log, s + 1)->hash == w->history[s + 1].hash)
		s++;
	return s;
}

sim_host *
check_most_complete(world *w)
{
	sim_host   *best = NULL;

	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		if (h->role == MG_ROLE_DATA && h->running && !h->out && !h->store.empty && !h->store.orphan &&
			(best == NULL || held_of_history(w, h) > held_of_history(w, best)))
			best = h;
	}
	return best;
}

/* --------------------------------------------------------------------- the end */

void
check_end(world *w)
{
	uint64_t	acked[ROWS_MAX] = {0};
	uint64_t	unknown[ROWS_MAX] = {0};

	for (uint64_t id = 1; id <= w->n_trx; id++)
	{
		const sim_trx *t = &w->trx[id];
		bool		passed = t->found != 0 && w->history[t->found].passed;

		if (t->state == TRX_ACKED && (!passed || t->found != t->seqno))
			sim_fail(w, "trx %llu was acknowledged at seqno %llu; the history has it %s", (unsigned long long) id,
					 (unsigned long long) t->seqno, t->found == 0 ? "nowhere" : "elsewhere, or failed");
		if ((t->state == TRX_FAILED || t->state == TRX_REFUSED || t->state == TRX_ABORTED) && passed)
			sim_fail(w, "trx %llu is in the history though its client was told that nothing happened", (unsigned long long) id);
		if (t->state == TRX_FAILED && t->seqno != 0 && t->found != 0 && t->found != t->seqno)
			sim_fail(w, "trx %llu failed at seqno %llu, it was told seqno %llu", (unsigned long long) id,
					 (unsigned long long) t->found, (unsigned long long) t->seqno);
		if (t->state == TRX_SENT)
			sim_fail(w, "trx %llu of n%d has got no answer", (unsigned long long) id, t->host);
		for (int i = 0; i < t->n; i++)
			if (t->ops[i].kind != OP_REFER)
			{
				acked[t->ops[i].row] += t->state == TRX_ACKED;
				unknown[t->ops[i].row] += t->state == TRX_UNKNOWN;
			}
	}
	for (int r = 0; r < w->n_rows; r++)
		if (w->rows[r].value < acked[r] || w->rows[r].value > acked[r] + unknown[r])
			sim_fail(w, "row %d has value %llu after %llu acknowledged and %llu unknown increments", r,
					 (unsigned long long) w->rows[r].value, (unsigned long long) acked[r], (unsigned long long) unknown[r]);
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		if (h->out || h->role != MG_ROLE_DATA)
			continue;
		if (h->store.committed != w->n_history || rows_content(w, h->store.rows) != w->history[w->n_history].content)
			sim_fail(w, "the store of %s is not what the history makes of it", h->name);
	}
	if (w->n_reserved != 0)
		sim_fail(w, "the reservation of trx %llu of member %u is never given back", (unsigned long long) w->reserved[0].trx_id,
				 w->reserved[0].origin);
}
