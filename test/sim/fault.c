/*
 * What a seed makes of the world, what goes wrong in it, and the phases.
 *
 * A seed takes a random part of the kinds of faults (a run with all of them is
 * so busy with dying that it gets nowhere) and random figures for everything
 * else.  Setup: a cluster forms.  Safety: faults, at any time.  Liveness: the
 * faults end, and within a bounded time everybody is synced, takes writes and
 * holds the same; where more was destroyed than the promise covers, an operator
 * bootstraps the most complete node by force.  Then, in half of the seeds, a minority of the last view fails
 * for good, and the others must go on; and all of it once more.
 */
#include "sim/sim.h"

#include <stdlib.h>

#define SETUP_US		(30 * SECOND)
#define HEALED_US		(60 * SECOND)
#define QUIET_US		(15 * SECOND)
#define SURVIVE_US		(20 * SECOND)
#define OPERATOR_US		(8 * SECOND)

#define FAULT_KINDS(X) \
	X(kill) X(provider) X(power) X(pause) X(partition) X(oneway) X(cut) X(loss) X(clock) X(full) X(slow) \
	X(flip) X(wipe) X(identity) X(leave) X(join) X(all) X(bootstrap) X(plot) X(desync) X(restore)

enum
{
#define X(name) FAULT_##name,
	FAULT_KINDS(X)
#undef X
	FAULT_COUNT
};

static const char *const fault_names[] = {
#define X(name) #name,
	FAULT_KINDS(X)
#undef X
};

#define BIT(kind)	(UINT32_C(1) << (kind))

uint32_t
fault_kind(const char *name)
{
	for (int k = 0; k < FAULT_COUNT; k++)
		if (strcmp(fault_names[k], name) == 0)
			return BIT(k);
	return 0;
}

void
fault_list(FILE *to)
{
	for (int k = 0; k < FAULT_COUNT; k++)
		fprintf(to, " %s", fault_names[k]);
	fprintf(to, "\n");
}

/* ------------------------------------------------------------------- scenario */

void
fault_scenario(world *w)
{
	static const int64_t a_second[] = {20, 60, 200, 500};
	static const int64_t apply[] = {50, 200, 1000, 2500};
	static const int64_t flush[] = {100, MS, 5 * MS, 30 * MS, 120 * MS};
	int			arbitrators = 0;
	bool		odd_weights = percent(w, 15);
	bool		no_weights = percent(w, 10);
	bool		segments = percent(w, 15);
	int64_t		near_us = spread(w, 40, 2 * MS);

	w->now = SECOND;
	w->n = 3 + (int) rnd(w, 5);
	if (w->opt.hosts > 0)
		w->n = w->opt.hosts;
	if (percent(w, 30))
		arbitrators = w->n >= 5 ? 1 + (int) rnd(w, 2) : 1;
	memset(w->uuid.bytes, 7, sizeof(w->uuid.bytes));
	w->n_rows = percent(w, 50) ? 6 : ROWS_MAX;
	w->n_clients = 1 + (int) rnd(w, CLIENTS_MAX);
	w->think_us = SECOND * w->n * w->n_clients / a_second[rnd(w, 4)];
	w->work_us = spread(w, 100, 40 * MS);
	w->apply_us = apply[rnd(w, 4)];
	w->flush_us = flush[rnd(w, 5)];
	w->suspect_us = percent(w, 30) ? 300 * MS : SECOND;
	w->inactive_us = 4 * w->suspect_us + SECOND;
	w->unlucky = percent(w, 50) ? 20 : 0;
	w->jitter_us = spread(w, 20, 5 * MS);
	w->volatile_percent = percent(w, 25) ? 50 : 0;
	w->reserve_percent = percent(w, 25) ? 8 : 0;
	w->ring_records = percent(w, 40) ? 20 + (int) rnd(w, 200) : 0;
	w->log_limit = w->ring_records > 0 && percent(w, 50) ? w->ring_records + (int) rnd(w, 400) : 0;
	w->fc_limit = percent(w, 25) ? 16 + (uint32_t) rnd(w, 100) : 4096;
	w->doubling = percent(w, 50) ? (int) rnd(w, 50) : 0;
	w->damaging = percent(w, 25) ? (int) rnd(w, 10) : 0;
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		host_init(w, i);
		h->segment = segments ? (uint8_t) rnd(w, 2) : 0;
		h->role = i > 0 && i <= arbitrators ? MG_ROLE_ARBITRATOR : MG_ROLE_DATA;
		h->weight = odd_weights && h->role == MG_ROLE_DATA ? 1 + (uint32_t) rnd(w, 3) : 1;
		if (no_weights && i > 0 && i > arbitrators && percent(w, 50))
			h->weight = 0;
	}
	w->sum.arbitrator_runs += arbitrators > 0;
	for (int i = 0; i < w->n; i++)
		for (int j = 0; j < w->n; j++)
			w->latency[i][j] = near_us + (w->hosts[i].segment != w->hosts[j].segment ? 8 * MS : 0) + (int64_t) rnd(w, 100);

	for (int k = 0; k < FAULT_COUNT; k++)
		if (percent(w, 40))
			w->kinds |= BIT(k);
	if (w->volatile_percent > 0 && percent(w, 60))
	{
		/* What was in memory only gets lost when all fall at once. */
		w->kinds |= BIT(FAULT_all);
		w->flush_us = flush[3 + rnd(w, 2)];
	}
	if (w->opt.only != 0)
		w->kinds = w->opt.only;
	w->kinds &= ~w->opt.without;
	w->clocks_lie = (w->kinds & BIT(FAULT_clock)) != 0;
	w->fault_every_us = between(w, 200 * MS, 1500 * MS);
}

