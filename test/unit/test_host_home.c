/*
 * test/unit/test_host_home.c - a copied directory is told from the one that was
 * copied.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "host/home.h"
#include "host/statefile.h"

static char base[] = "/tmp/mg-home-XXXXXX";
static char one[64];
static char two[64];

static int
make_dirs(void **state)
{
	(void) state;
	snprintf(base, sizeof(base), "/tmp/mg-home-XXXXXX");
	if (mkdtemp(base) == NULL)
		return -1;
	snprintf(one, sizeof(one), "%s/one", base);
	snprintf(two, sizeof(two), "%s/two", base);
	return mkdir(one, 0700) == 0 && mkdir(two, 0700) == 0 ? 0 : -1;
}

static void
remove_in(const char *dir)
{
	char		path[128];

	snprintf(path, sizeof(path), "%s/home", dir);
	unlink(path);
	rmdir(dir);
}

static int
remove_dirs(void **state)
{
	(void) state;
	remove_in(one);
	remove_in(two);
	return rmdir(base);
}

static mg_home
look(const char *dir)
{
	mg_home		home;

	assert_int_equal(mg_home_look(dir, &home), MG_OK);
	return home;
}

static void
copy_note(const char *from, const char *to)
{
	char		path[128];
	uint8_t		bytes[64];
	size_t		len;

	snprintf(path, sizeof(path), "%s/home", from);
	assert_int_equal(mg_statefile_read(path, bytes, sizeof(bytes), &len), MG_OK);
	snprintf(path, sizeof(path), "%s/home", to);
	assert_int_equal(mg_statefile_write(path, bytes, len), MG_OK);
}

static void
a_new_directory_has_no_note(void **state)
{
	(void) state;
	assert_int_equal(look(one), MG_HOME_NONE);
	assert_int_equal(mg_home_settle(one), MG_OK);
	assert_int_equal(look(one), MG_HOME_OWN);
}

static void
a_copy_is_noticed_and_can_settle(void **state)
{
	(void) state;
	assert_int_equal(mg_home_settle(one), MG_OK);
	copy_note(one, two);
	assert_int_equal(look(two), MG_HOME_COPY);
	assert_int_equal(look(one), MG_HOME_OWN);
	assert_int_equal(mg_home_settle(two), MG_OK);
	assert_int_equal(look(two), MG_HOME_OWN);
}

static void
another_name_of_the_directory_is_the_same_directory(void **state)
{
	char		other[64];

	(void) state;
	assert_int_equal(mg_home_settle(one), MG_OK);
	snprintf(other, sizeof(other), "%s/three", base);
	assert_int_equal(rename(one, other), 0);
	assert_int_equal(look(other), MG_HOME_OWN);
	assert_int_equal(rename(other, one), 0);
}

static void
a_damaged_note_counts_as_none(void **state)
{
	char		path[128];
	FILE	   *f;

	(void) state;
	assert_int_equal(mg_home_settle(one), MG_OK);
	snprintf(path, sizeof(path), "%s/home", one);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fputs("not a note", f) >= 0, 1);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(look(one), MG_HOME_NONE);
	assert_int_equal(mg_statefile_write(path, "abc", 3), MG_OK);
	assert_int_equal(look(one), MG_HOME_NONE);
}

static void
a_directory_that_is_not_there_is_an_error(void **state)
{
	char		nowhere[128];
	mg_home		home;

	(void) state;
	snprintf(nowhere, sizeof(nowhere), "%s/nowhere", base);
	assert_int_equal(mg_home_look(nowhere, &home), MG_E_IO);
	assert_int_equal(mg_home_settle(nowhere), MG_E_IO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_new_directory_has_no_note, make_dirs, remove_dirs),
		cmocka_unit_test_setup_teardown(a_copy_is_noticed_and_can_settle, make_dirs, remove_dirs),
		cmocka_unit_test_setup_teardown(another_name_of_the_directory_is_the_same_directory, make_dirs, remove_dirs),
		cmocka_unit_test_setup_teardown(a_damaged_note_counts_as_none, make_dirs, remove_dirs),
		cmocka_unit_test_setup_teardown(a_directory_that_is_not_there_is_an_error, make_dirs, remove_dirs),
	};

	return cmocka_run_group_tests_name("host/home", tests, NULL, NULL);
}
