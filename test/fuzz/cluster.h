/*
 * test/fuzz/cluster.h - a few nodes in one process with hosts that do as the
 * provider does: log, state and connections in memory, links that keep their
 * order, time that moves when told.  The same calls give the same bytes, so an
 * input of a fuzz target means the same in every run.
 *
 * A host asserts what the real one relies on: entries come dense, deliveries
 * too, nothing that was delivered is cut off, frames that go out are whole.
 * Whatever bytes come in, none of that may break.
 */
#ifndef MG_TEST_FUZZ_CLUSTER_H
#define MG_TEST_FUZZ_CLUSTER_H

#include <stdio.h>
#include <stdlib.h>

#include "build.h"
#include "core/node.h"
#include "core/writeset.h"

#define HOSTS_MAX		3
#define FLIGHT_MAX		512		/* more are lost, as on a full link */
#define ROUNDS_MAX		64		/* of one host's answers to itself */
#define READS_MAX		8
#define SLOTS_MAX		64

typedef struct bytes
{
	uint8_t    *data;			/* of its own size: the sanitizer watches its end */
	size_t		len;
} bytes;

typedef struct flying
{
	int			from;
	int			to;
	bytes		frame;
} flying;

typedef struct host
{
	mg_node    *node;
	mg_node_config config;
	mg_effects	fx;
	int			to[MG_PEERS_MAX];	/* peer -> host, -1: nobody there */
	uint32_t	connected;		/* peers whose link is to be told */
	uint32_t	lives;
	bytes		saved;
	bytes	   *log;			/* of entries */
	size_t		log_len;
	size_t		log_cap;
	mg_seqno	log_first;
	uint32_t	generation;
	mg_seqno	flushed;		/* told to the node */
	mg_seqno	delivered;
	mg_seqno	committed;		/* told to the node */
	bool		stalled;		/* its disk does not answer */
	bool		evicted;
	bool		busy[SLOTS_MAX];
	int			n_reads;
	int			read_peer[READS_MAX];
	mg_seqno	read_from[READS_MAX];
	uint64_t	trx;
	mg_frame_header spoken;		/* header of the last frame it sent */
} host;

typedef struct cluster
{
	host		h[HOSTS_MAX];
	int			n;
	int64_t		now;
	mg_uuid		uuid;
	flying		flight[FLIGHT_MAX];
	int			n_flight;
} cluster;

static inline bytes
bytes_copy(const void *data, size_t len)
{
	bytes		copy = {mg_alloc(len), len};

	if (len > 0)
		memcpy(copy.data, data, len);
	return copy;
}

static inline void
bytes_free(bytes *b)
{
	mg_free(b->data);
	*b = (bytes) {NULL, 0};
}

static inline mg_seqno
log_last(const host *h)
{
	return h->log_len == 0 ? 0 : h->log_first + h->log_len - 1;
}

static inline void
log_cut(host *h, size_t keep)
{
	while (h->log_len > keep)
		bytes_free(&h->log[--h->log_len]);
	if (keep == 0)
		h->log_first = 0;
	if (h->flushed > log_last(h))
		h->flushed = log_last(h);
}

static inline void
log_append(host *h, mg_seqno seqno, const void *data, size_t len)
{
	MG_ASSERT(seqno != 0 && (h->log_len == 0 || seqno == log_last(h) + 1));
	if (h->log_len == h->log_cap)
	{
		h->log_cap = h->log_cap == 0 ? 64 : 2 * h->log_cap;
		h->log = mg_realloc(h->log, h->log_cap * sizeof(bytes));
	}
	if (h->log_len == 0)
		h->log_first = seqno;
	h->log[h->log_len++] = bytes_copy(data, len);
}

static inline void
feed(cluster *c, int i, mg_input in)
{
	host	   *h = &c->h[i];

	in.now_us = c->now;
	in.generation = h->generation;
	mg_node_step(h->node, &in, &h->fx);
}

static inline void
carry_send(cluster *c, int i, const mg_effect *e)
{
	host	   *h = &c->h[i];
	const uint8_t *data = h->fx.bytes.data + e->at;
	mg_reader	r;
	uint16_t	version;

	MG_ASSERT(e->at + e->len <= h->fx.bytes.len && e->peers != 0);
	MG_ASSERT(mg_frame_open(data, e->len, &h->spoken, &r, &version) == MG_OK);
	for (int p = 0; p < MG_PEERS_MAX; p++)
	{
		if ((e->peers & UINT32_C(1) << p) == 0 || h->to[p] < 0 || c->n_flight == FLIGHT_MAX)
			continue;
		c->flight[c->n_flight++] = (flying) {i, h->to[p], bytes_copy(data, e->len)};
	}
}

