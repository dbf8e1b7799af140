/*
 * bgworkers/joiner.c - gets a snapshot of another node's data and has the server
 * restart with it; removes what transfers leave behind.
 *
 * A process that lives only while there is something to do, started by the
 * provider.  It touches no data of this server until the copy is whole: a copy
 * that fails, a donor that dies, this process or the machine dying leave
 * everything as it was, but for a directory that the next one removes.
 *
 * How: find out which members can be asked (pg/sst.c), take the best one, compare
 * what must be equal, make sure that there is room, copy by a program, look
 * at what has come, write the journal (pg/swap.c), ask the postmaster for a fast
 * shutdown.  The rest happens there.  If one donor fails the next is tried,
 * each once.
 *
 * The method "dump" goes another way: the running server is filled, by one
 * transaction, and goes on running (pg/dump.h).
 *
 * Programs are run with an argument vector, never by a shell, in a process
 * group of their own that is killed when the transfer ends before them; the
 * kernel kills them when this process dies.
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access/xact.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "bgworkers/joiner.h"
#include "bgworkers/worker.h"
#include "pg/dump.h"
#include "pg/guc.h"
#include "pg/shmem.h"
#include "pg/sst.h"
#include "pg/swap.h"
#include "pg/transfer.h"

#define LINE_BYTES		1024
#define POLL_MS			100
#define COPY_NICE		10		/* nothing else runs on a joiner; but a member on the same machine has clients */
#define ARGUMENTS_MAX	(MGREPL_SST_TABLESPACES_MAX + 32)

/* A program that makes the copy. */
typedef struct Program
{
	const char *argv[ARGUMENTS_MAX];
	int			argc;
	const char *env[32];		/* "NAME=value", added to this server's own */
	int			n_env;
} Program;

static pid_t child = 0;			/* leader of the program's process group */
static bool transferring = false;	/* or removing what is left of earlier ones */

/* ----------------------------------------------------------------- programs */

static void add_argument(Program *p, const char *format,...) pg_attribute_printf(2, 3);
static void add_env(Program *p, const char *format,...) pg_attribute_printf(2, 3);

static char *
format_text(const char *format, va_list args)
{
	char		text[MAXPGPATH * 3];

	vsnprintf(text, sizeof(text), format, args);
	return pstrdup(text);
}

static void
add_argument(Program *p, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	if (p->argc < ARGUMENTS_MAX - 1)
		p->argv[p->argc++] = format_text(format, args);
	va_end(args);
	p->argv[p->argc] = NULL;
}

static void
add_env(Program *p, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	Assert(p->n_env < lengthof(p->env));
	p->env[p->n_env++] = format_text(format, args);
	va_end(args);
}

/* In the child, between fork and exec: nothing that allocates or locks. */
static void
become(const Program *p, int out, pid_t parent)
{
	sigset_t	none;
	int			null = open("/dev/null", O_RDONLY);

	(void) setpgid(0, 0);
#ifdef PR_SET_PDEATHSIG
	(void) prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
	(void) setpriority(PRIO_PROCESS, 0, COPY_NICE);
	if (getppid() != parent)
		_exit(127);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void) signal(sig, SIG_DFL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	(void) dup2(null, STDIN_FILENO);
	(void) dup2(out, STDOUT_FILENO);
	(void) dup2(out, STDERR_FILENO);
	for (int fd = 3; fd < 1024; fd++)
		(void) close(fd);
	for (int i = 0; i < p->n_env; i++)
		(void) putenv(unconstify(char *, p->env[i]));
	execv(p->argv[0], (char *const *) p->argv);
	dprintf(STDERR_FILENO, "cannot execute \"%s\": %s\n", p->argv[0], strerror(errno));
	_exit(127);
}

/* Returns the end of the pipe to read from. */
static int
start_program(const Program *p)
{
	int			ends[2];
	pid_t		parent = getpid();

	if (pipe2(ends, O_CLOEXEC) != 0)
		ereport(ERROR, (errcode_for_socket_access(), errmsg("cannot make a pipe: %m")));
	fflush(stdout);
	fflush(stderr);
	child = fork();
	if (child == 0)
		become(p, ends[1], parent);
	close(ends[1]);
	if (child < 0)
	{
		child = 0;
		close(ends[0]);
		ereport(ERROR, (errmsg("cannot make a process: %m")));
	}
	(void) setpgid(child, child);
	return ends[0];
}

