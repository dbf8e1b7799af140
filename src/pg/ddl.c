/*
 * pg/ddl.c - statements that are not rows: the project's one ProcessUtility_hook.
 *
 * Every utility statement in the replicated database of a clustered node is
 * one of three things (classify):
 *
 *	 LOCAL       concerns this node only, or its rows are captured anyway
 *	 REPLICATED  runs on every node, at its place in the order
 *	 REFUSED     would make the nodes differ: an error that says what to do
 *
 * How a replicated statement goes (run_replicated):
 *	 1. Its keys are reserved all over the cluster.  From then on no other
 *	    member's writeset with such a key passes, and all earlier ones are
 *	    committed here, so the statement meets here exactly what it will meet
 *	    at its place in the order.
 *	 2. It runs in its ordinary transaction, and waits for local locks as ever.
 *	    If it fails, nothing has happened anywhere.
 *	 3. Its text and environment are the transaction's writeset; every other
 *	    node runs it (mgrepl_ddl_apply) when that writeset's turn comes.
 * Running it everywhere at once (total-order isolation) would need no
 * reservation, but then a statement that fails on one node only is found out
 * too late.
 *
 * Keys.  A statement about one free-standing table takes that table's branch
 * key, so that writers of other tables go on.  As names of tables, indexes,
 * sequences and row types live side by side in a schema, it also takes the
 * schema's (the key of the table "" in it), which only such statements use.
 * Whatever may reach further (CASCADE, foreign keys, partitions, anything that
 * is not a table) takes the database's branch key, which every writeset
 * shares.
 *
 * Restrictions of this version: a replicated statement is a transaction of its
 * own, at top level.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parse_type.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "core/buf.h"
#include "pg/bfabort.h"
#include "pg/capture.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/ddl.h"
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/reads.h"
#include "pg/shmem.h"

#define OWN_EXTENSION "mgrepl"

#define STATEMENT_VERSION 1
#define SETTINGS_MAX 64
#define SETTING_BYTES_MAX 32768

/* What changes the meaning of a statement travels with it. */
static const char *const carried_settings[] = {
	"search_path", "check_function_bodies", "default_tablespace", "default_table_access_method",
	"default_toast_compression", "default_text_search_config", "row_security", "password_encryption",
	"createrole_self_grant", "standard_conforming_strings", "backslash_quote", "array_nulls",
	"transform_null_equals", "xmloption", "xmlbinary", "bytea_output", "extra_float_digits",
	"DateStyle", "IntervalStyle", "TimeZone", "timezone_abbreviations", "lc_monetary", "lc_numeric", "lc_time",
};

typedef enum Disposition
{
	DDL_REFUSED = 0,
	DDL_LOCAL,
	DDL_REPLICATED
} Disposition;

typedef struct DdlPlan
{
	Disposition what;
	const char *why;			/* for REFUSED: ends a sentence that begins with the command's name */
	const char *hint;			/* for REFUSED */
	bool		wide;			/* takes the database's branch key */
	bool		script;			/* runs statements of its own, which are part of it */
	bool		mute;			/* and whose rows are not to be captured */
	int			n_here;			/* objects met that exist on this node only */
	int			n_everywhere;	/* objects met that exist on every node */
	mg_key	   *keys;
	uint32		n_keys;
	uint32		keys_cap;
} DdlPlan;

static ProcessUtility_hook_type next_hook = NULL;

/* Inside a statement whose own statements are part of it. */
static int	script_depth = 0;

/* ---- plans ---- */

static void
refuse(DdlPlan *plan, const char *why, const char *hint)
{
	plan->what = DDL_REFUSED;
	plan->why = why;
	plan->hint = hint;
}

static void
add_key(DdlPlan *plan, uint64 hash, mg_key_strength strength)
{
	if (plan->n_keys == plan->keys_cap)
	{
		plan->keys_cap = plan->keys_cap ? plan->keys_cap * 2 : 8;
		plan->keys = plan->keys ? repalloc(plan->keys, plan->keys_cap * sizeof(mg_key))
			: palloc(plan->keys_cap * sizeof(mg_key));
	}
	plan->keys[plan->n_keys++] = mg_key_make(hash, strength);
}

static void
add_table_keys(DdlPlan *plan, const char *schema, const char *table)
{
	add_key(plan, mgrepl_key_hash_table(schema, table), MG_KEY_UPDATE);
	add_key(plan, mgrepl_key_hash_table(schema, ""), MG_KEY_UPDATE);
}