/* --------------------------------------------------------------------- faults */

static sim_host *
any_host(world *w)
{
	/* The leader is where it hurts. */
	if (percent(w, 40))
		for (int i = 0; i < w->n; i++)
			if (host_leads(&w->hosts[i]))
				return &w->hosts[i];
	return &w->hosts[rnd(w, (uint64_t) w->n)];
}

static int64_t
away_us(world *w)
{
	switch (rnd(w, 3))
	{
		case 0:
			return spread(w, 20 * MS, SECOND);
		case 1:
			return between(w, w->suspect_us / 2, 2 * w->suspect_us + SECOND);
		default:
			return between(w, w->suspect_us, w->inactive_us + 3 * SECOND);
	}
}

static void
crash(world *w, sim_host *h, crash_kind how)
{
	if (!h->running)
		return;
	if (percent(w, 50))
	{
		host_crash(w, h, how, away_us(w));
		return;
	}
	h->crash_after = (int) rnd(w, 30);
	h->crash_how = how;
	h->restart_in_us = away_us(w);
}

static void
resume(world *w, int a, int b)
{
	sim_host   *h = &w->hosts[a];

	(void) b;
	if (!h->paused)
		return;
	TRACE(w, a, "goes on");
	h->paused = false;
	w->stirred_us = w->now;
	host_wake(w, h, 1);
}

static void
pause_host(world *w, sim_host *h, int64_t for_us)
{
	if (!h->running || h->paused)
		return;
	TRACE(w, h->index, "paused for %lld ms", (long long) (for_us / MS));
	w->sum.pauses++;
	h->paused = true;
	h->round_us = 0;
	if (for_us > 0)
		world_call(w, for_us, resume, h->index, 0);
}

static void
mend_network(world *w, int a, int b)
{
	(void) b;
	if (a != w->partition)
		return;
	TRACE(w, -1, "the network is whole again");
	memset(w->cut, 0, sizeof(w->cut));
	w->loss = 0;
	w->stirred_us = w->now;
}

