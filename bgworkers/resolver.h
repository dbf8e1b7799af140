/*
 * bgworkers/resolver.h - the process that clears local transactions out of the
 * way of appliers that wait for their locks.
 *
 * An applier whose timer finds it waiting sets its `blocked` flag, then the latch
 * of mgrepl_shared->resolver_procno.  The resolver takes the flag back when it
 * sees the applier not waiting, and keeps an eye on it until it has finished the
 * group (busy_seqno changes).  Without work it sleeps without a timeout.
 */
#ifndef MGREPL_RESOLVER_H
#define MGREPL_RESOLVER_H

#include "postgres.h"

extern PGDLLEXPORT void mgrepl_resolver_main(Datum arg);

/* From _PG_init. */
extern void mgrepl_resolver_register(void);

#endif							/* MGREPL_RESOLVER_H */
