/*
 * core/group/join.c - into the group and out of it.
 *
 * How: a joiner asks every address it knows until a leader admits it or somebody
 * says why not.  Admitted, it is a learner: it fetches the log from where its
 * data stands (or from the floor, whichever is lower: certification needs what
 * lies above the floor), counts for nothing, and is taken into the view when it
 * is near the tip.  Leaving is a view without the member; a leader that wants
 * to leave hands the epoch over first.
 */
#include "core/group/group.h"

#include <stdio.h>

#define REBUILD_HINT "Start the node from a base backup (pg_basebackup) of a member."

/* Whoever can be helped by a snapshot is told who could give one. */
void
mg_put_refuse(mg_node *node, int i, mg_refusal kind, const char *text, const char *hint)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_REFUSE);

	mg_buf_put_text(&node->peers[i].out, node->config.address);
	mg_buf_put_text(&node->peers[i].out, text);
	mg_buf_put_text(&node->peers[i].out, hint);
	mg_buf_put_u8(&node->peers[i].out, (uint8_t) kind);
	mg_buf_put_u64(&node->peers[i].out, node->peers[i].incarnation);
	if (kind != MG_REFUSED)
		mg_view_encode(&node->peers[i].out, &node->latest);
	mg_msg_end(&node->peers[i].out, mark);
	if (node->peers[i].kind == MG_PEER_LEARNER)
	{
		/* Known just long enough to hear it. */
		node->peers[i].kind = MG_PEER_GONE;
		node->peers[i].gone_us = node->now_us;
	}
}

/* Of the entry that the data stands at; 0: neither the log nor the saved state tell. */
static uint64_t
epoch_of_data(const mg_node *node)
{
	uint64_t	epoch = mg_epoch_of(node, node->position);

	return epoch == 0 && node->at_seqno == node->position ? node->at_epoch : epoch;
}

void
mg_put_join_request(mg_node *node, int i)
{
	size_t		mark = mg_msg_peer(node, i, MG_MSG_JOIN_REQUEST);
	mg_buf	   *b = &node->peers[i].out;

	mg_buf_put_text(b, node->config.cluster_name);
	mg_buf_put_text(b, node->config.name);
	mg_buf_put_text(b, node->config.address);
	mg_buf_put_text(b, node->config.sql_address);
	mg_buf_put_u8(b, node->wants_snapshot);
	mg_buf_put(b, node->uuid.bytes, sizeof(node->uuid.bytes));
	mg_buf_put_u64(b, node->position);
	mg_buf_put_u64(b, epoch_of_data(node));
	mg_buf_put_u64(b, node->data_limit);
	mg_buf_put_u64(b, node->config.data_epoch);
	mg_buf_put_u8(b, (uint8_t) node->config.role);
	mg_buf_put_u8(b, node->config.segment);
	mg_buf_put_u32(b, node->config.weight);
	mg_msg_end(b, mark);
}

typedef struct request
{
	char		cluster[MG_NAME_BYTES_MAX];
	char		name[MG_NAME_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];
	char		sql_address[MG_ADDRESS_BYTES_MAX];
	bool		wants_snapshot;
	mg_uuid		uuid;
	mg_seqno	position;
	uint64_t	epoch;			/* of the entry there, 0: its log does not tell, but ... */
	uint64_t	limit;			/* ... not above this */
	uint64_t	seen;			/* an epoch whose entries have come out there, 0: not known */
	uint8_t		role;
	uint8_t		segment;
	uint32_t	weight;
} request;

static void
put_reply_head(mg_node *node, int i, uint8_t kind, const char *whom)
{
	mg_buf_put_text(&node->peers[i].out, node->config.address);
	mg_buf_put_u8(&node->peers[i].out, kind);
	mg_buf_put_text(&node->peers[i].out, whom);
}

static void
redirect(mg_node *node, int i)
{
	int			l = mg_peer_of_member(node, node->leader);
	size_t		mark;

	if (l < 0 || !mg_active(node))
		return;					/* nobody leads: the asker tries again */
	mark = mg_msg_peer(node, i, MG_MSG_JOIN_REPLY);
	put_reply_head(node, i, 1, node->peers[l].address);
	mg_msg_end(&node->peers[i].out, mark);
}

