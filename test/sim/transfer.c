/*
 * Snapshots of a member's store, and old copies of a disk.
 *
 * A node that cannot join with the data it has takes a snapshot of one of the
 * members that its core was offered: the donor stands aside (DONOR) and keeps its
 * log for as long, and a while longer; what arrives is the donor's store as it is
 * at the end.  Whoever of the two dies, or cannot be reached when it matters: the
 * old data stays as it was, and another node asks anew.  With the new data come
 * no log and no identity.
 *
 * `cp` of a stopped node takes store, log and identity.  Put back later, it is a
 * disk that has lost what it held since, and counts as destroyed.  The host sees
 * that its state file is not the one that it has written, and says so to the core;
 * or it does not (a snapshot of a virtual machine): then the others must know the
 * member's later life.
 */
#include "sim/sim.h"

#include <stdlib.h>

#define PIN_US		(5 * SECOND)	/* the log is kept so long for whoever has got a snapshot */
#define SAVED_LIFE_AT	(2 + 16 + 4)	/* in what the core saves: core/group/state.c */

/* --------------------------------------------------------------------- snapshots */

static void
unpin(world *w, int a, int b)
{
	(void) b;
	if (w->hosts[a].donations > 0 || w->hosts[a].pinned == 0)
		return;
	w->hosts[a].pinned = 0;
	if (w->hosts[a].running)
		host_desync(w, &w->hosts[a]);
}

static void
donation_ends(world *w, sim_host *donor, uint32_t life)
{
	if (donor->life != life || donor->donations == 0)
		return;					/* it has ended with its process */
	if (--donor->donations == 0)
	{
		host_desync(w, donor);
		world_call(w, PIN_US, unpin, donor->index, 0);
	}
}

static bool
can_donate(world *w, const sim_host *h, const sim_host *donor)
{
	return donor != h && donor->role == MG_ROLE_DATA && host_works(donor) && !donor->paused &&
		world_reaches(w, h->index, donor->index) && world_reaches(w, donor->index, h->index);
}

static void
transfer_arrives(world *w, int a, int number)
{
	sim_host   *h = &w->hosts[a];
	sim_host   *donor = &w->hosts[h->donor];
	bool		ok;

	if (h->transfer != number)
		return;					/* ended before */
	h->transfer = 0;
	ok = donor->life == h->donor_life && can_donate(w, h, donor) && !h->disk_full;
	if (!ok || (w->faults && percent(w, 10)))
	{
		TRACE(w, a, "the transfer from %s fails", donor->name);
		w->sum.snapshots_failed++;
		donation_ends(w, donor, h->donor_life);
		host_rejoin(w, h);
		host_wake(w, h, 1);
		return;
	}
	TRACE(w, a, "has got %s's data at seqno %llu", donor->name, (unsigned long long) donor->store.committed);
	w->sum.snapshots++;
	donation_ends(w, donor, h->donor_life);
	host_crash(w, h, CRASH_KILL, between(w, 5 * MS, 300 * MS));
	check_log_lost(w, h);
	log_empty(&h->log);
	h->log.damaged = false;
	h->have_saved = false;
	h->wants_snapshot = false;
	store_set(&h->store, donor->store.rows, donor->store.committed, donor->store.epoch);
	h->store.orphan = donor->store.orphan;
}

void
transfer_begin(world *w, sim_host *h)
{
	const mg_view *offer = mg_node_offer(h->node);
	uint32_t	first = offer->n > 0 ? (uint32_t) rnd(w, offer->n) : 0;

	for (uint32_t m = 0; m < offer->n; m++)
	{
		int			i = world_host_of(w, offer->members[(first + m) % offer->n].sql_address);
		sim_host   *donor = i >= 0 ? &w->hosts[i] : NULL;

		if (donor == NULL || !can_donate(w, h, donor))
			continue;
		h->transfer = ++w->transfers;
		h->donor = i;
		h->donor_life = donor->life;
		TRACE(w, h->index, "takes a snapshot from %s", donor->name);
		if (donor->pinned == 0 || donor->store.committed < donor->pinned)
			donor->pinned = donor->store.committed > 0 ? donor->store.committed : 1;
		donor->donations++;
		host_desync(w, donor);
		world_call(w, spread(w, 20 * MS, 5 * SECOND), transfer_arrives, h->index, h->transfer);
		return;
	}
	h->join_us = w->now + SECOND;
	host_rejoin(w, h);
}

