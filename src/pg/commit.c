/*
 * pg/commit.c - COMMIT as a path through the cluster.
 *
 * How: everything happens inside PostgreSQL's own commit.  PRE_COMMIT closes
 * the writeset, hands it to the provider and sleeps; it is woken once, when the
 * verdict is there and (if it passed) all lower seqnos are committed here.  Then the
 * position goes into the commit record, the commit is made asynchronous (the
 * log of a majority makes it durable, a flush inside the turn would serialize
 * all flushes), and XACT_EVENT_COMMIT, which comes after the transaction became
 * visible, passes the turn on.
 *
 * After a passing verdict the transaction is the cluster's: it must not fail.
 * Interrupts are held from the turn on.  If the local commit fails all the
 * same, or the session is ended or has to make way before its turn, an applier
 * replays the writeset at its place, and the client is told what it is.
 *
 * Waits: for the verdict, and for the turn.  Both end with a cancel, the end of
 * the session or mgrepl.commit_timeout: the outcome is then unknown (08007), or
 * known (08007 with the seqno) and an applier takes over.  With durability
 * "local", "all" and "applied" a third one follows, when the transaction is
 * committed and its locks are released, so that it holds up nobody else.
 * Nothing but telling the client is left to do: whatever ends this wait early is
 * a WARNING.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "replication/origin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/predicate.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/resowner.h"

#include "core/cert.h"
#include "core/wire.h"
#include "pg/bfabort.h"
#include "pg/capture.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/counters.h"
#include "pg/donor.h"
#include "pg/dump.h"
#include "pg/guc.h"
#include "pg/mark.h"
#include "pg/position.h"
#include "pg/shmem.h"

/* A lost wake-up costs this much at most. */
#define REACHED_LOOK_MS	200

/* Of each MgDurability. */
static const struct Level
{
	const char *name;
	uint8		entry;			/* what must be so before the cluster delivers it */
	MgReached	then;			/* what its COMMIT waits for behind that */
	const char *missing;		/* what is not known if it does not wait so long */
}			levels[] = {
	[MG_DURABILITY_MEMORY] = {"memory", MG_ENTRY_MEMORY, MG_REACHED_COUNT, NULL},
	[MG_DURABILITY_LOCAL] = {"local", MG_ENTRY_MEMORY, MG_REACHED_FLUSHED_HERE, "flushed to disk by this node"},
	[MG_DURABILITY_MAJORITY] = {"majority", MG_ENTRY_MAJORITY, MG_REACHED_COUNT, NULL},
	[MG_DURABILITY_ALL] = {"all", MG_ENTRY_MAJORITY, MG_REACHED_FLUSHED_EVERYWHERE, "flushed to disk by all members"},
	[MG_DURABILITY_APPLIED] = {"applied", MG_ENTRY_MAJORITY, MG_REACHED_APPLIED_EVERYWHERE, "visible on all members"}
};

bool		mgrepl_is_applier = false;
MgApplier  *mgrepl_applier = NULL;

/* Of the present transaction of this process. */
static uint64 certified_seqno = 0;	/* passed, not committed yet */
static uint64 turn_last = 0;	/* the turn is held; passed on up to here */
static uint64 applier_first = 0;
static uint64 applier_last = 0;
static uint64 reserved_trx = 0; /* keys are reserved in the cluster under this number */
static const struct Level *level = &levels[MG_DURABILITY_MAJORITY];
static uint64 awaited_seqno = 0;	/* committed here; its client waits for level->then, too */
static bool interrupts_held = false;
static int	saved_synchronous_commit;
static int64 turn_us;

static int64
now_us(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MICROSEC(t);
}

uint64
mgrepl_commit_certified(void)
{
	return certified_seqno;
}

void
mgrepl_commit_as_applier(uint64 first, uint64 last)
{
	applier_first = first;
	applier_last = last;
}