/* One effect; inputs that follow from it come with the next round. */
static inline void
carry_out(cluster *c, int i, const mg_effect *e)
{
	host	   *h = &c->h[i];
	const char *text = (const char *) h->fx.bytes.data + e->at;

	switch (e->type)
	{
		case MG_FX_CONNECT:
			MG_ASSERT(e->peer >= 0 && e->peer < MG_PEERS_MAX);
			h->to[e->peer] = -1;
			for (int k = 0; k < c->n; k++)
				if (k != i && c->h[k].node != NULL && strcmp(text, c->h[k].config.address) == 0)
				{
					h->to[e->peer] = k;
					h->connected |= UINT32_C(1) << e->peer;
				}
			break;
		case MG_FX_DISCONNECT:
			MG_ASSERT(e->peer >= 0 && e->peer < MG_PEERS_MAX);
			h->to[e->peer] = -1;
			h->connected &= ~(UINT32_C(1) << e->peer);
			break;
		case MG_FX_SEND:
			carry_send(c, i, e);
			break;
		case MG_FX_SAVE:
			MG_ASSERT(e->at + e->len <= h->fx.bytes.len);
			bytes_free(&h->saved);
			h->saved = bytes_copy(text, e->len);
			break;
		case MG_FX_APPEND:
			MG_ASSERT(e->at + e->len <= h->fx.bytes.len);
			log_append(h, e->seqno, text, e->len);
			break;
		case MG_FX_TRUNCATE:
			MG_ASSERT(e->seqno >= h->delivered);
			h->generation = e->generation;
			if (e->seqno < log_last(h))
				log_cut(h, e->seqno < h->log_first ? 0 : (size_t) (e->seqno - h->log_first + 1));
			break;
		case MG_FX_RESET_LOG:
			h->generation = e->generation;
			log_cut(h, 0);
			break;
		case MG_FX_READ_LOG:
			MG_ASSERT(e->peer >= 0 && e->peer < MG_PEERS_MAX);
			if (h->n_reads < READS_MAX)
			{
				h->read_peer[h->n_reads] = e->peer;
				h->read_from[h->n_reads++] = e->seqno;
			}
			break;
		case MG_FX_DELIVER:
			MG_ASSERT(e->seqno == h->delivered + 1);
			if (e->kind != MG_DELIVER_SKIP)
				MG_ASSERT(e->seqno >= h->log_first && e->seqno <= log_last(h) && e->depends < e->seqno);
			if (e->kind == MG_DELIVER_LOCAL)
			{
				MG_ASSERT(e->slot >= 0 && e->slot < SLOTS_MAX && h->busy[e->slot]);
				h->busy[e->slot] = false;
			}
			h->delivered = e->seqno;
			break;
		case MG_FX_VERDICT:
		case MG_FX_UNKNOWN:
		case MG_FX_REFUSED:
			MG_ASSERT(e->slot >= 0 && e->slot < SLOTS_MAX && h->busy[e->slot]);
			h->busy[e->slot] = false;
			break;
		case MG_FX_EVICTED:
		case MG_FX_SNAPSHOT:
			h->evicted = true;
			break;
		case MG_FX_LOG:
			MG_ASSERT(memchr(text, 0, h->fx.bytes.len - e->at) != NULL);
			if (getenv("MG_TRACE") != NULL)
				fprintf(stderr, "%8lld n%d %s\n", (long long) c->now / 1000, i, text);
			break;
		case MG_FX_NONE:
		case MG_FX_STATE:
		case MG_FX_ANSWER:
			break;
	}
}

/* What the effects of the last round call for; false if nothing. */
static inline bool
follow_up(cluster *c, int i)
{
	host	   *h = &c->h[i];
	bool		any = false;
	int			reads = h->n_reads;

	for (int p = 0; p < MG_PEERS_MAX; p++)
		if ((h->connected & UINT32_C(1) << p) != 0)
		{
			h->connected &= ~(UINT32_C(1) << p);
			feed(c, i, (mg_input) {.type = MG_IN_LINK,.peer = p,.up = true});
			any = true;
		}
	h->n_reads = 0;
	for (int k = 0; k < reads; k++)
		for (mg_seqno s = h->read_from[k]; h->log_len > 0 && s >= h->log_first && s <= log_last(h); s++)
		{
			const bytes *b = &h->log[s - h->log_first];

			feed(c, i, (mg_input) {.type = MG_IN_LOG_READ,.peer = h->read_peer[k],.seqno = s,.bytes = b->data,.len = b->len});
			any = true;
		}
	if (!h->stalled && h->flushed != log_last(h))
	{
		h->flushed = log_last(h);
		feed(c, i, (mg_input) {.type = MG_IN_FLUSHED,.seqno = h->flushed});
		any = true;
	}
	if (!h->stalled && h->committed != h->delivered)
	{
		h->committed = h->delivered;
		feed(c, i, (mg_input) {.type = MG_IN_COMMITTED,.seqno = h->committed});
		any = true;
	}
	return any;
}

