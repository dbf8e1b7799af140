/*
 * host/home.c - see home.h.
 *
 * The inode number alone is not enough: on two file systems that were made and
 * filled in the same way it is the same.  The time of birth has nanoseconds.
 * Where the file system does not tell it, it is 0 and not compared.  The number
 * of the device is left out: it may change with a restart of the machine.
 */
#include "host/home.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/buf.h"
#include "host/statefile.h"

#define NOTE_NAME		"home"
#define NOTE_BYTES		16
#define PATH_BYTES_MAX	4096

typedef struct place
{
	uint64_t	inode;
	uint64_t	born_ns;
} place;

static mg_status
place_of(const char *dir, place *out)
{
	struct statx st;

	if (statx(AT_FDCWD, dir, 0, STATX_INO | STATX_BTIME, &st) != 0)
		return MG_E_IO;
	out->inode = st.stx_ino;
	out->born_ns = 0;
	if ((st.stx_mask & STATX_BTIME) != 0)
		out->born_ns = (uint64_t) st.stx_btime.tv_sec * UINT64_C(1000000000) + st.stx_btime.tv_nsec;
	return MG_OK;
}

static mg_status
note_path(char to[PATH_BYTES_MAX], const char *dir)
{
	int			n = snprintf(to, PATH_BYTES_MAX, "%s/%s", dir, NOTE_NAME);

	if (n > 0 && n < PATH_BYTES_MAX)
		return MG_OK;
	errno = ENAMETOOLONG;
	return MG_E_IO;
}

mg_status
mg_home_look(const char *dir, mg_home *out)
{
	char		path[PATH_BYTES_MAX];
	uint8_t		note[NOTE_BYTES];
	size_t		len;
	place		here;
	mg_status	status;

	*out = MG_HOME_NONE;
	if (note_path(path, dir) != MG_OK || place_of(dir, &here) != MG_OK)
		return MG_E_IO;
	status = mg_statefile_read(path, note, sizeof(note), &len);
	if (status == MG_E_IO)
		return MG_E_IO;
	if (status == MG_OK && len == NOTE_BYTES)
	{
		uint64_t	inode = mg_load_u64(note);
		uint64_t	born_ns = mg_load_u64(note + 8);

		*out = inode == here.inode && (born_ns == here.born_ns || born_ns == 0 || here.born_ns == 0) ?
			MG_HOME_OWN : MG_HOME_COPY;
	}
	return MG_OK;
}

mg_status
mg_home_settle(const char *dir)
{
	char		path[PATH_BYTES_MAX];
	uint8_t		note[NOTE_BYTES];
	place		here;

	if (note_path(path, dir) != MG_OK || place_of(dir, &here) != MG_OK)
		return MG_E_IO;
	mg_store_u64(note, here.inode);
	mg_store_u64(note + 8, here.born_ns);
	return mg_statefile_write(path, note, sizeof(note));
}
