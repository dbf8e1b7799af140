/*
 * A cluster of cores in one process: the network delays, reorders between
 * links and drops frames; logs flush late; every choice comes from one seed.
 *
 * Checked at every delivery: one order (the same entry at the same seqno on
 * every node), the same verdict everywhere, no gap; and at the end that every
 * submission got its outcome and that all nodes stand at the same place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/group/group.h"
#include "core/node.h"
#include "core/writeset.h"

#define NODES		4
#define SEQNOS_MAX	20000
#define SLOTS		8
#define FRAMES_MAX	4096

typedef struct flying
{
	int			from,
				to;
	int64_t		at_us;
	uint64_t	order;			/* keeps a link's frames in order */
	uint8_t    *bytes;
	size_t		len;
} flying;

typedef struct place
{
	uint8_t    *bytes;
	size_t		len;
} place;

typedef struct host
{
	mg_node    *node;
	mg_effects	fx;
	char		address[32];
	int			connected[MG_PEERS_MAX];	/* peer slot -> host index, -1 none */
	place		log[SEQNOS_MAX];
	mg_seqno	log_first,
				log_last,
				flushed;
	mg_seqno	delivered;
	mg_seqno	committed;
	bool		busy[SLOTS];
	mg_seqno	seen[SLOTS];
	int			passed,
				failed,
				unknown,
				submitted;
	int			answers_ok,
				answers_failed;
	char		answer[256];
	bool		evicted;
	int			snapshots;		/* told that it needs one ... */
	bool		nothing_lost;	/* ... and that nothing of the cluster is lost by that */
	bool		slow;			/* commits one seqno in a while */
	int			role;
	uint32_t	weight;			/* 0: 1 */
	uint32_t	generation;		/* of the log */
	uint8_t	   *saved;			/* the node's durable state */
	size_t		saved_len;
	uint64_t	next_trx;
	bool		cut;			/* no frame reaches it or leaves it */
} host;

typedef struct world
{
	host		h[NODES];
	int			n;
	int64_t		now;
	uint32_t	fc_limit;
	int64_t		fetch_us;
	uint64_t	rng;
	uint64_t	orders;
	flying		frames[FRAMES_MAX];
	int			n_frames;
	int			drop_percent;
	mg_seqno	n_agreed;
	uint64_t	agreed[SEQNOS_MAX]; /* hash of entry and verdict by seqno */
	mg_uuid		uuid;
} world;

static uint64_t
chance(world *w, uint64_t n)
{
	w->rng += UINT64_C(0x9e3779b97f4a7c15);
	return mg_mix64(w->rng) % n;
}

static void run_effects(world *w, int i);
static void join(world *w, int i, const char *seeds);

static void
feed(world *w, int i, mg_input *in)
{
	in->now_us = w->now;
	mg_node_step(w->h[i].node, in, &w->h[i].fx);
}

static void
world_send(world *w, int from, uint32_t mask, const uint8_t *bytes, size_t len)
{
	for (int p = 0; p < MG_PEERS_MAX; p++)
	{
		flying	   *f;
		int			to = w->h[from].connected[p];

		if ((mask & (UINT32_C(1) << p)) == 0 || to < 0)
			continue;
		if (w->h[from].cut || w->h[to].cut || (int) chance(w, 100) < w->drop_percent)
			continue;
		assert_true(w->n_frames < FRAMES_MAX);
		f = &w->frames[w->n_frames++];
		f->from = from;
		f->to = to;
		f->at_us = w->now + 50 + (int64_t) chance(w, 2000);
		f->order = w->orders++;
		f->bytes = malloc(len);
		memcpy(f->bytes, bytes, len);
		f->len = len;
		/* A link keeps its order. */
		for (int k = 0; k < w->n_frames - 1; k++)
			if (w->frames[k].from == from && w->frames[k].to == to && w->frames[k].at_us >= f->at_us)
				f->at_us = w->frames[k].at_us + 1;
	}
}

static void
agree(world *w, int i, const mg_effect *e)
{
	host	   *h = &w->h[i];
	uint64_t	hash = mg_crc32c(0, h->log[e->seqno].bytes, h->log[e->seqno].len);

	hash = mg_mix64(hash * 31 + (uint64_t) e->verdict * 7 + (e->kind == MG_DELIVER_SKIP));
	assert_int_equal(e->seqno, h->delivered + 1);
	h->delivered = e->seqno;
	if (e->seqno > w->n_agreed)
	{
		w->n_agreed = e->seqno;
		w->agreed[e->seqno] = hash;
	}
	else if (w->agreed[e->seqno] != 0)
		assert_true(w->agreed[e->seqno] == hash);
}

static void
run_effects(world *w, int i)
{
	host	   *h = &w->h[i];

	while (h->fx.n > 0)
	{
		mg_effects	done = h->fx;

		memset(&h->fx, 0, sizeof(h->fx));
		for (size_t k = 0; k < done.n; k++)
		{
			mg_effect  *e = &done.list[k];
			uint8_t    *at = done.bytes.data + e->at;

			switch (e->type)
			{
				case MG_FX_CONNECT:
					h->connected[e->peer] = -1;
					for (int t = 0; t < w->n; t++)
						if (strcmp(w->h[t].address, (char *) at) == 0)
							h->connected[e->peer] = t;
					break;
				case MG_FX_DISCONNECT:
					h->connected[e->peer] = -1;
					break;
				case MG_FX_SEND:
					world_send(w, i, e->peers, at, e->len);
					break;
				case MG_FX_APPEND:
					if (h->log_last == 0)
						h->log_first = e->seqno;
					else
						assert_int_equal(e->seqno, h->log_last + 1);
					assert_true(e->seqno < SEQNOS_MAX);
					free(h->log[e->seqno].bytes);
					h->log[e->seqno].bytes = malloc(e->len);
					memcpy(h->log[e->seqno].bytes, at, e->len);
					h->log[e->seqno].len = e->len;
					h->log_last = e->seqno;
					break;
				case MG_FX_SAVE:
					free(h->saved);
					h->saved = malloc(e->len);
					memcpy(h->saved, at, e->len);
					h->saved_len = e->len;
					break;
				case MG_FX_TRUNCATE:
					assert_true(e->seqno >= h->delivered);
					h->log_last = e->seqno;
					if (h->flushed > e->seqno)
						h->flushed = e->seqno;
					h->generation = e->generation;
					break;
				case MG_FX_RESET_LOG:
					h->log_first = h->log_last = h->flushed = 0;
					h->generation = e->generation;
					break;
				case MG_FX_READ_LOG:
					for (mg_seqno s = e->seqno; s <= h->log_last && s < e->seqno + 20; s++)
					{
						mg_input	in = {.type = MG_IN_LOG_READ,.peer = e->peer,.seqno = s,.generation = h->generation};

						in.bytes = h->log[s].bytes;
						in.len = h->log[s].len;
						feed(w, i, &in);
					}
					feed(w, i, &(mg_input) {.type = MG_IN_ROUND_END});
					break;
				case MG_FX_DELIVER:
					agree(w, i, e);
					if (e->kind == MG_DELIVER_LOCAL)
					{
						assert_true(h->busy[e->slot]);
						h->busy[e->slot] = false;
						h->passed++;
					}
					break;
				case MG_FX_VERDICT:
					assert_true(h->busy[e->slot]);
					h->busy[e->slot] = false;
					h->failed++;
					break;
				case MG_FX_UNKNOWN:
					assert_true(h->busy[e->slot]);
					h->busy[e->slot] = false;
					h->unknown++;
					break;
				case MG_FX_REFUSED:
					h->busy[e->slot] = false;
					h->submitted--;
					break;
				case MG_FX_ANSWER:
					if (e->ok)
						h->answers_ok++;
					else
						h->answers_failed++;
					snprintf(h->answer, sizeof(h->answer), "%s", (char *) at);
					break;
				case MG_FX_EVICTED:
					h->evicted = true;
					break;
				case MG_FX_SNAPSHOT:
					h->snapshots++;
					h->nothing_lost = e->ok;
					snprintf(h->answer, sizeof(h->answer), "%s", (char *) at);
					break;
				case MG_FX_LOG:
					if (getenv("MG_TRACE"))
						fprintf(stderr, "%8lld n%d %s\n", (long long) w->now, i, (char *) at);
					break;
				case MG_FX_STATE:
				case MG_FX_NONE:
					break;
			}
		}
		mg_effects_free(&done);
	}
	mg_effects_free(&h->fx);
}

