/*
 * core/group/receive.c - what comes in from others: frames, and entries of the
 * own log that others have asked for.
 *
 * How: a frame is checked as a whole, its sender recognised, then its messages
 * are handled one by one.  What concerns the order is taken only from members
 * of the same epoch as this node; votes, LEAD and admission are talked about
 * across epochs.  Bytes from outside are refused and counted, never asserted.
 */
#include "core/group/group.h"

#include <stdio.h>

static void
on_payload(mg_node *node, int i, mg_reader *r)
{
	const mg_peer *from = &node->peers[i];
	uint64_t	msgno = mg_read_u64(r);
	uint8_t		flags = mg_read_u8(r);
	size_t		len = mg_reader_left(r);
	const uint8_t *bytes = mg_read_bytes(r, len);
	mg_origin  *o;
	mg_pending *p;

	if (r->bad || bytes == NULL || len > MG_WRITESET_BYTES_MAX || (flags & ~MG_ENTRY_FLAGS_ALL) != 0 ||
		from->kind != MG_PEER_MEMBER || from->role != MG_ROLE_DATA || msgno >> MG_LIFE_SHIFT != from->life ||
		msgno >= UINT64_MAX / 4)
	{
		node->frames_damaged++;
		return;
	}
	if (node->entries == NULL || (o = mg_origin_get(node, from->member)) == NULL)
		return;
	if (msgno < o->next_msgno)
	{
		/* Ordered before it came: the entry may still be missing it. */
		mg_entry   *e = mg_entry_at(node, o->ring[msgno & MG_PENDING_MASK].missed_at);

		if (e->seqno > node->appended && !e->have && e->h.type == MG_ENTRY_WRITESET &&
			e->h.origin == from->member && e->h.msgno == msgno)
		{
			e->payload = mg_payload_copy(node, bytes, len);
			e->len = (uint32_t) len;
			e->have = true;
			mg_append_ready(node);
		}
		return;
	}
	p = &o->ring[msgno & MG_PENDING_MASK];
	if ((o->next_msgno != 0 && msgno - o->next_msgno >= MG_PENDING_MAX) || p->msgno >= msgno)
		return;					/* known, or no room: it comes again */
	if (node->payload_bytes + len > MG_PAYLOAD_BYTES_MAX && msgno != o->next_msgno)
		return;					/* the next one always fits */
	mg_payload_free(node, p->bytes, p->len);	/* one that an advance jumped over */
	p->msgno = msgno;
	p->bytes = mg_payload_copy(node, bytes, len);
	p->len = (uint32_t) len;
	p->flags = flags;
	p->slot = -1;
}

/* An entry as it comes from others: in the order of epochs, and of no epoch to come. */
static bool
entry_is_sane(const mg_node *node, const mg_entry_header *h, mg_seqno seqno)
{
	return h->cert_upto < seqno && h->epoch <= node->epoch && h->epoch > 0;
}

static bool
has_room(const mg_node *node)
{
	return node->ordered == node->delivered ||
		(node->ordered - node->delivered < MG_ENTRIES_MAX - MG_ELECT_ROOM && node->payload_bytes <= MG_PAYLOAD_BYTES_MAX);
}

static void
on_order(mg_node *node, const mg_frame_header *fh, mg_reader *r)
{
	mg_seqno	first = mg_read_u64(r);
	uint32_t	n = mg_read_u32(r);

	if (fh->member != node->leader || node->leading || node->entries == NULL || node->view.id == 0)
		return;
	for (uint32_t k = 0; k < n; k++)
	{
		mg_entry_header h;
		uint32_t	len;
		const uint8_t *bytes = NULL;
		uint8_t    *payload = NULL;

		if (mg_entry_decode(r, &h) != MG_OK || !entry_is_sane(node, &h, first + k) || h.epoch != fh->epoch)
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
			mg_fetch_missing(node);	/* an order was lost on the way */
			break;
		}
		if (!has_room(node))
			break;				/* fetched later */
		if (h.type == MG_ENTRY_VIEW)
			payload = mg_payload_copy(node, bytes, len);
		mg_entry_add(node, &h, payload, len);
	}
	mg_append_ready(node);
}

/* What does not end where it should is no message, and counted. */
bool
mg_message_is_whole(mg_node *node, const mg_reader *r)
{
	if (mg_reader_done(r))
		return true;
	node->frames_damaged++;
	return false;
}

