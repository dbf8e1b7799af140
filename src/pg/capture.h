/*
 * pg/capture.h - the rows that a transaction changes, and their keys.
 *
 * One open writeset per backend, begun by the first captured change of a
 * transaction.  Rows arrive from an internal AFTER ROW trigger
 * (mgrepl.capture_row) in PostgreSQL's own logical replication encoding
 * (binary where the type can); they leave ordered by command id.  Rolled-back
 * savepoints' events leave the writeset.  Above mgrepl.capture_mem events go
 * to a temporary file.  Keys stay in memory: 8 bytes each.
 *
 * Nothing here touches shared memory except to ask for the node's state.
 */
#ifndef MGREPL_CAPTURE_H
#define MGREPL_CAPTURE_H

#include "postgres.h"
#include "access/xact.h"
#include "utils/relcache.h"

#include "core/writeset.h"

/* True if the present transaction has something to replicate. */
extern bool mgrepl_capture_pending(void);

/* True if a captured INSERT may have advanced a sequence: the backend must flush its WAL before it is told "committed". */
extern bool mgrepl_capture_used_sequence(void);

/*
 * A statement to run on every node, in its place among the rows; with the
 * environment that it needs (search_path, role, and settings that change what
 * DDL does).  Called by pg/ddl.c.
 */
extern void mgrepl_capture_statement(const char *sql);

/* A key beyond those of the rows. */
extern void mgrepl_capture_key(mg_key key);

/* Branch keys: the database, and a table by its qualified name. */
extern uint64 mgrepl_key_hash_database(void);
extern uint64 mgrepl_key_hash_table(const char *schema, const char *table);

/*
 * Closes the writeset: events in order, keys normalized, its size known.
 * ERROR 54000 with a hint if it is over mgrepl.max_ws_size.  Returns total_len.
 */
extern uint32 mgrepl_capture_close(void);

/*
 * Writes the closed writeset with these header fields: into `to` (total_len
 * bytes), or with to == NULL into the file `path` (created, not synced).
 * `flags` is or-ed with what capture knows itself (MG_WS_STATEMENT).
 */
extern void mgrepl_capture_emit(mg_seqno last_seen, uint64 trx_id, uint16 flags,
								char *to, const char *path);

/* End of the transaction, either way: forget everything.  Neither fails nor allocates. */
extern void mgrepl_capture_reset(void);

/* From the one subtransaction callback. */
extern void mgrepl_capture_subxact(SubXactEvent event, SubTransactionId my, SubTransactionId parent);

/*
 * Gives the table its capture trigger if it should have one (an ordinary
 * table, permanent, not in a system schema, not the extension's own) and has
 * none.  Returns true if it made one.  Caller holds a lock that allows it.
 */
extern bool mgrepl_capture_install(Oid relid);

/* Every table of this database; used by CREATE EXTENSION.  Returns how many. */
extern int	mgrepl_capture_install_all(void);

/* How many tables lack theirs; keeps no locks. */
extern int	mgrepl_capture_missing(void);

#endif							/* MGREPL_CAPTURE_H */
