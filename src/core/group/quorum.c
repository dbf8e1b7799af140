/*
 * core/group/quorum.c - who has agreed to what.
 *
 * Rules, for a view with total weight W of which the data members have D:
 *
 *	 heard, votes:	more than W/2.
 *	 data:			the acknowledging data members have more than D/2, and the
 *					voters left over cannot elect a leader without them (they
 *					have at most W/2, or no data member is among them).
 *	 a change:		of the members: data, or acknowledging voters of more than
 *					W/2 with a data member among them: an arbitrator that has
 *					acknowledged it votes for no leader without it.
 *
 * Other views (an epoch begins, a member in a new life) are agreed as data is.
 *
 * A view that changes who counts needs both the members before and the members
 * after, until it is delivered (joint consensus, Ongaro 2014, section 4.3); so
 * does an election by one whose log holds such a view and who does not know it
 * as delivered.  One whom it takes out needs votes of half of its data as well.
 *
 * A member whose node has lost its identity and asks to join anew will never
 * speak as that member again.  While it is silent, half of W is enough for
 * votes and views, if half of D is among it: whatever quorum there was or will
 * be has another member in common with such a half (docs/invariants.md, I4).
 *
 * An acknowledgement proves something only from the epoch's first entry on
 * (Raft's rule on entries of earlier terms): quorum_has asks for that one at least.
 */
#include "core/group/group.h"

typedef struct weights
{
	uint64_t	all;
	uint64_t	data;			/* data members */
	uint64_t	yes;			/* those that agree */
	uint64_t	yes_data;
	bool		half;			/* half of all is enough, if half of the data is in it ... */
	uint64_t	gone;			/* ... and it is of others than these */
	uint64_t	gone_data;
} weights;

static bool
is_majority(const weights *w)
{
	return w->yes * 2 > w->all || (MG_CANARY == 11 && w->yes * 2 == w->all) ||
		(w->half && (w->yes - w->gone) * 2 >= w->all && (w->yes_data - w->gone_data) * 2 >= w->data);
}

static bool
is_data_majority(const weights *w)
{
	return w->yes_data * 2 > w->data &&
		(w->yes_data == w->data || (w->all - w->yes_data) * 2 <= w->all);
}

/* A change of members: arbitrators count, but one data member at least has it on disk. */
static bool
is_change_majority(const weights *w)
{
	return is_data_majority(w) || (is_majority(w) && w->yes_data > 0);
}

/* Has this member lost its identity?  `next` is the view that is to take it out, if there is one. */
static bool
is_gone(const mg_node *node, const mg_view *next, mg_member_id id)
{
	int			i;

	if (next != NULL && next->left_how == MG_LEFT_RESTARTED && next->left == id)
		return true;
	i = id != node->self ? mg_peer_of_member(node, id) : -1;
	return i >= 0 && node->peers[i].replaced && !mg_member_is_heard(node, id);
}

static void
weigh(const mg_node *node, weights *w, const mg_member *m, const mg_view *next, bool yes)
{
	bool		gone = is_gone(node, next, m->id);
	bool		data = m->role == MG_ROLE_DATA;

#if MG_CANARY == 2
	if (!data && (yes || mg_member_is_heard(node, m->id)))
		w->yes_data += m->weight;	/* an arbitrator stands for data */
#endif

	w->all += m->weight;
	if (data)
		w->data += m->weight;
	if (gone && m->weight > 0)
		w->half = true;
	if (!yes)
		return;
	w->yes += m->weight;
	if (data)
		w->yes_data += m->weight;
	if (gone)
		w->gone += m->weight;
	if (gone && data)
		w->gone_data += m->weight;
}

/* ------------------------------------------------------------- heard, votes */

/* It acknowledges in this epoch: more than a sign of life. */
static bool
is_working(const mg_node *node, mg_member_id id)
{
	int			i = id != node->self ? mg_peer_of_member(node, id) : -1;

	return id == node->self || (i >= 0 && node->peers[i].acked);
}

static bool
view_heard(const mg_node *node, const mg_view *view, const mg_view *next, bool working)
{
	weights		w = {0};

	for (uint32_t m = 0; m < view->n; m++)
	{
		mg_member_id id = view->members[m].id;
		bool		taken_out = next != NULL && next->left == id && next->left_how == MG_LEFT_SUSPECTED;

		/* Whom one takes out for being silent is not asked for its consent. */
		weigh(node, &w, &view->members[m], next,
			  mg_member_is_heard(node, id) && !taken_out && (!working || is_working(node, id)));
	}
	return is_majority(&w);
}

/* Is the newest change of members not known as agreed? */
bool
mg_is_joint(const mg_node *node)
{
	return node->latest.members_id > node->delivered && node->latest.members_id > node->heard_delivered;
}

/*
 * Are those that this node hears a quorum?  With `next`: are those that work
 * with this leader one for going over to that view?
 */
bool
mg_quorum_heard(const mg_node *node, const mg_view *next)
{
	if (next != NULL)
		return MG_CANARY == 7 || (view_heard(node, &node->latest, next, true) && view_heard(node, next, NULL, true));
	return view_heard(node, &node->latest, NULL, false) &&
		(!mg_is_joint(node) || view_heard(node, &node->old, &node->latest, false));
}

