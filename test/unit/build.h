/*
 * test/unit/build.h - makes the bytes of a writeset in one call.
 */
#ifndef MG_TEST_BUILD_H
#define MG_TEST_BUILD_H

#include "core/writeset.h"

/* The counts and total_len of the header are filled in; appends to `to`. */
static inline void
test_build_writeset(mg_buf *to, mg_writeset_header header, const mg_key *keys, uint32_t n_keys,
					const mg_buf *events, uint32_t n_events)
{
	uint8_t		head[MG_WRITESET_HEADER_BYTES];
	mg_buf		encoded = {0};
	uint32_t	crc;

	for (uint32_t i = 0; i < n_keys; i++)
		mg_buf_put_u64(&encoded, keys[i]);
	header.n_keys = n_keys;
	header.n_events = n_events;
	header.events_len = events != NULL ? (uint32_t) events->len : 0;
	crc = mg_writeset_crc_begin(&header);
	crc = mg_crc32c(crc, encoded.data, encoded.len);
	if (events != NULL)
		crc = mg_crc32c(crc, events->data, events->len);
	mg_writeset_header_encode(&header, crc, head);

	mg_buf_put(to, head, sizeof(head));
	mg_buf_put(to, encoded.data, encoded.len);
	if (events != NULL)
		mg_buf_put(to, events->data, events->len);
	mg_buf_free(&encoded);
}

static inline void
test_put_event(mg_buf *events, uint8_t type, const void *body, uint32_t len)
{
	mg_buf_put_u8(events, type);
	mg_buf_put_u32(events, len);
	mg_buf_put(events, body, len);
}

/* Makes the checksum right again after the bytes were changed on purpose. */
static inline void
test_reseal(uint8_t *bytes, size_t len)
{
	uint32_t	crc = mg_crc32c(0, bytes, 12);

	mg_store_u32(bytes + 12, mg_crc32c(crc, bytes + 16, len - 16));
}

#endif							/* MG_TEST_BUILD_H */