/* Does anything else come along when this table is altered or dropped? */
static bool
table_has_relatives(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	bool		relatives;

	if (rel == NULL)
		return true;
	relatives = rel->rd_rel->relispartition || rel->rd_rel->relhassubclass || has_superclass(relid);
	for (int i = 0; !relatives && rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		relatives = RI_FKey_trigger_type(rel->trigdesc->triggers[i].tgfoid) != RI_TRIGGER_NONE;
	relation_close(rel, AccessShareLock);
	return relatives;
}

static void
on_relid(DdlPlan *plan, Oid relid)
{
	char		kind = get_rel_relkind(relid);
	char	   *schema;
	char	   *table;

	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
	{
		plan->n_here++;
		return;
	}
	plan->n_everywhere++;
	if (kind == RELKIND_INDEX)
	{
		relid = IndexGetRelation(relid, true);
		kind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';
	}
	if (kind != RELKIND_RELATION || table_has_relatives(relid))
	{
		plan->wide = true;
		return;
	}
	schema = get_namespace_name(get_rel_namespace(relid));
	table = get_rel_name(relid);
	if (schema == NULL || table == NULL)
		plan->wide = true;
	else
		add_table_keys(plan, schema, table);
}

/* One that is not there may be made by another node at this moment: it has no key of its own yet. */
static void
on_relation(DdlPlan *plan, RangeVar *rv)
{
	Oid			relid = RangeVarGetRelid(rv, NoLock, true);

	if (OidIsValid(relid))
		on_relid(plan, relid);
	else
	{
		plan->n_everywhere++;
		plan->wide = true;
	}
}

/* The statement makes a relation of this name. */
static void
on_new_relation(DdlPlan *plan, RangeVar *rv)
{
	Oid			namespace = RangeVarGetCreationNamespace(rv);
	char	   *schema;

	if (rv->relpersistence == RELPERSISTENCE_TEMP || isAnyTempNamespace(namespace))
	{
		plan->n_here++;
		return;
	}
	plan->n_everywhere++;
	schema = get_namespace_name(namespace);
	if (schema == NULL)
		plan->wide = true;
	else
		add_table_keys(plan, schema, rv->relname);
}

/* The statement makes a type, function or the like of this name. */
static void
on_new_name(DdlPlan *plan, List *names)
{
	char	   *name;

	plan->wide = true;
	if (isAnyTempNamespace(QualifiedNameGetCreationNamespace(names, &name)))
		plan->n_here++;
	else
		plan->n_everywhere++;
}

/* Any object that the grammar can name. */
static void
on_object(DdlPlan *plan, ObjectType type, Node *object)
{
	Relation	rel = NULL;
	ObjectAddress address;
	bool		here = false;

	plan->wide = true;
	address = get_object_address(type, object, &rel, AccessShareLock, true);
	if (OidIsValid(address.objectId))
	{
		Oid			namespace = rel != NULL ? RelationGetNamespace(rel) : get_object_namespace(&address);

		here = OidIsValid(namespace) && isAnyTempNamespace(namespace);
		if (IsSharedRelation(address.classId))
			UnlockSharedObject(address.classId, address.objectId, 0, AccessShareLock);
		else if (address.classId != RelationRelationId)
			UnlockDatabaseObject(address.classId, address.objectId, 0, AccessShareLock);
	}
	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	if (here)
		plan->n_here++;
	else
		plan->n_everywhere++;
}

static void
on_type(DdlPlan *plan, List *names)
{
	on_object(plan, OBJECT_TYPE, (Node *) makeTypeNameFromNameList(names));
}

/* ---- expressions that another node could compute otherwise ---- */

/*
 * Stable built-in functions depend on settings, which travel with the
 * statement, except those that tell the time or something of the server.
 */
static bool
function_may_differ(Oid function, void *context)
{
	char		volatility = func_volatile(function);
	char	   *name;

	if (volatility == PROVOLATILE_IMMUTABLE)
		return false;
	if (volatility == PROVOLATILE_VOLATILE || function >= FirstNormalObjectId || get_func_nargs(function) == 0)
		return true;
	name = get_func_name(function);
	return name == NULL || strncmp(name, "pg_", 3) == 0 || strncmp(name, "has_", 4) == 0 ||
		strcmp(name, "current_setting") == 0 || strcmp(name, "age") == 0;
}

static bool
may_differ_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SQLValueFunction) || IsA(node, NextValueExpr) ||
		check_functions_in_node(node, function_may_differ, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, may_differ_walker, context, 0);
	return expression_tree_walker(node, may_differ_walker, context);
}

static bool
default_may_differ(Node *raw)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *expr = transformExpr(pstate, copyObject(raw), EXPR_KIND_COLUMN_DEFAULT);

	free_parsestate(pstate);
	return may_differ_walker(expr, NULL);
}

static bool
using_may_differ(RangeVar *relation, Node *raw)
{
	Oid			relid = RangeVarGetRelid(relation, AccessShareLock, true);
	Relation	rel;
	ParseState *pstate;
	ParseNamespaceItem *item;
	Node	   *expr;

	if (!OidIsValid(relid))
		return false;
	rel = relation_open(relid, NoLock);
	pstate = make_parsestate(NULL);
	item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock, NULL, false, true);
	addNSItemToQuery(pstate, item, false, true, true);
	expr = transformExpr(pstate, copyObject(raw), EXPR_KIND_ALTER_COL_TRANSFORM);
	free_parsestate(pstate);
	relation_close(rel, AccessShareLock);
	return may_differ_walker(expr, NULL);
}

static bool
is_serial_type(const TypeName *type)
{
	static const char *const serials[] = {"smallserial", "serial2", "serial", "serial4", "bigserial", "serial8"};

	if (type == NULL || list_length(type->names) != 1 || OidIsValid(type->typeOid))
		return false;
	for (int i = 0; i < lengthof(serials); i++)
		if (strcmp(strVal(linitial(type->names)), serials[i]) == 0)
			return true;
	return false;
}

/* Would the rows that are there already get values that differ between nodes? */
static bool
new_column_may_differ(ColumnDef *column)
{
	ListCell   *lc;
	bool		has_default = false;
	Oid			type;

	if (is_serial_type(column->typeName))
		return true;
	foreach(lc, column->constraints)
	{
		Constraint *constraint = lfirst_node(Constraint, lc);

		if (constraint->contype == CONSTR_IDENTITY)
			return true;
		if (constraint->contype == CONSTR_DEFAULT)
		{
			has_default = true;
			if (default_may_differ(constraint->raw_expr))
				return true;
		}
	}
	if (has_default || column->typeName == NULL)
		return false;
	type = LookupTypeNameOid(NULL, column->typeName, true);
	return OidIsValid(type) && may_differ_walker(get_typdefault(type), NULL);
}

static bool
has_foreign_key(List *constraints)
{
	ListCell   *lc;

	foreach(lc, constraints)
		if (lfirst_node(Constraint, lc)->contype == CONSTR_FOREIGN)
			return true;
	return false;
}

/* ---- one function per kind of statement that needs a closer look ---- */