static void
node_start(world *w, int i, mg_seqno position, bool belongs)
{
	mg_node_config c;
	mg_gtid		p;
	host	   *h = &w->h[i];

	memset(&c, 0, sizeof(c));
	memset(&p, 0, sizeof(p));
	snprintf(c.name, sizeof(c.name), "n%d", i);
	snprintf(c.cluster_name, sizeof(c.cluster_name), "test");
	snprintf(c.address, sizeof(c.address), "%s", h->address);
	c.incarnation = chance(w, UINT64_MAX) | 1;
	c.weight = h->weight != 0 ? h->weight : 1;
	c.role = h->role;
	c.keepalive_us = 100000;
	c.suspect_us = 1000000;
	c.resend_us = 100000;
	c.fetch_us = w->fetch_us;
	c.join_timeout_us = 20000000;
	c.fc_limit = w->fc_limit;
	snprintf(c.sql_address, sizeof(c.sql_address), "sql:%d", i);
	if (belongs)
		p.uuid = w->uuid;
	p.seqno = position;
	if (h->node != NULL)
		mg_node_free(h->node);
	for (int k = 0; k < MG_PEERS_MAX; k++)
		h->connected[k] = -1;
	h->node = mg_node_new(&c, &p, w->now);
	h->delivered = h->committed = position;
	h->generation = 0;
	h->evicted = false;
	memset(h->busy, 0, sizeof(h->busy));
}

static world *
world_new(int n, uint64_t seed)
{
	world	   *w = calloc(1, sizeof(world));

	w->n = n;
	w->rng = seed;
	w->now = 1000000;
	w->fc_limit = 4096;
	w->fetch_us = 10000;
	memset(w->uuid.bytes, 7, 16);
	for (int i = 0; i < n; i++)
	{
		snprintf(w->h[i].address, sizeof(w->h[i].address), "host:%d", 100 + i);
		node_start(w, i, 0, true);
	}
	return w;
}

static void
world_free(world *w)
{
	for (int i = 0; i < w->n; i++)
	{
		mg_node_free(w->h[i].node);
		mg_effects_free(&w->h[i].fx);
		free(w->h[i].saved);
		for (int s = 0; s < SEQNOS_MAX; s++)
			free(w->h[i].log[s].bytes);
	}
	for (int f = 0; f < w->n_frames; f++)
		free(w->frames[f].bytes);
	free(w);
}

/* A writeset of one to three keys out of `keys`. */
static void
submit(world *w, int i, int slot, uint64_t keys)
{
	host	   *h = &w->h[i];
	uint8_t		bytes[MG_WRITESET_HEADER_BYTES + 3 * 8 + MG_EVENT_HEADER_BYTES];
	mg_key		k[3];
	uint32_t	n = 1 + (uint32_t) chance(w, 3);
	mg_writeset_header hd;
	uint32_t	crc;
	mg_input	in = {.type = MG_IN_SUBMIT,.slot = slot};

	memset(&hd, 0, sizeof(hd));
	for (uint32_t j = 0; j < n; j++)
		k[j] = mg_key_make(mg_mix64(1 + chance(w, keys)) << 2, (mg_key_strength) chance(w, 4));
	mg_keys_normalize(k, &n);
	hd.last_seen = h->committed;
	hd.trx_id = ++h->next_trx;
	hd.n_keys = n;
	hd.n_events = 1;
	hd.events_len = MG_EVENT_HEADER_BYTES;
	for (uint32_t j = 0; j < n; j++)
		mg_store_u64(bytes + MG_WRITESET_HEADER_BYTES + j * 8, k[j]);
	bytes[MG_WRITESET_HEADER_BYTES + n * 8] = MG_EVENT_MESSAGE;
	mg_store_u32(bytes + MG_WRITESET_HEADER_BYTES + n * 8 + 1, 0);
	crc = mg_writeset_crc_begin(&hd);
	crc = mg_crc32c(crc, bytes + MG_WRITESET_HEADER_BYTES, n * 8 + MG_EVENT_HEADER_BYTES);
	mg_writeset_header_encode(&hd, crc, bytes);
	in.bytes = bytes;
	in.len = hd.total_len ? hd.total_len : MG_WRITESET_HEADER_BYTES + n * 8 + MG_EVENT_HEADER_BYTES;
	in.last_seen = hd.last_seen;
	h->busy[slot] = true;
	h->submitted++;
	feed(w, i, &in);
}

/* One step of time for everybody. */
static void
world_step(world *w, uint64_t keys, int load_percent)
{
	w->now += 500;
	for (;;)
	{
		int			best = -1;

		for (int f = 0; f < w->n_frames; f++)
			if (w->frames[f].at_us <= w->now && (best < 0 || w->frames[f].at_us < w->frames[best].at_us))
				best = f;
		if (best < 0)
			break;

		flying		f = w->frames[best];
		mg_input	in = {.type = MG_IN_RECEIVE};

		w->frames[best] = w->frames[--w->n_frames];
		in.bytes = f.bytes;
		in.len = f.len;
		feed(w, f.to, &in);
		feed(w, f.to, &(mg_input) {.type = MG_IN_ROUND_END});
		run_effects(w, f.to);
		free(f.bytes);
	}
	for (int i = 0; i < w->n; i++)
	{
		host	   *h = &w->h[i];

		if (chance(w, h->slow ? 20 : 3) == 0 && h->committed < h->delivered)
			h->committed += h->slow ? 1 : 1 + chance(w, h->delivered - h->committed);
		feed(w, i, &(mg_input) {.type = MG_IN_COMMITTED,.seqno = h->committed});
		if (chance(w, 2) == 0 && h->log_last > h->flushed)
		{
			h->flushed = h->log_last;
			feed(w, i, &(mg_input) {.type = MG_IN_FLUSHED,.seqno = h->flushed,.generation = h->generation});
		}
		feed(w, i, &(mg_input) {.type = MG_IN_TICK});
		if (mg_state_is_synced(mg_node_get_state(h->node)))
			for (int s = 0; s < SLOTS; s++)
				if (!h->busy[s] && (int) chance(w, 100) < load_percent)
					submit(w, i, s, keys);
		feed(w, i, &(mg_input) {.type = MG_IN_ROUND_END});
		run_effects(w, i);
	}
}

