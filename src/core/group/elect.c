/*
 * core/group/elect.c - epochs: who leads, and how the others come into step.
 *
 * How: a member that misses the leader first asks whether the others would vote
 * for it (nothing is promised by that, so a node that merely cannot hear
 * disturbs nobody), then for their votes.  A vote is a promise, durable before
 * it is spoken: nothing of an older epoch is acknowledged any more.  It is given
 * to one candidate per epoch, whose log is at least as advanced as the voter's.
 * The winner's log is what counts: LEAD tells where each epoch begins in it, and
 * from that a follower knows where its own log stops being the same.
 *
 * Source: Raft (Ongaro and Ousterhout 2014; pre-vote and leadership transfer in
 * Ongaro's thesis, 2014), viewstamped replication (Liskov and Cowling 2012);
 * the table of epoch beginnings as in Kafka's KIP-101 and KIP-279.
 */
#include "core/group/group.h"

#include <stdio.h>

static uint64_t
chance(mg_node *node, uint64_t n)
{
	node->random += UINT64_C(0x9e3779b97f4a7c15);
	return mg_mix64(node->random) % n;
}

/* Of the member ids of an epoch; 0 if the epochs have outgrown the ids. */
mg_member_id
mg_first_id(uint64_t epoch)
{
	return epoch < UINT32_MAX / MG_IDS_PER_EPOCH ? (mg_member_id) (epoch * MG_IDS_PER_EPOCH) : 0;
}

/* Nobody counts that far ahead: bytes that would use the epochs up. */
static bool
is_absurd(const mg_node *node, uint64_t epoch)
{
	uint64_t	own = node->seen_epoch > node->promised ? node->seen_epoch : node->promised;

	return epoch > own + MG_EPOCH_LEAP_MAX;
}

/* ------------------------------------------------------------------ leading */

static void
put_lead_body(mg_node *node, mg_buf *b)
{
	mg_buf_put(b, node->uuid.bytes, sizeof(node->uuid.bytes));
	mg_buf_put_u64(b, node->lead_start);
	mg_buf_put_u64(b, node->delivered);
	mg_view_encode(b, &node->latest);
	mg_buf_put_u32(b, node->n_epochs);
	for (uint32_t k = 0; k < node->n_epochs; k++)
	{
		mg_buf_put_u64(b, node->epochs[k].epoch);
		mg_buf_put_u64(b, node->epochs[k].first);
	}
}

void
mg_put_lead(mg_node *node, int i)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_LEAD);

	put_lead_body(node, &node->peers[i].out);
	mg_msg_end(&node->peers[i].out, mark);
	node->peers[i].lead_us = node->now_us;
}

/*
 * An arbitrator stands for a change of members from then on: so it hears of one
 * only when that is on this node's disk.
 */
void
mg_tell_arbitrators(mg_node *node, bool at_once)
{
	if (!node->leading || node->flushed < node->latest.id)
		return;
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		const mg_peer *p = &node->peers[i];

		if (p->kind == MG_PEER_MEMBER && p->role == MG_ROLE_ARBITRATOR &&
			(!p->acked || (mg_is_joint(node) ? p->flushed : p->held) < node->latest.id) &&
			(at_once || node->now_us - p->lead_us >= MG_LEAD_REPEAT_US))
			mg_put_lead(node, i);
	}
}

/* Nobody's word of an older epoch counts any more. */
static void
begin_epoch(mg_node *node, uint64_t epoch, mg_member_id leader)
{
	mg_send_frames(node);		/* what was said in the old one */
	node->epoch = epoch;
	node->leader = leader;
	node->leading = leader == node->self;
	node->electing = MG_VOTE_NONE;
	node->elect_at = 0;
	node->no_leader_us = 0;
	node->leader_us = node->now_us;
	if (epoch > node->seen_epoch)
		node->seen_epoch = epoch;
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		mg_peer_forget_acks(&node->peers[i]);
		node->peers[i].progress_us = node->peers[i].commit_us = node->now_us;
		node->peers[i].leaving = false;	/* it asks again */
		node->peers[i].admitted = node->peers[i].near = false;
	}
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		if (node->origins[i].id != 0 && node->origins[i].id != node->self)
		{
			node->origins[i].open = false;
			node->origins[i].next_msgno = 0;
		}
}

