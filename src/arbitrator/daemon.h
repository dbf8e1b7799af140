/*
 * arbitrator/daemon.h - the life of an arbitrator: a member of the cluster that
 * votes on leaders and views and holds no data, so that two nodes and it are
 * three.
 *
 * Its directory holds what it must not forget: node.state (promises, votes, the
 * newest view), home (that the directory is no copy of another one), seeds (where
 * the others are), lock (its process id; locked as long as it runs) and the socket
 * control.
 */
#ifndef MG_ARBITRATOR_DAEMON_H
#define MG_ARBITRATOR_DAEMON_H

#include "arbitrator/options.h"

/* Reads the options again: false, and it has said why, if they are wrong now. */
typedef bool (*mg_daemon_reload_cb) (void *arg, mg_options *options);

/*
 * Makes and locks the directory and opens log, network and socket; from then
 * on the current directory is options->data_dir.  False: `trouble` says why.
 */
extern bool mg_daemon_open(const mg_options *options, mg_options_trouble *trouble);

/* Until SIGTERM or SIGINT, which must be blocked, as SIGHUP.  Returns the exit code. */
extern int	mg_daemon_run(mg_daemon_reload_cb reload, void *arg);

#endif							/* MG_ARBITRATOR_DAEMON_H */
