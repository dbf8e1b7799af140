/*
 * core/group/state.c - what a node knows of itself when it starts again.
 *
 * How: identity, promises and the newest view are one small block of bytes that
 * the owner keeps durable (MG_FX_SAVE); entries come back from the log.  What
 * was promised by then holds in the next life: a restarted node is the same
 * member.  One whose log has lost what it had acknowledged is not: it gives its
 * membership up and joins as somebody new.
 */
#include "core/group/group.h"

#define STATE_VERSION 1

/* Frames between members carry the cluster's name and uuid, so that no other's are taken for theirs. */
void
mg_state_rehash(mg_node *node)
{
	uint64_t	h = node->name_hash;

	if (!mg_uuid_is_zero(&node->uuid))
		for (size_t i = 0; i < sizeof(node->uuid.bytes); i++)
			h = mg_mix64(h ^ node->uuid.bytes[i]);
	node->cluster_hash = h;
}

void
mg_state_save(mg_node *node)
{
	mg_buf	   *b = &node->fx->bytes;
	size_t		at = b->len;
	mg_effect  *fx;

	mg_buf_put_u16(b, STATE_VERSION);
	mg_buf_put(b, node->uuid.bytes, sizeof(node->uuid.bytes));
	mg_buf_put_u32(b, node->self);
	mg_buf_put_u32(b, node->life);
#if MG_CANARY == 6
	mg_buf_put_u64(b, 0);
	mg_buf_put_u32(b, 0);
#else
	mg_buf_put_u64(b, node->promised);
	mg_buf_put_u32(b, node->voted);
#endif
	mg_buf_put_u64(b, node->arbitrated_epoch);
	mg_buf_put_u64(b, node->arbitrated);
	mg_buf_put_u64(b, node->known_upto);
	mg_buf_put_u64(b, node->doubt);
	mg_buf_put_u64(b, node->at_seqno);
	mg_buf_put_u64(b, node->at_epoch);
	mg_view_encode(b, &node->latest);
	mg_view_encode(b, &node->old);
	fx = mg_fx_add(node, MG_FX_SAVE);
	fx->at = at;
	fx->len = b->len - at;
}

bool
mg_state_cluster(const void *bytes, size_t len, mg_uuid *uuid)
{
	mg_reader	r;

	mg_reader_init(&r, bytes, len);
	if (mg_read_u16(&r) != STATE_VERSION)
		return false;
	mg_read_copy(&r, uuid->bytes, sizeof(uuid->bytes));
	return !r.bad;
}

void
mg_state_restore(mg_node *node, const void *bytes, size_t len)
{
	mg_reader	r;
	mg_uuid		uuid;
	mg_member_id self,
				voted;
	uint32_t	life;
	uint64_t	promised,
				arbitrated_epoch;
	mg_seqno	arbitrated,
				known_upto;
	uint64_t	doubt;
	mg_seqno	at_seqno;
	uint64_t	at_epoch;
	mg_view		latest,
				old;

	if (node->state != MG_STATE_OPEN || node->self != 0)
		return;
	mg_reader_init(&r, bytes, len);
	if (mg_read_u16(&r) != STATE_VERSION)
	{
		mg_fx_log(node, "group: the saved state is of another version: this node joins as a new member");
		return;
	}
	mg_read_copy(&r, uuid.bytes, sizeof(uuid.bytes));
	self = mg_read_u32(&r);
	life = mg_read_u32(&r);
	promised = mg_read_u64(&r);
	voted = mg_read_u32(&r);
	arbitrated_epoch = mg_read_u64(&r);
	arbitrated = mg_read_u64(&r);
	known_upto = mg_read_u64(&r);
	doubt = mg_read_u64(&r);
	at_seqno = mg_read_u64(&r);
	at_epoch = mg_read_u64(&r);
	if (r.bad || mg_view_decode(&r, &latest) != MG_OK || mg_view_decode(&r, &old) != MG_OK || !mg_reader_done(&r) ||
		promised >= UINT64_MAX / 2 || life >= UINT32_C(1) << (63 - MG_LIFE_SHIFT))
	{
		mg_fx_log(node, "group: the saved state cannot be read: this node joins as a new member");
		return;
	}
	if (mg_is_arbitrator(node))
	{
		node->uuid = uuid;
		mg_state_rehash(node);
	}
	if (!mg_uuid_equal(&uuid, &node->uuid))
	{
		mg_fx_log(node, "group: the saved state belongs to another cluster than the data: not used");
		return;
	}
	node->promised = node->seen_epoch = promised;
	node->voted = voted;
	node->life = life;
	node->arbitrated_epoch = arbitrated_epoch;
	node->arbitrated = arbitrated;
	node->saved_known_upto = known_upto;
	node->doubt = doubt;
	node->at_seqno = at_seqno;
	node->at_epoch = at_epoch;
	node->latest = latest;
	node->old = old;
	if (mg_view_find(&latest, self) >= 0 || mg_view_find(&old, self) >= 0)
		node->self = self;
}

