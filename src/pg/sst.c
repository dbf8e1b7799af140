/*
 * pg/sst.c - see sst.h.
 *
 * How: libpq without blocking, under this process's latch, so that a donor
 * that hangs costs its timeout and nothing else.  Passwords stay where libpq
 * looks for them: in the password file, or in mgrepl.sst_conninfo, from where a
 * program gets them through its environment, never through its arguments.
 *
 * What is compared before the copy is what would otherwise be found out by a
 * server that does not start, or, with locales, by an index that is silently
 * out of order.
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "access/twophase.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/catversion.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_locale.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "pg/compat.h"
#include "pg/dump.h"
#include "pg/error.h"
#include "pg/guc.h"
#include "pg/shmem.h"
#include "pg/sst.h"

#define CONNECT_MS		5000
#define QUERY_MS		20000
#define PING_EVERY_MS	2000
#define PING_MS			15000
#define ROOM_RESERVE	(INT64CONST(64) * 1024 * 1024)
#define POLL_MS			200

static const char permission_hint[] =
	"Set mgrepl.sst_conninfo (user, passfile, sslmode ...) on this node, and let that role connect on the donor: "
	"pg_hba.conf there needs the database and \"replication\".";

void
mgrepl_sst_check(void)
{
	CHECK_FOR_INTERRUPTS();
	if (!PostmasterIsAlive())
		proc_exit(1);			/* there is no server any more that could get it */
	if (pg_atomic_read_u32(&mgrepl_shared->transfer.cancelled) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the state transfer was called off")));
}

bool
mgrepl_sst_is_logical(void)
{
	return strcmp(mgrepl_sst_method, MGREPL_SST_METHOD_DUMP) == 0;
}

static bool
trouble_is(MgTrouble *trouble, const char *hint, const char *format,...) pg_attribute_printf(3, 4);

static bool
trouble_is(MgTrouble *trouble, const char *hint, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(trouble->error, sizeof(trouble->error), format, args);
	va_end(args);
	strlcpy(trouble->hint, hint, sizeof(trouble->hint));
	return false;
}

/* ---------------------------------------------------------------- connection */

/* libpq's messages end in a newline, and may have several lines: the first says it. */
static const char *
said(PGconn *conn)
{
	static char line[400];
	const char *message = PQerrorMessage(conn);

	const char *severity = strstr(message, "FATAL:  ");

	/* "connection to server at ... failed: FATAL:  ...": one severity is enough, ours */
	if (severity != NULL)
		snprintf(line, sizeof(line), "%.*s%s", (int) (severity - message), message, severity + strlen("FATAL:  "));
	else
		strlcpy(line, message, sizeof(line));
	line[strcspn(line, "\r\n")] = '\0';
	return line[0] != '\0' ? line : "no reason given";
}

/* Waits for the socket; false when the time has run out. */
static bool
wait_socket(PGconn *conn, int events, TimestampTz until)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	if (ms <= 0)
		return false;
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT | events,
							 PQsocket(conn), Min(ms, POLL_MS), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	mgrepl_sst_check();
	return true;
}

#define OPTIONS_MAX 64

