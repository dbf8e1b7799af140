/*
 * host/statefile.c - atomic, durable replacement of a small file.
 *
 * rename is atomic for those who look, fsync of file and directory makes it
 * so for a machine that loses power.  The temporary file lies beside the real
 * one, in the same file system; a left-over of a crash is simply overwritten.
 * One writer per path: two would share the temporary file.
 *
 * A failed write never touches the old file.  If only the last step, the
 * directory's fsync, fails, the new file is seen but perhaps not durable: that
 * is MG_E_IO too, and the caller must not rely on either.
 */
#include "host/statefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/buf.h"

#define STATEFILE_MAGIC			0x5453474du /* "MGST" */
#define STATEFILE_VERSION		1
#define STATEFILE_HEADER_BYTES	16
#define PATH_BYTES_MAX			4096

static void
close_keep_errno(int fd)
{
	int			saved = errno;

	close(fd);
	errno = saved;
}

static mg_status
write_file(const char *path, const uint8_t *header, const void *body, size_t len)
{
	struct iovec parts[2] = {
		{.iov_base = (void *) (uintptr_t) header, .iov_len = STATEFILE_HEADER_BYTES},
		{.iov_base = (void *) (uintptr_t) body, .iov_len = len},
	};
	ssize_t		want = (ssize_t) (STATEFILE_HEADER_BYTES + len);
	ssize_t		n;
	int			fd;

	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return MG_E_IO;
	do
		n = writev(fd, parts, 2);
	while (n < 0 && errno == EINTR);
	if (n >= 0 && n != want)
	{
		errno = ENOSPC;			/* so small a write is only ever cut by a full disk */
		n = -1;
	}
	if (n < 0 || fsync(fd) != 0)
	{
		close_keep_errno(fd);
		return MG_E_IO;
	}
	return close(fd) == 0 ? MG_OK : MG_E_IO;
}

static mg_status
sync_directory_of(const char *path)
{
	char		dir[PATH_BYTES_MAX];
	const char *slash = strrchr(path, '/');
	int			fd;

	if (slash == NULL)
		strcpy(dir, ".");
	else if (slash == path)
		strcpy(dir, "/");
	else
	{
		memcpy(dir, path, (size_t) (slash - path));
		dir[slash - path] = '\0';
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return MG_E_IO;
	if (fsync(fd) != 0)
	{
		close_keep_errno(fd);
		return MG_E_IO;
	}
	close(fd);
	return MG_OK;
}

mg_status
mg_statefile_write(const char *path, const void *body, size_t len)
{
	uint8_t		header[STATEFILE_HEADER_BYTES];
	char		temporary[PATH_BYTES_MAX];
	int			n;

	if (len > MG_STATEFILE_BYTES_MAX)
		return MG_E_TOO_BIG;
	n = snprintf(temporary, sizeof(temporary), "%s.tmp", path);
	if (n < 0 || (size_t) n >= sizeof(temporary))
	{
		errno = ENAMETOOLONG;
		return MG_E_IO;
	}

	mg_store_u32(header, STATEFILE_MAGIC);
	mg_store_u32(header + 4, STATEFILE_VERSION);
	mg_store_u32(header + 8, (uint32_t) len);
	mg_store_u32(header + 12, mg_crc32c(0, body, len));

	if (write_file(temporary, header, body, len) != MG_OK ||
		rename(temporary, path) != 0)
	{
		int			saved = errno;

		unlink(temporary);
		errno = saved;
		return MG_E_IO;
	}
	return sync_directory_of(path);
}

/* Reads up to `cap` bytes, fewer at the end of the file; -1 with errno. */
static ssize_t
read_up_to(int fd, void *to, size_t cap)
{
	size_t		got = 0;

	while (got < cap)
	{
		ssize_t		n = read(fd, (uint8_t *) to + got, cap - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		got += (size_t) n;
	}
	return (ssize_t) got;
}

static mg_status
read_checked(int fd, void *body, size_t cap, size_t *len)
{
	uint8_t		header[STATEFILE_HEADER_BYTES];
	uint8_t		beyond;
	uint32_t	body_len;
	ssize_t		n;

	n = read_up_to(fd, header, sizeof(header));
	if (n < 0)
		return MG_E_IO;
	if (n != sizeof(header) || mg_load_u32(header) != STATEFILE_MAGIC)
		return MG_E_FORMAT;
	if (mg_load_u32(header + 4) != STATEFILE_VERSION)
		return MG_E_VERSION;
	body_len = mg_load_u32(header + 8);
	if (body_len > MG_STATEFILE_BYTES_MAX)
		return MG_E_FORMAT;
	if (body_len > cap)
		return MG_E_TOO_BIG;

	n = read_up_to(fd, body, body_len);
	if (n < 0)
		return MG_E_IO;
	if ((size_t) n != body_len)
		return MG_E_FORMAT;
	n = read_up_to(fd, &beyond, 1);
	if (n != 0)
		return n < 0 ? MG_E_IO : MG_E_FORMAT;
	if (mg_crc32c(0, body, body_len) != mg_load_u32(header + 12))
		return MG_E_CHECKSUM;
	*len = body_len;
	return MG_OK;
}

mg_status
mg_statefile_read(const char *path, void *body, size_t cap, size_t *len)
{
	mg_status	status;
	int			fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? MG_E_NOT_FOUND : MG_E_IO;
	status = read_checked(fd, body, cap, len);
	close_keep_errno(fd);
	return status;
}