/* Elected, or alone by an operator's word. */
void
mg_become_leader(mg_node *node)
{
	mg_view		view;
	size_t		mark;
	uint64_t	epoch = node->elect_epoch;

	mg_unorder(node, node->appended);
	begin_epoch(node, epoch, node->self);
	node->last_floor = 0;
	node->lead_start = node->ordered + 1;
#if MG_CANARY == 9
	node->tail_cert_upto = node->delivered;
#endif
	if (node->state == MG_STATE_NON_PRIMARY)
		node->sync_at = node->lead_start;
	mg_fx_log(node, "group: this node leads epoch %llu from seqno %llu on",
			  (unsigned long long) epoch, (unsigned long long) node->lead_start);

	view = node->latest;
	view.joined = view.left = 0;
	view.left_how = MG_LEFT_NOBODY;

	/* The last leader may have given ids in a view that got lost: each epoch has ids of its own. */
	if (view.next_member_id < mg_first_id(epoch))
		view.next_member_id = mg_first_id(epoch);
	for (uint32_t m = 0; m < view.n; m++)
		if (view.members[m].id == node->self && view.members[m].life != node->life)
		{
			view.members[m].life = node->life;
			view.members[m].incarnation = node->config.incarnation;
			view.members[m].segment = node->config.segment;
			snprintf(view.members[m].address, sizeof(view.members[m].address), "%s", node->config.address);
			snprintf(view.members[m].sql_address, sizeof(view.members[m].sql_address), "%s", node->config.sql_address);
			view.joined = node->self;
			view.left_how = MG_LEFT_RESTARTED;
		}

	/* Where the epoch begins, then its first entry, in one frame. */
	mark = mg_msg_all(node, MG_MSG_LEAD);
	put_lead_body(node, &node->out_all);
	mg_msg_end(&node->out_all, mark);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		node->peers[i].lead_us = node->now_us;
	mg_order_view(node, &view);
	mg_fx_add(node, MG_FX_STATE);
}

void
mg_no_leader(mg_node *node, const char *why)
{
	mg_send_frames(node);
	if (node->leading)
		mg_fx_log(node, "group: this node leads no longer: %s", why);
	node->leader = 0;
	node->leading = false;
	if (node->no_leader_us == 0)
		node->no_leader_us = node->now_us;
}

/* ------------------------------------------------------------------ elections */

#define VOTE_REQUEST_BYTES	(8 + 1 + 8 + 8 + 8)	/* before its addresses */

static void
put_vote_request(mg_node *node, int i)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_VOTE_REQUEST);
	mg_buf	   *b = &node->peers[i].out;

	mg_buf_put_u64(b, node->elect_epoch);
	mg_buf_put_u8(b, (uint8_t) node->electing);
	mg_buf_put_u64(b, node->promised);
	mg_buf_put_u64(b, mg_epoch_of(node, node->appended));
	mg_buf_put_u64(b, node->appended);
	mg_buf_put_text(b, node->config.address);
	mg_buf_put_text(b, node->config.sql_address);
	mg_msg_end(b, mark);
}

static void
ask_for_votes(mg_node *node, mg_vote_kind kind)
{
	uint64_t	highest = node->promised > node->seen_epoch ? node->promised : node->seen_epoch;

	node->electing = kind;
	node->elect_epoch = highest + 1;
	if (kind != MG_VOTE_ASKING)
	{
		mg_no_leader(node, "it asks for a new epoch");
		node->promised = node->elect_epoch;
		node->voted = node->self;
		node->seen_epoch = node->elect_epoch;
		mg_state_save(node);
	}
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == MG_PEER_MEMBER)
			put_vote_request(node, i);
}

static void
count_votes(mg_node *node)
{
	if (node->electing == MG_VOTE_ASKING && mg_quorum_votes(node))
		ask_for_votes(node, MG_VOTE_REAL);
	if (node->electing > MG_VOTE_ASKING && mg_quorum_votes(node))
		mg_become_leader(node);
}

/* Does this node do without a new leader? */
bool
mg_leader_is_there(const mg_node *node)
{
	int			l;

	if (!mg_active(node))
		return false;
	if (node->leading)
		return mg_quorum_heard(node, NULL);
	l = mg_peer_of_member(node, node->leader);
	return l >= 0 && !node->peers[l].link_lost &&
		node->now_us - node->leader_us < mg_suspect_us(node, &node->peers[l]);
}