/* An epoch of which entries have been delivered is in every log, as far as that reaches back. */
static bool
never_was(const mg_node *node, uint64_t epoch)
{
	if (epoch == 0 || node->n_epochs == 0 || epoch < node->epochs[0].epoch)
		return false;
	for (uint32_t i = 0; i < node->n_epochs; i++)
		if (node->epochs[i].epoch == epoch)
			return false;
	return true;
}

static void
refuse_name(mg_node *node, int i, const mg_member *has_it)
{
	char		text[MG_REASON_BYTES_MAX];

	snprintf(text, sizeof(text), "a member named \"%s\" is in the cluster already, at %.100s", has_it->name, has_it->address);
	mg_put_refuse(node, i, MG_REFUSED, text, "Give every node a mgrepl.node_name of its own.");
}

/*
 * Whoever would be refused for his name when he has got a snapshot is told before
 * he gives his data up for it.
 */
static bool
refused_by_name(mg_node *node, int i, const request *q)
{
	int			m = mg_view_find_name(&node->latest, q->name);
	const mg_member *member = m < 0 ? NULL : &node->latest.members[m];

	if (member == NULL ||
		(member->id != node->self && (strcmp(member->address, q->address) == 0 || !mg_member_is_heard(node, member->id))))
		return false;
	refuse_name(node, i, member);
	return true;
}

/* By the leader: with a reason, or a place to start from. */
static void
admit(mg_node *node, int i, const request *q)
{
	mg_peer    *p = &node->peers[i];
	bool		again = mg_view_find_incarnation(&node->latest, p->incarnation) >= 0;	/* has not got its view yet */
	int			m = again ? -1 : mg_view_find_name(&node->latest, q->name);
	char		text[MG_REASON_BYTES_MAX];
	size_t		mark;
	mg_seqno	start;
	bool		data = q->role == MG_ROLE_DATA;
	uint64_t	here = mg_epoch_of(node, q->position);	/* same seqno and epoch: same entry; 0: the log does not tell */

	if (data && q->position > node->appended)
	{
		snprintf(text, sizeof(text), "the joining node (seqno %llu) is ahead of the cluster (seqno %llu)",
				 (unsigned long long) q->position, (unsigned long long) node->appended);
		mg_put_refuse(node, i, MG_REFUSED_DIFFERS, text, "Bootstrap the cluster from the most advanced node, or start this one from a base backup of a member.");
		return;
	}
	if (data && ((q->epoch != 0 ? here != 0 && here != q->epoch : here > q->limit) || never_was(node, q->seen)))
	{
		snprintf(text, sizeof(text), "the joining node has another transaction at seqno %llu than the cluster",
				 (unsigned long long) q->position);
		mg_put_refuse(node, i, MG_REFUSED_DIFFERS, text,
					  "Its data went another way (a forced bootstrap elsewhere, or transactions lost with the power). " REBUILD_HINT);
		return;
	}
	if (data && node->latest.n >= MG_MEMBERS_MAX)
	{
		mg_put_refuse(node, i, MG_REFUSED, "the cluster has as many members as it can have", "Let a member leave first.");
		return;
	}
	if (m >= 0)
	{
		if (node->latest.members[m].id == node->self || strcmp(node->latest.members[m].address, q->address) != 0)
		{
			refuse_name(node, i, &node->latest.members[m]);
			return;
		}
		return;					/* asked again when the old one is out of the view */
	}
	start = mg_cluster_floor(node);
	if (q->position < start)
		start = q->position;
	if (data && start + 1 < node->log_first)
	{
		snprintf(text, sizeof(text), "the writesets from seqno %llu on are no longer in the log (it begins at %llu)",
				 (unsigned long long) start + 1, (unsigned long long) node->log_first);
		mg_put_refuse(node, i, MG_REFUSED_TOO_OLD, text, "Start the node from a newer base backup of a member.");
		return;
	}
	if (!again)
		p->kind = MG_PEER_LEARNER;
	p->wait_delivered = node->ordered;
	p->near = !data;			/* an arbitrator has nothing to fetch */
	p->admitted = true;
	if (!again)
		p->held = start;
	p->min_seen = 0;
	p->role = q->role;
	p->segment = q->segment;
	p->weight = q->weight > MG_WEIGHT_MAX ? MG_WEIGHT_MAX : q->weight;
	snprintf(p->name, sizeof(p->name), "%s", q->name);
	snprintf(p->sql_address, sizeof(p->sql_address), "%s", q->sql_address);

	mark = mg_msg_peer(node, i, MG_MSG_JOIN_REPLY);
	put_reply_head(node, i, 0, "");
	mg_buf_put_u64(&p->out, start);
	mg_buf_put_u64(&p->out, node->ordered);		/* verdicts up to here come from stamps */
	mg_buf_put_u64(&p->out, node->lead_start);
	mg_view_encode(&p->out, &node->view);
	mg_msg_end(&p->out, mark);
}

