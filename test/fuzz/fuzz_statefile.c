/*
 * test/fuzz/fuzz_statefile.c - arbitrary bytes as a state file.
 *
 * The file lies in memory (memfd) and is read through its name below /proc.
 * Tried as it is, then as the one slot of the first version: magic, version and
 * length are made right, then the checksum too, so that every further check is
 * met.  Then they hurt a file of four slots, anywhere.  What is read is whole, and
 * a reader with less room is refused.
 */
#include "host/statefile.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/buf.h"

#define HEADER_BYTES	16
#define FILE_BYTES		16384

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mg_status
try_file(const uint8_t *bytes, size_t size)
{
	static int	fd = -1;
	static char path[64];
	uint8_t    *body = mg_alloc(size);
	size_t		len = 0;
	mg_status	status;

	if (fd < 0)
	{
		fd = memfd_create("statefile", MFD_CLOEXEC);
		MG_ASSERT(fd >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	MG_ASSERT(ftruncate(fd, 0) == 0);
	MG_ASSERT(size == 0 || pwrite(fd, bytes, size, 0) == (ssize_t) size);

	/* No room for more than the file has: the sanitizer watches what is written behind it. */
	status = mg_statefile_read(path, body, size, &len);
	if (status == MG_OK)
	{
		MG_ASSERT(len + HEADER_BYTES <= size && len <= MG_STATEFILE_BYTES_MAX);
		MG_ASSERT(len == 0 || memmem(bytes, size, body, len) != NULL);
		if (len > 0)
			MG_ASSERT(mg_statefile_read(path, body, len - 1, &len) == MG_E_TOO_BIG);
	}
	else
		MG_ASSERT(status == MG_E_FORMAT || status == MG_E_VERSION || status == MG_E_CHECKSUM ||
				  status == MG_E_TOO_BIG);
	mg_free(body);
	return status;
}

/* A file of four slots, of which the bytes overwrite something: { u16 where, u8 how many, what } */
static void
try_slots(const uint8_t *data, size_t size)
{
	static uint8_t whole[FILE_BYTES];
	static uint8_t hurt[FILE_BYTES];
	char		path[64];
	uint8_t		body[8];
	size_t		len = 0;
	int			fd;

	if (whole[0] == 0)
	{
		snprintf(path, sizeof(path), "/tmp/fuzz_statefile.%d", (int) getpid());
		MG_ASSERT(mg_statefile_write(path, "older", 5) == MG_OK && mg_statefile_write(path, "old", 3) == MG_OK &&
				  mg_statefile_write(path, "new", 3) == MG_OK);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		MG_ASSERT(fd >= 0 && read(fd, whole, sizeof(whole)) == FILE_BYTES);
		close(fd);
		unlink(path);
	}
	memcpy(hurt, whole, sizeof(hurt));
	while (size > 3)
	{
		size_t		at = mg_load_u16(data) % FILE_BYTES;
		size_t		n = data[2];

		data += 3;
		size -= 3;
		for (; n > 0 && size > 0 && at < FILE_BYTES; n--, size--)
			hurt[at++] ^= *data++;
	}
	fd = memfd_create("slots", MFD_CLOEXEC);
	MG_ASSERT(fd >= 0 && write(fd, hurt, sizeof(hurt)) == FILE_BYTES);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

	/* A checksum can be forged, so what is read is not judged here: test_host_statefile does that. */
	if (mg_statefile_read(path, body, sizeof(body), &len) == MG_OK)
		MG_ASSERT(len <= sizeof(body));
	close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t    *bytes;
	size_t		body;

	(void) try_file(data, size);
	try_slots(data, size);
	if (size < HEADER_BYTES)
		return 0;
	bytes = mg_alloc(size);
	memcpy(bytes, data, size);
	body = size - HEADER_BYTES;
	memcpy(bytes, "MGST", 4);
	mg_store_u32(bytes + 4, 1);
	(void) try_file(bytes, size);
	mg_store_u32(bytes + 8, (uint32_t) body);
	(void) try_file(bytes, size);
	mg_store_u32(bytes + 12, mg_crc32c(0, bytes + HEADER_BYTES, body));
	MG_ASSERT(try_file(bytes, size) == (body > MG_STATEFILE_BYTES_MAX ? MG_E_FORMAT : MG_OK));
	mg_free(bytes);
	return 0;
}
