/*
 * core/group/group.h - what the parts of a node share: its state, and who does
 * what.  Internal to the core; the world sees core/node.h.
 *
 *	 effect.c	what goes out			peer.c	  whom it knows, frames to them
 *	 queue.c	entries on their way	quorum.c  who has agreed to what
 *	 elect.c	epochs and leaders		lead.c	  ordering, flow control, membership
 *	 deliver.c	the one order, out		join.c	  in and out of the group
 *	 state.c	what is durable			receive.c what comes in
 *
 * Three positions run over one sequence of entries,
 *		delivered <= appended (held) <= ordered,
 * and every handler only moves one of them.  Nothing else is remembered about
 * what is on its way, so a lost or doubled frame can only delay.
 *
 * An epoch has one leader.  `promised` is the highest epoch that this node has
 * heard a serious candidate or a leader of; it takes part in `epoch` only as
 * long as nothing higher is promised (mg_active).
 */
#ifndef MG_CORE_GROUP_GROUP_H
#define MG_CORE_GROUP_GROUP_H

#include "core/node.h"

/* Deliberate bugs, for showing that the simulator finds them (test/sim). */
#ifndef MG_CANARY
#define MG_CANARY 0
#endif

#define MG_ENTRY_MASK		(MG_ENTRIES_MAX - 1)
#define MG_PENDING_MASK		(MG_PENDING_MAX - 1)
#define MG_FAILED_CAP		MG_ENTRIES_MAX
#define MG_RESERVATIONS_MAX	1024
#define MG_EPOCHS_MAX		256			/* epochs of the log whose beginnings are remembered */
#define MG_JOIN_RETRY_US	100000
#define MG_JOIN_NEAR		256			/* a learner this close to the tip becomes a member */
#define MG_FLOOR_DELAY_US	50000		/* submissions on their way through shared memory */
#define MG_ORDER_BATCH_MAX	1024
#define MG_DELIVER_BATCH_MAX	1024	/* in one go: a round stays short */
#define MG_ELECT_ROOM		64			/* entries kept free for the views of elections */
#define MG_GONE_US			2000000
#define MG_ACK_LAZY_US		1000
#define MG_SAMPLES_MAX		32
#define MG_LEAD_REPEAT_US	50000		/* LEAD again to who has not answered */
#define MG_ELECT_STEP_US	15000		/* candidates begin so far apart */
#define MG_LEADER_FRAMES	3			/* one may be late, from before it was cut off */
#define MG_ELECT_RETRY_US	150000
#define MG_FC_PATIENCE_US	200000		/* who commits nothing for so long does not slow the others */
#define MG_UNCOMMITTED_MAX	(MG_ENTRIES_MAX / 4)
#define MG_EPOCH_LEAP_MAX	(UINT64_C(1) << 20)
#define MG_IDS_PER_EPOCH	256			/* member ids that a leader gives */
#define MG_LIFE_SHIFT		40			/* a message's number: life of its origin, then a count from 1 */

typedef struct mg_pending
{
	uint64_t	msgno;			/* 0: empty */
	uint8_t    *bytes;
	uint32_t	len;
	uint8_t		flags;
	int32_t		slot;			/* own messages only, else -1 */
	int64_t		sent_us;
	mg_seqno	missed_at;		/* the last entry that was ordered from here without its payload; outlives the message */
} mg_pending;

/* Unordered messages of one origin, by msgno. */
typedef struct mg_origin
{
	mg_member_id id;
	bool		open;			/* leader: next_msgno is the origin's own word in this epoch */
	uint64_t	next_msgno;		/* the next to be ordered, 0: not known */
	mg_pending *ring;			/* MG_PENDING_MAX, allocated with the origin */
} mg_origin;

typedef struct mg_entry
{
	mg_seqno	seqno;			/* 0: empty */
	mg_entry_header h;
	uint8_t    *payload;
	uint32_t	len;
	bool		have;
	int32_t		slot;			/* own submission, else -1 */
	int64_t		since_us;
} mg_entry;

typedef enum mg_peer_kind
{
	MG_PEER_NONE = 0,
	MG_PEER_SEED,				/* an address to ask for admission */
	MG_PEER_LEARNER,			/* leader only: fetches, not in the view yet */
	MG_PEER_MEMBER,
	MG_PEER_GONE				/* left the view; kept a moment so that it gets to know */
} mg_peer_kind;

