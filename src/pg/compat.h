/*
 * pg/compat.h - the only place that knows PostgreSQL's version: 15 to 18.
 */
#ifndef MGREPL_COMPAT_H
#define MGREPL_COMPAT_H

#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"

/* As in mgrepl.control. */
#define MGREPL_EXTENSION_VERSION "1.0"

#define MG_PG_MAJOR (PG_VERSION_NUM / 10000)

#if PG_VERSION_NUM < 150000
#error "mgrepl needs PostgreSQL 15 or later"
#endif

/* The process's number: index into ProcGlobal->allProcs. */
#if PG_VERSION_NUM >= 170000
#define MgMyProcno()		((int) MyProcNumber)
#define MgProcLxid(proc)	((proc)->vxid.lxid)
#else
#define MgMyProcno()		((int) MyProc->pgprocno)
#define MgProcLxid(proc)	((proc)->lxid)
#endif

#if PG_VERSION_NUM >= 160000
#define MgOriginSessionSetup(origin)	replorigin_session_setup((origin), 0)
#else
#define MgOriginSessionSetup(origin)	replorigin_session_setup(origin)
#endif

/* ---- used by pg/bfabort.c ---- */
#if PG_VERSION_NUM >= 170000
#define MgProcBackendId(proc)	GetNumberFromPGProc(proc)
#define MgLockLxid(instance)	((instance)->vxid.localTransactionId)
#else
#define MgProcBackendId(proc)	((proc)->backendId)
#define MgLockLxid(instance)	((instance)->lxid)
#endif

/* ---- used by pg/apply.c ---- */
#include "access/genam.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "nodes/makefuncs.h"
#include "parser/parse_relation.h"
#include "utils/rel.h"

#if PG_VERSION_NUM >= 160000
#define MG_EPQ_LAST_ARGUMENT	, NIL
#else
#define MG_EPQ_LAST_ARGUMENT
#endif

#if PG_VERSION_NUM >= 180000
#define MgPrimaryKeyIndex(rel)	RelationGetPrimaryKeyIndex((rel), false)
#define MgIndexBeginScan(rel, index, snapshot, n_keys) \
	index_beginscan((rel), (index), (snapshot), NULL, (n_keys), 0)
#else
#define MgPrimaryKeyIndex(rel)	RelationGetPrimaryKeyIndex(rel)
#define MgIndexBeginScan(rel, index, snapshot, n_keys) \
	index_beginscan((rel), (index), (snapshot), (n_keys), 0)
#endif

/* A range table of this one relation; returns where the executor looks for the updated columns. */
static inline Bitmapset **
MgExecInitRangeTable(EState *estate, Relation rel)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
#if PG_VERSION_NUM >= 160000
	List	   *permissions = NIL;
#endif

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = AccessShareLock;
#if PG_VERSION_NUM >= 160000
	addRTEPermissionInfo(&permissions, rte);
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(estate, list_make1(rte), permissions, bms_make_singleton(1));
#else
	ExecInitRangeTable(estate, list_make1(rte), permissions);
#endif
	return &((RTEPermissionInfo *) linitial(permissions))->updatedCols;
#else
	ExecInitRangeTable(estate, list_make1(rte));
	return &rte->updatedCols;
#endif
}

/* Prepares the stored generated columns for INSERT and UPDATE. */
static inline void
MgExecInitGenerated(ResultRelInfo *result, EState *estate)
{
#if PG_VERSION_NUM >= 180000
	ExecInitGenerated(result, estate, CMD_INSERT);
	ExecInitGenerated(result, estate, CMD_UPDATE);
#elif PG_VERSION_NUM >= 160000
	ExecInitStoredGenerated(result, estate, CMD_INSERT);
	ExecInitStoredGenerated(result, estate, CMD_UPDATE);
#else
	ExecInitStoredGenerated(result, estate, CMD_INSERT);
#endif
}

/* ---- capture.c: PostgreSQL's encoder of rows (replication/logicalproto.h) ---- */
#if PG_VERSION_NUM >= 180000
#define MG_NO_GENERATED		, PUBLISH_GENCOLS_NONE
#else
#define MG_NO_GENERATED
#endif
#define MgLogicalWriteInsert(out, rel, new, binary) \
	logicalrep_write_insert((out), InvalidTransactionId, (rel), (new), (binary), NULL MG_NO_GENERATED)
#define MgLogicalWriteUpdate(out, rel, old, new, binary) \
	logicalrep_write_update((out), InvalidTransactionId, (rel), (old), (new), (binary), NULL MG_NO_GENERATED)
#define MgLogicalWriteDelete(out, rel, old, binary) \
	logicalrep_write_delete((out), InvalidTransactionId, (rel), (old), (binary), NULL MG_NO_GENERATED)

/* A wait event set for the life of the process. */
#if PG_VERSION_NUM >= 170000
#define MgCreateWaitEventSet(n)	CreateWaitEventSet(NULL, (n))
#else
#define MgCreateWaitEventSet(n)	CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* The setting that limits replication origins. */
#if PG_VERSION_NUM >= 180000
#define MG_MAX_ORIGINS	max_active_replication_origins
#else
#define MG_MAX_ORIGINS	max_replication_slots
#endif

#endif							/* MGREPL_COMPAT_H */