/*
 * Who asks to join has no identity.  If a member has its name and address, that
 * one has lost it, and will not speak again.
 */
static void
note_lost_identity(mg_node *node, const mg_view *view, const request *q, uint64_t incarnation)
{
	int			m = mg_view_find_name(view, q->name);
	int			i;

	if (m < 0 || strcmp(view->members[m].address, q->address) != 0 || view->members[m].id == node->self ||
		view->members[m].incarnation == incarnation || mg_member_is_heard(node, view->members[m].id))
		return;
	i = mg_peer_of_member(node, view->members[m].id);
	if (i >= 0 && node->peers[i].incarnation != incarnation)
		node->peers[i].replaced = true;
}

/* Somebody asks for admission.  He is told why not, or whom to ask, or where to start. */
void
mg_on_join_request(mg_node *node, const mg_frame_header *fh, mg_reader *r)
{
	request		q;
	int			i;
	char		text[MG_REASON_BYTES_MAX];

	mg_read_text(r, q.cluster, sizeof(q.cluster));
	mg_read_text(r, q.name, sizeof(q.name));
	mg_read_text(r, q.address, sizeof(q.address));
	mg_read_sql_address(r, q.sql_address, sizeof(q.sql_address));
	q.wants_snapshot = mg_read_u8(r) != 0;
	mg_read_copy(r, q.uuid.bytes, sizeof(q.uuid.bytes));
	q.position = mg_read_u64(r);
	q.epoch = mg_read_u64(r);
	q.limit = mg_read_u64(r);
	q.seen = mg_read_u64(r);
	q.role = mg_read_u8(r);
	q.segment = mg_read_u8(r);
	q.weight = mg_read_u32(r);
	if (!mg_reader_done(r) || fh->incarnation == 0 || !mg_address_is_valid(q.address) || q.role > MG_ROLE_ARBITRATOR)
	{
		node->frames_damaged++;
		return;
	}
	if (node->self == 0 || node->state == MG_STATE_INCONSISTENT || fh->incarnation == node->config.incarnation)
		return;					/* nobody to admit anyone: silence, the asker times out */

	/* Whoever asked from there before is gone. */
	for (int k = 0; k < MG_PEERS_MAX; k++)
		if ((node->peers[k].kind == MG_PEER_LEARNER || node->peers[k].kind == MG_PEER_GONE) && node->peers[k].incarnation != fh->incarnation &&
			strcmp(node->peers[k].address, q.address) == 0)
			mg_peer_remove(node, k);
	i = mg_peer_of_incarnation(node, fh->incarnation);
	if (i < 0)
	{
		i = mg_peer_add(node, MG_PEER_LEARNER, q.address);
		if (i < 0)
			return;
		node->peers[i].incarnation = fh->incarnation;
		snprintf(node->peers[i].name, sizeof(node->peers[i].name), "%s", q.name);
	}
	node->peers[i].heard_us = node->now_us;

	if (strcmp(q.cluster, node->config.cluster_name) != 0)
	{
		snprintf(text, sizeof(text), "this is cluster \"%s\", not \"%s\"", node->config.cluster_name, q.cluster);
		mg_put_refuse(node, i, MG_REFUSED, text, "Set mgrepl.cluster_name to the cluster's name, or correct the address.");
		return;
	}
	note_lost_identity(node, &node->latest, &q, fh->incarnation);
	if (mg_is_joint(node))
		note_lost_identity(node, &node->old, &q, fh->incarnation);
	if ((mg_uuid_is_zero(&q.uuid) || q.wants_snapshot || !mg_uuid_equal(&q.uuid, &node->uuid)) && q.role == MG_ROLE_DATA &&
		refused_by_name(node, i, &q))
		return;
	if (mg_uuid_is_zero(&q.uuid) && q.role == MG_ROLE_DATA)
	{
		mg_put_refuse(node, i, MG_REFUSED_TOO_OLD, "the data of the joining node does not belong to any cluster", REBUILD_HINT);
		return;
	}
	if (q.wants_snapshot && q.role == MG_ROLE_DATA)
	{
		mg_put_refuse(node, i, MG_REFUSED_TOO_OLD, "the joining node asks for a snapshot", REBUILD_HINT);
		return;
	}
	if (!mg_uuid_equal(&q.uuid, &node->uuid) && !mg_uuid_is_zero(&q.uuid))
	{
		mg_put_refuse(node, i, MG_REFUSED_TOO_OLD, "the data of the joining node belongs to another cluster", REBUILD_HINT);
		return;
	}
	if (!node->leading)
	{
		redirect(node, i);
		return;
	}
	if (node->peers[i].kind == MG_PEER_MEMBER && (node->peers[i].acked || fh->member != 0))
		return;					/* an old request: it is here */
	node->peers[i].admitted = node->peers[i].near = false;
	if (!mg_active(node) || node->delivered < node->lead_start || node->state == MG_STATE_NON_PRIMARY ||
		node->latest.id > node->delivered)
		return;					/* in a moment */
	admit(node, i, &q);
}

