/*
 * pg/swap.c - see swap.h.
 *
 * How: renameat2(RENAME_EXCHANGE) puts each entry of the copy into its place
 * and the old one into the copy's, in one step that nobody can see half of.  At
 * no moment does the data directory lack what a starting postmaster reads
 * before it loads libraries (PG_VERSION, global/pg_control, the configuration).
 * Which entries have been exchanged is told by their inode numbers, which the
 * journal holds: so the exchange can be interrupted anywhere and resumed, and
 * each step is repeated at will.
 *
 * Who: the postmaster, when it is the last process of the server: in its last
 * callback at exit (on_proc_exit; shared memory is gone, postmaster.pid is
 * not), then it executes the server anew: same process, same arguments.  A
 * postmaster that finds the journal at its start does the same before it has
 * looked into the data.
 *
 * Rejected: a symbolic link as data directory (not how servers are set up);
 * renaming the whole directory (it may be a mount point, and its parent
 * somebody else's); two renames per entry (a crash between them leaves a
 * directory without global/, in which no server starts, so none can mend it).
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "host/statefile.h"
#include "pg/guc.h"
#include "pg/shmem.h"
#include "pg/swap.h"

#define MAGIC "mgrepl swap 1"
#define BACKUP_LABEL "backup_label"
#define TRIAL "pgsql_tmp.mgrepl_trial"
#define GUARD "pgsql_tmp.mgrepl_guard"	/* put_guard: as backup_label, while the exchange is under way */
#define DISOWN ".next"			/* behind MGREPL_REPLACED_FILE, until the exchange is under way */
#define NAMES_MAX 1000

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

/* What PostgreSQL's data consists of; all of it is in every base backup, empty or not. */
static const char *const entries[] = {
	"base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_multixact", "pg_notify",
	"pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc",
	"pg_twophase", "pg_wal", "pg_xact"
};

/*
 * The journal's body: 0-terminated texts, each with a letter that says what it
 * is: P phase, M place that was made ("inode:path"), E entry
 * ("dev:inode:name"), O where the old data goes, G gcache_dir, S seeds.
 */
typedef struct Journal
{
	char		bytes[MG_STATEFILE_BYTES_MAX];
	size_t		len;
} Journal;

static pid_t postmaster = 0;	/* of the process that has installed the callback */

/*
 * Has anybody but mgrepl_swap_restart told the postmaster to stop?  Then it
 * does, with the new data in place.
 */
static volatile sig_atomic_t stop_asked = false;

static const int stop_signals[] = {SIGINT, SIGTERM, SIGQUIT};
static struct sigaction stop_handlers[lengthof(stop_signals)];	/* the postmaster's own */

/*
 * Where the server was started to write to.  A log collector takes their place
 * later; one that found its predecessor's pipe there would keep that one alive.
 */
static int	first_stdout = -1;
static int	first_stderr = -1;

/* ------------------------------------------------------------- small parts */

static void
reason(char *why, size_t cap, const char *what, const char *path)
{
	snprintf(why, cap, "%s \"%s\": %s", what, path, strerror(errno));
}

static bool
exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static bool
sync_path(const char *path)
{
	int			fd;
	int			rc;

	if (!enableFsync)
		return true;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	rc = fsync(fd);
	close(fd);
	return rc == 0;
}

static int
exchange(const char *a, const char *b)
{
#if defined(__linux__) && defined(SYS_renameat2)
	return (int) syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
#else
	errno = ENOSYS;
	return -1;
#endif
}

/*
 * For tests: the process kills itself at this step (MGREPL_TEST_STOP_AT in the
 * environment of the postmaster).  Every step of the exchange has a number.
 */
static void
step_done(void)
{
	static int	n = 0;
	const char *at = getenv("MGREPL_TEST_STOP_AT");

	if (at != NULL && ++n == atoi(at))
		kill(getpid(), SIGKILL);
}

bool
mgrepl_remove_tree(const char *path)
{
	DIR		   *dir;
	struct dirent *de;
	bool		ok = true;
	struct stat st;

	if (lstat(path, &st) != 0)
		return errno == ENOENT;
	if (!S_ISDIR(st.st_mode))
		return unlink(path) == 0;
	if ((dir = opendir(path)) == NULL)
		return false;
	while ((de = readdir(dir)) != NULL)
	{
		char		below[MAXPGPATH];

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (IsUnderPostmaster && InterruptPending)
		{
			closedir(dir);		/* the caller's next call goes on here */
			CHECK_FOR_INTERRUPTS();
			errno = EINTR;
			return false;
		}
		snprintf(below, sizeof(below), "%s/%s", path, de->d_name);
		ok = mgrepl_remove_tree(below) && ok;
	}
	closedir(dir);
	return rmdir(path) == 0 && ok;
}

