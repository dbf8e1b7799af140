/*
 * sim/sim.h - a whole cluster in one process, driven by one seed.
 *
 * world: the event queue, the network, the true time.  host: a machine with a
 * disk, a process around a core (what the provider worker does), and a clock of
 * its own.  store: the toy database of a host and its clients.  check: what must
 * hold after every step.  transfer: snapshots, old
 * copies of disks.  fault: what goes wrong, the operator, and the phases of a run.
 *
 * Everything that is random comes from world.rng, so a seed is a run.
 */
#ifndef MG_SIM_H
#define MG_SIM_H

#include <stdio.h>

#include "core/node.h"
#include "core/writeset.h"

#define HOSTS_MAX		8
#define ROWS_MAX		32
#define CLIENTS_MAX		6		/* per host; a client's number is its slot */
#define OPS_MAX			3
#define EPOCHS_MAX		65536
#define INBOX_MAX		4000	/* frames that wait for a host; more are dropped */

#define MS				INT64_C(1000)
#define SECOND			INT64_C(1000000)

/* What happened, summed over all seeds: shows that the scenarios do occur. */
#define SIM_COUNTERS(X) \
	X(deliveries) X(history) X(acked) X(conflicts) X(too_old) X(refused) X(unknown) X(unknown_passed) \
	X(cleared_away) X(reservations) X(snapshot_reads) X(volatile_acked) X(volatile_lost) X(forks) \
	X(views) X(leader_changes) X(elections) X(truncations) X(resets) X(evictions) X(rejoined_views) \
	X(plots) X(kills) X(provider_ends) X(power_failures) X(mid_effect_crashes) X(torn_tails) \
	X(lost_records) X(flipped) X(damaged_starts) X(wipes) X(identity_losses) X(disk_full) X(slow_disks) \
	X(restarts) X(all_at_once) X(pauses) X(partitions) X(one_way) X(cut_links) X(clock_faults) \
	X(frames) X(frames_lost) X(frames_doubled) X(frames_damaged) X(joins) X(leaves) \
	X(snapshots) X(snapshots_failed) X(desyncs) X(restored_copies) X(unnoticed_copies) X(join_refusals) X(recycled) X(dropped_though_needed) X(log_reads) \
	X(bootstraps_refused) X(bootstraps_forced) X(minority_failed) X(came_back_without) X(arbitrator_runs)

typedef struct sim_totals
{
#define X(name) uint64_t name;
	SIM_COUNTERS(X)
#undef X
} sim_totals;

/* ---- transactions ---- */
typedef enum op_kind
{
	OP_NONE = 0,
	OP_INCREMENT,				/* NO_KEY_UPDATE: value + 1 */
	OP_REKEY,					/* UPDATE: value + 1, version + 1 */
	OP_REFER					/* KEY_SHARE: the version must stay */
} op_kind;

typedef struct sim_op
{
	uint8_t		kind;
	uint32_t	row;
	uint64_t	value;			/* as read, under the row's lock */
	uint64_t	version;
} sim_op;

typedef struct sim_row
{
	uint64_t	value;
	uint64_t	version;
} sim_row;

typedef enum trx_state
{
	TRX_NONE = 0,
	TRX_WORKING,				/* nobody but its host knows of it */
	TRX_SENT,
	TRX_ACKED,
	TRX_FAILED,
	TRX_REFUSED,
	TRX_ABORTED,				/* never sent */
	TRX_UNKNOWN
} trx_state;

/* The ledger: what a client was told. */
typedef struct sim_trx
{
	uint8_t		state;
	uint8_t		flags;			/* MG_ENTRY_* */
	bool		reserve;
	uint8_t		n;
	int			host;
	mg_seqno	seqno;			/* as told, 0 if not */
	mg_seqno	found;			/* where the history has it, 0 if nowhere */
	mg_seqno	reserve_found;
	sim_op		ops[OPS_MAX];
} sim_trx;

/* An entry, taken apart from its bytes. */
typedef struct sim_entry
{
	mg_entry_header h;
	bool		is_writeset;	/* a whole one */
	uint16_t	ws_flags;
	mg_seqno	last_seen;
	uint64_t	trx_id;
	uint32_t	n_keys;
	mg_key		keys[OPS_MAX];
	uint32_t	n_ops;
	sim_op		ops[OPS_MAX];
	mg_view    *view;			/* owned; NULL if none */
} sim_entry;

