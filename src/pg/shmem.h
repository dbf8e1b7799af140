/*
 * pg/shmem.h - everything that the processes of one node share.
 *
 * Made in the postmaster (shared_preload_libraries), never resized.  Every
 * field ends with its guard: [lock] the monitor's spinlock, [owner] written by
 * one process only, [atomic], [fixed at start].
 *
 * Three parts:
 *	 slots    one per backend: a transaction on its way to the cluster
 *	 monitor  the order of commits: who may commit next
 *	 status   what the provider lets everybody see
 */
#ifndef MGREPL_SHMEM_H
#define MGREPL_SHMEM_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/spin.h"

#include "core/base.h"
#include "host/segment.h"
#include "pg/transfer.h"

/* A writeset up to this size travels through its slot, a larger one through a file. */
#define MGREPL_SLOT_BYTES		8192

/* Seqnos that may be delivered and not yet committed here; a power of two. */
#define MGREPL_ORDER_ENTRIES	16384

#define MGREPL_APPLIERS_MAX		32
#define MGREPL_GROUP_MAX		64		/* writesets that one applier takes at once */

/* ---- node state, as users see it ---- */
typedef enum MgNodeState
{
	MG_NODE_OPEN = 0,			/* not in a cluster */
	MG_NODE_PRIMARY,			/* asks a primary component for admission */
	MG_NODE_JOINER,				/* gets what it lacks: writesets, or a snapshot */
	MG_NODE_JOINED,				/* a member, not level with the others yet */
	MG_NODE_SYNCED,				/* in the primary component */
	MG_NODE_DONOR,				/* as SYNCED, but flow control does not wait for it */
	MG_NODE_NON_PRIMARY,		/* was in a cluster, sees no majority */
	MG_NODE_INCONSISTENT		/* could not apply what the cluster committed */
} MgNodeState;

extern const char *mgrepl_node_state_name(MgNodeState state);

/* ---- slots ---- */
typedef enum MgSlotState
{
	MG_SLOT_FREE = 0,
	MG_SLOT_SUBMITTED,			/* backend: writeset is ready for the provider */
	MG_SLOT_SENT,				/* provider: it is on its way */
	MG_SLOT_PASSED,				/* provider: certified, `seqno` is its place */
	MG_SLOT_FAILED,				/* provider: `verdict` says why */
	MG_SLOT_REFUSED,			/* provider: not sent, nothing happened (`reason`) */
	MG_SLOT_UNKNOWN,			/* provider: lost before the outcome was known */
	MG_SLOT_ABANDONED			/* backend: does not wait any longer; the provider frees the slot */
} MgSlotState;

typedef struct MgSlot
{
	pg_atomic_uint32 state;		/* MgSlotState [atomic] */
	uint32		verdict;		/* mg_verdict [owner: provider, before state] */
	uint64		seqno;			/* [owner: provider, before state] */
	uint64		against;		/* seqno it lost against [owner: provider, before state] */
	uint64		trx_id;			/* [owner: backend, before state] */
	uint64		last_seen;		/* [owner: backend, before state] */
	uint8		durability;		/* MG_ENTRY_* of core/wire.h [owner: backend, before state] */
	bool		picked;			/* the provider took it out of the queue [owner: provider; backend clears it before state] */
	int64		submitted_us;	/* monotonic clock [owner: backend, before state] */
	int64		picked_us;		/* [owner: provider, before state] */
	int64		verdict_us;		/* [owner: provider, before state] */
	uint32		len;			/* of the writeset [owner: backend, before state] */
	uint16		ws_flags;		/* MG_WS_* [owner: backend, before state] */
	bool		in_file;		/* writeset is in mgrepl_spool_path [owner: backend, before state] */
	char		reason[MG_REASON_BYTES_MAX];	/* for REFUSED [owner: provider, before state] */

	/*
	 * Brute-force abort.  The low 32 bits are the victim's local transaction
	 * id (PGPROC.lxid), so that a late request cannot hit the next
	 * transaction; bit 32 is set.  0: nothing asked.  [atomic]
	 */
	pg_atomic_uint64 doomed;
	pg_atomic_uint64 doomed_by;	/* seqno that needed the way free [atomic] */

	/* Committed, and sleeps until reached[waits_for] is there. */
	uint32		waits_for;		/* MgReached [owner: backend, before waits_until] */
	pg_atomic_uint64 waits_until;	/* seqno, 0: does not sleep [atomic] */

	char		bytes[MGREPL_SLOT_BYTES];	/* the writeset [owner: backend until SUBMITTED] */
} MgSlot;

