/*
 * pg/apply.c - writesets of other nodes become row changes here.
 *
 * How.  A RELATION event names a table; what this process knows about it (how
 * to read its columns, how to find a row, its foreign keys) is kept in MgTable,
 * for the life of the process, until an invalidation says that it may have
 * changed.  The first use in a transaction opens the table (MgOpenTable):
 * relation, indexes, executor state, slots and an index scan, which then serve
 * every row of every writeset of that transaction.  An applier puts many small
 * writesets into one transaction; opening anew for each would add about a quarter
 * to a one-row UPDATE (measured: 8.3-9.3 us of CPU in groups of 64, 10.5-11.8 one by one).
 *
 * A row is written with ExecSimpleRelationInsert, Update and Delete, as logical
 * replication's apply does.  Three things are done in another way:
 *
 * - Finding and locking the row.  RelationFindReplTupleByIndex waits for whoever
 *	 holds it.  A certified change does not wait for a transaction that is not:
 *	 the holders are looked up in the row itself and rolled back
 *	 (mgrepl_bfabort_xid); only their end is waited for.
 *
 * - The strength of the lock.  PostgreSQL's apply takes FOR UPDATE for every
 *	 change.  Here an UPDATE that leaves all key columns alone takes FOR NO KEY
 *	 UPDATE, as its keys said to certification.  Otherwise two appliers whose
 *	 writesets do not conflict (a parent's update, a child's insert) would wait
 *	 for each other: one for the row, the other for its turn to commit.
 *
 * - Foreign keys.  Their triggers don't fire under session_replication_role =
 *	 replica, so the referenced row is locked here, FOR KEY SHARE.
 *
 * Columns that arrive with the value that they have here keep the local datum.
 * Then heap_update sees the same bytes, keeps the update HOT, does not toast the
 * value again, and comes to the same lock strength as this file.
 *
 * Triggers that can't fire under the replica role, and mgrepl's own capture
 * trigger, are taken out of the executor's copy of the trigger list, so that
 * nothing is queued for them.
 *
 * Rejected: SPI with saved plans (14-18 us of CPU for the same UPDATE, without
 * any decoding; and rules, row security and search_path come in); writing the
 * heap directly (then constraints, generated columns and triggers would be ours
 * to do).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "replication/logicalproto.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "core/buf.h"
#include "pg/apply.h"
#include "pg/bfabort.h"
#include "pg/compat.h"
#include "pg/ddl.h"
#include "pg/mark.h"
#include "pg/relation.h"

/* ---- what this process knows about a table ---- */

/* A column that travels: live and not generated. */
typedef struct MgColumn
{
	int			att;			/* index into the tuple descriptor */
	Oid			type;
	int32		typmod;
	int16		len;
	bool		byval;
	bool		is_key;			/* in some unique index: a change needs the stronger lock */
	bool		is_identity;	/* rows are found by it */
	Oid			ioparam;
	FmgrInfo	receive;		/* fn_oid is invalid until it is first needed */
	FmgrInfo	input;
	TypeCacheEntry *type_cache; /* for tables without an identity index; NULL until needed */
} MgColumn;

typedef struct MgForeignKey
{
	Oid			relid;			/* referenced table, or one leaf of it */
	Oid			index;			/* its unique index */
	int			n_keys;
	AttrNumber	attnos[INDEX_MAX_KEYS]; /* our columns, in the index's order */
	FmgrInfo	casts[INDEX_MAX_KEYS];	/* fn_oid is invalid where none is needed */
	ScanKeyData keys[INDEX_MAX_KEYS];
} MgForeignKey;

typedef struct MgTableName
{
	char		schema[NAMEDATALEN];
	char		table[NAMEDATALEN];
} MgTableName;

struct MgOpenTable;

typedef struct MgTable
{
	MgTableName name;			/* hash key, padded with zeros */
	Oid			relid;
	bool		built;			/* the rest is filled in */
	bool		stale;			/* an invalidation arrived since */
	uint64		names_seen;		/* names_changed when relid was looked up */
	MemoryContext context;		/* of everything below */
	uint64		fingerprint;
	int			n_columns;
	MgColumn   *columns;
	Oid			identity;		/* index that finds a row; invalid: compare whole rows */
	int			n_identity;
	ScanKeyData *identity_keys;
	AttrNumber *identity_attnos;
	int			n_foreign_keys;
	MgForeignKey *foreign_keys;
	Oid			capture_function;	/* of our trigger, if it has one */

	uint64		opened_in;		/* `open` is good in the transaction with this serial number only */
	struct MgOpenTable *open;
} MgTable;

static HTAB *tables = NULL;

/* Grows when any name may stand for another table than before. */
static uint64 names_changed = 1;

/* ---- a table in use by the present transaction ---- */

/* A row as it arrived, spread over the local table's columns. */
typedef struct MgRow
{
	Datum	   *values;
	bool	   *isnull;
	bool	   *unsent;			/* unchanged toasted value that was not sent */
} MgRow;

typedef struct MgOpenForeignKey
{
	Relation	rel;			/* NULL until it is first needed */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} MgOpenForeignKey;

/* Lives in its own executor state's memory. */
typedef struct MgOpenTable
{
	MgTable    *table;
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *result;
	EPQState	epq;
	Bitmapset **updated_cols;	/* where the executor looks for them */
	bool		has_triggers;	/* some that fire here and are not ours */
	IndexScanDesc scan;			/* on the identity index; NULL if there is none */
	SnapshotData dirty;
	TupleTableSlot *local_slot; /* the row as it is here */
	TupleTableSlot *lock_slot;
	TupleTableSlot *new_slot;
	MgRow		old_row;
	MgRow		new_row;
	MgOpenForeignKey *foreign_keys;
	struct MgOpenTable *next;
} MgOpenTable;

/* The origin's number of a table, within one writeset. */
typedef struct MgTableRef
{
	uint32		origin_relid;
	uint64		fingerprint;
	MgTable    *table;
} MgTableRef;

/* State of the present transaction; everything it points to dies with the transaction. */
static struct
{
	uint64		serial;			/* of transactions, counts up */
	LocalTransactionId lxid;	/* which one it is; invalid: none */
	MemoryContext context;
	MemoryContext row_context;	/* reset after each event */
	MgOpenTable *open;
	MgTableRef *refs;
	int			n_refs;
	int			refs_cap;
} trx;

/* What is being applied, for messages. */
typedef struct MgApplyPoint
{
	mg_seqno	seqno;
	mg_event_type type;
	const MgTableName *name;
} MgApplyPoint;

