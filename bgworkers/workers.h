/*
 * bgworkers/workers.h - the background workers of a node.
 *
 *	 provider   one; event loop over network, log, timers and submissions; the
 *	            only owner of the core (provider.c)
 *	 applier    mgrepl.appliers of them (applier.c)
 *	 joiner     while a snapshot of another node's data is taken (joiner.c)
 *	 resolver   one; clears local transactions out of a blocked applier's way (resolver.c)
 *	 notifier   one; tells the world of changes of state and members (notifier.c)
 */
#ifndef MGREPL_WORKERS_H
#define MGREPL_WORKERS_H

#include "postgres.h"

extern void mgrepl_workers_register(void);	/* from _PG_init */

extern PGDLLEXPORT void mgrepl_provider_main(Datum arg);
extern PGDLLEXPORT void mgrepl_applier_main(Datum arg);

#endif							/* MGREPL_WORKERS_H */
