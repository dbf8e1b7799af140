/*
 * pg/keys.c - certification keys of rows (keys.h says which).
 *
 * How: when a table is first met, each unique index, exclusion constraint and
 * foreign key is boiled down to an array of columns with the hash function to
 * call, and to a seed that stands for the constraint's name.  A row then costs
 * one function call per column and key; an UPDATE that touches no key column
 * compares bytes and hashes only the identity.
 *
 * Equal values, equal hashes: a column is hashed by value only if the index's
 * equality operator is its type's default one, since PostgreSQL promises that
 * operator and hash function agree for that one only.  A foreign key whose
 * column has another type may be hashed by its own type's function if both
 * types share the hash operator family and the operator that compares them is
 * in it.  Otherwise the constraint is one key as a whole (`whole`), or, if
 * only that foreign key is to blame, gets one beside its row keys (`whole_too`).
 *
 * Same hash on every node: OIDs differ between nodes, and an enum's hash
 * function hashes its label's OID, reg* types are OIDs.  So a scalar enum is
 * hashed by its label, and what else contains such a type counts as unhashable.
 *
 * Deviation from PostgreSQL's row locks: none in strength.  All keys of a row
 * get UPDATE when one of its plain unique values changes, also the unchanged
 * ones, because a foreign key may name the row by any of them, and because
 * appliers must find the same order that row locks would give.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "pg/capture.h"
#include "pg/keys.h"

#define KEY_SEED		UINT64CONST(0x6d677265706c6b31)
#define VALUE_SEED		UINT64CONST(0x6d677265706c7631)
#define NULL_HASH		UINT64CONST(0x9e3779b97f4a7c15)

typedef enum MgHashForm
{
	MG_HASH_NONE = 0,			/* no hash that agrees with equality on every node */
	MG_HASH_TYPE,				/* the type's extended hash function */
	MG_HASH_LABEL				/* an enum: its label */
} MgHashForm;

typedef struct MgKeyColumn
{
	AttrNumber	attnum;			/* in the table; 0: an expression */
	MgHashForm	form;
	Oid			collation;
	TypeCacheEntry *type;		/* lives as long as the backend */
} MgKeyColumn;

typedef struct MgIndexKey
{
	Oid			indexoid;
	uint64		seed;			/* stands for table and index name */
	bool		exclusion;
	bool		whole;			/* one key for all rows */
	bool		whole_too;		/* and beside row keys that one, for a foreign key of another type */
	bool		plain;			/* unique, neither expressions nor predicate */
	bool		nulls_equal;	/* NULLS NOT DISTINCT */
	int			n_columns;
	MgKeyColumn *columns;
	bool		uses_row;		/* depends on the whole row */
	int			n_uses;
	AttrNumber *uses;			/* all table columns that the entry depends on */

	bool		changed;		/* scratch for one UPDATE */

	/* Evaluation of expressions and predicate, set up once per writeset. */
	uint64		evaluator_of;	/* its number */
	IndexInfo  *evaluator;
	EState	   *estate;
} MgIndexKey;

typedef struct MgForeignKey
{
	uint64		seed;			/* of the referenced index */
	bool		whole;
	int			n_columns;
	MgKeyColumn *columns;		/* in the order of the referenced index */
} MgForeignKey;

struct MgRelKeys
{
	int			n_indexes;
	MgIndexKey *indexes;
	int			identity;		/* which index names the row, -1 none */
	bool		row_is_key;		/* REPLICA IDENTITY FULL without a primary key */
	uint64		row_seed;
	int			n_row_columns;
	MgKeyColumn *row_columns;
	int			n_foreign;
	MgForeignKey *foreign;
	int			n_branches;
	int			cap_branches;
	uint64	   *branches;
	int			attnum_max;		/* columns up to here are looked at */
};

/* ---- names to hashes ---- */

static uint64
hash_text(const char *text, uint64 seed)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text), seed);
}

uint64
mgrepl_key_hash_database(void)
{
	/* A cluster replicates one database, whatever its name is today. */
	return hash_text("database", KEY_SEED);
}

