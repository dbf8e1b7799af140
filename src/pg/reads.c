/*
 * pg/reads.c - reads outside the primary component.
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
 * A table that is written to is not looked at here: capture refuses that with
 * an error of its own.
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
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/reads.h"
#include "pg/shmem.h"

#define OWN_SCHEMA "mgrepl"

static ExecutorStart_hook_type next_hook = NULL;

/* May tables be read here and now, whichever they are? */
static bool
reads_anything(void)
{
	if (mgrepl_shared == NULL || mgrepl_node_takes_work())
		return true;
	return mgrepl_dirty_reads ||
		pg_atomic_read_u32(&mgrepl_shared->clustered) == MG_CLUSTERED_NO ||
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
refuse(void)
{
	const char *what = NULL;
	bool		passing = false;

	if (!mgrepl_clustered())
		return;
	switch (mgrepl_node_state())
	{
		case MG_NODE_SYNCED:
		case MG_NODE_DONOR:
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

static void
executor_start(QueryDesc *query, int flags)
{
	if (!reads_anything() && (flags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		ListCell   *cell;

		foreach(cell, query->plannedstmt->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

			if (rte->rtekind == RTE_RELATION && rte->rellockmode != RowExclusiveLock &&
				is_replicated(rte->relid, rte->relkind))
			{
				refuse();
				break;
			}
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

	if (stmt->is_from || stmt->relation == NULL || reads_anything())
		return;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (OidIsValid(relid) && is_replicated(relid, get_rel_relkind(relid)))
		refuse();
}

void
mgrepl_reads_install(void)
{
	next_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}
