/*
 * core/group/deliver.c - the one order comes out: certification, views, and the
 * check that everybody judges alike.
 *
 * How: entry by entry, once enough members have it (quorum.c).  Every entry
 * carries stamps: the verdicts that the leader reached on earlier ones.  They
 * are used twice.  Looking ahead, when an entry joins the log: a node that came
 * in the middle cannot certify what refers to before its time and takes these
 * verdicts from the stamps (they are facts: a leader names only what is
 * delivered).  And at delivery: each failure is named exactly once in the log,
 * so what this node found must be what the entry names; if it is not, the node
 * stops at once instead of diverging.
 */
#include "core/group/group.h"

#include <stdio.h>

#include "core/writeset.h"

void
mg_inconsistent(mg_node *node, const char *why)
{
	mg_own_submissions_unknown(node);
	node->leading = false;
	node->leader = 0;
	mg_node_shift(node, MG_STATE_INCONSISTENT, why);
}

static void
verdict_differs(mg_node *node, mg_seqno seqno)
{
	char		why[MG_REASON_BYTES_MAX];

	snprintf(why, sizeof(why), "certification of seqno %llu differs from the leader's",
			 (unsigned long long) seqno);
	mg_inconsistent(node, why);
}

/*
 * After a crash the index is built from the own log: entries whose verdicts it
 * names need nothing, the others everything above their floor.  So what is below
 * the floor of delivery `mark_at` may be recycled only when the verdicts up to
 * mark_at are named by a durable entry (mark_by).
 */
void
mg_mark_floor(mg_node *node)
{
	if (node->mark_by != 0 && node->flushed >= node->mark_by)
	{
		node->safe_floor = node->mark_floor;
		node->mark_at = node->mark_by = 0;
	}
	if (node->mark_at == 0)
	{
		node->mark_at = node->delivered;
		node->mark_floor = mg_cert_floor(node->cert);
	}
}

/* An entry joins the log: verdicts that this node cannot reach itself. */
void
mg_look_ahead(mg_node *node, const mg_entry_header *h, mg_seqno seqno)
{
	if (node->mark_at != 0 && node->mark_by == 0 && h->cert_upto >= node->mark_at)
		node->mark_by = seqno;
	if (h->cert_upto < node->stamped_upto)
		return;
	for (int i = 0; i < h->n_failed; i++)
	{
		mg_seqno	s = h->failed[i];

		if (s > node->stamped_upto && s > node->delivered && s <= node->known_upto && s > node->base)
			mg_queue_push(&node->stamped_failed, s);
	}
	node->stamped_upto = h->cert_upto;
}

/* An entry is delivered: the failures it names are those found here, no more and no fewer. */
static void
check_stamps(mg_node *node, const mg_entry_header *h)
{
	int			i = 0;

	while (i < h->n_failed && h->failed[i] <= node->base)
		i++;					/* from before this node's time */
	for (; i < h->n_failed; i++)
	{
		if (mg_queue_empty(&node->own_failed) || mg_queue_front(&node->own_failed) != h->failed[i])
		{
			verdict_differs(node, h->failed[i]);
			return;
		}
		node->own_failed.head++;
	}
	if (!mg_queue_empty(&node->own_failed) && mg_queue_front(&node->own_failed) <= h->cert_upto)
	{
		verdict_differs(node, mg_queue_front(&node->own_failed));
		return;
	}
	if (h->cert_upto > node->delivered_cert_upto)
		node->delivered_cert_upto = h->cert_upto;
	if (h->floor > node->delivered_floor)
		node->delivered_floor = h->floor;
}

