/*
 * pg/transfer.c - see transfer.h.
 *
 * Texts are under the lock of the status, which nobody holds for longer than a
 * copy takes; numbers and the stage are atomic, so that whoever only wants to
 * know whether it goes on takes no lock.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "pg/shmem.h"
#include "pg/transfer.h"

void
mgrepl_transfer_init(MgTransfer *transfer)
{
	pg_atomic_init_u32(&transfer->stage, MG_TRANSFER_NONE);
	pg_atomic_init_u32(&transfer->joiner_pid, 0);
	pg_atomic_init_u32(&transfer->restart_by, 0);
	pg_atomic_init_u32(&transfer->cancelled, 0);
	pg_atomic_init_u32(&transfer->adopting, 0);
	pg_atomic_init_u64(&transfer->epoch, 0);
	pg_atomic_init_u64(&transfer->bytes_done, 0);
	pg_atomic_init_u64(&transfer->bytes_total, 0);
}

MgTransferStage
mgrepl_transfer_stage(void)
{
	return (MgTransferStage) pg_atomic_read_u32(&mgrepl_shared->transfer.stage);
}

const char *
mgrepl_transfer_stage_name(MgTransferStage stage)
{
	switch (stage)
	{
		case MG_TRANSFER_NONE:
			return "none";
		case MG_TRANSFER_ORDERED:
			return "ordered";
		case MG_TRANSFER_CHOOSING:
			return "choosing a donor";
		case MG_TRANSFER_COPYING:
			return "copying";
		case MG_TRANSFER_SWAPPING:
			return "restarting";
		case MG_TRANSFER_LOADED:
			return "loaded";
		case MG_TRANSFER_FAILED:
			return "failed";
	}
	return "?";
}

bool
mgrepl_transfer_row(MgTransferRow *row)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	LWLockAcquire(mgrepl_shared->status_lock, LW_SHARED);
	row->stage = mgrepl_transfer_stage();
	strlcpy(row->peer, t->peer, sizeof(row->peer));
	strlcpy(row->method, t->method, sizeof(row->method));
	strlcpy(row->error, t->error, sizeof(row->error));
	row->started_at = t->started_at;
	row->copy_started_at = t->copy_started_at;
	row->ended_at = t->ended_at;
	row->bytes_done = pg_atomic_read_u64(&t->bytes_done);
	row->bytes_total = pg_atomic_read_u64(&t->bytes_total);
	LWLockRelease(mgrepl_shared->status_lock);
	return row->stage != MG_TRANSFER_NONE;
}

void
mgrepl_transfer_order(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	t->peer[0] = t->method[0] = t->error[0] = t->hint[0] = '\0';
	t->started_at = GetCurrentTimestamp();
	t->copy_started_at = t->ended_at = 0;
	pg_atomic_write_u64(&t->bytes_done, 0);
	pg_atomic_write_u64(&t->bytes_total, 0);
	pg_atomic_write_u32(&t->cancelled, 0);
	pg_atomic_write_u32(&t->stage, MG_TRANSFER_ORDERED);
	LWLockRelease(mgrepl_shared->status_lock);
}

void
mgrepl_transfer_done(void)
{
	mgrepl_transfer_set_stage(MG_TRANSFER_NONE);
}

bool
mgrepl_transfer_cancel(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	MgTransferStage stage;
	bool		in_time;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	stage = mgrepl_transfer_stage();
	in_time = stage != MG_TRANSFER_SWAPPING && stage != MG_TRANSFER_LOADED;
	if (in_time)
		pg_atomic_write_u32(&t->cancelled, 1);
	LWLockRelease(mgrepl_shared->status_lock);
	return in_time;
}

bool
mgrepl_transfer_no_way_back(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	bool		goes_on;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	goes_on = pg_atomic_read_u32(&t->cancelled) == 0;
	if (goes_on)
		pg_atomic_write_u32(&t->stage, MG_TRANSFER_SWAPPING);
	LWLockRelease(mgrepl_shared->status_lock);
	return goes_on;
}

void
mgrepl_transfer_set_stage(MgTransferStage stage)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	if (stage == MG_TRANSFER_COPYING)
		t->copy_started_at = GetCurrentTimestamp();
	pg_atomic_write_u32(&t->stage, stage);
	LWLockRelease(mgrepl_shared->status_lock);
}

void
mgrepl_transfer_set_peer(const char *peer, const char *method)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	strlcpy(t->peer, peer, sizeof(t->peer));
	strlcpy(t->method, method, sizeof(t->method));
	pg_atomic_write_u64(&t->bytes_done, 0);
	pg_atomic_write_u64(&t->bytes_total, 0);
	LWLockRelease(mgrepl_shared->status_lock);
}

void
mgrepl_transfer_set_error(const char *error, const char *hint)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	strlcpy(t->error, error, sizeof(t->error));
	strlcpy(t->hint, hint, sizeof(t->hint));
	LWLockRelease(mgrepl_shared->status_lock);
}

void
mgrepl_transfer_fail(const char *error, const char *hint)
{
	MgTransfer *t = &mgrepl_shared->transfer;

	LWLockAcquire(mgrepl_shared->status_lock, LW_EXCLUSIVE);
	strlcpy(t->error, error, sizeof(t->error));
	strlcpy(t->hint, hint, sizeof(t->hint));
	t->ended_at = GetCurrentTimestamp();
	pg_atomic_write_u32(&t->stage, MG_TRANSFER_FAILED);
	LWLockRelease(mgrepl_shared->status_lock);
}
