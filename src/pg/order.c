/*
 * pg/order.c - who may commit next on this node.
 *
 * How: a ring of entries in seqno order under one spinlock.  `committed` runs
 * behind `published`; the process that owns the entry after `committed` has the
 * turn.  Whoever leaves the turn wakes the next owner, and nobody else: one
 * wake-up per commit.  A local transaction is woken only when it has both its
 * verdict and its turn.  Seqnos with nothing to commit are stepped over by
 * whoever comes by.
 *
 * The lock is held for a handful of loads and stores; latches are set outside.
 */
#include "postgres.h"

#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/guc.h"
#include "pg/shmem.h"

/* An applier more is called for each so many writesets that wait. */
#define UNCLAIMED_PER_APPLIER	16

/* A group is closed when its writesets are larger than this together. */
#define GROUP_BYTES				(256 * 1024)

static inline MgOrderEntry *
entry_at(uint64 seqno)
{
	return &mgrepl_shared->monitor.entries[seqno & (MGREPL_ORDER_ENTRIES - 1)];
}

uint64
mgrepl_order_committed(void)
{
	return *(volatile uint64 *) &mgrepl_shared->monitor.committed;
}

/* With the lock: steps over what needs no commit; returns whom to wake for the turn. */
static int
advance_locked(MgMonitor *m)
{
	while (m->committed < m->published && entry_at(m->committed + 1)->kind == MG_ORDER_SKIP)
		m->committed++;
	if (m->committed < m->published)
		return entry_at(m->committed + 1)->owner;
	return -1;
}

/* With the lock: an idle applier to wake, or -1. */
static int
idle_applier_locked(MgMonitor *m)
{
	if (m->n_unclaimed == 0 ||
		(m->n_busy > 0 && m->n_unclaimed <= m->n_busy * UNCLAIMED_PER_APPLIER))
		return -1;
	for (int i = 0; i < mgrepl_appliers; i++)
		if (m->appliers[i].idle)
		{
			m->appliers[i].idle = false;
			return m->appliers[i].procno;
		}
	return -1;
}

/* Appliers that wait for a dependency which is committed now. */
static void
wake_dependents(uint64 committed)
{
	MgMonitor  *m = &mgrepl_shared->monitor;

	pg_memory_barrier();
	if (pg_atomic_read_u32(&m->n_dep_waiters) == 0)
		return;
	for (int i = 0; i < mgrepl_appliers; i++)
	{
		uint64		waits = pg_atomic_read_u64(&m->appliers[i].waits_for);

		if (waits != 0 && waits <= committed)
			mgrepl_wake(m->appliers[i].procno);
	}
}

int
mgrepl_order_claim(MgOrderEntry *out, int max, int applier)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	int			n = 0;
	int			wake;
	uint64		s;
	uint64		bytes = 0;

	SpinLockAcquire(&m->mutex);
	/* Past what others have, or what needs nobody. */
	while (m->claimed < m->published)
	{
		MgOrderEntry *e = entry_at(m->claimed + 1);

		if (e->kind == MG_ORDER_REMOTE && !e->taken)
			break;
		m->claimed++;
	}
	for (s = m->claimed + 1; s <= m->published && n < max; s++)
	{
		MgOrderEntry *e = entry_at(s);

		if (e->kind == MG_ORDER_SKIP)
			continue;
		if (e->kind != MG_ORDER_REMOTE || e->taken || (n > 0 && bytes + e->place.len > GROUP_BYTES))
			break;
		e->taken = true;
		bytes += e->place.len;
		out[n++] = *e;
	}
	if (n > 0)
	{
		m->claimed = out[n - 1].seqno;
		m->n_unclaimed -= n;
		m->n_busy++;
		m->appliers[applier].idle = false;
		pg_atomic_write_u64(&m->appliers[applier].busy_seqno, out[0].seqno);
	}
	wake = idle_applier_locked(m);
	SpinLockRelease(&m->mutex);
	mgrepl_wake(wake);
	return n;
}

/*
 * With the lock: somebody must take the entry at `seqno` now, whatever else is at
 * work, because all others may wait for it.  Returns whom to wake: an idle
 * applier, else the one that is furthest ahead, which is told to step back.
 */
