/*
 * core/writeset.c - the writeset's header, keys and events: coding and checks.
 *
 * Everything that another machine sent comes in through mg_writeset_open, and
 * whoever holds an opened writeset may rely on its lengths without looking
 * again.  So open walks all events once; the checksum has to touch these bytes
 * anyway.  It looks at cheap facts first: sizes before the checksum, the
 * checksum before the contents, so that random bytes are refused early and a
 * malformed writeset with a right checksum means a bug of its sender.
 */
#include "core/writeset.h"

#include <stdlib.h>

/* Offsets in the header. */
enum
{
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_FLAGS = 6,
	AT_TOTAL_LEN = 8,
	AT_CRC = 12,
	AT_LAST_SEEN = 16,
	AT_TRX_ID = 24,
	AT_TIME_US = 32,
	AT_N_KEYS = 40,
	AT_N_EVENTS = 44,
	AT_EVENTS_LEN = 48,
	AT_ZERO = 52
};

#define KEYS_INSERTION_SORT_MAX	32

/* ---- keys ---- */

bool
mg_key_strengths_conflict(mg_key_strength a, mg_key_strength b)
{
	/* Bit b of conflicts[a]; each strength conflicts with all that the weaker ones do. */
	static const uint8_t conflicts[4] = {
		[MG_KEY_KEY_SHARE] = 1 << MG_KEY_UPDATE,
		[MG_KEY_SHARE] = 1 << MG_KEY_NO_KEY_UPDATE | 1 << MG_KEY_UPDATE,
		[MG_KEY_NO_KEY_UPDATE] = 1 << MG_KEY_SHARE | 1 << MG_KEY_NO_KEY_UPDATE | 1 << MG_KEY_UPDATE,
		[MG_KEY_UPDATE] = 1 << MG_KEY_KEY_SHARE | 1 << MG_KEY_SHARE | 1 << MG_KEY_NO_KEY_UPDATE | 1 << MG_KEY_UPDATE
	};

	return (conflicts[a & 3] >> (b & 3) & 1) != 0;
}

static int
compare_keys(const void *a, const void *b)
{
	mg_key		ka = *(const mg_key *) a;
	mg_key		kb = *(const mg_key *) b;

	return (ka > kb) - (ka < kb);
}

static void
sort_keys(mg_key *keys, uint32_t n)
{
	if (n > KEYS_INSERTION_SORT_MAX)
	{
		qsort(keys, n, sizeof(mg_key), compare_keys);
		return;
	}
	for (uint32_t i = 1; i < n; i++)
	{
		mg_key		key = keys[i];
		uint32_t	at = i;

		for (; at > 0 && keys[at - 1] > key; at--)
			keys[at] = keys[at - 1];
		keys[at] = key;
	}
}

void
mg_keys_normalize(mg_key *keys, uint32_t *n)
{
	uint32_t	kept = 0;

	sort_keys(keys, *n);

	/* The strength is in the low bits: the strongest key of a hash comes last. */
	for (uint32_t i = 0; i < *n; i++)
	{
		if (kept > 0 && mg_key_get_hash(keys[kept - 1]) == mg_key_get_hash(keys[i]))
			kept--;
		keys[kept++] = keys[i];
	}
	*n = kept;
}

/* ---- encoding ---- */

static void
encode(const mg_writeset_header *header, uint32_t crc, uint8_t *to)
{
	mg_store_u32(to + AT_MAGIC, MG_WRITESET_MAGIC);
	mg_store_u16(to + AT_VERSION, MG_WRITESET_VERSION);
	mg_store_u16(to + AT_FLAGS, header->flags);
	mg_store_u32(to + AT_TOTAL_LEN, header->total_len);
	mg_store_u32(to + AT_CRC, crc);
	mg_store_u64(to + AT_LAST_SEEN, header->last_seen);
	mg_store_u64(to + AT_TRX_ID, header->trx_id);
	mg_store_u64(to + AT_TIME_US, header->time_us);
	mg_store_u32(to + AT_N_KEYS, header->n_keys);
	mg_store_u32(to + AT_N_EVENTS, header->n_events);
	mg_store_u32(to + AT_EVENTS_LEN, header->events_len);
	memset(to + AT_ZERO, 0, MG_WRITESET_HEADER_BYTES - AT_ZERO);
}

/* The checksum of an encoded header without its own field. */
static uint32_t
header_crc(const uint8_t *header)
{
	uint32_t	crc = mg_crc32c(0, header, AT_CRC);

	return mg_crc32c(crc, header + AT_LAST_SEEN, MG_WRITESET_HEADER_BYTES - AT_LAST_SEEN);
}

static uint64_t
total_len(const mg_writeset_header *header)
{
	return MG_WRITESET_HEADER_BYTES + (uint64_t) header->n_keys * 8 + header->events_len;
}

