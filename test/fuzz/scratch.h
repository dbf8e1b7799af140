/*
 * test/fuzz/scratch.h - a directory of a fuzz target's own, in memory if there
 * is /dev/shm, else below TMPDIR; emptied when asked, gone at exit.
 */
#ifndef MG_TEST_SCRATCH_H
#define MG_TEST_SCRATCH_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base.h"

static char scratch_dir[256];

/* Removes the files in it. */
static inline void
scratch_empty(void)
{
	DIR		   *dir = opendir(scratch_dir);
	struct dirent *entry;
	char		path[600];

	MG_ASSERT(dir != NULL);
	while ((entry = readdir(dir)) != NULL)
	{
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", scratch_dir, entry->d_name);
		MG_ASSERT(unlink(path) == 0);
	}
	closedir(dir);
}

static inline void
scratch_remove(void)
{
	scratch_empty();
	rmdir(scratch_dir);
}

static inline void
scratch_make(void)
{
	const char *tmp = getenv("TMPDIR");

	if (scratch_dir[0] != '\0')
		return;
	snprintf(scratch_dir, sizeof(scratch_dir), "/dev/shm/mgfuzz.XXXXXX");
	if (mkdtemp(scratch_dir) == NULL)
	{
		snprintf(scratch_dir, sizeof(scratch_dir), "%.200s/mgfuzz.XXXXXX", tmp != NULL ? tmp : "/tmp");
		MG_ASSERT(mkdtemp(scratch_dir) != NULL);
	}
	MG_ASSERT(atexit(scratch_remove) == 0);
}

static inline void
scratch_write(const char *path, const void *bytes, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	MG_ASSERT(fd >= 0);
	MG_ASSERT(write(fd, bytes, len) == (ssize_t) len);
	MG_ASSERT(close(fd) == 0);
}

#endif							/* MG_TEST_SCRATCH_H */
