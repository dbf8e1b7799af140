/*
 * pg/guc.h - the settings, all under "mgrepl.".
 */
#ifndef MGREPL_GUC_H
#define MGREPL_GUC_H

#include "postgres.h"

extern char *mgrepl_node_name;			/* mgrepl.node_name */
extern char *mgrepl_cluster_name;		/* mgrepl.cluster_name */
extern char *mgrepl_cluster_address;	/* mgrepl.cluster_address: gcomm://host:port,…?option=value */
extern char *mgrepl_listen_address;		/* mgrepl.listen_address: host:port to bind */
extern char *mgrepl_node_address;		/* mgrepl.node_address: host:port told to peers, default listen_address */
extern char *mgrepl_sql_address;		/* mgrepl.sql_address: host:port of the server, told to peers, "": made of the others */
extern char *mgrepl_sst_method;			/* mgrepl.sst_method: basebackup, none, or an executable */
extern char *mgrepl_sst_donor;			/* mgrepl.sst_donor: names of members, the first that can is taken */
extern char *mgrepl_sst_conninfo;		/* mgrepl.sst_conninfo: libpq options for connections to donors */
extern bool mgrepl_sst_keep_old;		/* mgrepl.sst_keep_old: replaced data is not removed */
extern char *mgrepl_database;			/* mgrepl.database: the replicated database */
extern char *mgrepl_gcache_dir;			/* mgrepl.gcache_dir, relative to the data directory */
extern int	mgrepl_gcache_size_mb;		/* mgrepl.gcache_size */
extern int	mgrepl_gcache_keep_pages_size_mb;	/* mgrepl.gcache_keep_pages_size: beyond it, for others only */
extern int	mgrepl_gcache_mem_size_kb;	/* mgrepl.gcache_mem_size: newest records in shared memory, 0 none */
extern int	mgrepl_appliers;			/* mgrepl.appliers */
extern int	mgrepl_max_ws_size_kb;		/* mgrepl.max_ws_size: larger writesets are refused */
extern int	mgrepl_capture_mem_kb;		/* mgrepl.capture_mem: more is spilled to a temporary file */
extern int	mgrepl_fc_limit;			/* mgrepl.fc_limit: seqnos a member may lag before ordering slows */
extern int	mgrepl_keepalive_period_ms;		/* mgrepl.keepalive_period */
extern int	mgrepl_suspect_timeout_ms;		/* mgrepl.suspect_timeout */
extern int	mgrepl_inactive_timeout_ms;		/* mgrepl.inactive_timeout */
extern int	mgrepl_wan_suspect_timeout_ms;	/* mgrepl.wan_suspect_timeout: toward other segments, 0 the same */
extern int	mgrepl_wan_inactive_timeout_ms; /* mgrepl.wan_inactive_timeout: toward other segments, 0 the same */
extern int	mgrepl_segment;				/* mgrepl.segment: 0 to 255 */
extern int	mgrepl_weight;				/* mgrepl.weight: 0 to 255 */
extern int	mgrepl_commit_timeout_ms;	/* mgrepl.commit_timeout: longest wait of a COMMIT for others, 0 none */
extern int	mgrepl_durability;			/* mgrepl.durability: MgDurability */
extern bool mgrepl_replicate;			/* mgrepl.replicate: superuser, per session; off: writes stay local */
extern bool mgrepl_dirty_reads;			/* mgrepl.dirty_reads: read also outside the primary component */
extern bool mgrepl_donor_rejects_queries;	/* mgrepl.donor_rejects_queries */
extern char *mgrepl_notify_command;		/* mgrepl.notify_command: an executable, "": none */

/* What has been done with a transaction when its client is told "committed". */
typedef enum MgDurability
{
	MG_DURABILITY_MEMORY,		/* a majority has it in memory */
	MG_DURABILITY_LOCAL,		/* and this node has it on disk */
	MG_DURABILITY_MAJORITY,		/* a majority has it on disk (default) */
	MG_DURABILITY_ALL,			/* every member that is not suspected has it on disk */
	MG_DURABILITY_APPLIED		/* majority, and every member that is not suspected has committed it */
} MgDurability;

extern void mgrepl_guc_define(void);		/* from _PG_init */

/*
 * Checks the syntax of a cluster address and counts its addresses; false
 * leaves the reason in GUC_check_errdetail and GUC_check_errhint.
 */
extern bool mgrepl_guc_check_cluster_address(const char *text, int *n);

#endif							/* MGREPL_GUC_H */
