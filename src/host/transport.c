/*
 * host/transport.c - frames over ZeroMQ.
 *
 * Why a socket per peer instead of one ROUTER for all: a DEALER with one
 * connection says when its queue is full (EAGAIN), and what waits for a slow
 * peer can't stand in another's way.  The ROUTER only receives.
 *
 * ZMQ_IMMEDIATE is on: a DEALER has a queue only while it has a connection.
 * Without it, frames for a peer that is away would pile up, and the peer would
 * be met by thousands of stale frames when it comes back.  The price: frames
 * queued when a connection breaks are lost.  The core repairs that anyhow.
 * What a DEALER would send and what mg_transport_links has reported are kept
 * in step: see send_frame.
 *
 * The routing id is one fixed byte, the process's random identity and a number
 * that each opened slot gets anew.  So a restarted peer is another one to the
 * ROUTER, and so are two slots for one address (a peer under two roles for a
 * moment).  They must not share an id: the ROUTER would hand it over to the
 * second, and the first one's connection would live on, its heartbeats answered,
 * while everything sent through it vanishes.  ZMQ_ROUTER_HANDOVER is for the
 * one slot that reconnects: it takes its id over from a dead connection that
 * has not been noticed yet; without it the new connection would be ignored.
 * Anything with another form of id or number of parts (a port scanner, an old
 * ZeroMQ) is counted and dropped.
 *
 * One epoll descriptor holds those of the ROUTER and of the monitors: it wakes the
 * owner for frames and for links alike, and tells which monitors have something
 * to say, so that looking for link events costs one system call.
 *
 * IPv6 is switched on only where the address asks for it: with it ZeroMQ looks
 * a name up to an IPv6 address only, takes the first, and "localhost" would
 * never reach a peer that listens on 127.0.0.1.
 *
 * ZeroMQ's I/O thread inherits a full signal mask: in PostgreSQL's worker
 * signals belong to the main thread.
 */
#include "host/transport.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "core/buf.h"

#define ENDPOINT_BYTES_MAX	(MG_ADDRESS_BYTES_MAX + 16)
#define ROUTING_ID_BYTES	13
#define ROUTING_ID_TAG		'M'		/* ids that begin with 0 are ZeroMQ's own */

#define RECONNECT_MS		20
#define RECONNECT_MAX_MS	100
#define CONNECT_TIMEOUT_MS	1000	/* else the kernel tries one SYN for minutes */
#define HANDSHAKE_MS		5000

/*
 * A connection whose other end is gone without a word is found by TCP itself.
 * Not by ZeroMQ's heartbeats: with them libzmq 4.3 aborts the process when a
 * queue is full at the wrong moment (its issues 3937 and 4767, open).
 */
#define UNACKNOWLEDGED_MS	3000
#define KEEPALIVE_IDLE_S	2
#define KEEPALIVE_EVERY_S	1
#define KEEPALIVE_TRIES		3

#define DEALER_INCOMING_MAX 4096	/* only ZeroMQ's own commands ever come that way */

#define LINK_EVENTS (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED)

typedef struct peer_slot
{
	void	   *dealer;			/* NULL: slot not open */
	void	   *monitor;		/* PAIR that hears of the dealer's link */
	int			monitor_fd;
	bool		up;				/* as far as mg_transport_links has seen */
} peer_slot;

struct mg_transport
{
	void	   *context;
	void	   *router;
	int			fd;				/* epoll: the router, and each monitor under its peer's number */
	int			port;
	size_t		frame_bytes_max;
	uint64_t	identity;
	uint32_t	opened;			/* slots so far: routing ids and the monitors' endpoints are never reused */
	zmq_msg_t	frame;			/* what mg_transport_receive gave last */
	bool		frame_held;
	peer_slot	peers[MG_TRANSPORT_PEERS_MAX];
	mg_transport_stats stats;
};

/* ---- addresses ---- */

typedef struct host_port
{
	char		host[MG_ADDRESS_BYTES_MAX]; /* an IPv6 address without its brackets */
	int			port;
	bool		ipv6;
} host_port;

/* The characters of names and addresses, and none that mean something to ZeroMQ (; / *). */
static bool
host_chars_ok(const char *host, bool ipv6)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t		len = strlen(host);

	if (len == 0)
		return false;
	if (!ipv6)
		return strspn(host, letters) == len;
	for (size_t i = 0; i < len; i++)
	{
		if (strchr(letters, host[i]) == NULL && host[i] != ':' && host[i] != '%')
			return false;
	}
	return true;
}

