/*
 * core/node.c - the node's state machine: peers, views, order, delivery.
 *
 * How: three positions run over one sequence of entries,
 *		delivered <= appended (held) <= ordered,
 * and every handler only moves one of them: an ORDER or fetched entries move
 * `ordered`; a payload that was missing moves `appended`; acknowledgements move
 * `delivered`.  Nothing else is remembered about what is on its way, so a lost
 * or doubled frame can only delay.
 *
 * Rejected: a separate state for each in-flight entry with its own timers
 * (more states than one can hold in mind), and acknowledging single entries
 * instead of a position (quadratic traffic, no batching).
 */
#include "core/node.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/writeset.h"

#define ENTRY_MASK		(MG_ENTRIES_MAX - 1)
#define PENDING_MASK	(MG_PENDING_MAX - 1)
#define FAILED_CAP		MG_ENTRIES_MAX
#define RESERVATIONS_MAX 1024
#define JOIN_RETRY_US	100000
#define JOIN_NEAR		256		/* a learner this close to the tip becomes a member */
#define FLOOR_DELAY_US	50000	/* submissions on their way through shared memory */
#define ORDER_BATCH_MAX	1024
#define GONE_US			2000000
#define ACK_LAZY_US		1000
#define LINGER_ACK_US	50000
#define SAMPLES_MAX		32

typedef struct pending
{
	uint64_t	msgno;			/* 0: empty */
	uint8_t    *bytes;
	uint32_t	len;
	uint8_t		flags;
	int32_t		slot;			/* own messages only, else -1 */
	mg_seqno	last_seen;		/* own messages only */
	int64_t		sent_us;
} pending;

/* Unordered messages of one origin, by msgno. */
typedef struct origin
{
	mg_member_id id;
	uint64_t	next_msgno;		/* the next to be ordered */
	pending    *ring;			/* MG_PENDING_MAX, allocated with the origin */
} origin;

typedef struct entry
{
	mg_seqno	seqno;			/* 0: empty */
	mg_entry_header h;
	uint8_t    *payload;
	uint32_t	len;
	bool		have;
	int32_t		slot;			/* own submission, else -1 */
	mg_seqno	last_seen;		/* own submission */
	int64_t		since_us;
} entry;

typedef enum peer_kind
{
	PEER_NONE = 0,
	PEER_SEED,					/* an address to ask for admission */
	PEER_LEARNER,				/* leader only: fetches, not in the view yet */
	PEER_MEMBER,
	PEER_GONE					/* left the view; kept a moment so that it gets to know */
} peer_kind;

typedef struct peer
{
	peer_kind	kind;
	char		address[MG_ADDRESS_BYTES_MAX];
	char		name[MG_NAME_BYTES_MAX];
	uint64_t	incarnation;	/* 0: not known yet */
	mg_member_id member;
	int64_t		heard_us;
	mg_seqno	held;
	mg_seqno	flushed;
	mg_seqno	delivered;
	mg_seqno	committed;
	mg_seqno	min_seen;
	mg_seqno	wait_delivered; /* learner: admitted once the leader has delivered this */
	bool		near;			/* learner: close enough to the tip */
	bool		admitted;		/* learner: told where to start */
	bool		leaving;		/* asked to leave */
	bool		restarted;		/* its node asks to join again under another incarnation */
	mg_seqno	joined_at;		/* flow control waits for it only once it has committed this */
	int64_t		gone_us;		/* PEER_GONE: since when */
	mg_buf		out;			/* frame being built for this peer alone */
} peer;

/* A bounded queue of seqnos, ascending. */
typedef struct seqno_queue
{
	mg_seqno	ring[FAILED_CAP];
	uint32_t	head,
				tail;
} seqno_queue;

typedef struct reservation
{
	uint64_t	trx_id;
	mg_seqno	seqno;
} reservation;

typedef struct floor_sample
{
	int64_t		at_us;
	mg_seqno	committed;
} floor_sample;

struct mg_node
{
	mg_node_config config;
	uint64_t	cluster_hash;
	mg_node_state state;
	char		reason[MG_REASON_BYTES_MAX];
	int64_t		now_us;
	int64_t		last_tick_us;

	mg_uuid		uuid;			/* of the data */
	mg_seqno	position;		/* deliver only above this */
	mg_seqno	base;			/* the queue began above this */
	mg_seqno	last_floor;		/* leader: never goes back */
	mg_view		view;			/* delivered */
	mg_member_id self;			/* 0: not a member */
	bool		view_in_flight;	/* leader: a view is ordered and not delivered */

	mg_seqno	delivered;
	mg_seqno	appended;
	mg_seqno	ordered;
	mg_seqno	flushed;
	mg_seqno	committed;
	mg_seqno	known_upto;		/* verdicts up to here come from stamps */
	mg_seqno	stamped_upto;	/* stamps seen so far decide up to here */
	mg_seqno	heard_delivered; /* some member has delivered up to here */
	mg_seqno	log_first;		/* first seqno of the own log */
	mg_seqno	sync_at;		/* SYNCED once this is committed here, 0: no wait */
	seqno_queue stamped_failed; /* failed by stamp, not delivered here yet */
	seqno_queue own_failed;		/* failed here, not named by a stamp yet (leader: to be stamped) */
	mg_cert    *cert;
	entry	   *entries;		/* MG_ENTRIES_MAX */

	peer		peers[MG_PEERS_MAX];
	origin		origins[MG_MEMBERS_MAX + 1];
	uint64_t	payload_bytes;
	uint64_t	next_msgno;		/* own messages */
	reservation reservations[RESERVATIONS_MAX];
	uint32_t	n_reservations;
	floor_sample samples[SAMPLES_MAX];
	uint32_t	n_samples;
	uint32_t	order_turn;		/* round robin over origins */

	mg_buf		out_all;		/* frame being built for all members */
	mg_buf		scratch;
	bool		ack_due;		/* to all, at the end of this round */
	uint32_t	ack_urgent;		/* peers that wait for an acknowledgement */
	int64_t		ack_lazy_us;	/* the others get it by then at the latest, 0: they have it */
	int64_t		last_ack_us;
	int64_t		last_join_us;
	int64_t		join_since_us;
	int64_t		last_fetch_us;
	int64_t		next_fetch_us;
	uint64_t	frames_damaged;
	bool		answer_due;		/* a command waits for its answer */
	bool		leave_asked;
	bool		over;			/* EVICTED was said: silent from now on */
	int64_t		left_us;		/* left gracefully then: goes on acknowledging for a moment */
	int64_t		last_entries_us;
	mg_effects *fx;				/* during a step */
};

static bool member_is_heard(const mg_node *node, mg_member_id id);

/* ------------------------------------------------------------------ effects */

void
mg_effects_reset(mg_effects *effects)
{
	effects->n = 0;
	mg_buf_reset(&effects->bytes);
}

void
mg_effects_free(mg_effects *effects)
{
	mg_free(effects->list);
	mg_buf_free(&effects->bytes);
	memset(effects, 0, sizeof(*effects));
}

static mg_effect *
fx_add(mg_node *node, mg_effect_type type)
{
	mg_effects *fx = node->fx;
	mg_effect  *e;

	if (fx->n == fx->cap)
	{
		fx->cap = fx->cap ? fx->cap * 2 : 256;
		fx->list = mg_realloc(fx->list, fx->cap * sizeof(mg_effect));
	}
	e = &fx->list[fx->n++];
	memset(e, 0, sizeof(*e));
	e->type = type;
	e->slot = -1;
	e->peer = -1;
	return e;
}

static size_t
fx_text(mg_node *node, const char *text)
{
	size_t		at = node->fx->bytes.len;

	mg_buf_put(&node->fx->bytes, text, strlen(text) + 1);
	return at;
}

static void fx_log(mg_node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void
fx_log(mg_node *node, const char *format, ...)
{
	char		text[512];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	size_t		at = fx_text(node, text);

	fx_add(node, MG_FX_LOG)->at = at;
}

static void
fx_answer(mg_node *node, bool ok, const char *text, const char *hint)
{
	size_t		at,
				hint_at;
	mg_effect  *e;

	if (!node->answer_due)
		return;
	node->answer_due = false;
	at = fx_text(node, text);
	hint_at = fx_text(node, hint);
	e = fx_add(node, MG_FX_ANSWER);
	e->ok = ok;
	e->at = at;
	e->hint_at = hint_at;
}

static void
node_shift(mg_node *node, mg_node_state to, const char *why)
{
	if (node->state == to)
		return;
	fx_log(node, "node: state %s -> %s: %s", mg_node_state_name(node->state), mg_node_state_name(to), why);
	node->state = to;
	snprintf(node->reason, sizeof(node->reason), "%s", why);
	fx_add(node, MG_FX_STATE);
}

/* ------------------------------------------------------------- small helpers */

static uint64_t
hash_text(const char *text)
{
	uint64_t	h = UINT64_C(0x9e3779b97f4a7c15);

	for (; *text; text++)
		h = mg_mix64(h ^ (uint8_t) *text);
	return h;
}

static void
queue_push(seqno_queue *q, mg_seqno s)
{
	MG_ASSERT(q->tail - q->head < FAILED_CAP);
	q->ring[q->tail++ & (FAILED_CAP - 1)] = s;
}

static bool
queue_empty(const seqno_queue *q)
{
	return q->head == q->tail;
}

static mg_seqno
queue_front(const seqno_queue *q)
{
	return q->ring[q->head & (FAILED_CAP - 1)];
}

static entry *
entry_at(mg_node *node, mg_seqno seqno)
{
	return &node->entries[seqno & ENTRY_MASK];
}

static void
payload_free(mg_node *node, uint8_t *bytes, uint32_t len)
{
	if (bytes == NULL)
		return;
	node->payload_bytes -= len;
	mg_free(bytes);
}

static uint8_t *
payload_copy(mg_node *node, const void *bytes, size_t len)
{
	uint8_t    *copy = mg_realloc(NULL, len ? len : 1);

	memcpy(copy, bytes, len);
	node->payload_bytes += len;
	return copy;
}

static bool
is_leader(const mg_node *node)
{
	return node->self != 0 && node->view.leader == node->self;
}

static bool
address_is_valid(const char *address)
{
	const char *colon = strrchr(address, ':');

	if (colon == NULL || colon == address || colon[1] == '\0' || strlen(colon + 1) > 5)
		return false;
	return strspn(colon + 1, "0123456789") == strlen(colon + 1);
}

/* -------------------------------------------------------------------- origins */

static origin *
origin_find(mg_node *node, mg_member_id id)
{
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		if (node->origins[i].id == id)
			return &node->origins[i];
	return NULL;
}

static void
origin_clear(mg_node *node, origin *o)
{
	if (o->ring != NULL)
	{
		for (int i = 0; i < MG_PENDING_MAX; i++)
			payload_free(node, o->ring[i].bytes, o->ring[i].len);
		mg_free(o->ring);
	}
	memset(o, 0, sizeof(*o));
}

static origin *
origin_get(mg_node *node, mg_member_id id)
{
	origin	   *o = origin_find(node, id);

	if (o != NULL || id == 0)
		return o;
	o = origin_find(node, 0);
	if (o == NULL)
	{
		/* Every place is taken by somebody who left: forget those. */
		for (int i = 0; i <= MG_MEMBERS_MAX; i++)
			if (mg_view_find(&node->view, node->origins[i].id) < 0 && node->origins[i].id != node->self)
				origin_clear(node, &node->origins[i]);
		o = origin_find(node, 0);
		if (o == NULL)
			return NULL;
	}
	o->id = id;
	o->next_msgno = 1;
	o->ring = mg_alloc(MG_PENDING_MAX * sizeof(pending));
	return o;
}

/* The message has a place in the order now: everything up to it is past. */
static void
origin_advance(mg_node *node, origin *o, uint64_t msgno)
{
	while (o->next_msgno <= msgno)
	{
		pending    *p = &o->ring[o->next_msgno & PENDING_MASK];

		if (p->msgno == o->next_msgno)
		{
			payload_free(node, p->bytes, p->len);
			memset(p, 0, sizeof(*p));
		}
		else if (msgno - o->next_msgno > MG_PENDING_MAX)
			o->next_msgno = msgno - MG_PENDING_MAX;	/* nothing that old can be there */
		o->next_msgno++;
	}
}

/* ---------------------------------------------------------------------- peers */

static int
peer_of_incarnation(const mg_node *node, uint64_t incarnation)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind != PEER_NONE && node->peers[i].incarnation == incarnation && incarnation != 0)
			return i;
	return -1;
}

