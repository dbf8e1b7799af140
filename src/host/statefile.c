/*
 * host/statefile.c - a small file whose content is replaced as a whole.
 *
 * How: a file has four slots of the same size.  Even and odd generations of its
 * content take turns: generation g lies in the slots g % 2 and g % 2 + 2, twice
 * the same.  Writing overwrites the older generation in place and costs one
 * fdatasync: the blocks are there already, so no journal of the file system has
 * to be waited for (1.3 ms became 0.07, and an election waits for three of them).
 * A crash tears the older generation at most; the checksums tell.
 *
 * Why twice.  What was torn and what the disk has lost look alike, and a node
 * must not go back to a promise of before its last one without noticing.  So one
 * copy that is damaged is made good by the other, and the generation before is
 * taken only when both copies of it are whole: damage to two slots that are not
 * just the pair that a crash can have torn is an error.  The pairs interleave,
 * so a stretch of the file that was lost always hits both.  What is left: two
 * damages in just these two slots.
 *
 * The file is made (again) by a new one beside it, fsync, rename and fsync of
 * the directory: when it is not there, is of the first version (one slot), has
 * a damaged copy, or its slots are too small.  One writer per path: two would
 * share the temporary file.
 *
 * A failed write leaves the content of before, or the new one: as a crash there
 * would.  MG_E_IO says that the caller must rely on neither; the next write that
 * succeeds settles it.
 *
 * Rejected: only a new file each time (two flushes, two commits of the file
 * system's journal, tens of milliseconds when others write); two slots without
 * copies (a flipped bit in the newer one would silently bring the older back).
 */
#include "host/statefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"

#define STATEFILE_MAGIC			0x5453474du /* "MGST" */
#define STATEFILE_VERSION_1		1	/* one slot, without generation */
#define STATEFILE_VERSION		2
#define HEADER_1_BYTES			16
#define HEADER_BYTES			32
#define SLOTS					4
#define SLOT_ALIGN				4096
#define SLOT_BYTES_MAX			(MG_STATEFILE_BYTES_MAX + SLOT_ALIGN)
#define PATH_BYTES_MAX			4096

/* A file as it was read: what it says, and which of its slots say so. */
typedef struct content
{
	uint8_t    *bytes;			/* of the whole file */
	size_t		size;
	bool		first_version;
	size_t		slot_bytes;
	uint64_t	generations[SLOTS]; /* 0: not whole */
	int			newest;			/* a slot with the content */
} content;

static void
close_keep_errno(int fd)
{
	int			saved = errno;

	close(fd);
	errno = saved;
}

/* All or nothing: so small a write is only ever cut by a full disk. */
static bool
write_all(int fd, const void *bytes, size_t len, off_t at)
{
	ssize_t		n;

	do
		n = pwrite(fd, bytes, len, at);
	while (n < 0 && errno == EINTR);
	if (n >= 0 && (size_t) n != len)
		errno = ENOSPC;
	return n >= 0 && (size_t) n == len;
}

