/*
 * test_host_statefile.c - the small file is whole, old or new, or refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "host/clock.h"
#include "host/statefile.h"

typedef struct place
{
	char		dir[64];
	char		path[128];
	char		temporary[160];
} place;

static int
set_up(void **state)
{
	place	   *p = calloc(1, sizeof(*p));

	strcpy(p->dir, "/tmp/mg_statefile_XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/state", p->dir);
	snprintf(p->temporary, sizeof(p->temporary), "%s.tmp", p->path);
	*state = p;
	return 0;
}

static int
tear_down(void **state)
{
	place	   *p = *state;

	unlink(p->path);
	rmdir(p->temporary);
	unlink(p->temporary);
	rmdir(p->dir);
	free(p);
	return 0;
}

static size_t
slurp(const char *path, uint8_t *bytes, size_t cap)
{
	int			fd = open(path, O_RDONLY);
	ssize_t		n;

	assert_true(fd >= 0);
	n = read(fd, bytes, cap);
	assert_true(n >= 0);
	close(fd);
	return (size_t) n;
}

static void
spill(const char *path, const uint8_t *bytes, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t) len);
	close(fd);
}

static void
what_was_written_last_is_read(void **state)
{
	place	   *p = *state;
	uint8_t		body[MG_STATEFILE_BYTES_MAX];
	uint8_t		got[MG_STATEFILE_BYTES_MAX];
	size_t		lens[] = {0, 1, 500, MG_STATEFILE_BYTES_MAX, 3};
	size_t		len;

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
	{
		assert_int_equal(mg_random_bytes(body, lens[i]), MG_OK);
		assert_int_equal(mg_statefile_write(p->path, body, lens[i]), MG_OK);
		assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
		assert_int_equal(len, lens[i]);
		assert_memory_equal(got, body, len);
	}
	assert_int_equal(access(p->temporary, F_OK), -1);
}

static void
missing_file_is_not_found(void **state)
{
	place	   *p = *state;
	uint8_t		got[8];
	size_t		len;

	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_NOT_FOUND);
}

/* Slots of one page, as short bodies have them. */
#define PAGE		4096
#define SECTOR		512
#define FILE_BYTES	(4 * PAGE)
#define HEADER		32

/* Writes "old!", then "new!", and reads the file as it is then. */
static void
old_then_new(place *p, uint8_t *file)
{
	assert_int_equal(mg_statefile_write(p->path, "first", 5), MG_OK);
	assert_int_equal(mg_statefile_write(p->path, "old!", 4), MG_OK);
	assert_int_equal(mg_statefile_write(p->path, "new!", 4), MG_OK);
	assert_int_equal(slurp(p->path, file, FILE_BYTES + 1), FILE_BYTES);
}

/* The new content or an error, never an older one. */
static bool
reads_new(place *p, const uint8_t *file, size_t size)
{
	char		got[64] = {0};
	size_t		len;
	mg_status	status;

	spill(p->path, file, size);
	status = mg_statefile_read(p->path, got, sizeof(got), &len);
	if (status != MG_OK)
		return false;
	assert_int_equal(len, 4);
	assert_memory_equal(got, "new!", 4);
	return true;
}

static void
a_flipped_bit_is_made_good(void **state)
{
	place	   *p = *state;
	uint8_t		file[FILE_BYTES + 1];

	old_then_new(p, file);
	for (int slot = 0; slot < 4; slot++)
		for (size_t bit = 0; bit < (HEADER + 4) * 8; bit++)
		{
			uint8_t    *at = file + slot * PAGE + bit / 8;

			*at ^= (uint8_t) (1 << bit % 8);
			assert_true(reads_new(p, file, FILE_BYTES));

			/* And the next write mends it. */
			if (bit % 37 == 0)
			{
				uint8_t		mended[FILE_BYTES + 1];

				assert_int_equal(mg_statefile_write(p->path, "new!", 4), MG_OK);
				assert_int_equal(slurp(p->path, mended, sizeof(mended)), FILE_BYTES);
				for (int s = 0; s < 4; s++)
				{
					mended[s * PAGE] ^= 1;
					assert_true(reads_new(p, mended, FILE_BYTES));
					mended[s * PAGE] ^= 1;
				}
			}
			*at ^= (uint8_t) (1 << bit % 8);
		}
}

