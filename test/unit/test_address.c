/*
 * test/unit/test_address.c - which texts are addresses, and what is said of
 * those that are none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/address.h"

static void
expect(const char *text, bool bind, const char *trouble)
{
	const char *said = mg_address_trouble(text, strlen(text), bind);

	if (said != trouble && (said == NULL || trouble == NULL || strstr(said, trouble) == NULL))
		fail_msg("\"%s\": %s instead of %s", text, said != NULL ? said : "good", trouble != NULL ? trouble : "good");
}

static void
well_formed_addresses_are_taken(void **state)
{
	(void) state;
	expect("10.0.0.1:5701", false, NULL);
	expect("a:1", false, NULL);
	expect("node-1.example_net:65535", false, NULL);
	expect("[::1]:5701", false, NULL);
	expect("[2001:db8::1]:1", false, NULL);
	expect("*:5701", true, NULL);
}

static void
what_is_wrong_is_said(void **state)
{
	char		lengthy[MG_ADDRESS_BYTES_MAX + 8];

	(void) state;
	expect("", false, "the port is missing");
	expect("host", false, "the port is missing");
	expect("host:", false, "the port is missing");
	expect(":5701", false, "the host is missing");
	expect("host:57a1", false, "the port is not a number");
	expect("host:-1", false, "the port is not a number");
	expect("host:0", false, "between 1 and 65535");
	expect("host:65536", false, "between 1 and 65535");
	expect("host:99999999999999999999", false, "between 1 and 65535");
	expect("*:5701", false, "others can connect to");
	expect("::1:5701", false, "must be in brackets");
	expect("[::1:5701", false, "closing bracket");
	expect("[]:5701", false, "closing bracket");
	expect("[xyz]:5701", false, "the IPv6 address holds");
	expect("a b:5701", false, "the host holds");
	expect("h\xc3\xb6st:5701", false, "the host holds");
	memset(lengthy, 'x', sizeof(lengthy));
	strcpy(lengthy + sizeof(lengthy) - 3, ":1");
	expect(lengthy, false, "too long");
}

/* The text need not end where the address does, and may hold anything behind it. */
static void
only_the_given_bytes_count(void **state)
{
	(void) state;
	assert_null(mg_address_trouble("a:1,b", 3, false));
	assert_non_null(mg_address_trouble("a:1\0", 4, false));
}

static void
lists_are_taken_apart(void **state)
{
	char		list[64];
	const char *at;
	size_t		len;

	(void) state;
	assert_null(mg_address_list("gcomm://a:1,b:2?pc.weight=3", list, sizeof(list), &at, &len));
	assert_string_equal(list, "a:1,b:2");
	assert_null(mg_address_list("a:1", list, sizeof(list), &at, &len));
	assert_string_equal(list, "a:1");
}

static void
wrong_lists_are_refused_at_their_place(void **state)
{
	static const struct
	{
		const char *text;
		const char *trouble;
		const char *at;
	}			cases[] = {
		{"gcomm://", "names nobody", ""},
		{"gcomm://?x=y", "names nobody", ""},
		{"a:1,,b:2", "it is empty", ""},
		{"a:1,", "it is empty", ""},
		{"a:1,b", "the port is missing", "b"},
		{"gcomm://a:1,*:2", "others can connect to", "*:2"},
		{"http://a:1", "in brackets", "http://a:1"},
	};
	char		list[64];
	char		many[MG_MEMBERS_MAX * 4 + 8] = "a:1";
	const char *at;
	size_t		len;

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const char *trouble = mg_address_list(cases[i].text, list, sizeof(list), &at, &len);

		if (trouble == NULL || strstr(trouble, cases[i].trouble) == NULL || strlen(cases[i].at) != len ||
			strncmp(at, cases[i].at, len) != 0)
			fail_msg("\"%s\": %s at \"%.*s\"", cases[i].text, trouble != NULL ? trouble : "good", (int) len, at);
	}
	for (int i = 0; i < MG_MEMBERS_MAX; i++)
		strcat(many, ",a:1");
	assert_string_equal(mg_address_list(many, many, 8, &at, &len), "the list is too long");
	{
		char		to[sizeof(many)];

		assert_non_null(strstr(mg_address_list(many, to, sizeof(to), &at, &len), "more members"));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(well_formed_addresses_are_taken),
		cmocka_unit_test(what_is_wrong_is_said),
		cmocka_unit_test(only_the_given_bytes_count),
		cmocka_unit_test(lists_are_taken_apart),
		cmocka_unit_test(wrong_lists_are_refused_at_their_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
