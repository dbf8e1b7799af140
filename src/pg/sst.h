/*
 * pg/sst.h - a snapshot of another node's data: from whom, whether it fits,
 * where it goes.
 *
 * Used by the joiner worker only.  Nothing here changes this node's data.  All
 * that waits can be interrupted (SIGTERM: FATAL; mgrepl_sst_check: ERROR 57014
 * when the provider has called the transfer off) and has a limit of time.
 *
 * The connection to a donor: libpq with the options of mgrepl.sst_conninfo, at
 * the member's sql_address, in the replicated database.  While its session
 * lives the donor is one (mgrepl.donate): closing the connection, or dying, ends
 * that.
 */
#ifndef MGREPL_SST_H
#define MGREPL_SST_H

#include "postgres.h"

#include "pg/swap.h"
#include "pg/transfer.h"

struct pg_conn;

#define MGREPL_SST_TABLESPACES_MAX	256
#define MGREPL_SST_METHOD_BASEBACKUP "basebackup"
#define MGREPL_SST_METHOD_DUMP "dump"
#define MGREPL_SST_METHOD_NONE "none"

/* Why something cannot be, and what to do. */
typedef struct MgTrouble
{
	char		error[512];
	char		hint[MG_REASON_BYTES_MAX];
} MgTrouble;

typedef struct MgSstTablespace
{
	char		oid[16];
	char		location[MAXPGPATH];	/* at the donor */
	char		place[MAXPGPATH];		/* here */
	int64		bytes;
} MgSstTablespace;

typedef struct MgSst
{
	MgDonor		donor;
	struct pg_conn *conn;		/* NULL: not connected */

	/* for the choice */
	int			rank;			/* in mgrepl.sst_donor, from 0; INT_MAX: not named */
	bool		same_segment;
	bool		busy;			/* is a donor already */
	int64		load;			/* sessions at work there */

	/* what donate() says */
	char		gtid[64];		/* with a dump: of its snapshot */
	char		snapshot[64];	/* for a dump; "": none */
	uint64		epoch;			/* for a dump: no transaction in it is of a higher one */
	int64		bytes;			/* to be copied, without tablespaces */
	int			n_tablespaces;
	MgSstTablespace tablespaces[MGREPL_SST_TABLESPACES_MAX];
	char		wal_place[MAXPGPATH];	/* where this node's WAL lies elsewhere; "": in the data directory */
} MgSst;

/* ERROR if the provider has called it off. */
extern void mgrepl_sst_check(void);

/* Connects and asks for state and load.  False: it cannot be used, `trouble` says why. */
extern bool mgrepl_sst_probe(MgSst *sst, MgTrouble *trouble);

/* qsort: the one to try first comes first. */
extern int	mgrepl_sst_compare(const void *a, const void *b);

/* Is the method one that loads into the running server (pg/dump.h), instead of copying files? */
extern bool mgrepl_sst_is_logical(void);

/* Calls donate() and compares what must be equal; for a dump has a snapshot exported. */
extern bool mgrepl_sst_donate(MgSst *sst, MgTrouble *trouble);

/*
 * Decides where tablespaces and WAL go, whether there is room, and makes the
 * directories.  Fills `places`, which has room for all tablespaces and one more.
 */
extern bool mgrepl_sst_find_places(MgSst *sst, MgSwapPlace *places, int *n, MgTrouble *trouble);

/* For a dump: is there room for it? */
extern bool mgrepl_sst_has_room(MgSst *sst, MgTrouble *trouble);

/* Does the donor's session live?  Asks it every few seconds. */
extern bool mgrepl_sst_alive(MgSst *sst, MgTrouble *trouble);

/* Is its donor still a member with good data?  To be asked when the copy is whole. */
extern bool mgrepl_sst_still_good(MgSst *sst, MgTrouble *trouble);

/* Undoes what mgrepl_sst_find_places has made, if nothing is in it. */
extern void mgrepl_sst_drop_places(const MgSwapPlace *places, int n);

/* The staged data has a control file like this server's own. */
extern bool mgrepl_sst_verify(MgTrouble *trouble);

extern void mgrepl_sst_close(MgSst *sst);

/*
 * Connection options for a program: a conninfo without password and database
 * (palloc'd), and the value of one of them ("" if not set).
 */
extern char *mgrepl_sst_conninfo_for(MgSst *sst, const char *application_name);
extern const char *mgrepl_sst_option(MgSst *sst, const char *keyword);

#endif							/* MGREPL_SST_H */