static bool
all_synced(world *w, int n)
{
	for (int i = 0; i < n; i++)
		if (mg_node_get_state(w->h[i].node) != MG_STATE_SYNCED)
			return false;
	return true;
}

static void
bootstrap(world *w, int i)
{
	mg_input	in = {.type = MG_IN_BOOTSTRAP};

	in.uuid = w->uuid;
	feed(w, i, &in);
	feed(w, i, &(mg_input) {.type = MG_IN_ROUND_END});
	run_effects(w, i);
	for (int k = 0; k < 1000 && !all_synced(w, 1); k++)
		world_step(w, 10, 0);
	assert_int_equal(mg_node_get_state(w->h[i].node), MG_STATE_SYNCED);
}

static void
join(world *w, int i, const char *seeds)
{
	mg_input	in = {.type = MG_IN_JOIN};

	in.text = seeds;
	feed(w, i, &in);
	feed(w, i, &(mg_input) {.type = MG_IN_ROUND_END});
	run_effects(w, i);
}

static void
join_and_wait(world *w, int i, uint64_t keys, int load)
{
	join(w, i, "host:100,host:101,host:102");
	for (int k = 0; k < 40000 && mg_node_get_state(w->h[i].node) != MG_STATE_SYNCED; k++)
		world_step(w, keys, load);
	assert_int_equal(mg_node_get_state(w->h[i].node), MG_STATE_SYNCED);
}

/* What a host does with a node that the cluster went on without: a new one, from where the data stands. */
static void
revive_evicted(world *w)
{
	for (int i = 0; i < w->n; i++)
		if (w->h[i].evicted)
		{
			for (int s = 0; s < SLOTS; s++)
				if (w->h[i].busy[s])
					w->h[i].unknown++;
			node_start(w, i, w->h[i].delivered, true);
			join(w, i, "host:100,host:101,host:102");
		}
}

/* No more load: everything gets its outcome and all stand at the same place. */
static void
settle(world *w, int n)
{
	w->drop_percent = 0;
	for (int k = 0; k < 40000; k++)
	{
		bool		done = true;

		world_step(w, 10, 0);
		revive_evicted(w);
		for (int i = 0; i < n; i++)
		{
			for (int s = 0; s < SLOTS; s++)
				done = done && !w->h[i].busy[s];
			done = done && w->h[i].delivered == w->h[0].delivered && w->h[i].committed == w->h[i].delivered &&
				mg_node_ordered(w->h[i].node) == w->h[0].delivered;
		}
		if (done)
			return;
	}
	for (int i = 0; i < n; i++)
	{
		print_message("n%d %s delivered %llu committed %llu held %llu ordered %llu flushed %llu busy", i,
					  mg_node_state_name(mg_node_get_state(w->h[i].node)), (unsigned long long) w->h[i].delivered,
					  (unsigned long long) w->h[i].committed, (unsigned long long) mg_node_held(w->h[i].node),
					  (unsigned long long) mg_node_ordered(w->h[i].node), (unsigned long long) w->h[i].flushed);
		for (int s = 0; s < SLOTS; s++)
			print_message(" %d", w->h[i].busy[s]);
		print_message("\n");
	}
	fail_msg("not everything was delivered");
}

static uint64_t
seed_of_run(void)
{
	const char *env = getenv("MG_SEED");
	uint64_t	seed = env ? strtoull(env, NULL, 10) : 20260801;

	print_message("seed %llu\n", (unsigned long long) seed);
	return seed;
}

static void
three_nodes_deliver_one_order_with_the_same_verdicts(void **state)
{
	uint64_t	seed = seed_of_run();

	(void) state;
	for (int run = 0; run < 8; run++)
	{
		world	   *w = world_new(3, seed + (uint64_t) run);
		int			passed = 0,
					failed = 0;

		bootstrap(w, 0);
		join_and_wait(w, 1, 50, 20);
		join_and_wait(w, 2, 50, 20);
		for (int k = 0; k < 600; k++)
			world_step(w, run % 2 ? 20 : 5000, 30);
		settle(w, 3);
		for (int i = 0; i < 3; i++)
		{
			assert_int_equal(w->h[i].passed + w->h[i].failed, w->h[i].submitted);
			passed += w->h[i].passed;
			failed += w->h[i].failed;
		}
		assert_true(passed > 500);
		if (run % 2)
			assert_true(failed > 10);
		world_free(w);
	}
}

static void
lost_frames_only_delay(void **state)
{
	uint64_t	seed = seed_of_run() + 1000;

	(void) state;
	for (int run = 0; run < 8; run++)
	{
		world	   *w = world_new(3, seed + (uint64_t) run);

		bootstrap(w, 0);
		w->drop_percent = 10;
		join_and_wait(w, 1, 50, 10);
		join_and_wait(w, 2, 50, 10);
		for (int k = 0; k < 800; k++)
			world_step(w, 30, 20);
		settle(w, 3);
		for (int i = 0; i < 3; i++)
			assert_int_equal(w->h[i].passed + w->h[i].failed, w->h[i].submitted);
		world_free(w);
	}
}

static void
a_late_joiner_reaches_the_same_verdicts(void **state)
{
	uint64_t	seed = seed_of_run() + 2000;

	(void) state;
	for (int run = 0; run < 8; run++)
	{
		world	   *w = world_new(4, seed + (uint64_t) run);

		bootstrap(w, 0);
		join_and_wait(w, 1, 20, 20);
		join_and_wait(w, 2, 20, 20);
		for (int k = 0; k < 300; k++)
			world_step(w, 20, 30);

		/* From a copy of node 1's data, taken in the middle of the load. */
		node_start(w, 3, w->h[1].committed, true);
		for (int k = 0; k < 100; k++)
			world_step(w, 20, 30);
		join_and_wait(w, 3, 20, 30);
		for (int k = 0; k < 300; k++)
			world_step(w, 20, 30);
		settle(w, 4);
		assert_true(w->h[3].passed > 10);
		world_free(w);
	}
}

