/* test/unit/test_writeset.c - keys, and a decoder that believes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/writeset.h"
#include "build.h"
#include "seed.h"

static const mg_writeset_header sample_header = {
	.flags = MG_WS_STATEMENT | MG_WS_RELEASE,.last_seen = 41,.trx_id = 7,.time_us = 1234567
};
static const mg_key sample_keys[] = {4 | MG_KEY_UPDATE, 8, 12 | MG_KEY_SHARE, UINT64_MAX};

static void
put_sample(mg_buf *to)
{
	mg_buf		events = {0};

	test_put_event(&events, MG_EVENT_RELATION, "t(a,b)", 6);
	test_put_event(&events, MG_EVENT_INSERT, "1,2", 3);
	test_put_event(&events, MG_EVENT_STATEMENT, "", 0);
	test_build_writeset(to, sample_header, sample_keys, 4, &events, 3);
	mg_buf_free(&events);
}

/* Opens a copy on the heap of just this size, so that the sanitizer sees each byte too far. */
static mg_status
open_exactly(const uint8_t *bytes, size_t len)
{
	uint8_t    *copy = malloc(len > 0 ? len : 1);
	mg_writeset ws;
	mg_event	event;
	uint32_t	at = 0;
	uint32_t	n = 0;
	volatile uint64_t sum = 0;	/* each byte is really read */
	mg_status	status;

	if (len > 0)
		memcpy(copy, bytes, len);
	status = mg_writeset_open(copy, len, &ws);
	if (status == MG_OK)
	{
		for (uint32_t i = 0; i < ws.header.n_keys; i++)
			sum += mg_writeset_key(&ws, i);
		while (mg_writeset_next_event(&ws, &at, &event))
		{
			n++;
			for (uint32_t i = 0; i < event.len; i++)
				sum += event.body[i];
		}
		assert_int_equal(n, ws.header.n_events);
		assert_int_equal(at, ws.header.events_len);
	}
	free(copy);
	return status;
}

static void
strengths_conflict_as_row_locks_of_postgresql(void **state)
{
	/* The table of README.tuplock; X is a conflict. */
	static const char *const table[4] = {
		"   X",					/* KEY SHARE */
		"  XX",					/* SHARE */
		" XXX",					/* NO KEY UPDATE */
		"XXXX",					/* UPDATE */
	};

	(void) state;
	for (int a = 0; a < 4; a++)
		for (int b = 0; b < 4; b++)
			assert_int_equal(mg_key_strengths_conflict((mg_key_strength) a, (mg_key_strength) b),
							 table[a][b] == 'X');
}

static void
normalizing_sorts_and_keeps_the_strongest_of_each_hash(void **state)
{
	(void) state;
	for (int round = 0; round < 500; round++)
	{
		mg_key		keys[200],
					given[200];
		uint32_t	n = (uint32_t) test_random_below(round < 250 ? 20 : 200);
		uint32_t	kept = n;

		for (uint32_t i = 0; i < n; i++)
			given[i] = keys[i] = mg_key_make(test_random_below(50) << 2, (mg_key_strength) test_random_below(4));
		mg_keys_normalize(keys, &kept);
		for (uint32_t i = 1; i < kept; i++)
			assert_true(mg_key_get_hash(keys[i - 1]) < mg_key_get_hash(keys[i]));
		for (uint32_t g = 0; g < n; g++)
		{
			int			found = 0;

			for (uint32_t i = 0; i < kept; i++)
				found += mg_key_get_hash(keys[i]) == mg_key_get_hash(given[g]) && keys[i] >= given[g];
			assert_int_equal(found, 1);
		}
		for (uint32_t i = 0; i < kept; i++)
		{
			bool		was_given = false;

			for (uint32_t g = 0; g < n; g++)
				was_given |= given[g] == keys[i];
			assert_true(was_given);
		}
	}
}