/* What the member's address and mgrepl.sst_conninfo say together; the latter wins. */
static bool
connect_to(MgSst *sst, MgTrouble *trouble)
{
	const char *keywords[OPTIONS_MAX + 8];
	const char *values[OPTIONS_MAX + 8];
	char		host[MG_ADDRESS_BYTES_MAX];
	char	   *port;
	char	   *error = NULL;
	PQconninfoOption *options = PQconninfoParse(mgrepl_sst_conninfo, &error);
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_MS);
	PostgresPollingStatusType poll = PGRES_POLLING_WRITING;
	int			n = 0;

	if (options == NULL)
	{
		trouble_is(trouble, "Correct the setting: \"user=... passfile=... sslmode=...\".",
				   "mgrepl.sst_conninfo cannot be used: %s", error != NULL ? error : "out of memory");
		PQfreemem(error);
		return false;
	}
	strlcpy(host, sst->donor.sql_address, sizeof(host));
	port = strrchr(host, ':');
	if (port == NULL || port == host)
	{
		PQconninfoFree(options);
		return trouble_is(trouble, "Set mgrepl.sql_address on that member.", "its SQL address is not known");
	}
	*port++ = '\0';
	if (host[0] == '[')
	{
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	keywords[n] = "host";
	values[n++] = host;
	keywords[n] = "port";
	values[n++] = port;
	keywords[n] = "application_name";
	values[n++] = "mgrepl joiner";
	keywords[n] = "keepalives_idle";
	values[n++] = "5";
	for (PQconninfoOption *o = options; o->keyword != NULL && n < OPTIONS_MAX; o++)
		if (o->val != NULL && strcmp(o->keyword, "dbname") != 0)
		{
			/* A later one of the same name wins, but "host" beats a "hostaddr" of ours never given. */
			keywords[n] = o->keyword;
			values[n++] = o->val;
		}
	keywords[n] = "dbname";
	values[n++] = mgrepl_database;
	keywords[n] = values[n] = NULL;

	sst->conn = PQconnectStartParams(keywords, values, 0);
	PQconninfoFree(options);
	if (sst->conn == NULL)
		return trouble_is(trouble, "", "out of memory");
	while (PQstatus(sst->conn) != CONNECTION_BAD && poll != PGRES_POLLING_OK && poll != PGRES_POLLING_FAILED)
	{
		if (!wait_socket(sst->conn, poll == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE, until))
		{
			mgrepl_sst_close(sst);
			return trouble_is(trouble, "Check mgrepl.sql_address of that member, its listen_addresses and the network.",
							  "no connection to %s within %d s", sst->donor.sql_address, CONNECT_MS / 1000);
		}
		poll = PQconnectPoll(sst->conn);
	}
	if (PQstatus(sst->conn) != CONNECTION_OK)
	{
		/* The server's own refusals (password, pg_hba) begin with FATAL. */
		bool		refused = strstr(PQerrorMessage(sst->conn), "FATAL") != NULL || PQconnectionNeedsPassword(sst->conn);

		trouble_is(trouble, refused ? permission_hint :
				   "Check mgrepl.sql_address of that member, its listen_addresses and the network.",
				   "%s", said(sst->conn));
		mgrepl_sst_close(sst);
		return false;
	}
	(void) PQsetnonblocking(sst->conn, 1);
	return true;
}

void
mgrepl_sst_close(MgSst *sst)
{
	if (sst->conn != NULL)
		PQfinish(sst->conn);
	sst->conn = NULL;
}

/* The result of a query, NULL if there is none in time; the caller looks at its status. */
static PGresult *
collect(MgSst *sst, int ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	PGresult   *last = NULL;

	for (;;)
	{
		PGresult   *result;

		while (PQisBusy(sst->conn) || PQflush(sst->conn) > 0)
		{
			if (!wait_socket(sst->conn, WL_SOCKET_READABLE, until) || !PQconsumeInput(sst->conn))
			{
				PQclear(last);
				return NULL;
			}
		}
		if ((result = PQgetResult(sst->conn)) == NULL)
			return last;
		PQclear(last);
		last = result;
	}
}

static PGresult *
query(MgSst *sst, const char *sql, const char *param, int ms, MgTrouble *trouble, const char *hint)
{
	PGresult   *result = NULL;

	if (PQsendQueryParams(sst->conn, sql, param != NULL ? 1 : 0, NULL, &param, NULL, NULL, 0))
		result = collect(sst, ms);
	if (result != NULL && ((PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0) ||
						   PQresultStatus(result) == PGRES_COMMAND_OK))
		return result;
	if (result == NULL)
		trouble_is(trouble, "Look into the server log there.", "%s",
				   PQstatus(sst->conn) == CONNECTION_OK ? "the server there does not answer" : said(sst->conn));
	else
	{
		const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
		const char *its_hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

		trouble_is(trouble, its_hint != NULL ? its_hint : hint, "%s", primary != NULL ? primary : "it gave no answer");
	}
	PQclear(result);
	return NULL;
}

/* --------------------------------------------------------------- the choice */

static int
rank_of(const char *name)
{
	char	   *list = pstrdup(mgrepl_sst_donor);
	char	   *state;
	int			rank = 0;

	for (char *word = strtok_r(list, ", \t", &state); word != NULL; word = strtok_r(NULL, ", \t", &state), rank++)
		if (strcmp(word, name) == 0)
			return rank;
	return INT_MAX;
}

