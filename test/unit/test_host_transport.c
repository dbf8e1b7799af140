/*
 * test_host_transport.c - two ends in one process, over real TCP on loopback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "host/clock.h"
#include "host/transport.h"

#define FRAME_BYTES_MAX		(1u << 20)
#define DEADLINE_US			INT64_C(20000000)
#define PEER				5

static mg_transport *
open_at(const char *listen, size_t frame_bytes_max)
{
	mg_transport_config config = {.listen = listen,.frame_bytes_max = frame_bytes_max};
	mg_transport *t = NULL;
	char		reason[MG_REASON_BYTES_MAX];

	assert_int_equal(mg_random_bytes(&config.identity, sizeof(config.identity)), MG_OK);
	if (mg_transport_open(&config, &t, reason) != MG_OK)
		fail_msg("%s", reason);
	assert_string_equal(reason, "");
	assert_true(mg_transport_port(t) > 0);
	return t;
}

static mg_transport *
open_any(void)
{
	return open_at("127.0.0.1:0", FRAME_BYTES_MAX);
}

static void
connect_to(mg_transport *from, int peer, const mg_transport *to)
{
	char		address[64];

	snprintf(address, sizeof(address), "127.0.0.1:%d", mg_transport_port(to));
	assert_int_equal(mg_transport_connect(from, peer, address), MG_OK);
}

typedef struct link_log
{
	int			ups;
	int			downs;
	int			last_peer;
	bool		up;
} link_log;

static void
on_link(void *arg, int peer, bool up)
{
	link_log   *links = arg;

	if (up)
		links->ups++;
	else
		links->downs++;
	links->last_peer = peer;
	links->up = up;
}

/*
 * Waits at the descriptor, as the event loop does.  It is readable for frames,
 * too, which stay where they are: then it is looked at again after a moment.
 */
static void
wait_link(mg_transport *t, link_log *links, bool up)
{
	int64_t		deadline = mg_clock_monotonic_us() + DEADLINE_US;

	for (;;)
	{
		struct pollfd p = {.fd = mg_transport_fd(t),.events = POLLIN};
		int64_t		left = deadline - mg_clock_monotonic_us();
		int			events = links->ups + links->downs;

		mg_transport_links(t, on_link, links);
		if (links->up == up)
			return;
		assert_true(left > 0);
		if (poll(&p, 1, (int) (left / 1000) + 1) > 0 && events == links->ups + links->downs)
			poll(NULL, 0, 1);
	}
}

/* The next frame, waiting for it at the descriptor as the event loop does. */
static void
wait_frame(mg_transport *t, const void **bytes, size_t *len)
{
	int64_t		deadline = mg_clock_monotonic_us() + DEADLINE_US;

	while (!mg_transport_receive(t, bytes, len))
	{
		struct pollfd p = {.fd = mg_transport_fd(t),.events = POLLIN};
		int64_t		left = deadline - mg_clock_monotonic_us();

		assert_true(left > 0);
		poll(&p, 1, (int) (left / 1000) + 1);
	}
}

static void
expect_u64(mg_transport *t, uint64_t value)
{
	const void *bytes;
	size_t		len;

	wait_frame(t, &bytes, &len);
	assert_int_equal(len, 8);
	assert_int_equal(mg_load_u64(bytes), value);
}

static mg_status
send_u64(mg_transport *t, int peer, uint64_t value)
{
	uint8_t		bytes[8];

	mg_store_u64(bytes, value);
	return mg_transport_send(t, peer, bytes, sizeof(bytes));
}

static void
frames_arrive_in_order_both_ways(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	link_log	la = {0};
	link_log	lb = {0};
	mg_transport_stats stats;

	(void) state;
	connect_to(a, PEER, b);
	connect_to(b, 0, a);
	wait_link(a, &la, true);
	wait_link(b, &lb, true);
	assert_int_equal(la.last_peer, PEER);
	for (uint64_t i = 0; i < 5000; i++)
	{
		assert_int_equal(send_u64(a, PEER, i), MG_OK);
		assert_int_equal(send_u64(b, 0, ~i), MG_OK);
	}
	for (uint64_t i = 0; i < 5000; i++)
	{
		expect_u64(b, i);
		expect_u64(a, ~i);
	}
	mg_transport_get_stats(a, &stats);
	assert_int_equal(stats.frames_sent, 5000);
	assert_int_equal(stats.frames_received, 5000);
	assert_int_equal(stats.bytes_sent, 40000);
	assert_int_equal(stats.bytes_received, 40000);
	assert_int_equal(stats.frames_refused + stats.frames_unlinked + stats.frames_dropped, 0);
	mg_transport_close(a);
	mg_transport_close(b);
}

