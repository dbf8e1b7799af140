/*
 * core/group/queue.c - entries between their ordering and their delivery, the
 * messages that wait for a place, and the end of the log.
 *
 * How: entries sit in a ring by seqno, messages in a ring per origin by number.
 * What is ordered and complete is appended to the log at once; a tail that a
 * new leader does not have is cut off again, and this node's own messages in
 * it go back among those that wait: they get another place or none, never two.
 */
#include "core/group/group.h"

void
mg_queue_push(mg_seqno_queue *q, mg_seqno s)
{
	MG_ASSERT(q->tail - q->head < MG_FAILED_CAP);
	q->ring[q->tail++ & (MG_FAILED_CAP - 1)] = s;
}

bool
mg_queue_empty(const mg_seqno_queue *q)
{
	return q->head == q->tail;
}

mg_seqno
mg_queue_front(const mg_seqno_queue *q)
{
	return q->ring[q->head & (MG_FAILED_CAP - 1)];
}

static mg_seqno
queue_back(const mg_seqno_queue *q)
{
	MG_ASSERT(!mg_queue_empty(q));
	return q->ring[(q->tail - 1) & (MG_FAILED_CAP - 1)];
}

/* Where in the ring those above `s` begin; q->tail if there are none. */
uint32_t
mg_queue_above(const mg_seqno_queue *q, mg_seqno s)
{
	uint32_t	from = 0,
				to = q->tail - q->head;

	while (from < to)
	{
		uint32_t	middle = from + (to - from) / 2;

		if (q->ring[(q->head + middle) & (MG_FAILED_CAP - 1)] <= s)
			from = middle + 1;
		else
			to = middle;
	}
	return q->head + from;
}

void
mg_payload_free(mg_node *node, uint8_t *bytes, uint32_t len)
{
	if (bytes == NULL)
		return;
	node->payload_bytes -= len;
	mg_free(bytes);
}

uint8_t *
mg_payload_copy(mg_node *node, const void *bytes, size_t len)
{
	uint8_t    *copy = mg_realloc(NULL, len ? len : 1);

	memcpy(copy, bytes, len);
	node->payload_bytes += len;
	return copy;
}

/* -------------------------------------------------------------------- origins */

mg_origin *
mg_origin_find(mg_node *node, mg_member_id id)
{
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		if (node->origins[i].id == id)
			return &node->origins[i];
	return NULL;
}

void
mg_origin_clear(mg_node *node, mg_origin *o)
{
	if (o->ring != NULL)
	{
		for (int i = 0; i < MG_PENDING_MAX; i++)
			mg_payload_free(node, o->ring[i].bytes, o->ring[i].len);
		mg_free(o->ring);
	}
	memset(o, 0, sizeof(*o));
}

mg_origin *
mg_origin_get(mg_node *node, mg_member_id id)
{
	mg_origin  *o = mg_origin_find(node, id);

	if (o != NULL || id == 0)
		return o;
	o = mg_origin_find(node, 0);
	if (o == NULL)
	{
		/* Every place is taken by somebody who left: forget those. */
		for (int i = 0; i <= MG_MEMBERS_MAX; i++)
			if (mg_view_find(&node->latest, node->origins[i].id) < 0 && node->origins[i].id != node->self)
				mg_origin_clear(node, &node->origins[i]);
		o = mg_origin_find(node, 0);
		if (o == NULL)
			return NULL;
	}
	o->id = id;
	o->next_msgno = 0;
	o->ring = mg_alloc(MG_PENDING_MAX * sizeof(mg_pending));
	return o;
}

static void
pending_free(mg_node *node, mg_pending *p)
{
	mg_seqno	missed_at = p->missed_at;

	mg_payload_free(node, p->bytes, p->len);
	memset(p, 0, sizeof(*p));
	p->slot = -1;
	p->missed_at = missed_at;
}

/* The message has a place in the order now: everything up to it is past. */
static void
origin_advance(mg_node *node, mg_origin *o, uint64_t msgno)
{
	uint64_t	from = o->next_msgno;

	if (from > msgno)
		return;
	if (from == 0 || msgno - from >= MG_PENDING_MAX)
		from = msgno < MG_PENDING_MAX ? 1 : msgno - MG_PENDING_MAX + 1;	/* nothing older can be there */
	for (; from <= msgno; from++)
		if (o->ring[from & MG_PENDING_MASK].msgno == from)
			pending_free(node, &o->ring[from & MG_PENDING_MASK]);
	o->next_msgno = msgno + 1;
}