static int
taker_locked(MgMonitor *m, uint64 seqno)
{
	int			ahead = -1;
	uint64		most = seqno;

	for (int i = 0; i < mgrepl_appliers; i++)
		if (m->appliers[i].idle)
		{
			m->appliers[i].idle = false;
			return m->appliers[i].procno;
		}
	for (int i = 0; i < mgrepl_appliers; i++)
	{
		uint64		busy = pg_atomic_read_u64(&m->appliers[i].busy_seqno);

		if (busy > most)
		{
			most = busy;
			ahead = i;
		}
	}
	if (ahead < 0)
		return -1;				/* those at work are below it, and will come to it */
	pg_atomic_write_u32(&m->appliers[ahead].step_back, 1);
	return m->appliers[ahead].procno;
}

void
mgrepl_order_unclaim(uint64 first, uint64 last)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	int			wake;

	SpinLockAcquire(&m->mutex);
	for (uint64 s = first; s <= last; s++)
	{
		MgOrderEntry *e = entry_at(s);

		if (e->seqno == s && e->kind == MG_ORDER_REMOTE && e->taken)
		{
			e->taken = false;
			e->owner = -1;
			m->n_unclaimed++;
		}
	}
	if (m->claimed >= first)
		m->claimed = first - 1;
	if (m->n_busy > 0)
		m->n_busy--;
	wake = taker_locked(m, first);
	SpinLockRelease(&m->mutex);
	mgrepl_wake(wake);
}

bool
mgrepl_order_idle(int applier)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	bool		work;

	SpinLockAcquire(&m->mutex);
	work = m->n_unclaimed > 0;
	m->appliers[applier].idle = !work;
	SpinLockRelease(&m->mutex);
	return work;
}

bool
mgrepl_order_must_wait(uint64 seqno, int applier)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	MgApplier  *me = &m->appliers[applier];
	bool		waited = pg_atomic_read_u64(&me->waits_for) != 0;

	if (mgrepl_order_committed() < seqno && !waited)
	{
		pg_atomic_write_u64(&me->waits_for, seqno);
		pg_atomic_fetch_add_u32(&m->n_dep_waiters, 1);
		pg_memory_barrier();
		waited = true;
	}
	if (mgrepl_order_committed() < seqno)
		return true;
	if (waited)
	{
		pg_atomic_write_u64(&me->waits_for, 0);
		pg_atomic_fetch_sub_u32(&m->n_dep_waiters, 1);
	}
	return false;
}

void
mgrepl_order_stop_waiting(int applier)
{
	MgApplier  *me = &mgrepl_shared->monitor.appliers[applier];

	if (pg_atomic_exchange_u64(&me->waits_for, 0) != 0)
		pg_atomic_fetch_sub_u32(&mgrepl_shared->monitor.n_dep_waiters, 1);
}

bool
mgrepl_order_is_turn(uint64 seqno, int my_procno)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	bool		turn;

	if (mgrepl_order_committed() == seqno - 1)
		return true;
	SpinLockAcquire(&m->mutex);
	turn = m->committed == seqno - 1;
	if (!turn && entry_at(seqno)->seqno == seqno)
		entry_at(seqno)->owner = my_procno;
	SpinLockRelease(&m->mutex);
	return turn;
}

void
mgrepl_order_leave(uint64 seqno)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	int			next;
	uint64		committed;

	SpinLockAcquire(&m->mutex);
	m->committed = seqno;
	next = advance_locked(m);
	committed = m->committed;
	SpinLockRelease(&m->mutex);
	mgrepl_wake(next);
	wake_dependents(committed);
}

void
mgrepl_order_done(int applier)
{
	MgMonitor  *m = &mgrepl_shared->monitor;

	SpinLockAcquire(&m->mutex);
	if (m->n_busy > 0)
		m->n_busy--;
	SpinLockRelease(&m->mutex);
	pg_atomic_write_u64(&m->appliers[applier].busy_seqno, 0);
}

void
mgrepl_order_replay(uint64 seqno)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	MgOrderEntry *e;
	int			wake = -1;

	SpinLockAcquire(&m->mutex);
	e = entry_at(seqno);
	if (e->seqno == seqno && e->kind == MG_ORDER_LOCAL)
	{
		e->kind = MG_ORDER_REMOTE;
		e->taken = false;
		e->owner = -1;
		m->n_unclaimed++;
		if (m->claimed >= seqno)
			m->claimed = seqno - 1;
		wake = taker_locked(m, seqno);
	}
	SpinLockRelease(&m->mutex);
	mgrepl_wake(wake);
}