static int
peer_of_member(const mg_node *node, mg_member_id id)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == PEER_MEMBER && node->peers[i].member == id)
			return i;
	return -1;
}

static int
peer_of_address(const mg_node *node, const char *address)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind != PEER_NONE && strcmp(node->peers[i].address, address) == 0)
			return i;
	return -1;
}

static int
peer_add(mg_node *node, peer_kind kind, const char *address)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		peer	   *p = &node->peers[i];
		mg_effect  *e;
		size_t		at;

		if (p->kind != PEER_NONE)
			continue;
		mg_buf_reset(&p->out);
		p->kind = kind;
		snprintf(p->address, sizeof(p->address), "%s", address);
		p->heard_us = node->now_us;
		at = fx_text(node, address);
		e = fx_add(node, MG_FX_CONNECT);
		e->peer = i;
		e->at = at;
		return i;
	}
	return -1;
}

static void
peer_remove(mg_node *node, int i)
{
	mg_buf		out = node->peers[i].out;

	if (node->peers[i].kind == PEER_NONE)
		return;
	mg_buf_reset(&out);
	memset(&node->peers[i], 0, sizeof(peer));
	node->peers[i].out = out;
	fx_add(node, MG_FX_DISCONNECT)->peer = i;
}

static uint32_t
members_mask(const mg_node *node)
{
	uint32_t	mask = 0;

	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == PEER_MEMBER)
			mask |= UINT32_C(1) << i;
	return mask;
}

/* Peers follow the view: a peer for every other member, none for who left. */
static void
peers_follow_view(mg_node *node, const mg_view *view)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		peer	   *p = &node->peers[i];
		int			m;

		if (p->kind == PEER_NONE)
			continue;
		m = mg_view_find_incarnation(view, p->incarnation);
		if (m >= 0)
		{
			if (p->kind != PEER_MEMBER || p->member != view->members[m].id)
				p->heard_us = node->now_us;
			p->kind = PEER_MEMBER;
			p->member = view->members[m].id;
			snprintf(p->name, sizeof(p->name), "%s", view->members[m].name);
		}
		else if (p->kind == PEER_MEMBER)
		{
			p->kind = PEER_GONE;
			p->gone_us = node->now_us;
		}
	}
	for (uint32_t m = 0; m < view->n; m++)
	{
		const mg_member *member = &view->members[m];
		int			i;

		if (member->incarnation == node->config.incarnation ||
			peer_of_incarnation(node, member->incarnation) >= 0)
			continue;
		i = peer_of_address(node, member->address);
		if (i < 0)
			i = peer_add(node, PEER_MEMBER, member->address);
		if (i < 0)
			continue;			/* more peers than MG_PEERS_MAX: cannot be, views are smaller */
		node->peers[i].kind = PEER_MEMBER;
		node->peers[i].incarnation = member->incarnation;
		node->peers[i].member = member->id;
		node->peers[i].heard_us = node->now_us;
		snprintf(node->peers[i].name, sizeof(node->peers[i].name), "%s", member->name);
	}
}

/* ------------------------------------------------------------------- sending */

static void
frame_open(mg_node *node, mg_buf *frame)
{
	if (frame->len == 0)
	{
		mg_frame_header h = {
			.incarnation = node->config.incarnation,
			.cluster_hash = node->cluster_hash,
			.epoch = node->view.epoch,
			.view_id = node->view.id,
			.member = node->self
		};

		mg_frame_begin(frame, &h);
	}
}

static size_t
msg_all(mg_node *node, mg_msg_type type)
{
	frame_open(node, &node->out_all);
	return mg_msg_begin(&node->out_all, type);
}

static size_t
msg_peer(mg_node *node, int i, mg_msg_type type)
{
	frame_open(node, &node->peers[i].out);
	return mg_msg_begin(&node->peers[i].out, type);
}

static void
frame_send(mg_node *node, mg_buf *frame, uint32_t mask)
{
	if (frame->len == 0)
		return;
	if (mask != 0)
	{
		size_t		at = node->fx->bytes.len;
		mg_effect  *e;

		mg_frame_end(frame);
		mg_buf_put(&node->fx->bytes, frame->data, frame->len);
		e = fx_add(node, MG_FX_SEND);
		e->peers = mask;
		e->at = at;
		e->len = frame->len;
	}
	mg_buf_reset(frame);
	if (frame->cap > 16 * 1024 * 1024)
		mg_buf_free(frame);		/* one huge writeset must not keep its memory for ever */
}

static void
send_frames(mg_node *node)
{
	/* Payloads and orders first: answers to single peers may refer to them. */
	frame_send(node, &node->out_all, members_mask(node));
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind != PEER_NONE)
			frame_send(node, &node->peers[i].out, UINT32_C(1) << i);
}

static void
put_payload(mg_node *node, const pending *p, mg_member_id id)
{
	size_t		mark = msg_all(node, MG_MSG_PAYLOAD);

	mg_buf_put_u32(&node->out_all, id);
	mg_buf_put_u64(&node->out_all, p->msgno);
	mg_buf_put_u8(&node->out_all, p->flags);
	mg_buf_put(&node->out_all, p->bytes, p->len);
	mg_msg_end(&node->out_all, mark);
}

/* The lowest last_seen that this node may still send. */
static mg_seqno
min_seen(mg_node *node)
{
	mg_seqno	low = node->committed;
	origin	   *own = origin_find(node, node->self);

	/* A submission waits in shared memory for a moment: report what was committed a while ago. */
	for (uint32_t i = 0; i < node->n_samples; i++)
		if (node->samples[i].committed < low)
			low = node->samples[i].committed;
	if (own != NULL && node->self != 0)
		for (uint64_t n = own->next_msgno; n < node->next_msgno; n++)
			if (own->ring[n & PENDING_MASK].msgno == n && own->ring[n & PENDING_MASK].last_seen < low)
				low = own->ring[n & PENDING_MASK].last_seen;
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		if (entry_at(node, s)->slot >= 0 && entry_at(node, s)->last_seen < low)
			low = entry_at(node, s)->last_seen;
	for (uint32_t i = 0; i < node->n_reservations; i++)
		if (node->reservations[i].seqno - 1 < low)
			low = node->reservations[i].seqno - 1;
	return low;
}

static void
put_ack_body(mg_node *node, mg_buf *frame)
{
	mg_buf_put_u64(frame, node->appended);
	mg_buf_put_u64(frame, node->flushed < node->appended ? node->flushed : node->appended);
	mg_buf_put_u64(frame, node->delivered);
	mg_buf_put_u64(frame, node->committed);
	mg_buf_put_u64(frame, min_seen(node));
}

static void
put_ack(mg_node *node)
{
	size_t		mark = msg_all(node, MG_MSG_ACK);

	put_ack_body(node, &node->out_all);
	mg_msg_end(&node->out_all, mark);
	node->ack_due = false;
	node->ack_urgent = 0;
	node->ack_lazy_us = 0;
	node->last_ack_us = node->now_us;
}

/*
 * Acknowledgements cost a frame per peer and flush, and only the origin of an
 * entry has a client that waits for it.  So it is told at once; the others with
 * the next frame that goes to all, or ACK_LAZY_US later.
 */
static void
put_acks(mg_node *node)
{
	if (node->ack_due || (node->ack_lazy_us != 0 && node->out_all.len > 0))
	{
		put_ack(node);
		return;
	}
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if ((node->ack_urgent & (UINT32_C(1) << i)) != 0 && node->peers[i].kind == PEER_MEMBER)
		{
			size_t		mark = msg_peer(node, i, MG_MSG_ACK);

			put_ack_body(node, &node->peers[i].out);
			mg_msg_end(&node->peers[i].out, mark);
		}
	node->ack_urgent = 0;
}

/* There is something to acknowledge about the entry at `seqno`. */
static void
ack_wanted(mg_node *node, mg_seqno seqno)
{
	const entry *e = entry_at(node, seqno);
	int			i;

	if (node->ack_lazy_us == 0)
		node->ack_lazy_us = node->now_us + ACK_LAZY_US;
	if (e->seqno != seqno)
		return;					/* delivered already */
	if (e->h.type == MG_ENTRY_VIEW)
		node->ack_due = true;
	else if (e->h.origin != node->self && (i = peer_of_member(node, e->h.origin)) >= 0)
		node->ack_urgent |= UINT32_C(1) << i;
}

static void
put_fetch(mg_node *node, int i)
{
	size_t		mark = msg_peer(node, i, MG_MSG_FETCH);

	mg_buf_put_u64(&node->peers[i].out, node->appended + 1);
	mg_msg_end(&node->peers[i].out, mark);
	node->last_fetch_us = node->now_us;
}

/* Asks for what is missing, from the leader or else from whoever holds most. */
static void
fetch_missing(mg_node *node)
{
	int			best = peer_of_member(node, node->view.leader);

	if (node->now_us - node->last_fetch_us < node->config.fetch_us)
		return;
	if (best >= 0 && node->self != 0 && !member_is_heard(node, node->view.leader))
		best = -1;
	if (best < 0 || node->peers[best].held <= node->appended)
		for (int i = 0; i < MG_PEERS_MAX; i++)
			if (node->peers[i].kind == PEER_MEMBER && node->peers[i].held > node->appended &&
				(best < 0 || node->peers[i].held > node->peers[best].held))
				best = i;
	if (best >= 0)
		put_fetch(node, best);
}

/* ------------------------------------------------------ the log of this node */

static void own_submissions_unknown(mg_node *node);

static void
inconsistent(mg_node *node, mg_seqno seqno)
{
	char		why[MG_REASON_BYTES_MAX];

	snprintf(why, sizeof(why), "certification of seqno %llu differs from the leader's",
			 (unsigned long long) seqno);
	own_submissions_unknown(node);
	node_shift(node, MG_STATE_INCONSISTENT, why);
}

/*
 * An entry that joins the log brings the leader's verdicts on earlier ones:
 * compare those that were decided here, keep the others.
 */
