/*
 * core/group/lead.c - what only the leader does: gives messages their places,
 * keeps the stream at the pace of its members, changes the view.
 *
 * How: at the end of a round every waiting message gets the next seqno, round
 * robin over the origins, and all orders of the round travel in one message.
 * One view at most is on its way at any time; who is dead, gone, or new is
 * taken out or in one after the other.
 *
 * Flow control slows the cluster to the pace of a member that applies slowly,
 * never to that of one that does not move at all: such a one catches up later,
 * or is evicted when its log does not move either.
 */
#include "core/group/group.h"

#include <stdio.h>

/* Below it no last_seen can arrive any more. */
mg_seqno
mg_cluster_floor(mg_node *node)
{
	mg_seqno	low = mg_min_seen(node);

#if MG_CANARY != 10
	for (uint32_t m = 0; m < node->latest.n; m++)
	{
		int			i = mg_peer_of_member(node, node->latest.members[m].id);

		if (node->latest.members[m].id == node->self || node->latest.members[m].role != MG_ROLE_DATA)
			continue;
		if (i < 0 || !node->peers[i].acked)
			low = 0;
		else if (node->peers[i].min_seen < low)
			low = node->peers[i].min_seen;
	}
#endif
	if (low < mg_cert_floor(node->cert))
		low = mg_cert_floor(node->cert);
	if (low < node->tail_floor)
		low = node->tail_floor;
	if (low > node->last_floor)
		node->last_floor = low;
	return node->last_floor;
}

static void
stamp(mg_node *node, mg_entry_header *h, mg_seqno floor)
{
	const mg_seqno_queue *q = &node->own_failed;

	h->epoch = node->epoch;
	h->view_id = node->view.id;
	h->floor = floor;
	h->cert_upto = node->delivered > node->tail_cert_upto ? node->delivered : node->tail_cert_upto;
	h->n_failed = 0;
	/* Those below are named by an entry on its way. */
	for (uint32_t i = mg_queue_above(q, node->tail_cert_upto); i != q->tail; i++)
	{
		mg_seqno	s = q->ring[i & (MG_FAILED_CAP - 1)];

		if (h->n_failed == MG_ENTRY_FAILED_MAX)
		{
			h->cert_upto = s - 1;
			break;
		}
		h->failed[h->n_failed++] = s;
	}
}

static void
put_order_record(mg_node *node, const mg_entry_header *h, const uint8_t *payload, uint32_t len)
{
	mg_entry_encode(&node->out_all, h);
	mg_buf_put_u32(&node->out_all, h->type == MG_ENTRY_VIEW ? len : 0);
	if (h->type == MG_ENTRY_VIEW)
		mg_buf_put(&node->out_all, payload, len);
}

/* Up to which seqno may be ordered now?  The same for a whole round. */
static mg_seqno
order_limit(const mg_node *node)
{
	mg_seqno	slowest = UINT64_MAX;
	mg_seqno	limit = node->delivered + MG_ENTRIES_MAX / 2;

	if (!mg_active(node) || node->leave_asked)
		return 0;
	if (!node->desynced && node->now_us - node->commit_us < MG_FC_PATIENCE_US)
		slowest = node->committed;
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		const mg_peer *p = &node->peers[i];

		if (p->kind == MG_PEER_MEMBER && p->role == MG_ROLE_DATA && p->acked && !p->desynced && p->committed < slowest &&
			p->committed >= p->joined_at && node->now_us - p->commit_us < MG_FC_PATIENCE_US)
			slowest = p->committed;
	}
	if (slowest != UINT64_MAX && slowest + node->config.fc_limit < limit)
		limit = slowest + node->config.fc_limit;
	return limit;
}

static bool
may_speak(const mg_node *node, const mg_origin *o)
{
	int			m = o->id != 0 && o->ring != NULL && o->open ? mg_view_find(&node->latest, o->id) : -1;

	return m >= 0 && o->next_msgno >> MG_LIFE_SHIFT == node->latest.members[m].life;
}