/*
 * Arbitrators do not lead, nor do members of weight 0: with arbitrators' votes
 * one could, without the acknowledgements of those that count as having the data.
 */
bool
mg_may_lead(const mg_member *member)
{
	return member->role == MG_ROLE_DATA && member->weight > 0;
}

static bool
has_room_to_lead(const mg_node *node)
{
	return node->appended - node->delivered < MG_ENTRIES_MAX;	/* for the entry that an epoch begins with */
}

/*
 * Somebody who has just come in, and does not find in its log the verdicts that
 * it cannot reach itself, would wait as a leader for its own word.
 */
static bool
can_judge(const mg_node *node)
{
	return node->known_upto <= node->stamped_upto || node->known_upto <= node->delivered;
}

static bool
self_may_lead(const mg_node *node)
{
	int			m = mg_view_find(&node->latest, node->self);
	int			o = mg_is_joint(node) ? mg_view_find(&node->old, node->self) : -1;

	return node->appended >= node->position && has_room_to_lead(node) && can_judge(node) &&
		((m >= 0 && mg_may_lead(&node->latest.members[m])) || (o >= 0 && mg_may_lead(&node->old.members[o])));
}

/* Data members before this one begin earlier, so that mostly one alone asks. */
static int64_t
turn(mg_node *node)
{
	int64_t		rank = 0;

	for (uint32_t m = 0; m < node->latest.n; m++)
		if (mg_may_lead(&node->latest.members[m]) && node->latest.members[m].id < node->self &&
			mg_member_is_heard(node, node->latest.members[m].id))
			rank++;
	return rank * MG_ELECT_STEP_US + (int64_t) chance(node, MG_ELECT_STEP_US / 2);
}

void
mg_elect_tick(mg_node *node)
{
	if (node->self == 0 || node->over || (!mg_state_is_synced(node->state) && node->state != MG_STATE_NON_PRIMARY &&
										  node->state != MG_STATE_JOINED))
		return;
	if (node->leading && !mg_quorum_heard(node, NULL))
		mg_no_leader(node, "no quorum is heard");
	if (node->leading)
	{
		/* Somebody has promised a higher epoch and is deaf to this one: go above it. */
		if (node->seen_epoch > node->epoch && node->now_us >= node->elect_at && has_room_to_lead(node))
		{
			node->elect_at = node->now_us + MG_ELECT_RETRY_US;
			ask_for_votes(node, MG_VOTE_REAL);
			count_votes(node);
			return;
		}
		for (int i = 0; i < MG_PEERS_MAX; i++)
		{
			const mg_peer *p = &node->peers[i];

			if (p->kind == MG_PEER_MEMBER && p->role == MG_ROLE_DATA && !p->acked &&
				node->now_us - p->lead_us >= MG_LEAD_REPEAT_US)
				mg_put_lead(node, i);
		}
		mg_tell_arbitrators(node, false);
		return;
	}
	if (mg_leader_is_there(node))
	{
		node->elect_at = 0;
		node->no_leader_us = 0;
		node->electing = MG_VOTE_NONE;
		return;
	}
	if (node->no_leader_us == 0)
		node->no_leader_us = node->now_us;
	if (node->elect_at == 0)
		node->elect_at = node->now_us + turn(node);
	if (node->now_us < node->elect_at)
		return;
	node->elect_at = node->now_us + MG_ELECT_RETRY_US + turn(node) + (int64_t) chance(node, MG_ELECT_RETRY_US);
	ask_for_votes(node, MG_VOTE_ASKING);
	/* Who may not lead wants no vote, only an answer: it tells where the others are. */
	if (!self_may_lead(node))
		node->electing = MG_VOTE_NONE;
	count_votes(node);
}

static void
put_vote_reply(mg_node *node, int i, uint64_t epoch, uint8_t kind, bool granted)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_VOTE_REPLY);
	mg_buf	   *b = &node->peers[i].out;

	mg_buf_put_u64(b, epoch);
	mg_buf_put_u8(b, kind);
	mg_buf_put_u8(b, granted ? 1 : 0);
	mg_buf_put_u64(b, node->promised);
	mg_buf_put_u64(b, mg_epoch_of(node, node->delivered));
	mg_buf_put_u64(b, node->delivered);
	mg_msg_end(b, mark);
}