static void
take_stamps(mg_node *node, const mg_entry_header *h)
{
	if (h->cert_upto < node->stamped_upto)
		return;
	for (int i = 0; i < h->n_failed; i++)
	{
		mg_seqno	s = h->failed[i];

		if (s <= node->stamped_upto || s > h->cert_upto || s <= node->base)
			continue;
		if (s > node->delivered)
		{
			queue_push(&node->stamped_failed, s);
			continue;
		}
		if (queue_empty(&node->own_failed) || queue_front(&node->own_failed) != s)
			inconsistent(node, s);
		else
			node->own_failed.head++;
	}
	node->stamped_upto = h->cert_upto;
	/* What failed here and should have been named by now, but was not. */
	if (!is_leader(node) && !queue_empty(&node->own_failed) &&
		queue_front(&node->own_failed) <= node->stamped_upto)
		inconsistent(node, queue_front(&node->own_failed));
}

/* From here on the new member of a view gets what is sent to all. */
static void
admit_peer(mg_node *node, const entry *e)
{
	mg_view		view;
	mg_reader	r;
	const mg_member *member;
	int			m,
				i;

	mg_reader_init(&r, e->payload, e->len);
	if (mg_view_decode(&r, &view) != MG_OK || view.joined == 0 ||
		(m = mg_view_find(&view, view.joined)) < 0)
		return;
	member = &view.members[m];
	if (member->incarnation == node->config.incarnation || (node->self == 0 && e->seqno <= node->view.id))
		return;
	i = peer_of_incarnation(node, member->incarnation);
	if (i < 0)
		i = peer_add(node, PEER_MEMBER, member->address);
	if (i < 0)
		return;
	node->peers[i].kind = PEER_MEMBER;
	node->peers[i].incarnation = member->incarnation;
	node->peers[i].member = member->id;
	node->peers[i].heard_us = node->now_us;
	node->peers[i].min_seen = 0;
	node->peers[i].joined_at = e->seqno;
	node->peers[i].held = node->peers[i].flushed = node->peers[i].delivered = node->peers[i].committed = 0;
	node->peers[i].leaving = node->peers[i].restarted = false;
	snprintf(node->peers[i].name, sizeof(node->peers[i].name), "%s", member->name);
}

/* Entries that are complete go to the log, in order. */
static void
append_ready(mg_node *node)
{
	while (node->appended < node->ordered)
	{
		entry	   *e = entry_at(node, node->appended + 1);
		mg_effect  *fx;
		size_t		at = node->fx->bytes.len;

		if (!e->have)
			return;
		mg_entry_encode(&node->fx->bytes, &e->h);
		mg_buf_put(&node->fx->bytes, e->payload, e->len);
		fx = fx_add(node, MG_FX_APPEND);
		fx->seqno = e->seqno;
		fx->at = at;
		fx->len = node->fx->bytes.len - at;
		node->appended++;
		take_stamps(node, &e->h);

		if ((e->h.flags & MG_ENTRY_MEMORY) != 0)
			ack_wanted(node, e->seqno);
		if (e->h.type == MG_ENTRY_VIEW)
			admit_peer(node, e);
	}
}

/*
 * Puts the next entry into the queue.  Takes over `payload` (may be NULL: it is
 * looked for among the waiting messages, or comes later).
 */
static void
entry_add(mg_node *node, const mg_entry_header *h, uint8_t *payload, uint32_t len)
{
	mg_seqno	seqno = node->ordered + 1;
	entry	   *e = entry_at(node, seqno);

	MG_ASSERT(e->seqno == 0);
	e->seqno = seqno;
	e->h = *h;
	e->payload = payload;
	e->len = len;
	e->have = payload != NULL;
	e->slot = -1;
	e->last_seen = 0;
	e->since_us = node->now_us;
	node->ordered = seqno;

	if (h->type == MG_ENTRY_WRITESET)
	{
		origin	   *o = origin_get(node, h->origin);

		if (o != NULL)
		{
			pending    *p = &o->ring[h->msgno & PENDING_MASK];

			if (p->msgno == h->msgno)
			{
				if (h->origin == node->self)
				{
					e->slot = p->slot;
					e->last_seen = p->last_seen;
				}
				if (!e->have)
				{
					e->payload = p->bytes;
					e->len = p->len;
					e->have = true;
					p->bytes = NULL;
				}
			}
			origin_advance(node, o, h->msgno);
		}
	}
}

static void
entry_drop(mg_node *node, mg_seqno seqno)
{
	entry	   *e = entry_at(node, seqno);

	MG_ASSERT(e->seqno == seqno);
	payload_free(node, e->payload, e->len);
	memset(e, 0, sizeof(*e));
	e->slot = -1;
}

/* -------------------------------------------------------------------- quorum */

static bool
member_is_heard(const mg_node *node, mg_member_id id)
{
	int			i;

	if (id == node->self)
		return true;
	i = peer_of_member(node, id);
	return i >= 0 && node->now_us - node->peers[i].heard_us < node->config.suspect_us;
}

/*
 * A member whose node is known to have started anew is as good as gone: its
 * old incarnation will neither speak nor vote again.
 */
static bool
member_is_over(const mg_node *node, mg_member_id id)
{
	int			i = peer_of_member(node, id);

	return i >= 0 && node->peers[i].restarted;
}

static bool
majority_heard(const mg_node *node)
{
	uint64_t	sum = 0,
				all = 0;

	for (uint32_t m = 0; m < node->view.n; m++)
	{
		if (member_is_over(node, node->view.members[m].id))
			continue;
		all += node->view.members[m].weight;
		if (member_is_heard(node, node->view.members[m].id))
			sum += node->view.members[m].weight;
	}
	return sum * 2 > all;
}

/* Does a majority of the view hold (flushed, or in memory) everything up to `seqno`? */
static bool
quorum_has(const mg_node *node, mg_seqno seqno, bool memory)
{
	uint64_t	sum = 0,
				all = 0;

	if (seqno <= node->heard_delivered)
		return true;
	for (uint32_t m = 0; m < node->view.n; m++)
	{
		const mg_member *member = &node->view.members[m];
		mg_seqno	has = 0;

		if (member_is_over(node, member->id))
			continue;
		all += member->weight;
		if (member->id == node->self)
			has = memory ? node->appended : node->flushed;
		else
		{
			int			i = peer_of_member(node, member->id);

			if (i >= 0)
				has = memory ? node->peers[i].held : node->peers[i].flushed;
		}
		if (has >= seqno)
			sum += member->weight;
	}
	return sum * 2 > all;
}

/* ------------------------------------------------------------------ delivery */

static void
reservation_note(mg_node *node, const mg_writeset *ws, mg_seqno seqno, bool passed)
{
	if ((ws->header.flags & MG_WS_RESERVE) != 0 && passed && node->n_reservations < RESERVATIONS_MAX)
	{
		node->reservations[node->n_reservations].trx_id = ws->header.trx_id;
		node->reservations[node->n_reservations].seqno = seqno;
		node->n_reservations++;
	}
	if ((ws->header.flags & MG_WS_RELEASE) != 0)
		for (uint32_t i = node->n_reservations; i-- > 0;)
			if (node->reservations[i].trx_id == ws->header.trx_id)
				node->reservations[i] = node->reservations[--node->n_reservations];
}

static void
own_submissions_unknown(mg_node *node)
{
	origin	   *own = node->self != 0 ? origin_find(node, node->self) : NULL;

	if (own != NULL)
		for (uint64_t n = own->next_msgno; n < node->next_msgno; n++)
		{
			pending    *p = &own->ring[n & PENDING_MASK];

			if (p->msgno == n && p->slot >= 0)
			{
				fx_add(node, MG_FX_UNKNOWN)->slot = p->slot;
				p->slot = -1;
			}
		}
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		if (entry_at(node, s)->slot >= 0)
		{
			fx_add(node, MG_FX_UNKNOWN)->slot = entry_at(node, s)->slot;
			entry_at(node, s)->slot = -1;
		}
}

static void
cert_follows_view(mg_node *node, const mg_view *view)
{
	mg_member_id ids[MG_MEMBERS_MAX];

	for (uint32_t m = 0; m < view->n; m++)
		ids[m] = view->members[m].id;
	mg_cert_keep_members(node->cert, ids, view->n);
}

static void
view_install(mg_node *node, const mg_view *view)
{
	bool		was_leader = is_leader(node);
	int			m = mg_view_find_incarnation(view, node->config.incarnation);
	mg_member_id before = node->self;

	/* On the way to its own view a joiner meets old ones: who was in them matters no more. */
	if (node->self == 0 && m < 0 && view->id <= node->view.id)
	{
		cert_follows_view(node, view);
		return;
	}
	node->view = *view;
	node->view_in_flight = false;
	cert_follows_view(node, view);
	if (view->left != 0 && view->left != before)
	{
		origin	   *gone = origin_find(node, view->left);

		if (gone != NULL)
			origin_clear(node, gone);
	}
	fx_log(node, "group: view installed id=%llu epoch=%llu members=%u leader=%u joined=%u left=%u",
		   (unsigned long long) view->id, (unsigned long long) view->epoch, view->n, view->leader,
		   view->joined, view->left);
	fx_add(node, MG_FX_STATE);

	if (m < 0)
	{
		if (before == 0)
		{
			/* Not in yet: a view of others on the way to ours. */
			return;
		}
		own_submissions_unknown(node);
		node->self = 0;
		if (node->leave_asked)
		{
			put_ack(node);		/* a majority of the old view may have waited for this */
			send_frames(node);
			node->left_us = node->now_us;
			node_shift(node, MG_STATE_OPEN, "left the cluster");
			fx_answer(node, true, "left the cluster", "");
		}
		else
		{
			node_shift(node, MG_STATE_NON_PRIMARY, "the cluster removed this node from its view");
			fx_add(node, MG_FX_EVICTED);
			node->over = true;
		}
		return;
	}

	node->self = view->members[m].id;
	if (view->left != 0)
	{
		/* Who left may wait for just this to know it. */
		put_ack(node);
		send_frames(node);
	}
	peers_follow_view(node, view);
	if (view->joined == node->self)
	{
		origin	   *own = origin_get(node, node->self);

		MG_ASSERT(own != NULL);
		node->n_reservations = 0;
		own->next_msgno = 1;
		node->next_msgno = 1;
		node->sync_at = view->id;
	}
	if (is_leader(node) && !was_leader)
		fx_log(node, "group: this node leads from seqno %llu on", (unsigned long long) view->id + 1);
	node->ack_due = true;
}

