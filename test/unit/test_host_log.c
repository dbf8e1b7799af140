/*
 * test_host_log.c - the log on real files: what was appended is there, what
 * was cut, torn or recycled never is.
 *
 * A crash of the process is a child that leaves by _exit; a loss of power is
 * played by damaging what was not yet flushed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "host/clock.h"
#include "host/log.h"

#define MIB				(1u << 20)
#define DEADLINE_US		INT64_C(30000000)
#define BODY_MAX		(3 * MIB)

typedef struct fixture
{
	char		dir[64];
	mg_log_config config;
	mg_log	   *log;
	char		reason[MG_REASON_BYTES_MAX];
} fixture;

static uint8_t body[BODY_MAX];
static uint8_t got[BODY_MAX];

/* ---- files ---- */

static void
remove_files(const char *dir)
{
	DIR		   *d = opendir(dir);
	struct dirent *entry;

	assert_non_null(d);
	while ((entry = readdir(d)) != NULL)
	{
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(d), entry->d_name, 0);
	}
	closedir(d);
}

static int
count_files(const char *dir)
{
	DIR		   *d = opendir(dir);
	struct dirent *entry;
	int			count = 0;

	assert_non_null(d);
	while ((entry = readdir(d)) != NULL)
		count += entry->d_name[0] != '.' && strcmp(entry->d_name, "marks") != 0;
	closedir(d);
	return count;
}

static size_t
file_load(const char *dir, uint64_t segment, uint8_t **bytes)
{
	char		path[128];
	struct stat st;
	int			fd;

	mg_segment_path(path, sizeof(path), dir, segment);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*bytes = malloc((size_t) st.st_size + 1);
	assert_int_equal(pread(fd, *bytes, (size_t) st.st_size, 0), st.st_size);
	close(fd);
	return (size_t) st.st_size;
}

static void
file_store(const char *dir, uint64_t segment, const uint8_t *bytes, size_t len)
{
	char		path[128];
	int			fd;

	mg_segment_path(path, sizeof(path), dir, segment);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, 0), (ssize_t) len);
	close(fd);
}

static void
file_damage(const char *dir, uint64_t segment, uint64_t offset, const void *bytes, size_t len)
{
	char		path[128];
	int			fd;

	mg_segment_path(path, sizeof(path), dir, segment);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, (off_t) offset), (ssize_t) len);
	close(fd);
}

/* ---- the file "marks", as host/log.c writes it ---- */

#define MARKS_BYTES 36

static void
marks_load(const char *dir, uint8_t marks[MARKS_BYTES])
{
	char		path[128];
	int			fd;

	snprintf(path, sizeof(path), "%s/marks", dir);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, marks, MARKS_BYTES, 0), MARKS_BYTES);
	assert_int_equal(mg_load_u32(marks + 32), mg_crc32c(0, marks, 32));
	close(fd);
}

static void
marks_store(const char *dir, uint8_t marks[MARKS_BYTES])
{
	char		path[128];
	int			fd;

	mg_store_u32(marks + 32, mg_crc32c(0, marks, 32));
	snprintf(path, sizeof(path), "%s/marks", dir);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, marks, MARKS_BYTES, 0), MARKS_BYTES);
	close(fd);
}

/* ---- the log ---- */

static void
reopen(fixture *f)
{
	mg_log_close(f->log);
	f->log = NULL;
	if (mg_log_open(&f->config, &f->log, f->reason) != MG_OK)
		fail_msg("%s", f->reason);
}

