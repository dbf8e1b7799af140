/*
 * pg/position.h - which seqno this node's data stands at, exactly, after any crash.
 *
 * The replication origin "mgrepl_<cluster uuid>" carries it: PostgreSQL writes
 * the origin's LSN (here: the seqno) into the commit record itself, restores it
 * in recovery, saves it at checkpoints and copies it in base backups.  Because
 * commits are ordered, the one origin is taken inside the turn and given back
 * when the turn is passed on (docs/decisions/0001).
 */
#ifndef MGREPL_POSITION_H
#define MGREPL_POSITION_H

#include "postgres.h"

#include "core/base.h"

/*
 * Reads the origins; false if this data belongs to no cluster.  Needs a
 * transaction.  Sets mgrepl_shared->origin_id.  ERROR if there is more than one.
 */
extern bool mgrepl_position_read(mg_gtid *gtid);

/*
 * No transaction of the data is of a higher epoch; 0: not known.  Needs a
 * transaction.  A second origin, "mgrepl_epoch_<cluster uuid>", carries it: a copy
 * of the data, which has no log, could not say otherwise of which of two
 * histories its transactions are, after a forced bootstrap.
 */
extern uint64 mgrepl_position_epoch(const mg_uuid *uuid);

/*
 * Before the first transaction of this epoch may commit; in no transaction.  WAL
 * has it before them, so whatever survives of them has it too.
 */
extern void mgrepl_position_note_epoch(const mg_uuid *uuid, uint64 epoch);

/* Makes the origin for a new cluster (commits with the caller's transaction). */
extern void mgrepl_position_create(const mg_uuid *uuid);

/*
 * Inside the turn, before the commit record: takes the origin and sets its
 * position to `seqno`.  ERROR (nothing changed) if the session follows a
 * replication origin of its own.
 */
extern void mgrepl_position_enter(mg_seqno seqno);

/* After the commit or the abort: gives the origin back.  Does nothing if not entered. */
extern void mgrepl_position_leave(void);

/* "uuid:seqno" in this node's cluster; NULL outside of one. */
extern char *mgrepl_position_text(mg_seqno seqno);

#endif							/* MGREPL_POSITION_H */
