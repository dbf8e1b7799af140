/*
 * core/node.h - one node of the cluster as a deterministic state machine.
 *
 * Decides: membership, the one order, delivery, certification.  Inputs come in
 * through mg_node_step, effects go out in a list; no clock, no socket, no file,
 * no thread, no randomness inside: the same inputs give the same effects on any
 * machine.  The owner (the provider worker, or a simulation) feeds inputs in
 * rounds: any number of inputs, then one MG_IN_ROUND_END, which orders, delivers
 * and closes the frames, so that a round's messages share a frame; after that
 * it carries out the effects in their order and calls mg_effects_reset.
 *
 * A new node whose directory holds the state of an earlier life first gets
 * MG_IN_RESTORE (what the last SAVE held), MG_IN_RECOVER for each entry of its
 * own log in ascending order, then MG_IN_START.  It resumes its membership by
 * itself; one without such a state stays OPEN until it is told to bootstrap or
 * to join.
 *
 * SAVE, TRUNCATE and RESET_LOG are promises: the owner makes them durable
 * before it carries out the effects behind them; if it cannot, the node ends
 * there (as a crash), it never goes on.
 *
 * States (transitions only through mg_node_shift, which knows the table of
 * those that are possible: mg_node_may_shift):
 *	 OPEN        -> PRIMARY (command join)  -> JOINED (bootstrap)
 *	             -> NON_PRIMARY (start of a member of an earlier life)
 *	 PRIMARY     -> JOINER (admitted, or a snapshot is needed) -> OPEN (refused)
 *	 JOINER      -> JOINED (the view that takes it in is in its log) -> OPEN (given up)
 *	 JOINED      -> SYNCED, DONOR (all up to that view committed here)
 *	 SYNCED      -> DONOR (desynced) -> NON_PRIMARY (no leader, no majority)
 *	             -> OPEN (left)  -> INCONSISTENT (verdict or history differs)
 *	 DONOR       as SYNCED in all but one: flow control does not wait for it
 *	 NON_PRIMARY -> SYNCED, DONOR (the primary component is there, caught up with
 *	                it); when the cluster went on without this node: effect
 *	                EVICTED, the owner makes a new node and joins
 *	 INCONSISTENT -> OPEN (left)
 *
 * Protocol: docs/protocol.md; why it is right: docs/invariants.md.  A log
 * replicated under epochs with one leader each, elected by a quorum of the last
 * primary view; views are entries of that log.
 *
 * Limits: MG_PENDING_MAX unordered messages per origin (more are dropped and
 * fetched or sent again later), MG_ENTRIES_MAX undelivered entries (the leader
 * stops ordering at half of that), MG_PAYLOAD_BYTES_MAX of waiting payloads.
 */
#ifndef MG_CORE_NODE_H
#define MG_CORE_NODE_H

#include "core/base.h"
#include "core/buf.h"
#include "core/cert.h"
#include "core/wire.h"

#define MG_PEERS_MAX			32
#ifndef MG_PENDING_MAX				/* fuzzing is faster, and meets them, with lower ones */
#define MG_PENDING_MAX			4096		/* power of two */
#endif
#ifndef MG_ENTRIES_MAX
#define MG_ENTRIES_MAX			65536		/* power of two */
#endif
#define MG_PAYLOAD_BYTES_MAX	(UINT64_C(2) * 1024 * 1024 * 1024)
#define MG_FETCH_BYTES			(1024u * 1024u)
#define MG_SEEDS_MAX			MG_MEMBERS_MAX

typedef struct mg_node mg_node;

typedef enum mg_node_state
{
	MG_STATE_OPEN = 0,
	MG_STATE_PRIMARY,
	MG_STATE_JOINER,
	MG_STATE_JOINED,
	MG_STATE_SYNCED,
	MG_STATE_DONOR,
	MG_STATE_NON_PRIMARY,
	MG_STATE_INCONSISTENT,
	MG_STATE_COUNT				/* not a state */
} mg_node_state;

extern bool mg_node_may_shift(mg_node_state from, mg_node_state to);

static inline bool
mg_state_is_joining(mg_node_state state)
{
	return state == MG_STATE_PRIMARY || state == MG_STATE_JOINER || state == MG_STATE_JOINED;
}

/* In the primary component and level with it: takes submissions. */
static inline bool
mg_state_is_synced(mg_node_state state)
{
	return state == MG_STATE_SYNCED || state == MG_STATE_DONOR;
}