void
mgrepl_commit_require_ready(void)
{
	if (!mgrepl_clustered())
		return;
	switch (mgrepl_node_state())
	{
		case MG_NODE_SYNCED:
			return;
		case MG_NODE_DONOR:
			/* What has begun may end. */
			if (mgrepl_donor_rejects() && !mgrepl_capture_pending())
				mgrepl_donor_refuse("writes");
			return;
		case MG_NODE_OPEN:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this node belongs to a cluster but has not joined it: it takes no writes"),
					 errhint("Call mgrepl.join('gcomm://host:port') with the address of a member, or mgrepl.bootstrap() if no other node runs.")));
			break;
		case MG_NODE_PRIMARY:
		case MG_NODE_JOINER:
		case MG_NODE_JOINED:
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("this node is joining the cluster and is not ready for writes yet"),
					 errhint("Wait until mgrepl.status shows node_state SYNCED, or use another node.")));
			break;
		case MG_NODE_NON_PRIMARY:
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("this node is not in the primary component of the cluster: it takes no writes"),
					 errhint("Use a node of the primary component; mgrepl.status says why this one is out of it.")));
			break;
		case MG_NODE_INCONSISTENT:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this node's data differs from the cluster's: it takes no writes"),
					 errhint("See mgrepl.status and the server log, and when it is clear why, call mgrepl.rebuild() on this node.")));
			break;
	}
}

/* ------------------------------------------------------------------- waiting */

/*
 * The backend does not wait any longer for a verdict.  False if the verdict
 * came at this very moment.
 */
static bool
abandon(MgSlot *slot)
{
	uint32		sent = MG_SLOT_SENT;
	uint32		submitted = MG_SLOT_SUBMITTED;

	return pg_atomic_compare_exchange_u32(&slot->state, &submitted, MG_SLOT_ABANDONED) ||
		pg_atomic_compare_exchange_u32(&slot->state, &sent, MG_SLOT_ABANDONED);
}

static void
outcome_unknown(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("the outcome of the transaction is not known: %s", why),
			 errdetail("It was rolled back in this session; the cluster may still commit it."),
			 errhint("Look at the data before you repeat it.")));
}

/* The slot of an earlier transaction may still be with the provider. */
static void
wait_for_free_slot(MgSlot *slot)
{
	while (pg_atomic_read_u32(&slot->state) != MG_SLOT_FREE)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		mgrepl_commit_require_ready();
	}
}

static void
wake_provider(void)
{
	int			procno = *(volatile int *) &mgrepl_shared->provider_procno;

	mgrepl_wake(procno);
}

static void
submit(MgSlot *slot)
{
	slot->submitted_us = now_us();
	slot->picked = false;
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, MG_SLOT_SUBMITTED);
	if (!mgrepl_submit_push(MgMyProcno()))
		elog(PANIC, "mgrepl: the queue of submitted transactions is full");
	mgrepl_bfabort_submitted((slot->ws_flags & MG_WS_RESERVE) == 0);
	wake_provider();
}

static void
lost_certification(MgSlot *slot)
{
	mg_verdict	verdict = slot->verdict;
	uint64		against = slot->against;

	pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
	mgrepl_count(MG_COUNTER_LOCAL_CERT_FAILURES, 1);
	if (verdict == MG_VERDICT_RESERVED)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access: another node is changing the definition of what this transaction touched"),
				 errhint("Retry the transaction.")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to a concurrent transaction on another node"),
			 errdetail("Certification found a conflict with seqno %llu (%s).",
					   (unsigned long long) against, mg_verdict_name(verdict)),
			 errhint("Retry the transaction.")));
}

/*
 * Waits for the verdict and, if `turn`, for the turn of a passed one.  Returns
 * the seqno; raises for every other outcome.
 */
