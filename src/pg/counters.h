/*
 * pg/counters.h - the node's counters: one list of names and descriptions,
 * shown by the view mgrepl.status.  Anybody may add to one at any time.
 */
#ifndef MGREPL_COUNTERS_H
#define MGREPL_COUNTERS_H

#include "pg/shmem.h"

/* X(symbol, name, description) */
#define MGREPL_COUNTERS(X) \
	X(LOCAL_COMMITS, "local_commits", "transactions of this node's clients that were certified and committed") \
	X(LOCAL_CERT_FAILURES, "local_cert_failures", "transactions of this node's clients that lost certification (40001)") \
	X(LOCAL_BF_ABORTS, "local_bf_aborts", "transactions of this node's clients rolled back to let a certified one pass (40001)") \
	X(LOCAL_REPLAYS, "local_replays", "own certified transactions that an applier had to apply") \
	X(APPLIED, "applied", "writesets of other nodes applied here") \
	X(APPLY_GROUPS, "apply_groups", "local transactions in which they were applied") \
	X(APPLY_RETRIES, "apply_retries", "groups that were rolled back and applied again") \
	X(APPLY_WAITS, "apply_waits", "times that an applier waited for an earlier writeset to be committed") \
	X(RESOLVER_CALLS, "resolver_calls", "times that a blocked applier called the resolver") \
	X(REPLICATED_BYTES, "replicated_bytes", "bytes of writesets sent by this node") \
	X(RECEIVED_BYTES, "received_bytes", "bytes of writesets received from other nodes") \
	X(FRAMES_SENT, "frames_sent", "network frames sent") \
	X(FRAMES_RECEIVED, "frames_received", "network frames received") \
	X(FRAMES_DAMAGED, "frames_damaged", "frames refused because their bytes were damaged or not understood") \
	X(FRAMES_DROPPED, "frames_dropped", "frames not sent because a peer's queue was full") \
	X(LOG_FLUSHES, "log_flushes", "flushes of the writeset log") \
	X(LOG_BYTES, "log_bytes", "size of the writeset log on disk") \
	X(LOG_FIRST, "log_first", "seqno with which the writeset log begins; 0: it is empty") \
	X(LOG_DROPPED, "log_dropped", "highest seqno that left the log at its hard limit although others might have needed it; 0: none") \
	X(GCACHE_FROZEN_AT, "gcache_frozen_at", "nothing from this seqno on leaves the log, up to its hard limit; 0: not frozen") \
	X(GCACHE_MEM_HITS, "gcache_mem_hits", "records of the log read from memory") \
	X(GCACHE_MEM_MISSES, "gcache_mem_misses", "records of the log looked for in memory and read from the file") \
	X(PROVIDER_LOOPS, "provider_loops", "rounds of the provider's event loop") \
	X(TIME_SUBMIT_US, "time_submit_us", "microseconds from submission to the provider's pick-up, summed over local transactions") \
	X(TIME_ORDER_US, "time_order_us", "microseconds from pick-up to the verdict, summed over local transactions") \
	X(TIME_TURN_US, "time_turn_us", "microseconds from the verdict to the transaction's turn, summed over local transactions") \
	X(TIME_COMMIT_US, "time_commit_us", "microseconds from the turn to the local commit, summed over local transactions")

typedef enum MgCounter
{
#define X(symbol, name, description) MG_COUNTER_##symbol,
	MGREPL_COUNTERS(X)
#undef X
	MG_COUNTER_COUNT
} MgCounter;

static inline void
mgrepl_count(MgCounter counter, uint64 n)
{
	pg_atomic_fetch_add_u64(&mgrepl_shared->counters[counter], n);
}

#endif							/* MGREPL_COUNTERS_H */
