/*
 * arbitrator/control.h - how one asks a running arbitrator: a unix socket
 * "control" in its data directory.  One line is the request, what comes back
 * until the end of the connection is the answer.
 *
 * Both sides work in the data directory itself, so that its path may be of any
 * length.  The directory's rights (0700) decide who may ask.
 *
 * Limits: MG_CONTROL_CLIENTS_MAX at once, a second for each; whoever comes
 * above that waits in the socket's queue, and finds it closed when that is full.
 */
#ifndef MG_ARBITRATOR_CONTROL_H
#define MG_ARBITRATOR_CONTROL_H

#include <poll.h>

#include "core/buf.h"

#define MG_CONTROL_CLIENTS_MAX	4
#define MG_CONTROL_REQUEST_MAX	256

typedef struct mg_control mg_control;

/* Writes the answer to a request (without its newline). */
typedef void (*mg_control_cb) (void *arg, const char *request, mg_buf *answer);

/* In the current directory; NULL with errno. */
extern mg_control *mg_control_open(mg_control_cb answer, void *arg);
extern void mg_control_close(mg_control *control);

/* Fills in what to wait for, at most MG_CONTROL_CLIENTS_MAX + 1; returns how many. */
extern int	mg_control_poll(const mg_control *control, struct pollfd *fds);

/* After the wait, whatever came of it. */
extern void mg_control_serve(mg_control *control, int64_t now_us);

/* Asks the arbitrator that runs in the current directory; false with errno. */
extern bool mg_control_ask(const char *request, mg_buf *answer);

#endif							/* MG_ARBITRATOR_CONTROL_H */