/* ------------------------------------------------------------------ journal */

static void
put(Journal *j, char kind, const char *text)
{
	size_t		len = strlen(text);

	if (j->len + len + 2 > sizeof(j->bytes))
	{
		j->len = sizeof(j->bytes) + 1;	/* write refuses it */
		return;
	}
	j->bytes[j->len++] = kind;
	memcpy(j->bytes + j->len, text, len + 1);
	j->len += len + 1;
}

/* The next text of this kind behind *at, or NULL. */
static const char *
get(const Journal *j, char kind, size_t *at)
{
	while (*at < j->len)
	{
		const char *text = j->bytes + *at;

		*at += strlen(text) + 1;
		if (text[0] == kind)
			return text + 1;
	}
	return NULL;
}

static const char *
get_one(const Journal *j, char kind)
{
	size_t		at = 0;

	return get(j, kind, &at);
}

static MgSwapPhase
journal_read(Journal *j)
{
	const char *magic;
	const char *phase;
	mg_status	status = mg_statefile_read(MGREPL_JOURNAL_FILE, j->bytes, sizeof(j->bytes) - 1, &j->len);

	if (status == MG_E_NOT_FOUND)
		return MG_SWAP_NONE;
	if (status != MG_OK)
		return MG_SWAP_UNKNOWN;
	j->bytes[j->len] = '\0';
	magic = get_one(j, 'V');
	phase = get_one(j, 'P');
	if (magic == NULL || phase == NULL || strcmp(magic, MAGIC) != 0)
		return MG_SWAP_UNKNOWN;
	return strcmp(phase, "copy") == 0 ? MG_SWAP_COPY :
		strcmp(phase, "ready") == 0 ? MG_SWAP_READY : MG_SWAP_UNKNOWN;
}

static bool
journal_write(const Journal *j, char *why, size_t cap)
{
	if (mg_statefile_write(MGREPL_JOURNAL_FILE, j->bytes, j->len) == MG_OK)
		return true;
	reason(why, cap, "cannot write", MGREPL_JOURNAL_FILE);
	return false;
}

MgSwapPhase
mgrepl_swap_phase(void)
{
	Journal    *j = palloc(sizeof(Journal));
	MgSwapPhase phase = journal_read(j);

	pfree(j);
	return phase;
}

/* ------------------------------------------------------------- before it */

/* The same device does not say it: a bind mount is one of its own too. */
static bool
is_mount_point(const char *path)
{
#ifdef STATX_ATTR_MOUNT_ROOT
	struct statx st;

	return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &st) == 0 &&
		(st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#else
	return false;
#endif
}

/* Can the entries below `prefix` ("": the data directory) be renamed within the data directory? */
static bool
entries_movable(const char *prefix, char *why, size_t cap)
{
	struct stat here;

	if (stat(".", &here) != 0)
	{
		reason(why, cap, "cannot look at", DataDir);
		return false;
	}
	for (int i = 0; i < lengthof(entries); i++)
	{
		char		path[MAXPGPATH];
		struct stat st;

		snprintf(path, sizeof(path), "%s%s", prefix, entries[i]);
		if (lstat(path, &st) != 0)
			continue;			/* of the data: nothing is in the way; of the copy: told by the caller */
		if (st.st_dev == here.st_dev && !is_mount_point(path))
			continue;
		snprintf(why, cap, "\"%s\" in the data directory is a mount point and cannot be exchanged for the copy's: %s",
				 path, strcmp(entries[i], "pg_wal") == 0 ?
				 "mount that disk elsewhere and make it a symbolic link to a directory there" : "it must lie on the data directory's disk");
		return false;
	}
	return true;
}