void
mg_join_failed(mg_node *node, const char *text, const char *hint)
{
	char		why[MG_REASON_BYTES_MAX];

	snprintf(why, sizeof(why), "join refused: %s", text);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_peer_remove(node, i);
	if (node->self != 0)
	{
		node->self = 0;
		mg_state_save(node);
	}
	node->leader = 0;
	mg_node_shift(node, MG_STATE_OPEN, why);
	mg_fx_answer(node, false, text, hint);
}

void
mg_on_join_reply(mg_node *node, const mg_frame_header *fh, mg_reader *r)
{
	uint8_t		kind = mg_read_u8(r);
	char		address[MG_ADDRESS_BYTES_MAX];
	mg_seqno	start,
				known,
				lead_start;
	mg_view		view;

	mg_read_text(r, address, sizeof(address));
	if (r->bad || node->state != MG_STATE_PRIMARY)
		return;
	if (kind == 1)
	{
		if (mg_address_is_valid(address) && mg_peer_of_address(node, address) < 0)
		{
			int			l = mg_peer_add(node, MG_PEER_SEED, address);

			if (l >= 0)
				mg_put_join_request(node, l);
		}
		return;
	}
	if (kind != 0)
		return;
	start = mg_read_u64(r);
	known = mg_read_u64(r);
	lead_start = mg_read_u64(r);
	if (mg_view_decode(r, &view) != MG_OK || !mg_message_is_whole(node, r) || view.n == 0 || fh->epoch >= UINT64_MAX / 2 ||
		fh->member == 0)
		return;
	if (node->view.id != 0 || (start > node->position && !mg_is_arbitrator(node)))
		return;					/* answered twice, or not an answer to this node */
	if (mg_is_arbitrator(node))
	{
		node->uuid = view.uuid;
		mg_state_rehash(node);
	}
	else if (!mg_uuid_equal(&view.uuid, &node->uuid))
		return;
	else
	{
		node->at_epoch = epoch_of_data(node);
		node->at_seqno = node->position;
		node->promised = fh->epoch;
		node->latest = node->old = view;
		mg_state_save(node);
		mg_rebase(node, start);
		mg_fx_add(node, MG_FX_RESET_LOG)->generation = ++node->generation;
		node->known_upto = known;
	}
	mg_send_frames(node);
	node->last_entries_us = node->now_us;
	mg_node_shift(node, MG_STATE_JOINER, "admitted, catching up");
	if (mg_view_find_incarnation(&view, node->config.incarnation) >= 0)
		view.id = start > 0 ? start : 1;	/* the view that takes this node in is still to come */
	node->view = node->latest = node->old = view;
	node->epoch = node->promised = fh->epoch;
	node->leader = fh->member;
	node->lead_start = lead_start;
	for (int k = 0; k < MG_PEERS_MAX; k++)
		mg_peer_forget_acks(&node->peers[k]);
	mg_peers_follow(node, &view, false);
	for (int k = 0; k < MG_PEERS_MAX; k++)
		if (node->peers[k].kind == MG_PEER_SEED)
			mg_peer_remove(node, k);
	if (mg_is_arbitrator(node))
		return;
	mg_fx_log(node, "join: admitted, catching up from seqno %llu to %llu",
			  (unsigned long long) start + 1, (unsigned long long) known);
	if (mg_peer_of_member(node, node->leader) >= 0)
		mg_put_fetch(node, mg_peer_of_member(node, node->leader));
}

