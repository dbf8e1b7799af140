/*
 * pg/swap.h - a new data directory in the place of the old one, under a server
 * that comes back with the same process id.
 *
 * Everything lies below the data directory (which may be a mount point), under
 * names that base backups leave out:
 *
 *	 pgsql_tmp.mgrepl_staging   the copy, while it is made and until it is in place
 *	 pgsql_tmp.mgrepl_journal   what is going on; there only while something is
 *	 pgsql_tmp.mgrepl_old       the data that was, until the node is level with the cluster
 *	 pgsql_tmp.mgrepl_kept.*    such data that somebody wants to look at
 *
 *	 pgsql_tmp.mgrepl_guard     between READY and the exchange's first step
 *
 * Phases (of the journal):
 *	 NONE -> COPY (mgrepl_swap_begin)   a copy is made; a crash leaves the old data, what
 *	                                    was copied is removed when the server starts
 *	 COPY -> READY (mgrepl_swap_ready)  the copy is whole and durable; from here on there
 *	                                    is no way back
 *	 READY -> NONE (by the postmaster)  the exchange, when the server stops or starts next
 *
 * What is exchanged is a fixed list, PostgreSQL's own data (swap.c); anything
 * else in the data directory is the joiner's and stays: configuration,
 * certificates, logs, the writeset log.  One that has been exchanged finds a
 * file "replaced" in mgrepl.gcache_dir, with what was given as `seeds`.
 *
 * kill -9 or loss of power at any point leaves a directory that starts as the
 * old server or as the new one, by an ordinary start of the server.  While the
 * exchange is under way it only starts with the library loaded: an invalid
 * backup_label keeps any other server from touching the mixture.
 */
#ifndef MGREPL_SWAP_H
#define MGREPL_SWAP_H

#include "postgres.h"

#define MGREPL_STAGING_DIR	"pgsql_tmp.mgrepl_staging"
#define MGREPL_OLD_DIR		"pgsql_tmp.mgrepl_old"
#define MGREPL_KEPT_DIR		"pgsql_tmp.mgrepl_kept"
#define MGREPL_JOURNAL_FILE "pgsql_tmp.mgrepl_journal"

/* Left in mgrepl.gcache_dir (host/statefile.h): the log and the identity there are not this data's. */
#define MGREPL_REPLACED_FILE "replaced"

typedef enum MgSwapPhase
{
	MG_SWAP_NONE = 0,
	MG_SWAP_COPY,
	MG_SWAP_READY,
	MG_SWAP_UNKNOWN				/* the journal cannot be read */
} MgSwapPhase;

/* A directory outside the data directory that the copy fills (tablespaces, WAL). */
typedef struct MgSwapPlace
{
	char		path[MAXPGPATH];	/* made by this transfer, empty */
} MgSwapPlace;

/* From _PG_init in the postmaster: ends what an earlier one began; does not return if it did. */
extern void mgrepl_swap_install(void);

extern MgSwapPhase mgrepl_swap_phase(void);

/* False with a reason if the file system cannot exchange two entries at once, or one is a mount point. */
extern bool mgrepl_swap_possible(char *why, size_t cap);

/* All of these may be called by one process only, and return false with a reason. */
extern bool mgrepl_swap_begin(const MgSwapPlace *places, int n, char *why, size_t cap);

/*
 * `keep`: the old data stays as pgsql_tmp.mgrepl_kept.<time>, else as
 * pgsql_tmp.mgrepl_old until mgrepl_swap_discard_old; with a number behind it
 * if the name is taken.  False: nothing will be exchanged.
 */
extern bool mgrepl_swap_ready(const char *seeds, bool keep, char *why, size_t cap);

/*
 * The copy is READY: a fast shutdown, and the server comes back with it, unless
 * somebody else has told the server to stop too.
 */
extern void mgrepl_swap_restart(void);

/* What a copy that is not READY has left.  Interruptible. */
extern void mgrepl_swap_discard(void);

/* All pgsql_tmp.mgrepl_old* and their tablespaces.  Interruptible: it can be called again. */
extern void mgrepl_swap_discard_old(void);

/* Is there anything that one of the two would remove? */
extern bool mgrepl_swap_has_leftovers(void);
extern bool mgrepl_swap_has_old(void);

/* Removes a directory and all below it; symbolic links are not followed.  False with errno. */
extern bool mgrepl_remove_tree(const char *path);

#endif							/* MGREPL_SWAP_H */