static void
leave_and_join_again_keeps_one_order(void **state)
{
	world	   *w = world_new(3, seed_of_run() + 3000);

	(void) state;
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 10);
	join_and_wait(w, 2, 50, 10);
	for (int leaver = 0; leaver < 3; leaver++)
	{
		for (int k = 0; k < 200; k++)
			world_step(w, 50, 20);
		feed(w, leaver, &(mg_input) {.type = MG_IN_LEAVE});
		for (int k = 0; k < 20000 && mg_node_get_state(w->h[leaver].node) != MG_STATE_OPEN; k++)
			world_step(w, 50, 20);
		assert_int_equal(mg_node_get_state(w->h[leaver].node), MG_STATE_OPEN);
		for (int k = 0; k < 200; k++)
			world_step(w, 50, 20);
		node_start(w, leaver, w->h[leaver].delivered, true);
		join_and_wait(w, leaver, 50, 20);
	}
	settle(w, 3);
	world_free(w);
}

static void
a_silent_follower_is_removed_and_comes_back(void **state)
{
	world	   *w = world_new(3, seed_of_run() + 4000);
	mg_seqno	before;

	(void) state;
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 10);
	join_and_wait(w, 2, 50, 10);
	for (int k = 0; k < 200; k++)
		world_step(w, 50, 20);
	w->h[2].cut = true;
	for (int k = 0; k < 14000; k++)
		world_step(w, 50, 5);
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_NON_PRIMARY);
	before = w->h[0].delivered;
	for (int k = 0; k < 100; k++)
		world_step(w, 50, 20);
	assert_true(w->h[0].delivered > before);
	w->h[2].cut = false;
	for (int k = 0; k < 4000 && !w->h[2].evicted; k++)
		world_step(w, 50, 5);
	assert_true(w->h[2].evicted);
	node_start(w, 2, w->h[2].delivered, true);
	join_and_wait(w, 2, 50, 10);
	settle(w, 3);
	world_free(w);
}

static void
minority_delivers_nothing(void **state)
{
	world	   *w = world_new(3, seed_of_run() + 5000);
	mg_seqno	before;

	(void) state;
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 10);
	join_and_wait(w, 2, 50, 10);
	settle(w, 3);
	w->h[1].cut = w->h[2].cut = true;
	before = w->h[0].delivered;
	for (int k = 0; k < 5000; k++)
		world_step(w, 50, 20);
	assert_int_equal(w->h[0].delivered, before);
	assert_int_equal(mg_node_get_state(w->h[0].node), MG_STATE_NON_PRIMARY);
	assert_int_equal(mg_node_view(w->h[0].node)->n, 3);
	w->h[1].cut = w->h[2].cut = false;
	for (int k = 0; k < 20000 && !all_synced(w, 3); k++)
	{
		world_step(w, 50, 5);
		revive_evicted(w);
	}
	assert_true(all_synced(w, 3));
	settle(w, 3);
	world_free(w);
}

static void
admission_is_refused_with_a_reason(void **state)
{
	world	   *w = world_new(4, seed_of_run() + 6000);

	(void) state;
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 10);

	/* No address of anybody. */
	join(w, 2, "nonsense");
	assert_int_equal(w->h[2].answers_failed, 1);

	/* Data of no cluster. */
	node_start(w, 2, 0, false);
	join(w, 2, "host:100");
	for (int k = 0; k < 5000 && w->h[2].snapshots < 1; k++)
		world_step(w, 10, 0);
	assert_non_null(strstr(w->h[2].answer, "does not belong to any cluster"));
	assert_true(w->h[2].nothing_lost);
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_JOINER);
	assert_int_equal(mg_node_offer(w->h[2].node)->n, 2);
	assert_string_equal(mg_node_offer(w->h[2].node)->members[0].sql_address, "sql:0");
	assert_string_equal(mg_node_offer(w->h[2].node)->members[1].sql_address, "sql:1");

	/* Ahead of the cluster. */
	node_start(w, 2, 15000, true);
	join(w, 2, "host:101");
	for (int k = 0; k < 5000 && w->h[2].snapshots < 2; k++)
		world_step(w, 10, 0);
	assert_non_null(strstr(w->h[2].answer, "ahead of the cluster"));
	assert_false(w->h[2].nothing_lost);

	/* What it has would do, but it wants a snapshot. */
	node_start(w, 2, 0, true);
	feed(w, 2, &(mg_input) {.type = MG_IN_JOIN,.text = "host:101",.up = true});
	for (int k = 0; k < 5000 && w->h[2].snapshots < 3; k++)
		world_step(w, 10, 0);
	assert_int_equal(w->h[2].snapshots, 3);
	assert_true(w->h[2].nothing_lost);

	/* Until it is told otherwise it is silent. */
	feed(w, 2, &(mg_input) {.type = MG_IN_LEAVE});
	run_effects(w, 2);
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_OPEN);

	/* Nobody there. */
	node_start(w, 2, 0, true);
	join(w, 2, "host:999");
	for (int k = 0; k < 60000 && w->h[2].answers_failed < 3; k++)
		world_step(w, 10, 0);
	assert_non_null(strstr(w->h[2].answer, "no member"));
	assert_int_equal(mg_node_view(w->h[0].node)->n, 2);
	world_free(w);
}

static void
damaged_frames_are_refused_and_counted(void **state)
{
	world	   *w = world_new(1, seed_of_run() + 7000);
	uint8_t		garbage[300];
	mg_buf		frame = {0};
	mg_frame_header fh = {.incarnation = 99};
	uint64_t	damaged;

	(void) state;
	bootstrap(w, 0);
	for (int k = 0; k < 2000; k++)
	{
		mg_input	in = {.type = MG_IN_RECEIVE};

		for (size_t b = 0; b < sizeof(garbage); b++)
			garbage[b] = (uint8_t) chance(w, 256);
		if (k % 2)
			mg_store_u32(garbage, MG_FRAME_MAGIC);
		in.bytes = garbage;
		in.len = chance(w, sizeof(garbage));
		feed(w, 0, &in);
	}
	run_effects(w, 0);
	assert_int_equal(mg_node_damaged(w->h[0].node), 2000);

	/* A frame that is whole, with every kind of message made of noise. */
	for (int k = 0; k < 20000; k++)
	{
		mg_input	in = {.type = MG_IN_RECEIVE};
		size_t		mark;
		size_t		len = chance(w, 200);

		mg_buf_reset(&frame);
		mg_frame_begin(&frame, &fh);
		mark = mg_msg_begin(&frame, (mg_msg_type) (1 + chance(w, MG_MSG_TYPE_COUNT - 1)));
		for (size_t b = 0; b < len; b++)
			mg_buf_put_u8(&frame, (uint8_t) chance(w, 256));
		mg_msg_end(&frame, mark);
		mg_frame_end(&frame);
		in.bytes = frame.data;
		in.len = frame.len;
		feed(w, 0, &in);
	}
	run_effects(w, 0);
	damaged = mg_node_damaged(w->h[0].node);
	assert_true(damaged > 2000);
	assert_int_equal(mg_node_get_state(w->h[0].node), MG_STATE_SYNCED);
	mg_buf_free(&frame);
	world_free(w);
}