uint64
mgrepl_key_hash_table(const char *schema, const char *table)
{
	return hash_text(table, hash_text(schema, hash_text("table", KEY_SEED)));
}

static inline uint64
whole_hash(uint64 seed)
{
	return mg_mix64(seed ^ NULL_HASH);
}

/* The table's key hash; notes that renaming it or its schema matters. */
static uint64
table_hash(MgRelInfo *info, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	char	   *schema;
	uint64		hash;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	class = (Form_pg_class) GETSTRUCT(tuple);
	schema = get_namespace_name(class->relnamespace);
	if (schema == NULL)
		elog(ERROR, "cache lookup failed for namespace %u", class->relnamespace);
	hash = mgrepl_key_hash_table(schema, NameStr(class->relname));
	mgrepl_relation_depend(info, MG_DEPEND_RELATION, relid);
	mgrepl_relation_depend_namespace(info, class->relnamespace);
	pfree(schema);
	ReleaseSysCache(tuple);
	return hash;
}

/*
 * What stands for an index in keys: its topmost ancestor's name and table, so
 * that a row has the same keys as a row of the leaf and of the root.
 */
static uint64
index_seed(MgRelInfo *info, Oid indexoid)
{
	char	   *name;
	uint64		hash;

	mgrepl_relation_depend(info, MG_DEPEND_RELATION, indexoid);
	while (get_rel_relispartition(indexoid))
	{
		indexoid = get_partition_parent(indexoid, true);
		mgrepl_relation_depend(info, MG_DEPEND_RELATION, indexoid);
	}
	name = get_rel_name(indexoid);
	if (name == NULL)
		elog(ERROR, "cache lookup failed for index %u", indexoid);
	hash = hash_text(name, table_hash(info, IndexGetRelation(indexoid, false)));
	pfree(name);
	return hash;
}

/* ---- types to hash functions ---- */

/* Is no value of this type, or part of one, an OID that differs between nodes? */
static bool
type_is_portable(Oid typid)
{
	Oid			element;

	if (mgrepl_type_is_reg(typid) || typid == ACLITEMOID)
		return false;

	switch (get_typtype(typid))
	{
		case TYPTYPE_DOMAIN:
			return type_is_portable(getBaseType(typid));
		case TYPTYPE_RANGE:
			return type_is_portable(get_range_subtype(typid));
		case TYPTYPE_MULTIRANGE:
			return type_is_portable(get_multirange_range(typid));
		case TYPTYPE_BASE:
			element = get_element_type(typid);
			return !OidIsValid(element) || type_is_portable(element);
		case TYPTYPE_COMPOSITE:
			{
				TupleDesc	desc = lookup_rowtype_tupdesc_copy(typid, -1);
				bool		portable = true;

				for (int i = 0; i < desc->natts && portable; i++)
					if (!TupleDescAttr(desc, i)->attisdropped)
						portable = type_is_portable(TupleDescAttr(desc, i)->atttypid);
				FreeTupleDesc(desc);
				return portable;
			}
		default:				/* enums: hashed by OID when inside of something */
			return false;
	}
}

static MgKeyColumn
describe_column(AttrNumber attnum, Oid typid, Oid collation)
{
	MgKeyColumn column = {attnum, MG_HASH_NONE, collation, NULL};

	column.type = lookup_type_cache(typid, TYPECACHE_EQ_OPR | TYPECACHE_HASH_OPFAMILY |
									TYPECACHE_HASH_EXTENDED_PROC_FINFO);
	if (get_typtype(getBaseType(typid)) == TYPTYPE_ENUM)
		column.form = MG_HASH_LABEL;
	else if (OidIsValid(column.type->hash_extended_proc_finfo.fn_oid) && type_is_portable(typid))
		column.form = MG_HASH_TYPE;
	return column;
}

static uint64
enum_label_hash(Oid label)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(label));
	uint64		hash;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for enum label %u", label);
	hash = hash_text(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel), VALUE_SEED);
	ReleaseSysCache(tuple);
	return hash;
}