/* The origin's own word: the next of its messages to be ordered is this one. */
void
mg_origin_expect(mg_node *node, mg_origin *o, uint64_t next_msgno)
{
	for (int i = 0; i < MG_PENDING_MAX; i++)
		if (o->ring[i].msgno != 0 && o->ring[i].msgno < next_msgno)
			pending_free(node, &o->ring[i]);
	o->next_msgno = next_msgno;
	o->open = true;
}

/* A new life: its messages are numbered apart from those of earlier ones. */
void
mg_own_stream_begin(mg_node *node)
{
	mg_origin  *own = mg_origin_get(node, node->self);

	MG_ASSERT(own != NULL);
	node->next_msgno = ((uint64_t) node->life << MG_LIFE_SHIFT) + 1;
	node->own_undelivered = node->next_msgno;
	node->n_reservations = 0;
	mg_origin_expect(node, own, node->next_msgno);
}

/* Own messages without a place: sends them (again). */
void
mg_resend_own(mg_node *node, bool all)
{
	mg_origin  *own = node->self != 0 ? mg_origin_find(node, node->self) : NULL;

	if (own == NULL || own->next_msgno == 0 || !mg_active(node) || node->leading)
		return;
	for (uint64_t n = own->next_msgno; n < node->next_msgno; n++)
	{
		mg_pending *p = &own->ring[n & MG_PENDING_MASK];

		if (p->msgno != n || (!all && node->now_us - p->sent_us < node->config.resend_us))
			continue;
		if (node->out_all.len + p->len > 8 * MG_FETCH_BYTES && node->out_all.len > 0)
			break;				/* the rest a little later */
		p->sent_us = node->now_us;
		mg_put_payload(node, p);
	}
}

/* -------------------------------------------------------------------- epochs */

/* The epoch of an entry of the own log, 0 if that is not known. */
uint64_t
mg_epoch_of(const mg_node *node, mg_seqno seqno)
{
	for (uint32_t i = seqno <= node->appended ? node->n_epochs : 0; i-- > 0;)
		if (node->epochs[i].first <= seqno)
			return node->epochs[i].epoch;
	return 0;
}

static void
epoch_note(mg_node *node, uint64_t epoch, mg_seqno seqno)
{
	if (node->n_epochs > 0 && node->epochs[node->n_epochs - 1].epoch == epoch)
		return;
	if (node->n_epochs == MG_EPOCHS_MAX)
	{
		memmove(&node->epochs[0], &node->epochs[1], (MG_EPOCHS_MAX - 1) * sizeof(mg_epoch_start));
		node->n_epochs--;
	}
	node->epochs[node->n_epochs].epoch = epoch;
	node->epochs[node->n_epochs].first = seqno;
	node->n_epochs++;
}

/* ------------------------------------------------------------------- entries */

/* A view joins the own log: it counts for elections from here on, and its new member speaks and votes. */
static void
take_view(mg_node *node, const mg_entry *e)
{
	mg_view		view;
	mg_reader	r;
	int			m;

	mg_reader_init(&r, e->payload, e->len);
	if (mg_view_decode(&r, &view) != MG_OK)
		return;					/* said when it is delivered */
	view.id = e->seqno;
	if (view.id <= node->latest.id || !mg_uuid_equal(&view.uuid, &node->uuid))
		return;					/* on the way to one that is known already */
	if (view.members_id == view.id)
	{
		/* Its leader knew the change before it as agreed, and all up to that. */
		node->old = node->latest;
		if (node->old.members_id > node->heard_delivered)
			node->heard_delivered = node->old.members_id;
	}
	node->latest = view;
	if (node->state == MG_STATE_OPEN)
		return;					/* recovering */

	m = mg_view_find_incarnation(&view, node->config.incarnation);
	if (node->self == 0 && m >= 0)
	{
		node->self = view.members[m].id;
		node->life = view.members[m].life;
		node->promised = node->epoch;
		node->voted = 0;
		node->life_promised = node->promised;
		node->recovered = UINT64_MAX;
		node->sync_at = view.id;
		mg_node_shift(node, MG_STATE_JOINED, "the view that takes it in is in its log");
		mg_own_stream_begin(node);
	}
	if (node->self != 0)
		mg_state_save(node);
	mg_peers_follow(node, &view, false);
	if (view.joined != 0 && (m = mg_peer_of_member(node, view.joined)) >= 0 && view.members_id == view.id)
		node->peers[m].joined_at = e->seqno;
}