/* The process ends and starts again: log and saved state are still there. */
static void
restart(world *w, int i)
{
	host	   *h = &w->h[i];
	mg_input	in = {.type = MG_IN_RESTORE};

	node_start(w, i, h->committed, true);
	h->delivered = h->committed;
	in.bytes = h->saved;
	in.len = h->saved_len;
	feed(w, i, &in);
	for (mg_seqno s = h->log_first; s != 0 && s <= h->log_last; s++)
	{
		in = (mg_input) {.type = MG_IN_RECOVER,.seqno = s};
		in.bytes = h->log[s].bytes;
		in.len = h->log[s].len;
		feed(w, i, &in);
	}
	feed(w, i, &(mg_input) {.type = MG_IN_START,.up = true});
	run_effects(w, i);
}

static world *
three_members(uint64_t seed)
{
	world	   *w = world_new(3, seed);

	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 10);
	join_and_wait(w, 2, 50, 10);
	for (int k = 0; k < 200; k++)
		world_step(w, 50, 20);
	return w;
}

static void
another_member_leads_when_the_leader_is_silent(void **state)
{
	world	   *w = three_members(seed_of_run() + 10000);
	mg_seqno	before;
	uint64_t	epoch = mg_node_epoch(w->h[1].node);

	(void) state;
	w->h[0].cut = true;
	for (int k = 0; k < 6000; k++)
		world_step(w, 50, 5);
	assert_true(mg_node_epoch(w->h[1].node) > epoch);
	assert_int_equal(mg_node_epoch(w->h[1].node), mg_node_epoch(w->h[2].node));
	assert_int_equal(mg_node_get_state(w->h[1].node), MG_STATE_SYNCED);
	assert_int_equal(mg_node_get_state(w->h[0].node), MG_STATE_NON_PRIMARY);
	before = w->h[1].delivered;
	for (int k = 0; k < 200; k++)
		world_step(w, 50, 20);
	assert_true(w->h[1].delivered > before);
	w->h[0].cut = false;
	for (int k = 0; k < 20000 && !all_synced(w, 3); k++)
	{
		world_step(w, 50, 5);
		revive_evicted(w);
	}
	assert_true(all_synced(w, 3));
	settle(w, 3);
	world_free(w);
}

static void
all_restarted_form_the_cluster_by_themselves(void **state)
{
	world	   *w = three_members(seed_of_run() + 11000);
	mg_seqno	before;

	(void) state;
	for (int round = 0; round < 5; round++)
	{
		before = w->n_agreed;
		for (int i = 0; i < 3; i++)
			restart(w, (round + i) % 3);
		for (int k = 0; k < 20000 && !all_synced(w, 3); k++)
			world_step(w, 50, 5);
		assert_true(all_synced(w, 3));
		for (int k = 0; k < 200; k++)
			world_step(w, 50, 20);
		assert_true(w->n_agreed > before);
		assert_int_equal(mg_node_view(w->h[0].node)->n, 3);
	}
	settle(w, 3);
	world_free(w);
}

/* Durability memory and the power went: who knows what was delivered does not help those to lead who lack it. */
static void
who_holds_more_in_its_data_votes_for_nobody_behind_it(void **state)
{
	world	   *w = three_members(seed_of_run() + 13000);

	(void) state;
	settle(w, 3);
	assert_true(w->n_agreed > 10);
	w->h[0].cut = true;
	w->h[2].log_last = w->h[2].flushed = w->n_agreed - 3;
	w->h[1].log_last = w->h[1].flushed = w->n_agreed - 2;
	w->h[1].committed = w->n_agreed - 2;
	restart(w, 1);
	restart(w, 2);
	for (int k = 0; k < 10000; k++)
		world_step(w, 50, 0);
	assert_int_equal(mg_node_get_state(w->h[1].node), MG_STATE_NON_PRIMARY);
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_NON_PRIMARY);
	w->h[0].cut = false;
	for (int k = 0; k < 20000 && !all_synced(w, 3); k++)
		world_step(w, 50, 0);
	assert_true(all_synced(w, 3));
	settle(w, 3);
	world_free(w);
}

/* Others have heard a later life of the member: it is told, and comes in as somebody new. */
static void
a_member_from_an_old_copy_of_its_disk_joins_as_a_new_one(void **state)
{
	world	   *w = three_members(seed_of_run() + 14000);
	host	   *h = &w->h[2];
	mg_member_id was = mg_node_self(h->node);
	uint8_t		old[4096];
	size_t		old_len = h->saved_len;
	mg_seqno	old_last = h->log_last;
	mg_seqno	old_committed = h->committed;

	(void) state;
	assert_true(old_len <= sizeof(old));
	memcpy(old, h->saved, old_len);
	restart(w, 2);
	for (int k = 0; k < 20000 && !all_synced(w, 3); k++)
		world_step(w, 50, 5);
	for (int k = 0; k < 500; k++)
		world_step(w, 50, 20);
	assert_true(all_synced(w, 3));
	assert_true(h->committed > old_committed);

	for (int s = 0; s < SLOTS; s++)
		if (h->busy[s])
			h->unknown++;
	free(h->saved);
	h->saved = malloc(old_len);
	memcpy(h->saved, old, old_len);
	h->saved_len = old_len;
	h->log_last = h->flushed = old_last;
	h->committed = old_committed;
	restart(w, 2);
	for (int k = 0; k < 20000 && !h->evicted; k++)
		world_step(w, 50, 5);
	assert_true(h->evicted);
	assert_non_null(strstr(mg_node_reason(h->node), "later life"));
	for (int k = 0; k < 20000 && !all_synced(w, 3); k++)
	{
		world_step(w, 50, 5);
		revive_evicted(w);
	}
	assert_true(all_synced(w, 3));
	assert_int_not_equal(mg_node_self(h->node), was);
	settle(w, 3);
	world_free(w);
}

/* A node that asks again and again, each time as another process, takes nobody's place. */
static void
who_asks_often_does_not_crowd_members_out(void **state)
{
	world	   *w = world_new(4, seed_of_run() + 15000);

	(void) state;
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 0);
	join_and_wait(w, 2, 50, 0);
	for (int k = 0; k < 2 * MG_PEERS_MAX; k++)
	{
		node_start(w, 3, 0, false);
		join(w, 3, "host:101");
		for (int s = 0; s < 20; s++)
			world_step(w, 50, 0);
	}
	node_start(w, 3, 0, true);
	join(w, 3, "host:100");
	for (int k = 0; k < 40000 && !all_synced(w, 4); k++)
		world_step(w, 50, 0);
	settle(w, 4);
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++)
		{
			mg_peer_info info;

			assert_true(mg_node_peer_info(w->h[i].node, mg_node_self(w->h[j].node), &info));
		}
	world_free(w);
}

