/*
 * bgworkers/notifier.h - tells whoever wants to know that this node's state or
 * the members have changed.
 *
 * Two ways, both without a part in the cluster's work:
 *	 - NOTIFY on channel mgrepl_state in mgrepl.database, for each change of state:
 *	   '<old> <new> <reason>';
 *	 - mgrepl.notify_command, an executable, for each change of state or members.
 *
 * Limits: MGREPL_NOTICES_MAX notices wait (the oldest gives way, a log line says
 * so).  One run of the command at a time, killed after NOTIFY_COMMAND_S; changes
 * meanwhile are one more run, with what is so by then.
 */
#ifndef MGREPL_NOTIFIER_H
#define MGREPL_NOTIFIER_H

#include "postgres.h"

#include "pg/shmem.h"

#define NOTIFY_CHANNEL		"mgrepl_state"
#define NOTIFY_COMMAND_S	30

extern void mgrepl_notifier_register(void);		/* from _PG_init */

/* By the provider: puts a change of state into the queue, never waits. */
extern void mgrepl_notifier_state(MgNodeState from, MgNodeState to, const char *reason);

/* By the provider: something about the members is different. */
extern void mgrepl_notifier_wake(void);

extern PGDLLEXPORT void mgrepl_notifier_main(Datum arg);

#endif							/* MGREPL_NOTIFIER_H */