bool
mgrepl_sst_probe(MgSst *sst, MgTrouble *trouble)
{
	PGresult   *result;
	const char *state;
	bool		good;

	sst->rank = rank_of(sst->donor.name);
	sst->same_segment = sst->donor.segment == mgrepl_segment;
	if (!connect_to(sst, trouble))
		return false;
	result = query(sst,
				   "SELECT (SELECT value FROM mgrepl.status WHERE name = 'node_state'),"
				   " (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend')",
				   NULL, QUERY_MS, trouble, "Is it a member of the cluster, with the extension mgrepl in mgrepl.database?");
	if (result == NULL)
	{
		mgrepl_sst_close(sst);
		return false;
	}
	state = PQgetvalue(result, 0, 0);
	sst->busy = strcmp(state, "DONOR") == 0;
	sst->load = atoll(PQgetvalue(result, 0, 1));
	good = sst->busy || strcmp(state, "SYNCED") == 0;
	if (!good)
		trouble_is(trouble, "Wait until it is SYNCED.", "it is in state %s", state);
	PQclear(result);
	if (!good)
		mgrepl_sst_close(sst);
	return good;
}

int
mgrepl_sst_compare(const void *a, const void *b)
{
	const MgSst *x = *(MgSst *const *) a;
	const MgSst *y = *(MgSst *const *) b;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	if (x->same_segment != y->same_segment)
		return x->same_segment ? -1 : 1;
	if (x->busy != y->busy)
		return x->busy ? 1 : -1;
	if (x->load != y->load)
		return x->load < y->load ? -1 : 1;
	return strcmp(x->donor.name, y->donor.name);
}

/* ------------------------------------------------------- does its data fit? */

enum
{
	COL_GTID, COL_VERSION, COL_CATALOG, COL_BLOCK, COL_WAL_SEGMENT, COL_CHECKSUMS, COL_COLLATE, COL_CTYPE,
	COL_PROVIDER, COL_COLLATION_VERSION, COL_BYTES, COL_EXTENSION, COL_ORIGINS, COL_PREPARED, COL_ENCODING,
	COL_TS_OID, COL_TS_LOCATION, COL_TS_BYTES
};

static const char donate_sql[] =
	"SELECT d.gtid, d.server_version_num, d.catalog_version, d.block_size, d.wal_segment_size, d.data_checksums,"
	" d.\"collate\", d.ctype, d.locale_provider, d.collation_version, d.data_bytes, d.extension_version,"
	" (SELECT count(*) FROM pg_catalog.pg_replication_origin),"
	" pg_catalog.current_setting('max_prepared_transactions'),"
	" (SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),"
	" t.oid, t.location, t.bytes"
	" FROM mgrepl.donate($1) AS d LEFT JOIN LATERAL"
	" pg_catalog.jsonb_to_recordset(d.tablespaces) AS t(oid pg_catalog.oid, name text, location text, bytes bigint) ON true";

static bool
same_number(MgTrouble *trouble, const char *what, long long here, const char *there, const char *hint)
{
	if (here == atoll(there))
		return true;
	return trouble_is(trouble, hint, "its %s is %s, this server's is %lld", what, there, here);
}

static bool
locale_fits(PGresult *r, MgTrouble *trouble)
{
	static const char install[] = "Install the same locales, from the same version of the C library and ICU, on both machines.";
	const char *collate = PQgetvalue(r, 0, COL_COLLATE);
	const char *ctype = PQgetvalue(r, 0, COL_CTYPE);
	const char *version = PQgetvalue(r, 0, COL_COLLATION_VERSION);
	bool		icu = PQgetvalue(r, 0, COL_PROVIDER)[0] == 'i';
	char	   *here;

	if (!check_locale(LC_COLLATE, collate, NULL))
		return trouble_is(trouble, install, "its database has the locale \"%s\" (LC_COLLATE), which is not known here", collate);
	if (!check_locale(LC_CTYPE, ctype, NULL))
		return trouble_is(trouble, install, "its database has the locale \"%s\" (LC_CTYPE), which is not known here", ctype);
	if (version[0] == '\0' || icu)
		return true;			/* C sorts by bytes; ICU: collations_fit */
	here = get_collation_actual_version('c', collate);
	if (here != NULL && strcmp(here, version) != 0)
		return trouble_is(trouble, install, "its locale \"%s\" has version %s, this machine's is %s: indexes would be out of order",
						  collate, version, here);
	return true;
}