static const char *
event_name(mg_event_type type)
{
	switch (type)
	{
		case MG_EVENT_RELATION:
			return "RELATION";
		case MG_EVENT_INSERT:
			return "INSERT";
		case MG_EVENT_UPDATE:
			return "UPDATE";
		case MG_EVENT_DELETE:
			return "DELETE";
		case MG_EVENT_STATEMENT:
			return "STATEMENT";
		case MG_EVENT_TRUNCATE:
			return "TRUNCATE";
		case MG_EVENT_SEQUENCE:
			return "SEQUENCE";
		case MG_EVENT_MESSAGE:
			return "MESSAGE";
		case MG_EVENT_NONE:
		case MG_EVENT_TYPE_COUNT:
			break;
	}
	return "unknown event";
}

static void
add_error_context(void *arg)
{
	const MgApplyPoint *at = arg;

	if (at->name != NULL)
		errcontext("applying writeset %llu, %s on table \"%s.%s\"",
				   (unsigned long long) at->seqno, event_name(at->type),
				   at->name->schema, at->name->table);
	else
		errcontext("applying writeset %llu, %s",
				   (unsigned long long) at->seqno, event_name(at->type));
}

static void
report_damaged(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("writeset cannot be decoded: %s", what)));
}

/* ---- invalidation ---- */

static void
on_relcache_change(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	MgTable    *table;

	if (!OidIsValid(relid))
		names_changed++;

	hash_seq_init(&status, tables);
	while ((table = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || table->relid == relid)
			table->stale = true;
}

static void
on_schema_change(Datum arg, int cacheid, uint32 hash)
{
	names_changed++;
}

void
mgrepl_apply_init(void)
{
	HASHCTL		ctl = {0};

	if (tables != NULL)
		return;

	ctl.keysize = sizeof(MgTableName);
	ctl.entrysize = sizeof(MgTable);
	tables = hash_create("mgrepl tables to apply to", 128, &ctl, HASH_ELEM | HASH_BLOBS);

	CacheRegisterRelcacheCallback(on_relcache_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_schema_change, (Datum) 0);
}

static bool
is_current(const MgTable *table)
{
	return table->built && !table->stale && table->names_seen == names_changed;
}

/* ---- learning about a table ---- */

static bool
is_capture_function(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		answer = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		bool		isnull;
		Datum		symbol = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);

		if (!isnull)
		{
			char	   *name = TextDatumGetCString(symbol);

			answer = strcmp(name, "mgrepl_capture_row") == 0;
			pfree(name);
		}
	}
	ReleaseSysCache(tuple);
	return answer;
}

static void
learn_columns(MgTable *table, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *key_attrs = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);

	table->columns = palloc0(sizeof(MgColumn) * Max(desc->natts, 1));
	table->n_columns = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		MgColumn   *column;

		if (att->attisdropped || att->attgenerated)
			continue;
		column = &table->columns[table->n_columns++];
		column->att = i;
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->len = att->attlen;
		column->byval = att->attbyval;
		column->is_key = bms_is_member(att->attnum - FirstLowInvalidHeapAttributeNumber,
									   key_attrs);
	}
	bms_free(key_attrs);
}

/* The index by which rows are found, and scan keys that lack only their values. */
static void
learn_identity(MgTable *table, Relation rel)
{
	Relation	index;

	table->identity = RelationGetReplicaIndex(rel);
	if (!OidIsValid(table->identity))
		table->identity = MgPrimaryKeyIndex(rel);
	if (!OidIsValid(table->identity))
	{
		table->n_identity = 0;
		for (int i = 0; i < table->n_columns; i++)
			table->columns[i].is_identity = true;
		return;
	}

	index = index_open(table->identity, AccessShareLock);
	table->n_identity = IndexRelationGetNumberOfKeyAttributes(index);
	table->identity_keys = palloc0(sizeof(ScanKeyData) * table->n_identity);
	table->identity_attnos = palloc0(sizeof(AttrNumber) * table->n_identity);
	for (int i = 0; i < table->n_identity; i++)
	{
		AttrNumber	attno = index->rd_index->indkey.values[i];
		Oid			type = index->rd_opcintype[i];
		Oid			equal = get_opfamily_member(index->rd_opfamily[i], type, type,
												BTEqualStrategyNumber);

		if (!OidIsValid(equal))
			elog(ERROR, "missing operator %d(%u,%u) in opfamily %u",
				 BTEqualStrategyNumber, type, type, index->rd_opfamily[i]);
		ScanKeyEntryInitialize(&table->identity_keys[i], 0, i + 1, BTEqualStrategyNumber,
							   InvalidOid, index->rd_indcollation[i],
							   get_opcode(equal), (Datum) 0);
		table->identity_attnos[i] = attno;
		for (int c = 0; c < table->n_columns; c++)
			if (table->columns[c].att == attno - 1)
				table->columns[c].is_identity = true;
	}
	index_close(index, AccessShareLock);
}

/*
 * One foreign key: a scan of the referenced index with our columns' values.
 * False if there is nothing to lock: the referenced table is partitioned, and
 * then each of its leaves has an entry of its own in the list.
 */