/* Has the program ended?  Then with this status, as wait's; what it has left behind is killed. */
static bool
program_ended(int *status)
{
	if (waitpid(child, status, WNOHANG) != child)
		return false;
	(void) kill(-child, SIGKILL);
	child = 0;
	return true;
}

/* Ends the program and whatever it has started. */
static void
reap_program(void)
{
	int			status;

	if (child == 0)
		return;
	(void) kill(-child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;						/* not for long: it was killed */
	(void) kill(-child, SIGKILL);
	child = 0;
}

/*
 * A line that a program has written.  "  123/456 kB (26%), ..." is how
 * pg_basebackup tells its progress, "progress 123 456" (bytes) how others do.
 * Anything else is for the log, and the last of it the reason if it fails.
 */
static void
take_line(const char *line, char *last, size_t cap)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	unsigned long long done;
	unsigned long long total;
	char		unit[4];

	if (sscanf(line, "%llu/%llu %2s", &done, &total, unit) == 3 && strcmp(unit, "kB") == 0)
	{
		done *= 1024;
		total *= 1024;
	}
	else if (sscanf(line, "progress %llu %llu", &done, &total) != 2)
	{
		if (line[0] != '\0' && strcmp(line, "waiting for checkpoint") != 0)
		{
			ereport(LOG, (errmsg("mgrepl joiner: %s", line)));
			strlcpy(last, line, cap);
		}
		return;
	}
	pg_atomic_write_u64(&t->bytes_done, done);
	pg_atomic_write_u64(&t->bytes_total, Max(total, done));
}

/* Cuts what has come into lines; keeps what is not a whole one. */
static void
take_output(char *buf, size_t *len, char *last, size_t cap)
{
	char	   *from = buf;
	char	   *end;

	while ((end = strpbrk(from, "\r\n")) != NULL)
	{
		*end = '\0';
		take_line(from, last, cap);
		from = end + 1;
	}
	*len = strlen(from);
	memmove(buf, from, *len + 1);
	if (*len == LINE_BYTES - 1)
		*len = 0;				/* no line is so long */
}

/* Runs it to its end; false if it failed, or the donor did. */
static bool
run_program(const Program *p, MgSst *sst, MgTrouble *trouble)
{
	char		buf[LINE_BYTES];
	char		last[LINE_BYTES / 2] = "";
	size_t		len = 0;
	int			out = start_program(p);
	int			status;

	for (;;)
	{
		struct pollfd wait = {.fd = out, .events = POLLIN};
		ssize_t		n = 0;

		(void) poll(&wait, 1, POLL_MS);
		ResetLatch(MyLatch);
		mgrepl_sst_check();
		if (!mgrepl_sst_alive(sst, trouble))
		{
			reap_program();
			close(out);
			return false;
		}
		if (wait.revents != 0)
		{
			n = read(out, buf + len, sizeof(buf) - 1 - len);
			if (n == 0 || (n < 0 && errno != EINTR))
				break;
		}
		if (n > 0)
		{
			len += n;
			buf[len] = '\0';
			take_output(buf, &len, last, sizeof(last));
		}
	}
	close(out);

	/* One that has closed its output may still be at work. */
	while (!program_ended(&status))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		mgrepl_sst_check();
		if (!mgrepl_sst_alive(sst, trouble))
		{
			reap_program();
			return false;
		}
	}
	if (status == 0)
		return true;
	strlcpy(trouble->hint, "Look into the server logs of both nodes.", sizeof(trouble->hint));
	if (last[0] != '\0')
		snprintf(trouble->error, sizeof(trouble->error), "%s", last);
	else if (WIFSIGNALED(status))
		snprintf(trouble->error, sizeof(trouble->error), "\"%s\" was ended by signal %d", p->argv[0], WTERMSIG(status));
	else
		snprintf(trouble->error, sizeof(trouble->error), "\"%s\" ended with exit code %d", p->argv[0], WEXITSTATUS(status));
	return false;
}