bool
mgrepl_swap_possible(char *why, size_t cap)
{
	static const char *const names[] = {TRIAL "1", TRIAL "2"};
	bool		ok = true;

	if (!entries_movable("", why, cap))
		return false;
	for (int i = 0; i < 2; i++)
		if (mkdir(names[i], pg_dir_create_mode) != 0 && errno != EEXIST)
		{
			reason(why, cap, "the data directory is not writable: cannot make", names[i]);
			return false;
		}
	if (exchange(names[0], names[1]) != 0)
	{
		reason(why, cap, "the file system cannot exchange two directories (renameat2) in", DataDir);
		ok = false;
	}
	for (int i = 0; i < 2; i++)
		(void) rmdir(names[i]);
	return ok;
}

bool
mgrepl_swap_begin(const MgSwapPlace *places, int n, char *why, size_t cap)
{
	Journal    *j = palloc0(sizeof(Journal));
	bool		ok;

	put(j, 'V', MAGIC);
	put(j, 'P', "copy");
	for (int i = 0; i < n; i++)
	{
		char		text[MAXPGPATH + 32];
		struct stat st;

		if (lstat(places[i].path, &st) != 0)
		{
			reason(why, cap, "cannot look at", places[i].path);
			pfree(j);
			return false;
		}
		snprintf(text, sizeof(text), "%llu:%s", (unsigned long long) st.st_ino, places[i].path);
		put(j, 'M', text);
	}
	ok = journal_write(j, why, cap);
	pfree(j);
	return ok;
}

/* ---------------------------------------------------------------- leftovers */

/* Has this transfer's machinery made that directory?  Only those are removed themselves. */
static bool
made_by_us(const char *path)
{
	return strstr(path, ".mgrepl_") != NULL;
}

static bool
same_file(const char *a, const char *b)
{
	struct stat sa;
	struct stat sb;

	return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static bool
in_use_as_tablespace(const char *target)
{
	DIR		   *dir = opendir("pg_tblspc");
	struct dirent *de;
	bool		found = false;

	while (dir != NULL && !found && (de = readdir(dir)) != NULL)
	{
		char		link[MAXPGPATH];

		if (de->d_name[0] == '.')
			continue;
		snprintf(link, sizeof(link), "pg_tblspc/%s", de->d_name);
		found = same_file(link, target);
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}

/* Where a symbolic link leads to; false if it is none. */
static bool
link_target(const char *path, char *to, size_t cap)
{
	ssize_t		n = readlink(path, to, cap - 1);

	if (n <= 0)
		return false;
	to[n] = '\0';
	return true;
}

static void
remove_or_tell(const char *path)
{
	if (!mgrepl_remove_tree(path))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("mgrepl: cannot remove \"%s\": %m", path),
				 errhint("Remove it by hand; it is no longer needed.")));
}

/* The files of tablespaces that a data directory which is not in use links to. */
static void
remove_tablespaces(const char *data)
{
	char		links[MAXPGPATH];
	DIR		   *dir;
	struct dirent *de;

	snprintf(links, sizeof(links), "%s/pg_tblspc", data);
	if ((dir = opendir(links)) == NULL)
		return;
	while ((de = readdir(dir)) != NULL)
	{
		char		link[MAXPGPATH * 2];
		char		target[MAXPGPATH];
		char		files[MAXPGPATH * 2];

		snprintf(link, sizeof(link), "%s/%s", links, de->d_name);
		if (de->d_name[0] == '.' || !link_target(link, target, sizeof(target)) || in_use_as_tablespace(target))
			continue;
		snprintf(files, sizeof(files), "%s/%s", target, TABLESPACE_VERSION_DIRECTORY);
		remove_or_tell(files);
		if (made_by_us(target))
			(void) rmdir(target);
	}
	closedir(dir);
}

/* WAL that lies elsewhere.  Only its files: the new WAL's directory may lie below. */
static void
remove_wal(const char *data)
{
	char		link[MAXPGPATH];
	char		target[MAXPGPATH];
	char		path[MAXPGPATH * 2];
	DIR		   *dir;
	struct dirent *de;

	snprintf(link, sizeof(link), "%s/pg_wal", data);
	if (!link_target(link, target, sizeof(target)) || same_file(target, "pg_wal") || (dir = opendir(target)) == NULL)
		return;
	while ((de = readdir(dir)) != NULL)
	{
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", target, de->d_name);
		if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
			(void) unlink(path);
	}
	closedir(dir);
	snprintf(path, sizeof(path), "%s/archive_status", target);
	remove_or_tell(path);
	if (made_by_us(target))
		(void) rmdir(target);
}