static uint64
wait_for_outcome(MgSlot *slot, bool turn)
{
	int			me = MgMyProcno();
	int64		deadline = mgrepl_commit_timeout_ms > 0 ? now_us() + mgrepl_commit_timeout_ms * INT64CONST(1000) : 0;

	for (;;)
	{
		MgSlotState state = (MgSlotState) pg_atomic_read_u32(&slot->state);
		long		timeout = 1000;

		pg_read_barrier();
		switch (state)
		{
			case MG_SLOT_PASSED:
				certified_seqno = turn ? slot->seqno : 0;
				if (!turn || mgrepl_order_is_turn(slot->seqno, me))
					return slot->seqno;
				if (ProcDiePending || QueryCancelPending || mgrepl_bfabort_doomed() ||
					(deadline != 0 && now_us() >= deadline) ||
					pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0)
				{
					uint64		seqno = slot->seqno;

					certified_seqno = 0;
					pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
					mgrepl_count(MG_COUNTER_LOCAL_REPLAYS, 1);
					mgrepl_order_replay(seqno);
					QueryCancelPending = false;
					CHECK_FOR_INTERRUPTS();
					ereport(ERROR,
							(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
							 errmsg("the transaction is committed by the cluster as seqno %llu, but this session could not finish it",
									(unsigned long long) seqno),
							 pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0 ?
							 errhint("Do not repeat it. This node cannot apply an earlier one: look at the data on another node.") :
							 errhint("Do not repeat it: it becomes visible on this node when its turn comes.")));
				}
				break;
			case MG_SLOT_FAILED:
				lost_certification(slot);
				break;
			case MG_SLOT_REFUSED:
				{
					char		reason[MG_REASON_BYTES_MAX];

					strlcpy(reason, slot->reason, sizeof(reason));
					if ((slot->ws_flags & MG_WS_RELEASE) != 0)
						reserved_trx = slot->trx_id;	/* still to be released */
					pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
					ereport(ERROR,
							(errcode(ERRCODE_CANNOT_CONNECT_NOW),
							 errmsg("the transaction was not sent to the cluster: %s", reason),
							 errhint("Nothing happened; retry it here later or on another node.")));
				}
				break;
			case MG_SLOT_UNKNOWN:
				pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
				outcome_unknown("this node lost the cluster while the transaction was on its way");
				break;
			case MG_SLOT_SUBMITTED:
			case MG_SLOT_SENT:
				if (QueryCancelPending || ProcDiePending)
				{
					if (!abandon(slot))
						continue;
					if (ProcDiePending)
						CHECK_FOR_INTERRUPTS();
					QueryCancelPending = false;
					outcome_unknown("the wait for it was cancelled");
				}
				if (state == MG_SLOT_SUBMITTED && *(volatile int *) &mgrepl_shared->provider_procno < 0)
				{
					uint32		submitted = MG_SLOT_SUBMITTED;

					/* Nobody has taken it, nobody will: whoever comes next frees the slot. */
					if (!pg_atomic_compare_exchange_u32(&slot->state, &submitted, MG_SLOT_ABANDONED))
						continue;
					ereport(ERROR,
							(errcode(ERRCODE_CANNOT_CONNECT_NOW),
							 errmsg("the transaction was not sent to the cluster: the provider process has ended"),
							 errhint("Nothing happened; retry it here later or on another node.")));
				}
				if (deadline != 0 && now_us() >= deadline)
				{
					if (!abandon(slot))
						continue;
					outcome_unknown("mgrepl.commit_timeout has passed");
				}
				if (deadline != 0)
					timeout = Max(1, Min(timeout, (deadline - now_us()) / 1000));
				break;
			case MG_SLOT_FREE:
			case MG_SLOT_ABANDONED:
				elog(PANIC, "mgrepl: slot of a waiting transaction is in state %d", (int) state);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* -------------------------------------------------------------- reservations */

/* A writeset of keys alone, or of nothing, made in the slot itself. */
static uint32
bare_writeset(MgSlot *slot, mg_key *keys, uint32 n, uint16 flags, uint64 trx_id)
{
	mg_writeset_header h;
	uint32		crc;

	memset(&h, 0, sizeof(h));
	mg_keys_normalize(keys, &n);
	h.flags = flags;
	h.last_seen = mgrepl_order_committed();
	h.trx_id = trx_id;
	h.n_keys = n;
	h.total_len = MG_WRITESET_HEADER_BYTES + n * 8;
	if (h.total_len > MGREPL_SLOT_BYTES)
		return 0;
	for (uint32 i = 0; i < n; i++)
		mg_store_u64((uint8 *) slot->bytes + MG_WRITESET_HEADER_BYTES + i * 8, keys[i]);
	crc = mg_writeset_crc_begin(&h);
	crc = mg_crc32c(crc, slot->bytes + MG_WRITESET_HEADER_BYTES, n * 8);
	mg_writeset_header_encode(&h, crc, (uint8 *) slot->bytes);
	slot->len = h.total_len;
	slot->ws_flags = flags;
	slot->trx_id = trx_id;
	slot->last_seen = h.last_seen;
	slot->in_file = false;
	slot->durability = MG_ENTRY_MAJORITY;
	return h.total_len;
}

void
mgrepl_commit_reserve(const mg_key *keys, uint32 n)
{
	MgSlot	   *slot = mgrepl_my_slot();
	mg_key		copy[MGREPL_SLOT_BYTES / 8];
	uint64		seqno;

	if (reserved_trx != 0)
		elog(ERROR, "mgrepl: this transaction has reserved keys already");
	if (n > (MGREPL_SLOT_BYTES - MG_WRITESET_HEADER_BYTES) / 8)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the statement names too many objects (%u)", n),
				 errhint("Split it.")));
	mgrepl_commit_require_ready();
	wait_for_free_slot(slot);
	memcpy(copy, keys, n * sizeof(mg_key));
	reserved_trx = pg_atomic_fetch_add_u64(&mgrepl_shared->next_trx_id, 1);
	(void) bare_writeset(slot, copy, n, MG_WS_RESERVE, reserved_trx);
	submit(slot);
	seqno = wait_for_outcome(slot, false);
	pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);

	/* Everything ordered before must be visible to the statement. */
	while (mgrepl_order_committed() < seqno)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * The transaction ends without a writeset of its own: gives its reservation
 * back.  Nobody waits for that, the provider frees the slot.
 */
static void
release_reservation(void)
{
	MgSlot	   *slot = mgrepl_my_slot();
	uint32		free_state = MG_SLOT_FREE;
	uint64		trx = reserved_trx;
	mg_key		none = 0;

	reserved_trx = 0;

	/* Still on its way, abandoned: the provider releases it when it comes out. */
	if (!pg_atomic_compare_exchange_u32(&slot->state, &free_state, MG_SLOT_ABANDONED))
		return;
	slot->picked = false;
	(void) bare_writeset(slot, &none, 0, MG_WS_RELEASE, trx);
	pg_write_barrier();
	(void) mgrepl_submit_push(MgMyProcno());
	wake_provider();
}

/* ------------------------------------------------------------------ messages */

uint64
mgrepl_commit_message(const void *body, uint32 len, void (*at_turn) (uint64 seqno))
{
	MgSlot	   *slot = mgrepl_my_slot();
	mg_writeset_header h;
	uint8	   *event = (uint8 *) slot->bytes + MG_WRITESET_HEADER_BYTES;
	uint64		seqno;

	Assert(MG_WRITESET_HEADER_BYTES + MG_EVENT_HEADER_BYTES + len <= MGREPL_SLOT_BYTES);
	mgrepl_commit_require_ready();
	wait_for_free_slot(slot);
	memset(&h, 0, sizeof(h));
	h.last_seen = mgrepl_order_committed();
	h.trx_id = pg_atomic_fetch_add_u64(&mgrepl_shared->next_trx_id, 1);
	h.time_us = (uint64) (GetCurrentTimestamp() + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
	h.n_events = 1;
	h.events_len = MG_EVENT_HEADER_BYTES + len;
	event[0] = MG_EVENT_MESSAGE;
	mg_store_u32(event + 1, len);
	memcpy(event + MG_EVENT_HEADER_BYTES, body, len);
	mg_writeset_header_encode(&h, mg_crc32c(mg_writeset_crc_begin(&h), event, h.events_len), (uint8 *) slot->bytes);
	slot->len = h.total_len;
	slot->ws_flags = 0;
	slot->trx_id = h.trx_id;
	slot->last_seen = h.last_seen;
	slot->in_file = false;
	slot->durability = MG_ENTRY_MAJORITY;
	submit(slot);
	seqno = wait_for_outcome(slot, true);

	/* If this fails, an applier takes the place over. */
	HOLD_INTERRUPTS();
	at_turn(seqno);
	certified_seqno = 0;
	mgrepl_order_leave(seqno);
	pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
	mgrepl_bfabort_submitted(false);	/* the caller's transaction may go on, and be in the way */
	RESUME_INTERRUPTS();
	return seqno;
}

/* -------------------------------------------------------------------- commit */

/* The transaction has the turn and will commit: nothing may stop it from here on. */
static void
enter_turn(uint64 last)
{
	mgrepl_position_enter(last);
	HOLD_INTERRUPTS();
	interrupts_held = true;
	saved_synchronous_commit = synchronous_commit;
	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	turn_last = last;
	turn_us = now_us();
}

void
mgrepl_commit_check_step_back(void)
{
	if (pg_atomic_read_u32(&mgrepl_applier->step_back) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("an earlier writeset has to be applied first")));
}

static void
pre_commit_applier(void)
{
	while (!mgrepl_order_is_turn(applier_first, MgMyProcno()))
	{
		mgrepl_commit_check_step_back();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	mgrepl_mark_at_turn(applier_first);
	enter_turn(applier_last);
}

static void
pre_commit(void)
{
	MgSlot	   *slot;
	uint32		len;
	uint64		trx_id;
	uint16		flags = 0;
	uint64		seqno;

	if (applier_first != 0)
	{
		pre_commit_applier();
		return;
	}
	mgrepl_dump_pre_commit();
	if (!mgrepl_capture_pending())
		return;

	mgrepl_commit_require_ready();
	mgrepl_bfabort_check();
	if (replorigin_session_origin != InvalidRepOriginId)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a session that follows a replication origin cannot write to a cluster"),
				 errhint("Let the subscription write to a server outside the cluster, or replicate from inside it.")));

	/* What could still fail locally fails now, while nothing has happened. */
	PreCommit_CheckForSerializationFailure();

	slot = mgrepl_my_slot();
	wait_for_free_slot(slot);
	len = mgrepl_capture_close();
	if (reserved_trx != 0)
	{
		trx_id = reserved_trx;
		flags |= MG_WS_RELEASE;
	}
	else
		trx_id = pg_atomic_fetch_add_u64(&mgrepl_shared->next_trx_id, 1);

	slot->last_seen = mgrepl_order_committed();
	slot->trx_id = trx_id;
	slot->ws_flags = flags;
	slot->len = len;
	slot->in_file = len > MGREPL_SLOT_BYTES;
	level = &levels[mgrepl_durability];
	slot->durability = level->entry;
	if (slot->in_file)
	{
		char		path[MAXPGPATH];

		mgrepl_spool_path(path, sizeof(path), MgMyProcno());
		mgrepl_capture_emit(slot->last_seen, trx_id, flags, NULL, path);
	}
	else
		mgrepl_capture_emit(slot->last_seen, trx_id, flags, slot->bytes, NULL);
	submit(slot);

	/* While it is on its way: what the writeset does not carry must not go backwards after a crash. */
	if (mgrepl_capture_used_sequence() && !XLogRecPtrIsInvalid(XactLastRecEnd))
		XLogFlush(XactLastRecEnd);

	reserved_trx = 0;			/* released by the writeset, whatever its verdict */
	seqno = wait_for_outcome(slot, true);
	mgrepl_count(MG_COUNTER_TIME_SUBMIT_US, slot->picked_us - slot->submitted_us);
	mgrepl_count(MG_COUNTER_TIME_ORDER_US, slot->verdict_us - slot->picked_us);
	mgrepl_count(MG_COUNTER_TIME_TURN_US, now_us() - slot->verdict_us);
	enter_turn(seqno);
}