bool
mgrepl_order_publish(const MgOrderEntry *entry)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	bool		room;

	SpinLockAcquire(&m->mutex);
	Assert(entry->seqno == m->published + 1);
	room = entry->seqno - m->committed < MGREPL_ORDER_ENTRIES;
	if (room)
	{
		*entry_at(entry->seqno) = *entry;
		m->published = entry->seqno;
		if (entry->kind == MG_ORDER_REMOTE)
			m->n_unclaimed++;
	}
	SpinLockRelease(&m->mutex);
	return room;
}

void
mgrepl_order_wake(void)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	int			next;
	int			applier;
	uint64		committed;

	SpinLockAcquire(&m->mutex);
	next = advance_locked(m);
	committed = m->committed;
	applier = idle_applier_locked(m);
	SpinLockRelease(&m->mutex);
	mgrepl_wake(next);
	mgrepl_wake(applier);
	wake_dependents(committed);
}

void
mgrepl_order_set_reached(MgReached what, uint64 seqno)
{
	MgShared   *s = mgrepl_shared;

	if (pg_atomic_read_u64(&s->reached[what]) == seqno)
		return;
	pg_atomic_write_u64(&s->reached[what], seqno);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&s->n_waiters[what]) == 0)
		return;
	pg_read_barrier();
	for (uint32 i = 0; i < s->n_slots; i++)
	{
		MgSlot	   *slot = mgrepl_slot(i);
		uint64		until = pg_atomic_read_u64(&slot->waits_until);

		if (until != 0 && until <= seqno && slot->waits_for == what)
			mgrepl_wake(i);
	}
}

bool
mgrepl_order_wait_reached(MgReached what, uint64 seqno)
{
	MgShared   *s = mgrepl_shared;
	MgSlot	   *slot = mgrepl_my_slot();

	if (pg_atomic_read_u64(&s->reached[what]) >= seqno)
		return true;
	if (pg_atomic_read_u64(&slot->waits_until) == 0)
	{
		slot->waits_for = what;
		pg_write_barrier();
		pg_atomic_write_u64(&slot->waits_until, seqno);
		pg_atomic_fetch_add_u32(&s->n_waiters[what], 1);
	}

	/* Announced before the second look: either this or the provider sees the other's. */
	pg_memory_barrier();
	return pg_atomic_read_u64(&s->reached[what]) >= seqno;
}

void
mgrepl_order_stop_wait_reached(MgReached what)
{
	if (pg_atomic_exchange_u64(&mgrepl_my_slot()->waits_until, 0) != 0)
		pg_atomic_fetch_sub_u32(&mgrepl_shared->n_waiters[what], 1);
}

/* The applier whose group holds `seqno`: of those at work the last that began at or below it. */
static int
applier_pid_locked(MgMonitor *m, uint64 seqno)
{
	uint64		best = 0;
	int			pid = 0;

	for (int i = 0; i < mgrepl_appliers; i++)
	{
		uint64		busy = pg_atomic_read_u64(&m->appliers[i].busy_seqno);

		if (busy > best && busy <= seqno)
		{
			best = busy;
			pid = m->appliers[i].pid;
		}
	}
	return pid;
}

bool
mgrepl_order_next(uint64 *seqno, char *text, size_t cap)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	MgOrderEntry e;
	int			pid = 0;
	bool		any;

	SpinLockAcquire(&m->mutex);
	any = m->committed < m->published;
	if (any)
	{
		e = *entry_at(m->committed + 1);
		if (e.kind == MG_ORDER_REMOTE && e.taken)
			pid = applier_pid_locked(m, e.seqno);
	}
	SpinLockRelease(&m->mutex);
	if (!any)
		return false;

	*seqno = e.seqno;
	if (e.kind == MG_ORDER_LOCAL)
		snprintf(text, cap, "the session with pid %d commits it", mgrepl_proc((int) e.slot)->pid);
	else if (e.kind == MG_ORDER_REMOTE && pid != 0)
		snprintf(text, cap, "the applier with pid %d applies it; see pg_blocking_pids(%d)", pid, pid);
	else if (e.kind == MG_ORDER_REMOTE)
		snprintf(text, cap, "no applier has taken it");
	else
		snprintf(text, cap, "there is nothing to commit, it passes by");
	return true;
}

void
mgrepl_order_reset(uint64 seqno)
{
	MgMonitor  *m = &mgrepl_shared->monitor;

	SpinLockAcquire(&m->mutex);
	m->committed = m->published = m->claimed = seqno;
	m->n_unclaimed = 0;
	SpinLockRelease(&m->mutex);
}