/* ------------------------------------------------------------------ methods */

/* pg_basebackup splits a mapping at the first "=" that has no backslash before it. */
static char *
escape_mapping(const char *path)
{
	char	   *to = palloc(strlen(path) * 2 + 1);
	char	   *at = to;

	for (; *path != '\0'; path++)
	{
		if (*path == '=')
			*at++ = '\\';
		*at++ = *path;
	}
	*at = '\0';
	return to;
}

static void
beside_server(char *to, const char *name)
{
	strlcpy(to, my_exec_path, MAXPGPATH);
	get_parent_directory(to);
	strlcat(to, "/", MAXPGPATH);
	strlcat(to, name, MAXPGPATH);
}

static void
basebackup_program(Program *p, MgSst *sst)
{
	char		path[MAXPGPATH];
	char		application[NAMEDATALEN];

	beside_server(path, "pg_basebackup");
	snprintf(application, sizeof(application), "mgrepl sst %s", mgrepl_node_name);
	add_argument(p, "%s", path);
	add_argument(p, "--pgdata=%s/" MGREPL_STAGING_DIR, DataDir);
	add_argument(p, "--dbname=%s", mgrepl_sst_conninfo_for(sst, application));
	add_argument(p, "--format=plain");
	add_argument(p, "--wal-method=stream");
	add_argument(p, "--checkpoint=fast");
	add_argument(p, "--label=mgrepl snapshot for %s", mgrepl_node_name);
	add_argument(p, "--no-manifest");
	add_argument(p, "--progress");
	add_argument(p, "--no-password");
	if (!enableFsync)
		add_argument(p, "--no-sync");
	for (int i = 0; i < sst->n_tablespaces; i++)
		add_argument(p, "--tablespace-mapping=%s=%s", escape_mapping(sst->tablespaces[i].location),
					 escape_mapping(sst->tablespaces[i].place));
	if (sst->wal_place[0] != '\0')
		add_argument(p, "--waldir=%s", sst->wal_place);
}

static void
append_quoted(StringInfo to, const char *keyword, const char *value)
{
	appendStringInfo(to, "%s%s='", to->len > 0 ? " " : "", keyword);
	for (; *value != '\0'; value++)
	{
		if (*value == '\'' || *value == '\\')
			appendStringInfoChar(to, '\\');
		appendStringInfoChar(to, *value);
	}
	appendStringInfoChar(to, '\'');
}

/* How a program reaches this server: by its socket, if it has one, as its first superuser. */
static char *
own_conninfo(void)
{
	StringInfoData text;
	char	   *directories = pstrdup(Unix_socket_directories);
	char	   *first = directories + strspn(directories, " \"");

	first[strcspn(first, ",\"")] = '\0';
	initStringInfo(&text);
	append_quoted(&text, "host", first[0] != '\0' ? first : "localhost");
	appendStringInfo(&text, " port=%d", PostPortNumber);
	append_quoted(&text, "user", mgrepl_dump_here()->superuser);
	append_quoted(&text, "dbname", mgrepl_database);
	append_quoted(&text, "application_name", "mgrepl sst");
	return text.data;
}

