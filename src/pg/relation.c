/*
 * pg/relation.c - descriptions of tables for capture.
 *
 * How: a hash table of MgRelInfo by OID, with a pointer to the last one used
 * in front, because rows of one table come in runs.  Each description has a
 * memory context of its own.  It is built in a child of the caller's context
 * and adopted only when complete, so an error leaves nothing behind.
 *
 * Why dependencies are kept: the names that enter keys are those of indexes,
 * ancestors and referenced tables, and renaming one of them does not
 * invalidate the table.  A set of everything that any description was made
 * from answers the common case ("nobody cares") with one look-up; else all
 * descriptions are asked.  Rejected: dropping every description at any
 * invalidation, because each autovacuum sends some.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "pg/keys.h"
#include "pg/relation.h"

#define FINGERPRINT_SEED	UINT64CONST(0x6d67726570313001)

static HTAB *relations = NULL;	/* MgRelInfo by OID */
static HTAB *dependencies = NULL;	/* MgDepend of all of them; only grows */
static MgRelInfo *last_used = NULL;
static bool some_stale = false;
static uint64 invalidations = 0;	/* calls of our callbacks, to notice one during a build */
static MemoryContext relations_cxt = NULL;
static MemoryContext retired_cxt = NULL;	/* replaced descriptions, until the writeset ends */

/* ---- invalidation ---- */

static void
mark_stale(MgRelInfo *info)
{
	info->valid = false;
	some_stale = true;
}

/* kind 0: all of them. */
static void
mark_dependents_stale(uint32 kind, uint32 value)
{
	HASH_SEQ_STATUS scan;
	MgRelInfo  *info;
	MgDepend	depend = {kind, value};

	if (kind != 0 && hash_search(dependencies, &depend, HASH_FIND, NULL) == NULL)
		return;

	hash_seq_init(&scan, relations);
	while ((info = hash_seq_search(&scan)) != NULL)
	{
		bool		hit = kind == 0;

		for (int i = 0; i < info->n_depends && !hit; i++)
			hit = info->depends[i].kind == kind && info->depends[i].value == value;
		if (hit)
			mark_stale(info);
	}
}

static void
on_relation_invalidated(Datum arg, Oid relid)
{
	MgRelInfo  *info;

	invalidations++;
	if (!OidIsValid(relid))
	{
		mark_dependents_stale(0, 0);
		return;
	}
	info = hash_search(relations, &relid, HASH_FIND, NULL);
	if (info != NULL)
		mark_stale(info);
	mark_dependents_stale(MG_DEPEND_RELATION, relid);
}

/* arg: the kind of dependency. */
static void
on_name_invalidated(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidations++;
	mark_dependents_stale(hashvalue == 0 ? 0 : DatumGetUInt32(arg), hashvalue);
}