static void
deliver_writeset(mg_node *node, entry *e)
{
	mg_writeset ws;
	mg_cert_result result = {MG_VERDICT_NONE, e->seqno - 1, 0};
	mg_status	status = mg_writeset_open(e->payload, e->len, &ws);
	bool		known = e->seqno <= node->known_upto;
	bool		stamped_fail = !queue_empty(&node->stamped_failed) &&
		queue_front(&node->stamped_failed) == e->seqno;
	bool		deliver = e->seqno > node->position;
	mg_effect  *fx;

	if (status != MG_OK)
	{
		/* The frame's checksum was right: the origin made it so, and every node sees the same. */
		mg_cert_skip(node->cert, e->seqno);
		result.verdict = MG_VERDICT_CONFLICT;
		fx_log(node, "cert: seqno %llu of member %u is not a writeset (%s), it fails everywhere",
			   (unsigned long long) e->seqno, e->h.origin, mg_status_name(status));
	}
	else if (known)
	{
		mg_cert_insert_known(node->cert, e->seqno, e->h.origin, &ws, !stamped_fail);
		result.verdict = stamped_fail ? MG_VERDICT_CONFLICT : MG_VERDICT_PASS;
	}
	else
		result = mg_cert_certify(node->cert, e->seqno, e->h.origin, &ws);

	/* Against the leader's verdict, if that is here already; else it will be compared when it comes. */
	if (e->seqno <= node->stamped_upto)
	{
		if (stamped_fail)
			node->stamped_failed.head++;
		if (stamped_fail != (result.verdict != MG_VERDICT_PASS))
		{
			inconsistent(node, e->seqno);
			return;
		}
	}
	else if (result.verdict != MG_VERDICT_PASS)
		queue_push(&node->own_failed, e->seqno);

	if (status == MG_OK && e->h.origin == node->self && node->self != 0)
		reservation_note(node, &ws, e->seqno, result.verdict == MG_VERDICT_PASS);
	if (!deliver)
		return;

	if (result.verdict != MG_VERDICT_PASS || (ws.header.flags & MG_WS_RESERVE) != 0 ||
		(ws.header.n_events == 0))
	{
		/* A loser, a reservation or a bare release: its seqno passes by. */
		if (e->slot >= 0)
		{
			fx = fx_add(node, MG_FX_VERDICT);
			fx->slot = e->slot;
			fx->verdict = result.verdict;
			fx->seqno = e->seqno;
			fx->against = result.against;
		}
		fx = fx_add(node, MG_FX_DELIVER);
		fx->kind = MG_DELIVER_SKIP;
		fx->seqno = e->seqno;
		fx->member = e->h.origin;
		fx->verdict = result.verdict;
		return;
	}
	fx = fx_add(node, MG_FX_DELIVER);
	fx->kind = e->slot >= 0 ? MG_DELIVER_LOCAL : MG_DELIVER_REMOTE;
	fx->slot = e->slot;
	fx->seqno = e->seqno;
	fx->depends = result.depends;
	fx->member = e->h.origin;
	fx->verdict = result.verdict;
}

static void
deliver_ready(mg_node *node)
{
	while (node->delivered < node->appended && node->state != MG_STATE_INCONSISTENT &&
		   node->state != MG_STATE_OPEN)
	{
		entry	   *e = entry_at(node, node->delivered + 1);

		if (!quorum_has(node, e->seqno, (e->h.flags & MG_ENTRY_MEMORY) != 0))
			break;
		if (e->seqno <= node->known_upto && e->seqno > node->stamped_upto)
			break;				/* its verdict will be named by a later entry */

		mg_cert_set_floor(node->cert, e->h.floor);
		if (e->h.type == MG_ENTRY_WRITESET)
			deliver_writeset(node, e);
		else
		{
			mg_view		view;
			mg_reader	r;
			mg_effect  *fx;

			mg_cert_skip(node->cert, e->seqno);
			if (e->seqno > node->position)
			{
				fx = fx_add(node, MG_FX_DELIVER);
				fx->kind = MG_DELIVER_SKIP;
				fx->seqno = e->seqno;
				fx->member = e->h.origin;
			}
			mg_reader_init(&r, e->payload, e->len);
			if (mg_view_decode(&r, &view) == MG_OK)
			{
				view.id = e->seqno;
				node->delivered++;	/* the view counts from the next on */
				view_install(node, &view);
				node->delivered--;
			}
			else
				fx_log(node, "group: view at seqno %llu cannot be read", (unsigned long long) e->seqno);
		}
		entry_drop(node, node->delivered + 1);
		node->delivered++;
		if (node->self == 0 && node->state == MG_STATE_NON_PRIMARY)
			break;
	}
}

/* ------------------------------------------------------------------- leading */

static mg_seqno
cluster_floor(mg_node *node)
{
	mg_seqno	low = min_seen(node);

	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == PEER_MEMBER && node->peers[i].min_seen < low)
			low = node->peers[i].min_seen;
	if (low < mg_cert_floor(node->cert))
		low = mg_cert_floor(node->cert);
	if (low > node->last_floor)
		node->last_floor = low;
	return node->last_floor;
}

static void
stamp(mg_node *node, mg_entry_header *h, mg_seqno floor)
{
	h->epoch = node->view.epoch;
	h->view_id = node->view.id;
	h->floor = floor;
	h->cert_upto = node->delivered;
	h->n_failed = 0;
	while (!queue_empty(&node->own_failed) && h->n_failed < MG_ENTRY_FAILED_MAX)
	{
		h->failed[h->n_failed++] = queue_front(&node->own_failed);
		node->own_failed.head++;
	}
	if (!queue_empty(&node->own_failed))
		h->cert_upto = queue_front(&node->own_failed) - 1;
	/* The leader's own stamps decide nothing new for itself. */
	node->stamped_upto = h->cert_upto;
}

static void
put_order_record(mg_node *node, const mg_entry_header *h, const uint8_t *payload, uint32_t len)
{
	mg_entry_encode(&node->out_all, h);
	mg_buf_put_u32(&node->out_all, h->type == MG_ENTRY_VIEW ? len : 0);
	if (h->type == MG_ENTRY_VIEW)
		mg_buf_put(&node->out_all, payload, len);
}

static bool
may_order(mg_node *node)
{
	mg_seqno	slowest = node->committed;

	if (!is_leader(node) || node->leave_asked || node->ordered - node->delivered >= MG_ENTRIES_MAX / 2)
		return false;
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == PEER_MEMBER && node->peers[i].committed < slowest &&
			node->peers[i].committed >= node->peers[i].joined_at &&
			mg_view_find(&node->view, node->peers[i].member) >= 0)
			slowest = node->peers[i].committed;
	return node->ordered < slowest + node->config.fc_limit;
}

/* Gives the waiting messages their places, round robin over the origins. */
static void
order_pending(mg_node *node)
{
	bool		any = false;
	size_t		mark = 0;
	uint32_t	n = 0;
	size_t		n_at = 0;
	mg_seqno	floor = 0;
	uint32_t	idle = 0;

	if (node->state != MG_STATE_SYNCED && node->state != MG_STATE_NON_PRIMARY && node->sync_at == 0)
		return;
	while (idle <= MG_MEMBERS_MAX && n < ORDER_BATCH_MAX && may_order(node))
	{
		origin	   *o = &node->origins[node->order_turn++ % (MG_MEMBERS_MAX + 1)];
		pending    *p;
		mg_entry_header h;

		if (o->id == 0 || o->ring == NULL || mg_view_find(&node->view, o->id) < 0 ||
			(p = &o->ring[o->next_msgno & PENDING_MASK])->msgno != o->next_msgno)
		{
			idle++;
			continue;
		}
		idle = 0;
		if (!any)
		{
			any = true;
			floor = cluster_floor(node);
			mark = msg_all(node, MG_MSG_ORDER);
			mg_buf_put_u64(&node->out_all, node->ordered + 1);
			n_at = node->out_all.len;
			mg_buf_put_u32(&node->out_all, 0);
		}
		memset(&h, 0, sizeof(h));
		h.type = MG_ENTRY_WRITESET;
		h.flags = p->flags;
		h.origin = o->id;
		h.msgno = p->msgno;
		stamp(node, &h, floor);
		put_order_record(node, &h, NULL, 0);
		entry_add(node, &h, NULL, 0);
		n++;
	}
	if (any)
	{
		mg_buf_set_u32(&node->out_all, n_at, n);
		mg_msg_end(&node->out_all, mark);
		append_ready(node);
	}
}

static void
order_view(mg_node *node, mg_view *view)
{
	mg_entry_header h;
	uint8_t    *payload;
	size_t		mark;

	view->id = node->ordered + 1;
	mg_buf_reset(&node->scratch);
	mg_view_encode(&node->scratch, view);
	memset(&h, 0, sizeof(h));
	h.type = MG_ENTRY_VIEW;
	h.origin = node->self;
	stamp(node, &h, cluster_floor(node));
	payload = payload_copy(node, node->scratch.data, node->scratch.len);
	mark = msg_all(node, MG_MSG_ORDER);
	mg_buf_put_u64(&node->out_all, node->ordered + 1);
	mg_buf_put_u32(&node->out_all, 1);
	put_order_record(node, &h, payload, (uint32_t) node->scratch.len);
	mg_msg_end(&node->out_all, mark);
	entry_add(node, &h, payload, (uint32_t) node->scratch.len);
	node->view_in_flight = true;
	append_ready(node);
}

static void
view_without(mg_node *node, mg_view *view, int m, mg_left_how how)
{
	*view = node->view;
	view->joined = 0;
	view->left = view->members[m].id;
	view->left_how = (uint8_t) how;
	memmove(&view->members[m], &view->members[m + 1], (view->n - 1 - (uint32_t) m) * sizeof(mg_member));
	view->n--;
	if (view->leader == view->left)
	{
		const peer *best = NULL;

		view->leader = view->n > 0 ? view->members[0].id : 0;
		for (uint32_t k = 0; k < view->n; k++)
		{
			int			i = peer_of_member(node, view->members[k].id);

			if (i < 0 || node->peers[i].leaving || node->peers[i].restarted ||
				!member_is_heard(node, view->members[k].id))
				continue;
			/* Whoever is far behind in speaking may be gone already. */
			if (best == NULL || node->peers[i].heard_us > best->heard_us + node->config.suspect_us / 2)
			{
				best = &node->peers[i];
				view->leader = view->members[k].id;
			}
		}
	}
}

/* At most one change of the view is on its way at any time. */
static void
lead_membership(mg_node *node)
{
	mg_view		view;

	if (!is_leader(node) || node->view_in_flight || node->state == MG_STATE_INCONSISTENT)
		return;

	for (uint32_t k = 0, self_at = (uint32_t) mg_view_find(&node->view, node->self); k < node->view.n; k++)
	{
		uint32_t	m = (self_at + 1 + k) % node->view.n;	/* this node comes last */
		mg_member_id id = node->view.members[m].id;
		int			i = peer_of_member(node, id);
		mg_left_how how = MG_LEFT_NOBODY;

		if (id == node->self)
		{
			if (node->leave_asked)
				how = MG_LEFT_GRACEFULLY;
		}
		else if (i >= 0 && node->peers[i].leaving)
			how = MG_LEFT_GRACEFULLY;
		else if (i >= 0 && node->peers[i].restarted)
			how = MG_LEFT_RESTARTED;
		else if (!member_is_heard(node, id))
			how = MG_LEFT_SUSPECTED;
		if (how == MG_LEFT_NOBODY)
			continue;
		if (how != MG_LEFT_GRACEFULLY && !majority_heard(node))
			continue;			/* nobody could agree to it */
		view_without(node, &view, (int) m, how);
		order_view(node, &view);
		return;
	}

	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		peer	   *p = &node->peers[i];
		mg_member  *member;

		if (p->kind != PEER_LEARNER || !p->near || node->delivered < p->wait_delivered ||
			node->now_us - p->heard_us > node->config.suspect_us ||
			node->view.n >= MG_MEMBERS_MAX)
			continue;
		view = node->view;
		member = &view.members[view.n++];
		memset(member, 0, sizeof(*member));
		member->id = view.next_member_id++;
		member->weight = 1;
		member->incarnation = p->incarnation;
		snprintf(member->name, sizeof(member->name), "%s", p->name);
		snprintf(member->address, sizeof(member->address), "%s", p->address);
		view.joined = member->id;
		view.left = 0;
		view.left_how = MG_LEFT_NOBODY;
		order_view(node, &view);
		return;
	}
}

/* ------------------------------------------------------------------- joining */