static bool
learn_foreign_key(MgForeignKey *fk, Relation rel, const ForeignKeyCacheInfo *info)
{
	HeapTuple	tuple;
	Relation	index;
	bool		usable;

	if (get_rel_relkind(info->confrelid) != RELKIND_RELATION)
		return false;

	memset(fk, 0, sizeof(*fk));
	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(info->conoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for constraint %u", info->conoid);
	fk->relid = info->confrelid;
	fk->index = ((Form_pg_constraint) GETSTRUCT(tuple))->conindid;
	ReleaseSysCache(tuple);

	index = index_open(fk->index, AccessShareLock);
	fk->n_keys = IndexRelationGetNumberOfKeyAttributes(index);
	usable = index->rd_rel->relam == BTREE_AM_OID && fk->n_keys == info->nkeys;
	for (int i = 0; usable && i < fk->n_keys; i++)
	{
		int			k = 0;
		Oid			left;
		Oid			right;
		Oid			type;

		while (k < info->nkeys && info->confkey[k] != index->rd_index->indkey.values[i])
			k++;
		if (k == info->nkeys)
		{
			usable = false;
			break;
		}
		fk->attnos[i] = info->conkey[k];

		/* The operator is "referenced = ours", possibly of two types. */
		op_input_types(info->conpfeqop[k], &left, &right);
		ScanKeyEntryInitialize(&fk->keys[i], 0, i + 1, BTEqualStrategyNumber, right,
							   index->rd_indcollation[i],
							   get_opcode(info->conpfeqop[k]), (Datum) 0);

		type = getBaseType(TupleDescAttr(RelationGetDescr(rel), info->conkey[k] - 1)->atttypid);
		if (!IsBinaryCoercible(type, right))
		{
			Oid			function;

			if (find_coercion_pathway(right, type, COERCION_IMPLICIT,
									  &function) == COERCION_PATH_FUNC)
				fmgr_info_cxt(function, &fk->casts[i], CurrentMemoryContext);
		}
	}
	index_close(index, AccessShareLock);
	return usable;
}

static void
learn_foreign_keys(MgTable *table, Relation rel)
{
	List	   *list = copyObject(RelationGetFKeyList(rel));
	ListCell   *cell;

	table->n_foreign_keys = 0;
	if (list == NIL)
		return;
	table->foreign_keys = palloc0(sizeof(MgForeignKey) * list_length(list));
	foreach(cell, list)
		if (learn_foreign_key(&table->foreign_keys[table->n_foreign_keys], rel, lfirst(cell)))
			table->n_foreign_keys++;
	list_free_deep(list);
}

/* The caller holds a lock on the table and does not have it open otherwise. */
static void
learn_table(MgTable *table, Relation rel)
{
	MemoryContext old;

	table->built = false;
	table->stale = false;
	table->relid = RelationGetRelid(rel);
	if (table->context != NULL)
		MemoryContextDelete(table->context);
	table->context = AllocSetContextCreate(CacheMemoryContext, "mgrepl table",
										   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(table->context);

	table->fingerprint = mgrepl_relation_fingerprint(rel);
	learn_columns(table, rel);
	learn_identity(table, rel);
	learn_foreign_keys(table, rel);
	table->capture_function = InvalidOid;
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Oid			function = rel->trigdesc->triggers[i].tgfoid;

		if (is_capture_function(function))
			table->capture_function = function;
	}

	MemoryContextSwitchTo(old);
	table->built = true;
}

/* ---- opening ---- */

static Oid
find_by_name(const MgTableName *name)
{
	Oid			schema = get_namespace_oid(name->schema, true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name->table, schema) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("table \"%s.%s\" is not on this node", name->schema, name->table),
				 errhint("This node's data differs from the cluster's: it needs a state transfer.")));
	return relid;
}

/*
 * Locks the table that bears the name now.  The lock may be waited for, and
 * the name may have moved meanwhile: look again whenever an invalidation came.
 */
static Oid
lock_by_name(MgTable *table)
{
	Oid			locked = InvalidOid;

	for (;;)
	{
		uint64		seen = SharedInvalidMessageCounter;
		uint64		names = names_changed;
		Oid			relid = is_current(table) ? table->relid : find_by_name(&table->name);

		if (relid != locked)
		{
			if (OidIsValid(locked))
				UnlockRelationOid(locked, RowExclusiveLock);
			LockRelationOid(relid, RowExclusiveLock);
			locked = relid;
		}
		if (seen == SharedInvalidMessageCounter)
		{
			if (table->names_seen != names)
			{
				/* The name was looked up just now; what is known may still hold. */
				table->stale |= table->relid != relid;
				table->names_seen = names;
			}
			return relid;
		}
	}
}

/*
 * Leaves in the executor's copy of the triggers those that fire here and are
 * not mgrepl's own.  Of the flags only those that ExecSimple* asks for are set.
 */
static void
keep_firing_triggers(ResultRelInfo *result, Oid capture_function)
{
	TriggerDesc *desc = result->ri_TrigDesc;
	TriggerDesc *kept;

	if (desc == NULL)
		return;
	kept = palloc0(sizeof(TriggerDesc));
	kept->triggers = desc->triggers;
	for (int i = 0; i < desc->numtriggers; i++)
	{
		Trigger    *trigger = &desc->triggers[i];

		if (trigger->tgfoid == capture_function ||
			(trigger->tgenabled != TRIGGER_FIRES_ALWAYS &&
			 trigger->tgenabled != TRIGGER_FIRES_ON_REPLICA) ||
			!TRIGGER_FOR_ROW(trigger->tgtype))
			continue;
		if (TRIGGER_FOR_BEFORE(trigger->tgtype))
		{
			kept->trig_insert_before_row |= TRIGGER_FOR_INSERT(trigger->tgtype);
			kept->trig_update_before_row |= TRIGGER_FOR_UPDATE(trigger->tgtype);
			kept->trig_delete_before_row |= TRIGGER_FOR_DELETE(trigger->tgtype);
		}
		else if (TRIGGER_FOR_AFTER(trigger->tgtype))
		{
			kept->trig_insert_after_row |= TRIGGER_FOR_INSERT(trigger->tgtype);
			kept->trig_update_after_row |= TRIGGER_FOR_UPDATE(trigger->tgtype);
			kept->trig_delete_after_row |= TRIGGER_FOR_DELETE(trigger->tgtype);
		}
		kept->triggers[kept->numtriggers++] = *trigger;
	}
	result->ri_TrigDesc = kept->numtriggers > 0 ? kept : NULL;
}

static void
init_row(MgRow *row, int natts)
{
	row->values = palloc0(sizeof(Datum) * natts);
	row->isnull = palloc(sizeof(bool) * natts);
	row->unsent = palloc0(sizeof(bool) * natts);
	memset(row->isnull, true, sizeof(bool) * natts);
}

static void
open_identity_scan(MgOpenTable *t)
{
	ResultRelInfo *result = t->result;

	InitDirtySnapshot(t->dirty);
	for (int i = 0; i < result->ri_NumIndices; i++)
		if (RelationGetRelid(result->ri_IndexRelationDescs[i]) == t->table->identity)
			t->scan = MgIndexBeginScan(t->rel, result->ri_IndexRelationDescs[i], &t->dirty,
									   t->table->n_identity);
	if (t->scan == NULL)
		elog(ERROR, "index %u of table \"%s\" was not opened",
			 t->table->identity, RelationGetRelationName(t->rel));
}