/* docs/operations.md describes what such a program is given and what it has to do. */
static void
script_program(Program *p, MgSst *sst, const char *path)
{
	StringInfoData map;
	char		bin[MAXPGPATH];

	strlcpy(bin, my_exec_path, sizeof(bin));
	get_parent_directory(bin);
	add_argument(p, "%s", path);
	add_env(p, "MGREPL_SST_ROLE=joiner");
	add_env(p, "MGREPL_SST_ADDRESS=%s", sst->donor.sql_address);
	add_env(p, "MGREPL_SST_DONOR=%s", sst->donor.name);
	add_env(p, "MGREPL_SST_NODE=%s", mgrepl_node_name);
	if (mgrepl_sst_is_logical())
	{
		add_env(p, "MGREPL_SST_SNAPSHOT=%s", sst->snapshot);
		add_env(p, "MGREPL_SST_LOCAL=%s", own_conninfo());
	}
	else
	{
		add_env(p, "MGREPL_SST_DATADIR=%s/" MGREPL_STAGING_DIR, DataDir);
		add_env(p, "MGREPL_SST_WALDIR=%s", sst->wal_place);
	}
	add_env(p, "MGREPL_SST_GTID=%s", sst->gtid);
	add_env(p, "MGREPL_SST_BYTES=%llu", (unsigned long long) pg_atomic_read_u64(&mgrepl_shared->transfer.bytes_total));
	add_env(p, "MGREPL_SST_CONNINFO=%s", mgrepl_sst_conninfo_for(sst, "mgrepl sst"));
	add_env(p, "MGREPL_SST_BINDIR=%s", bin);
	initStringInfo(&map);
	for (int i = 0; i < sst->n_tablespaces; i++)
		appendStringInfo(&map, "%s%s\t%s\t%s", i > 0 ? "\n" : "", sst->tablespaces[i].oid,
						 sst->tablespaces[i].location, sst->tablespaces[i].place);
	p->env[p->n_env++] = psprintf("MGREPL_SST_TABLESPACES=%s", map.data);
	add_env(p, "PGHOST=%s", mgrepl_sst_option(sst, "host"));
	add_env(p, "PGPORT=%s", mgrepl_sst_option(sst, "port"));
	add_env(p, "PGUSER=%s", mgrepl_sst_option(sst, "user"));
	add_env(p, "PGDATABASE=%s", mgrepl_database);
	add_env(p, "PGPASSFILE=%s", mgrepl_sst_option(sst, "passfile"));
	add_env(p, "PGSSLMODE=%s", mgrepl_sst_option(sst, "sslmode"));
}

static void
make_program(Program *p, MgSst *sst)
{
	memset(p, 0, sizeof(*p));
	if (strcmp(mgrepl_sst_method, MGREPL_SST_METHOD_BASEBACKUP) == 0)
		basebackup_program(p, sst);
	else if (is_absolute_path(mgrepl_sst_method))
		script_program(p, sst, mgrepl_sst_method);
	else
	{
		char		path[MAXPGPATH];

		beside_server(path, psprintf("mgrepl-sst-%s", mgrepl_sst_method));
		script_program(p, sst, path);
	}
	if (mgrepl_sst_option(sst, "password")[0] != '\0')
		add_env(p, "PGPASSWORD=%s", mgrepl_sst_option(sst, "password"));
}

/* ------------------------------------------------------------- one attempt */

static void
copy_log_line(const MgSst *sst)
{
	MgTransferRow row;
	long		ms;

	(void) mgrepl_transfer_row(&row);
	ms = Max(TimestampDifferenceMilliseconds(row.copy_started_at, GetCurrentTimestamp()), 1);
	ereport(LOG,
			(errmsg("mgrepl: snapshot: copied from \"%s\" bytes=%llu ms=%ld", sst->donor.name,
					(unsigned long long) row.bytes_done, ms)));
}

/* From the checks to the journal.  False: nothing has changed, `trouble` says why. */
static bool
attempt(MgSst *sst, MgTrouble *trouble)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	MgSwapPlace *places = palloc((MGREPL_SST_TABLESPACES_MAX + 1) * sizeof(MgSwapPlace));
	Program    *program = palloc(sizeof(Program));
	int			n_places = 0;
	int64		bytes;
	char		why[MAXPGPATH * 2] = "";

	mgrepl_transfer_set_peer(sst->donor.name, mgrepl_sst_method);
	if (!mgrepl_sst_donate(sst, trouble) ||
		!mgrepl_sst_find_places(sst, places, &n_places, trouble))
		return false;
	bytes = sst->bytes;
	for (int i = 0; i < sst->n_tablespaces; i++)
		bytes += sst->tablespaces[i].bytes;
	pg_atomic_write_u64(&t->bytes_total, bytes);
	if (!mgrepl_swap_begin(places, n_places, why, sizeof(why)))
	{
		strlcpy(trouble->error, why, sizeof(trouble->error));
		strlcpy(trouble->hint, "Check the disk of the data directory.", sizeof(trouble->hint));
		mgrepl_sst_drop_places(places, n_places);
		return false;
	}
	ereport(LOG,
			(errmsg("mgrepl: snapshot: copying from \"%s\" at %s method=%s bytes=%lld tablespaces=%d position=%s",
					sst->donor.name, sst->donor.sql_address, mgrepl_sst_method, (long long) bytes,
					sst->n_tablespaces, sst->gtid)));
	mgrepl_transfer_set_stage(MG_TRANSFER_COPYING);
	make_program(program, sst);
	if (!run_program(program, sst, trouble) || !mgrepl_sst_verify(trouble) || !mgrepl_sst_still_good(sst, trouble))
		return false;
	copy_log_line(sst);
	if (!mgrepl_transfer_no_way_back())
		mgrepl_sst_check();		/* tells why */
	if (!mgrepl_swap_ready(t->seeds, t->keep_old || mgrepl_sst_keep_old, why, sizeof(why)))
	{
		strlcpy(trouble->error, why, sizeof(trouble->error));
		strlcpy(trouble->hint, "Check the method of the transfer and the disk.", sizeof(trouble->hint));
		return false;
	}
	return true;
}