static void
reservation_note(mg_node *node, const mg_writeset *ws, mg_seqno seqno, bool passed)
{
	if ((ws->header.flags & MG_WS_RESERVE) != 0 && passed && node->n_reservations < MG_RESERVATIONS_MAX)
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

void
mg_own_submissions_unknown(mg_node *node)
{
	mg_origin  *own = node->self != 0 ? mg_origin_find(node, node->self) : NULL;

	if (own != NULL && own->next_msgno != 0)
		for (uint64_t n = own->next_msgno; n < node->next_msgno; n++)
		{
			mg_pending *p = &own->ring[n & MG_PENDING_MASK];

			if (p->msgno == n && p->slot >= 0)
			{
				mg_fx_add(node, MG_FX_UNKNOWN)->slot = p->slot;
				p->slot = -1;
			}
		}
	if (node->entries == NULL)
		return;
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		if (mg_entry_at(node, s)->slot >= 0)
		{
			mg_fx_add(node, MG_FX_UNKNOWN)->slot = mg_entry_at(node, s)->slot;
			mg_entry_at(node, s)->slot = -1;
		}
}

/* This node is no member any more and knows it: the owner makes a new one, which joins. */
void
mg_give_up_membership(mg_node *node, const char *why)
{
	mg_own_submissions_unknown(node);
	mg_node_shift(node, MG_STATE_NON_PRIMARY, why);
	node->self = 0;
	node->leading = false;
	node->leader = 0;
	mg_state_save(node);
	mg_fx_add(node, MG_FX_EVICTED);
	node->over = true;
}

static void
cert_follows_view(mg_node *node, const mg_view *view)
{
	mg_cert_origin members[MG_MEMBERS_MAX];

	for (uint32_t m = 0; m < view->n; m++)
		members[m] = (mg_cert_origin) {view->members[m].id, view->members[m].life};
	mg_cert_keep_members(node->cert, members, view->n);
}

static void
has_left(mg_node *node)
{
	mg_own_submissions_unknown(node);
	if (node->leave_asked)
	{
		node->self = 0;
		node->leader = 0;
		node->leading = false;
		node->resumed = false;
		mg_state_save(node);
		mg_node_shift(node, MG_STATE_OPEN, "left the cluster");
		mg_fx_answer(node, true, "left the cluster", "");
	}
	else
		mg_give_up_membership(node, "the cluster removed this node from its view");
}

static void
view_install(mg_node *node, const mg_view *view)
{
	int			m = node->self != 0 ? mg_view_find(view, node->self) : -1;
	mg_origin  *gone;

	cert_follows_view(node, view);

	/* On the way to its own view a joiner meets old ones: who was in them matters no more. */
	if (view->id <= node->view.id)
		return;
	node->view = *view;
	if (view->left != 0 && view->left != node->self && (gone = mg_origin_find(node, view->left)) != NULL)
		mg_origin_clear(node, gone);
	mg_fx_log(node, "group: view installed id=%llu epoch=%llu members=%u leader=%u joined=%u left=%u",
			  (unsigned long long) view->id, (unsigned long long) view->epoch, view->n, view->leader,
			  view->joined, view->left);
	mg_fx_add(node, MG_FX_STATE);

	if (node->self == 0 || view->id <= node->position)
		return;					/* not in yet, or an old one while recovering */
	if (m < 0)
	{
		if (mg_view_find(&node->latest, node->self) < 0)
			has_left(node);
		return;
	}
	if (view->members_id == node->latest.members_id && node->old.members_id != view->members_id)
	{
		/* Agreed: started again, it does not need the members before, who may be gone. */
		node->old = node->latest;
		mg_state_save(node);
	}
	if (view->left != 0)
	{
		/* Who left may wait for just this to know it. */
		mg_put_ack(node);
		mg_send_frames(node);
	}
	mg_peers_follow(node, view, true);
	node->ack_due = true;
}

static void
deliver_writeset(mg_node *node, mg_entry *e)
{
	mg_writeset ws;
	mg_cert_origin origin = {e->h.origin, (uint32_t) (e->h.msgno >> MG_LIFE_SHIFT)};
	mg_cert_result result = {MG_VERDICT_NONE, e->seqno - 1, 0};
	mg_status	status = mg_writeset_open(e->payload, e->len, &ws);
	bool		known = e->seqno <= node->known_upto;
	bool		own = e->h.origin == node->self && node->self != 0 &&
		e->h.msgno >> MG_LIFE_SHIFT == node->life;
	bool		stamped_fail = known && !mg_queue_empty(&node->stamped_failed) &&
		mg_queue_front(&node->stamped_failed) == e->seqno;
	mg_effect  *fx;

	if (status != MG_OK)
	{
		/* The frame's checksum was right: the origin made it so, and every node sees the same. */
		mg_cert_skip(node->cert, e->seqno);
		result.verdict = MG_VERDICT_CONFLICT;
		mg_fx_log(node, "cert: seqno %llu of member %u is not a writeset (%s), it fails everywhere",
				  (unsigned long long) e->seqno, e->h.origin, mg_status_name(status));
	}
	else if (known)
	{
		mg_cert_insert_known(node->cert, e->seqno, origin, &ws, !stamped_fail);
		result.verdict = stamped_fail ? MG_VERDICT_CONFLICT : MG_VERDICT_PASS;
	}
	else
		result = mg_cert_certify(node->cert, e->seqno, origin, &ws);
	if (result.verdict != MG_VERDICT_PASS)
		mg_queue_push(&node->own_failed, e->seqno);

	if (status == MG_OK && own)
		reservation_note(node, &ws, e->seqno, result.verdict == MG_VERDICT_PASS);
	if (own && e->h.msgno >= node->own_undelivered)
		node->own_undelivered = e->h.msgno + 1;
	if (e->seqno <= node->position)
		return;					/* its effects are in the data already */

	if (result.verdict != MG_VERDICT_PASS || (ws.header.flags & MG_WS_RESERVE) != 0 ||
		(ws.header.n_events == 0))
	{
		/* A loser, a reservation or a bare release: its seqno passes by. */
		if (e->slot >= 0)
		{
			fx = mg_fx_add(node, MG_FX_VERDICT);
			fx->slot = e->slot;
			fx->verdict = result.verdict;
			fx->seqno = e->seqno;
			fx->against = result.against;
		}
		fx = mg_fx_add(node, MG_FX_DELIVER);
		fx->kind = MG_DELIVER_SKIP;
		fx->seqno = e->seqno;
		fx->epoch = e->h.epoch;
		fx->member = e->h.origin;
		fx->verdict = result.verdict;
		return;
	}
	fx = mg_fx_add(node, MG_FX_DELIVER);
	fx->kind = e->slot >= 0 ? MG_DELIVER_LOCAL : MG_DELIVER_REMOTE;
	fx->slot = e->slot;
	fx->seqno = e->seqno;
	fx->epoch = e->h.epoch;
	fx->depends = result.depends;
	fx->member = e->h.origin;
	fx->verdict = result.verdict;
}

static void
deliver_view(mg_node *node, const mg_entry *e)
{
	mg_view		view;
	mg_reader	r;
	mg_effect  *fx;

	mg_cert_skip(node->cert, e->seqno);
	if (e->seqno > node->position)
	{
		fx = mg_fx_add(node, MG_FX_DELIVER);
		fx->kind = MG_DELIVER_SKIP;
		fx->seqno = e->seqno;
		fx->epoch = e->h.epoch;
		fx->member = e->h.origin;
	}
	mg_reader_init(&r, e->payload, e->len);
	if (mg_view_decode(&r, &view) != MG_OK)
	{
		mg_inconsistent(node, "a view in the order cannot be read");	/* who counts from here on is not known */
		return;
	}
	view.id = e->seqno;
	view_install(node, &view);
}

/* At most so many: the rest in the next round. */
void
mg_deliver_ready(mg_node *node, uint32_t max)
{
	if (node->entries == NULL)
		return;
	while (node->delivered < node->appended && node->state != MG_STATE_INCONSISTENT && !node->over)
	{
		mg_entry   *e = mg_entry_at(node, node->delivered + 1);

		if (!mg_quorum_has(node, e))
			break;
		if (e->seqno > node->position && node->delivered >= node->committed + MG_UNCOMMITTED_MAX)
			break;				/* this node's appliers are far behind */
		if (e->seqno <= node->known_upto && e->seqno > node->stamped_upto)
			break;				/* its verdict will be named by a later entry */
		if (max-- == 0)
		{
			node->more_to_deliver = true;
			break;
		}

		check_stamps(node, &e->h);
		if (node->own_failed.tail - node->own_failed.head == MG_FAILED_CAP)
			verdict_differs(node, mg_queue_front(&node->own_failed));	/* no leader names so few */
		if (node->state == MG_STATE_INCONSISTENT)
			break;
		mg_cert_set_floor(node->cert, e->h.floor);
		node->delivered++;		/* a view counts from the next on */
		if (e->h.type == MG_ENTRY_WRITESET)
			deliver_writeset(node, e);
		else
			deliver_view(node, e);
		if (!mg_queue_empty(&node->stamped_failed) && mg_queue_front(&node->stamped_failed) <= e->seqno)
			node->stamped_failed.head++;
		mg_entry_drop(node, e->seqno);
	}
}
