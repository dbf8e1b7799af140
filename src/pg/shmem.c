/*
 * pg/shmem.c - makes the shared memory of a node and knows where things are.
 *
 * One allocation: MgShared, then the ring of submitted slots, then the slots.
 * A slot belongs to a process by its proc number, so that finding one's own
 * and waking its owner need no search.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

#include "pg/compat.h"
#include "pg/donor.h"
#include "pg/guc.h"
#include "pg/shmem.h"

#define TRANCHE "mgrepl"
#define CLUSTERED_WAIT_MS 10000

MgShared   *mgrepl_shared = NULL;
mg_recent  *mgrepl_recent = NULL;

static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;

static uint32
ring_capacity(void)
{
	uint32		cap = 1;

	while (cap < (uint32) MaxBackends + 1)
		cap <<= 1;
	return cap;
}

static Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(MgShared));

	size = add_size(size, MAXALIGN(mul_size(ring_capacity(), sizeof(uint32))));
	size = add_size(size, mul_size(MaxBackends, MAXALIGN(sizeof(MgSlot))));
	return size;
}

static Size
recent_size(void)
{
	return mgrepl_gcache_mem_size_kb > 0 ? mg_recent_size((uint64) mgrepl_gcache_mem_size_kb * 1024) : 0;
}

static void
request_hook(void)
{
	if (prev_request_hook)
		prev_request_hook();
	RequestAddinShmemSpace(add_size(shared_size(), recent_size()));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
startup_hook(void)
{
	bool		found;
	LWLockPadded *locks;

	if (prev_startup_hook)
		prev_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	mgrepl_shared = ShmemInitStruct("mgrepl", shared_size(), &found);
	if (!found)
	{
		MgShared   *s = mgrepl_shared;

		memset(s, 0, shared_size());
		locks = GetNamedLWLockTranche(TRANCHE);
		s->status_lock = &locks[0].lock;
		s->provider_procno = -1;
		s->resolver_procno = -1;
		s->n_slots = MaxBackends;
		s->submit_cap = ring_capacity();
		SpinLockInit(&s->submit_mutex);
		SpinLockInit(&s->monitor.mutex);
		pg_atomic_init_u32(&s->node_state, MG_NODE_OPEN);
		pg_atomic_init_u32(&s->clustered, MG_CLUSTERED_UNKNOWN);
		pg_atomic_init_u32(&s->origin_id, 0);
		pg_atomic_init_u32(&s->initialized, 0);
		pg_atomic_init_u64(&s->apply_failed, 0);
		pg_atomic_init_u64(&s->next_trx_id, 1);
		for (int i = 0; i < MG_REACHED_COUNT; i++)
		{
			pg_atomic_init_u64(&s->reached[i], 0);
			pg_atomic_init_u32(&s->n_waiters[i], 0);
		}
		pg_atomic_init_u32(&s->command.stage, 0);
		mgrepl_transfer_init(&s->transfer);
		mgrepl_donor_shmem_init();
		SpinLockInit(&s->notices.mutex);
		s->notices.procno = -1;
		pg_atomic_init_u32(&s->monitor.n_dep_waiters, 0);
		for (int i = 0; i < MGREPL_ORDER_ENTRIES; i++)
			s->monitor.entries[i].owner = -1;
		for (int i = 0; i < MGREPL_APPLIERS_MAX; i++)
		{
			s->monitor.appliers[i].procno = -1;
			pg_atomic_init_u64(&s->monitor.appliers[i].busy_seqno, 0);
			pg_atomic_init_u64(&s->monitor.appliers[i].waits_for, 0);
			pg_atomic_init_u32(&s->monitor.appliers[i].blocked, 0);
			pg_atomic_init_u32(&s->monitor.appliers[i].step_back, 0);
		}
		for (int i = 0; i < MGREPL_COUNTERS_MAX; i++)
			pg_atomic_init_u64(&s->counters[i], 0);
		for (uint32 i = 0; i < s->n_slots; i++)
		{
			MgSlot	   *slot = mgrepl_slot(i);

			pg_atomic_init_u32(&slot->state, MG_SLOT_FREE);
			pg_atomic_init_u64(&slot->doomed, 0);
			pg_atomic_init_u64(&slot->doomed_by, 0);
			pg_atomic_init_u64(&slot->waits_until, 0);
		}
	}
	if (recent_size() > 0)
	{
		mgrepl_recent = ShmemInitStruct("mgrepl recent", recent_size(), &found);
		if (!found)
		{
			memset(mgrepl_recent, 0, recent_size());
			(void) mg_recent_init(mgrepl_recent, (uint64) mgrepl_gcache_mem_size_kb * 1024);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
mgrepl_shmem_install(void)
{
	prev_request_hook = shmem_request_hook;
	shmem_request_hook = request_hook;
	prev_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_hook;
}

uint32 *
mgrepl_submit_ring(void)
{
	return (uint32 *) ((char *) mgrepl_shared + MAXALIGN(sizeof(MgShared)));
}

MgSlot *
mgrepl_slot(uint32 slot)
{
	char	   *base = (char *) mgrepl_submit_ring() +
		MAXALIGN(mgrepl_shared->submit_cap * sizeof(uint32));

	Assert(slot < mgrepl_shared->n_slots);
	return (MgSlot *) (base + (Size) slot * MAXALIGN(sizeof(MgSlot)));
}

MgSlot *
mgrepl_my_slot(void)
{
	return mgrepl_slot(MgMyProcno());
}

PGPROC *
mgrepl_proc(int procno)
{
	return &ProcGlobal->allProcs[procno];
}

void
mgrepl_wake(int procno)
{
	if (procno >= 0)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

void
mgrepl_spool_path(char *to, size_t cap, uint32 slot)
{
	snprintf(to, cap, "%s/spool/%u.ws", mgrepl_gcache_dir, slot);
}

bool
mgrepl_submit_push(uint32 slot)
{
	MgShared   *s = mgrepl_shared;
	bool		room;

	SpinLockAcquire(&s->submit_mutex);
	room = s->submit_tail - s->submit_head < s->submit_cap;
	if (room)
		mgrepl_submit_ring()[s->submit_tail++ & (s->submit_cap - 1)] = slot;
	SpinLockRelease(&s->submit_mutex);
	return room;
}

int
mgrepl_submit_pop(uint32 *slots, int max)
{
	MgShared   *s = mgrepl_shared;
	int			n = 0;

	SpinLockAcquire(&s->submit_mutex);
	while (n < max && s->submit_head != s->submit_tail)
		slots[n++] = mgrepl_submit_ring()[s->submit_head++ & (s->submit_cap - 1)];
	SpinLockRelease(&s->submit_mutex);
	return n;
}

bool
mgrepl_clustered_wait(void)
{
	for (int ms = 0; ms < CLUSTERED_WAIT_MS; ms += 10)
	{
		uint32		known = pg_atomic_read_u32(&mgrepl_shared->clustered);

		if (known != MG_CLUSTERED_UNKNOWN)
			return known == MG_CLUSTERED_YES;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("the mgrepl provider has not started: it is not known whether this data belongs to a cluster"),
			 errhint("The server log says what keeps the provider from starting; mgrepl.database must exist.")));
	return true;
}

const char *
mgrepl_node_state_name(MgNodeState state)
{
	switch (state)
	{
		case MG_NODE_OPEN:
			return "OPEN";
		case MG_NODE_PRIMARY:
			return "PRIMARY";
		case MG_NODE_JOINER:
			return "JOINER";
		case MG_NODE_JOINED:
			return "JOINED";
		case MG_NODE_SYNCED:
			return "SYNCED";
		case MG_NODE_DONOR:
			return "DONOR";
		case MG_NODE_NON_PRIMARY:
			return "NON_PRIMARY";
		case MG_NODE_INCONSISTENT:
			return "INCONSISTENT";
	}
	return "?";
}
