/*
 * pg/bfabort.h - brute-force abort: a local transaction that is not certified
 * and holds a lock that a certified one needs is rolled back at once; its
 * connection stays and its client is told 40001.
 *
 * Who: an applier that meets the row (mgrepl_bfabort_xid), or the resolver
 * when an applier's timer found it waiting for a lock (mgrepl_bfabort_resolve).
 *
 * How, by what the victim is doing:
 *	 running or waiting for a lock   query cancel, its code rewritten to 40001
 *	 idle in transaction             rolled back in place by its own backend, in
 *	                                 the relcache callback that a catch-up
 *	                                 interrupt makes it run; the next statement
 *	                                 or COMMIT reports 40001
 *	 submitted, waiting for verdict  left alone: the verdict decides (it fails if the keys conflict)
 *	 certified with a higher seqno   told to give its place to an applier (replay)
 *	 certified with a lower seqno    left alone: it commits first
 *	 deaf to all that for 5 s        its connection is ended: the client stalls in
 *	                                 COPY, or between the messages of an implicit
 *	                                 transaction, where PostgreSQL hears no cancel
 *
 * An autovacuum worker is cancelled as PostgreSQL does it, unless it prevents
 * wraparound; mgrepl's own processes never are, except an applier that works on
 * a higher seqno: its statement is cancelled and it applies its group again.
 *
 * Limit: the rewriting of error codes rides on emit_log_hook, which PostgreSQL
 * calls only for what it would log: with log_min_messages above ERROR the
 * client sees 57014 and 25P02 instead.  A warning at start says so.
 */
#ifndef MGREPL_BFABORT_H
#define MGREPL_BFABORT_H

#include "postgres.h"

#include "nodes/nodes.h"

#include "core/base.h"

/* From _PG_init: emit_log_hook and the relcache callback, which backends inherit. */
extern void mgrepl_bfabort_install(void);

/* Asks for the transaction of backend `procno` to make way for `seqno`.  Idempotent. */
extern void mgrepl_bfabort_victim(int procno, mg_seqno seqno);

/*
 * The same for whoever runs `xid` (top-level or sub).  False if nobody here
 * does any longer, or it is a prepared transaction, or another applier.
 */
extern bool mgrepl_bfabort_xid(TransactionId xid, mg_seqno seqno);

/*
 * In the resolver: the applier with this pid, working on `seqno`, is blocked;
 * finds all who hold it up (GetBlockerStatusData, transitively not needed)
 * and deals with each.  Returns how many were dealt with.  Leaves garbage in
 * the current memory context.
 */
extern int	mgrepl_bfabort_resolve(int applier_pid, mg_seqno seqno);

/*
 * Is the present transaction of this backend doomed?  False while its writeset
 * is submitted and has no verdict; after a passing one, true only if a lower
 * seqno needs its way free: then it gives its place to an applier.
 */
extern bool mgrepl_bfabort_doomed(void);

/* ERROR 40001 if it is and was not certified; called before a commit is submitted and while it waits. */
extern void mgrepl_bfabort_check(void);

/*
 * Right after the slot became SUBMITTED: forgets a cancel that was sent on the
 * strength of what the slot said before; from here on nobody sends one.  `final`:
 * it is the transaction's own writeset, not a reservation, so that no error of
 * this transaction may be turned into "rolled back" any longer.
 */
extern void mgrepl_bfabort_submitted(bool final);

/*
 * After each utility statement, from the one ProcessUtility hook: ERROR 40001
 * if it was the COMMIT of a transaction that was rolled back in place, which
 * PostgreSQL would answer with a mere ROLLBACK.
 */
extern void mgrepl_bfabort_after_utility(Node *parsetree);

/*
 * From the transaction callback on COMMIT, ABORT and PREPARE: nothing asked of
 * this transaction may hit the next one.  Neither allocates nor fails; waits for
 * whoever is just sending a signal (microseconds).
 */
extern void mgrepl_bfabort_xact_end(bool is_commit);

#endif							/* MGREPL_BFABORT_H */
