/*
 * test/fuzz/fuzz_entry.c - arbitrary bytes as the entry of a log.
 *
 * What decodes has one encoding, keeps what wire.h says of it, and leaves the
 * payload whole.  Tried as it is, and with the version made right.
 */
#include "core/wire.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_entry(const uint8_t *bytes, size_t len)
{
	mg_entry_header h;
	mg_reader	r;
	mg_buf		again = {0};

	mg_reader_init(&r, bytes, len);
	if (mg_entry_decode(&r, &h) != MG_OK)
		return;
	MG_ASSERT(!r.bad);
	MG_ASSERT(h.type == MG_ENTRY_WRITESET || h.type == MG_ENTRY_VIEW);
	MG_ASSERT(h.type == MG_ENTRY_VIEW || (h.origin != 0 && h.msgno != 0));
	MG_ASSERT(h.n_failed <= MG_ENTRY_FAILED_MAX);
	for (int i = 0; i < h.n_failed; i++)
		MG_ASSERT(h.failed[i] <= h.cert_upto && (i == 0 || h.failed[i] > h.failed[i - 1]));
	mg_entry_encode(&again, &h);
	MG_ASSERT(again.len + mg_reader_left(&r) == len);
	MG_ASSERT(memcmp(again.data, bytes, again.len) == 0);
	mg_buf_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_entry(data, size);
	if (size >= 2)
	{
		uint8_t    *bytes = mg_alloc(size);

		memcpy(bytes, data, size);
		mg_store_u16(bytes, MG_LOG_VERSION);
		try_entry(bytes, size);
		mg_free(bytes);
	}
	return 0;
}