/* NULL, or why a wait for more than the commit itself ends. */
static const char *
wait_ended(int64 deadline)
{
	if (ProcDiePending)
		return "terminating the connection due to administrator command";
	if (QueryCancelPending)
		return "canceling the wait due to user request";
	if (deadline != 0 && now_us() >= deadline)
		return "mgrepl.commit_timeout has passed";
	if (!mgrepl_node_takes_work())
		return "this node is no longer in the primary component";
	return NULL;
}

/*
 * What the durability asks for behind the commit.  As PostgreSQL's wait for
 * synchronous standbys this comes inside a commit that cannot be taken back,
 * with interrupts held.
 */
static void
wait_reached(uint64 seqno)
{
	int64		deadline = mgrepl_commit_timeout_ms > 0 ? now_us() + mgrepl_commit_timeout_ms * INT64CONST(1000) : 0;
	long		timeout = REACHED_LOOK_MS;
	const char *ended = NULL;

	if (deadline != 0)
		timeout = Max(1, Min(timeout, mgrepl_commit_timeout_ms));
	if (level->then == MG_REACHED_APPLIED_EVERYWHERE)
		wake_provider();		/* it may not have seen that this node has committed it */
	while (!mgrepl_order_wait_reached(level->then, seqno) && (ended = wait_ended(deadline)) == NULL)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	mgrepl_order_stop_wait_reached(level->then);
	if (ended == NULL)
		return;

	ereport(WARNING,
			(errmsg("the transaction is committed, but maybe not %s yet: %s", level->missing, ended),
			 errdetail("It has already committed in the cluster as seqno %llu and on this node; only the rest of mgrepl.durability \"%s\" is not confirmed.",
					   (unsigned long long) seqno, level->name)));

	/* The session goes on, or ends without a word about this commit, as with synchronous standbys. */
	if (ProcDiePending)
		whereToSendOutput = DestNone;
	else
		QueryCancelPending = false;
}

