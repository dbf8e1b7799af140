/*
 * pg/donor.c - see donor.h.
 *
 * How a donation begins: it is put into shared memory with a pin on everything,
 * then its session waits until the provider has seen it (mgrepl_donor_acts) and
 * the node is DONOR.  Whatever the log released before is gone by then, nothing
 * is released behind it: so the pin can go up to what is committed here, and
 * a backup that starts after the answer has at least that.
 *
 * The row that donate() returns is what a joiner must compare with itself before
 * it gives its own data up; sizes are of the files that a base backup copies.
 */
#include "postgres.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/catversion.h"
#include "common/relpath.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "pg/commit.h"
#include "pg/donor.h"
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/position.h"
#include "pg/shmem.h"

#define TOLD_POLL_MS	20
#define TOLD_WAIT_MS	10000

PG_FUNCTION_INFO_V1(mgrepl_donate);
PG_FUNCTION_INFO_V1(mgrepl_desync);
PG_FUNCTION_INFO_V1(mgrepl_backup_label);
PG_FUNCTION_INFO_V1(mgrepl_donation_rows);
PG_FUNCTION_INFO_V1(mgrepl_joining_rows);

/* This session's entry; NULL: it donates to nobody. */
static MgDonation *mine = NULL;

static MgDonations *
table(void)
{
	return &mgrepl_shared->donations;
}

void
mgrepl_donor_shmem_init(void)
{
	SpinLockInit(&table()->mutex);
	pg_atomic_init_u32(&table()->change, 0);
	pg_atomic_init_u32(&table()->acts, 0);
	pg_atomic_init_u32(&table()->n_active, 0);
	pg_atomic_init_u32(&table()->n_pins, 0);
}

/* ---- the table of donations ---- */

/* With the lock: what others read without it. */
static void
count_locked(MgDonations *d)
{
	uint32		active = 0;
	uint32		pins = 0;

	for (int i = 0; i < MGREPL_PINS_MAX; i++)
		if (d->entries[i].used)
		{
			pins++;
			if (d->entries[i].pid != 0)
				active++;
		}
	pg_atomic_write_u32(&d->n_active, active);
	pg_atomic_write_u32(&d->n_pins, pins);
	pg_atomic_fetch_add_u32(&d->change, 1);
}

static void
wake_provider(void)
{
	mgrepl_wake(*(volatile int *) &mgrepl_shared->provider_procno);
}

/* The member of this name, 0: none. */
static uint32
member_named(const char *name)
{
	uint32		id = 0;

	LWLockAcquire(mgrepl_shared->status_lock, LW_SHARED);
	for (uint32 i = 0; i < mgrepl_shared->n_members; i++)
		if (strcmp(mgrepl_shared->members[i].name, name) == 0)
			id = mgrepl_shared->members[i].id;
	LWLockRelease(mgrepl_shared->status_lock);
	return id;
}

/* NULL if there are too many. */
static MgDonation *
donation_add(const char *joiner, uint64 data_bytes)
{
	MgDonations    *d = table();
	uint32		member = member_named(joiner);
	MgDonation *found = NULL;
	TimestampTz now = GetCurrentTimestamp();
	uint32		active = 0;

	SpinLockAcquire(&d->mutex);
	for (int i = 0; i < MGREPL_PINS_MAX; i++)
	{
		MgDonation *o = &d->entries[i];

		if (o->used && o->pid != 0)
			active++;
		else if (o->used && strcmp(o->joiner, joiner) == 0)
			o->used = false;	/* its earlier attempt */

		/* A free one, else the oldest whose session is gone. */
		if (o->pid == 0 &&
			(found == NULL || (found->used && (!o->used || o->pinned_until < found->pinned_until))))
			found = o;
	}
	if (active >= MGREPL_DONATIONS_MAX)
		found = NULL;
	if (found != NULL)
	{
		memset(found, 0, sizeof(*found));
		found->used = true;
		found->pid = MyProcPid;
		found->since = now;
		found->data_bytes = data_bytes;
		found->member_before = member;
		strlcpy(found->joiner, joiner, sizeof(found->joiner));
		count_locked(d);
	}
	SpinLockRelease(&d->mutex);
	return found;
}