static void
plan_create_table(DdlPlan *plan, CreateStmt *stmt)
{
	ListCell   *lc;

	on_new_relation(plan, stmt->relation);
	if (plan->n_here > 0)
		return;
	plan->wide |= stmt->inhRelations != NIL || stmt->partbound != NULL || has_foreign_key(stmt->constraints);
	foreach(lc, stmt->tableElts)
	{
		Node	   *element = lfirst(lc);

		if (IsA(element, ColumnDef))
			plan->wide |= has_foreign_key(((ColumnDef *) element)->constraints);
		else if (IsA(element, Constraint))
			plan->wide |= ((Constraint *) element)->contype == CONSTR_FOREIGN;
		else if (IsA(element, TableLikeClause))
		{
			/* Its definition is read: nobody may change it meanwhile. */
			Oid			like = RangeVarGetRelid(((TableLikeClause *) element)->relation, NoLock, true);

			plan->wide = true;
			if (OidIsValid(like) && get_rel_persistence(like) == RELPERSISTENCE_TEMP)
			{
				refuse(plan, "takes its columns from a temporary table, which other nodes do not have",
					   "Write the columns out.");
				return;
			}
		}
	}
}

static void
plan_create_table_as(DdlPlan *plan, CreateTableAsStmt *stmt)
{
	Query	   *query = castNode(Query, stmt->query);

	on_new_relation(plan, stmt->into->rel);
	if (plan->n_here > 0)
		return;
	if (!stmt->into->skipData)
		refuse(plan, "would compute its rows on every node anew, and they could differ",
			   stmt->objtype == OBJECT_MATVIEW
			   ? "Create it WITH NO DATA, then use REFRESH MATERIALIZED VIEW."
			   : "Use CREATE TABLE, then INSERT ... SELECT.");
	else if (query->commandType == CMD_UTILITY)
		refuse(plan, "depends on a prepared statement, which other nodes do not have",
			   "Write the query out.");
	else if (isQueryUsingTempRelation(query))
		refuse(plan, "reads a temporary table, which other nodes do not have",
			   "Use CREATE TABLE.");
	plan->wide = true;
}

static void
plan_create_view(DdlPlan *plan, ViewStmt *stmt, const char *sql)
{
	RawStmt    *raw = makeNode(RawStmt);

	on_new_relation(plan, stmt->view);
	plan->wide = true;
	if (plan->n_here > 0)
		return;

	/* A view on a temporary table becomes temporary itself. */
	raw->stmt = copyObject(stmt->query);
	if (isQueryUsingTempRelation(parse_analyze_fixedparams(raw, sql, NULL, 0, NULL)))
	{
		plan->n_everywhere = 0;
		plan->n_here++;
	}
}

static void
plan_refresh(DdlPlan *plan, RefreshMatViewStmt *stmt)
{
	Oid			relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	Relation	rel;

	on_relation(plan, stmt->relation);
	plan->script = true;		/* CONCURRENTLY makes a temporary table */
	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	if (rel == NULL)
		return;
	if (rel->rd_rel->relkind == RELKIND_MATVIEW && rel->rd_rules != NULL && rel->rd_rules->numLocks > 0 &&
		may_differ_walker((Node *) rel->rd_rules->rules[0]->actions, NULL))
		refuse(plan, "runs a query whose result could differ between nodes",
			   "Do without volatile functions and the time, or use a table.");
	relation_close(rel, AccessShareLock);
}

static void
plan_alter_table_command(DdlPlan *plan, AlterTableStmt *stmt, AlterTableCmd *cmd)
{
	plan->wide |= cmd->behavior == DROP_CASCADE;
	switch (cmd->subtype)
	{
		case AT_AddColumn:
			{
				ColumnDef  *column = castNode(ColumnDef, cmd->def);

				plan->wide |= has_foreign_key(column->constraints);
				if (stmt->objtype == OBJECT_TABLE && new_column_may_differ(column))
					refuse(plan, "ADD COLUMN would give present rows values that could differ between nodes",
						   "Add the column without a default, UPDATE the rows, then set the default or identity.");
			}
			break;
		case AT_AlterColumnType:
			{
				ColumnDef  *column = castNode(ColumnDef, cmd->def);

				if (column->raw_default != NULL && using_may_differ(stmt->relation, column->raw_default))
					refuse(plan, "... USING would give values that could differ between nodes",
						   "Add another column and UPDATE it instead.");
			}
			break;
		case AT_AddConstraint:
			plan->wide |= castNode(Constraint, cmd->def)->contype == CONSTR_FOREIGN;
			break;
		case AT_SetLogged:
		case AT_SetUnLogged:
			refuse(plan, "cannot change whether a table is replicated: rows of an unlogged table are on one node only",
				   "Create another table and copy the rows.");
			break;
		case AT_EnableTrigAll:
		case AT_DisableTrigAll:
			refuse(plan, "ENABLE or DISABLE TRIGGER ALL would reach the trigger that captures rows",
				   "Use TRIGGER USER instead of TRIGGER ALL.");
			break;
		case AT_DetachPartition:
			plan->wide = true;
			if (castNode(PartitionCmd, cmd->def)->concurrent)
				refuse(plan, "DETACH PARTITION CONCURRENTLY cannot be one transaction on every node",
					   "Use it without CONCURRENTLY.");
			break;
		case AT_DetachPartitionFinalize:
			refuse(plan, "DETACH PARTITION FINALIZE cannot be one transaction on every node",
				   "Use DETACH PARTITION without CONCURRENTLY.");
			break;
		case AT_AddInherit:
		case AT_DropInherit:
		case AT_AttachPartition:
		case AT_AddOf:
			plan->wide = true;
			break;
		default:
			break;
	}
}