/* Gives the waiting messages their places, round robin over the origins. */
void
mg_order_pending(mg_node *node)
{
	bool		any = false;
	size_t		mark = 0;
	uint32_t	n = 0;
	size_t		n_at = 0;
	mg_seqno	floor = 0;
	uint32_t	idle = 0;
	mg_seqno	limit;

	if (!node->leading)
		return;
	limit = order_limit(node);
	while (idle <= MG_MEMBERS_MAX && n < MG_ORDER_BATCH_MAX && node->ordered < limit)
	{
		mg_origin  *o = &node->origins[node->order_turn++ % (MG_MEMBERS_MAX + 1)];
		mg_pending *p;
		mg_entry_header h;

		if (!may_speak(node, o) || (p = &o->ring[o->next_msgno & MG_PENDING_MASK])->msgno != o->next_msgno)
		{
			idle++;
			continue;
		}
		idle = 0;
		if (!any)
		{
			any = true;
			floor = mg_cluster_floor(node);
			mark = mg_msg_all(node, MG_MSG_ORDER);
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
		mg_entry_add(node, &h, NULL, 0);
		n++;
	}
	if (any)
	{
		mg_buf_set_u32(&node->out_all, n_at, n);
		mg_msg_end(&node->out_all, mark);
		mg_append_ready(node);
	}
}

/* With members_id 0 the view changes who counts. */
void
mg_order_view(mg_node *node, mg_view *view)
{
	mg_entry_header h;
	uint8_t    *payload;
	size_t		mark;

	view->id = node->ordered + 1;
	if (view->members_id == 0)
		view->members_id = view->id;
	view->epoch = node->epoch;
	view->leader = node->self;
	mg_buf_reset(&node->scratch);
	mg_view_encode(&node->scratch, view);
	memset(&h, 0, sizeof(h));
	h.type = MG_ENTRY_VIEW;
	h.origin = node->self;
	stamp(node, &h, mg_cluster_floor(node));
	payload = mg_payload_copy(node, node->scratch.data, node->scratch.len);
	mark = mg_msg_all(node, MG_MSG_ORDER);
	mg_buf_put_u64(&node->out_all, node->ordered + 1);
	mg_buf_put_u32(&node->out_all, 1);
	put_order_record(node, &h, payload, (uint32_t) node->scratch.len);
	mg_msg_end(&node->out_all, mark);
	mg_entry_add(node, &h, payload, (uint32_t) node->scratch.len);
	mg_append_ready(node);
}

static bool
is_dead(const mg_node *node, const mg_peer *p)
{
	int64_t		silent = node->now_us - p->heard_us;

	if (silent >= mg_inactive_us(node, p) || (p->link_lost && silent >= mg_suspect_us(node, p)))
		return true;
	/* It speaks, but its log does not move: a full or hanging disk, or it cannot hear. */
	return node->now_us - p->progress_us >= mg_inactive_us(node, p);
}

static bool
take_out(mg_node *node, uint32_t m, mg_left_how how)
{
	mg_view		view = node->latest;

	view.joined = 0;
	view.left = view.members[m].id;
	view.left_how = (uint8_t) how;
	memmove(&view.members[m], &view.members[m + 1], (view.n - 1 - m) * sizeof(mg_member));
	view.n--;
	view.members_id = 0;
	if (!mg_quorum_heard(node, &view))
		return false;			/* nobody could agree to it */
	mg_order_view(node, &view);
	return true;
}

/*
 * Until it has its view in its log, a new member does not know of it: if it asks
 * anew meanwhile, it will never speak as that member.  So it counts for nothing
 * at first, and gets its weight when it has spoken (adjust_weights).
 */
static void
take_in(mg_node *node, const mg_peer *p)
{
	mg_view		view = node->latest;
	mg_member  *member = &view.members[view.n++];

	memset(member, 0, sizeof(*member));
	member->id = view.next_member_id++;
	member->role = p->role;
	member->segment = p->segment;
	member->life = 1;
	member->weight = 0;
	member->incarnation = p->incarnation;
	snprintf(member->name, sizeof(member->name), "%s", p->name);
	snprintf(member->address, sizeof(member->address), "%s", p->address);
	snprintf(member->sql_address, sizeof(member->sql_address), "%s", p->sql_address);
	view.joined = member->id;
	view.left = 0;
	view.left_how = MG_LEFT_NOBODY;
	view.members_id = 0;
	mg_order_view(node, &view);
}

/* Members that have spoken as such get the weight that they have in their configuration: new ones, and those where it was changed. */
static bool
adjust_weights(mg_node *node)
{
	for (uint32_t m = 0; m < node->latest.n; m++)
	{
		const mg_member *member = &node->latest.members[m];
		int			i = mg_peer_of_member(node, member->id);
		uint32_t	weight = member->weight;
		mg_view		view;

		if (member->id == node->self)
			weight = node->config.weight > 0 ? node->config.weight : weight;	/* who leads has one */
		else if (i >= 0 && node->peers[i].acked)
			weight = node->peers[i].weight;
		if (weight == member->weight)
			continue;
		view = node->latest;
		view.members[m].weight = weight;
		view.joined = view.left = 0;
		view.left_how = MG_LEFT_NOBODY;
		view.members_id = 0;
		if (!mg_quorum_heard(node, &view))
			continue;
		mg_order_view(node, &view);
		return true;
	}
	return false;
}

/*
 * At most one change of members is on its way at any time.  To take somebody out
 * need not wait for other views, which may need the very one who is to go.
 */
void
mg_lead_membership(mg_node *node)
{
	bool		calm = node->latest.id <= node->delivered && node->delivered >= node->lead_start;

	if (!node->leading || !mg_active(node) || node->state == MG_STATE_INCONSISTENT || mg_is_joint(node) ||
		node->latest.id < node->lead_start)
		return;

	for (uint32_t m = 0; m < node->latest.n; m++)
	{
		const mg_member *member = &node->latest.members[m];
		int			i = mg_peer_of_member(node, member->id);

		if (i < 0)
			continue;
		if (node->peers[i].leaving && take_out(node, m, MG_LEFT_GRACEFULLY))
			return;
		if (node->peers[i].replaced && !mg_member_is_heard(node, member->id) && take_out(node, m, MG_LEFT_RESTARTED))
			return;
		if (is_dead(node, &node->peers[i]) && take_out(node, m, MG_LEFT_SUSPECTED))
			return;
		if (calm && node->peers[i].life > member->life && node->peers[i].acked)
		{
			/* The same member in a new life: its messages of this one may come. */
			mg_view		view = node->latest;

			view.members[m].life = node->peers[i].life;
			view.members[m].incarnation = node->peers[i].incarnation;
			snprintf(view.members[m].address, sizeof(view.members[m].address), "%s", node->peers[i].address);
			snprintf(view.members[m].sql_address, sizeof(view.members[m].sql_address), "%s", node->peers[i].sql_address);
			view.joined = member->id;
			view.left = 0;
			view.left_how = MG_LEFT_RESTARTED;
			mg_order_view(node, &view);
			return;
		}
	}
	if (!calm || adjust_weights(node))
		return;
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		mg_peer    *p = &node->peers[i];

		if (p->kind == MG_PEER_LEARNER && p->near && node->delivered >= p->wait_delivered &&
			node->now_us - p->heard_us < mg_suspect_us(node, p) && !p->link_lost &&
			node->latest.n < MG_MEMBERS_MAX && mg_quorum_heard(node, NULL))
		{
			if (mg_first_id(node->epoch + 1) == 0 || node->latest.next_member_id < mg_first_id(node->epoch + 1))
				take_in(node, p);
			else
				node->seen_epoch = node->epoch + 1;	/* out of ids: on to the next epoch */
			return;
		}
	}
}