/* The owner gets it, and makes a new node with what it got. */
static void
need_snapshot(mg_node *node, const mg_view *offer, bool nothing_lost, const char *text, const char *hint)
{
	size_t		at = mg_fx_text(node, text);
	size_t		hint_at = mg_fx_text(node, hint);
	mg_effect  *fx;
	char		why[MG_REASON_BYTES_MAX];

	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_peer_remove(node, i);
	if (node->offer == NULL)
		node->offer = mg_alloc(sizeof(*node->offer));
	*node->offer = *offer;
	node->leader = 0;
	snprintf(why, sizeof(why), "needs a snapshot of a member's data: %.200s", text);
	mg_node_shift(node, MG_STATE_JOINER, why);
	node->answer_due = false;
	node->over = true;
	fx = mg_fx_add(node, MG_FX_SNAPSHOT);
	fx->ok = nothing_lost;
	fx->at = at;
	fx->hint_at = hint_at;
}

/* Another version's refusal has the same texts; what follows them is its own. */
void
mg_on_refuse(mg_node *node, mg_reader *r, bool same_version)
{
	mg_view		offer;
	char		text[MG_REASON_BYTES_MAX];
	char		hint[MG_REASON_BYTES_MAX];

	mg_read_text(r, text, sizeof(text));
	mg_read_text(r, hint, sizeof(hint));
	if (r->bad || (node->state != MG_STATE_PRIMARY && node->state != MG_STATE_JOINER))
		return;
	if (same_version)
	{
		mg_refusal	kind = mg_read_u8(r);
		uint64_t	whom = mg_read_u64(r);

		if (r->bad || whom != node->config.incarnation)
			return;				/* an earlier attempt, whose data may have been other */
		if (!mg_is_arbitrator(node) && (kind == MG_REFUSED_TOO_OLD || kind == MG_REFUSED_DIFFERS) &&
			mg_view_decode(r, &offer) == MG_OK && mg_reader_done(r))
		{
			need_snapshot(node, &offer, kind == MG_REFUSED_TOO_OLD, text, hint);
			return;
		}
	}
	mg_join_failed(node, text, hint);
}

void
mg_join_tick(mg_node *node)
{
	if (node->state != MG_STATE_PRIMARY && node->state != MG_STATE_JOINER)
		return;
	if (node->state == MG_STATE_PRIMARY)
	{
		if (node->now_us - node->last_join_us >= MG_JOIN_RETRY_US)
		{
			node->last_join_us = node->now_us;
			for (int i = 0; i < MG_PEERS_MAX; i++)
				if (node->peers[i].kind != MG_PEER_NONE)
					mg_put_join_request(node, i);
		}
		if (node->config.join_timeout_us > 0 && node->now_us - node->join_since_us > node->config.join_timeout_us)
			mg_join_failed(node, "no member of a primary component answered at the given addresses",
						   "Check the addresses, that the nodes there run and are SYNCED, and that this node's mgrepl.node_address can be reached from them.");
		return;
	}
	if (!mg_is_arbitrator(node) && node->now_us - node->last_fetch_us >= 4 * node->config.fetch_us)
		mg_fetch_missing(node);

	/*
	 * Admitted, but the one who admitted it is gone or has forgotten it, or is
	 * just taking it in: asks anew, as another process would, so that nobody
	 * takes the two attempts for one.
	 */
	if (node->now_us - node->last_entries_us > (mg_is_arbitrator(node) ? 2 * MG_GONE_US : node->config.suspect_us))
	{
		mg_fx_log(node, "join: nothing comes from the leader any more, asks anew");
		mg_fx_add(node, MG_FX_EVICTED);
		node->over = true;
	}
}