/* Makes `rel`, which is locked, ready for any number of rows. */
static MgOpenTable *
open_executor(MgTable *table, Relation rel)
{
	MemoryContext old = MemoryContextSwitchTo(trx.context);
	EState	   *estate = CreateExecutorState();
	MgOpenTable *t;

	MemoryContextSwitchTo(estate->es_query_cxt);
	t = palloc0(sizeof(MgOpenTable));
	t->table = table;
	t->rel = rel;
	t->estate = estate;
	t->updated_cols = MgExecInitRangeTable(estate, rel);
	t->result = makeNode(ResultRelInfo);
	InitResultRelInfo(t->result, rel, 1, NULL, 0);
	keep_firing_triggers(t->result, table->capture_function);
	t->has_triggers = t->result->ri_TrigDesc != NULL;
	estate->es_opened_result_relations = lappend(estate->es_opened_result_relations, t->result);
	ExecOpenIndices(t->result, false);
	EvalPlanQualInit(&t->epq, estate, NULL, NIL, -1 MG_EPQ_LAST_ARGUMENT);

	/*
	 * Generated columns: prepared while updated_cols is empty, which means all
	 * of them.  Left to the first row, those that do not depend on a column
	 * that this row changes would be missing for all later rows.
	 */
	if (rel->rd_att->constr != NULL && rel->rd_att->constr->has_generated_stored)
		MgExecInitGenerated(t->result, estate);

	t->local_slot = table_slot_create(rel, &estate->es_tupleTable);
	t->lock_slot = table_slot_create(rel, &estate->es_tupleTable);
	t->new_slot = ExecInitExtraTupleSlot(estate, RelationGetDescr(rel), &TTSOpsVirtual);
	init_row(&t->old_row, RelationGetDescr(rel)->natts);
	init_row(&t->new_row, RelationGetDescr(rel)->natts);
	if (table->n_foreign_keys > 0)
		t->foreign_keys = palloc0(sizeof(MgOpenForeignKey) * table->n_foreign_keys);
	if (OidIsValid(table->identity))
		open_identity_scan(t);

	MemoryContextSwitchTo(old);
	return t;
}

static void
close_table(MgOpenTable *t)
{
	EState	   *estate = t->estate;
	Relation	rel = t->rel;

	t->table->opened_in = 0;
	if (t->scan != NULL)
		index_endscan(t->scan);
	EvalPlanQualEnd(&t->epq);
	ExecCloseIndices(t->result);
	for (int i = 0; i < t->table->n_foreign_keys; i++)
	{
		MgOpenForeignKey *fk = &t->foreign_keys[i];

		if (fk->rel == NULL)
			continue;
		index_endscan(fk->scan);
		ExecClearTuple(fk->slot);
		index_close(fk->index, NoLock);
	}
	ExecResetTupleTable(estate->es_tupleTable, false);
	for (int i = 0; i < t->table->n_foreign_keys; i++)
		if (t->foreign_keys[i].rel != NULL)
			table_close(t->foreign_keys[i].rel, NoLock);

	/* `t` is gone after this.  All locks stay until the end of the transaction. */
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

static void
close_all_tables(void)
{
	while (trx.open != NULL)
	{
		MgOpenTable *t = trx.open;

		trx.open = t->next;
		close_table(t);
	}
}

static void
close_one_table(MgOpenTable *t)
{
	MgOpenTable **link = &trx.open;

	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	close_table(t);
}

static bool
is_open(const MgTable *table)
{
	return table->opened_in == trx.serial;
}

/*
 * The table, opened in this transaction and compared with the origin's.  While
 * it is open our lock keeps it as it is, whatever invalidations say; but its
 * schema can be renamed under us, so the name is looked up again if any was.
 */
static MgOpenTable *
use_table(MgTable *table, uint64 fingerprint)
{
	if (!is_open(table) || table->names_seen != names_changed)
	{
		Oid			relid = lock_by_name(table);

		if (is_open(table) && RelationGetRelid(table->open->rel) != relid)
			close_one_table(table->open);
		if (!is_open(table))
		{
			Relation	rel = table_open(relid, NoLock);

			if (rel->rd_rel->relkind != RELKIND_RELATION)
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("\"%s.%s\" is not a table", table->name.schema, table->name.table)));
			if (!table->built || table->stale || table->relid != relid)
				learn_table(table, rel);
			table->open = open_executor(table, rel);
			table->opened_in = trx.serial;
			table->open->next = trx.open;
			trx.open = table->open;
		}
	}

	/* Renaming a type changes the fingerprint without a word to the table: ask again. */
	if (table->fingerprint != fingerprint)
		table->fingerprint = mgrepl_relation_fingerprint(table->open->rel);
	if (table->fingerprint != fingerprint)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("table \"%s.%s\" differs from the origin's",
						table->name.schema, table->name.table),
				 errdetail("Its columns or their types are not the same."),
				 errhint("This node's schema differs from the cluster's: it needs a state transfer.")));
	return table->open;
}

/* ---- getting what is in the way out of it ---- */

/* Rolls the transaction back if it may be, and waits for its end in any case. */
static void
wait_out(TransactionId xid, mg_seqno seqno, Relation rel, ItemPointerData tid)
{
	(void) mgrepl_bfabort_xid(xid, seqno);
	XactLockTableWait(xid, rel, &tid, XLTW_Lock);
}

static bool
conflicts(MultiXactStatus held, LockTupleMode wanted)
{
	static const LOCKMODE of_status[] = {
		[MultiXactStatusForKeyShare] = AccessShareLock,
		[MultiXactStatusForShare] = RowShareLock,
		[MultiXactStatusForNoKeyUpdate] = ExclusiveLock,
		[MultiXactStatusForUpdate] = AccessExclusiveLock,
		[MultiXactStatusNoKeyUpdate] = ExclusiveLock,
		[MultiXactStatusUpdate] = AccessExclusiveLock,
	};
	static const LOCKMODE of_mode[] = {
		[LockTupleKeyShare] = AccessShareLock,
		[LockTupleShare] = RowShareLock,
		[LockTupleNoKeyExclusive] = ExclusiveLock,
		[LockTupleExclusive] = AccessExclusiveLock,
	};

	return DoLockModesConflict(of_status[held], of_mode[wanted]);
}

static MultiXactStatus
status_of_single_xmax(uint16 infomask, uint16 infomask2)
{
	bool		keys = (infomask2 & HEAP_KEYS_UPDATED) != 0;

	if (!HEAP_XMAX_IS_LOCKED_ONLY(infomask))
		return keys ? MultiXactStatusUpdate : MultiXactStatusNoKeyUpdate;
	if (HEAP_XMAX_IS_KEYSHR_LOCKED(infomask))
		return MultiXactStatusForKeyShare;
	if (HEAP_XMAX_IS_SHR_LOCKED(infomask))
		return MultiXactStatusForShare;
	return keys ? MultiXactStatusForUpdate : MultiXactStatusForNoKeyUpdate;
}

static bool
is_in_the_way(TransactionId xid, MultiXactStatus held, LockTupleMode wanted)
{
	return conflicts(held, wanted) &&
		!TransactionIdIsCurrentTransactionId(xid) &&
		TransactionIdIsInProgress(xid);
}

/*
 * The row could not be locked at once: finds who holds it, and waits them out.
 * False if nobody was found; then somebody is merely queueing for it.
 */
