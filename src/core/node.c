/*
 * core/node.c - a node's life: inputs, the round, the clock, status.
 *
 * How: mg_node_step hands each input to the part that it concerns
 * (core/group/group.h has the list); at the end of a round everything that has
 * become possible is done once, and what was said leaves in one frame per
 * receiver.
 *
 * Rejected: a separate state for each in-flight entry with its own timers
 * (more states than one can hold in mind), and acknowledging single entries
 * instead of a position (quadratic traffic, no batching).
 */
#include "core/group/group.h"

#include <stdio.h>

#include "core/writeset.h"

static uint64_t
hash_text(const char *text)
{
	uint64_t	h = UINT64_C(0x9e3779b97f4a7c15);

	for (; *text; text++)
		h = mg_mix64(h ^ (uint8_t) *text);
	return h;
}

static void
on_submit(mg_node *node, const mg_input *in)
{
	mg_origin  *own = node->self != 0 ? mg_origin_find(node, node->self) : NULL;
	mg_pending *p;
	size_t		at;
	mg_effect  *fx;
	const char *why = NULL;

	if (!mg_state_is_synced(node->state) || own == NULL)
		why = "this node is not in a primary component";
	else if (node->leave_asked)
		why = "this node is leaving the cluster";
	else if (in->len > MG_WRITESET_BYTES_MAX)
		why = "the writeset is larger than the protocol allows";
	else if (node->next_msgno - node->own_undelivered >= MG_PENDING_MAX - 1)
		why = "too many transactions wait for their place in the order";
	else if (in->len >= MG_WRITESET_HEADER_BYTES &&
			 (mg_load_u16((const uint8_t *) in->bytes + 6) & MG_WS_RESERVE) != 0 &&
			 node->n_reservations >= MG_RESERVATIONS_MAX / 2)
		why = "too many statements hold objects of the cluster";
	if (why != NULL)
	{
		at = mg_fx_text(node, why);
		fx = mg_fx_add(node, MG_FX_REFUSED);
		fx->slot = in->slot;
		fx->at = at;
		return;
	}
	p = &own->ring[node->next_msgno & MG_PENDING_MASK];
	mg_payload_free(node, p->bytes, p->len);
	p->msgno = node->next_msgno++;
	node->own_seen[p->msgno & MG_PENDING_MASK] = in->last_seen;
	p->bytes = mg_payload_copy(node, in->bytes, in->len);
	p->len = (uint32_t) in->len;
	p->flags = in->flags & MG_ENTRY_FLAGS_ALL;
	p->slot = in->slot;
	p->sent_us = node->now_us;
	if (mg_active(node))
		mg_put_payload(node, p);
}

/* What was committed a moment ago: see mg_min_seen. */
static void
sample_committed(mg_node *node)
{
	uint32_t	keep = 0;

	for (uint32_t i = 0; i < node->n_samples; i++)
		if (node->now_us - node->samples[i].at_us <= MG_FLOOR_DELAY_US || i + 1 == node->n_samples)
			node->samples[keep++] = node->samples[i];
	node->n_samples = keep;
	if (keep < MG_SAMPLES_MAX &&
		(keep == 0 || node->now_us - node->samples[keep - 1].at_us >= MG_FLOOR_DELAY_US / (MG_SAMPLES_MAX / 2)))
	{
		node->samples[keep].at_us = node->now_us;
		node->samples[keep].committed = node->committed;
		node->n_samples++;
	}
}

/* Orders or payloads that should be here by now. */
static void
look_for_missing(mg_node *node)
{
	if (node->leading || node->entries == NULL || !mg_active(node))
		return;
	if (node->appended < node->ordered)
	{
		if (node->now_us - mg_entry_at(node, node->appended + 1)->since_us >= node->config.fetch_us)
			mg_fetch_missing(node);
		return;
	}
	if (node->appended < node->lead_start)
		mg_fetch_missing(node);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == MG_PEER_MEMBER && node->peers[i].role == MG_ROLE_DATA &&
			node->peers[i].held > node->appended)
		{
			mg_fetch_missing(node);
			break;
		}
}

/* The others may go on without this node: it is in the primary component again when it hears so from them. */
static void
leave_primary(mg_node *node, const char *why)
{
	node->sync_at = node->leading ? node->delivered : UINT64_MAX;
	node->leader_frames = 0;
	mg_node_shift(node, MG_STATE_NON_PRIMARY, why);
}

/*
 * Did this process stand still itself?  That says nothing about the others.
 * Looked at before any input: what has come meanwhile must not be answered by
 * somebody who takes himself for the leader still.
 */
