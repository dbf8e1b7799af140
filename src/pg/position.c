/*
 * pg/position.c - the committed seqno, carried by PostgreSQL's own replication
 * origin machinery.
 *
 * How: RecordTransactionCommit puts the session's origin and its LSN into the
 * commit record, and advances the origin in shared memory; recovery and
 * checkpoints do the rest.  A session normally owns an origin for its life;
 * here it is owned for the length of a turn.  Since turns never overlap, one
 * origin is enough for all backends.
 *
 * Rejected: a logical WAL message per transaction (a second WAL record, and a
 * restarted node would have to scan WAL and find out which of them committed);
 * a table row (a new version per commit, bloat under long snapshots).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_replication_origin.h"
#include "replication/origin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "pg/compat.h"
#include "pg/position.h"
#include "pg/shmem.h"

#define PREFIX "mgrepl_"
#define EPOCH_PREFIX "mgrepl_epoch_"

static bool entered = false;

bool
mgrepl_position_read(mg_gtid *gtid)
{
	Relation	rel = table_open(ReplicationOriginRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	int			found = 0;
	RepOriginId id = InvalidRepOriginId;

	memset(gtid, 0, sizeof(*gtid));
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		Form_pg_replication_origin form = (Form_pg_replication_origin) GETSTRUCT(tuple);
		bool		isnull;
		Datum		name = heap_getattr(tuple, Anum_pg_replication_origin_roname,
										RelationGetDescr(rel), &isnull);
		char	   *label = TextDatumGetCString(name);

		if (strncmp(label, PREFIX, strlen(PREFIX)) == 0 &&
			mg_uuid_parse(label + strlen(PREFIX), &gtid->uuid) == MG_OK)
		{
			found++;
			id = form->roident;
		}
		pfree(label);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (found > 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this data carries the positions of %d clusters", found),
				 errhint("Drop all replication origins whose names start with \"%s\" but that of the cluster the data belongs to.", PREFIX)));
	if (found == 0)
		return false;
	gtid->seqno = replorigin_get_progress(id, false);
	pg_atomic_write_u32(&mgrepl_shared->origin_id, id);
	return true;
}

static char *
epoch_origin_name(const mg_uuid *uuid)
{
	char		text[MG_UUID_TEXT_BYTES];

	mg_uuid_format(uuid, text);
	return psprintf(EPOCH_PREFIX "%s", text);
}

uint64
mgrepl_position_epoch(const mg_uuid *uuid)
{
	RepOriginId id = replorigin_by_name(epoch_origin_name(uuid), true);

	return id == InvalidRepOriginId ? 0 : (uint64) replorigin_get_progress(id, false);
}

void
mgrepl_position_note_epoch(const mg_uuid *uuid, uint64 epoch)
{
	RepOriginId id;
	char	   *name;

	StartTransactionCommand();
	name = epoch_origin_name(uuid);
	id = replorigin_by_name(name, true);
	if (id == InvalidRepOriginId)
		id = replorigin_create(name);
	CommitTransactionCommand();
	replorigin_advance(id, (XLogRecPtr) epoch, InvalidXLogRecPtr, false, true);
}

void
mgrepl_position_create(const mg_uuid *uuid)
{
	char		name[sizeof(PREFIX) + MG_UUID_TEXT_BYTES];
	char		text[MG_UUID_TEXT_BYTES];

	mg_uuid_format(uuid, text);
	snprintf(name, sizeof(name), PREFIX "%s", text);
	pg_atomic_write_u32(&mgrepl_shared->origin_id, replorigin_create(name));
}

void
mgrepl_position_enter(mg_seqno seqno)
{
	if (replorigin_session_origin != InvalidRepOriginId)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a session that follows a replication origin cannot write to a cluster"),
				 errhint("Let the subscription write to a server outside the cluster, or replicate from inside it.")));
	MgOriginSessionSetup((RepOriginId) pg_atomic_read_u32(&mgrepl_shared->origin_id));
	entered = true;
	replorigin_session_origin = (RepOriginId) pg_atomic_read_u32(&mgrepl_shared->origin_id);
	replorigin_session_origin_lsn = (XLogRecPtr) seqno;
	replorigin_session_origin_timestamp = 0;
}

void
mgrepl_position_leave(void)
{
	if (!entered)
		return;
	entered = false;
	replorigin_session_origin = InvalidRepOriginId;
	replorigin_session_origin_lsn = InvalidXLogRecPtr;
	replorigin_session_origin_timestamp = 0;
	replorigin_session_reset();
}

char *
mgrepl_position_text(mg_seqno seqno)
{
	mg_uuid		uuid;
	char		text[MG_UUID_TEXT_BYTES];

	LWLockAcquire(mgrepl_shared->status_lock, LW_SHARED);
	uuid = mgrepl_shared->uuid;
	LWLockRelease(mgrepl_shared->status_lock);
	if (mg_uuid_is_zero(&uuid))
		return NULL;
	mg_uuid_format(&uuid, text);
	return psprintf("%s:" UINT64_FORMAT, text, seqno);
}