/* The session ends; `keep`: the joiner is likely to come back for the rest. */
static void
donation_end(bool keep)
{
	MgDonations    *d = table();
	TimestampTz until = GetCurrentTimestamp() + MG_PIN_GRACE_S * USECS_PER_SEC;
	char		joiner[MG_NAME_BYTES_MAX];

	if (mine == NULL)
		return;
	SpinLockAcquire(&d->mutex);
	mine->pid = 0;
	mine->used = keep;
	mine->pinned_until = until;
	strlcpy(joiner, mine->joiner, sizeof(joiner));
	count_locked(d);
	SpinLockRelease(&d->mutex);
	mine = NULL;
	wake_provider();
	ereport(LOG,
			(errmsg("mgrepl: the donation to \"%s\" has ended%s", joiner,
					keep ? ", the writeset log is kept for it a while longer" : "")));
}

static void
at_exit(int code, Datum arg)
{
	donation_end(true);
}

/* ---- for the provider ---- */

bool
mgrepl_donor_wanted(uint32 *change)
{
	*change = pg_atomic_read_u32(&table()->change);
	pg_read_barrier();
	return pg_atomic_read_u32(&table()->n_active) > 0 || table()->desynced;
}

void
mgrepl_donor_acts(uint32 change)
{
	pg_write_barrier();
	pg_atomic_write_u32(&table()->acts, change);
}

mg_seqno
mgrepl_donor_pin(void)
{
	MgDonations    *d = table();
	mg_seqno	pin = MG_SEQNO_NONE_PINNED;
	TimestampTz now;
	bool		expired = false;

	if (pg_atomic_read_u32(&d->n_pins) == 0)
		return pin;
	now = GetCurrentTimestamp();
	SpinLockAcquire(&d->mutex);
	for (int i = 0; i < MGREPL_PINS_MAX; i++)
	{
		MgDonation *o = &d->entries[i];

		if (o->used && o->pid == 0 && now >= o->pinned_until)
		{
			o->used = false;
			expired = true;
		}
		if (o->used)
			pin = Min(pin, o->pinned);
	}
	if (expired)
		count_locked(d);
	SpinLockRelease(&d->mutex);
	return pin;
}

/* A joiner takes the end of the session for the end of its donor, and its copy for nothing. */
void
mgrepl_donor_end_all(void)
{
	MgDonations *d = table();
	int			pids[MGREPL_PINS_MAX];
	int			n = 0;

	if (pg_atomic_read_u32(&d->n_active) == 0)
		return;
	SpinLockAcquire(&d->mutex);
	for (int i = 0; i < MGREPL_PINS_MAX; i++)
		if (d->entries[i].used && d->entries[i].pid != 0)
			pids[n++] = d->entries[i].pid;
	SpinLockRelease(&d->mutex);
	for (int i = 0; i < n; i++)
		(void) kill(pids[i], SIGTERM);
}

void
mgrepl_donor_joined(uint32 member, const char *name)
{
	MgDonations    *d = table();
	bool		any = false;

	if (pg_atomic_read_u32(&d->n_pins) == 0)
		return;
	SpinLockAcquire(&d->mutex);
	for (int i = 0; i < MGREPL_PINS_MAX; i++)
	{
		MgDonation *o = &d->entries[i];

		if (o->used && o->pid == 0 && o->member_before != member && strcmp(o->joiner, name) == 0)
		{
			o->used = false;
			any = true;
		}
	}
	if (any)
		count_locked(d);
	SpinLockRelease(&d->mutex);
}

/* ---- for everybody ---- */

bool
mgrepl_donor_rejects(void)
{
	return mgrepl_donor_rejects_queries && mine == NULL &&
		pg_atomic_read_u32(&table()->n_active) > 0 &&
		MyBackendType == B_BACKEND && !am_walsender;
}

bool
mgrepl_donor_is_me(void)
{
	return mine != NULL;
}

void
mgrepl_donor_refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("this node gives a copy of its data to a joiner: it does not take %s", what),
			 errhint("Use another node, or wait: mgrepl.transfer_progress shows how far it is. Its setting mgrepl.donor_rejects_queries is on.")));
}

