/*
 * pg/error.h - errors that several files raise, with one wording each.
 */
#ifndef MGREPL_ERROR_H
#define MGREPL_ERROR_H

#include "postgres.h"

/* ERROR 55000 unless the library was preloaded: without shared memory nothing works. */
extern void mgrepl_require_loaded(void);

/* The same, and ERROR 55000 unless the session is in the replicated database. */
extern void mgrepl_require_database(void);

/* True if this session is in the replicated database (mgrepl.database). */
extern bool mgrepl_in_database(void);

#endif							/* MGREPL_ERROR_H */
