/*
 * bgworkers/resolver.c - see resolver.h.
 *
 * A process of its own, because who is blocked cannot act: an applier that
 * waits for a lock waits inside PostgreSQL's lock manager, and a timer's signal
 * handler may not look into lock tables.  It needs no database: lock tables and
 * the invalidation queue are shared memory.
 *
 * One request is not enough: the victim may have been submitted and be waiting
 * for a verdict, the way may be barred by another one next, a cancel may be
 * caught by a client's savepoint.  So it looks again, after 2 ms first and then
 * ever less often, as long as a group that once was blocked is being applied.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/memutils.h"

#include "bgworkers/resolver.h"
#include "bgworkers/worker.h"
#include "pg/bfabort.h"
#include "pg/compat.h"
#include "pg/counters.h"
#include "pg/shmem.h"

static const long pauses_ms[] = {2, 5, 10, 20, 50};

/* The group of each applier that is watched, by its first seqno; 0: none. */
static uint64 watched[MGREPL_APPLIERS_MAX];

static void
publish(int procno)
{
	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	mgrepl_shared->resolver_procno = procno;
	SpinLockRelease(&mgrepl_shared->monitor.mutex);
}

static void
on_exit_unpublish(int code, Datum arg)
{
	publish(-1);
}

/* Looks after one applier; returns true while it must be looked at again.  *fresh: it has just called. */
static bool
look_after(int i, bool *fresh)
{
	MgApplier  *applier = &mgrepl_shared->monitor.appliers[i];
	bool		called = pg_atomic_exchange_u32(&applier->blocked, 0) != 0;
	uint64		busy = pg_atomic_read_u64(&applier->busy_seqno);	/* after the flag */
	int			pid;
	int			procno;

	if (called)
	{
		mgrepl_count(MG_COUNTER_RESOLVER_CALLS, 1);
		*fresh = true;
		watched[i] = busy;
	}
	if (watched[i] == 0 || watched[i] != busy)
	{
		watched[i] = 0;
		return false;
	}

	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	pid = applier->pid;
	procno = applier->procno;
	SpinLockRelease(&mgrepl_shared->monitor.mutex);
	if (pid == 0 || procno < 0)
	{
		watched[i] = 0;
		return false;
	}

	if (mgrepl_proc(procno)->waitStatus == PROC_WAIT_STATUS_WAITING)
		(void) mgrepl_bfabort_resolve(pid, busy);
	return true;
}

/* All appliers once.  Returns after how many ms to look again, -1: when called. */
static long
look_round(int *round)
{
	bool		again = false;
	bool		fresh = false;

	for (int i = 0; i < MGREPL_APPLIERS_MAX; i++)
		again |= look_after(i, &fresh);

	if (!again)
		return -1;
	if (fresh)
		*round = 0;
	else if (*round < (int) lengthof(pauses_ms) - 1)
		(*round)++;
	return pauses_ms[*round];
}

void
mgrepl_resolver_main(Datum arg)
{
	MemoryContext scratch;
	int			round = 0;

	mgrepl_worker_init("resolver");
	before_shmem_exit(on_exit_unpublish, (Datum) 0);
	publish(MgMyProcno());

	scratch = AllocSetContextCreate(TopMemoryContext, "mgrepl resolver", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);

	for (;;)
	{
		long		pause_ms = look_round(&round);

		MemoryContextReset(scratch);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (pause_ms >= 0 ? WL_TIMEOUT : 0),
						 pause_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		mgrepl_worker_interrupts();
	}
}

void
mgrepl_resolver_register(void)
{
	mgrepl_worker_register("mgrepl resolver", "mgrepl resolver", "mgrepl_resolver_main",
						   false, 1, (Datum) 0);
}