static void
cut_groups(world *w, bool one_way)
{
	bool		side[HOSTS_MAX];
	int			some = (int) rnd(w, (uint64_t) w->n);

	for (int i = 0; i < w->n; i++)
		side[i] = percent(w, 50);
	if (percent(w, 40))
	{
		/* The leader with less than half of the others, its clients go on writing there. */
		int			with = (int) rnd(w, (uint64_t) ((w->n + 1) / 2));

		for (int i = 0; i < w->n; i++)
			side[i] = host_leads(&w->hosts[i]);
		for (int k = 0; k < with; k++)
			side[(some + k) % w->n] = true;
	}
	memset(w->cut, 0, sizeof(w->cut));
	for (int i = 0; i < w->n; i++)
		for (int j = 0; j < w->n; j++)
			if (i != j && (one_way ? side[i] && !side[j] : side[i] != side[j]))
				w->cut[i][j] = true;
	for (int i = 0; i < w->n; i++)
		if (side[i])
			TRACE(w, i, one_way ? "is not heard by the others" : "is cut off from those without this line");
	w->stirred_us = w->now;
	if (one_way)
		w->sum.one_way++;
	else
		w->sum.partitions++;
	world_call(w, away_us(w), mend_network, ++w->partition, 0);
}

static void
cut_links(world *w)
{
	int			n = 1 + (int) rnd(w, 3);

	for (int k = 0; k < n; k++)
	{
		int			i = (int) rnd(w, (uint64_t) w->n);
		int			j = (int) rnd(w, (uint64_t) w->n);

		w->cut[i][j] = i != j;
		if (percent(w, 60))
			w->cut[j][i] = i != j;
		TRACE(w, i, "does not reach n%d", j);
	}
	w->sum.cut_links++;
	w->stirred_us = w->now;
	world_call(w, away_us(w), mend_network, ++w->partition, 0);
}

static void
set_clock(world *w, sim_host *h, int64_t jump, int64_t rate)
{
	h->clock_us = host_time(w, h) + jump;
	h->clock_since = w->now;
	h->clock_rate = rate;
}

static void
space_again(world *w, int a, int b)
{
	(void) b;
	w->hosts[a].disk_full = false;
	w->hosts[a].slow_flush_us = 0;
}

static void
spoil(world *w, sim_host *h, mg_seqno seqno)
{
	TRACE(w, h->index, "a bit flips in seqno %llu of the log", (unsigned long long) seqno);
	log_spoil(&h->log, seqno);
	w->sum.flipped++;
	check_destroyed(w, h);
}

static void
flip_bits(world *w, sim_host *h)
{
	sim_log    *log = &h->log;
	mg_seqno	s;

	if (log->last < log->first || h->destroyed || !check_may_miss(w, h))
		return;
	s = percent(w, 60) && log->last - log->first > 8 ? log->last - rnd(w, 8) :
		log->first + rnd(w, log->last - log->first + 1);
	spoil(w, h, s);
	if (percent(w, 80))
		host_crash(w, h, (crash_kind) rnd(w, 3), spread(w, 20 * MS, 2 * SECOND));
}

static void
lose_identity(world *w, sim_host *h)
{
	if (!h->have_saved || h->destroyed || h->out || !check_may_miss(w, h))
		return;
	host_crash(w, h, CRASH_POWER, spread(w, 20 * MS, 2 * SECOND));
	if (h->running)
		return;
	TRACE(w, h->index, "its state file is lost");
	w->sum.identity_losses++;
	h->have_saved = false;
	check_destroyed(w, h);
}