static void
remove_data(const char *data)
{
	if (!exists(data))
		return;
	remove_tablespaces(data);
	remove_wal(data);
	remove_or_tell(data);
}

bool
mgrepl_swap_has_leftovers(void)
{
	MgSwapPhase phase = mgrepl_swap_phase();

	return phase == MG_SWAP_COPY || (phase == MG_SWAP_NONE && exists(MGREPL_STAGING_DIR));
}

/* MGREPL_OLD_DIR, or one with a number behind it; false: there is none (any more). */
static bool
next_old(DIR *dir, char *name, size_t cap)
{
	struct dirent *de;

	while (dir != NULL && (de = readdir(dir)) != NULL)
	{
		const char *number = de->d_name + strlen(MGREPL_OLD_DIR);

		if (strncmp(de->d_name, MGREPL_OLD_DIR, strlen(MGREPL_OLD_DIR)) != 0 || (*number != '\0' && *number != '.'))
			continue;
		strlcpy(name, de->d_name, cap);
		return true;
	}
	return false;
}

bool
mgrepl_swap_has_old(void)
{
	DIR		   *dir = opendir(".");
	char		name[MAXPGPATH];
	bool		found = next_old(dir, name, sizeof(name));

	if (dir != NULL)
		closedir(dir);
	return found;
}

/* The path of a place of the journal; NULL if what is there now is not what the transfer has made. */
static const char *
place_path(const char *place)
{
	unsigned long long ino;
	int			at = 0;
	struct stat st;

	if (sscanf(place, "%llu:%n", &ino, &at) < 1 || at == 0 ||
		lstat(place + at, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_ino != (ino_t) ino)
		return NULL;
	return place + at;
}

/* What was made for an exchange that does not come. */
static void
unprepare(void)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/" MGREPL_REPLACED_FILE DISOWN, mgrepl_gcache_dir);
	(void) unlink(path);
	(void) unlink(GUARD);
}

static void
discard_places(const Journal *j)
{
	const char *place;

	for (size_t at = 0; (place = get(j, 'M', &at)) != NULL;)
		if ((place = place_path(place)) != NULL)
			remove_or_tell(place);
}

/* Where the copy's links lead to is not asked: if a method has copied them, it is to the donor's files. */
void
mgrepl_swap_discard(void)
{
	Journal    *j = palloc(sizeof(Journal));
	MgSwapPhase phase = journal_read(j);

	if (phase == MG_SWAP_COPY)
		discard_places(j);
	if (phase == MG_SWAP_COPY || phase == MG_SWAP_NONE)
	{
		unprepare();
		remove_or_tell(MGREPL_STAGING_DIR);
		if (phase == MG_SWAP_COPY && !exists(MGREPL_STAGING_DIR))
		{
			(void) unlink(MGREPL_JOURNAL_FILE);
			(void) sync_path(".");
		}
	}
	pfree(j);
}

void
mgrepl_swap_discard_old(void)
{
	DIR		   *dir = opendir(".");
	char		name[MAXPGPATH];

	PG_TRY();
	{
		while (next_old(dir, name, sizeof(name)))
			remove_data(name);
	}
	PG_FINALLY();
	{
		if (dir != NULL)
			closedir(dir);
	}
	PG_END_TRY();
}

/* ------------------------------------------------------- the copy is whole */

/*
 * A file that makes backup_label invalid: no server can start on this, with or
 * without the library, until the copy's own backup_label takes its place.
 */
static bool
write_guard(char *why, size_t cap)
{
	static const char text[] =
		"mgrepl is putting new data into this directory, and was interrupted.\n"
		"Start the server with shared_preload_libraries = 'mgrepl': it goes on and comes up.\n";
	int			fd = open(GUARD, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, pg_file_create_mode);
	bool		ok = fd >= 0 && write(fd, text, sizeof(text) - 1) == sizeof(text) - 1 && (!enableFsync || fsync(fd) == 0);

	if (!ok)
		reason(why, cap, "cannot write", GUARD);
	if (fd >= 0 && close(fd) != 0 && ok)
	{
		reason(why, cap, "cannot write", GUARD);
		ok = false;
	}
	return ok;
}

/*
 * All that the exchange will need, so that it only renames: a disk that is full
 * by then cannot stop it half way.
 */