/* The table of states as a picture: what changes it must change this test too. */
static void
states_change_only_as_the_table_says(void **state)
{
	/* to:           OPEN PRIMARY JOINER JOINED SYNCED DONOR NON_PRIMARY INCONSISTENT */
	static const char *const table[MG_STATE_COUNT] = {
		[MG_STATE_OPEN] = ".x.x..xx",
		[MG_STATE_PRIMARY] = "x.xx....",
		[MG_STATE_JOINER] = "x..x...x",
		[MG_STATE_JOINED] = "x...xxxx",
		[MG_STATE_SYNCED] = "x....xxx",
		[MG_STATE_DONOR] = "x...x.xx",
		[MG_STATE_NON_PRIMARY] = "x..xxx.x",
		[MG_STATE_INCONSISTENT] = "x.......",
	};
	static const char *const names[MG_STATE_COUNT] = {
		"OPEN", "PRIMARY", "JOINER", "JOINED", "SYNCED", "DONOR", "NON_PRIMARY", "INCONSISTENT"
	};

	(void) state;
	for (int from = 0; from < MG_STATE_COUNT; from++)
	{
		assert_string_equal(mg_node_state_name(from), names[from]);
		for (int to = 0; to < MG_STATE_COUNT; to++)
			assert_int_equal(mg_node_may_shift(from, to), table[from][to] == 'x');
	}
}

static void
flow_control_waits_for_a_slow_member_but_not_for_a_desynced_one(void **state)
{
	world	   *w = world_new(3, seed_of_run() + 12000);
	mg_seqno	behind = 0;

	(void) state;
	w->fc_limit = 32;
	for (int i = 0; i < 3; i++)
		node_start(w, i, 0, true);
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 0);
	join_and_wait(w, 2, 50, 0);
	w->h[2].slow = true;
	for (int k = 0; k < 1000; k++)
	{
		world_step(w, 1000000, 20);
		if (w->h[0].delivered > w->h[2].committed + behind)
			behind = w->h[0].delivered - w->h[2].committed;
	}
	assert_in_range(behind, 8, 34);
	feed(w, 2, &(mg_input) {.type = MG_IN_DESYNC,.up = true});
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_DONOR);
	for (int k = 0; k < 1000; k++)
		world_step(w, 1000000, 20);

	/* It gives somebody its data: all keep what that one will ask for. */
	assert_true(mg_node_log_needed(w->h[0].node) > 7);
	feed(w, 2, &(mg_input) {.type = MG_IN_DESYNC,.up = true,.seqno = 7});
	for (int k = 0; k < 100; k++)
		world_step(w, 1000000, 20);
	for (int i = 0; i < 3; i++)
		assert_int_equal(mg_node_log_needed(w->h[i].node), 7);
	feed(w, 2, &(mg_input) {.type = MG_IN_DESYNC,.up = true});
	for (int k = 0; k < 100; k++)
		world_step(w, 1000000, 20);
	assert_true(mg_node_log_needed(w->h[0].node) > 7);
	assert_true(w->h[0].delivered > w->h[2].committed + 100);
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_DONOR);
	w->h[2].slow = false;
	feed(w, 2, &(mg_input) {.type = MG_IN_DESYNC,.up = false});
	assert_int_equal(mg_node_get_state(w->h[2].node), MG_STATE_SYNCED);
	settle(w, 3);
	world_free(w);
}

/* An ORDER may arrive before what it orders: that is taken when it comes, without asking anybody. */
static void
payloads_that_come_after_their_order_find_their_entries(void **state)
{
	world	   *w = world_new(3, seed_of_run() + 13000);
	mg_seqno	held;

	(void) state;
	w->fetch_us = 100000000;
	for (int i = 0; i < 3; i++)
		node_start(w, i, 0, true);
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 0);
	join_and_wait(w, 2, 50, 0);
	settle(w, 3);
	held = mg_node_held(w->h[2].node);
	for (int k = 0; k < 600; k++)
	{
		/* What node 1 says to node 2 stays on its way. */
		for (int f = 0; f < w->n_frames; f++)
			if (w->frames[f].from == 1 && w->frames[f].to == 2)
				w->frames[f].at_us += 500;
		world_step(w, 1000000, 50);
	}
	assert_true(mg_node_ordered(w->h[2].node) > mg_node_held(w->h[2].node) + 100);
	assert_in_range(mg_node_held(w->h[2].node), held, held + SLOTS * 3);
	settle(w, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(w->h[i].passed + w->h[i].failed, w->h[i].submitted);
	world_free(w);
}

/* A node without a world: its effects are looked at by the test itself. */
typedef struct solo
{
	mg_node    *node;
	mg_effects	fx;
	mg_buf		saved;
	mg_buf		first;			/* the first entry that it appended */
	int64_t		now;
	int			snapshots;
} solo;

static void
solo_make(solo *s, mg_seqno position)
{
	mg_node_config c;
	mg_gtid		p = {.seqno = position};

	memset(&c, 0, sizeof(c));
	snprintf(c.name, sizeof(c.name), "solo");
	snprintf(c.cluster_name, sizeof(c.cluster_name), "test");
	snprintf(c.address, sizeof(c.address), "host:1");
	c.incarnation = 77;
	c.weight = 1;
	c.keepalive_us = 100000;
	c.suspect_us = 1000000;
	c.inactive_us = 5000000;
	c.resend_us = 100000;
	c.fetch_us = 10000;
	c.fc_limit = 4096;
	memset(p.uuid.bytes, 7, 16);
	mg_node_free(s->node);
	s->now += 1000000;
	s->node = mg_node_new(&c, &p, s->now);
}

static void
solo_step(solo *s, mg_input in)
{
	in.now_us = s->now;
	mg_node_step(s->node, &in, &s->fx);
	for (size_t k = 0; k < s->fx.n; k++)
	{
		const mg_effect *e = &s->fx.list[k];
		mg_buf	   *to = e->type == MG_FX_SAVE ? &s->saved : e->type == MG_FX_APPEND && s->first.len == 0 ? &s->first : NULL;

		s->snapshots += e->type == MG_FX_SNAPSHOT;
		if (to == NULL)
			continue;
		mg_buf_reset(to);
		mg_buf_put(to, s->fx.bytes.data + e->at, e->len);
	}
	mg_effects_reset(&s->fx);
}

static void
solo_free(solo *s)
{
	mg_node_free(s->node);
	mg_effects_free(&s->fx);
	mg_buf_free(&s->saved);
	mg_buf_free(&s->first);
}

static void
solo_recover(solo *s, mg_seqno seqno, uint64_t msgno, mg_seqno cert_upto)
{
	mg_entry_header h = {.type = MG_ENTRY_WRITESET,.origin = 1,.msgno = msgno,.epoch = 1,.cert_upto = cert_upto};
	mg_buf		entry = {0};

	mg_entry_encode(&entry, &h);
	mg_buf_put_u8(&entry, 0);	/* no writeset: fails everywhere */
	solo_step(s, (mg_input) {.type = MG_IN_RECOVER,.seqno = seqno,.bytes = entry.data,.len = entry.len});
	mg_buf_free(&entry);
}

