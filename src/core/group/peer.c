/*
 * core/group/peer.c - the other nodes this one knows, and the frames to them.
 *
 * How: a peer is a slot with an address; what came from it, when, and what it
 * has acknowledged in this epoch.  Members are told apart by their member id,
 * which they keep from life to life; strangers by the incarnation of their
 * process.  What is said during a round shares one frame per receiver.
 */
#include "core/group/group.h"

#include <stdio.h>

bool
mg_address_is_valid(const char *address)
{
	const char *colon = strrchr(address, ':');

	if (colon == NULL || colon == address || colon[1] == '\0' || strlen(colon + 1) > 5)
		return false;
	return strspn(colon + 1, "0123456789") == strlen(colon + 1);
}

/* One that cannot be right counts as not told. */
void
mg_read_sql_address(mg_reader *r, char *to, size_t cap)
{
	mg_read_text(r, to, cap);
	if (!mg_address_is_valid(to))
		to[0] = '\0';
}

int
mg_peer_of_incarnation(const mg_node *node, uint64_t incarnation)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind != MG_PEER_NONE && node->peers[i].incarnation == incarnation && incarnation != 0)
			return i;
	return -1;
}

int
mg_peer_of_member(const mg_node *node, mg_member_id id)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == MG_PEER_MEMBER && node->peers[i].member == id)
			return i;
	return -1;
}

int
mg_peer_of_address(const mg_node *node, const char *address)
{
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind != MG_PEER_NONE && strcmp(node->peers[i].address, address) == 0)
			return i;
	return -1;
}

static void
peer_connect(mg_node *node, int i, const char *address)
{
	size_t		at;
	mg_effect  *e;

	snprintf(node->peers[i].address, sizeof(node->peers[i].address), "%s", address);
	node->peers[i].link_lost = false;
	at = mg_fx_text(node, address);
	e = mg_fx_add(node, MG_FX_CONNECT);
	e->peer = i;
	e->at = at;
}

/* The member has started at another address. */
void
mg_peer_moved(mg_node *node, int i, const char *address)
{
	peer_connect(node, i, address);
	node->peers[i].moved = true;
}

/* Whom nobody needs: the one that is gone for longest; for a member, anybody who is none. */
static int
peer_to_forget(const mg_node *node, bool for_member)
{
	int			found = -1;

	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		const mg_peer *p = &node->peers[i];

		if (p->kind == MG_PEER_GONE &&
			(found < 0 || node->peers[found].kind != MG_PEER_GONE || p->gone_us < node->peers[found].gone_us))
			found = i;
		else if (found < 0 && for_member && (p->kind == MG_PEER_LEARNER || p->kind == MG_PEER_SEED))
			found = i;
	}
	return found;
}

/* -1: there is no room.  There always is for a member. */
int
mg_peer_add(mg_node *node, mg_peer_kind kind, const char *address)
{
	int			i = 0;
	mg_peer    *p;

	while (i < MG_PEERS_MAX && node->peers[i].kind != MG_PEER_NONE)
		i++;
	if (i == MG_PEERS_MAX)
	{
		i = peer_to_forget(node, kind == MG_PEER_MEMBER);
		if (i < 0)
			return -1;
		mg_peer_remove(node, i);
	}
	p = &node->peers[i];
	mg_buf_reset(&p->out);
	p->kind = kind;
	p->heard_us = p->progress_us = p->commit_us = node->now_us;
	peer_connect(node, i, address);
	return i;
}

void
mg_peer_remove(mg_node *node, int i)
{
	mg_buf		out = node->peers[i].out;

	if (node->peers[i].kind == MG_PEER_NONE)
		return;
	mg_buf_reset(&out);
	memset(&node->peers[i], 0, sizeof(mg_peer));
	node->peers[i].out = out;
	mg_fx_add(node, MG_FX_DISCONNECT)->peer = i;
}