/* Ends the round, carries out what comes, and goes on until there is nothing. */
static inline void
end_round(cluster *c, int i)
{
	host	   *h = &c->h[i];

	for (int k = 0; k < ROUNDS_MAX; k++)
	{
		feed(c, i, (mg_input) {.type = MG_IN_ROUND_END});
		for (size_t f = 0; f < h->fx.n; f++)
			carry_out(c, i, &h->fx.list[f]);
		mg_effects_reset(&h->fx);
		if (!follow_up(c, i))
			break;
	}
}

static inline void
receive(cluster *c, int i, const void *data, size_t len)
{
	/* Of its own size on the heap: the sanitizer watches its end. */
	bytes		copy = bytes_copy(data, len);

	feed(c, i, (mg_input) {.type = MG_IN_RECEIVE,.bytes = copy.data,.len = len});
	end_round(c, i);
	bytes_free(&copy);
}

/* A frame leaves the air; the caller frees it. */
static inline flying
take_off(cluster *c, int at)
{
	flying		f = c->flight[at];

	c->n_flight--;
	memmove(&c->flight[at], &c->flight[at + 1], (size_t) (c->n_flight - at) * sizeof(flying));
	return f;
}

/* All that is in the air now comes down. */
static inline void
land(cluster *c)
{
	for (int left = c->n_flight; left > 0 && c->n_flight > 0; left--)
	{
		flying		f = take_off(c, 0);

		if (c->h[f.to].node != NULL)
			receive(c, f.to, f.frame.data, f.frame.len);
		bytes_free(&f.frame);
	}
}

/* As the provider does for the status view and before it gives log segments back. */
static inline void
look(const host *h)
{
	const mg_node *node = h->node;
	mg_peer_info info;

	/* Less while it catches up again below where its data stands. */
	MG_ASSERT(mg_node_delivered(node) <= h->delivered);
	MG_ASSERT(mg_node_delivered(node) <= mg_node_held(node) && mg_node_held(node) <= mg_node_ordered(node));
	MG_ASSERT(mg_node_log_needed(node) <= h->committed || h->config.role != MG_ROLE_DATA);
	MG_ASSERT(mg_node_view(node)->n <= MG_MEMBERS_MAX && strlen(mg_node_reason(node)) < MG_REASON_BYTES_MAX);
	(void) mg_node_unordered(node);
	(void) mg_node_damaged(node);
	(void) mg_node_applied(node);
	(void) mg_node_wants_tick(node);
	(void) mg_node_leader(node);
	for (mg_member_id id = 0; id < 6; id++)
		(void) mg_node_peer_info(node, id, &info);
	(void) mg_node_peer_info(node, mg_node_self(node), &info);
}

/* Time passes for all. */
static inline void
pass(cluster *c, int64_t us)
{
	c->now += us;
	for (int i = 0; i < c->n; i++)
		if (c->h[i].node != NULL)
		{
			feed(c, i, (mg_input) {.type = MG_IN_TICK});
			end_round(c, i);
			look(&c->h[i]);
		}
}

static inline void
run(cluster *c, int steps)
{
	while (steps-- > 0)
	{
		land(c);
		pass(c, 5000);
	}
}

static inline void
stop(cluster *c, int i)
{
	host	   *h = &c->h[i];

	mg_node_free(h->node);
	h->node = NULL;
	mg_effects_reset(&h->fx);
	memset(h->busy, 0, sizeof(h->busy));
	h->n_reads = 0;
	h->connected = 0;
}

/* A node on the data that host i has; what it then gets is up to the caller. */
static inline void
start(cluster *c, int i)
{
	host	   *h = &c->h[i];
	mg_gtid		position = {c->uuid, h->committed};

	h->config.incarnation = 16 * (uint64_t) (i + 1) + ++h->lives % 16;
	h->generation = 0;
	h->evicted = false;
	h->delivered = h->committed;
	h->node = mg_node_new(&h->config, &position, c->now);
	for (int p = 0; p < MG_PEERS_MAX; p++)
		h->to[p] = -1;
}