/*
 * Out of the view for good, as far as this node knows from delivered views: an
 * arbitrator has its view before that, and the word of who is taken out by it
 * may still be needed.
 */
static bool
is_over(const mg_node *node, mg_member_id id)
{
	if (mg_is_arbitrator(node) && node->view.members_id > node->heard_delivered)
		return false;
	return node->view.n > 0 && id < node->view.next_member_id && mg_view_find(&node->view, id) < 0 &&
		mg_view_find(&node->latest, id) < 0 && node->state != MG_STATE_OPEN;
}

static bool
is_advanced(const mg_node *node, uint64_t epoch, mg_seqno seqno)
{
	uint64_t	own_epoch = mg_is_arbitrator(node) ? node->arbitrated_epoch : mg_epoch_of(node, node->appended);
	mg_seqno	own_seqno = mg_is_arbitrator(node) ? node->arbitrated : node->appended;

#if MG_CANARY == 5
	return true;
#endif
	/*
	 * The data is ahead of the own log (durability memory, and the power went):
	 * who lacks what it holds would only turn this node inconsistent.
	 */
	if (own_seqno < node->position && seqno < node->position)
		return false;
	return epoch > own_epoch || (epoch == own_epoch && seqno >= own_seqno);
}

void
mg_on_vote_request(mg_node *node, const mg_frame_header *fh, int i, mg_reader *r)
{
	uint64_t	epoch = mg_read_u64(r);
	uint8_t		kind = mg_read_u8(r);
	uint64_t	promised = mg_read_u64(r);
	uint64_t	last_epoch = mg_read_u64(r);
	mg_seqno	last_seqno = mg_read_u64(r);
	char		address[MG_ADDRESS_BYTES_MAX];
	char		sql_address[MG_ADDRESS_BYTES_MAX];
	bool		granted;

	mg_read_text(r, address, sizeof(address));
	mg_read_sql_address(r, sql_address, sizeof(sql_address));
	if (!mg_reader_done(r) || kind < MG_VOTE_ASKING || kind > MG_VOTE_HANDOVER || fh->member == 0 ||
		!mg_address_is_valid(address) || is_absurd(node, epoch) || promised > epoch)
	{
		node->frames_damaged++;
		return;
	}
	if (node->self == 0 || node->state == MG_STATE_OPEN || node->state == MG_STATE_INCONSISTENT)
		return;
	if (i < 0)
	{
		/* Not in the view (any more, or not here yet): known just long enough to be answered. */
		i = mg_peer_add(node, MG_PEER_GONE, address);
		if (i < 0)
			return;
		node->peers[i].incarnation = fh->incarnation;
		node->peers[i].gone_us = node->now_us;
	}
	else if (node->peers[i].kind == MG_PEER_MEMBER && strcmp(node->peers[i].address, address) != 0)
		mg_peer_moved(node, i, address);
	snprintf(node->peers[i].sql_address, sizeof(node->peers[i].sql_address), "%s", sql_address);
	if (is_over(node, fh->member))
	{
		mg_put_not_member(node, i, fh->member, MG_NO_MEMBER_VIEW, fh->incarnation);
		return;
	}
	if (promised > node->seen_epoch)
		node->seen_epoch = promised;

	granted = last_seqno > 0 && is_advanced(node, last_epoch, last_seqno) &&
		(epoch > node->promised || MG_CANARY == 3 ||
		 (kind != MG_VOTE_ASKING && epoch == node->promised && node->voted == fh->member));
	if (granted && kind != MG_VOTE_HANDOVER && mg_leader_is_there(node) && node->leader != fh->member)
		granted = false;
	if (granted && epoch == node->epoch && node->leader == fh->member)
		return;					/* doubled on its way: it leads that epoch already */
	if (granted && kind != MG_VOTE_ASKING)
	{
		mg_no_leader(node, "another member was elected or is about to be");
		node->electing = MG_VOTE_NONE;
		if (epoch > node->promised || node->voted != fh->member)
		{
			node->promised = epoch;
			node->voted = fh->member;
			if (epoch > node->seen_epoch)
				node->seen_epoch = epoch;
			mg_state_save(node);
		}
		node->elect_at = node->now_us + MG_ELECT_RETRY_US + turn(node);
	}
	put_vote_reply(node, i, epoch, kind, granted);
	if (node->leading && !granted && node->peers[i].kind == MG_PEER_MEMBER && node->peers[i].role == MG_ROLE_DATA &&
		node->now_us - node->peers[i].lead_us >= MG_LEAD_REPEAT_US)
		mg_put_lead(node, i);	/* it does not know */
}