/* The end of a plot: the leader falls, the victim has lost the end of its log. */
static void
plot_ends(world *w, int lagging, int victim)
{
	sim_host   *v = &w->hosts[victim];
	int64_t		long_us = between(w, w->suspect_us, 2 * w->inactive_us);

	if (!w->faults)
		return;
	for (int i = 0; i < w->n; i++)
		if (i != lagging && i != victim && host_leads(&w->hosts[i]))
			host_crash(w, &w->hosts[i], (crash_kind) rnd(w, 3), long_us);
	if (v->running && percent(w, 70) && v->log.last >= v->log.first && !v->destroyed && check_may_miss(w, v))
	{
		mg_seqno	back = rnd(w, 4);

		spoil(w, v, v->log.last - back >= v->log.first ? v->log.last - back : v->log.last);
	}
	host_crash(w, v, percent(w, 50) ? CRASH_POWER : (crash_kind) rnd(w, 2), between(w, 5 * MS, 300 * MS));
	if (w->hosts[lagging].paused)
		resume(w, lagging, 0);
	else
		mend_network(w, w->partition, 0);
}

/*
 * Somebody falls behind; then those who are ahead get hurt, and who is behind
 * must not win.  Faults that come each by itself rarely meet like that.
 */
static void
plot(world *w)
{
	int			lagging = (int) rnd(w, (uint64_t) w->n);
	int			victim = (lagging + 1 + (int) rnd(w, (uint64_t) w->n - 1)) % w->n;

	if (!w->hosts[lagging].running || w->hosts[lagging].paused || host_leads(&w->hosts[lagging]) || host_leads(&w->hosts[victim]))
		return;
	TRACE(w, -1, "a plot: n%d falls behind, n%d is the victim", lagging, victim);
	w->sum.plots++;
	if (percent(w, 50))
		pause_host(w, &w->hosts[lagging], 0);
	else
	{
		for (int i = 0; i < w->n; i++)
			w->cut[i][lagging] = w->cut[lagging][i] = i != lagging;
		w->stirred_us = w->now;
		w->partition++;
	}
	world_call(w, between(w, 5 * MS, 800 * MS), plot_ends, lagging, victim);
}

static bool
anything_destroyed(const world *w)
{
	for (int i = 0; i < w->n; i++)
		if (w->hosts[i].destroyed || w->hosts[i].log.damaged)
			return true;
	return false;
}

static void
leave(world *w, sim_host *h)
{
	mg_input	in = {.type = MG_IN_LEAVE,.peer = -1,.slot = -1};
	const mg_view *view = w->last_view != 0 ? w->history[w->last_view].e.view : NULL;
	int			data = 0;

	/* The last ones stay: an operator who sends them away has no cluster left. */
	for (uint32_t m = 0; view != NULL && m < view->n; m++)
	{
		int			i = world_host_of(w, view->members[m].address);

		data += view->members[m].role == MG_ROLE_DATA && i >= 0 && host_works(&w->hosts[i]) && !w->hosts[i].leaving &&
			view->members[m].weight > 0;
	}
	if (!host_works(h) || h->paused || h->leaving || data < 3 || anything_destroyed(w) || !check_may_leave(w, h))
		return;
	TRACE(w, h->index, "is asked to leave");
	h->leaving = true;
	host_feed(w, h, &in);
	host_wake(w, h, 1);
}

static void
come_in(world *w, sim_host *h)
{
	if (!h->out)
		return;
	h->out = false;
	h->join_us = 0;
	if (!h->running)
		host_start(w, h);
	else
		host_wake(w, h, 1);
}

static void
all_at_once(world *w)
{
	int			mix = (int) rnd(w, 3);

	TRACE(w, -1, "all end at once");
	w->sum.all_at_once++;
	for (int i = 0; i < w->n; i++)
		host_crash(w, &w->hosts[i], mix == 0 ? CRASH_KILL : mix == 1 ? CRASH_POWER : (crash_kind) rnd(w, 3), away_us(w));
}

static void
copy_call(world *w, int a, int b)
{
	sim_host   *h = &w->hosts[a];

	(void) b;
	if (h->running)
		return;
	transfer_take_copy(w, h);
	if (!h->out)
		host_start(w, h);
}