void
transfer_end_of(world *w, sim_host *h)
{
	if (h->transfer != 0)
		donation_ends(w, &w->hosts[h->donor], h->donor_life);
	h->transfer = 0;
	h->donations = 0;
	h->pinned = 0;
}

/* ------------------------------------------------------------------------ disks */

void
transfer_wipe(world *w, sim_host *h)
{
	static const sim_row nothing[ROWS_MAX];

	host_crash(w, h, CRASH_KILL, between(w, 50 * MS, SECOND));
	if (h->running)
		return;
	TRACE(w, h->index, "the disk is lost, a new one is put in");
	w->sum.wipes++;
	check_destroyed(w, h);
	check_log_lost(w, h);
	log_empty(&h->log);
	h->log.damaged = false;
	h->have_saved = false;
	store_set(&h->store, nothing, 0, 0);
	h->store.empty = h->role == MG_ROLE_DATA;
}

void
transfer_take_copy(world *w, sim_host *h)
{
	sim_copy   *c = &h->copy;

	if (h->running || !h->have_saved || h->log.damaged || h->log.n_bad > 0)
		return;
	TRACE(w, h->index, "a copy of the disk is taken at seqno %llu", (unsigned long long) h->store.committed);
	log_copy(&c->log, &h->log);
	c->saved = mg_realloc(c->saved, h->saved_len + 1);
	memcpy(c->saved, h->saved, h->saved_len);
	c->saved_len = h->saved_len;
	memcpy(c->rows, h->store.rows, sizeof(c->rows));
	c->committed = h->store.committed;
	c->epoch = h->store.epoch;
	c->there = true;
}

/* The newest view in the copy's log; the caller frees it. */
static mg_view *
copy_view(world *w, sim_copy *c)
{
	sim_entry	e;

	for (mg_seqno s = c->log.last; s >= c->log.first && s > 0; s--)
		if (log_at(&c->log, s)->bytes[2] == MG_ENTRY_VIEW)
		{
			entry_parse(w, log_at(&c->log, s)->bytes, log_at(&c->log, s)->len, &e);
			return e.view;
		}
	return NULL;
}

/* All that the copy would ask know the member in a later life than it would begin. */
static bool
others_know(world *w, const sim_host *h, sim_copy *c)
{
	const mg_view *now = w->last_view != 0 ? w->history[w->last_view].e.view : NULL;
	mg_view    *then = copy_view(w, c);
	bool		same = now != NULL && then != NULL && now->n == then->n;
	uint32_t	life = mg_load_u32(c->saved + SAVED_LIFE_AT);

	for (uint32_t m = 0; same && m < now->n; m++)
	{
		int			i = world_host_of(w, now->members[m].address);

		same = now->members[m].id == then->members[m].id && now->members[m].role == MG_ROLE_DATA && i >= 0;
		if (same && i == h->index)
			same = now->members[m].life > life;
		else if (same)
			same = w->hosts[i].log.flushed >= w->last_view && w->hosts[i].log.first <= w->last_view &&
				w->hosts[i].identity == now->members[m].id && !w->hosts[i].destroyed;
	}
	free(then);
	return same;
}

void
transfer_restore_copy(world *w, sim_host *h)
{
	sim_copy   *c = &h->copy;

	if (h->running)
		host_crash(w, h, CRASH_KILL, between(w, 50 * MS, SECOND));
	else
		store_restart(w, h, CRASH_KILL);	/* the server may run on where only the provider has ended */
	if (h->running || !c->there)
		return;
	TRACE(w, h->index, "the disk is replaced by a copy from seqno %llu", (unsigned long long) c->committed);
	w->sum.restored_copies++;
	check_destroyed(w, h);
	check_log_lost(w, h);
	log_copy(&h->log, &c->log);
	h->log.damaged = !others_know(w, h, c);
	w->sum.unnoticed_copies += !h->log.damaged;
	h->saved = mg_realloc(h->saved, c->saved_len + 1);
	memcpy(h->saved, c->saved, c->saved_len);
	h->saved_len = c->saved_len;
	h->have_saved = true;
	store_set(&h->store, c->rows, c->committed, c->epoch);
}

void
transfer_free(sim_host *h)
{
	log_empty(&h->copy.log);
	free(h->copy.log.ring);
	mg_free(h->copy.saved);
}
