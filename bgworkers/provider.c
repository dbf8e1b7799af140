/*
 * bgworkers/provider.c - the provider: one process, one event loop, the one
 * place where core, host and PostgreSQL meet.
 *
 * How: a round takes in what has come (frames, submissions, flushes, commands,
 * the time), feeds it to the node's state machine, carries out the effects, and
 * sleeps.  Everything that came together leaves together: one frame per peer,
 * one write of the log, one flush, one pass over the order ring.  The loop never
 * blocks on disk or network: the log is flushed by a thread of the host's.
 *
 * Bounded: submissions by the number of backends; deliveries that the ring has
 * no room for wait here (`pending`), at most as many as the core may have
 * undelivered plus a round, and ordering stops when members lag.
 *
 * The process may end and start again while the server runs: what was delivered
 * stays in the ring and is committed; the core starts anew behind it.
 *
 * A life of the node (mg_node) begins with what it must not forget: the state
 * that it had saved (node.state beside the log) and its own log.  With them it
 * is the member that it was, and comes back by itself.  A node that is none, or
 * no longer, joins as a new one: at the addresses of the setting and of the
 * members that it last knew (the file "seeds").  Each attempt to join is a new
 * mg_node: nothing of an earlier membership can get into it.
 */
#include "postgres.h"

#include <dirent.h>
#include <sched.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "bgworkers/joiner.h"
#include "bgworkers/notifier.h"
#include "bgworkers/resolver.h"
#include "bgworkers/worker.h"
#include "bgworkers/workers.h"
#include "core/node.h"
#include "host/clock.h"
#include "host/home.h"
#include "host/log.h"
#include "host/statefile.h"
#include "host/transport.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/counters.h"
#include "pg/donor.h"
#include "pg/guc.h"
#include "pg/position.h"
#include "pg/shmem.h"
#include "pg/sst.h"
#include "pg/swap.h"

#define FRAMES_PER_ROUND	512
#define SUBMITS_PER_ROUND	256
#define TICK_US				1000
#define IDLE_WAIT_MS		20
#define BUSY_WAIT_MS		1
#define STATUS_US			100000
#define STUCK_US			5000000
#define JOIN_TIMEOUT_US		10000000
#define REJOIN_US			1000000
#define RESEND_US			300000
#define FETCH_US			10000
#define FLUSH_PACE_US		250
#define NAP_FROM			2
#define NAP_US_EACH			50
#define NAP_US_MAX			800
#define SNAPSHOT_PAUSE_US		5000000		/* after a failed transfer that nobody waits for; doubled each time */
#define SNAPSHOT_PAUSE_MAX_US	300000000
#define JOINER_START_US		30000000
#define SEGMENT_BYTES		(16 * 1024 * 1024)
#define DROPPED_TELL_US		10000000
#define LOG_ROOM_BYTES		(INT64CONST(4) * SEGMENT_BYTES)	/* that others' needs leave on the log's disk */
#define FOREIGN_LOG_HINT	"Set mgrepl.gcache_dir to a directory of this node alone. If nobody needs the files that are there, remove them: the node then gets from the members what it lacks."
#define LEAVE_PATIENCE_US	2000000
#define LEAVE_LINGER_US		300000

typedef struct Provider
{
	mg_node    *node;
	mg_log	   *log;
	mg_transport *transport;
	mg_effects	fx;
	mg_gtid		position;
	uint64_t	data_epoch;		/* no transaction of the data is of a higher one, 0: not known */
	uint64_t	incarnation;
	WaitEventSet *waits;
	int64		now;
	int64		last_tick;
	int64		last_status;
	uint64		stuck_at;		/* committed so far, and nothing more ... */
	int64		stuck_since;	/* ... since then ... */
	bool		stuck_told;		/* ... which the log says */
	int64		rejoin_at;		/* 0: no */
	int64		linger_until;	/* has left: others may still need its last words, 0: not yet */
	int64		leave_until;	/* shutting down: wait for the leave until then, 0: no */
	int64		join_until;		/* told to join, but it is a member and in search of the others: waits so long, 0: no */
	int64		snapshot_pause;	/* before the next transfer, if this one fails */
	int64		ordered_at;		/* the transfer that is under way; 0: none is */
	int64		clean_at;		/* when to look after that next */
	bool		by_force;		/* told to take a snapshot whatever its data is */
	bool		clean_due;		/* a transfer has left something; removed by a joiner worker */
	bool		old_there;		/* replaced data, removed when the node is SYNCED */
	uint32		generation;		/* of the log: that of the last cut that the node asked for */
	mg_seqno	flushed;		/* what the node was told of the log ... */
	mg_seqno	log_first;
	bool		log_told;		/* ... if anything since the last cut */
	bool		status_due;
	bool		again;			/* effects gave new inputs: another round at once */
	bool		appended;
	bool		evicted;
	bool		asked;			/* a command from SQL is being carried out */
	bool		seeds_due;		/* to be written */
	mg_seqno	frozen_at;		/* nothing from there on leaves the log, 0: not frozen */
	mg_seqno	dropped_told;
	int64		dropped_at;		/* when that was told */
	uint32		donor_change;	/* what the node was told of pg/donor.h ... */
	bool		donor_told;		/* ... if anything */
	mg_seqno	pinned;			/* what the others keep in their logs for joiners of this node, 0: nothing */
	uint64		view_told;		/* to the notifier */
	char		seeds[2048];	/* where to ask for admission again */

	/* deliveries that wait for the log's write, or for room in the ring */
	MgOrderEntry *pending;
	uint32		n_pending;
	uint32		first_pending;
	uint32		cap_pending;

	uint64	   *releases;		/* reservations that nobody holds any longer */
	uint32		n_releases;
	uint32		cap_releases;

	char	   *spool;			/* a large writeset read from its file */
	size_t		spool_cap;
} Provider;

static Provider me;
static volatile sig_atomic_t shutdown_asked = false;

static void carry_out_rest(void);
static void snapshot_begins(void);
static void order_snapshot(bool nothing_lost, const char *why, const char *hint);

/* --------------------------------------------------------------- small parts */

