/* test/unit/test_buf.c - writers and readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/buf.h"
#include "seed.h"

static void
what_was_put_is_read_back(void **state)
{
	(void) state;
	for (int round = 0; round < 500; round++)
	{
		mg_buf		buf = {0};
		mg_reader	r;
		uint64_t	seed = test_random();
		unsigned	n = (unsigned) test_random_below(100);

		for (unsigned i = 0; i < n; i++)
		{
			uint64_t	v = mg_mix64(seed + i);

			switch (v % 5)
			{
				case 0:
					mg_buf_put_u8(&buf, (uint8_t) (v >> 8));
					break;
				case 1:
					mg_buf_put_u16(&buf, (uint16_t) (v >> 8));
					break;
				case 2:
					mg_buf_put_u32(&buf, (uint32_t) (v >> 8));
					break;
				case 3:
					mg_buf_put_u64(&buf, v);
					break;
				case 4:
					mg_buf_put(&buf, &v, sizeof(v));
					break;
			}
		}
		mg_reader_init(&r, buf.data, buf.len);
		for (unsigned i = 0; i < n; i++)
		{
			uint64_t	v = mg_mix64(seed + i),
						copy;

			switch (v % 5)
			{
				case 0:
					assert_int_equal(mg_read_u8(&r), (uint8_t) (v >> 8));
					break;
				case 1:
					assert_int_equal(mg_read_u16(&r), (uint16_t) (v >> 8));
					break;
				case 2:
					assert_int_equal(mg_read_u32(&r), (uint32_t) (v >> 8));
					break;
				case 3:
					assert_true(mg_read_u64(&r) == v);
					break;
				case 4:
					mg_read_copy(&r, &copy, sizeof(copy));
					assert_true(copy == v);
					break;
			}
		}
		assert_true(mg_reader_done(&r));
		mg_buf_free(&buf);
		assert_null(buf.data);
	}
}

static void
integers_are_little_endian(void **state)
{
	static const uint8_t want[] = {1, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 15, 14, 13, 12, 11, 10, 9, 8};
	mg_buf		buf = {0};

	(void) state;
	mg_buf_put_u8(&buf, 1);
	mg_buf_put_u16(&buf, 0x0203);
	mg_buf_put_u32(&buf, 0x12345678);
	mg_buf_put_u64(&buf, UINT64_C(0x08090a0b0c0d0e0f));
	mg_buf_set_u32(&buf, 3, 0x04050607);
	assert_int_equal(buf.len, sizeof(want));
	assert_memory_equal(buf.data, want, sizeof(want));
	mg_buf_reset(&buf);
	assert_int_equal(buf.len, 0);
	mg_buf_free(&buf);
}

static void
reading_past_the_end_is_bad_for_good_and_gives_zeros(void **state)
{
	uint8_t    *bytes = malloc(3);	/* on the heap: the sanitizer watches its end */
	mg_reader	r;
	uint8_t		copy[4] = {9, 9, 9, 9};
	char		text[4] = "xyz";

	(void) state;
	memset(bytes, 0xff, 3);
	mg_reader_init(&r, bytes, 3);
	assert_int_equal(mg_read_u32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(mg_read_u8(&r), 0);	/* there is a byte, but it's too late */
	assert_int_equal(mg_read_u16(&r), 0);
	assert_true(mg_read_u64(&r) == 0);
	assert_null(mg_read_bytes(&r, 1));
	mg_read_copy(&r, copy, sizeof(copy));
	assert_memory_equal(copy, "\0\0\0\0", 4);
	mg_read_text(&r, text, sizeof(text));
	assert_string_equal(text, "");
	assert_false(mg_reader_done(&r));

	mg_reader_init(&r, bytes, 3);
	assert_null(mg_read_bytes(&r, SIZE_MAX));
	mg_reader_init(&r, bytes, 3);
	assert_int_equal(mg_read_u16(&r), 0xffff);
	assert_false(mg_reader_done(&r));	/* a byte is left over */
	assert_int_equal(mg_reader_left(&r), 1);
	free(bytes);

	mg_reader_init(&r, NULL, 0);
	assert_true(mg_reader_done(&r));
	assert_int_equal(mg_read_u8(&r), 0);
	assert_true(r.bad);
}

static void
text_that_does_not_fit_or_holds_a_zero_is_bad(void **state)
{
	mg_buf		buf = {0};
	mg_reader	r;
	char		text[4];

	(void) state;
	mg_buf_put_text(&buf, "abc");
	mg_buf_put_text(&buf, "");
	mg_buf_put_text(&buf, "abcd");
	mg_reader_init(&r, buf.data, buf.len);
	mg_read_text(&r, text, sizeof(text));
	assert_string_equal(text, "abc");
	mg_read_text(&r, text, sizeof(text));
	assert_string_equal(text, "");
	assert_false(r.bad);
	mg_read_text(&r, text, sizeof(text));
	assert_true(r.bad);
	assert_string_equal(text, "");

	mg_buf_reset(&buf);
	mg_buf_put_u16(&buf, 3);
	mg_buf_put(&buf, "a\0c", 3);
	mg_reader_init(&r, buf.data, buf.len);
	mg_read_text(&r, text, sizeof(text));
	assert_true(r.bad);

	mg_reader_init(&r, buf.data, buf.len - 1);	/* the length promises more */
	mg_read_text(&r, text, sizeof(text));
	assert_true(r.bad);
	mg_buf_free(&buf);
}

static void
a_buffer_grows_and_keeps_its_bytes(void **state)
{
	mg_buf		buf = {0};

	(void) state;
	for (uint32_t i = 0; i < 100000; i++)
		mg_buf_put_u32(&buf, i);
	mg_buf_reserve(&buf, 1 << 20);
	assert_true(buf.cap - buf.len >= 1 << 20);
	for (uint32_t i = 0; i < 100000; i++)
		assert_int_equal(mg_load_u32(buf.data + 4 * (size_t) i), i);
	mg_buf_put(&buf, NULL, 0);
	mg_buf_free(&buf);
	mg_buf_put(&buf, NULL, 0);
	mg_buf_free(&buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_read_back),
		cmocka_unit_test(integers_are_little_endian),
		cmocka_unit_test(reading_past_the_end_is_bad_for_good_and_gives_zeros),
		cmocka_unit_test(text_that_does_not_fit_or_holds_a_zero_is_bad),
		cmocka_unit_test(a_buffer_grows_and_keeps_its_bytes),
	};

	test_seed("test_buf");
	return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
