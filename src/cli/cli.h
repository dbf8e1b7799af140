/*
 * cli/cli.h - what the parts of mgreplctl share: exit codes, messages, the
 * connection to a server, programs that are run, progress.
 *
 * Nothing here goes through a shell, and no password passes through an argument:
 * libpq's own means (password file, environment, service) are the only ones.
 */
#ifndef MG_CLI_CLI_H
#define MG_CLI_CLI_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <libpq-fe.h>

#define CLI_PATH_MAX	1024
#define CLI_TEXT_MAX	8192		/* a message, a connection string */
#define CLI_ARGS_MAX	128

enum
{
	CLI_DONE = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,				/* wrong usage */
	CLI_NO_SERVER = 3,			/* the server, or any donor, cannot be reached */
	CLI_NO_PRIMARY = 4,			/* it is reached, and is not in the primary component */
	CLI_REFUSED = 5				/* what was checked beforehand does not fit: nothing was changed */
};

/* ---- words ---- */
extern bool cli_quiet;
extern void cli_say(const char *format,...) __attribute__((format(printf, 1, 2)));		/* standard output, unless quiet */
extern void cli_error(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void cli_hint(const char *format,...) __attribute__((format(printf, 1, 2)));

/* Appends to a text of `cap` bytes that already ends with a 0; false: no room. */
extern bool cli_append(char *to, size_t cap, const char *format,...) __attribute__((format(printf, 3, 4)));

/* "1.2 GB", in powers of 1024. */
#define CLI_SIZE_BYTES	32
extern const char *cli_size(uint64_t bytes, char text[CLI_SIZE_BYTES]);

/* SIGINT, SIGTERM, SIGHUP: set by the first of them; what runs is ended, what was begun is undone. */
extern volatile sig_atomic_t cli_interrupted;
extern void cli_catch_signals(void);

/* ---- the server ---- */
typedef struct cli_target
{
	const char *conninfo;		/* -d: a database or a connection string, NULL */
	const char *host;			/* NULL: libpq's default; each wins over conninfo */
	const char *port;
	const char *user;
	const char *database;		/* of the connection, where conninfo names none */
	const char *application;
} cli_target;

/* NULL: it has said why.  The caller ends it with PQfinish. */
extern PGconn *cli_connect(const cli_target *target);

/* Rows, or NULL: it has said why, with the server's hint. */
extern PGresult *cli_query(PGconn *conn, const char *sql, int n, const char *const *values);

/* One value, copied; false: no row, NULL, or the query failed (said). */
extern bool cli_value(PGconn *conn, const char *sql, const char *parameter, char *to, size_t cap);

/*
 * The same server for another program of libpq: a connection string without
 * database and without password.  The password, if one was used, is given to
 * the program in its environment (cli_program.password).
 */
extern bool cli_conninfo_for_program(PGconn *conn, const char *application, char *to, size_t cap);

/* ---- programs ---- */
typedef struct cli_program
{
	const char *path;
	const char *args[CLI_ARGS_MAX];	/* args[0] too; ends with NULL */
	int			n_args;
	const char *password;		/* becomes PGPASSWORD, or NULL */

	/* A line of its output (standard error with it); true: it was used, false: it is kept for a message. */
	bool		(*on_line) (void *arg, char *line);
	void	   *arg;
	char		last_lines[CLI_TEXT_MAX];	/* what on_line did not use, the end of it */
} cli_program;

extern void cli_program_add(cli_program *program, const char *arg);

/* Runs it to its end: its exit code; 128 + signal; -1 if it cannot be started (errno). */
extern int	cli_program_run(cli_program *program);

/* The path of PostgreSQL's program `name`: in `bindir` if given, beside this program, or by PATH. */
extern void cli_find_program(const char *bindir, const char *name, char to[CLI_PATH_MAX]);

/* ---- progress ---- */
typedef struct cli_progress
{
	const char *what;
	bool		terminal;		/* a bar that is drawn anew; else a line now and then */
	int64_t		started_us;
	int64_t		shown_us;
	int			shown_percent;
	uint64_t	done;
	uint64_t	total;			/* 0: not known */
	struct
	{
		int64_t		at_us;
		uint64_t	done;
	}			samples[8];		/* the rate is that of the last seconds */
	int			n_samples;
} cli_progress;

extern void cli_progress_begin(cli_progress *progress, const char *what);
extern void cli_progress_show(cli_progress *progress, uint64_t done, uint64_t total);
extern void cli_progress_end(cli_progress *progress, bool well);

/* ---- the base backup ---- */
typedef struct cli_copy
{
	const char *directory;
	const char *bindir;			/* NULL */
	const char *application;	/* name of its connections */
	const char *const *more;	/* further arguments of pg_basebackup */
	int			n_more;
} cli_copy;

/* Runs pg_basebackup with progress.  False: it has said why. */
extern bool cli_copy_run(PGconn *conn, const cli_copy *copy);

/* Is it absent or an empty directory, as pg_basebackup wants it?  Else it has said why. */
extern bool cli_directory_is_free(const char *path, bool *exists);

/* Removes what is below it, and it too unless `keep`; says what it cannot remove. */
extern bool cli_directory_clear(const char *path, bool keep);

/* A file that is whole and durable, or not there: false with errno. */
extern bool cli_write_file(const char *path, const char *text, size_t len, mode_t mode);

/* ---- subcommands: exit codes ---- */
extern int	cli_status(int argc, char **argv);
extern int	cli_progress_command(int argc, char **argv);
extern int	cli_backup(int argc, char **argv);
extern int	cli_join(int argc, char **argv);

/* Options that all have: -h -p -U -d, --host ...; false: not one of them. */
#define CLI_COMMON_SHORT "h:p:U:d:q"
#define CLI_COMMON_LONG \
	{"host", required_argument, NULL, 'h'}, \
	{"port", required_argument, NULL, 'p'}, \
	{"username", required_argument, NULL, 'U'}, \
	{"dbname", required_argument, NULL, 'd'}, \
	{"quiet", no_argument, NULL, 'q'}, \
	{"help", no_argument, NULL, '?'}
extern bool cli_common_option(cli_target *target, int option, const char *value);

/* Ends a wrong command line: says which command's help to look at; CLI_USAGE. */
extern int	cli_usage(const char *command);

#endif							/* MG_CLI_CLI_H */
