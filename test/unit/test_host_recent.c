/*
 * test_host_recent.c - the memory store: what is got is what was put at just
 * that place, or nothing, also while it is being overwritten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/buf.h"
#include "host/recent.h"
#include "host/segment.h"

#define STORE_BYTES	(64u << 10)
#define LEN_MAX		(STORE_BYTES / 4)

static mg_recent *
store_new(uint64_t bytes)
{
	void	   *memory = calloc(1, mg_recent_size(bytes));

	assert_non_null(memory);
	return mg_recent_init(memory, bytes);
}

/* Every byte says whose it is. */
static uint8_t
byte_of(mg_seqno seqno, uint32_t i)
{
	return (uint8_t) mg_mix64(seqno * 31 + i / 8);
}

static uint32_t
len_of(mg_seqno seqno)
{
	return (uint32_t) (mg_mix64(seqno) % 700);
}

static mg_log_place
place_of(mg_seqno seqno, uint32_t len)
{
	return (mg_log_place) {.segment = 1 + seqno / 100,.offset = (uint32_t) (seqno % 100) * 1000,.len = len};
}

static void
put(mg_recent *store, mg_seqno seqno, uint32_t len)
{
	mg_log_place place = place_of(seqno, len);
	uint8_t		body[LEN_MAX + 8];

	for (uint32_t i = 0; i < len; i++)
		body[i] = byte_of(seqno, i);
	mg_recent_put(store, seqno, &place, body);
}

/* False if it isn't there; what is there is right. */
static bool
has(mg_recent *store, mg_seqno seqno, uint32_t len)
{
	mg_log_place place = place_of(seqno, len);
	uint8_t		body[LEN_MAX + 8];

	if (!mg_recent_get(store, seqno, &place, body))
		return false;
	for (uint32_t i = 0; i < len; i++)
		if (body[i] != byte_of(seqno, i))
			abort();			/* also from a thread */
	return true;
}

static void
newest_records_are_there_and_old_ones_are_not(void **state)
{
	mg_recent  *store = store_new(STORE_BYTES);
	uint64_t	hits;
	uint64_t	misses;
	mg_seqno	oldest = 0;

	(void) state;
	assert_false(has(store, 1, 0));
	for (mg_seqno seqno = 1; seqno <= 5000; seqno++)
	{
		put(store, seqno, len_of(seqno));
		assert_true(has(store, seqno, len_of(seqno)));
	}
	for (mg_seqno seqno = 5000; seqno > 0 && oldest == 0; seqno--)
		if (!has(store, seqno, len_of(seqno)))
			oldest = seqno + 1;

	/* About as many as fit; and with one, all older ones are gone. */
	assert_in_range(5000 - oldest, 130, 250);
	for (mg_seqno seqno = 1; seqno < oldest; seqno++)
		assert_false(has(store, seqno, len_of(seqno)));
	mg_recent_count(store, &hits, &misses);
	assert_int_equal(hits, 5000 + 5001 - oldest);
	assert_int_equal(misses, 1 + 1 + oldest - 1);
	free(store);
}

static void
another_place_is_another_record(void **state)
{
	mg_recent  *store = store_new(STORE_BYTES);
	uint8_t		body[64];
	mg_log_place place = place_of(7, 40);
	mg_log_place other = place;

	(void) state;
	put(store, 7, 40);
	assert_true(mg_recent_get(store, 7, &place, body));
	other.segment++;
	assert_false(mg_recent_get(store, 7, &other, body));
	other = place;
	other.offset += 8;
	assert_false(mg_recent_get(store, 7, &other, body));
	other = place;
	other.len--;
	assert_false(mg_recent_get(store, 7, &other, body));
	assert_false(mg_recent_get(store, 8, &place, body));

	/* The same seqno again, after the log was cut: only the new one. */
	mg_recent_put(store, 7, &place, "0123456789012345678901234567890123456789");
	assert_true(mg_recent_get(store, 7, &place, body));
	assert_memory_equal(body, "0123456789012345678901234567890123456789", 40);
	free(store);
}

static void
large_record_is_not_taken_and_hides_the_old_one(void **state)
{
	mg_recent  *store = store_new(1);	/* the smallest there is */
	mg_log_place place = place_of(3, LEN_MAX + 1);
	static uint8_t body[LEN_MAX + 1];

	(void) state;
	put(store, 3, LEN_MAX);
	assert_true(has(store, 3, LEN_MAX));
	put(store, 2, 10);
	mg_recent_put(store, 3, &place, body);
	assert_false(has(store, 3, LEN_MAX));
	assert_false(mg_recent_get(store, 3, &place, body));
	assert_true(has(store, 2, 10));
	put(store, 4, 0);
	assert_true(has(store, 4, 0));
	free(store);
}

/* ---- readers beside the writer ---- */

static mg_recent *shared;
static _Atomic uint64_t tip;
static _Atomic bool done;

static void *
read_along(void *arg)
{
	uint64_t   *found = arg;
	uint64_t	random = (uintptr_t) arg;

	while (!atomic_load(&done))
	{
		mg_seqno	last = atomic_load(&tip);
		mg_seqno	seqno;

		if (last == 0)
			continue;
		random = mg_mix64(random + 1);
		seqno = last - (random % 300 < last ? random % 300 : 0);	/* most near the edge of what is overwritten */
		*found += has(shared, seqno, len_of(seqno));
	}
	return NULL;
}

static void
readers_never_see_what_is_half_overwritten(void **state)
{
	pthread_t	threads[2];
	uint64_t	found[2] = {0};

	(void) state;
	shared = store_new(STORE_BYTES);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_along, &found[i]), 0);
	for (mg_seqno seqno = 1; seqno <= 200000; seqno++)
	{
		put(shared, seqno, len_of(seqno));
		atomic_store(&tip, seqno);
	}
	atomic_store(&done, true);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	free(shared);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(newest_records_are_there_and_old_ones_are_not),
		cmocka_unit_test(another_place_is_another_record),
		cmocka_unit_test(large_record_is_not_taken_and_hides_the_old_one),
		cmocka_unit_test(readers_never_see_what_is_half_overwritten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
