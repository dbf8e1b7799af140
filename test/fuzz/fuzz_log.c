/*
 * test/fuzz/fuzz_log.c - arbitrary bytes as the files of a log.
 *
 * Input: {u8 what is done later, the marks}, then up to FILES_MAX segments, each
 * {u8 control, u8 number, u8 first seqno, u8 log id, pieces}, each piece {u8
 * control, u8 length, bytes}; control bit 7 ends the file.  Headers, records
 * and marks are made right unless the control bytes say otherwise, so that what
 * lies behind the checksums is met too.
 *
 * Whatever is there: opening succeeds or names a version; what it keeps is
 * dense and can be read; the log can go on, be cut and be opened again, and
 * holds then what it held.
 */
#include "host/log.h"

#include <stdio.h>

#include "core/buf.h"
#include "scratch.h"

#define FILES_MAX		3
#define RECORDS_MAX		512
#define SEGMENT_BYTES	(1u << 20)

#define THEN_TRUNCATE	0x01
#define THEN_APPEND		0x02
#define THEN_RESET		0x04
#define MARKS_RAW		0x08	/* {u8 length, bytes} */
#define MARKS_RIGHT		0x10	/* {u8 log id, u64 flushed, u64 cut} */

#define FILE_RAW		0x01	/* the pieces are the whole file */
#define FILE_VERSION	0x02	/* of another version */
#define FILE_NUMBER		0x04	/* the header names another file */
#define FILE_LAST		0x08	/* at the end of the numbers' range */
#define FILE_HIGH		0x10	/* seqnos at the end of theirs */
#define FILE_ROOMY		0x20	/* zeros behind, as in one that was filled ahead */

#define PIECE_RAW		0x01	/* no record */
#define PIECE_SEQNO		0x02	/* the seqno is not the next */
#define PIECE_DAMAGED	0x04	/* a bit is flipped */
#define PIECE_OLD		0x08	/* sealed under another number */
#define PIECE_CUT		0x10	/* the file ends within it */
#define PIECE_EDIT		0x20	/* the first two bytes say which byte of the header is what; resealed */
#define PIECE_LAST		0x80

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
put_header(mg_buf *file, uint8_t control, uint64_t number, mg_seqno first, uint64_t id)
{
	uint8_t		header[MG_SEGMENT_HEADER_BYTES] = {0};

	mg_store_u32(header, MG_SEGMENT_MAGIC);
	mg_store_u32(header + 4, MG_LOG_VERSION + ((control & FILE_VERSION) != 0));
	mg_store_u64(header + 8, number + ((control & FILE_NUMBER) != 0));
	mg_store_u64(header + 16, first);
	mg_store_u64(header + 24, id);
	mg_store_u32(header + 60, mg_crc32c(0, header, 60));
	mg_buf_put(file, header, sizeof(header));
}

/* False when the file ends here. */
static bool
put_piece(mg_buf *file, mg_reader *r, uint64_t number, mg_seqno *seqno)
{
	static const uint8_t zeroes[8];
	uint8_t		control = mg_read_u8(r);
	size_t		len = mg_read_u8(r);
	size_t		at = file->len;
	uint8_t		header[MG_RECORD_HEADER_BYTES] = {0};
	uint8_t		body[255];

	if (len > mg_reader_left(r))
		len = mg_reader_left(r);
	mg_read_copy(r, body, len);
	if ((control & PIECE_RAW) != 0)
	{
		mg_buf_put(file, body, len);
		return (control & PIECE_LAST) == 0;
	}
	if ((control & PIECE_SEQNO) != 0)
		++*seqno;
	mg_record_seal(header, number + ((control & PIECE_OLD) != 0), *seqno, body, (uint32_t) len);
	++*seqno;
	if ((control & PIECE_EDIT) != 0 && len >= 2)
	{
		header[body[0] % MG_RECORD_HEADER_BYTES] = body[1];
		mg_store_u32(header + 8, mg_crc32c(mg_record_crc_begin(header, number), body, len));
	}
	mg_buf_put(file, header, sizeof(header));
	mg_buf_put(file, body, len);
	mg_buf_put(file, zeroes, (size_t) (mg_record_bytes((uint32_t) len) - MG_RECORD_HEADER_BYTES - len));
	if ((control & PIECE_DAMAGED) != 0)
		file->data[at + len % (file->len - at)] ^= 1;
	if ((control & PIECE_CUT) != 0)
	{
		file->len -= len % (file->len - at);
		return false;
	}
	return (control & PIECE_LAST) == 0;
}

static void
make_files(mg_reader *r)
{
	uint64_t	number = 0;
	mg_seqno	seqno = 1;

	for (int i = 0; i < FILES_MAX && !r->bad && mg_reader_left(r) > 4; i++)
	{
		uint8_t		control = mg_read_u8(r);
		mg_buf		file = {0};
		char		path[600];
		uint64_t	id;

		number += 1 + mg_read_u8(r) % 2;
		if ((control & FILE_LAST) != 0)
			number = UINT64_MAX - FILES_MAX + (uint64_t) i + 1;
		seqno += mg_read_u8(r) % 4 == 3;
		if ((control & FILE_HIGH) != 0)
			seqno = UINT64_MAX - seqno % 4;
		id = mg_read_u8(r) % 8 == 7;
		if ((control & FILE_RAW) == 0)
		{
			bool		empty = mg_reader_left(r) == 0 || *r->p == PIECE_LAST;

			put_header(&file, control, number, empty ? 0 : seqno, id);
		}
		while (!r->bad && mg_reader_left(r) > 0 && put_piece(&file, r, number, &seqno))
			;
		mg_segment_path(path, sizeof(path), scratch_dir, number);
		scratch_write(path, file.data, file.len);
		if ((control & FILE_ROOMY) != 0)
			MG_ASSERT(truncate(path, SEGMENT_BYTES) == 0);
		mg_buf_free(&file);
	}
}