/* Entries that are complete go to the log, in order. */
void
mg_append_ready(mg_node *node)
{
	while (node->appended < node->ordered)
	{
		mg_entry   *e = mg_entry_at(node, node->appended + 1);
		mg_effect  *fx;
		size_t		at;

		if (!e->have)
			return;
		if (e->seqno <= node->position && e->seqno > node->recovered && e->h.epoch > node->life_promised)
		{
			/*
			 * The data holds this seqno from a time before that epoch: another
			 * entry, whose log record was lost with the power.
			 */
			mg_inconsistent(node, "its data holds transactions that the cluster has lost");
			return;
		}
		if (e->h.type == MG_ENTRY_VIEW)
			take_view(node, e);
		if (node->state != MG_STATE_OPEN)	/* else it comes from the log */
		{
			at = node->fx->bytes.len;
			mg_entry_encode(&node->fx->bytes, &e->h);
			mg_buf_put(&node->fx->bytes, e->payload, e->len);
			fx = mg_fx_add(node, MG_FX_APPEND);
			fx->seqno = e->seqno;
			fx->at = at;
			fx->len = node->fx->bytes.len - at;
		}
		node->appended++;
		epoch_note(node, e->h.epoch, e->seqno);
		if (node->doubt != 0 && node->appended >= node->position && node->state != MG_STATE_OPEN)
		{
			node->doubt = 0;
			mg_state_save(node);
		}
		mg_look_ahead(node, &e->h, e->seqno);

		if ((e->h.flags & MG_ENTRY_MEMORY) != 0)
			mg_ack_wanted(node, e->seqno);
		if (node->appended == node->lead_start && !node->leading)
		{
			/* In step with the new leader: it goes on from here with this node's messages. */
			mg_put_ack(node);
			mg_resend_own(node, true);
		}
	}
}

/*
 * Puts the next entry into the queue.  Takes over `payload` (may be NULL: it is
 * looked for among the waiting messages, or comes later).
 */
void
mg_entry_add(mg_node *node, const mg_entry_header *h, uint8_t *payload, uint32_t len)
{
	mg_seqno	seqno = node->ordered + 1;
	mg_entry   *e = mg_entry_at(node, seqno);

	MG_ASSERT(e->seqno == 0);
	e->seqno = seqno;
	e->h = *h;
	e->payload = payload;
	e->len = len;
	e->have = payload != NULL;
	e->slot = -1;
	e->since_us = node->now_us;
	node->ordered = seqno;
	node->tail_cert_upto = h->cert_upto;
	node->tail_floor = h->floor;

	if (h->type == MG_ENTRY_WRITESET)
	{
		mg_origin  *o = mg_origin_get(node, h->origin);

		if (o != NULL)
		{
			mg_pending *p = &o->ring[h->msgno & MG_PENDING_MASK];

			if (p->msgno == h->msgno)
			{
				if (h->origin == node->self)
					e->slot = p->slot;
				if (!e->have)
				{
					e->payload = p->bytes;
					e->len = p->len;
					e->have = true;
					p->bytes = NULL;
					p->len = 0;
				}
			}
			if (h->origin != node->self || h->msgno >> MG_LIFE_SHIFT == node->life)
				origin_advance(node, o, h->msgno);
			if (!e->have)
				p->missed_at = seqno;
		}
	}
}

void
mg_entry_drop(mg_node *node, mg_seqno seqno)
{
	mg_entry   *e = mg_entry_at(node, seqno);

	MG_ASSERT(e->seqno == seqno);
	mg_payload_free(node, e->payload, e->len);
	memset(e, 0, sizeof(*e));
	e->slot = -1;
}