static void
shutdown_handler(SIGNAL_ARGS)
{
	int			save_errno = errno;

	shutdown_asked = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

static void
step(const mg_input *in)
{
	mg_node_step(me.node, in, &me.fx);
}

static mg_input
input(mg_input_type type)
{
	mg_input	in;

	memset(&in, 0, sizeof(in));
	in.type = type;
	in.now_us = me.now;
	in.peer = -1;
	in.slot = -1;
	return in;
}

/* "gcomm://a:1,b:2?option=value" -> "a:1,b:2" */
static void
addresses_of(const char *url, char *to, size_t cap)
{
	size_t		len;

	if (strncmp(url, "gcomm://", 8) == 0)
		url += 8;
	len = strcspn(url, "?");
	if (len >= cap)
		len = cap - 1;
	memcpy(to, url, len);
	to[len] = '\0';
}

static const char *
own_address(void)
{
	return mgrepl_node_address != NULL && mgrepl_node_address[0] != '\0' ?
		mgrepl_node_address : mgrepl_listen_address;
}

/* Where clients, and joiners that want a copy, reach this server. */
static void
own_sql_address(char *to, size_t cap)
{
	if (mgrepl_sql_address[0] != '\0')
		strlcpy(to, mgrepl_sql_address, cap);
	else
		snprintf(to, cap, "%.*s:%d", (int) (strrchr(own_address(), ':') - own_address()), own_address(), PostPortNumber);
}

static void
disk_is_broken(const char *what)
{
	ereport(FATAL,
			(errcode_for_file_access(),
			 errmsg("mgrepl: %s in \"%s\" failed: %m", what, mgrepl_gcache_dir),
			 errhint("This node takes no writes until the disk is mended; the provider tries again every second.")));
}

/* ---------------------------------------------------------------- slots, SQL */

/* A reservation that nobody holds any longer is given back as soon as that is possible. */
static void
release_later(uint64 trx_id)
{
	if (me.n_releases == me.cap_releases)
	{
		me.cap_releases = me.cap_releases ? me.cap_releases * 2 : 64;
		me.releases = me.releases ? repalloc(me.releases, me.cap_releases * sizeof(uint64)) :
			MemoryContextAlloc(TopMemoryContext, me.cap_releases * sizeof(uint64));
	}
	me.releases[me.n_releases++] = trx_id;
}

static void
slot_finish(uint32 slot_no, MgSlotState state)
{
	MgSlot	   *slot = mgrepl_slot(slot_no);
	uint32		expected = MG_SLOT_SENT;

	pg_write_barrier();
	if (pg_atomic_compare_exchange_u32(&slot->state, &expected, state))
	{
		/* One with a turn to wait for is woken by whoever passes the turn. */
		if (state != MG_SLOT_PASSED || (slot->ws_flags & MG_WS_RESERVE) != 0)
			mgrepl_wake(slot_no);
		return;
	}
	Assert(expected == MG_SLOT_ABANDONED);
	if (((slot->ws_flags & MG_WS_RESERVE) != 0 && state == MG_SLOT_PASSED) ||
		((slot->ws_flags & MG_WS_RELEASE) != 0 && state == MG_SLOT_REFUSED))
		release_later(slot->trx_id);
	pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
}

static void
answer(bool ok, const char *message, const char *hint)
{
	MgCommand  *c = &mgrepl_shared->command;
	uint32		asked = 1;

	if (!me.asked)
		return;					/* this process's own doing */
	me.asked = false;
	c->ok = ok;
	strlcpy(c->message, message, sizeof(c->message));
	strlcpy(c->hint, hint, sizeof(c->hint));
	pg_write_barrier();
	if (pg_atomic_compare_exchange_u32(&c->stage, &asked, 2))
		mgrepl_wake(c->asker);
	else if (asked == 4)
		pg_atomic_write_u32(&c->stage, 0);	/* the asker is gone, nobody reads it */
}

static char *
spool_read(uint32 slot_no, uint32 len)
{
	char		path[MAXPGPATH];
	int			fd;
	int			save_errno;
	size_t		got = 0;

	if (me.spool_cap < len)
	{
		me.spool = me.spool ? repalloc_huge(me.spool, len) : MemoryContextAllocHuge(TopMemoryContext, len);
		me.spool_cap = len;
	}
	mgrepl_spool_path(path, sizeof(path), slot_no);
	fd = open(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return NULL;
	errno = 0;
	while (got < len)
	{
		ssize_t		n = read(fd, me.spool + got, len - got);

		if (n <= 0)
			break;
		got += n;
	}
	save_errno = got < len && errno == 0 ? EIO : errno;
	close(fd);
	unlink(path);
	errno = save_errno;
	return got == len ? me.spool : NULL;
}

/* A writeset of nothing that ends a reservation nobody holds any longer. */
static void
send_releases(void)
{
	while (me.n_releases > 0 && mg_state_is_synced(mg_node_get_state(me.node)))
	{
		mg_writeset_header h;
		uint8		bytes[MG_WRITESET_HEADER_BYTES];
		mg_input	in = input(MG_IN_SUBMIT);

		memset(&h, 0, sizeof(h));
		h.flags = MG_WS_RELEASE;
		h.trx_id = me.releases[--me.n_releases];
		h.last_seen = mgrepl_order_committed();
		h.total_len = MG_WRITESET_HEADER_BYTES;
		mg_writeset_header_encode(&h, mg_writeset_crc_begin(&h), bytes);
		in.bytes = bytes;
		in.len = sizeof(bytes);
		in.last_seen = h.last_seen;
		step(&in);
	}
}

static int
take_submissions(void)
{
	uint32		slots[SUBMITS_PER_ROUND];
	int			n = mgrepl_submit_pop(slots, SUBMITS_PER_ROUND);

	for (int i = 0; i < n; i++)
	{
		MgSlot	   *slot = mgrepl_slot(slots[i]);
		uint32		expected = MG_SLOT_SUBMITTED;
		mg_input	in = input(MG_IN_SUBMIT);
		const char *bytes = slot->bytes;

		slot->picked_us = me.now;
		slot->picked = true;
		if (!pg_atomic_compare_exchange_u32(&slot->state, &expected, MG_SLOT_SENT))
		{
			if (expected != MG_SLOT_ABANDONED)
				continue;

			/* Given up before it left: nothing happened, unless it ends a reservation. */
			if ((slot->ws_flags & MG_WS_RELEASE) != 0)
				release_later(slot->trx_id);
			if (slot->in_file)
			{
				char		path[MAXPGPATH];

				mgrepl_spool_path(path, sizeof(path), slots[i]);
				unlink(path);
			}
			pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
			continue;
		}
		if (slot->in_file && (bytes = spool_read(slots[i], slot->len)) == NULL)
		{
			snprintf(slot->reason, sizeof(slot->reason), "its temporary file cannot be read: %s", strerror(errno));
			slot_finish(slots[i], MG_SLOT_REFUSED);
			continue;
		}
		mgrepl_count(MG_COUNTER_REPLICATED_BYTES, slot->len);
		in.slot = (int32) slots[i];
		in.flags = slot->durability;
		in.last_seen = slot->last_seen;
		in.bytes = bytes;
		in.len = slot->len;
		step(&in);
	}
	return n;
}

/* --------------------------------------------------------------------- node */

/* What everybody sees; who has asked for it is told. */
static void
show_state(MgNodeState state, const char *reason)
{
	MgNodeState before = (MgNodeState) pg_atomic_exchange_u32(&mgrepl_shared->node_state, state);

	if (before != state)
		mgrepl_notifier_state(before, state, reason);
}

/*
 * How much the log may keep for others.  Not the last room on the disk: one slow
 * joiner makes all members keep what it will ask for, and would stop them all.
 */
static uint64_t
kept_for_others(uint64_t size)
{
	struct statvfs fs;
	uint64_t	keep = (uint64_t) mgrepl_gcache_keep_pages_size_mb * 1024 * 1024;
	int64		room;

	if (statvfs(mgrepl_gcache_dir, &fs) != 0)
		return keep;
	room = (int64) mg_log_bytes(me.log) + (int64) fs.f_bavail * (int64) fs.f_frsize - LOG_ROOM_BYTES - (int64) size;
	return Min(keep, (uint64_t) Max(room, 0));
}

/*
 * Tells the log what may go.  This node needs what its appliers and its
 * certification may still read; others what they lag or will ask for when they
 * have copied the data, and a freeze keeps what somebody needs who is not there.
 */
static void
release_log(void)
{
	mg_seqno	here = Min(mg_node_log_needed_here(me.node), mgrepl_order_committed());
	mg_seqno	pin = mgrepl_donor_pin();
	mg_seqno	all = Min(Min(mg_node_log_needed(me.node), here), pin);
	uint64_t	size = (uint64_t) mgrepl_gcache_size_mb * 1024 * 1024;
	mg_seqno	dropped;

	/* The others are told: the joiner will ask whoever leads then. */
	pin = pin == MG_SEQNO_NONE_PINNED ? 0 : pin;
	if (me.pinned != pin)
		me.donor_told = false;
	me.pinned = pin;
	if (me.frozen_at != 0)
		all = Min(all, me.frozen_at - 1);
	mg_log_set_limits(me.log, size, kept_for_others(size));
	mg_log_release(me.log, here, all);

	dropped = mg_log_dropped(me.log);
	if (dropped > me.dropped_told && me.now - me.dropped_at >= DROPPED_TELL_US)
	{
		me.dropped_told = dropped;
		me.dropped_at = me.now;
		ereport(LOG,
				(errmsg("mgrepl: the writeset log is at its hard limit: everything up to seqno %llu is dropped, though a member, a joining node, a donor's copy or a freeze may need it",
						(unsigned long long) dropped),
				 errhint("Whoever lacks it takes a snapshot of a member's data. mgrepl.gcache_keep_pages_size sets the limit, or the room on its disk.")));
	}
	else if (dropped < me.dropped_told)
		me.dropped_told = dropped;	/* the log was cut */
}

static void
publish_status(void)
{
	MgShared   *s = mgrepl_shared;
	const mg_view *view = mg_node_view(me.node);
	mg_node_state state = mg_node_get_state(me.node);
	MgNodeState shown = MG_NODE_OPEN;
	mg_transport_stats stats;
	uint64		next;
	char		who[MG_REASON_BYTES_MAX / 2];

	switch (state)
	{
		case MG_STATE_OPEN:
			shown = me.rejoin_at != 0 ? MG_NODE_NON_PRIMARY : MG_NODE_OPEN;
			break;
		case MG_STATE_PRIMARY:
			shown = MG_NODE_PRIMARY;
			break;
		case MG_STATE_JOINER:
			shown = MG_NODE_JOINER;
			break;
		case MG_STATE_JOINED:
			shown = MG_NODE_JOINED;
			break;
		case MG_STATE_SYNCED:
			shown = MG_NODE_SYNCED;
			break;
		case MG_STATE_DONOR:
			shown = MG_NODE_DONOR;
			break;
		case MG_STATE_COUNT:
			break;
		case MG_STATE_NON_PRIMARY:
			shown = MG_NODE_NON_PRIMARY;
			break;
		case MG_STATE_INCONSISTENT:
			shown = MG_NODE_INCONSISTENT;
			break;
	}
	if (pg_atomic_read_u64(&s->apply_failed) != 0)
		shown = MG_NODE_INCONSISTENT;

	LWLockAcquire(s->status_lock, LW_EXCLUSIVE);
	s->uuid = me.position.uuid;
	s->view_id = view->id;
	s->epoch = mg_node_epoch(me.node);
	s->log_last = Max(mg_log_last(me.log), mgrepl_order_committed());
	s->self_id = mg_node_self(me.node);
	s->leader_id = mg_node_leader(me.node);
	s->n_members = mg_node_self(me.node) != 0 ? view->n : 0;
	for (uint32 i = 0; i < s->n_members; i++)
	{
		const mg_member *m = &view->members[i];
		MgMemberInfo *info = &s->members[i];
		mg_peer_info peer;

		memset(info, 0, sizeof(*info));
		info->id = m->id;
		info->weight = m->weight;
		info->life = m->life;
		info->role = m->role;
		info->segment = m->segment;
		info->leader = m->id == s->leader_id;
		info->self = m->id == s->self_id;
		strlcpy(info->name, m->name, sizeof(info->name));
		strlcpy(info->address, m->address, sizeof(info->address));
		strlcpy(info->sql_address, m->sql_address, sizeof(info->sql_address));
		if (mg_node_peer_info(me.node, m->id, &peer))
		{
			info->held = peer.held;
			info->flushed = peer.flushed;
			info->committed = peer.committed;
			info->silent_ms = (me.now - peer.heard_us) / 1000;
			info->desynced = peer.desynced;
			info->synced = info->self ? mg_state_is_synced(state) :
				m->role == MG_ROLE_ARBITRATOR || (peer.committed >= peer.joined_at && peer.committed > 0);
		}
	}
	if (pg_atomic_read_u64(&s->apply_failed) != 0)
		strlcpy(s->state_reason, s->apply_error, sizeof(s->state_reason));
	else if (me.rejoin_at != 0 && (me.evicted || state == MG_STATE_OPEN) &&
			 mgrepl_order_next(&next, who, sizeof(who)))
		snprintf(s->state_reason, sizeof(s->state_reason), "joins again when seqno %llu is committed here: %s",
				 (unsigned long long) next, who);
	else
		strlcpy(s->state_reason, mg_node_reason(me.node), sizeof(s->state_reason));
	LWLockRelease(s->status_lock);
	/* Who listens may not read the table whose row that names. */
	show_state(shown, pg_atomic_read_u64(&s->apply_failed) != 0 ? "what the cluster has committed could not be applied: mgrepl.status says what" :
			   s->state_reason);
	if (shown == MG_NODE_INCONSISTENT)
		mgrepl_donor_end_all();
	if (me.view_told != view->id)
		mgrepl_notifier_wake();
	me.view_told = view->id;
	for (uint32 i = 0; i < s->n_members; i++)
		if (s->members[i].synced && !s->members[i].self)
			mgrepl_donor_joined(s->members[i].id, s->members[i].name);

	if (me.transport != NULL)
	{
		mg_transport_get_stats(me.transport, &stats);
		pg_atomic_write_u64(&s->counters[MG_COUNTER_FRAMES_SENT], stats.frames_sent);
		pg_atomic_write_u64(&s->counters[MG_COUNTER_FRAMES_RECEIVED], stats.frames_received);
		pg_atomic_write_u64(&s->counters[MG_COUNTER_FRAMES_DROPPED], stats.frames_refused);
	}
	pg_atomic_write_u64(&s->counters[MG_COUNTER_FRAMES_DAMAGED], mg_node_damaged(me.node));
	pg_atomic_write_u64(&s->counters[MG_COUNTER_LOG_FLUSHES], mg_log_flush_count(me.log));
	pg_atomic_write_u64(&s->counters[MG_COUNTER_LOG_BYTES], mg_log_bytes(me.log));
	pg_atomic_write_u64(&s->counters[MG_COUNTER_LOG_FIRST], mg_log_first(me.log));
	pg_atomic_write_u64(&s->counters[MG_COUNTER_LOG_DROPPED], mg_log_dropped(me.log));
	pg_atomic_write_u64(&s->counters[MG_COUNTER_GCACHE_FROZEN_AT], me.frozen_at);
	if (mgrepl_recent != NULL)
	{
		uint64_t	hits;
		uint64_t	misses;

		mg_recent_count(mgrepl_recent, &hits, &misses);
		pg_atomic_write_u64(&s->counters[MG_COUNTER_GCACHE_MEM_HITS], hits);
		pg_atomic_write_u64(&s->counters[MG_COUNTER_GCACHE_MEM_MISSES], misses);
	}
	me.status_due = false;
	me.last_status = me.now;
}

/* What was delivered and is not committed holds up reads here, and a node that wants to join again: who is it? */
static void
watch_commits(void)
{
	uint64		committed = mgrepl_order_committed();
	uint64		next;
	char		who[MG_REASON_BYTES_MAX];

	if (committed != me.stuck_at || !mgrepl_order_next(&next, who, sizeof(who)))
	{
		me.stuck_at = committed;
		me.stuck_since = me.now;
		me.stuck_told = false;
		return;
	}
	if (me.stuck_told || me.now - me.stuck_since < STUCK_US)
		return;
	me.stuck_told = true;
	ereport(LOG,
			(errmsg("mgrepl: seqno %llu has not been committed here for %d s: %s",
					(unsigned long long) next, (int) (STUCK_US / 1000000), who),
			 me.evicted ? errdetail("This node joins the cluster again when it is.") : 0,
			 errhint("Look for the process in pg_stat_activity and pg_locks; ending what it waits for lets the node go on.")));
}

static void
node_make(void)
{
	mg_node_config config;

	memset(&config, 0, sizeof(config));
	config.role = MG_ROLE_DATA;
	config.segment = (uint8_t) mgrepl_segment;
	strlcpy(config.name, mgrepl_node_name, sizeof(config.name));
	strlcpy(config.cluster_name, mgrepl_cluster_name, sizeof(config.cluster_name));
	strlcpy(config.address, own_address(), sizeof(config.address));
	own_sql_address(config.sql_address, sizeof(config.sql_address));
	config.incarnation = me.incarnation;
	config.data_epoch = me.data_epoch;
	config.weight = (uint32) mgrepl_weight;
	config.keepalive_us = mgrepl_keepalive_period_ms * INT64CONST(1000);
	config.suspect_us = mgrepl_suspect_timeout_ms * INT64CONST(1000);
	config.inactive_us = mgrepl_inactive_timeout_ms * INT64CONST(1000);
	config.wan_suspect_us = mgrepl_wan_suspect_timeout_ms * INT64CONST(1000);
	config.wan_inactive_us = mgrepl_wan_inactive_timeout_ms * INT64CONST(1000);
	config.resend_us = RESEND_US;
	config.fetch_us = FETCH_US;
	config.join_timeout_us = JOIN_TIMEOUT_US;
	config.fc_limit = mgrepl_fc_limit;
	me.node = mg_node_new(&config, &me.position, me.now);
	me.generation = 0;
	me.log_told = false;
	me.evicted = false;
	me.donor_told = false;
	me.status_due = true;
}

/* Beside the log, not in the data: a base backup has neither identity nor log. */
static void
file_path(char *to, size_t cap, const char *name)
{
	snprintf(to, cap, "%s/%s", mgrepl_gcache_dir, name);
}

static void
save_state(const void *bytes, size_t len)
{
	char		path[MAXPGPATH];

	file_path(path, sizeof(path), "node.state");
	if (mg_statefile_write(path, bytes, len) != MG_OK)
		disk_is_broken("writing the node's state");
}

/*
 * Files that were copied make this the same member as the one they were copied
 * from, which may be running.  The identity is put aside; the members' addresses
 * stay, and so does the log: it is emptied when the cluster lets the node in as a
 * new member, and until then it may be all that is left of the cluster.
 */
static void
drop_copied_identity(void)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];
	mg_home		home;

	if (mg_home_look(mgrepl_gcache_dir, &home) != MG_OK)
		disk_is_broken("reading where the files belong");
	if (home == MG_HOME_OWN)
		return;
	if (home == MG_HOME_COPY)
	{
		file_path(from, sizeof(from), "node.state");
		file_path(to, sizeof(to), "node.state.copied");
		if (rename(from, to) == 0)
			ereport(LOG,
					(errmsg("mgrepl: \"%s\" is a copy of another node's: this node joins as a new member", mgrepl_gcache_dir),
					 errhint("If it was moved here, and all other members as well, call mgrepl.bootstrap(force => true) on the one whose log reaches furthest.")));
		else if (errno != ENOENT)
			disk_is_broken("putting the copied identity aside");
	}
	if (mg_home_settle(mgrepl_gcache_dir) != MG_OK)
		disk_is_broken("writing where the files belong");
}

