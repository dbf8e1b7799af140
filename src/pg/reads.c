/*
 * pg/reads.c - reads, and attempts to write, outside the primary component.
 *
 * A node of a cluster that is not in the primary component may be behind what
 * the cluster has committed since, and does not know how far.  So it refuses to
 * read replicated tables unless the session has asked for it with
 * mgrepl.dirty_reads.  Readable all the time: catalogs, schema mgrepl, temporary
 * and unlogged tables, foreign tables, statements that touch no table.
 *
 * How: ExecutorStart looks at the range table of the plan, which names all tables
 * behind views, subqueries and inlined functions; other functions' statements
 * come by themselves.  COPY of a table has no plan and is looked at in
 * ProcessUtility.  In the primary component both cost one load.  A cursor that
 * was opened there may be read to its end.
 *
 * A donor in the primary component refuses in the same way if
 * mgrepl.donor_rejects_queries says so (pg/donor.h).
 *
 * A statement that writes to such a table is refused at the same place, whatever
 * the session has asked for.  Capture would refuse it, too, but only when it has
 * changed a row; before that it may wait for the lock of a transaction whose
 * COMMIT waits for the cluster, and so for as long as the node is cut off.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "pg/commit.h"
#include "pg/donor.h"
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/reads.h"
#include "pg/shmem.h"

#define OWN_SCHEMA "mgrepl"

static ExecutorStart_hook_type next_hook = NULL;

/* May tables be used here and now, whichever they are? */
static bool
uses_anything(void)
{
	if (mgrepl_shared == NULL || (mgrepl_node_takes_work() && !mgrepl_donor_rejects()))
		return true;
	return pg_atomic_read_u32(&mgrepl_shared->clustered) == MG_CLUSTERED_NO ||
		mgrepl_is_applier || IsParallelWorker() || MyBackendType == B_AUTOVAC_WORKER ||
		!mgrepl_in_database();
}

/* Could its rows be different on another node only because this one is behind? */
static bool
is_replicated(Oid relid, char relkind)
{
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE && relkind != RELKIND_MATVIEW)
		return false;
	return relid >= FirstNormalObjectId &&
		get_rel_persistence(relid) == RELPERSISTENCE_PERMANENT &&
		get_rel_namespace(relid) != get_namespace_oid(OWN_SCHEMA, true);
}

static void
check_read(void)
{
	const char *what = NULL;
	bool		passing = false;

	if (mgrepl_dirty_reads || !mgrepl_clustered())
		return;
	switch (mgrepl_node_state())
	{
		case MG_NODE_SYNCED:
			return;
		case MG_NODE_DONOR:
			if (mgrepl_donor_rejects())
				mgrepl_donor_refuse("reads of tables");
			return;
		case MG_NODE_OPEN:
			what = "this node belongs to a cluster but has not joined it";
			break;
		case MG_NODE_PRIMARY:
		case MG_NODE_JOINER:
		case MG_NODE_JOINED:
			what = "this node is joining the cluster and is still behind it";
			passing = true;
			break;
		case MG_NODE_NON_PRIMARY:
			what = "this node is not in the primary component of the cluster";
			passing = true;
			break;
		case MG_NODE_INCONSISTENT:
			what = "this node's data differs from the cluster's";
			break;
	}
	ereport(ERROR,
			(errcode(passing ? ERRCODE_CANNOT_CONNECT_NOW : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s: it does not read tables", what),
			 errhint("Use a node of the primary component, or SET mgrepl.dirty_reads = on to read what this one has; mgrepl.status says why it is in this state.")));
}

/* Before it waits for anybody's lock. */
static void
check_write(void)
{
	if (mgrepl_replicate)
		mgrepl_commit_require_ready();
}

static void
executor_start(QueryDesc *query, int flags)
{
	if (!uses_anything() && (flags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		ListCell   *cell;

		foreach(cell, query->plannedstmt->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

			if (rte->rtekind != RTE_RELATION || !is_replicated(rte->relid, rte->relkind))
				continue;
			if (rte->rellockmode == RowExclusiveLock)
				check_write();
			else
				check_read();
		}
	}
	if (next_hook != NULL)
		next_hook(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

void
mgrepl_reads_check_copy(const CopyStmt *stmt)
{
	Oid			relid;

	if (stmt->relation == NULL || uses_anything())
		return;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || !is_replicated(relid, get_rel_relkind(relid)))
		return;
	if (stmt->is_from)
		check_write();
	else
		check_read();
}

void
mgrepl_reads_install(void)
{
	next_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}