/* ------------------------------------------------------------------ commands */

/*
 * Elsewhere others may go on, too, or may have done so: an epoch that nobody
 * else will count up to, so that the two histories can be told apart.  That is
 * so for all data that belong to a cluster already, also if this node has heard
 * of no epoch (a backup that was restored).
 */
static uint64_t
mg_forced_epoch(const mg_node *node, uint64_t highest, bool new_cluster)
{
	return new_cluster && highest == 0 ? 1 : highest + 1024 + mg_mix64(node->config.incarnation) % 32768;
}

/* The other members that this node knows, by name; returns how many. */
static uint32_t
name_other_members(const mg_node *node, char *names, size_t cap)
{
	uint32_t	n = 0;
	uint32_t	unnamed = 0;
	size_t		len = 0;

	names[0] = '\0';
	for (uint32_t m = 0; m < node->latest.n; m++)
	{
		const char *name = node->latest.members[m].name;

		if (node->latest.members[m].id == node->self || strcmp(name, node->config.name) == 0)
			continue;
		n++;
		if (unnamed > 0 || len + strlen(name) + sizeof(", and 99 more") >= cap)
			unnamed++;
		else
			len += (size_t) snprintf(names + len, cap - len, "%s%s", len > 0 ? ", " : "", name);
	}
	if (unnamed > 0)
		snprintf(names + len, cap - len, " and %u more", unnamed);
	return n;
}

