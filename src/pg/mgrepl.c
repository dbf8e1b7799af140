/*
 * pg/mgrepl.c - where the library comes in: settings, shared memory, hooks and
 * workers, each installed by its own file.
 *
 * Hooks of the whole extension: shmem_request/startup (shmem.c), the one
 * transaction and the one subtransaction callback, the release of resources
 * (commit.c), ProcessUtility (ddl.c), ExecutorStart (reads.c), emit_log and the
 * relcache callback (bfabort.c).  One callback runs when the postmaster exits
 * (swap.c).
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "bgworkers/workers.h"
#include "pg/bfabort.h"
#include "pg/commit.h"
#include "pg/ddl.h"
#include "pg/guc.h"
#include "pg/reads.h"
#include "pg/shmem.h"
#include "pg/swap.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	/* Loaded late (by a function of the extension): the functions say what to do. */
	if (!process_shared_preload_libraries_in_progress)
		return;
	mgrepl_guc_define();
	mgrepl_swap_install();
	mgrepl_shmem_install();
	mgrepl_commit_install();
	mgrepl_bfabort_install();
	mgrepl_ddl_install();
	mgrepl_reads_install();
	mgrepl_workers_register();
}