typedef struct mg_peer
{
	mg_peer_kind kind;
	char		address[MG_ADDRESS_BYTES_MAX];
	char		name[MG_NAME_BYTES_MAX];
	uint64_t	incarnation;	/* 0: not known yet */
	mg_member_id member;
	uint32_t	life;
	uint8_t		role;
	uint8_t		segment;
	uint32_t	weight;			/* of a learner, and of a member that acknowledges, as its configuration says */
	int64_t		heard_us;
	char		sql_address[MG_ADDRESS_BYTES_MAX];
	bool		moved;			/* its address is newer than that in the view */
	bool		link_lost;		/* its connection broke and was not made again */

	/* what it has acknowledged in this epoch */
	bool		acked;
	mg_seqno	held;
	mg_seqno	flushed;
	mg_seqno	delivered;
	mg_seqno	committed;
	mg_seqno	min_seen;
	bool		desynced;
	mg_seqno	pinned;			/* all keep the log behind it, for somebody that it gives its data; 0: no */
	int64_t		progress_us;	/* when it last was at the tip, or came nearer */
	int64_t		commit_us;		/* when `committed` last moved */
	int64_t		lead_us;		/* LEAD was sent */

	uint64_t	vote_epoch;		/* it answered our asking for this epoch ... */
	uint8_t		vote_kind;		/* ... of this kind, with yes */

	mg_seqno	wait_delivered; /* learner: admitted once the leader has delivered this */
	bool		near;			/* learner: close enough to the tip */
	bool		admitted;		/* learner: told where to start */
	bool		leaving;		/* asked to leave */
	bool		replaced;		/* its node asks to join anew: it has lost its identity */
	mg_seqno	joined_at;		/* flow control waits for it only once it has committed this */
	int64_t		gone_us;		/* MG_PEER_GONE: since when */
	mg_buf		out;			/* frame being built for this peer alone */
} mg_peer;

/* A bounded queue of seqnos, ascending. */
typedef struct mg_seqno_queue
{
	mg_seqno	ring[MG_FAILED_CAP];
	uint32_t	head,
				tail;
} mg_seqno_queue;

typedef struct mg_reservation
{
	uint64_t	trx_id;
	mg_seqno	seqno;
} mg_reservation;

typedef struct mg_floor_sample
{
	int64_t		at_us;
	mg_seqno	committed;
} mg_floor_sample;

/* An epoch's first entry in the own log. */
typedef struct mg_epoch_start
{
	uint64_t	epoch;
	mg_seqno	first;
} mg_epoch_start;

typedef enum mg_vote_kind
{
	MG_VOTE_NONE = 0,
	MG_VOTE_ASKING,				/* would you? nothing is promised */
	MG_VOTE_REAL,
	MG_VOTE_HANDOVER			/* real, and the leader itself wants it */
} mg_vote_kind;

/* Why somebody is no member any more. */
typedef enum mg_no_member
{
	MG_NO_MEMBER_VIEW = 0,		/* the view was changed */
	MG_NO_MEMBER_LOG,			/* the log does not reach back to what it needs */
	MG_NO_MEMBER_EARLIER_LIFE	/* the member has been seen in a later life than this process's */
} mg_no_member;

/* Can a snapshot help somebody who is refused? */
typedef enum mg_refusal
{
	MG_REFUSED = 0,				/* no */
	MG_REFUSED_TOO_OLD,			/* yes, and nothing of this cluster is lost with the data that it has */
	MG_REFUSED_DIFFERS			/* yes, but it has transactions that this cluster has not */
} mg_refusal;

struct mg_node
{
	mg_node_config config;
	uint64_t	name_hash;
	uint64_t	cluster_hash;	/* name and uuid */
	mg_node_state state;
	char		reason[MG_REASON_BYTES_MAX];
	int64_t		now_us;
	int64_t		last_step_us;
	uint64_t	random;			/* for election delays; seeded by the incarnation */

	mg_uuid		uuid;			/* of the data */
	mg_seqno	position;		/* deliver only above this */
	mg_seqno	base;			/* the queue began above this */

	/* identity and promises: durable (state.c) */
	mg_member_id self;			/* 0: not a member */
	uint32_t	life;
	uint64_t	promised;
	mg_member_id voted;			/* for whom, in `promised` */
	mg_view		latest;			/* newest in the own log */
	mg_view		old;			/* the members before latest.members_id */

