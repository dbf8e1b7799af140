/*
 * bgworkers/applier.c - applies the writesets of other nodes, in parallel with
 * other appliers, and commits them in order.
 *
 * How: an applier takes as many consecutive remote writesets as wait (up to
 * MGREPL_GROUP_MAX) and applies them in one local transaction: readers still see
 * nothing but prefixes of the one order, and under load the cost of a
 * transaction's start, commit and turn is shared.  Alone, a group is one
 * writeset.  Changes are made outside the turn; the turn is one commit record.
 *
 * Errors: a group that was cancelled, or met a deadlock or a serialization
 * failure, is rolled back and applied again.  Any other error is tried once
 * more, one writeset at a time, so that it is known which; if it fails again,
 * this node's data differs from the cluster's: it says so and leaves (P6).
 *
 * Waits: for work (latch), for dependencies and the turn (bounded by earlier
 * appliers), for row and table locks of local transactions: met by the
 * brute-force abort, at once for rows (pg/apply.c), for all others when
 * the timer below has called the resolver.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "bgworkers/worker.h"
#include "bgworkers/workers.h"
#include "core/wire.h"
#include "core/writeset.h"
#include "host/segment.h"
#include "pg/apply.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/counters.h"
#include "pg/guc.h"
#include "pg/mark.h"
#include "pg/shmem.h"

/* An applier that works on one group for longer than this may be blocked. */
#define BLOCKED_AFTER_MS	2

#define RETRIES_MAX			100000	/* of retryable errors: conflicts end, this only ends a loop */

static int	number;
static MgApplier *self;
static mg_segment_reader reader;
static MemoryContext group_context;
static TimeoutId blocked_timeout;
static uint64 group_last = 0;	/* of the group that is being worked on */

/* In a signal handler: nothing but a flag and a latch. */
static void
on_blocked_timeout(void)
{
	int			resolver = *(volatile int *) &mgrepl_shared->resolver_procno;

	if (MyProc->waitLock == NULL)
		return;
	pg_atomic_write_u32(&self->blocked, 1);
	if (resolver >= 0)
		SetLatch(&ProcGlobal->allProcs[resolver].procLatch);
}

/* A cancel is for the group it was sent for; outside of a transaction it is late. */
static void
interrupts(void)
{
	if (!IsTransactionState())
		QueryCancelPending = false;
	mgrepl_worker_interrupts();
}

static void
wait_latch(long timeout)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout > 0 ? WL_TIMEOUT : 0),
					 timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	interrupts();
}

/* Reads the entry from the log and opens the writeset in it. */
static void
open_entry(const MgOrderEntry *entry, mg_writeset *ws)
{
	char	   *bytes = MemoryContextAllocHuge(group_context, Max(entry->place.len, 1));
	mg_status	status = mg_segment_read(&reader, &entry->place, entry->seqno, bytes);
	mg_entry_header h;
	mg_reader	r;

	if (status == MG_OK)
	{
		mg_reader_init(&r, bytes, entry->place.len);
		status = mg_entry_decode(&r, &h);
	}
	if (status == MG_OK)
		status = mg_writeset_open(r.p, mg_reader_left(&r), ws);
	if (status != MG_OK)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("writeset %llu cannot be read from the log of this node: %s",
						(unsigned long long) entry->seqno, mg_status_name(status)),
				 errhint("Check the disk of mgrepl.gcache_dir.")));
}

/*
 * One local transaction for all of the group, or for what comes before a mark in
 * it.  Returns how many that was.
 */
static int
apply_group(const MgOrderEntry *group, int n)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < n; i++)
	{
		mg_writeset ws;

		if (mgrepl_order_committed() < group[i].depends && group[i].depends < group[0].seqno)
		{
			bool		counted = false;

			while (mgrepl_order_must_wait(group[i].depends, number))
			{
				if (!counted)
					mgrepl_count(MG_COUNTER_APPLY_WAITS, 1);
				counted = true;
				mgrepl_commit_check_step_back();
				wait_latch(0);
			}
		}
		open_entry(&group[i], &ws);
		if (i > 0 && mgrepl_mark_is(&ws))
		{
			n = i;
			break;
		}
		mgrepl_apply_writeset(&ws, group[i].seqno);
	}
	mgrepl_apply_transaction_end(true);
	PopActiveSnapshot();
	mgrepl_commit_as_applier(group[0].seqno, group[n - 1].seqno);
	CommitTransactionCommand();
	mgrepl_count(MG_COUNTER_APPLIED, n);
	mgrepl_count(MG_COUNTER_APPLY_GROUPS, 1);
	return n;
}

static bool
is_retryable(int code)
{
	return code == ERRCODE_QUERY_CANCELED || code == ERRCODE_T_R_DEADLOCK_DETECTED ||
		code == ERRCODE_T_R_SERIALIZATION_FAILURE || code == ERRCODE_LOCK_NOT_AVAILABLE;
}

