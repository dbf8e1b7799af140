/*
 * pg/ddl.h - statements that are not rows.
 *
 * Simplest sound form: an autocommit CREATE, ALTER or DROP (and the like)
 * reserves its keys in the cluster's order, runs here as an ordinary
 * transaction, and travels as a statement event in that transaction's
 * writeset; every other node runs it at its seqno.  It fails here: it happens
 * nowhere.  Everything else that would change data or catalogs on one node
 * only is refused with an error that says why.
 */
#ifndef MGREPL_DDL_H
#define MGREPL_DDL_H

#include "postgres.h"

#include "core/writeset.h"

extern void mgrepl_ddl_install(void);		/* from _PG_init: ProcessUtility_hook */

/* Applier: runs the statement of a STATEMENT event in the environment it carries. */
extern void mgrepl_ddl_apply(const mg_event *event);

/* Encodes the body of a STATEMENT event: the SQL text with the present environment. */
extern void mgrepl_ddl_encode(mg_buf *body, const char *sql);

#endif							/* MGREPL_DDL_H */