static void
frames_of_all_sizes_arrive_whole(void **state)
{
	static const size_t sizes[] = {0, 1, 33, 34, 255, 256, 8192, 70000, FRAME_BYTES_MAX};
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	uint8_t    *sent = malloc(FRAME_BYTES_MAX + 1);
	link_log	links = {0};

	(void) state;
	assert_int_equal(mg_random_bytes(sent, FRAME_BYTES_MAX), MG_OK);
	connect_to(a, PEER, b);
	wait_link(a, &links, true);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_int_equal(mg_transport_send(a, PEER, sent, sizes[i]), MG_OK);
	assert_int_equal(mg_transport_send(a, PEER, sent, FRAME_BYTES_MAX + 1), MG_E_TOO_BIG);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		const void *bytes;
		size_t		len;

		wait_frame(b, &bytes, &len);
		assert_int_equal(len, sizes[i]);
		assert_memory_equal(bytes, sent, len);
	}
	free(sent);
	mg_transport_close(a);
	mg_transport_close(b);
}

static void
send_many_reaches_those_named_and_connected(void **state)
{
	mg_transport *a = open_any();
	mg_transport *to[3];
	uint8_t		frame[1000];
	uint32_t	queued;

	(void) state;
	memset(frame, 7, sizeof(frame));
	for (int i = 0; i < 3; i++)
	{
		link_log	links = {0};

		to[i] = open_any();
		connect_to(a, i * 10, to[i]);
		while (!(links.up && links.last_peer == i * 10))
		{
			links.up = false;
			wait_link(a, &links, true);
		}
	}
	queued = mg_transport_send_many(a, 1u << 0 | 1u << 20 | 1u << 7, frame, sizeof(frame));
	assert_int_equal(queued, 1u << 0 | 1u << 20);
	assert_int_equal(send_u64(a, 10, 1), MG_OK);
	for (int i = 0; i < 3; i += 2)
	{
		const void *bytes;
		size_t		len;

		wait_frame(to[i], &bytes, &len);
		assert_int_equal(len, sizeof(frame));
		assert_memory_equal(bytes, frame, len);
	}
	expect_u64(to[1], 1);
	for (int i = 0; i < 3; i++)
		mg_transport_close(to[i]);
	mg_transport_close(a);
}

static void
bind_error_has_a_reason(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b;
	char		listen[64];
	char		reason[MG_REASON_BYTES_MAX];
	mg_transport_config config = {.listen = listen,.identity = 1,.frame_bytes_max = FRAME_BYTES_MAX};

	(void) state;
	snprintf(listen, sizeof(listen), "127.0.0.1:%d", mg_transport_port(a));
	assert_int_equal(mg_transport_open(&config, &b, reason), MG_E_IO);
	assert_null(b);
	assert_non_null(strstr(reason, listen));
	assert_non_null(strstr(reason, "in use"));

	/* An address that this machine doesn't have (TEST-NET-1). */
	strcpy(listen, "192.0.2.1:0");
	assert_int_equal(mg_transport_open(&config, &b, reason), MG_E_IO);
	assert_null(b);
	assert_non_null(strstr(reason, "192.0.2.1"));
	mg_transport_close(a);
}

static void
bad_addresses_are_refused(void **state)
{
	static const char *const bad[] = {
		"", ":", "host", "host:", ":5000", "host:0", "host:65536", "host:-1", "host:5x", "::1:5000",
		"[::1]", "[]:5000", "*:5000", "a;b:5000", "tcp://host:5000", "host:123456", "a b:5000", "[*]:5000",
	};
	mg_transport *a = open_any();
	mg_transport *b;
	char		reason[MG_REASON_BYTES_MAX];
	mg_transport_config config = {.listen = "nonsense",.identity = 1,.frame_bytes_max = FRAME_BYTES_MAX};

	(void) state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		assert_int_equal(mg_transport_connect(a, 0, bad[i]), MG_E_FORMAT);
		assert_int_equal(mg_transport_send(a, 0, "x", 1), MG_E_NOT_FOUND);
	}
	assert_int_equal(mg_transport_open(&config, &b, reason), MG_E_FORMAT);
	assert_null(b);
	assert_non_null(strstr(reason, "nonsense"));
	mg_transport_close(a);
}

