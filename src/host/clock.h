/*
 * host/clock.h - the two things that the core may never ask for itself: what
 * time it is, and what chance says.  Any thread, no state.
 */
#ifndef MG_HOST_CLOCK_H
#define MG_HOST_CLOCK_H

#include "core/base.h"

/* Microseconds since some fixed point; never goes back, counts suspended time out. */
extern int64_t mg_clock_monotonic_us(void);

/* Microseconds since 1970-01-01 UTC; may jump: for people and logs only. */
extern int64_t mg_clock_wall_us(void);

/* From the kernel's generator.  MG_E_IO: `to` holds nothing of use. */
extern mg_status mg_random_bytes(void *to, size_t len) MG_MUST_USE;

#endif							/* MG_HOST_CLOCK_H */
