/*
 * cli/status.c - the state of a node and the members that it sees; and a running
 * transfer until it ends.  All of it is what the views mgrepl.status,
 * mgrepl.members and mgrepl.transfer_progress show.
 */
#include "cli/cli.h"

#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_MS				500
#define AWAY_S				60			/* a joiner's server restarts with its new data */
#define TRANSFERS_MAX		8

/* ---- status ---- */

static void
print_table(PGresult *rows)
{
	int			n = PQnfields(rows);
	int			widths[16] = {0};

	for (int c = 0; c < n && c < 16; c++)
	{
		widths[c] = (int) strlen(PQfname(rows, c));
		for (int r = 0; r < PQntuples(rows); r++)
			if (PQgetlength(rows, r, c) > widths[c])
				widths[c] = PQgetlength(rows, r, c);
	}
	for (int r = -1; r < PQntuples(rows); r++)
	{
		for (int c = 0; c < n && c < 16; c++)
			printf(c + 1 < n ? "%-*s  " : "%-*s", c + 1 < n ? widths[c] : 0, r < 0 ? PQfname(rows, c) : PQgetvalue(rows, r, c));
		putchar('\n');
	}
}

static bool
print_json(PGconn *conn)
{
	PGresult   *rows = cli_query(conn,
								 "SELECT pg_catalog.jsonb_pretty(pg_catalog.jsonb_build_object("
								 "'status', (SELECT pg_catalog.jsonb_object_agg(s.name, s.value) FROM mgrepl.status s),"
								 "'members', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(m) ORDER BY m.id), '[]') FROM mgrepl.members m),"
								 "'transfers', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t)), '[]') FROM mgrepl.transfer_progress t)))",
								 0, NULL);

	if (rows != NULL)
		puts(PQgetvalue(rows, 0, 0));
	PQclear(rows);
	return rows != NULL;
}

static bool
print_text(PGconn *conn)
{
	PGresult   *status = cli_query(conn,
								   "SELECT v.label, s.value FROM mgrepl.status s JOIN (VALUES"
								   " (1, 'node', 'node_name'), (2, 'state', 'node_state'), (3, 'reason', 'node_state_reason'),"
								   " (4, 'cluster', 'cluster_name'), (5, 'GTID', 'gtid'), (6, 'members', 'cluster_size'),"
								   " (7, 'leader', 'leader'), (8, 'epoch', 'epoch')) AS v (n, label, name) ON s.name = v.name"
								   " WHERE s.value IS NOT NULL ORDER BY v.n", 0, NULL);
	PGresult   *members = status == NULL ? NULL :
		cli_query(conn,
				  "SELECT m.name || CASE WHEN m.is_self THEN ' *' ELSE '' END AS name, m.address,"
				  " CASE WHEN m.is_leader THEN 'leader' WHEN m.role = 'data' THEN 'follower' ELSE m.role END AS role,"
				  " CASE WHEN m.synced THEN 'yes' ELSE 'no' END AS synced, m.weight, m.segment,"
				  " CASE WHEN m.role = 'data' THEN m.committed::text ELSE '' END AS committed,"
				  " CASE WHEN m.is_self THEN '' ELSE m.silent_ms || ' ms' END AS silent"
				  " FROM mgrepl.members m ORDER BY m.id", 0, NULL);

	for (int r = 0; status != NULL && r < PQntuples(status); r++)
		printf("%-8s %s\n", PQgetvalue(status, r, 0), PQgetvalue(status, r, 1));
	if (members != NULL && PQntuples(members) > 0)
	{
		putchar('\n');
		print_table(members);
	}
	PQclear(status);
	PQclear(members);
	return members != NULL;
}

int
cli_status(int argc, char **argv)
{
	static const struct option options[] = {
		CLI_COMMON_LONG,
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0}
	};
	cli_target	target = {.database = "postgres",.application = "mgreplctl status"};
	bool		json = false;
	PGconn	   *conn;
	char		primary[16] = "";
	int			code = CLI_FAILED;
	int			option;

	while ((option = getopt_long(argc, argv, CLI_COMMON_SHORT "j", options, NULL)) != -1)
	{
		if (option == 'j')
			json = true;
		else if (!cli_common_option(&target, option, optarg))
			return cli_usage("status");
	}
	if (optind < argc)
	{
		cli_error("status takes no \"%s\"", argv[optind]);
		return cli_usage("status");
	}
	conn = cli_connect(&target);
	if (conn == NULL)
		return CLI_NO_SERVER;
	if (json ? print_json(conn) : print_text(conn))
	{
		(void) cli_value(conn, "SELECT value FROM mgrepl.status WHERE name = 'primary'", NULL, primary, sizeof(primary));
		code = strcmp(primary, "on") == 0 ? CLI_DONE : CLI_NO_PRIMARY;
	}
	PQfinish(conn);
	return code;
}

/* ---- progress ---- */

typedef struct watched
{
	char		name[256];		/* role, peer and phase */
	bool		seen;
	cli_progress progress;
} watched;

static watched transfers[TRANSFERS_MAX];
static int	n_transfers = 0;

