/*
 * pg/dump.c - see dump.h.
 *
 * How the donor knows the seqno of a snapshot: by taking a place in the order for
 * it.  export_snapshot() sends a message, as mgrepl.mark() does; in the turn of
 * its seqno s everything below s is committed and visible here, nothing above s
 * can become so before the turn is passed on, and s itself changes nothing.  What
 * GetSnapshotData sees then is the data at s - 1, under any load, and others wait
 * for it as long as for a commit.
 *
 * Rejected: to hold back publishing until all that is published is committed, and
 * to take the snapshot then.  It needs retries under load and a deadline in shared
 * memory for an asker that dies.
 *
 * TRUNCATE and statements that rewrite a table do not keep to snapshots: one that
 * comes between the snapshot and pg_dump's lock would give an empty table.  So all
 * tables of the snapshot are locked here, behind it, and one that has other files
 * by then, or is gone, is an error.  From there on such a statement of another node
 * rolls this session's transaction back (pg/bfabort.h), which ends the transfer.
 *
 * How the joiner adopts a position: the session's replication origin goes into the
 * commit record of the transaction that loads the rows.  replorigin_advance() would
 * write WAL that no rollback takes back.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "pg/capture.h"
#include "pg/commit.h"
#include "pg/donor.h"
#include "pg/dump.h"
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/mark.h"
#include "pg/position.h"
#include "pg/shmem.h"

#define WRITERS_WAIT_MS	10000
#define WRITERS_POLL_MS	50

PG_FUNCTION_INFO_V1(mgrepl_export_snapshot);
PG_FUNCTION_INFO_V1(mgrepl_adopt_position);

/* ----------------------------------------------------------------- the donor */

static Snapshot taken = NULL;

/* In the turn: whoever is next waits for this. */
static void
take_snapshot(uint64 seqno)
{
	taken = RegisterSnapshot(GetLatestSnapshot());
}

typedef struct DumpedTable
{
	Oid			oid;
	Oid			filenode;
	int16		natts;
	NameData	name;
} DumpedTable;

static List *
tables_of(Snapshot snapshot)
{
	Relation	class = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(class, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;
	List	   *tables = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		DumpedTable *t;

		if (form->oid < FirstNormalObjectId || form->relpersistence != RELPERSISTENCE_PERMANENT ||
			(form->relkind != RELKIND_RELATION && form->relkind != RELKIND_PARTITIONED_TABLE &&
			 form->relkind != RELKIND_MATVIEW))
			continue;
		t = palloc(sizeof(*t));
		t->oid = form->oid;
		t->filenode = form->relfilenode;
		t->natts = form->relnatts;
		t->name = form->relname;
		tables = lappend(tables, t);
	}
	systable_endscan(scan);
	table_close(class, AccessShareLock);
	return tables;
}

static void
lock_tables(List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		DumpedTable *t = lfirst(lc);
		HeapTuple	tuple;
		bool		same = false;

		LockRelationOid(t->oid, AccessShareLock);
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(t->oid));
		if (HeapTupleIsValid(tuple))
		{
			Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

			same = form->relfilenode == t->filenode && form->relnatts == t->natts;
			ReleaseSysCache(tuple);
		}
		if (!same)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("table \"%s\" was changed while the snapshot was exported", NameStr(t->name)),
					 errhint("Try again.")));
	}
}

/* export_snapshot(OUT snapshot text, OUT gtid text, OUT epoch bigint): for pg_dump --snapshot, as long as this transaction lives */
Datum
mgrepl_export_snapshot(PG_FUNCTION_ARGS)
{
	static const uint8 body[] = {MG_MESSAGE_PLACE};
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	mg_gtid		position;
	uint64		seqno;

	mgrepl_require_database();
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE || tupdesc->natts != 3)
		elog(ERROR, "mgrepl: the row of mgrepl.export_snapshot() has another type than expected");
	if (!mgrepl_donor_is_me())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this session is no donor's"),
				 errhint("Call mgrepl.donate() in it before: the writeset log is kept from then on.")));
	if (!IsTransactionBlock() || IsSubTransaction() || mgrepl_capture_pending())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mgrepl.export_snapshot() must be called in a transaction block that has changed nothing"),
				 errhint("BEGIN first. The snapshot can be used until COMMIT.")));

	if (!mgrepl_position_read(&position))
		elog(ERROR, "mgrepl: a donor without a position");

	taken = NULL;
	seqno = mgrepl_commit_message(body, sizeof(body), take_snapshot);
	lock_tables(tables_of(taken));
	values[0] = CStringGetTextDatum(ExportSnapshot(taken));
	values[1] = CStringGetTextDatum(mgrepl_position_text(seqno - 1));
	values[2] = Int64GetDatum((int64) mgrepl_position_epoch(&position.uuid));
	UnregisterSnapshot(taken);
	taken = NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* ------------------------------------------- the joiner: what it is loaded into */