/* Of a stopped or crashed node, which starts again. */
static void
take_copy(world *w, sim_host *h)
{
	if (h->out || h->paused)
		return;
	host_crash(w, h, (crash_kind) rnd(w, 3), -1);
	world_call(w, spread(w, 20 * MS, SECOND), copy_call, h->index, 0);
}

static void
fault_one(world *w, int kind)
{
	sim_host   *h = any_host(w);

	switch (kind)
	{
		case FAULT_kill:
			crash(w, h, CRASH_KILL);
			break;
		case FAULT_provider:
			crash(w, h, CRASH_PROVIDER);
			break;
		case FAULT_power:
			crash(w, h, CRASH_POWER);
			break;
		case FAULT_pause:
			pause_host(w, h, away_us(w));
			break;
		case FAULT_partition:
			cut_groups(w, false);
			break;
		case FAULT_oneway:
			cut_groups(w, true);
			break;
		case FAULT_cut:
			cut_links(w);
			break;
		case FAULT_loss:
			w->loss = percent(w, 30) ? 0 : 1 + (int) rnd(w, 200);
			TRACE(w, -1, "%d of 1000 frames get lost", w->loss);
			break;
		case FAULT_clock:
			w->sum.clock_faults++;
			if (percent(w, 50))
				set_clock(w, h, spread(w, 50 * MS, 20 * SECOND), h->clock_rate);
			else
				set_clock(w, h, 0, between(w, 500, 2000));
			TRACE(w, h->index, "its clock jumps, or runs at %lld/1000", (long long) h->clock_rate);
			break;
		case FAULT_full:
			TRACE(w, h->index, "its disk is full");
			h->disk_full = true;
			world_call(w, away_us(w), space_again, h->index, 0);
			break;
		case FAULT_slow:
			h->slow_flush_us = spread(w, 50 * MS, 8 * SECOND);
			TRACE(w, h->index, "a flush takes %lld ms", (long long) (h->slow_flush_us / MS));
			w->sum.slow_disks++;
			world_call(w, away_us(w), space_again, h->index, 0);
			break;
		case FAULT_flip:
			flip_bits(w, h);
			break;
		case FAULT_wipe:
			if (!h->out && !h->destroyed && check_may_miss(w, h) && percent(w, 50))
				transfer_wipe(w, h);
			break;
		case FAULT_desync:
			w->sum.desyncs++;
			h->desynced = !h->desynced;
			if (h->running)
				host_desync(w, h);
			break;
		case FAULT_restore:
			for (int i = 0; i < w->n && !h->copy.there; i++)
				if (w->hosts[i].copy.there && percent(w, 50))
					h = &w->hosts[i];
			if (!h->copy.there)
				take_copy(w, h);
			else if (!h->out && !h->destroyed && check_may_miss(w, h))
				transfer_restore_copy(w, h);
			break;
		case FAULT_identity:
			if (percent(w, 50))
				lose_identity(w, h);
			break;
		case FAULT_leave:
			leave(w, h);
			break;
		case FAULT_join:
			come_in(w, &w->hosts[rnd(w, (uint64_t) w->n)]);
			break;
		case FAULT_all:
			if (percent(w, 50))
				all_at_once(w);
			break;
		case FAULT_plot:
			plot(w);
			break;
		case FAULT_bootstrap:
			/* Who belongs to a cluster must not begin another one. */
			if (host_is(h, MG_STATE_NON_PRIMARY) && !h->paused && h->role == MG_ROLE_DATA && !h->evicted && !h->out)
				host_bootstrap(w, h, false);
			break;
	}
}

static void
fault_next(world *w, int a, int b)
{
	int			kind;

	(void) a;
	(void) b;
	if (!w->faults)
		return;
	world_call(w, between(w, 1, 2 * w->fault_every_us), fault_next, 0, 0);
	if (w->kinds == 0)
		return;
	do
		kind = (int) rnd(w, FAULT_COUNT);
	while ((w->kinds & BIT(kind)) == 0);
	fault_one(w, kind);
}