static bool
prepare(const char *seeds, char *why, size_t cap)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/" MGREPL_REPLACED_FILE DISOWN, mgrepl_gcache_dir);
	if (mg_statefile_write(path, seeds, strlen(seeds)) != MG_OK)
	{
		reason(why, cap, "cannot write", path);
		return false;
	}
	return write_guard(why, cap);
}

/* Does a link of the copy lead to a place that it was given?  What lies elsewhere may be the donor's own. */
static bool
leads_to_place(const Journal *begun, const char *link)
{
	const char *place;

	for (size_t at = 0; (place = get(begun, 'M', &at)) != NULL;)
		if ((place = place_path(place)) != NULL && same_file(link, place))
			return true;
	return false;
}

static bool
link_is_ours(const Journal *begun, const char *link, char *why, size_t cap)
{
	char		target[MAXPGPATH];

	if (!link_target(link, target, sizeof(target)) || leads_to_place(begun, link))
		return true;
	snprintf(why, cap, "the copy's \"%s\" leads to \"%s\", which is none of the directories that this transfer was given "
			 "(a tablespace that was made meanwhile, or a method that copies links); what is there was not touched",
			 link + strlen(MGREPL_STAGING_DIR "/"), target);
	return false;
}

static bool
links_are_ours(const Journal *begun, char *why, size_t cap)
{
	DIR		   *dir = opendir(MGREPL_STAGING_DIR "/pg_tblspc");
	struct dirent *de;
	bool		ok = link_is_ours(begun, MGREPL_STAGING_DIR "/pg_wal", why, cap);

	while (dir != NULL && ok && (de = readdir(dir)) != NULL)
	{
		char		link[MAXPGPATH];

		snprintf(link, sizeof(link), MGREPL_STAGING_DIR "/pg_tblspc/%s", de->d_name);
		ok = link_is_ours(begun, link, why, cap);
	}
	if (dir != NULL)
		closedir(dir);
	return ok;
}

/*
 * A write that has failed may be on the disk all the same, and would take
 * effect when the server stops, long after the transfer was given up.
 */
static void
take_back(const Journal *begun)
{
	char		why[MAXPGPATH * 2];

	if (journal_write(begun, why, sizeof(why)))
		return;
	discard_places(begun);		/* nothing will know of them */
	if (unlink(MGREPL_JOURNAL_FILE) != 0 || !sync_path("."))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("mgrepl: cannot remove \"%s\": %m", MGREPL_JOURNAL_FILE),
				 errhint("Mend the disk and remove that file before the server is stopped, or it may start with the data of a transfer that has failed.")));
}

bool
mgrepl_swap_ready(const char *seeds, bool keep, char *why, size_t cap)
{
	Journal    *j = palloc0(sizeof(Journal));
	Journal    *begun = palloc0(sizeof(Journal));
	char		text[MAXPGPATH];
	struct stat st;
	bool		ok = true;

	if (journal_read(begun) != MG_SWAP_COPY)
	{
		snprintf(why, cap, "\"" MGREPL_JOURNAL_FILE "\" is not that of a copy that is being made");
		pfree(begun);
		pfree(j);
		return false;
	}
	put(j, 'V', MAGIC);
	put(j, 'P', "ready");
	put(j, 'S', seeds);
	put(j, 'G', mgrepl_gcache_dir);
	if (keep)
	{
		pg_time_t	now = timestamptz_to_time_t(GetCurrentTimestamp());
		struct pg_tm *tm = pg_gmtime(&now);

		snprintf(text, sizeof(text), MGREPL_KEPT_DIR ".%04d%02d%02dT%02d%02d%02dZ", tm->tm_year + 1900, tm->tm_mon + 1,
				 tm->tm_mday, tm->tm_hour, tm->tm_min, tm->tm_sec);
		put(j, 'O', text);
	}
	else
		put(j, 'O', MGREPL_OLD_DIR);
	for (int i = 0; i < lengthof(entries) && ok; i++)
	{
		snprintf(text, sizeof(text), MGREPL_STAGING_DIR "/%s", entries[i]);
		if (stat(text, &st) != 0 || lstat(text, &st) != 0)
		{
			reason(why, cap, "the copy is not whole", text);
			ok = false;
		}
		snprintf(text, sizeof(text), "%llu:%llu:%s", (unsigned long long) st.st_dev, (unsigned long long) st.st_ino,
				 entries[i]);
		put(j, 'E', text);
	}
	if (ok && !exists(MGREPL_STAGING_DIR "/" BACKUP_LABEL))
	{
		reason(why, cap, "the copy is not whole", MGREPL_STAGING_DIR "/" BACKUP_LABEL);
		ok = false;
	}
	ok = ok && links_are_ours(begun, why, cap) && entries_movable("", why, cap) &&
		entries_movable(MGREPL_STAGING_DIR "/", why, cap) && prepare(seeds, why, cap);
	if (ok && (!sync_path(MGREPL_STAGING_DIR) || !sync_path(".")))
	{
		reason(why, cap, "cannot flush to disk", MGREPL_STAGING_DIR);
		ok = false;
	}
	if (ok && !journal_write(j, why, cap))
	{
		take_back(begun);
		ok = false;
	}
	if (!ok)
		unprepare();
	pfree(begun);
	pfree(j);
	return ok;
}