static MgDumpHere here_found;

const MgDumpHere *
mgrepl_dump_here(void)
{
	return &here_found;
}

/*
 * One row of a query in a transaction of its own, palloc'd in the caller's context;
 * NULL if there is none.
 */
static char **
one_row(const char *sql, int n)
{
	MemoryContext caller = CurrentMemoryContext;
	char	  **row = NULL;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "mgrepl: reading this server's catalogs failed");
	if (SPI_processed > 0)
	{
		row = MemoryContextAllocZero(caller, n * sizeof(char *));
		for (int i = 0; i < n; i++)
		{
			char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1);

			row[i] = MemoryContextStrdup(caller, value != NULL ? value : "");
		}
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return row;
}

static const char writer_sql[] =
	"SELECT 'the session with process id ' || pid FROM pg_catalog.pg_stat_activity"
	" WHERE datname = pg_catalog.current_database() AND backend_xid IS NOT NULL AND backend_type <> 'autovacuum worker'"
	" UNION ALL SELECT 'the prepared transaction \"' || gid || '\"' FROM pg_catalog.pg_prepared_xacts"
	" WHERE database = pg_catalog.current_database()";

/* Not of PostgreSQL, not of an extension, not temporary. */
static const char object_sql[] =
	"SELECT pg_catalog.pg_describe_object(o.class, o.id, 0) FROM ("
	" SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, oid AS id, 1 AS rank FROM pg_catalog.pg_class"
	"  WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND relpersistence <> 't'"
	" UNION ALL SELECT 'pg_catalog.pg_largeobject'::pg_catalog.regclass, oid, 0 FROM pg_catalog.pg_largeobject_metadata"
	" UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 2 FROM pg_catalog.pg_proc"
	" UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 2 FROM pg_catalog.pg_type WHERE typtype IN ('e', 'd', 'r')"
	" UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 3 FROM pg_catalog.pg_namespace"
	"  WHERE nspname <> 'mgrepl' AND nspname !~ '^pg_') AS o"
	" WHERE (o.id >= 16384 OR o.rank = 0) AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d"
	"  WHERE d.classid = o.class AND d.objid = o.id AND d.deptype = 'e')"
	" ORDER BY o.rank, o.id";

static const char here_sql[] =
	"SELECT pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype,"
	" CASE datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' ELSE 'builtin' END,"
	" (SELECT rolname FROM pg_catalog.pg_authid WHERE oid = 10)"
	" FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

bool
mgrepl_dump_prepare(MgTrouble *trouble)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WRITERS_WAIT_MS);
	char	  **row;
	mg_gtid		position;
	bool		clustered;

	memset(trouble, 0, sizeof(*trouble));
	while ((row = one_row(writer_sql, 1)) != NULL)
	{
		if (GetCurrentTimestamp() >= end)
		{
			snprintf(trouble->error, sizeof(trouble->error), "%s has written to the database and does not end", row[0]);
			strlcpy(trouble->hint, "End it, then join again.", sizeof(trouble->hint));
			return false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WRITERS_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		mgrepl_sst_check();
	}
	StartTransactionCommand();
	clustered = mgrepl_position_read(&position);
	CommitTransactionCommand();
	if (clustered)
	{
		strlcpy(trouble->error, "this server's data belongs to a cluster, and a dump is loaded into an empty database only",
				sizeof(trouble->error));
		strlcpy(trouble->hint, "Use mgrepl.sst_method = 'basebackup', or a new server.", sizeof(trouble->hint));
		return false;
	}
	if ((row = one_row(object_sql, 1)) != NULL)
	{
		snprintf(trouble->error, sizeof(trouble->error),
				 "the database \"%s\" of this server is not empty (%s), and a dump is loaded into an empty one only", mgrepl_database, row[0]);
		strlcpy(trouble->hint, "Drop what is in it, or use mgrepl.sst_method = 'basebackup', which replaces it.", sizeof(trouble->hint));
		return false;
	}
	row = one_row(here_sql, 5);
	if (row == NULL)
		elog(ERROR, "mgrepl: reading the database's properties failed");
	strlcpy(here_found.encoding, row[0], sizeof(here_found.encoding));
	strlcpy(here_found.collate, row[1], sizeof(here_found.collate));
	strlcpy(here_found.ctype, row[2], sizeof(here_found.ctype));
	strlcpy(here_found.provider, row[3], sizeof(here_found.provider));
	strlcpy(here_found.superuser, row[4], sizeof(here_found.superuser));
	return true;
}