void
mg_on_bootstrap(mg_node *node, const mg_uuid *uuid, bool force)
{
	mg_view		view;
	mg_member  *me;
	uint64_t	epoch = node->promised;
	mg_member_id next = node->latest.next_member_id;
	char		text[MG_REASON_BYTES_MAX];
	char		names[MG_REASON_BYTES_MAX / 2];
	uint32_t	others = name_other_members(node, names, sizeof(names));
	mg_seqno	kept = node->appended > node->position ? node->appended : node->position;
	bool		new_cluster = mg_uuid_is_zero(&node->uuid) && node->position == 0;

	node->answer_due = true;
	if (mg_is_arbitrator(node))
	{
		mg_fx_answer(node, false, "an arbitrator has no data to begin a cluster with", "Bootstrap a node with data.");
		return;
	}
	if (node->state != MG_STATE_OPEN && node->state != MG_STATE_NON_PRIMARY)
	{
		mg_fx_answer(node, false, "this node is in a cluster already", "Call mgrepl.leave() first.");
		return;
	}
	if (kept > 0 && node->latest.n == 0 && !force)
	{
		snprintf(text, sizeof(text), "the data belongs to a cluster whose members this node does not know (a backup, a copy, or the writeset log is gone); they may hold transactions after seqno %llu, where this node's end",
				 (unsigned long long) kept);
		mg_fx_answer(node, false, text,
					 "Join the cluster with mgrepl.join(), if any of it lives. If not: mgrepl.bootstrap(force => true) goes on from here. Those transactions are then lost, and other copies of the cluster's data must be rebuilt from this node.");
		return;
	}
	if (others > 0 && !force)
	{
		snprintf(text, sizeof(text), "the cluster has other members: %s; they may hold transactions after seqno %llu, where this node's end",
				 names, (unsigned long long) kept);
		mg_fx_answer(node, false, text,
					 "A majority of all members forms the cluster again by itself as soon as it runs. If that can never be: mgrepl.bootstrap(force => true) goes on without them. Those transactions are then lost, and members that hold them must be rebuilt.");
		return;
	}
	if (node->known_upto == UINT64_MAX || node->known_upto > node->stamped_upto)
		node->known_upto = node->stamped_upto;
	mg_unorder(node, node->appended);
	if (node->ordered < node->position && !force)
	{
		mg_fx_answer(node, false, "the writeset log ends before the position of the data",
					 "The log has lost transactions that the data holds. To go on from the data: mgrepl.bootstrap(force => true); the other nodes must then be rebuilt from this one.");
		return;
	}
	if (node->ordered < node->position)
	{
		mg_log_from_data(node);
		node->overflown = false;
	}
	if (node->overflown)
	{
		/* What this node could not take in must not stay in the log behind it. */
		mg_effect  *fx = mg_fx_add(node, node->appended < node->log_first ? MG_FX_RESET_LOG : MG_FX_TRUNCATE);

		fx->seqno = node->appended;
		fx->generation = ++node->generation;
		node->overflown = false;
	}
	mg_own_submissions_unknown(node);
	node->leave_asked = false;
	node->uuid = *uuid;
	mg_state_rehash(node);
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_peer_remove(node, i);

	/* Above anything that this node has heard of. */
	if (node->seen_epoch > epoch)
		epoch = node->seen_epoch;
	if (mg_epoch_of(node, node->appended) > epoch)
		epoch = mg_epoch_of(node, node->appended);
	if (node->latest.epoch > epoch)
		epoch = node->latest.epoch;
	if (node->config.data_epoch > epoch)
		epoch = node->config.data_epoch;
	epoch = mg_forced_epoch(node, epoch, new_cluster);

	/*
	 * What the own log holds counts as agreed: the operator says that this
	 * node goes on alone.  It comes out before the new view is in force.
	 */
	if (others > 0)
	{
		snprintf(node->loss, sizeof(node->loss), "this node goes on without %s: transactions after seqno %llu that only they hold are lost",
				 names, (unsigned long long) kept);
		mg_fx_log(node, "group: %s", node->loss);
	}
	node->self = 0;
	mg_node_shift(node, MG_STATE_JOINED, "begins a primary component by itself");
	node->heard_delivered = node->appended;
	node->epoch = node->promised = epoch;
	node->leader = UINT32_MAX;
	mg_deliver_ready(node, UINT32_MAX);
	if (node->state != MG_STATE_JOINED || node->delivered < node->appended)
	{
		mg_node_shift(node, MG_STATE_OPEN, "the writeset log contradicts itself");
		mg_fx_answer(node, false, "the writeset log of this node contradicts itself, or its data lags far behind it",
					 "See the server log; if the appliers are still busy, try again later.");
		return;
	}
	if (node->view.next_member_id > next)
		next = node->view.next_member_id;
	for (uint32_t k = 0; k <= MG_MEMBERS_MAX; k++)
	{
		if (node->origins[k].id >= next && node->origins[k].id != 0)
			next = node->origins[k].id + 1;
		mg_origin_clear(node, &node->origins[k]);
	}
	if (epoch > 1 && next < mg_first_id(epoch))
		next = mg_first_id(epoch);
	memset(&view, 0, sizeof(view));
	view.uuid = *uuid;
	view.next_member_id = next > 0 ? next : 1;
	me = &view.members[0];
	me->id = view.next_member_id++;
	me->life = 1;
	me->weight = node->config.weight > 0 ? node->config.weight : 1;
	me->segment = node->config.segment;
	me->incarnation = node->config.incarnation;
	snprintf(me->name, sizeof(me->name), "%s", node->config.name);
	snprintf(me->address, sizeof(me->address), "%s", node->config.address);
	snprintf(me->sql_address, sizeof(me->sql_address), "%s", node->config.sql_address);
	view.n = 1;
	view.joined = me->id;
	view.leader = me->id;

	node->view = node->latest = node->old = view;	/* in force for its own entry: nobody else could agree to it */
	node->self = node->voted = me->id;
	node->life = 1;
	node->life_promised = epoch;
	node->recovered = UINT64_MAX;
	node->leader = me->id;
	node->leading = true;
	node->electing = MG_VOTE_NONE;
	node->seen_epoch = epoch;
	node->no_leader_us = 0;
	node->last_floor = 0;
	node->lead_start = node->ordered + 1;
	node->sync_at = node->lead_start;
	mg_own_stream_begin(node);
	mg_order_view(node, &view);
}