/* ------------------------------------------------------------- the exchange */

/* From here on only a server with the library starts.  Not there any more: it is in its place. */
static bool
put_guard(char *why, size_t cap)
{
	if ((rename(GUARD, BACKUP_LABEL) != 0 && errno != ENOENT) || !sync_path("."))
	{
		reason(why, cap, "cannot put in its place", GUARD);
		return false;
	}
	return true;
}

/*
 * The data is another's: its log and identity must not meet it.  The file lies
 * there already, on a disk that may be another one, under a name that nobody
 * looks for.
 */
static bool
disown_log(const char *gcache, const char *seeds, char *why, size_t cap)
{
	char		next[MAXPGPATH];
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/" MGREPL_REPLACED_FILE, gcache);
	snprintf(next, sizeof(next), "%s" DISOWN, path);
	if (rename(next, path) == 0 ? sync_path(gcache) : errno == ENOENT &&
		(exists(path) || mg_statefile_write(path, seeds, strlen(seeds)) == MG_OK))
		return true;
	reason(why, cap, "cannot put in its place", next);
	return false;
}

/* Under its name, or, where something is that could not be removed, one with a number. */
static bool
put_old_away(const char *old, char *why, size_t cap)
{
	char		name[MAXPGPATH];

	strlcpy(name, old, sizeof(name));
	for (int i = 1; rename(MGREPL_STAGING_DIR, name) != 0 && errno != ENOENT; i++)
	{
		if ((errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR && errno != EBUSY) || i == NAMES_MAX)
		{
			reason(why, cap, "cannot put the old data away as", name);
			return false;
		}
		snprintf(name, sizeof(name), "%s.%d", old, i);
	}
	if (sync_path("."))
		return true;
	reason(why, cap, "cannot flush to disk", DataDir);
	return false;
}

static bool
exchange_entry(const char *entry, char *why, size_t cap)
{
	unsigned long long dev;
	unsigned long long ino;
	int			name_at = 0;
	char		staged[MAXPGPATH];
	struct stat st;
	int			rc;

	if (sscanf(entry, "%llu:%llu:%n", &dev, &ino, &name_at) < 2 || name_at == 0)
	{
		errno = EINVAL;
		reason(why, cap, "the journal has an entry that it should not have", entry);
		return false;
	}
	entry += name_at;
	snprintf(staged, sizeof(staged), MGREPL_STAGING_DIR "/%s", entry);
	if (lstat(entry, &st) == 0)
	{
		if (st.st_ino == (ino_t) ino)
			return true;		/* it is in its place */
		rc = exchange(staged, entry);
	}
	else
		rc = rename(staged, entry);
	if (rc != 0 || !sync_path(MGREPL_STAGING_DIR) || !sync_path("."))
	{
		reason(why, cap, "cannot put in its place", staged);
		return false;
	}
	step_done();
	return true;
}