uint32_t
mg_writeset_crc_begin(mg_writeset_header *header)
{
	uint8_t		encoded[MG_WRITESET_HEADER_BYTES];

	MG_ASSERT(total_len(header) <= MG_WRITESET_BYTES_MAX);
	header->total_len = (uint32_t) total_len(header);
	encode(header, 0, encoded);
	return header_crc(encoded);
}

void
mg_writeset_header_encode(const mg_writeset_header *header, uint32_t crc,
						  uint8_t to[MG_WRITESET_HEADER_BYTES])
{
	MG_ASSERT(header->total_len == total_len(header));
	encode(header, crc, to);
}

/* ---- decoding ---- */

/* Magic, version, flags, lengths: everything that one can tell from the header. */
static mg_status
open_header(const uint8_t *p, size_t len, mg_writeset_header *header)
{
	static const uint8_t zero[MG_WRITESET_HEADER_BYTES - AT_ZERO];

	if (len < MG_WRITESET_HEADER_BYTES)
		return MG_E_TRUNCATED;
	if (mg_load_u32(p + AT_MAGIC) != MG_WRITESET_MAGIC)
		return MG_E_FORMAT;
	if (mg_load_u16(p + AT_VERSION) != MG_WRITESET_VERSION)
		return MG_E_VERSION;

	header->flags = mg_load_u16(p + AT_FLAGS);
	header->total_len = mg_load_u32(p + AT_TOTAL_LEN);
	header->last_seen = mg_load_u64(p + AT_LAST_SEEN);
	header->trx_id = mg_load_u64(p + AT_TRX_ID);
	header->time_us = mg_load_u64(p + AT_TIME_US);
	header->n_keys = mg_load_u32(p + AT_N_KEYS);
	header->n_events = mg_load_u32(p + AT_N_EVENTS);
	header->events_len = mg_load_u32(p + AT_EVENTS_LEN);

	if (header->total_len > MG_WRITESET_BYTES_MAX)
		return MG_E_TOO_BIG;
	if (header->total_len > len)
		return MG_E_TRUNCATED;
	if (header->total_len < len || total_len(header) != len)
		return MG_E_FORMAT;
	if ((header->flags & ~MG_WS_FLAGS_ALL) != 0 ||
		memcmp(p + AT_ZERO, zero, sizeof(zero)) != 0)
		return MG_E_FORMAT;
	if ((header->flags & MG_WS_RESERVE) != 0 &&
		((header->flags & MG_WS_RELEASE) != 0 || header->n_events > 0))
		return MG_E_FORMAT;
	return MG_OK;
}

static bool
keys_ascend(const mg_writeset *ws)
{
	for (uint32_t i = 1; i < ws->header.n_keys; i++)
		if (mg_key_get_hash(mg_writeset_key(ws, i - 1)) >= mg_key_get_hash(mg_writeset_key(ws, i)))
			return false;
	return true;
}

/* n_events events of known types, and not a byte more. */
static bool
events_fit(const mg_writeset *ws)
{
	mg_reader	r;

	mg_reader_init(&r, ws->events, ws->header.events_len);
	for (uint32_t i = 0; i < ws->header.n_events; i++)
	{
		uint8_t		type = mg_read_u8(&r);
		uint32_t	len = mg_read_u32(&r);

		if (type == MG_EVENT_NONE || type >= MG_EVENT_TYPE_COUNT || mg_read_bytes(&r, len) == NULL)
			return false;
	}
	return mg_reader_done(&r);
}

mg_status
mg_writeset_open(const void *bytes, size_t len, mg_writeset *out)
{
	const uint8_t *p = bytes;
	mg_writeset ws;
	mg_status	status = open_header(p, len, &ws.header);

	if (status != MG_OK)
		return status;
	if (mg_crc32c(header_crc(p), p + MG_WRITESET_HEADER_BYTES, len - MG_WRITESET_HEADER_BYTES) !=
		mg_load_u32(p + AT_CRC))
		return MG_E_CHECKSUM;

	ws.keys = p + MG_WRITESET_HEADER_BYTES;
	ws.events = ws.keys + (size_t) ws.header.n_keys * 8;
	if (!keys_ascend(&ws) || !events_fit(&ws))
		return MG_E_FORMAT;
	*out = ws;
	return MG_OK;
}

bool
mg_writeset_next_event(const mg_writeset *ws, uint32_t *at, mg_event *event)
{
	const uint8_t *p;

	if (*at >= ws->header.events_len)
		return false;
	p = ws->events + *at;
	event->type = (mg_event_type) p[0];
	event->len = mg_load_u32(p + 1);
	event->body = p + MG_EVENT_HEADER_BYTES;

	/* mg_writeset_open has seen to this; a caller that skipped it is wrong. */
	MG_ASSERT(ws->header.events_len - *at >= MG_EVENT_HEADER_BYTES &&
			  ws->header.events_len - *at - MG_EVENT_HEADER_BYTES >= event->len);
	*at += MG_EVENT_HEADER_BYTES + event->len;
	return true;
}