static void
solo_frame(solo *s, mg_buf *frame)
{
	mg_frame_end(frame);
	solo_step(s, (mg_input) {.type = MG_IN_RECEIVE,.bytes = frame->data,.len = frame->len});
	solo_step(s, (mg_input) {.type = MG_IN_ROUND_END});
}

/* Who asks for admission takes nothing from a log that contradicts itself. */
static void
a_joiner_does_not_stumble_over_its_own_log(void **state)
{
	solo		s = {0};

	(void) state;
	solo_make(&s, 2);
	solo_recover(&s, 1, (UINT64_C(1) << MG_LIFE_SHIFT) + 1, 0);
	solo_recover(&s, 2, (UINT64_C(1) << MG_LIFE_SHIFT) + 2, 1);	/* says that 1 has passed */
	solo_step(&s, (mg_input) {.type = MG_IN_START});
	solo_step(&s, (mg_input) {.type = MG_IN_JOIN,.text = "host:2"});
	for (int k = 0; k < 300; k++)
	{
		s.now += 1000;
		solo_step(&s, (mg_input) {.type = MG_IN_TICK});
		solo_step(&s, (mg_input) {.type = MG_IN_ROUND_END});
	}
	assert_int_equal(mg_node_get_state(s.node), MG_STATE_PRIMARY);
	solo_free(&s);
}

static void
refuse(solo *s, uint64_t whom)
{
	mg_frame_header fh = {.incarnation = 5,.member = 1,.epoch = 1};
	mg_buf		frame = {0};
	mg_view		view = {.id = 1,.epoch = 1,.n = 1};
	size_t		mark;

	view.members[0].id = 1;
	mg_frame_begin(&frame, &fh);
	mark = mg_msg_begin(&frame, MG_MSG_REFUSE);
	mg_buf_put_text(&frame, "host:2");
	mg_buf_put_text(&frame, "too old");
	mg_buf_put_text(&frame, "rebuild it");
	mg_buf_put_u8(&frame, MG_REFUSED_TOO_OLD);
	mg_buf_put_u64(&frame, whom);
	mg_view_encode(&frame, &view);
	mg_msg_end(&frame, mark);
	solo_frame(s, &frame);
	mg_buf_free(&frame);
}

/* What was said to an earlier attempt, with other data, may arrive late. */
static void
a_refusal_of_an_earlier_attempt_is_not_taken(void **state)
{
	solo		s = {0};

	(void) state;
	solo_make(&s, 2);
	solo_step(&s, (mg_input) {.type = MG_IN_JOIN,.text = "host:2"});
	refuse(&s, 76);
	assert_int_equal(mg_node_get_state(s.node), MG_STATE_PRIMARY);
	assert_int_equal(s.snapshots, 0);
	refuse(&s, 77);
	assert_int_equal(mg_node_get_state(s.node), MG_STATE_JOINER);
	assert_int_equal(s.snapshots, 1);
	assert_non_null(strstr(mg_node_reason(s.node), "snapshot"));
	assert_int_equal(mg_node_offer(s.node)->n, 1);

	/* Over: nothing more is said or done. */
	refuse(&s, 77);
	assert_int_equal(s.snapshots, 1);
	solo_free(&s);
}

/* A stranger's word of a higher epoch. */
static void
hear_of_epoch(solo *s, uint64_t epoch)
{
	mg_frame_header fh = {.incarnation = 5,.member = 1000000,.life = 1,.cluster_hash = s->node->cluster_hash};
	mg_buf		frame = {0};
	size_t		mark;

	mg_frame_begin(&frame, &fh);
	mark = mg_msg_begin(&frame, MG_MSG_VOTE_REQUEST);
	mg_buf_put_u64(&frame, epoch);
	mg_buf_put_u8(&frame, MG_VOTE_ASKING);
	mg_buf_put_u64(&frame, epoch);
	mg_buf_put_u64(&frame, 0);
	mg_buf_put_u64(&frame, 0);
	mg_buf_put_text(&frame, "host:2");
	mg_buf_put_text(&frame, "sql:2");
	mg_msg_end(&frame, mark);
	solo_frame(s, &frame);
	mg_buf_free(&frame);
}

static void
solo_wait(solo *s, int64_t us)
{
	for (int64_t end = s->now + us; s->now < end; s->now += 10000)
	{
		solo_step(s, (mg_input) {.type = MG_IN_TICK});
		solo_step(s, (mg_input) {.type = MG_IN_ROUND_END});
	}
}

/* A queue that is full to the last place: no epoch begins that has no room, and rounds stay short. */
static void
a_full_queue_is_worked_off_in_short_rounds(void **state)
{
	solo		s = {0};
	mg_seqno	seqno = 1;
	uint64_t	epoch;
	mg_seqno	before;
	mg_uuid		uuid;

	(void) state;
	solo_make(&s, 0);
	uuid = s.node->uuid;
	memset(&s.node->uuid, 0, sizeof(uuid));
	solo_step(&s, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = uuid});
	solo_step(&s, (mg_input) {.type = MG_IN_ROUND_END});
	assert_int_equal(mg_node_self(s.node), 1);

	solo_make(&s, 0);
	solo_step(&s, (mg_input) {.type = MG_IN_RESTORE,.bytes = s.saved.data,.len = s.saved.len});
	solo_step(&s, (mg_input) {.type = MG_IN_RECOVER,.seqno = 1,.bytes = s.first.data,.len = s.first.len});
	while (seqno < MG_ENTRIES_MAX - 1)
	{
		seqno++;
		solo_recover(&s, seqno, (UINT64_C(1) << MG_LIFE_SHIFT) + seqno, 0);
	}
	solo_step(&s, (mg_input) {.type = MG_IN_START,.up = true});
	assert_int_equal(mg_node_get_state(s.node), MG_STATE_NON_PRIMARY);
	solo_wait(&s, 1000000);
	epoch = mg_node_epoch(s.node);
	assert_true(epoch > 1);
	assert_int_equal(mg_node_delivered(s.node), 0);
	assert_int_equal(mg_node_held(s.node), MG_ENTRIES_MAX);

	hear_of_epoch(&s, epoch + 5);
	solo_wait(&s, 1000000);
	assert_int_equal(mg_node_epoch(s.node), epoch);

	/* What it leads with is on its disk: everything comes out, piece by piece. */
	solo_step(&s, (mg_input) {.type = MG_IN_FLUSHED,.seqno = MG_ENTRIES_MAX});
	for (int k = 0; k < 1000 && mg_node_delivered(s.node) < MG_ENTRIES_MAX; k++)
	{
		before = mg_node_delivered(s.node);
		solo_step(&s, (mg_input) {.type = MG_IN_COMMITTED,.seqno = before});
		solo_step(&s, (mg_input) {.type = MG_IN_ROUND_END});
		assert_in_range(mg_node_delivered(s.node), before + 1, before + 2 * MG_DELIVER_BATCH_MAX);
		assert_true(mg_node_delivered(s.node) == MG_ENTRIES_MAX || mg_node_wants_tick(s.node));
	}
	assert_int_equal(mg_node_delivered(s.node), MG_ENTRIES_MAX);
	solo_wait(&s, 1000000);
	assert_true(mg_node_epoch(s.node) > epoch + 5);
	solo_free(&s);
}

