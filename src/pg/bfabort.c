/*
 * pg/bfabort.c - see bfabort.h for who is rolled back and when.
 *
 * How a cancel meets the right transaction.  A signal is addressed to a process,
 * not to a transaction, and a session's next statement is innocent.  So the
 * sender first writes the victim's local transaction id into the victim's slot
 * and counts itself in there, then looks once more whether that transaction is
 * still running, signals, and counts itself out.  The victim, once its lxid is
 * gone from its PGPROC, looks at the same word: if it is set, it waits until no
 * sender is inside, takes delivery of the signals sent, and drops the pending
 * cancel.  Either the sender sees that the transaction is over, or the victim
 * sees the sender (each writes, then reads, with a full barrier between).  The
 * same hand-shake after a slot became SUBMITTED keeps a cancel out of the wait
 * for a verdict.  A user's own cancel that arrives in the same instant is
 * dropped too; it could as well have come too late.  Only the SIGTERM for a deaf
 * victim has a window left: a transaction that ends by itself in the very
 * microseconds of it loses its connection, though not its outcome.
 *
 * Holding ProcArrayLock around check and signal was rejected: transactions
 * without an xid end without it, and a signal sent is not yet a signal seen.
 *
 * Slot word `doomed`: bits 0-31 lxid, bit 32 set, bits 33 and up: senders inside.
 *
 * A running victim takes the cancel at its next CHECK_FOR_INTERRUPTS.  An idle
 * one ignores it, but processes catch-up interrupts: these make it read the
 * shared invalidation queue, where a message for a relation that does not exist
 * calls our relcache callback, and that rolls back.  The interrupt is sent in
 * both cases (the victim may be just about to become idle) and does nothing to a
 * running statement.  The cancel is held back at first from a victim that does
 * not look as if it ran something: it may be about to run the client's ROLLBACK,
 * and a ROLLBACK that fails makes drivers give up the connection.  PostgreSQL's
 * own way, the recovery conflict, kills an idle session.
 */
#include "postgres.h"

#include <signal.h>

#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "storage/spin.h"
#include "tcop/pquery.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/wait_event.h"

#include "pg/bfabort.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/counters.h"
#include "pg/shmem.h"

#define DOOM_SET			(UINT64CONST(1) << 32)
#define DOOM_MARK_BITS		(DOOM_SET | PG_UINT32_MAX)
#define DOOM_SENDER			(UINT64CONST(1) << 33)
#define DOOM_MARK(lxid)		(DOOM_SET | (uint64) (lxid))

/* A victim is not signalled again before this; longer than any healthy one needs. */
#define RESIGNAL_US			1500

/* For this long a victim that may be about to roll back by itself is not cancelled. */
#define PATIENCE_US			20000

/* A victim that is still there after this long hears no cancel. */
#define DEAF_US				5000000

/* ... and is then asked no more often than this; below ASKED_ANEW_US. */
#define DEAF_RESIGNAL_US	500000

/* Not asked for this long: it was out of the way meanwhile; above the resolver's longest pause. */
#define ASKED_ANEW_US		1000000

/* No relation has this OID (it is the database template1). */
#define NO_RELATION			((Oid) 1)

/* Who was asked by this process, and when; indexed by proc number. */
typedef struct MgAsked
{
	uint64		mark;
	uint64		first_us;
	uint64		last_us;
	bool		told;			/* the log says that its connection is being ended */
} MgAsked;

typedef enum MgStage
{
	STAGE_OPEN,					/* not submitted: may be rolled back */
	STAGE_SUBMITTED,			/* the verdict decides */
	STAGE_CERTIFIED				/* will be committed, here or by an applier */
} MgStage;

static MgAsked *asked = NULL;

static emit_log_hook_type previous_emit_log_hook = NULL;

/*
 * The open block of this session is a failed one, and brute force is why: its
 * statements and its COMMIT report 40001.  True from the rollback until the next
 * transaction ends, so always looked at together with the block's state.
 */
static bool block_lost = false;
static uint64 block_lost_to = 0;

/* This transaction's writeset went to the provider: its fate is the cluster's to tell. */
static bool handed_over = false;

/* ---------- common ---------- */

static bool
slot_exists(int procno)
{
	return procno >= 0 && (uint32) procno < mgrepl_shared->n_slots;
}

/* This process's slot; NULL in a process that has none. */
static MgSlot *
own_slot(void)
{
	if (mgrepl_shared == NULL || MyProc == NULL || !slot_exists(MgMyProcno()))
		return NULL;
	return mgrepl_slot(MgMyProcno());
}

