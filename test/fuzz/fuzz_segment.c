/*
 * test/fuzz/fuzz_segment.c - arbitrary bytes as a segment file, read as an
 * applier does: one record at a place that somebody has named.
 *
 * Input: {u8 control, u16 offset, u8 seqno, u8 length, u8 bytes of file...}.
 * The record at the place is made right as far as the control byte says, so
 * that every check behind the first is met.  The file is then replaced, as when
 * a segment is recycled, and read again through the same reader.  What is read
 * well must be what lies there, sealed for just this place.
 */
#include "host/segment.h"

#include "core/buf.h"
#include "scratch.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIX_SEAL		0x01
#define FIX_MAGIC		0x02
#define FIX_LEN			0x04
#define FIX_VERSION		0x08
#define FIX_SEQNO		0x10
#define OTHER_SEGMENT	0x20	/* sealed under another number: a file's former life */
#define CUT				0x40	/* the record's last byte is missing */

static bool
is_record(const uint8_t *file, size_t size, const mg_log_place *place, mg_seqno seqno)
{
	const uint8_t *header = file + place->offset;
	uint8_t		expected[MG_RECORD_HEADER_BYTES];

	if (place->offset + MG_RECORD_HEADER_BYTES + (size_t) place->len > size)
		return false;
	memcpy(expected, header, sizeof(expected));	/* fields that are not checked stay */
	mg_record_seal(expected, place->segment, seqno, header + MG_RECORD_HEADER_BYTES, place->len);
	return memcmp(expected, header, sizeof(expected)) == 0;
}

static void
try_read(mg_segment_reader *reader, const uint8_t *file, size_t size, const mg_log_place *place, mg_seqno seqno)
{
	uint8_t    *to = mg_alloc(place->len);
	mg_status	status = mg_segment_read(reader, place, seqno, to);

	MG_ASSERT((status == MG_OK) == is_record(file, size, place, seqno));
	MG_ASSERT(status == MG_OK || status == MG_E_FORMAT || status == MG_E_CHECKSUM);
	if (status == MG_OK && place->len > 0)
		MG_ASSERT(memcmp(to, file + place->offset + MG_RECORD_HEADER_BYTES, place->len) == 0);
	mg_free(to);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mg_segment_reader reader;
	mg_log_place place = {.segment = 1};
	mg_reader	r;
	uint8_t		control;
	mg_seqno	seqno;
	uint8_t    *file;
	uint8_t    *header;
	char		path[600];

	mg_reader_init(&r, data, size);
	control = mg_read_u8(&r);
	place.offset = mg_read_u16(&r);
	seqno = mg_read_u8(&r);
	place.len = mg_read_u8(&r);
	if (r.bad)
		return 0;
	size = mg_reader_left(&r);
	file = mg_alloc(size);
	mg_read_copy(&r, file, size);

	scratch_make();
	mg_segment_path(path, sizeof(path), scratch_dir, place.segment);
	MG_ASSERT(mg_segment_reader_init(&reader, scratch_dir) == MG_OK);
	scratch_write(path, file, size);
	try_read(&reader, file, size, &place, seqno);

	if (place.offset + MG_RECORD_HEADER_BYTES + (size_t) place.len <= size)
	{
		header = file + place.offset;
		if ((control & FIX_SEAL) != 0)
			mg_record_seal(header, place.segment + ((control & OTHER_SEGMENT) != 0), seqno,
						   header + MG_RECORD_HEADER_BYTES, place.len);
		if ((control & FIX_MAGIC) != 0)
			mg_store_u32(header, MG_RECORD_MAGIC);
		if ((control & FIX_LEN) != 0)
			mg_store_u32(header + 4, place.len);
		if ((control & FIX_VERSION) != 0)
			mg_store_u32(header + 12, MG_LOG_VERSION);
		if ((control & FIX_SEQNO) != 0)
			mg_store_u64(header + 16, seqno);
		if ((control & CUT) != 0)
			size = place.offset + MG_RECORD_HEADER_BYTES + (size_t) place.len - 1;
		scratch_write(path, file, size);
		try_read(&reader, file, size, &place, seqno);
	}

	MG_ASSERT(unlink(path) == 0);
	mg_segment_reader_close(&reader);
	MG_ASSERT(mg_segment_read(&reader, &place, seqno, file) == MG_E_NOT_FOUND);
	mg_free(file);
	return 0;
}