/* Up to `cap` bytes, fewer at the end of the file; -1 with errno. */
static ssize_t
read_up_to(int fd, void *to, size_t cap)
{
	size_t		got = 0;

	while (got < cap)
	{
		ssize_t		n = pread(fd, (uint8_t *) to + got, cap - got, (off_t) got);

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

/* ------------------------------------------------------------------- slots */

/* header: u32 magic, u32 version, u32 slot's bytes, u32 len, u64 generation, u32 0, u32 crc of all before and the body */
static void
slot_encode(uint8_t *slot, size_t slot_bytes, uint64_t generation, const void *body, size_t len)
{
	memset(slot, 0, slot_bytes);
	mg_store_u32(slot, STATEFILE_MAGIC);
	mg_store_u32(slot + 4, STATEFILE_VERSION);
	mg_store_u32(slot + 8, (uint32_t) slot_bytes);
	mg_store_u32(slot + 12, (uint32_t) len);
	mg_store_u64(slot + 16, generation);
	if (len > 0)
		memcpy(slot + HEADER_BYTES, body, len);
	mg_store_u32(slot + 28, mg_crc32c(mg_crc32c(0, slot, 28), slot + HEADER_BYTES, len));
}

/* Its generation, 0 if it is not whole. */
static uint64_t
slot_check(const uint8_t *slot, size_t slot_bytes, int place)
{
	uint32_t	len = mg_load_u32(slot + 12);
	uint64_t	generation = mg_load_u64(slot + 16);

	if (mg_load_u32(slot) != STATEFILE_MAGIC || mg_load_u32(slot + 4) != STATEFILE_VERSION ||
		mg_load_u32(slot + 8) != slot_bytes || len > slot_bytes - HEADER_BYTES || len > MG_STATEFILE_BYTES_MAX ||
		generation % 2 != (uint64_t) place % 2 ||
		mg_load_u32(slot + 28) != mg_crc32c(mg_crc32c(0, slot, 28), slot + HEADER_BYTES, len))
		return 0;
	return generation;
}

/* Which slot has the content?  See above for what is damage and what a crash leaves. */
static mg_status
judge_slots(content *c)
{
	int			other;

	c->newest = 0;
	for (int s = 0; s < SLOTS; s++)
	{
		c->generations[s] = slot_check(c->bytes + (size_t) s * c->slot_bytes, c->slot_bytes, s);
		if (c->generations[s] > c->generations[c->newest])
			c->newest = s;
	}
	if (c->generations[c->newest] == 0)
		return MG_E_CHECKSUM;
	if (c->generations[c->newest] == c->generations[(c->newest + 2) % SLOTS])
		return MG_OK;
	other = (c->newest + 1) % SLOTS;
	return c->generations[other] == c->generations[c->newest] - 1 &&
		c->generations[(other + 2) % SLOTS] == c->generations[other] ? MG_OK : MG_E_CHECKSUM;
}

/* The first version's only slot: u32 magic, u32 version, u32 len, u32 crc of the body, body. */
static mg_status
judge_first_version(const content *c)
{
	uint32_t	len = mg_load_u32(c->bytes + 8);

	if (len > MG_STATEFILE_BYTES_MAX || c->size != HEADER_1_BYTES + (size_t) len)
		return MG_E_FORMAT;
	return mg_crc32c(0, c->bytes + HEADER_1_BYTES, len) == mg_load_u32(c->bytes + 12) ? MG_OK : MG_E_CHECKSUM;
}

static mg_status
judge(content *c)
{
	uint32_t	version = c->size >= HEADER_1_BYTES ? mg_load_u32(c->bytes + 4) : 0;
	bool		magic = c->size >= HEADER_1_BYTES && mg_load_u32(c->bytes) == STATEFILE_MAGIC;
	bool		slots = c->size > 0 && c->size % ((size_t) SLOTS * SLOT_ALIGN) == 0 && c->size <= (size_t) SLOTS * SLOT_BYTES_MAX;

	c->first_version = magic && version == STATEFILE_VERSION_1 &&
		c->size == HEADER_1_BYTES + (size_t) mg_load_u32(c->bytes + 8);
	if (c->first_version)
		return judge_first_version(c);
	if (magic && version > STATEFILE_VERSION && !slots)
		return MG_E_VERSION;
	if (!slots)
		return MG_E_FORMAT;
	c->slot_bytes = c->size / SLOTS;
	return judge_slots(c) == MG_OK ? MG_OK : magic && version > STATEFILE_VERSION ? MG_E_VERSION : MG_E_CHECKSUM;
}

/* The caller frees content->bytes, also after an error. */
static mg_status
read_content(int fd, content *c)
{
	size_t		cap = (size_t) SLOTS * SLOT_BYTES_MAX + 1;
	ssize_t		n;
	struct stat st;

	memset(c, 0, sizeof(*c));
	if (fstat(fd, &st) != 0)
		return MG_E_IO;
	if ((uint64_t) st.st_size >= cap)
		return MG_E_FORMAT;
	c->bytes = mg_alloc((size_t) st.st_size + 1);
	n = read_up_to(fd, c->bytes, (size_t) st.st_size + 1);
	if (n < 0)
		return MG_E_IO;
	c->size = (size_t) n;
	return judge(c);
}

/* ------------------------------------------------------------------- a new file */

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

static mg_status
write_new(const char *path, const uint8_t *bytes, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return MG_E_IO;
	if (!write_all(fd, bytes, len, 0) || fsync(fd) != 0)
	{
		close_keep_errno(fd);
		return MG_E_IO;
	}
	return close(fd) == 0 ? MG_OK : MG_E_IO;
}

/* All four slots with the same content, so that the next writes find their blocks. */
static mg_status
make_file(const char *path, const void *body, size_t len)
{
	char		temporary[PATH_BYTES_MAX];
	size_t		slot_bytes = (HEADER_BYTES + len + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
	uint8_t    *bytes;
	mg_status	status;
	int			n = snprintf(temporary, sizeof(temporary), "%s.tmp", path);

	if (n < 0 || (size_t) n >= sizeof(temporary))
	{
		errno = ENAMETOOLONG;
		return MG_E_IO;
	}
	bytes = mg_alloc(SLOTS * slot_bytes);
	for (int s = 0; s < SLOTS; s++)
		slot_encode(bytes + (size_t) s * slot_bytes, slot_bytes, s % 2 == 0 ? 2 : 1, body, len);
	status = write_new(temporary, bytes, SLOTS * slot_bytes);
	mg_free(bytes);
	if (status != MG_OK || rename(temporary, path) != 0)
	{
		int			saved = errno;

		unlink(temporary);
		errno = saved;
		return MG_E_IO;
	}
	return sync_directory_of(path);
}

/* ------------------------------------------------------------------- in place */

/* False: the file must be made anew. */
static bool
fits_in_place(const content *c, mg_status status, size_t len)
{
	if (status != MG_OK || c->first_version || len > c->slot_bytes - HEADER_BYTES)
		return false;
	for (int s = 0; s < SLOTS; s++)
		if (c->generations[s] == 0 || c->generations[s] != c->generations[(s + 2) % SLOTS])
			return false;
	return c->generations[c->newest] < UINT64_MAX;
}

/* Overwrites the older generation. */
static mg_status
write_in_place(int fd, const content *c, const void *body, size_t len)
{
	uint64_t	generation = c->generations[c->newest] + 1;
	uint8_t    *slot = mg_alloc(c->slot_bytes);
	bool		ok = true;

	slot_encode(slot, c->slot_bytes, generation, body, len);
	for (uint64_t s = generation % 2; s < SLOTS && ok; s += 2)
		ok = write_all(fd, slot, c->slot_bytes, (off_t) (s * c->slot_bytes));
	mg_free(slot);
	return ok && fdatasync(fd) == 0 ? MG_OK : MG_E_IO;
}

mg_status
mg_statefile_write(const char *path, const void *body, size_t len)
{
	content		c = {0};
	mg_status	status;
	int			fd;

	if (len > MG_STATEFILE_BYTES_MAX)
		return MG_E_TOO_BIG;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
	{
		status = read_content(fd, &c);
		if (fits_in_place(&c, status, len))
		{
			status = write_in_place(fd, &c, body, len);
			mg_free(c.bytes);
			close_keep_errno(fd);
			return status;
		}
		mg_free(c.bytes);
		close(fd);
	}
	return make_file(path, body, len);
}

mg_status
mg_statefile_read(const char *path, void *body, size_t cap, size_t *len)
{
	content		c;
	mg_status	status;
	const uint8_t *from;
	int			fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? MG_E_NOT_FOUND : MG_E_IO;
	status = read_content(fd, &c);
	if (status == MG_OK)
	{
		from = c.bytes + (c.first_version ? 0 : (size_t) c.newest * c.slot_bytes);
		*len = mg_load_u32(from + (c.first_version ? 8 : 12));
		from += c.first_version ? HEADER_1_BYTES : HEADER_BYTES;
		if (*len > cap)
			status = MG_E_TOO_BIG;
		else if (*len > 0)
			memcpy(body, from, *len);
	}
	mg_free(c.bytes);
	close_keep_errno(fd);
	return status;
}