/* ---- network ---- */
typedef struct sim_frame
{
	uint32_t	refs;
	uint32_t	len;
	uint8_t		bytes[];
} sim_frame;

typedef struct sim_conn
{
	int			to;				/* host, or -1 */
	bool		up;
	uint32_t	life;			/* of the process at the other end */
	int64_t		broken_us;		/* since when nothing gets through, 0: it does */
	int64_t		patience_us;	/* then it is reported */
	int64_t		retry_us;
} sim_conn;

/* ---- disk ---- */
typedef struct sim_record
{
	uint8_t    *bytes;
	uint32_t	len;
	bool		bad;			/* its checksum would not match */
	uint64_t	hash;
} sim_record;

/* Seqnos first .. last; empty if last < first. */
typedef struct sim_log
{
	sim_record *ring;
	size_t		cap;			/* power of two */
	mg_seqno	first;
	mg_seqno	last;			/* in the process's buffer at least */
	mg_seqno	written;		/* survives the process */
	mg_seqno	flushed;		/* survives the machine */
	uint32_t	n_bad;
	bool		damaged;		/* lost durable records, or is an old copy, and the core has not saved that yet */
	uint32_t	generation;
} sim_log;

/* ---- store and clients ---- */
typedef struct sim_delivery
{
	mg_seqno	seqno;
	mg_deliver_kind kind;
	int			client;			/* LOCAL: whose, -1 if nobody waits */
	uint64_t	trx_id;
	uint64_t	hash;
	bool		passed;
	uint32_t	n_ops;
	sim_op		ops[OPS_MAX];
} sim_delivery;

typedef enum client_phase
{
	CLIENT_IDLE = 0,
	CLIENT_RESERVING,			/* its reservation is on the way */
	CLIENT_RESERVED,			/* waits until all below it is committed here */
	CLIENT_WORKING,				/* holds row locks */
	CLIENT_SENT,
	CLIENT_PASSED				/* waits for its turn */
} client_phase;

typedef struct sim_client
{
	client_phase phase;
	uint64_t	trx;
	int64_t		at_us;			/* next action */
	mg_seqno	seqno;
	mg_seqno	last_seen;
	bool		reserved;		/* works under a reservation */
	bool		must_fail;		/* a row of its was changed meanwhile */
} sim_client;

typedef struct sim_store
{
	sim_row		rows[ROWS_MAX];
	mg_seqno	committed;
	sim_row		durable_rows[ROWS_MAX];
	mg_seqno	durable;		/* <= committed */
	int64_t		flush_us;		/* next flush */
	int64_t		commit_us;		/* next commit */
	sim_delivery *pending;		/* delivered, not committed */
	size_t		n_pending;
	size_t		head;
	size_t		cap;
	size_t		n_published;	/* of those behind head: survive the provider */
	bool		orphan;			/* holds what the cluster has lost (memory durability) */
	bool		empty;			/* belongs to no cluster: a new machine */
	uint64_t	epoch;			/* noted in the data: nothing in it is of a higher one */
} sim_store;

/* What `cp` has taken of a stopped node's disk. */
typedef struct sim_copy
{
	bool		there;
	sim_log		log;
	uint8_t    *saved;
	size_t		saved_len;
	sim_row		rows[ROWS_MAX];
	mg_seqno	committed;
	uint64_t	epoch;
} sim_copy;

typedef enum crash_kind
{
	CRASH_PROVIDER = 0,			/* the process around the core, the store goes on */
	CRASH_KILL,					/* all processes: the store loses what it had not written */
	CRASH_POWER					/* the machine: the log, too */
} crash_kind;