static void
on_ack(mg_node *node, int i, mg_reader *r)
{
	mg_peer    *p = &node->peers[i];
	mg_seqno	held = mg_read_u64(r);
	mg_seqno	flushed = mg_read_u64(r);
	mg_seqno	delivered = mg_read_u64(r);
	mg_seqno	committed = mg_read_u64(r);
	mg_seqno	seen = mg_read_u64(r);
	uint64_t	own_next = mg_read_u64(r);
	uint8_t		desynced = mg_read_u8(r);
	mg_seqno	pinned = mg_read_u64(r);
	uint32_t	weight = mg_read_u32(r);
	mg_origin  *o;

	if (!mg_message_is_whole(node, r) || flushed > held || p->kind != MG_PEER_MEMBER)
		return;
	/* Frames of one link keep their order, but nothing here depends on that. */
	p->acked = true;
	p->desynced = desynced != 0;
	p->pinned = pinned;
	p->weight = weight > MG_WEIGHT_MAX ? MG_WEIGHT_MAX : weight;
	if (held > p->held)
		p->held = held;
	if (flushed > p->flushed || (p->role == MG_ROLE_ARBITRATOR ? held >= node->latest.id : flushed >= node->appended))
		p->progress_us = node->now_us;
	if (flushed > p->flushed)
		p->flushed = flushed;
	if (delivered > p->delivered)
		p->delivered = delivered;
	if (committed > p->committed || committed >= node->delivered)
		p->commit_us = node->now_us;
	if (committed > p->committed)
		p->committed = committed;
	if (seen > p->min_seen)
		p->min_seen = seen;
	if (p->role == MG_ROLE_ARBITRATOR)
		return;
	if (delivered > node->heard_delivered)
		node->heard_delivered = delivered;
	if (p->member == node->leader && node->sync_at == UINT64_MAX)
		node->sync_at = delivered > node->lead_start ? delivered : node->lead_start;
	if (node->leading && (held >= node->lead_start || MG_CANARY == 13) && own_next != 0 && own_next >> MG_LIFE_SHIFT == p->life &&
		own_next < UINT64_MAX / 4 && (o = mg_origin_get(node, p->member)) != NULL && !o->open)
		mg_origin_expect(node, o, own_next);
}

static void
put_tip(mg_node *node, int i)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_ENTRIES);

	mg_buf_put_u64(&node->peers[i].out, node->appended);
	mg_buf_put_u64(&node->peers[i].out, node->delivered);
	mg_buf_put_u64(&node->peers[i].out, 0);
	mg_msg_end(&node->peers[i].out, mark);
}

static void
on_fetch(mg_node *node, const mg_frame_header *fh, int i, mg_reader *r)
{
	mg_seqno	from = mg_read_u64(r);
	mg_effect  *fx;

	if (!mg_message_is_whole(node, r) || node->entries == NULL || node->self == 0)
		return;
	if (node->peers[i].kind == MG_PEER_LEARNER)
	{
		mg_peer    *p = &node->peers[i];

		if (!node->leading || !p->admitted || from > node->appended + 1)
			return;				/* silence: it will ask for admission again */
		if (from < node->log_first && from <= p->held)
			return;				/* a late frame: it has more by now */
		if (from < node->log_first)
		{
			mg_put_refuse(node, i, MG_REFUSED_TOO_OLD, "the log no longer reaches back to what the joining node needs",
						  "Start the node from a newer base backup of a member.");
			return;
		}
		p->held = from - 1;
		if (fh->member == 0 && node->appended + 1 - from < MG_JOIN_NEAR)
			p->near = true;
	}
	if (from < node->log_first && from <= node->appended && node->peers[i].kind == MG_PEER_MEMBER && node->leading)
	{
		if (from <= node->peers[i].held)
			return;				/* a late frame: it has more by now */
		mg_put_not_member(node, i, node->peers[i].member, MG_NO_MEMBER_LOG, node->peers[i].incarnation);
		return;
	}
	if (from > node->appended || from < node->log_first)
	{
		put_tip(node, i);		/* nothing to send, but the asker learns where the tip is */
		return;
	}
	fx = mg_fx_add(node, MG_FX_READ_LOG);
	fx->peer = i;
	fx->seqno = from;
}