static void
cache_init(void)
{
	HASHCTL		ctl;

	relations_cxt = AllocSetContextCreate(TopMemoryContext, "mgrepl relations", ALLOCSET_DEFAULT_SIZES);
	retired_cxt = AllocSetContextCreate(relations_cxt, "mgrepl retired relations", ALLOCSET_SMALL_SIZES);

	memset(&ctl, 0, sizeof(ctl));
	ctl.hcxt = relations_cxt;
	ctl.keysize = sizeof(MgDepend);
	ctl.entrysize = sizeof(MgDepend);
	dependencies = hash_create("mgrepl dependencies", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(MgRelInfo);
	relations = hash_create("mgrepl relations", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	CacheRegisterRelcacheCallback(on_relation_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_name_invalidated, UInt32GetDatum(MG_DEPEND_NAMESPACE));
	CacheRegisterSyscacheCallback(TYPEOID, on_name_invalidated, UInt32GetDatum(MG_DEPEND_TYPE));
}

void
mgrepl_relation_depend(MgRelInfo *info, MgDependKind kind, uint32 value)
{
	MgDepend	depend = {kind, value};

	for (int i = 0; i < info->n_depends; i++)
		if (info->depends[i].kind == depend.kind && info->depends[i].value == value)
			return;

	if (info->depends == NULL)
	{
		info->cap_depends = 16;
		info->depends = palloc(info->cap_depends * sizeof(MgDepend));
	}
	else if (info->n_depends == info->cap_depends)
	{
		info->cap_depends *= 2;
		info->depends = repalloc(info->depends, info->cap_depends * sizeof(MgDepend));
	}
	info->depends[info->n_depends++] = depend;
	(void) hash_search(dependencies, &depend, HASH_ENTER, NULL);
}

void
mgrepl_relation_depend_namespace(MgRelInfo *info, Oid nspid)
{
	mgrepl_relation_depend(info, MG_DEPEND_NAMESPACE,
						   GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(nspid)));
}

/* ---- what a table is ---- */

static inline bool
column_is_sent(Form_pg_attribute att)
{
	return !att->attisdropped && !att->attgenerated;
}

uint64
mgrepl_relation_fingerprint(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData text;
	uint64		hash;

	/* Names hold no 0, so a 0 behind each makes the text unambiguous. */
	initStringInfo(&text);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		HeapTuple	tuple;
		Form_pg_type type;
		char	   *schema;

		if (!column_is_sent(att))
			continue;
		tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(att->atttypid));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for type %u", att->atttypid);
		type = (Form_pg_type) GETSTRUCT(tuple);
		schema = get_namespace_name(type->typnamespace);
		appendBinaryStringInfo(&text, NameStr(att->attname), strlen(NameStr(att->attname)) + 1);
		if (schema != NULL)
		{
			appendBinaryStringInfo(&text, schema, strlen(schema));
			pfree(schema);
		}
		appendStringInfoChar(&text, '\0');
		appendBinaryStringInfo(&text, NameStr(type->typname), strlen(NameStr(type->typname)) + 1);
		ReleaseSysCache(tuple);
	}
	hash = hash_bytes_extended((const unsigned char *) text.data, text.len, FINGERPRINT_SEED);
	pfree(text.data);
	return hash;
}

bool
mgrepl_type_is_reg(Oid typid)
{
	switch (typid)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
		default:
			return false;
	}
}

/*
 * The binary form of an array names its element type, that of a composite its
 * columns' types, by OIDs that are the same everywhere only for types that
 * PostgreSQL's source numbers.  Enums send labels.  Extensions' types may do
 * anything.
 */
static MgForm
type_form(Oid typid)
{
	HeapTuple	tuple;
	Oid			element,
				send;

	switch (get_typtype(typid))
	{
		case TYPTYPE_DOMAIN:
			return type_form(getBaseType(typid));
		case TYPTYPE_ENUM:
			return MG_FORM_BINARY;
		case TYPTYPE_RANGE:
			return type_form(get_range_subtype(typid));
		case TYPTYPE_MULTIRANGE:
			return type_form(get_multirange_range(typid));
		case TYPTYPE_BASE:
			break;
		default:
			return MG_FORM_TEXT_QUALIFIED;
	}

	element = get_element_type(typid);
	if (OidIsValid(element))
	{
		MgForm		form = type_form(element);

		if (form == MG_FORM_BINARY && element >= FirstGenbkiObjectId)
			form = MG_FORM_TEXT;
		return form;
	}
	if (mgrepl_type_is_reg(typid))
		return MG_FORM_TEXT_QUALIFIED;
	if (typid >= FirstNormalObjectId)
		return MG_FORM_TEXT;

	/* Without a send function an array of it could not be sent in binary at all. */
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(typid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", typid);
	send = ((Form_pg_type) GETSTRUCT(tuple))->typsend;
	ReleaseSysCache(tuple);
	return OidIsValid(send) ? MG_FORM_BINARY : MG_FORM_TEXT;
}

static bool
function_may_use_sequence(Oid funcid, void *context)
{
	switch (funcid)
	{
		case F_NEXTVAL:
		case F_SETVAL_REGCLASS_INT8:
		case F_SETVAL_REGCLASS_INT8_BOOL:
			return true;
		default:
			return funcid >= FirstNormalObjectId && func_volatile(funcid) == PROVOLATILE_VOLATILE;
	}
}

static bool
expression_may_use_sequence(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, NextValueExpr))
		return true;
	if (check_functions_in_node(node, function_may_use_sequence, context))
		return true;
	return expression_tree_walker(node, expression_may_use_sequence, context);
}