static void
put_refuse(mg_node *node, int i, const char *text, const char *hint)
{
	size_t		mark = msg_peer(node, i, MG_MSG_REFUSE);

	mg_buf_put_text(&node->peers[i].out, node->config.address);
	mg_buf_put_text(&node->peers[i].out, text);
	mg_buf_put_text(&node->peers[i].out, hint);
	mg_msg_end(&node->peers[i].out, mark);
	if (node->peers[i].kind == PEER_LEARNER)
	{
		/* Known just long enough to hear it. */
		node->peers[i].kind = PEER_GONE;
		node->peers[i].gone_us = node->now_us;
	}
}

static void
put_join_request(mg_node *node, int i)
{
	size_t		mark = msg_peer(node, i, MG_MSG_JOIN_REQUEST);
	mg_buf	   *b = &node->peers[i].out;

	mg_buf_put_text(b, node->config.cluster_name);
	mg_buf_put_text(b, node->config.name);
	mg_buf_put_text(b, node->config.address);
	mg_buf_put(b, node->uuid.bytes, sizeof(node->uuid.bytes));
	mg_buf_put_u64(b, node->state == MG_STATE_JOINING ? node->position : node->delivered);
	mg_msg_end(b, mark);
}

/*
 * Somebody asks for admission.  He is told why not, or whom to ask, or where to
 * start.
 */
static void
on_join_request(mg_node *node, const mg_frame_header *fh, mg_reader *r)
{
	char		cluster[MG_NAME_BYTES_MAX];
	char		name[MG_NAME_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];
	mg_uuid		uuid;
	mg_seqno	position;
	int			i,
				m;
	bool		known;
	char		text[MG_REASON_BYTES_MAX];
	size_t		mark;
	mg_seqno	start;

	mg_read_text(r, cluster, sizeof(cluster));
	mg_read_text(r, name, sizeof(name));
	mg_read_text(r, address, sizeof(address));
	mg_read_copy(r, uuid.bytes, sizeof(uuid.bytes));
	position = mg_read_u64(r);
	if (!mg_reader_done(r) || fh->incarnation == 0 || !address_is_valid(address))
	{
		node->frames_damaged++;
		return;
	}
	if (node->self == 0 || fh->incarnation == node->config.incarnation)
		return;					/* nobody to admit anyone: silence, the asker times out */

	i = peer_of_incarnation(node, fh->incarnation);
	known = i >= 0;
	if (!known)
	{
		i = peer_add(node, PEER_LEARNER, address);
		if (i < 0)
			return;
		node->peers[i].incarnation = fh->incarnation;
		snprintf(node->peers[i].name, sizeof(node->peers[i].name), "%s", name);
	}
	node->peers[i].heard_us = node->now_us;

	if (strcmp(cluster, node->config.cluster_name) != 0)
	{
		snprintf(text, sizeof(text), "this is cluster \"%s\", not \"%s\"", node->config.cluster_name, cluster);
		put_refuse(node, i, text, "Set mgrepl.cluster_name to the cluster's name, or correct the address.");
		return;
	}
	if (mg_uuid_is_zero(&uuid))
	{
		put_refuse(node, i, "the data of the joining node does not belong to any cluster",
				   "Start the node from a base backup (pg_basebackup) of a member.");
		return;
	}
	if (!mg_uuid_equal(&uuid, &node->uuid))
	{
		put_refuse(node, i, "the data of the joining node belongs to another cluster",
				   "Start the node from a base backup (pg_basebackup) of a member.");
		return;
	}

	/* Tell whom to ask. */
	if (!is_leader(node))
	{
		int			l = mg_view_find(&node->view, node->view.leader);

		mark = msg_peer(node, i, MG_MSG_JOIN_REPLY);
		mg_buf_put_text(&node->peers[i].out, node->config.address);
		mg_buf_put_u8(&node->peers[i].out, 1);
		mg_buf_put_text(&node->peers[i].out, l >= 0 ? node->view.members[l].address : "");
		mg_msg_end(&node->peers[i].out, mark);
		return;
	}
	if (mg_view_find_incarnation(&node->view, fh->incarnation) >= 0)
	{
		mark = msg_peer(node, i, MG_MSG_JOIN_REPLY);
		mg_buf_put_text(&node->peers[i].out, node->config.address);
		mg_buf_put_u8(&node->peers[i].out, 2);	/* still a member: nothing was missed */
		mg_buf_put_text(&node->peers[i].out, "");
		mg_msg_end(&node->peers[i].out, mark);
		return;
	}
	if (node->peers[i].kind == PEER_MEMBER)
		return;					/* its view is ordered already */
	node->peers[i].kind = PEER_LEARNER;

	if (position > node->appended)
	{
		snprintf(text, sizeof(text), "the joining node (seqno %llu) is ahead of the cluster (seqno %llu)",
				 (unsigned long long) position, (unsigned long long) node->appended);
		put_refuse(node, i, text, "Bootstrap the cluster from the most advanced node, or start this one from a base backup of a member.");
		return;
	}
	m = mg_view_find_name(&node->view, name);
	if (m >= 0)
	{
		int			old = peer_of_member(node, node->view.members[m].id);

		if (node->view.members[m].id == node->self || strcmp(node->view.members[m].address, address) != 0)
		{
			snprintf(text, sizeof(text), "a member named \"%s\" is in the cluster already, at %.100s",
					 name, node->view.members[m].address);
			put_refuse(node, i, text, "Give every node a mgrepl.node_name of its own.");
			return;
		}
		if (old >= 0 && old != i)
			node->peers[old].restarted = true;
		return;					/* asked again when the old one is out of the view */
	}
	start = cluster_floor(node);
	if (position < start)
		start = position;
	if (start + 1 < node->log_first)
	{
		snprintf(text, sizeof(text), "the writesets from seqno %llu on are no longer in the log (it begins at %llu)",
				 (unsigned long long) start + 1, (unsigned long long) node->log_first);
		put_refuse(node, i, text, "Start the node from a newer base backup of a member.");
		return;
	}
	node->peers[i].wait_delivered = node->ordered;
	node->peers[i].near = false;
	node->peers[i].admitted = true;
	node->peers[i].held = start;
	snprintf(node->peers[i].name, sizeof(node->peers[i].name), "%s", name);
	node->peers[i].min_seen = 0;

	mark = msg_peer(node, i, MG_MSG_JOIN_REPLY);
	mg_buf_put_text(&node->peers[i].out, node->config.address);
	mg_buf_put_u8(&node->peers[i].out, 0);
	mg_buf_put_text(&node->peers[i].out, "");
	mg_buf_put_u64(&node->peers[i].out, start);
	mg_buf_put_u64(&node->peers[i].out, node->ordered);	/* verdicts up to here come from stamps */
	mg_view_encode(&node->peers[i].out, &node->view);
	mg_msg_end(&node->peers[i].out, mark);
}

/* Forgets everything that is queued and starts again above `base`. */
static void
node_rebase(mg_node *node, mg_seqno base)
{
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		entry_drop(node, s);
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		origin_clear(node, &node->origins[i]);
	mg_cert_free(node->cert);
	node->cert = mg_cert_new(base);
	node->delivered = node->appended = node->ordered = base;
	node->flushed = base;
	node->stamped_upto = 0;
	node->known_upto = 0;
	node->heard_delivered = 0;
	node->log_first = base + 1;
	node->base = base;
	node->last_floor = 0;
	node->stamped_failed.head = node->stamped_failed.tail = 0;
	node->own_failed.head = node->own_failed.tail = 0;
	node->n_reservations = 0;
}

static void
join_failed(mg_node *node, const char *text, const char *hint)
{
	char		why[MG_REASON_BYTES_MAX];

	snprintf(why, sizeof(why), "join refused: %s", text);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		peer_remove(node, i);
	node_shift(node, MG_STATE_OPEN, why);
	fx_answer(node, false, text, hint);
}

static void
on_join_reply(mg_node *node, mg_reader *r)
{
	uint8_t		kind = mg_read_u8(r);
	char		address[MG_ADDRESS_BYTES_MAX];

	mg_read_text(r, address, sizeof(address));
	if (r->bad || (node->state != MG_STATE_JOINING && node->state != MG_STATE_NON_PRIMARY))
		return;
	if (kind == 1)
	{
		if (address_is_valid(address) && peer_of_address(node, address) < 0)
		{
			int			l = peer_add(node, PEER_SEED, address);

			if (l >= 0)
				put_join_request(node, l);
		}
		return;
	}
	if (kind == 2)
	{
		if (node->state == MG_STATE_JOINING && node->view.id == 0)
		{
			fx_add(node, MG_FX_EVICTED);
			node->over = true;
		}
		return;
	}
	if (kind == 0 && node->state == MG_STATE_NON_PRIMARY && node->leave_asked)
	{
		/* The view without this node was made, its word of it got lost. */
		node->self = 0;
		node_shift(node, MG_STATE_OPEN, "left the cluster");
		fx_answer(node, true, "left the cluster", "");
		return;
	}
	if (kind == 0)
	{
		mg_seqno	start = mg_read_u64(r);
		mg_seqno	known = mg_read_u64(r);
		mg_view		view;

		if (mg_view_decode(r, &view) != MG_OK || !mg_reader_done(r))
			return;
		if (node->state == MG_STATE_NON_PRIMARY)
		{
			own_submissions_unknown(node);
			fx_add(node, MG_FX_EVICTED);
			node->over = true;
			return;
		}
		if (node->view.id != 0 || start > node->position)
			return;				/* answered twice, or not an answer to this node */
		node_rebase(node, start);
		fx_add(node, MG_FX_RESET_LOG);
		node->known_upto = known;
		node->last_entries_us = node->now_us;
		node->view = view;
		peers_follow_view(node, &view);
		for (int k = 0; k < MG_PEERS_MAX; k++)
			if (node->peers[k].kind == PEER_SEED)
				peer_remove(node, k);
		fx_log(node, "join: admitted, catching up from seqno %llu to %llu",
			   (unsigned long long) start + 1, (unsigned long long) known);
		if (peer_of_member(node, view.leader) >= 0)
			put_fetch(node, peer_of_member(node, view.leader));
	}
}

static void
on_refuse(mg_node *node, mg_reader *r)
{
	char		text[MG_REASON_BYTES_MAX];
	char		hint[MG_REASON_BYTES_MAX];

	mg_read_text(r, text, sizeof(text));
	mg_read_text(r, hint, sizeof(hint));
	if (r->bad)
		return;
	if (node->state == MG_STATE_JOINING && node->self == 0)
		join_failed(node, text, hint);
	else if (node->state == MG_STATE_NON_PRIMARY)
	{
		snprintf(node->reason, sizeof(node->reason), "%s", text);
		fx_add(node, MG_FX_STATE);
	}
}

/* ------------------------------------------------------------------ receiving */