/*
 * Is what the node saved last of another cluster than these data?  Then the
 * directory is another node's, or the data were put here beside an old log: which
 * of the two may be thrown away only the operator knows.
 */
static bool
state_is_foreign(char *message, size_t cap)
{
	char		path[MAXPGPATH];
	char	   *bytes = palloc(MG_STATEFILE_BYTES_MAX);
	size_t		len;
	mg_uuid		uuid;
	char		theirs[MG_UUID_TEXT_BYTES];
	char		ours[MG_UUID_TEXT_BYTES];
	bool		foreign;

	file_path(path, sizeof(path), "node.state");
	foreign = mg_statefile_read(path, bytes, MG_STATEFILE_BYTES_MAX, &len) == MG_OK &&
		mg_state_cluster(bytes, len, &uuid) && !mg_uuid_is_zero(&uuid) && !mg_uuid_equal(&uuid, &me.position.uuid);
	pfree(bytes);
	if (!foreign)
		return false;
	mg_uuid_format(&uuid, theirs);
	mg_uuid_format(&me.position.uuid, ours);
	snprintf(message, cap, "the writeset log in \"%.80s\" belongs to cluster %s, the data to %s", mgrepl_gcache_dir, theirs,
			 mg_uuid_is_zero(&me.position.uuid) ? "none" : ours);
	return true;
}

static void
refuse_foreign_log(void)
{
	char		foreign[MG_REASON_BYTES_MAX];

	if (!mg_uuid_is_zero(&me.position.uuid) && state_is_foreign(foreign, sizeof(foreign)))
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mgrepl: %s", foreign),
				 errhint(FOREIGN_LOG_HINT)));
}

/* What the node saved last, if it did. */
static void
restore_state(void)
{
	char		path[MAXPGPATH];
	char	   *bytes = palloc(MG_STATEFILE_BYTES_MAX);
	mg_input	in = input(MG_IN_RESTORE);
	mg_status	status;

	file_path(path, sizeof(path), "node.state");
	status = mg_statefile_read(path, bytes, MG_STATEFILE_BYTES_MAX, &in.len);
	if (status == MG_E_IO)
		disk_is_broken("reading the node's state");
	if (status == MG_OK)
	{
		in.bytes = bytes;
		step(&in);
	}
	else if (status != MG_E_NOT_FOUND)
		ereport(LOG,
				(errmsg("mgrepl: \"%s\" cannot be used: %s", path, mg_status_name(status)),
				 errdetail("The node does not know which member it was, and joins as a new one.")));
	pfree(bytes);
}

/* An entry of the own log, if it is there. */
static bool
recover_entry(mg_seqno seqno)
{
	static char *buf = NULL;
	static size_t cap = 0;
	mg_log_place place;
	mg_input	in = input(MG_IN_RECOVER);

	if (seqno == 0 || mg_log_find(me.log, seqno, &place) != MG_OK)
		return false;
	if (cap < place.len)
	{
		cap = Max(place.len, 65536);
		buf = buf ? repalloc_huge(buf, cap) : MemoryContextAllocHuge(TopMemoryContext, cap);
	}
	if (mg_log_read(me.log, seqno, &place, buf) != MG_OK)
		disk_is_broken("reading the writeset log");
	in.seqno = seqno;
	in.bytes = buf;
	in.len = place.len;
	step(&in);
	return true;
}

/* The own log, from far enough below the data for any certification window. */
static void
recover_log(void)
{
	mg_seqno	first = Max(mg_log_first(me.log), 1);

	if (me.position.seqno > first + MG_ENTRIES_MAX / 2)
		first = me.position.seqno - MG_ENTRIES_MAX / 2;
	while (first <= mg_log_last(me.log) && recover_entry(first))
		first++;
}

/* Goes on as the member that it was, if it was one. */
static void
node_resume(void)
{
	mg_input	in = input(MG_IN_START);

	restore_state();
	recover_log();
	in.up = !mg_log_damaged(me.log);
	step(&in);
}

/* The members' addresses, for asking one of them for admission again. */
static void
remember_seeds(void)
{
	const mg_view *view = mg_node_view(me.node);
	char		seeds[sizeof(me.seeds) / 2 - 2] = "";

	if (mg_node_self(me.node) == 0)
		return;
	for (uint32 i = 0; i < view->n; i++)
		if (view->members[i].id != mg_node_self(me.node) &&
			strlen(seeds) + strlen(view->members[i].address) + 2 < sizeof(seeds))
		{
			if (seeds[0] != '\0')
				strlcat(seeds, ",", sizeof(seeds));
			strlcat(seeds, view->members[i].address, sizeof(seeds));
		}
	if (seeds[0] == '\0')
		return;

	/* Also when they are the addresses that it was told to join at: those are in no file yet. */
	strlcpy(me.seeds, seeds, sizeof(me.seeds));
	me.seeds_due = true;
}