/* See log.c: magic, version, log id, flushed, cut, checksum. */
static void
make_marks(mg_reader *r, uint8_t control)
{
	uint8_t		bytes[255] = {0};
	size_t		len = 36;
	char		path[600];

	if ((control & (MARKS_RAW | MARKS_RIGHT)) == 0)
		return;
	if ((control & MARKS_RAW) != 0)
	{
		len = mg_read_u8(r);
		if (len > mg_reader_left(r))
			len = mg_reader_left(r);
		mg_read_copy(r, bytes, len);
	}
	else
	{
		memcpy(bytes, "MGLM", 4);
		mg_store_u32(bytes + 4, MG_LOG_VERSION);
		mg_store_u64(bytes + 8, mg_read_u8(r) % 8 == 7);
		mg_store_u64(bytes + 16, mg_read_u64(r));
		mg_store_u64(bytes + 24, mg_read_u64(r));
	}
	if (len >= 36)
		mg_store_u32(bytes + 32, mg_crc32c(0, bytes, 32));
	snprintf(path, sizeof(path), "%s/marks", scratch_dir);
	scratch_write(path, bytes, len);
}

typedef struct contents
{
	mg_seqno	first;
	mg_seqno	last;
	uint32_t	crc[RECORDS_MAX];
} contents;

static mg_log *
open_log(mg_status *status, char reason[MG_REASON_BYTES_MAX])
{
	mg_log_config config = {.dir = scratch_dir,.segment_bytes = SEGMENT_BYTES,.bytes_max = 4 * SEGMENT_BYTES,.sync = false};
	mg_log	   *log;

	*status = mg_log_open(&config, &log, reason);
	MG_ASSERT((*status == MG_OK) == (log != NULL));
	return log;
}

/* Reads all that the log says it has. */
static void
take_contents(mg_log *log, contents *c)
{
	memset(c, 0, sizeof(*c));
	c->first = mg_log_first(log);
	c->last = mg_log_last(log);
	MG_ASSERT((c->first == 0) == (c->last == 0));
	if (c->first == 0)
		return;
	MG_ASSERT(c->first <= c->last && c->last - c->first < RECORDS_MAX);
	for (mg_seqno s = c->first;; s++)
	{
		mg_log_place place;
		uint8_t    *body;

		MG_ASSERT(mg_log_find(log, s, &place) == MG_OK);
		body = mg_alloc(place.len);
		MG_ASSERT(mg_log_read(log, s, &place, body) == MG_OK);
		c->crc[s - c->first] = mg_crc32c(0, body, place.len);
		mg_free(body);
		if (s == c->last)
			break;
	}
}

/* Opens again: `expected` is there, and nothing more is cut or missed. */
static void
reopen(mg_log *log, const contents *expected)
{
	char		reason[MG_REASON_BYTES_MAX];
	contents   *now = mg_alloc(sizeof(*now));
	bool		damaged = mg_log_damaged(log);
	mg_status	status;

	mg_log_close(log);
	log = open_log(&status, reason);
	MG_ASSERT(status == MG_OK && (damaged || !mg_log_damaged(log)));
	MG_ASSERT((reason[0] == '\0') == !mg_log_damaged(log));
	take_contents(log, now);
	MG_ASSERT(memcmp(now, expected, sizeof(*now)) == 0);
	mg_log_close(log);
	mg_free(now);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char		reason[MG_REASON_BYTES_MAX];
	contents   *found = mg_alloc(sizeof(*found));
	mg_log_place place;
	mg_status	status;
	mg_log	   *log;
	mg_reader	r;
	uint8_t		then;

	mg_reader_init(&r, data, size);
	then = mg_read_u8(&r);
	scratch_make();
	make_marks(&r, then);
	make_files(&r);
	log = open_log(&status, reason);
	if (log == NULL)
	{
		MG_ASSERT(status == MG_E_VERSION || status == MG_E_FORMAT);
		MG_ASSERT(reason[0] != '\0');
	}
	else
	{
		take_contents(log, found);
		if ((then & THEN_RESET) != 0)
		{
			memset(found, 0, sizeof(*found));
			MG_ASSERT(mg_log_reset(log) == MG_OK && !mg_log_damaged(log));
		}
		if ((then & THEN_TRUNCATE) != 0 && found->first != 0 && found->first < found->last)
		{
			memset(&found->crc[found->last - found->first], 0, sizeof(found->crc[0]));
			found->last--;
			MG_ASSERT(mg_log_truncate(log, found->last) == MG_OK);
		}
		if ((then & THEN_APPEND) != 0)
		{
			mg_seqno	next = found->first == 0 ? 5 : found->last + 1;

			MG_ASSERT(mg_log_append(log, next, &then, 1, &place) == MG_OK);
			if (found->first == 0)
				found->first = next;
			found->last = next;
			found->crc[next - found->first] = mg_crc32c(0, &then, 1);
		}
		reopen(log, found);
	}
	scratch_empty();
	mg_free(found);
	return 0;
}