	uint64_t	life_promised;	/* `promised` when this life began, or `doubt` */
	mg_seqno	at_seqno;		/* the entry that the data stood at when the log began anew behind it ... */
	uint64_t	at_epoch;		/* ... and its epoch */
	uint64_t	data_limit;		/* joining: no transaction of the data is of a higher epoch */
	uint64_t	doubt;			/* not 0: the data is ahead of the log since this was promised */
	mg_seqno	recovered;		/* the own log's end when this life began */
	mg_seqno	arbitrated;		/* arbitrator: the change of members it stands for ... */
	uint64_t	arbitrated_epoch;	/* ... and whose that is */
	uint64_t	told_epoch;		/* arbitrator: whose leader has told it of `latest`, in this process */

	/* epoch */
	uint64_t	epoch;
	mg_member_id leader;		/* 0: none */
	bool		leading;
	mg_seqno	lead_start;		/* the epoch's first entry: acknowledgements below it prove nothing */
	int64_t		leader_us;		/* heard of it, or took part in electing */
	uint32_t	leader_frames;	/* heard from it since this node was outside the primary component */
	int64_t		no_leader_us;	/* since when there is none, 0: there is one */
	mg_vote_kind electing;
	uint64_t	elect_epoch;
	int64_t		elect_at;		/* 0: not set */
	uint64_t	seen_epoch;		/* highest that anybody spoke of */
	bool		resumed;		/* began with an identity: in search of the others */

	mg_view		view;			/* delivered */

	mg_seqno	delivered;
	mg_seqno	appended;
	mg_seqno	ordered;
	mg_seqno	flushed;
	mg_seqno	committed;
	uint32_t	generation;		/* of the log: counts truncations */
	mg_seqno	heard_delivered; /* known as agreed up to here: some member has delivered it */
	mg_seqno	log_first;		/* first seqno of the own log */
	mg_seqno	sync_at;		/* SYNCED once this is committed here, 0: no wait */
	mg_epoch_start epochs[MG_EPOCHS_MAX];
	uint32_t	n_epochs;

	/* stamps: see take_stamps in deliver.c */
	mg_seqno	known_upto;		/* verdicts up to here come from stamps */
	mg_seqno	saved_known_upto;	/* of the earlier life */
	mg_seqno	stamped_upto;	/* stamps seen so far decide up to here */
	mg_seqno_queue stamped_failed; /* failed by stamp, at or below known_upto, not delivered yet */
	mg_seqno_queue own_failed;	/* failed here, not named by a delivered stamp */
	mg_seqno	tail_cert_upto;	/* of the last entry in the queue */
	mg_seqno	tail_floor;
	mg_seqno	delivered_cert_upto;
	mg_seqno	delivered_floor;
	mg_seqno	last_floor;		/* leader: never goes back */

	/* from where on the own log is enough to go on from after a crash: see mg_mark_floor */
	mg_seqno	safe_floor;
	mg_seqno	mark_floor;
	mg_seqno	mark_at;		/* 0: no mark */
	mg_seqno	mark_by;		/* 0: not known yet */

	mg_cert    *cert;
	mg_entry   *entries;		/* MG_ENTRIES_MAX; none for an arbitrator */

	mg_peer		peers[MG_PEERS_MAX];
	mg_origin	origins[MG_MEMBERS_MAX + 1];
	uint64_t	payload_bytes;
	uint64_t	next_msgno;		/* own messages */
	uint64_t	own_undelivered; /* own messages below it are delivered */
	mg_seqno	own_seen[MG_PENDING_MAX];	/* last_seen of those that are not, by number */
	mg_reservation reservations[MG_RESERVATIONS_MAX];
	uint32_t	n_reservations;
	mg_floor_sample samples[MG_SAMPLES_MAX];
	uint32_t	n_samples;
	uint32_t	order_turn;		/* round robin over origins */