static void
on_payload(mg_node *node, int i, mg_reader *r)
{
	mg_member_id id = mg_read_u32(r);
	uint64_t	msgno = mg_read_u64(r);
	uint8_t		flags = mg_read_u8(r);
	size_t		len = mg_reader_left(r);
	const uint8_t *bytes = mg_read_bytes(r, len);
	origin	   *o;
	pending    *p;

	if (r->bad || bytes == NULL || len > MG_WRITESET_BYTES_MAX || (flags & ~MG_ENTRY_FLAGS_ALL) != 0 ||
		id == node->self || msgno == 0 || id != node->peers[i].member)
	{
		node->frames_damaged++;
		return;
	}
	/* A member whose view is not delivered here yet may speak already. */
	if (peer_of_member(node, id) < 0 || (o = origin_get(node, id)) == NULL)
		return;
	if (msgno < o->next_msgno)
	{
		/* Ordered before it came: one of the waiting entries may be missing it. */
		for (mg_seqno s = node->appended + 1; s <= node->ordered; s++)
		{
			entry	   *e = entry_at(node, s);

			if (!e->have && e->h.origin == id && e->h.msgno == msgno)
			{
				e->payload = payload_copy(node, bytes, len);
				e->len = (uint32_t) len;
				e->have = true;
				append_ready(node);
				break;
			}
		}
		return;
	}
	p = &o->ring[msgno & PENDING_MASK];
	if (msgno - o->next_msgno >= MG_PENDING_MAX || p->msgno == msgno ||
		node->payload_bytes + len > MG_PAYLOAD_BYTES_MAX)
		return;					/* known, or no room: it comes again */
	payload_free(node, p->bytes, p->len);	/* one that an advance jumped over */
	p->msgno = msgno;
	p->bytes = payload_copy(node, bytes, len);
	p->len = (uint32_t) len;
	p->flags = flags;
	p->slot = -1;
}

static void
on_order(mg_node *node, int i, mg_reader *r)
{
	mg_seqno	first = mg_read_u64(r);
	uint32_t	n = mg_read_u32(r);

	if (node->self == 0 || node->peers[i].member != node->view.leader || is_leader(node))
	{
		/* A learner gets what it needs by fetching; an old leader is not listened to. */
		if (node->self != 0 || node->state != MG_STATE_JOINING || node->view.id == 0)
			return;
	}
	for (uint32_t k = 0; k < n; k++)
	{
		mg_entry_header h;
		uint32_t	len;
		const uint8_t *bytes = NULL;
		uint8_t    *payload = NULL;

		if (mg_entry_decode(r, &h) != MG_OK || h.cert_upto >= first + k)
		{
			node->frames_damaged++;
			return;
		}
		len = mg_read_u32(r);
		if (len > 0)
			bytes = mg_read_bytes(r, len);
		if (r->bad || (h.type == MG_ENTRY_VIEW) != (len > 0))
		{
			node->frames_damaged++;
			return;
		}
		if (first + k <= node->ordered)
			continue;			/* known */
		if (first + k != node->ordered + 1)
		{
			fetch_missing(node);	/* an order was lost on the way */
			break;
		}
		if (node->ordered - node->delivered >= MG_ENTRIES_MAX - 1)
			break;				/* no room: fetched later */
		if (h.type == MG_ENTRY_VIEW)
			payload = payload_copy(node, bytes, len);
		entry_add(node, &h, payload, len);
	}
	append_ready(node);
}

static void
on_ack(mg_node *node, int i, mg_reader *r)
{
	peer	   *p = &node->peers[i];
	mg_seqno	held = mg_read_u64(r);
	mg_seqno	flushed = mg_read_u64(r);
	mg_seqno	delivered = mg_read_u64(r);
	mg_seqno	committed = mg_read_u64(r);
	mg_seqno	seen = mg_read_u64(r);

	if (!mg_reader_done(r) || flushed > held || p->kind != PEER_MEMBER)
		return;
	/* Frames of one link keep their order, but nothing here depends on that. */
	if (held > p->held)
		p->held = held;
	if (flushed > p->flushed)
		p->flushed = flushed;
	if (delivered > p->delivered)
		p->delivered = delivered;
	if (committed > p->committed)
		p->committed = committed;
	if (seen > p->min_seen)
		p->min_seen = seen;
	if (delivered > node->heard_delivered)
		node->heard_delivered = delivered;
}

/* Just left: others may still need its word, or its log. */
static bool
lingers(const mg_node *node)
{
	return node->state == MG_STATE_OPEN && node->left_us != 0 && node->now_us - node->left_us < GONE_US;
}

static void
on_fetch(mg_node *node, const mg_frame_header *fh, int i, mg_reader *r)
{
	mg_seqno	from = mg_read_u64(r);
	mg_effect  *fx;

	if (!mg_reader_done(r) || (node->self == 0 && !lingers(node)))
		return;
	if (node->peers[i].kind == PEER_LEARNER)
	{
		peer	   *p = &node->peers[i];

		if (!is_leader(node) || !p->admitted || from > node->appended + 1)
			return;				/* silence: it will ask for admission again */
		if (from < node->log_first)
		{
			put_refuse(node, i, "the log no longer reaches back to what the joining node needs",
					   "Start the node from a newer base backup of a member.");
			return;
		}
		p->held = from - 1;
		if (fh->member == 0 && node->appended + 1 - from < JOIN_NEAR)
			p->near = true;
	}
	if (from > node->appended || from < node->log_first)
	{
		/* Nothing to send, but the asker learns where the tip is. */
		size_t		mark = msg_peer(node, i, MG_MSG_ENTRIES);

		mg_buf_put_u64(&node->peers[i].out, node->appended);
		mg_buf_put_u64(&node->peers[i].out, node->delivered);
		mg_buf_put_u64(&node->peers[i].out, 0);
		mg_msg_end(&node->peers[i].out, mark);
		return;
	}
	fx = fx_add(node, MG_FX_READ_LOG);
	fx->peer = i;
	fx->seqno = from;
}

/* The host has read an entry of the log for a peer. */
static void
on_log_read(mg_node *node, const mg_input *in)
{
	peer	   *p;
	size_t		mark;

	if (in->peer < 0 || in->peer >= MG_PEERS_MAX || node->peers[in->peer].kind == PEER_NONE)
		return;
	p = &node->peers[in->peer];
	mark = msg_peer(node, in->peer, MG_MSG_ENTRIES);
	mg_buf_put_u64(&p->out, node->appended);
	mg_buf_put_u64(&p->out, node->delivered);
	mg_buf_put_u64(&p->out, in->seqno);
	mg_buf_put(&p->out, in->bytes, in->len);
	mg_msg_end(&p->out, mark);
}

static void
on_entries(mg_node *node, int i, mg_reader *r)
{
	mg_seqno	tip = mg_read_u64(r);
	mg_seqno	delivered = mg_read_u64(r);
	mg_seqno	seqno = mg_read_u64(r);
	mg_entry_header h;
	size_t		len;
	const uint8_t *bytes;
	entry	   *e;

	if (r->bad || node->peers[i].kind != PEER_MEMBER)
		return;
	node->last_entries_us = node->now_us;
	if (tip > node->peers[i].held)
		node->peers[i].held = tip;
	if (delivered > node->heard_delivered)
		node->heard_delivered = delivered;
	if (is_leader(node) || seqno == 0 || seqno <= node->appended || seqno > node->ordered + 1)
		return;
	if (mg_entry_decode(r, &h) != MG_OK || h.cert_upto >= seqno)
	{
		node->frames_damaged++;
		return;
	}
	len = mg_reader_left(r);
	bytes = mg_read_bytes(r, len);
	if (r->bad || len > MG_WRITESET_BYTES_MAX)
		return;
	if (seqno <= node->ordered)
	{
		e = entry_at(node, seqno);
		if (e->have)
			return;
		if (e->h.origin != h.origin || e->h.msgno != h.msgno || e->h.epoch != h.epoch || e->h.type != h.type)
		{
			node->frames_damaged++;
			return;
		}
		e->payload = payload_copy(node, bytes, len);
		e->len = (uint32_t) len;
		e->have = true;
	}
	else
	{
		if (node->ordered - node->delivered >= MG_ENTRIES_MAX - 1)
			return;
		entry_add(node, &h, payload_copy(node, bytes, len), (uint32_t) len);
	}
	append_ready(node);
	node->next_fetch_us = node->now_us;	/* there may be more: ask on at the end of the round */
}

static void
on_leave_request(mg_node *node, int i)
{
	if (node->peers[i].kind == PEER_MEMBER)
		node->peers[i].leaving = true;
}

/* A seed's first word: it is known by its address, or because no other is left. */
static int
seed_that_answers(const mg_node *node, const char *from)
{
	int			found = peer_of_address(node, from);

	if (node->state != MG_STATE_JOINING && node->state != MG_STATE_NON_PRIMARY)
		return -1;
	if (found >= 0)
		return node->peers[found].incarnation == 0 || node->state == MG_STATE_NON_PRIMARY ? found : -1;
	for (int s = 0; s < MG_PEERS_MAX; s++)
		if (node->peers[s].kind == PEER_SEED && node->peers[s].incarnation == 0)
		{
			if (found >= 0)
				return -1;
			found = s;
		}
	return found;
}

/*
 * Between versions only admission is talked about: the frame header, a join
 * request's first three texts and a refusal keep their layout for ever.
 */
static void
on_other_version(mg_node *node, const mg_frame_header *fh, mg_reader *r, uint16_t version)
{
	mg_reader	body;
	mg_msg_type type;
	char		skip[MG_REASON_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];
	char		text[MG_REASON_BYTES_MAX];
	int			i;

	if (!mg_msg_next(r, &type, &body))
		return;
	if (type == MG_MSG_REFUSE)
	{
		mg_read_text(&body, skip, sizeof(skip));
		if (!body.bad)
			on_refuse(node, &body);
	}
	if (type != MG_MSG_JOIN_REQUEST || node->self == 0)
		return;
	mg_read_text(&body, skip, sizeof(skip));
	mg_read_text(&body, skip, sizeof(skip));
	mg_read_text(&body, address, sizeof(address));
	if (body.bad || !address_is_valid(address) || peer_of_incarnation(node, fh->incarnation) >= 0)
		return;
	i = peer_add(node, PEER_GONE, address);
	if (i < 0)
		return;
	node->peers[i].incarnation = fh->incarnation;
	node->peers[i].gone_us = node->now_us;
	snprintf(text, sizeof(text), "the cluster speaks protocol version %d, the joining node version %u",
			 MG_PROTOCOL_VERSION, version);
	put_refuse(node, i, text, "Install the same version of mgrepl on every node.");
}