/* The locks of a committed transaction have been released. */
static void
resource_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	uint64		seqno = awaited_seqno;

	if (seqno == 0 || phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level)
		return;
	awaited_seqno = 0;
	if (is_commit)
		wait_reached(seqno);
}

/* The transaction became visible: neither allocates nor fails. */
static void
at_commit(void)
{
	if (turn_last != 0)
	{
		uint64		last = turn_last;

		mgrepl_position_leave();
		turn_last = 0;
		mgrepl_order_leave(last);
		synchronous_commit = saved_synchronous_commit;
		if (interrupts_held)
		{
			interrupts_held = false;
			RESUME_INTERRUPTS();
		}
		if (certified_seqno != 0)
		{
			certified_seqno = 0;
			pg_atomic_write_u32(&mgrepl_my_slot()->state, MG_SLOT_FREE);
			mgrepl_count(MG_COUNTER_LOCAL_COMMITS, 1);
			mgrepl_count(MG_COUNTER_TIME_COMMIT_US, now_us() - turn_us);
			if (level->then != MG_REACHED_COUNT)
				awaited_seqno = last;
		}
	}
	if (reserved_trx != 0)
		release_reservation();
	applier_first = applier_last = 0;
	mgrepl_dump_xact_end(true);
	mgrepl_capture_reset();
	mgrepl_bfabort_xact_end(true);
}