static void
notice_pause(mg_node *node)
{
	int64_t		pause = node->now_us - node->last_step_us;
	bool		first = node->last_step_us == 0;

	node->last_step_us = node->now_us;
	if (first || pause <= node->config.suspect_us / 2)
		return;
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		mg_peer    *p = &node->peers[i];

		p->heard_us = p->heard_us + pause < node->now_us ? p->heard_us + pause : node->now_us;
		p->progress_us = p->progress_us + pause < node->now_us ? p->progress_us + pause : node->now_us;
	}
	if (pause >= node->config.suspect_us && mg_state_is_synced(node->state))
	{
		leave_primary(node, "this process stood still for longer than the others wait for it");
		if (node->leading)
			mg_no_leader(node, "this process stood still");
	}
}

static void
on_tick(mg_node *node)
{
	sample_committed(node);
	mg_join_tick(node);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if ((node->peers[i].kind == MG_PEER_LEARNER &&
			 node->now_us - node->peers[i].heard_us > 4 * node->config.suspect_us) ||
			(node->peers[i].kind == MG_PEER_GONE && node->now_us - node->peers[i].gone_us > MG_GONE_US))
			mg_peer_remove(node, i);
	if (node->self == 0)
		return;

	mg_elect_tick(node);
	mg_leave_tick(node);
	if (node->self == 0)
		return;
	if (node->now_us - node->last_ack_us >= node->config.keepalive_us ||
		(node->ack_lazy_us != 0 && node->now_us >= node->ack_lazy_us))
		node->ack_due = true;
	look_for_missing(node);
	mg_resend_own(node, false);	/* they may have been lost on the way to the leader */
}

/*
 * Between writesets of one member its locks have decided; those of its earlier
 * life are gone.  So all of that life's writesets must be committed here before
 * one of this life may come: the view that names this life is behind them.
 */
static bool
own_life_is_known(const mg_node *node)
{
	int			m = mg_view_find(&node->view, node->self);

	return !node->resumed ||
		(m >= 0 && node->view.members[m].life == node->life && node->committed >= node->view.id);
}

/* Is the primary component there, and this node level with it? */
static void
watch_primary(mg_node *node)
{
	bool		there;

	if (node->self == 0 || (!mg_state_is_synced(node->state) && node->state != MG_STATE_NON_PRIMARY))
		return;
	there = mg_leader_is_there(node);
	if (mg_state_is_synced(node->state) && !there)
	{
		/* Electing takes a moment; until then writes wait. */
		if (!node->leading && mg_quorum_heard(node, NULL) &&
			(node->no_leader_us == 0 || node->now_us - node->no_leader_us < node->config.suspect_us))
			return;
		leave_primary(node, mg_quorum_heard(node, NULL) ? "no leader could be elected" : "the majority of the members is silent");
	}
	else if (node->state == MG_STATE_NON_PRIMARY && there &&
			 (mg_is_arbitrator(node) ? node->told_epoch == node->epoch :
			  node->committed >= node->sync_at && node->delivered >= node->lead_start && own_life_is_known(node)) &&
			 (node->leading || node->leader_frames >= MG_LEADER_FRAMES))
	{
		node->sync_at = 0;
		node->resumed = false;
		mg_node_shift_synced(node, "in the primary component and caught up");
	}
}

static void
join_is_done(mg_node *node)
{
	int			m;

	if (node->state != MG_STATE_JOINED || node->self == 0 || !mg_active(node))
		return;
	m = mg_view_find(&node->view, node->self);
	if (m < 0 || (node->view.members[m].weight == 0 && node->config.weight > 0))
		return;					/* it does not count yet */
	if (mg_is_arbitrator(node) ? node->told_epoch != node->epoch :
		node->sync_at == 0 || node->committed < node->sync_at || node->delivered < node->sync_at)
		return;
	node->sync_at = 0;
	mg_node_shift_synced(node, "in the primary component and caught up");
	mg_fx_answer(node, true, "synced", node->loss);
	node->loss[0] = '\0';
}

static void
round_end(mg_node *node)
{
	/* One that asks for admission delivers nothing: what its log holds is fetched again, or of no use. */
	if (node->state == MG_STATE_OPEN || node->state == MG_STATE_PRIMARY || node->state == MG_STATE_INCONSISTENT)
	{
		mg_send_frames(node);
		return;
	}
	node->more_to_deliver = false;
	mg_deliver_ready(node, MG_DELIVER_BATCH_MAX);
	mg_order_pending(node);
	mg_lead_membership(node);
	mg_deliver_ready(node, MG_DELIVER_BATCH_MAX);	/* alone, an order may be delivered at once */
	if (node->committed >= node->delivered)
		node->commit_us = node->now_us;

	join_is_done(node);
	watch_primary(node);

	/* Catching up: ask on as long as there is more. */
	if (node->next_fetch_us != 0)
	{
		int			best = mg_peer_of_member(node, node->leader);

		node->next_fetch_us = 0;
		if (best >= 0 && mg_active(node) && !node->leading && node->ordered - node->delivered < MG_ENTRIES_MAX / 2 &&
			(node->peers[best].held > node->appended || node->self == 0))
			mg_put_fetch(node, best);
	}
	if (node->self != 0)
		mg_put_acks(node);
	mg_send_frames(node);
}

