/*
 * pg/transfer.h - a state transfer to this node, as all its processes see it.
 *
 * The provider orders one (mgrepl_transfer_order) when a member has said that
 * this node needs a snapshot, and starts a joiner worker for it; the joiner
 * says how far it is; the provider, and the view mgrepl.transfer_progress, read.
 * One at a time.
 *
 * Stages: NONE -> ORDERED (provider) -> CHOOSING -> COPYING -> SWAPPING (joiner;
 * the server restarts), or LOADED -> NONE (provider; it goes on with the new data) ; ORDERED, CHOOSING, COPYING -> FAILED (joiner, or the
 * provider when the joiner is gone) -> NONE, ORDERED (provider).
 */
#ifndef MGREPL_TRANSFER_H
#define MGREPL_TRANSFER_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"

#include "core/base.h"

typedef enum MgTransferStage
{
	MG_TRANSFER_NONE = 0,
	MG_TRANSFER_ORDERED,		/* a joiner worker is on its way */
	MG_TRANSFER_CHOOSING,		/* looks for a donor and checks whether its data fits */
	MG_TRANSFER_COPYING,
	MG_TRANSFER_SWAPPING,		/* the copy is whole; the server restarts with it */
	MG_TRANSFER_LOADED,			/* the copy is in the running server (pg/dump.h); the provider goes on with it */
	MG_TRANSFER_FAILED			/* `error` says why; the data is as before */
} MgTransferStage;

/* A transaction that brings the data and its position at once (pg/dump.h). */
typedef enum MgAdopting
{
	MG_ADOPTING_NO = 0,
	MG_ADOPTING_COMMITS,		/* it is at its commit */
	MG_ADOPTING_DONE			/* it is committed; the provider does not act upon it yet */
} MgAdopting;

/* A member that might give its data. */
typedef struct MgDonor
{
	char		name[MG_NAME_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];		/* of its provider */
	char		sql_address[MG_ADDRESS_BYTES_MAX];
	uint8		segment;
} MgDonor;

typedef struct MgTransfer
{
	pg_atomic_uint32 stage;		/* MgTransferStage [atomic] */
	pg_atomic_uint32 joiner_pid;	/* 0: there is no joiner worker [atomic, written by the joiner] */
	pg_atomic_uint32 restart_by;	/* who has told the postmaster to restart; 0: nobody [atomic; pg/swap.h] */
	pg_atomic_uint32 cancelled; /* the provider wants it to end [atomic] */
	pg_atomic_uint32 adopting;	/* MgAdopting [atomic, written by its backend; DONE -> NO by the provider] */
	pg_atomic_uint64 epoch;		/* of a dump: pg/sst.h [atomic, written by the joiner] */
	pg_atomic_uint64 bytes_done;	/* [atomic] */
	pg_atomic_uint64 bytes_total;	/* 0: not known yet [atomic] */

	/* the order [owner: provider, before stage] */
	char		why[MG_REASON_BYTES_MAX];	/* this node needs a snapshot */
	uint32		n_donors;
	MgDonor		donors[MG_MEMBERS_MAX];
	bool		automatic;		/* nobody has asked for it: the node came back, or the server restarted */
	bool		keep_old;		/* the old data may hold what the cluster does not have */
	char		seeds[1024];	/* where to join with the new data */

	/* [lock: status_lock] */
	char		peer[MG_NAME_BYTES_MAX];	/* the donor, "": none chosen yet */
	char		method[MG_NAME_BYTES_MAX];
	TimestampTz started_at;
	TimestampTz copy_started_at;	/* rates are counted from here; 0: not yet */
	TimestampTz ended_at;		/* of one that FAILED; 0: it runs */
	char		error[1024];	/* of the last attempt, "": none; also while the next one runs */
	char		hint[MG_REASON_BYTES_MAX];
} MgTransfer;

/* What the view shows; a copy of one moment. */
typedef struct MgTransferRow
{
	MgTransferStage stage;
	char		peer[MG_NAME_BYTES_MAX];
	char		method[MG_NAME_BYTES_MAX];
	TimestampTz started_at;
	TimestampTz copy_started_at;
	TimestampTz ended_at;
	uint64		bytes_done;
	uint64		bytes_total;
	char		error[1024];
} MgTransferRow;

extern void mgrepl_transfer_init(MgTransfer *transfer);	/* from shmem.c */

/* False: there has been none since the server started. */
extern bool mgrepl_transfer_row(MgTransferRow *row);
extern const char *mgrepl_transfer_stage_name(MgTransferStage stage);

static inline bool
mgrepl_transfer_stage_runs(MgTransferStage stage)
{
	return stage == MG_TRANSFER_ORDERED || stage == MG_TRANSFER_CHOOSING || stage == MG_TRANSFER_COPYING ||
		stage == MG_TRANSFER_SWAPPING || stage == MG_TRANSFER_LOADED;
}

extern MgTransferStage mgrepl_transfer_stage(void);

/* Provider: the fields of the order are filled. */
extern void mgrepl_transfer_order(void);

/* Provider: what was loaded is this node's data, and it is in the cluster's shared state. */
extern void mgrepl_transfer_done(void);

/*
 * One of the two wins.  The provider calls it off: false, it is too late.  The
 * joiner, before anything that cannot be taken back: false, it was called off;
 * true: its stage is SWAPPING.
 */
extern bool mgrepl_transfer_cancel(void);
extern bool mgrepl_transfer_no_way_back(void);

/* Joiner. */
extern void mgrepl_transfer_set_stage(MgTransferStage stage);
extern void mgrepl_transfer_set_peer(const char *peer, const char *method);
extern void mgrepl_transfer_set_error(const char *error, const char *hint);

/* Both: the transfer is over, the data is as it was. */
extern void mgrepl_transfer_fail(const char *error, const char *hint);

#endif							/* MGREPL_TRANSFER_H */
