/*
 * host/log.c - the writeset log: one owner, one flusher thread.
 *
 * The owner (the node's event loop) appends into a buffer, writes the buffer
 * with one pwrite per segment, and never waits for the disk in the normal
 * case.  The flusher does what takes time: fdatasync, zero-filling the next
 * segment in small steps (a flush that is wanted goes first), renaming old
 * segments into new ones, removing files.  They share the block of fields
 * marked [mutex] and a few atomics, nothing else.  The flusher touches no
 * PostgreSQL and takes no signals.
 *
 * A segment's life:
 *
 *	spare.tmp       being zero-filled, or recycled: an old segment renamed to
 *	                this, its header zeroed; not part of the log
 *	N.seg, header 0 the spare: full size, durable, unused
 *	N.seg           current (written at its end), then only read
 *	retired         released and dropped from the index; the flusher recycles
 *	                or removes retired segments strictly in order, each made
 *	                durable before the next, so that what is left after a crash
 *	                is without a hole
 *
 * If the spare isn't ready when the owner needs it, the owner takes a new file
 * as it is, reserved but not zero-filled; the flush pays for that.
 *
 * What keeps old bytes from coming back: a record's crc covers the segment's
 * number (see segment.h), numbers are never given twice, and wherever the log
 * is cut (mg_log_truncate, a torn tail found by mg_log_open) the bytes behind
 * the cut are zeroed durably before anything is appended there.  Without the
 * zeroing a record of the same length, written over the first one cut, would
 * link up with the second.  Chaining each record's crc to the one before was
 * the alternative; an applier that reads one record could then not check it.
 *
 * A torn tail and damage look alike: a record that is not whole.  The difference
 * is whether it had been durable, which somebody may rely on; so the flusher
 * notes in a file beside the segments ("marks") how far it has flushed.  The
 * note is written after the flush, so it never says too much, and costs no
 * flush of its own but one a second: after a crash of the process it is exact,
 * after a loss of power at most a second (an idle log: half a minute) old.
 * Opening keeps what a note promised until the log reaches that far again.
 * The same file makes a truncation atomic: it names the cut before the first
 * byte goes, and whoever opens the log meanwhile finishes the work.
 *
 * Emptying the log is atomic: a new segment with a new log id becomes durable,
 * from then on files with another id are left-overs, removed at once or at the
 * next open.
 *
 * A failed fdatasync is never repeated: the kernel may have dropped the pages
 * and the second call would succeed.  The error stays until the node goes.
 */
#include "host/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "host/clock.h"

#define DIR_BYTES_MAX			1024
#define PATH_BYTES_MAX			1100	/* dir and name */
#define SEGMENT_BYTES_MIN		(1u << 20)
#define SEGMENT_BYTES_MAX		(1u << 30)
#define DIRECT_BYTES_MIN		(128u << 10)	/* records from here on skip the buffer */
#define FILL_STEP_BYTES			(1u << 20)	/* zero-filled between two looks at what is wanted */
#define SCAN_WINDOW_BYTES		(1u << 20)
#define MARKS_MAGIC				0x4d4c474du		/* "MGLM" */
#define MARKS_BYTES				36
#define MARKS_SYNC_US			1000000

static const uint8_t zeroes[64 * 1024];

typedef struct segment
{
	uint64_t	number;
	mg_seqno	first;
	uint64_t	file_bytes;
} segment;

/* A file with written bytes that are not durable, or that is only to be closed. */
typedef struct dirty_file
{
	uint64_t	segment;
	int			fd;
	bool		close_after;	/* the owner is done with it */
} dirty_file;

typedef struct retired_file
{
	uint64_t	segment;
	uint64_t	file_bytes;
} retired_file;

typedef enum spare_state
{
	SPARE_NONE = 0,				/* NONE → WANTED (owner asks) */
	SPARE_WANTED,				/* WANTED → READY (made), → NONE (could not be made) */
	SPARE_READY					/* READY → NONE (owner took it) */
} spare_state;

/* The file "marks". */
typedef struct log_marks
{
	uint64_t	id;				/* of the log; it says nothing about another one */
	mg_seqno	flushed;		/* was durable up to here */
	mg_seqno	cut;			/* being cut above this, 0: no */
} log_marks;

/* The flusher's own: the spare in the making. */
typedef struct spare_job
{
	bool		active;
	bool		recycled;
	int			fd;
	uint64_t	filled;
} spare_job;

struct mg_log
{
	/* [fixed at open] */
	char		dir[DIR_BYTES_MAX];
	uint32_t	segment_bytes;
	bool		sync;
	mg_recent  *recent;			/* or NULL */
	int			dir_fd;			/* locked: one process has the log */
	int			event_fd;
	int			marks_fd;
	bool		thread_started;
	pthread_t	thread;

	/* [owner] */
	uint64_t	id;
	bool		broken;			/* a write failed: nothing is appended any more */
	segment    *segments;		/* oldest first; each has a record at least */
	size_t		segments_len;
	size_t		segments_cap;
	uint64_t	segments_bytes; /* of their files */
	mg_log_place *places;		/* ring of places, first .. last */
	size_t		places_head;
	size_t		places_len;
	size_t		places_cap;		/* a power of two */
	mg_seqno	first;			/* 0 when empty */
	uint64_t	bytes_max;
	uint64_t	pages_max;
	mg_seqno	released_here;
	mg_seqno	released;		/* by everybody */
	mg_seqno	dropped;
	mg_seqno	promised;		/* an earlier life has noted it as flushed; read by the flusher, too */
	int			fd;				/* of the last segment, -1: none open */
	uint64_t	written_at;		/* bytes of it handed to the kernel */
	mg_buf		buffer;			/* the bytes behind */
	uint64_t	fresh;			/* made by mg_log_reset, to be used next; 0: none */
	int			fresh_fd;
	mg_segment_reader reader;

	pthread_mutex_t mutex;
	pthread_cond_t work;		/* the flusher waits here */
	pthread_cond_t idle;		/* the owner waits here, in truncate and reset */

	/* [mutex] */
	bool		stop;
	bool		flush_wanted;
	bool		busy;			/* the flusher works, outside the mutex */
	bool		pausing;		/* the owner wants it to begin nothing more */
	bool		dir_dirty;		/* a file of the log was made and its name is not durable */
	mg_seqno	written;		/* handed to the kernel up to here */
	dirty_file *dirty;
	size_t		dirty_len;
	size_t		dirty_cap;
	retired_file *retired;
	size_t		retired_len;
	size_t		retired_cap;
	uint64_t	number_last;	/* highest segment number given */
	spare_state spare;
	uint64_t	spare_number;
	int			spare_fd;

	uint32_t	flush_pace_us;	/* [fixed at start] */
	int64_t		last_flush_us;	/* [flusher] */
	int64_t		marks_sync_us;	/* [flusher] */

	/* [flusher; or under the mutex while not busy] */
	dirty_file *flushing;
	size_t		flushing_cap;
	spare_job	job;

	/* [atomic] */
	_Atomic uint64_t flushed;
	_Atomic uint64_t flush_count;
	_Atomic uint64_t bytes;
	_Atomic int flush_error;
};

/* ---- small things ---- */