/* The same for a dump, to the commit of what was loaded. */
static bool
attempt_dump(MgSst *sst, MgTrouble *trouble)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	Program    *program = palloc(sizeof(Program));
	int64		bytes;

	mgrepl_transfer_set_peer(sst->donor.name, mgrepl_sst_method);
	if (!mgrepl_sst_donate(sst, trouble) || !mgrepl_sst_has_room(sst, trouble))
		return false;
	bytes = sst->bytes;
	for (int i = 0; i < sst->n_tablespaces; i++)
		bytes += sst->tablespaces[i].bytes;
	pg_atomic_write_u64(&t->bytes_total, bytes);
	ereport(LOG,
			(errmsg("mgrepl: snapshot: loading from \"%s\" at %s method=%s bytes=%lld position=%s",
					sst->donor.name, sst->donor.sql_address, mgrepl_sst_method, (long long) bytes, sst->gtid)));
	pg_atomic_write_u64(&t->epoch, sst->epoch);
	mgrepl_transfer_set_stage(MG_TRANSFER_COPYING);
	make_program(program, sst);
	if (!run_program(program, sst, trouble))
		return false;
	copy_log_line(sst);
	return true;
}

/* The copy is whole: the server goes down, and comes up with it.  Does not return. */
static void
restart_server(void)
{
	ereport(LOG, (errmsg("mgrepl: snapshot: the server restarts with the new data")));
	mgrepl_swap_restart();
	for (;;)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ------------------------------------------------------------ all attempts */

/* What was wrong with each, for the one message at the end. */
static void
note_trouble(StringInfo all, char *hint, const char *name, const MgTrouble *trouble)
{
	appendStringInfo(all, "%s%s: %s", all->len > 0 ? "; " : "", name, trouble->error);
	if (trouble->hint[0] != '\0')
		strlcpy(hint, trouble->hint, MG_REASON_BYTES_MAX);
	ereport(LOG, (errmsg("mgrepl: snapshot: cannot be had from \"%s\": %s", name, trouble->error)));
	mgrepl_transfer_set_error(all->data, hint);
}

static void
transfer(void)
{
	MgTransfer *t = &mgrepl_shared->transfer;
	MgSst	   *all = MemoryContextAllocExtended(CurrentMemoryContext, t->n_donors * sizeof(MgSst), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	MgSst	  **order = palloc(Max(t->n_donors, 1) * sizeof(MgSst *));
	StringInfoData troubles;
	MgTrouble	trouble;
	char		hint[MG_REASON_BYTES_MAX] = "";
	char		why[MAXPGPATH * 2];
	bool		logical = mgrepl_sst_is_logical();
	int			n = 0;

	initStringInfo(&troubles);
	mgrepl_transfer_set_stage(MG_TRANSFER_CHOOSING);
	if (logical && !mgrepl_dump_prepare(&trouble))
	{
		mgrepl_transfer_fail(psprintf("%s, and no snapshot could be had: %s", t->why, trouble.error), trouble.hint);
		return;
	}
	mgrepl_swap_discard();
	if (!logical && !mgrepl_swap_possible(why, sizeof(why)))
	{
		mgrepl_transfer_fail(why, "The data directory must be writable, on a file system such as ext4, xfs, btrfs or tmpfs, and what PostgreSQL has in it no mount point of its own.");
		return;
	}
	for (uint32 i = 0; i < t->n_donors; i++)
	{
		MgSst	   *sst = &all[n];

		memset(sst, 0, sizeof(*sst));
		memset(&trouble, 0, sizeof(trouble));
		sst->donor = t->donors[i];
		if (mgrepl_sst_probe(sst, &trouble))
			order[n++] = sst;
		else
			note_trouble(&troubles, hint, t->donors[i].name, &trouble);
	}
	qsort(order, n, sizeof(MgSst *), mgrepl_sst_compare);
	for (int i = 0; i < n; i++)
	{
		memset(&trouble, 0, sizeof(trouble));
		if (order[i]->conn != NULL && logical && attempt_dump(order[i], &trouble))
		{
			mgrepl_transfer_set_stage(MG_TRANSFER_LOADED);
			return;
		}
		if (order[i]->conn != NULL && !logical && attempt(order[i], &trouble))
			restart_server();
		if (logical && pg_atomic_read_u32(&t->adopting) != MG_ADOPTING_NO)
			break;				/* its program was killed behind the COMMIT: the provider sees what that has done */
		note_trouble(&troubles, hint, order[i]->donor.name, &trouble);
		mgrepl_sst_close(order[i]);
		mgrepl_transfer_set_stage(MG_TRANSFER_CHOOSING);
		mgrepl_swap_discard();
	}
	if (troubles.len == 0)
		appendStringInfoString(&troubles, "no member can give a snapshot");
	mgrepl_transfer_fail(psprintf("%s, and no snapshot could be had: %s", t->why, troubles.data), hint);
}

/* -------------------------------------------------------------------- life */

/* Also when this process is told to end: nothing goes on without it. */
static void
at_exit(int code, Datum arg)
{
	reap_program();
	if (mgrepl_swap_phase() == MG_SWAP_COPY)
		mgrepl_swap_discard();
	if (transferring && mgrepl_transfer_stage_runs(mgrepl_transfer_stage()) && mgrepl_transfer_stage() != MG_TRANSFER_LOADED &&
		(mgrepl_transfer_stage() != MG_TRANSFER_SWAPPING || mgrepl_swap_phase() != MG_SWAP_READY))
		mgrepl_transfer_fail("the transfer was interrupted", "Join again.");
	pg_atomic_write_u32(&mgrepl_shared->transfer.joiner_pid, 0);
}

static void
transfer_or_fail(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		transfer();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		reap_program();
		mgrepl_swap_discard();
		mgrepl_transfer_fail(error->message, error->hint != NULL ? error->hint : "");
	}
	PG_END_TRY();
}

/* A transfer can be ordered while what is left of an earlier one is being removed. */
static void
take_turn(void)
{
	uint32		nobody = 0;

	while (!pg_atomic_compare_exchange_u32(&mgrepl_shared->transfer.joiner_pid, &nobody, (uint32) MyProcPid))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		nobody = 0;
	}
}

void
mgrepl_joiner_main(Datum arg)
{
	mgrepl_worker_init("mgrepl joiner");
	take_turn();
	before_shmem_exit(at_exit, (Datum) 0);
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "mgrepl joiner", ALLOCSET_DEFAULT_SIZES));

	if (mgrepl_transfer_stage() == MG_TRANSFER_ORDERED)
	{
		transferring = true;
		if (mgrepl_sst_is_logical())
			BackgroundWorkerInitializeConnection(mgrepl_database, NULL, BGWORKER_BYPASS_ALLOWCONN);
		transfer_or_fail();
	}
	else
	{
		if (mgrepl_swap_has_leftovers())
			mgrepl_swap_discard();
		if (DatumGetBool(arg))
			mgrepl_swap_discard_old();
	}
	proc_exit(0);
}

bool
mgrepl_joiner_start(bool discard_old)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;	/* it connects for a dump only */
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = BoolGetDatum(discard_old);
	strlcpy(worker.bgw_name, "mgrepl joiner", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "mgrepl joiner", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "mgrepl", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "mgrepl_joiner_main", sizeof(worker.bgw_function_name));
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}
