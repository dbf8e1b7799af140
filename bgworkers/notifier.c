/*
 * bgworkers/notifier.c - see notifier.h.
 *
 * A process of its own: NOTIFY needs a transaction, whose commit takes a lock
 * that any session's long commit with a NOTIFY may hold, and a command may do
 * anything; neither may hold up the provider.
 *
 * The command is executed, not given to a shell: names of members come from other
 * machines (a peer of ours had a shell run what a joiner's name said).  For the
 * same reason a comma or slash in a name becomes "_".  Its standard input is
 * empty, its output goes to the server log, it gets no file of the server's.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include "access/xact.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "bgworkers/notifier.h"
#include "bgworkers/worker.h"
#include "core/wire.h"
#include "pg/compat.h"
#include "pg/guc.h"

/* What a run of the command says. */
typedef struct Situation
{
	MgNodeState state;
	mg_uuid		uuid;
	int			index;			/* of this node among the members, -1: not there */
	char	   *members;		/* id/name/address,... */
} Situation;

static pid_t child = 0;			/* of the command that runs, 0: none */
static TimestampTz child_until;

static MgNotices *
notices(void)
{
	return &mgrepl_shared->notices;
}

/* ---- by the provider ---- */

void
mgrepl_notifier_state(MgNodeState from, MgNodeState to, const char *reason)
{
	MgNotices  *n = notices();
	bool		lost;

	SpinLockAcquire(&n->mutex);
	lost = n->tail - n->head == MGREPL_NOTICES_MAX;
	if (lost)
		n->head++;
	n->ring[n->tail % MGREPL_NOTICES_MAX].from = (uint8) from;
	n->ring[n->tail % MGREPL_NOTICES_MAX].to = (uint8) to;
	strlcpy(n->ring[n->tail % MGREPL_NOTICES_MAX].reason, reason, MG_REASON_BYTES_MAX);
	n->tail++;
	SpinLockRelease(&n->mutex);
	if (lost)
		ereport(LOG, (errmsg("mgrepl: too many changes of state wait to be notified: the oldest is left out")));
	mgrepl_notifier_wake();
}

void
mgrepl_notifier_wake(void)
{
	mgrepl_wake(*(volatile int *) &notices()->procno);
}

/* ---- NOTIFY ---- */

static bool
next_notice(MgNotice *to)
{
	MgNotices  *n = notices();
	bool		any;

	SpinLockAcquire(&n->mutex);
	any = n->head != n->tail;
	if (any)
		*to = n->ring[n->head++ % MGREPL_NOTICES_MAX];
	SpinLockRelease(&n->mutex);
	return any;
}

/* All that wait, in one transaction: listeners get them in their order. */
static void
notify_all(void)
{
	MgNotice	notice;
	bool		any = false;

	while (next_notice(&notice))
	{
		char		payload[MG_REASON_BYTES_MAX + 64];

		if (!any)
		{
			SetCurrentStatementStartTimestamp();
			StartTransactionCommand();
			pgstat_report_activity(STATE_RUNNING, "NOTIFY " NOTIFY_CHANNEL);
		}
		any = true;
		snprintf(payload, sizeof(payload), "%s %s %s", mgrepl_node_state_name((MgNodeState) notice.from),
				 mgrepl_node_state_name((MgNodeState) notice.to), notice.reason);
		Async_Notify(NOTIFY_CHANNEL, payload);
	}
	if (any)
	{
		CommitTransactionCommand();
		pgstat_report_activity(STATE_IDLE, NULL);
	}
}

/* ---- the command ---- */

static void
add_clean(StringInfo to, const char *name)
{
	for (const char *p = name; *p; p++)
		appendStringInfoChar(to, *p == ',' || *p == '/' || (unsigned char) *p < ' ' ? '_' : *p);
}

static Situation
situation(void)
{
	MgShared   *s = mgrepl_shared;
	Situation	now = {.index = -1};
	StringInfoData members;

	initStringInfo(&members);
	now.state = mgrepl_node_state();
	LWLockAcquire(s->status_lock, LW_SHARED);
	now.uuid = s->uuid;
	for (uint32 i = 0; i < s->n_members; i++)
	{
		const MgMemberInfo *m = &s->members[i];

		if (m->self)
			now.index = (int) i;
		appendStringInfo(&members, "%s%u/", i > 0 ? "," : "", m->id);
		add_clean(&members, m->name);
		appendStringInfoChar(&members, '/');
		add_clean(&members, m->sql_address[0] != '\0' ? m->sql_address : m->address);
	}
	LWLockRelease(s->status_lock);
	now.members = members.data;
	return now;
}

static bool
is_same(const Situation *a, const Situation *b)
{
	return a->members != NULL && a->state == b->state && a->index == b->index &&
		mg_uuid_equal(&a->uuid, &b->uuid) && strcmp(a->members, b->members) == 0;
}