static int
set_up(void **state)
{
	fixture    *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/mg_log_XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->config = (mg_log_config) {.dir = f->dir,.segment_bytes = MIB,.bytes_max = 1024 * (uint64_t) MIB};
	reopen(f);
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	fixture    *f = *state;

	mg_log_close(f->log);
	remove_files(f->dir);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* Never a zero byte: a record that is cut is seen to be. */
static void
fill(uint8_t *to, uint32_t len, uint64_t key)
{
	for (uint32_t i = 0; i < len; i += 8)
	{
		uint8_t		word[8];

		mg_store_u64(word, mg_mix64(key * 1000003 + i) | UINT64_C(0x0101010101010101));
		memcpy(to + i, word, len - i < 8 ? len - i : 8);
	}
}

static mg_log_place
append(fixture *f, mg_seqno seqno, uint32_t len, uint64_t key)
{
	mg_log_place place;

	fill(body, len, key);
	assert_int_equal(mg_log_append(f->log, seqno, body, len, &place), MG_OK);
	assert_int_equal(place.len, len);
	return place;
}

static void
append_range(fixture *f, mg_seqno from, mg_seqno to, uint32_t len)
{
	for (mg_seqno seqno = from; seqno <= to; seqno++)
		append(f, seqno, len, seqno);
}

static void
expect(fixture *f, mg_seqno seqno, uint32_t len, uint64_t key)
{
	mg_log_place place;

	assert_int_equal(mg_log_find(f->log, seqno, &place), MG_OK);
	assert_int_equal(place.len, len);
	fill(body, len, key);
	assert_int_equal(mg_log_read(f->log, seqno, &place, got), MG_OK);
	assert_memory_equal(got, body, len);
}

static void
expect_range(fixture *f, mg_seqno from, mg_seqno to, uint32_t len)
{
	assert_int_equal(mg_log_first(f->log), from);
	assert_int_equal(mg_log_last(f->log), to);
	for (mg_seqno seqno = from; seqno <= to && to > 0; seqno++)
		expect(f, seqno, len, seqno);
}

static void
wait_flushed(mg_log *log, mg_seqno seqno)
{
	int64_t		deadline = mg_clock_monotonic_us() + DEADLINE_US;

	while (mg_log_flushed(log) < seqno)
	{
		struct pollfd p = {.fd = mg_log_flush_fd(log),.events = POLLIN};
		int64_t		left = deadline - mg_clock_monotonic_us();

		assert_int_equal(mg_log_flush_error(log), 0);
		assert_true(left > 0);
		poll(&p, 1, (int) (left / 1000) + 1);
		mg_log_flush_seen(log);
	}
}

static void
flush(fixture *f)
{
	assert_int_equal(mg_log_write(f->log), MG_OK);
	mg_log_request_flush(f->log);
	wait_flushed(f->log, mg_log_last(f->log));
}

/* Waits for something that the flusher does without being asked, and tells nobody. */
#define WAIT_UNTIL(cond) \
	do \
	{ \
		int64_t		deadline_us = mg_clock_monotonic_us() + DEADLINE_US; \
		while (!(cond)) \
		{ \
			assert_true(mg_clock_monotonic_us() < deadline_us); \
			poll(NULL, 0, 1); \
		} \
	} while (0)

/* ---- tests ---- */

static void
records_are_there_after_reopening(void **state)
{
	fixture    *f = *state;

	assert_int_equal(mg_log_first(f->log), 0);
	assert_int_equal(mg_log_last(f->log), 0);
	for (mg_seqno seqno = 100; seqno < 3000; seqno++)
		append(f, seqno, (uint32_t) (seqno * 7 % 3001), seqno);
	for (int round = 0; round < 3; round++)
	{
		assert_int_equal(mg_log_first(f->log), 100);
		assert_int_equal(mg_log_last(f->log), 2999 + round);
		for (mg_seqno seqno = 100; seqno < 3000; seqno++)
			expect(f, seqno, (uint32_t) (seqno * 7 % 3001), seqno);
		append(f, 3000 + (mg_seqno) round, 10, 1);
		reopen(f);
		assert_string_equal(f->reason, "");
		assert_int_equal(mg_log_flushed(f->log), 3000 + round);
	}
}

static void
buffered_and_written_records_read_alike(void **state)
{
	fixture    *f = *state;

	append_range(f, 1, 50, 300);
	expect_range(f, 1, 50, 300);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	append_range(f, 51, 60, 300);
	expect_range(f, 1, 60, 300);
	append(f, 61, 0, 61);
	expect(f, 61, 0, 61);
}

static void
misuse_is_refused_and_changes_nothing(void **state)
{
	fixture    *f = *state;
	mg_log_place place;

	assert_int_equal(mg_log_append(f->log, 0, "x", 1, &place), MG_E_STATE);
	append_range(f, 7, 9, 10);
	assert_int_equal(mg_log_append(f->log, 9, "x", 1, &place), MG_E_STATE);
	assert_int_equal(mg_log_append(f->log, 11, "x", 1, &place), MG_E_STATE);
	assert_int_equal(mg_log_append(f->log, 10, body, MG_RECORD_BODY_BYTES_MAX + 1, &place), MG_E_TOO_BIG);
	assert_int_equal(mg_log_find(f->log, 6, &place), MG_E_NOT_FOUND);
	assert_int_equal(mg_log_find(f->log, 10, &place), MG_E_NOT_FOUND);
	expect_range(f, 7, 9, 10);
}

static void
bad_configuration_is_refused_with_a_reason(void **state)
{
	fixture    *f = *state;
	mg_log_config config = f->config;
	mg_log	   *log;
	char		reason[MG_REASON_BYTES_MAX];

	/* In use, by us. */
	assert_int_equal(mg_log_open(&config, &log, reason), MG_E_STATE);
	assert_null(log);
	assert_non_null(strstr(reason, "in use"));

	config.segment_bytes = MIB - 1;
	assert_int_equal(mg_log_open(&config, &log, reason), MG_E_FORMAT);
	assert_non_null(strstr(reason, "1048575"));

	config = f->config;
	config.dir = "/nonexistent/log";
	assert_int_equal(mg_log_open(&config, &log, reason), MG_E_IO);
	assert_null(log);
	assert_non_null(strstr(reason, "/nonexistent/log"));
}

static void
torn_tail_at_every_byte_is_cut(void **state)
{
	fixture    *f = *state;
	mg_log_place last;
	uint8_t    *file;
	size_t		file_len;
	uint64_t	segment;

	append_range(f, 1, 4, 40);
	last = append(f, 5, 40, 5);
	flush(f);
	mg_log_close(f->log);
	f->log = NULL;
	segment = last.segment;
	file_len = file_load(f->dir, segment, &file);

	/* What had not reached the disk is zero, is other bytes, or the file ends. */
	for (int kind = 0; kind < 3; kind++)
	{
		for (uint32_t at = last.offset; at < last.offset + mg_record_bytes(last.len); at++)
		{
			uint8_t		junk[MG_RECORD_HEADER_BYTES + 40];
			size_t		len = last.offset + mg_record_bytes(last.len) - at;

			memset(junk, kind == 0 ? 0 : 0xa5, sizeof(junk));
			file_store(f->dir, segment, file, kind == 2 ? at : file_len);
			if (kind != 2)
				file_damage(f->dir, segment, at, junk, len);
			reopen(f);
			expect_range(f, 1, 4, 40);

			/* What is appended in its place stays. */
			append(f, 5, 40, 500);
			reopen(f);
			assert_int_equal(mg_log_last(f->log), 5);
			expect(f, 5, 40, 500);
			mg_log_close(f->log);
			f->log = NULL;
		}
	}
	free(file);
}

static void
flipped_bit_in_any_record_cuts_there(void **state)
{
	fixture    *f = *state;
	mg_log_place places[6];
	uint8_t    *file;
	size_t		file_len;

	for (mg_seqno seqno = 1; seqno <= 6; seqno++)
		places[seqno - 1] = append(f, seqno, 21, seqno);
	mg_log_close(f->log);
	f->log = NULL;
	file_len = file_load(f->dir, places[0].segment, &file);
	for (mg_seqno seqno = 1; seqno <= 6; seqno++)
	{
		const mg_log_place *place = &places[seqno - 1];

		for (uint32_t at = 0; at < MG_RECORD_HEADER_BYTES + place->len; at++)
		{
			uint8_t		flipped = file[place->offset + at] ^ (uint8_t) (1 << (at * 3 + seqno) % 8);

			file_store(f->dir, place->segment, file, file_len);
			file_damage(f->dir, place->segment, place->offset + at, &flipped, 1);
			reopen(f);
			expect_range(f, seqno > 1 ? 1 : 0, seqno - 1, 21);
			mg_log_close(f->log);
			f->log = NULL;
		}
	}
	free(file);
}

static void
damage_in_an_early_segment_cuts_all_that_follows(void **state)
{
	fixture    *f = *state;
	mg_log_place place;

	append_range(f, 1, 400, 10000);
	assert_int_equal(mg_log_find(f->log, 150, &place), MG_OK);
	flush(f);
	assert_true(place.segment < 3);
	mg_log_close(f->log);
	f->log = NULL;
	file_damage(f->dir, place.segment, place.offset + 1000, "\0", 1);
	reopen(f);
	assert_non_null(strstr(f->reason, "150"));
	expect_range(f, 1, 149, 10000);
	append_range(f, 150, 300, 10000);
	reopen(f);
	expect_range(f, 1, 300, 10000);
}

/* A byte of a record goes wrong while nobody has the log. */
static void
damage_record(fixture *f, mg_seqno seqno)
{
	mg_log_place place;

	assert_int_equal(mg_log_find(f->log, seqno, &place), MG_OK);
	mg_log_close(f->log);
	f->log = NULL;
	file_damage(f->dir, place.segment, place.offset + MG_RECORD_HEADER_BYTES, "\0", 1);
}

static void
damage_of_flushed_records_is_told_from_a_torn_tail(void **state)
{
	fixture    *f = *state;
	uint8_t		marks[MARKS_BYTES];

	/* Power is lost after 10 was flushed. */
	append_range(f, 1, 10, 100);
	flush(f);
	WAIT_UNTIL((marks_load(f->dir, marks), mg_load_u64(marks + 16) == 10));
	append_range(f, 11, 20, 100);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	damage_record(f, 15);
	marks_store(f->dir, marks);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 14);
	assert_false(mg_log_damaged(f->log));
	assert_null(strstr(f->reason, "damaged"));

	/* What the last life found whole was durable from then on, up to the last record. */
	damage_record(f, 14);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 13);
	assert_true(mg_log_damaged(f->log));
	damage_record(f, 8);
	reopen(f);
	expect_range(f, 1, 7, 100);
	assert_non_null(strstr(f->reason, "damaged: seqno 8 to 14"));

	/* It stays known until the log is whole again. */
	append_range(f, 8, 13, 100);
	flush(f);
	assert_true(mg_log_damaged(f->log));
	reopen(f);
	expect_range(f, 1, 13, 100);
	assert_true(mg_log_damaged(f->log));
	append_range(f, 14, 14, 100);
	flush(f);
	assert_false(mg_log_damaged(f->log));
	reopen(f);
	assert_false(mg_log_damaged(f->log));
	assert_string_equal(f->reason, "");
}

