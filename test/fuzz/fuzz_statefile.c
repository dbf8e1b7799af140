/*
 * test/fuzz/fuzz_statefile.c - arbitrary bytes as a state file.
 *
 * The file lies in memory (memfd) and is read through its name below /proc.
 * Tried as it is; then magic, version and length are made right, then the
 * checksum too, so that every further check is met.  What is read is the body,
 * whole, and a reader with less room is refused.
 */
#include "host/statefile.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/buf.h"

#define HEADER_BYTES	16

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
		MG_ASSERT(len + HEADER_BYTES == size && len <= MG_STATEFILE_BYTES_MAX);
		MG_ASSERT(len == 0 || memcmp(body, bytes + HEADER_BYTES, len) == 0);
		if (len > 0)
			MG_ASSERT(mg_statefile_read(path, body, len - 1, &len) == MG_E_TOO_BIG);
	}
	else
		MG_ASSERT(status == MG_E_FORMAT || status == MG_E_VERSION || status == MG_E_CHECKSUM ||
				  status == MG_E_TOO_BIG);
	mg_free(body);
	return status;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t    *bytes;
	size_t		body;

	(void) try_file(data, size);
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
