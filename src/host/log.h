/*
 * host/log.h - the writeset log (gcache): segment files, appended in seqno
 * order, flushed in groups by a thread of its own.
 *
 * Files of segment_bytes, zero-filled ahead of use by the flusher thread so
 * that a flush touches no file-system metadata (PostgreSQL does the same with
 * its WAL), recycled by renaming.  A record larger than a segment gets a
 * segment of its own.  One owner (the event loop) calls everything here; only
 * the flusher thread runs beside it and shares what log.c says it shares.
 *
 * Append buffers in memory; mg_log_write hands the bytes to the kernel, from
 * where appliers can read them; a flush makes them durable.  Write, flush and
 * recycling never reorder: what is flushed is a prefix.
 *
 * Limits: over all segment files, the one made ahead counted in.  Up to
 * bytes_max everything is kept.  Beyond it the oldest segment is recycled when
 * nobody needs its records any more (mg_log_release); what others may still ask
 * for is kept in up to pages_max bytes more, and beyond that goes all the same
 * (mg_log_dropped).  What this node itself needs never goes: if it must, the log
 * grows past every limit and says so (mg_log_bytes).
 * A body has at most MG_RECORD_BODY_BYTES_MAX bytes.
 *
 * Opening scans all records, stops at the first torn or foreign record
 * (checksum, magic, seqno not dense) and cuts there.  If what goes had been
 * flushed, that is not a torn tail but damage: mg_log_damaged.  A log that holds
 * another history is emptied by mg_log_reset; files of two logs in one directory
 * are left alone.  The directory is locked: one process at a time has the log.
 */
#ifndef MG_HOST_LOG_H
#define MG_HOST_LOG_H

#include "core/base.h"
#include "host/segment.h"

typedef struct mg_log mg_log;

typedef struct mg_log_config
{
	const char *dir;			/* made if missing (mode 0700) */
	uint32_t	segment_bytes;	/* 1 MiB to 1 GiB; 16 MiB is the default of the extension */
	uint64_t	bytes_max;
	uint64_t	pages_max;		/* beyond bytes_max, for others only */
	uint32_t	flush_pace_us;	/* flushes begin at least this far apart: more records share one; 0: no pause */
	bool		sync;			/* false only in tests: no fdatasync */
	mg_recent  *recent;			/* what is appended is put there too, reads look there first; NULL: none */
} mg_log_config;

/*
 * Opens or makes the log and starts the flusher thread (all signals blocked).
 * On failure *out is NULL and `reason` says what and why: MG_E_IO, MG_E_STATE
 * (another process has it), MG_E_VERSION (nothing was touched), MG_E_FORMAT
 * (files of two logs, nothing was touched; or the configuration) and MG_E_TOO_BIG
 * (the configuration).  On success `reason` is empty, or says
 * where records that are not whole were cut off, and if they had been durable.
 */
extern mg_status mg_log_open(const mg_log_config *config, mg_log **out,
							 char reason[MG_REASON_BYTES_MAX]) MG_MUST_USE;
extern void mg_log_close(mg_log *log);		/* writes and flushes what is pending, joins the thread */

/*
 * Records that had been flushed were not there when the log was opened, now or
 * in an earlier life, and the log has not been flushed as far again since, nor
 * cut below them, nor emptied.
 */
extern bool mg_log_damaged(const mg_log *log);

/* 0 and 0 when empty; records are dense in between. */
extern mg_seqno mg_log_first(const mg_log *log);
extern mg_seqno mg_log_last(const mg_log *log);

/*
 * seqno must be last + 1, or any when the log is empty (else MG_E_STATE).
 * MG_E_TOO_BIG.  MG_E_IO: no file for the next segment (a full disk), the log
 * is unchanged and the call may be repeated; or a write failed, as below.
 * Places are told to others only after mg_log_write.
 */
extern mg_status mg_log_append(mg_log *log, mg_seqno seqno, const void *body, uint32_t len,
							   mg_log_place *place) MG_MUST_USE;

/* Hands all appended records to the kernel.  MG_E_IO: the log is broken from here on. */
extern mg_status mg_log_write(mg_log *log) MG_MUST_USE;

/* Asks the flusher to make all written records durable; returns at once. */
extern void mg_log_request_flush(mg_log *log);

/* A flush also happens by itself whenever a segment is full. */

/* Readable (eventfd) when mg_log_flushed has moved or the flusher failed; mg_log_flush_seen clears it. */
extern int	mg_log_flush_fd(const mg_log *log);
extern void mg_log_flush_seen(mg_log *log);
extern mg_seqno mg_log_flushed(const mg_log *log);	/* durable up to and with this seqno */
extern int	mg_log_flush_error(const mg_log *log);	/* errno of a failed flush, 0 if none: fatal for the node */
extern uint64_t mg_log_flush_count(const mg_log *log);	/* fdatasync calls for records so far (counted but not made without sync) */

/* MG_E_NOT_FOUND below first or above last. */
extern mg_status mg_log_find(const mg_log *log, mg_seqno seqno, mg_log_place *place) MG_MUST_USE;

/* Reads one record's body, written or still buffered, into `to` (place.len bytes). */
extern mg_status mg_log_read(mg_log *log, mg_seqno seqno, const mg_log_place *place, void *to) MG_MUST_USE;

/*
 * Records at or below `here` are no longer needed by this node, those at or
 * below `all` by nobody.  Either may fall back: then what is left is kept.
 */
extern void mg_log_release(mg_log *log, mg_seqno here, mg_seqno all);
extern void mg_log_set_limits(mg_log *log, uint64_t bytes_max, uint64_t pages_max);

/* Highest seqno that went although others might have needed it, 0: none. */
extern mg_seqno mg_log_dropped(const mg_log *log);

/*
 * Cuts everything above `seqno`, or everything: durably and atomically.  Both
 * wait for a flush that is under way, and for the disk: not for the hot path.
 * After MG_E_IO the log is broken.
 */
extern mg_status mg_log_truncate(mg_log *log, mg_seqno seqno) MG_MUST_USE;
extern mg_status mg_log_reset(mg_log *log) MG_MUST_USE;

extern uint64_t mg_log_bytes(const mg_log *log);		/* on disk */

#endif							/* MG_HOST_LOG_H */