/* In the child, between fork and exec: nothing that allocates or locks. */
static void
become_command(char *const *argv, pid_t parent)
{
	sigset_t	none;
	int			null = open("/dev/null", O_RDONLY);

	(void) setpgid(0, 0);
#ifdef __linux__
	(void) prctl(PR_SET_PDEATHSIG, SIGKILL);	/* also when the server is stopped at once */
#endif
	if (getppid() != parent)
		_exit(127);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void) signal(sig, SIG_DFL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	(void) dup2(null, STDIN_FILENO);
	(void) dup2(STDERR_FILENO, STDOUT_FILENO);
	closefrom(STDERR_FILENO + 1);
	execv(argv[0], argv);
	_exit(127);
}

static void
command_start(const Situation *now)
{
	char		uuid[MG_UUID_TEXT_BYTES];
	char		number[16];
	bool		primary = now->state == MG_NODE_SYNCED || now->state == MG_NODE_DONOR;
	char	   *argv[] = {
		mgrepl_notify_command,
		"--status", unconstify(char *, mgrepl_node_state_name(now->state)),
		"--uuid", uuid, "--primary", primary ? "yes" : "no",
		"--members", now->members, "--index", number, NULL
	};
	pid_t		parent = getpid();
	sigset_t	all;
	sigset_t	before;

	if (access(mgrepl_notify_command, X_OK) != 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("mgrepl: mgrepl.notify_command \"%s\" cannot be run: %m", mgrepl_notify_command),
				 errhint("It must be an executable that the server's user may run.")));
		return;
	}
	mg_uuid_format(&now->uuid, uuid);
	snprintf(number, sizeof(number), "%d", now->index);
	child_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), NOTIFY_COMMAND_S * 1000);
	fflush(stdout);
	fflush(stderr);

	/* No handler of this process may run in the child. */
	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (child == 0)
		become_command(argv, parent);
	(void) sigprocmask(SIG_SETMASK, &before, NULL);
	if (child < 0)
	{
		child = 0;
		ereport(LOG, (errmsg("mgrepl: mgrepl.notify_command cannot be run: no new process: %m")));
		return;
	}
	(void) setpgid(child, child);
}

/* The whole group: what it has started ends with it. */
static void
command_kill(void)
{
	int			status;

	if (child == 0)
		return;
	kill(-child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	child = 0;
}

static void
command_kill_at_exit(int code, Datum arg)
{
	command_kill();
}

/* True when none runs any more. */
static bool
command_is_done(void)
{
	int			status = 0;
	pid_t		pid;

	if (child == 0)
		return true;
	pid = waitpid(child, &status, WNOHANG);
	if (pid == 0)
	{
		if (GetCurrentTimestamp() < child_until)
			return false;
		command_kill();
		ereport(LOG,
				(errmsg("mgrepl: mgrepl.notify_command \"%s\" was killed: it ran for more than %d s",
						mgrepl_notify_command, NOTIFY_COMMAND_S)));
		return true;
	}
	child = 0;
	if (pid > 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		ereport(LOG,
				(errmsg("mgrepl: mgrepl.notify_command \"%s\" failed: %s %d", mgrepl_notify_command,
						WIFEXITED(status) ? "exit code" : "signal",
						WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status))));
	return true;
}

/* ---- life ---- */

static void
publish(int procno)
{
	SpinLockAcquire(&notices()->mutex);
	notices()->procno = procno;
	SpinLockRelease(&notices()->mutex);
}

static void
unpublish_at_exit(int code, Datum arg)
{
	publish(-1);
}

static void
on_child(SIGNAL_ARGS)
{
	int			save_errno = errno;

	SetLatch(MyLatch);
	errno = save_errno;
}

void
mgrepl_notifier_main(Datum arg)
{
	MemoryContext scratch;
	Situation	told = {.index = -1};

	mgrepl_worker_init("mgrepl notifier");
	pqsignal(SIGCHLD, on_child);
	BackgroundWorkerInitializeConnection(mgrepl_database, NULL, BGWORKER_BYPASS_ALLOWCONN);
	before_shmem_exit(unpublish_at_exit, (Datum) 0);
	on_proc_exit(command_kill_at_exit, (Datum) 0);
	publish(MgMyProcno());

	scratch = AllocSetContextCreate(TopMemoryContext, "mgrepl notifier", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		QueryCancelPending = false;
		mgrepl_worker_interrupts();
		notify_all();
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		if (command_is_done() && mgrepl_notify_command[0] != '\0')
		{
			Situation	now = situation();

			if (!is_same(&told, &now))
			{
				if (told.members != NULL)
					pfree(told.members);
				told = now;
				told.members = MemoryContextStrdup(TopMemoryContext, now.members);
				command_start(&now);
			}
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (child != 0 ? WL_TIMEOUT : 0),
						 1000, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
mgrepl_notifier_register(void)
{
	mgrepl_worker_register("mgrepl notifier", "mgrepl notifier", "mgrepl_notifier_main",
						   true, 1, (Datum) 0);
}