char *
mgrepl_donor_why(void)
{
	MgDonations    *d = table();
	MgDonations    *copy;
	StringInfoData text;

	if (pg_atomic_read_u32(&d->n_active) == 0 && !d->desynced)
		return NULL;
	copy = palloc(sizeof(*copy));
	SpinLockAcquire(&d->mutex);
	memcpy(copy, d, sizeof(*copy));
	SpinLockRelease(&d->mutex);

	initStringInfo(&text);
	for (int i = 0; i < MGREPL_PINS_MAX; i++)
		if (copy->entries[i].used && copy->entries[i].pid != 0)
			appendStringInfo(&text, "%sdonates to %s since %s", text.len > 0 ? "; " : "",
							 copy->entries[i].joiner, timestamptz_to_str(copy->entries[i].since));
	if (copy->desynced)
		appendStringInfo(&text, "%smgrepl.desync(true) by %s at %s", text.len > 0 ? "; " : "",
						 copy->desynced_by, timestamptz_to_str(copy->desynced_since));
	return text.len > 0 ? text.data : NULL;
}

/* ---- waiting for the provider ---- */

static void
require_synced(const char *what)
{
	if (!mgrepl_clustered())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is in no cluster: it cannot %s", what),
				 errhint("Call mgrepl.bootstrap() or mgrepl.join() first.")));
	if (!mgrepl_node_takes_work())
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("this node is %s: it cannot %s", mgrepl_node_state_name(mgrepl_node_state()), what),
				 errhint("Use a node that mgrepl.members shows as synced, or wait until this one is.")));
}

/* Until the provider acts upon the last change, and the node's state is what is wanted. */
static void
wait_told(const char *what, bool want_donor)
{
	uint32		change = pg_atomic_read_u32(&table()->change);
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TOLD_WAIT_MS);

	wake_provider();
	for (;;)
	{
		bool		told = (int32) (pg_atomic_read_u32(&table()->acts) - change) >= 0;

		pg_read_barrier();
		if (told && (!want_donor || mgrepl_node_state() == MG_NODE_DONOR))
			return;
		if (want_donor)
			require_synced(what);
		if (GetCurrentTimestamp() >= end)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("the mgrepl provider does not answer"),
					 errhint("The server log says what keeps it from running; try again.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TOLD_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* What is done here is in force at once, whatever becomes of a transaction. */
static void
require_own_statement(const char *function)
{
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", function),
				 errhint("Call it as a statement of its own.")));
}

/* ---- what a joiner must know beforehand ---- */

/* As pg_basebackup leaves them out (backup/basebackup.c), at the top of the data directory. */
static bool
is_left_out(const char *name)
{
	static const char *const names[] = {
		"pg_wal", "pg_tblspc", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial",
		"pg_snapshots", "pg_stat_tmp", "pg_subtrans", "postmaster.pid", "postmaster.opts",
	};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* Sum of the files' sizes; what goes away meanwhile counts as nothing. */
static uint64
directory_bytes(const char *path, bool top)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *de;
	uint64		sum = 0;

	if (dir == NULL && errno == ENOENT)
		return 0;
	while ((de = ReadDir(dir, path)) != NULL)
	{
		char		file[MAXPGPATH * 2];
		struct stat st;

		CHECK_FOR_INTERRUPTS();
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
			strncmp(de->d_name, PG_TEMP_FILE_PREFIX, strlen(PG_TEMP_FILE_PREFIX)) == 0 ||
			(top && is_left_out(de->d_name)))
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, de->d_name);
		if (lstat(file, &st) != 0)
			continue;
		if (S_ISDIR(st.st_mode))
			sum += directory_bytes(file, false);
		else if (S_ISREG(st.st_mode))
			sum += st.st_size;
	}
	FreeDir(dir);
	return sum;
}