static void
names_and_ipv6_reach_too(void **state)
{
	static const char *const listens[] = {"localhost:0", "*:0", "[::1]:0", "*:0"};
	static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]", "[::1]"};
	int			ipv6 = socket(AF_INET6, SOCK_STREAM, 0);
	struct sockaddr_in6 loopback = {.sin6_family = AF_INET6,.sin6_addr = IN6ADDR_LOOPBACK_INIT};
	bool		have_ipv6 = ipv6 >= 0 && bind(ipv6, (struct sockaddr *) &loopback, sizeof(loopback)) == 0;

	(void) state;
	if (ipv6 >= 0)
		close(ipv6);
	for (int i = 0; i < (have_ipv6 ? 4 : 2); i++)
	{
		mg_transport *a = open_any();
		mg_transport *b = open_at(listens[i], FRAME_BYTES_MAX);
		link_log	links = {0};
		char		address[64];

		snprintf(address, sizeof(address), "%s:%d", hosts[i], mg_transport_port(b));
		assert_int_equal(mg_transport_connect(a, PEER, address), MG_OK);
		wait_link(a, &links, true);
		assert_int_equal(send_u64(a, PEER, 42), MG_OK);
		expect_u64(b, 42);
		mg_transport_close(a);
		mg_transport_close(b);
	}
}

static void
nothing_is_queued_for_a_peer_that_is_away(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	link_log	links = {0};
	mg_transport_stats stats;
	char		address[64];

	(void) state;
	snprintf(address, sizeof(address), "127.0.0.1:%d", mg_transport_port(b));
	mg_transport_close(b);
	assert_int_equal(mg_transport_connect(a, PEER, address), MG_OK);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(send_u64(a, PEER, i), MG_E_NOT_FOUND);
	mg_transport_get_stats(a, &stats);
	assert_int_equal(stats.frames_unlinked, 100);
	assert_int_equal(stats.frames_sent, 0);

	/* When it comes, it gets new frames only. */
	b = open_at(address, FRAME_BYTES_MAX);
	wait_link(a, &links, true);
	assert_int_equal(send_u64(a, PEER, 1000), MG_OK);
	expect_u64(b, 1000);
	mg_transport_close(a);
	mg_transport_close(b);
}

static void
full_queue_is_refused_counted_and_keeps_order(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	static uint8_t frame[4096];
	link_log	links = {0};
	mg_transport_stats stats;
	uint64_t	sent = 0;
	mg_status	status;

	(void) state;
	connect_to(a, PEER, b);
	wait_link(a, &links, true);

	/* Both queues and what the kernel buffers. */
	do
	{
		mg_store_u64(frame, sent);
		status = mg_transport_send(a, PEER, frame, sizeof(frame));
		sent += status == MG_OK;
		assert_true(sent < 10 * MG_TRANSPORT_QUEUE_MAX);
	} while (status == MG_OK);
	assert_int_equal(status, MG_E_FULL);
	assert_true(sent >= MG_TRANSPORT_QUEUE_MAX);
	mg_transport_get_stats(a, &stats);
	assert_int_equal(stats.frames_refused, 1);
	assert_int_equal(stats.frames_sent, sent);
	while (mg_transport_send_many(a, 1u << PEER, frame, sizeof(frame)) == 1u << PEER)
		mg_store_u64(frame, ++sent);	/* the kernel has taken some meanwhile */
	mg_transport_get_stats(a, &stats);
	assert_int_equal(stats.frames_refused, 2);
	assert_int_equal(stats.frames_sent, sent);

	/* Nothing of what was taken is lost. */
	for (uint64_t i = 0; i < sent; i++)
	{
		const void *bytes;
		size_t		len;

		wait_frame(b, &bytes, &len);
		assert_int_equal(len, sizeof(frame));
		assert_int_equal(mg_load_u64(bytes), i);
	}

	/* And there is room again. */
	assert_int_equal(send_u64(a, PEER, 77), MG_OK);
	expect_u64(b, 77);
	mg_transport_close(a);
	mg_transport_close(b);
}

static void
link_down_and_up_again_are_reported(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	link_log	links = {0};
	char		address[64];

	(void) state;
	snprintf(address, sizeof(address), "127.0.0.1:%d", mg_transport_port(b));
	assert_int_equal(mg_transport_connect(a, PEER, address), MG_OK);
	for (int round = 1; round <= 3; round++)
	{
		wait_link(a, &links, true);
		assert_int_equal(links.ups, round);
		assert_int_equal(send_u64(a, PEER, 1), MG_OK);
		expect_u64(b, 1);
		mg_transport_close(b);
		wait_link(a, &links, false);
		assert_int_equal(links.downs, round);
		assert_int_equal(send_u64(a, PEER, 2), MG_E_NOT_FOUND);
		b = open_at(address, FRAME_BYTES_MAX);
	}
	mg_transport_close(a);
	mg_transport_close(b);
}