static void
plan_alter_table(DdlPlan *plan, AlterTableStmt *stmt)
{
	ListCell   *lc;

	on_relation(plan, stmt->relation);
	if (plan->n_here > 0)
		return;
	foreach(lc, stmt->cmds)
	{
		plan_alter_table_command(plan, stmt, lfirst_node(AlterTableCmd, lc));
		if (plan->what == DDL_REFUSED)
			return;
	}
}

static void
plan_drop(DdlPlan *plan, DropStmt *stmt)
{
	ListCell   *lc;

	plan->wide |= stmt->behavior == DROP_CASCADE;
	foreach(lc, stmt->objects)
	{
		Node	   *object = lfirst(lc);

		switch (stmt->removeType)
		{
			case OBJECT_TABLE:
			case OBJECT_INDEX:
			case OBJECT_SEQUENCE:
			case OBJECT_VIEW:
			case OBJECT_MATVIEW:
			case OBJECT_FOREIGN_TABLE:
				on_relation(plan, makeRangeVarFromNameList(castNode(List, object)));
				break;
			case OBJECT_TRIGGER:
			case OBJECT_RULE:
			case OBJECT_POLICY:
				{
					List	   *names = list_copy(castNode(List, object));

					if (list_length(names) > 1)
						on_relation(plan, makeRangeVarFromNameList(list_truncate(names, list_length(names) - 1)));
				}
				break;
			case OBJECT_EXTENSION:
				on_object(plan, stmt->removeType, object);
				if (strcmp(strVal(object), OWN_EXTENSION) == 0)
				{
					refuse(plan, "would take mgrepl from under a node of a cluster",
						   "Call mgrepl.leave() first.");
					return;
				}
				break;
			default:
				on_object(plan, stmt->removeType, object);
		}
	}
	if (stmt->concurrent && plan->n_everywhere > 0)
		refuse(plan, "CONCURRENTLY cannot be one transaction on every node", "Use it without CONCURRENTLY.");
}

/* Rows of temporary, unlogged and foreign tables are this node's business. */
static void
plan_truncate(DdlPlan *plan, TruncateStmt *stmt)
{
	ListCell   *lc;

	plan->wide |= stmt->behavior == DROP_CASCADE;
	foreach(lc, stmt->relations)
	{
		RangeVar   *rv = lfirst_node(RangeVar, lc);
		Oid			relid = RangeVarGetRelid(rv, NoLock, true);

		if (OidIsValid(relid) && (get_rel_persistence(relid) != RELPERSISTENCE_PERMANENT ||
								  get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE))
			plan->n_here++;
		else
			on_relation(plan, rv);
	}
}

/* Objects of the server, not of the replicated database. */
static bool
is_server_object(ObjectType type)
{
	return type == OBJECT_DATABASE || type == OBJECT_TABLESPACE ||
		type == OBJECT_SUBSCRIPTION || type == OBJECT_LARGEOBJECT;
}

static void
plan_named_object(DdlPlan *plan, ObjectType type, RangeVar *relation, Node *object)
{
	if (is_server_object(type))
		plan->what = DDL_LOCAL;
	else if (relation != NULL)
		on_relation(plan, relation);
	else if (object != NULL)
		on_object(plan, type, object);
	else
		plan->wide = true;
}

static void
plan_grant(DdlPlan *plan, GrantStmt *stmt)
{
	ListCell   *lc;

	plan->wide = true;
	if (is_server_object(stmt->objtype))
		plan->what = DDL_LOCAL;
	else if (stmt->targtype == ACL_TARGET_OBJECT &&
			 (stmt->objtype == OBJECT_TABLE || stmt->objtype == OBJECT_SEQUENCE))
		foreach(lc, stmt->objects)
			on_relation(plan, lfirst_node(RangeVar, lc));
}

static void
plan_statistics(DdlPlan *plan, CreateStatsStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->relations)
		if (IsA(lfirst(lc), RangeVar))
			on_relation(plan, lfirst_node(RangeVar, lc));
}

/* A script brings its rows with it on every node. */
static void
plan_extension(DdlPlan *plan, const char *name)
{
	plan->wide = true;
	plan->script = true;
	plan->mute = true;
	if (strcmp(name, OWN_EXTENSION) == 0)
		plan->what = DDL_LOCAL;
}

/* EXPLAIN ANALYZE runs what it explains. */
static void
plan_explain(DdlPlan *plan, ExplainStmt *stmt)
{
	Query	   *query = castNode(Query, stmt->query);
	bool		analyze = false;
	ListCell   *lc;

	plan->what = DDL_LOCAL;
	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "analyze") == 0)
			analyze = defGetBoolean(option);
	}
	if (!analyze || query->commandType != CMD_UTILITY || !IsA(query->utilityStmt, CreateTableAsStmt))
		return;
	on_new_relation(plan, ((CreateTableAsStmt *) query->utilityStmt)->into->rel);
	if (plan->n_everywhere > 0)
		refuse(plan, "ANALYZE would create a table on this node only",
			   "Use EXPLAIN without ANALYZE, or explain the query alone.");
}