static void
on_link(mg_node *node, int i, bool up)
{
	mg_peer    *p;

	if (i < 0 || i >= MG_PEERS_MAX || node->peers[i].kind == MG_PEER_NONE)
		return;
	p = &node->peers[i];
	p->link_lost = !up;
	if (!up)
		return;
	p->lead_us = 0;
	if (node->state == MG_STATE_PRIMARY && p->kind == MG_PEER_SEED)
		mg_put_join_request(node, i);
}

static void
on_desync(mg_node *node, bool desynced, mg_seqno pinned)
{
	if (node->desynced == desynced && node->pinned == pinned)
		return;
	node->desynced = desynced;
	node->pinned = pinned;
	node->ack_due = true;
	if (mg_state_is_synced(node->state))
		mg_node_shift_synced(node, desynced ? "flow control does not wait for it" : "flow control waits for it again");
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
	notice_pause(node);
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
			mg_on_receive(node, in->bytes, in->len);
			break;
		case MG_IN_LINK:
			on_link(node, in->peer, in->up);
			break;
		case MG_IN_SUBMIT:
			on_submit(node, in);
			break;
		case MG_IN_COMMITTED:
			if (in->seqno > node->committed)
			{
				node->committed = in->seqno;
				node->commit_us = node->now_us;
				if (node->ack_lazy_us == 0)
					node->ack_lazy_us = node->now_us + MG_ACK_LAZY_US;	/* durability "applied" waits for it */
			}
			break;
		case MG_IN_FLUSHED:
			if (in->seqno > node->flushed && in->generation == node->generation && in->seqno <= node->appended)
			{
				bool		view = node->flushed < node->latest.id && in->seqno >= node->latest.id;

				for (mg_seqno s = node->flushed + 1; s <= in->seqno; s++)
					mg_ack_wanted(node, s);
				node->flushed = in->seqno;
				if (view)
					mg_tell_arbitrators(node, true);
				mg_mark_floor(node);
			}
			break;
		case MG_IN_LOG_FIRST:
			if (in->seqno > node->log_first)
				node->log_first = in->seqno;
			break;
		case MG_IN_RESTORE:
			mg_state_restore(node, in->bytes, in->len);
			break;
		case MG_IN_RECOVER:
			mg_state_recover(node, in);
			break;
		case MG_IN_START:
			mg_state_start(node, in->up);
			break;
		case MG_IN_LOG_READ:
			mg_on_log_read(node, in);
			break;
		case MG_IN_BOOTSTRAP:
			mg_on_bootstrap(node, &in->uuid, in->up);
			break;
		case MG_IN_JOIN:
			mg_on_join(node, in->text, in->up);
			break;
		case MG_IN_LEAVE:
			mg_on_leave(node);
			break;
		case MG_IN_DESYNC:
			on_desync(node, in->up, in->seqno);
			break;
	}
	node->fx = NULL;
}

/* ------------------------------------------------------------------ life, status */

mg_node *
mg_node_new(const mg_node_config *config, const mg_gtid *position, int64_t now_us)
{
	mg_node    *node = mg_alloc(sizeof(mg_node));

	MG_ASSERT(config->incarnation != 0 && config->weight <= MG_WEIGHT_MAX);
	node->config = *config;
	node->name_hash = hash_text(config->cluster_name);
	node->now_us = now_us;
	node->random = config->incarnation;
	node->uuid = position->uuid;
	node->position = position->seqno;
	node->committed = position->seqno;
	node->recovered = UINT64_MAX;
	if (config->role == MG_ROLE_DATA)
		node->entries = mg_alloc(MG_ENTRIES_MAX * sizeof(mg_entry));
	node->cert = mg_cert_new(position->seqno);
	node->delivered = node->appended = node->ordered = node->flushed = position->seqno;
	node->log_first = position->seqno + 1;
	node->base = position->seqno;
	node->tail_floor = node->delivered_floor = node->safe_floor = position->seqno;
	mg_state_rehash(node);
	snprintf(node->reason, sizeof(node->reason), "started");
	return node;
}