void
mg_on_vote_reply(mg_node *node, int i, mg_reader *r)
{
	uint64_t	epoch = mg_read_u64(r);
	uint8_t		kind = mg_read_u8(r);
	uint8_t		granted = mg_read_u8(r);
	uint64_t	promised = mg_read_u64(r);
	uint64_t	delivered_epoch = mg_read_u64(r);
	mg_seqno	delivered = mg_read_u64(r);
	mg_peer    *p = &node->peers[i];

	if (!mg_reader_done(r) || is_absurd(node, promised))
	{
		node->frames_damaged++;
		return;
	}

	/* Who has the same entry there has the same up to it: all of that is agreed, a change of members too. */
	if (delivered_epoch != 0 && delivered > node->heard_delivered && delivered <= node->appended &&
		mg_epoch_of(node, delivered) == delivered_epoch)
		node->heard_delivered = delivered;
	if (promised > node->seen_epoch)
		node->seen_epoch = promised;
	if (!granted || node->electing == MG_VOTE_NONE || epoch != node->elect_epoch ||
		kind != (uint8_t) node->electing || p->kind != MG_PEER_MEMBER)
		return;
	p->vote_epoch = epoch;
	p->vote_kind = kind == MG_VOTE_ASKING ? MG_VOTE_ASKING : MG_VOTE_REAL;
	count_votes(node);
}

/* The leader wants to leave and has chosen this node to go on. */
void
mg_on_handover(mg_node *node, int i)
{
	if (node->self == 0 || mg_is_arbitrator(node) || !mg_active(node) || node->leading ||
		node->peers[i].member != node->leader || node->electing > MG_VOTE_ASKING || node->leave_asked ||
		!self_may_lead(node) || mg_view_find(&node->latest, node->self) < 0)
		return;
	node->elect_at = node->now_us + MG_ELECT_RETRY_US + turn(node);
	ask_for_votes(node, MG_VOTE_HANDOVER);
	count_votes(node);
}

/* ----------------------------------------------------------- coming into step */

/*
 * The last entry that the own log has in common with the leader's.  Same epoch
 * and same seqno are the same entry, and so is everything before it; so it is
 * the highest seqno that both have under the same epoch.  The leader's present
 * epoch has no end: whatever the own log holds of it is the leader's.  Its first
 * row has no beginning: the log may have been recycled in the middle of an epoch.
 */
static mg_seqno
common_point(const mg_node *node, const mg_epoch_start *table, uint32_t n)
{
	mg_seqno	best = 0;

	for (uint32_t k = 0; k < n; k++)
	{
		mg_seqno	end = k + 1 < n ? table[k + 1].first - 1 : UINT64_MAX;

		for (uint32_t o = 0; o < node->n_epochs; o++)
		{
			mg_seqno	own_end = o + 1 < node->n_epochs ? node->epochs[o + 1].first - 1 : node->appended;
			mg_seqno	from = k > 0 && table[k].first > node->epochs[o].first ? table[k].first : node->epochs[o].first;
			mg_seqno	to = end < own_end ? end : own_end;

			if (table[k].epoch == node->epochs[o].epoch && from <= to && to > best)
				best = to;
		}
	}
	return best;
}

/*
 * An arbitrator is a voter whose log holds changes of members alone: of those
 * that their leader does not know as agreed it says that it has them, and votes
 * for nobody who lacks them.  Of any other view it only learns who there is: were
 * it to stand for the beginning of an epoch, too, it would refuse a majority of
 * the members that has everything that was ever agreed.
 */