static inline uint64
value_hash(const MgKeyColumn *column, Datum value)
{
	if (column->form == MG_HASH_LABEL)
		return enum_label_hash(DatumGetObjectId(value));
	return DatumGetUInt64(FunctionCall2Coll(&column->type->hash_extended_proc_finfo,
											column->collation, value,
											UInt64GetDatum(VALUE_SEED)));
}

static inline uint64
add_hash(uint64 hash, uint64 value)
{
	return mg_mix64(hash_combine64(hash, value));
}

/* ---- building: indexes ---- */

static void
index_uses(MgIndexKey *key, Form_pg_index index, HeapTuple tuple)
{
	Bitmapset  *used = NULL;
	int			member = -1;

	for (int i = 0; i < index->indnkeyatts; i++)
		if (index->indkey.values[i] != 0)
			used = bms_add_member(used, index->indkey.values[i] - FirstLowInvalidHeapAttributeNumber);

	key->plain = !key->exclusion;
	for (int i = 0; i < 2; i++)
	{
		bool		isnull;
		Datum		source = SysCacheGetAttr(INDEXRELID, tuple,
										   i == 0 ? Anum_pg_index_indexprs : Anum_pg_index_indpred,
										   &isnull);

		if (isnull)
			continue;
		key->plain = false;
		pull_varattnos(stringToNode(TextDatumGetCString(source)), 1, &used);
	}

	key->uses = palloc(Max(bms_num_members(used), 1) * sizeof(AttrNumber));
	while ((member = bms_next_member(used, member)) >= 0)
	{
		AttrNumber	attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum > 0)
			key->uses[key->n_uses++] = attnum;
		else
			key->uses_row = true;
	}
}

static Oid
index_access_method(Oid indexoid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(indexoid));
	Oid			method;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", indexoid);
	method = ((Form_pg_class) GETSTRUCT(tuple))->relam;
	ReleaseSysCache(tuple);
	return method;
}

/* Reads only the system caches: a referenced table's index need not be locked. */
static bool
describe_index(MgRelInfo *info, Oid indexoid, MgIndexKey *key)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexoid));
	Form_pg_index index;
	oidvector  *classes;
	oidvector  *collations;
	bool		isnull;

	memset(key, 0, sizeof(*key));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", indexoid);
	index = (Form_pg_index) GETSTRUCT(tuple);
	if (!index->indisready || !(index->indisunique || index->indisexclusion))
	{
		ReleaseSysCache(tuple);
		return false;
	}

	key->indexoid = indexoid;
	key->seed = index_seed(info, indexoid);
	key->nulls_equal = index->indnullsnotdistinct;
	key->exclusion = index->indisexclusion && !index->indisunique;
	index_uses(key, index, tuple);

	classes = (oidvector *) DatumGetPointer(SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass, &isnull));
	collations = (oidvector *) DatumGetPointer(SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indcollation, &isnull));
	key->whole = index->indisexclusion || index_access_method(indexoid) != BTREE_AM_OID;
	key->n_columns = index->indnkeyatts;
	key->columns = palloc(key->n_columns * sizeof(MgKeyColumn));
	for (int i = 0; i < key->n_columns && !key->whole; i++)
	{
		AttrNumber	attnum = index->indkey.values[i];
		Oid			opclass = classes->values[i];
		Oid			input = get_opclass_input_type(opclass);
		Oid			typid = attnum != 0 ? get_atttype(index->indrelid, attnum) : get_atttype(indexoid, i + 1);
		MgKeyColumn *column = &key->columns[i];

		*column = describe_column(attnum, typid, collations->values[i]);
		if (column->form == MG_HASH_NONE ||
			column->type->eq_opr != get_opfamily_member(get_opclass_family(opclass), input, input,
														BTEqualStrategyNumber))
			key->whole = true;
	}
	ReleaseSysCache(tuple);
	return true;
}

/* ---- building: foreign keys ---- */