/*
 * All that something there sorts by: of the databases, and the collations that
 * columns, indexes or types use.  One of those that initdb has found on that
 * machine and nobody uses need not be here.  The columns of ICU's locale have
 * had several names.
 */
static const char collations_sql[] =
	"SELECT c.collprovider, coalesce(pg_catalog.to_jsonb(c)->>'colllocale', pg_catalog.to_jsonb(c)->>'colliculocale', c.collcollate),"
	" pg_catalog.pg_collation_actual_version(c.oid)"
	" FROM pg_catalog.pg_collation c WHERE c.collprovider IN ('c', 'i') AND c.oid IN"
	" (SELECT refobjid FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass)"
	" UNION SELECT d.datlocprovider, coalesce(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale', d.datcollate),"
	" pg_catalog.pg_database_collation_actual_version(d.oid)"
	" FROM pg_catalog.pg_database d WHERE d.datlocprovider IN ('c', 'i')";

/* PostgreSQL itself would only warn, when something is sorted. */
static bool
collations_fit(MgSst *sst, MgTrouble *trouble)
{
	PGresult   *r = query(sst, collations_sql, NULL, QUERY_MS, trouble, "");
	bool		good = r != NULL;

	for (int i = 0; good && i < PQntuples(r); i++)
	{
		char		provider = PQgetvalue(r, i, 0)[0];
		const char *locale = PQgetvalue(r, i, 1);
		const char *version = PQgetvalue(r, i, 2);
		char	   *here;

		if (version[0] == '\0')
			continue;			/* C, POSIX: by bytes */
		here = provider == 'c' && !check_locale(LC_COLLATE, locale, NULL) ? NULL : get_collation_actual_version(provider, locale);
		if (here == NULL || strcmp(here, version) != 0)
			good = trouble_is(trouble, "Install the same locales, from the same version of the C library and ICU, on both machines.",
							  "its collation \"%s\" (%s) has version %s, this machine's is %s: indexes would be out of order",
							  locale, provider == 'i' ? "icu" : "libc", version, here != NULL ? here : "not there");
	}
	PQclear(r);
	return good;
}

static bool
data_fits(PGresult *r, MgTrouble *trouble)
{
	static const char newdir[] = "Make this server's data directory anew with the same options of initdb as the cluster's.";
	bool		checksums = PQgetvalue(r, 0, COL_CHECKSUMS)[0] == 't';
	int			major = atoi(PQgetvalue(r, 0, COL_VERSION)) / 10000;

	if (major != MG_PG_MAJOR)
		return trouble_is(trouble, "Install the cluster's major version here.",
						  "it runs PostgreSQL %d, this server %d: the files of one cannot be read by the other", major, MG_PG_MAJOR);
	if (checksums != DataChecksumsEnabled())
		return trouble_is(trouble, checksums ? "Stop this server, run pg_checksums --enable and start it, then join again." :
						  "Stop this server, run pg_checksums --disable and start it, then join again.",
						  checksums ? "its data has checksums, this server's has none" : "its data has no checksums, this server's has");
	if (strcmp(PQgetvalue(r, 0, COL_EXTENSION), MGREPL_EXTENSION_VERSION) != 0)
		return trouble_is(trouble, "Install the same version of mgrepl on every node.", "its extension mgrepl is of version %s, this server's of %s",
						  PQgetvalue(r, 0, COL_EXTENSION), MGREPL_EXTENSION_VERSION);
	if (atoi(PQgetvalue(r, 0, COL_ORIGINS)) > MG_MAX_ORIGINS)
		return trouble_is(trouble, "Set it to at least the same value as on the donor, and restart.",
						  "it has %s replication origins, this server has room for %d (max_replication_slots)",
						  PQgetvalue(r, 0, COL_ORIGINS), MG_MAX_ORIGINS);
	if (atoi(PQgetvalue(r, 0, COL_PREPARED)) > max_prepared_xacts)
		return trouble_is(trouble, "Set it to at least the same value as on the donor, and restart.",
						  "its max_prepared_transactions is %s, this server's is %d",
						  PQgetvalue(r, 0, COL_PREPARED), max_prepared_xacts);
	return same_number(trouble, "catalog version", CATALOG_VERSION_NO, PQgetvalue(r, 0, COL_CATALOG), "Install the same version of PostgreSQL on every node.") &&
		same_number(trouble, "page size", BLCKSZ, PQgetvalue(r, 0, COL_BLOCK), "Install a PostgreSQL that was built in the same way on every node.") &&
		same_number(trouble, "WAL segment size", wal_segment_size, PQgetvalue(r, 0, COL_WAL_SEGMENT), newdir) &&
		locale_fits(r, trouble);
}