/* --------------------------------------------------------------------- phases */

static void
run_for(world *w, int64_t us)
{
	int64_t		until = w->now + us;

	while (w->n_heap > 0 && w->heap[0].at <= until)
		(void) world_step(w);
	w->now = until;
}

/*
 * The faults are over, everybody runs, and still nobody takes writes: where the
 * promise ends the operator decides, with the node that has most.
 */
static void
operator_looks(world *w)
{
	sim_host   *best;

	for (int i = 0; i < w->n; i++)
		if (host_works(&w->hosts[i]) || w->hosts[i].gone || w->faults || w->n_history == 0)
			w->down_us = w->now;
	if (w->now - w->down_us < OPERATOR_US || !check_needs_operator(w))
		return;
	w->down_us = w->now;
	best = check_most_complete(w);
	if (best == NULL)
		return;
	w->sum.bootstraps_forced++;
	host_crash(w, best, CRASH_PROVIDER, -1);
	host_start(w, best);
	host_bootstrap(w, best, true);
}

/* Until that is so; false if it is not within the time. */
static bool
run_until(world *w, int64_t us, bool (*so) (world *w))
{
	int64_t		until = w->now + us;

	while (!so(w))
	{
		if (w->now >= until)
			return false;
		run_for(w, 20 * MS);
		operator_looks(w);
	}
	return true;
}

static bool
all_synced(world *w)
{
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		if (!h->out && (!host_works(h) || h->leaving))
			return false;
	}
	return true;
}

/* Every data node has committed something for a client since then. */
static bool
all_write(world *w)
{
	if (!all_synced(w))
		return false;
	for (int i = 0; i < w->n; i++)
		if (!w->hosts[i].out && w->hosts[i].role == MG_ROLE_DATA && w->hosts[i].n_acked == 0)
			return false;
	return true;
}

static bool
all_quiet(world *w)
{
	if (!all_synced(w))
		return false;
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		if (h->out && (!h->running || clients_idle(h)))
			continue;
		if (h->out)
			return false;
		if (mg_node_view(h->node)->id != w->last_view)
			return false;
		if (h->role == MG_ROLE_ARBITRATOR)
			continue;
		if (!clients_idle(h) || h->store.committed != w->n_history || h->delivered != w->n_history ||
			mg_node_unordered(h->node) != 0 || mg_node_ordered(h->node) != w->n_history)
			return false;
	}
	return true;
}

static bool
survivors_write(world *w)
{
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];
		if (!h->out && !h->gone && (!host_works(h) || (h->role == MG_ROLE_DATA && h->n_acked == 0)))
			return false;
	}
	return true;
}

static void
say_where_they_stand(world *w)
{
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		if (h->running)
			TRACE(w, i, "%s (%s), member %u of view %llu, epoch %llu leader %u, delivered %llu held %llu ordered %llu flushed %llu, committed %llu, unordered %llu, acked %llu%s%s%s",
				  mg_node_state_name(mg_node_get_state(h->node)), mg_node_reason(h->node), mg_node_self(h->node),
				  (unsigned long long) mg_node_view(h->node)->id, (unsigned long long) mg_node_epoch(h->node),
				  mg_node_leader(h->node), (unsigned long long) mg_node_delivered(h->node),
				  (unsigned long long) mg_node_held(h->node), (unsigned long long) mg_node_ordered(h->node),
				  (unsigned long long) h->log.flushed, (unsigned long long) h->store.committed,
				  (unsigned long long) mg_node_unordered(h->node), (unsigned long long) h->n_acked,
				  h->out ? ", out" : "", h->leaving ? ", leaving" : "", h->paused ? ", paused" : "");
		else
			TRACE(w, i, "is not running%s", h->out ? ", out" : "");
		for (int c = 0; c < CLIENTS_MAX; c++)
			if (h->clients[c].phase != CLIENT_IDLE)
				TRACE(w, i, "client %d is in phase %d with trx %llu", c, h->clients[c].phase, (unsigned long long) h->clients[c].trx);
	}
}