static bool
clear_row_holders(Relation rel, ItemPointer tid, LockTupleMode mode, mg_seqno seqno)
{
	HeapTupleData tuple;
	Buffer		buffer;
	TransactionId xmax;
	uint16		infomask;
	uint16		infomask2;
	bool		found = false;

	if (rel->rd_tableam != GetHeapamTableAmRoutine())
		return false;

	tuple.t_self = *tid;
	if (!heap_fetch(rel, SnapshotAny, &tuple, &buffer, false))
		return false;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	xmax = HeapTupleHeaderGetRawXmax(tuple.t_data);
	infomask = tuple.t_data->t_infomask;
	infomask2 = tuple.t_data->t_infomask2;
	UnlockReleaseBuffer(buffer);

	if ((infomask & HEAP_XMAX_INVALID) || !TransactionIdIsValid(xmax))
		return false;

	if (infomask & HEAP_XMAX_IS_MULTI)
	{
		MultiXactMember *members;
		int			n = GetMultiXactIdMembers(xmax, &members, false,
											  HEAP_XMAX_IS_LOCKED_ONLY(infomask));

		for (int i = 0; i < n; i++)
		{
			if (!is_in_the_way(members[i].xid, members[i].status, mode))
				continue;
			wait_out(members[i].xid, seqno, rel, *tid);
			found = true;
		}
		if (n > 0)
			pfree(members);
	}
	else if (is_in_the_way(xmax, status_of_single_xmax(infomask, infomask2), mode))
	{
		wait_out(xmax, seqno, rel, *tid);
		found = true;
	}
	return found;
}

/* Locks the row; false if it changed meanwhile and must be looked for again. */
static bool
lock_row(Relation rel, ItemPointerData tid, TupleTableSlot *scratch,
		 LockTupleMode mode, uint8 flags, mg_seqno seqno)
{
	LockWaitPolicy policy = LockWaitSkip;

	for (;;)
	{
		TM_FailureData failure;
		TM_Result	result;

		result = table_tuple_lock(rel, &tid, GetActiveSnapshot(), scratch,
								  GetCurrentCommandId(false), mode, policy, flags, &failure);
		ExecClearTuple(scratch);

		switch (result)
		{
			case TM_Ok:
				return true;
			case TM_WouldBlock:
				if (!clear_row_holders(rel, &tid, mode, seqno))
					policy = LockWaitBlock;
				break;
			case TM_Updated:
			case TM_Deleted:
				return false;
			case TM_Invisible:
			case TM_SelfModified:
			case TM_BeingModified:
				elog(ERROR, "unexpected result %d of locking a row", (int) result);
		}
	}
}

/* ---- finding the row ---- */

/*
 * The first entry with these keys.  The access method keeps memory of its own
 * in the scan when it first needs it: that must live as long as the scan does.
 */
static bool
next_in_index(IndexScanDesc scan, ScanKey keys, int n_keys, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(trx.context);
	bool		found;

	index_rescan(scan, keys, n_keys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	/* Gives back the pins, which would hold up VACUUM until we commit. */
	index_rescan(scan, NULL, n_keys, NULL, 0);
	MemoryContextSwitchTo(old);
	return found;
}

/* One attempt through the identity index; the row is then in local_slot. */
static bool
find_by_index(MgOpenTable *t, const MgRow *key, mg_seqno seqno)
{
	MgTable    *table = t->table;

	for (int i = 0; i < table->n_identity; i++)
	{
		int			att = table->identity_attnos[i] - 1;

		if (key->isnull[att])
			return false;
		table->identity_keys[i].sk_argument = key->values[att];
	}

	for (;;)
	{
		TransactionId xwait;
		ItemPointerData tid;
		bool		found;

		found = next_in_index(t->scan, table->identity_keys, table->n_identity, t->local_slot);
		if (!found)
			return false;

		xwait = TransactionIdIsValid(t->dirty.xmin) ? t->dirty.xmin : t->dirty.xmax;
		if (!TransactionIdIsValid(xwait))
			return true;
		tid = t->local_slot->tts_tid;
		ExecClearTuple(t->local_slot);
		wait_out(xwait, seqno, t->rel, tid);
	}
}

static bool
row_matches(MgOpenTable *t, const MgRow *key)
{
	TupleTableSlot *slot = t->local_slot;

	slot_getallattrs(slot);
	for (int i = 0; i < t->table->n_columns; i++)
	{
		MgColumn   *column = &t->table->columns[i];
		int			att = column->att;

		if (slot->tts_isnull[att] != key->isnull[att])
			return false;
		if (key->isnull[att])
			continue;
		if (column->type_cache == NULL)
			column->type_cache = lookup_type_cache(column->type, TYPECACHE_EQ_OPR_FINFO);
		if (OidIsValid(column->type_cache->eq_opr_finfo.fn_oid))
		{
			Oid			collation = TupleDescAttr(RelationGetDescr(t->rel), att)->attcollation;

			if (!DatumGetBool(FunctionCall2Coll(&column->type_cache->eq_opr_finfo, collation,
												slot->tts_values[att], key->values[att])))
				return false;
		}
		/* A type without equality (json, xml, point): the same bytes. */
		else if (!datum_image_eq(slot->tts_values[att], key->values[att],
								 column->byval, column->len))
			return false;
	}
	return true;
}

/* REPLICA IDENTITY FULL without any key: the first row that is equal. */
static bool
find_by_content(MgOpenTable *t, const MgRow *key, mg_seqno seqno)
{
	for (;;)
	{
		SnapshotData dirty;
		TransactionId xwait = InvalidTransactionId;
		ItemPointerData tid;
		TableScanDesc scan;
		bool		found = false;

		InitDirtySnapshot(dirty);
		scan = table_beginscan(t->rel, &dirty, 0, NULL);
		while (!found && table_scan_getnextslot(scan, ForwardScanDirection, t->local_slot))
		{
			CHECK_FOR_INTERRUPTS();
			if (!row_matches(t, key))
				continue;
			found = true;
			xwait = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		}
		table_endscan(scan);
		if (!found || !TransactionIdIsValid(xwait))
			return found;
		tid = t->local_slot->tts_tid;
		ExecClearTuple(t->local_slot);
		wait_out(xwait, seqno, t->rel, tid);
	}
}

/* Of a key's value, so much that somebody who looks for the row finds it. */
#define KEY_TEXT_BYTES 60

static void
append_key(StringInfo to, MgOpenTable *t, const MgRow *key, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(t->rel), attnum - 1);
	Oid			output;
	bool		varlena;
	char	   *text;

	appendStringInfo(to, "%s%s=", to->len > 0 ? ", " : "", NameStr(att->attname));
	if (key->isnull[attnum - 1])
	{
		appendStringInfoString(to, "null");
		return;
	}
	getTypeOutputInfo(att->atttypid, &output, &varlena);
	text = OidOutputFunctionCall(output, key->values[attnum - 1]);
	text[pg_mbcliplen(text, strlen(text), KEY_TEXT_BYTES)] = '\0';
	appendStringInfoString(to, text);
}