/*
 * The columns of the constraint, in the order of the referenced index, hashed
 * so that they meet the referenced row's key; false if that cannot be.
 */
static bool
foreign_columns(HeapTuple constraint, const MgIndexKey *referenced, MgKeyColumn *columns)
{
	Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(constraint);
	int			n;
	AttrNumber	conkey[INDEX_MAX_KEYS];
	AttrNumber	confkey[INDEX_MAX_KEYS];
	Oid			equal[INDEX_MAX_KEYS];

	DeconstructFkConstraintRow(constraint, &n, conkey, confkey, equal, NULL, NULL, NULL, NULL);

	if (referenced->whole || n != referenced->n_columns)
		return false;

	for (int i = 0; i < referenced->n_columns; i++)
	{
		const MgKeyColumn *target = &referenced->columns[i];
		Oid			typid;
		int			j = 0;

		while (j < n && confkey[j] != target->attnum)
			j++;
		if (j == n)
			return false;
		typid = get_atttype(con->conrelid, conkey[j]);
		columns[i] = describe_column(conkey[j], typid, target->collation);
		if (columns[i].form != target->form)
			return false;
		if (target->form == MG_HASH_LABEL)
		{
			if (getBaseType(typid) != getBaseType(target->type->type_id))
				return false;
		}
		else if (columns[i].type->hash_opf != target->type->hash_opf ||
				 !op_in_opfamily(equal[j], target->type->hash_opf))
			return false;
	}
	return true;
}

static void
add_branch(MgRelKeys *keys, uint64 hash)
{
	if (keys->branches == NULL)
	{
		keys->cap_branches = 8;
		keys->branches = palloc(keys->cap_branches * sizeof(uint64));
	}
	else if (keys->n_branches == keys->cap_branches)
	{
		keys->cap_branches *= 2;
		keys->branches = repalloc(keys->branches, keys->cap_branches * sizeof(uint64));
	}
	keys->branches[keys->n_branches++] = hash;
}

static void
build_foreign_key(MgRelInfo *info, MgRelKeys *keys, HeapTuple constraint)
{
	Form_pg_constraint con = (Form_pg_constraint) GETSTRUCT(constraint);
	MgForeignKey *key = &keys->foreign[keys->n_foreign];
	MgIndexKey	referenced;
	int			n;
	AttrNumber	conkey[INDEX_MAX_KEYS];
	AttrNumber	confkey[INDEX_MAX_KEYS];
	Oid			equal[INDEX_MAX_KEYS];

	memset(key, 0, sizeof(*key));
	add_branch(keys, table_hash(info, con->confrelid));
	if (!describe_index(info, con->conindid, &referenced))
		return;

	DeconstructFkConstraintRow(constraint, &n, conkey, confkey, equal, NULL, NULL, NULL, NULL);
	key->seed = referenced.seed;
	key->n_columns = n;
	key->columns = palloc(n * sizeof(MgKeyColumn));
	if (!foreign_columns(constraint, &referenced, key->columns))
	{
		key->whole = true;
		for (int i = 0; i < n; i++)
			key->columns[i] = (MgKeyColumn) {conkey[i], MG_HASH_NONE, InvalidOid, NULL};
	}
	keys->n_foreign++;
}

/*
 * Foreign keys are found by the triggers that enforce them: they hang on both
 * tables, on each partition, and making or dropping one invalidates the table.
 */