/* Every step can be repeated, each is durable before the next, none needs room on a disk. */
static bool
finish(const Journal *j, char *why, size_t cap)
{
	const char *entry;
	const char *old = get_one(j, 'O');
	const char *gcache = get_one(j, 'G');
	const char *seeds = get_one(j, 'S');

	step_done();
	if (exists(MGREPL_STAGING_DIR "/" BACKUP_LABEL))
	{
		if (!put_guard(why, cap))
			return false;
		step_done();
	}
	for (size_t at = 0; (entry = get(j, 'E', &at)) != NULL;)
		if (!exchange_entry(entry, why, cap))
			return false;

	if (!disown_log(gcache, seeds, why, cap))
		return false;
	step_done();
	if (exists(MGREPL_STAGING_DIR "/" BACKUP_LABEL) &&
		(rename(MGREPL_STAGING_DIR "/" BACKUP_LABEL, BACKUP_LABEL) != 0 || !sync_path(".")))
	{
		reason(why, cap, "cannot put in its place", BACKUP_LABEL);
		return false;
	}
	step_done();
	if (!put_old_away(old, why, cap))
		return false;
	step_done();
	if (unlink(MGREPL_JOURNAL_FILE) != 0 || !sync_path("."))
	{
		reason(why, cap, "cannot remove", MGREPL_JOURNAL_FILE);
		return false;
	}
	step_done();
	return true;
}

/* ---------------------------------------------------------- the server anew */

/* Does an argument, or the environment, say where things are relative to where the server was started? */
static bool
has_relative_path(char *const *argv)
{
	bool		data_given = false;

	for (int i = 1; argv[i] != NULL; i++)
	{
		const char *path = NULL;

		if (strncmp(argv[i], "-D", 2) == 0)
			path = argv[i][2] != '\0' ? argv[i] + 2 : argv[i + 1];
		else if (strstr(argv[i], "_file=") != NULL || strstr(argv[i], "-file=") != NULL ||
				 strstr(argv[i], "data_directory=") != NULL || strstr(argv[i], "data-directory=") != NULL)
			path = strchr(argv[i], '=') + 1;
		if (path == NULL)
			continue;
		data_given |= strncmp(argv[i], "-D", 2) == 0;
		if (!is_absolute_path(path))
			return true;
	}
	return !data_given && getenv("PGDATA") != NULL && !is_absolute_path(getenv("PGDATA"));
}

/*
 * The arguments that this process was started with.  Those that were relative
 * to a directory which is no longer the current one are said again, absolute:
 * the last one counts.
 */
static char **
own_arguments(void)
{
	static char bytes[65536];
	char	  **argv;
	int			argc = 0;
	int			fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t		n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));

	if (fd >= 0)
		close(fd);
	if (n <= 0 || n == sizeof(bytes))
		return NULL;
	for (ssize_t i = 0; i < n; i++)
		argc += bytes[i] == '\0';
	argv = malloc((argc + 10) * sizeof(char *));
	if (argv == NULL)
		return NULL;
	argc = 0;
	for (char *p = bytes; p < bytes + n; p += strlen(p) + 1)
		argv[argc++] = p;
	argv[argc] = NULL;
	argv[0] = my_exec_path;
	if (has_relative_path(argv))
	{
		argv[argc++] = "-D";
		argv[argc++] = DataDir;
		argv[argc++] = "-c";
		argv[argc++] = psprintf("config_file=%s", ConfigFileName);
		argv[argc++] = "-c";
		argv[argc++] = psprintf("hba_file=%s", HbaFileName);
		argv[argc++] = "-c";
		argv[argc++] = psprintf("ident_file=%s", IdentFileName);
		argv[argc] = NULL;
	}
	return argv;
}

/* Returns only if it failed. */
static void
execute_anew(void)
{
	char	  **argv = own_arguments();
	sigset_t	all;
	long		open_max = sysconf(_SC_OPEN_MAX);

	if (argv == NULL)
	{
		errno = ENOENT;
		return;
	}
	ereport(LOG, (errmsg("mgrepl: the new data is in place, the server starts anew")));

	/*
	 * Signals wait for the new server, which sets its own mask.  The log
	 * collector ends as soon as its pipe is closed: a handler that is still
	 * ours would start another.  Nothing of the old server's sockets and pipes
	 * may stay open.
	 */
	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, NULL);
	if (first_stdout >= 0)
		(void) dup2(first_stdout, STDOUT_FILENO);
	if (first_stderr >= 0)
		(void) dup2(first_stderr, STDERR_FILENO);
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 3U, ~0U, 0) != 0)
#endif
		for (int fd = 3; fd < Min(open_max, 65536); fd++)
			(void) close(fd);
	execv(my_exec_path, argv);
}

/* Also those that wait until the postmaster looks at them. */
static bool
is_to_stop(void)
{
	sigset_t	pending;

	if (stop_asked)
		return true;
	sigpending(&pending);
	for (int i = 0; i < lengthof(stop_signals); i++)
		if (sigismember(&pending, stop_signals[i]))
			return true;
	return false;
}