static bool
parse_port(const char *text, int *port)
{
	size_t		len = strlen(text);

	if (len == 0 || len > 5 || strspn(text, "0123456789") != len)
		return false;
	*port = (int) strtol(text, NULL, 10);
	return *port <= 65535;
}

static bool
parse_address(const char *address, host_port *out)
{
	const char *colon = strrchr(address, ':');
	size_t		len;

	if (colon == NULL || strlen(address) >= MG_ADDRESS_BYTES_MAX ||
		!parse_port(colon + 1, &out->port))
		return false;
	len = (size_t) (colon - address);
	out->ipv6 = len >= 2 && address[0] == '[' && address[len - 1] == ']';
	if (out->ipv6)
	{
		address++;
		len -= 2;
	}
	memcpy(out->host, address, len);
	out->host[len] = '\0';
	return (!out->ipv6 && strcmp(out->host, "*") == 0) || host_chars_ok(out->host, out->ipv6);
}

/* ZeroMQ binds to addresses, not to names.  False: no such name. */
static bool
resolve_listen(host_port *at)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	bool		ok;

	if (at->ipv6 || strcmp(at->host, "*") == 0)
		return true;
	if (getaddrinfo(at->host, NULL, &hints, &found) != 0)
		return false;
	ok = getnameinfo(found->ai_addr, found->ai_addrlen, at->host, sizeof(at->host),
					 NULL, 0, NI_NUMERICHOST) == 0;
	freeaddrinfo(found);
	return ok;
}

static void
format_endpoint(const host_port *at, char endpoint[ENDPOINT_BYTES_MAX])
{
	snprintf(endpoint, ENDPOINT_BYTES_MAX, at->ipv6 ? "tcp://[%s]:%d" : "tcp://%s:%d",
			 at->host, at->port);
}

/* ---- sockets ---- */

static bool
set_int(void *socket, int option, int value)
{
	return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0;
}

static bool
set_common(void *socket, bool ipv6)
{
	return set_int(socket, ZMQ_LINGER, 0) &&
		set_int(socket, ZMQ_SNDHWM, MG_TRANSPORT_QUEUE_MAX) &&
		set_int(socket, ZMQ_RCVHWM, MG_TRANSPORT_QUEUE_MAX) &&
		set_int(socket, ZMQ_IPV6, ipv6 ? 1 : 0) &&
		set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
		set_int(socket, ZMQ_TCP_MAXRT, UNACKNOWLEDGED_MS) &&
		set_int(socket, ZMQ_TCP_KEEPALIVE, 1) &&
		set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S) &&
		set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_EVERY_S) &&
		set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_TRIES);
}

/* The thread that ZeroMQ starts with its first socket must take no signals. */
static void *
first_socket(void *context)
{
	sigset_t	all;
	sigset_t	before;
	void	   *socket;
	int			saved;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	socket = zmq_socket(context, ZMQ_ROUTER);
	saved = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return socket;
}

/* The port at the end of the endpoint really bound; 0 if there is none. */
static int
bound_port(void *socket)
{
	char		endpoint[ENDPOINT_BYTES_MAX];
	size_t		len = sizeof(endpoint);
	const char *colon;

	if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &len) != 0)
		return 0;
	colon = strrchr(endpoint, ':');
	return colon != NULL ? atoi(colon + 1) : 0;
}

/* ZMQ_FD is readable as long as the socket has not looked at news for it. */
static bool
watch(mg_transport *t, void *socket, int number, int *fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t) number};
	size_t		size = sizeof(*fd);

	return zmq_getsockopt(socket, ZMQ_FD, fd, &size) == 0 &&
		epoll_ctl(t->fd, EPOLL_CTL_ADD, *fd, &event) == 0;
}