static void
build_foreign_keys(MgRelInfo *info, MgRelKeys *keys, Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	if (triggers == NULL)
		return;
	keys->foreign = palloc(triggers->numtriggers * sizeof(MgForeignKey));

	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		int			side = RI_FKey_trigger_type(trigger->tgfoid);
		HeapTuple	tuple;
		Form_pg_constraint con;
		bool		again = false;

		if (side == RI_TRIGGER_NONE || !OidIsValid(trigger->tgconstraint))
			continue;
		/* Each side has two triggers per constraint. */
		for (int j = 0; j < i && !again; j++)
			again = triggers->triggers[j].tgconstraint == trigger->tgconstraint &&
				RI_FKey_trigger_type(triggers->triggers[j].tgfoid) == side;
		if (again)
			continue;

		tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(trigger->tgconstraint));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for constraint %u", trigger->tgconstraint);
		con = (Form_pg_constraint) GETSTRUCT(tuple);
		if (side == RI_TRIGGER_FK && con->contype == CONSTRAINT_FOREIGN)
			build_foreign_key(info, keys, tuple);
		else if (side == RI_TRIGGER_PK && con->contype == CONSTRAINT_FOREIGN)
		{
			MgKeyColumn columns[INDEX_MAX_KEYS];

			for (int k = 0; k < keys->n_indexes; k++)
				if (keys->indexes[k].indexoid == con->conindid &&
					!foreign_columns(tuple, &keys->indexes[k], columns))
					keys->indexes[k].whole_too = !keys->indexes[k].whole;
		}
		ReleaseSysCache(tuple);
	}
}

/* ---- building: branches, the row as its own key ---- */

/* Partition ancestors and inheritance parents: DDL on them reaches this table. */
static void
build_ancestors(MgRelInfo *info, MgRelKeys *keys, Oid relid)
{
	Relation	inherits;
	SysScanDesc scan;
	ScanKeyData skey;
	HeapTuple	tuple;
	List	   *parents = NIL;
	ListCell   *cell;

	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyInit(&skey, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &skey);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);

	foreach(cell, parents)
	{
		add_branch(keys, table_hash(info, lfirst_oid(cell)));
		build_ancestors(info, keys, lfirst_oid(cell));
	}
}

/* Columns without a usable hash are left out: more rows share a key then. */
static void
build_row_key(MgRelKeys *keys, Relation rel, uint64 table)
{
	TupleDesc	desc = RelationGetDescr(rel);

	keys->row_is_key = true;
	keys->row_seed = hash_text("row", table);
	keys->row_columns = palloc(desc->natts * sizeof(MgKeyColumn));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		MgKeyColumn column;

		if (att->attisdropped || att->attgenerated)
			continue;
		column = describe_column(att->attnum, att->atttypid, att->attcollation);
		if (column.form != MG_HASH_NONE)
			keys->row_columns[keys->n_row_columns++] = column;
	}
}

MgRelKeys *
mgrepl_keys_build(MgRelInfo *info, Relation rel)
{
	MgRelKeys  *keys = palloc0(sizeof(MgRelKeys));
	List	   *indexes = RelationGetIndexList(rel);
	Oid			identity = RelationGetReplicaIndex(rel);
	uint64		table = table_hash(info, RelationGetRelid(rel));
	ListCell   *cell;

	/* REPLICA IDENTITY FULL: a primary key still names the row best. */
	if (info->identity == MG_IDENTITY_FULL)
		identity = rel->rd_pkindex;

	keys->identity = -1;
	keys->indexes = palloc(Max(list_length(indexes), 1) * sizeof(MgIndexKey));
	foreach(cell, indexes)
	{
		MgIndexKey *key = &keys->indexes[keys->n_indexes];

		if (!describe_index(info, lfirst_oid(cell), key))
			continue;
		if (key->indexoid == identity)
			keys->identity = keys->n_indexes;
		for (int i = 0; i < key->n_uses; i++)
			keys->attnum_max = Max(keys->attnum_max, key->uses[i]);
		keys->n_indexes++;
	}
	list_free(indexes);

	add_branch(keys, mgrepl_key_hash_database());
	add_branch(keys, table);
	build_ancestors(info, keys, RelationGetRelid(rel));
	build_foreign_keys(info, keys, rel);
	for (int i = 0; i < keys->n_foreign; i++)
		for (int j = 0; j < keys->foreign[i].n_columns; j++)
			keys->attnum_max = Max(keys->attnum_max, keys->foreign[i].columns[j].attnum);

	if (info->identity == MG_IDENTITY_FULL && keys->identity < 0)
	{
		build_row_key(keys, rel, table);
		keys->attnum_max = RelationGetDescr(rel)->natts;
	}
	return keys;
}

