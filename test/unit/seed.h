/*
 * test/unit/seed.h - all the randomness of a unit test, from one printed seed.
 *
 * MG_SEED in the environment repeats a run.  Without it the clock chooses.
 */
#ifndef MG_TEST_SEED_H
#define MG_TEST_SEED_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/base.h"

static uint64_t test_random_state;

/* From main, before the tests. */
static inline void
test_seed(const char *program)
{
	const char *given = getenv("MG_SEED");
	struct timespec now;

	timespec_get(&now, TIME_UTC);
	test_random_state = given != NULL && *given != 0 ? strtoull(given, NULL, 0)
		: mg_mix64((uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec);
	printf("%s: MG_SEED=%" PRIu64 "\n", program, test_random_state);
	fflush(stdout);
}

static inline uint64_t
test_random(void)
{
	test_random_state += UINT64_C(0x9e3779b97f4a7c15);	/* splitmix64 */
	return mg_mix64(test_random_state);
}

/* From 0 to n - 1. */
static inline uint64_t
test_random_below(uint64_t n)
{
	return test_random() % n;
}

static inline bool
test_random_chance(unsigned percent)
{
	return test_random_below(100) < percent;
}

static inline void
test_random_bytes(uint8_t *to, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t) test_random();
}

#endif							/* MG_TEST_SEED_H */