static void
forget_acked(world *w)
{
	for (int i = 0; i < w->n; i++)
		w->hosts[i].n_acked = 0;
}

static void
heal(world *w, int missing)
{
	TRACE(w, -1, "the faults end");
	w->faults = false;
	w->down_us = w->now;
	w->partition++;
	memset(w->cut, 0, sizeof(w->cut));
	w->loss = w->doubling = w->damaging = 0;
	for (int i = 0; i < w->n; i++)
	{
		sim_host   *h = &w->hosts[i];

		h->gone = i == missing;
		h->crash_after = -1;
		h->disk_full = false;
		h->slow_flush_us = 0;
		h->flushing = false;	/* one that hangs still is over, too */
		set_clock(w, h, 0, 1000);
		h->desynced = false;
		if (h->running)
			host_desync(w, h);
		resume(w, i, 0);
		if (i == missing && h->running)
			host_crash(w, h, CRASH_KILL, -1);
		if (i != missing && !h->running && !h->out)
			host_start(w, h);
	}
	w->apply_us = 200;
	w->flush_us = 2 * MS;
	w->think_us = SECOND * w->n * w->n_clients / 100;
}

/* Everybody comes together, takes writes, and in the end all hold the same. */
static void
converge(world *w)
{
	forget_acked(w);
	w->load = true;
	if (!run_until(w, HEALED_US, all_write))
	{
		say_where_they_stand(w);
		sim_stuck(w, "not everybody takes writes %lld s after the faults have ended", (long long) (HEALED_US / SECOND));
	}
	w->load = false;
	if (!run_until(w, QUIET_US, all_quiet))
	{
		say_where_they_stand(w);
		sim_stuck(w, "not everything has come to an end %lld s after the last client has stopped", (long long) (QUIET_US / SECOND));
	}
}

/* Some go for good; those who stay are a quorum of the view and have the data. */
static void
minority_fails(world *w)
{
	const mg_view *view = w->history[w->last_view].e.view;
	uint64_t	all = 0,
				stays = 0;
	bool		data_stays;
	int			n_fail = 0;

	for (uint32_t m = 0; m < view->n; m++)
		all += view->members[m].weight;
	stays = all;
	for (int tries = 0; tries < 4; tries++)
	{
		uint32_t	m = (uint32_t) rnd(w, view->n);
		int			i = world_host_of(w, view->members[m].address);

		if (i < 0 || w->hosts[i].gone || (stays - view->members[m].weight) * 2 <= all)
			continue;
		w->hosts[i].gone = true;
		data_stays = false;
		for (int k = 0; k < w->n; k++)
			data_stays = data_stays || (!w->hosts[k].out && !w->hosts[k].gone && w->hosts[k].role == MG_ROLE_DATA &&
										 w->hosts[k].weight > 0);
		if (!data_stays)
		{
			w->hosts[i].gone = false;
			continue;
		}
		stays -= view->members[m].weight;
		n_fail++;
	}
	if (n_fail == 0)
		return;
	w->sum.minority_failed++;
	w->load = true;
	run_for(w, 200 * MS);
	for (int i = 0; i < w->n; i++)
		if (w->hosts[i].gone)
			switch (rnd(w, 4))
			{
				case 0:
					host_crash(w, &w->hosts[i], CRASH_KILL, -1);
					break;
				case 1:
					host_crash(w, &w->hosts[i], CRASH_POWER, -1);
					break;
				case 2:
					pause_host(w, &w->hosts[i], 0);
					break;
				default:
					TRACE(w, i, "is cut off");
					for (int j = 0; j < w->n; j++)
						w->cut[i][j] = w->cut[j][i] = i != j;
					break;
			}
	forget_acked(w);
	if (!run_until(w, SURVIVE_US, survivors_write))
	{
		say_where_they_stand(w);
		sim_stuck(w, "%d failed, and the others do not go on within %lld s", n_fail, (long long) (SURVIVE_US / SECOND));
	}
	run_for(w, between(w, 0, 4 * SECOND));
	heal(w, -1);
}