/* For a node that is started again when it is no member any more. */
static void
write_seeds(void)
{
	char		path[MAXPGPATH];

	me.seeds_due = false;
	file_path(path, sizeof(path), "seeds");
	if (mg_statefile_write(path, me.seeds, strlen(me.seeds)) != MG_OK)
		ereport(LOG, (errcode_for_file_access(), errmsg("mgrepl: cannot write \"%s\": %m", path)));
}

/* It was told to leave: it does not come back by itself. */
static void
forget_seeds(void)
{
	me.seeds[0] = '\0';
	write_seeds();
}

/*
 * Who was told to join, and needs a snapshot for it, goes on with that after a
 * crash too: this file beside the log says so until it has got one, or has
 * been told to leave.  It holds the addresses, behind a "!" if the snapshot is
 * to be taken whatever the own data is.
 */
#define WISH_FILE "joining"

static void
remember_wish(bool by_force)
{
	char		path[MAXPGPATH];
	char		text[sizeof(me.seeds) + 1];

	snprintf(text, sizeof(text), "%s%s", by_force ? "!" : "", me.seeds);
	file_path(path, sizeof(path), WISH_FILE);
	if (mg_statefile_write(path, text, strlen(text)) != MG_OK)
		ereport(LOG, (errcode_for_file_access(), errmsg("mgrepl: cannot write \"%s\": %m", path)));
}

static bool
has_wish(void)
{
	char		path[MAXPGPATH];
	char		text[sizeof(me.seeds) + 1];
	size_t		len;

	file_path(path, sizeof(path), WISH_FILE);
	if (mg_statefile_read(path, text, sizeof(text) - 1, &len) != MG_OK)
		return false;
	text[len] = '\0';
	me.by_force = text[0] == '!';
	strlcpy(me.seeds, text + (me.by_force ? 1 : 0), sizeof(me.seeds));
	return true;
}

static void
forget_wish(void)
{
	char		path[MAXPGPATH];

	me.by_force = false;
	file_path(path, sizeof(path), WISH_FILE);
	(void) unlink(path);
}

static void
read_seeds(void)
{
	char		path[MAXPGPATH];
	char		setting[sizeof(me.seeds) / 2];
	size_t		len = 0;

	file_path(path, sizeof(path), "seeds");
	if (mg_statefile_read(path, me.seeds, sizeof(me.seeds) / 2 - 2, &len) != MG_OK)
		len = 0;
	me.seeds[len] = '\0';
	addresses_of(mgrepl_cluster_address ? mgrepl_cluster_address : "", setting, sizeof(setting));
	if (len > 0 && setting[0] != '\0')
		strlcat(me.seeds, ",", sizeof(me.seeds));
	strlcat(me.seeds, setting, sizeof(me.seeds));
}

/* What was on its way will get no answer from this process any more. */
static void
settle_sent_slots(void)
{
	for (uint32 i = 0; i < mgrepl_shared->n_slots; i++)
	{
		MgSlot	   *slot = mgrepl_slot(i);
		uint32		state = MG_SLOT_SENT;

		if (pg_atomic_compare_exchange_u32(&slot->state, &state, MG_SLOT_UNKNOWN))
			mgrepl_wake(i);
		else if (state == MG_SLOT_ABANDONED && slot->picked)
			pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
	}
}

/*
 * The core starts anew at what has been delivered here so far.  Everything that
 * is in the ring must be committed before (the caller waits for that), because
 * the log may be emptied next.
 */
static void
node_renew(void)
{
	carry_out_rest();			/* of the node that was */
	settle_sent_slots();
	mg_node_free(me.node);
	me.position.seqno = mgrepl_order_committed();
	if (mg_random_bytes(&me.incarnation, sizeof(me.incarnation)) != MG_OK)
		elog(FATAL, "mgrepl: no random numbers from the system");
	me.incarnation |= 1;
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_transport_disconnect(me.transport, i);
	node_make();
}

static bool
ring_is_drained(void)
{
	return me.n_pending == 0 &&
		mgrepl_order_committed() == *(volatile uint64 *) &mgrepl_shared->monitor.published;
}

/* ------------------------------------------------------------------- effects */

static void
add_pending(const mg_effect *e)
{
	MgOrderEntry *entry;

	/* Once per epoch, and before anybody can commit what is of it. */
	if (e->epoch > me.data_epoch)
	{
		mgrepl_position_note_epoch(&me.position.uuid, e->epoch);
		me.data_epoch = e->epoch;
	}
	if (me.n_pending == me.cap_pending)
	{
		me.cap_pending = me.cap_pending ? me.cap_pending * 2 : 1024;
		me.pending = me.pending ? repalloc_huge(me.pending, me.cap_pending * sizeof(MgOrderEntry)) :
			MemoryContextAllocHuge(TopMemoryContext, me.cap_pending * sizeof(MgOrderEntry));
	}
	entry = &me.pending[me.n_pending++];
	memset(entry, 0, sizeof(*entry));
	entry->seqno = e->seqno;
	entry->depends = e->depends;
	entry->origin = e->member;
	entry->owner = -1;
	entry->kind = e->kind == MG_DELIVER_SKIP ? MG_ORDER_SKIP :
		e->kind == MG_DELIVER_LOCAL ? MG_ORDER_LOCAL : MG_ORDER_REMOTE;
	entry->slot = e->slot >= 0 ? (uint32) e->slot : 0;
	if (e->kind == MG_DELIVER_LOCAL)
	{
		MgSlot	   *slot = mgrepl_slot(entry->slot);

		slot->seqno = e->seqno;
		slot->verdict = e->verdict;
		slot->verdict_us = me.now;
		entry->owner = (int) entry->slot;
	}
}

/* How far things are that committed transactions may wait for. */
static void
publish_reached(void)
{
	mgrepl_order_set_reached(MG_REACHED_FLUSHED_HERE, mg_log_flushed(me.log));
	mgrepl_order_set_reached(MG_REACHED_FLUSHED_EVERYWHERE, mg_node_flushed_everywhere(me.node));
	mgrepl_order_set_reached(MG_REACHED_APPLIED_EVERYWHERE, mg_node_applied(me.node));
}

/* What is in the log by now goes into the ring, as far as there is room. */
static void
publish_pending(void)
{
	bool		any = false;

	while (me.first_pending < me.n_pending)
	{
		MgOrderEntry *entry = &me.pending[me.first_pending];

		if (entry->kind != MG_ORDER_SKIP &&
			mg_log_find(me.log, entry->seqno, &entry->place) != MG_OK)
			elog(PANIC, "mgrepl: delivered seqno %llu is not in the log", (unsigned long long) entry->seqno);
		if (!mgrepl_order_publish(entry))
			break;
		if (entry->kind == MG_ORDER_REMOTE)
			mgrepl_count(MG_COUNTER_RECEIVED_BYTES, entry->place.len);
		if (entry->kind == MG_ORDER_LOCAL)
		{
			/* The place before the verdict: a backend that gives up must find its entry. */
			MgSlot	   *slot = mgrepl_slot(entry->slot);
			uint32		expected = MG_SLOT_SENT;

			if (!pg_atomic_compare_exchange_u32(&slot->state, &expected, MG_SLOT_PASSED))
			{
				/* Nobody is there to commit it: an applier does. */
				pg_atomic_write_u32(&slot->state, MG_SLOT_FREE);
				mgrepl_order_replay(entry->seqno);
			}
		}
		me.first_pending++;
		any = true;
	}
	if (me.first_pending == me.n_pending)
		me.first_pending = me.n_pending = 0;
	if (any)
		mgrepl_order_wake();
}

static void
read_log_for(int peer, mg_seqno from)
{
	static char *buf = NULL;
	static size_t cap = 0;
	size_t		sent = 0;

	for (mg_seqno s = from; s <= mg_log_last(me.log) && sent < MG_FETCH_BYTES; s++)
	{
		mg_log_place place;
		mg_input	in = input(MG_IN_LOG_READ);

		in.generation = me.generation;
		if (mg_log_find(me.log, s, &place) != MG_OK)
			break;
		if (cap < place.len)
		{
			cap = Max(place.len, 65536);
			buf = buf ? repalloc_huge(buf, cap) : MemoryContextAllocHuge(TopMemoryContext, cap);
		}
		if (mg_log_read(me.log, s, &place, buf) != MG_OK)
		{
			ereport(WARNING,
					(errmsg("mgrepl: seqno %llu cannot be read from the writeset log: %m", (unsigned long long) s)));
			break;
		}
		in.peer = peer;
		in.seqno = s;
		in.bytes = buf;
		in.len = place.len;
		step(&in);
		sent += place.len;
	}
	me.again = true;
}

static void
log_was_cut(uint32 generation)
{
	me.generation = generation;
	me.log_told = false;
}