static void
classify(DdlPlan *plan, Node *parsetree, const char *sql)
{
	plan->what = DDL_REPLICATED;
	switch (nodeTag(parsetree))
	{
			/* ---- this node only ---- */
		case T_VariableSetStmt:
		case T_VariableShowStmt:
		case T_DeclareCursorStmt:
		case T_ClosePortalStmt:
		case T_FetchStmt:
		case T_PrepareStmt:
		case T_ExecuteStmt:
		case T_DeallocateStmt:
		case T_DiscardStmt:
		case T_ConstraintsSetStmt:
		case T_LoadStmt:
			/* Their statements come through here again, or their rows are captured. */
		case T_CallStmt:
		case T_DoStmt:
		case T_CopyStmt:
			/* Physical. */
		case T_VacuumStmt:
		case T_ClusterStmt:
		case T_ReindexStmt:
		case T_CheckPointStmt:
		case T_AlterTableMoveAllStmt:
			/* Documented as local. */
		case T_LockStmt:
		case T_ListenStmt:
		case T_UnlistenStmt:
		case T_NotifyStmt:
			/* The server's, not the database's. */
		case T_AlterSystemStmt:
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
		case T_AlterDatabaseSetStmt:
		case T_AlterDatabaseRefreshCollStmt:
		case T_CreateTableSpaceStmt:
		case T_DropTableSpaceStmt:
		case T_AlterTableSpaceOptionsStmt:
			/* One node subscribes; what it receives is captured. */
		case T_CreateSubscriptionStmt:
		case T_AlterSubscriptionStmt:
		case T_DropSubscriptionStmt:
			plan->what = DDL_LOCAL;
			break;
		case T_ExplainStmt:
			plan_explain(plan, (ExplainStmt *) parsetree);
			break;

			/* ---- tables and what belongs to one ---- */
		case T_CreateStmt:
			plan_create_table(plan, (CreateStmt *) parsetree);
			break;
		case T_CreateForeignTableStmt:
			plan_create_table(plan, &((CreateForeignTableStmt *) parsetree)->base);
			plan->wide = true;
			break;
		case T_CreateTableAsStmt:
			plan_create_table_as(plan, (CreateTableAsStmt *) parsetree);
			break;
		case T_AlterTableStmt:
			plan_alter_table(plan, (AlterTableStmt *) parsetree);
			break;
		case T_TruncateStmt:
			plan_truncate(plan, (TruncateStmt *) parsetree);
			break;
		case T_IndexStmt:
			on_relation(plan, ((IndexStmt *) parsetree)->relation);
			if (((IndexStmt *) parsetree)->concurrent && plan->n_everywhere > 0)
				refuse(plan, "CONCURRENTLY cannot be one transaction on every node",
					   "Use it without CONCURRENTLY.");
			break;
		case T_CreateTrigStmt:
			on_relation(plan, ((CreateTrigStmt *) parsetree)->relation);
			plan->wide |= ((CreateTrigStmt *) parsetree)->constrrel != NULL;
			break;
		case T_RuleStmt:
			on_relation(plan, ((RuleStmt *) parsetree)->relation);
			break;
		case T_CreatePolicyStmt:
			on_relation(plan, ((CreatePolicyStmt *) parsetree)->table);
			break;
		case T_AlterPolicyStmt:
			on_relation(plan, ((AlterPolicyStmt *) parsetree)->table);
			break;
		case T_CreateStatsStmt:
			plan_statistics(plan, (CreateStatsStmt *) parsetree);
			break;

			/* ---- views and sequences ---- */
		case T_ViewStmt:
			plan_create_view(plan, (ViewStmt *) parsetree, sql);
			break;
		case T_RefreshMatViewStmt:
			plan_refresh(plan, (RefreshMatViewStmt *) parsetree);
			break;
		case T_CreateSeqStmt:
			on_new_relation(plan, ((CreateSeqStmt *) parsetree)->sequence);
			plan->wide = true;
			break;
		case T_AlterSeqStmt:
			on_relation(plan, ((AlterSeqStmt *) parsetree)->sequence);
			break;

			/* ---- any kind of object ---- */
		case T_DropStmt:
			plan_drop(plan, (DropStmt *) parsetree);
			break;
		case T_RenameStmt:
			{
				RenameStmt *stmt = (RenameStmt *) parsetree;

				plan_named_object(plan, stmt->renameType, stmt->relation, stmt->object);
				plan->wide |= stmt->renameType != OBJECT_COLUMN && stmt->renameType != OBJECT_TRIGGER;
			}
			break;
		case T_AlterObjectSchemaStmt:
			{
				AlterObjectSchemaStmt *stmt = (AlterObjectSchemaStmt *) parsetree;

				plan_named_object(plan, stmt->objectType, stmt->relation, stmt->object);
				plan->wide = true;
			}
			break;
		case T_AlterObjectDependsStmt:
			{
				AlterObjectDependsStmt *stmt = (AlterObjectDependsStmt *) parsetree;

				plan_named_object(plan, stmt->objectType, stmt->relation, stmt->object);
				plan->wide = true;
			}
			break;
		case T_AlterOwnerStmt:
			{
				AlterOwnerStmt *stmt = (AlterOwnerStmt *) parsetree;

				plan_named_object(plan, stmt->objectType, stmt->relation, stmt->object);
			}
			break;
		case T_CommentStmt:
			plan_named_object(plan, ((CommentStmt *) parsetree)->objtype, NULL, ((CommentStmt *) parsetree)->object);
			break;
		case T_SecLabelStmt:
			plan_named_object(plan, ((SecLabelStmt *) parsetree)->objtype, NULL, ((SecLabelStmt *) parsetree)->object);
			break;
		case T_GrantStmt:
			plan_grant(plan, (GrantStmt *) parsetree);
			break;
		case T_CreateExtensionStmt:
			plan_extension(plan, ((CreateExtensionStmt *) parsetree)->extname);
			break;
		case T_AlterExtensionStmt:
			plan_extension(plan, ((AlterExtensionStmt *) parsetree)->extname);
			break;
		case T_AlterExtensionContentsStmt:
			plan->wide = true;
			if (strcmp(((AlterExtensionContentsStmt *) parsetree)->extname, OWN_EXTENSION) == 0)
				plan->what = DDL_LOCAL;
			break;

			/* ---- types, functions ---- */
		case T_CompositeTypeStmt:
			on_new_relation(plan, ((CompositeTypeStmt *) parsetree)->typevar);
			plan->wide = true;
			break;
		case T_CreateEnumStmt:
			on_new_name(plan, ((CreateEnumStmt *) parsetree)->typeName);
			break;
		case T_CreateRangeStmt:
			on_new_name(plan, ((CreateRangeStmt *) parsetree)->typeName);
			break;
		case T_CreateDomainStmt:
			on_new_name(plan, ((CreateDomainStmt *) parsetree)->domainname);
			break;
		case T_CreateFunctionStmt:
			on_new_name(plan, ((CreateFunctionStmt *) parsetree)->funcname);
			break;
		case T_DefineStmt:
			on_new_name(plan, ((DefineStmt *) parsetree)->defnames);
			break;
		case T_AlterEnumStmt:
			on_type(plan, ((AlterEnumStmt *) parsetree)->typeName);
			break;
		case T_AlterDomainStmt:
			on_type(plan, ((AlterDomainStmt *) parsetree)->typeName);
			break;
		case T_AlterTypeStmt:
			on_type(plan, ((AlterTypeStmt *) parsetree)->typeName);
			break;
		case T_AlterFunctionStmt:
			on_object(plan, ((AlterFunctionStmt *) parsetree)->objtype, (Node *) ((AlterFunctionStmt *) parsetree)->func);
			break;
		case T_AlterStatsStmt:
			on_object(plan, OBJECT_STATISTIC_EXT, (Node *) ((AlterStatsStmt *) parsetree)->defnames);
			break;

			/* ---- never about one table, never temporary ---- */
		case T_CreateSchemaStmt:
		case T_CreatePLangStmt:
		case T_CreateConversionStmt:
		case T_CreateCastStmt:
		case T_CreateOpClassStmt:
		case T_CreateOpFamilyStmt:
		case T_AlterOpFamilyStmt:
		case T_AlterOperatorStmt:
		case T_CreateTransformStmt:
		case T_AlterTSDictionaryStmt:
		case T_AlterTSConfigurationStmt:
		case T_AlterCollationStmt:
		case T_CreateAmStmt:
		case T_CreateEventTrigStmt:
		case T_AlterEventTrigStmt:
		case T_CreatePublicationStmt:
		case T_AlterPublicationStmt:
		case T_CreateFdwStmt:
		case T_AlterFdwStmt:
		case T_CreateForeignServerStmt:
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_DropUserMappingStmt:
		case T_AlterDefaultPrivilegesStmt:
		case T_CreateRoleStmt:
		case T_AlterRoleStmt:
		case T_AlterRoleSetStmt:
		case T_DropRoleStmt:
		case T_GrantRoleStmt:
		case T_ReassignOwnedStmt:
		case T_DropOwnedStmt:
			plan->wide = true;
			break;

		case T_ImportForeignSchemaStmt:
			refuse(plan, "would ask the foreign server on every node anew, and the answers could differ",
				   "Use CREATE FOREIGN TABLE.");
			break;
		default:
			refuse(plan, "is a statement that mgrepl does not know", "Run it where no cluster depends on it.");
	}

	if (plan->what == DDL_REPLICATED && plan->n_here > 0)
	{
		if (plan->n_everywhere > 0)
			refuse(plan, "names objects that only this node has together with replicated ones",
				   "Use one statement for the temporary or unlogged ones and another for the others.");
		else
			plan->what = DDL_LOCAL;
	}
	if (plan->what == DDL_REPLICATED)
	{
		add_key(plan, mgrepl_key_hash_database(), plan->wide ? MG_KEY_UPDATE : MG_KEY_KEY_SHARE);
		mg_keys_normalize(plan->keys, &plan->n_keys);
	}
}