static MgStage
stage_of(MgSlot *slot)
{
	switch ((MgSlotState) pg_atomic_read_u32(&slot->state))
	{
		case MG_SLOT_SUBMITTED:
		case MG_SLOT_SENT:
			return STAGE_SUBMITTED;
		case MG_SLOT_PASSED:
			return STAGE_CERTIFIED;
		case MG_SLOT_FREE:
		case MG_SLOT_FAILED:
		case MG_SLOT_REFUSED:
		case MG_SLOT_UNKNOWN:
		case MG_SLOT_ABANDONED:
			return STAGE_OPEN;
	}
	return STAGE_OPEN;
}

static uint64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* The applier that this process is; a proc number alone may have passed on to another process. */
static MgApplier *
find_applier(int procno)
{
	MgMonitor  *monitor = &mgrepl_shared->monitor;
	MgApplier  *found = NULL;
	int			pid = mgrepl_proc(procno)->pid;

	SpinLockAcquire(&monitor->mutex);
	for (int i = 0; i < MGREPL_APPLIERS_MAX && found == NULL; i++)
	{
		if (pid != 0 && monitor->appliers[i].pid == pid && monitor->appliers[i].procno == procno)
			found = &monitor->appliers[i];
	}
	SpinLockRelease(&monitor->mutex);
	return found;
}

static bool
is_provider_or_resolver(int procno)
{
	bool		found;

	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	found = procno == mgrepl_shared->provider_procno || procno == mgrepl_shared->resolver_procno;
	SpinLockRelease(&mgrepl_shared->monitor.mutex);
	return found;
}

/* ---------- the sender ---------- */

/* Is it time to ask this victim (again)?  Notes that it was, and for how long already. */
static bool
ask_now(int procno, uint64 mark, uint64 *asked_us)
{
	uint64		now = now_us();
	MgAsked    *entry;

	if (asked == NULL)
		asked = MemoryContextAllocZero(TopMemoryContext, mgrepl_shared->n_slots * sizeof(MgAsked));
	entry = &asked[procno];

	if (entry->mark != mark || now - entry->last_us > ASKED_ANEW_US)
	{
		entry->mark = mark;
		entry->first_us = now;
		entry->told = false;
	}
	else if (now - entry->last_us < (now - entry->first_us > DEAF_US ? DEAF_RESIGNAL_US : RESIGNAL_US))
		return false;
	entry->last_us = now;
	*asked_us = now - entry->first_us;
	return true;
}

/* Marks the transaction and counts this process in.  A full barrier. */
static void
sender_enter(MgSlot *slot, uint64 mark)
{
	uint64		word = pg_atomic_read_u64(&slot->doomed);

	while (!pg_atomic_compare_exchange_u64(&slot->doomed, &word,
										   ((word & ~DOOM_MARK_BITS) | mark) + DOOM_SENDER))
		;
}

/* Counts out; takes the mark away if it came too late. */
static void
sender_leave(MgSlot *slot, uint64 mark, bool in_time)
{
	uint64		word = pg_atomic_read_u64(&slot->doomed);
	uint64		next;

	do
	{
		next = word - DOOM_SENDER;
		if (!in_time && (word & DOOM_MARK_BITS) == mark)
			next &= ~DOOM_MARK_BITS;
	} while (!pg_atomic_compare_exchange_u64(&slot->doomed, &word, next));
}

/* The lowest seqno that asked; 0 is none. */
static void
note_doomed_by(MgSlot *slot, uint64 seqno)
{
	uint64		by = pg_atomic_read_u64(&slot->doomed_by);

	while (by == 0 || by > seqno)
	{
		if (pg_atomic_compare_exchange_u64(&slot->doomed_by, &by, seqno))
			return;
	}
}

/* Makes an idle backend run its relcache callbacks; harmless to any other. */
static void
interrupt_idle(PGPROC *proc)
{
	SharedInvalidationMessage msg;

	memset(&msg, 0, sizeof(msg));
	msg.rc.id = SHAREDINVALRELCACHE_ID;
	msg.rc.dbId = proc->databaseId;
	msg.rc.relId = NO_RELATION;
	SendSharedInvalidMessages(&msg, 1);
	SendProcSignal(proc->pid, PROCSIG_CATCHUP_INTERRUPT, MgProcBackendId(proc));
}