static void
carry_out(mg_effects *fx)
{
	for (size_t i = 0; i < fx->n; i++)
	{
		mg_effect  *e = &fx->list[i];
		const char *at = (const char *) fx->bytes.data + e->at;
		mg_log_place place;

		switch (e->type)
		{
			case MG_FX_NONE:
				break;
			case MG_FX_CONNECT:
				if (mg_transport_connect(me.transport, e->peer, at) != MG_OK)
					ereport(LOG, (errmsg("mgrepl: cannot connect to \"%s\"", at)));
				break;
			case MG_FX_DISCONNECT:
				mg_transport_disconnect(me.transport, e->peer);
				break;
			case MG_FX_SEND:
				(void) mg_transport_send_many(me.transport, e->peers, at, e->len);
				break;
			case MG_FX_APPEND:
				if (mg_log_append(me.log, e->seqno, at, (uint32) e->len, &place) != MG_OK)
					disk_is_broken("appending to the writeset log");
				me.appended = true;
				break;
			case MG_FX_SAVE:
				save_state(at, e->len);
				break;
			case MG_FX_TRUNCATE:
				if (mg_log_truncate(me.log, e->seqno) != MG_OK)
					disk_is_broken("cutting the writeset log");
				log_was_cut(e->generation);
				break;
			case MG_FX_RESET_LOG:
				if (mg_log_reset(me.log) != MG_OK)
					disk_is_broken("emptying the writeset log");
				log_was_cut(e->generation);
				break;
			case MG_FX_READ_LOG:
				read_log_for(e->peer, e->seqno);
				break;
			case MG_FX_DELIVER:
				add_pending(e);
				break;
			case MG_FX_VERDICT:
				{
					MgSlot	   *slot = mgrepl_slot(e->slot);

					slot->verdict = e->verdict;
					slot->seqno = e->seqno;
					slot->against = e->against;
					slot->verdict_us = me.now;
					slot_finish(e->slot, e->verdict == MG_VERDICT_PASS ? MG_SLOT_PASSED : MG_SLOT_FAILED);
				}
				break;
			case MG_FX_UNKNOWN:
				slot_finish(e->slot, MG_SLOT_UNKNOWN);
				break;
			case MG_FX_REFUSED:
				if (e->slot >= 0)
				{
					strlcpy(mgrepl_slot(e->slot)->reason, at, MG_REASON_BYTES_MAX);
					slot_finish(e->slot, MG_SLOT_REFUSED);
				}
				break;
			case MG_FX_STATE:
				me.status_due = true;
				remember_seeds();
				break;
			case MG_FX_EVICTED:
				me.evicted = true;
				me.rejoin_at = me.now;
				break;
			case MG_FX_SNAPSHOT:
				me.evicted = true;
				order_snapshot(e->ok, at, (const char *) fx->bytes.data + e->hint_at);
				break;
			case MG_FX_ANSWER:
				if (e->ok && me.asked && mgrepl_shared->command.kind == MG_COMMAND_LEAVE)
				{
					forget_seeds();
					forget_wish();
				}
				answer(e->ok, at, (const char *) fx->bytes.data + e->hint_at);
				if (e->ok)
					me.rejoin_at = me.snapshot_pause = 0;
				else if (me.rejoin_at != 0)
					me.rejoin_at = me.now + REJOIN_US;
				break;
			case MG_FX_LOG:
				ereport(LOG, (errmsg_internal("mgrepl: %s", at)));
				break;
		}
	}
}

/* READ_LOG answers with inputs, whose effects come into a list of their own. */
static void
carry_out_once(void)
{
	mg_effects	done = me.fx;

	memset(&me.fx, 0, sizeof(me.fx));
	carry_out(&done);
	if (me.fx.n == 0)
	{
		mg_effects_free(&me.fx);
		mg_effects_reset(&done);
		if (done.bytes.cap > 32 * 1024 * 1024)
			mg_effects_free(&done);
		me.fx = done;
	}
	else
		mg_effects_free(&done);
}

static void
carry_out_rest(void)
{
	while (me.fx.n > 0)
		carry_out_once();
}

/* ------------------------------------------------------------------ commands */

/* Takes the origin's place in shared memory now, not in the middle of a commit. */
static void
claim_origin(void)
{
	if (MG_MAX_ORIGINS == 0)
		return;
	MgOriginSessionSetup((RepOriginId) pg_atomic_read_u32(&mgrepl_shared->origin_id));
	replorigin_session_reset();
}

/* Where the data stands; made up for a node that begins a cluster. */
static void
position_of_new_cluster(void)
{
	mg_gtid		found;

	StartTransactionCommand();
	if (!mgrepl_position_read(&found))
	{
		mg_uuid		uuid;

		if (mg_random_bytes(&uuid, sizeof(uuid)) != MG_OK)
			elog(ERROR, "mgrepl: no random numbers from the system");
		uuid.bytes[6] = (uuid.bytes[6] & 0x0f) | 0x40;	/* RFC 4122, version 4 */
		uuid.bytes[8] = (uuid.bytes[8] & 0x3f) | 0x80;
		mgrepl_position_create(&uuid);
		found.uuid = uuid;
	}
	CommitTransactionCommand();
	if (pg_atomic_read_u32(&mgrepl_shared->clustered) != MG_CLUSTERED_YES)
		claim_origin();
	me.position.uuid = found.uuid;
	pg_atomic_write_u32(&mgrepl_shared->clustered, MG_CLUSTERED_YES);
}

/* The log and the data meet: one goes on where the other ends, or they overlap. */
static bool
log_fits_data(void)
{
	mg_seqno	position = mgrepl_order_committed();

	return mg_log_last(me.log) >= position && mg_log_first(me.log) <= position + 1;
}

/*
 * A member in search of the others decides by itself whether it may: it has its
 * log and its promises.  In all other cases a new node is made from what lies
 * on the disk.  A log that does not reach the data cannot be continued by a node
 * that goes on alone.
 */
static void
bootstrap(bool force)
{
	mg_input	in = input(MG_IN_BOOTSTRAP);
	mg_node_state state = mg_node_get_state(me.node);
	char		foreign[MG_REASON_BYTES_MAX];
	bool		is_foreign = state_is_foreign(foreign, sizeof(foreign));
	bool		fits = !is_foreign && log_fits_data();

	if (is_foreign && !force)
	{
		answer(false, foreign, FOREIGN_LOG_HINT);
		return;
	}
	if (state == MG_STATE_OPEN || me.evicted || (state == MG_STATE_NON_PRIMARY && !fits && force))
	{
		node_renew();			/* does it begin a cluster? it knows by the uuid that the data has before this */
		position_of_new_cluster();
		restore_state();
		if (fits)
			recover_log();
		else if ((force || mg_node_self(me.node) == 0) && mg_log_reset(me.log) != MG_OK)
			disk_is_broken("emptying the writeset log");
	}
	in.uuid = me.position.uuid;
	in.up = force;
	step(&in);
}

static void
join(const char *addresses)
{
	mg_input	in = input(MG_IN_JOIN);

	if (mg_node_get_state(me.node) == MG_STATE_OPEN || me.evicted)
	{
		StartTransactionCommand();
		if (!mgrepl_position_read(&me.position))
			memset(&me.position, 0, sizeof(me.position));
		me.data_epoch = mgrepl_position_epoch(&me.position.uuid);
		CommitTransactionCommand();
		node_renew();

		/* What its data stands at, by its own log and promises: a member compares that with its own. */
		restore_state();
		recover_entry(me.position.seqno);
	}
	in.text = addresses;
	step(&in);
}

/* By force: a snapshot, whatever the own data and log are. */
static void
rebuild(const char *addresses)
{
	mg_input	in = input(MG_IN_JOIN);

	node_renew();
	in.text = addresses;
	in.up = true;
	step(&in);
}

/* Is one of the addresses that of another member?  Then this node is where it is told to go. */
static bool
names_a_member(const char *addresses)
{
	const mg_view *view = mg_node_view(me.node);

	while (*addresses != '\0')
	{
		size_t		len = strcspn(addresses, ",");

		for (uint32_t m = 0; m < view->n; m++)
			if (view->members[m].id != mg_node_self(me.node) && strlen(view->members[m].address) == len &&
				strncmp(view->members[m].address, addresses, len) == 0)
				return true;
		addresses += len + (addresses[len] == ',');
	}
	return false;
}

/* ---- freeze: the log keeps what a node will need that is not there for a while ---- */

static void
read_freeze(void)
{
	char		path[MAXPGPATH];
	size_t		len;
	uint64		at;

	file_path(path, sizeof(path), "freeze");
	if (mg_statefile_read(path, &at, sizeof(at), &len) == MG_OK && len == sizeof(at))
		me.frozen_at = at;
}

/* "off", a seqno, or "": all that the members of now may ask for. */
static void
freeze(const char *argument)
{
	char		path[MAXPGPATH];
	char		text[MG_REASON_BYTES_MAX];
	uint64		at = 0;
	mg_seqno	first = mg_log_first(me.log);
	mg_seqno	next = Max(mg_log_last(me.log), mgrepl_order_committed()) + 1;

	file_path(path, sizeof(path), "freeze");
	if (strcmp(argument, "off") != 0)
	{
		at = argument[0] != '\0' ? strtoull(argument, NULL, 10) :
			Min(mg_node_log_needed(me.node), mgrepl_order_committed()) + 1;
		at = Min(at, next);
		if (at < (first != 0 ? first : next) && argument[0] != '\0')
		{
			snprintf(text, sizeof(text), "the writeset log of this node begins at seqno %llu only",
					 (unsigned long long) (first != 0 ? first : next));
			answer(false, text, "Freeze it from there on, or from now on: SELECT mgrepl.gcache_freeze().");
			return;
		}
		at = Max(at, 1);
	}
	if (at == 0 ? unlink(path) != 0 && errno != ENOENT : mg_statefile_write(path, &at, sizeof(at)) != MG_OK)
	{
		snprintf(text, sizeof(text), "the file \"%.100s\" cannot be written: %s", path, strerror(errno));
		answer(false, text, "Check the disk of mgrepl.gcache_dir.");
		return;
	}
	me.frozen_at = at;
	release_log();
	publish_status();
	answer(true, at == 0 ? "unfrozen" : "frozen", "");
}

/* join() for a member that comes back by itself: it has what it wants when it is back. */
static void
await_member(void)
{
	mg_node_state state = mg_node_get_state(me.node);

	if (me.join_until == 0)
		return;
	if (me.asked && state == MG_STATE_NON_PRIMARY && !me.evicted && me.now < me.join_until)
		return;
	me.join_until = 0;
	if (!me.asked)
		return;
	if (mg_state_is_synced(state))
		answer(true, "is a member again", "");
	else if (state == MG_STATE_NON_PRIMARY && !me.evicted)
		join(me.seeds);			/* it says why not */
	else
		me.asked = false;		/* no member any more: the command is carried out after all */
}