typedef struct sim_host
{
	int			index;
	char		name[16];
	char		address[32];
	mg_role		role;
	uint32_t	weight;
	uint8_t		segment;

	/* disk */
	sim_log		log;
	uint8_t    *saved;
	size_t		saved_len;
	bool		have_saved;
	bool		disk_full;
	mg_member_id identity;		/* as which member it saw itself last, 0: none */
	sim_copy	copy;
	bool		destroyed;		/* durable data was lost and not yet caught up with */
	mg_seqno	destroyed_at;

	/* process */
	bool		running;
	bool		paused;
	bool		quiet;			/* its end was not told to anybody */
	uint32_t	life;
	mg_node    *node;
	mg_effects	fx;
	mg_effects	doing;
	sim_conn	conn[MG_PEERS_MAX];
	sim_frame **inbox;
	size_t		n_inbox;
	size_t		inbox_cap;
	int64_t		round_us;		/* when the next round is due, 0: none */
	int64_t		ticked_us;		/* local time */
	bool		again;
	bool		flush_news;
	bool		flushing;
	int			flush;			/* number of the one that is under way */
	mg_seqno	told_first;
	mg_seqno	delivered;
	mg_seqno	view_id;		/* of the last view seen in an APPEND */
	mg_seqno	change_id;		/* of the last view that stands for a change of members */
	int64_t		slow_flush_us;	/* disk hangs: a flush takes so long */
	int			crash_after;	/* effects, -1: no */
	crash_kind	crash_how;
	int64_t		restart_in_us;

	/* what its operator, or his unit file, wants */
	bool		out;			/* left, or never was in */
	bool		gone;			/* failed for good, the others must go on */
	bool		leaving;
	bool		evicted;
	bool		desynced;		/* by command */
	bool		wants_snapshot; /* to be rebuilt, whatever its data is */
	bool		needs_snapshot; /* the core says so: its node has ended */
	int			transfer;		/* number of the one that is under way, 0: none */
	int			donor;			/* ... from this host */
	uint32_t	donor_life;
	int			donations;		/* to others */
	mg_seqno	pinned;			/* the log from there on is kept for them, 0: need not be */
	int64_t		join_us;		/* when to ask for admission (again), 0: no */
	bool		wait_bootstrap;

	/* clock: local time = clock_us + (true time - clock_since) * rate / 1000 */
	int64_t		clock_us;
	int64_t		clock_since;
	int64_t		clock_rate;
	int64_t		alone_us;		/* since when a majority cannot be reached, 0: not so */
	mg_seqno	alone_in;		/* by which members */

	sim_store	store;
	sim_client	clients[CLIENTS_MAX];
	uint64_t	release[64];	/* reservations to be given back */
	uint32_t	n_release;
	uint64_t	n_acked;
	mg_node_state state_seen;
	uint64_t	led_epoch;
} sim_host;

/* ---- the one history ---- */
typedef struct sim_history
{
	uint64_t	hash;
	uint64_t	content;		/* of the store once this is committed */
	mg_seqno	floor;			/* the highest so far */
	mg_seqno	view_before;	/* the last view below, 0: none */
	bool		passed;
	sim_entry	e;
} sim_history;

typedef struct sim_reservation
{
	mg_member_id origin;
	uint32_t	life;
	uint64_t	trx_id;
	mg_seqno	seqno;
} sim_reservation;

/* ---- events ---- */
struct world;
typedef void (*sim_call) (struct world *w, int a, int b);

typedef enum event_type
{
	EVENT_NONE = 0,
	EVENT_ROUND,
	EVENT_FRAME,
	EVENT_FLUSH,
	EVENT_CALL
} event_type;

typedef struct sim_event
{
	int64_t		at;
	uint64_t	order;
	event_type	type;
	int			a;				/* host */
	int			b;
	uint32_t	life;
	uint32_t	generation;
	mg_seqno	seqno;
	sim_frame  *frame;
	bool		of_leader;		/* a doubled frame: of one that led when it was sent */
	sim_call	call;
} sim_event;

typedef struct sim_options
{
	bool		trace;
	bool		remember;		/* keep the last lines of the trace */
	uint32_t	only;			/* mask of fault kinds, 0: as the seed says */
	uint32_t	without;
	int			hosts;			/* 0: as the seed says */
	int			seconds;		/* 0: as the seed says */
} sim_options;

