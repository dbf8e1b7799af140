/*
 * core/writeset.h - what a transaction sends: keys, and events in execution order.
 *
 * Layout, little-endian, every offset in bytes:
 *
 *	 0 u32 magic "MGWS"      4 u16 version       6 u16 flags (MG_WS_*)
 *	 8 u32 total_len        12 u32 crc32c of [0, 12), [16, total_len)
 *	16 u64 last_seen        24 u64 trx_id        32 u64 time_us
 *	40 u32 n_keys           44 u32 n_events      48 u32 events_len   52 12 bytes of 0
 *	64 keys: n_keys * u64, ascending, each hash once
 *	   events: n_events * { u8 type, u32 len, body }
 *
 * The bodies belong to the glue (docs/writeset.md): the core never looks into
 * them.  Rows, statements, sequence values and messages are mixed in one
 * sequence, so that a transaction of DDL and rows applies in execution order.
 *
 * last_seen: the seqno up to which the origin had committed when the writeset
 * was submitted.  trx_id: the origin's own number for the transaction, unique
 * per member; it also names a reservation.  time_us: microseconds since the
 * Unix epoch, by the origin's clock; for people, nothing is decided by it.
 */
#ifndef MG_CORE_WRITESET_H
#define MG_CORE_WRITESET_H

#include "core/base.h"
#include "core/buf.h"

#define MG_WRITESET_MAGIC			0x5357474du		/* "MGWS" */
#define MG_WRITESET_HEADER_BYTES	64
#define MG_EVENT_HEADER_BYTES		5

/* Flags of a writeset. */
#define MG_WS_RESERVE	0x0001	/* takes its keys for the origin until released; no events */
#define MG_WS_RELEASE	0x0002	/* ends every reservation made under the same trx_id; never with RESERVE */
#define MG_WS_STATEMENT	0x0004	/* holds at least one statement event */
#define MG_WS_FLAGS_ALL	0x0007

/*
 * A certification key: 62 bits of hash, 2 bits of strength in the low bits.
 * The conflict table is PostgreSQL's own for row locks.
 */
typedef uint64_t mg_key;

typedef enum mg_key_strength
{
	MG_KEY_KEY_SHARE = 0,		/* referenced by a foreign key; branch keys of ordinary writes */
	MG_KEY_SHARE = 1,
	MG_KEY_NO_KEY_UPDATE = 2,	/* row changed, no key column */
	MG_KEY_UPDATE = 3			/* row inserted, deleted or its key changed; DDL on a branch */
} mg_key_strength;

static inline mg_key
mg_key_make(uint64_t hash, mg_key_strength strength)
{
	return (hash & ~UINT64_C(3)) | (uint64_t) strength;
}

static inline mg_key_strength
mg_key_get_strength(mg_key key)
{
	return (mg_key_strength) (key & 3);
}

static inline uint64_t
mg_key_get_hash(mg_key key)
{
	return key & ~UINT64_C(3);
}

/* PostgreSQL's row-lock conflict table (lmgr README.tuplock). */
extern bool mg_key_strengths_conflict(mg_key_strength a, mg_key_strength b);

/* Sorts ascending and keeps one key per hash, the strongest; sets *n. */
extern void mg_keys_normalize(mg_key *keys, uint32_t *n);

typedef enum mg_event_type
{
	MG_EVENT_NONE = 0,
	MG_EVENT_RELATION = 1,		/* names a table and its columns before its first row */
	MG_EVENT_INSERT = 2,
	MG_EVENT_UPDATE = 3,
	MG_EVENT_DELETE = 4,
	MG_EVENT_TRUNCATE = 5,
	MG_EVENT_STATEMENT = 6,		/* SQL text with its environment */
	MG_EVENT_SEQUENCE = 7,
	MG_EVENT_MESSAGE = 8,
	MG_EVENT_TYPE_COUNT
} mg_event_type;

typedef struct mg_writeset_header
{
	uint16_t	flags;
	uint32_t	total_len;
	mg_seqno	last_seen;
	uint64_t	trx_id;
	uint64_t	time_us;
	uint32_t	n_keys;
	uint32_t	n_events;
	uint32_t	events_len;
} mg_writeset_header;

/*
 * Encodes the header.  The checksum covers all bytes but itself, the header
 * first, so: crc = mg_writeset_crc_begin(h); crc = mg_crc32c(crc, keys); crc =
 * mg_crc32c(crc, events); mg_writeset_header_encode(h, crc, to).
 * crc_begin computes total_len from the counts; more than
 * MG_WRITESET_BYTES_MAX is a bug: the caller has refused it before.
 */
extern uint32_t mg_writeset_crc_begin(mg_writeset_header *header);
extern void mg_writeset_header_encode(const mg_writeset_header *header, uint32_t crc,
									  uint8_t to[MG_WRITESET_HEADER_BYTES]);

typedef struct mg_writeset
{
	mg_writeset_header header;
	const uint8_t *keys;		/* n_keys * 8 bytes, any alignment */
	const uint8_t *events;		/* events_len bytes */
} mg_writeset;

/*
 * Checks the magic, the version, the flags (known ones; RESERVE has no events
 * and no RELEASE), every length (total_len is len), the checksum, that the
 * keys ascend with each hash once, and that n_events events of known types
 * fill events_len exactly; then points into the bytes (borrowed).
 * MG_E_TRUNCATED, MG_E_FORMAT, MG_E_VERSION, MG_E_CHECKSUM, MG_E_TOO_BIG; on
 * each of them *out is unchanged.
 */
extern mg_status mg_writeset_open(const void *bytes, size_t len, mg_writeset *out) MG_MUST_USE;

static inline mg_key
mg_writeset_key(const mg_writeset *ws, uint32_t i)
{
	return mg_load_u64(ws->keys + (size_t) i * 8);
}

typedef struct mg_event
{
	mg_event_type type;
	uint32_t	len;
	const uint8_t *body;		/* borrowed */
} mg_event;

/* Walks the events of an opened writeset: *at starts at 0; false at the end. */
extern bool mg_writeset_next_event(const mg_writeset *ws, uint32_t *at, mg_event *event);

#endif							/* MG_CORE_WRITESET_H */