void
mg_on_join(mg_node *node, const char *addresses, bool with_snapshot)
{
	char		address[MG_ADDRESS_BYTES_MAX];
	int			n = 0;

	node->answer_due = true;
	if (node->state != MG_STATE_OPEN)
	{
		mg_fx_answer(node, false, node->state == MG_STATE_NON_PRIMARY ?
					 "this node is a member and in search of the others" : "this node is in a cluster already",
					 "Call mgrepl.leave() first.");
		return;
	}
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_peer_remove(node, i);
	while (*addresses != '\0' && n < MG_SEEDS_MAX)
	{
		size_t		len = strcspn(addresses, ",");

		if (len > 0 && len < sizeof(address))
		{
			memcpy(address, addresses, len);
			address[len] = '\0';
			if (mg_address_is_valid(address) && strcmp(address, node->config.address) != 0 &&
				mg_peer_of_address(node, address) < 0 && mg_peer_add(node, MG_PEER_SEED, address) >= 0)
				n++;
		}
		addresses += len;
		if (*addresses == ',')
			addresses++;
	}
	if (n == 0)
	{
		mg_fx_answer(node, false, "no usable address of another node is given",
					 "Write addresses as gcomm://host:port,host:port and leave out this node's own.");
		return;
	}
	memset(&node->view, 0, sizeof(node->view));
	memset(&node->latest, 0, sizeof(node->latest));
	memset(&node->old, 0, sizeof(node->old));
	if (node->delivered > node->position)
		node->position = node->delivered;
	node->leave_asked = false;
	node->wants_snapshot = with_snapshot;
	node->self = 0;
	node->leader = 0;
	node->data_limit = node->config.data_epoch != 0 ? node->config.data_epoch : node->doubt != 0 ? node->doubt :
		node->promised != 0 ? node->promised : UINT64_MAX;
	node->recovered = UINT64_MAX;
	node->join_since_us = node->now_us;
	node->last_join_us = node->now_us - MG_JOIN_RETRY_US;
	mg_node_shift(node, MG_STATE_PRIMARY, "asks the primary component for admission");
}

static bool
has_company(const mg_node *node)
{
	for (uint32_t m = 0; m < node->latest.n; m++)
		if (node->latest.members[m].id != node->self && mg_may_lead(&node->latest.members[m]))
			return true;
	return false;
}

/* Its identity stays saved: started again, it is the member that it was. */
static void
leave_alone(mg_node *node, const char *why)
{
	mg_own_submissions_unknown(node);
	mg_send_frames(node);
	node->self = 0;
	node->leader = 0;
	node->leading = false;
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_peer_remove(node, i);
	mg_node_shift(node, MG_STATE_OPEN, why);
	mg_fx_answer(node, true, "left the cluster", "");
}

void
mg_on_leave(mg_node *node)
{
	node->answer_due = true;
	if (node->state == MG_STATE_PRIMARY || node->state == MG_STATE_JOINER)
		mg_join_failed(node, "the join was given up", "");
	else if (node->state == MG_STATE_OPEN || node->self == 0)
		mg_fx_answer(node, false, "this node is in no cluster", "Call mgrepl.join() or mgrepl.bootstrap() to be in one.");
	else if (node->state == MG_STATE_INCONSISTENT)
		leave_alone(node, "left the cluster without its consent: this node's data differs");
	else if (!mg_state_is_synced(node->state))
		leave_alone(node, "left the cluster without its consent: it was not reachable");
	else if (!mg_is_arbitrator(node) && !has_company(node))
		leave_alone(node, "left the cluster as its last member");
	else
		node->leave_asked = true;
}

void
mg_leave_tick(mg_node *node)
{
	int			best = -1;

	if (!node->leave_asked || node->self == 0 || !mg_active(node) ||
		node->now_us - node->handover_us < MG_LEAD_REPEAT_US / 2)
		return;
	node->handover_us = node->now_us;
	if (!node->leading)
	{
		int			l = mg_peer_of_member(node, node->leader);

		if (l >= 0)
			mg_msg_end(&node->peers[l].out, mg_msg_peer(node, l, MG_MSG_LEAVE_REQUEST));
		return;
	}
	if (!has_company(node))
	{
		leave_alone(node, "left the cluster as its last member");
		return;
	}
	for (int i = 0; i < MG_PEERS_MAX; i++)
	{
		const mg_peer *p = &node->peers[i];
		int			m = p->kind == MG_PEER_MEMBER ? mg_view_find(&node->latest, p->member) : -1;

		if (m < 0 || !mg_may_lead(&node->latest.members[m]) || !p->acked || p->leaving || !mg_member_is_heard(node, p->member))
			continue;
		if (best < 0 || p->held > node->peers[best].held)
			best = i;
	}
	if (best >= 0)
		mg_msg_end(&node->peers[best].out, mg_msg_peer(node, best, MG_MSG_HANDOVER));
}
