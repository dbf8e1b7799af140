/*
 * pg/mark.h - a named point that is at the same seqno in every node's WAL.
 *
 * mgrepl.mark('name') takes a place in the order, as a transaction does.  In the
 * turn of that place each node writes, before anything of a later seqno:
 *	 - a record that sets its position to the seqno before it, exactly;
 *	 - PostgreSQL's own restore point with that name.
 * So recovery of any node's base backup from any archive with
 * recovery_target_name stops at the same data and the same mgrepl.gtid().
 *
 * A node that crashes between the two, or right behind them, stands at the seqno
 * before the mark and writes it once more: a name may be there twice, with
 * nothing in between.
 *
 * In an applier a mark begins a local transaction: what its group has applied
 * before must be committed first (bgworkers/applier.c).
 */
#ifndef MGREPL_MARK_H
#define MGREPL_MARK_H

#include "postgres.h"

#include "core/writeset.h"

/* The first byte of a MESSAGE event's body. */
#define MG_MESSAGE_MARK		1		/* text name */
#define MG_MESSAGE_PLACE	2		/* nothing: only its sender has something to do there (pg/dump.h) */

/* Is the writeset a mark, or another message?  Then it is nothing else. */
extern bool mgrepl_mark_is(const mg_writeset *ws);

/* Applier: the transaction that is open now begins with this mark.  ERROR if it cannot be decoded. */
extern void mgrepl_mark_note(const mg_event *event);

/* With the turn of `seqno`, before the commit record: writes the mark that was noted, if one was. */
extern void mgrepl_mark_at_turn(mg_seqno seqno);

/* The transaction ends.  Neither allocates nor fails. */
extern void mgrepl_mark_forget(void);

#endif							/* MGREPL_MARK_H */