/* ---- monitor: strict commit order ---- */
typedef enum MgOrderKind
{
	MG_ORDER_NONE = 0,
	MG_ORDER_LOCAL,				/* the backend of `slot` commits it */
	MG_ORDER_REMOTE,			/* an applier applies and commits it (also a local one to be replayed) */
	MG_ORDER_SKIP				/* nothing to commit: failed certification, view, reservation */
} MgOrderKind;

typedef struct MgOrderEntry
{
	uint64		seqno;			/* [lock] */
	uint64		depends;		/* may be applied once this is committed here [lock] */
	mg_log_place place;			/* of the log record [lock] */
	uint32		kind;			/* MgOrderKind [lock] */
	uint32		slot;			/* for LOCAL [lock] */
	int			owner;			/* proc number that waits for this turn, -1 none [lock] */
	uint32		origin;			/* member id, for messages [lock] */
	bool		taken;			/* an applier has it [lock] */
} MgOrderEntry;

typedef struct MgApplier
{
	int			procno;			/* -1: none [lock] */
	int			pid;			/* 0: none [lock] */
	bool		idle;			/* sleeps until there is something to apply [lock] */
	pg_atomic_uint64 busy_seqno;	/* first seqno of the group it works on, 0: idle [atomic] */
	pg_atomic_uint64 waits_for;	/* sleeps until this seqno is committed, 0: no [atomic] */
	pg_atomic_uint32 blocked;	/* its timer found it waiting for a lock [atomic] */
	pg_atomic_uint32 step_back; /* give back what you have: a lower seqno has nobody [atomic] */
} MgApplier;

typedef struct MgMonitor
{
	slock_t		mutex;
	uint64		committed;		/* all up to here are committed here (or skipped) [lock; read by one 8-byte load] */
	uint64		published;		/* entries up to here are in the ring [lock] */
	uint64		claimed;		/* entries up to here were taken by appliers or need none [lock] */
	uint32		n_unclaimed;	/* REMOTE entries that no applier has taken [lock] */
	uint32		n_busy;			/* appliers at work [lock] */
	pg_atomic_uint32 n_dep_waiters; /* appliers with waits_for set [atomic] */
	MgOrderEntry entries[MGREPL_ORDER_ENTRIES];
	MgApplier	appliers[MGREPL_APPLIERS_MAX];
} MgMonitor;

/* ---- counters (pg/counters.h names and describes them) ---- */
#define MGREPL_COUNTERS_MAX 64

typedef struct MgMemberInfo
{
	uint32		id;
	uint32		weight;
	uint32		life;			/* how often it has started since it joined */
	uint8		role;			/* mg_role of core/wire.h */
	uint8		segment;
	bool		leader;
	bool		self;
	bool		synced;
	bool		desynced;		/* flow control does not wait for it */
	char		name[MG_NAME_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];
	char		sql_address[MG_ADDRESS_BYTES_MAX];
	uint64		held;			/* has written its log up to here */
	uint64		flushed;		/* durable up to here */
	uint64		committed;		/* applied and committed up to here */
	int64		silent_ms;		/* since the last word from it */
} MgMemberInfo;

/* Does this data belong to a cluster, so that writes must replicate? */
typedef enum MgClustered
{
	MG_CLUSTERED_NO = 0,
	MG_CLUSTERED_YES = 1,
	MG_CLUSTERED_UNKNOWN = 2	/* the server has just started, the provider is finding out */
} MgClustered;

/* ---- donor (pg/donor.c) ---- */
#define MGREPL_DONATIONS_MAX	4	/* sessions at once */
#define MGREPL_PINS_MAX			8	/* and those that have just ended */