static void
on_receive(mg_node *node, const void *bytes, size_t len)
{
	mg_frame_header fh;
	mg_reader	r,
				body;
	mg_msg_type type;
	uint16_t	version;
	mg_status	status = mg_frame_open(bytes, len, &fh, &r, &version);
	int			i;

	if (status == MG_E_VERSION)
	{
		node->frames_damaged++;
		fx_log(node, "transport: frame of protocol version %u refused, this node speaks version %d",
			   version, MG_PROTOCOL_VERSION);
		if (!r.bad)
			on_other_version(node, &fh, &r, version);
		return;
	}
	if (status != MG_OK)
	{
		node->frames_damaged++;
		fx_log(node, "transport: frame of %zu bytes refused: %s", len, mg_status_name(status));
		return;
	}
	i = peer_of_incarnation(node, fh.incarnation);
	if (i >= 0)
		node->peers[i].heard_us = node->now_us;

	while (mg_msg_next(&r, &type, &body))
	{
		/* Admission is talked about with strangers too. */
		if (type == MG_MSG_JOIN_REQUEST)
		{
			on_join_request(node, &fh, &body);
			i = peer_of_incarnation(node, fh.incarnation);
			continue;
		}
		if (type == MG_MSG_JOIN_REPLY || type == MG_MSG_REFUSE)
		{
			char		from[MG_ADDRESS_BYTES_MAX];

			mg_read_text(&body, from, sizeof(from));
			if (body.bad)
				continue;
			if (i < 0)
				i = seed_that_answers(node, from);
			if (i >= 0 && type == MG_MSG_JOIN_REPLY)
			{
				if (node->peers[i].incarnation != 0 && node->peers[i].incarnation != fh.incarnation)
				{
					if (fh.cluster_hash == node->cluster_hash)
						on_join_reply(node, &body);
					i = -1;
					continue;
				}
				node->peers[i].incarnation = fh.incarnation;
				node->peers[i].heard_us = node->now_us;
			}
		}
		if (i < 0)
			continue;			/* a stranger, or somebody who left */
		if (type != MG_MSG_REFUSE && fh.cluster_hash != node->cluster_hash)
			continue;
		if (type != MG_MSG_REFUSE && type != MG_MSG_JOIN_REPLY && fh.epoch != node->view.epoch)
			continue;			/* of another history, or from before a bootstrap */
		switch (type)
		{
			case MG_MSG_JOIN_REPLY:
				on_join_reply(node, &body);
				break;
			case MG_MSG_REFUSE:
				on_refuse(node, &body);
				break;
			case MG_MSG_PAYLOAD:
				on_payload(node, i, &body);
				break;
			case MG_MSG_ORDER:
				on_order(node, i, &body);
				break;
			case MG_MSG_ACK:
				on_ack(node, i, &body);
				break;
			case MG_MSG_FETCH:
				on_fetch(node, &fh, i, &body);
				break;
			case MG_MSG_ENTRIES:
				on_entries(node, i, &body);
				break;
			case MG_MSG_LEAVE_REQUEST:
				on_leave_request(node, i);
				break;
			case MG_MSG_NONE:
			case MG_MSG_JOIN_REQUEST:
			case MG_MSG_TYPE_COUNT:
				break;
		}
		if (i >= 0 && node->peers[i].kind == PEER_NONE)
			i = -1;				/* the message ended the acquaintance */
	}
	if (r.bad)
	{
		node->frames_damaged++;
		fx_log(node, "transport: frame of member %u holds bytes that are no message", fh.member);
	}
}

/* ------------------------------------------------------------------ commands */

static void
on_bootstrap(mg_node *node, const mg_uuid *uuid)
{
	mg_view		view;
	mg_member  *me;
	uint64_t	epoch = node->view.epoch;
	mg_member_id next = node->view.next_member_id;

	node->answer_due = true;
	if (node->state != MG_STATE_OPEN)
	{
		fx_answer(node, false, "this node is in a cluster already", "Call mgrepl.leave() first.");
		return;
	}
	node->leave_asked = false;
	node->uuid = *uuid;
	for (int i = 0; i < MG_PEERS_MAX; i++)
		peer_remove(node, i);

	/*
	 * What the own log holds counts as agreed: the operator says that this
	 * node goes on alone.  Entries come out under a view of this node only.
	 */
	memset(&view, 0, sizeof(view));
	view.epoch = epoch + 1;
	view.uuid = *uuid;
	view.next_member_id = next > 0 ? next : 1;
	me = &view.members[0];
	me->id = view.next_member_id++;
	me->weight = node->config.weight;
	me->incarnation = node->config.incarnation;
	snprintf(me->name, sizeof(me->name), "%s", node->config.name);
	snprintf(me->address, sizeof(me->address), "%s", node->config.address);
	view.n = 1;
	view.leader = view.joined = me->id;

	while (node->ordered > node->appended)
		entry_drop(node, node->ordered--);
	if (node->ordered < node->position)
	{
		fx_answer(node, false, "the writeset log ends before the position of the data",
				  "Remove the log (mgrepl.gcache_dir) while the server is stopped, then bootstrap.");
		return;
	}
	if (node->known_upto > node->stamped_upto)
		node->known_upto = node->stamped_upto;
	node->heard_delivered = node->appended;
	node->state = MG_STATE_JOINING;	/* lets the log's entries out */
	deliver_ready(node);
	if (node->state != MG_STATE_JOINING)
	{
		fx_answer(node, false, "the writeset log of this node contradicts itself", "See the server log.");
		return;
	}
	node->view = view;			/* in force for its own entry: nobody else could agree to it */
	node->self = me->id;
	order_view(node, &view);
}

static void
on_join(mg_node *node, const char *addresses)
{
	char		address[MG_ADDRESS_BYTES_MAX];
	int			n = 0;

	node->answer_due = true;
	if (node->state != MG_STATE_OPEN)
	{
		fx_answer(node, false, "this node is in a cluster already", "Call mgrepl.leave() first.");
		return;
	}
	for (int i = 0; i < MG_PEERS_MAX; i++)
		peer_remove(node, i);
	while (*addresses != '\0' && n < MG_SEEDS_MAX)
	{
		size_t		len = strcspn(addresses, ",");

		if (len > 0 && len < sizeof(address))
		{
			memcpy(address, addresses, len);
			address[len] = '\0';
			if (address_is_valid(address) && strcmp(address, node->config.address) != 0 &&
				peer_of_address(node, address) < 0 && peer_add(node, PEER_SEED, address) >= 0)
				n++;
		}
		addresses += len;
		if (*addresses == ',')
			addresses++;
	}
	if (n == 0)
	{
		fx_answer(node, false, "no usable address of another node is given",
				  "Write addresses as gcomm://host:port,host:port and leave out this node's own.");
		return;
	}
	memset(&node->view, 0, sizeof(node->view));
	if (node->delivered > node->position)
		node->position = node->delivered;
	node->leave_asked = false;
	node->join_since_us = node->now_us;
	node->last_join_us = node->now_us - JOIN_RETRY_US;
	node_shift(node, MG_STATE_JOINING, "asking for admission");
}

static void
on_leave(mg_node *node)
{
	node->answer_due = true;
	if (node->state == MG_STATE_JOINING)
	{
		join_failed(node, "the join was given up", "");
		return;
	}
	if (node->state == MG_STATE_OPEN || node->self == 0)
	{
		fx_answer(node, false, "this node is in no cluster", "Call mgrepl.join() or mgrepl.bootstrap() to be in one.");
		return;
	}
	if (node->state != MG_STATE_SYNCED)
	{
		own_submissions_unknown(node);
		node->self = 0;
		for (int i = 0; i < MG_PEERS_MAX; i++)
			peer_remove(node, i);
		node_shift(node, MG_STATE_OPEN, "left the cluster without its consent: it was not reachable");
		fx_answer(node, true, "left the cluster", "");
		return;
	}
	node->leave_asked = true;
}

/* A log entry of an earlier life, before bootstrap. */
static void
on_recover(mg_node *node, const mg_input *in)
{
	mg_reader	r;
	mg_entry_header h;
	size_t		len;
	const uint8_t *bytes;

	if (node->state != MG_STATE_OPEN || in->len > MG_FRAME_BYTES_MAX)
		return;
	mg_reader_init(&r, in->bytes, in->len);
	if (mg_entry_decode(&r, &h) != MG_OK)
	{
		fx_log(node, "gcache: the log entry at seqno %llu cannot be read", (unsigned long long) in->seqno);
		return;
	}
	len = mg_reader_left(&r);
	bytes = mg_read_bytes(&r, len);
	if (in->seqno != node->ordered + 1)
	{
		node_rebase(node, in->seqno - 1);
		node->known_upto = UINT64_MAX;
	}
	if (node->ordered - node->delivered >= MG_ENTRIES_MAX - 1)
		return;
	entry_add(node, &h, payload_copy(node, bytes, len), (uint32_t) len);
	node->appended++;
	node->flushed = node->appended;
	take_stamps(node, &h);
	node->known_upto = node->stamped_upto;
	if (h.epoch > node->view.epoch)
		node->view.epoch = h.epoch;
	if (h.type == MG_ENTRY_VIEW)
	{
		mg_view		view;

		mg_reader_init(&r, bytes, len);
		if (mg_view_decode(&r, &view) == MG_OK)
		{
			if (view.next_member_id > node->view.next_member_id)
				node->view.next_member_id = view.next_member_id;
			if (view.epoch > node->view.epoch)
				node->view.epoch = view.epoch;
		}
	}
	if (h.origin >= node->view.next_member_id)
		node->view.next_member_id = h.origin + 1;
}

/* -------------------------------------------------------------------- inputs */

static void
on_submit(mg_node *node, const mg_input *in)
{
	origin	   *own;
	pending    *p;
	size_t		at;
	mg_effect  *fx;
	const char *why = NULL;

	if (node->state != MG_STATE_SYNCED || node->self == 0)
		why = "this node is not in a primary component";
	else if (in->len > MG_WRITESET_BYTES_MAX)
		why = "the writeset is larger than the protocol allows";
	else if ((own = origin_find(node, node->self)) == NULL ||
			 node->next_msgno - own->next_msgno >= MG_PENDING_MAX)
		why = "too many transactions wait for their place in the order";
	else if (in->len >= MG_WRITESET_HEADER_BYTES &&
			 (mg_load_u16((const uint8_t *) in->bytes + 6) & MG_WS_RESERVE) != 0 &&
			 node->n_reservations >= RESERVATIONS_MAX / 2)
		why = "too many statements hold objects of the cluster";
	if (why != NULL)
	{
		at = fx_text(node, why);
		fx = fx_add(node, MG_FX_REFUSED);
		fx->slot = in->slot;
		fx->at = at;
		return;
	}
	p = &own->ring[node->next_msgno & PENDING_MASK];
	MG_ASSERT(p->msgno == 0);
	p->msgno = node->next_msgno++;
	p->bytes = payload_copy(node, in->bytes, in->len);
	p->len = (uint32_t) in->len;
	p->flags = in->flags & MG_ENTRY_FLAGS_ALL;
	p->slot = in->slot;
	p->last_seen = in->last_seen;
	p->sent_us = node->now_us;
	put_payload(node, p, node->self);
}

/* What was committed a moment ago: see min_seen. */
static void
sample_committed(mg_node *node)
{
	uint32_t	keep = 0;

	for (uint32_t i = 0; i < node->n_samples; i++)
		if (node->now_us - node->samples[i].at_us <= FLOOR_DELAY_US || i + 1 == node->n_samples)
			node->samples[keep++] = node->samples[i];
	node->n_samples = keep;
	if (keep < SAMPLES_MAX &&
		(keep == 0 || node->now_us - node->samples[keep - 1].at_us >= FLOOR_DELAY_US / (SAMPLES_MAX / 2)))
	{
		node->samples[keep].at_us = node->now_us;
		node->samples[keep].committed = node->committed;
		node->n_samples++;
	}
}

