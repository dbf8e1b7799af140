/*
 * core/cert.h - certification: may this writeset commit, and what must be
 * applied before it?
 *
 * Keeps an index of the keys of the passed writesets above the floor.  The
 * verdict is a function of the delivered prefix alone (P2): every input is in
 * the order.  A writeset fails if an earlier passed writeset *of another
 * member* with seqno in (last_seen, seqno) holds a conflicting key, or if
 * another member holds a reservation on a conflicting key, or if last_seen is
 * below the floor.  Between writesets of one member the local locks have
 * decided already: a common key is a dependency for apply only.
 * (First-committer-wins certification as in Kemme and Alonso 2000 and Pedone
 * et al. 2003, with the row-lock strengths of PostgreSQL.)
 *
 * Reservations: a passed writeset with MG_WS_RESERVE holds its keys for
 * (origin, trx_id) until a writeset of the same two with MG_WS_RELEASE is seen,
 * whatever that one's verdict, or until the member leaves.  It is not tested
 * against earlier writesets (its holder waits until they are committed) and
 * does not enter the key index.  Members other than the holder fail on these
 * keys with MG_VERDICT_RESERVED; the holder's own writesets are not hindered.
 *
 * What the floor must respect: a member that holds a reservation reports a
 * minimum below the reservation's seqno, so that every open reservation lies
 * above the floor.  Then an index rebuilt from the floor on
 * (mg_cert_new(floor), then every seqno in order, floors and departures
 * included) gives the same verdicts as one that has seen everything.
 *
 * Owner: one; no locks.  Calls must come in ascending, dense seqno order; for
 * each entry of the order its floor first, then the entry.
 * Memory: 8 bytes per key above the floor plus 32 bytes per slot of a table
 * that is at most two thirds full with distinct (hash, strength), and shrinks
 * when it is nearly empty; nothing is dropped before the floor passes it.
 */
#ifndef MG_CORE_CERT_H
#define MG_CORE_CERT_H

#include "core/base.h"
#include "core/writeset.h"

typedef struct mg_cert mg_cert;

/* Whose writeset: writesets of one member never conflict, whatever its life; a reservation is of one life. */
typedef struct mg_cert_origin
{
	mg_member_id member;
	uint32_t	life;
} mg_cert_origin;

typedef enum mg_verdict
{
	MG_VERDICT_NONE = 0,
	MG_VERDICT_PASS,
	MG_VERDICT_CONFLICT,		/* a key written by another member since last_seen */
	MG_VERDICT_RESERVED,		/* a key that another member has reserved */
	MG_VERDICT_TOO_OLD			/* last_seen below the floor, or (another history) not below seqno */
} mg_verdict;

extern const char *mg_verdict_name(mg_verdict verdict);

typedef struct mg_cert_result
{
	mg_verdict	verdict;
	mg_seqno	depends;		/* on PASS: all up to here must be committed before this is applied; else 0 */
	mg_seqno	against;		/* otherwise: the highest seqno in the way, 0 if unknown; on PASS 0 */
} mg_cert_result;

/*
 * An empty index that has seen everything up to `base` (0 for a new cluster):
 * the first writeset is base + 1, the floor is base.
 */
extern mg_cert *mg_cert_new(mg_seqno base);
extern void mg_cert_free(mg_cert *cert);

/*
 * Tests the writeset at `seqno`, and on PASS puts its keys (or its
 * reservation) into the index.  `depends` counts every member's writesets with
 * a conflicting key, and is never below the floor.
 */
extern mg_cert_result mg_cert_certify(mg_cert *cert, mg_seqno seqno, mg_cert_origin origin,
									  const mg_writeset *ws);

/*
 * For rebuilding: the verdict at `seqno` is known from the order itself
 * (core/wire.h: stamps).  The keys of a passed one are put into the index
 * without a test; `ws` may be NULL for one that is no writeset, or that failed
 * and has no MG_WS_RELEASE: a release counts also when its writeset failed.
 */
extern void mg_cert_insert_known(mg_cert *cert, mg_seqno seqno, mg_cert_origin origin,
								 const mg_writeset *ws, bool passed);

/* A seqno that is no writeset (a view, a no-op). */
extern void mg_cert_skip(mg_cert *cert, mg_seqno seqno);

/*
 * Everything up to `floor` can no longer be above anyone's last_seen: forget
 * it.  A floor below the present one is ignored, one above the last seqno
 * counts as the last seqno.  Amortized O(1) per key.
 */
extern void mg_cert_set_floor(mg_cert *cert, mg_seqno floor);

/*
 * A view: the reservations of all who are not in it end, and those of members
 * that are in another life now, which knows nothing of them.  (Not only of who
 * left or came back just now: a view can name a new life that an earlier one
 * began, which was lost with its leader; after a bootstrap the view before may
 * have been quite another.)
 */
extern void mg_cert_keep_members(mg_cert *cert, const mg_cert_origin *members, uint32_t n);

/* For tests and status. */
extern size_t mg_cert_key_count(const mg_cert *cert);	/* distinct (hash, strength) above the floor */
extern size_t mg_cert_reserved_count(const mg_cert *cert);	/* keys under reservation */
extern mg_seqno mg_cert_floor(const mg_cert *cert);
extern mg_seqno mg_cert_last(const mg_cert *cert);

#endif							/* MG_CORE_CERT_H */