static bool
view_votes(const mg_node *node, const mg_view *view, const mg_view *next)
{
	weights		w = {0};

	for (uint32_t m = 0; m < view->n; m++)
	{
		mg_member_id id = view->members[m].id;
		bool		yes = id == node->self;

		if (!yes)
		{
			int			i = mg_peer_of_member(node, id);

			yes = i >= 0 && node->peers[i].vote_epoch == node->elect_epoch &&
				node->peers[i].vote_kind == (uint8_t) (node->electing == MG_VOTE_ASKING ? MG_VOTE_ASKING : MG_VOTE_REAL);
		}
		weigh(node, &w, &view->members[m], next, yes);
	}

	/*
	 * Where all data members of a view have an entry, arbitrators are left, who
	 * lead nobody.  But one whom that view takes out may stand with their votes:
	 * only with half of the data, which any data majority has a member in.
	 */
	if (view == &node->latest && mg_view_find(view, node->self) < 0 && w.yes_data * 2 < w.data)
		return false;
	return is_majority(&w);
}

/* Has the election that is under way been won? */
bool
mg_quorum_votes(const mg_node *node)
{
	return view_votes(node, &node->latest, NULL) &&
		(!mg_is_joint(node) || view_votes(node, &node->old, &node->latest));
}

/* ---------------------------------------------------------- acknowledgements */

static mg_seqno
acknowledged(const mg_node *node, const mg_member *m, bool memory)
{
	int			i;

	if (m->id == node->self)
		return memory ? node->appended : node->flushed;
	i = mg_peer_of_member(node, m->id);
#if MG_CANARY != 8
	if (i < 0 || !node->peers[i].acked)
		return 0;
#else
	if (i < 0)
		return 0;
#endif
	return memory ? node->peers[i].held : node->peers[i].flushed;
}

static void
weigh_acks(const mg_node *node, const mg_view *view, const mg_view *next, mg_seqno seqno, bool memory, weights *w)
{
	memset(w, 0, sizeof(*w));
	for (uint32_t m = 0; m < view->n; m++)
		weigh(node, w, &view->members[m], next, acknowledged(node, &view->members[m], memory) >= seqno);
#if MG_CANARY == 14
	for (int i = 0; i < MG_PEERS_MAX; i++)
		if (node->peers[i].kind == MG_PEER_LEARNER && node->peers[i].role == MG_ROLE_DATA && node->peers[i].held >= seqno)
		{
			w->yes += node->peers[i].weight;
			w->yes_data += node->peers[i].weight;
		}
#endif
}

/*
 * Is the view at `seqno` agreed, and with it all before it?  `view` is in force
 * below it, `next` from it on.  A view of an epoch that begins on top of a change
 * that was not agreed yet stands for that change.
 */
static bool
view_is_agreed(const mg_node *node, const mg_view *view, const mg_view *next, mg_seqno seqno)
{
	weights		w;

	weigh_acks(node, view, next, seqno, false, &w);
	if (next->members_id <= node->delivered || next->members_id <= node->heard_delivered)
		return is_data_majority(&w) || (MG_CANARY == 15 && is_change_majority(&w));
	if (!is_change_majority(&w) && MG_CANARY != 7)
		return false;
	weigh_acks(node, next, NULL, seqno, false, &w);
	return is_change_majority(&w);
}

/* May the entry behind the last delivered one be delivered? */
bool
mg_quorum_has(const mg_node *node, const mg_entry *e)
{
	mg_seqno	seqno = e->seqno;
	bool		memory = (e->h.flags & MG_ENTRY_MEMORY) != 0;
	weights		w;

	if (seqno <= node->position)
		return true;			/* it has been already */
	if (!mg_active(node))
		return false;
	if (seqno <= node->heard_delivered)
		return true;
	if (node->self == 0)
		return false;			/* a learner is told */
	if (seqno == node->latest.members_id && mg_view_find(&node->latest, node->self) < 0)
		return false;			/* takes this node out: the others may need its word until they have delivered it */

	/* A view further on that is agreed takes everything before it along. */
	if (node->latest.id >= seqno && node->latest.id >= node->lead_start && node->latest.id <= node->appended &&
		node->latest.id > node->delivered &&
		view_is_agreed(node, &node->view, &node->latest, node->latest.id))
		return true;
	if (e->h.type == MG_ENTRY_VIEW && seqno == node->latest.id)
		return false;			/* just asked */
	if (seqno < node->lead_start)
	{
		if (node->lead_start > node->appended)
			return false;
		seqno = node->lead_start;	/* a view: flushed is what counts */
		memory = false;
	}
	if (e->h.type == MG_ENTRY_VIEW && seqno == e->seqno)
	{
		/* Not the newest: a change of members is delivered before the next is ordered. */
		mg_view		view;
		mg_reader	r;

		mg_reader_init(&r, e->payload, e->len);
		if (mg_view_decode(&r, &view) == MG_OK)
		{
			view.id = seqno;
			return view_is_agreed(node, &node->view, &view, seqno);
		}
	}
	weigh_acks(node, &node->view, NULL, seqno, memory, &w);
	return is_data_majority(&w);
}
