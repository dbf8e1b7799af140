/*
 * test/fuzz/fuzz_marks.c - arbitrary bytes as the file "marks" beside a log that
 * is whole.
 *
 * Input: {u8 control, u8 records, u8 length of a record / 16, bytes}.  The log is
 * made by appending and closing; then its marks are replaced by the bytes, or
 * removed, or bytes of the right ones are changed, with the checksum made right
 * as far as the control byte says.
 *
 * Marks that do not verify, or are of another log, say nothing: all records are
 * there, or files of two logs are refused.  Marks that do can only cut, and call
 * the log damaged when they promise more than there is; what is left is dense,
 * as it was appended, and stays so when the log goes on and is opened again.
 */
#include "host/log.h"

#include <stdio.h>

#include "core/buf.h"
#include "scratch.h"

#define SEGMENT_BYTES	(1u << 20)
#define MARKS_BYTES		36		/* see log.c: magic, version, log id, flushed, cut, checksum */
#define FIRST			100		/* seqno of the first record */

#define RAW				0x01	/* the bytes are the file */
#define GONE			0x02	/* there is no file */
#define SEAL			0x04	/* the checksum is made right */
#define LONGER			0x08	/* something stands behind */
#define EMPTIED			0x10	/* the log has been emptied before the last record */

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mg_log *
open_log(mg_status *status, char reason[MG_REASON_BYTES_MAX])
{
	mg_log_config config = {.dir = scratch_dir,.segment_bytes = SEGMENT_BYTES,.bytes_max = 64 * SEGMENT_BYTES,.sync = false};
	mg_log	   *log;

	*status = mg_log_open(&config, &log, reason);
	MG_ASSERT((*status == MG_OK) == (log != NULL));
	return log;
}

static void
append(mg_log *log, mg_seqno seqno, uint32_t len)
{
	static uint8_t body[255 * 16];
	mg_log_place place;

	memset(body, (int) (seqno & 0xff), len);
	MG_ASSERT(mg_log_append(log, seqno, body, len, &place) == MG_OK);
}

static void
check(mg_log *log, mg_seqno first, mg_seqno last, uint32_t len)
{
	MG_ASSERT(mg_log_first(log) == first && mg_log_last(log) == last);
	for (mg_seqno s = first; s <= last && s != 0; s++)
	{
		uint8_t		body[255 * 16];
		mg_log_place place;

		MG_ASSERT(mg_log_find(log, s, &place) == MG_OK && place.len == len);
		MG_ASSERT(mg_log_read(log, s, &place, body) == MG_OK);
		for (uint32_t i = 0; i < len; i++)
			MG_ASSERT(body[i] == (uint8_t) (s & 0xff));
	}
}

/* Makes the file; tells what it says, zeros if nothing. */
static void
make_marks(mg_reader *r, uint8_t control, uint32_t records, uint64_t id, mg_seqno *flushed, mg_seqno *cut, bool *other)
{
	uint8_t		bytes[256] = {0};
	size_t		len = MARKS_BYTES;
	char		path[600];
	int			fd;

	*flushed = *cut = 0;
	*other = false;
	snprintf(path, sizeof(path), "%s/marks", scratch_dir);
	if ((control & GONE) != 0)
	{
		MG_ASSERT(unlink(path) == 0);
		return;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	MG_ASSERT(fd >= 0 && read(fd, bytes, MARKS_BYTES) == MARKS_BYTES);
	close(fd);
	if ((control & RAW) != 0)
	{
		len = mg_reader_left(r) < 200 ? mg_reader_left(r) : 200;
		memset(bytes, 0, sizeof(bytes));
		mg_read_copy(r, bytes, len);
	}
	else
		while (mg_reader_left(r) >= 2)
		{
			uint8_t		at = mg_read_u8(r) % MARKS_BYTES;

			bytes[at] ^= mg_read_u8(r);
		}
	if ((control & SEAL) != 0)
	{
		if (len < MARKS_BYTES)
			len = MARKS_BYTES;
		mg_store_u32(bytes + 32, mg_crc32c(0, bytes, 32));
	}
	if ((control & LONGER) != 0)
		len += 7;
	scratch_write(path, bytes, len);
	if (len >= MARKS_BYTES && memcmp(bytes, "MGLM", 4) == 0 && mg_load_u32(bytes + 4) == MG_LOG_VERSION &&
		mg_load_u32(bytes + 32) == mg_crc32c(0, bytes, 32))
	{
		*other = mg_load_u64(bytes + 8) != id && records > 0;	/* without a segment they say which log it is */
		*flushed = *other ? 0 : mg_load_u64(bytes + 16);
		*cut = *other ? 0 : mg_load_u64(bytes + 24);
	}
}

static uint64_t
log_id(void)
{
	char		path[600];
	uint8_t		bytes[16];
	int			fd;

	snprintf(path, sizeof(path), "%s/marks", scratch_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	MG_ASSERT(fd >= 0 && read(fd, bytes, sizeof(bytes)) == sizeof(bytes));
	close(fd);
	return mg_load_u64(bytes + 8);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char		reason[MG_REASON_BYTES_MAX];
	mg_status	status;
	mg_log	   *log;
	mg_reader	r;
	uint8_t		control;
	mg_seqno	first = 0;
	mg_seqno	last = 0;
	mg_seqno	flushed;
	mg_seqno	cut;
	uint32_t	records;
	uint32_t	len;
	bool		other;
	bool		damaged;

	mg_reader_init(&r, data, size);
	control = mg_read_u8(&r);
	records = mg_read_u8(&r);
	len = (uint32_t) mg_read_u8(&r) * 16;
	if (r.bad)
		return 0;
	scratch_make();
	log = open_log(&status, reason);
	MG_ASSERT(log != NULL);
	for (uint32_t i = 0; i < records; i++)
	{
		if ((control & EMPTIED) != 0 && i + 1 == records)
		{
			MG_ASSERT(mg_log_reset(log) == MG_OK);
			first = 0;
		}
		last = FIRST + i;
		if (first == 0)
			first = last;
		append(log, last, len);
	}
	mg_log_close(log);
	make_marks(&r, control, records, log_id(), &flushed, &cut, &other);

	log = open_log(&status, reason);
	if (log == NULL)
	{
		MG_ASSERT(status == MG_E_FORMAT && other && reason[0] != '\0');
		scratch_empty();
		return 0;
	}
	MG_ASSERT(!other);
	if (cut != 0 && cut < last)
	{
		last = cut;
		if (last < first)
			first = last = 0;
	}
	check(log, first, last, len);
	damaged = flushed > last;
	MG_ASSERT(mg_log_damaged(log) == damaged && (reason[0] != '\0') == damaged);
	if (damaged)
	{
		/* Until it is emptied, or as far again. */
		mg_log_close(log);
		log = open_log(&status, reason);
		MG_ASSERT(log != NULL && mg_log_damaged(log) && reason[0] != '\0');
		check(log, first, last, len);
		MG_ASSERT(mg_log_reset(log) == MG_OK && !mg_log_damaged(log));
		first = last = 0;
	}
	last = last == 0 ? FIRST : last + 1;
	if (first == 0)
		first = last;
	append(log, last, len);
	mg_log_close(log);
	log = open_log(&status, reason);
	MG_ASSERT(log != NULL && reason[0] == '\0' && !mg_log_damaged(log));
	check(log, first, last, len);
	mg_log_close(log);
	scratch_empty();
	return 0;
}