/* Its acknowledgements were of another epoch, or of another life. */
void
mg_peer_forget_acks(mg_peer *p)
{
#if MG_CANARY != 8
	p->acked = false;
	p->held = p->flushed = 0;
#endif
	p->min_seen = 0;
	p->lead_us = 0;
}

/* The peer in slot i is this member of a view. */
void
mg_peer_is_member(mg_node *node, int i, const mg_member *member)
{
	mg_peer    *p = &node->peers[i];

	if (p->kind != MG_PEER_MEMBER || p->member != member->id)
	{
		p->heard_us = p->progress_us = p->commit_us = node->now_us;
		mg_peer_forget_acks(p);
		p->delivered = p->committed = p->pinned = 0;
		p->desynced = false;
		p->leaving = p->replaced = false;
		p->vote_epoch = 0;
		p->joined_at = 0;
		p->incarnation = 0;		/* what was known is of somebody before it */
	}
	p->kind = MG_PEER_MEMBER;
	p->member = member->id;
	p->role = member->role;
	p->segment = member->segment;
	if (member->life > p->life || p->incarnation == 0)
	{
		p->life = member->life;
		p->incarnation = member->incarnation;
	}
	snprintf(p->name, sizeof(p->name), "%s", member->name);
	if (member->life >= p->life)
		snprintf(p->sql_address, sizeof(p->sql_address), "%s", member->sql_address);
	if (strcmp(p->address, member->address) == 0)
		p->moved = false;
	else if (!p->moved)
		peer_connect(node, i, member->address);
}

/*
 * A peer for every other member of the view; with `drop_others`, none for a
 * member of no view that counts.
 */
void
mg_peers_follow(mg_node *node, const mg_view *view, bool drop_others)
{
	for (uint32_t m = 0; m < view->n; m++)
	{
		const mg_member *member = &view->members[m];
		int			i;

		if (member->id == node->self || member->incarnation == node->config.incarnation)
			continue;
		i = mg_peer_of_member(node, member->id);
		if (i < 0)
		{
			i = mg_peer_of_incarnation(node, member->incarnation);
			if (i >= 0 && node->peers[i].kind == MG_PEER_MEMBER)
				i = -1;
		}
		for (int k = 0; k < MG_PEERS_MAX && i < 0; k++)
			if (node->peers[k].kind == MG_PEER_SEED && strcmp(node->peers[k].address, member->address) == 0)
				i = k;
		if (i < 0)
			i = mg_peer_add(node, MG_PEER_MEMBER, member->address);
		if (i >= 0)
			mg_peer_is_member(node, i, member);
	}
	for (int i = 0; i < MG_PEERS_MAX && drop_others; i++)
	{
		mg_peer    *p = &node->peers[i];

		if (p->kind == MG_PEER_MEMBER && p->member != node->leader && mg_view_find(view, p->member) < 0 &&
			mg_view_find(&node->latest, p->member) < 0 &&
			(!mg_is_joint(node) || mg_view_find(&node->old, p->member) < 0))
		{
			p->kind = MG_PEER_GONE;
			p->gone_us = node->now_us;
		}
	}
}

int64_t
mg_suspect_us(const mg_node *node, const mg_peer *p)
{
	return p->segment != node->config.segment && node->config.wan_suspect_us > 0 ?
		node->config.wan_suspect_us : node->config.suspect_us;
}

int64_t
mg_inactive_us(const mg_node *node, const mg_peer *p)
{
	int64_t		us = p->segment != node->config.segment && node->config.wan_inactive_us > 0 ?
		node->config.wan_inactive_us : node->config.inactive_us;

	return us > 0 ? us : 5 * mg_suspect_us(node, p);
}

bool
mg_member_is_heard(const mg_node *node, mg_member_id id)
{
	int			i;

	if (id == node->self)
		return true;
	i = mg_peer_of_member(node, id);
	return i >= 0 && !node->peers[i].link_lost &&
		node->now_us - node->peers[i].heard_us < mg_suspect_us(node, &node->peers[i]);
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
			.epoch = node->epoch,
			.life = node->life,
			.flags = node->leading ? MG_FRAME_LEADING : 0,
			.member = node->self
		};

		mg_frame_begin(frame, &h);
	}
}