static void
slot_can_be_closed_and_replaced(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	mg_transport *c = open_any();
	link_log	links = {0};

	(void) state;
	connect_to(a, PEER, b);
	wait_link(a, &links, true);
	assert_int_equal(send_u64(a, PEER, 1), MG_OK);
	expect_u64(b, 1);
	connect_to(a, PEER, c);
	links.up = false;
	wait_link(a, &links, true);
	assert_int_equal(send_u64(a, PEER, 2), MG_OK);
	expect_u64(c, 2);
	mg_transport_disconnect(a, PEER);
	mg_transport_disconnect(a, PEER);
	assert_int_equal(send_u64(a, PEER, 3), MG_E_NOT_FOUND);

	/* The same process under the same identity, anew: the ROUTER hands the id over. */
	connect_to(a, PEER, b);
	links.up = false;
	wait_link(a, &links, true);
	assert_int_equal(send_u64(a, PEER, 4), MG_OK);
	expect_u64(b, 4);
	mg_transport_close(a);
	mg_transport_close(b);
	mg_transport_close(c);
}

/* A node that is known under two roles for a moment has two slots for one address. */
static void
two_slots_to_one_peer_do_not_disturb_each_other(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	link_log	links = {0};

	(void) state;
	connect_to(a, 0, b);
	wait_link(a, &links, true);
	connect_to(a, 1, b);
	links.up = false;
	wait_link(a, &links, true);
	for (uint64_t i = 0; i < 100; i++)
	{
		assert_int_equal(send_u64(a, (int) (i % 2), i), MG_OK);
		expect_u64(b, i);
	}
	mg_transport_disconnect(a, 1);
	assert_int_equal(send_u64(a, 0, 100), MG_OK);
	expect_u64(b, 100);
	mg_transport_links(a, on_link, &links);
	assert_int_equal(links.ups, 2);
	assert_int_equal(links.downs, 0);
	mg_transport_close(a);
	mg_transport_close(b);
}

static void
oversize_frame_breaks_the_link_and_nothing_else(void **state)
{
	mg_transport *a = open_any();
	mg_transport *b = open_at("127.0.0.1:0", 1000);
	static uint8_t frame[5000];
	link_log	links = {0};

	(void) state;
	connect_to(a, PEER, b);
	wait_link(a, &links, true);
	assert_int_equal(mg_transport_send(a, PEER, frame, sizeof(frame)), MG_OK);
	wait_link(a, &links, false);
	wait_link(a, &links, true);
	assert_int_equal(send_u64(a, PEER, 9), MG_OK);
	expect_u64(b, 9);
	mg_transport_close(a);
	mg_transport_close(b);
}

/* A peer in a process of its own: takes every frame, answers nothing.  Its port comes through the pipe. */
static pid_t
start_peer(char address[64])
{
	int			ends[2];
	int			port;
	pid_t		child;

	assert_int_equal(pipe(ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
	{
		mg_transport *t = open_any();

		port = mg_transport_port(t);
		if (write(ends[1], &port, sizeof(port)) != sizeof(port))
			_exit(1);
		for (;;)
		{
			struct pollfd p = {.fd = mg_transport_fd(t),.events = POLLIN};
			const void *bytes;
			size_t		len;

			poll(&p, 1, -1);
			while (mg_transport_receive(t, &bytes, &len))
				;
		}
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &port, sizeof(port)), sizeof(port));
	close(ends[0]);
	snprintf(address, 64, "127.0.0.1:%d", port);
	return child;
}

static void
end_peer(pid_t child)
{
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void
killed_process_is_noticed_at_once(void **state)
{
	char		address[64];
	pid_t		child = start_peer(address);
	mg_transport *a = open_any();
	link_log	links = {0};
	int64_t		since;

	(void) state;
	assert_int_equal(mg_transport_connect(a, PEER, address), MG_OK);
	wait_link(a, &links, true);
	since = mg_clock_monotonic_us();
	end_peer(child);
	wait_link(a, &links, false);
	since = mg_clock_monotonic_us() - since;
	print_message("noticed after %d us\n", (int) since);
	assert_true(since < 500000);
	mg_transport_close(a);
}

static void
paused_process_never_blocks_the_sender(void **state)
{
	static uint8_t frame[4096];
	char		address[64];
	pid_t		child = start_peer(address);
	mg_transport *a = open_any();
	link_log	links = {0};
	mg_status	status = MG_OK;
	int64_t		longest = 0;
	int			sent = 0;

	(void) state;
	assert_int_equal(mg_transport_connect(a, PEER, address), MG_OK);
	wait_link(a, &links, true);
	assert_int_equal(kill(child, SIGSTOP), 0);
	while (status == MG_OK && sent < 10 * MG_TRANSPORT_QUEUE_MAX)
	{
		int64_t		before = mg_clock_monotonic_us();

		status = mg_transport_send(a, PEER, frame, sizeof(frame));
		if (mg_clock_monotonic_us() - before > longest)
			longest = mg_clock_monotonic_us() - before;
		sent += status == MG_OK;
	}
	assert_int_equal(status, MG_E_FULL);
	assert_true(longest < 500000);

	/* Silent for too long it counts as gone; awake again, it is there again, and hears what is new. */
	wait_link(a, &links, false);
	assert_int_equal(mg_transport_send(a, PEER, frame, sizeof(frame)), MG_E_NOT_FOUND);
	assert_int_equal(kill(child, SIGCONT), 0);
	wait_link(a, &links, true);
	assert_int_equal(mg_transport_send(a, PEER, frame, sizeof(frame)), MG_OK);
	end_peer(child);
	mg_transport_close(a);
}

/* Sends bytes from a plain socket and waits until the other side closes, or has had enough time to read. */
static void
send_garbage(int port, const void *bytes, size_t len)
{
	struct sockaddr_in to = {.sin_family = AF_INET,.sin_port = htons((uint16_t) port)};
	int			fd = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd p = {.fd = fd,.events = POLLIN};

	assert_true(fd >= 0);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *) &to, sizeof(to)), 0);
	(void) send(fd, bytes, len, MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	while (poll(&p, 1, 2000) > 0)
	{
		char		sink[512];

		if (recv(fd, sink, sizeof(sink), 0) <= 0)
			break;
	}
	close(fd);
}

