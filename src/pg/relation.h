/*
 * pg/relation.h - what capture must know about a table, looked up once per
 * backend and table.
 *
 * An MgRelInfo is found by the table's OID and is rebuilt when PostgreSQL
 * invalidates the table or anything else that went into it: its indexes, its
 * partition ancestors, the tables that it references, the schemas and types
 * whose names it uses.  A stale one is only marked; what it points to lives on
 * until the open writeset ends, so nothing vanishes in the middle of a row.
 *
 * Owner: the backend.  No locks; the caller has the table open and locked.
 */
#ifndef MGREPL_RELATION_H
#define MGREPL_RELATION_H

#include "postgres.h"
#include "access/attnum.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"

/* How a row of another node is found: what UPDATE and DELETE must send of the old row. */
typedef enum MgIdentity
{
	MG_IDENTITY_NONE = 0,		/* no way: UPDATE and DELETE are refused */
	MG_IDENTITY_INDEX,			/* the columns of the primary key or REPLICA IDENTITY index */
	MG_IDENTITY_FULL			/* REPLICA IDENTITY FULL: all columns */
} MgIdentity;

/* How column values travel, the same for all columns of a table. */
typedef enum MgForm
{
	MG_FORM_BINARY = 0,			/* no type's binary form holds an OID of this node */
	MG_FORM_TEXT,				/* some type's does, or is not PostgreSQL's own */
	MG_FORM_TEXT_QUALIFIED		/* and its text names objects: search_path must not matter */
} MgForm;

/* What a cached description was made from, beside the table itself. */
typedef enum MgDependKind
{
	MG_DEPEND_RELATION = 1,		/* value: OID */
	MG_DEPEND_NAMESPACE,		/* value: hash value in the system cache */
	MG_DEPEND_TYPE				/* value: hash value in the system cache */
} MgDependKind;

typedef struct MgDepend
{
	uint32		kind;			/* MgDependKind */
	uint32		value;
} MgDepend;

struct MgRelKeys;

typedef struct MgRelInfo
{
	Oid			relid;			/* hash key, must be first */
	bool		valid;
	MemoryContext cxt;			/* holds all that is pointed to below */

	char	   *schema;
	char	   *name;
	uint64		fingerprint;	/* mgrepl_relation_fingerprint */
	MgForm		form;

	MgIdentity	identity;
	int			n_identity;		/* for MG_IDENTITY_INDEX */
	AttrNumber *identity_columns;

	int			n_toastable;	/* columns that may be stored out of line */
	AttrNumber *toastable;

	bool		uses_sequence;	/* an INSERT may advance a sequence */
	TupleTableSlot *old_slot;	/* for rows that are not sent as they were found */
	TupleTableSlot *new_slot;

	struct MgRelKeys *keys;		/* pg/keys.h */

	int			n_depends;
	int			cap_depends;
	MgDepend   *depends;

	uint64		announced;		/* number of the writeset that holds its RELATION event, 0 none */
} MgRelInfo;

/*
 * The open writeset, as far as caches need to know it (set by capture.c): its
 * number, unique in this backend, and the memory that ends with it.
 */
extern uint64 mgrepl_writeset_number;
extern MemoryContext mgrepl_writeset_cxt;

/*
 * Equal on two nodes iff the live, not generated columns in attribute order
 * have the same names and the same schema-qualified type names: then columns
 * can be mapped by position.
 */
extern uint64 mgrepl_relation_fingerprint(Relation rel);

/* regclass and its kin: an OID of this node, written as a name. */
extern bool mgrepl_type_is_reg(Oid typid);

/* The description; valid to use until the next call for the same table. */
extern MgRelInfo *mgrepl_relation_get(Relation rel);

/* While a description is being built: it is stale when this changes. */
extern void mgrepl_relation_depend(MgRelInfo *info, MgDependKind kind, uint32 value);
extern void mgrepl_relation_depend_namespace(MgRelInfo *info, Oid nspid);

/* The writeset has ended: frees what is stale.  Neither fails nor allocates. */
extern void mgrepl_relation_sweep(void);

#endif							/* MGREPL_RELATION_H */
