/*
 * bgworkers/joiner.h - the worker that gets a snapshot of another node's data.
 *
 * Started by the provider, from its own process: for the transfer that is
 * ordered in shared memory (pg/transfer.h), or, when none is, to remove what an
 * interrupted one has left and, if asked to, the data that was replaced.
 */
#ifndef MGREPL_JOINER_H
#define MGREPL_JOINER_H

#include "postgres.h"

/* False if there is no room for another worker (max_worker_processes). */
extern bool mgrepl_joiner_start(bool discard_old);

extern PGDLLEXPORT void mgrepl_joiner_main(Datum arg);

#endif							/* MGREPL_JOINER_H */