typedef struct mg_node_config
{
	mg_role		role;			/* an arbitrator has no log and no data: it votes */
	uint8_t		segment;		/* members of other segments get the wan_ timeouts */
	char		name[MG_NAME_BYTES_MAX];
	char		cluster_name[MG_NAME_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];	/* told to peers */
	char		sql_address[MG_ADDRESS_BYTES_MAX];	/* told to peers: where clients reach the server, or "" */
	uint64_t	incarnation;	/* random, not 0 */
	uint64_t	data_epoch;		/* the highest of which the node has delivered entries for its data; 0: not known */
	uint32_t	weight;
	int64_t		keepalive_us;
	int64_t		suspect_us;		/* a leader silent for so long is replaced; no majority for so long: no writes */
	int64_t		inactive_us;	/* a member silent, or without progress, for so long is evicted */
	int64_t		wan_suspect_us;	/* 0: as suspect_us */
	int64_t		wan_inactive_us;
	int64_t		resend_us;		/* unordered submissions are sent again after this */
	int64_t		join_timeout_us;	/* a join that nobody answers is given up, 0: never */
	int64_t		fetch_us;		/* a missing payload or order is fetched after this */
	uint32_t	fc_limit;		/* seqnos that the slowest member may lag */
} mg_node_config;

/* ---- inputs ---- */
typedef enum mg_input_type
{
	MG_IN_NONE = 0,
	MG_IN_TICK,					/* nothing but the time */
	MG_IN_ROUND_END,
	MG_IN_RECEIVE,				/* bytes: a frame */
	MG_IN_LINK,					/* peer, up: its connection was made or lost */
	MG_IN_SUBMIT,				/* slot, flags (MG_ENTRY_*), last_seen, bytes: a writeset */
	MG_IN_COMMITTED,			/* seqno: all up to it are committed here */
	MG_IN_FLUSHED,				/* seqno, generation: the log is durable up to it */
	MG_IN_LOG_FIRST,			/* seqno: the log begins there now */
	MG_IN_RESTORE,				/* bytes: what the last SAVE held; before anything else */
	MG_IN_RECOVER,				/* seqno, bytes: an entry of the own log, ascending, before START or BOOTSTRAP */
	MG_IN_START,				/* up: the log is as it was left; false: it lost entries that were durable */
	MG_IN_LOG_READ,				/* peer, seqno, generation, bytes: answers READ_LOG, one per entry */
	MG_IN_BOOTSTRAP,			/* uuid: of the new cluster, or of the one this data belongs to; up: force */
	MG_IN_JOIN,					/* text: "host:port,host:port"; up: with a snapshot, whatever its data is */
	MG_IN_LEAVE,
	MG_IN_DESYNC				/* up: flow control need not wait for this node; seqno, if not 0: all
								 * members keep what is behind it, for somebody that this node gives its data */
} mg_input_type;

typedef struct mg_input
{
	mg_input_type type;
	int64_t		now_us;			/* monotonic */
	int			peer;
	int32_t		slot;
	bool		up;
	uint8_t		flags;
	uint32_t	generation;		/* of the log: that of the last TRUNCATE or RESET_LOG carried out, 0 before */
	mg_seqno	seqno;
	mg_seqno	last_seen;
	const void *bytes;
	size_t		len;
	mg_uuid		uuid;
	const char *text;
} mg_input;

/* ---- effects ---- */
typedef enum mg_effect_type
{
	MG_FX_NONE = 0,
	MG_FX_CONNECT,				/* peer, text: address */
	MG_FX_DISCONNECT,			/* peer */
	MG_FX_SEND,					/* peers (mask), at, len: a frame */
	MG_FX_SAVE,					/* at, len: the node's state; durable before what follows */
	MG_FX_APPEND,				/* seqno, at, len: to the log */
	MG_FX_TRUNCATE,				/* seqno, generation: cut the log behind it; durable before what follows */
	MG_FX_RESET_LOG,			/* generation: empty the log: another range follows */
	MG_FX_READ_LOG,				/* peer, seqno: answer with LOG_READ inputs, up to MG_FETCH_BYTES */
	MG_FX_DELIVER,				/* seqno, epoch, kind, slot, depends, member (origin), verdict, against */
	MG_FX_VERDICT,				/* slot, verdict, seqno, against: a reservation or a loser of this node */
	MG_FX_UNKNOWN,				/* slot: the outcome will not be known here */
	MG_FX_REFUSED,				/* slot, text: not sent, nothing happened */
	MG_FX_STATE,				/* the state or the view changed */
	MG_FX_EVICTED,				/* the cluster went on without this node: make a new one and join */
	MG_FX_SNAPSHOT,				/* text, hint: cannot join without a snapshot of a member's data
								 * (mg_node_offer); ok: no transaction of the cluster is lost with
								 * the data that is here.  The node is silent from then on. */
	MG_FX_ANSWER,				/* ok, text, hint: the outcome of a command */
	MG_FX_LOG					/* text: one line */
} mg_effect_type;

