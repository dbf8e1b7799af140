/*
 * pg/donor.h - a node that gives its data to a joiner, or is told not to hold the
 * others up.
 *
 * A donation is a session that has called mgrepl.donate('<joiner>'): as long as
 * it lives this node is DONOR, and its writeset log keeps what the joiner will
 * ask for when it has the copy.  The session is the lease: whoever dies, it ends,
 * and with the last one the node is SYNCED again.  The copy itself is made by
 * others (pg_basebackup, or a script) and is none of this file's business.
 *
 * When the session has ended the log is kept (a pin) for the time that a joiner
 * needs to restart: until a member of its name is synced, at most MG_PIN_GRACE_S.
 *
 * mgrepl.desync(true) is the operator's switch for the same state, without a
 * joiner and without a pin; it holds until desync(false) or the server's restart.
 *
 * Limits: MGREPL_DONATIONS_MAX sessions at once (53400 beyond); as many pins, the
 * oldest one whose session is gone gives way.
 */
#ifndef MGREPL_DONOR_H
#define MGREPL_DONOR_H

#include "postgres.h"

#include "core/base.h"
#include "pg/shmem.h"

#define MG_PIN_GRACE_S	300

extern void mgrepl_donor_shmem_init(void);	/* by shmem.c, in the postmaster */

/* ---- for the provider ---- */

/*
 * Should this node be DONOR?  Also gives the number of the last change, for
 * mgrepl_donor_acts: what the provider does from there on knows of it.
 */
extern bool mgrepl_donor_wanted(uint32 *change);
extern void mgrepl_donor_acts(uint32 change);

/* The writeset log is needed from behind this seqno; MG_SEQNO_NONE_PINNED: nothing is. */
#define MG_SEQNO_NONE_PINNED UINT64_MAX
extern mg_seqno mgrepl_donor_pin(void);

/* This node's data differs from the cluster's: nobody may go on copying it. */
extern void mgrepl_donor_end_all(void);

/* A member is synced: if it is the joiner, it has what it needs. */
extern void mgrepl_donor_joined(uint32 member, const char *name);

/* ---- for everybody ---- */

/* mgrepl.donor_rejects_queries is on, there is a donation, and this is an ordinary client's session. */
extern bool mgrepl_donor_rejects(void);

/* Is this session a donor's, one that has called mgrepl.donate()? */
extern bool mgrepl_donor_is_me(void);

/* Raises that: 57P03. */
extern void mgrepl_donor_refuse(const char *what) pg_attribute_noreturn();

/* Why this node is desynced, for people; NULL: it is not. */
extern char *mgrepl_donor_why(void);

#endif							/* MGREPL_DONOR_H */