static void
damage_ends_where_the_log_is_cut_or_emptied(void **state)
{
	fixture    *f = *state;

	append_range(f, 1, 100, 100);
	damage_record(f, 50);
	reopen(f);
	assert_true(mg_log_damaged(f->log));
	assert_int_equal(mg_log_truncate(f->log, 40), MG_OK);
	assert_false(mg_log_damaged(f->log));
	reopen(f);
	assert_false(mg_log_damaged(f->log));
	expect_range(f, 1, 40, 100);

	append_range(f, 41, 100, 100);
	damage_record(f, 50);
	reopen(f);
	assert_true(mg_log_damaged(f->log));
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	assert_false(mg_log_damaged(f->log));
	reopen(f);
	assert_false(mg_log_damaged(f->log));
	append_range(f, 7, 9, 100);
	reopen(f);
	assert_false(mg_log_damaged(f->log));
	expect_range(f, 7, 9, 100);
}

static void
lost_segments_are_damage(void **state)
{
	fixture    *f = *state;
	mg_log_place place;
	char		path[128];

	for (int all = 0; all < 2; all++)
	{
		append_range(f, mg_log_last(f->log) + 1, 400, 10000);
		for (mg_seqno seqno = 200; seqno <= 400; seqno++)
		{
			assert_int_equal(mg_log_find(f->log, seqno, &place), MG_OK);
			mg_segment_path(path, sizeof(path), f->dir, place.segment);
			if (seqno == 200 || all)
				unlink(path);
		}
		for (mg_seqno seqno = 1; seqno < 200 && all; seqno++)
		{
			assert_int_equal(mg_log_find(f->log, seqno, &place), MG_OK);
			mg_segment_path(path, sizeof(path), f->dir, place.segment);
			unlink(path);
		}
		reopen(f);
		assert_true(mg_log_damaged(f->log));
		assert_non_null(strstr(f->reason, "400 had been durable"));
		assert_true(all ? mg_log_last(f->log) == 0 : mg_log_last(f->log) >= 100 && mg_log_last(f->log) < 200);
	}
}

static void
marks_that_are_not_whole_say_nothing(void **state)
{
	fixture    *f = *state;
	uint8_t		marks[MARKS_BYTES];
	uint8_t		bad[MARKS_BYTES];
	char		path[128];
	int			fd;

	snprintf(path, sizeof(path), "%s/marks", f->dir);
	append_range(f, 1, 10, 100);
	for (int at = -1; at < MARKS_BYTES; at++)
	{
		mg_log_close(f->log);
		f->log = NULL;
		marks_load(f->dir, marks);
		mg_store_u64(marks + 16, 1000);
		marks_store(f->dir, marks);
		memcpy(bad, marks, sizeof(bad));
		if (at >= 0)
			bad[at] ^= 0x10;
		fd = open(path, O_WRONLY);
		assert_int_equal(pwrite(fd, bad, sizeof(bad), 0), sizeof(bad));
		close(fd);
		reopen(f);
		expect_range(f, 1, 10, 100);
		assert_int_equal(mg_log_damaged(f->log), at < 0);
		mg_log_close(f->log);
		f->log = NULL;
		unlink(path);
		reopen(f);
		assert_false(mg_log_damaged(f->log));
	}
}

/* As it is after a crash in the middle: the cut is marked, and nothing of it, or only a part, is done. */
static void
truncation_that_was_begun_is_finished(void **state)
{
	fixture    *f = *state;
	uint8_t		marks[MARKS_BYTES];

	append_range(f, 1, 400, 10000);
	for (int part = 0; part < 2; part++)
	{
		mg_seqno	cut = part ? 120 : 250;

		if (part)
			damage_record(f, 180);
		mg_log_close(f->log);
		f->log = NULL;
		marks_load(f->dir, marks);
		mg_store_u64(marks + 16, cut);
		mg_store_u64(marks + 24, cut);
		marks_store(f->dir, marks);
		reopen(f);
		assert_string_equal(f->reason, "");
		assert_false(mg_log_damaged(f->log));
		expect_range(f, 1, cut, 10000);
		append(f, cut + 1, 10000, cut + 1);
		reopen(f);
		assert_string_equal(f->reason, "");
		expect_range(f, 1, cut + 1, 10000);
	}
}

/*
 * Records of one length, so that each new record ends exactly where an old one
 * begins: the case in which a cut could link up with what it cut.
 */
static void
records_behind_a_torn_one_never_link_up_again(void **state)
{
	fixture    *f = *state;
	mg_log_place place;

	append_range(f, 1, 10, 40);
	assert_int_equal(mg_log_find(f->log, 5, &place), MG_OK);
	mg_log_close(f->log);
	f->log = NULL;
	file_damage(f->dir, place.segment, place.offset + 30, "\0\0", 2);
	reopen(f);
	assert_non_null(strstr(f->reason, "seqno 5"));
	expect_range(f, 1, 4, 40);
	append(f, 5, 40, 5);
	reopen(f);
	expect_range(f, 1, 5, 40);
}

static void
truncated_records_never_come_back(void **state)
{
	fixture    *f = *state;

	append_range(f, 1, 10, 40);
	flush(f);
	assert_int_equal(mg_log_truncate(f->log, 10), MG_OK);
	assert_int_equal(mg_log_truncate(f->log, 4), MG_OK);
	assert_int_equal(mg_log_flushed(f->log), 4);
	expect_range(f, 1, 4, 40);
	reopen(f);
	expect_range(f, 1, 4, 40);

	append(f, 5, 40, 500);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 5);
	expect(f, 5, 40, 500);

	/* Written and buffered records, and only buffered ones. */
	append_range(f, 6, 8, 40);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	append_range(f, 9, 12, 40);
	assert_int_equal(mg_log_truncate(f->log, 10), MG_OK);
	assert_int_equal(mg_log_last(f->log), 10);
	expect(f, 10, 40, 10);
	assert_int_equal(mg_log_truncate(f->log, 7), MG_OK);
	append(f, 8, 40, 800);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 8);
	expect(f, 7, 40, 7);
	expect(f, 8, 40, 800);
}

static void
truncating_across_segments_removes_them(void **state)
{
	fixture    *f = *state;
	uint64_t	bytes;

	append_range(f, 1, 1000, 10000);
	flush(f);
	WAIT_UNTIL(count_files(f->dir) >= 11);
	bytes = mg_log_bytes(f->log);
	append_range(f, 1001, 1005, 10000);
	assert_int_equal(mg_log_truncate(f->log, 250), MG_OK);
	assert_true(mg_log_bytes(f->log) + 7 * MIB <= bytes);
	expect_range(f, 1, 250, 10000);
	append_range(f, 251, 600, 10000);
	flush(f);
	expect_range(f, 1, 600, 10000);
	reopen(f);
	expect_range(f, 1, 600, 10000);

	/* Exactly at the end of a segment. */
	mg_log_place place;
	mg_seqno	end = 250;

	do
		assert_int_equal(mg_log_find(f->log, ++end, &place), MG_OK);
	while (place.offset != MG_SEGMENT_HEADER_BYTES);
	assert_int_equal(mg_log_truncate(f->log, end - 1), MG_OK);
	reopen(f);
	expect_range(f, 1, end - 1, 10000);
	assert_int_equal(mg_log_truncate(f->log, 0), MG_OK);
	assert_int_equal(mg_log_last(f->log), 0);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 0);
}