static void
explain(char reason[MG_REASON_BYTES_MAX], const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void
explain(char reason[MG_REASON_BYTES_MAX], const char *format, ...)
{
	int			saved = errno;
	va_list		args;

	va_start(args, format);
	vsnprintf(reason, MG_REASON_BYTES_MAX, format, args);
	va_end(args);
	errno = saved;
}

static void
close_keep_errno(int fd)
{
	int			saved = errno;

	close(fd);
	errno = saved;
}

/* Makes room for one more element of `size` bytes. */
static void *
grow(void *array, size_t len, size_t *cap, size_t size)
{
	if (len < *cap)
		return array;
	*cap = *cap == 0 ? 16 : *cap * 2;
	return mg_realloc(array, *cap * size);
}

static void
lock(mg_log *log)
{
	MG_ASSERT(pthread_mutex_lock(&log->mutex) == 0);
}

static void
unlock(mg_log *log)
{
	MG_ASSERT(pthread_mutex_unlock(&log->mutex) == 0);
}

static void
path_of(const mg_log *log, uint64_t number, char path[PATH_BYTES_MAX])
{
	mg_segment_path(path, PATH_BYTES_MAX, log->dir, number);
}

static void
path_of_spare(const mg_log *log, char path[PATH_BYTES_MAX])
{
	snprintf(path, PATH_BYTES_MAX, "%s/spare.tmp", log->dir);
}

static int
sync_data(const mg_log *log, int fd)
{
	return log->sync ? fdatasync(fd) : 0;
}

static int
sync_dir(const mg_log *log)
{
	return log->sync ? fsync(log->dir_fd) : 0;
}

static void
path_of_marks(const mg_log *log, char path[PATH_BYTES_MAX])
{
	snprintf(path, PATH_BYTES_MAX, "%s/marks", log->dir);
}

/* Writes all parts, consuming them.  False with errno. */
static bool
write_parts(int fd, struct iovec *parts, int count, uint64_t offset)
{
	while (count > 0)
	{
		ssize_t		n = pwritev(fd, parts, count, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		offset += (uint64_t) n;
		while (count > 0 && (size_t) n >= parts->iov_len)
		{
			n -= (ssize_t) parts->iov_len;
			parts++;
			count--;
		}
		if (count > 0)
		{
			parts->iov_base = (uint8_t *) parts->iov_base + n;
			parts->iov_len -= (size_t) n;
		}
	}
	return true;
}

static bool
write_bytes(int fd, const void *bytes, size_t len, uint64_t offset)
{
	struct iovec part = {.iov_base = (void *) (uintptr_t) bytes, .iov_len = len};

	return write_parts(fd, &part, len > 0 ? 1 : 0, offset);
}

/* Within one sector, in place: no room on the disk is needed, and it is not torn. */
static bool
marks_write(const mg_log *log, const log_marks *marks)
{
	uint8_t		bytes[MARKS_BYTES];

	mg_store_u32(bytes, MARKS_MAGIC);
	mg_store_u32(bytes + 4, MG_LOG_VERSION);
	mg_store_u64(bytes + 8, marks->id);
	mg_store_u64(bytes + 16, marks->flushed);
	mg_store_u64(bytes + 24, marks->cut);
	mg_store_u32(bytes + 32, mg_crc32c(0, bytes, 32));
	return write_bytes(log->marks_fd, bytes, sizeof(bytes), 0);
}

/* What there is no going back behind. */
static mg_seqno
known_durable(const mg_log *log)
{
	mg_seqno	flushed = atomic_load(&log->flushed);

	return flushed > log->promised ? flushed : log->promised;
}

/* False: there are none, or not whole: then nothing is known. */
static bool
marks_read(const mg_log *log, log_marks *marks)
{
	uint8_t		bytes[MARKS_BYTES];

	if (pread(log->marks_fd, bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes) ||
		mg_load_u32(bytes) != MARKS_MAGIC || mg_load_u32(bytes + 4) != MG_LOG_VERSION ||
		mg_load_u32(bytes + 32) != mg_crc32c(0, bytes, 32))
		return false;
	*marks = (log_marks) {mg_load_u64(bytes + 8), mg_load_u64(bytes + 16), mg_load_u64(bytes + 24)};
	return true;
}

static bool
write_zeroes(int fd, uint64_t from, uint64_t to)
{
	while (from < to)
	{
		struct iovec parts[FILL_STEP_BYTES / sizeof(zeroes)];
		int			count = 0;
		uint64_t	at = from;

		while (at < to && count < (int) (FILL_STEP_BYTES / sizeof(zeroes)))
		{
			size_t		len = to - at < sizeof(zeroes) ? (size_t) (to - at) : sizeof(zeroes);

			parts[count].iov_base = (void *) (uintptr_t) zeroes;
			parts[count++].iov_len = len;
			at += len;
		}
		if (!write_parts(fd, parts, count, from))
			return false;
		from = at;
	}
	return true;
}

/* Reserves room on the disk where the file system can; so a full disk is met here and not by a write. */
static bool
reserve(int fd, uint64_t bytes)
{
	int			rc;

	do
		rc = fallocate(fd, 0, 0, (off_t) bytes);
	while (rc != 0 && errno == EINTR);
	return rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS;
}

static void
header_fill(uint8_t header[MG_SEGMENT_HEADER_BYTES], uint64_t number, mg_seqno first, uint64_t id)
{
	memset(header, 0, MG_SEGMENT_HEADER_BYTES);
	mg_store_u32(header, MG_SEGMENT_MAGIC);
	mg_store_u32(header + 4, MG_LOG_VERSION);
	mg_store_u64(header + 8, number);
	mg_store_u64(header + 16, first);
	mg_store_u64(header + 24, id);
	mg_store_u32(header + 60, mg_crc32c(0, header, 60));
}

/* ---- the index ---- */

static mg_log_place *
place_at(const mg_log *log, mg_seqno seqno)
{
	return &log->places[(log->places_head + (size_t) (seqno - log->first)) & (log->places_cap - 1)];
}

static void
index_push(mg_log *log, mg_seqno seqno, const mg_log_place *place)
{
	if (log->places_len == log->places_cap)
	{
		size_t		cap = log->places_cap == 0 ? 1024 : log->places_cap * 2;
		mg_log_place *places = mg_realloc(NULL, cap * sizeof(*places));

		for (size_t i = 0; i < log->places_len; i++)
			places[i] = *place_at(log, log->first + i);
		mg_free(log->places);
		log->places = places;
		log->places_cap = cap;
		log->places_head = 0;
	}
	if (log->places_len == 0)
		log->first = seqno;
	log->places_len++;
	*place_at(log, seqno) = *place;
}

static void
index_clear(mg_log *log)
{
	log->places_head = log->places_len = 0;
	log->first = 0;
}

static void
segment_push(mg_log *log, uint64_t number, mg_seqno first, uint64_t file_bytes)
{
	log->segments = grow(log->segments, log->segments_len, &log->segments_cap, sizeof(segment));
	log->segments[log->segments_len++] = (segment) {number, first, file_bytes};
	log->segments_bytes += file_bytes;
}

static segment *
segment_last(const mg_log *log)
{
	return &log->segments[log->segments_len - 1];
}

mg_seqno
mg_log_first(const mg_log *log)
{
	return log->first;
}

mg_seqno
mg_log_last(const mg_log *log)
{
	return log->places_len == 0 ? 0 : log->first + log->places_len - 1;
}

mg_status
mg_log_find(const mg_log *log, mg_seqno seqno, mg_log_place *place)
{
	if (log->places_len == 0 || seqno < log->first || seqno > mg_log_last(log))
		return MG_E_NOT_FOUND;
	*place = *place_at(log, seqno);
	return MG_OK;
}

/* ---- the flusher ---- */

/* The log can't keep its promises any more; the first error stays. */
static void
flusher_failed(mg_log *log, int error)
{
	int			none = 0;

	atomic_compare_exchange_strong(&log->flush_error, &none, error != 0 ? error : EIO);
}

static void
tell_owner(mg_log *log)
{
	uint64_t	one = 1;

	/* Full only after 2^64 unseen flushes; the descriptor is readable then anyway. */
	while (write(log->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/*
 * Notes how far the log is durable.  If that fails the note is old, and says too
 * little: no harm.  The mutex is not held, but the owner waits for this thread
 * before it changes id or promised.
 */
static void
flusher_note(mg_log *log)
{
	log_marks	marks = {log->id, known_durable(log), 0};
	int64_t		now = mg_clock_monotonic_us();

	(void) marks_write(log, &marks);
	if (now - log->marks_sync_us >= MARKS_SYNC_US)
	{
		log->marks_sync_us = now;
		(void) sync_data(log, log->marks_fd);
	}
}

/* Makes everything written so far durable.  In and out with the mutex held. */
static void
flusher_flush(mg_log *log)
{
	dirty_file *files = log->dirty;
	size_t		cap = log->dirty_cap;
	size_t		len = log->dirty_len;
	mg_seqno	target = log->written;
	bool		dir_dirty = log->dir_dirty;

	log->dirty = log->flushing;
	log->dirty_cap = log->flushing_cap;
	log->dirty_len = 0;
	log->flushing = files;
	log->flushing_cap = cap;
	log->dir_dirty = false;
	log->flush_wanted = false;
	unlock(log);

	if (dir_dirty && sync_dir(log) != 0)
		flusher_failed(log, errno);
	for (size_t i = 0; i < len; i++)
	{
		if (atomic_load(&log->flush_error) == 0)
		{
			if (sync_data(log, files[i].fd) != 0)
				flusher_failed(log, errno);
			atomic_fetch_add(&log->flush_count, 1);
		}
		if (files[i].close_after)
			close(files[i].fd);
	}

	if (atomic_load(&log->flush_error) == 0)
	{
		atomic_store(&log->flushed, target);
		tell_owner(log);
		flusher_note(log);
	}
	else
		tell_owner(log);
	lock(log);
}

static void
flusher_remove(mg_log *log, const retired_file *file)
{
	char		path[PATH_BYTES_MAX];

	path_of(log, file->segment, path);
	if (unlink(path) != 0 || sync_dir(log) != 0)
	{
		flusher_failed(log, errno);
		tell_owner(log);
		return;
	}
	atomic_fetch_sub(&log->bytes, file->file_bytes);
}

/*
 * Gives the spare up; the owner makes its segments itself, and meets the error
 * (a full disk, say) there.  The file's bytes were counted when it began.
 */
static void
spare_abandon(mg_log *log)
{
	char		path[PATH_BYTES_MAX];

	path_of_spare(log, path);
	if (log->job.fd >= 0)
		close(log->job.fd);
	unlink(path);
	atomic_fetch_sub(&log->bytes, log->segment_bytes);
	log->job = (spare_job) {.fd = -1};
	lock(log);
	log->spare = SPARE_NONE;
	unlock(log);
}

static void
spare_begin(mg_log *log)
{
	char		path[PATH_BYTES_MAX];

	log->job = (spare_job) {.active = true, .fd = -1};
	atomic_fetch_add(&log->bytes, log->segment_bytes);
	path_of_spare(log, path);
	log->job.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (log->job.fd < 0 || !reserve(log->job.fd, log->segment_bytes))
		spare_abandon(log);
}

/*
 * The old name goes durably before the content is touched: a crash finds a
 * whole old segment, or none.
 */
static void
spare_begin_recycled(mg_log *log, const retired_file *file)
{
	char		from[PATH_BYTES_MAX];
	char		to[PATH_BYTES_MAX];

	path_of(log, file->segment, from);
	path_of_spare(log, to);
	log->job = (spare_job) {.active = true, .recycled = true, .fd = -1};
	if (rename(from, to) != 0 || sync_dir(log) != 0)
	{
		flusher_failed(log, errno);
		tell_owner(log);
		spare_abandon(log);
		return;
	}
	log->job.filled = log->segment_bytes;
	log->job.fd = open(to, O_RDWR | O_CLOEXEC);
	if (log->job.fd < 0 ||
		!write_bytes(log->job.fd, zeroes, MG_SEGMENT_HEADER_BYTES, 0))
		spare_abandon(log);
}

/* Durable with its content, the spare gets the highest number, durably. */
static void
spare_finish(mg_log *log)
{
	char		from[PATH_BYTES_MAX];
	char		to[PATH_BYTES_MAX];
	uint64_t	number;
	bool		ready;

	path_of_spare(log, from);
	if (sync_data(log, log->job.fd) != 0)
	{
		spare_abandon(log);
		return;
	}
	do
	{
		lock(log);
		number = ++log->number_last;
		unlock(log);

		path_of(log, number, to);
		if (rename(from, to) != 0 || sync_dir(log) != 0)
		{
			/* Nothing of the log is lost, but a directory that can't be synced is the end. */
			flusher_failed(log, errno);
			tell_owner(log);
			spare_abandon(log);
			return;
		}
		memcpy(from, to, sizeof(from));

		/* The owner may have given itself a number meanwhile: then once more. */
		lock(log);
		ready = number == log->number_last;
		if (ready)
		{
			log->spare = SPARE_READY;
			log->spare_number = number;
			log->spare_fd = log->job.fd;
			log->job = (spare_job) {.fd = -1};
		}
		unlock(log);
	} while (!ready);
}

/* A small step, so that a flush never waits long for this. */
static void
spare_step(mg_log *log)
{
	spare_job  *job = &log->job;
	uint64_t	to = job->filled + FILL_STEP_BYTES;

	if (job->filled == log->segment_bytes)
	{
		spare_finish(log);
		return;
	}
	if (to > log->segment_bytes)
		to = log->segment_bytes;
	if (!write_zeroes(job->fd, job->filled, to) || sync_data(log, job->fd) != 0)
		spare_abandon(log);
	else
		job->filled = to;
}

/* The next retired segment is reused, or removed if that isn't possible.  With the mutex held. */
static void
flusher_retire(mg_log *log)
{
	retired_file file = log->retired[0];
	bool		reuse = log->spare == SPARE_WANTED && !log->job.active &&
		file.file_bytes == log->segment_bytes;

	log->retired_len--;
	memmove(log->retired, log->retired + 1, log->retired_len * sizeof(retired_file));
	unlock(log);
	if (reuse)
		spare_begin_recycled(log, &file);
	else
		flusher_remove(log, &file);
	lock(log);
}

/* With the mutex held. */
static void
flusher_wait(mg_log *log)
{
	log->busy = false;
	pthread_cond_signal(&log->idle);
	pthread_cond_wait(&log->work, &log->mutex);
}

/*
 * Under load a flush that begins as soon as there is something finds little to
 * share it.  Alone, the pause has long passed.  With the mutex held.
 */
static void
flusher_pace(mg_log *log)
{
	int64_t		now = mg_clock_monotonic_us();
	int64_t		rest = log->last_flush_us + log->flush_pace_us - now;

	if (rest > 0 && !log->stop)
	{
		struct timespec pause = {.tv_nsec = rest * 1000};

		unlock(log);
		(void) nanosleep(&pause, NULL);
		lock(log);
		now += rest;
	}
	log->last_flush_us = now;
}

static void *
flusher_main(void *arg)
{
	mg_log	   *log = arg;

	lock(log);
	for (;;)
	{
		log->busy = true;
		if (log->pausing)
			flusher_wait(log);
		else if (log->flush_wanted)
		{
			flusher_pace(log);
			flusher_flush(log);
		}
		else if (log->retired_len > 0)
			flusher_retire(log);
		else if (log->stop)
			break;
		else if (log->spare == SPARE_WANTED)
		{
			unlock(log);
			if (log->job.active)
				spare_step(log);
			else
				spare_begin(log);
			lock(log);
		}
		else
			flusher_wait(log);
	}
	unlock(log);
	return NULL;
}

static bool
flusher_start(mg_log *log)
{
	sigset_t	all;
	sigset_t	before;
	int			rc;

	/* A new thread inherits the mask: no signal of PostgreSQL's ever lands in it. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&log->thread, NULL, flusher_main, log);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	log->thread_started = rc == 0;
	errno = rc;
	return rc == 0;
}

/* Takes the mutex when the flusher works on nothing; it begins nothing until unlock_idle. */
static void
lock_idle(mg_log *log)
{
	lock(log);
	log->pausing = true;
	while (log->busy)
		pthread_cond_wait(&log->idle, &log->mutex);
}

static void
unlock_idle(mg_log *log)
{
	log->pausing = false;
	pthread_cond_signal(&log->work);
	unlock(log);
}

int
mg_log_flush_fd(const mg_log *log)
{
	return log->event_fd;
}

void
mg_log_flush_seen(mg_log *log)
{
	uint64_t	count;

	while (read(log->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

mg_seqno
mg_log_flushed(const mg_log *log)
{
	return atomic_load(&log->flushed);
}

bool
mg_log_damaged(const mg_log *log)
{
	return log->promised > atomic_load(&log->flushed);
}

int
mg_log_flush_error(const mg_log *log)
{
	return atomic_load(&log->flush_error);
}

uint64_t
mg_log_flush_count(const mg_log *log)
{
	return atomic_load(&log->flush_count);
}

uint64_t
mg_log_bytes(const mg_log *log)
{
	return atomic_load(&log->bytes);
}

void
mg_log_request_flush(mg_log *log)
{
	lock(log);
	if (log->written != atomic_load(&log->flushed) && !log->flush_wanted)
	{
		log->flush_wanted = true;
		pthread_cond_signal(&log->work);
	}
	unlock(log);
}

/* ---- appending ---- */

/* With the mutex held. */
static void
dirty_push(mg_log *log, uint64_t number, int fd, bool close_after)
{
	if (log->dirty_len > 0 && log->dirty[log->dirty_len - 1].fd == fd)
	{
		log->dirty[log->dirty_len - 1].close_after |= close_after;
		return;
	}
	log->dirty = grow(log->dirty, log->dirty_len, &log->dirty_cap, sizeof(dirty_file));
	log->dirty[log->dirty_len++] = (dirty_file) {number, fd, close_after};
}

/* Everything up to and with `last` is in the kernel, `bytes` more in the current file. */
static void
note_written(mg_log *log, uint64_t bytes, mg_seqno last)
{
	log->written_at += bytes;
	lock(log);
	log->written = last;
	dirty_push(log, segment_last(log)->number, log->fd, false);
	unlock(log);
}

static mg_status
give_up(mg_log *log)
{
	log->broken = true;
	return MG_E_IO;
}

mg_status
mg_log_write(mg_log *log)
{
	if (log->broken)
	{
		errno = EIO;
		return MG_E_IO;
	}
	if (log->buffer.len == 0)
		return MG_OK;
	if (!write_bytes(log->fd, log->buffer.data, log->buffer.len, log->written_at))
		return give_up(log);
	note_written(log, log->buffer.len, mg_log_last(log));
	mg_buf_reset(&log->buffer);
	return MG_OK;
}

typedef struct new_file
{
	uint64_t	number;
	int			fd;
	bool		spare;			/* else made just now */
} new_file;

/* Gives the number and file of the next segment.  False with errno, and nothing has changed. */
static bool
take_file(mg_log *log, uint64_t bytes, new_file *file)
{
	char		path[PATH_BYTES_MAX];

	/* A segment made by mg_log_reset has a lower number than any spare made after it. */
	if (log->fresh != 0)
	{
		*file = (new_file) {log->fresh, log->fresh_fd, false};
		if (!reserve(file->fd, bytes))
			return false;
		log->fresh = 0;
		return true;
	}

	lock(log);
	*file = (new_file) {log->spare_number, log->spare_fd, log->spare == SPARE_READY};
	if (!file->spare)
		file->number = ++log->number_last;
	unlock(log);

	if (file->spare)
	{
		if (bytes > log->segment_bytes && !reserve(file->fd, bytes))
			return false;
		lock(log);
		log->spare = SPARE_NONE;
		unlock(log);
		return true;
	}

	path_of(log, file->number, path);
	file->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file->fd < 0)
		return false;
	if (!reserve(file->fd, bytes))
	{
		close_keep_errno(file->fd);
		unlink(path);
		return false;
	}
	return true;
}

/* The oldest segment leaves the index; the flusher reuses or removes its file.  With the mutex held. */
static void
retire_first(mg_log *log)
{
	segment		old = log->segments[0];
	size_t		records = (size_t) (log->segments[1].first - old.first);

	if (log->segments[1].first - 1 > log->released)
		log->dropped = log->segments[1].first - 1;
	log->segments_len--;
	log->segments_bytes -= old.file_bytes;
	memmove(log->segments, log->segments + 1, log->segments_len * sizeof(segment));
	log->places_head = (log->places_head + records) & (log->places_cap - 1);
	log->places_len -= records;
	log->first = log->segments[0].first;
	log->retired = grow(log->retired, log->retired_len, &log->retired_cap, sizeof(retired_file));
	log->retired[log->retired_len++] = (retired_file) {old.number, old.file_bytes};
}

/*
 * Over the limit, the spare counted in, and the oldest segment isn't needed: by
 * nobody, or over the last limit by this node.
 */
static bool
too_big(const mg_log *log)
{
	uint64_t	bytes = log->segments_bytes + log->segment_bytes;
	mg_seqno	last;

	if (bytes <= log->bytes_max || log->segments_len < 2)
		return false;
	last = log->segments[1].first - 1;
	return last <= log->released_here && (last <= log->released || bytes - log->bytes_max > log->pages_max);
}

/* Opens the segment for a record of `need` bytes.  MG_E_IO: unchanged, unless broken. */
static mg_status
next_segment(mg_log *log, mg_seqno seqno, uint64_t need)
{
	uint64_t	bytes = MG_SEGMENT_HEADER_BYTES + need;
	uint8_t		header[MG_SEGMENT_HEADER_BYTES];
	new_file	file;

	if (bytes < log->segment_bytes)
		bytes = log->segment_bytes;
	if (mg_log_write(log) != MG_OK)
		return MG_E_IO;
	if (!take_file(log, bytes, &file))
		return MG_E_IO;

	/* Flushing once per segment even if nobody asks keeps few files open. */
	lock(log);
	if (log->fd >= 0)
	{
		dirty_push(log, segment_last(log)->number, log->fd, true);
		log->flush_wanted = true;
	}
	if (!file.spare)
		log->dir_dirty = true;

	atomic_fetch_add(&log->bytes, file.spare ? bytes - log->segment_bytes : bytes);
	segment_push(log, file.number, seqno, bytes);
	log->fd = file.fd;
	log->written_at = 0;
	header_fill(header, file.number, seqno, log->id);
	mg_buf_put(&log->buffer, header, sizeof(header));

	/* Both under one hold of the mutex: so the flusher sees what it may reuse. */
	while (too_big(log))
		retire_first(log);
	if (log->spare == SPARE_NONE)
		log->spare = SPARE_WANTED;
	pthread_cond_signal(&log->work);
	unlock(log);
	return MG_OK;
}

mg_status
mg_log_append(mg_log *log, mg_seqno seqno, const void *body, uint32_t len, mg_log_place *place)
{
	uint8_t		header[MG_RECORD_HEADER_BYTES];
	uint64_t	need = mg_record_bytes(len);
	size_t		padding = (size_t) (need - MG_RECORD_HEADER_BYTES - len);

	if (seqno == 0 || (log->places_len > 0 && seqno != mg_log_last(log) + 1))
		return MG_E_STATE;
	if (len > MG_RECORD_BODY_BYTES_MAX)
		return MG_E_TOO_BIG;
	if (log->broken)
	{
		errno = EIO;
		return MG_E_IO;
	}
	if (log->fd < 0 || log->written_at + log->buffer.len + need > log->segment_bytes)
	{
		mg_status	status = next_segment(log, seqno, need);

		if (status != MG_OK)
			return status;
	}

	place->segment = segment_last(log)->number;
	place->len = len;
	mg_record_seal(header, place->segment, seqno, body, len);
	if (need < DIRECT_BYTES_MIN)
	{
		place->offset = (uint32_t) (log->written_at + log->buffer.len);
		mg_buf_reserve(&log->buffer, (size_t) need);
		mg_buf_put(&log->buffer, header, sizeof(header));
		mg_buf_put(&log->buffer, body, len);
		mg_buf_put(&log->buffer, zeroes, padding);
	}
	else
	{
		/* A copy would cost more than a system call. */
		struct iovec parts[4] = {
			{.iov_base = log->buffer.data, .iov_len = log->buffer.len},
			{.iov_base = header, .iov_len = sizeof(header)},
			{.iov_base = (void *) (uintptr_t) body, .iov_len = len},
			{.iov_base = (void *) (uintptr_t) zeroes, .iov_len = padding},
		};
		uint64_t	bytes = log->buffer.len + need;

		place->offset = (uint32_t) (log->written_at + log->buffer.len);
		if (!write_parts(log->fd, parts, 4, log->written_at))
			return give_up(log);
		mg_buf_reset(&log->buffer);
		note_written(log, bytes, seqno);
	}
	index_push(log, seqno, place);
	if (log->recent != NULL)
		mg_recent_put(log->recent, seqno, place, body);
	return MG_OK;
}

mg_status
mg_log_read(mg_log *log, mg_seqno seqno, const mg_log_place *place, void *to)
{
	if (log->fd >= 0 && place->segment == segment_last(log)->number &&
		place->offset >= log->written_at)
	{
		uint64_t	at = place->offset - log->written_at;

		if (at + MG_RECORD_HEADER_BYTES + place->len > log->buffer.len ||
			mg_load_u64(log->buffer.data + at + 16) != seqno ||
			mg_load_u32(log->buffer.data + at + 4) != place->len)
			return MG_E_NOT_FOUND;
		if (place->len > 0)
			memcpy(to, log->buffer.data + at + MG_RECORD_HEADER_BYTES, place->len);
		return MG_OK;
	}
	return mg_segment_read(&log->reader, place, seqno, to);
}

static void
retire_what_may_go(mg_log *log)
{
	if (!too_big(log))
		return;
	lock(log);
	while (too_big(log))
		retire_first(log);
	pthread_cond_signal(&log->work);
	unlock(log);
}

void
mg_log_release(mg_log *log, mg_seqno here, mg_seqno all)
{
	log->released_here = here;
	log->released = all < here ? all : here;
	retire_what_may_go(log);
}

void
mg_log_set_limits(mg_log *log, uint64_t bytes_max, uint64_t pages_max)
{
	log->bytes_max = bytes_max;
	log->pages_max = pages_max;
	retire_what_may_go(log);
}

mg_seqno
mg_log_dropped(const mg_log *log)
{
	return log->dropped;
}

/* ---- cutting ---- */

static int
remove_file(mg_log *log, uint64_t number)
{
	char		path[PATH_BYTES_MAX];

	path_of(log, number, path);
	return unlink(path);
}

/* Forgets files above `number`.  With the mutex held and the flusher idle. */
static void
dirty_forget(mg_log *log, uint64_t number)
{
	size_t		kept = 0;

	for (size_t i = 0; i < log->dirty_len; i++)
	{
		if (log->dirty[i].segment <= number)
			log->dirty[kept++] = log->dirty[i];
		else if (log->dirty[i].close_after)
			close(log->dirty[i].fd);
	}
	log->dirty_len = kept;
}

/* Zeroes [from, to) of the current file, durably. */
static bool
wipe(mg_log *log, uint64_t from, uint64_t to)
{
	return write_zeroes(log->fd, from, to) && sync_data(log, log->fd) == 0;
}

/* Removes the segments behind the one at `keep`, and makes that the current one.  As above. */
static bool
cut_segments(mg_log *log, size_t keep)
{
	char		path[PATH_BYTES_MAX];

	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
	dirty_forget(log, log->segments[keep].number);
	while (log->segments_len - 1 > keep)
	{
		segment    *gone = segment_last(log);

		if (remove_file(log, gone->number) != 0)
			return false;
		atomic_fetch_sub(&log->bytes, gone->file_bytes);
		log->segments_bytes -= gone->file_bytes;
		log->segments_len--;
	}
	path_of(log, segment_last(log)->number, path);
	log->fd = open(path, O_RDWR | O_CLOEXEC);
	return log->fd >= 0;
}

/* With the mutex held and the flusher idle; errno on false. */
static bool
cut_locked(mg_log *log, mg_seqno seqno)
{
	mg_log_place last = *place_at(log, seqno);
	uint64_t	cut = last.offset + mg_record_bytes(last.len);
	size_t		keep = log->segments_len - 1;

	while (log->segments[keep].number != last.segment)
		keep--;
	if (keep < log->segments_len - 1)
	{
		mg_log_place end = *place_at(log, log->segments[keep + 1].first - 1);

		mg_buf_reset(&log->buffer);
		if (!cut_segments(log, keep) || sync_dir(log) != 0)
			return false;
		log->written_at = end.offset + mg_record_bytes(end.len);
	}
	if (cut >= log->written_at)
		log->buffer.len = (size_t) (cut - log->written_at);
	else
	{
		mg_buf_reset(&log->buffer);
		if (!wipe(log, cut, log->written_at))
			return false;
		log->written_at = cut;
	}
	log->places_len = (size_t) (seqno - log->first + 1);
	return true;
}

/* As above.  Nothing is marked when all that goes is still in memory. */
static bool
truncate_locked(mg_log *log, mg_seqno seqno)
{
	bool		marked = log->written > seqno;
	log_marks	marks = {log->id, known_durable(log), seqno};

	if (marks.flushed > seqno)
		marks.flushed = seqno;
	if (marked && (!marks_write(log, &marks) || sync_data(log, log->marks_fd) != 0))
		return false;
	if (!cut_locked(log, seqno))
		return false;
	marks.cut = 0;
	if (marked && (!marks_write(log, &marks) || sync_data(log, log->marks_fd) != 0))
		return false;
	if (log->promised > seqno)
		log->promised = seqno;
	if (log->released_here > seqno)
		log->released_here = seqno;
	if (log->released > seqno)
		log->released = seqno;
	if (log->dropped > seqno)
		log->dropped = seqno;
	if (log->written > seqno)
		log->written = seqno;
	if (atomic_load(&log->flushed) > seqno)
		atomic_store(&log->flushed, seqno);
	return true;
}

mg_status
mg_log_truncate(mg_log *log, mg_seqno seqno)
{
	bool		ok;

	if (log->places_len == 0 || seqno >= mg_log_last(log))
		return MG_OK;
	if (seqno < log->first)
		return mg_log_reset(log);
	if (log->broken)
	{
		errno = EIO;
		return MG_E_IO;
	}
	lock_idle(log);
	ok = truncate_locked(log, seqno);
	unlock_idle(log);
	return ok ? MG_OK : give_up(log);
}

/* A durable empty segment with a new log id: from here on the log is empty. */
static bool
reset_begin(mg_log *log, uint64_t id, uint64_t number, int *fd)
{
	uint8_t		header[MG_SEGMENT_HEADER_BYTES];
	char		path[PATH_BYTES_MAX];

	path_of(log, number, path);
	*fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*fd < 0)
		return false;
	header_fill(header, number, 0, id);
	if (!write_bytes(*fd, header, sizeof(header), 0) ||
		sync_data(log, *fd) != 0 || sync_dir(log) != 0)
	{
		close_keep_errno(*fd);
		return false;
	}
	return true;
}

/* With the mutex held and the flusher idle; errno on false. */
static bool
reset_locked(mg_log *log)
{
	uint64_t	number = ++log->number_last;
	uint64_t	id;
	int			fd;

	if (mg_random_bytes(&id, sizeof(id)) != MG_OK || !reset_begin(log, id, number, &fd))
		return false;

	mg_buf_reset(&log->buffer);
	dirty_forget(log, 0);
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
	index_clear(log);
	log->released_here = log->released = log->dropped = 0;
	log->promised = 0;
	log->written = 0;
	log->flush_wanted = false;
	atomic_store(&log->flushed, 0);
	mg_segment_reader_close(&log->reader);

	/* A spare that is ready has a lower number than the new segment: of no use. */
	if (log->spare == SPARE_READY)
	{
		close(log->spare_fd);
		log->spare = SPARE_NONE;
		if (remove_file(log, log->spare_number) != 0)
			return false;
		atomic_fetch_sub(&log->bytes, log->segment_bytes);
	}
	if (log->fresh != 0)
	{
		close(log->fresh_fd);
		if (remove_file(log, log->fresh) != 0)
			return false;
	}
	log->fresh = number;
	log->fresh_fd = fd;
	log->id = id;
	while (log->segments_len > 0)
	{
		segment    *gone = segment_last(log);

		if (remove_file(log, gone->number) != 0)
			return false;
		atomic_fetch_sub(&log->bytes, gone->file_bytes);
		log->segments_bytes -= gone->file_bytes;
		log->segments_len--;
	}

	/* Durable before anything is appended: see recovery_id. */
	return sync_dir(log) == 0 && marks_write(log, &(log_marks) {id, 0, 0}) && sync_data(log, log->marks_fd) == 0;
}

mg_status
mg_log_reset(mg_log *log)
{
	bool		ok;

	if (log->broken)
	{
		errno = EIO;
		return MG_E_IO;
	}
	lock_idle(log);
	ok = reset_locked(log);
	unlock_idle(log);
	return ok ? MG_OK : give_up(log);
}

/* ---- opening: what is there, what is whole, what goes ---- */

typedef struct found_file
{
	uint64_t	number;
	uint64_t	file_bytes;
	bool		valid;			/* the header verifies and names this number */
	bool		kept;
	mg_seqno	first;
	uint64_t	id;
} found_file;

typedef struct recovery
{
	mg_log	   *log;
	log_marks	marks;			/* of this log; zeros if nothing is known */
	found_file *files;			/* by number */
	size_t		len;
	size_t		cap;
	uint8_t    *window;			/* SCAN_WINDOW_BYTES */
	char	   *reason;

	/* the file being scanned */
	int			fd;
	uint64_t	file_bytes;
	uint64_t	window_at;
	size_t		window_len;
	bool		io_failed;
} recovery;

/* `len` bytes at `offset`, at most a window; NULL behind the end of the file or when reading fails. */
static const uint8_t *
scan_bytes(recovery *r, uint64_t offset, size_t len)
{
	if (offset + len > r->file_bytes)
		return NULL;
	if (offset < r->window_at || offset + len > r->window_at + r->window_len)
	{
		r->window_at = offset;
		r->window_len = 0;
		while (r->window_len < SCAN_WINDOW_BYTES)
		{
			ssize_t		n = pread(r->fd, r->window + r->window_len,
								  SCAN_WINDOW_BYTES - r->window_len,
								  (off_t) (offset + r->window_len));

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				r->io_failed = true;
			if (n <= 0)
				break;
			r->window_len += (size_t) n;
		}
		if (r->window_len < len)
			return NULL;
	}
	return r->window + (offset - r->window_at);
}

static bool
scan_open(recovery *r, const found_file *file)
{
	char		path[PATH_BYTES_MAX];

	path_of(r->log, file->number, path);
	r->fd = open(path, O_RDWR | O_CLOEXEC);
	r->file_bytes = file->file_bytes;
	r->window_at = 0;
	r->window_len = 0;
	if (r->fd < 0)
	{
		explain(r->reason, "cannot open \"%s\": %s", path, strerror(errno));
		return false;
	}
	return true;
}

static mg_status
read_failed(recovery *r, uint64_t number)
{
	explain(r->reason, "cannot read log segment %" PRIu64 " in \"%s\": %s",
			number, r->log->dir, strerror(errno));
	return MG_E_IO;
}

typedef enum scan_outcome
{
	SCAN_END = 0,				/* nothing that belongs here */
	SCAN_RECORD,
	SCAN_TORN					/* it would be the next record, but it is not whole */
} scan_outcome;

static scan_outcome
scan_record(recovery *r, uint64_t number, uint64_t offset, mg_seqno seqno, uint32_t *len)
{
	const uint8_t *bytes = scan_bytes(r, offset, MG_RECORD_HEADER_BYTES);
	uint64_t	at = offset + MG_RECORD_HEADER_BYTES;
	uint64_t	end;
	uint32_t	crc;
	uint32_t	expected;

	if (bytes == NULL || mg_load_u32(bytes) != MG_RECORD_MAGIC ||
		mg_load_u64(bytes + 16) != seqno)
		return SCAN_END;
	*len = mg_load_u32(bytes + 4);
	expected = mg_load_u32(bytes + 8);
	end = at + *len;
	if (*len > MG_RECORD_BODY_BYTES_MAX || end > r->file_bytes ||
		mg_load_u32(bytes + 12) != MG_LOG_VERSION)
		return SCAN_TORN;
	crc = mg_record_crc_begin(bytes, number);
	while (at < end)
	{
		size_t		part = end - at < SCAN_WINDOW_BYTES ? (size_t) (end - at) : SCAN_WINDOW_BYTES;

		/* Take what the window still holds before it moves. */
		if (at < r->window_at + r->window_len && part > r->window_at + r->window_len - at)
			part = (size_t) (r->window_at + r->window_len - at);
		bytes = scan_bytes(r, at, part);
		if (bytes == NULL)
			return SCAN_TORN;
		crc = mg_crc32c(crc, bytes, part);
		at += part;
	}
	return crc == expected ? SCAN_RECORD : SCAN_TORN;
}

/* Zeroes what lies behind the cut, unless it is zero already. */
static bool
scan_wipe(recovery *r, uint64_t cut)
{
	for (uint64_t at = cut; at < r->file_bytes;)
	{
		size_t		len = r->file_bytes - at < sizeof(zeroes) ? (size_t) (r->file_bytes - at) : sizeof(zeroes);
		const uint8_t *bytes = scan_bytes(r, at, len);

		if (bytes == NULL)
			return false;
		if (memcmp(bytes, zeroes, len) != 0)
			return write_zeroes(r->fd, at, r->file_bytes);
		at += len;
	}
	return true;
}

/* Puts a segment's records into the index; `cut` is where they end. */
static mg_status
scan_segment(recovery *r, found_file *file, uint64_t *cut)
{
	mg_log	   *log = r->log;
	mg_seqno	seqno = file->first;
	uint64_t	offset = MG_SEGMENT_HEADER_BYTES;
	scan_outcome outcome = SCAN_END;
	uint32_t	len;

	while (offset <= UINT32_MAX && (r->marks.cut == 0 || seqno <= r->marks.cut) &&
		   (outcome = scan_record(r, file->number, offset, seqno, &len)) == SCAN_RECORD)
	{
		mg_log_place place = {file->number, (uint32_t) offset, len};

		index_push(log, seqno++, &place);
		offset += mg_record_bytes(len);
	}
	if (r->io_failed)
		return read_failed(r, file->number);
	if (outcome == SCAN_TORN)
		explain(r->reason, "cut at seqno %" PRIu64 ": torn record in segment %" PRIu64 " at byte %" PRIu64,
				seqno, file->number, offset);
	*cut = offset;
	file->kept = seqno > file->first;
	return MG_OK;
}

static int
by_number(const void *a, const void *b)
{
	uint64_t	x = ((const found_file *) a)->number;
	uint64_t	y = ((const found_file *) b)->number;

	return x < y ? -1 : x > y;
}

/* "<16 lower-case hex digits>.seg", not 0. */
static bool
parse_name(const char *name, uint64_t *number)
{
	if (strspn(name, "0123456789abcdef") != 16 || strcmp(name + 16, ".seg") != 0)
		return false;
	*number = strtoull(name, NULL, 16);
	return *number != 0 && *number <= INT64_MAX;
}

static mg_status
recovery_list(recovery *r)
{
	DIR		   *dir = opendir(r->log->dir);
	struct dirent *entry;

	if (dir == NULL)
	{
		explain(r->reason, "cannot list \"%s\": %s", r->log->dir, strerror(errno));
		return MG_E_IO;
	}
	while ((errno = 0, entry = readdir(dir)) != NULL)
	{
		found_file	file = {0};

		if (!parse_name(entry->d_name, &file.number))
			continue;
		r->files = grow(r->files, r->len, &r->cap, sizeof(found_file));
		r->files[r->len++] = file;
	}
	if (errno != 0)
	{
		explain(r->reason, "cannot list \"%s\": %s", r->log->dir, strerror(errno));
		closedir(dir);
		return MG_E_IO;
	}
	closedir(dir);
	if (r->len > 0)
		qsort(r->files, r->len, sizeof(found_file), by_number);
	return MG_OK;
}

/* A header that verifies but has another version: not ours to cut. */
static mg_status
recovery_header(recovery *r, found_file *file)
{
	const uint8_t *header;
	struct stat st;
	mg_status	status = MG_OK;

	if (!scan_open(r, file))
		return MG_E_IO;
	if (fstat(r->fd, &st) != 0)
		status = read_failed(r, file->number);
	else
	{
		r->file_bytes = file->file_bytes = (uint64_t) st.st_size;
		header = scan_bytes(r, 0, MG_SEGMENT_HEADER_BYTES);
		if (r->io_failed)
			status = read_failed(r, file->number);
		else if (header != NULL && mg_load_u32(header) == MG_SEGMENT_MAGIC &&
				 mg_load_u32(header + 60) == mg_crc32c(0, header, 60))
		{
			if (mg_load_u32(header + 4) != MG_LOG_VERSION)
			{
				explain(r->reason, "log segment %" PRIu64 " in \"%s\" has version %u, this build knows %u",
						file->number, r->log->dir, mg_load_u32(header + 4), MG_LOG_VERSION);
				status = MG_E_VERSION;
			}
			file->first = mg_load_u64(header + 16);
			file->valid = mg_load_u64(header + 8) == file->number && file->first <= INT64_MAX;
			file->id = mg_load_u64(header + 24);
		}
	}
	close_keep_errno(r->fd);
	return status;
}

/*
 * The newest header that verifies says which log this is, or the marks; a new
 * log draws its id.  The two disagree only when a crash came in the middle of a
 * reset, whose segment has no records yet; else somebody has mixed two logs.
 */
static mg_status
recovery_id(recovery *r)
{
	char		path[PATH_BYTES_MAX];
	bool		marked;

	path_of_marks(r->log, path);
	r->log->marks_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r->log->marks_fd < 0)
	{
		explain(r->reason, "cannot open \"%s\": %s", path, strerror(errno));
		return MG_E_IO;
	}
	marked = marks_read(r->log, &r->marks);
	for (size_t i = r->len; i-- > 0;)
	{
		if (r->files[i].valid)
		{
			r->log->id = r->files[i].id;
			if (!marked || r->marks.id == r->log->id)
				return MG_OK;
			if (r->files[i].first != 0)
			{
				explain(r->reason, "segment %" PRIu64 " in \"%.100s\" is of another log than the file \"marks\" there",
						r->files[i].number, r->log->dir);
				return MG_E_FORMAT;
			}
			r->marks = (log_marks) {0};
			return MG_OK;
		}
	}
	if (marked)
	{
		r->log->id = r->marks.id;
		return MG_OK;
	}
	if (mg_random_bytes(&r->log->id, sizeof(r->log->id)) == MG_OK)
		return MG_OK;
	explain(r->reason, "no random numbers: %s", strerror(errno));
	return MG_E_IO;
}

/*
 * Scans the segments in order as long as they are dense.  What was written is
 * made durable before it counts as such: it may be in the page cache only.
 */
static mg_status
recovery_scan(recovery *r)
{
	mg_log	   *log = r->log;
	uint64_t	cut = 0;

	for (size_t i = 0; i < r->len; i++)
	{
		found_file *file = &r->files[i];
		mg_status	status;

		if (!file->valid || file->id != log->id || file->first == 0)
			continue;
		if (r->marks.cut != 0 && file->first > r->marks.cut)
			break;
		if (log->places_len > 0 && file->first != mg_log_last(log) + 1)
		{
			if (r->reason[0] == '\0')
				explain(r->reason, "cut at seqno %" PRIu64 ": segment %" PRIu64 " begins with %" PRIu64,
						mg_log_last(log) + 1, file->number, file->first);
			break;
		}
		if (!scan_open(r, file))
			return MG_E_IO;
		posix_fadvise(r->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		status = scan_segment(r, file, &cut);
		if (status == MG_OK && file->kept && sync_data(log, r->fd) != 0)
			status = read_failed(r, file->number);
		close_keep_errno(r->fd);
		if (status != MG_OK)
			return status;
		if (!file->kept)
			break;
		segment_push(log, file->number, file->first, file->file_bytes);
		log->written_at = cut;
	}
	return MG_OK;
}

/* Before anything is wiped: what was durable once and is not there stays known. */
static mg_status
recovery_promised(recovery *r)
{
	mg_log	   *log = r->log;
	mg_seqno	last = mg_log_last(log);
	char		why[MG_REASON_BYTES_MAX];

	log->promised = r->marks.flushed;
	if (log->promised <= last)
		return MG_OK;
	snprintf(why, sizeof(why), "%.160s", r->reason[0] != '\0' ? r->reason : "records are missing");
	explain(r->reason, "damaged: seqno %" PRIu64 " to %" PRIu64 " had been durable (%s)", last + 1, log->promised, why);
	if (sync_data(log, log->marks_fd) == 0)
		return MG_OK;
	explain(r->reason, "cannot sync the marks in \"%s\": %s", log->dir, strerror(errno));
	return MG_E_IO;
}

/* The last segment goes on where its records end; behind that only zeros. */
static mg_status
recovery_tail(recovery *r)
{
	mg_log	   *log = r->log;
	found_file	file = {.number = segment_last(log)->number, .file_bytes = segment_last(log)->file_bytes};

	if (!scan_open(r, &file))
		return MG_E_IO;
	if (!scan_wipe(r, log->written_at) || sync_data(log, r->fd) != 0)
	{
		close_keep_errno(r->fd);
		return read_failed(r, file.number);
	}
	log->fd = r->fd;
	return MG_OK;
}

/*
 * The newest header that verifies has no records: a reset made it.  It stays,
 * to be used next; without it a left-over of before would be the newest.
 */
static mg_status
recovery_fresh(recovery *r)
{
	mg_log	   *log = r->log;
	size_t		i = r->len;

	while (i > 0 && !r->files[i - 1].valid)
		i--;
	if (i == 0 || r->files[i - 1].first != 0)
		return MG_OK;
	if (!scan_open(r, &r->files[i - 1]))
		return MG_E_IO;
	r->files[i - 1].kept = true;
	log->fresh = r->files[i - 1].number;
	log->fresh_fd = r->fd;
	return MG_OK;
}

static mg_status
recovery_remove(recovery *r)
{
	mg_log	   *log = r->log;
	char		path[PATH_BYTES_MAX];

	path_of_spare(log, path);
	if (unlink(path) != 0 && errno != ENOENT)
	{
		explain(r->reason, "cannot remove \"%s\": %s", path, strerror(errno));
		return MG_E_IO;
	}
	for (size_t i = 0; i < r->len; i++)
	{
		if (r->files[i].kept)
			continue;
		path_of(log, r->files[i].number, path);
		if (unlink(path) != 0)
		{
			explain(r->reason, "cannot remove \"%s\": %s", path, strerror(errno));
			return MG_E_IO;
		}
	}
	if (sync_dir(log) != 0)
	{
		explain(r->reason, "cannot sync \"%s\": %s", log->dir, strerror(errno));
		return MG_E_IO;
	}
	return MG_OK;
}

/* All that is there is durable, and nothing is to be cut any more. */
static mg_status
recovery_marks(recovery *r)
{
	mg_log	   *log = r->log;
	log_marks	marks = {log->id, known_durable(log), 0};

	if (marks_write(log, &marks) && sync_data(log, log->marks_fd) == 0)
		return MG_OK;
	explain(r->reason, "cannot write the marks in \"%s\": %s", log->dir, strerror(errno));
	return MG_E_IO;
}

static mg_status
recovery_run(recovery *r)
{
	mg_log	   *log = r->log;
	mg_status	status = recovery_list(r);

	for (size_t i = 0; i < r->len && status == MG_OK; i++)
		status = recovery_header(r, &r->files[i]);
	if (status == MG_OK)
		status = recovery_id(r);
	if (status == MG_OK)
		status = recovery_scan(r);
	if (status == MG_OK)
		status = recovery_promised(r);
	if (status == MG_OK && log->segments_len > 0)
		status = recovery_tail(r);
	if (status == MG_OK)
		status = recovery_fresh(r);
	if (status == MG_OK)
		status = recovery_remove(r);
	if (status != MG_OK)
		return status;

	for (size_t i = 0; i < log->segments_len; i++)
		log->bytes += log->segments[i].file_bytes;
	if (r->len > 0)
		log->number_last = r->files[r->len - 1].number;
	log->written = mg_log_last(log);
	log->flushed = log->written;
	log->spare = SPARE_WANTED;
	return recovery_marks(r);
}

static mg_status
open_directory(mg_log *log, char reason[MG_REASON_BYTES_MAX])
{
	char		parent[PATH_BYTES_MAX];
	int			fd;

	if (mkdir(log->dir, 0700) == 0)
	{
		snprintf(parent, sizeof(parent), "%s/..", log->dir);
		fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || fsync(fd) != 0)
		{
			explain(reason, "cannot sync the directory of \"%s\": %s", log->dir, strerror(errno));
			if (fd >= 0)
				close_keep_errno(fd);
			return MG_E_IO;
		}
		close(fd);
	}
	else if (errno != EEXIST)
	{
		explain(reason, "cannot make directory \"%s\": %s", log->dir, strerror(errno));
		return MG_E_IO;
	}
	log->dir_fd = open(log->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->dir_fd < 0)
	{
		explain(reason, "cannot open directory \"%s\": %s", log->dir, strerror(errno));
		return MG_E_IO;
	}
	if (flock(log->dir_fd, LOCK_EX | LOCK_NB) != 0)
	{
		if (errno == EWOULDBLOCK)
		{
			explain(reason, "log directory \"%s\" is in use by another process", log->dir);
			return MG_E_STATE;
		}
		explain(reason, "cannot lock directory \"%s\": %s", log->dir, strerror(errno));
		return MG_E_IO;
	}
	return MG_OK;
}

static mg_status
open_all(mg_log *log, char reason[MG_REASON_BYTES_MAX])
{
	mg_status	status = open_directory(log, reason);
	recovery	r = {.log = log, .reason = reason, .fd = -1};

	if (status != MG_OK)
		return status;
	log->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (log->event_fd < 0)
	{
		explain(reason, "cannot make an eventfd: %s", strerror(errno));
		return MG_E_IO;
	}
	r.window = mg_realloc(NULL, SCAN_WINDOW_BYTES);
	status = recovery_run(&r);
	mg_free(r.window);
	mg_free(r.files);
	if (status != MG_OK)
		return status;
	if (!flusher_start(log))
	{
		explain(reason, "cannot start the flusher thread: %s", strerror(errno));
		return MG_E_IO;
	}
	return MG_OK;
}

mg_status
mg_log_open(const mg_log_config *config, mg_log **out, char reason[MG_REASON_BYTES_MAX])
{
	size_t		dir_len = strlen(config->dir);
	mg_log	   *log;
	mg_status	status;

	*out = NULL;
	reason[0] = '\0';
	if (dir_len == 0 || dir_len >= DIR_BYTES_MAX)
	{
		explain(reason, "the name of the log directory has %zu bytes, at most %d are possible",
				dir_len, DIR_BYTES_MAX - 1);
		return MG_E_TOO_BIG;
	}
	if (config->segment_bytes < SEGMENT_BYTES_MIN || config->segment_bytes > SEGMENT_BYTES_MAX)
	{
		explain(reason, "log segments of %u bytes are not possible: at least %u, at most %u",
				config->segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
		return MG_E_FORMAT;
	}

	log = mg_alloc(sizeof(*log));
	memcpy(log->dir, config->dir, dir_len + 1);
	log->segment_bytes = config->segment_bytes;
	log->bytes_max = config->bytes_max;
	log->pages_max = config->pages_max;
	log->sync = config->sync;
	log->recent = config->recent;
	log->flush_pace_us = config->flush_pace_us < 100000 ? config->flush_pace_us : 100000;
	log->dir_fd = log->event_fd = log->marks_fd = log->fd = log->job.fd = -1;
	MG_ASSERT(mg_segment_reader_init(&log->reader, config->dir) == MG_OK);
	log->reader.recent = config->recent;
	MG_ASSERT(pthread_mutex_init(&log->mutex, NULL) == 0);
	MG_ASSERT(pthread_cond_init(&log->work, NULL) == 0);
	MG_ASSERT(pthread_cond_init(&log->idle, NULL) == 0);

	status = open_all(log, reason);
	if (status != MG_OK)
	{
		int			saved = errno;

		mg_log_close(log);
		errno = saved;
		return status;
	}
	*out = log;
	return MG_OK;
}

void
mg_log_close(mg_log *log)
{
	if (log == NULL)
		return;
	if (log->thread_started)
	{
		/* An error here is in mg_log_flushed: it did not reach mg_log_last. */
		mg_status	status = mg_log_write(log);

		lock(log);
		log->flush_wanted = status == MG_OK && log->written != atomic_load(&log->flushed);
		log->stop = true;
		pthread_cond_signal(&log->work);
		unlock(log);
		pthread_join(log->thread, NULL);
		(void) sync_data(log, log->marks_fd);
	}
	for (size_t i = 0; i < log->dirty_len; i++)
	{
		if (log->dirty[i].close_after)
			close(log->dirty[i].fd);
	}
	if (log->job.fd >= 0)
		close(log->job.fd);
	if (log->spare == SPARE_READY)
		close(log->spare_fd);
	if (log->fresh != 0)
		close(log->fresh_fd);
	if (log->fd >= 0)
		close(log->fd);
	if (log->event_fd >= 0)
		close(log->event_fd);
	if (log->marks_fd >= 0)
		close(log->marks_fd);
	if (log->dir_fd >= 0)
		close(log->dir_fd);
	mg_segment_reader_close(&log->reader);
	pthread_cond_destroy(&log->idle);
	pthread_cond_destroy(&log->work);
	pthread_mutex_destroy(&log->mutex);
	mg_buf_free(&log->buffer);
	mg_free(log->segments);
	mg_free(log->places);
	mg_free(log->dirty);
	mg_free(log->flushing);
	mg_free(log->retired);
	mg_free(log);
}