static void
take_command(void)
{
	MgCommand  *c = &mgrepl_shared->command;
	char		addresses[sizeof(me.seeds) / 2];
	mg_input	in;

	await_member();
	if (pg_atomic_read_u32(&c->stage) != 1)
	{
		uint32		gone = 4;

		/* The asker went away before its command was begun. */
		if (!me.asked)
			(void) pg_atomic_compare_exchange_u32(&c->stage, &gone, 0);
		return;
	}
	if (me.asked)
		return;					/* it is being carried out */
	pg_read_barrier();
	if (c->kind == MG_COMMAND_FREEZE)
	{
		me.asked = true;
		freeze(c->argument);
		return;
	}
	if (me.rejoin_at != 0 && mg_state_is_joining(mg_node_get_state(me.node)))
	{
		/* Its own attempt gives way to what the user wants. */
		in = input(MG_IN_LEAVE);
		step(&in);
		carry_out_rest();
	}
	me.asked = true;
	if (me.ordered_at != 0)
	{
		if (c->kind == MG_COMMAND_LEAVE && mgrepl_transfer_cancel())
		{
			forget_wish();
			me.rejoin_at = 0;
			answer(true, "", "");
		}
		else
			answer(false, "a snapshot of another node's data is being taken",
				   "See mgrepl.transfer_progress; mgrepl.leave() calls it off.");
		return;
	}
	if (pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0 && c->kind != MG_COMMAND_REBUILD)
	{
		answer(false, "this node's data differs from the cluster's",
			   "Look at it if you want to know why, then call mgrepl.rebuild(): it takes a snapshot of a member's data.");
		return;
	}
	if (MG_MAX_ORIGINS == 0)
	{
		answer(false, "max_replication_slots is 0", "Set it to 4 or more: the node's position is kept in a replication origin.");
		return;
	}

	/* Starting anew needs everything that was delivered to be committed: look again in a moment. */
	if (c->kind != MG_COMMAND_LEAVE && c->kind != MG_COMMAND_REBUILD && !ring_is_drained())
	{
		me.asked = false;
		return;
	}
	switch (c->kind)
	{
		case MG_COMMAND_NONE:
		case MG_COMMAND_FREEZE:	/* done above */
			answer(false, "no such command", "");
			break;
		case MG_COMMAND_BOOTSTRAP:
			me.rejoin_at = 0;
			bootstrap(strcmp(c->argument, "force") == 0);
			break;
		case MG_COMMAND_JOIN:
			me.rejoin_at = 0;
			forget_wish();
			addresses_of(c->argument, addresses, sizeof(addresses));
			if (mg_state_is_synced(mg_node_get_state(me.node)) && names_a_member(addresses))
			{
				answer(true, "is a member already", "");
				break;
			}
			if (mg_node_get_state(me.node) == MG_STATE_NON_PRIMARY && !me.evicted)
			{
				me.join_until = me.now + JOIN_TIMEOUT_US;
				break;
			}
			strlcpy(me.seeds, addresses, sizeof(me.seeds));
			join(addresses);
			break;
		case MG_COMMAND_LEAVE:
			me.rejoin_at = 0;
			in = input(MG_IN_LEAVE);
			step(&in);
			break;
		case MG_COMMAND_REBUILD:
			addresses_of(c->argument, addresses, sizeof(addresses));
			if (addresses[0] == '\0')
				strlcpy(addresses, me.seeds, sizeof(addresses));
			if (mg_state_is_synced(mg_node_get_state(me.node)) || mg_node_get_state(me.node) == MG_STATE_JOINED)
				answer(false, "this node is a member of the cluster", "Call mgrepl.leave() first, then mgrepl.rebuild() with the address of a member.");
			else if (addresses[0] == '\0')
				answer(false, "no address of a member is known", "Call mgrepl.rebuild('gcomm://host:port').");
			else
			{
				me.rejoin_at = 0;
				me.by_force = true;
				strlcpy(me.seeds, addresses, sizeof(me.seeds));
				rebuild(addresses);
			}
			break;
	}
}

/* ---------------------------------------------------------------- life, loop */

/* Whoever still waits for this process will not get an answer any more. */
static void
at_exit(int code, Datum arg)
{
	MgShared   *s = mgrepl_shared;

	SpinLockAcquire(&s->monitor.mutex);
	s->provider_procno = -1;
	SpinLockRelease(&s->monitor.mutex);
	show_state(pg_atomic_read_u64(&s->apply_failed) != 0 ? MG_NODE_INCONSISTENT :
			   pg_atomic_read_u32(&s->clustered) == MG_CLUSTERED_YES ? MG_NODE_NON_PRIMARY : MG_NODE_OPEN,
			   "the provider process has ended");
	settle_sent_slots();

	/* Who has submitted and was not taken yet sees that there is no provider. */
	for (uint32 i = 0; i < s->n_slots; i++)
		if (pg_atomic_read_u32(&mgrepl_slot(i)->state) == MG_SLOT_SUBMITTED)
			mgrepl_wake(i);
	me.asked = pg_atomic_read_u32(&s->command.stage) == 1;
	if (me.asked)
		answer(false, "the provider process has ended", "See the server log.");
}

static void
open_host(void)
{
	char		reason[MG_REASON_BYTES_MAX];
	char		spool[MAXPGPATH];
	mg_log_config log_config = {
		.dir = mgrepl_gcache_dir,
		.segment_bytes = SEGMENT_BYTES,
		.bytes_max = (uint64_t) mgrepl_gcache_size_mb * 1024 * 1024,
		.pages_max = (uint64_t) mgrepl_gcache_keep_pages_size_mb * 1024 * 1024,
		.sync = enableFsync,
		.flush_pace_us = FLUSH_PACE_US,
		.recent = mgrepl_recent
	};
	mg_transport_config net = {
		.listen = mgrepl_listen_address,
		.identity = me.incarnation,
		.frame_bytes_max = MG_FRAME_BYTES_MAX
	};
	DIR		   *dir;
	struct dirent *de;

	if (mg_log_open(&log_config, &me.log, reason) != MG_OK)
		ereport(FATAL,
				(errmsg("mgrepl: the writeset log cannot be opened: %s", reason),
				 errhint("Check mgrepl.gcache_dir and the disk: the directory is for this node alone. "
						 "A log that cannot be used may be removed with all its files: the node then gets from the members what it lacks.")));
	if (reason[0] != '\0')
		ereport(LOG, (errmsg("mgrepl: writeset log: %s", reason)));
	snprintf(spool, sizeof(spool), "%s/spool", mgrepl_gcache_dir);
	if (mkdir(spool, S_IRWXU) != 0 && errno != EEXIST)
		ereport(FATAL, (errcode_for_file_access(), errmsg("mgrepl: cannot make directory \"%s\": %m", spool)));
	dir = opendir(spool);
	if (dir != NULL)
	{
		while ((de = readdir(dir)) != NULL)
			if (de->d_name[0] != '.')
			{
				char		path[MAXPGPATH * 2];

				snprintf(path, sizeof(path), "%s/%s", spool, de->d_name);
				unlink(path);
			}
		closedir(dir);
	}
	if (mg_transport_open(&net, &me.transport, reason) != MG_OK)
		ereport(FATAL,
				(errmsg("mgrepl: the network cannot be opened: %s", reason),
				 errhint("Check mgrepl.listen_address.")));
}

static void
read_position(void)
{
	bool		clustered;
	uint32		open = MG_NODE_OPEN;

	StartTransactionCommand();
	clustered = mgrepl_position_read(&me.position);
	me.data_epoch = mgrepl_position_epoch(&me.position.uuid);
	CommitTransactionCommand();

	/* Clients that come before the first status must not be told that this node has never joined. */
	if (clustered)
		(void) pg_atomic_compare_exchange_u32(&mgrepl_shared->node_state, &open, MG_NODE_NON_PRIMARY);
	pg_atomic_write_u32(&mgrepl_shared->clustered, clustered ? MG_CLUSTERED_YES : MG_CLUSTERED_NO);
	if (pg_atomic_read_u32(&mgrepl_shared->initialized) == 0)
	{
		if (clustered)
			claim_origin();
		mgrepl_order_reset(me.position.seqno);
		pg_atomic_write_u32(&mgrepl_shared->initialized, 1);
	}
}

static void
on_link(void *arg, int peer, bool up)
{
	mg_input	in = input(MG_IN_LINK);

	in.peer = peer;
	in.up = up;
	step(&in);
}

static void
round_inputs(void)
{
	const void *bytes;
	size_t		len;
	mg_input	in;

	me.now = mg_clock_monotonic_us();
	in = input(MG_IN_COMMITTED);
	in.seqno = mgrepl_order_committed();
	step(&in);

	for (int i = 0; i < FRAMES_PER_ROUND && mg_transport_receive(me.transport, &bytes, &len); i++)
	{
		in = input(MG_IN_RECEIVE);
		in.bytes = bytes;
		in.len = len;
		step(&in);
		if (i == FRAMES_PER_ROUND - 1)
			me.again = true;	/* the descriptor is edge-triggered: come back without sleeping */
	}
	if (take_submissions() == SUBMITS_PER_ROUND)
		me.again = true;
	if (me.n_releases > 0)
		send_releases();

	if (mg_log_flushed(me.log) != me.flushed || !me.log_told)
	{
		me.flushed = mg_log_flushed(me.log);
		in = input(MG_IN_FLUSHED);
		in.seqno = me.flushed;
		in.generation = me.generation;
		step(&in);
	}
	if (mg_log_first(me.log) != me.log_first || !me.log_told)
	{
		me.log_first = mg_log_first(me.log);
		in = input(MG_IN_LOG_FIRST);
		in.seqno = me.log_first;
		step(&in);
	}
	me.log_told = true;
	if (mg_log_flush_error(me.log) != 0)
	{
		errno = mg_log_flush_error(me.log);
		disk_is_broken("flushing the writeset log");
	}
	mg_transport_links(me.transport, on_link, NULL);
	if (me.now - me.last_tick >= TICK_US)
	{
		me.last_tick = me.now;
		in = input(MG_IN_TICK);
		step(&in);
	}
	in = input(MG_IN_ROUND_END);
	step(&in);
}

/* ------------------------------------------------------- snapshots of others */