static inline void
resume(cluster *c, int i, bool intact)
{
	host	   *h = &c->h[i];

	start(c, i);
	if (h->saved.data != NULL)
		feed(c, i, (mg_input) {.type = MG_IN_RESTORE,.bytes = h->saved.data,.len = h->saved.len});
	for (size_t k = 0; k < h->log_len; k++)
		feed(c, i, (mg_input) {.type = MG_IN_RECOVER,.seqno = h->log_first + k,.bytes = h->log[k].data,.len = h->log[k].len});
	h->flushed = log_last(h);
	feed(c, i, (mg_input) {.type = MG_IN_START,.up = intact});
	end_round(c, i);
}

/* A writeset of one key and, unless it only takes or ends a reservation, one event. */
static inline void
submit(cluster *c, int i, int slot, uint8_t key, uint8_t flags)
{
	host	   *h = &c->h[i];
	mg_writeset_header header = {.last_seen = h->committed};
	mg_key		keys[1] = {mg_key_make(mg_mix64(key), MG_KEY_UPDATE)};
	mg_buf		events = {0};
	mg_buf		ws = {0};

	if (h->busy[slot])
		return;
	h->busy[slot] = true;
	if ((flags & 0x10) != 0)
		header.flags = MG_WS_RESERVE;
	else
	{
		test_put_event(&events, MG_EVENT_MESSAGE, "hello", 5);
		header.flags = (flags & 0x20) != 0 ? MG_WS_RELEASE : 0;
	}
	h->trx += (flags & 0x20) == 0;
	header.trx_id = h->trx;
	test_build_writeset(&ws, header, keys, 1, &events, (flags & 0x10) == 0);
	feed(c, i, (mg_input) {.type = MG_IN_SUBMIT,.slot = slot,.flags = flags & MG_ENTRY_FLAGS_ALL,
		 .last_seen = h->committed,.bytes = ws.data,.len = ws.len});
	mg_buf_free(&events);
	mg_buf_free(&ws);
	end_round(c, i);
}

static inline void
bootstrap(cluster *c, int i, bool force)
{
	feed(c, i, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = c->uuid,.up = force});
	end_round(c, i);
}

static inline void
join(cluster *c, int i, const char *seeds)
{
	feed(c, i, (mg_input) {.type = MG_IN_JOIN,.text = seeds});
	end_round(c, i);
}

/* The cluster went on without it: as another member it may come back. */
static inline void
renew(cluster *c, int i)
{
	stop(c, i);
	start(c, i);
	join(c, i, "h:0,h:1,h:2");
}

/* `arbitrator`: the last one is. */
static inline cluster *
cluster_new(int n, bool arbitrator)
{
	cluster    *c = mg_alloc(sizeof(*c));

	c->n = n;
	c->now = 1000000;
	memset(c->uuid.bytes, 7, sizeof(c->uuid.bytes));
	for (int i = 0; i < n; i++)
	{
		mg_node_config *config = &c->h[i].config;

		config->role = arbitrator && i == n - 1 ? MG_ROLE_ARBITRATOR : MG_ROLE_DATA;
		snprintf(config->name, sizeof(config->name), "n%d", i);
		snprintf(config->cluster_name, sizeof(config->cluster_name), "fuzz");
		snprintf(config->address, sizeof(config->address), "h:%d", i);
		config->weight = 1;
		config->keepalive_us = 100000;
		config->suspect_us = 1000000;
		config->inactive_us = 3000000;
		config->resend_us = 100000;
		config->fetch_us = 10000;
		config->join_timeout_us = 20000000;
		config->fc_limit = 64;
		start(c, i);
	}
	return c;
}

/* All but the first join it. */
static inline void
cluster_form(cluster *c)
{
	bootstrap(c, 0, false);
	run(c, 2);
	for (int i = 1; i < c->n; i++)
	{
		join(c, i, "h:0");
		for (int k = 0; k < 100 && mg_node_get_state(c->h[i].node) != MG_STATE_SYNCED; k++)
			run(c, 1);
	}
}

static inline void
cluster_free(cluster *c)
{
	for (int i = 0; i < c->n; i++)
	{
		host	   *h = &c->h[i];

		if (h->node != NULL)
			stop(c, i);
		mg_effects_free(&h->fx);
		log_cut(h, 0);
		mg_free(h->log);
		bytes_free(&h->saved);
	}
	while (c->n_flight > 0)
		bytes_free(&c->flight[--c->n_flight].frame);
	mg_free(c);
}

#endif							/* MG_TEST_FUZZ_CLUSTER_H */