/*
 * What a dump can be loaded from.  Keys of rows are compared between nodes by
 * hashes of values, of lower(name) for example: encoding and locale must agree.
 */
static bool
rows_fit(PGresult *r, MgTrouble *trouble)
{
	static const char newdb[] = "Make this server's database anew with the encoding and the locale of the cluster's.";
	const MgDumpHere *here = mgrepl_dump_here();
	int			major = atoi(PQgetvalue(r, 0, COL_VERSION)) / 10000;

	if (major > MG_PG_MAJOR)
		return trouble_is(trouble, "Install the cluster's major version here, or a later one.",
						  "it runs PostgreSQL %d: pg_dump of PostgreSQL %d cannot read that", major, MG_PG_MAJOR);
	if (strcmp(PQgetvalue(r, 0, COL_EXTENSION), MGREPL_EXTENSION_VERSION) != 0)
		return trouble_is(trouble, "Install the same version of mgrepl on every node.", "its extension mgrepl is of version %s, this server's of %s",
						  PQgetvalue(r, 0, COL_EXTENSION), MGREPL_EXTENSION_VERSION);
	if (strcmp(PQgetvalue(r, 0, COL_ENCODING), here->encoding) != 0)
		return trouble_is(trouble, newdb, "its database has the encoding %s, this server's %s",
						  PQgetvalue(r, 0, COL_ENCODING), here->encoding);
	if (strcmp(PQgetvalue(r, 0, COL_COLLATE), here->collate) != 0 || strcmp(PQgetvalue(r, 0, COL_CTYPE), here->ctype) != 0 ||
		strcmp(PQgetvalue(r, 0, COL_PROVIDER), here->provider) != 0)
		return trouble_is(trouble, newdb, "its database has the locale \"%s\", \"%s\" (%s), this server's \"%s\", \"%s\" (%s)",
						  PQgetvalue(r, 0, COL_COLLATE), PQgetvalue(r, 0, COL_CTYPE), PQgetvalue(r, 0, COL_PROVIDER),
						  here->collate, here->ctype, here->provider);
	return true;
}

static bool
take_tablespaces(MgSst *sst, PGresult *r, MgTrouble *trouble)
{
	sst->n_tablespaces = 0;
	for (int i = 0; i < PQntuples(r); i++)
	{
		MgSstTablespace *t = &sst->tablespaces[sst->n_tablespaces];

		if (PQgetisnull(r, i, COL_TS_OID) || !is_absolute_path(PQgetvalue(r, i, COL_TS_LOCATION)))
			continue;
		if (sst->n_tablespaces == MGREPL_SST_TABLESPACES_MAX)
			return trouble_is(trouble, "", "it has more than %d tablespaces", MGREPL_SST_TABLESPACES_MAX);
		strlcpy(t->oid, PQgetvalue(r, i, COL_TS_OID), sizeof(t->oid));
		strlcpy(t->location, PQgetvalue(r, i, COL_TS_LOCATION), sizeof(t->location));
		t->bytes = atoll(PQgetvalue(r, i, COL_TS_BYTES));
		sst->n_tablespaces++;
	}
	return true;
}

