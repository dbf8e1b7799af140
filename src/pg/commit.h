/*
 * pg/commit.h - a transaction's way through the cluster at COMMIT, and the
 * order in which transactions become visible here.
 *
 * The one transaction callback of the project is in commit.c.
 */
#ifndef MGREPL_COMMIT_H
#define MGREPL_COMMIT_H

#include "postgres.h"

#include "core/writeset.h"
#include "pg/shmem.h"

extern void mgrepl_commit_install(void);	/* from _PG_init: callbacks */

/*
 * ERROR 57P03/55000 with a hint unless this node may take writes now; quick
 * return when the data belongs to no cluster.  Called by capture for the
 * first change of a transaction, and by ddl.
 */
extern void mgrepl_commit_require_ready(void);

/*
 * Reserves these keys for this transaction all over the cluster, and returns
 * once every earlier writeset is committed here.  Released by this
 * transaction's own writeset, or by its abort.  ERROR 40001 if another member
 * holds one of them.  Used by ddl.
 */
extern void mgrepl_commit_reserve(const mg_key *keys, uint32 n);

/*
 * Sends a writeset of one MESSAGE event (pg/mark.h) and waits for its turn, in
 * which `at_turn` is called: everything below its seqno is committed and visible
 * here then, and nothing above can become so.  Returns the seqno; raises as a
 * COMMIT does.  Nothing of it is part of the caller's transaction.
 */
extern uint64 mgrepl_commit_message(const void *body, uint32 len, void (*at_turn) (uint64 seqno));

/* True in an applier, whose changes are not to be captured again. */
extern bool mgrepl_is_applier;

/* In an applier: its entry in the monitor; else NULL. */
extern MgApplier *mgrepl_applier;

/*
 * In an applier that waits for others: ERROR 40001 (retryable) if a lower seqno
 * has nobody to commit it because every applier is ahead of it; the group goes
 * back, the lower seqno comes first.
 */
extern void mgrepl_commit_check_step_back(void);

/*
 * In an applier: the transaction that is open now applies the seqnos from
 * `first` to `last`; its commit waits for the turn of `first` and passes on
 * that of `last`.
 */
extern void mgrepl_commit_as_applier(uint64 first, uint64 last);

/* Seqno of this backend's transaction between its verdict and its commit, else 0. */
extern uint64 mgrepl_commit_certified(void);

/* ---- order of commits (pg/order.c) ---- */
extern uint64 mgrepl_order_committed(void);

/*
 * An applier takes the next group: up to `max` entries of kind REMOTE whose
 * seqnos follow one another.  Copies them to `out`; 0 if there is nothing to do.
 */
extern int	mgrepl_order_claim(MgOrderEntry *out, int max, int applier);

/* True when all seqnos below are committed; otherwise notes the caller as the one to wake. */
extern bool mgrepl_order_is_turn(uint64 seqno, int my_procno);

/* After the commit became visible: seqnos up to `seqno` are done; wakes whoever is next. */
extern void mgrepl_order_leave(uint64 seqno);

/* The applier could not finish its group: back with what it had claimed; somebody takes it. */
extern void mgrepl_order_unclaim(uint64 first, uint64 last);

/* The applier's group is committed. */
extern void mgrepl_order_done(int applier);

/* The applier sleeps until all up to `seqno` are committed here; false if they are. */
extern bool mgrepl_order_must_wait(uint64 seqno, int applier);

/* After an error in the middle of such a wait. */
extern void mgrepl_order_stop_waiting(int applier);

/* The applier has nothing to do; true if there is something after all. */
extern bool mgrepl_order_idle(int applier);

/* The backend cannot commit its certified transaction: an applier takes it over at its place. */
extern void mgrepl_order_replay(uint64 seqno);

/* By the provider: the next entry in seqno order; false if the ring is full. */
extern bool mgrepl_order_publish(const MgOrderEntry *entry);

/* By the provider after publishing: wakes appliers and owners that can go on. */
extern void mgrepl_order_wake(void);

/* By the provider: `what` is so for all up to `seqno`.  Wakes who waits for that. */
extern void mgrepl_order_set_reached(MgReached what, uint64 seqno);

/* Is `what` so for all up to `seqno`?  If not, the caller is woken when it is. */
extern bool mgrepl_order_wait_reached(MgReached what, uint64 seqno);

/* The caller does not wait for `what` any longer. */
extern void mgrepl_order_stop_wait_reached(MgReached what);

/*
 * For people: which seqno is to be committed next, and who has not done so yet.
 * False if all that was delivered is committed.
 */
extern bool mgrepl_order_next(uint64 *seqno, char *text, size_t cap);

/* By the provider at start: everything up to `seqno` is committed here. */
extern void mgrepl_order_reset(uint64 seqno);

#endif							/* MGREPL_COMMIT_H */