/* Someone copies this node's data, or has done so and will ask for the writesets behind it. */
typedef struct MgDonation
{
	bool		used;			/* [lock: mutex of MgDonations] */
	int			pid;			/* of the session, 0: it has ended [lock: mutex of MgDonations] */
	char		joiner[MG_NAME_BYTES_MAX];	/* [lock: mutex of MgDonations] */
	TimestampTz since;			/* [lock: mutex of MgDonations] */
	TimestampTz pinned_until;	/* when the session has ended [lock: mutex of MgDonations] */
	uint64		pinned;			/* the log is kept from behind this seqno on [lock: mutex of MgDonations] */
	uint64		data_bytes;		/* to be copied [lock: mutex of MgDonations] */
	uint32		member_before;	/* a member that had the joiner's name, 0: none [lock: mutex of MgDonations] */
} MgDonation;

typedef struct MgDonations
{
	slock_t		mutex;
	bool		desynced;		/* by mgrepl.desync() [lock: mutex; read alone without it] */
	char		desynced_by[NAMEDATALEN];	/* [lock: mutex] */
	TimestampTz desynced_since;	/* [lock: mutex] */
	MgDonation	entries[MGREPL_PINS_MAX];	/* [lock: mutex] */
	pg_atomic_uint32 n_active;	/* sessions [atomic, written with the lock] */
	pg_atomic_uint32 n_pins;	/* used entries [atomic, written with the lock] */
	pg_atomic_uint32 change;	/* counts changes [atomic, written with the lock] */
	pg_atomic_uint32 acts;		/* the provider acts upon changes up to this one [atomic] */
} MgDonations;

/* ---- changes of the node's state that have not been told yet (bgworkers/notifier.c) ---- */
#define MGREPL_NOTICES_MAX	32

typedef struct MgNotice
{
	uint8		from;			/* MgNodeState */
	uint8		to;				/* MgNodeState */
	char		reason[MG_REASON_BYTES_MAX];
} MgNotice;

typedef struct MgNotices
{
	slock_t		mutex;
	int			procno;			/* of the notifier, -1: none [lock: mutex] */
	uint32		head;			/* [lock: mutex] */
	uint32		tail;			/* [lock: mutex] */
	MgNotice	ring[MGREPL_NOTICES_MAX];	/* [lock: mutex] */
} MgNotices;

/* A command from SQL to the provider; one at a time. */
typedef enum MgCommandKind
{
	MG_COMMAND_NONE = 0,
	MG_COMMAND_BOOTSTRAP,		/* argument: "force" or empty */
	MG_COMMAND_JOIN,
	MG_COMMAND_LEAVE,
	MG_COMMAND_REBUILD,			/* argument: as for JOIN, or empty */
	MG_COMMAND_FREEZE			/* argument: first seqno that the log keeps, empty: as now, "off" */
} MgCommandKind;

typedef struct MgCommand
{
	pg_atomic_uint32 stage;		/* 0 free, 1 asked, 2 answered, 3 being filled, 4 the asker is gone (pg/sqlfuncs.c) [atomic] */
	MgCommandKind kind;			/* [owner: asker] */
	char		argument[1024];	/* [owner: asker] */
	int			asker;			/* proc number [owner: asker] */
	bool		ok;				/* [owner: provider] */
	char		message[1024];	/* [owner: provider] */
	char		hint[MG_REASON_BYTES_MAX];		/* [owner: provider] */
} MgCommand;

/* How far things are that a COMMIT may wait for when its transaction is committed here. */
typedef enum MgReached
{
	MG_REACHED_FLUSHED_HERE,	/* in this node's log, on disk */
	MG_REACHED_FLUSHED_EVERYWHERE,	/* in the log of every data member that is not suspected */
	MG_REACHED_APPLIED_EVERYWHERE,	/* committed by every data member that is not suspected */
	MG_REACHED_COUNT			/* as what to wait for: nothing */
} MgReached;