/* ---- rows to keys ---- */

static inline void
add_key(uint64 hash, mg_key_strength strength)
{
	mgrepl_capture_key(mg_key_make(hash, strength));
}

/* False if the index, or a match of the foreign key, ignores a row with such a NULL. */
static bool
columns_hash(const MgKeyColumn *columns, int n, uint64 seed, bool nulls_hash,
			 TupleTableSlot *slot, uint64 *hash)
{
	*hash = seed;
	for (int i = 0; i < n; i++)
	{
		int			at = columns[i].attnum - 1;

		if (!slot->tts_isnull[at])
			*hash = add_hash(*hash, value_hash(&columns[i], slot->tts_values[at]));
		else if (nulls_hash)
			*hash = add_hash(*hash, NULL_HASH);
		else
			return false;
	}
	return true;
}

/* An index with expressions or a predicate: let the executor say what it holds. */
static bool
evaluated_hash(MgIndexKey *key, TupleTableSlot *slot, uint64 *hash)
{
	ExprContext *econtext;
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	bool		has_key = true;

	if (key->evaluator_of != mgrepl_writeset_number)
	{
		MemoryContext caller = MemoryContextSwitchTo(mgrepl_writeset_cxt);
		Relation	index = index_open(key->indexoid, AccessShareLock);

		key->evaluator = BuildIndexInfo(index);
		index_close(index, NoLock);
		key->estate = CreateExecutorState();
		MemoryContextSwitchTo(caller);
		key->evaluator_of = mgrepl_writeset_number;
	}

	econtext = GetPerTupleExprContext(key->estate);
	econtext->ecxt_scantuple = slot;
	if (key->evaluator->ii_Predicate != NIL)
	{
		if (key->evaluator->ii_PredicateState == NULL)
			key->evaluator->ii_PredicateState = ExecPrepareQual(key->evaluator->ii_Predicate, key->estate);
		has_key = ExecQual(key->evaluator->ii_PredicateState, econtext);
	}
	if (has_key)
	{
		FormIndexDatum(key->evaluator, slot, key->estate, values, isnull);
		*hash = key->seed;
		for (int i = 0; i < key->n_columns && has_key; i++)
		{
			if (!isnull[i])
				*hash = add_hash(*hash, value_hash(&key->columns[i], values[i]));
			else if (key->nulls_equal)
				*hash = add_hash(*hash, NULL_HASH);
			else
				has_key = false;
		}
	}
	econtext->ecxt_scantuple = NULL;
	ResetPerTupleExprContext(key->estate);
	return has_key;
}

/* The keys of one row under one unique index. */
static void
add_index_keys(MgIndexKey *key, TupleTableSlot *slot, mg_key_strength strength)
{
	uint64		hash;

	if (key->whole || (key->whole_too && strength == MG_KEY_UPDATE))
		add_key(whole_hash(key->seed), strength);
	if (key->whole)
		return;
	if (key->plain
		? columns_hash(key->columns, key->n_columns, key->seed, key->nulls_equal, slot, &hash)
		: evaluated_hash(key, slot, &hash))
		add_key(hash, strength);
}

static void
add_row_key(const MgRelKeys *keys, TupleTableSlot *slot)
{
	uint64		hash;

	(void) columns_hash(keys->row_columns, keys->n_row_columns, keys->row_seed, true, slot, &hash);
	add_key(hash, MG_KEY_UPDATE);
}

static void
add_foreign_key(const MgForeignKey *key, TupleTableSlot *slot)
{
	uint64		hash;

	if (key->whole)
	{
		for (int i = 0; i < key->n_columns; i++)
			if (slot->tts_isnull[key->columns[i].attnum - 1])
				return;
		add_key(whole_hash(key->seed), MG_KEY_KEY_SHARE);
	}
	else if (columns_hash(key->columns, key->n_columns, key->seed, false, slot, &hash))
		add_key(hash, MG_KEY_KEY_SHARE);
}

