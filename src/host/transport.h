/*
 * host/transport.h - ZeroMQ: one ROUTER bound per node to receive, one DEALER
 * per peer to send.  The only file pair that includes zmq.h is transport.c.
 *
 * Messages are whole byte frames; order is kept per link while the link
 * lives; a frame may be lost when a link breaks or a queue is full (the core
 * repairs that), never cut or damaged silently.  Owner: one thread, no locks.
 *
 * Limits: send and receive queues of MG_TRANSPORT_QUEUE_MAX frames per peer.  A full send
 * queue is MG_E_FULL, counted, and the frame is not sent: the caller knows.
 * Nothing is queued for a peer that is not connected, and what was queued goes
 * with the connection: a peer that comes back gets no old frames.
 *
 * A process may read frames from anybody who reaches the port: the bytes are
 * to be checked.
 */
#ifndef MG_HOST_TRANSPORT_H
#define MG_HOST_TRANSPORT_H

#include "core/base.h"

#define MG_TRANSPORT_QUEUE_MAX	10000		/* frames per peer and direction */
#define MG_TRANSPORT_PEERS_MAX	32

typedef struct mg_transport mg_transport;

typedef struct mg_transport_config
{
	const char *listen;			/* "host:port"; host "*" for all addresses, "[::1]" for IPv6, port 0 for any */
	uint64_t	identity;		/* random, unique per process start; what ZeroMQ tells links apart by */
	size_t		frame_bytes_max;	/* larger incoming frames are refused by ZeroMQ */
} mg_transport_config;

/* On failure *out is NULL and `reason` says what and why ("cannot bind tcp://…: Address already in use"). */
extern mg_status mg_transport_open(const mg_transport_config *config, mg_transport **out,
								   char reason[MG_REASON_BYTES_MAX]) MG_MUST_USE;
extern void mg_transport_close(mg_transport *transport);	/* does not linger */

/* The port really bound. */
extern int	mg_transport_port(const mg_transport *transport);

/*
 * A peer slot 0 .. MG_TRANSPORT_PEERS_MAX - 1, chosen by the caller.  Connecting
 * never blocks and retries for ever in the background.  Opening an open slot
 * replaces it.  A host name is looked up by ZeroMQ's thread, IPv4 only; IPv6 is
 * written "[::1]:port".  MG_E_FORMAT: the address is not "host:port".  MG_E_IO.
 */
extern mg_status mg_transport_connect(mg_transport *transport, int peer, const char *address) MG_MUST_USE;
extern void mg_transport_disconnect(mg_transport *transport, int peer);

/*
 * Sends a copy of the bytes.  MG_E_FULL, MG_E_NOT_FOUND (slot not open, or
 * mg_transport_links has not reported its link as up), MG_E_TOO_BIG (over
 * frame_bytes_max), MG_E_IO.  In each case nothing was sent.
 */
extern mg_status mg_transport_send(mg_transport *transport, int peer, const void *bytes, size_t len) MG_MUST_USE;

/*
 * The same bytes to every peer whose bit is set in `peers`: one copy in
 * memory, shared by reference.  Returns the mask of those it was queued for.
 */
extern uint32_t mg_transport_send_many(mg_transport *transport, uint32_t peers, const void *bytes, size_t len);

/*
 * The next frame, if there is one.  The bytes stay valid until the next call
 * of mg_transport_receive or mg_transport_close.  False when there is none.
 */
extern bool mg_transport_receive(mg_transport *transport, const void **bytes, size_t *len);

/*
 * Readable when there may be frames or link events.  After any wake-up call
 * mg_transport_receive until it returns false (ZeroMQ tells of frames only once),
 * and mg_transport_links.
 */
extern int	mg_transport_fd(const mg_transport *transport);

/*
 * Takes note of link events from ZeroMQ's monitor: calls back, in order, each
 * time that a peer slot's connection was made (up: ZeroMQ's handshake is done,
 * frames go) or lost (down) since the last call.  Not called for what
 * mg_transport_connect and mg_transport_disconnect do to a slot themselves; a
 * slot begins down.  One system call when nothing has happened.  The callback
 * must not open or close slots.
 */
typedef void (*mg_transport_link_cb) (void *arg, int peer, bool up);
extern void mg_transport_links(mg_transport *transport, mg_transport_link_cb cb, void *arg);

typedef struct mg_transport_stats
{
	uint64_t	frames_sent;
	uint64_t	frames_received;
	uint64_t	bytes_sent;
	uint64_t	bytes_received;
	uint64_t	frames_refused;	/* not queued because the queue was full */
	uint64_t	frames_unlinked;	/* not queued because the peer was not connected */
	uint64_t	frames_dropped;	/* came in, but not from a mg_transport */
} mg_transport_stats;

extern void mg_transport_get_stats(const mg_transport *transport, mg_transport_stats *stats);

#endif							/* MG_HOST_TRANSPORT_H */