static void
watch_row(PGresult *rows, int r, bool alone)
{
	char		name[sizeof(transfers[0].name)] = "";
	bool		donor = strcmp(PQgetvalue(rows, r, 0), "donor") == 0;
	watched    *w = NULL;

	(void) cli_append(name, sizeof(name), "%s %.100s, %.60s", donor ? "to" : "from",
					  PQgetisnull(rows, r, 1) ? "?" : PQgetvalue(rows, r, 1), PQgetvalue(rows, r, 2));
	for (int i = 0; i < n_transfers && w == NULL; i++)
		if (strcmp(transfers[i].name, name) == 0)
			w = &transfers[i];
	if (w == NULL)
	{
		if (n_transfers == TRANSFERS_MAX)
			n_transfers = 0;
		w = &transfers[n_transfers++];
		memcpy(w->name, name, sizeof(w->name));
		cli_progress_begin(&w->progress, w->name);
		if (w->progress.terminal)
			printf("\r\033[K%s\n", name);
	}
	w->progress.terminal = w->progress.terminal && alone;
	cli_progress_show(&w->progress, strtoull(PQgetvalue(rows, r, 3), NULL, 10), strtoull(PQgetvalue(rows, r, 4), NULL, 10));
}

/* How many transfers run; -1: the connection is lost; -2: it cannot be told (said).  The error of one that failed, in `error`. */
static int
look(PGconn *conn, char *error, size_t cap)
{
	static const char *sql =
		"SELECT role, peer, phase, coalesce(bytes_done, 0), coalesce(bytes_total, 0), error, phase IN ('failed', 'none')"
		" FROM mgrepl.transfer_progress ORDER BY 1, 2";
	PGresult   *rows = PQexec(conn, sql);
	int			running = 0;

	if (PQresultStatus(rows) != PGRES_TUPLES_OK)
	{
		PQclear(rows);
		if (PQstatus(conn) != CONNECTION_OK)
			return -1;
		PQclear(cli_query(conn, sql, 0, NULL));	/* says why */
		return -2;
	}
	error[0] = '\0';
	for (int r = 0; r < PQntuples(rows); r++)
	{
		if (PQgetvalue(rows, r, 6)[0] == 't')
		{
			if (strcmp(PQgetvalue(rows, r, 2), "failed") == 0)
				(void) cli_append(error, cap, "%s", PQgetisnull(rows, r, 5) ? "the transfer failed" : PQgetvalue(rows, r, 5));
			continue;
		}
		running++;
		watch_row(rows, r, PQntuples(rows) == 1);
	}
	PQclear(rows);
	return running;
}

static PGconn *
connect_again(const cli_target *target)
{
	time_t		until = time(NULL) + AWAY_S;

	cli_say("the server is away, as when it restarts with its new data");
	while (!cli_interrupted && time(NULL) < until)
	{
		const char *keywords[] = {"connect_timeout", "dbname", "host", "port", "user", NULL};
		const char *values[] = {"5", target->conninfo != NULL ? target->conninfo : target->database, target->host,
			target->port, target->user, NULL};
		PGconn	   *conn = PQconnectdbParams(keywords, values, 1);

		if (PQstatus(conn) == CONNECTION_OK)
			return conn;
		PQfinish(conn);
		(void) poll(NULL, 0, LOOK_MS);
	}
	return cli_connect(target);	/* says why not */
}

static int
watch(PGconn **conn, const cli_target *target, bool once)
{
	char		error[CLI_TEXT_MAX];
	bool		any = false;

	for (;;)
	{
		int			running = look(*conn, error, sizeof(error));

		if (running == -2)
			return CLI_FAILED;
		if (running == -1)
		{
			PQfinish(*conn);
			*conn = any ? connect_again(target) : NULL;
			if (*conn == NULL)
				return CLI_NO_SERVER;
			continue;
		}
		any = any || running > 0;
		if (running == 0 || once)
			break;
		(void) poll(NULL, 0, LOOK_MS);
		if (cli_interrupted)
			return CLI_FAILED;
	}
	for (int i = 0; i < n_transfers; i++)
		if (transfers[i].progress.terminal)
			putchar('\n');
	if (error[0] != '\0')
	{
		cli_error("the last transfer failed: %s", error);
		return CLI_FAILED;
	}
	if (!once)
		cli_say(any ? "no transfer runs any more" : "no transfer runs");
	return CLI_DONE;
}

int
cli_progress_command(int argc, char **argv)
{
	static const struct option options[] = {
		CLI_COMMON_LONG,
		{"once", no_argument, NULL, '1'},
		{NULL, 0, NULL, 0}
	};
	cli_target	target = {.database = "postgres",.application = "mgreplctl progress"};
	bool		once = false;
	PGconn	   *conn;
	int			code;
	int			option;

	while ((option = getopt_long(argc, argv, CLI_COMMON_SHORT "1", options, NULL)) != -1)
	{
		if (option == '1')
			once = true;
		else if (!cli_common_option(&target, option, optarg))
			return cli_usage("progress");
	}
	if (optind < argc)
	{
		cli_error("progress takes no \"%s\"", argv[optind]);
		return cli_usage("progress");
	}
	conn = cli_connect(&target);
	if (conn == NULL)
		return CLI_NO_SERVER;
	cli_catch_signals();
	code = watch(&conn, &target, once);
	PQfinish(conn);
	return code;
}