/* An entry of the own log, ascending. */
void
mg_state_recover(mg_node *node, const mg_input *in)
{
	mg_reader	r;
	mg_entry_header h;
	size_t		len;
	const uint8_t *bytes;

	if (node->state != MG_STATE_OPEN || in->len > MG_FRAME_BYTES_MAX || node->entries == NULL || in->seqno == 0)
		return;
	mg_reader_init(&r, in->bytes, in->len);
	if (mg_entry_decode(&r, &h) != MG_OK || h.cert_upto >= in->seqno)
	{
		mg_fx_log(node, "gcache: the log entry at seqno %llu cannot be read", (unsigned long long) in->seqno);
		node->overflown = true;	/* from here on the log is not what it was */
		return;
	}
	len = mg_reader_left(&r);
	bytes = mg_read_bytes(&r, len);
	if (node->overflown)
		return;
	if (node->known_upto != UINT64_MAX)
	{
		/* The first. */
		if (in->seqno > node->position + 1)
		{
			node->overflown = true;	/* begins above the data: of no use */
			return;
		}
		mg_rebase(node, in->seqno - 1);
		node->known_upto = UINT64_MAX;
	}
	else if (in->seqno != node->ordered + 1)
	{
		node->overflown = true;
		return;
	}
	if (node->ordered - node->delivered >= MG_ENTRIES_MAX - 1 || (node->n_epochs > 0 && h.epoch < node->epochs[node->n_epochs - 1].epoch))
	{
		node->overflown = true;
		return;
	}
	mg_entry_add(node, &h, mg_payload_copy(node, bytes, len), (uint32_t) len);
	mg_append_ready(node);
	node->flushed = node->appended;
	mg_deliver_ready(node, UINT32_MAX);
}

/* A view that takes this node out is in the log, but perhaps not agreed: until then its word is needed. */
bool
mg_still_counts(const mg_node *node)
{
	return mg_view_find(&node->latest, node->self) >= 0 ||
		(mg_is_joint(node) && mg_view_find(&node->old, node->self) >= 0);
}

static bool
is_only_data_member(const mg_node *node)
{
	if (mg_is_arbitrator(node) || mg_is_joint(node))
		return false;
	for (uint32_t m = 0; m < node->latest.n; m++)
		if (node->latest.members[m].role == MG_ROLE_DATA && node->latest.members[m].id != node->self)
			return false;
	return true;
}

/*
 * The data holds transactions whose log records were given up (durability
 * memory, and the power went), and there is nobody else who could have them:
 * the data is what counts, the log begins anew behind it.  It stays as advanced
 * as it was.
 */
void
mg_log_from_data(mg_node *node)
{
	uint64_t	epoch = mg_epoch_of(node, node->appended);

	mg_rebase(node, node->position);
	if (epoch != 0)
	{
		node->epochs[0].epoch = epoch;
		node->epochs[0].first = node->position;
		node->n_epochs = 1;
	}
	mg_fx_add(node, MG_FX_RESET_LOG)->generation = ++node->generation;
}

/* Goes on as the member it was, if it was one and can. */
void
mg_state_start(mg_node *node, bool intact)
{
	const char *why = NULL;
	bool		empty = node->known_upto != UINT64_MAX;	/* nothing came out of the log */

	if (node->state != MG_STATE_OPEN)
		return;
	if (node->known_upto == UINT64_MAX)
	{
		/* It may have been a joiner that could not judge all that it had fetched. */
		node->known_upto = node->stamped_upto;
		if (node->saved_known_upto > node->known_upto && node->saved_known_upto != UINT64_MAX)
			node->known_upto = node->saved_known_upto;
	}
	if (node->self == 0)
		return;
	if (!mg_is_arbitrator(node))
	{
		if (node->latest.members_id > node->appended)
			node->latest = node->old;	/* its entry did not get into the log */
		if (node->latest.id > node->appended)
			node->latest.id = node->latest.members_id;
	}
#if MG_CANARY == 12
	intact = true;
#endif
	if (!intact || node->overflown)
		why = "its disk has lost what was durable, or is an old copy";
	else if (empty && node->position > 0 && !is_only_data_member(node))
		why = "the writeset log is gone, and what comes next cannot be judged without it";
	else if (node->appended < node->position && node->log_first > node->appended + 1)
		why = "the writeset log ends before the data and cannot be continued";
	if (why == NULL && !mg_still_counts(node))
		why = "its last view was never agreed";
	if (why != NULL)
	{
		mg_fx_log(node, "group: member %u does not come back, this node joins as a new one: %s", node->self, why);
		node->self = 0;
		mg_state_save(node);
		return;
	}
	if (node->appended < node->position && is_only_data_member(node))
		mg_log_from_data(node);
	if (node->old.members_id > node->heard_delivered && node->old.members_id < node->latest.members_id && !mg_is_arbitrator(node))
		node->heard_delivered = node->old.members_id;	/* take_view */
	if (node->old.members_id == node->latest.members_id && node->latest.members_id > node->heard_delivered &&
		node->latest.members_id <= node->appended && !mg_is_arbitrator(node))
		node->heard_delivered = node->latest.members_id;	/* it was delivered here: view_install */
	node->recovered = node->appended;

	/* What was promised when the data got ahead of the log: a life that has not caught up yet changes nothing about that. */
	node->life_promised = node->doubt != 0 && node->appended < node->position ? node->doubt : node->promised;
	node->doubt = node->appended < node->position ? node->life_promised : 0;
	node->life++;
	node->resumed = true;
	mg_state_save(node);
	if (!mg_is_arbitrator(node))
		mg_own_stream_begin(node);
	if (node->view.id == 0)
		node->view = node->latest.members_id <= node->delivered ? node->latest : node->old;
	if (node->view.id > node->delivered)
		node->view.id = node->delivered;
	node->no_leader_us = node->now_us;
	node->elect_at = node->now_us + MG_ELECT_RETRY_US;
	node->sync_at = UINT64_MAX;
	mg_node_shift(node, MG_STATE_NON_PRIMARY, "started, in search of the other members");
	mg_peers_follow(node, &node->latest, false);
	if (mg_is_joint(node))
		mg_peers_follow(node, &node->old, false);
	mg_deliver_ready(node, UINT32_MAX);
}