typedef struct world
{
	sim_options opt;
	uint64_t	seed;
	uint64_t	rng;
	int64_t		now;
	sim_event  *heap;
	size_t		n_heap;
	size_t		heap_cap;
	uint64_t	orders;
	uint64_t	steps;

	sim_host	hosts[HOSTS_MAX];
	int			n;
	mg_uuid		uuid;

	/* network */
	bool		cut[HOSTS_MAX][HOSTS_MAX];	/* from, to */
	int64_t		last_arrival[HOSTS_MAX][HOSTS_MAX];
	int64_t		latency[HOSTS_MAX][HOSTS_MAX];
	int64_t		jitter_us;
	int			loss;			/* in 1000 */
	int			doubling;
	int			damaging;

	/* load */
	int			n_rows;
	int			n_clients;
	int64_t		think_us;
	int64_t		work_us;
	int64_t		apply_us;
	int64_t		flush_us;
	int			volatile_percent;	/* memory or local durability */
	int			reserve_percent;
	int			ring_records;	/* 0: nothing is ever recycled */
	int			log_limit;		/* records, whoever may need them; 0: none */
	uint32_t	fc_limit;
	int64_t		suspect_us;
	int64_t		inactive_us;
	int			unlucky;		/* of 100 new leaders so many end soon */
	bool		load;
	bool		clocks_lie;		/* some run fast, slow or jump */

	/* faults */
	uint32_t	kinds;
	bool		faults;
	int64_t		faults_until;
	int64_t		fault_every_us;
	mg_seqno	settled;		/* where all stood after the faults */
	int64_t		stirred_us;		/* when the network changed last, or somebody woke up */
	int			partition;		/* number of the last one: an older one's end is void */
	int			transfers;
	int64_t		down_us;		/* since when there is no primary component, 0: there is one */
	mg_member_id dead[64];		/* members whose disks were destroyed, or who cannot be brought level */
	uint32_t	n_dead;

	/* the history, from 1 */
	sim_history *history;
	size_t		history_cap;
	mg_seqno	n_history;
	uint8_t    *lost;			/* by seqno: some crash lost such a record */
	size_t		lost_cap;
	sim_row		rows[ROWS_MAX];
	mg_seqno	last_view;
	sim_reservation reserved[256];
	uint32_t	n_reserved;
	sim_trx    *trx;			/* from 1 */
	uint64_t	n_trx;
	size_t		trx_cap;
	int8_t		epoch_leader[EPOCHS_MAX];	/* host + 1 */

	sim_totals	sum;
} world;

/* ---- main.c: the end of a seed, the trace ---- */
extern void sim_fail(world *w, const char *format, ...)
	__attribute__((noreturn, cold, format(printf, 2, 3)));
extern void sim_stuck(world *w, const char *format, ...)
	__attribute__((noreturn, cold, format(printf, 2, 3)));	/* nothing wrong, but it does not come to an end */
extern void sim_trace_line(world *w, int host, const char *format, ...)
	__attribute__((cold, format(printf, 3, 4)));

/* The arguments are evaluated only if somebody reads them. */
#define TRACE(w, host, ...) \
	do { \
		if ((w)->opt.trace || (w)->opt.remember) \
			sim_trace_line((w), (host), __VA_ARGS__); \
	} while (0)

static inline uint64_t
rnd(world *w, uint64_t n)
{
	w->rng += UINT64_C(0x9e3779b97f4a7c15);
	return mg_mix64(w->rng) % n;
}

static inline bool
percent(world *w, int p)
{
	return (int) rnd(w, 100) < p;
}

static inline int64_t
between(world *w, int64_t low, int64_t high)
{
	return low + (int64_t) rnd(w, (uint64_t) (high - low + 1));
}

/* Mostly short, sometimes long: each order of magnitude is as likely. */
static inline int64_t
spread(world *w, int64_t low, int64_t high)
{
	int64_t		top = low;

	while (top < high && percent(w, 70))
		top *= 3;
	return between(w, low, top < high ? (top > low ? top : low + 1) : high);
}

/* ---- world.c ---- */
extern void world_call(world *w, int64_t in_us, sim_call call, int a, int b);
extern void world_push(world *w, sim_event *event);
extern bool world_step(world *w);	/* carries out one event; false if there is none */
extern void world_send(world *w, int from, int to, sim_frame *frame);
extern void frame_release(sim_frame *frame);
extern bool world_reaches(const world *w, int from, int to);
extern int64_t host_time(const world *w, const sim_host *h);
extern int	world_host_of(const world *w, const char *address);
extern void world_free(world *w);