bool
mgrepl_keys_same(Relation rel, AttrNumber attnum, TupleTableSlot *old, TupleTableSlot *new)
{
	int			at = attnum - 1;
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), at);
	Datum		a = old->tts_values[at];
	Datum		b = new->tts_values[at];

	if (old->tts_isnull[at] || new->tts_isnull[at])
		return old->tts_isnull[at] && new->tts_isnull[at];
	if (att->attbyval)
		return a == b;
	/* The same out-of-line value: no need to fetch it. */
	if (att->attlen == -1 &&
		VARATT_IS_EXTERNAL_ONDISK(a) && VARATT_IS_EXTERNAL_ONDISK(b) &&
		memcmp(DatumGetPointer(a), DatumGetPointer(b), VARSIZE_EXTERNAL(a)) == 0)
		return true;
	return datum_image_eq(a, b, false, att->attlen);
}

static bool
index_changed(const MgIndexKey *key, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	if (key->uses_row)
		return true;
	for (int i = 0; i < key->n_uses; i++)
		if (!mgrepl_keys_same(rel, key->uses[i], old, new))
			return true;
	return false;
}

static bool
foreign_changed(const MgForeignKey *key, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	for (int i = 0; i < key->n_columns; i++)
		if (!mgrepl_keys_same(rel, key->columns[i].attnum, old, new))
			return true;
	return false;
}

void
mgrepl_keys_branches(const MgRelKeys *keys)
{
	for (int i = 0; i < keys->n_branches; i++)
		add_key(keys->branches[i], MG_KEY_KEY_SHARE);
}

void
mgrepl_keys_insert(MgRelKeys *keys, TupleTableSlot *new)
{
	slot_getsomeattrs(new, keys->attnum_max);
	for (int i = 0; i < keys->n_indexes; i++)
		add_index_keys(&keys->indexes[i], new, MG_KEY_UPDATE);
	for (int i = 0; i < keys->n_foreign; i++)
		add_foreign_key(&keys->foreign[i], new);
	if (keys->row_is_key)
		add_row_key(keys, new);
}

void
mgrepl_keys_delete(MgRelKeys *keys, TupleTableSlot *old)
{
	slot_getsomeattrs(old, keys->attnum_max);
	for (int i = 0; i < keys->n_indexes; i++)
	{
		MgIndexKey *key = &keys->indexes[i];

		/*
		 * Deletes do not offend an exclusion constraint, nor each other; but
		 * a later insert that they made room for must be applied after them.
		 */
		add_index_keys(key, old, key->exclusion ? MG_KEY_KEY_SHARE : MG_KEY_UPDATE);
	}
	if (keys->row_is_key)
		add_row_key(keys, old);
}

void
mgrepl_keys_update(MgRelKeys *keys, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		key_update = false;

	slot_getsomeattrs(old, keys->attnum_max);
	slot_getsomeattrs(new, keys->attnum_max);

	for (int i = 0; i < keys->n_indexes; i++)
	{
		MgIndexKey *key = &keys->indexes[i];

		key->changed = index_changed(key, rel, old, new);
		key_update |= key->changed && key->plain;
	}

	for (int i = 0; i < keys->n_indexes; i++)
	{
		MgIndexKey *key = &keys->indexes[i];

		if (key->changed)
		{
			add_index_keys(key, old, MG_KEY_UPDATE);
			if (!key->whole)
				add_index_keys(key, new, MG_KEY_UPDATE);
		}
		else if (key_update && key->plain)
			add_index_keys(key, old, MG_KEY_UPDATE);
		else if (i == keys->identity)
			add_index_keys(key, old, MG_KEY_NO_KEY_UPDATE);
	}

	for (int i = 0; i < keys->n_foreign; i++)
		if (foreign_changed(&keys->foreign[i], rel, old, new))
			add_foreign_key(&keys->foreign[i], new);
	if (keys->row_is_key)
	{
		add_row_key(keys, old);
		add_row_key(keys, new);
	}
}