static mg_status
open_router(mg_transport *t, host_port *at, char reason[MG_REASON_BYTES_MAX])
{
	bool		any = strcmp(at->host, "*") == 0;
	int64_t		frame_bytes_max = (int64_t) t->frame_bytes_max;
	int			router_fd;
	char		endpoint[ENDPOINT_BYTES_MAX];

	t->fd = epoll_create1(EPOLL_CLOEXEC);
	if (t->fd < 0)
	{
		snprintf(reason, MG_REASON_BYTES_MAX, "cannot make an epoll descriptor: %s", strerror(errno));
		return MG_E_IO;
	}
	t->context = zmq_ctx_new();
	if (t->context != NULL)
	{
		(void) zmq_ctx_set(t->context, ZMQ_IO_THREADS, 1);
		(void) zmq_ctx_set(t->context, ZMQ_BLOCKY, 0);
		t->router = first_socket(t->context);
	}
	if (t->router == NULL ||
		!set_common(t->router, at->ipv6 || any) ||
		!set_int(t->router, ZMQ_ROUTER_HANDOVER, 1) ||
		zmq_setsockopt(t->router, ZMQ_MAXMSGSIZE, &frame_bytes_max, sizeof(frame_bytes_max)) != 0)
	{
		snprintf(reason, MG_REASON_BYTES_MAX, "cannot make a ZeroMQ socket: %s", zmq_strerror(errno));
		return MG_E_IO;
	}
	format_endpoint(at, endpoint);
	if (zmq_bind(t->router, endpoint) != 0)
	{
		snprintf(reason, MG_REASON_BYTES_MAX, "cannot bind %.150s: %s", endpoint, zmq_strerror(errno));
		return MG_E_IO;
	}
	t->port = bound_port(t->router);
	if (t->port == 0 || !watch(t, t->router, MG_TRANSPORT_PEERS_MAX, &router_fd))
	{
		snprintf(reason, MG_REASON_BYTES_MAX, "cannot ask the ZeroMQ socket at %.150s: %s",
				 endpoint, zmq_strerror(errno));
		return MG_E_IO;
	}
	return MG_OK;
}

mg_status
mg_transport_open(const mg_transport_config *config, mg_transport **out,
				  char reason[MG_REASON_BYTES_MAX])
{
	mg_transport *t;
	host_port	at;
	mg_status	status;

	*out = NULL;
	reason[0] = '\0';
	if (!parse_address(config->listen, &at))
	{
		snprintf(reason, MG_REASON_BYTES_MAX, "the address to listen on is not \"host:port\": \"%.150s\"",
				 config->listen);
		return MG_E_FORMAT;
	}
	if (!resolve_listen(&at))
	{
		snprintf(reason, MG_REASON_BYTES_MAX, "the host to listen on is not known: \"%.150s\"", at.host);
		errno = EADDRNOTAVAIL;
		return MG_E_IO;
	}

	t = mg_alloc(sizeof(*t));
	t->frame_bytes_max = config->frame_bytes_max;
	t->identity = config->identity;
	t->fd = -1;
	status = open_router(t, &at, reason);
	if (status != MG_OK)
	{
		int			saved = errno;

		mg_transport_close(t);
		errno = saved;
		return status;
	}
	*out = t;
	return MG_OK;
}

void
mg_transport_close(mg_transport *t)
{
	if (t == NULL)
		return;
	for (int i = 0; i < MG_TRANSPORT_PEERS_MAX; i++)
		mg_transport_disconnect(t, i);
	if (t->frame_held)
		zmq_msg_close(&t->frame);
	if (t->router != NULL)
		zmq_close(t->router);
	if (t->context != NULL)
	{
		while (zmq_ctx_term(t->context) != 0 && errno == EINTR)
			;
	}
	if (t->fd >= 0)
		close(t->fd);
	mg_free(t);
}

int
mg_transport_port(const mg_transport *t)
{
	return t->port;
}

int
mg_transport_fd(const mg_transport *t)
{
	return t->fd;
}

/* ---- peers ---- */

/*
 * Takes the next event of a monitor: a part with u16 event and u32 value in
 * the machine's order, then a part with the address.
 */
