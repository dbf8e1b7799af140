/*
 * cli/program.c - runs another program, reads its words, ends it when this one
 * is told to end; and pg_basebackup in particular.
 *
 * How: fork and exec with an argument vector.  The program runs in a process
 * group of its own, because a key pressed on the terminal is this program's to
 * deal with, and because pg_basebackup has a child that goes on for ever when
 * its parent is killed.  The leader of that group is a guard between this
 * program and the other one: told to end, or told by the kernel that this
 * program was killed, it ends the whole group.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>

void
cli_program_add(cli_program *program, const char *arg)
{
	if (program->n_args >= CLI_ARGS_MAX - 1)
	{
		cli_error("there are too many arguments for %s", program->path);
		exit(CLI_USAGE);
	}
	program->args[program->n_args++] = arg;
}

static void __attribute__((noreturn))
become(const cli_program *program, int out, int failed)
{
	int			null;

	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	setenv("LC_ALL", "C", 1);	/* its words are read */
	if (program->password != NULL)
		setenv("PGPASSWORD", program->password, 1);
	null = open("/dev/null", O_RDONLY);
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0)
		execvp(program->path, (char *const *) (uintptr_t) program->args);
	(void) !write(failed, &errno, sizeof(errno));
	_exit(127);
}

static void
end_group(int number)
{
	signal(number, SIG_IGN);	/* it is meant for the others */
	(void) kill(0, SIGTERM);
}

static void __attribute__((noreturn))
guard(const cli_program *program, pid_t parent, int out, int failed)
{
	int			status;
	pid_t		child;

	(void) setpgid(0, 0);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, end_group);
	(void) prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(127);				/* it was killed before it could be told */
	child = fork();
	if (child == 0)
		become(program, out, failed);
	if (child < 0)
	{
		(void) !write(failed, &errno, sizeof(errno));
		_exit(127);
	}
	close(out);
	close(failed);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* Keeps the end of what was said, for the message about a failure. */
static void
keep_line(cli_program *program, const char *line)
{
	char	   *kept = program->last_lines;

	while (!cli_append(kept, sizeof(program->last_lines), "%s\n", line))
	{
		char	   *second = strchr(kept, '\n');

		if (second == NULL || second[1] == '\0')
		{
			kept[0] = '\0';
			return;				/* a line longer than all: it is lost */
		}
		memmove(kept, second + 1, strlen(second + 1) + 1);
	}
}

static void
take_output(cli_program *program, char *buf, size_t *len, bool end)
{
	char	   *from = buf;
	char	   *stop;

	buf[*len] = '\0';
	while ((stop = strpbrk(from, "\r\n")) != NULL || (end && *from != '\0' && (stop = from + strlen(from)) != NULL))
	{
		bool		last = *stop == '\0';

		*stop = '\0';
		if (*from != '\0' && (program->on_line == NULL || !program->on_line(program->arg, from)))
			keep_line(program, from);
		from = last ? stop : stop + 1;
	}
	*len = strlen(from);
	memmove(buf, from, *len + 1);
}

static void
read_output(cli_program *program, int fd, pid_t child)
{
	char		buf[CLI_TEXT_MAX];
	size_t		len = 0;
	bool		told = false;

	for (;;)
	{
		ssize_t		n;

		if (cli_interrupted && !told)
		{
			told = true;
			(void) kill(-child, SIGTERM);
		}
		if (len >= sizeof(buf) - 1)
			len = 0;			/* not a line that anybody could want */
		n = read(fd, buf + len, sizeof(buf) - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t) n;
		take_output(program, buf, &len, false);
	}
	take_output(program, buf, &len, true);
}

int
cli_program_run(cli_program *program)
{
	int			out[2];
	int			failed[2];
	int			error = 0;
	int			status;
	pid_t		parent = getpid();
	pid_t		child;

	program->args[program->n_args] = NULL;
	program->last_lines[0] = '\0';
	if (pipe2(out, O_CLOEXEC) != 0)
		return -1;
	if (pipe2(failed, O_CLOEXEC) != 0)
	{
		close(out[0]);
		close(out[1]);
		return -1;
	}
	fflush(NULL);
	child = fork();
	if (child == 0)
		guard(program, parent, out[1], failed[1]);
	error = errno;
	close(out[1]);
	close(failed[1]);
	if (child > 0)
	{
		(void) setpgid(child, child);
		error = 0;
		if (read(failed[0], &error, sizeof(error)) != (ssize_t) sizeof(error))
			error = 0;
		read_output(program, out[0], child);
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			if (cli_interrupted)
				(void) kill(-child, SIGTERM);
	}
	close(out[0]);
	close(failed[0]);
	if (child < 0 || error != 0)
	{
		errno = error;
		return -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void
cli_find_program(const char *bindir, const char *name, char to[CLI_PATH_MAX])
{
	char		own[CLI_PATH_MAX] = "";
	ssize_t		n;
	char	   *slash;

	if (bindir != NULL)
	{
		snprintf(to, CLI_PATH_MAX, "%s/%s", bindir, name);
		return;
	}
	n = readlink("/proc/self/exe", own, sizeof(own) - 1);
	own[n > 0 ? n : 0] = '\0';
	slash = strrchr(own, '/');
	if (slash != NULL)
	{
		*slash = '\0';
		if (snprintf(to, CLI_PATH_MAX, "%s/%s", own, name) < CLI_PATH_MAX && access(to, X_OK) == 0)
			return;
	}
	snprintf(to, CLI_PATH_MAX, "%s", name);
}

/* ---- directories and files ---- */

bool
cli_directory_is_free(const char *path, bool *exists)
{
	DIR		   *dir = opendir(path);
	struct dirent *entry;
	bool		empty = true;

	*exists = dir != NULL;
	if (dir == NULL)
	{
		if (errno == ENOENT)
			return true;
		cli_error("\"%s\" cannot be used: %s", path, strerror(errno));
		return false;
	}
	while (empty && (entry = readdir(dir)) != NULL)
		empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
	closedir(dir);
	if (!empty)
	{
		cli_error("directory \"%s\" is not empty", path);
		cli_hint("Name a new directory, or remove what is in this one. Nothing was changed.");
	}
	else if (access(path, W_OK | X_OK) != 0)
	{
		cli_error("directory \"%s\" is not writable: %s", path, strerror(errno));
		return false;
	}
	return empty;
}

static const char *keep_root;
static int	n_left;

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void) st;
	(void) flag;
	if (ftw->level == 0 && keep_root != NULL)
		return 0;
	if (remove(path) != 0 && errno != ENOENT)
	{
		cli_error("\"%s\" cannot be removed: %s", path, strerror(errno));
		n_left++;
	}
	return 0;
}