static void
on_tick(mg_node *node)
{
	origin	   *own;
	int64_t		pause = node->now_us - node->last_tick_us;

	/* This process stood still itself: that says nothing about the others. */
	if (node->last_tick_us != 0 && pause > node->config.suspect_us / 2)
		for (int i = 0; i < MG_PEERS_MAX; i++)
			node->peers[i].heard_us += pause;
	node->last_tick_us = node->now_us;

	sample_committed(node);

	if (node->state == MG_STATE_JOINING || (node->state == MG_STATE_NON_PRIMARY && (!is_leader(node) || node->leave_asked)))
	{
		if (node->now_us - node->last_join_us >= JOIN_RETRY_US)
		{
			node->last_join_us = node->now_us;
			for (int i = 0; i < MG_PEERS_MAX; i++)
				if ((node->state == MG_STATE_JOINING && node->view.id == 0 && node->peers[i].kind != PEER_NONE) ||
					(node->state == MG_STATE_NON_PRIMARY && node->peers[i].kind == PEER_MEMBER))
					put_join_request(node, i);
		}
	}
	if (node->state == MG_STATE_JOINING && node->self == 0 && node->view.id == 0 && node->config.join_timeout_us > 0 &&
		node->now_us - node->join_since_us > node->config.join_timeout_us)
	{
		join_failed(node, "no member of a primary component answered at the given addresses",
					"Check the addresses, that the nodes there run and are SYNCED, and that this node's mgrepl.node_address can be reached from them.");
		return;
	}
	if (node->state == MG_STATE_JOINING && node->self == 0 && node->view.id != 0 &&
		node->now_us - node->last_fetch_us >= 4 * node->config.fetch_us)
		fetch_missing(node);
	/* Admitted, but the one who admitted it is gone or has forgotten it: asks anew. */
	if (node->state == MG_STATE_JOINING && node->self == 0 && node->view.id != 0 &&
		node->now_us - node->last_entries_us > node->config.suspect_us)
	{
		memset(&node->view, 0, sizeof(node->view));
		if (node->delivered > node->position)
			node->position = node->delivered;
		for (int i = 0; i < MG_PEERS_MAX; i++)
			if (node->peers[i].kind != PEER_NONE)
			{
				node->peers[i].kind = PEER_SEED;
				node->peers[i].incarnation = 0;
				node->peers[i].member = 0;
				node->peers[i].held = node->peers[i].flushed = 0;
			}
		node->last_join_us = 0;
	}
	if (lingers(node) && node->now_us - node->last_ack_us >= LINGER_ACK_US)
		put_ack(node);
	if (node->self == 0)
		return;

	if (node->now_us - node->last_ack_us >= node->config.keepalive_us ||
		(node->ack_lazy_us != 0 && node->now_us >= node->ack_lazy_us))
		node->ack_due = true;

	/* Orders or payloads that should be here by now. */
	if (node->appended < node->ordered)
	{
		if (node->now_us - entry_at(node, node->appended + 1)->since_us >= node->config.fetch_us)
			fetch_missing(node);
	}
	else
		for (int i = 0; i < MG_PEERS_MAX; i++)
			if (node->peers[i].kind == PEER_MEMBER && node->peers[i].held > node->appended &&
				!is_leader(node))
			{
				fetch_missing(node);
				break;
			}

	/* Submissions that got no place yet may have been lost on the way to the leader. */
	own = origin_find(node, node->self);
	if (own != NULL && !is_leader(node))
		for (uint64_t n = own->next_msgno; n < node->next_msgno; n++)
		{
			pending    *p = &own->ring[n & PENDING_MASK];

			if (p->msgno != n || node->now_us - p->sent_us < node->config.resend_us)
				continue;
			if (node->out_all.len + p->len > 8 * MG_FETCH_BYTES && node->out_all.len > 0)
				break;
			p->sent_us = node->now_us;
			put_payload(node, p, node->self);
		}

	if (node->leave_asked && !is_leader(node))
	{
		int			l = peer_of_member(node, node->view.leader);

		if (l >= 0)
			mg_msg_end(&node->peers[l].out, msg_peer(node, l, MG_MSG_LEAVE_REQUEST));
	}
	/* Learners that went silent. */
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if ((node->peers[i].kind == PEER_LEARNER &&
			 node->now_us - node->peers[i].heard_us > 4 * node->config.suspect_us) ||
			(node->peers[i].kind == PEER_GONE && node->now_us - node->peers[i].gone_us > GONE_US))
			peer_remove(node, i);
}

/* Is the primary component still there?  Asked at the end of every round. */
static void
watch_primary(mg_node *node)
{
	bool		ok;

	if (node->self == 0 || (node->state != MG_STATE_SYNCED && node->state != MG_STATE_NON_PRIMARY))
		return;
	ok = majority_heard(node) && member_is_heard(node, node->view.leader);
	if (!ok && node->state == MG_STATE_SYNCED)
		node_shift(node, MG_STATE_NON_PRIMARY,
				   is_leader(node) ? "the majority of the members is silent" : "the leader is silent");
	else if (ok && node->state == MG_STATE_NON_PRIMARY)
		node_shift(node, MG_STATE_SYNCED, "the primary component is back");
}

static void
round_end(mg_node *node)
{
	if (node->state == MG_STATE_OPEN || node->state == MG_STATE_INCONSISTENT)
	{
		send_frames(node);
		return;
	}
	deliver_ready(node);
	order_pending(node);
	lead_membership(node);
	deliver_ready(node);		/* alone, an order may be delivered at once */

	if (node->state == MG_STATE_JOINING && node->self != 0 && node->sync_at != 0 &&
		node->committed >= node->sync_at)
	{
		node->sync_at = 0;
		node_shift(node, MG_STATE_SYNCED, "in the primary component and caught up");
		fx_answer(node, true, "synced", "");
	}
	watch_primary(node);

	/* Catching up: ask on as long as there is more. */
	if (node->next_fetch_us != 0)
	{
		int			best = peer_of_member(node, node->view.leader);

		node->next_fetch_us = 0;
		if (best < 0)
			for (int i = 0; i < MG_PEERS_MAX && best < 0; i++)
				if (node->peers[i].kind == PEER_MEMBER)
					best = i;
		if (best >= 0 && node->ordered - node->delivered < MG_ENTRIES_MAX / 2 &&
			(node->peers[best].held > node->appended || node->self == 0))
			put_fetch(node, best);
	}
	if (node->self != 0)
		put_acks(node);
	send_frames(node);
}

void
mg_node_step(mg_node *node, const mg_input *in, mg_effects *out)
{
	node->fx = out;
	if (in->now_us > node->now_us)
		node->now_us = in->now_us;
	/* The cluster went on without this node: it must not speak as the member it was. */
	if (node->over && in->type != MG_IN_SUBMIT && in->type != MG_IN_LEAVE && in->type != MG_IN_COMMITTED)
	{
		node->fx = NULL;
		return;
	}
	switch (in->type)
	{
		case MG_IN_NONE:
			break;
		case MG_IN_TICK:
			on_tick(node);
			break;
		case MG_IN_ROUND_END:
			round_end(node);
			break;
		case MG_IN_RECEIVE:
			on_receive(node, in->bytes, in->len);
			break;
		case MG_IN_LINK:
			/* A hint only: silence is what counts. */
			if (in->up && in->peer >= 0 && in->peer < MG_PEERS_MAX && node->view.id == 0 &&
				node->state == MG_STATE_JOINING && node->peers[in->peer].kind == PEER_SEED)
				put_join_request(node, in->peer);
			break;
		case MG_IN_SUBMIT:
			on_submit(node, in);
			break;
		case MG_IN_COMMITTED:
			if (in->seqno > node->committed)
				node->committed = in->seqno;
			break;
		case MG_IN_FLUSHED:
			if (in->seqno > node->flushed)
			{
				for (mg_seqno s = node->flushed + 1; s <= in->seqno && s <= node->appended; s++)
					ack_wanted(node, s);
				node->flushed = in->seqno;
			}
			break;
		case MG_IN_LOG_FIRST:
			if (in->seqno > node->log_first)
				node->log_first = in->seqno;
			break;
		case MG_IN_RECOVER:
			on_recover(node, in);
			break;
		case MG_IN_LOG_READ:
			on_log_read(node, in);
			break;
		case MG_IN_BOOTSTRAP:
			on_bootstrap(node, &in->uuid);
			break;
		case MG_IN_JOIN:
			on_join(node, in->text);
			break;
		case MG_IN_LEAVE:
			on_leave(node);
			break;
	}
	node->fx = NULL;
}

/* ------------------------------------------------------------------ life, status */

mg_node *
mg_node_new(const mg_node_config *config, const mg_gtid *position, int64_t now_us)
{
	mg_node    *node = mg_alloc(sizeof(mg_node));

	MG_ASSERT(config->incarnation != 0 && config->weight > 0);
	node->config = *config;
	node->cluster_hash = hash_text(config->cluster_name);
	node->now_us = now_us;
	node->uuid = position->uuid;
	node->position = position->seqno;
	node->committed = position->seqno;
	node->entries = mg_alloc(MG_ENTRIES_MAX * sizeof(entry));
	for (uint32_t i = 0; i < MG_ENTRIES_MAX; i++)
		node->entries[i].slot = -1;
	node->cert = mg_cert_new(position->seqno);
	node->delivered = node->appended = node->ordered = node->flushed = position->seqno;
	node->log_first = position->seqno + 1;
	node->base = position->seqno;
	snprintf(node->reason, sizeof(node->reason), "started");
	return node;
}

void
mg_node_free(mg_node *node)
{
	if (node == NULL)
		return;
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		entry_drop(node, s);
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		origin_clear(node, &node->origins[i]);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_buf_free(&node->peers[i].out);
	mg_cert_free(node->cert);
	mg_buf_free(&node->out_all);
	mg_buf_free(&node->scratch);
	mg_free(node->entries);
	mg_free(node);
}

bool
mg_node_wants_tick(const mg_node *node)
{
	return node->state == MG_STATE_JOINING || node->ack_lazy_us != 0 || node->appended < node->ordered;
}

mg_node_state
mg_node_get_state(const mg_node *node)
{
	return node->state;
}

const char *
mg_node_state_name(mg_node_state state)
{
	switch (state)
	{
		case MG_STATE_OPEN:
			return "OPEN";
		case MG_STATE_JOINING:
			return "JOINER";
		case MG_STATE_SYNCED:
			return "SYNCED";
		case MG_STATE_NON_PRIMARY:
			return "NON_PRIMARY";
		case MG_STATE_INCONSISTENT:
			return "INCONSISTENT";
	}
	return "?";
}

const char *
mg_node_reason(const mg_node *node)
{
	return node->reason;
}

const mg_view *
mg_node_view(const mg_node *node)
{
	return &node->view;
}

mg_member_id
mg_node_self(const mg_node *node)
{
	return node->self;
}

mg_seqno
mg_node_delivered(const mg_node *node)
{
	return node->delivered;
}

mg_seqno
mg_node_held(const mg_node *node)
{
	return node->appended;
}

mg_seqno
mg_node_ordered(const mg_node *node)
{
	return node->ordered;
}

uint64_t
mg_node_unordered(const mg_node *node)
{
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		if (node->self != 0 && node->origins[i].id == node->self)
			return node->next_msgno - node->origins[i].next_msgno;
	return 0;
}

uint64_t
mg_node_damaged(const mg_node *node)
{
	return node->frames_damaged;
}

mg_seqno
mg_node_log_needed(const mg_node *node)
{
	mg_seqno	low = mg_cert_floor(node->cert);

	if (node->committed < low)
		low = node->committed;
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if ((node->peers[i].kind == PEER_MEMBER ||
			 (node->peers[i].kind == PEER_LEARNER && node->peers[i].admitted)) && node->peers[i].held < low)
			low = node->peers[i].held;
	return low;
}

bool
mg_node_peer_info(const mg_node *node, mg_member_id member, mg_peer_info *info)
{
	int			i;

	if (member == node->self && member != 0)
	{
		info->held = node->appended;
		info->flushed = node->flushed;
		info->committed = node->committed;
		info->joined_at = 0;
		info->heard_us = node->now_us;
		return true;
	}
	i = peer_of_member(node, member);
	if (i < 0)
		return false;
	info->held = node->peers[i].held;
	info->flushed = node->peers[i].flushed;
	info->committed = node->peers[i].committed;
	info->joined_at = node->peers[i].joined_at;
	info->heard_us = node->peers[i].heard_us;
	return true;
}