/* From now on the control session is in a transaction: as long as that lives, the snapshot does. */
static bool
export_snapshot(MgSst *sst, MgTrouble *trouble)
{
	PGresult   *r = query(sst, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", NULL, QUERY_MS, trouble, "");

	if (r == NULL)
		return false;
	PQclear(r);
	r = query(sst, "SELECT snapshot, gtid, epoch FROM mgrepl.export_snapshot()", NULL, QUERY_MS, trouble, permission_hint);
	if (r == NULL)
		return false;
	strlcpy(sst->snapshot, PQgetvalue(r, 0, 0), sizeof(sst->snapshot));
	strlcpy(sst->gtid, PQgetvalue(r, 0, 1), sizeof(sst->gtid));
	sst->epoch = strtoull(PQgetvalue(r, 0, 2), NULL, 10);
	PQclear(r);
	return true;
}

bool
mgrepl_sst_donate(MgSst *sst, MgTrouble *trouble)
{
	PGresult   *r = query(sst, donate_sql, mgrepl_node_name, QUERY_MS, trouble, permission_hint);
	bool		good;

	if (r == NULL)
		return false;
	strlcpy(sst->gtid, PQgetvalue(r, 0, COL_GTID), sizeof(sst->gtid));
	sst->bytes = atoll(PQgetvalue(r, 0, COL_BYTES));
	good = (mgrepl_sst_is_logical() ? rows_fit(r, trouble) : data_fits(r, trouble)) && take_tablespaces(sst, r, trouble);
	PQclear(r);
	return good && (mgrepl_sst_is_logical() ? export_snapshot(sst, trouble) : collations_fit(sst, trouble));
}

/* ------------------------------------------------------------ where it goes */

/* Bytes needed per file system. */
typedef struct Need
{
	dev_t		dev;
	int64		bytes;
	char		path[MAXPGPATH];	/* some place on it */
} Need;

/* The nearest directory above that is there. */
static void
existing_part(char *path)
{
	struct stat st;

	while (stat(path, &st) != 0 && strcmp(path, "/") != 0)
		get_parent_directory(path);
}

/* Takes off what an earlier transfer has put behind a name. */
static void
plain_name(char *path)
{
	char	   *mark = NULL;

	for (char *p = strstr(path, ".mgrepl_"); p != NULL; p = strstr(p + 1, ".mgrepl_"))
		mark = p;
	if (mark != NULL && strchr(mark, '/') == NULL)
		*mark = '\0';
}

/*
 * Makes a directory for the copy alone: `wanted`, or, if something is there, one
 * beside it, or in it where it is a disk's root or its parent is not ours.  A
 * directory that was found is never used itself, however empty: it may just have
 * been made by another server's transfer.
 */
static bool
find_place(const char *wanted, MgSwapPlace *place, MgTrouble *trouble)
{
	char		base[MAXPGPATH];
	char		parent[MAXPGPATH];
	struct stat st_wanted;
	struct stat st_parent;

	strlcpy(place->path, wanted, sizeof(place->path));
	strlcpy(parent, wanted, sizeof(parent));
	get_parent_directory(parent);
	strlcpy(base, parent, sizeof(base));	/* pg_mkdir_p changes what it is given, if it fails */
	if (pg_mkdir_p(base, pg_dir_create_mode) == 0 && mkdir(wanted, pg_dir_create_mode) == 0)
		return true;
	strlcpy(base, wanted, sizeof(base));
	plain_name(base);
	if (stat(wanted, &st_wanted) == 0 && stat(parent, &st_parent) == 0 && S_ISDIR(st_wanted.st_mode) &&
		(st_wanted.st_dev != st_parent.st_dev || access(parent, W_OK | X_OK) != 0))
		snprintf(base, sizeof(base), "%s/data", wanted);
	for (int i = 0; i < 100; i++)
	{
		snprintf(place->path, sizeof(place->path), "%s.mgrepl_%llx", base,
				 (unsigned long long) GetCurrentTimestamp() / 1000 + i);
		if (mkdir(place->path, pg_dir_create_mode) == 0)
			return true;
		if (errno != EEXIST)
			break;
	}
	return trouble_is(trouble, "Let the server's user make directories there.",
					  "\"%s\" cannot be made here, nor \"%s\": %m", wanted, place->path);
}

static bool
add_need(Need *needs, int *n, const char *path, int64 bytes, MgTrouble *trouble)
{
	char		at[MAXPGPATH];
	struct stat st;

	strlcpy(at, path, sizeof(at));
	existing_part(at);
	if (stat(at, &st) != 0)
		return trouble_is(trouble, "", "\"%s\" cannot be used here: %m", path);
	for (int i = 0; i < *n; i++)
		if (needs[i].dev == st.st_dev)
		{
			needs[i].bytes += bytes;
			return true;
		}
	needs[*n].dev = st.st_dev;
	needs[*n].bytes = bytes;
	strlcpy(needs[*n].path, at, MAXPGPATH);
	(*n)++;
	return true;
}

static bool
has_room(const Need *need, MgTrouble *trouble)
{
	struct statvfs fs;
	int64		free_bytes;

	if (statvfs(need->path, &fs) != 0)
		return trouble_is(trouble, "", "the free space in \"%s\" cannot be found out: %m", need->path);
	free_bytes = (int64) fs.f_bavail * (int64) fs.f_frsize;
	if (free_bytes >= need->bytes + ROOM_RESERVE)
		return true;
	return trouble_is(trouble, "Free some space, or put the data on a larger disk. The old data is kept until the node is level with the cluster.",
					  "the copy needs %lld MB in \"%s\", where %lld MB are free",
					  (long long) ((need->bytes + ROOM_RESERVE) >> 20), need->path, (long long) (free_bytes >> 20));
}

bool
mgrepl_sst_has_room(MgSst *sst, MgTrouble *trouble)
{
	Need	   *need = palloc0(sizeof(Need));
	int			n = 0;
	int64		bytes = sst->bytes;

	for (int i = 0; i < sst->n_tablespaces; i++)
		bytes += sst->tablespaces[i].bytes;
	return add_need(need, &n, DataDir, bytes, trouble) && has_room(need, trouble);
}

/* WAL that lies on another disk stays there. */
static bool
find_wal_place(MgSst *sst, MgSwapPlace *places, int *n, MgTrouble *trouble)
{
	char		target[MAXPGPATH];
	ssize_t		len = readlink("pg_wal", target, sizeof(target) - 1);

	sst->wal_place[0] = '\0';
	if (len <= 0)
		return true;
	target[len] = '\0';
	if (!find_place(target, &places[*n], trouble))
		return false;
	strlcpy(sst->wal_place, places[*n].path, sizeof(sst->wal_place));
	(*n)++;
	return true;
}

void
mgrepl_sst_drop_places(const MgSwapPlace *places, int n)
{
	for (int i = 0; i < n; i++)
		(void) rmdir(places[i].path);
}

bool
mgrepl_sst_find_places(MgSst *sst, MgSwapPlace *places, int *n, MgTrouble *trouble)
{
	Need	   *needs = palloc((sst->n_tablespaces + 2) * sizeof(Need));
	int			n_needs = 0;
	bool		good = true;

	*n = 0;
	for (int i = 0; good && i < sst->n_tablespaces; i++)
	{
		MgSstTablespace *t = &sst->tablespaces[i];

		if (!find_place(t->location, &places[*n], trouble))
			good = false;
		else
		{
			strlcpy(t->place, places[*n].path, sizeof(t->place));
			(*n)++;
			good = add_need(needs, &n_needs, t->place, t->bytes, trouble);
		}
	}
	if (!good || !find_wal_place(sst, places, n, trouble) ||
		!add_need(needs, &n_needs, DataDir, sst->bytes, trouble))
		good = false;
	for (int i = 0; good && i < n_needs; i++)
		good = has_room(&needs[i], trouble);
	pfree(needs);
	if (!good)
		mgrepl_sst_drop_places(places, *n);
	return good;
}

/* -------------------------------------------------------- while it is copied */

bool
mgrepl_sst_alive(MgSst *sst, MgTrouble *trouble)
{
	static TimestampTz next = 0;
	static TimestampTz asked = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (PQtransactionStatus(sst->conn) != PQTRANS_ACTIVE)
	{
		asked = 0;
		if (!PQconsumeInput(sst->conn) || PQstatus(sst->conn) != CONNECTION_OK)
			return trouble_is(trouble, "", "the donor is gone: %s", said(sst->conn));
		if (now < next)
			return true;
		next = TimestampTzPlusMilliseconds(now, PING_EVERY_MS);
		if (!PQsendQuery(sst->conn, "SELECT 1"))
			return trouble_is(trouble, "", "the donor is gone: %s", said(sst->conn));
		asked = now;
		return true;
	}
	if (asked == 0)
		asked = now;
	(void) PQflush(sst->conn);
	if (!PQconsumeInput(sst->conn))
		return trouble_is(trouble, "", "the donor is gone: %s", said(sst->conn));
	while (!PQisBusy(sst->conn))
	{
		PGresult   *r = PQgetResult(sst->conn);

		if (r == NULL)
			return true;
		if (PQresultStatus(r) != PGRES_TUPLES_OK)
		{
			PQclear(r);
			return trouble_is(trouble, "", "the donor has ended the transfer: %s", said(sst->conn));
		}
		PQclear(r);
	}
	if (TimestampDifferenceExceeds(asked, now, PING_MS))
		return trouble_is(trouble, "", "the donor has not answered for %d s", PING_MS / 1000);
	return true;
}

bool
mgrepl_sst_still_good(MgSst *sst, MgTrouble *trouble)
{
	PGresult   *r;
	bool		good;

	PQclear(collect(sst, PING_MS));	/* mgrepl_sst_alive may have asked something */
	r = query(sst, "SELECT value FROM mgrepl.status WHERE name = 'node_state'", NULL, PING_MS, trouble, "");
	if (r == NULL)
		return false;
	good = strcmp(PQgetvalue(r, 0, 0), "DONOR") == 0 || strcmp(PQgetvalue(r, 0, 0), "SYNCED") == 0;
	if (!good)
		trouble_is(trouble, "Wait until it is SYNCED, or take another donor.",
				   "when the copy was whole the donor was in state %s", PQgetvalue(r, 0, 0));
	PQclear(r);
	return good;
}

/* What a program is given of the connection's options. */
const char *
mgrepl_sst_option(MgSst *sst, const char *keyword)
{
	PQconninfoOption *options = PQconninfo(sst->conn);
	const char *value = "";

	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
		if (strcmp(o->keyword, keyword) == 0 && o->val != NULL)
			value = pstrdup(o->val);
	PQconninfoFree(options);
	return value;
}

char *
mgrepl_sst_conninfo_for(MgSst *sst, const char *application_name)
{
	PQconninfoOption *options = PQconninfo(sst->conn);
	StringInfoData text;

	initStringInfo(&text);
	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		const char *value = strcmp(o->keyword, "application_name") == 0 ? application_name : o->val;

		/* '*' marks passwords; what is not set, or a default, says nothing. */
		if (value == NULL || value[0] == '\0' || strchr(o->dispchar, '*') != NULL ||
			strcmp(o->keyword, "dbname") == 0 || strcmp(o->keyword, "replication") == 0)
			continue;
		appendStringInfo(&text, "%s%s='", text.len > 0 ? " " : "", o->keyword);
		for (const char *c = value; *c != '\0'; c++)
		{
			if (*c == '\'' || *c == '\\')
				appendStringInfoChar(&text, '\\');
			appendStringInfoChar(&text, *c);
		}
		appendStringInfoChar(&text, '\'');
	}
	PQconninfoFree(options);
	return text.data;
}