/* ---- capture triggers for new tables ---- */

static void
install_on_new(RangeVar *rv)
{
	Oid			namespace = RangeVarGetCreationNamespace(rv);
	Oid			relid = get_relname_relid(rv->relname, namespace);

	if (OidIsValid(relid))
		(void) mgrepl_capture_install(relid);
}

static bool
makes_tables(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_CreateStmt:
		case T_CreateTableAsStmt:
		case T_CreateSchemaStmt:
		case T_CreateExtensionStmt:
		case T_AlterExtensionStmt:
		case T_AlterTableStmt:
			return true;
		default:
			return false;
	}
}

/* After any statement that may have made a table, on whichever node: from its first row it is captured. */
static void
install_triggers(Node *parsetree)
{
	ListCell   *lc;

	if (!makes_tables(parsetree) || !OidIsValid(get_extension_oid(OWN_EXTENSION, true)))
		return;
	CommandCounterIncrement();
	switch (nodeTag(parsetree))
	{
		case T_CreateStmt:
			install_on_new(((CreateStmt *) parsetree)->relation);
			break;
		case T_CreateTableAsStmt:
			install_on_new(((CreateTableAsStmt *) parsetree)->into->rel);
			break;
		case T_CreateSchemaStmt:
			if (((CreateSchemaStmt *) parsetree)->schemaElts != NIL)
				(void) mgrepl_capture_install_all();
			break;
		case T_CreateExtensionStmt:
		case T_AlterExtensionStmt:
			(void) mgrepl_capture_install_all();
			break;
		case T_AlterTableStmt:
			foreach(lc, ((AlterTableStmt *) parsetree)->cmds)
			{
				AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

				if (cmd->subtype == AT_AttachPartition)
				{
					Oid			relid = RangeVarGetRelid(castNode(PartitionCmd, cmd->def)->name, NoLock, true);

					if (OidIsValid(relid))
						(void) mgrepl_capture_install(relid);
				}
				else if (cmd->subtype == AT_SetLogged)
				{
					Oid			relid = RangeVarGetRelid(((AlterTableStmt *) parsetree)->relation, NoLock, true);

					if (OidIsValid(relid))
						(void) mgrepl_capture_install(relid);
				}
			}
			break;
		default:
			break;
	}
}

