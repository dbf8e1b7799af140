/*
 * test/fuzz/replay.c - the committed corpus of one fuzz target, as a unit test.
 *
 * Linked to a target in libFuzzer's place: every file below
 * test/fuzz/corpus/FUZZ_NAME is given to it once, and each must come back
 * within the time that is enough for all.  A sanitizer's report or an assertion
 * ends the program; the name of the file that did it is the last line then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sanitizer/common_interface_defs.h>

#include "core/base.h"

#define CORPUS_DIR		"test/fuzz/corpus/" FUZZ_NAME
#define SECONDS_MAX		60

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char current[512];

static void
name_current(void)
{
	static const char before[] = "fuzz corpus " FUZZ_NAME ": died of ";
	ssize_t		n;

	n = write(STDERR_FILENO, before, sizeof(before) - 1);
	n += write(STDERR_FILENO, current, strlen(current));
	n += write(STDERR_FILENO, "\n", 1);
	(void) n;
}

static void
on_signal(int number)
{
	name_current();
	signal(number, SIG_DFL);
	raise(number);
}

static void
replay_file(const char *path)
{
	struct stat st;
	uint8_t    *bytes;
	FILE	   *file = fopen(path, "rb");

	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &st), 0);

	/* Of its own size on the heap: the sanitizer watches its end. */
	bytes = malloc((size_t) st.st_size);
	assert_true(bytes != NULL || st.st_size == 0);
	assert_int_equal(fread(bytes, 1, (size_t) st.st_size, file), st.st_size);
	fclose(file);
	(void) LLVMFuzzerTestOneInput(bytes, (size_t) st.st_size);
	free(bytes);
}

static void
corpus_replays_clean(void **state)
{
	struct dirent **list;
	int			n = scandir(CORPUS_DIR, &list, NULL, alphasort);
	int			files = 0;

	(void) state;
	assert_true(n >= 0);
	for (int i = 0; i < n; i++)
	{
		if (list[i]->d_name[0] != '.')
		{
			snprintf(current, sizeof(current), "%s/%s", CORPUS_DIR, list[i]->d_name);
			replay_file(current);
			files++;
		}
		free(list[i]);
	}
	free(list);
	assert_true(files > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		{"fuzz corpus " FUZZ_NAME " replays clean", corpus_replays_clean, NULL, NULL, NULL},
	};

	__sanitizer_set_death_callback(name_current);
	signal(SIGABRT, on_signal);
	signal(SIGALRM, on_signal);
	alarm(SECONDS_MAX);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