size_t
mg_msg_all(mg_node *node, mg_msg_type type)
{
	frame_open(node, &node->out_all);
	return mg_msg_begin(&node->out_all, type);
}

size_t
mg_msg_peer(mg_node *node, int i, mg_msg_type type)
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
		e = mg_fx_add(node, MG_FX_SEND);
		e->peers = mask;
		e->at = at;
		e->len = frame->len;
	}
	mg_buf_reset(frame);
	if (frame->cap > 16 * 1024 * 1024)
		mg_buf_free(frame);		/* one huge writeset must not keep its memory for ever */
}

void
mg_send_frames(mg_node *node)
{
	uint32_t	mask = 0;

	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == MG_PEER_MEMBER && node->peers[i].role == MG_ROLE_DATA)
			mask |= UINT32_C(1) << i;

	/* Payloads and orders first: answers to single peers may refer to them. */
	frame_send(node, &node->out_all, mask);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind != MG_PEER_NONE)
			frame_send(node, &node->peers[i].out, UINT32_C(1) << i);
}

void
mg_put_payload(mg_node *node, const mg_pending *p)
{
	size_t		mark;

	if (node->out_all.len > 0 && node->out_all.len + p->len > 8 * MG_FETCH_BYTES)
		mg_send_frames(node);	/* frames have a limit */
	mark = mg_msg_all(node, MG_MSG_PAYLOAD);
	mg_buf_put_u64(&node->out_all, p->msgno);
	mg_buf_put_u8(&node->out_all, p->flags);
	mg_buf_put(&node->out_all, p->bytes, p->len);
	mg_msg_end(&node->out_all, mark);
}

/* The lowest last_seen that this node may still send. */
mg_seqno
mg_min_seen(mg_node *node)
{
	mg_seqno	low = node->committed;

	/* A submission waits in shared memory for a moment: report what was committed a while ago. */
	for (uint32_t i = 0; i < node->n_samples; i++)
		if (node->samples[i].committed < low)
			low = node->samples[i].committed;
	for (uint64_t n = node->own_undelivered; n < node->next_msgno; n++)
		if (node->own_seen[n & MG_PENDING_MASK] < low)
			low = node->own_seen[n & MG_PENDING_MASK];
	for (uint32_t i = 0; i < node->n_reservations; i++)
		if (node->reservations[i].seqno - 1 < low)
			low = node->reservations[i].seqno - 1;
	return low;
}

/*
 * Positions, and where the own stream of messages stands: after a change of
 * leader that is what the new one goes on from.
 */
static void
put_ack_body(mg_node *node, mg_buf *frame)
{
	mg_origin  *own = node->self != 0 ? mg_origin_find(node, node->self) : NULL;
	mg_seqno	held = node->appended;
	mg_seqno	flushed = node->flushed < node->appended ? node->flushed : node->appended;

#if MG_CANARY == 1
	flushed = node->appended;
#endif
	if (mg_is_arbitrator(node))
	{
		/* Which view it knows from this leader, and which change of members it stands for. */
		flushed = node->arbitrated_epoch == node->epoch ? node->arbitrated : 0;
		held = node->told_epoch == node->epoch && node->latest.id > flushed ? node->latest.id : flushed;
#if MG_CANARY == 15
		flushed = held;
#endif
	}
	mg_buf_put_u64(frame, held);
	mg_buf_put_u64(frame, flushed);
	mg_buf_put_u64(frame, node->delivered);
	mg_buf_put_u64(frame, node->committed);
	mg_buf_put_u64(frame, mg_is_arbitrator(node) ? UINT64_MAX : mg_min_seen(node));
	mg_buf_put_u64(frame, own != NULL ? own->next_msgno : 0);
	mg_buf_put_u8(frame, node->desynced);
	mg_buf_put_u64(frame, node->pinned);
	mg_buf_put_u32(frame, node->config.weight);
}

