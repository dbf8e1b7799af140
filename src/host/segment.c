/*
 * host/segment.c - reading one record, from any process, while the log grows.
 *
 * The only synchronisation is the checksum.  The log writes a record before it
 * tells anyone its place, so a place that was handed out reads well until its
 * segment is removed or renamed.  A descriptor kept open from before may then
 * show the file in its next life; the record does not verify, and opening the
 * segment's name again tells whether it is gone (MG_E_NOT_FOUND) or damaged.
 *
 * One preadv per record: header into a buffer on the stack, body straight into
 * the caller's.  Mapping the file was the alternative; a bad disk sector would
 * then be a SIGBUS instead of a status.
 */
#include "host/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/buf.h"

#define PATH_BYTES_MAX 1100		/* dir of the reader, and the name */

void
mg_segment_path(char *to, size_t cap, const char *dir, uint64_t segment)
{
	int			n = snprintf(to, cap, "%s/%016" PRIx64 ".seg", dir, segment);

	MG_ASSERT(n > 0 && (size_t) n < cap);
}

uint32_t
mg_record_crc_begin(const uint8_t header[MG_RECORD_HEADER_BYTES], uint64_t segment)
{
	uint8_t		number[8];
	uint32_t	crc;

	mg_store_u64(number, segment);
	crc = mg_crc32c(0, number, sizeof(number));
	return mg_crc32c(crc, header + 12, MG_RECORD_HEADER_BYTES - 12);
}

void
mg_record_seal(uint8_t header[MG_RECORD_HEADER_BYTES], uint64_t segment,
			   mg_seqno seqno, const void *body, uint32_t len)
{
	mg_store_u32(header, MG_RECORD_MAGIC);
	mg_store_u32(header + 4, len);
	mg_store_u32(header + 12, MG_LOG_VERSION);
	mg_store_u64(header + 16, seqno);
	mg_store_u32(header + 8, mg_crc32c(mg_record_crc_begin(header, segment), body, len));
}

mg_status
mg_segment_reader_init(mg_segment_reader *reader, const char *dir)
{
	size_t		len = strlen(dir);

	if (len >= sizeof(reader->dir))
		return MG_E_TOO_BIG;
	memcpy(reader->dir, dir, len + 1);
	reader->recent = NULL;
	reader->segment = 0;
	reader->fd = -1;
	return MG_OK;
}

void
mg_segment_reader_close(mg_segment_reader *reader)
{
	if (reader->segment != 0)
		close(reader->fd);
	reader->segment = 0;
	reader->fd = -1;
}

static mg_status
reader_open(mg_segment_reader *reader, uint64_t segment)
{
	char		path[PATH_BYTES_MAX];
	int			fd;

	mg_segment_reader_close(reader);
	mg_segment_path(path, sizeof(path), reader->dir, segment);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? MG_E_NOT_FOUND : MG_E_IO;
	reader->fd = fd;
	reader->segment = segment;
	return MG_OK;
}

/* MG_E_TRUNCATED: the file ends before the record does. */
static mg_status
read_record(int fd, uint32_t offset, uint8_t *header, void *to, uint32_t len)
{
	struct iovec parts[2] = {
		{.iov_base = header, .iov_len = MG_RECORD_HEADER_BYTES},
		{.iov_base = to, .iov_len = len},
	};
	size_t		want = MG_RECORD_HEADER_BYTES + (size_t) len;
	size_t		got = 0;
	ssize_t		n;

	do
		n = preadv(fd, parts, len > 0 ? 2 : 1, offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return MG_E_IO;
	got = (size_t) n;
	if (got < MG_RECORD_HEADER_BYTES)
		return MG_E_TRUNCATED;

	/* The kernel may cut a very large read; the rest is only body. */
	while (got < want)
	{
		n = pread(fd, (uint8_t *) to + (got - MG_RECORD_HEADER_BYTES), want - got,
				  (off_t) offset + (off_t) got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return MG_E_IO;
		if (n == 0)
			return MG_E_TRUNCATED;
		got += (size_t) n;
	}
	return MG_OK;
}

static mg_status
read_verified(int fd, const mg_log_place *place, mg_seqno seqno, void *to)
{
	uint8_t		header[MG_RECORD_HEADER_BYTES];
	mg_status	status = read_record(fd, place->offset, header, to, place->len);

	if (status == MG_E_TRUNCATED)
		return MG_E_FORMAT;
	if (status != MG_OK)
		return status;
	if (mg_load_u32(header) != MG_RECORD_MAGIC ||
		mg_load_u32(header + 4) != place->len ||
		mg_load_u32(header + 12) != MG_LOG_VERSION ||
		mg_load_u64(header + 16) != seqno)
		return MG_E_FORMAT;
	if (mg_crc32c(mg_record_crc_begin(header, place->segment), to, place->len) !=
		mg_load_u32(header + 8))
		return MG_E_CHECKSUM;
	return MG_OK;
}

mg_status
mg_segment_read(mg_segment_reader *reader, const mg_log_place *place,
				mg_seqno seqno, void *to)
{
	mg_status	status = MG_OK;

	MG_ASSERT(place->segment != 0);
	if (reader->recent != NULL && mg_recent_get(reader->recent, seqno, place, to))
		return MG_OK;
	if (reader->segment != place->segment)
		status = reader_open(reader, place->segment);
	if (status == MG_OK)
		status = read_verified(reader->fd, place, seqno, to);
	if (status != MG_E_FORMAT && status != MG_E_CHECKSUM)
		return status;

	/* Renamed or cut under us, or damaged: the name knows. */
	status = reader_open(reader, place->segment);
	if (status != MG_OK)
		return status;
	return read_verified(reader->fd, place, seqno, to);
}