typedef struct MgShared
{
	/* provider and resolver */
	int			provider_procno;	/* -1: not running [lock: monitor] */
	int			resolver_procno;	/* -1: not running [lock: monitor] */

	pg_atomic_uint32 node_state;	/* MgNodeState [atomic] */
	pg_atomic_uint32 clustered;		/* MgClustered [atomic] */
	pg_atomic_uint32 origin_id;		/* replication origin that carries the position, 0: none [atomic] */
	pg_atomic_uint32 initialized;	/* 1: the provider has set the monitor since the server started [atomic] */
	pg_atomic_uint64 apply_failed;	/* seqno that an applier could not apply, 0: none [atomic] */
	char		apply_error[MG_REASON_BYTES_MAX];	/* [owner: that applier, before apply_failed] */
	pg_atomic_uint64 next_trx_id;	/* [atomic] */

	/* durability beyond delivery (mgrepl_order_set_reached) */
	pg_atomic_uint64 reached[MG_REACHED_COUNT]; /* seqnos up to which that is so [atomic, written by the provider] */
	pg_atomic_uint32 n_waiters[MG_REACHED_COUNT];	/* slots that wait for it [atomic] */

	/* submissions: slot numbers in order, each slot at most once */
	slock_t		submit_mutex;
	uint32		submit_head;	/* [submit_mutex] */
	uint32		submit_tail;	/* [submit_mutex] */
	uint32		submit_cap;		/* slots, a power of two [fixed at start] */
	uint32		n_slots;		/* [fixed at start] */

	MgMonitor	monitor;
	MgCommand	command;
	MgTransfer	transfer;		/* of a snapshot to this node */
	MgDonations donations;
	MgNotices	notices;

	/* published by the provider [lock: status_lock] */
	LWLock	   *status_lock;
	mg_uuid		uuid;
	uint64		view_id;
	uint64		epoch;
	uint64		log_last;
	uint32		self_id;
	uint32		leader_id;
	uint32		n_members;
	MgMemberInfo members[MG_MEMBERS_MAX];
	char		state_reason[MG_REASON_BYTES_MAX];

	pg_atomic_uint64 counters[MGREPL_COUNTERS_MAX];	/* [atomic] */

	/* followed by uint32 submit_ring[submit_cap], then MgSlot slots[n_slots] */
} MgShared;

extern MgShared *mgrepl_shared;	/* NULL when the library was not preloaded */
extern mg_recent *mgrepl_recent;	/* mgrepl.gcache_mem_size: newest records of the log; NULL: none */

extern void mgrepl_shmem_install(void);		/* from _PG_init: hooks for request and startup */
extern MgSlot *mgrepl_slot(uint32 slot);	/* slot number = proc number */
extern MgSlot *mgrepl_my_slot(void);
extern PGPROC *mgrepl_proc(int procno);
extern void mgrepl_wake(int procno);		/* sets that process's latch; -1 is ignored */

/* The queue of submitted slots.  A slot is in it at most once, so there is always room. */
extern uint32 *mgrepl_submit_ring(void);
extern bool mgrepl_submit_push(uint32 slot);
extern int	mgrepl_submit_pop(uint32 *slots, int max);

extern void mgrepl_spool_path(char *to, size_t cap, uint32 slot);	/* relative to the data directory */

/* ---- node state ---- */
static inline MgNodeState
mgrepl_node_state(void)
{
	return (MgNodeState) pg_atomic_read_u32(&mgrepl_shared->node_state);
}

/* In the primary component and level with it. */
static inline bool
mgrepl_node_takes_work(void)
{
	MgNodeState state = mgrepl_node_state();

	return state == MG_NODE_SYNCED || state == MG_NODE_DONOR;
}

/* Waits for the provider's answer; ERROR 57P03 if it does not come. */
extern bool mgrepl_clustered_wait(void);

/*
 * Must this backend's writes go to a cluster?  Just after the start of the
 * server nobody knows: then it waits, because a write that slips through on one
 * node alone would be lost or make the nodes differ.  While a snapshot is on its
 * way here the answer is yes as well: what is written now would go with the old data.
 */
static inline bool
mgrepl_clustered(void)
{
	uint32		known;

	if (mgrepl_shared == NULL)
		return false;
	known = pg_atomic_read_u32(&mgrepl_shared->clustered);
	if (known == MG_CLUSTERED_UNKNOWN)
		return mgrepl_clustered_wait();
	return known == MG_CLUSTERED_YES || mgrepl_transfer_stage_runs(mgrepl_transfer_stage()) ||
		pg_atomic_read_u32(&mgrepl_shared->transfer.adopting) != MG_ADOPTING_NO;
}

#endif							/* MGREPL_SHMEM_H */