bool
mgrepl_sst_verify(MgTrouble *trouble)
{
	bool		here_ok;
	bool		there_ok;
	ControlFileData *here;
	ControlFileData *there;

	if (access(MGREPL_STAGING_DIR "/" XLOG_CONTROL_FILE, R_OK) != 0)
		return trouble_is(trouble, "Look at the method of the transfer.", "the copy is not whole: it has no %s", XLOG_CONTROL_FILE);
	here = get_controlfile(DataDir, &here_ok);
	there = get_controlfile(MGREPL_STAGING_DIR, &there_ok);
	if (!there_ok)
		return trouble_is(trouble, "Try again, with another donor.", "the copy's control file is damaged");
	if (here->pg_control_version != there->pg_control_version || here->catalog_version_no != there->catalog_version_no ||
		here->maxAlign != there->maxAlign || here->floatFormat != there->floatFormat || here->blcksz != there->blcksz ||
		here->relseg_size != there->relseg_size || here->xlog_blcksz != there->xlog_blcksz ||
		here->xlog_seg_size != there->xlog_seg_size || here->nameDataLen != there->nameDataLen ||
		here->indexMaxKeys != there->indexMaxKeys || here->toast_max_chunk_size != there->toast_max_chunk_size ||
		here->loblksize != there->loblksize || here->float8ByVal != there->float8ByVal)
		return trouble_is(trouble, "Install PostgreSQL of the same kind, for the same processor, on every node.",
						  "this server cannot read the copy: it comes from a PostgreSQL that was built differently");
	return true;
}
