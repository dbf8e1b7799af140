/*
 * test/bench/order.c - how fast is ordering alone?  Core and transport, without
 * PostgreSQL: three processes, each with the provider's event loop reduced to
 * these two (and, if asked for, the log), talk over TCP on loopback.
 *
 * What is measured: messages delivered by all nodes per second, with a window of
 * messages on their way; the round trip of one message at a time, from its
 * submission until it is delivered where it came from; the processor time of all
 * threads of all processes.  Each figure is the median of several rounds.
 *
 * Why one can believe it: every message is a valid writeset with a key of its
 * own; a run counts only if each node has delivered every message, with a
 * passing verdict, and all nodes the same ones in the same order (a chained
 * checksum).  Otherwise, and when a node falls out of the primary component, the
 * program ends with 1 and prints no figure.
 *
 * What is left out: shared memory and backends, apply.  A delivered message
 * counts as committed at once.
 *
 * Without a log entries go to memory only and each message asks for the
 * durability `memory`.  With one (--log DIR) it is the real log with its
 * flusher, and the durability is `majority`.
 *
 * The nodes obey the parent through a socket pair each; results come back
 * through shared memory.  A node ends when its parent does.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/node.h"
#include "core/writeset.h"
#include "host/clock.h"
#include "host/log.h"
#include "host/statefile.h"
#include "host/transport.h"

#define NODES				3
#define COUNT_MAX			1000000
#define WINDOW_MAX			MG_PENDING_MAX
#define MESSAGE_BYTES_MIN	(MG_WRITESET_HEADER_BYTES + 8 + MG_EVENT_HEADER_BYTES)
#define MESSAGE_BYTES_MAX	65536
#define ROUNDS_MAX			99
#define KEPT_ENTRIES		16384	/* without a log: at first; a power of two */

/* The provider's. */
#define FRAMES_PER_ROUND	512
#define SUBMITS_PER_ROUND	256
#define TICK_US				1000
#define IDLE_WAIT_MS		50
#define BUSY_WAIT_MS		1
#define RELEASE_US			100000
#define FLUSH_PACE_US		250
#define NAP_FROM			2
#define NAP_US_EACH			50
#define NAP_US_MAX			800

#define FORM_TIMEOUT_MS		30000
#define RUN_TIMEOUT_MS		120000

typedef enum wait_how
{
	WAIT_POLL = 0,				/* sleeps as soon as there is nothing to do */
	WAIT_SPIN,					/* looks for --spin-us longer, then sleeps */
	WAIT_NAP					/* as the provider: with several messages on their way it naps and takes all that came */
} wait_how;

static const char *const wait_names[] = {"poll", "spin", "nap"};

static struct
{
	uint32_t	count;
	uint32_t	count_single;
	uint32_t	window;
	uint32_t	bytes;
	uint32_t	rounds;
	wait_how	wait;
	int64_t		spin_us;
	const char *log_dir;
	const char *filter;
	bool		sync;
	bool		verbose;
} options = {
	.count = 100000,
	.count_single = 5000,
	.window = 1000,
	.bytes = 200,
	.rounds = 3,
	.wait = WAIT_POLL,
	.spin_us = 50,
	.sync = true
};

/* ---- what parent and nodes share ---- */

typedef enum command_kind
{
	COMMAND_BOOTSTRAP = 1,
	COMMAND_JOIN,
	COMMAND_RUN
} command_kind;

typedef struct command
{
	command_kind kind;
	uint32_t	submit;			/* messages that this node is to submit */
	uint32_t	window;
	uint64_t	until;			/* the run is over here when so many were delivered since the start */
	char		seeds[MG_ADDRESS_BYTES_MAX];
} command;

/* Written by the node before it answers, read by the parent after that. */
typedef struct result
{
	int			port;
	bool		leads;
	uint32_t	order_crc;		/* of all deliveries since the start */
	int64_t		begin_ns;		/* 0: it submitted nothing */
	int64_t		end_ns;
	int64_t		cpu_us;
	uint64_t	frames;
	uint64_t	rounds;
	uint32_t	n_samples;
	uint32_t	samples_ns[COUNT_MAX];
} result;

static result *results;			/* NODES */