static void
arbitrate(mg_node *node, const mg_frame_header *fh, const mg_view *view, mg_seqno delivered)
{
	int			m = mg_view_find_incarnation(view, node->config.incarnation);

	if (node->self == 0 && m >= 0)
	{
		node->self = view->members[m].id;
		node->life = view->members[m].life;
		mg_node_shift(node, MG_STATE_JOINED, "the view that takes it in is known");
	}
	if (node->self == 0)
		return;
	if (fh->epoch > node->promised)
	{
		node->promised = fh->epoch;
		node->voted = 0;
	}
	if (fh->epoch != node->epoch || node->leader != fh->member)
		begin_epoch(node, fh->epoch, fh->member);
	node->leader_us = node->now_us;
	node->no_leader_us = 0;
	if (view->id >= node->latest.id || fh->epoch > node->told_epoch)
	{
		node->old = node->latest = *view;
		node->told_epoch = fh->epoch;
		if (view->members_id > delivered && view->epoch == fh->epoch &&
			(view->id > node->arbitrated || fh->epoch > node->arbitrated_epoch))
		{
			node->arbitrated = view->id;
			node->arbitrated_epoch = fh->epoch;
		}
		mg_state_save(node);
		mg_peers_follow(node, view, true);
		if (mg_view_find(view, node->self) >= 0)
			node->view = *view;	/* else it is told for good when that view is delivered: NOT_MEMBER */
		mg_fx_add(node, MG_FX_STATE);
	}
	node->ack_due = true;
}

void
mg_on_lead(mg_node *node, const mg_frame_header *fh, int i, mg_reader *r)
{
	mg_uuid		uuid;
	mg_seqno	start;
	mg_seqno	delivered;
	mg_seqno	common;
	mg_view		view;
	uint32_t	n;
	mg_epoch_start table[MG_EPOCHS_MAX + 1];

	mg_read_copy(r, uuid.bytes, sizeof(uuid.bytes));
	start = mg_read_u64(r);
	delivered = mg_read_u64(r);
	if (r->bad || mg_view_decode(r, &view) != MG_OK || (n = mg_read_u32(r)) > MG_EPOCHS_MAX || start == 0)
	{
		node->frames_damaged++;
		return;
	}
	for (uint32_t k = 0; k < n; k++)
	{
		table[k].epoch = mg_read_u64(r);
		table[k].first = mg_read_u64(r);
		if (k > 0 && (table[k].epoch <= table[k - 1].epoch || table[k].first <= table[k - 1].first))
			r->bad = true;
	}
	if (!mg_reader_done(r) || fh->member == 0 || is_absurd(node, fh->epoch))
	{
		node->frames_damaged++;
		return;
	}
	if (n == 0 || table[n - 1].epoch < fh->epoch)
	{
		table[n].epoch = fh->epoch;
		table[n].first = start;
		n++;
	}
	if (!mg_uuid_equal(&uuid, &node->uuid) || node->state == MG_STATE_OPEN || node->state == MG_STATE_INCONSISTENT ||
		(fh->member == node->self && node->self != 0))
		return;
	if (fh->epoch > node->seen_epoch)
		node->seen_epoch = fh->epoch;
	if (fh->epoch < node->promised && MG_CANARY != 3)
	{
		if (i >= 0)
			put_vote_reply(node, i, 0, MG_VOTE_NONE, false);	/* so that it hears of the higher epoch */
		return;
	}
	if (mg_is_arbitrator(node))
	{
		arbitrate(node, fh, &view, delivered);
		return;
	}
	if (node->self == 0)
	{
		/* A learner belongs to the leader that has admitted it. */
		if (node->state == MG_STATE_JOINER && fh->epoch > node->epoch)
			node->last_entries_us = INT64_MIN / 2;	/* asks anew */
		return;
	}
	if (fh->epoch == node->epoch && node->leader == fh->member && mg_active(node))
	{
		node->ack_due = true;	/* known; its answer was lost */
		return;
	}

	mg_peers_follow(node, &view, false);
	i = mg_peer_of_member(node, fh->member);
	if (i < 0)
		return;
	common = common_point(node, table, n);
	if (node->position >= start && fh->epoch > node->life_promised && node->recovered != UINT64_MAX)
	{
		mg_inconsistent(node, "its data holds transactions that the cluster has lost");
		return;
	}
	if (common < node->delivered)
	{
		uint64_t	own = mg_epoch_of(node, node->delivered);

		if (own == 0 && node->delivered < start)
			common = node->delivered;
		else if (own < table[0].epoch && node->delivered < start)
		{
			mg_give_up_membership(node, "the cluster's history has gone on too far without this node");
			return;
		}
		else
		{
			mg_inconsistent(node, "its history differs from the cluster's");
			return;
		}
	}
#if MG_CANARY == 4
	if (common < node->appended && node->appended < start)
		common = node->appended;
#endif

	begin_epoch(node, fh->epoch, fh->member);
	node->lead_start = start;
	mg_truncate(node, common);
	if (fh->epoch > node->promised)
	{
		node->promised = fh->epoch;
		node->voted = 0;
		mg_state_save(node);
	}
	if (!mg_still_counts(node))
	{
		mg_give_up_membership(node, "the view that took this node in was never agreed");
		return;
	}
	if (delivered > node->heard_delivered)
		node->heard_delivered = delivered;
	if (node->state == MG_STATE_NON_PRIMARY)
		node->sync_at = delivered > start ? delivered : start;
	mg_fx_log(node, "group: follows member %u in epoch %llu from seqno %llu on",
			  fh->member, (unsigned long long) fh->epoch, (unsigned long long) common + 1);
	mg_fx_add(node, MG_FX_STATE);
	if (node->appended >= start)
	{
		mg_put_ack(node);
		mg_resend_own(node, true);
	}
	else if (node->appended + 1 < start)
		mg_put_fetch(node, i);
	node->ack_due = true;
}

