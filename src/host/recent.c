/*
 * host/recent.c - a ring of bytes and an index over it, read without locks.
 *
 * The bytes ever put are numbered; byte n lies at n modulo the ring's size, and
 * `lost` tells below which number bytes may be overwritten.  The writer raises
 * it before it overwrites, so a reader that has copied a record and still finds
 * it at or above `lost` has copied what was put (a sequence lock, as the kernel
 * has).  The index has one slot per seqno modulo its size; its seqno is taken
 * away while the slot changes.
 *
 * Rejected: mapping the segment files (a bad disk sector would be a SIGBUS), and
 * a lock (an applier that is stopped while it holds it would stop the log).
 */
#include "host/recent.h"

#include <stdatomic.h>

#include "host/segment.h"

#define BYTES_MIN		(64u << 10)
#define BYTES_PER_SLOT	256		/* about what a small writeset has */
#define SLOTS_MIN		1024

typedef struct slot
{
	_Atomic uint64_t seqno;		/* 0: empty, or being changed */
	_Atomic uint64_t segment;
	_Atomic uint64_t offset_len;	/* both of the place */
	_Atomic uint64_t at;		/* number of the first byte */
} slot;

struct mg_recent
{
	/* [fixed at init] */
	uint64_t	bytes;
	uint64_t	slots;			/* a power of two */

	/* [writer] */
	uint64_t	next;			/* number of the next byte */

	/* [atomic] */
	_Atomic uint64_t lost;
	_Atomic uint64_t hits;
	_Atomic uint64_t misses;

	slot		index[];		/* then the ring */
};

static uint64_t
ring_bytes(uint64_t bytes)
{
	return bytes < BYTES_MIN ? BYTES_MIN : (bytes + 7) & ~UINT64_C(7);
}

static uint64_t
slot_count(uint64_t bytes)
{
	uint64_t	n = SLOTS_MIN;

	while (n < ring_bytes(bytes) / BYTES_PER_SLOT)
		n *= 2;
	return n;
}

static uint8_t *
ring_of(mg_recent *store, uint64_t at)
{
	return (uint8_t *) &store->index[store->slots] + at % store->bytes;
}

static slot *
slot_of(mg_recent *store, mg_seqno seqno)
{
	return &store->index[seqno & (store->slots - 1)];
}

static uint64_t
offset_len(const mg_log_place *place)
{
	return (uint64_t) place->offset << 32 | place->len;
}

size_t
mg_recent_size(uint64_t bytes)
{
	return sizeof(mg_recent) + (size_t) slot_count(bytes) * sizeof(slot) + (size_t) ring_bytes(bytes);
}

mg_recent *
mg_recent_init(void *memory, uint64_t bytes)
{
	mg_recent  *store = memory;

	store->bytes = ring_bytes(bytes);
	store->slots = slot_count(bytes);
	return store;
}

void
mg_recent_put(mg_recent *store, mg_seqno seqno, const mg_log_place *place, const void *body)
{
	slot	   *s = slot_of(store, seqno);
	uint64_t	at = store->next;
	uint64_t	end;

	/* Also when it is not taken: what was there under its seqno is past. */
	atomic_store_explicit(&s->seqno, 0, memory_order_relaxed);
	if (place->len > store->bytes / 4)
		return;
	if (at % store->bytes + place->len > store->bytes)
		at += store->bytes - at % store->bytes;	/* in one piece */
	end = (at + place->len + 7) & ~UINT64_C(7);
	if (end > store->bytes)
		atomic_store_explicit(&store->lost, end - store->bytes, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);

	if (place->len > 0)
		memcpy(ring_of(store, at), body, place->len);
	store->next = end;
	atomic_store_explicit(&s->segment, place->segment, memory_order_relaxed);
	atomic_store_explicit(&s->offset_len, offset_len(place), memory_order_relaxed);
	atomic_store_explicit(&s->at, at, memory_order_relaxed);
	atomic_store_explicit(&s->seqno, seqno, memory_order_release);
}

static bool
get(mg_recent *store, mg_seqno seqno, const mg_log_place *place, void *to)
{
	slot	   *s = slot_of(store, seqno);
	uint64_t	at;

	if (atomic_load_explicit(&s->seqno, memory_order_acquire) != seqno ||
		atomic_load_explicit(&s->segment, memory_order_relaxed) != place->segment ||
		atomic_load_explicit(&s->offset_len, memory_order_relaxed) != offset_len(place))
		return false;
	at = atomic_load_explicit(&s->at, memory_order_relaxed);
	if (at < atomic_load_explicit(&store->lost, memory_order_relaxed) || at % store->bytes + place->len > store->bytes)
		return false;
	if (place->len > 0)
		memcpy(to, ring_of(store, at), place->len);
	atomic_thread_fence(memory_order_acquire);
	return at >= atomic_load_explicit(&store->lost, memory_order_relaxed) &&
		atomic_load_explicit(&s->seqno, memory_order_relaxed) == seqno;
}

bool
mg_recent_get(mg_recent *store, mg_seqno seqno, const mg_log_place *place, void *to)
{
	bool		found = get(store, seqno, place, to);

	atomic_fetch_add_explicit(found ? &store->hits : &store->misses, 1, memory_order_relaxed);
	return found;
}

void
mg_recent_count(const mg_recent *store, uint64_t *hits, uint64_t *misses)
{
	*hits = atomic_load_explicit(&store->hits, memory_order_relaxed);
	*misses = atomic_load_explicit(&store->misses, memory_order_relaxed);
}