/* A restored backup goes on in an epoch apart from all that the history which it came from may have had. */
static void
data_of_a_cluster_never_begin_at_epoch_1_again(void **state)
{
	solo		s = {0};
	uint64_t	epoch;

	(void) state;
	for (mg_seqno position = 0; position < 10; position += 9)
	{
		solo_make(&s, position);
		solo_step(&s, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = s.node->uuid,.up = true});
		assert_true(mg_node_epoch(s.node) >= 1024);
	}
	solo_make(&s, 0);
	solo_step(&s, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = s.node->uuid});
	assert_true(mg_node_epoch(s.node) >= 1024);
	epoch = mg_node_epoch(s.node) + 100000;
	solo_make(&s, 9);
	s.node->config.data_epoch = epoch;
	solo_step(&s, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = s.node->uuid,.up = true});
	assert_true(mg_node_epoch(s.node) >= epoch + 1024);
	solo_free(&s);
}

static uint32_t
weight_seen_by(world *w, int i, int whose)
{
	const mg_view *view = mg_node_view(w->h[i].node);
	int			m = mg_view_find(view, mg_node_self(w->h[whose].node));

	return m >= 0 ? view->members[m].weight : UINT32_MAX;
}

static void
a_changed_weight_counts_when_the_node_is_back(void **state)
{
	world	   *w = three_members(4711);

	(void) state;
	assert_int_equal(weight_seen_by(w, 0, 1), 1);
	w->h[1].weight = 3;
	restart(w, 1);
	for (int k = 0; k < 40000 && (weight_seen_by(w, 0, 1) != 3 || weight_seen_by(w, 2, 1) != 3); k++)
		world_step(w, 50, 0);
	assert_int_equal(weight_seen_by(w, 0, 1), 3);
	assert_int_equal(weight_seen_by(w, 2, 1), 3);
	world_free(w);
}

/* ---- arbitrators ---- */

/* Nodes 0 and 1 with data, 2 an arbitrator. */
static world *
two_and_an_arbitrator(void)
{
	world	   *w = world_new(3, 4711);

	w->h[2].role = MG_ROLE_ARBITRATOR;
	node_start(w, 2, 0, false);
	bootstrap(w, 0);
	join_and_wait(w, 1, 50, 0);
	join(w, 2, "host:100,host:101");
	for (int k = 0; k < 8000; k++)
		world_step(w, 50, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(mg_node_get_state(w->h[i].node), MG_STATE_SYNCED);
	return w;
}

static void
an_arbitrator_never_stands_for_data(void **state)
{
	world	   *w = two_and_an_arbitrator();

	(void) state;
	w->h[1].cut = true;
	submit(w, 0, 0, 5000);
	feed(w, 0, &(mg_input) {.type = MG_IN_ROUND_END});
	run_effects(w, 0);
	for (int k = 0; k < 600; k++)
		world_step(w, 50, 0);
	assert_true(w->h[0].busy[0]);	/* one of two has it */

	/* Its new life is a view, which the arbitrator itself acknowledges. */
	restart(w, 2);
	for (int k = 0; k < 600; k++)
		world_step(w, 50, 0);
	assert_true(w->h[0].busy[0]);

	/* The other one is back: now both have it. */
	w->h[1].cut = false;
	for (int k = 0; k < 40000 && w->h[0].busy[0]; k++)
		world_step(w, 50, 0);
	assert_false(w->h[0].busy[0]);
	world_free(w);
}

static void
an_arbitrator_that_has_seen_another_leader_forms_a_majority_with_who_was_away(void **state)
{
	world	   *w = two_and_an_arbitrator();

	(void) state;
	w->h[0].cut = true;
	for (int k = 0; k < 2600; k++)
		world_step(w, 50, 0);		/* node 1 leads, and nothing was written */
	w->h[1].cut = true;
	for (int k = 0; k < 20; k++)
		world_step(w, 50, 0);
	w->h[0].cut = false;
	for (int k = 0; k < 240000 && mg_node_get_state(w->h[0].node) != MG_STATE_SYNCED; k++)
		world_step(w, 50, 0);
	assert_int_equal(mg_node_get_state(w->h[0].node), MG_STATE_SYNCED);
	world_free(w);
}

static void
data_of_a_cluster_without_its_members_is_not_bootstrapped_by_accident(void **state)
{
	solo		s = {0};

	(void) state;
	solo_make(&s, 9);
	solo_step(&s, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = s.node->uuid});
	assert_int_equal(mg_node_get_state(s.node), MG_STATE_OPEN);
	solo_make(&s, 9);
	solo_step(&s, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = s.node->uuid,.up = true});
	assert_int_not_equal(mg_node_get_state(s.node), MG_STATE_OPEN);
	solo_free(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(states_change_only_as_the_table_says),
		cmocka_unit_test(flow_control_waits_for_a_slow_member_but_not_for_a_desynced_one),
		cmocka_unit_test(three_nodes_deliver_one_order_with_the_same_verdicts),
		cmocka_unit_test(lost_frames_only_delay),
		cmocka_unit_test(a_late_joiner_reaches_the_same_verdicts),
		cmocka_unit_test(leave_and_join_again_keeps_one_order),
		cmocka_unit_test(a_silent_follower_is_removed_and_comes_back),
		cmocka_unit_test(minority_delivers_nothing),
		cmocka_unit_test(another_member_leads_when_the_leader_is_silent),
		cmocka_unit_test(all_restarted_form_the_cluster_by_themselves),
		cmocka_unit_test(who_holds_more_in_its_data_votes_for_nobody_behind_it),
		cmocka_unit_test(who_asks_often_does_not_crowd_members_out),
		cmocka_unit_test(a_member_from_an_old_copy_of_its_disk_joins_as_a_new_one),
		cmocka_unit_test(admission_is_refused_with_a_reason),
		cmocka_unit_test(payloads_that_come_after_their_order_find_their_entries),
		cmocka_unit_test(a_joiner_does_not_stumble_over_its_own_log),
		cmocka_unit_test(a_refusal_of_an_earlier_attempt_is_not_taken),
		cmocka_unit_test(a_full_queue_is_worked_off_in_short_rounds),
		cmocka_unit_test(data_of_a_cluster_never_begin_at_epoch_1_again),
		cmocka_unit_test(damaged_frames_are_refused_and_counted),
		cmocka_unit_test(a_changed_weight_counts_when_the_node_is_back),
		cmocka_unit_test(an_arbitrator_never_stands_for_data),
		cmocka_unit_test(an_arbitrator_that_has_seen_another_leader_forms_a_majority_with_who_was_away),
		cmocka_unit_test(data_of_a_cluster_without_its_members_is_not_bootstrapped_by_accident),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