	mg_buf		out_all;		/* frame being built for all data members */
	mg_buf		scratch;
	bool		ack_due;		/* to all, at the end of this round */
	uint32_t	ack_urgent;		/* peers that wait for an acknowledgement */
	int64_t		ack_lazy_us;	/* the others get it by then at the latest, 0: they have it */
	int64_t		last_ack_us;
	int64_t		last_join_us;
	int64_t		join_since_us;
	int64_t		last_fetch_us;
	int64_t		next_fetch_us;
	int64_t		handover_us;
	int64_t		commit_us;		/* when `committed` last moved */
	uint64_t	frames_damaged;
	bool		answer_due;		/* a command waits for its answer */
	char		loss[MG_REASON_BYTES_MAX];	/* what a forced bootstrap may lose: a part of its answer */
	bool		leave_asked;
	bool		more_to_deliver;	/* the last round did not get to the end */
	bool		desynced;
	mg_seqno	pinned;
	bool		wants_snapshot;	/* joining: whatever its data is */
	mg_view	   *offer;			/* who could give a snapshot, NULL: none is needed */
	bool		over;			/* EVICTED was said: silent from now on */
	bool		overflown;		/* the own log holds more than fits */
	int64_t		last_entries_us;
	mg_effects *fx;				/* during a step */
};

/* Takes part in its epoch: nothing higher is promised. */
static inline bool
mg_active(const mg_node *node)
{
	return node->epoch != 0 && node->leader != 0 &&
		(node->promised == node->epoch || MG_CANARY == 3);
}

static inline mg_entry *
mg_entry_at(const mg_node *node, mg_seqno seqno)
{
	return &node->entries[seqno & MG_ENTRY_MASK];
}

static inline bool
mg_is_arbitrator(const mg_node *node)
{
	return node->config.role == MG_ROLE_ARBITRATOR;
}