static void
a_lost_stretch_never_brings_the_old_back(void **state)
{
	place	   *p = *state;
	uint8_t		file[FILE_BYTES + 1];
	uint8_t		lost[FILE_BYTES];
	int			refused = 0;

	old_then_new(p, file);
	for (size_t from = 0; from < FILE_BYTES; from += SECTOR)
		for (size_t to = from + SECTOR; to <= FILE_BYTES; to += SECTOR)
		{
			memcpy(lost, file, FILE_BYTES);
			memset(lost + from, 0, to - from);
			refused += !reads_new(p, lost, FILE_BYTES);
		}
	assert_true(refused > 0);
	for (size_t cut = 0; cut < FILE_BYTES; cut += cut < 128 ? 1 : SECTOR / 2)
		assert_false(reads_new(p, file, cut));
	file[FILE_BYTES] = 0;
	assert_false(reads_new(p, file, FILE_BYTES + 1));
}

static void
another_version_is_named(void **state)
{
	place	   *p = *state;
	uint8_t		file[FILE_BYTES + 1];
	char		got[8];
	size_t		len;

	old_then_new(p, file);
	for (int s = 0; s < 4; s++)
		file[s * PAGE + 4] = 3;
	spill(p->path, file, FILE_BYTES);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_VERSION);
	file[4] = 3;
	spill(p->path, file, 100);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_VERSION);
}

/* Any of the sectors that a write touches may be there or not when the power goes. */
static void
a_torn_write_leaves_the_old_or_the_new(void **state)
{
	place	   *p = *state;
	uint8_t		was[FILE_BYTES + 1],
				is[FILE_BYTES + 1],
				torn[FILE_BYTES];
	uint8_t		old[2000],
				new[2000],
				got[2000];
	size_t		len;
	int			olds = 0,
				news = 0;
	uint64_t	rng = 7;

	memset(old, 'o', sizeof(old));
	memset(new, 'n', sizeof(new));
	for (int generation = 0; generation < 4; generation++)
	{
		assert_int_equal(mg_statefile_write(p->path, old, sizeof(old)), MG_OK);
		assert_int_equal(slurp(p->path, was, sizeof(was)), FILE_BYTES);
		assert_int_equal(mg_statefile_write(p->path, new, sizeof(new)), MG_OK);
		assert_int_equal(slurp(p->path, is, sizeof(is)), FILE_BYTES);
		for (int k = 0; k < 1000; k++)
		{
			uint64_t	there;

			rng += UINT64_C(0x9e3779b97f4a7c15);
			there = mg_mix64(rng);
			if (k % 4 == 0)
				there |= mg_mix64(there) | UINT64_C(0xff) << 8 * (k / 4 % 4);	/* one copy is mostly whole */
			for (size_t s = 0; s < FILE_BYTES / SECTOR; s++)
				memcpy(torn + s * SECTOR, (there >> s & 1 ? is : was) + s * SECTOR, SECTOR);
			spill(p->path, torn, FILE_BYTES);
			assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
			assert_int_equal(len, sizeof(got));
			if (got[0] == 'o')
				olds++;
			else
				news++;
			assert_memory_equal(got, got[0] == 'o' ? old : new, len);
		}

		/* The next write goes on from what was torn, through an odd number of generations. */
		assert_int_equal(mg_statefile_write(p->path, new, sizeof(new)), MG_OK);
		assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
		assert_memory_equal(got, new, len);
		for (int k = 0; k < generation; k++)
			assert_int_equal(mg_statefile_write(p->path, new, sizeof(new)), MG_OK);
	}
	assert_true(olds > 0 && news > 0);
}

/* The same file stays in its place: no new one for each write. */
static void
a_write_goes_in_place_while_it_fits(void **state)
{
	place	   *p = *state;
	static uint8_t body[3 * PAGE];
	struct stat first,
				now;

	assert_int_equal(mg_statefile_write(p->path, body, 1), MG_OK);
	assert_int_equal(stat(p->path, &first), 0);
	assert_int_equal(mg_statefile_write(p->path, body, PAGE - HEADER), MG_OK);
	assert_int_equal(stat(p->path, &now), 0);
	assert_int_equal(now.st_ino, first.st_ino);
	assert_int_equal(mg_statefile_write(p->path, body, PAGE - HEADER + 1), MG_OK);
	assert_int_equal(stat(p->path, &now), 0);
	assert_int_equal(now.st_size, 2 * FILE_BYTES);
}

