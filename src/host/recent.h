/*
 * host/recent.h - the newest records of the writeset log in memory (the memory
 * store of the gcache): who reads one soon after it was written takes it from
 * here instead of from its file.
 *
 * A block of memory that several processes may share.  One process puts, any
 * number get, without locks.  A record that is asked for may have been pushed
 * out by newer ones, or never have been put: then it is read from the log.  What
 * is got is the record at exactly the asked place.
 */
#ifndef MG_HOST_RECENT_H
#define MG_HOST_RECENT_H

#include "core/base.h"

struct mg_log_place;

typedef struct mg_recent mg_recent;

/* The memory that a store for `bytes` of records takes; 64 KiB at least. */
extern size_t mg_recent_size(uint64_t bytes);

/* In zeroed memory of that size, aligned to 8 bytes. */
extern mg_recent *mg_recent_init(void *memory, uint64_t bytes);

/* A record larger than a quarter of the store is not taken. */
extern void mg_recent_put(mg_recent *store, mg_seqno seqno, const struct mg_log_place *place, const void *body);

/* False: it isn't here (any more); then `to` holds nothing of use. */
extern bool mg_recent_get(mg_recent *store, mg_seqno seqno, const struct mg_log_place *place, void *to);

/* How often a record was there, and how often not. */
extern void mg_recent_count(const mg_recent *store, uint64_t *hits, uint64_t *misses);

#endif							/* MG_HOST_RECENT_H */