typedef enum mg_deliver_kind
{
	MG_DELIVER_SKIP = 0,		/* nothing to apply */
	MG_DELIVER_LOCAL,			/* the transaction of `slot` passed */
	MG_DELIVER_REMOTE			/* apply it from the log */
} mg_deliver_kind;

typedef struct mg_effect
{
	mg_effect_type type;
	mg_deliver_kind kind;
	mg_verdict	verdict;
	bool		ok;
	int			peer;
	uint32_t	peers;
	uint32_t	generation;
	int32_t		slot;
	mg_member_id member;
	mg_seqno	seqno;
	mg_seqno	depends;
	mg_seqno	against;
	uint64_t	epoch;			/* DELIVER: of the entry */
	size_t		at;				/* bytes or text: offset into effects->bytes */
	size_t		len;
	size_t		hint_at;		/* text, 0-terminated */
} mg_effect;

typedef struct mg_effects
{
	mg_effect  *list;
	size_t		n;
	size_t		cap;
	mg_buf		bytes;
} mg_effects;

extern void mg_effects_reset(mg_effects *effects);
extern void mg_effects_free(mg_effects *effects);

/*
 * `position`: what the data of this node stands at; a zero uuid if it belongs
 * to no cluster.
 */
extern mg_node *mg_node_new(const mg_node_config *config, const mg_gtid *position, int64_t now_us);
extern void mg_node_free(mg_node *node);

extern void mg_node_step(mg_node *node, const mg_input *in, mg_effects *out);

/* Something waits for the time to pass: tick again within a millisecond. */
extern bool mg_node_wants_tick(const mg_node *node);

/* ---- for status ---- */
extern mg_node_state mg_node_get_state(const mg_node *node);
extern uint64_t mg_node_epoch(const mg_node *node);		/* of the leader that this node follows */
extern mg_member_id mg_node_leader(const mg_node *node);	/* 0: none known */

/*
 * Lowest seqno that this node and every data member of the view that is not
 * suspected has committed, or has on disk (durability `applied`, `all`).  May
 * fall back for a moment after a change of leader; 0 while no quorum is heard.
 */
extern mg_seqno mg_node_applied(const mg_node *node);
extern mg_seqno mg_node_flushed_everywhere(const mg_node *node);
extern const char *mg_node_state_name(mg_node_state state);
extern const char *mg_node_reason(const mg_node *node);		/* why it is in this state */
extern const mg_view *mg_node_view(const mg_node *node);
extern mg_member_id mg_node_self(const mg_node *node);
extern mg_seqno mg_node_delivered(const mg_node *node);
/* An arbitrator: seqno of the change of members that it has acknowledged, without which it votes for nobody; 0: none. */
extern mg_seqno mg_node_stands_for(const mg_node *node);
extern mg_seqno mg_node_held(const mg_node *node);
extern mg_seqno mg_node_ordered(const mg_node *node);
extern uint64_t mg_node_unordered(const mg_node *node);	/* own submissions without a place yet */
extern uint64_t mg_node_damaged(const mg_node *node);		/* frames refused */

/* After MG_FX_SNAPSHOT: the members that the one who refused knows; else an empty view. */
extern const mg_view *mg_node_offer(const mg_node *node);

/* Lowest seqno that some member or the certification still needs from the log. */
extern mg_seqno mg_node_log_needed(const mg_node *node);

/* The same without the others: below it this node can do without. */
extern mg_seqno mg_node_log_needed_here(const mg_node *node);

/* Of which cluster a saved state (MG_FX_SAVE) is; false if it cannot be told. */
extern bool mg_state_cluster(const void *bytes, size_t len, mg_uuid *uuid);

typedef struct mg_peer_info
{
	mg_seqno	held;
	mg_seqno	flushed;
	mg_seqno	committed;
	mg_seqno	joined_at;		/* the view that took it in, 0 if that was before this node's time */
	int64_t		heard_us;		/* time of its last word */
	bool		desynced;		/* flow control does not wait for it */
	mg_seqno	pinned;			/* all keep what is behind it, 0: nothing */
} mg_peer_info;

/* False if nothing is known of the member; for this node itself it is exact. */
extern bool mg_node_peer_info(const mg_node *node, mg_member_id member, mg_peer_info *info);

#endif							/* MG_CORE_NODE_H */