/* [{"oid": 16384, "name": "fast", "location": "/ssd", "bytes": 12345}, ...] */
static char *
tablespaces_json(uint64 *bytes)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	*bytes = 0;
	if (SPI_execute("SELECT oid, spcname, pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace"
					" WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "mgrepl: reading the tablespaces failed");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		char	   *oid = SPI_getvalue(row, SPI_tuptable->tupdesc, 1);
		char		path[MAXPGPATH];
		uint64		size;

		snprintf(path, sizeof(path), "pg_tblspc/%s/%s", oid, TABLESPACE_VERSION_DIRECTORY);
		size = directory_bytes(path, false);
		*bytes += size;
		appendStringInfo(&json, "%s{\"oid\": %s, \"name\": ", i > 0 ? ", " : "", oid);
		escape_json(&json, SPI_getvalue(row, SPI_tuptable->tupdesc, 2));
		appendStringInfoString(&json, ", \"location\": ");
		escape_json(&json, SPI_getvalue(row, SPI_tuptable->tupdesc, 3));
		appendStringInfo(&json, ", \"bytes\": " UINT64_FORMAT "}", size);
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

#define DONATE_COLUMNS 13

/* All but the GTID, which is known last. */
static void
describe(Datum *values, bool *nulls, uint64 *total_bytes)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *found[5];
	char	   *tablespaces;
	uint64		data_bytes = directory_bytes(".", true);
	uint64		tablespace_bytes;
	int			c = 1;

	SPI_connect();
	tablespaces = MemoryContextStrdup(caller, tablespaces_json(&tablespace_bytes));
	if (SPI_execute("SELECT d.datcollate, d.datctype,"
					" CASE d.datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' ELSE 'builtin' END,"
					" pg_catalog.pg_database_collation_actual_version(d.oid),"
					" (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'mgrepl')"
					" FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "mgrepl: reading the database's properties failed");
	for (int i = 0; i < 5; i++)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1);

		found[i] = value ? MemoryContextStrdup(caller, value) : NULL;
	}
	SPI_finish();

	values[c++] = Int32GetDatum(atoi(GetConfigOption("server_version_num", false, false)));
	values[c++] = Int32GetDatum(CATALOG_VERSION_NO);
	values[c++] = Int32GetDatum(BLCKSZ);
	values[c++] = Int64GetDatum(wal_segment_size);
	values[c++] = BoolGetDatum(DataChecksumsEnabled());
	for (int i = 0; i < 4; i++, c++)
	{
		nulls[c] = found[i] == NULL;
		values[c] = found[i] ? CStringGetTextDatum(found[i]) : (Datum) 0;
	}
	values[c++] = Int64GetDatum((int64) data_bytes);
	values[c++] = DirectFunctionCall1(jsonb_in, CStringGetDatum(tablespaces));
	nulls[c] = found[4] == NULL;
	values[c++] = found[4] ? CStringGetTextDatum(found[4]) : (Datum) 0;
	Assert(c == DONATE_COLUMNS);
	*total_bytes = data_bytes + tablespace_bytes;
}

/*
 * The session lives as long as its other end does: a joiner whose machine has
 * vanished is noticed by TCP, one that is busy copying is not thrown out.
 */
static void
set_session(void)
{
	static const char *const settings[][2] = {
		{"idle_session_timeout", "0"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"tcp_keepalives_idle", "10"},
		{"tcp_keepalives_interval", "5"},
		{"tcp_keepalives_count", "4"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION);
}

static void
check_donate(const char *joiner)
{
	mgrepl_require_database();
	if (!superuser() && !has_rolreplication(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser or replication role to call mgrepl.donate()"),
				 errhint("ALTER ROLE ... REPLICATION, or name another user in mgrepl.sst_conninfo of the joiner.")));
	require_own_statement("mgrepl.donate()");
	if (joiner[0] == '\0' || strlen(joiner) >= MG_NAME_BYTES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a joiner has 1 to %d bytes", MG_NAME_BYTES_MAX - 1),
				 errhint("Give the mgrepl.node_name of the node that the copy is for.")));
	if (mine != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this session donates to \"%s\" already", mine->joiner),
				 errhint("A donation ends with its session: use another one.")));
	require_synced("donate its data");
}