/* The faults have ended, but one stays away, whatever happened before: those who are back are a majority. */
static void
majority_comes_back(world *w)
{
	int			missing = (int) rnd(w, w->n);

	if (w->hosts[missing].out || !check_may_miss(w, &w->hosts[missing]))
		missing = -1;
	heal(w, missing);
	if (missing < 0)
		return;
	w->sum.came_back_without++;
	TRACE(w, missing, "does not come back with the others");
	forget_acked(w);
	w->load = true;
	if (!run_until(w, HEALED_US, survivors_write))
	{
		say_where_they_stand(w);
		sim_stuck(w, "all but %s are back, and do not take writes within %lld s", w->hosts[missing].name, (long long) (HEALED_US / SECOND));
	}
	w->hosts[missing].gone = false;
	host_start(w, &w->hosts[missing]);
}

/* What nobody can refer to any more must not be kept for ever. */
static bool
all_moved_on(world *w)
{
	for (int i = 0; i < w->n; i++)
		if (!w->hosts[i].out && w->hosts[i].role == MG_ROLE_DATA && w->hosts[i].running &&
			mg_node_log_needed(w->hosts[i].node) < w->settled)
			return false;
	return w->n_history > 0 && w->history[w->n_history].floor >= w->settled;
}

void
fault_run(world *w)
{
	int			spares = w->n > 3 ? (int) rnd(w, 2) : 0;
	int64_t		seconds = w->opt.seconds > 0 ? w->opt.seconds : between(w, 4, 20);

	TRACE(w, -1, "%d hosts, %d clients each, think %lld us, apply %lld us, flush %lld us, ring %d limit %d, volatile %d%%", w->n,
		  w->n_clients, (long long) w->think_us, (long long) w->apply_us, (long long) w->flush_us, w->ring_records,
		  w->log_limit, w->volatile_percent);
	for (int k = 0; k < FAULT_COUNT; k++)
		if ((w->kinds & BIT(k)) != 0)
			TRACE(w, -1, "faults: %s", fault_names[k]);
	for (int i = w->n - spares; i < w->n; i++)
		w->hosts[i].store.empty = w->hosts[i].role == MG_ROLE_DATA && percent(w, 50);
	for (int i = 0; i < w->n - spares; i++)
	{
		w->hosts[i].out = false;
		w->hosts[i].wait_bootstrap = i == 0;
		host_start(w, &w->hosts[i]);
	}
	host_bootstrap(w, &w->hosts[0], false);
	w->load = true;
	if (!run_until(w, SETUP_US, all_synced))
	{
		say_where_they_stand(w);
		sim_stuck(w, "the cluster does not form");
	}
	w->faults = true;
	fault_next(w, 0, 0);
	run_for(w, seconds * SECOND);
	if (percent(w, 50))
		majority_comes_back(w);
	else
		heal(w, -1);
	converge(w);
	w->settled = w->n_history;
	if (percent(w, 50))
		minority_fails(w);
	converge(w);
	w->load = true;
	if (!run_until(w, QUIET_US, all_moved_on))
	{
		for (int i = 0; i < w->n; i++)
			if (w->hosts[i].running)
				TRACE(w, i, "needs its log from seqno %llu on", (unsigned long long) mg_node_log_needed(w->hosts[i].node));
		sim_stuck(w, "what all had committed at seqno %llu is kept still, the floor is at seqno %llu",
				 (unsigned long long) w->settled, (unsigned long long) w->history[w->n_history].floor);
	}
	w->load = false;
	if (!run_until(w, QUIET_US, all_quiet))
	{
		say_where_they_stand(w);
		sim_stuck(w, "not everything has come to an end");
	}
	check_end(w);
}