/*
 * Does the backend look as if it ran a statement that a cancel should end?
 * Whatever takes long without waiting for a lock holds a snapshot, and a ROLLBACK
 * needs none; under REPEATABLE READ, or with a cursor, the snapshot says nothing.
 */
static bool
looks_busy(PGPROC *proc)
{
	const char *text;

	if (proc->waitStatus == PROC_WAIT_STATUS_WAITING)
		return true;
	if (!TransactionIdIsValid(proc->xmin) || proc->wait_event_info == WAIT_EVENT_CLIENT_READ)
		return false;

	text = pgstat_get_backend_current_activity(proc->pid, false);
	text += strspn(text, " \t\r\n");
	return pg_strncasecmp(text, "rollback", 8) != 0 && pg_strncasecmp(text, "abort", 5) != 0;
}

/* What to send to a victim that has been asked for `asked_us`; 0: no signal. */
static int
signal_for(PGPROC *proc, uint64 asked_us)
{
	if ((proc->statusFlags & PROC_IS_AUTOVACUUM) != 0)
		return SIGINT;
	if (asked_us > DEAF_US)
		return SIGTERM;
	return asked_us > PATIENCE_US || looks_busy(proc) ? SIGINT : 0;
}

/* Asks the transaction `lxid` of backend `procno` to make way, if it is still the one there. */
static void
doom(int procno, LocalTransactionId lxid, mg_seqno seqno)
{
	PGPROC	   *proc = mgrepl_proc(procno);
	MgSlot	   *slot = mgrepl_slot(procno);
	uint64		mark = DOOM_MARK(lxid);
	MgStage		stage = stage_of(slot);
	uint64		asked_us;
	int			signo;
	bool		in_time;

	if ((proc->statusFlags & PROC_IS_AUTOVACUUM) != 0 && (proc->statusFlags & PROC_VACUUM_FOR_WRAPAROUND) != 0)
		return;
	if (stage == STAGE_SUBMITTED)
		return;
	pg_read_barrier();
	if (stage == STAGE_CERTIFIED && slot->seqno < seqno)
		return;
	if (!ask_now(procno, mark, &asked_us))
		return;
	signo = signal_for(proc, asked_us);

	/* Nothing between these two may sleep or fail: the victim may be waiting. */
	sender_enter(slot, mark);
	in_time = MgProcLxid(proc) == lxid;
	stage = stage_of(slot);
	if (in_time)
	{
		note_doomed_by(slot, seqno);
		if (stage == STAGE_OPEN && signo != 0)
			kill(proc->pid, signo);
	}
	sender_leave(slot, mark, in_time);

	if (!in_time)
		return;
	if (stage == STAGE_CERTIFIED)
		mgrepl_wake(procno);
	else if (stage == STAGE_OPEN && proc->waitStatus != PROC_WAIT_STATUS_WAITING)
		interrupt_idle(proc);
	if (stage == STAGE_OPEN && signo == SIGTERM && !asked[procno].told)
	{
		asked[procno].told = true;
		ereport(LOG,
				(errmsg("bfabort: ending connection pid=%d seqno=%llu: the transaction in the way hears no cancel",
						proc->pid, (unsigned long long) seqno)));
	}
}

void
mgrepl_bfabort_victim(int procno, mg_seqno seqno)
{
	LocalTransactionId lxid;

	if (!slot_exists(procno) || procno == MgMyProcno())
		return;
	lxid = MgProcLxid(mgrepl_proc(procno));
	if (lxid == InvalidLocalTransactionId)
		return;
	if (find_applier(procno) != NULL || is_provider_or_resolver(procno))
		return;
	doom(procno, lxid, seqno);
}

bool
mgrepl_bfabort_xid(TransactionId xid, mg_seqno seqno)
{
	TransactionId top = xid;
	int			pid = BackendXidGetPid(xid);
	PGPROC	   *proc;
	int			procno;
	LocalTransactionId lxid;

	if (pid == 0)
	{
		/* A prepared transaction, a subtransaction, or over. */
		if (!TransactionIdIsNormal(xid) || !TransactionIdIsInProgress(xid))
			return false;
		top = SubTransGetTopmostTransaction(xid);
		if (top == xid)
			return false;
		pid = BackendXidGetPid(top);
	}
	proc = pid == 0 ? NULL : BackendPidGetProc(pid);
	if (proc == NULL)
		return false;

	/* In this order: `top` had begun before, so if it is still there the lxid is its own. */
	lxid = MgProcLxid(proc);
	pg_read_barrier();
	if (*(volatile TransactionId *) &proc->xid != top || lxid == InvalidLocalTransactionId)
		return false;

	procno = (int) (proc - ProcGlobal->allProcs);
	if (!slot_exists(procno) || procno == MgMyProcno() || find_applier(procno) != NULL ||
		is_provider_or_resolver(procno))
		return false;
	doom(procno, lxid, seqno);
	return true;
}

