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

static void
every_flipped_bit_is_noticed(void **state)
{
	place	   *p = *state;
	uint8_t		file[64];
	uint8_t		got[64];
	size_t		size;
	size_t		len;

	assert_int_equal(mg_statefile_write(p->path, "the view and the epoch", 22), MG_OK);
	size = slurp(p->path, file, sizeof(file));
	for (size_t bit = 0; bit < size * 8; bit++)
	{
		file[bit / 8] ^= (uint8_t) (1 << bit % 8);
		spill(p->path, file, size);
		assert_int_not_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_OK);
		file[bit / 8] ^= (uint8_t) (1 << bit % 8);
	}
	file[4]++;
	spill(p->path, file, size);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_VERSION);
	file[4]--;
	file[20]++;
	spill(p->path, file, size);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_CHECKSUM);
}

static void
every_other_length_is_noticed(void **state)
{
	place	   *p = *state;
	uint8_t		file[64] = {0};
	uint8_t		got[64];
	size_t		size;
	size_t		len;

	assert_int_equal(mg_statefile_write(p->path, "the view and the epoch", 22), MG_OK);
	size = slurp(p->path, file, sizeof(file));
	for (size_t cut = 0; cut < size; cut++)
	{
		spill(p->path, file, cut);
		assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_FORMAT);
	}
	spill(p->path, file, size + 1);
	assert_int_equal(mg_statefile_read(p->path, got, sizeof(got), &len), MG_E_FORMAT);
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
	char		got[8];
	size_t		len;

	assert_int_equal(mg_statefile_write(p->path, "old", 3), MG_OK);
	assert_int_equal(mkdir(p->temporary, 0700), 0);	/* stands where the new one would be written */
	errno = 0;
	assert_int_equal(mg_statefile_write(p->path, "new", 3), MG_E_IO);
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
		cmocka_unit_test_setup_teardown(every_flipped_bit_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(every_other_length_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(limits_are_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(failed_write_leaves_the_old_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(left_over_of_a_crash_is_no_harm, set_up, tear_down),
		cmocka_unit_test(clocks_go_forward_and_chance_differs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