bool
cli_directory_clear(const char *path, bool keep)
{
	n_left = 0;
	keep_root = keep ? path : NULL;
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0 && errno != ENOENT)
	{
		cli_error("\"%s\" cannot be removed: %s", path, strerror(errno));
		return false;
	}
	return n_left == 0;
}

static bool
sync_directory_of(const char *path)
{
	char		dir[CLI_PATH_MAX];
	const char *slash = strrchr(path, '/');
	int			fd;
	bool		good;

	snprintf(dir, sizeof(dir), "%.*s", slash == NULL ? 1 : slash == path ? 1 : (int) (slash - path), slash == NULL ? "." : path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	good = fsync(fd) == 0;
	close(fd);
	return good;
}

bool
cli_write_file(const char *path, const char *text, size_t len, mode_t mode)
{
	char		temporary[CLI_PATH_MAX];
	int			fd;
	bool		good;
	int			saved;

	if (snprintf(temporary, sizeof(temporary), "%s.tmp", path) >= (int) sizeof(temporary))
	{
		errno = ENAMETOOLONG;
		return false;
	}
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		return false;
	errno = ENOSPC;				/* what a short write means */
	good = write(fd, text, len) == (ssize_t) len && fsync(fd) == 0;
	saved = errno;
	if (close(fd) == 0 && good && rename(temporary, path) == 0 && sync_directory_of(path))
		return true;
	if (good)
		saved = errno;
	(void) unlink(temporary);
	errno = saved;
	return false;
}

/* ---- pg_basebackup ---- */

/* "  1234/5678 kB (21%), 0/1 tablespace" */
static bool
on_copy_line(void *arg, char *line)
{
	unsigned long long done;
	unsigned long long total;

	if (sscanf(line, " %llu/%llu kB (", &done, &total) != 2)
		return false;
	cli_progress_show(arg, done * 1024, total * 1024);
	return true;
}

static void
say_failure(const char *path, int code, const char *last_lines)
{
	size_t		len = strlen(last_lines);

	while (len > 0 && last_lines[len - 1] == '\n')
		len--;
	if (code < 0)
	{
		cli_error("%s cannot be started: %s", path, strerror(errno));
		cli_hint("Install PostgreSQL's programs, or say where they are with --bindir.");
	}
	else if (cli_interrupted)
		cli_error("interrupted");
	else
		cli_error("%s failed (%s %d)%s%.*s", path, code > 128 ? "signal" : "exit code", code > 128 ? code - 128 : code,
				  len > 0 ? ":\n" : "", (int) len, last_lines);
}

bool
cli_copy_run(PGconn *conn, const cli_copy *copy)
{
	cli_program program = {0};
	cli_progress progress;
	char		path[CLI_PATH_MAX];
	char		conninfo[CLI_TEXT_MAX];
	int			code;

	if (!cli_conninfo_for_program(conn, copy->application, conninfo, sizeof(conninfo)))
	{
		cli_error("the connection string is too long");
		return false;
	}
	cli_find_program(copy->bindir, "pg_basebackup", path);
	program.path = path;
	program.password = PQconnectionUsedPassword(conn) ? PQpass(conn) : NULL;
	program.on_line = on_copy_line;
	program.arg = &progress;
	cli_program_add(&program, "pg_basebackup");

	/* What the user adds comes first: what must be so comes later, and wins. */
	cli_program_add(&program, "--checkpoint=fast");
	for (int i = 0; i < copy->n_more; i++)
		cli_program_add(&program, copy->more[i]);
	cli_program_add(&program, "--pgdata");
	cli_program_add(&program, copy->directory);
	cli_program_add(&program, "--dbname");
	cli_program_add(&program, conninfo);
	cli_program_add(&program, "--wal-method=stream");
	cli_program_add(&program, "--progress");
	cli_program_add(&program, "--no-password");
	cli_progress_begin(&progress, "base backup");
	code = cli_program_run(&program);
	cli_progress_end(&progress, code == 0);
	if (code == 0)
		return true;
	say_failure(path, code, program.last_lines);
	return false;
}
