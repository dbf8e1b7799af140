/*
 * pg/sqlfuncs.c - the functions behind the views and commands in schema mgrepl.
 *
 * Views read what the provider has published.  Commands (bootstrap, join,
 * leave) are carried out by the provider, which alone owns the state of the
 * cluster; a backend asks through mgrepl_shared->command and waits on its latch.
 *
 * The command's `stage` is its lock as well, taken by compare-and-exchange:
 * an LWLock would hold off interrupts, so that nobody could cancel a join that
 * finds no one.
 *
 *	 FREE -> FILLING (asker)   the fields are the asker's
 *	 FILLING -> ASKED (asker)  the fields are the provider's
 *	 ASKED -> ANSWERED (provider)  the answer is the asker's
 *	 ANSWERED -> FREE (asker)
 *	 ASKED -> ORPHANED (asker was cancelled)  the provider frees it when it is done
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "core/wire.h"
#include "pg/capture.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/counters.h"
#include "pg/donor.h"
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/position.h"
#include "pg/shmem.h"

#define MGREPL_VERSION MGREPL_EXTENSION_VERSION

/* A lost wake-up costs this much at most. */
#define COMMAND_POLL_MS 100
#define PROVIDER_WAIT_MS	5000
#define SEQNO_POLL_MS 5

typedef enum CommandStage
{
	STAGE_FREE = 0,
	STAGE_ASKED = 1,
	STAGE_ANSWERED = 2,
	STAGE_FILLING = 3,
	STAGE_ORPHANED = 4
} CommandStage;

PG_FUNCTION_INFO_V1(mgrepl_bootstrap);
PG_FUNCTION_INFO_V1(mgrepl_join);
PG_FUNCTION_INFO_V1(mgrepl_leave);
PG_FUNCTION_INFO_V1(mgrepl_gcache_freeze);
PG_FUNCTION_INFO_V1(mgrepl_gcache_unfreeze);
PG_FUNCTION_INFO_V1(mgrepl_rebuild);
PG_FUNCTION_INFO_V1(mgrepl_install_capture);
PG_FUNCTION_INFO_V1(mgrepl_gtid);
PG_FUNCTION_INFO_V1(mgrepl_wait_for_seqno);
PG_FUNCTION_INFO_V1(mgrepl_status_rows);
PG_FUNCTION_INFO_V1(mgrepl_member_rows);

/* ---- commands ---- */

static int
provider_procno(void)
{
	int			procno;

	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	procno = mgrepl_shared->provider_procno;
	SpinLockRelease(&mgrepl_shared->monitor.mutex);
	return procno;
}

/*
 * Gives the command back, also from an error or while the process ends.  The
 * stage can only be ASKED or ANSWERED here: filling cannot fail.
 */
static void
command_abandon(int code, Datum arg)
{
	uint32		asked = STAGE_ASKED;

	if (!pg_atomic_compare_exchange_u32(&mgrepl_shared->command.stage, &asked, STAGE_ORPHANED))
		pg_atomic_write_u32(&mgrepl_shared->command.stage, STAGE_FREE);
}

static void
command_wait(void)
{
	MgCommand  *command = &mgrepl_shared->command;

	while (pg_atomic_read_u32(&command->stage) != STAGE_ANSWERED)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 COMMAND_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pg_read_barrier();
}

/* Asks the provider and waits for its answer; a refusal is raised with the provider's words. */
static void
command_run(MgCommandKind kind, const char *argument)
{
	MgCommand  *command = &mgrepl_shared->command;
	uint32		expected = STAGE_FREE;
	int			provider = provider_procno();
	bool		ok;
	char		message[sizeof(command->message)];
	char		hint[MG_REASON_BYTES_MAX];

	/* Just after the start of the server it may still be on its way. */
	for (int ms = 0; provider < 0 && ms < PROVIDER_WAIT_MS; ms += COMMAND_POLL_MS)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 COMMAND_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		provider = provider_procno();
	}
	if (provider < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mgrepl provider is not running"),
				 errhint("It starts with the server and again after a failure: look into the server log for what keeps it from it.")));
	if (strlen(argument) >= sizeof(command->argument))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the cluster address is too long"),
				 errdetail("At most %d bytes are possible.", (int) sizeof(command->argument) - 1)));
	if (!pg_atomic_compare_exchange_u32(&command->stage, &expected, STAGE_FILLING))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another cluster command is being carried out"),
				 errhint("Try again when it is done.")));

	command->kind = kind;
	strlcpy(command->argument, argument, sizeof(command->argument));
	command->asker = MgMyProcno();
	command->ok = false;
	command->message[0] = '\0';
	command->hint[0] = '\0';

	PG_ENSURE_ERROR_CLEANUP(command_abandon, (Datum) 0);
	{
		pg_write_barrier();
		pg_atomic_write_u32(&command->stage, STAGE_ASKED);
		mgrepl_wake(provider);
		command_wait();
		ok = command->ok;
		strlcpy(message, command->message, sizeof(message));
		strlcpy(hint, command->hint, sizeof(hint));
	}
	PG_END_ENSURE_ERROR_CLEANUP(command_abandon, (Datum) 0);
	pg_memory_barrier();
	pg_atomic_write_u32(&command->stage, STAGE_FREE);

	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", message[0] ? message : "the provider refused the command"),
				 hint[0] ? errhint("%s", hint) : 0));
	if (hint[0] && (kind == MG_COMMAND_JOIN || kind == MG_COMMAND_REBUILD))
		ereport(NOTICE, (errmsg("%s", message), errhint("%s", hint)));	/* what happens now */
	else if (hint[0])
		ereport(WARNING, (errmsg("%s", hint)));	/* what it has cost */
}