/* ---------- who blocks an applier ---------- */

/* PostgreSQL cannot roll back a prepared transaction from outside its database; only people can. */
static void
warn_prepared(const LockInstanceData *blocker)
{
	static uint64 warned = 0;
	uint64		who = DOOM_MARK(MgLockLxid(blocker));

	if (warned == who)
		return;
	warned = who;
	if (blocker->locktag.locktag_type == LOCKTAG_TRANSACTION)
		ereport(WARNING,
				(errmsg("bfabort: prepared transaction %u holds up replication",
						blocker->locktag.locktag_field1),
				 errhint("Find it in pg_prepared_xacts and end it with COMMIT PREPARED or ROLLBACK PREPARED.")));
	else
		ereport(WARNING,
				(errmsg("bfabort: a prepared transaction holds up replication"),
				 errhint("Find it in pg_prepared_xacts and end it with COMMIT PREPARED or ROLLBACK PREPARED.")));
}

/* An applier on a higher seqno that is in the way starts its group again; it catches the cancel. */
static bool
restart_applier(MgApplier *applier, int procno, mg_seqno seqno)
{
	uint64		busy = pg_atomic_read_u64(&applier->busy_seqno);
	uint64		asked_us;

	if (busy <= seqno)
		return false;
	if (ask_now(procno, DOOM_SET | (busy & PG_UINT32_MAX), &asked_us))
		kill(mgrepl_proc(procno)->pid, SIGINT);
	return true;
}

static bool
make_way(const LockInstanceData *blocker, mg_seqno seqno)
{
	PGPROC	   *proc;
	int			procno;
	MgApplier  *applier;

	if (blocker->pid == 0)
	{
		warn_prepared(blocker);
		return false;
	}
	proc = BackendPidGetProc(blocker->leaderPid);
	if (proc == NULL)
		return false;
	procno = (int) (proc - ProcGlobal->allProcs);
	if (!slot_exists(procno))
		return false;

	applier = find_applier(procno);
	if (applier != NULL)
		return restart_applier(applier, procno, seqno);

	/* The lock's own lxid is exact, but a parallel worker's is not its leader's. */
	if (blocker->pid != blocker->leaderPid)
		mgrepl_bfabort_victim(procno, seqno);
	else if (MgLockLxid(blocker) != InvalidLocalTransactionId && !is_provider_or_resolver(procno))
		doom(procno, MgLockLxid(blocker), seqno);
	return true;
}

/* Is `other` ahead of the blocked process in the queue for the lock? */
static bool
is_ahead(const BlockedProcsData *data, const BlockedProcData *blocked, int other)
{
	for (int i = 0; i < blocked->num_waiters; i++)
	{
		if (data->waiter_pids[blocked->first_waiter + i] == other)
			return true;
	}
	return false;
}

/* Held for a moment only, whatever becomes of the transaction: worth waiting for. */
static bool
is_short_lock(const LOCKTAG *tag)
{
	switch ((LockTagType) tag->locktag_type)
	{
		case LOCKTAG_RELATION_EXTEND:
		case LOCKTAG_PAGE:
			return true;
		default:
			return false;
	}
}

/* As pg_blocking_pids: a conflicting lock held, or a conflicting request further ahead. */
static int
clear_lock(const BlockedProcsData *data, const BlockedProcData *blocked, mg_seqno seqno)
{
	const LockInstanceData *locks = &data->locks[blocked->first_lock];
	const LockInstanceData *own = NULL;
	LOCKMASK	conflicts;
	int			n = 0;

	for (int i = 0; i < blocked->num_locks; i++)
	{
		if (locks[i].pid == blocked->pid)
			own = &locks[i];
	}
	if (own == NULL || is_short_lock(&own->locktag))
		return 0;
	conflicts = GetLockTagsMethodTable(&own->locktag)->conflictTab[own->waitLockMode];

	for (int i = 0; i < blocked->num_locks; i++)
	{
		const LockInstanceData *other = &locks[i];
		bool		holds = (conflicts & other->holdMask) != 0;
		bool		wants = other->waitLockMode != NoLock &&
			(conflicts & LOCKBIT_ON(other->waitLockMode)) != 0;

		if (other == own || other->leaderPid == own->leaderPid)
			continue;
		if (holds || (wants && is_ahead(data, blocked, other->pid)))
			n += make_way(other, seqno) ? 1 : 0;
	}
	return n;
}