/* The host has read an entry of the log for a peer. */
void
mg_on_log_read(mg_node *node, const mg_input *in)
{
	mg_peer    *p;
	size_t		mark;

	if (in->peer < 0 || in->peer >= MG_PEERS_MAX || node->peers[in->peer].kind == MG_PEER_NONE ||
		in->generation != node->generation || in->seqno > node->appended || !mg_active(node))
		return;
	p = &node->peers[in->peer];
	mark = mg_msg_peer(node, in->peer, MG_MSG_ENTRIES);
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
	mg_entry   *e;

	if (r->bad || node->peers[i].kind != MG_PEER_MEMBER || node->entries == NULL || delivered > tip)
		return;
	node->last_entries_us = node->now_us;
	if (tip > node->peers[i].held)
		node->peers[i].held = tip;
	if (delivered > node->heard_delivered)
		node->heard_delivered = delivered;
	if (node->leading || seqno == 0 || seqno <= node->appended || seqno > node->ordered + 1)
		return;
	if (mg_entry_decode(r, &h) != MG_OK || !entry_is_sane(node, &h, seqno) ||
		h.epoch < mg_epoch_of(node, node->appended))
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
		e = mg_entry_at(node, seqno);
		if (e->have)
			return;
		if (e->h.origin != h.origin || e->h.msgno != h.msgno || e->h.epoch != h.epoch || e->h.type != h.type)
		{
			node->frames_damaged++;
			return;
		}
		e->payload = mg_payload_copy(node, bytes, len);
		e->len = (uint32_t) len;
		e->have = true;
	}
	else
	{
		if (!has_room(node))
			return;
		mg_entry_add(node, &h, mg_payload_copy(node, bytes, len), (uint32_t) len);
	}
	mg_append_ready(node);
	node->next_fetch_us = node->now_us;	/* there may be more: ask on at the end of the round */
}

/* A seed's first word: it is known by its address, or because no other is left. */
static int
seed_that_answers(const mg_node *node, const char *from)
{
	int			found = mg_peer_of_address(node, from);

	if (node->state != MG_STATE_PRIMARY)
		return -1;
	if (found >= 0)
		return node->peers[found].incarnation == 0 ? found : -1;
	for (int s = 0; s < MG_PEERS_MAX; s++)
		if (node->peers[s].kind == MG_PEER_SEED && node->peers[s].incarnation == 0)
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
			mg_on_refuse(node, &body, false);
	}
	if (type != MG_MSG_JOIN_REQUEST || node->self == 0)
		return;
	mg_read_text(&body, skip, sizeof(skip));
	mg_read_text(&body, skip, sizeof(skip));
	mg_read_text(&body, address, sizeof(address));
	if (body.bad || !mg_address_is_valid(address) || mg_peer_of_incarnation(node, fh->incarnation) >= 0)
		return;
	i = mg_peer_add(node, MG_PEER_GONE, address);
	if (i < 0)
		return;
	node->peers[i].incarnation = fh->incarnation;
	node->peers[i].gone_us = node->now_us;
	snprintf(text, sizeof(text), "the cluster speaks protocol version %d, the joining node version %u",
			 MG_PROTOCOL_VERSION, version);
	mg_put_refuse(node, i, MG_REFUSED, text, "Install the same version of mgrepl on every node.");
}

#define STRANGER	-1
#define STALE		-2

/*
 * Whose frame is it?  A member speaks by its id and the number of its life: a
 * new life is recognised, an old one, or an earlier membership of the same
 * process, is not listened to again.  Others are told apart by their process.
 */
static int
sender(mg_node *node, const mg_frame_header *fh)
{
	int			i;
	mg_peer    *p;
	mg_origin  *o;

	if (fh->member == 0 || fh->cluster_hash != node->cluster_hash)
		return mg_peer_of_incarnation(node, fh->incarnation);
	if (fh->member == node->self)
		return STALE;
	i = mg_peer_of_member(node, fh->member);
	if (i < 0)
	{
		i = mg_peer_of_incarnation(node, fh->incarnation);
		if (i < 0 || node->peers[i].kind != MG_PEER_MEMBER)
			return i;
		return fh->member < node->peers[i].member ? STALE : STRANGER;	/* ids grow: a later membership is news */
	}
	p = &node->peers[i];
	if (p->incarnation == fh->incarnation && p->life == fh->life)
		return i;
	if (fh->life <= p->life && p->incarnation != 0)
		return STALE;
	p->incarnation = fh->incarnation;
	p->life = fh->life;
	mg_peer_forget_acks(p);
	p->delivered = p->committed = 0;
	p->vote_epoch = 0;
	p->leaving = p->replaced = false;
	if ((o = mg_origin_find(node, fh->member)) != NULL)
		mg_origin_clear(node, o);
	return i;
}

/* Admission is talked about with strangers too. */
static int
on_admission(mg_node *node, const mg_frame_header *fh, int i, mg_msg_type type, mg_reader *body)
{
	char		from[MG_ADDRESS_BYTES_MAX];

	if (type == MG_MSG_JOIN_REQUEST)
	{
		mg_on_join_request(node, fh, body);
		return mg_peer_of_incarnation(node, fh->incarnation);
	}
	mg_read_text(body, from, sizeof(from));
	if (body->bad)
		return i;
	if (i < 0)
		i = seed_that_answers(node, from);
	if (i < 0)
		return i;
	if (type == MG_MSG_REFUSE)
	{
		mg_on_refuse(node, body, true);
		return node->peers[i].kind == MG_PEER_NONE ? -1 : i;
	}
	if (node->peers[i].incarnation == 0)
	{
		node->peers[i].incarnation = fh->incarnation;
		node->peers[i].life = fh->life;
		node->peers[i].heard_us = node->now_us;
	}
	mg_on_join_reply(node, fh, body);
	return mg_peer_of_incarnation(node, fh->incarnation);
}