static void
report_missing(MgOpenTable *t, const MgRow *key, const MgApplyPoint *at)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < t->table->n_identity; i++)
		append_key(&columns, t, key, t->table->identity_attnos[i]);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row of table \"%s.%s\" that writeset %llu changes is not there (looked for by: %s)",
					t->table->name.schema, t->table->name.table,
					(unsigned long long) at->seqno, columns.len > 0 ? columns.data : "whole row"),
			 errhint("This node's data differs from the cluster's: it needs a state transfer.")));
}

/*
 * Finds the row, or raises an error.  A scan that sees uncommitted rows can
 * miss one that a concurrent transaction moves from behind the scan to before
 * it, so "not there" is believed only when it is said twice.
 */
static void
find_row(MgOpenTable *t, const MgRow *key, const MgApplyPoint *at)
{
	for (int attempt = 0; attempt < 2; attempt++)
	{
		if (t->scan != NULL ? find_by_index(t, key, at->seqno)
			: find_by_content(t, key, at->seqno))
			return;
	}
	report_missing(t, key, at);
}

/* ---- foreign keys ---- */

static void
lock_referenced_row(MgOpenTable *t, int number, mg_seqno seqno)
{
	MgForeignKey *fk = &t->table->foreign_keys[number];
	MgOpenForeignKey *open = &t->foreign_keys[number];
	bool		settled = false;

	for (int i = 0; i < fk->n_keys; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(t->new_slot, fk->attnos[i], &isnull);

		if (isnull)
			return;
		if (OidIsValid(fk->casts[i].fn_oid))
			value = FunctionCall3(&fk->casts[i], value, Int32GetDatum(-1), BoolGetDatum(false));
		fk->keys[i].sk_argument = value;
	}

	if (open->rel == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(t->estate->es_query_cxt);
		Relation	rel = table_open(fk->relid, RowShareLock);

		open->index = index_open(fk->index, AccessShareLock);
		open->scan = MgIndexBeginScan(rel, open->index, GetActiveSnapshot(), fk->n_keys);
		open->slot = table_slot_create(rel, &t->estate->es_tupleTable);
		open->rel = rel;
		MemoryContextSwitchTo(old);
	}

	/*
	 * With a snapshot of committed rows: who updates the referenced row without
	 * touching its key is not in the way.  That the row is not there is no
	 * error: certification has decided, and a later event may bring it.
	 */
	while (!settled)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		open->scan->xs_snapshot = GetActiveSnapshot();
		settled = !next_in_index(open->scan, fk->keys, fk->n_keys, open->slot);
		if (!settled)
		{
			ItemPointerData tid = open->slot->tts_tid;

			ExecClearTuple(open->slot);
			settled = lock_row(open->rel, tid, open->slot, LockTupleKeyShare,
							   TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS, seqno);
		}
		PopActiveSnapshot();
	}
}

/* changed == NULL: all columns are new. */
static void
lock_referenced_rows(MgOpenTable *t, const Bitmapset *changed, mg_seqno seqno)
{
	for (int i = 0; i < t->table->n_foreign_keys; i++)
	{
		MgForeignKey *fk = &t->table->foreign_keys[i];
		bool		needed = changed == NULL;

		for (int k = 0; !needed && k < fk->n_keys; k++)
			needed = bms_is_member(fk->attnos[k] - FirstLowInvalidHeapAttributeNumber, changed);
		if (needed)
			lock_referenced_row(t, i, seqno);
	}
}

/* ---- decoding ---- */

static Datum
decode_value(MgTable *table, MgColumn *column, char kind, StringInfo bytes)
{
	Datum		value;

	if (kind == LOGICALREP_COLUMN_TEXT)
	{
		if (!OidIsValid(column->input.fn_oid))
		{
			Oid			function;

			getTypeInputInfo(column->type, &function, &column->ioparam);
			fmgr_info_cxt(function, &column->input, table->context);
		}
		if (strlen(bytes->data) != bytes->len)
			report_damaged("a text value holds a zero byte");
		return InputFunctionCall(&column->input, bytes->data, column->ioparam, column->typmod);
	}

	if (!OidIsValid(column->receive.fn_oid))
	{
		Oid			function;

		getTypeBinaryInputInfo(column->type, &function, &column->ioparam);
		fmgr_info_cxt(function, &column->receive, table->context);
	}
	value = ReceiveFunctionCall(&column->receive, bytes, column->ioparam, column->typmod);
	if (bytes->cursor != bytes->len)
		report_damaged("a binary value is too long");
	return value;
}

/* Spreads a tuple over the table's columns; the old one needs only those that find the row. */
static void
decode_tuple(MgTable *table, const LogicalRepTupleData *tuple, MgRow *row, bool identity_only)
{
	if (tuple->ncols != table->n_columns)
		report_damaged("wrong number of columns");

	for (int i = 0; i < table->n_columns; i++)
	{
		MgColumn   *column = &table->columns[i];
		char		kind = tuple->colstatus[i];
		int			att = column->att;

		row->isnull[att] = true;
		row->unsent[att] = false;
		if (identity_only && !column->is_identity)
			continue;
		if (kind == LOGICALREP_COLUMN_UNCHANGED)
			row->unsent[att] = true;
		else if (kind != LOGICALREP_COLUMN_NULL)
		{
			row->values[att] = decode_value(table, column, kind, &tuple->colvalues[i]);
			row->isnull[att] = false;
		}
	}
}

/* A row that is to be found or inserted must have been sent in full, where it matters. */
static void
require_sent(MgTable *table, const MgRow *row, bool identity_only)
{
	for (int i = 0; i < table->n_columns; i++)
		if (row->unsent[table->columns[i].att] &&
			(table->columns[i].is_identity || !identity_only))
			report_damaged("a value that is needed was not sent");
}

static MgOpenTable *
table_of(uint32 origin_relid, MgApplyPoint *at)
{
	/* From the end: rows mostly belong to the table named last. */
	for (int i = trx.n_refs - 1; i >= 0; i--)
	{
		MgTableRef *ref = &trx.refs[i];

		if (ref->origin_relid != origin_relid)
			continue;
		at->name = &ref->table->name;
		/* A statement in between has closed all tables. */
		return is_open(ref->table) ? ref->table->open : use_table(ref->table, ref->fingerprint);
	}
	report_damaged("a row of a table that was not named");
	return NULL;				/* not reached */
}