/* ---- effect.c ---- */
extern mg_effect *mg_fx_add(mg_node *node, mg_effect_type type);
extern size_t mg_fx_text(mg_node *node, const char *text);
extern void mg_fx_log(mg_node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern void mg_fx_answer(mg_node *node, bool ok, const char *text, const char *hint);
extern void mg_node_shift(mg_node *node, mg_node_state to, const char *why);
extern void mg_node_shift_synced(mg_node *node, const char *why);

/* ---- state.c ---- */
extern void mg_state_save(mg_node *node);
extern void mg_state_restore(mg_node *node, const void *bytes, size_t len);
extern void mg_state_recover(mg_node *node, const mg_input *in);
extern void mg_state_start(mg_node *node, bool intact);
extern void mg_log_from_data(mg_node *node);
extern bool mg_still_counts(const mg_node *node);
extern void mg_state_rehash(mg_node *node);

/* ---- peer.c ---- */
extern bool mg_address_is_valid(const char *address);
extern void mg_read_sql_address(mg_reader *r, char *to, size_t cap);
extern int	mg_peer_of_incarnation(const mg_node *node, uint64_t incarnation);
extern int	mg_peer_of_member(const mg_node *node, mg_member_id id);
extern int	mg_peer_of_address(const mg_node *node, const char *address);
extern void mg_peer_moved(mg_node *node, int i, const char *address);
extern int	mg_peer_add(mg_node *node, mg_peer_kind kind, const char *address);
extern void mg_peer_remove(mg_node *node, int i);
extern void mg_peer_is_member(mg_node *node, int i, const mg_member *member);
extern void mg_peer_forget_acks(mg_peer *p);
extern void mg_peers_follow(mg_node *node, const mg_view *view, bool drop_others);
extern bool mg_member_is_heard(const mg_node *node, mg_member_id id);
extern int64_t mg_suspect_us(const mg_node *node, const mg_peer *p);
extern int64_t mg_inactive_us(const mg_node *node, const mg_peer *p);

extern size_t mg_msg_all(mg_node *node, mg_msg_type type);
extern size_t mg_msg_peer(mg_node *node, int i, mg_msg_type type);
extern void mg_send_frames(mg_node *node);
extern void mg_put_payload(mg_node *node, const mg_pending *p);
extern bool mg_message_is_whole(mg_node *node, const mg_reader *r);
extern void mg_put_ack(mg_node *node);
extern void mg_put_acks(mg_node *node);
extern void mg_ack_wanted(mg_node *node, mg_seqno seqno);
extern void mg_put_fetch(mg_node *node, int i);
extern void mg_fetch_missing(mg_node *node);
extern mg_seqno mg_min_seen(mg_node *node);

/* ---- queue.c ---- */
extern void mg_queue_push(mg_seqno_queue *q, mg_seqno s);
extern bool mg_queue_empty(const mg_seqno_queue *q);
extern mg_seqno mg_queue_front(const mg_seqno_queue *q);
extern uint32_t mg_queue_above(const mg_seqno_queue *q, mg_seqno s);
extern void mg_payload_free(mg_node *node, uint8_t *bytes, uint32_t len);
extern uint8_t *mg_payload_copy(mg_node *node, const void *bytes, size_t len);
extern mg_origin *mg_origin_find(mg_node *node, mg_member_id id);
extern mg_origin *mg_origin_get(mg_node *node, mg_member_id id);
extern void mg_origin_clear(mg_node *node, mg_origin *o);
extern void mg_origin_expect(mg_node *node, mg_origin *o, uint64_t next_msgno);
extern void mg_entry_add(mg_node *node, const mg_entry_header *h, uint8_t *payload, uint32_t len);
extern void mg_entry_drop(mg_node *node, mg_seqno seqno);
extern void mg_append_ready(mg_node *node);
extern void mg_unorder(mg_node *node, mg_seqno to);
extern void mg_truncate(mg_node *node, mg_seqno to);
extern void mg_rebase(mg_node *node, mg_seqno base);
extern uint64_t mg_epoch_of(const mg_node *node, mg_seqno seqno);
extern void mg_own_stream_begin(mg_node *node);
extern void mg_resend_own(mg_node *node, bool all);

/* ---- quorum.c ---- */
extern bool mg_is_joint(const mg_node *node);
extern bool mg_quorum_heard(const mg_node *node, const mg_view *without);
extern bool mg_quorum_votes(const mg_node *node);
extern bool mg_quorum_has(const mg_node *node, const mg_entry *e);

/* ---- deliver.c ---- */
extern void mg_inconsistent(mg_node *node, const char *why);
extern void mg_mark_floor(mg_node *node);
extern void mg_look_ahead(mg_node *node, const mg_entry_header *h, mg_seqno seqno);
extern void mg_own_submissions_unknown(mg_node *node);
extern void mg_deliver_ready(mg_node *node, uint32_t max);
extern void mg_give_up_membership(mg_node *node, const char *why);

/* ---- lead.c ---- */
extern mg_seqno mg_cluster_floor(mg_node *node);
extern void mg_order_pending(mg_node *node);
extern void mg_order_view(mg_node *node, mg_view *view);
extern void mg_lead_membership(mg_node *node);

/* ---- elect.c ---- */
extern bool mg_may_lead(const mg_member *member);
extern bool mg_leader_is_there(const mg_node *node);
extern mg_member_id mg_first_id(uint64_t epoch);
extern void mg_elect_tick(mg_node *node);
extern void mg_become_leader(mg_node *node);
extern void mg_put_lead(mg_node *node, int i);
extern void mg_tell_arbitrators(mg_node *node, bool at_once);
extern void mg_on_vote_request(mg_node *node, const mg_frame_header *fh, int i, mg_reader *r);
extern void mg_on_vote_reply(mg_node *node, int i, mg_reader *r);
extern void mg_on_lead(mg_node *node, const mg_frame_header *fh, int i, mg_reader *r);
extern void mg_on_handover(mg_node *node, int i);
extern void mg_no_leader(mg_node *node, const char *why);
extern void mg_put_not_member(mg_node *node, int i, mg_member_id whom, mg_no_member why, uint64_t incarnation);
extern void mg_on_earlier_life(mg_node *node, const mg_frame_header *fh, mg_reader *r);
extern void mg_on_not_member(mg_node *node, const mg_frame_header *fh, mg_reader *r);

/* ---- join.c ---- */
extern void mg_put_join_request(mg_node *node, int i);
extern void mg_put_refuse(mg_node *node, int i, mg_refusal kind, const char *text, const char *hint);
extern void mg_on_join_request(mg_node *node, const mg_frame_header *fh, mg_reader *r);
extern void mg_on_join_reply(mg_node *node, const mg_frame_header *fh, mg_reader *r);
extern void mg_on_refuse(mg_node *node, mg_reader *r, bool same_version);
extern void mg_join_failed(mg_node *node, const char *text, const char *hint);
extern void mg_join_tick(mg_node *node);
extern void mg_on_bootstrap(mg_node *node, const mg_uuid *uuid, bool force);
extern void mg_on_join(mg_node *node, const char *addresses, bool with_snapshot);
extern void mg_on_leave(mg_node *node);
extern void mg_leave_tick(mg_node *node);

/* ---- receive.c ---- */
extern void mg_on_receive(mg_node *node, const void *bytes, size_t len);
extern void mg_on_log_read(mg_node *node, const mg_input *in);

#endif							/* MG_CORE_GROUP_GROUP_H */