int
mgrepl_bfabort_resolve(int applier_pid, mg_seqno seqno)
{
	BlockedProcsData *data = GetBlockerStatusData(applier_pid);
	int			n = 0;

	for (int i = 0; i < data->nprocs; i++)
		n += clear_lock(data, &data->procs[i], seqno);
	return n;
}

/* ---------- the victim ---------- */

bool
mgrepl_bfabort_doomed(void)
{
	MgSlot	   *slot = own_slot();
	uint64		word;
	uint64		by;

	if (slot == NULL)
		return false;
	word = pg_atomic_read_u64(&slot->doomed);
	if (word == 0 || (word & DOOM_MARK_BITS) != DOOM_MARK(MgProcLxid(MyProc)))
		return false;

	switch (stage_of(slot))
	{
		case STAGE_OPEN:
			return true;
		case STAGE_SUBMITTED:
			return false;
		case STAGE_CERTIFIED:
			pg_read_barrier();
			by = pg_atomic_read_u64(&slot->doomed_by);
			return by != 0 && by < slot->seqno;
	}
	return false;
}

/* Doomed, and nothing of it went to the cluster: 40001 is the truth. */
static bool
lost(void)
{
	return !handed_over && mgrepl_bfabort_doomed() && stage_of(own_slot()) == STAGE_OPEN;
}

#define LOST_MESSAGE	"could not serialize access: rolled back to let certified transaction %llu of the cluster pass"
#define LOST_HINT		"Retry the transaction."

static void
raise_lost(uint64 to)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg(LOST_MESSAGE, (unsigned long long) to),
			 errhint(LOST_HINT)));
}

void
mgrepl_bfabort_check(void)
{
	if (lost())
		raise_lost(pg_atomic_read_u64(&own_slot()->doomed_by));
}

/*
 * Waits until no sender is inside, then takes delivery of what they sent: POSIX
 * has sigprocmask() deliver a pending signal before it returns.  A cancel that
 * is pending then is ours.  Returns the word without senders.
 */
static uint64
drain_senders(MgSlot *slot)
{
	uint64		word;
	int			spins = 0;
	sigset_t	none;

	while ((word = pg_atomic_read_u64(&slot->doomed)) >= DOOM_SENDER)
	{
		pg_spin_delay();
		if (++spins > 1000)
			pg_usleep(20L);		/* the sender has lost its processor, perhaps to us */
	}
	sigemptyset(&none);
	sigprocmask(SIG_UNBLOCK, &none, NULL);
	QueryCancelPending = false;
	return word;
}

void
mgrepl_bfabort_submitted(bool final)
{
	MgSlot	   *slot = own_slot();

	handed_over = final;
	pg_memory_barrier();
	if (slot != NULL && pg_atomic_read_u64(&slot->doomed) != 0)
		(void) drain_senders(slot);
}

void
mgrepl_bfabort_xact_end(bool is_commit)
{
	MgSlot	   *slot = own_slot();
	bool		own_fate = !handed_over;
	uint64		word;

	block_lost = false;
	handed_over = false;
	if (slot == NULL)
		return;
	pg_memory_barrier();		/* our lxid is gone from MyProc; now look who came before */
	if (pg_atomic_read_u64(&slot->doomed) == 0)
		return;

	do
	{
		word = drain_senders(slot);
	} while (!pg_atomic_compare_exchange_u64(&slot->doomed, &word, 0));

	/* Latecomers take their marks away again, so one that is left was ours. */
	if (word != 0 && !is_commit && own_fate && MyBackendType != B_AUTOVAC_WORKER)
	{
		mgrepl_count(MG_COUNTER_LOCAL_BF_ABORTS, 1);
		block_lost = IsTransactionBlock();
		block_lost_to = pg_atomic_read_u64(&slot->doomed_by);
	}
	pg_atomic_write_u64(&slot->doomed_by, 0);
}

/*
 * Idle in a block: ends the transaction with all its savepoints, and opens a
 * failed block in its place, so that the session is where any error would have
 * left it.  AbortCurrentTransaction alone would end the innermost savepoint only
 * and keep the locks of the others.
 */