static void
garbage_bytes_do_no_harm(void **state)
{
	/* An old ZeroMQ without versions: identity "MgARBAGE!1234", then frames of one and of two parts. */
	static const char old_peer[] =
	"\x0e\x00" "MgARBAGE!1234" "\x03\x01" "ab" "\x02\x00" "c" "\x02\x00" "d";
	static const char stranger[] = "\x05\x00" "evil" "\x03\x00" "hi";
	static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	mg_transport *a = open_any();
	mg_transport *b = open_any();
	link_log	links = {0};
	uint8_t		noise[4096];
	uint64_t	seed = 20240601;
	const void *bytes;
	size_t		len;
	mg_transport_stats stats;

	(void) state;
	connect_to(a, PEER, b);
	wait_link(a, &links, true);
	send_garbage(mg_transport_port(b), http, sizeof(http) - 1);
	for (int round = 0; round < 20; round++)
	{
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t) mg_mix64(++seed);
		if (round % 2 == 0)
			memcpy(noise, "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL", 16);
		send_garbage(mg_transport_port(b), noise, sizeof(noise));
	}
	send_garbage(mg_transport_port(b), stranger, sizeof(stranger) - 1);
	send_garbage(mg_transport_port(b), old_peer, sizeof(old_peer) - 1);

	/* The real link goes on; what came from others has no effect beyond a frame to be checked. */
	assert_int_equal(send_u64(a, PEER, 31), MG_OK);
	do
		wait_frame(b, &bytes, &len);
	while (len != 8);
	assert_int_equal(mg_load_u64(bytes), 31);
	while (mg_transport_receive(b, &bytes, &len))
		assert_int_not_equal(len, 8);
	mg_transport_links(a, on_link, &links);
	assert_int_equal(links.downs, 0);
	mg_transport_get_stats(b, &stats);
	assert_true(stats.frames_dropped >= 2);
	mg_transport_close(a);
	mg_transport_close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_arrive_in_order_both_ways),
		cmocka_unit_test(frames_of_all_sizes_arrive_whole),
		cmocka_unit_test(send_many_reaches_those_named_and_connected),
		cmocka_unit_test(bind_error_has_a_reason),
		cmocka_unit_test(bad_addresses_are_refused),
		cmocka_unit_test(names_and_ipv6_reach_too),
		cmocka_unit_test(nothing_is_queued_for_a_peer_that_is_away),
		cmocka_unit_test(full_queue_is_refused_counted_and_keeps_order),
		cmocka_unit_test(link_down_and_up_again_are_reported),
		cmocka_unit_test(slot_can_be_closed_and_replaced),
		cmocka_unit_test(two_slots_to_one_peer_do_not_disturb_each_other),
		cmocka_unit_test(oversize_frame_breaks_the_link_and_nothing_else),
		cmocka_unit_test(killed_process_is_noticed_at_once),
		cmocka_unit_test(paused_process_never_blocks_the_sender),
		cmocka_unit_test(garbage_bytes_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