void
mg_put_ack(mg_node *node)
{
	if (mg_active(node))
	{
		if (mg_is_arbitrator(node))
		{
			/* Only whoever leads needs its word. */
			int			l = mg_peer_of_member(node, node->leader);

			if (l >= 0)
			{
				size_t		mark = mg_msg_peer(node, l, MG_MSG_ACK);

				put_ack_body(node, &node->peers[l].out);
				mg_msg_end(&node->peers[l].out, mark);
			}
		}
		else
		{
			size_t		mark = mg_msg_all(node, MG_MSG_ACK);

			put_ack_body(node, &node->out_all);
			mg_msg_end(&node->out_all, mark);
			for (int i = 0; i < MG_PEERS_MAX; i++)
				if (node->peers[i].kind == MG_PEER_MEMBER && node->peers[i].role == MG_ROLE_ARBITRATOR)
				{
					mark = mg_msg_peer(node, i, MG_MSG_ACK);
					put_ack_body(node, &node->peers[i].out);
					mg_msg_end(&node->peers[i].out, mark);
				}
		}
	}
	node->ack_due = false;
	node->ack_urgent = 0;
	node->ack_lazy_us = 0;
	node->last_ack_us = node->now_us;
}

/*
 * Acknowledgements cost a frame per peer and flush, and only the origin of an
 * entry has a client that waits for it.  So it is told at once; the others with
 * the next frame that goes to all, or MG_ACK_LAZY_US later.
 */
void
mg_put_acks(mg_node *node)
{
	if (!mg_active(node))
		return;
	if (node->ack_due || (node->ack_lazy_us != 0 && node->out_all.len > 0))
	{
		mg_put_ack(node);
		return;
	}
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if ((node->ack_urgent & (UINT32_C(1) << i)) != 0 && node->peers[i].kind == MG_PEER_MEMBER)
		{
			size_t		mark = mg_msg_peer(node, i, MG_MSG_ACK);

			put_ack_body(node, &node->peers[i].out);
			mg_msg_end(&node->peers[i].out, mark);
		}
	node->ack_urgent = 0;
}

/* There is something to acknowledge about the entry at `seqno`. */
void
mg_ack_wanted(mg_node *node, mg_seqno seqno)
{
	const mg_entry *e = mg_entry_at(node, seqno);
	int			i;

	if (node->ack_lazy_us == 0)
		node->ack_lazy_us = node->now_us + MG_ACK_LAZY_US;
	if (e->seqno != seqno)
		return;					/* delivered already */
	if (e->h.type == MG_ENTRY_VIEW)
		node->ack_due = true;
	else if (e->h.origin != node->self && (i = mg_peer_of_member(node, e->h.origin)) >= 0)
		node->ack_urgent |= UINT32_C(1) << i;
}

void
mg_put_fetch(mg_node *node, int i)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_FETCH);

	mg_buf_put_u64(&node->peers[i].out, node->appended + 1);
	mg_msg_end(&node->peers[i].out, mark);
	node->last_fetch_us = node->now_us;
}

/* Asks for what is missing, from the leader or else from whoever holds most. */
void
mg_fetch_missing(mg_node *node)
{
	int			best = mg_peer_of_member(node, node->leader);

	if (node->now_us - node->last_fetch_us < node->config.fetch_us || node->leading)
		return;
	if (best >= 0 && node->self != 0 && !mg_member_is_heard(node, node->leader))
		best = -1;
	if (best < 0 || (node->peers[best].acked && node->peers[best].held <= node->appended))
		for (int i = 0; i < MG_PEERS_MAX; i++)
			if (node->peers[i].kind == MG_PEER_MEMBER && node->peers[i].role == MG_ROLE_DATA &&
				node->peers[i].held > node->appended &&
				(best < 0 || node->peers[i].held > node->peers[best].held))
				best = i;
	if (best >= 0)
		mg_put_fetch(node, best);
}