/* Fills old_row and new_row as far as the event has them; *key is the one that finds the row. */
static MgOpenTable *
decode_row_event(const mg_event *event, MgApplyPoint *at, const MgRow **key)
{
	StringInfoData in;
	LogicalRepTupleData old_tuple;
	LogicalRepTupleData new_tuple;
	uint32		origin_relid;
	bool		has_old = false;
	bool		has_new = event->type != MG_EVENT_DELETE;
	char		action = event->type == MG_EVENT_INSERT ? LOGICAL_REP_MSG_INSERT :
		event->type == MG_EVENT_UPDATE ? LOGICAL_REP_MSG_UPDATE : LOGICAL_REP_MSG_DELETE;
	MgOpenTable *t;

	/* Borrowed: the readers below copy each value out of it. */
	in.data = unconstify(char *, (const char *) event->body);
	in.len = event->len;
	in.maxlen = event->len;
	in.cursor = 0;

	if (pq_getmsgbyte(&in) != action)
		report_damaged("a row message of the wrong kind");
	if (event->type == MG_EVENT_INSERT)
		origin_relid = logicalrep_read_insert(&in, &new_tuple);
	else if (event->type == MG_EVENT_UPDATE)
		origin_relid = logicalrep_read_update(&in, &has_old, &old_tuple, &new_tuple);
	else
	{
		origin_relid = logicalrep_read_delete(&in, &old_tuple);
		has_old = true;
	}
	pq_getmsgend(&in);

	t = table_of(origin_relid, at);
	*key = has_old ? &t->old_row : &t->new_row;
	if (has_old)
		decode_tuple(t->table, &old_tuple, &t->old_row, true);
	if (has_new)
		decode_tuple(t->table, &new_tuple, &t->new_row, false);

	if (event->type == MG_EVENT_INSERT)
		require_sent(t->table, &t->new_row, false);
	else if (t->scan == NULL && !has_old)
		report_damaged("the old row is needed and was not sent");
	else
		require_sent(t->table, *key, true);
	return t;
}

/*
 * Is it the bytes' fault?  Type input functions raise errors of many classes;
 * those of a lock, a cancel, or a lack of resources say nothing about the bytes.
 */
static bool
blames_bytes(int code)
{
	switch (ERRCODE_TO_CATEGORY(code))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return code != ERRCODE_DATA_CORRUPTED && code != ERRCODE_INDEX_CORRUPTED;
	}
}

/*
 * The same; whatever PostgreSQL says about bytes that it can't read becomes
 * one kind of error, and without the bytes, which are row values.
 */
static MgOpenTable *
decode_row_event_checked(const mg_event *event, MgApplyPoint *at, const MgRow **key)
{
	MemoryContext context = CurrentMemoryContext;
	MgOpenTable *volatile t = NULL;

	PG_TRY();
	{
		t = decode_row_event(event, at, key);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (!blames_bytes(code))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("writeset cannot be decoded: reading a row failed with SQLSTATE %s",
						unpack_sql_state(code))));
	}
	PG_END_TRY();
	return t;
}

/* ---- applying ---- */

static void
store_new_row(MgOpenTable *t)
{
	TupleTableSlot *slot = t->new_slot;
	int			natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, t->new_row.values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, t->new_row.isnull, sizeof(bool) * natts);
	ExecStoreVirtualTuple(slot);
}

/*
 * The local row with what differs in the new one; `*changed` is the set of
 * columns that differ.  Returns how strong a lock that needs.  The slot points
 * into local_slot, which must stay.
 */
static LockTupleMode
merge_new_row(MgOpenTable *t, Bitmapset **changed)
{
	TupleTableSlot *slot = t->new_slot;
	TupleTableSlot *local = t->local_slot;
	int			natts = slot->tts_tupleDescriptor->natts;
	LockTupleMode mode = LockTupleNoKeyExclusive;

	*changed = NULL;
	ExecClearTuple(slot);
	slot_getallattrs(local);
	memcpy(slot->tts_values, local->tts_values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, local->tts_isnull, sizeof(bool) * natts);

	for (int i = 0; i < t->table->n_columns; i++)
	{
		MgColumn   *column = &t->table->columns[i];
		int			att = column->att;
		bool		isnull = t->new_row.isnull[att];
		Datum		value = t->new_row.values[att];

		if (t->new_row.unsent[att])
			continue;
		if (isnull == local->tts_isnull[att] &&
			(isnull || datum_image_eq(value, local->tts_values[att], column->byval, column->len)))
			continue;
		slot->tts_values[att] = value;
		slot->tts_isnull[att] = isnull;
		*changed = bms_add_member(*changed, att + 1 - FirstLowInvalidHeapAttributeNumber);
		if (column->is_key)
			mode = LockTupleExclusive;
	}
	ExecStoreVirtualTuple(slot);
	return mode;
}

/* Which columns an UPDATE's triggers are told: without the origin's SET list, all that were sent. */
static Bitmapset *
sent_columns(MgOpenTable *t)
{
	Bitmapset  *sent = NULL;

	for (int i = 0; i < t->table->n_columns; i++)
	{
		int			att = t->table->columns[i].att;

		if (!t->new_row.unsent[att])
			sent = bms_add_member(sent, att + 1 - FirstLowInvalidHeapAttributeNumber);
	}
	return sent;
}

static void
begin_write(MgOpenTable *t)
{
	t->estate->es_output_cid = GetCurrentCommandId(true);
	t->estate->es_snapshot = GetActiveSnapshot();
	if (t->has_triggers)
		AfterTriggerBeginQuery();
}

static void
end_write(MgOpenTable *t)
{
	if (t->has_triggers)
		AfterTriggerEndQuery(t->estate);
	t->estate->es_snapshot = InvalidSnapshot;
}

static void
apply_insert(MgOpenTable *t, const MgApplyPoint *at)
{
	store_new_row(t);
	begin_write(t);
	ExecSimpleRelationInsert(t->result, t->estate, t->new_slot);
	end_write(t);
	lock_referenced_rows(t, NULL, at->seqno);
	ExecClearTuple(t->new_slot);
}