/* donate(joiner text): the donation lasts as long as the session */
Datum
mgrepl_donate(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	char	   *joiner = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TupleDesc	tupdesc;
	Datum		values[DONATE_COLUMNS];
	bool		nulls[DONATE_COLUMNS] = {0};
	uint64		bytes;
	uint64		committed;

	check_donate(joiner);
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE || tupdesc->natts != DONATE_COLUMNS)
		elog(ERROR, "mgrepl: the row of mgrepl.donate() has another type than expected");
	describe(values, nulls, &bytes);
	set_session();
	if (!registered)
		before_shmem_exit(at_exit, (Datum) 0);
	registered = true;

	mine = donation_add(joiner, bytes);
	if (mine == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("this node donates to %d joiners already", MGREPL_DONATIONS_MAX),
				 errhint("Use another donor (mgrepl.sst_donor), or wait: mgrepl.transfer_progress shows how far they are.")));
	PG_TRY();
	{
		wait_told("donate its data", true);
		committed = mgrepl_order_committed();
		SpinLockAcquire(&table()->mutex);
		mine->pinned = committed;
		SpinLockRelease(&table()->mutex);
		values[0] = CStringGetTextDatum(mgrepl_position_text(committed));
	}
	PG_CATCH();
	{
		donation_end(false);
		PG_RE_THROW();
	}
	PG_END_TRY();
	ereport(LOG,
			(errmsg("mgrepl: donating to \"%s\" from seqno %llu on, " UINT64_FORMAT " bytes of data",
					joiner, (unsigned long long) committed, bytes)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* desync(on boolean): the operator's switch */
Datum
mgrepl_desync(PG_FUNCTION_ARGS)
{
	bool		on = PG_GETARG_BOOL(0);
	MgDonations    *d = table();
	char	   *user;
	TimestampTz now = GetCurrentTimestamp();

	mgrepl_require_database();
	require_own_statement("mgrepl.desync()");
	if (on)
		require_synced("be desynced");
	user = GetUserNameFromId(GetUserId(), false);
	SpinLockAcquire(&d->mutex);
	if (on && !d->desynced)
	{
		d->desynced_since = now;
		strlcpy(d->desynced_by, user, sizeof(d->desynced_by));
	}
	d->desynced = on;
	count_locked(d);
	SpinLockRelease(&d->mutex);
	wait_told("be desynced", on);
	PG_RETURN_VOID();
}

/*
 * What a tool records with a backup that starts now: the backup has at least
 * this position, and carries its exact one itself.
 */
Datum
mgrepl_backup_label(PG_FUNCTION_ARGS)
{
	char	   *gtid;

	mgrepl_require_loaded();
	gtid = mgrepl_position_text(mgrepl_order_committed());
	if (gtid == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("GTID: %s\nNODE: %s\nCLUSTER: %s\nSTATE: %s\nTIME: %s\n",
											  gtid, mgrepl_node_name, mgrepl_cluster_name,
											  mgrepl_node_state_name(mgrepl_node_state()),
											  timestamptz_to_str(GetCurrentTimestamp()))));
}

Datum
mgrepl_donation_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MgDonations    *copy = palloc(sizeof(*copy));

	mgrepl_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	SpinLockAcquire(&table()->mutex);
	memcpy(copy, table(), sizeof(*copy));
	SpinLockRelease(&table()->mutex);
	for (int i = 0; i < MGREPL_PINS_MAX; i++)
	{
		const MgDonation *o = &copy->entries[i];
		Datum		values[6];
		bool		nulls[6] = {false, o->pid == 0, false, false, false, o->pid != 0};

		if (!o->used)
			continue;
		values[0] = CStringGetTextDatum(o->joiner);
		values[1] = Int32GetDatum(o->pid);
		values[2] = TimestampTzGetDatum(o->since);
		values[3] = Int64GetDatum((int64) o->data_bytes);
		values[4] = Int64GetDatum((int64) o->pinned);
		values[5] = TimestampTzGetDatum(o->pinned_until);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- the other side: a snapshot that this node gets ---- */

Datum
mgrepl_joining_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MgTransferRow row;
	Datum		values[8];
	bool		nulls[8] = {0};
	TimestampTz until;

	mgrepl_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	if (!mgrepl_transfer_row(&row))
		return (Datum) 0;
	until = row.ended_at != 0 ? row.ended_at : GetCurrentTimestamp();
	nulls[0] = row.peer[0] == '\0';
	nulls[1] = row.method[0] == '\0';
	nulls[4] = row.bytes_total == 0;
	nulls[6] = row.copy_started_at == 0;
	nulls[7] = row.error[0] == '\0';
	values[0] = CStringGetTextDatum(row.peer);
	values[1] = CStringGetTextDatum(row.method);
	values[2] = CStringGetTextDatum(mgrepl_transfer_stage_name(row.stage));
	values[3] = Int64GetDatum((int64) row.bytes_done);
	values[4] = Int64GetDatum((int64) row.bytes_total);
	values[5] = TimestampTzGetDatum(row.started_at);
	values[6] = Float8GetDatum((double) (until - row.copy_started_at) / USECS_PER_SEC);
	values[7] = CStringGetTextDatum(row.error);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
