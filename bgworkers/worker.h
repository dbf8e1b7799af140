/*
 * bgworkers/worker.h - the common frame of mgrepl's background workers.
 *
 * A worker's main function calls mgrepl_worker_init first, and
 * mgrepl_worker_interrupts once per turn of its loop, after ResetLatch.  It ends
 * by proc_exit(0) (for good) or (1) (started again after restart_s), or by an
 * error, which counts as 1.  SIGTERM ends it at the next CHECK_FOR_INTERRUPTS.
 */
#ifndef MGREPL_WORKER_H
#define MGREPL_WORKER_H

#include "postgres.h"

/*
 * From _PG_init under shared_preload_libraries.  `function` is the name of an
 * exported void (*)(Datum) in this library; `database`: it will connect to one.
 * Restarted `restart_s` seconds after it failed, also after a crash elsewhere.
 */
extern void mgrepl_worker_register(const char *name, const char *type, const char *function,
								   bool database, int restart_s, Datum arg);

/* Signals, and one log line: "<what>: started pid=…". */
extern void mgrepl_worker_init(const char *what);

/* Ends the process if asked to; reads the configuration again if asked to. */
extern void mgrepl_worker_interrupts(void);

#endif							/* MGREPL_WORKER_H */