/* ---- the hook ---- */

typedef struct Call
{
	PlannedStmt *pstmt;
	const char *query_string;
	bool		read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo params;
	QueryEnvironment *query_env;
	DestReceiver *dest;
	QueryCompletion *qc;
} Call;

static void
call_next(const Call *call)
{
	if (next_hook != NULL)
		next_hook(call->pstmt, call->query_string, call->read_only_tree, call->context,
				  call->params, call->query_env, call->dest, call->qc);
	else
		standard_ProcessUtility(call->pstmt, call->query_string, call->read_only_tree, call->context,
								call->params, call->query_env, call->dest, call->qc);
}

static void
call_with_triggers(const Call *call)
{
	call_next(call);
	install_triggers(call->pstmt->utilityStmt);
}

static void
call_planned(const Call *call, const DdlPlan *plan)
{
	bool		replicate = mgrepl_replicate;

	if (!plan->script)
	{
		call_with_triggers(call);
		return;
	}
	script_depth++;
	if (plan->mute)
		mgrepl_replicate = false;
	PG_TRY();
	{
		call_with_triggers(call);
	}
	PG_FINALLY();
	{
		script_depth--;
		mgrepl_replicate = replicate;
	}
	PG_END_TRY();
}

/* Just this statement's part of what the client sent. */
static char *
statement_text(const Call *call)
{
	const char *start = call->query_string;
	int			len = call->pstmt->stmt_len;

	if (call->pstmt->stmt_location < 0)
		return pstrdup(start);
	start += call->pstmt->stmt_location;
	return len > 0 ? pnstrdup(start, len) : pstrdup(start);
}

static void
require_own_transaction(const Call *call, const char *command)
{
	if (call->context != PROCESS_UTILITY_TOPLEVEL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s inside a function, procedure or DO block cannot be replicated", command),
				 errhint("Run it as a statement of its own.")));
	if (IsInTransactionBlock(true))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s inside a transaction block cannot be replicated", command),
				 errhint("Run it outside a transaction block, and not in one message with other statements.")));
}

/* SESSION_USER would be another one in the applier, which takes the current user's part only. */
static void
require_same_user(const char *sql)
{
	if (GetSessionUserId() != GetUserId() && strcasestr(sql, "session_user") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a statement with SESSION_USER cannot be replicated after SET ROLE"),
				 errhint("Write the role's name out.")));
}

static bool
same_keys(const DdlPlan *a, const DdlPlan *b)
{
	return a->what == b->what && a->n_keys == b->n_keys &&
		memcmp(a->keys, b->keys, a->n_keys * sizeof(mg_key)) == 0;
}

static void
run_replicated(const Call *call, const DdlPlan *plan)
{
	Node	   *parsetree = call->pstmt->utilityStmt;
	char	   *sql = statement_text(call);
	DdlPlan		again = {0};

	require_own_transaction(call, CreateCommandName(parsetree));
	require_same_user(sql);
	mgrepl_commit_require_ready();
	mgrepl_commit_reserve(plan->keys, plan->n_keys);

	/* What was committed while we waited must be seen, whatever the isolation level. */
	AcceptInvalidationMessages();
	PushActiveSnapshot(GetLatestSnapshot());

	/* The names may stand for other objects now, which are not reserved. */
	classify(&again, parsetree, call->query_string);
	if (!same_keys(plan, &again))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to a concurrent change of the schema"),
				 errhint("Try the statement again.")));

	/* A commit record carries the position, also if the statement finds nothing to do. */
	(void) GetTopTransactionId();
	mgrepl_capture_statement(sql);
	for (uint32 i = 0; i < plan->n_keys; i++)
		mgrepl_capture_key(plan->keys[i]);

	call_planned(call, plan);
	PopActiveSnapshot();

	/* In a pipeline: commit now, the next message may be another statement. */
	MyXactFlags |= XACT_FLAGS_NEEDIMMEDIATECOMMIT;
}

static void
run_transaction_statement(const Call *call)
{
	TransactionStmt *stmt = (TransactionStmt *) call->pstmt->utilityStmt;

	if (stmt->kind == TRANS_STMT_PREPARE && mgrepl_in_database() && mgrepl_clustered() && !mgrepl_is_applier)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("PREPARE TRANSACTION is not supported in a replicated database"),
				 errdetail("A prepared transaction keeps its locks, and nothing could take them out of the way of what other nodes commit."),
				 errhint("Use COMMIT.")));
	call_next(call);
	mgrepl_bfabort_after_utility((Node *) stmt);
}

/* Can be shown and changed always: also when it is a setting that keeps the provider from starting. */
static bool
is_about_settings(const Node *parsetree)
{
	return IsA(parsetree, VariableSetStmt) || IsA(parsetree, VariableShowStmt) || IsA(parsetree, AlterSystemStmt);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc)
{
	Call		call = {pstmt, query_string, read_only_tree, context, params, query_env, dest, qc};
	Node	   *parsetree = pstmt->utilityStmt;
	DdlPlan		plan = {0};

	if (IsA(parsetree, TransactionStmt))
	{
		run_transaction_statement(&call);
		return;
	}
	if (IsA(parsetree, CopyStmt))
		mgrepl_reads_check_copy((CopyStmt *) parsetree);
	if (mgrepl_is_applier || context == PROCESS_UTILITY_SUBCOMMAND || script_depth > 0 || !mgrepl_in_database() ||
		is_about_settings(parsetree))
	{
		call_next(&call);
		return;
	}
	if (!mgrepl_clustered() || !mgrepl_replicate)
	{
		call_with_triggers(&call);
		return;
	}

	classify(&plan, parsetree, query_string);
	switch (plan.what)
	{
		case DDL_LOCAL:
			call_planned(&call, &plan);
			break;
		case DDL_REPLICATED:
			run_replicated(&call, &plan);
			break;
		case DDL_REFUSED:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("%s cannot be replicated", CreateCommandName(parsetree)),
					 errdetail("%s %s.", CreateCommandName(parsetree), plan.why),
					 errhint("%s", plan.hint)));
	}
}