/* ---- host.c ---- */
extern void host_init(world *w, int i);
extern void host_free(sim_host *h);
extern void host_start(world *w, sim_host *h);
extern void host_crash(world *w, sim_host *h, crash_kind how, int64_t restart_in_us);
extern void host_wake(world *w, sim_host *h, int64_t in_us);
extern void host_round(world *w, sim_host *h);
extern void host_flushed(world *w, sim_host *h, const sim_event *event);
extern void host_desync(world *w, sim_host *h);
extern void host_rejoin(world *w, sim_host *h);	/* a new core over the same data, which asks for admission */
extern void host_bootstrap(world *w, sim_host *h, bool force);
extern void host_feed(world *w, sim_host *h, mg_input *in);
extern bool host_is(const sim_host *h, mg_node_state state);
extern bool host_works(const sim_host *h);	/* takes submissions */
extern bool host_leads(const sim_host *h);
extern sim_record *log_at(sim_log *log, mg_seqno seqno);
extern bool log_has(const sim_log *log, mg_seqno seqno);
extern void log_spoil(sim_log *log, mg_seqno seqno);
extern void log_unspoil(sim_log *log);
extern void log_empty(sim_log *log);
extern void log_copy(sim_log *to, const sim_log *from);

/* ---- store.c ---- */
extern void store_restart(world *w, sim_host *h, crash_kind how);
extern void store_deliver(world *w, sim_host *h, const sim_delivery *d);
extern void store_publish(sim_host *h);
extern mg_seqno store_published(const sim_host *h);
extern void store_advance(world *w, sim_host *h);
extern void store_set(sim_store *s, const sim_row *rows, mg_seqno committed, uint64_t epoch);
extern void clients_act(world *w, sim_host *h);
extern int64_t clients_next(const world *w, const sim_host *h);
extern bool clients_idle(const sim_host *h);
extern void client_passed(world *w, sim_host *h, int slot, mg_seqno seqno, uint64_t trx_id);
extern void client_verdict(world *w, sim_host *h, int slot, mg_verdict verdict, mg_seqno seqno);
extern void client_unknown(world *w, sim_host *h, int slot);
extern void client_refused(world *w, sim_host *h, int slot);
extern uint64_t rows_content(const world *w, const sim_row *rows);
extern bool op_apply(sim_row *rows, const sim_op *op);	/* false: the row is not as it was read */

/* ---- transfer.c ---- */
extern void transfer_wipe(world *w, sim_host *h);	/* the disk is lost; a new one is put in */
extern void transfer_begin(world *w, sim_host *h);	/* whoever the core offers gives a snapshot */
extern void transfer_end_of(world *w, sim_host *h);	/* its process ends, and with it what it took part in */
extern void transfer_take_copy(world *w, sim_host *h);
extern void transfer_restore_copy(world *w, sim_host *h);
extern void transfer_free(sim_host *h);

/* ---- check.c ---- */
extern void entry_parse(world *w, const uint8_t *bytes, size_t len, sim_entry *e);
extern void entry_free(sim_entry *e);
extern void check_delivery(world *w, sim_host *h, const mg_effect *fx, const sim_record *record,
						   sim_entry *e);	/* may take over e->view */
extern void check_truncate(world *w, sim_host *h, mg_seqno seqno);
extern void check_host(world *w, sim_host *h);
extern void check_lost(world *w, mg_seqno seqno);
extern void check_log_lost(world *w, const sim_host *h);	/* all of it */
extern void check_end(world *w);
extern bool check_may_be_inconsistent(const world *w);
extern void check_destroyed(world *w, sim_host *h);	/* durable data of it was lost */
extern bool check_may_leave(world *w, const sim_host *leaver);
extern bool check_may_miss(world *w, const sim_host *h);	/* are the others a majority without it? */
extern void check_gone(world *w, mg_member_id id);	/* it will not speak again */
extern bool check_needs_operator(world *w);	/* more was lost than the promise covers */
extern sim_host *check_most_complete(world *w);

/* ---- fault.c ---- */
extern void fault_scenario(world *w);
extern void fault_run(world *w);
extern uint32_t fault_kind(const char *name);	/* 0: no such kind */
extern void fault_list(FILE *to);

#endif							/* MG_SIM_H */