/* Says which table and row: PostgreSQL's own errors have the one in a field and the other in the detail. */
static void
give_up(const MgOrderEntry *entry, const ErrorData *error)
{
	char	   *why = pstrdup(error->message);

	if (error->detail != NULL)
		why = psprintf("%s: %s", why, error->detail);
	if (error->table_name != NULL)
		why = psprintf("%s (table \"%s.%s\")", why, error->schema_name != NULL ? error->schema_name : "", error->table_name);
	snprintf(mgrepl_shared->apply_error, MG_REASON_BYTES_MAX, "writeset %llu cannot be applied: %s",
			 (unsigned long long) entry->seqno, why);
	pg_write_barrier();
	pg_atomic_write_u64(&mgrepl_shared->apply_failed, entry->seqno);
	mgrepl_wake(*(volatile int *) &mgrepl_shared->provider_procno);
	ereport(LOG,
			(errmsg("mgrepl: writeset %llu of member %u cannot be applied, this node leaves the cluster: %s",
					(unsigned long long) entry->seqno, entry->origin, why),
			 error->context ? errcontext("%s", error->context) : 0,
			 errhint("The node's data differs from the cluster's. Look at it if you want to know why, then call mgrepl.rebuild().")));
}

/* NULL when the first *n of the group are committed, which may become fewer; else why not: rolled back then. */
static ErrorData *
try_group(const MgOrderEntry *group, int *n)
{
	MemoryContext old = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		enable_timeout_every(blocked_timeout,
							 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BLOCKED_AFTER_MS),
							 BLOCKED_AFTER_MS);
		*n = apply_group(group, *n);
		disable_timeout(blocked_timeout, false);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		disable_timeout(blocked_timeout, false);
		QueryCancelPending = false;
		mgrepl_apply_transaction_end(false);
		AbortCurrentTransaction();
		mgrepl_order_stop_waiting(number);
		MemoryContextSwitchTo(old);
	}
	PG_END_TRY();
	MemoryContextReset(group_context);
	return error;
}

/* Returns how many of the group are committed: all, or the rest has to go back. */
static int
apply_with_retry(const MgOrderEntry *group, int n)
{
	int			retries = 0;
	int			hard = 0;
	int			done = 0;

	while (done < n)
	{
		int			take = hard > 0 ? 1 : n - done;	/* one by one after an error that tells something */
		ErrorData  *error = try_group(group + done, &take);

		if (error == NULL)
		{
			done += take;
			if (done < n)
				pg_atomic_write_u64(&self->busy_seqno, group[done].seqno);
			hard = 0;
			continue;
		}
		mgrepl_count(MG_COUNTER_APPLY_RETRIES, 1);
		if (pg_atomic_read_u32(&self->step_back) != 0)
		{
			FreeErrorData(error);
			return done;
		}
		if (is_retryable(error->sqlerrcode) && retries++ < RETRIES_MAX)
			interrupts();
		else if (take > 1 || hard < 2)
			hard = take > 1 ? 1 : hard + 1;
		else
		{
			give_up(&group[done], error);
			FreeErrorData(error);
			return done;
		}
		FreeErrorData(error);
	}
	return done;
}

static void
at_exit(int code, Datum arg)
{
	MgMonitor  *m = &mgrepl_shared->monitor;
	uint64		busy = pg_atomic_read_u64(&self->busy_seqno);

	mgrepl_order_stop_waiting(number);
	if (busy != 0)
	{
		/* Whatever of the group is not committed goes back. */
		uint64		committed = mgrepl_order_committed();

		pg_atomic_write_u64(&self->busy_seqno, 0);
		mgrepl_order_unclaim(Max(busy, committed + 1), group_last);
	}
	SpinLockAcquire(&m->mutex);
	self->idle = false;
	self->pid = 0;
	self->procno = -1;
	SpinLockRelease(&m->mutex);
}

void
mgrepl_applier_main(Datum arg)
{
	static MgOrderEntry group[MGREPL_GROUP_MAX];

	number = DatumGetInt32(arg);
	self = &mgrepl_shared->monitor.appliers[number];
	mgrepl_is_applier = true;
	mgrepl_applier = self;
	mgrepl_worker_init("mgrepl applier");
	BackgroundWorkerInitializeConnection(mgrepl_database, NULL, BGWORKER_BYPASS_ALLOWCONN);

	SetConfigOption("session_replication_role", "replica", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_deferrable", "off", PGC_USERSET, PGC_S_OVERRIDE);

	if (mg_segment_reader_init(&reader, mgrepl_gcache_dir) != MG_OK)
		ereport(FATAL, (errmsg("mgrepl: the path of mgrepl.gcache_dir is too long")));
	reader.recent = mgrepl_recent;
	group_context = AllocSetContextCreate(TopMemoryContext, "mgrepl apply group", ALLOCSET_DEFAULT_SIZES);
	blocked_timeout = RegisterTimeout(USER_TIMEOUT, on_blocked_timeout);
	mgrepl_apply_init();

	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	self->procno = MgMyProcno();
	self->pid = MyProcPid;
	self->idle = false;
	SpinLockRelease(&mgrepl_shared->monitor.mutex);
	before_shmem_exit(at_exit, 0);

	for (;;)
	{
		int			n;
		int			done;

		interrupts();
		n = pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0 ? 0 :
			mgrepl_order_claim(group, MGREPL_GROUP_MAX, number);
		if (n == 0)
		{
			if (pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0 || !mgrepl_order_idle(number))
				wait_latch(0);
			continue;
		}
		group_last = group[n - 1].seqno;
		done = apply_with_retry(group, n);
		if (done == n)
			mgrepl_order_done(number);
		else
		{
			pg_atomic_write_u64(&self->busy_seqno, 0);
			mgrepl_order_unclaim(group[done].seqno, group_last);
		}
		pg_atomic_write_u32(&self->step_back, 0);
	}
}