/*
 * The provider changes the node's state in transactions of its own: nothing
 * that a ROLLBACK could take back.
 */
static void
command_prepare(const char *function)
{
	mgrepl_require_database();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to call %s", function)));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s cannot run during recovery", function)));
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", function),
				 errhint("Call it as a statement of its own.")));
}

static Datum
gtid_datum(FunctionCallInfo fcinfo)
{
	char	   *text = mgrepl_position_text(mgrepl_order_committed());

	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

/* What is missing must be made and committed before: the appliers will want these tables. */
static void
require_capture(void)
{
	int			n = mgrepl_capture_missing();

	if (n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_plural("%d table has no capture trigger yet",
							   "%d tables have no capture trigger yet", n, n),
				 errhint("Run SELECT mgrepl.install_capture(), then call this again.")));
}

/*
 * For a new cluster, tables without a trigger get theirs in this transaction, and
 * its locks on all tables keep every writer out until the cluster is there: no
 * row is missed.
 */
Datum
mgrepl_bootstrap(PG_FUNCTION_ARGS)
{
	bool		force = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);

	command_prepare("mgrepl.bootstrap()");
	if (mgrepl_clustered())
		require_capture();
	else
		(void) mgrepl_capture_install_all();
	command_run(MG_COMMAND_BOOTSTRAP, force ? "force" : "");
	return gtid_datum(fcinfo);
}

/* "gcomm://a,b?option" or "a,b" -> "a,b"; ERROR if it is not a list of addresses. */
static char *
address_list(char *address)
{
	char	   *list;
	int			n;

	if (address[0] != '\0' && strstr(address, "://") == NULL)
		address = psprintf("gcomm://%s", address);

	GUC_check_errmsg_string = NULL;
	GUC_check_errdetail_string = NULL;
	GUC_check_errhint_string = NULL;
	if (!mgrepl_guc_check_cluster_address(address, &n))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid cluster address \"%s\"", address),
				 GUC_check_errdetail_string ? errdetail_internal("%s", GUC_check_errdetail_string) : 0,
				 GUC_check_errhint_string ? errhint("%s", GUC_check_errhint_string) : 0));
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no address to join"),
				 errhint("Set mgrepl.cluster_address, or give a member's address: SELECT mgrepl.join('host:port').")));

	/* What follows the scheme, up to the options: that is what the provider takes. */
	list = strstr(address, "://") + 3;
	if (list[strcspn(list, "?")] != '\0')
		ereport(WARNING,
				(errmsg("the options of the cluster address have no meaning in this version")));
	list[strcspn(list, "?")] = '\0';
	return list;
}

/* Where the data does not belong to a cluster it is replaced: nothing to capture. */
Datum
mgrepl_join(PG_FUNCTION_ARGS)
{
	char	   *list;

	command_prepare("mgrepl.join()");
	list = address_list(PG_ARGISNULL(0) ? pstrdup(mgrepl_cluster_address) : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (mgrepl_clustered())
		require_capture();
	command_run(MG_COMMAND_JOIN, list);
	return gtid_datum(fcinfo);
}

Datum
mgrepl_rebuild(PG_FUNCTION_ARGS)
{
	char	   *address = PG_ARGISNULL(0) ? pstrdup(mgrepl_cluster_address) : text_to_cstring(PG_GETARG_TEXT_PP(0));

	command_prepare("mgrepl.rebuild()");
	command_run(MG_COMMAND_REBUILD, address[0] == '\0' ? "" : address_list(address));
	PG_RETURN_VOID();
}

Datum
mgrepl_leave(PG_FUNCTION_ARGS)
{
	command_prepare("mgrepl.leave()");
	command_run(MG_COMMAND_LEAVE, "");
	PG_RETURN_VOID();
}

/* Without a seqno: from what the members of now may still ask for. */
Datum
mgrepl_gcache_freeze(PG_FUNCTION_ARGS)
{
	char		argument[32] = "";

	command_prepare("mgrepl.gcache_freeze()");
	if (!PG_ARGISNULL(0))
	{
		if (PG_GETARG_INT64(0) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the seqno must be positive"),
					 errhint("SELECT mgrepl.gcache_unfreeze() ends a freeze.")));
		snprintf(argument, sizeof(argument), INT64_FORMAT, PG_GETARG_INT64(0));
	}
	command_run(MG_COMMAND_FREEZE, argument);
	PG_RETURN_INT64((int64) pg_atomic_read_u64(&mgrepl_shared->counters[MG_COUNTER_GCACHE_FROZEN_AT]));
}