static void
at_abort(void)
{
	if (turn_last != 0)
	{
		mgrepl_position_leave();
		turn_last = 0;
		synchronous_commit = saved_synchronous_commit;
		interrupts_held = false;	/* the error has reset the count */
	}
	if (certified_seqno != 0)
	{
		/* Certified, and the local commit failed: the cluster commits it, so must this node. */
		uint64		seqno = certified_seqno;

		certified_seqno = 0;
		pg_atomic_write_u32(&mgrepl_my_slot()->state, MG_SLOT_FREE);
		mgrepl_count(MG_COUNTER_LOCAL_REPLAYS, 1);
		mgrepl_order_replay(seqno);
	}
	if (reserved_trx != 0)
		release_reservation();
	applier_first = applier_last = 0;
	mgrepl_mark_forget();
	mgrepl_dump_xact_end(false);
	mgrepl_capture_reset();
	mgrepl_bfabort_xact_end(false);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (mgrepl_shared == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			at_commit();
			break;
		case XACT_EVENT_ABORT:
			at_abort();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (mgrepl_capture_pending())
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("PREPARE TRANSACTION is not possible for a transaction that writes to the cluster"),
						 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_PREPARE:
			mgrepl_capture_reset();
			mgrepl_bfabort_xact_end(true);
			break;
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId my, SubTransactionId parent, void *arg)
{
	if (mgrepl_shared == NULL)
		return;
	mgrepl_capture_subxact(event, my, parent);
}

void
mgrepl_commit_install(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	RegisterResourceReleaseCallback(resource_callback, NULL);
}