static void
reset_empties_durably_and_any_seqno_may_follow(void **state)
{
	fixture    *f = *state;
	mg_log_place old;
	uint8_t    *file;
	size_t		file_len;

	append_range(f, 1, 300, 10000);
	assert_int_equal(mg_log_find(f->log, 1, &old), MG_OK);
	flush(f);
	file_len = file_load(f->dir, old.segment, &file);
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	assert_int_equal(mg_log_first(f->log), 0);
	assert_int_equal(mg_log_last(f->log), 0);
	assert_int_equal(mg_log_flushed(f->log), 0);
	append_range(f, 700, 710, 10000);
	mg_log_close(f->log);
	f->log = NULL;
	file_store(f->dir, old.segment, file, file_len);
	reopen(f);
	expect_range(f, 700, 710, 10000);
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 0);

	/* A crash before the old files were gone. */
	mg_log_close(f->log);
	f->log = NULL;
	file_store(f->dir, old.segment, file, file_len);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 0);
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	append_range(f, 5000, 5100, 10000);
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	append_range(f, 2000, 2300, 10000);
	flush(f);
	expect_range(f, 2000, 2300, 10000);
	reopen(f);
	expect_range(f, 2000, 2300, 10000);
	mg_log_close(f->log);
	f->log = NULL;
	file_store(f->dir, old.segment, file, file_len);
	reopen(f);
	expect_range(f, 2000, 2300, 10000);
	free(file);
}

static void
recycling_keeps_everything_above_the_released_seqno(void **state)
{
	fixture    *f = *state;
	mg_seqno	seqno = 0;

	f->config.bytes_max = 5 * MIB;
	reopen(f);
	for (int round = 0; round < 40; round++)
	{
		mg_seqno	released = seqno > 100 ? seqno - 100 : 0;

		append_range(f, seqno + 1, seqno + 50, 10000);
		seqno += 50;
		flush(f);
		mg_log_release(f->log, released, released);
		assert_true(mg_log_first(f->log) <= released + 1);
		for (mg_seqno s = mg_log_first(f->log); s <= seqno; s++)
			expect(f, s, 10000, s);
		if (round % 10 == 9)
		{
			mg_seqno	first = mg_log_first(f->log);

			/* What the flusher had not removed may be there still; nothing else differs. */
			reopen(f);
			assert_true(mg_log_first(f->log) <= first);
			expect_range(f, mg_log_first(f->log), seqno, 10000);
		}
	}
	WAIT_UNTIL(mg_log_bytes(f->log) <= f->config.bytes_max);
	assert_true(mg_log_first(f->log) > 1);
}

static void
segment_goes_with_the_release_of_its_last_record_and_not_before(void **state)
{
	fixture    *f = *state;
	mg_log_place place;
	mg_seqno	second = 1;

	f->config.bytes_max = 2 * MIB;
	reopen(f);
	append_range(f, 1, 500, 10000);
	do
		assert_int_equal(mg_log_find(f->log, ++second, &place), MG_OK);
	while (place.offset != MG_SEGMENT_HEADER_BYTES);
	mg_log_release(f->log, second - 2, second - 2);
	expect_range(f, 1, 500, 10000);
	mg_log_release(f->log, second - 1, second - 1);
	expect_range(f, second, 500, 10000);
	reopen(f);
	expect_range(f, second, 500, 10000);
}

/* Appending outruns the flusher: spares come late, and beside segments that the owner has made itself. */
static void
segments_made_in_a_hurry_stay_in_order(void **state)
{
	fixture    *f = *state;

	f->config.sync = true;
	reopen(f);
	append_range(f, 1, 400, 100000);
	flush(f);
	append_range(f, 401, 410, 100000);
	expect_range(f, 1, 410, 100000);
	reopen(f);
	assert_string_equal(f->reason, "");
	expect_range(f, 1, 410, 100000);
}

static void
log_grows_past_its_limit_rather_than_drop_what_is_needed(void **state)
{
	fixture    *f = *state;

	f->config.bytes_max = 3 * MIB;
	reopen(f);
	append_range(f, 1, 1000, 10000);
	flush(f);
	expect_range(f, 1, 1000, 10000);
	assert_true(mg_log_bytes(f->log) > 9 * MIB);
	mg_log_release(f->log, 900, 900);
	WAIT_UNTIL(mg_log_bytes(f->log) <= 3 * MIB);
	assert_true(mg_log_first(f->log) <= 901);
	expect_range(f, mg_log_first(f->log), 1000, 10000);
}

/* Others are waited for up to the hard limit, this node without any. */
static void
what_only_others_need_goes_at_the_hard_limit(void **state)
{
	fixture    *f = *state;
	mg_seqno	first;

	f->config.bytes_max = 3 * MIB;
	f->config.pages_max = 4 * MIB;
	reopen(f);
	append_range(f, 1, 500, 10000);
	flush(f);
	mg_log_release(f->log, 500, 0);	/* 5 MiB: over the first limit, below the second */
	expect_range(f, 1, 500, 10000);
	assert_int_equal(mg_log_dropped(f->log), 0);

	append_range(f, 501, 1000, 10000);
	flush(f);
	WAIT_UNTIL(mg_log_bytes(f->log) <= 7 * MIB);
	first = mg_log_first(f->log);
	assert_in_range(first, 300, 501);
	assert_int_equal(mg_log_dropped(f->log), first - 1);
	expect_range(f, first, 1000, 10000);

	/* What this node still needs stays. */
	append_range(f, 1001, 2000, 10000);
	flush(f);
	assert_in_range(mg_log_first(f->log), first, 501);
	expect_range(f, mg_log_first(f->log), 2000, 10000);
	assert_true(mg_log_bytes(f->log) > 14 * MIB);
	reopen(f);
	expect_range(f, mg_log_first(f->log), 2000, 10000);
	assert_in_range(mg_log_first(f->log), first, 501);

	/* What nobody needs is no loss. */
	mg_log_release(f->log, 2000, 2000);
	WAIT_UNTIL(mg_log_bytes(f->log) <= 3 * MIB);
	assert_true(mg_log_first(f->log) > 1700);
	assert_int_equal(mg_log_dropped(f->log), 0);
}

/* Somebody asks for less to go than before: a freeze, a member that comes back, another limit. */
static void
release_may_fall_back_and_limits_may_change(void **state)
{
	fixture    *f = *state;
	mg_seqno	first;

	f->config.bytes_max = 4 * MIB;
	f->config.pages_max = 16 * MIB;
	reopen(f);
	append_range(f, 1, 300, 10000);
	flush(f);
	mg_log_release(f->log, 300, 300);
	mg_log_release(f->log, 300, 49);
	append_range(f, 301, 1000, 10000);
	flush(f);
	first = mg_log_first(f->log);
	assert_true(first <= 50);
	expect_range(f, first, 1000, 10000);

	mg_log_set_limits(f->log, 4 * MIB, 2 * MIB);
	first = mg_log_first(f->log);
	assert_in_range(first, 200, 301);	/* above 300 this node needs all */
	assert_int_equal(mg_log_dropped(f->log), first - 1);
	mg_log_set_limits(f->log, 64 * MIB, 0);
	mg_log_release(f->log, 1000, 1000);
	expect_range(f, first, 1000, 10000);
	mg_log_set_limits(f->log, 4 * MIB, 0);
	WAIT_UNTIL(mg_log_bytes(f->log) <= 4 * MIB);
	expect_range(f, mg_log_first(f->log), 1000, 10000);

	/* A cut takes back what was released above it. */
	assert_int_equal(mg_log_truncate(f->log, 990), MG_OK);
	append_range(f, 991, 2000, 10000);
	assert_true(mg_log_first(f->log) <= 991);
	expect_range(f, mg_log_first(f->log), 2000, 10000);
}