static void
describe_columns(MgRelInfo *info, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	info->toastable = palloc(desc->natts * sizeof(AttrNumber));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		MgForm		form;

		if (!column_is_sent(att))
			continue;

		form = type_form(att->atttypid);
		if (form > info->form)
			info->form = form;
		if (att->atttypid >= FirstNormalObjectId)
			mgrepl_relation_depend(info, MG_DEPEND_TYPE,
								   GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(att->atttypid)));

		/* Whatever attstorage says now, an older row may be stored otherwise. */
		if (att->attlen == -1)
			info->toastable[info->n_toastable++] = att->attnum;

		if (!info->uses_sequence &&
			(att->attidentity ||
			 expression_may_use_sequence(build_column_default(rel, att->attnum), NULL)))
			info->uses_sequence = true;
	}
}

static void
describe_identity(MgRelInfo *info, Relation rel)
{
	Oid			indexoid;
	HeapTuple	tuple;
	Form_pg_index index;

	if (rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
	{
		info->identity = MG_IDENTITY_FULL;
		return;
	}
	indexoid = RelationGetReplicaIndex(rel);
	if (!OidIsValid(indexoid))
		return;					/* MG_IDENTITY_NONE */

	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", indexoid);
	index = (Form_pg_index) GETSTRUCT(tuple);
	info->identity = MG_IDENTITY_INDEX;
	info->n_identity = index->indnkeyatts;
	info->identity_columns = palloc(info->n_identity * sizeof(AttrNumber));
	for (int i = 0; i < info->n_identity; i++)
		info->identity_columns[i] = index->indkey.values[i];
	ReleaseSysCache(tuple);
}

/* In the current memory context, which becomes the description's own. */
static void
describe(MgRelInfo *info, Relation rel)
{
	TupleDesc	desc;

	info->schema = get_namespace_name(RelationGetNamespace(rel));
	if (info->schema == NULL)
		elog(ERROR, "cache lookup failed for namespace %u", RelationGetNamespace(rel));
	info->name = pstrdup(RelationGetRelationName(rel));
	mgrepl_relation_depend_namespace(info, RelationGetNamespace(rel));
	info->fingerprint = mgrepl_relation_fingerprint(rel);

	describe_columns(info, rel);
	describe_identity(info, rel);
	info->keys = mgrepl_keys_build(info, rel);

	desc = CreateTupleDescCopy(RelationGetDescr(rel));
	info->old_slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	info->new_slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
}

MgRelInfo *
mgrepl_relation_get(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	MgRelInfo	fresh;
	MgRelInfo  *info;
	MemoryContext caller;
	uint64		before;
	bool		found;

	if (last_used != NULL && last_used->relid == relid && last_used->valid)
		return last_used;

	if (relations == NULL)
		cache_init();

	info = hash_search(relations, &relid, HASH_FIND, NULL);
	if (info != NULL && info->valid)
		return last_used = info;

	memset(&fresh, 0, sizeof(fresh));
	fresh.relid = relid;
	fresh.cxt = AllocSetContextCreate(CurrentMemoryContext, "mgrepl relation", ALLOCSET_SMALL_SIZES);
	before = invalidations;
	caller = MemoryContextSwitchTo(fresh.cxt);
	describe(&fresh, rel);
	MemoryContextSwitchTo(caller);

	/*
	 * What was invalidated meanwhile may have been read before it changed.
	 * For this row it is good: the table is locked.  The next row builds anew.
	 */
	fresh.valid = before == invalidations;
	if (!fresh.valid)
		some_stale = true;

	info = hash_search(relations, &relid, HASH_ENTER, &found);
	if (found)
		MemoryContextSetParent(info->cxt, retired_cxt);
	MemoryContextSetParent(fresh.cxt, relations_cxt);
	*info = fresh;
	return last_used = info;
}

void
mgrepl_relation_sweep(void)
{
	HASH_SEQ_STATUS scan;
	MgRelInfo  *info;

	if (!some_stale)
		return;

	last_used = NULL;
	MemoryContextReset(retired_cxt);
	hash_seq_init(&scan, relations);
	while ((info = hash_seq_search(&scan)) != NULL)
	{
		if (info->valid)
			continue;
		MemoryContextDelete(info->cxt);
		(void) hash_search(relations, &info->relid, HASH_REMOVE, NULL);
	}
	some_stale = false;
}