static void
apply_update(MgOpenTable *t, const MgRow *key, const MgApplyPoint *at)
{
	Bitmapset  *changed;
	LockTupleMode mode;

	do
	{
		find_row(t, key, at);
		mode = merge_new_row(t, &changed);
	} while (!lock_row(t->rel, t->local_slot->tts_tid, t->lock_slot, mode, 0, at->seqno));

	/* The executor remembers per index whether an update leaves it alone: ask again for each row. */
	*t->updated_cols = t->has_triggers ? sent_columns(t) : changed;
	for (int i = 0; i < t->result->ri_NumIndices; i++)
		t->result->ri_IndexRelationInfo[i]->ii_CheckedUnchanged = false;

	begin_write(t);
	EvalPlanQualSetSlot(&t->epq, t->new_slot);
	ExecSimpleRelationUpdate(t->result, t->estate, &t->epq, t->local_slot, t->new_slot);
	end_write(t);
	*t->updated_cols = NULL;
	if (changed != NULL)
		lock_referenced_rows(t, changed, at->seqno);
	ExecClearTuple(t->new_slot);
	ExecClearTuple(t->local_slot);
}

static void
apply_delete(MgOpenTable *t, const MgRow *key, const MgApplyPoint *at)
{
	do
	{
		find_row(t, key, at);
	} while (!lock_row(t->rel, t->local_slot->tts_tid, t->lock_slot, LockTupleExclusive, 0,
					   at->seqno));

	begin_write(t);
	EvalPlanQualSetSlot(&t->epq, t->local_slot);
	ExecSimpleRelationDelete(t->result, t->estate, &t->epq, t->local_slot);
	end_write(t);
	ExecClearTuple(t->local_slot);
}

static void
apply_row_event(const mg_event *event, MgApplyPoint *at)
{
	const MgRow *key;
	MgOpenTable *t = decode_row_event_checked(event, at, &key);

	if (event->type == MG_EVENT_INSERT)
		apply_insert(t, at);
	else if (event->type == MG_EVENT_UPDATE)
		apply_update(t, key, at);
	else
		apply_delete(t, key, at);
	ResetPerTupleExprContext(t->estate);
}

static void
apply_relation_event(const mg_event *event, MgApplyPoint *at)
{
	MgTableName name;
	MgTableRef *ref = NULL;
	mg_reader	reader;
	uint32		origin_relid;
	uint64		fingerprint;
	bool		known;
	MgTable    *table;

	memset(&name, 0, sizeof(name));
	mg_reader_init(&reader, event->body, event->len);
	origin_relid = mg_read_u32(&reader);
	mg_read_text(&reader, name.schema, sizeof(name.schema));
	mg_read_text(&reader, name.table, sizeof(name.table));
	fingerprint = mg_read_u64(&reader);
	if (!mg_reader_done(&reader))
		report_damaged("a table's name");

	table = hash_search(tables, &name, HASH_ENTER, &known);
	if (!known)
	{
		memset(table, 0, sizeof(*table));
		table->name = name;
	}
	at->name = &table->name;
	(void) use_table(table, fingerprint);

	/* Named again: after a change of the table in the same writeset. */
	for (int i = 0; i < trx.n_refs && ref == NULL; i++)
		if (trx.refs[i].origin_relid == origin_relid)
			ref = &trx.refs[i];
	if (ref == NULL)
	{
		if (trx.n_refs == trx.refs_cap)
		{
			trx.refs_cap *= 2;
			trx.refs = repalloc(trx.refs, sizeof(MgTableRef) * trx.refs_cap);
		}
		ref = &trx.refs[trx.n_refs++];
	}
	ref->origin_relid = origin_relid;
	ref->fingerprint = fingerprint;
	ref->table = table;
}

/* Later events may change the same row. */
static void
end_event(void)
{
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
}

static void
apply_event(const mg_event *event, MgApplyPoint *at)
{
	switch (event->type)
	{
		case MG_EVENT_RELATION:
			apply_relation_event(event, at);
			return;
		case MG_EVENT_INSERT:
		case MG_EVENT_UPDATE:
		case MG_EVENT_DELETE:
			apply_row_event(event, at);
			end_event();
			return;
		case MG_EVENT_STATEMENT:
			/* It may change any table, which must not be in use then. */
			close_all_tables();
			mgrepl_ddl_apply(event);
			end_event();
			return;
		case MG_EVENT_MESSAGE:
			mgrepl_mark_note(event);
			return;
		case MG_EVENT_NONE:
		case MG_EVENT_TRUNCATE:
		case MG_EVENT_SEQUENCE:
		case MG_EVENT_TYPE_COUNT:
			break;
	}
	report_damaged("an event of unknown type");
}

/*
 * A transaction that ended without mgrepl_apply_transaction_end is noticed by
 * its number: nothing that it left behind is touched.
 */
static void
begin_transaction(void)
{
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA)
		elog(ERROR, "writesets must be applied under session_replication_role = replica");

	trx.serial++;
	trx.lxid = MgProcLxid(MyProc);
	trx.context = AllocSetContextCreate(TopTransactionContext, "mgrepl apply",
										ALLOCSET_DEFAULT_SIZES);
	trx.row_context = AllocSetContextCreate(trx.context, "mgrepl apply row",
											ALLOCSET_DEFAULT_SIZES);
	trx.open = NULL;
	trx.refs_cap = 16;
	trx.refs = MemoryContextAlloc(trx.context, sizeof(MgTableRef) * trx.refs_cap);
	trx.n_refs = 0;
}

void
mgrepl_apply_writeset(const mg_writeset *ws, mg_seqno seqno)
{
	MgApplyPoint at = {.seqno = seqno};
	ErrorContextCallback callback;
	MemoryContext old;
	mg_event	event;
	uint32_t	offset = 0;

	if (trx.lxid != MgProcLxid(MyProc))
		begin_transaction();
	trx.n_refs = 0;

	callback.callback = add_error_context;
	callback.arg = &at;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	PushActiveSnapshot(GetTransactionSnapshot());
	old = MemoryContextSwitchTo(trx.row_context);

	while (mg_writeset_next_event(ws, &offset, &event))
	{
		CHECK_FOR_INTERRUPTS();
		at.type = event.type;
		at.name = NULL;
		apply_event(&event, &at);
		MemoryContextReset(trx.row_context);
	}

	MemoryContextSwitchTo(old);
	PopActiveSnapshot();
	error_context_stack = callback.previous;
}

/* After an abort everything is gone already: relations and scans with the resource owner. */
void
mgrepl_apply_transaction_end(bool is_commit)
{
	if (is_commit && trx.lxid == MgProcLxid(MyProc))
	{
		close_all_tables();
		MemoryContextDelete(trx.context);
	}
	trx.lxid = InvalidLocalTransactionId;
	trx.serial++;
	trx.open = NULL;
}
