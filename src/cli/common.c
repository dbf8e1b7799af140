/*
 * cli/common.c - words, signals and the connection; see cli.h.
 */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_S "10"

bool		cli_quiet = false;
volatile sig_atomic_t cli_interrupted = 0;

/* ---- words ---- */

void
cli_say(const char *format,...)
{
	va_list		args;

	if (cli_quiet)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void
cli_error(const char *format,...)
{
	va_list		args;

	fflush(stdout);
	fputs("mgreplctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void
cli_hint(const char *format,...)
{
	va_list		args;

	fputs("HINT:  ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

bool
cli_append(char *to, size_t cap, const char *format,...)
{
	size_t		len = strlen(to);
	va_list		args;
	int			n;

	va_start(args, format);
	n = vsnprintf(to + len, cap - len, format, args);
	va_end(args);
	if (n >= 0 && len + (size_t) n < cap)
		return true;
	to[len] = '\0';
	return false;
}

const char *
cli_size(uint64_t bytes, char text[CLI_SIZE_BYTES])
{
	static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
	double		n = (double) bytes;
	size_t		u = 0;

	while (n >= 1000 && u + 1 < sizeof(units) / sizeof(units[0]))
		n /= 1024, u++;
	snprintf(text, CLI_SIZE_BYTES, u == 0 || n >= 99.95 ? "%.0f %s" : "%.1f %s", n, units[u]);
	return text;
}

static void
on_signal(int number)
{
	cli_interrupted = number;
}

void
cli_catch_signals(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;	/* without SA_RESTART: waits end */
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* ---- options ---- */

bool
cli_common_option(cli_target *target, int option, const char *value)
{
	switch (option)
	{
		case 'h':
			target->host = value;
			return true;
		case 'p':
			target->port = value;
			return true;
		case 'U':
			target->user = value;
			return true;
		case 'd':
			target->conninfo = value;
			return true;
		case 'q':
			cli_quiet = true;
			return true;
		default:
			return false;
	}
}

int
cli_usage(const char *command)
{
	cli_hint("mgreplctl %s --help tells what there is.", command);
	return CLI_USAGE;
}

/* ---- the server ---- */

/* libpq's messages end with a newline, and tell several hosts on lines of their own. */
static void
say_libpq(const char *what, const char *message)
{
	size_t		len = strlen(message);

	while (len > 0 && message[len - 1] == '\n')
		len--;
	cli_error("%s%.*s", what, (int) len, message);
}

static bool
is_connection_string(const char *text)
{
	return strchr(text, '=') != NULL || strncmp(text, "postgresql://", 13) == 0 || strncmp(text, "postgres://", 11) == 0;
}

static bool
names_database(const char *conninfo)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);	/* NULL: wrong, and connecting tells why */
	bool		found = options == NULL;

	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
		if (strcmp(o->keyword, "dbname") == 0 && o->val != NULL && o->val[0] != '\0')
			found = true;
	PQconninfoFree(options);
	return found;
}

PGconn *
cli_connect(const cli_target *target)
{
	const char *database = getenv("PGDATABASE") == NULL ? target->database : NULL;
	const char *string = target->conninfo;

	/* libpq takes the first "dbname" for a connection string if it looks like one, and a second for a name. */
	const char *keywords[] = {"connect_timeout", "fallback_application_name", "dbname", "dbname", "host", "port", "user", NULL};
	const char *values[] = {
		getenv("PGCONNECT_TIMEOUT") == NULL ? CONNECT_TIMEOUT_S : NULL,
		target->application,
		string != NULL ? string : database,
		string != NULL && is_connection_string(string) && !names_database(string) ? database : NULL,
		target->host, target->port, target->user, NULL
	};
	PGconn	   *conn;

	conn = PQconnectdbParams(keywords, values, 1);
	if (conn == NULL)
	{
		cli_error("out of memory");
		return NULL;
	}
	if (PQstatus(conn) == CONNECTION_OK)
		return conn;
	say_libpq("", PQerrorMessage(conn));
	PQfinish(conn);
	return NULL;
}

PGresult *
cli_query(PGconn *conn, const char *sql, int n, const char *const *values)
{
	PGresult   *result = PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
	const char *hint;

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	if (PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) != NULL)
	{
		cli_error("the server says: %s", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
		hint = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
		if (hint != NULL)
			fprintf(stderr, "DETAIL:  %s\n", hint);
		hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
		if (hint != NULL)
			cli_hint("%s", hint);
		else if (strncmp(PQresultErrorField(result, PG_DIAG_SQLSTATE), "3F", 2) == 0 ||
				 strncmp(PQresultErrorField(result, PG_DIAG_SQLSTATE), "42", 2) == 0)
			cli_hint("Connect to the replicated database (mgrepl.database; here it is \"%s\"), with --dbname.", PQdb(conn));
	}
	else
		say_libpq("", PQerrorMessage(conn));
	PQclear(result);
	return NULL;
}

bool
cli_value(PGconn *conn, const char *sql, const char *parameter, char *to, size_t cap)
{
	PGresult   *result = cli_query(conn, sql, parameter != NULL ? 1 : 0, &parameter);
	bool		good = result != NULL && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0) &&
		(size_t) PQgetlength(result, 0, 0) < cap;

	if (good)
		memcpy(to, PQgetvalue(result, 0, 0), (size_t) PQgetlength(result, 0, 0) + 1);
	PQclear(result);
	return good;
}

static bool
append_option(char *to, size_t cap, const char *keyword, const char *value)
{
	bool		good = cli_append(to, cap, "%s%s='", to[0] != '\0' ? " " : "", keyword);

	for (; good && *value != '\0'; value++)
		good = cli_append(to, cap, *value == '\'' || *value == '\\' ? "\\%c" : "%c", *value);
	return good && cli_append(to, cap, "'");
}

/* Is it of this connection only, or told otherwise? */
static bool
leaves_out(const char *keyword)
{
	static const char *const names[] = {"dbname", "password", "host", "hostaddr", "port", "replication", "application_name",
		"fallback_application_name", "client_encoding", "options", "target_session_attrs", "load_balance_hosts"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(keyword, names[i]) == 0)
			return true;
	return false;
}

bool
cli_conninfo_for_program(PGconn *conn, const char *application, char *to, size_t cap)
{
	PQconninfoOption *options = PQconninfo(conn);
	bool		good = options != NULL;
	bool		address = false;

	to[0] = '\0';
	for (PQconninfoOption *o = options; good && o->keyword != NULL; o++)
	{
		if (strcmp(o->keyword, "hostaddr") == 0)
			address = o->val != NULL && o->val[0] != '\0';
		if (o->val == NULL || o->val[0] == '\0' || leaves_out(o->keyword) ||
			(o->compiled != NULL && strcmp(o->val, o->compiled) == 0))
			continue;
		good = append_option(to, cap, o->keyword, o->val);
	}
	PQconninfoFree(options);

	/* Of several hosts, the one that has answered. */
	return good && append_option(to, cap, "host", PQhost(conn)) && append_option(to, cap, "port", PQport(conn)) &&
		(!address || append_option(to, cap, "hostaddr", PQhostaddr(conn))) &&
		append_option(to, cap, "application_name", application);
}