/* Read without a file: only what lies in memory can come then. */
static void
recent_records_come_from_memory(void **state)
{
	fixture    *f = *state;
	void	   *memory = calloc(1, mg_recent_size(2 * MIB));
	mg_segment_reader reader;
	mg_log_place place;
	uint64_t	hits;
	uint64_t	misses;

	f->config.recent = mg_recent_init(memory, 2 * MIB);
	reopen(f);
	append_range(f, 1, 500, 10000);
	flush(f);
	assert_int_equal(mg_segment_reader_init(&reader, f->dir), MG_OK);
	reader.recent = f->config.recent;
	assert_int_equal(mg_log_find(f->log, 500, &place), MG_OK);
	mg_segment_reader_close(&reader);
	remove_files(f->dir);
	expect(f, 500, 10000, 500);
	expect(f, 350, 10000, 350);
	fill(body, 10000, 500);
	assert_int_equal(mg_segment_read(&reader, &place, 500, got), MG_OK);
	assert_memory_equal(got, body, 10000);
	mg_recent_count(f->config.recent, &hits, &misses);
	assert_int_equal(hits, 3);
	assert_int_equal(misses, 0);
	assert_int_equal(mg_log_find(f->log, 100, &place), MG_OK);
	assert_int_equal(mg_segment_read(&reader, &place, 100, got), MG_E_NOT_FOUND);
	mg_log_close(f->log);
	f->log = NULL;
	mg_segment_reader_close(&reader);
	free(memory);
}

/* Files of another log, copied into the directory. */
static void
files_of_two_logs_are_left_alone(void **state)
{
	fixture    *f = *state;
	fixture		other = {.dir = "/tmp/mg_log_XXXXXX"};
	uint8_t		marks[MARKS_BYTES];
	uint8_t    *file;
	size_t		len;
	mg_log_place place;
	char		path[128];

	append_range(f, 1, 200, 10000);
	flush(f);
	mg_log_close(f->log);
	f->log = NULL;
	assert_non_null(mkdtemp(other.dir));
	other.config = f->config;
	other.config.dir = other.dir;
	reopen(&other);
	append_range(&other, 1, 800, 10000);
	flush(&other);
	assert_int_equal(mg_log_find(other.log, 800, &place), MG_OK);
	mg_log_close(other.log);
	len = file_load(other.dir, place.segment, &file);

	file_store(f->dir, place.segment, file, len);
	for (int i = 0; i < 2; i++)
	{
		assert_int_equal(mg_log_open(&f->config, &f->log, f->reason), MG_E_FORMAT);
		assert_null(f->log);
		assert_non_null(strstr(f->reason, "another log"));
	}
	mg_segment_path(path, sizeof(path), f->dir, place.segment);
	assert_int_equal(unlink(path), 0);
	reopen(f);
	assert_string_equal(f->reason, "");
	expect_range(f, 1, 200, 10000);

	/* A left-over of before a reset is older than the log, and goes. */
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	marks_load(f->dir, marks);
	append_range(f, 7, 9, 100);
	flush(f);
	assert_int_equal(mg_log_find(f->log, 7, &place), MG_OK);
	mg_log_close(f->log);
	f->log = NULL;
	file_store(f->dir, 1, file, len);
	free(file);
	file_load(f->dir, place.segment, &file);
	assert_int_equal(mg_load_u64(marks + 8), mg_load_u64(file + 24));	/* whose log it is was known before it had records */
	reopen(f);
	assert_string_equal(f->reason, "");
	expect_range(f, 7, 9, 100);
	free(file);
	remove_files(other.dir);
	rmdir(other.dir);
}

/* The power goes when a reset has made its segment and not yet its marks. */
static void
reset_that_was_begun_is_finished(void **state)
{
	fixture    *f = *state;
	uint8_t		marks[MARKS_BYTES];

	append_range(f, 1, 300, 10000);
	flush(f);
	marks_load(f->dir, marks);
	assert_int_equal(mg_log_reset(f->log), MG_OK);
	mg_log_close(f->log);
	f->log = NULL;
	marks_store(f->dir, marks);
	reopen(f);
	assert_false(mg_log_damaged(f->log));
	assert_int_equal(mg_log_last(f->log), 0);
	append_range(f, 50, 60, 100);
	flush(f);
	reopen(f);
	expect_range(f, 50, 60, 100);
}

/* Writes on with recycled files and leaves in the middle of one. */
static void
stale_records_of_recycled_segments_never_come_back(void **state)
{
	fixture    *f = *state;
	mg_seqno	seqno = 0;
	mg_log_place place;
	uint8_t    *file;
	size_t		file_len;
	bool		stale_seen = false;

	f->config.bytes_max = 4 * MIB;
	reopen(f);
	for (int round = 0; round < 60; round++)
	{
		append_range(f, seqno + 1, seqno + 37, 10000);
		seqno += 37;
		mg_log_release(f->log, seqno, seqno);
		flush(f);
		assert_int_equal(mg_log_find(f->log, seqno, &place), MG_OK);

		/* Does the file really hold another life's record where the next one goes? */
		file_len = file_load(f->dir, place.segment, &file);
		if (place.offset + 2 * mg_record_bytes(10000) < file_len &&
			mg_load_u32(file + place.offset + mg_record_bytes(10000)) == MG_RECORD_MAGIC)
		{
			/* The worst case: whole, of that life, and even with the right seqno. */
			uint8_t    *stale = file + place.offset + mg_record_bytes(10000);

			mg_record_seal(stale, place.segment - 1, seqno + 1, stale + MG_RECORD_HEADER_BYTES, 10000);
			mg_log_close(f->log);
			f->log = NULL;
			file_store(f->dir, place.segment, file, file_len);
			reopen(f);
			stale_seen = true;
		}
		free(file);
		assert_int_equal(mg_log_last(f->log), seqno);
		expect_range(f, mg_log_first(f->log), seqno, 10000);
	}
	assert_true(stale_seen);
}

static void
records_larger_than_a_segment_get_their_own(void **state)
{
	fixture    *f = *state;
	static const uint32_t lens[] = {
		100, 2 * MIB, 100, MIB, MIB - 88, MIB - 80, MIB - 96, 131072, 131000, 5, 3 * MIB, 3 * MIB - 1, 7,
	};
	int			count = sizeof(lens) / sizeof(lens[0]);

	for (int round = 0; round < 3; round++)
	{
		for (int i = 0; i < count; i++)
		{
			mg_seqno	seqno = (mg_seqno) (round * count + i + 1);

			append(f, seqno, lens[i], seqno);
			if (i % 4 == round)
				flush(f);
			expect(f, seqno, lens[i], seqno);
		}
		reopen(f);
		assert_int_equal(mg_log_last(f->log), (round + 1) * count);
		for (int i = 0; i < (round + 1) * count; i++)
			expect(f, (mg_seqno) i + 1, lens[i % count], (uint64_t) i + 1);
	}

	/* A large one is cut off whole, and one in the middle of the log is released whole. */
	assert_int_equal(mg_log_truncate(f->log, 36), MG_OK);
	append(f, 37, 2 * MIB, 1);
	mg_log_release(f->log, 30, 30);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 37);
	expect(f, 36, lens[35 % count], 36);
	expect(f, 37, 2 * MIB, 1);
}