static void
an_opened_writeset_says_what_was_written(void **state)
{
	mg_buf		buf = {0};
	mg_writeset ws;
	mg_event	event;
	uint32_t	at = 0;

	(void) state;
	put_sample(&buf);
	assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_OK);
	assert_int_equal(ws.header.flags, sample_header.flags);
	assert_int_equal(ws.header.total_len, buf.len);
	assert_true(ws.header.last_seen == 41 && ws.header.trx_id == 7 && ws.header.time_us == 1234567);
	assert_int_equal(ws.header.n_keys, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_true(mg_writeset_key(&ws, i) == sample_keys[i]);

	assert_true(mg_writeset_next_event(&ws, &at, &event));
	assert_int_equal(event.type, MG_EVENT_RELATION);
	assert_memory_equal(event.body, "t(a,b)", event.len);
	assert_true(mg_writeset_next_event(&ws, &at, &event));
	assert_int_equal(event.type, MG_EVENT_INSERT);
	assert_int_equal(event.len, 3);
	assert_true(mg_writeset_next_event(&ws, &at, &event));
	assert_int_equal(event.type, MG_EVENT_STATEMENT);
	assert_int_equal(event.len, 0);
	assert_false(mg_writeset_next_event(&ws, &at, &event));
	assert_false(mg_writeset_next_event(&ws, &at, &event));
	mg_buf_free(&buf);
}

static void
a_writeset_without_keys_and_events_is_valid(void **state)
{
	mg_buf		buf = {0};

	(void) state;
	test_build_writeset(&buf, (mg_writeset_header) {.flags = MG_WS_RELEASE}, NULL, 0, NULL, 0);
	assert_int_equal(buf.len, MG_WRITESET_HEADER_BYTES);
	assert_int_equal(open_exactly(buf.data, buf.len), MG_OK);
	mg_buf_free(&buf);
}

static void
every_truncation_is_refused(void **state)
{
	mg_buf		buf = {0};

	(void) state;
	put_sample(&buf);
	for (size_t len = 0; len < buf.len; len++)
		assert_int_equal(open_exactly(buf.data, len), MG_E_TRUNCATED);
	assert_int_equal(open_exactly(buf.data, buf.len), MG_OK);
	mg_buf_put_u8(&buf, 0);
	assert_int_equal(open_exactly(buf.data, buf.len), MG_E_FORMAT);
	mg_buf_free(&buf);
}

static void
every_single_bit_flip_is_refused(void **state)
{
	mg_buf		buf = {0};

	(void) state;
	put_sample(&buf);
	for (size_t bit = 0; bit < buf.len * 8; bit++)
	{
		buf.data[bit / 8] ^= (uint8_t) (1 << bit % 8);
		assert_int_not_equal(open_exactly(buf.data, buf.len), MG_OK);
		buf.data[bit / 8] ^= (uint8_t) (1 << bit % 8);
	}
	assert_int_equal(open_exactly(buf.data, buf.len), MG_OK);
	mg_buf_free(&buf);
}

static void
a_refused_writeset_leaves_the_result_unchanged(void **state)
{
	mg_buf		buf = {0};
	mg_writeset ws,
				before;

	(void) state;
	put_sample(&buf);
	memset(&ws, 0x5a, sizeof(ws));
	before = ws;
	buf.data[buf.len - 1] = MG_EVENT_TYPE_COUNT;
	assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_E_CHECKSUM);
	test_reseal(buf.data, buf.len);
	assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_E_FORMAT);
	assert_memory_equal(&ws, &before, sizeof(ws));
	mg_buf_free(&buf);
}