/* ------------------------------------------------------------ no member any more */

void
mg_put_not_member(mg_node *node, int i, mg_member_id whom, mg_no_member why, uint64_t incarnation)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_NOT_MEMBER);
	mg_buf	   *b = &node->peers[i].out;

	mg_buf_put_u8(b, (uint8_t) why);
	mg_buf_put_u64(b, node->view.id);
	mg_buf_put_u32(b, whom);
	mg_buf_put_u64(b, incarnation);
	mg_msg_end(b, mark);
}

/*
 * A member in a life that is over, or another process in the same life: a late
 * frame, or it was started from an old copy of its disk.  In that case it would
 * search for the others for ever.
 */
void
mg_on_earlier_life(mg_node *node, const mg_frame_header *fh, mg_reader *r)
{
	char		address[MG_ADDRESS_BYTES_MAX];
	int			i = mg_peer_of_member(node, fh->member);

	(void) mg_read_bytes(r, VOTE_REQUEST_BYTES);
	mg_read_text(r, address, sizeof(address));
	if (r->bad || i < 0 || node->peers[i].incarnation == fh->incarnation || !mg_address_is_valid(address))
		return;
	if (strcmp(node->peers[i].address, address) != 0)
	{
		i = mg_peer_of_incarnation(node, fh->incarnation);
		if (i < 0)
		{
			i = mg_peer_add(node, MG_PEER_GONE, address);
			if (i < 0)
				return;
			node->peers[i].incarnation = fh->incarnation;
		}
		node->peers[i].gone_us = node->now_us;
	}
	mg_put_not_member(node, i, fh->member, MG_NO_MEMBER_EARLIER_LIFE, fh->incarnation);
}

void
mg_on_not_member(mg_node *node, const mg_frame_header *fh, mg_reader *r)
{
	uint8_t		why = mg_read_u8(r);
	uint64_t	view_id = mg_read_u64(r);
	mg_member_id whom = mg_read_u32(r);
	uint64_t	incarnation = mg_read_u64(r);

	if (!mg_message_is_whole(node, r) || node->self == 0 || whom != node->self || node->leading ||
		(!mg_state_is_synced(node->state) && node->state != MG_STATE_NON_PRIMARY && node->state != MG_STATE_JOINED))
		return;
	if (why == MG_NO_MEMBER_VIEW && view_id <= node->view.id && fh->epoch <= node->promised)
		return;
	if (why == MG_NO_MEMBER_EARLIER_LIFE && incarnation != node->config.incarnation)
		return;					/* said to a process before this one */
	if (node->leave_asked)
	{
		/* The view without this node was made, its word of it got lost. */
		mg_own_submissions_unknown(node);
		node->self = 0;
		node->leader = 0;
		mg_state_save(node);
		mg_node_shift(node, MG_STATE_OPEN, "left the cluster");
		mg_fx_answer(node, true, "left the cluster", "");
		return;
	}
	mg_give_up_membership(node, why == MG_NO_MEMBER_VIEW ? "the cluster went on without this node" :
						  why == MG_NO_MEMBER_LOG ? "no member's log reaches back to what this node needs" :
						  "others have seen this member in a later life: this node was started from an old copy of its disk");
}
