/* test/unit/test_base.c - names, UUIDs, memory, CRC32C. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base.h"
#include "seed.h"

/* One bit after the other, straight from the definition. */
static uint32_t
crc32c_by_definition(const uint8_t *p, size_t len)
{
	uint32_t	crc = 0xffffffffu;

	for (; len > 0; p++, len--)
		for (int bit = 0; bit < 8; bit++)
		{
			bool		differs = ((crc ^ (uint32_t) *p >> bit) & 1) != 0;

			crc = crc >> 1 ^ (differs ? 0x82f63b78u : 0);
		}
	return ~crc;
}

static void
crc32c_gives_the_values_of_rfc_3720(void **state)
{
	static const uint8_t read_pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
		0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0
	};
	uint8_t		zeros[32] = {0},
				ones[32],
				up[32],
				down[32];
	const struct
	{
		const void *bytes;
		size_t		len;
		uint32_t	crc;
	}			known[] = {
		{zeros, 32, 0x8a9136aa},
		{ones, 32, 0x62a8ab43},
		{up, 32, 0x46dd794e},
		{down, 32, 0x113fdb5c},
		{read_pdu, 48, 0xd9963a56},
		{"123456789", 9, 0xe3069283},
		{"", 0, 0},
	};

	(void) state;
	memset(ones, 0xff, sizeof(ones));
	for (uint8_t i = 0; i < 32; i++)
	{
		up[i] = i;
		down[i] = (uint8_t) (31 - i);
	}
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		assert_int_equal(mg_crc32c(0, known[i].bytes, known[i].len), known[i].crc);
		assert_int_equal(mg_crc32c_portable(0, known[i].bytes, known[i].len), known[i].crc);
	}
}

static void
both_ways_of_crc32c_agree_with_the_definition(void **state)
{
	uint8_t		bytes[600];

	(void) state;
	for (int round = 0; round < 2000; round++)
	{
		size_t		from = test_random_below(16);
		size_t		len = test_random_below(sizeof(bytes) - from);
		uint32_t	want;

		test_random_bytes(bytes, sizeof(bytes));
		want = crc32c_by_definition(bytes + from, len);
		assert_int_equal(mg_crc32c(0, bytes + from, len), want);
		assert_int_equal(mg_crc32c_portable(0, bytes + from, len), want);
	}
}

static void
crc32c_of_pieces_is_crc32c_of_the_whole(void **state)
{
	uint8_t		bytes[300];

	(void) state;
	test_random_bytes(bytes, sizeof(bytes));
	for (size_t cut = 0; cut <= sizeof(bytes); cut++)
	{
		uint32_t	want = mg_crc32c(0, bytes, sizeof(bytes));

		assert_int_equal(mg_crc32c(mg_crc32c(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), want);
		assert_int_equal(mg_crc32c_portable(mg_crc32c_portable(0, bytes, cut), bytes + cut,
											sizeof(bytes) - cut), want);
	}
}

static void
uuid_text_goes_there_and_back(void **state)
{
	(void) state;
	for (int round = 0; round < 1000; round++)
	{
		mg_uuid		uuid,
					back;
		char		text[MG_UUID_TEXT_BYTES];

		test_random_bytes(uuid.bytes, sizeof(uuid.bytes));
		mg_uuid_format(&uuid, text);
		assert_int_equal(strlen(text), MG_UUID_TEXT_BYTES - 1);
		assert_int_equal(mg_uuid_parse(text, &back), MG_OK);
		assert_true(mg_uuid_equal(&uuid, &back));
	}
}

static void
uuid_parse_takes_the_canonical_form_only(void **state)
{
	static const char *const wrong[] = {
		"", "-", "0", "00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeeff0",
		"00112233445566778899aabbccddeeff", "00112233-4455-6677-8899_aabbccddeeff",
		"0011223g-4455-6677-8899-aabbccddeeff", "{0112233-4455-6677-8899-aabbccddeeff}",
		" 00112233-4455-6677-8899-aabbccddeeff"
	};
	mg_uuid		uuid;
	char		text[MG_UUID_TEXT_BYTES];

	(void) state;
	assert_int_equal(mg_uuid_parse("00112233-4455-6677-8899-AABBCCddeeff", &uuid), MG_OK);
	assert_int_equal(uuid.bytes[1], 0x11);
	assert_int_equal(uuid.bytes[15], 0xff);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(mg_uuid_parse(wrong[i], &uuid), MG_E_FORMAT);
	mg_uuid_format(&uuid, text);
	assert_string_equal(text, "00112233-4455-6677-8899-aabbccddeeff");	/* as it was */
	assert_false(mg_uuid_is_zero(&uuid));
	assert_true(mg_uuid_is_zero(&(mg_uuid) {{0}}));
}

static void
every_status_has_a_name_of_its_own(void **state)
{
	(void) state;
	for (int a = 0; a < MG_STATUS_COUNT; a++)
		for (int b = 0; b < a; b++)
			assert_string_not_equal(mg_status_name((mg_status) a), mg_status_name((mg_status) b));
	assert_non_null(mg_status_name((mg_status) 1000));
}

static void
memory_comes_zeroed_and_is_never_null(void **state)
{
	uint8_t    *p = mg_alloc(100);
	void	   *nothing = mg_alloc(0);

	(void) state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(p[i], 0);
	assert_non_null(nothing);
	p = mg_realloc(p, 1000);
	p[999] = 1;
	mg_free(p);
	mg_free(nothing);
	mg_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_gives_the_values_of_rfc_3720),
		cmocka_unit_test(both_ways_of_crc32c_agree_with_the_definition),
		cmocka_unit_test(crc32c_of_pieces_is_crc32c_of_the_whole),
		cmocka_unit_test(uuid_text_goes_there_and_back),
		cmocka_unit_test(uuid_parse_takes_the_canonical_form_only),
		cmocka_unit_test(every_status_has_a_name_of_its_own),
		cmocka_unit_test(memory_comes_zeroed_and_is_never_null),
	};

	test_seed("test_base");
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