/* With a right checksum, each rule must hold by itself. */
static void
each_rule_of_the_format_is_checked(void **state)
{
	static const struct
	{
		size_t		at;
		uint8_t		value;
		mg_status	status;
	}			wrong[] = {
		{0, 'X', MG_E_FORMAT},	/* magic */
		{4, MG_WRITESET_VERSION + 1, MG_E_VERSION},
		{6, 0x08, MG_E_FORMAT}, /* an unknown flag */
		{6, MG_WS_RESERVE, MG_E_FORMAT},	/* has events */
		{7, 0x01, MG_E_FORMAT},
		{8, 0, MG_E_FORMAT},	/* shorter than the bytes */
		{9, 1, MG_E_TRUNCATED}, /* longer than the bytes */
		{11, 0x41, MG_E_TOO_BIG},
		{40, 3, MG_E_FORMAT},	/* n_keys */
		{43, 0x20, MG_E_FORMAT},	/* n_keys * 8 would not fit 32 bits */
		{44, 2, MG_E_FORMAT},	/* n_events: bytes are left over */
		{44, 4, MG_E_FORMAT},	/* n_events: one that isn't there */
		{47, 0x80, MG_E_FORMAT},
		{48, 1, MG_E_FORMAT},	/* events_len */
		{52, 1, MG_E_FORMAT},	/* zeros */
		{63, 1, MG_E_FORMAT},
		{64, 8, MG_E_FORMAT},	/* the first key's hash is the second's */
		{72, 0, MG_E_FORMAT},	/* not ascending */
		{96, MG_EVENT_NONE, MG_E_FORMAT},
		{96, MG_EVENT_TYPE_COUNT, MG_E_FORMAT},
		{97, 5, MG_E_FORMAT},	/* an event's length */
		{100, 0xff, MG_E_FORMAT},
	};
	mg_buf		buf = {0};

	(void) state;
	put_sample(&buf);
	test_reseal(buf.data, buf.len);
	assert_int_equal(open_exactly(buf.data, buf.len), MG_OK);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
	{
		uint8_t		right = buf.data[wrong[i].at];

		buf.data[wrong[i].at] = wrong[i].value;
		test_reseal(buf.data, buf.len);
		assert_int_equal(open_exactly(buf.data, buf.len), wrong[i].status);
		buf.data[wrong[i].at] = right;
	}
	mg_buf_reset(&buf);
	test_build_writeset(&buf, (mg_writeset_header) {.flags = MG_WS_RESERVE | MG_WS_RELEASE},
						sample_keys, 4, NULL, 0);
	assert_int_equal(open_exactly(buf.data, buf.len), MG_E_FORMAT);
	mg_buf_reset(&buf);
	test_build_writeset(&buf, (mg_writeset_header) {.flags = MG_WS_RESERVE}, sample_keys, 4, NULL, 0);
	assert_int_equal(open_exactly(buf.data, buf.len), MG_OK);
	mg_buf_free(&buf);
}

static void
garbage_never_crashes(void **state)
{
	uint8_t		bytes[300];

	(void) state;
	for (int round = 0; round < 20000; round++)
	{
		size_t		len = test_random_below(sizeof(bytes));

		test_random_bytes(bytes, len);
		assert_int_not_equal(open_exactly(bytes, len), MG_OK);
	}
}

/* Random damage that the checksum does not show. */
static void
resealed_damage_never_crashes(void **state)
{
	mg_buf		buf = {0},
				copy = {0};
	int			opened = 0;

	(void) state;
	put_sample(&buf);
	for (int round = 0; round < 50000; round++)
	{
		mg_buf_reset(&copy);
		mg_buf_put(&copy, buf.data, buf.len);
		for (int n = 1 + (int) test_random_below(3); n > 0; n--)
		{
			size_t		at = 16 + test_random_below(copy.len - 16);

			copy.data[at] = test_random_chance(50) ? (uint8_t) test_random()
				: (uint8_t) (copy.data[at] ^ 1 << test_random_below(8));
		}
		test_reseal(copy.data, copy.len);
		opened += open_exactly(copy.data, copy.len) == MG_OK;
	}
	assert_true(opened > 0);
	mg_buf_free(&buf);
	mg_buf_free(&copy);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strengths_conflict_as_row_locks_of_postgresql),
		cmocka_unit_test(normalizing_sorts_and_keeps_the_strongest_of_each_hash),
		cmocka_unit_test(an_opened_writeset_says_what_was_written),
		cmocka_unit_test(a_writeset_without_keys_and_events_is_valid),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(every_single_bit_flip_is_refused),
		cmocka_unit_test(a_refused_writeset_leaves_the_result_unchanged),
		cmocka_unit_test(each_rule_of_the_format_is_checked),
		cmocka_unit_test(garbage_never_crashes),
		cmocka_unit_test(resealed_damage_never_crashes),
	};

	test_seed("test_writeset");
	return cmocka_run_group_tests_name("writeset", tests, NULL, NULL);
}