static void
roll_back_in_place(void)
{
	MemoryContext caller = CurrentMemoryContext;
	uint64		to = pg_atomic_read_u64(&own_slot()->doomed_by);

	HOLD_INTERRUPTS();
	AbortOutOfAnyTransaction();
	StartTransactionCommand();
	BeginTransactionBlock();
	CommitTransactionCommand();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(caller);
	RESUME_INTERRUPTS();

	block_lost = true;
	block_lost_to = to;
	set_ps_display("idle in transaction (aborted)");
	pgstat_report_activity(STATE_IDLEINTRANSACTION_ABORTED, NULL);
}

/*
 * Called for every relation invalidated, in every backend.  Only a backend that
 * reads its next message has no portal active: it is then between statements,
 * where PostgresMain holds nothing of the transaction.  An implicit transaction
 * between two protocol messages cannot be replaced by a failed block (its client
 * never began one) and is left to the cancel of its next statement.
 */
static void
on_relcache(Datum arg, Oid relid)
{
	static bool inside = false;

	if (inside || !lost())
		return;
	if (!pq_is_reading_msg() || ActivePortal != NULL || !IsTransactionBlock())
		return;
	inside = true;
	roll_back_in_place();
	inside = false;
}

/* What a statement meets in a failed block; a lost savepoint or cursor is part of it. */
static bool
is_failed_block_error(int code)
{
	return code == ERRCODE_IN_FAILED_SQL_TRANSACTION ||
		code == ERRCODE_QUERY_CANCELED ||
		code == ERRCODE_S_E_INVALID_SPECIFICATION ||
		code == ERRCODE_UNDEFINED_CURSOR;
}

static void
on_emit_log(ErrorData *edata)
{
	if (edata->elevel == ERROR && MyBackendType != B_AUTOVAC_WORKER)
	{
		bool		is_lost = lost();
		uint64		to = 0;

		if (is_lost && (edata->sqlerrcode == ERRCODE_QUERY_CANCELED || IsAbortedTransactionBlockState()))
			to = pg_atomic_read_u64(&own_slot()->doomed_by);
		else if (block_lost && IsAbortedTransactionBlockState())
			to = block_lost_to;

		if (to != 0 && is_failed_block_error(edata->sqlerrcode))
		{
			/* The caller has made edata's own context the current one. */
			edata->sqlerrcode = ERRCODE_T_R_SERIALIZATION_FAILURE;
			edata->message = psprintf(LOST_MESSAGE, (unsigned long long) to);
			edata->hint = pstrdup(LOST_HINT);
			edata->detail = NULL;
		}
	}
	if (edata->elevel >= ERROR && mgrepl_commit_certified() != 0)
	{
		/* The local commit failed after the cluster's verdict: an applier will replay it. */
		edata->detail = psprintf("This happened after the cluster had decided to commit: \"%s\".", edata->message);
		edata->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
		edata->message = psprintf("the transaction is committed by the cluster as seqno %llu, but this session could not finish it",
								  (unsigned long long) mgrepl_commit_certified());
		edata->hint = pstrdup("Do not repeat it: it becomes visible on this node in a moment.");
	}
	if (previous_emit_log_hook != NULL)
		previous_emit_log_hook(edata);
}

void
mgrepl_bfabort_after_utility(Node *parsetree)
{
	TransactionStmtKind kind;

	if (!IsA(parsetree, TransactionStmt))
		return;
	kind = ((TransactionStmt *) parsetree)->kind;
	if (kind != TRANS_STMT_COMMIT && kind != TRANS_STMT_PREPARE)
		return;

	/* Not in a live transaction: the block had failed, and what it ends with is a ROLLBACK. */
	if (IsTransactionState())
		return;
	if (block_lost)
		raise_lost(block_lost_to);
	mgrepl_bfabort_check();
}

void
mgrepl_bfabort_install(void)
{
	previous_emit_log_hook = emit_log_hook;
	emit_log_hook = on_emit_log;

	/* In the postmaster: every child inherits the list by fork. */
	CacheRegisterRelcacheCallback(on_relcache, (Datum) 0);

	if (log_min_messages > ERROR || log_min_messages == LOG)
		ereport(WARNING,
				(errmsg("bfabort: with this log_min_messages, transactions rolled back for the cluster fail with SQLSTATE 57014 or 25P02 instead of 40001"),
				 errhint("Set log_min_messages to error or lower.")));
}
