/*
 * host/clock.c - clock_gettime and getrandom.
 *
 * CLOCK_MONOTONIC goes through the vdso: no system call.
 */
#include "host/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static int64_t
read_clock_us(clockid_t clock)
{
	struct timespec now;

	MG_ASSERT(clock_gettime(clock, &now) == 0);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
mg_clock_monotonic_us(void)
{
	return read_clock_us(CLOCK_MONOTONIC);
}

int64_t
mg_clock_wall_us(void)
{
	return read_clock_us(CLOCK_REALTIME);
}

mg_status
mg_random_bytes(void *to, size_t len)
{
	uint8_t    *p = to;

	/* More than 256 bytes may come in pieces, and a signal may cut any. */
	while (len > 0)
	{
		ssize_t		n = getrandom(p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return MG_E_IO;
		p += n;
		len -= (size_t) n;
	}
	return MG_OK;
}