static void
on_message(mg_node *node, const mg_frame_header *fh, int i, mg_msg_type type, mg_reader *body)
{
	/* Across epochs. */
	switch (type)
	{
		case MG_MSG_VOTE_REQUEST:
			mg_on_vote_request(node, fh, i, body);
			return;
		case MG_MSG_LEAD:
			mg_on_lead(node, fh, i, body);
			return;
		case MG_MSG_VOTE_REPLY:
			if (i >= 0)
				mg_on_vote_reply(node, i, body);
			return;
		case MG_MSG_NOT_MEMBER:
			mg_on_not_member(node, fh, body);	/* whoever led when this node was away may be new to it */
			return;
		default:
			break;
	}
	if (i < 0 || fh->epoch != node->epoch || !mg_active(node))
		return;
	switch (type)
	{
		case MG_MSG_PAYLOAD:
			on_payload(node, i, body);
			break;
		case MG_MSG_ORDER:
			on_order(node, fh, body);
			break;
		case MG_MSG_ACK:
			on_ack(node, i, body);
			break;
		case MG_MSG_FETCH:
			on_fetch(node, fh, i, body);
			break;
		case MG_MSG_ENTRIES:
			on_entries(node, i, body);
			break;
		case MG_MSG_LEAVE_REQUEST:
			if (node->leading && node->peers[i].kind == MG_PEER_MEMBER)
				node->peers[i].leaving = true;
			break;
		case MG_MSG_HANDOVER:
			mg_on_handover(node, i);
			break;
		default:
			break;
	}
}

void
mg_on_receive(mg_node *node, const void *bytes, size_t len)
{
	mg_frame_header fh;
	mg_reader	r,
				body;
	mg_msg_type type;
	mg_msg_type bad_type = MG_MSG_NONE;
	uint16_t	version;
	mg_status	status = mg_frame_open(bytes, len, &fh, &r, &version);
	int			i;

	if (status == MG_E_VERSION)
	{
		node->frames_damaged++;
		mg_fx_log(node, "transport: frame of protocol version %u refused, this node speaks version %d",
				  version, MG_PROTOCOL_VERSION);
		if (!r.bad)
			on_other_version(node, &fh, &r, version);
		return;
	}
	if (status != MG_OK)
	{
		node->frames_damaged++;
		mg_fx_log(node, "transport: frame of %zu bytes refused: %s", len, mg_status_name(status));
		return;
	}
	if (fh.incarnation == node->config.incarnation)
		return;					/* its own voice */
	i = sender(node, &fh);
	if (i == STALE)
	{
		while (mg_msg_next(&r, &type, &body))
			if (type == MG_MSG_VOTE_REQUEST && node->self != 0)
				mg_on_earlier_life(node, &fh, &body);
		return;
	}
	if (i >= 0)
	{
		/* Away for a while: its log could not move. */
		if (node->now_us - node->peers[i].heard_us > mg_suspect_us(node, &node->peers[i]))
			node->peers[i].progress_us = node->now_us;
		node->peers[i].heard_us = node->now_us;
		if (fh.member != 0)
			node->peers[i].replaced = false;	/* it does speak as a member */
		if (fh.member == node->leader && fh.member != 0 && fh.epoch == node->epoch &&
			(fh.flags & MG_FRAME_LEADING) != 0)
		{
			node->leader_us = node->now_us;
			node->leader_frames++;
		}
	}
	while (mg_msg_next(&r, &type, &body))
	{
		uint64_t	before = node->frames_damaged;

		if (type == MG_MSG_JOIN_REQUEST || type == MG_MSG_JOIN_REPLY || type == MG_MSG_REFUSE)
			i = on_admission(node, &fh, i, type, &body);
		else if (fh.cluster_hash == node->cluster_hash && node->state != MG_STATE_INCONSISTENT)
			on_message(node, &fh, i, type, &body);
		if (i < 0 || node->peers[i].incarnation != fh.incarnation)
			i = mg_peer_of_incarnation(node, fh.incarnation);	/* the message began or ended the acquaintance */
		if (body.bad && node->frames_damaged == before)
			node->frames_damaged++;
		if (node->frames_damaged != before)
			bad_type = type;
	}
	if (bad_type != MG_MSG_NONE)	/* one line for a frame, which may hold a great many */
		mg_fx_log(node, "transport: a message of type %u in a frame of member %u holds what none may hold", bad_type, fh.member);
	if (r.bad)
	{
		node->frames_damaged++;
		mg_fx_log(node, "transport: frame of member %u holds bytes that are no message", fh.member);
	}
}