/* ------------------------------------------------- the joiner: the position */

static bool adopts = false;		/* this transaction */

/* "uuid:seqno" */
static bool
parse_gtid(const char *text, mg_gtid *gtid)
{
	char		uuid[MG_UUID_TEXT_BYTES];
	const char *colon = strchr(text, ':');
	char	   *end;

	if (colon == NULL || colon - text != sizeof(uuid) - 1 || colon[1] < '1' || colon[1] > '9')
		return false;
	strlcpy(uuid, text, sizeof(uuid));
	errno = 0;
	gtid->seqno = strtoull(colon + 1, &end, 10);
	return errno == 0 && *end == '\0' && mg_uuid_parse(uuid, &gtid->uuid) == MG_OK;
}

static MgTransfer *
transfer(void)
{
	return &mgrepl_shared->transfer;
}

/* adopt_position(gtid text): the data that this transaction loads is the cluster's at that position */
Datum
mgrepl_adopt_position(PG_FUNCTION_ARGS)
{
	char	   *position = text_to_cstring(PG_GETARG_TEXT_PP(0));
	mg_gtid		gtid;
	mg_gtid		found;

	mgrepl_require_database();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to call %s", "mgrepl.adopt_position()")));
	if (pg_atomic_read_u32(&mgrepl_shared->clustered) != MG_CLUSTERED_NO || mgrepl_position_read(&found))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server's data belongs to a cluster already"),
				 errhint("A position is adopted by an empty server that joins with mgrepl.sst_method = 'dump'.")));
	if (mgrepl_transfer_stage() != MG_TRANSFER_COPYING || !mgrepl_sst_is_logical())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no dump is being loaded into this server"),
				 errhint("This function is for mgrepl-sst-dump: set mgrepl.sst_method = 'dump' and call mgrepl.join().")));
	if (!IsTransactionBlock() || IsSubTransaction() || adopts)
		ereport(ERROR,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("mgrepl.adopt_position() must be called once, in the transaction block that loads the data"),
				 errhint("BEGIN, load, call it, COMMIT.")));
	if (!parse_gtid(position, &gtid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a position", position),
				 errhint("It is what mgrepl.export_snapshot() has returned at the donor: uuid:seqno.")));
	mgrepl_position_create(&gtid.uuid);
	mgrepl_position_enter(gtid.seqno);
	adopts = true;
	PG_RETURN_VOID();
}

/*
 * Announced before the look: either this sees that the transfer has ended, or the
 * provider sees this.
 */
void
mgrepl_dump_pre_commit(void)
{
	if (!adopts)
		return;
	pg_atomic_write_u32(&transfer()->adopting, MG_ADOPTING_COMMITS);
	pg_memory_barrier();
	if (mgrepl_transfer_stage() != MG_TRANSFER_COPYING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the transfer has ended before all of the dump was loaded"),
				 errhint("Nothing was kept of it: see mgrepl.transfer_progress, and join again.")));
}

void
mgrepl_dump_xact_end(bool is_commit)
{
	if (!adopts)
		return;
	adopts = false;
	mgrepl_position_leave();
	pg_atomic_write_u32(&transfer()->adopting, is_commit ? MG_ADOPTING_DONE : MG_ADOPTING_NO);
}
