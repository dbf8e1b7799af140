/*
 * pg/apply.h - writesets of other nodes become row changes here.
 *
 * Runs in an applier, or in a backend that replays its own writeset, inside
 * an open transaction and under session_replication_role = replica.  Rows go
 * through the entry points that logical replication's apply uses
 * (ExecSimpleRelationInsert, Update, Delete).  A row is found by its replica
 * identity; local transactions that hold it are cleared away at once
 * (pg/bfabort.h) instead of being waited for.
 *
 * Locks mirror keys: an inserted or changed foreign key locks the referenced
 * row FOR KEY SHARE as the referential-integrity trigger does, so that a local
 * transaction about to delete it is found and cleared away.
 */
#ifndef MGREPL_APPLY_H
#define MGREPL_APPLY_H

#include "postgres.h"

#include "core/writeset.h"

/* Once per process: caches and their invalidation. */
extern void mgrepl_apply_init(void);

/*
 * Applies all events.  Any error is raised: a row that is not there, a table
 * that differs, bytes that cannot be decoded, are ERRCODE_DATA_CORRUPTED with
 * the table and the key in the message (the caller decides that the node is
 * inconsistent); deadlock and serialization errors are for the caller to retry.
 * Leaves with CommandCounterIncrement done.
 */
extern void mgrepl_apply_writeset(const mg_writeset *ws, mg_seqno seqno);

/*
 * End of a transaction.  Before a commit (PRE_COMMIT or just before
 * CommitTransactionCommand): closes relations and executor state; locks stay.
 * After an abort: forgets them, touches nothing, and neither fails nor allocates.
 * Both calls come with the transaction's own resource owner, outside of any
 * subtransaction.
 */
extern void mgrepl_apply_transaction_end(bool is_commit);

#endif							/* MGREPL_APPLY_H */
