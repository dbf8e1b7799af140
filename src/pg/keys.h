/*
 * pg/keys.h - the certification keys of a changed row.
 *
 * A key is a hash of (table, unique index, values) with a strength.  Values
 * are hashed by their type's own extended hash function under the index's
 * collation, so what the index calls equal hashes equally, on every node and
 * from both ends of a foreign key.  Everything that enters a hash is a name or
 * a value, never an OID.  A partition's rows count as rows of the topmost
 * table and index.
 *
 *	 INSERT                     UPDATE on each unique index
 *	 DELETE                     UPDATE on each unique index
 *	 UPDATE, no unique value    NO KEY UPDATE on the row's identity
 *	 UPDATE, a unique value     UPDATE on the old and new values; as for
 *	                            PostgreSQL's row lock, on all of the row's keys
 *	 foreign key set or changed KEY SHARE on the referenced row
 *	 exclusion constraint       UPDATE on the whole constraint (KEY SHARE by a DELETE)
 *
 * A unique index whose equality is not its types' own hashable one is one key
 * as a whole: coarser, never unsound.
 */
#ifndef MGREPL_KEYS_H
#define MGREPL_KEYS_H

#include "postgres.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"

#include "pg/relation.h"

typedef struct MgRelKeys MgRelKeys;

/* Describes the table's keys, in the current memory context; part of mgrepl_relation_get. */
extern MgRelKeys *mgrepl_keys_build(MgRelInfo *info, Relation rel);

/* The branch keys of the table: the database, it, its ancestors, the tables that it references. */
extern void mgrepl_keys_branches(const MgRelKeys *keys);

/* The keys of one changed row, given to mgrepl_capture_key. */
extern void mgrepl_keys_insert(MgRelKeys *keys, TupleTableSlot *new);
extern void mgrepl_keys_update(MgRelKeys *keys, Relation rel, TupleTableSlot *old, TupleTableSlot *new);
extern void mgrepl_keys_delete(MgRelKeys *keys, TupleTableSlot *old);

/* Does this column hold the very same bytes in both rows? */
extern bool mgrepl_keys_same(Relation rel, AttrNumber attnum, TupleTableSlot *old, TupleTableSlot *new);

#endif							/* MGREPL_KEYS_H */
