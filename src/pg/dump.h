/*
 * pg/dump.h - a snapshot by statements (mgrepl.sst_method = 'dump'), for a joiner
 * that cannot read the donor's files: another major version, page size or processor.
 *
 * At the donor, mgrepl.export_snapshot() gives a snapshot of PostgreSQL's for
 * pg_dump whose place in the one order is known exactly, and keeps the tables as
 * they are in it for the length of the caller's transaction.
 *
 * At the joiner the server goes on running.  The dump is loaded by one transaction
 * of a program's session, which ends with mgrepl.adopt_position(): rows and
 * position are committed together, by one commit record, or not at all.  The
 * provider sees that (MgAdopting) and goes on from it, also when the program, or
 * the process that has run it, was killed just behind the commit.
 */
#ifndef MGREPL_DUMP_H
#define MGREPL_DUMP_H

#include "postgres.h"

#include "pg/sst.h"

/* What the dump is loaded into, and who may load it. */
typedef struct MgDumpHere
{
	char		encoding[NAMEDATALEN];
	char		collate[NAMEDATALEN];
	char		ctype[NAMEDATALEN];
	char		provider[16];
	char		superuser[NAMEDATALEN];
} MgDumpHere;

/*
 * In the joiner worker, connected to the database: waits until nobody writes any
 * more (new writes are refused while a transfer runs), and sees to it that the
 * database holds nothing that a dump could clash with.  False: `trouble` says why.
 */
extern bool mgrepl_dump_prepare(MgTrouble *trouble);

/* What that has found out. */
extern const MgDumpHere *mgrepl_dump_here(void);

/*
 * From commit.c, before the commit record: a transaction that adopts a position may
 * do so only while the transfer runs.  ERROR if it does not.  And when it has ended.
 */
extern void mgrepl_dump_pre_commit(void);
extern void mgrepl_dump_xact_end(bool is_commit);

#endif							/* MGREPL_DUMP_H */