/* Does not return when it could be done, unless the server is to stop. */
static void
exchange_and_start(int elevel)
{
	Journal    *j = malloc(sizeof(Journal));
	char		why[MAXPGPATH * 2] = "out of memory";
	MgSwapPhase phase = j == NULL ? MG_SWAP_UNKNOWN : journal_read(j);
	bool		done;

	if (phase == MG_SWAP_NONE || phase == MG_SWAP_COPY)
	{
		free(j);
		if (phase == MG_SWAP_COPY && postmaster == 0)
			mgrepl_swap_discard();	/* at a start: recovery may need the room, on a disk that the copy has filled */
		return;
	}
	if (phase == MG_SWAP_UNKNOWN)
		strlcpy(why, "\"" MGREPL_JOURNAL_FILE "\" cannot be read", sizeof(why));
	done = phase == MG_SWAP_READY && finish(j, why, sizeof(why));
	if (done && postmaster != 0 && is_to_stop())
	{
		free(j);
		ereport(LOG,
				(errmsg("mgrepl: the new data is in place, the server stops as it was told to"),
				 errhint("When it is started again it joins the cluster.")));
		return;
	}
	if (done)
	{
		execute_anew();
		snprintf(why, sizeof(why), "the server could not be executed anew: %s", strerror(errno));
	}
	free(j);
	ereport(elevel,
			(errmsg("mgrepl: putting the snapshot in place of the data has failed: %s", why),
			 done ? errhint("Start the server: the new data is in place.") :
			 errhint("Mend what is wrong and start the server, with mgrepl in shared_preload_libraries: it goes on where it was interrupted.")));
}

/* All other processes of the server have ended, in order, if the code is 0. */
static void
at_postmaster_exit(int code, Datum arg)
{
	if (code == 0 && getpid() == postmaster && !IsUnderPostmaster)
		exchange_and_start(LOG);
}

/* Whoever stops the server waits for its end: it must not come back. */
static void
at_stop_signal(int signo, siginfo_t *info, void *context)
{
	int			saved = errno;

	if (getpid() == postmaster)
	{
		uint32		restarter = mgrepl_shared == NULL ? 0 : pg_atomic_read_u32(&mgrepl_shared->transfer.restart_by);

		if (restarter == 0 || info->si_code != SI_USER || info->si_pid != (pid_t) restarter)
			stop_asked = true;
	}
	errno = saved;
	for (int i = 0; i < lengthof(stop_signals); i++)
	{
		if (stop_signals[i] != signo)
			continue;
		if (stop_handlers[i].sa_flags & SA_SIGINFO)
			stop_handlers[i].sa_sigaction(signo, info, context);
		else
			stop_handlers[i].sa_handler(signo);
	}
}

/* The postmaster has set its handlers before it loads libraries; other processes set their own. */
static void
watch_stop_signals(void)
{
	for (int i = 0; i < lengthof(stop_signals); i++)
	{
		struct sigaction ours;

		if (sigaction(stop_signals[i], NULL, &stop_handlers[i]) != 0 ||
			stop_handlers[i].sa_handler == SIG_DFL || stop_handlers[i].sa_handler == SIG_IGN)
			continue;
		ours = stop_handlers[i];
		ours.sa_flags |= SA_SIGINFO;
		ours.sa_sigaction = at_stop_signal;
		(void) sigaction(stop_signals[i], &ours, NULL);
	}
}

void
mgrepl_swap_restart(void)
{
	pg_atomic_write_u32(&mgrepl_shared->transfer.restart_by, (uint32) MyProcPid);
	(void) kill(PostmasterPid, SIGINT);
}

void
mgrepl_swap_install(void)
{
	if (!IsPostmasterEnvironment)
	{
		if (exists(MGREPL_JOURNAL_FILE) && mgrepl_swap_phase() != MG_SWAP_COPY)
			ereport(FATAL,
					(errmsg("mgrepl is putting new data into this directory, and was interrupted"),
					 errhint("Start the server in the ordinary way: it goes on and comes up.")));
		return;
	}
	exchange_and_start(FATAL);
	postmaster = getpid();
	watch_stop_signals();
	first_stdout = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	first_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	on_proc_exit(at_postmaster_exit, (Datum) 0);
}