void
mg_node_free(mg_node *node)
{
	if (node == NULL)
		return;
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		mg_entry_drop(node, s);
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		mg_origin_clear(node, &node->origins[i]);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_buf_free(&node->peers[i].out);
	mg_cert_free(node->cert);
	mg_buf_free(&node->out_all);
	mg_buf_free(&node->scratch);
	mg_free(node->entries);
	mg_free(node->offer);
	mg_free(node);
}

bool
mg_node_wants_tick(const mg_node *node)
{
	return (mg_state_is_joining(node->state) && !node->over) || node->ack_lazy_us != 0 || node->appended < node->ordered ||
		node->no_leader_us != 0 || node->leave_asked || node->more_to_deliver;
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
		case MG_STATE_PRIMARY:
			return "PRIMARY";
		case MG_STATE_JOINER:
			return "JOINER";
		case MG_STATE_JOINED:
			return "JOINED";
		case MG_STATE_SYNCED:
			return "SYNCED";
		case MG_STATE_DONOR:
			return "DONOR";
		case MG_STATE_NON_PRIMARY:
			return "NON_PRIMARY";
		case MG_STATE_INCONSISTENT:
			return "INCONSISTENT";
		case MG_STATE_COUNT:
			break;
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

const mg_view *
mg_node_offer(const mg_node *node)
{
	static const mg_view none;

	return node->offer != NULL ? node->offer : &none;
}

mg_seqno
mg_node_delivered(const mg_node *node)
{
	return node->delivered;
}

mg_seqno
mg_node_stands_for(const mg_node *node)
{
	return node->arbitrated;
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
		if (node->self != 0 && node->origins[i].id == node->self && node->origins[i].next_msgno != 0)
			return node->next_msgno - node->origins[i].next_msgno;
	return 0;
}

uint64_t
mg_node_damaged(const mg_node *node)
{
	return node->frames_damaged;
}

/* What is not committed, and what certification is built from after a crash. */
mg_seqno
mg_node_log_needed_here(const mg_node *node)
{
	return node->committed < node->safe_floor ? node->committed : node->safe_floor;
}

mg_seqno
mg_node_log_needed(const mg_node *node)
{
	mg_seqno	low = mg_node_log_needed_here(node);

	if (node->pinned != 0 && node->pinned < low)
		low = node->pinned;
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		const mg_peer *p = &node->peers[i];

		/* What a member holds in memory only, it may ask for again. */
		if (p->kind == MG_PEER_MEMBER && p->role == MG_ROLE_DATA && p->flushed < low)
			low = p->flushed;
		if (p->kind == MG_PEER_LEARNER && p->admitted && p->held < low)
			low = p->held;
		if (p->kind == MG_PEER_MEMBER && p->pinned != 0 && p->pinned < low)
			low = p->pinned;
	}
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
		info->desynced = node->desynced;
		info->pinned = node->pinned;
		return true;
	}
	i = mg_peer_of_member(node, member);
	if (i < 0)
		return false;
	info->held = node->peers[i].held;
	info->flushed = node->peers[i].flushed;
	info->committed = node->peers[i].committed;
	info->joined_at = node->peers[i].joined_at;
	info->heard_us = node->peers[i].heard_us;
	info->desynced = node->peers[i].desynced;
	info->pinned = node->peers[i].pinned;
	return true;
}

uint64_t
mg_node_epoch(const mg_node *node)
{
	return node->epoch;
}

mg_member_id
mg_node_leader(const mg_node *node)
{
	return mg_active(node) ? node->leader : 0;
}

mg_seqno
mg_node_applied(const mg_node *node)
{
	mg_seqno	low = mg_quorum_heard(node, NULL) ? node->committed : 0;

	for (uint32_t m = 0; m < node->view.n; m++)
	{
		int			i = mg_peer_of_member(node, node->view.members[m].id);

		if (i >= 0 && node->peers[i].role == MG_ROLE_DATA && node->peers[i].committed < low &&
			mg_member_is_heard(node, node->view.members[m].id))
			low = node->peers[i].committed;
	}
	return low;
}

mg_seqno
mg_node_flushed_everywhere(const mg_node *node)
{
	mg_seqno	low = mg_quorum_heard(node, NULL) ? node->flushed : 0;

	for (uint32_t m = 0; m < node->view.n; m++)
	{
		int			i = mg_peer_of_member(node, node->view.members[m].id);

		if (i >= 0 && node->peers[i].role == MG_ROLE_DATA && node->peers[i].flushed < low &&
			mg_member_is_heard(node, node->view.members[m].id))
			low = node->peers[i].flushed;
	}
	return low;
}