Datum
mgrepl_gcache_unfreeze(PG_FUNCTION_ARGS)
{
	command_prepare("mgrepl.gcache_unfreeze()");
	command_run(MG_COMMAND_FREEZE, "off");
	PG_RETURN_VOID();
}

Datum
mgrepl_install_capture(PG_FUNCTION_ARGS)
{
	mgrepl_require_loaded();
	PG_RETURN_INT32(mgrepl_capture_install_all());
}

/* ---- position ---- */

Datum
mgrepl_gtid(PG_FUNCTION_ARGS)
{
	mgrepl_require_loaded();
	return gtid_datum(fcinfo);
}

/*
 * Looks every few milliseconds instead of joining the queue of those whose
 * turn it is: a reader must not cost the committers anything.
 */
Datum
mgrepl_wait_for_seqno(PG_FUNCTION_ARGS)
{
	int64		seqno = PG_GETARG_INT64(0);
	int32		timeout_ms = PG_GETARG_INT32(1);
	TimestampTz end;

	mgrepl_require_loaded();
	if (timeout_ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the timeout must not be negative")));
	if (seqno <= 0)
		PG_RETURN_BOOL(true);
	if (!mgrepl_clustered())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is in no cluster")));

	end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	while (mgrepl_order_committed() < (uint64) seqno)
	{
		if (GetCurrentTimestamp() >= end)
			PG_RETURN_BOOL(false);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 SEQNO_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_BOOL(true);
}

/* ---- views ---- */

/* What the views show, copied under the lock so that it is of one moment. */
typedef struct StatusCopy
{
	mg_uuid		uuid;
	uint64		view_id;
	uint64		epoch;
	uint64		log_last;
	uint32		self_id;
	uint32		leader_id;
	uint32		n_members;
	MgMemberInfo members[MG_MEMBERS_MAX];
	char		state_reason[MG_REASON_BYTES_MAX];
} StatusCopy;

static StatusCopy *
status_copy(void)
{
	StatusCopy *copy = palloc(sizeof(StatusCopy));

	LWLockAcquire(mgrepl_shared->status_lock, LW_SHARED);
	copy->uuid = mgrepl_shared->uuid;
	copy->view_id = mgrepl_shared->view_id;
	copy->epoch = mgrepl_shared->epoch;
	copy->log_last = mgrepl_shared->log_last;
	copy->self_id = mgrepl_shared->self_id;
	copy->leader_id = mgrepl_shared->leader_id;
	copy->n_members = Min(mgrepl_shared->n_members, MG_MEMBERS_MAX);
	memcpy(copy->members, mgrepl_shared->members, sizeof(copy->members));
	memcpy(copy->state_reason, mgrepl_shared->state_reason, sizeof(copy->state_reason));
	LWLockRelease(mgrepl_shared->status_lock);
	return copy;
}

static void
put_row(ReturnSetInfo *rsinfo, const char *name, const char *value, const char *description)
{
	Datum		values[3];
	bool		nulls[3] = {false, value == NULL, false};

	values[0] = CStringGetTextDatum(name);
	values[1] = value ? CStringGetTextDatum(value) : (Datum) 0;
	values[2] = CStringGetTextDatum(description);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_number(ReturnSetInfo *rsinfo, const char *name, uint64 value, const char *description)
{
	put_row(rsinfo, name, psprintf(UINT64_FORMAT, value), description);
}

/* What could not be applied is told with the row's key, and the view is everybody's. */
static bool
may_see_reason(void)
{
	return pg_atomic_read_u64(&mgrepl_shared->apply_failed) == 0 ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

static void
put_node_rows(ReturnSetInfo *rsinfo, const StatusCopy *status)
{
	MgNodeState state = mgrepl_node_state();
	char		uuid[MG_UUID_TEXT_BYTES];
	const char *leader = NULL;
	uint64		published;
	uint64		next;
	char		who[MG_REASON_BYTES_MAX];

	for (uint32 i = 0; i < status->n_members; i++)
		if (status->members[i].id == status->leader_id && status->leader_id != 0)
			leader = status->members[i].name;
	mg_uuid_format(&status->uuid, uuid);
	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	published = mgrepl_shared->monitor.published;
	SpinLockRelease(&mgrepl_shared->monitor.mutex);

	put_row(rsinfo, "node_name", mgrepl_node_name, "name of this node");
	put_row(rsinfo, "node_state", mgrepl_node_state_name(state), "state of this node");
	put_row(rsinfo, "node_state_reason", !may_see_reason() ? "<insufficient privilege>" :
			status->state_reason[0] ? status->state_reason : NULL, "why it is in this state");
	put_row(rsinfo, "desynced", mgrepl_donor_why(),
			"why flow control does not wait for this node: joiners that it donates to, mgrepl.desync()");
	put_row(rsinfo, "cluster_name", mgrepl_cluster_name, "name of the cluster");
	put_row(rsinfo, "cluster_uuid", mg_uuid_is_zero(&status->uuid) ? NULL : uuid,
			"identity of the cluster's history");
	put_number(rsinfo, "view_id", status->view_id, "number of the present view");
	put_number(rsinfo, "epoch", status->epoch, "number of the present leader's epoch");
	put_number(rsinfo, "cluster_size", status->n_members, "members of the present view");
	put_row(rsinfo, "primary", mgrepl_node_takes_work() ? "on" : "off",
			"is this node in the primary component");
	put_row(rsinfo, "leader", leader, "name of the member that orders the writesets");
	put_number(rsinfo, "committed_seqno", mgrepl_order_committed(),
			   "all writesets up to this one are committed here");
	put_number(rsinfo, "delivered", published, "all writesets up to this one are ordered and certified here");
	put_row(rsinfo, "next_commit", mgrepl_order_next(&next, who, sizeof(who)) ? psprintf("seqno " UINT64_FORMAT ": %s", next, who) : NULL,
			"which writeset is to be committed here next, and by whom; empty: all that are delivered are committed");
	put_number(rsinfo, "log_last", status->log_last,
			   "the writeset log of this node reaches up to here; if members are lost for good, bootstrap the node with the highest");
	put_number(rsinfo, "flushed_everywhere", pg_atomic_read_u64(&mgrepl_shared->reached[MG_REACHED_FLUSHED_EVERYWHERE]),
			   "all writesets up to this one are on the disk of every member that is not suspected; 0: no majority is heard");
	put_number(rsinfo, "applied_everywhere", pg_atomic_read_u64(&mgrepl_shared->reached[MG_REACHED_APPLIED_EVERYWHERE]),
			   "all writesets up to this one are committed on every member that is not suspected; 0: no majority is heard");
	put_row(rsinfo, "gtid", mgrepl_position_text(mgrepl_order_committed()), "position of this node's data");
	put_number(rsinfo, "protocol_version", MG_PROTOCOL_VERSION, "version of what the nodes speak");
	put_row(rsinfo, "version", MGREPL_VERSION, "version of mgrepl");
}

Datum
mgrepl_status_rows(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *name;
		const char *description;
	}			names[] = {
#define X(symbol, name, description) {name, description},
		MGREPL_COUNTERS(X)
#undef X
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	mgrepl_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	put_node_rows(rsinfo, status_copy());
	for (int i = 0; i < MG_COUNTER_COUNT; i++)
		put_number(rsinfo, names[i].name,
				   pg_atomic_read_u64(&mgrepl_shared->counters[i]), names[i].description);
	return (Datum) 0;
}

Datum
mgrepl_member_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StatusCopy *status;

	mgrepl_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	status = status_copy();
	for (uint32 i = 0; i < status->n_members; i++)
	{
		const MgMemberInfo *member = &status->members[i];
		Datum		values[16];
		bool		nulls[16] = {0};
		int			c = 0;

		values[c++] = Int64GetDatum(member->id);
		values[c++] = CStringGetTextDatum(member->name);
		values[c++] = CStringGetTextDatum(member->address);
		nulls[c] = member->sql_address[0] == '\0';
		values[c++] = CStringGetTextDatum(member->sql_address);
		values[c++] = CStringGetTextDatum(member->role == MG_ROLE_ARBITRATOR ? "arbitrator" : "data");
		values[c++] = Int32GetDatum((int32) member->weight);
		values[c++] = Int32GetDatum((int32) member->segment);
		values[c++] = Int64GetDatum((int64) member->life);
		values[c++] = BoolGetDatum(member->leader);
		values[c++] = BoolGetDatum(member->self);
		values[c++] = BoolGetDatum(member->synced);
		values[c++] = BoolGetDatum(member->desynced);
		values[c++] = Int64GetDatum((int64) member->held);
		values[c++] = Int64GetDatum((int64) member->flushed);
		values[c++] = Int64GetDatum((int64) member->committed);
		values[c++] = Int64GetDatum(member->silent_ms);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