/* The members that the refuser knows, as far as they can give data. */
static void
fill_order(bool nothing_lost)
{
	const mg_view *offer = mg_node_offer(me.node);
	MgTransfer *t = &mgrepl_shared->transfer;

	t->n_donors = 0;
	t->seeds[0] = '\0';
	for (uint32 i = 0; i < offer->n; i++)
	{
		const mg_member *m = &offer->members[i];

		if (strcmp(m->name, mgrepl_node_name) == 0)
			continue;
		if (strlen(t->seeds) + strlen(m->address) + 2 < sizeof(t->seeds))
		{
			if (t->seeds[0] != '\0')
				strlcat(t->seeds, ",", sizeof(t->seeds));
			strlcat(t->seeds, m->address, sizeof(t->seeds));
		}
		if (m->role == MG_ROLE_DATA && m->sql_address[0] != '\0')
		{
			MgDonor    *d = &t->donors[t->n_donors++];

			strlcpy(d->name, m->name, sizeof(d->name));
			strlcpy(d->address, m->address, sizeof(d->address));
			strlcpy(d->sql_address, m->sql_address, sizeof(d->sql_address));
			d->segment = m->segment;
		}
	}
	t->automatic = !me.asked;

	/* What the cluster lost in a forced bootstrap may be nowhere else: nobody has said to throw it away. */
	t->keep_old = !me.asked && !nothing_lost;
}

/* Nothing will be otherwise soon: ever longer pauses. */
static void
rejoin_later(void)
{
	me.snapshot_pause = me.snapshot_pause == 0 ? SNAPSHOT_PAUSE_US : Min(me.snapshot_pause * 2, SNAPSHOT_PAUSE_MAX_US);
	me.rejoin_at = me.now + me.snapshot_pause;
}

/*
 * A member has said why this node cannot join with what it has.  Nobody who
 * waits for an answer gets one before the copy begins, or cannot.
 */
static void
order_snapshot(bool nothing_lost, const char *why, const char *hint)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	if (me.ordered_at != 0)
		return;
	if (strcmp(mgrepl_sst_method, MGREPL_SST_METHOD_NONE) == 0)
	{
		answer(false, why, hint);
		if (me.rejoin_at != 0)
			rejoin_later();
		return;
	}
	fill_order(nothing_lost);
	if (t->n_donors == 0)
	{
		answer(false, why, "No member tells where its server can be reached (mgrepl.sql_address): start this node from a base backup.");
		if (me.rejoin_at != 0)
			rejoin_later();
		return;
	}
	ereport(LOG,
			(errmsg("mgrepl: snapshot: needed, %s: members=%u automatic=%s", why, t->n_donors, t->automatic ? "yes" : "no")));
	strlcpy(t->why, why, sizeof(t->why));
	if (me.asked)
		remember_wish(me.by_force);
	me.rejoin_at = 0;
	me.ordered_at = me.now;
	mgrepl_transfer_order();
	if (!mgrepl_joiner_start(false))
		mgrepl_transfer_fail("there is no room for the process that takes the snapshot",
							 "Raise max_worker_processes and restart the server.");
}

/* It has failed, and the data is as it was. */
static void
snapshot_failed(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	bool		again = t->automatic && pg_atomic_read_u32(&t->cancelled) == 0;

	ereport(again ? LOG : WARNING,
			(errmsg("mgrepl: snapshot: %s", t->error),
			 t->hint[0] != '\0' ? errhint("%s", t->hint) : 0));
	answer(false, t->error, t->hint);
	me.ordered_at = 0;
	node_renew();
	if (again)
		rejoin_later();
	else
		forget_wish();
}

/* What an earlier life of these files has left is not this data's. */
static void
remove_obsolete(void)
{
	static const char *const obsolete[] = {"node.state", "inconsistent", "freeze", WISH_FILE};
	char		path[MAXPGPATH];

	if (mg_log_reset(me.log) != MG_OK)
		disk_is_broken("emptying the writeset log");
	for (int i = 0; i < lengthof(obsolete); i++)
	{
		file_path(path, sizeof(path), obsolete[i]);
		if (unlink(path) != 0 && errno != ENOENT)
			disk_is_broken("removing what belonged to other data");
	}
}

/*
 * This server has the cluster's data at a position now: it goes on as a node that
 * has just started with it.  A crash in the middle starts it from the same data,
 * and its wish to join lies with the log until it is a member.  Nobody could write
 * since before the data came: clustered, or a transfer, at any moment.
 */
static void
snapshot_loaded(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	mg_gtid		position;

	StartTransactionCommand();
	if (!mgrepl_position_read(&position))
		elog(ERROR, "mgrepl: the position that was adopted is not there");
	CommitTransactionCommand();

	remove_obsolete();
	strlcpy(me.seeds, t->seeds, sizeof(me.seeds));
	write_seeds();
	fsync_fname(mgrepl_gcache_dir, true);
	me.data_epoch = pg_atomic_read_u64(&t->epoch);
	mgrepl_position_note_epoch(&position.uuid, me.data_epoch);
	claim_origin();
	mgrepl_order_reset(position.seqno);
	me.position = position;
	me.frozen_at = 0;
	pg_atomic_write_u32(&mgrepl_shared->clustered, MG_CLUSTERED_YES);
	node_renew();
	snapshot_begins();
	me.ordered_at = me.snapshot_pause = 0;
	me.rejoin_at = pg_atomic_read_u32(&t->cancelled) == 0 ? me.now : 0;
	publish_status();
	mgrepl_transfer_done();
	pg_atomic_write_u32(&t->adopting, MG_ADOPTING_NO);
	ereport(LOG,
			(errmsg("mgrepl: snapshot: loaded, this server has the cluster's data at seqno %llu",
					(unsigned long long) position.seqno)));
}

static void
snapshot_begins(void)
{
	if (me.asked && mgrepl_sst_is_logical())
		answer(true, "a member's data is being loaded into this server",
			   "It joins by itself when all is loaded. See mgrepl.transfer_progress and the server log.");
	else if (me.asked)
		answer(true, "this server's data is being replaced by a snapshot of a member's",
			   "The server restarts by itself when the copy is whole, with the same process id, and joins. See mgrepl.transfer_progress and the server log.");
}

/* Looks after the transfer, and after what transfers leave behind. */
static void
watch_snapshot(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	uint32		adopting;

	if (me.ordered_at == 0)
	{
		if ((!me.clean_due && !me.old_there) || me.now < me.clean_at || shutdown_asked)
			return;
		me.clean_at = me.now + REJOIN_US;
		if (pg_atomic_read_u32(&t->joiner_pid) != 0)
			return;
		if (me.old_there && mg_state_is_synced(mg_node_get_state(me.node)))
		{
			ereport(LOG, (errmsg("mgrepl: snapshot: the node is level with the cluster, the data that was replaced is removed")));
			me.old_there = me.clean_due = !mgrepl_joiner_start(true);
		}
		else if (me.clean_due)
			me.clean_due = !mgrepl_joiner_start(false);
		return;
	}

	/* Whoever asked has gone away before anything was copied: it was not meant. */
	if (me.asked && pg_atomic_read_u32(&mgrepl_shared->command.stage) == 4)
	{
		(void) mgrepl_transfer_cancel();	/* too late: it is as if it had been answered */
		answer(false, "", "");
	}
	switch (mgrepl_transfer_stage())
	{
		case MG_TRANSFER_NONE:
		case MG_TRANSFER_FAILED:
		case MG_TRANSFER_LOADED:
			adopting = pg_atomic_read_u32(&t->adopting);
			if (adopting == MG_ADOPTING_COMMITS || !ring_is_drained())
				break;			/* in a moment */
			if (adopting == MG_ADOPTING_DONE)
				snapshot_loaded();
			else if (mgrepl_transfer_stage() == MG_TRANSFER_LOADED)
				mgrepl_transfer_fail("the program that loads the dump has ended without a position", "See the server log.");
			else
				snapshot_failed();
			break;
		case MG_TRANSFER_ORDERED:
			if (pg_atomic_read_u32(&t->joiner_pid) == 0 && me.now - me.ordered_at > JOINER_START_US)
				mgrepl_transfer_fail("the process that takes the snapshot does not start", "See the server log.");
			break;
		case MG_TRANSFER_CHOOSING:
			break;
		case MG_TRANSFER_COPYING:
		case MG_TRANSFER_SWAPPING:
			snapshot_begins();
			break;
	}
}

/*
 * The data under this server has been replaced since the log was written: log,
 * promises and mark of inconsistency are not this data's.  Each step can be
 * repeated; the file that asks for them goes last.
 */
static void
after_replacement(void)
{
	char		path[MAXPGPATH];
	char		seeds[sizeof(me.seeds)];
	size_t		len;
	mg_status	status;

	file_path(path, sizeof(path), MGREPL_REPLACED_FILE);
	status = mg_statefile_read(path, seeds, sizeof(seeds) - 1, &len);
	if (status == MG_E_NOT_FOUND)
		return;
	remove_obsolete();
	if (status == MG_OK)
	{
		seeds[len] = '\0';
		strlcpy(me.seeds, seeds, sizeof(me.seeds));
		write_seeds();
	}
	file_path(path, sizeof(path), MGREPL_REPLACED_FILE);
	if (unlink(path) != 0)
		disk_is_broken("removing what belonged to other data");
	fsync_fname(mgrepl_gcache_dir, true);
	ereport(LOG, (errmsg("mgrepl: snapshot: this server has new data, its writeset log begins anew")));
}

/* What an earlier process, or an earlier life of the server, was about to do. */
static void
resume_snapshot(void)
{
	me.old_there = mgrepl_swap_has_old();
	me.clean_due = mgrepl_swap_has_leftovers();
	if (mgrepl_transfer_stage_runs(mgrepl_transfer_stage()) ||
		pg_atomic_read_u32(&mgrepl_shared->transfer.adopting) != MG_ADOPTING_NO)
	{
		me.ordered_at = me.now;
		me.clean_due = false;
	}
	else if (mgrepl_swap_phase() == MG_SWAP_READY)
	{
		ereport(LOG, (errmsg("mgrepl: snapshot: the copy is whole, the server restarts with it")));
		mgrepl_swap_restart();
	}
}

/* DONOR or not, as sessions and the operator want it. */
static void
follow_donor(void)
{
	uint32		change;
	bool		wanted = mgrepl_donor_wanted(&change);
	mg_input	in;

	if (me.donor_told && me.donor_change == change)
		return;
	in = input(MG_IN_DESYNC);
	in.up = wanted;
	in.seqno = me.pinned;
	step(&in);
	me.donor_change = change;
	me.donor_told = true;
}