static bool
next_event(void *monitor, uint16_t *event)
{
	uint8_t		head[6];
	char		address[ENDPOINT_BYTES_MAX];
	int			n;

	do
		n = zmq_recv(monitor, head, sizeof(head), ZMQ_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return false;
	memcpy(event, head, sizeof(*event));
	do
		n = zmq_recv(monitor, address, sizeof(address), ZMQ_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return true;
}

static bool
open_monitor(mg_transport *t, int peer)
{
	peer_slot  *slot = &t->peers[peer];
	char		endpoint[64];
	uint16_t	event;

	/* The queue of events is without limit: ZeroMQ's thread would wait on a full one. */
	snprintf(endpoint, sizeof(endpoint), "inproc://link-%u", t->opened);
	slot->monitor = zmq_socket(t->context, ZMQ_PAIR);
	if (slot->monitor == NULL ||
		!set_int(slot->monitor, ZMQ_LINGER, 0) ||
		!set_int(slot->monitor, ZMQ_RCVHWM, 0) ||
		zmq_socket_monitor(slot->dealer, endpoint, LINK_EVENTS) != 0 ||
		zmq_connect(slot->monitor, endpoint) != 0 ||
		!watch(t, slot->monitor, peer, &slot->monitor_fd))
		return false;

	/* The descriptor tells of what comes after somebody has looked and found nothing. */
	(void) next_event(slot->monitor, &event);
	return true;
}

static bool
open_dealer(mg_transport *t, int peer, const host_port *at)
{
	peer_slot  *slot = &t->peers[peer];
	int64_t		incoming_max = DEALER_INCOMING_MAX;
	char		endpoint[ENDPOINT_BYTES_MAX];
	uint8_t		id[ROUTING_ID_BYTES];

	id[0] = ROUTING_ID_TAG;
	mg_store_u64(id + 1, t->identity);
	mg_store_u32(id + 9, ++t->opened);
	format_endpoint(at, endpoint);
	slot->dealer = zmq_socket(t->context, ZMQ_DEALER);
	return slot->dealer != NULL &&
		set_common(slot->dealer, at->ipv6) &&
		set_int(slot->dealer, ZMQ_IMMEDIATE, 1) &&
		set_int(slot->dealer, ZMQ_RECONNECT_IVL, RECONNECT_MS) &&
		set_int(slot->dealer, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS) &&
		set_int(slot->dealer, ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS) &&
		zmq_setsockopt(slot->dealer, ZMQ_ROUTING_ID, id, sizeof(id)) == 0 &&
		zmq_setsockopt(slot->dealer, ZMQ_MAXMSGSIZE, &incoming_max, sizeof(incoming_max)) == 0 &&
		open_monitor(t, peer) &&
		zmq_connect(slot->dealer, endpoint) == 0;
}

mg_status
mg_transport_connect(mg_transport *t, int peer, const char *address)
{
	host_port	at;

	MG_ASSERT(peer >= 0 && peer < MG_TRANSPORT_PEERS_MAX);
	if (!parse_address(address, &at) || at.port == 0 || strcmp(at.host, "*") == 0)
		return MG_E_FORMAT;
	mg_transport_disconnect(t, peer);
	if (!open_dealer(t, peer, &at))
	{
		int			saved = errno;

		mg_transport_disconnect(t, peer);
		errno = saved;
		return MG_E_IO;
	}
	return MG_OK;
}

void
mg_transport_disconnect(mg_transport *t, int peer)
{
	peer_slot  *slot = &t->peers[peer];

	MG_ASSERT(peer >= 0 && peer < MG_TRANSPORT_PEERS_MAX);
	if (slot->dealer != NULL)
	{
		(void) zmq_socket_monitor(slot->dealer, NULL, 0);
		zmq_close(slot->dealer);
	}
	if (slot->monitor != NULL)
	{
		/* The descriptor lives on until ZeroMQ's reaper has closed it. */
		(void) epoll_ctl(t->fd, EPOLL_CTL_DEL, slot->monitor_fd, NULL);
		zmq_close(slot->monitor);
	}
	*slot = (peer_slot) {0};
}

/*
 * When it sends, ZeroMQ looks for news of its I/O thread (room in the queue, a
 * connection made or gone) only about once a millisecond.  Asking makes it look.
 */
static bool
has_room(peer_slot *slot)
{
	int			events = 0;
	size_t		size = sizeof(events);

	return zmq_getsockopt(slot->dealer, ZMQ_EVENTS, &events, &size) == 0 &&
		(events & ZMQ_POLLOUT) != 0;
}

void
mg_transport_links(mg_transport *t, mg_transport_link_cb cb, void *arg)
{
	struct epoll_event ready[MG_TRANSPORT_PEERS_MAX + 1];
	int			n = epoll_wait(t->fd, ready, MG_TRANSPORT_PEERS_MAX + 1, 0);

	for (int k = 0; k < n; k++)
	{
		int			peer = (int) ready[k].data.u32;
		peer_slot  *slot;
		uint16_t	event;

		if (peer == MG_TRANSPORT_PEERS_MAX)
			continue;			/* frames: mg_transport_receive takes them */
		slot = &t->peers[peer];
		while (slot->monitor != NULL && next_event(slot->monitor, &event))
		{
			bool		up = event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;

			/* A connection that breaks during the handshake was never up. */
			if (up == slot->up)
				continue;
			if (up)
				(void) has_room(slot);
			slot->up = up;
			cb(arg, peer, up);
		}
	}
}

/* ---- frames ---- */

/*
 * Sends and consumes `frame`, unless it fails.  A link that is not reported up
 * is not used, though ZeroMQ may have it already: between a reported loss and
 * the next "up" no frame slips into a connection that is going away.
 */
static mg_status
send_frame(mg_transport *t, peer_slot *slot, zmq_msg_t *frame, size_t len)
{
	bool		asked = false;

	if (!slot->up)
	{
		t->stats.frames_unlinked++;
		return MG_E_NOT_FOUND;
	}
	while (zmq_msg_send(frame, slot->dealer, ZMQ_DONTWAIT) < 0)
	{
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return MG_E_IO;
		if (asked || !has_room(slot))
		{
			t->stats.frames_refused++;
			return MG_E_FULL;
		}
		asked = true;
	}
	t->stats.frames_sent++;
	t->stats.bytes_sent += len;
	return MG_OK;
}

/* MG_E_TOO_BIG; MG_E_IO when there is no memory. */
static mg_status
make_frame(const mg_transport *t, zmq_msg_t *frame, const void *bytes, size_t len)
{
	if (len > t->frame_bytes_max)
		return MG_E_TOO_BIG;
	if (zmq_msg_init_size(frame, len) != 0)
		return MG_E_IO;
	if (len > 0)
		memcpy(zmq_msg_data(frame), bytes, len);
	return MG_OK;
}

mg_status
mg_transport_send(mg_transport *t, int peer, const void *bytes, size_t len)
{
	peer_slot  *slot = &t->peers[peer];
	zmq_msg_t	frame;
	mg_status	status;

	MG_ASSERT(peer >= 0 && peer < MG_TRANSPORT_PEERS_MAX);
	if (slot->dealer == NULL)
		return MG_E_NOT_FOUND;
	status = make_frame(t, &frame, bytes, len);
	if (status != MG_OK)
		return status;
	status = send_frame(t, slot, &frame, len);
	if (status != MG_OK)
	{
		int			saved = errno;

		zmq_msg_close(&frame);
		errno = saved;
	}
	return status;
}

uint32_t
mg_transport_send_many(mg_transport *t, uint32_t peers, const void *bytes, size_t len)
{
	uint32_t	queued = 0;
	zmq_msg_t	frame;

	if (make_frame(t, &frame, bytes, len) != MG_OK)
		return 0;
	for (int i = 0; i < MG_TRANSPORT_PEERS_MAX; i++)
	{
		zmq_msg_t	copy;

		if ((peers & UINT32_C(1) << i) == 0 || t->peers[i].dealer == NULL)
			continue;
		zmq_msg_init(&copy);
		if (zmq_msg_copy(&copy, &frame) == 0 &&
			send_frame(t, &t->peers[i], &copy, len) == MG_OK)
			queued |= UINT32_C(1) << i;
		else
			zmq_msg_close(&copy);
	}
	zmq_msg_close(&frame);
	return queued;
}

/* The next part of a message, into `part`, which is to be closed.  False: none. */
static bool
next_part(void *router, zmq_msg_t *part)
{
	zmq_msg_init(part);
	for (;;)
	{
		if (zmq_msg_recv(part, router, ZMQ_DONTWAIT) >= 0)
			return true;
		if (errno != EINTR)
		{
			zmq_msg_close(part);
			return false;
		}
	}
}

static bool
is_routing_id(zmq_msg_t *part)
{
	return zmq_msg_size(part) == ROUTING_ID_BYTES &&
		*(const uint8_t *) zmq_msg_data(part) == ROUTING_ID_TAG;
}

/* Takes the parts of one message.  True: exactly id and payload, and `frame` is the payload. */
static bool
take_message(mg_transport *t, zmq_msg_t *id, zmq_msg_t *frame)
{
	bool		ok = is_routing_id(id) && zmq_msg_more(id);
	bool		more = zmq_msg_more(id);

	zmq_msg_close(id);
	if (!more || !next_part(t->router, frame))
		return false;
	if (ok && !zmq_msg_more(frame))
		return true;
	do
	{
		more = zmq_msg_more(frame);
		zmq_msg_close(frame);
	} while (more && next_part(t->router, frame));
	return false;
}

bool
mg_transport_receive(mg_transport *t, const void **bytes, size_t *len)
{
	zmq_msg_t	id;

	if (t->frame_held)
		zmq_msg_close(&t->frame);
	t->frame_held = false;
	while (next_part(t->router, &id))
	{
		if (take_message(t, &id, &t->frame))
		{
			t->frame_held = true;
			*bytes = zmq_msg_data(&t->frame);
			*len = zmq_msg_size(&t->frame);
			t->stats.frames_received++;
			t->stats.bytes_received += *len;
			return true;
		}
		t->stats.frames_dropped++;
	}
	return false;
}

void
mg_transport_get_stats(const mg_transport *t, mg_transport_stats *stats)
{
	*stats = t->stats;
}