/* Takes the orders above `to` back; this node's own messages wait again. */
void
mg_unorder(mg_node *node, mg_seqno to)
{
	mg_origin  *own = node->self != 0 ? mg_origin_find(node, node->self) : NULL;

	while (node->ordered > to)
	{
		mg_entry   *e = mg_entry_at(node, node->ordered);

		if (own != NULL && e->have && e->h.type == MG_ENTRY_WRITESET && e->h.origin == node->self &&
			e->h.msgno >> MG_LIFE_SHIFT == node->life && e->h.msgno >= node->own_undelivered)
		{
			mg_pending *p = &own->ring[e->h.msgno & MG_PENDING_MASK];

			pending_free(node, p);
			p->msgno = e->h.msgno;
			p->bytes = e->payload;
			p->len = e->len;
			p->flags = e->h.flags;
			p->slot = e->slot;
			e->payload = NULL;
			e->len = 0;
			if (own->next_msgno > p->msgno)
				own->next_msgno = p->msgno;
		}
		mg_entry_drop(node, node->ordered);
		node->ordered--;
	}
	if (node->ordered > node->delivered)
	{
		node->tail_cert_upto = mg_entry_at(node, node->ordered)->h.cert_upto;
		node->tail_floor = mg_entry_at(node, node->ordered)->h.floor;
	}
	else
	{
		node->tail_cert_upto = node->delivered_cert_upto;
		node->tail_floor = node->delivered_floor;
	}
}

/*
 * With entries that are cut off goes what they have said of verdicts: it was of
 * such as are cut off too, or that were delivered from memory alone and may be
 * others now.  The leader names them anew.  From the first that nobody has named
 * this node reaches the verdicts itself, if its index goes back to the floor of
 * that one; floors only rise.
 */
static void
forget_stamps(mg_node *node)
{
	mg_seqno	first;
	mg_seqno	floor;

	if (node->stamped_upto > node->tail_cert_upto)
		node->stamped_upto = node->tail_cert_upto;
	while (!mg_queue_empty(&node->stamped_failed) && queue_back(&node->stamped_failed) > node->stamped_upto)
		node->stamped_failed.tail--;
	first = (node->stamped_upto > node->delivered ? node->stamped_upto : node->delivered) + 1;
	floor = first <= node->ordered ? mg_entry_at(node, first)->h.floor : node->tail_floor;
	if (node->known_upto >= first && floor >= node->base)
		node->known_upto = first - 1;
}

/* Cuts the log behind `to`: the leader has something else there, or nothing. */
void
mg_truncate(mg_node *node, mg_seqno to)
{
	MG_ASSERT(to >= node->delivered);
	mg_unorder(node, to < node->appended ? to : node->appended);
	if (to >= node->appended)
		return;
	mg_fx_log(node, "gcache: entries %llu to %llu were never agreed, the leader has others: cut off",
			  (unsigned long long) to + 1, (unsigned long long) node->appended);
	node->appended = to;
	forget_stamps(node);
	if (node->heard_delivered > to)
		node->heard_delivered = to;	/* of durability memory: what comes in its place is agreed anew */
	if (node->flushed > to)
		node->flushed = to;
	if (node->mark_by > to)
		node->mark_by = 0;
	while (node->n_epochs > 0 && node->epochs[node->n_epochs - 1].first > to)
		node->n_epochs--;
	if (node->latest.members_id > to)
	{
		node->latest = node->old;
		mg_state_save(node);
	}
	if (node->latest.id > to)
		node->latest.id = node->latest.members_id;	/* the same members; which of their views is last, the leader tells */
	mg_effect  *fx = mg_fx_add(node, MG_FX_TRUNCATE);

	fx->seqno = to;
	fx->generation = ++node->generation;
}

/* Forgets everything that is queued and starts again above `base`. */
void
mg_rebase(mg_node *node, mg_seqno base)
{
	for (mg_seqno s = node->delivered + 1; s <= node->ordered; s++)
		mg_entry_drop(node, s);
	for (int i = 0; i <= MG_MEMBERS_MAX; i++)
		mg_origin_clear(node, &node->origins[i]);
	mg_cert_free(node->cert);
	node->cert = mg_cert_new(base);
	node->delivered = node->appended = node->ordered = node->flushed = base;
	node->n_epochs = 0;
	node->stamped_upto = 0;
	node->known_upto = 0;
	node->heard_delivered = 0;
	node->log_first = base + 1;
	node->base = base;
	node->last_floor = 0;
	node->safe_floor = base;
	node->mark_at = node->mark_by = 0;
	node->tail_cert_upto = node->delivered_cert_upto = 0;
	node->tail_floor = node->delivered_floor = base;
	node->stamped_failed.head = node->stamped_failed.tail = 0;
	node->own_failed.head = node->own_failed.tail = 0;
	node->n_reservations = 0;
}