static void
flushes_are_grouped(void **state)
{
	fixture    *f = *state;
	uint64_t	before;

	f->config.sync = true;
	reopen(f);
	append(f, 1, 100, 1);
	flush(f);
	before = mg_log_flush_count(f->log);

	/* One request for many records is one fdatasync. */
	for (mg_seqno seqno = 2; seqno <= 500; seqno++)
	{
		append(f, seqno, 100, seqno);
		assert_int_equal(mg_log_write(f->log), MG_OK);
	}
	assert_int_equal(mg_log_flushed(f->log), 1);
	mg_log_request_flush(f->log);
	wait_flushed(f->log, 500);
	assert_int_equal(mg_log_flush_count(f->log), before + 1);

	/* Requests that come while a flush is under way share the next one. */
	for (mg_seqno seqno = 501; seqno <= 3000; seqno++)
	{
		append(f, seqno, 100, seqno);
		assert_int_equal(mg_log_write(f->log), MG_OK);
		mg_log_request_flush(f->log);
	}
	wait_flushed(f->log, 3000);
	assert_true(mg_log_flush_count(f->log) < before + 1 + 2500);

	/* Nothing new, nothing done. */
	before = mg_log_flush_count(f->log);
	mg_log_request_flush(f->log);
	append(f, 3001, 100, 3001);
	flush(f);
	assert_int_equal(mg_log_flush_count(f->log), before + 1);
}

static void
flush_descriptor_wakes_and_is_cleared(void **state)
{
	fixture    *f = *state;
	struct pollfd p = {.fd = mg_log_flush_fd(f->log),.events = POLLIN};

	assert_int_equal(poll(&p, 1, 0), 0);
	append(f, 1, 100, 1);
	mg_log_request_flush(f->log);	/* not written yet: nothing to flush */
	assert_int_equal(mg_log_flushed(f->log), 0);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	mg_log_request_flush(f->log);
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_int_equal(mg_log_flushed(f->log), 1);
	mg_log_flush_seen(f->log);
	assert_int_equal(poll(&p, 1, 0), 0);
	mg_log_flush_seen(f->log);
}

