/*
 * cli/backup.c - a base backup with its position recorded.
 *
 * pg_basebackup does the work.  Beside what it makes lies mgrepl_backup_label:
 * the position when it began, as the server tells it (everything up to there is
 * in the backup), and the one when it ended (nothing behind it is).  A server
 * that starts from the backup knows its exact position from its own WAL, and
 * joins with what it lacks from the members' logs as far as they reach back.
 */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#define LABEL_FILE "mgrepl_backup_label"

static bool
read_label(PGconn *conn, char *label, size_t cap)
{
	char		state[64] = "";

	if (!cli_value(conn, "SELECT value FROM mgrepl.status WHERE name = 'node_state'", NULL, state, sizeof(state)))
		return false;
	if (strcmp(state, "SYNCED") != 0 && strcmp(state, "DONOR") != 0)
	{
		cli_error("the node is %s: its data may be older than the cluster's, or differ from it", state);
		cli_hint("Take the backup of a node that is SYNCED; mgreplctl status shows the members.");
		return false;
	}
	if (cli_value(conn, "SELECT mgrepl.backup_label()", NULL, label, cap))
		return true;
	cli_error("the server tells no position for the backup");
	return false;
}

static bool
write_label(PGconn *conn, const char *directory, char *label, size_t cap)
{
	char		path[CLI_PATH_MAX];
	char		gtid[256];

	/* The server may have gone since; then the backup is none the worse. */
	if (PQstatus(conn) == CONNECTION_OK && cli_value(conn, "SELECT mgrepl.gtid()", NULL, gtid, sizeof(gtid)))
		(void) cli_append(label, cap, "END GTID: %s\n", gtid);
	if (snprintf(path, sizeof(path), "%s/" LABEL_FILE, directory) < (int) sizeof(path) &&
		cli_write_file(path, label, strlen(label), 0600))
		return true;
	cli_error("\"%s\" cannot be written: %s", path, strerror(errno));
	cli_hint("The backup itself is whole.");
	return false;
}

static int
backup(PGconn *conn, const char *directory, const char *bindir, char **more, int n_more)
{
	char		label[CLI_TEXT_MAX] = "";
	cli_copy	copy = {.directory = directory,.bindir = bindir,.application = "mgrepl backup",
	.more = (const char *const *) more,.n_more = n_more};
	bool		existed;

	if (!cli_directory_is_free(directory, &existed) || !read_label(conn, label, sizeof(label)))
		return CLI_REFUSED;
	cli_say("backup of %s:%s into \"%s\"", PQhost(conn), PQport(conn), directory);
	if (!cli_copy_run(conn, &copy))
	{
		bool		there;

		/* pg_basebackup clears up behind itself, unless it was killed. */
		if (cli_interrupted)
			(void) cli_directory_clear(directory, existed);
		else if (!cli_directory_is_free(directory, &there))
			(void) cli_directory_clear(directory, existed);
		return CLI_FAILED;
	}
	if (!write_label(conn, directory, label, sizeof(label)))
		return CLI_FAILED;
	fputs(label, stdout);
	return CLI_DONE;
}

int
cli_backup(int argc, char **argv)
{
	static const struct option options[] = {
		CLI_COMMON_LONG,
		{"target", required_argument, NULL, 't'},
		{"bindir", required_argument, NULL, 'b'},
		{NULL, 0, NULL, 0}
	};
	cli_target	target = {.database = "postgres",.application = "mgreplctl backup"};
	const char *directory = NULL;
	const char *bindir = NULL;
	PGconn	   *conn;
	int			code;
	int			option;

	while ((option = getopt_long(argc, argv, "+" CLI_COMMON_SHORT "t:b:", options, NULL)) != -1)
	{
		if (option == 't')
			directory = optarg;
		else if (option == 'b')
			bindir = optarg;
		else if (!cli_common_option(&target, option, optarg))
			return cli_usage("backup");
	}
	if (directory == NULL || directory[0] == '\0')
	{
		cli_error("backup needs --target=DIR, a new or an empty directory");
		return cli_usage("backup");
	}
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0)
	{
		cli_error("backup takes no \"%s\"; options of pg_basebackup come behind --", argv[optind]);
		return cli_usage("backup");
	}
	conn = cli_connect(&target);
	if (conn == NULL)
		return CLI_NO_SERVER;
	cli_catch_signals();
	code = backup(conn, directory, bindir, argv + optind, argc - optind);
	PQfinish(conn);
	return code;
}
