/*
 * pg/reads.h - outside the primary component a node refuses reads, too.
 */
#ifndef MGREPL_READS_H
#define MGREPL_READS_H

#include "postgres.h"

#include "nodes/parsenodes.h"

extern void mgrepl_reads_install(void); /* from _PG_init: ExecutorStart hook */

/* COPY reads a table without the executor: the same check; called by pg/ddl.c. */
extern void mgrepl_reads_check_copy(const CopyStmt *stmt);

#endif							/* MGREPL_READS_H */