static void
flusher_takes_no_signals(void **state)
{
	fixture    *f = *state;
	sigset_t	usr1;
	sigset_t	before;
	sigset_t	pending;
	int			sig;

	/* Sent to the process and blocked here, it would run elsewhere if any thread took it. */
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, &before);
	kill(getpid(), SIGUSR1);
	append(f, 1, 10, 1);
	flush(f);
	sigpending(&pending);
	assert_true(sigismember(&pending, SIGUSR1));
	assert_int_equal(sigwait(&usr1, &sig), 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void
reader_of_another_process_verifies_what_it_reads(void **state)
{
	fixture    *f = *state;
	mg_segment_reader reader;
	mg_log_place place;
	mg_log_place wrong;

	assert_int_equal(mg_segment_reader_init(&reader, f->dir), MG_OK);
	append_range(f, 1, 250, 10000);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	for (mg_seqno seqno = 250; seqno <= 250; seqno -= 3)	/* down to 1 */
	{
		assert_int_equal(mg_log_find(f->log, seqno, &place), MG_OK);
		assert_int_equal(mg_segment_read(&reader, &place, seqno, got), MG_OK);
		fill(body, 10000, seqno);
		assert_memory_equal(got, body, 10000);
		assert_int_equal(mg_segment_read(&reader, &place, seqno + 1, got), MG_E_FORMAT);
	}
	wrong = place;
	wrong.len--;
	assert_int_equal(mg_segment_read(&reader, &wrong, 1, got), MG_E_FORMAT);
	wrong = place;
	wrong.offset += 8;
	assert_int_equal(mg_segment_read(&reader, &wrong, 1, got), MG_E_FORMAT);
	wrong = place;
	wrong.segment = 4711;
	assert_int_equal(mg_segment_read(&reader, &wrong, 1, got), MG_E_NOT_FOUND);
	wrong = place;
	wrong.offset = UINT32_MAX - 7;
	assert_int_equal(mg_segment_read(&reader, &wrong, 1, got), MG_E_FORMAT);

	file_damage(f->dir, place.segment, place.offset + 5000, "\0", 1);
	assert_int_equal(mg_segment_read(&reader, &place, 1, got), MG_E_CHECKSUM);
	mg_segment_reader_close(&reader);
	mg_segment_reader_close(&reader);
}

static void
reader_learns_that_a_segment_was_recycled(void **state)
{
	fixture    *f = *state;
	mg_segment_reader reader;
	mg_log_place old;
	mg_log_place now;
	mg_seqno	seqno = 100;

	f->config.bytes_max = 3 * MIB;
	reopen(f);
	append_range(f, 1, seqno, 10000);
	assert_int_equal(mg_log_find(f->log, 50, &old), MG_OK);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	assert_int_equal(mg_segment_reader_init(&reader, f->dir), MG_OK);
	assert_int_equal(mg_segment_read(&reader, &old, 50, got), MG_OK);

	/* The reader's descriptor stays open while the file begins another life. */
	for (int round = 0; round < 10; round++)
	{
		append_range(f, seqno + 1, seqno + 100, 10000);
		seqno += 100;
		flush(f);
		mg_log_release(f->log, seqno, seqno);
		WAIT_UNTIL(mg_log_bytes(f->log) <= 3 * MIB);
	}
	assert_true(mg_log_first(f->log) > 50);

	/* Its file may have been removed instead; then it still shows the old record. */
	switch (mg_segment_read(&reader, &old, 50, got))
	{
		case MG_OK:
			fill(body, 10000, 50);
			assert_memory_equal(got, body, 10000);
			break;
		case MG_E_NOT_FOUND:
			break;
		default:
			fail();
	}
	assert_int_equal(mg_log_find(f->log, seqno, &now), MG_OK);
	assert_int_equal(mg_segment_read(&reader, &now, seqno, got), MG_OK);
	assert_int_equal(mg_segment_read(&reader, &old, 50, got), MG_E_NOT_FOUND);
	mg_segment_reader_close(&reader);
}

/* The case above, with certainty: the file behind an open descriptor changes and its name goes. */
static void
renamed_and_overwritten_segment_is_not_found(void **state)
{
	fixture    *f = *state;
	mg_segment_reader reader;
	mg_log_place place;
	char		from[128];
	char		to[128];

	place = append(f, 1, 1000, 1);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	assert_int_equal(mg_segment_reader_init(&reader, f->dir), MG_OK);
	assert_int_equal(mg_segment_read(&reader, &place, 1, got), MG_OK);
	mg_segment_path(from, sizeof(from), f->dir, place.segment);
	mg_segment_path(to, sizeof(to), f->dir, 99);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(mg_segment_read(&reader, &place, 1, got), MG_OK);
	file_damage(f->dir, 99, place.offset + 100, "\0\0\0\0", 4);
	assert_int_equal(mg_segment_read(&reader, &place, 1, got), MG_E_NOT_FOUND);
	mg_segment_reader_close(&reader);
}

/* ---- beside each other ---- */

typedef struct beside
{
	char		dir[64];
	_Atomic uint64_t last;
	_Atomic uint64_t first;
	_Atomic int bad;
	_Atomic uint64_t reads;
	mg_log_place places[20001];
} beside;

static void *
read_beside(void *arg)
{
	beside	   *b = arg;
	mg_segment_reader reader;
	uint8_t    *mine = malloc(4000);
	uint8_t    *theirs = malloc(4000);
	uint64_t	random = 1;

	b->bad += mg_segment_reader_init(&reader, b->dir) != MG_OK;
	while (b->last < 20000 && b->bad == 0)
	{
		mg_seqno	last = b->last;
		mg_seqno	first = b->first;
		mg_seqno	seqno;
		mg_status	status;

		if (last == 0)
			continue;
		seqno = first + mg_mix64(random++) % (last - first + 1);
		status = mg_segment_read(&reader, &b->places[seqno], seqno, mine);
		fill(theirs, b->places[seqno].len, seqno);
		b->reads++;

		/* Gone is right only for what was released meanwhile. */
		if (status == MG_OK)
			b->bad += memcmp(mine, theirs, b->places[seqno].len) != 0;
		else
			b->bad += status != MG_E_NOT_FOUND || seqno >= b->first;
	}
	mg_segment_reader_close(&reader);
	free(mine);
	free(theirs);
	return NULL;
}

static void
reader_runs_beside_the_appender(void **state)
{
	fixture    *f = *state;
	beside	   *b = calloc(1, sizeof(*b));
	pthread_t	thread;

	f->config.bytes_max = 6 * MIB;
	reopen(f);
	strcpy(b->dir, f->dir);
	b->first = 1;
	assert_int_equal(pthread_create(&thread, NULL, read_beside, b), 0);
	for (mg_seqno seqno = 1; seqno <= 20000; seqno++)
	{
		b->places[seqno] = append(f, seqno, (uint32_t) (mg_mix64(seqno) % 4000), seqno);
		if (seqno % 16 == 0)
		{
			assert_int_equal(mg_log_write(f->log), MG_OK);
			mg_log_request_flush(f->log);
			if (seqno > 500)
			{
				b->first = seqno - 500;
				mg_log_release(f->log, seqno - 501, seqno - 501);
			}
			b->last = seqno;
		}
	}
	pthread_join(thread, NULL);
	assert_int_equal(b->bad, 0);
	assert_true(b->reads > 100);
	free(b);
}

/* ---- trouble ---- */

static void
full_disk_leaves_the_log_as_it_was(void **state)
{
	fixture    *f = *state;
	struct rlimit before;
	struct rlimit small;
	mg_log_place place;

	append_range(f, 1, 10, 1000);
	flush(f);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = MIB;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	errno = 0;
	fill(body, 2 * MIB, 11);
	assert_int_equal(mg_log_append(f->log, 11, body, 2 * MIB, &place), MG_E_IO);
	assert_int_equal(errno, EFBIG);
	assert_int_equal(mg_log_last(f->log), 10);
	append(f, 11, 1000, 11);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	append(f, 12, 2 * MIB, 12);
	flush(f);
	reopen(f);
	assert_int_equal(mg_log_last(f->log), 12);
	expect(f, 11, 1000, 11);
	expect(f, 12, 2 * MIB, 12);
}

static void
failed_write_breaks_the_log_and_keeps_what_was_written(void **state)
{
	fixture    *f = *state;
	struct rlimit before;
	struct rlimit small;
	mg_log_place place;

	append_range(f, 1, 10, 1000);
	flush(f);
	append_range(f, 11, 20, 1000);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = 8192;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(mg_log_write(f->log), MG_E_IO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(mg_log_write(f->log), MG_E_IO);
	assert_int_equal(mg_log_append(f->log, 21, body, 10, &place), MG_E_IO);
	assert_int_equal(mg_log_truncate(f->log, 5), MG_E_IO);
	assert_int_equal(mg_log_flushed(f->log), 10);
	reopen(f);
	expect_range(f, 1, 10, 1000);
}

/* Puts a pipe in the place of every descriptor open on the file: fdatasync refuses it. */
static void
break_descriptors(const char *path)
{
	int			ends[2];

	assert_int_equal(pipe(ends), 0);
	for (int fd = 3; fd < 256; fd++)
	{
		char		link[64];
		char		target[128];
		ssize_t		n;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strcmp(target, path) == 0)
			assert_int_equal(dup2(ends[0], fd), fd);
	}
	close(ends[0]);
	close(ends[1]);
}

static void
failed_flush_is_reported_and_never_forgotten(void **state)
{
	fixture    *f = *state;
	struct pollfd p;
	mg_log_place place;
	char		path[128];

	f->config.sync = true;
	reopen(f);
	append(f, 1, 100, 1);
	flush(f);
	place = append(f, 2, 100, 2);
	assert_int_equal(mg_log_write(f->log), MG_OK);
	mg_segment_path(path, sizeof(path), f->dir, place.segment);
	break_descriptors(path);
	p = (struct pollfd) {.fd = mg_log_flush_fd(f->log),.events = POLLIN};
	mg_log_flush_seen(f->log);
	mg_log_request_flush(f->log);
	WAIT_UNTIL(poll(&p, 1, 1000) == 1 && mg_log_flush_error(f->log) != 0);
	assert_int_equal(mg_log_flush_error(f->log), EINVAL);
	assert_int_equal(mg_log_flushed(f->log), 1);

	/* A second fdatasync might succeed, and would lie. */
	mg_log_flush_seen(f->log);
	mg_log_request_flush(f->log);
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_int_equal(mg_log_flushed(f->log), 1);
	assert_int_equal(mg_log_flush_error(f->log), EINVAL);
}

static void
log_of_a_newer_version_is_left_alone(void **state)
{
	fixture    *f = *state;
	mg_log_place place;
	uint8_t    *file;
	size_t		file_len;
	mg_log	   *log;

	place = append(f, 1, 100, 1);
	mg_log_close(f->log);
	f->log = NULL;
	file_len = file_load(f->dir, place.segment, &file);
	mg_store_u32(file + 4, MG_LOG_VERSION + 1);
	mg_store_u32(file + 60, mg_crc32c(0, file, 60));
	file_store(f->dir, place.segment, file, file_len);
	assert_int_equal(mg_log_open(&f->config, &log, f->reason), MG_E_VERSION);
	assert_null(log);
	mg_store_u32(file + 4, MG_LOG_VERSION);
	mg_store_u32(file + 60, mg_crc32c(0, file, 60));
	file_store(f->dir, place.segment, file, file_len);
	free(file);
	reopen(f);
	expect_range(f, 1, 1, 100);
}

/* ---- random histories with crashes; MG_SEED runs one seed, MG_SEEDS that many from it on ---- */

#define HISTORY_SEQNO_MAX 20000

/* What a child tells before it goes, in shared memory. */
typedef struct history
{
	uint64_t	first;			/* released up to before it */
	uint64_t	written;
	uint64_t	flushed;
	uint64_t	generation;
	uint64_t	keys[HISTORY_SEQNO_MAX + 1];
} history;

static uint32_t
history_len(uint64_t key)
{
	uint64_t	random = mg_mix64(key);

	if (random % 50 == 0)
		return (uint32_t) (random >> 20) % (2 * MIB);
	if (random % 3 == 0)
		return 200;
	return (uint32_t) (random >> 20) % 20000;
}

static void
history_append(mg_log *log, history *h)
{
	mg_seqno	seqno = mg_log_last(log) + 1;
	uint64_t	key = ++h->generation;
	uint32_t	len = history_len(key);
	mg_log_place place;

	if (seqno > HISTORY_SEQNO_MAX)
		return;
	fill(body, len, key);
	h->keys[seqno] = key;
	if (mg_log_append(log, seqno, body, len, &place) != MG_OK)
		_exit(10);
}

/* Steps at random, then leaves without closing. */
static void
history_live(const mg_log_config *config, history *h, uint64_t seed)
{
	mg_log	   *log;
	char		reason[MG_REASON_BYTES_MAX];
	int			steps = (int) (mg_mix64(seed) % 400);

	if (mg_log_open(config, &log, reason) != MG_OK)
		_exit(11);
	for (int i = 0; i < steps; i++)
	{
		uint64_t	random = mg_mix64(seed * 1000 + (uint64_t) i);
		mg_seqno	last = mg_log_last(log);

		switch (random % 16)
		{
			case 0:
				if ((random >> 8) % 4 == 0 && last > 0)
				{
					mg_seqno	to = last - (random >> 16) % (last - mg_log_first(log) + 1);

					/* As the node does: never below what is released. */
					if (to < h->first)
						to = h->first;
					if (to < h->written)
						h->written = to;
					if (to < h->flushed)
						h->flushed = to;
					if (mg_log_truncate(log, to) != MG_OK)
						_exit(12);
				}
				break;
			case 1:
				if (h->written > 0)
				{
					mg_seqno	to = h->written - (random >> 16) % (h->written - mg_log_first(log) + 1);

					if (to > h->first)
						h->first = to;
					mg_log_release(log, to, to - (random >> 40) % (to + 1));
				}
				break;
			case 2:
			case 3:
			case 4:
				if (mg_log_write(log) != MG_OK)
					_exit(13);
				h->written = mg_log_last(log);
				break;
			case 5:
			case 6:
				mg_log_request_flush(log);
				break;
			default:
				history_append(log, h);
		}
		h->flushed = mg_log_flushed(log);
	}
	_exit(0);
}

/* Power goes: of what was written but not flushed, random pages never reached the disk. */
static void
history_lose(fixture *f, const history *h, uint64_t seed)
{
	static const uint8_t page[4096];
	mg_log_place at;
	uint8_t		marks[MARKS_BYTES];
	mg_seqno	flushed;

	/* Places are known to a log that is open; look them up and close again. */
	marks_load(f->dir, marks);
	flushed = mg_load_u64(marks + 16);
	reopen(f);
	for (mg_seqno seqno = (flushed > h->flushed ? flushed : h->flushed) + 1; mg_log_find(f->log, seqno, &at) == MG_OK; seqno++)
	{
		uint64_t	random = mg_mix64(seed + seqno);
		uint64_t	from = at.offset;
		uint64_t	to = at.offset + mg_record_bytes(at.len);

		if (random % 3 != 0)
			continue;

		/* A page that a flushed record shares with this one was flushed as it was then. */
		from += (random >> 8) % (to - from);
		if (to - from > sizeof(page))
			to = from + sizeof(page);
		file_damage(f->dir, at.segment, from, page, to - from);
	}
	mg_log_close(f->log);
	f->log = NULL;
	marks_store(f->dir, marks);
}

static void
histories_with_crashes_keep_a_prefix(void **state)
{
	fixture    *f = *state;
	history    *h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const char *text = getenv("MG_SEED");
	uint64_t	seed = text != NULL ? strtoull(text, NULL, 10) : 1;
	uint64_t	end = seed + (getenv("MG_SEEDS") != NULL ? strtoull(getenv("MG_SEEDS"), NULL, 10) : text != NULL ? 1 : 12);

	void	   *memory = mmap(NULL, mg_recent_size(MIB), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	/* The memory outlives the processes, as in a server whose provider ends and starts again. */
	assert_true(h != MAP_FAILED && memory != MAP_FAILED);
	f->config.bytes_max = 4 * MIB;
	f->config.pages_max = 2 * MIB;
	f->config.recent = mg_recent_init(memory, MIB);
	for (; seed < end; seed++)
	{
		mg_log_close(f->log);
		f->log = NULL;
		remove_files(f->dir);
		memset(h, 0, sizeof(*h));
		for (int life = 0; life < 5; life++)
		{
			pid_t		child = fork();
			int			status;
			mg_seqno	last;

			if (child == 0)
				history_live(&f->config, h, seed * 10 + (uint64_t) life);
			assert_true(child > 0);
			assert_int_equal(waitpid(child, &status, 0), child);
			if (status != 0)
				fail_msg("MG_SEED=%llu life %d: child ended with %x", (unsigned long long) seed, life, status);
			if (seed % 2 == 0)
				history_lose(f, h, seed * 10 + (uint64_t) life);
			reopen(f);
			last = mg_log_last(f->log);
			if (mg_log_damaged(f->log))
				fail_msg("MG_SEED=%llu life %d: %s", (unsigned long long) seed, life, f->reason);
			if (last < (seed % 2 == 1 ? h->written : h->flushed))
				fail_msg("MG_SEED=%llu life %d: last is %llu, flushed %llu, written %llu",
						 (unsigned long long) seed, life, (unsigned long long) last,
						 (unsigned long long) h->flushed, (unsigned long long) h->written);
			if (last > 0 && mg_log_first(f->log) > h->first + 1)
				fail_msg("MG_SEED=%llu life %d: first is %llu, released %llu", (unsigned long long) seed, life,
						 (unsigned long long) mg_log_first(f->log), (unsigned long long) h->first);
			for (mg_seqno seqno = mg_log_first(f->log); last > 0 && seqno <= last; seqno++)
				expect(f, seqno, history_len(h->keys[seqno]), h->keys[seqno]);
			h->written = h->flushed = last;
			if (h->first > last)
				h->first = last;
			mg_log_close(f->log);
			f->log = NULL;
		}
	}
	f->config.recent = NULL;
	reopen(f);
	munmap(memory, mg_recent_size(MIB));
	munmap(h, sizeof(*h));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(records_are_there_after_reopening),
		TEST(buffered_and_written_records_read_alike),
		TEST(misuse_is_refused_and_changes_nothing),
		TEST(bad_configuration_is_refused_with_a_reason),
		TEST(torn_tail_at_every_byte_is_cut),
		TEST(flipped_bit_in_any_record_cuts_there),
		TEST(damage_in_an_early_segment_cuts_all_that_follows),
		TEST(damage_of_flushed_records_is_told_from_a_torn_tail),
		TEST(damage_ends_where_the_log_is_cut_or_emptied),
		TEST(lost_segments_are_damage),
		TEST(marks_that_are_not_whole_say_nothing),
		TEST(truncation_that_was_begun_is_finished),
		TEST(records_behind_a_torn_one_never_link_up_again),
		TEST(truncated_records_never_come_back),
		TEST(truncating_across_segments_removes_them),
		TEST(reset_empties_durably_and_any_seqno_may_follow),
		TEST(recycling_keeps_everything_above_the_released_seqno),
		TEST(segment_goes_with_the_release_of_its_last_record_and_not_before),
		TEST(segments_made_in_a_hurry_stay_in_order),
		TEST(log_grows_past_its_limit_rather_than_drop_what_is_needed),
		TEST(what_only_others_need_goes_at_the_hard_limit),
		TEST(release_may_fall_back_and_limits_may_change),
		TEST(recent_records_come_from_memory),
		TEST(files_of_two_logs_are_left_alone),
		TEST(reset_that_was_begun_is_finished),
		TEST(stale_records_of_recycled_segments_never_come_back),
		TEST(records_larger_than_a_segment_get_their_own),
		TEST(flushes_are_grouped),
		TEST(flush_descriptor_wakes_and_is_cleared),
		TEST(flusher_takes_no_signals),
		TEST(reader_of_another_process_verifies_what_it_reads),
		TEST(reader_learns_that_a_segment_was_recycled),
		TEST(renamed_and_overwritten_segment_is_not_found),
		TEST(reader_runs_beside_the_appender),
		TEST(full_disk_leaves_the_log_as_it_was),
		TEST(failed_write_breaks_the_log_and_keeps_what_was_written),
		TEST(failed_flush_is_reported_and_never_forgotten),
		TEST(log_of_a_newer_version_is_left_alone),
		TEST(histories_with_crashes_keep_a_prefix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