/* Out of the cluster without having asked for it: in again as soon as possible. */
static void
maybe_rejoin(void)
{
	if (me.ordered_at != 0 || me.rejoin_at == 0 || me.now < me.rejoin_at || me.seeds[0] == '\0' || shutdown_asked ||
		(!me.by_force && (pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0 || !ring_is_drained())))
		return;
	if (mg_node_get_state(me.node) != MG_STATE_OPEN && !me.evicted)
		return;
	me.rejoin_at = me.now + REJOIN_US;
	if (me.by_force)
		rebuild(me.seeds);
	else
		join(me.seeds);
}

/*
 * A node that differs stays so after a restart: the mark lies with the log, which
 * no base backup copies, so rebuilding the node is what removes it.
 */
static void
read_mark(void)
{
	char		path[MAXPGPATH];
	char		text[MG_REASON_BYTES_MAX];
	size_t		len;
	mg_status	status;

	file_path(path, sizeof(path), "inconsistent");
	status = mg_statefile_read(path, text, sizeof(text) - 1, &len);
	if (status == MG_E_NOT_FOUND || pg_atomic_read_u64(&mgrepl_shared->apply_failed) != 0)
		return;
	text[status == MG_OK ? len : 0] = '\0';
	strlcpy(mgrepl_shared->apply_error, status == MG_OK ? text : "its mark of inconsistency cannot be read", MG_REASON_BYTES_MAX);
	pg_write_barrier();
	pg_atomic_write_u64(&mgrepl_shared->apply_failed, me.position.seqno + 1);
	ereport(LOG,
			(errmsg("mgrepl: this node's data differs from the cluster's: %s", mgrepl_shared->apply_error),
			 errhint("Look at it if you want to know why, then call mgrepl.rebuild(): it takes a snapshot of a member's data.")));
}

static void
apply_has_failed(void)
{
	static bool told = false;
	char		path[MAXPGPATH];
	mg_input	in;

	if (mg_node_get_state(me.node) == MG_STATE_INCONSISTENT &&
		pg_atomic_read_u64(&mgrepl_shared->apply_failed) == 0)
	{
		strlcpy(mgrepl_shared->apply_error, mg_node_reason(me.node), MG_REASON_BYTES_MAX);
		pg_write_barrier();
		pg_atomic_write_u64(&mgrepl_shared->apply_failed, mg_node_delivered(me.node) + 1);
	}
	if (told || pg_atomic_read_u64(&mgrepl_shared->apply_failed) == 0)
		return;
	told = true;
	me.status_due = true;
	file_path(path, sizeof(path), "inconsistent");
	if (mg_statefile_write(path, mgrepl_shared->apply_error, strlen(mgrepl_shared->apply_error)) != MG_OK)
		ereport(LOG, (errcode_for_file_access(), errmsg("mgrepl: cannot write \"%s\": %m", path)));
	in = input(MG_IN_LEAVE);
	step(&in);
}

/*
 * Under load there is always something next: instead of being woken for each
 * submission, frame and flush by itself, the loop naps for a moment that grows
 * with what is on its way, and takes all that has come.  Nobody has to send it a
 * signal meanwhile.  With one or two transactions on their way it never naps.
 */
static bool
nap(void)
{
	uint64		on_way = mg_node_ordered(me.node) - mg_node_delivered(me.node) + mg_node_unordered(me.node);
	struct timespec t = {0, 0};

	if (on_way <= NAP_FROM)
		return false;
	t.tv_nsec = Min(on_way * NAP_US_EACH, NAP_US_MAX) * 1000L;
	(void) nanosleep(&t, NULL);
	return true;
}

/*
 * Every message and every submission wakes this process and its threads.  On
 * busy processors they must not push a working backend aside for each of them:
 * a little later there is more to do at once (measured with 32 clients on 2
 * cores: a quarter more transactions).  On an idle processor nothing changes.
 */
static void
schedule_in_batches(void)
{
#ifdef SCHED_BATCH
	struct sched_param param = {0};

	(void) sched_setscheduler(0, SCHED_BATCH, &param);
#endif
#ifdef PR_SET_TIMERSLACK
	/* A nap is a nap: the kernel's default would make it 50 microseconds longer. */
	(void) prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0);
#endif
}

void
mgrepl_provider_main(Datum arg)
{
	mgrepl_worker_init("mgrepl provider");
	pqsignal(SIGTERM, shutdown_handler);
	BackgroundWorkerInitializeConnection(mgrepl_database, NULL, BGWORKER_BYPASS_ALLOWCONN);
	before_shmem_exit(at_exit, 0);

	schedule_in_batches();
	me.now = mg_clock_monotonic_us();
	if (mg_random_bytes(&me.incarnation, sizeof(me.incarnation)) != MG_OK)
		elog(FATAL, "mgrepl: no random numbers from the system");
	me.incarnation |= 1;
	open_host();
	after_replacement();
	read_position();
	me.position.seqno = Max(me.position.seqno, *(volatile uint64 *) &mgrepl_shared->monitor.published);
	read_mark();
	read_freeze();
	refuse_foreign_log();
	drop_copied_identity();
	node_make();
	node_resume();

	SpinLockAcquire(&mgrepl_shared->monitor.mutex);
	mgrepl_shared->provider_procno = MgMyProcno();
	SpinLockRelease(&mgrepl_shared->monitor.mutex);

	me.waits = MgCreateWaitEventSet(4);
	AddWaitEventToSet(me.waits, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(me.waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(me.waits, WL_SOCKET_READABLE, mg_transport_fd(me.transport), NULL, NULL);
	AddWaitEventToSet(me.waits, WL_SOCKET_READABLE, mg_log_flush_fd(me.log), NULL, NULL);

	/* A member is in search of the others already; one that is none any more joins again. */
	read_seeds();
	if (mg_node_get_state(me.node) == MG_STATE_OPEN &&
		(has_wish() || (pg_atomic_read_u32(&mgrepl_shared->clustered) == MG_CLUSTERED_YES && me.seeds[0] != '\0')))
		me.rejoin_at = me.now;
	resume_snapshot();
	me.log_told = false;
	publish_status();

	for (;;)
	{
		WaitEvent	events[4];
		mg_node_state state;
		bool		waiting;
		int			n_events;

		ResetLatch(MyLatch);
		me.again = false;
		me.appended = false;
		QueryCancelPending = false;	/* there is no query */
		mgrepl_worker_interrupts();
		round_inputs();
		apply_has_failed();
		follow_donor();
		carry_out_rest();
		publish_reached();
		if (me.appended)
		{
			if (mg_log_write(me.log) != MG_OK)
				disk_is_broken("writing the writeset log");
			mg_log_request_flush(me.log);
		}
		publish_pending();
		take_command();
		watch_snapshot();
		maybe_rejoin();
		mgrepl_count(MG_COUNTER_PROVIDER_LOOPS, 1);
		if (me.status_due || me.now - me.last_status >= STATUS_US)
		{
			publish_status();
			watch_commits();
			release_log();
			if (me.seeds_due)
				write_seeds();
		}
		if (me.donor_told)
			mgrepl_donor_acts(me.donor_change);
		state = mg_node_get_state(me.node);

		if (shutdown_asked)
		{
			if (me.leave_until == 0)
			{
				me.leave_until = me.now + LEAVE_PATIENCE_US;
				if (mg_state_is_synced(state) || mg_state_is_joining(state))
				{
					mg_input	in = input(MG_IN_LEAVE);

					step(&in);
					me.again = true;
				}
			}
			if (state == MG_STATE_OPEN && me.linger_until == 0)
				me.linger_until = mg_node_self(me.node) == 0 && mg_node_view(me.node)->n > 0 ?
					me.now + LEAVE_LINGER_US : me.now;
			if (!me.again && ((state == MG_STATE_OPEN && me.now >= me.linger_until) ||
							  state == MG_STATE_NON_PRIMARY || state == MG_STATE_INCONSISTENT ||
							  me.now >= me.leave_until))
				break;
		}
		if (me.again || me.fx.n > 0)
			continue;
		if (nap())
			continue;

		waiting = mg_node_wants_tick(me.node) || me.first_pending < me.n_pending ||
			mgrepl_order_committed() < *(volatile uint64 *) &mgrepl_shared->monitor.published ||	/* appliers are at work */
			shutdown_asked || me.evicted ||
			pg_atomic_read_u32(&mgrepl_shared->command.stage) == 1;
		n_events = WaitEventSetWait(me.waits, waiting ? BUSY_WAIT_MS : IDLE_WAIT_MS, events, 4, PG_WAIT_EXTENSION);
		for (int i = 0; i < n_events; i++)
			if (events[i].fd == mg_log_flush_fd(me.log))
				mg_log_flush_seen(me.log);	/* a system call: only when there is something to clear */
	}

	mg_transport_close(me.transport);
	mg_log_close(me.log);
	ereport(LOG, (errmsg("mgrepl provider: ended")));
	proc_exit(1);				/* started again, unless the server goes down */
}

void
mgrepl_workers_register(void)
{
	if (mgrepl_appliers == 0)
	{
		char		number[16];
		long		cores = sysconf(_SC_NPROCESSORS_ONLN);

		/* Leave room for provider, resolver, notifier, the logical replication launcher and one more. */
		snprintf(number, sizeof(number), "%ld",
				 Max(1, Min(Min(cores, max_worker_processes - 5), MGREPL_APPLIERS_MAX)));
		SetConfigOption("mgrepl.appliers", number, PGC_POSTMASTER, PGC_S_OVERRIDE);
	}
	mgrepl_worker_register("mgrepl provider", "mgrepl provider", "mgrepl_provider_main", true, 1, (Datum) 0);
	mgrepl_resolver_register();
	mgrepl_notifier_register();
	for (int i = 0; i < mgrepl_appliers; i++)
	{
		char		name[64];

		snprintf(name, sizeof(name), "mgrepl applier %d", i + 1);
		mgrepl_worker_register(name, "mgrepl applier", "mgrepl_applier_main", true, 1, Int32GetDatum(i));
	}
}