static void
files_of_the_first_version_are_read(void **state)
{
	place	   *p = *state;
	uint8_t		file[64];
	char		got[64];
	size_t		len;
	size_t		size = 16 + 22;

	memcpy(file, "MGST", 4);
	mg_store_u32(file + 4, 1);
	mg_store_u32(file + 8, 22);
	mg_store_u32(file + 12, mg_crc32c(0, "the view and the epoch", 22));
	memcpy(file + 16, "the view and the epoch", 22);
	spill(p->path, file, size);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
	assert_int_equal(len, 22);
	assert_memory_equal(got, "the view and the epoch", 22);
	for (size_t bit = 0; bit < size * 8; bit++)
	{
		file[bit / 8] ^= (uint8_t) (1 << bit % 8);
		spill(p->path, file, size);
		assert_int_not_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
		file[bit / 8] ^= (uint8_t) (1 << bit % 8);
	}
	for (size_t cut = 0; cut < size; cut++)
	{
		spill(p->path, file, cut);
		assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_FORMAT);
	}
	spill(p->path, file, size + 1);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_FORMAT);
	spill(p->path, file, size);
	assert_int_equal(mg_statefile_write(p->path, "next", 4), MG_OK);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
	assert_int_equal(len, 4);
	assert_memory_equal(got, "next", 4);
}

static void
limits_are_kept(void **state)
{
	place	   *p = *state;
	static uint8_t big[MG_STATEFILE_BYTES_MAX + 1];
	size_t		len;

	assert_int_equal(mg_statefile_write(p->path, big, sizeof(big)), MG_E_TOO_BIG);
	assert_int_equal(access(p->path, F_OK), -1);
	assert_int_equal(mg_statefile_write(p->path, "12345678", 8), MG_OK);
	assert_int_equal(mg_statefile_read(p->path, big, 7, &len), MG_E_TOO_BIG);
	assert_int_equal(mg_statefile_read(p->path, big, 8, &len), MG_OK);
}

static void
failed_write_leaves_the_old_file(void **state)
{
	place	   *p = *state;
	static const char new[PAGE];
	char		got[8];
	size_t		len;

	assert_int_equal(mg_statefile_write(p->path, "old", 3), MG_OK);
	assert_int_equal(mkdir(p->temporary, 0700), 0);	/* stands where the new one would be written */
	errno = 0;
	assert_int_equal(mg_statefile_write(p->path, new, sizeof(new)), MG_E_IO);
	assert_int_equal(errno, EISDIR);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
	assert_int_equal(len, 3);
	assert_memory_equal(got, "old", 3);
}

static void
left_over_of_a_crash_is_no_harm(void **state)
{
	place	   *p = *state;
	char		got[8];
	size_t		len;

	assert_int_equal(mg_statefile_write(p->path, "old", 3), MG_OK);
	spill(p->temporary, (const uint8_t *) "half of a much longer new file", 30);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
	assert_memory_equal(got, "old", 3);
	assert_int_equal(mg_statefile_write(p->path, "new", 3), MG_OK);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
	assert_int_equal(len, 3);
	assert_memory_equal(got, "new", 3);
}

static void
clocks_go_forward_and_chance_differs(void **state)
{
	int64_t		before = mg_clock_monotonic_us();
	uint8_t		a[1000];
	uint8_t		b[1000];

	(void) state;
	assert_int_equal(mg_random_bytes(a, sizeof(a)), MG_OK);
	assert_int_equal(mg_random_bytes(b, sizeof(b)), MG_OK);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_true(mg_clock_monotonic_us() >= before);
	assert_true(mg_clock_wall_us() > INT64_C(1600000000000000));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_written_last_is_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(missing_file_is_not_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_flipped_bit_is_made_good, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_stretch_never_brings_the_old_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(another_version_is_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_torn_write_leaves_the_old_or_the_new, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_write_goes_in_place_while_it_fits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(files_of_the_first_version_are_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(limits_are_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(failed_write_leaves_the_old_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(left_over_of_a_crash_is_no_harm, set_up, tear_down),
		cmocka_unit_test(clocks_go_forward_and_chance_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