void
mgrepl_ddl_install(void)
{
	next_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

/* ---- the statement event: u8 version, role, settings, SQL ---- */

void
mgrepl_ddl_encode(mg_buf *body, const char *sql)
{
	const char *names[SETTINGS_MAX];
	const char *values[SETTINGS_MAX];
	int			n = 0;
	size_t		sql_len = strlen(sql);

	StaticAssertStmt(lengthof(carried_settings) <= SETTINGS_MAX, "an event has room for SETTINGS_MAX settings");
	for (int i = 0; i < lengthof(carried_settings); i++)
	{
		const char *value = GetConfigOption(carried_settings[i], true, false);

		if (value == NULL)
			continue;			/* a version that does not know it */
		if (strlen(value) >= SETTING_BYTES_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the value of \"%s\" is too long to be replicated", carried_settings[i])));
		names[n] = carried_settings[i];
		values[n++] = pstrdup(value);	/* numbers are in a static buffer */
	}

	mg_buf_put_u8(body, STATEMENT_VERSION);
	mg_buf_put_text(body, GetUserNameFromId(GetUserId(), false));
	mg_buf_put_u16(body, (uint16_t) n);
	for (int i = 0; i < n; i++)
	{
		mg_buf_put_text(body, names[i]);
		mg_buf_put_text(body, values[i]);
	}
	mg_buf_put_u32(body, (uint32_t) sql_len);
	mg_buf_put(body, sql, sql_len);
}

typedef struct Statement
{
	char		role[NAMEDATALEN];
	int			n_settings;
	char		names[SETTINGS_MAX][NAMEDATALEN];
	char	   *values[SETTINGS_MAX];
	char	   *sql;
} Statement;

static void
statement_decode(const mg_event *event, Statement *st)
{
	char	   *value = palloc(SETTING_BYTES_MAX);
	mg_reader	r;
	int			version;
	uint32		len;
	const uint8_t *sql;

	mg_reader_init(&r, event->body, event->len);
	version = mg_read_u8(&r);
	if (!r.bad && version != STATEMENT_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a replicated statement has format %d, this node knows %d", version, STATEMENT_VERSION),
				 errhint("All nodes must run the same version of mgrepl.")));
	mg_read_text(&r, st->role, sizeof(st->role));
	st->n_settings = mg_read_u16(&r);
	if (!r.bad && st->n_settings > SETTINGS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a replicated statement carries %d settings, at most %d are possible", st->n_settings, SETTINGS_MAX)));
	for (int i = 0; i < st->n_settings && !r.bad; i++)
	{
		mg_read_text(&r, st->names[i], sizeof(st->names[i]));
		mg_read_text(&r, value, SETTING_BYTES_MAX);
		if (!r.bad)
			st->values[i] = pstrdup(value);
	}
	len = mg_read_u32(&r);
	sql = mg_read_bytes(&r, len);
	if (sql == NULL || !mg_reader_done(&r) || memchr(sql, '\0', len) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a replicated statement could not be decoded")));
	st->sql = pnstrdup((const char *) sql, len);
	pfree(value);
}

/* As an extension's script is run (commands/extension.c), utility statements only. */
static void
run_sql(const char *sql)
{
	ListCell   *lc;

	foreach(lc, pg_parse_query(sql))
	{
		RawStmt    *raw = lfirst_node(RawStmt, lc);
		List	   *plans;
		ListCell   *lc2;

		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(raw, sql, NULL, 0, NULL), sql, 0, NULL);
		PopActiveSnapshot();
		foreach(lc2, plans)
		{
			PlannedStmt *pstmt = lfirst_node(PlannedStmt, lc2);

			if (pstmt->utilityStmt == NULL || IsA(pstmt->utilityStmt, TransactionStmt))
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("a replicated statement is not one that can be replicated")));
			CommandCounterIncrement();
			PushActiveSnapshot(GetTransactionSnapshot());
			ProcessUtility(pstmt, sql, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
			PopActiveSnapshot();
			install_triggers(pstmt->utilityStmt);
		}
	}
	CommandCounterIncrement();
}

static void
apply_error_context(void *arg)
{
	errcontext("statement replicated from another node");
}

/*
 * User and settings are put back at the end; after an error the end of the
 * (sub)transaction does it.  session_replication_role stays replica: what the
 * origin's triggers have changed comes as rows.
 */
void
mgrepl_ddl_apply(const mg_event *event)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mgrepl statement", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer_context = MemoryContextSwitchTo(context);
	ErrorContextCallback callback = {.previous = error_context_stack,.callback = apply_error_context};
	Statement  *st = palloc0(sizeof(Statement));
	Oid			role;
	Oid			outer_role;
	int			outer_sec;
	int			guc_level;

	error_context_stack = &callback;
	statement_decode(event, st);
	role = get_role_oid(st->role, true);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("role \"%s\" of a replicated statement does not exist on this node", st->role),
				 errhint("Roles must be the same on every node.")));

	guc_level = NewGUCNestLevel();
	for (int i = 0; i < st->n_settings; i++)
		if (GetConfigOption(st->names[i], true, false) != NULL)
			(void) set_config_option(st->names[i], st->values[i], PGC_SUSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&outer_role, &outer_sec);
	SetUserIdAndSecContext(role, outer_sec);

	run_sql(st->sql);

	SetUserIdAndSecContext(outer_role, outer_sec);
	AtEOXact_GUC(true, guc_level);
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(outer_context);
	MemoryContextDelete(context);
}