static mg_uuid cluster_uuid;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void
fail(const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	fputs("order: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t
cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * INT64_C(1000000) + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

/* ---- one node ---- */

typedef struct kept_entry
{
	uint8_t    *bytes;
	uint32_t	len;
	uint32_t	cap;
} kept_entry;

static struct
{
	int			no;
	int			control;
	mg_node    *node;
	mg_transport *transport;
	mg_log	   *log;			/* NULL: entries are kept in memory */
	kept_entry *kept;			/* ring of kept_cap, for who fetches; grows while somebody needs the oldest */
	uint32_t	kept_cap;
	mg_seqno	kept_first;
	mg_seqno	kept_last;
	mg_seqno	needed;
	char		dir[4096];
	mg_effects	fx;
	int64_t		now;
	int64_t		last_tick;
	int64_t		last_release;
	int64_t		last_work;
	uint32_t	generation;
	mg_seqno	flushed;
	mg_seqno	log_first;
	mg_seqno	committed;
	bool		again;
	bool		appended;
	bool		synced_told;

	/* the run */
	bool		running;
	uint32_t	to_submit;
	uint32_t	window;
	uint32_t	on_way;
	uint64_t	until;
	uint64_t	delivered;
	uint64_t	submitted;
	int64_t		cpu_begin;
	uint64_t	rounds_begin;
	uint64_t	rounds;
	uint64_t	frames_begin;
	int32_t		free_slots[WINDOW_MAX];
	int64_t		sent_ns[WINDOW_MAX];
} me;

static mg_input
input(mg_input_type type)
{
	mg_input	in;

	memset(&in, 0, sizeof(in));
	in.type = type;
	in.now_us = me.now;
	in.peer = -1;
	in.slot = -1;
	return in;
}

static void
step(const mg_input *in)
{
	mg_node_step(me.node, in, &me.fx);
}

static void
answer(void)
{
	if (send(me.control, "", 1, MSG_NOSIGNAL) != 1)
		exit(1);
}

/* ---- where entries go ---- */

static kept_entry *
kept_at(mg_seqno seqno)
{
	return &me.kept[seqno & (me.kept_cap - 1)];
}

static void
kept_make_room(void)
{
	kept_entry *before = me.kept;
	uint32_t	cap_before = me.kept_cap;

	if (me.kept_first == 0 || me.kept_last - me.kept_first + 1 < me.kept_cap)
		return;
	if (me.kept_first < me.needed)
	{
		me.kept_first++;
		return;
	}
	me.kept_cap *= 2;
	me.kept = mg_alloc(me.kept_cap * sizeof(kept_entry));
	for (mg_seqno s = me.kept_first; s <= me.kept_last; s++)
		*kept_at(s) = before[s & (cap_before - 1)];
	mg_free(before);
}

static void
keep_entry(mg_seqno seqno, const void *bytes, uint32_t len)
{
	mg_log_place place;
	kept_entry *k;

	if (me.log != NULL)
	{
		mg_status	status = mg_log_append(me.log, seqno, bytes, len, &place);

		if (status != MG_OK)
			fail("appending to the log: %s", mg_status_name(status));
		me.appended = true;
		return;
	}
	kept_make_room();
	k = kept_at(seqno);
	if (k->cap < len)
	{
		k->bytes = mg_realloc(k->bytes, len);
		k->cap = len;
	}
	memcpy(k->bytes, bytes, len);
	k->len = len;
	if (me.kept_first == 0)
		me.kept_first = seqno;
	me.kept_last = seqno;
}

static void
cut_entries(mg_seqno seqno, uint32_t generation)
{
	mg_status	status = MG_OK;

	if (me.log != NULL)
		status = seqno > 0 ? mg_log_truncate(me.log, seqno) : mg_log_reset(me.log);
	else
	{
		me.kept_last = seqno < me.kept_last ? seqno : me.kept_last;
		if (me.kept_last < me.kept_first)
			me.kept_first = me.kept_last = 0;
	}
	if (status != MG_OK)
		fail("cutting the log: %s", mg_status_name(status));
	me.generation = generation;
	me.flushed = seqno;
}

static void
read_entries_for(int peer, mg_seqno from)
{
	mg_seqno	last = me.log != NULL ? mg_log_last(me.log) : me.kept_last;
	uint8_t    *bytes = NULL;
	size_t		sent = 0;

	for (mg_seqno s = from; s <= last && sent < MG_FETCH_BYTES; s++)
	{
		mg_input	in = input(MG_IN_LOG_READ);

		in.peer = peer;
		in.seqno = s;
		in.generation = me.generation;
		if (me.log == NULL)
		{
			if (s < me.kept_first)
				break;
			in.bytes = kept_at(s)->bytes;
			in.len = kept_at(s)->len;
		}
		else
		{
			mg_log_place place;

			if (mg_log_find(me.log, s, &place) != MG_OK)
				break;
			bytes = mg_realloc(bytes, place.len);
			if (mg_log_read(me.log, s, &place, bytes) != MG_OK)
				fail("reading the log");
			in.bytes = bytes;
			in.len = place.len;
		}
		step(&in);
		sent += in.len;
	}
	mg_free(bytes);
	me.again = true;
}

static void
save_state(const void *bytes, size_t len)
{
	char		path[sizeof(me.dir) + 16];

	if (me.log == NULL)
		return;
	snprintf(path, sizeof(path), "%s/node", me.dir);
	if (mg_statefile_write(path, bytes, len) != MG_OK)
		fail("writing \"%s\": %s", path, strerror(errno));
}

/* ---- effects ---- */

static void
delivered(const mg_effect *e)
{
	result	   *r = &results[me.no];
	uint8_t		what[21];

	mg_store_u64(what, e->seqno);
	mg_store_u64(what + 8, e->depends);
	mg_store_u32(what + 16, e->member);
	what[20] = e->kind == MG_DELIVER_SKIP;
	r->order_crc = mg_crc32c(r->order_crc, what, sizeof(what));
	me.committed = e->seqno;
	if (e->kind == MG_DELIVER_SKIP)
		return;
	me.delivered++;
	if (e->kind == MG_DELIVER_LOCAL)
	{
		if (r->n_samples < COUNT_MAX)
			r->samples_ns[r->n_samples++] = (uint32_t) (now_ns() - me.sent_ns[e->slot]);
		me.free_slots[--me.on_way] = e->slot;
		if (me.to_submit > 0)
			me.again = true;
	}
}

static void
carry_out(mg_effects *fx)
{
	for (size_t i = 0; i < fx->n; i++)
	{
		mg_effect  *e = &fx->list[i];
		const char *at = (const char *) fx->bytes.data + e->at;

		switch (e->type)
		{
			case MG_FX_NONE:
			case MG_FX_STATE:
				break;
			case MG_FX_CONNECT:
				if (mg_transport_connect(me.transport, e->peer, at) != MG_OK)
					fail("cannot connect to \"%s\"", at);
				break;
			case MG_FX_DISCONNECT:
				mg_transport_disconnect(me.transport, e->peer);
				break;
			case MG_FX_SEND:
				(void) mg_transport_send_many(me.transport, e->peers, at, e->len);
				break;
			case MG_FX_SAVE:
				save_state(at, e->len);
				break;
			case MG_FX_APPEND:
				keep_entry(e->seqno, at, (uint32_t) e->len);
				break;
			case MG_FX_TRUNCATE:
				cut_entries(e->seqno, e->generation);
				break;
			case MG_FX_RESET_LOG:
				cut_entries(0, e->generation);
				break;
			case MG_FX_READ_LOG:
				read_entries_for(e->peer, e->seqno);
				break;
			case MG_FX_DELIVER:
				delivered(e);
				break;
			case MG_FX_ANSWER:
				if (!e->ok)
					fail("node %d: %s", me.no, at);
				break;
			case MG_FX_VERDICT:
				fail("node %d: a message failed: %s", me.no, mg_verdict_name(e->verdict));
			case MG_FX_UNKNOWN:
				fail("node %d: a message's outcome is unknown: %s", me.no, mg_node_reason(me.node));
			case MG_FX_REFUSED:
				fail("node %d: a message was refused: %s", me.no, at);
			case MG_FX_EVICTED:
				fail("node %d: evicted", me.no);
			case MG_FX_SNAPSHOT:
				fail("node %d: %s", me.no, at);
			case MG_FX_LOG:
				if (options.verbose)
					fprintf(stderr, "%d %lld %s\n", me.no, (long long) me.now, at);
				break;
		}
	}
}

/* READ_LOG answers with inputs, whose effects come into a list of their own. */
static void
carry_out_all(void)
{
	static mg_effects spare;

	while (me.fx.n > 0)
	{
		mg_effects	now = me.fx;

		me.fx = spare;
		carry_out(&now);
		mg_effects_reset(&now);
		spare = now;
	}
	if (me.appended)
	{
		if (mg_log_write(me.log) != MG_OK)
			fail("writing the log: %s", strerror(errno));
		mg_log_request_flush(me.log);
		me.appended = false;
	}
}

/* ---- the loop ---- */

/* A writeset with one key, never used before, and one event. */
static void
submit(void)
{
	static uint8_t bytes[MESSAGE_BYTES_MAX];
	mg_writeset_header h;
	mg_input	in = input(MG_IN_SUBMIT);
	uint8_t    *keys = bytes + MG_WRITESET_HEADER_BYTES;
	uint8_t    *events = keys + 8;
	uint32_t	crc;

	memset(&h, 0, sizeof(h));
	h.last_seen = me.committed;
	h.trx_id = ++me.submitted;
	h.n_keys = 1;
	h.n_events = 1;
	h.events_len = options.bytes - MG_WRITESET_HEADER_BYTES - 8;
	mg_store_u64(keys, mg_key_make(mg_mix64(me.submitted * NODES + (uint64_t) me.no), MG_KEY_NO_KEY_UPDATE));
	events[0] = MG_EVENT_INSERT;
	mg_store_u32(events + 1, h.events_len - MG_EVENT_HEADER_BYTES);
	crc = mg_writeset_crc_begin(&h);
	crc = mg_crc32c(crc, keys, 8);
	crc = mg_crc32c(crc, events, h.events_len);
	mg_writeset_header_encode(&h, crc, bytes);

	in.slot = me.free_slots[me.on_way++];
	in.flags = me.log != NULL ? MG_ENTRY_MAJORITY : MG_ENTRY_MEMORY;
	in.last_seen = h.last_seen;
	in.bytes = bytes;
	in.len = options.bytes;
	me.sent_ns[in.slot] = now_ns();
	if (results[me.no].begin_ns == 0)
		results[me.no].begin_ns = me.sent_ns[in.slot];
	step(&in);
}

static void
on_link(void *arg, int peer, bool up)
{
	mg_input	in = input(MG_IN_LINK);

	(void) arg;
	in.peer = peer;
	in.up = up;
	step(&in);
}

static void
tick(void)
{
	mg_seqno	first = me.log != NULL ? mg_log_first(me.log) : me.kept_first;
	mg_input	in;

	me.last_tick = me.now;
	if (first != me.log_first)
	{
		me.log_first = first;
		in = input(MG_IN_LOG_FIRST);
		in.seqno = first;
		step(&in);
	}
	me.needed = mg_node_log_needed(me.node);
	if (me.needed > me.committed)
		me.needed = me.committed;
	if (me.log != NULL && me.now - me.last_release >= RELEASE_US)
	{
		me.last_release = me.now;
		mg_log_release(me.log, me.needed, me.needed);
	}
	in = input(MG_IN_TICK);
	step(&in);
}

/* Without a log nothing is ever flushed; what views wait for is said now and then. */
static void
look_for_flush(bool ticked)
{
	mg_seqno	flushed = me.log != NULL ? mg_log_flushed(me.log) : ticked ? me.kept_last : me.flushed;
	mg_input	in = input(MG_IN_FLUSHED);

	if (me.log != NULL && mg_log_flush_error(me.log) != 0)
		fail("flushing the log: %s", strerror(mg_log_flush_error(me.log)));
	if (flushed == me.flushed)
		return;
	me.flushed = flushed;
	in.seqno = flushed;
	in.generation = me.generation;
	step(&in);
}

/* True if anything came in or went out. */
static bool
round_inputs(void)
{
	const void *bytes;
	size_t		len;
	mg_input	in;
	mg_seqno	flushed = me.flushed;
	bool		ticked = false;
	int			frames = 0;
	int			submits = 0;

	me.now = mg_clock_monotonic_us();
	in = input(MG_IN_COMMITTED);
	in.seqno = me.committed;
	step(&in);
	for (; frames < FRAMES_PER_ROUND && mg_transport_receive(me.transport, &bytes, &len); frames++)
	{
		in = input(MG_IN_RECEIVE);
		in.bytes = bytes;
		in.len = len;
		step(&in);
	}
	for (; submits < SUBMITS_PER_ROUND && me.to_submit > 0 && me.on_way < me.window; submits++)
	{
		submit();
		me.to_submit--;
	}
	if (frames == FRAMES_PER_ROUND || submits == SUBMITS_PER_ROUND)
		me.again = true;
	mg_transport_links(me.transport, on_link, NULL);
	if (me.now - me.last_tick >= TICK_US)
	{
		ticked = true;
		tick();
	}
	look_for_flush(ticked);
	in = input(MG_IN_ROUND_END);
	step(&in);
	me.rounds++;
	return frames > 0 || submits > 0 || flushed != me.flushed;
}

static void
run_ended(void)
{
	result	   *r = &results[me.no];
	mg_transport_stats stats;

	me.running = false;
	mg_transport_get_stats(me.transport, &stats);
	r->end_ns = now_ns();
	r->cpu_us = cpu_us() - me.cpu_begin;
	r->frames = stats.frames_sent - me.frames_begin;
	r->rounds = me.rounds - me.rounds_begin;
	r->leads = mg_node_leader(me.node) == mg_node_self(me.node);
	answer();
}

static void
obey(void)
{
	command		c;
	ssize_t		n = recv(me.control, &c, sizeof(c), MSG_DONTWAIT);
	mg_input	in;
	mg_transport_stats stats;

	if (n == 0)
		exit(0);				/* the parent is gone or done */
	if (n != (ssize_t) sizeof(c))
		return;
	me.again = true;
	switch (c.kind)
	{
		case COMMAND_BOOTSTRAP:
			in = input(MG_IN_BOOTSTRAP);
			in.uuid = cluster_uuid;
			step(&in);
			break;
		case COMMAND_JOIN:
			in = input(MG_IN_JOIN);
			in.text = c.seeds;
			step(&in);
			break;
		case COMMAND_RUN:
			mg_transport_get_stats(me.transport, &stats);
			results[me.no].n_samples = 0;
			results[me.no].begin_ns = 0;
			me.running = true;
			me.to_submit = c.submit;
			me.window = c.window;
			me.until = c.until;
			me.cpu_begin = cpu_us();
			me.rounds_begin = me.rounds;
			me.frames_begin = stats.frames_sent;
			break;
	}
}

static bool
nap(void)
{
	uint64_t	on_way = mg_node_ordered(me.node) - mg_node_delivered(me.node) + mg_node_unordered(me.node);
	struct timespec t = {0, 0};

	if (on_way <= NAP_FROM)
		return false;
	t.tv_nsec = (long) (on_way * NAP_US_EACH < NAP_US_MAX ? on_way * NAP_US_EACH : NAP_US_MAX) * 1000L;
	(void) nanosleep(&t, NULL);
	return true;
}

static void
wait_for_news(void)
{
	struct pollfd fds[3] = {
		{.fd = me.control, .events = POLLIN},
		{.fd = mg_transport_fd(me.transport), .events = POLLIN},
		{.fd = me.log != NULL ? mg_log_flush_fd(me.log) : -1, .events = POLLIN}
	};

	if (options.wait == WAIT_NAP && nap())
		return;
	if (options.wait == WAIT_SPIN && me.running && mg_clock_monotonic_us() - me.last_work < options.spin_us)
	{
		sched_yield();
		return;
	}
	if (poll(fds, 3, mg_node_wants_tick(me.node) ? BUSY_WAIT_MS : IDLE_WAIT_MS) <= 0)
		return;
	if (fds[0].revents != 0)
		obey();
	if (fds[2].revents != 0)
		mg_log_flush_seen(me.log);
}

/* As the provider does, for the same reason; ZeroMQ's threads inherit it. */
static void
schedule_in_batches(void)
{
	struct sched_param param = {0};

	(void) sched_setscheduler(0, SCHED_BATCH, &param);
	(void) prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0);
}

static void
open_node(uint64_t incarnation)
{
	char		reason[MG_REASON_BYTES_MAX];
	mg_gtid		position = {.uuid = cluster_uuid, .seqno = 0};
	mg_transport_config net = {
		.listen = "127.0.0.1:0",
		.identity = incarnation,
		.frame_bytes_max = MG_FRAME_BYTES_MAX
	};
	mg_log_config log = {
		.dir = me.dir,
		.segment_bytes = 16 * 1024 * 1024,
		.bytes_max = 64 * 1024 * 1024,
		.sync = options.sync,
		.flush_pace_us = FLUSH_PACE_US
	};
	mg_node_config config;

	if (mg_transport_open(&net, &me.transport, reason) != MG_OK)
		fail("%s", reason);
	results[me.no].port = mg_transport_port(me.transport);
	if (options.log_dir != NULL)
	{
		snprintf(me.dir, sizeof(me.dir), "%s/node%d", options.log_dir, me.no);
		if (mg_log_open(&log, &me.log, reason) != MG_OK)
			fail("the log in \"%s\": %s", me.dir, reason);
		if (mg_log_last(me.log) != 0)
			fail("the log in \"%s\" is not empty", me.dir);
	}
	else
	{
		me.kept_cap = KEPT_ENTRIES;
		me.kept = mg_alloc(me.kept_cap * sizeof(kept_entry));
	}

	memset(&config, 0, sizeof(config));
	snprintf(config.name, sizeof(config.name), "node%d", me.no);
	snprintf(config.cluster_name, sizeof(config.cluster_name), "order");
	snprintf(config.address, sizeof(config.address), "127.0.0.1:%d", results[me.no].port);
	config.incarnation = incarnation;
	config.weight = 1;
	config.keepalive_us = 500000;
	config.suspect_us = 2000000;
	config.inactive_us = 10000000;
	config.resend_us = 300000;
	config.fetch_us = 10000;
	config.fc_limit = 4096;
	me.node = mg_node_new(&config, &position, me.now);
	for (int i = 0; i < WINDOW_MAX; i++)
		me.free_slots[i] = i;
}

static void
node_main(int no, int control)
{
	uint64_t	incarnation;

	me.no = no;
	me.control = control;
	me.now = mg_clock_monotonic_us();
	if (mg_random_bytes(&incarnation, sizeof(incarnation)) != MG_OK)
		fail("no random numbers from the system");
	(void) prctl(PR_SET_PDEATHSIG, SIGKILL);
	schedule_in_batches();
	open_node(incarnation | 1);
	answer();
	for (;;)
	{
		int64_t		tick_before = me.last_tick;

		me.again = false;
		if (round_inputs())
			me.last_work = me.now;
		carry_out_all();
		if (!me.synced_told && mg_state_is_synced(mg_node_get_state(me.node)))
		{
			me.synced_told = true;
			answer();
		}
		if (me.running && me.delivered >= me.until)
			run_ended();
		if (me.last_tick != tick_before)
			obey();
		if (!me.again && me.fx.n == 0)
			wait_for_news();
	}
}

/* ---- the parent ---- */

static int	controls[NODES];
static pid_t pids[NODES];
static uint64_t total;			/* messages of all runs so far */

static void
await(int no, int timeout_ms, const char *what)
{
	struct pollfd fd = {.fd = controls[no], .events = POLLIN};
	char		byte;

	if (poll(&fd, 1, timeout_ms) != 1)
		fail("node %d: %s takes too long", no, what);
	if (recv(controls[no], &byte, 1, 0) != 1)
		fail("node %d has ended", no);
}

static void
tell(int no, const command *c)
{
	if (send(controls[no], c, sizeof(*c), MSG_NOSIGNAL) != (ssize_t) sizeof(*c))
		fail("node %d has ended", no);
}

static void
start_nodes(void)
{
	command		c = {.kind = COMMAND_BOOTSTRAP};

	results = mmap(NULL, NODES * sizeof(result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED || mg_random_bytes(&cluster_uuid, sizeof(cluster_uuid)) != MG_OK)
		fail("no memory or no random numbers");
	for (int no = 0; no < NODES; no++)
	{
		int			pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
			fail("socketpair: %s", strerror(errno));
		pids[no] = fork();
		if (pids[no] < 0)
			fail("fork: %s", strerror(errno));
		if (pids[no] == 0)
		{
			close(pair[0]);
			for (int i = 0; i < no; i++)
				close(controls[i]);
			node_main(no, pair[1]);
		}
		close(pair[1]);
		controls[no] = pair[0];
		await(no, FORM_TIMEOUT_MS, "its start");
	}
	for (int no = 0; no < NODES; no++)
	{
		tell(no, &c);
		await(no, FORM_TIMEOUT_MS, "being synced");
		c.kind = COMMAND_JOIN;
		snprintf(c.seeds, sizeof(c.seeds), "127.0.0.1:%d", results[0].port);
	}
}

static void
stop_nodes(void)
{
	for (int no = 0; no < NODES; no++)
		close(controls[no]);
	for (int no = 0; no < NODES; no++)
		(void) waitpid(pids[no], NULL, 0);
}

typedef struct measures
{
	double		per_s;
	double		cpu_us_each;
	double		median_us;
	double		p99_us;
	double		frames_each;
	double		rounds_each;
} measures;

static int
compare_u32(const void *a, const void *b)
{
	uint32_t	x = *(const uint32_t *) a;
	uint32_t	y = *(const uint32_t *) b;

	return (x > y) - (x < y);
}

/* `submitters`: a mask of nodes. */
static measures
run(uint32_t submitters, uint32_t count, uint32_t window)
{
	static uint32_t samples[COUNT_MAX];
	uint32_t	n_submitters = (uint32_t) __builtin_popcount(submitters);
	uint32_t	each = count / n_submitters;
	uint32_t	n = 0;
	int64_t		begin = INT64_MAX;
	int64_t		end = 0;
	int64_t		cpu = 0;
	uint64_t	frames = 0;
	uint64_t	rounds = 0;
	measures	m;

	total += each * n_submitters;
	for (int no = 0; no < NODES; no++)
	{
		bool		submits = (submitters & (1u << no)) != 0;
		command		c = {
			.kind = COMMAND_RUN,
			.submit = submits ? each : 0,
			.window = (window + n_submitters - 1) / n_submitters,
			.until = total
		};

		tell(no, &c);
	}
	for (int no = 0; no < NODES; no++)
		await(no, RUN_TIMEOUT_MS, "the run");
	for (int no = 0; no < NODES; no++)
	{
		result	   *r = &results[no];

		if (r->order_crc != results[0].order_crc)
			fail("nodes 0 and %d have delivered different things", no);
		if (r->leads != (no == 0))
			fail("node 0 does not lead any more");
		if (r->begin_ns != 0 && r->begin_ns < begin)
			begin = r->begin_ns;
		if (r->end_ns > end)
			end = r->end_ns;
		cpu += r->cpu_us;
		frames += r->frames;
		rounds += r->rounds;
		memcpy(samples + n, r->samples_ns, r->n_samples * sizeof(uint32_t));
		n += r->n_samples;
	}
	count = each * n_submitters;
	if (n != count)
		fail("%u messages were submitted, %u came back", count, n);
	qsort(samples, n, sizeof(uint32_t), compare_u32);
	m.per_s = count * 1e9 / (double) (end - begin);
	m.cpu_us_each = (double) cpu / count;
	m.median_us = samples[n / 2] / 1e3;
	m.p99_us = samples[(uint64_t) n * 99 / 100] / 1e3;
	m.frames_each = (double) frames / count;
	m.rounds_each = (double) rounds / count;
	return m;
}

static int
compare_double(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* The median over the rounds of the value at `offset`. */
static double
median(const measures *m, size_t offset)
{
	double		v[ROUNDS_MAX];

	for (uint32_t i = 0; i < options.rounds; i++)
		memcpy(&v[i], (const char *) &m[i] + offset, sizeof(double));
	qsort(v, options.rounds, sizeof(double), compare_double);
	return v[options.rounds / 2];
}

/* `aim`: at least; a negative one: below that; 0: none. */
static void
print_figure(const char *figure, const char *from, uint32_t window, double value, const char *unit, double aim)
{
	printf("{\"figure\":\"%s\",\"from\":\"%s\",\"window\":%u,\"bytes\":%u,\"durability\":\"%s\",\"wait\":\"%s\","
		   "\"value\":%.*f,\"unit\":\"%s\"",
		   figure, from, window, options.bytes, options.log_dir != NULL ? "majority" : "memory",
		   wait_names[options.wait], value < 10 ? 4 : 1, value, unit);
	if (aim == 0)
		printf(",\"aim\":null,\"met\":null}\n");
	else
		printf(",\"aim\":%.0f,\"met\":%s}\n", aim > 0 ? aim : -aim,
			   (aim > 0 ? value >= aim : value < -aim) ? "true" : "false");
	fflush(stdout);
}

static void
measure(const char *from, uint32_t submitters, bool single)
{
	measures	m[ROUNDS_MAX];
	uint32_t	window = single ? 1 : options.window;
	uint32_t	count = single ? options.count_single : options.count;
	bool		aims = options.log_dir == NULL && options.bytes == 200;
	char		name[64];

	snprintf(name, sizeof(name), "%s %s", single ? "single" : "stream", from);
	if (options.filter != NULL && strstr(name, options.filter) == NULL)
		return;
	(void) run(submitters, count / 10 + 1, window);	/* memory touched, connections warm */
	for (uint32_t i = 0; i < options.rounds; i++)
		m[i] = run(submitters, count, window);
	if (single)
	{
		print_figure("order_round_trip_median", from, window, median(m, offsetof(measures, median_us)), "us", aims ? -150 : 0);
		print_figure("order_round_trip_p99", from, window, median(m, offsetof(measures, p99_us)), "us", 0);
	}
	else
	{
		print_figure("order_messages", from, window, median(m, offsetof(measures, per_s)), "1/s", aims ? 50000 : 0);
		print_figure("order_latency_median", from, window, median(m, offsetof(measures, median_us)), "us", 0);
	}
	print_figure("order_cpu_per_1000", from, window, median(m, offsetof(measures, cpu_us_each)) / 1e3, "s", 0);
	if (options.verbose)
		fprintf(stderr, "%s: frames per message %.3f, rounds per message %.3f\n", name,
				median(m, offsetof(measures, frames_each)), median(m, offsetof(measures, rounds_each)));
}

static void
usage(void)
{
	fprintf(stderr,
			"order [--count N] [--single N] [--window N] [--bytes N] [--rounds N] [--wait poll|spin|nap]\n"
			"      [--spin-us N] [--log DIR] [--no-sync] [--filter TEXT] [--verbose]\n");
	exit(2);
}

static uint32_t
number(const char *text, uint32_t low, uint32_t high)
{
	char	   *end;
	long		n = strtol(text, &end, 10);

	if (*end != '\0' || end == text || n < (long) low || n > (long) high)
	{
		fprintf(stderr, "order: \"%s\" is not a number from %u to %u\n", text, low, high);
		exit(2);
	}
	return (uint32_t) n;
}

static void
read_options(int argc, char **argv)
{
	static const struct option known[] = {
		{"count", required_argument, NULL, 'c'},
		{"single", required_argument, NULL, 's'},
		{"window", required_argument, NULL, 'w'},
		{"bytes", required_argument, NULL, 'b'},
		{"rounds", required_argument, NULL, 'r'},
		{"wait", required_argument, NULL, 'm'},
		{"spin-us", required_argument, NULL, 'u'},
		{"log", required_argument, NULL, 'l'},
		{"no-sync", no_argument, NULL, 'n'},
		{"filter", required_argument, NULL, 'f'},
		{"verbose", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0}
	};
	int			c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1)
		switch (c)
		{
			case 'c':
				options.count = number(optarg, NODES, COUNT_MAX);
				break;
			case 's':
				options.count_single = number(optarg, 1, COUNT_MAX);
				break;
			case 'w':
				options.window = number(optarg, 1, WINDOW_MAX);
				break;
			case 'b':
				options.bytes = number(optarg, MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
				break;
			case 'r':
				options.rounds = number(optarg, 1, ROUNDS_MAX);
				break;
			case 'm':
				for (options.wait = WAIT_POLL; strcmp(optarg, wait_names[options.wait]) != 0; options.wait++)
					if (options.wait == WAIT_NAP)
						usage();
				break;
			case 'u':
				options.spin_us = number(optarg, 0, 1000000);
				break;
			case 'l':
				options.log_dir = optarg;
				break;
			case 'n':
				options.sync = false;
				break;
			case 'f':
				options.filter = optarg;
				break;
			case 'v':
				options.verbose = true;
				break;
			default:
				usage();
		}
	if (optind != argc)
		usage();
}

int
main(int argc, char **argv)
{
	read_options(argc, argv);
	start_nodes();
	measure("all", 7, false);
	measure("leader", 1, false);
	measure("follower", 2, false);
	measure("leader", 1, true);
	measure("follower", 2, true);
	stop_nodes();
	return 0;
}
