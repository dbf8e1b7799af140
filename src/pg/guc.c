/*
 * pg/guc.c - the settings, all under "mgrepl.".
 *
 * What the provider or the layout of shared memory is built on can change only
 * with a restart (PGC_POSTMASTER), so that SHOW never tells anything but what
 * is in force.  Addresses are checked when they are set: a typing error is
 * told with its place, not found by a node that cannot reach anybody.  Times
 * that must fit each other are compared when all of them are known, at the start
 * of the server, which then uses values that fit, and says so: a hook sees one
 * setting at a time, and a node that does not start helps nobody.
 */
#include "postgres.h"

#include <limits.h>
#include <unistd.h>

#include "utils/guc.h"

#include "core/address.h"
#include "core/base.h"
#include "core/wire.h"
#include "pg/guc.h"
#include "pg/shmem.h"

#define KEEPALIVE_MS	100
#define SUSPECT_MS		1000
#define SUSPECT_MIN_MS	50
#define INACTIVE_MS		5000

char	   *mgrepl_node_name = NULL;
char	   *mgrepl_cluster_name = NULL;
char	   *mgrepl_cluster_address = NULL;
char	   *mgrepl_listen_address = NULL;
char	   *mgrepl_node_address = NULL;
char	   *mgrepl_sql_address = NULL;
char	   *mgrepl_sst_method = NULL;
char	   *mgrepl_sst_donor = NULL;
char	   *mgrepl_sst_conninfo = NULL;
bool		mgrepl_sst_keep_old = false;
char	   *mgrepl_database = NULL;
char	   *mgrepl_gcache_dir = NULL;
int			mgrepl_gcache_size_mb = 1024;
int			mgrepl_gcache_keep_pages_size_mb = 4096;
int			mgrepl_gcache_mem_size_kb = 4 * 1024;
int			mgrepl_appliers = 0;
int			mgrepl_max_ws_size_kb = 256 * 1024;
int			mgrepl_capture_mem_kb = 4 * 1024;
int			mgrepl_fc_limit = 4096;
int			mgrepl_keepalive_period_ms = KEEPALIVE_MS;
int			mgrepl_suspect_timeout_ms = SUSPECT_MS;
int			mgrepl_inactive_timeout_ms = INACTIVE_MS;
int			mgrepl_wan_suspect_timeout_ms = 0;
int			mgrepl_wan_inactive_timeout_ms = 0;
int			mgrepl_segment = 0;
int			mgrepl_weight = 1;
int			mgrepl_commit_timeout_ms = 0;
int			mgrepl_durability = MG_DURABILITY_MAJORITY;
bool		mgrepl_replicate = true;
bool		mgrepl_dirty_reads = false;
bool		mgrepl_donor_rejects_queries = false;
char	   *mgrepl_notify_command = NULL;

static const struct config_enum_entry durability_options[] = {
	{"memory", MG_DURABILITY_MEMORY, false},
	{"local", MG_DURABILITY_LOCAL, false},
	{"majority", MG_DURABILITY_MAJORITY, false},
	{"all", MG_DURABILITY_ALL, false},
	{"applied", MG_DURABILITY_APPLIED, false},
	{NULL, 0, false}
};

static bool
refuse_address(const char *text, size_t len, const char *trouble)
{
	GUC_check_errdetail("Address \"%.*s\" is not valid: %s.", (int) len, text, trouble);
	GUC_check_errhint("An address is host:port, for example \"10.0.0.1:5701\" or \"[2001:db8::1]:5701\".");
	return false;
}

/*
 * gcomm://[address[,address]...][?option=value[&option=value]...]
 *
 * The whole may be empty too.  Sets *n to the number of addresses.
 */
bool
mgrepl_guc_check_cluster_address(const char *text, int *n)
{
	const char *p;
	const char *list_end;

	*n = 0;
	if (text == NULL || text[0] == '\0')
		return true;
	if (strncmp(text, MG_GCOMM_SCHEME, strlen(MG_GCOMM_SCHEME)) != 0)
	{
		GUC_check_errdetail("A cluster address begins with \"%s\".", MG_GCOMM_SCHEME);
		GUC_check_errhint("For example \"gcomm://10.0.0.1:5701,10.0.0.2:5701\".");
		return false;
	}

	p = text + strlen(MG_GCOMM_SCHEME);
	list_end = p + strcspn(p, "?");
	while (p < list_end)
	{
		size_t		len = strcspn(p, ",?");
		const char *trouble;

		trouble = len == 0 ? "it is empty" : mg_address_trouble(p, len, false);
		if (trouble == NULL && p[len] == ',' && p + len + 1 == list_end)
		{
			GUC_check_errdetail("The list of addresses ends with a comma.");
			return false;
		}
		if (trouble != NULL)
			return refuse_address(p, len, trouble);
		(*n)++;
		p += len;
		if (*p == ',')
			p++;
	}
	if (*n > MG_MEMBERS_MAX)
	{
		GUC_check_errdetail("It names %d addresses, at most %d are possible.", *n, MG_MEMBERS_MAX);
		return false;
	}

	if (*list_end == '\0')
		return true;
	p = list_end + 1;
	for (;;)
	{
		size_t		len = strcspn(p, "&");
		size_t		name_len = strcspn(p, "=&");

		if (name_len == 0 || name_len == len ||
			strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") < name_len)
		{
			GUC_check_errdetail("\"%.*s\" is not an option=value.", (int) len, p);
			GUC_check_errhint("Options follow the addresses: \"gcomm://host:port?option=value&option=value\".");
			return false;
		}
		if (p[len] == '\0')
			return true;
		p += len + 1;
	}
}

static bool
check_cluster_address(char **newval, void **extra, GucSource source)
{
	int			n;

	return mgrepl_guc_check_cluster_address(*newval, &n);
}

static bool
check_listen_address(char **newval, void **extra, GucSource source)
{
	const char *trouble = mg_address_trouble(*newval, strlen(*newval), true);

	return trouble == NULL || refuse_address(*newval, strlen(*newval), trouble);
}

static bool
check_node_address(char **newval, void **extra, GucSource source)
{
	const char *trouble;

	if ((*newval)[0] == '\0')
		return true;
	trouble = mg_address_trouble(*newval, strlen(*newval), false);
	return trouble == NULL || refuse_address(*newval, strlen(*newval), trouble);
}

/* Names go into messages and views of all nodes: printable, and not too long. */
static bool
check_name(char **newval, void **extra, GucSource source)
{
	const char *p;

	if ((*newval)[0] == '\0')
	{
		GUC_check_errdetail("The name is empty.");
		return false;
	}
	if (strlen(*newval) >= MG_NAME_BYTES_MAX)
	{
		GUC_check_errdetail("The name has %d bytes, at most %d are possible.",
							(int) strlen(*newval), MG_NAME_BYTES_MAX - 1);
		return false;
	}
	for (p = *newval; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 127)
		{
			GUC_check_errdetail("The name holds a control character.");
			return false;
		}
	}
	return true;
}

static bool
check_database(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0' || strlen(*newval) >= NAMEDATALEN)
	{
		GUC_check_errdetail("A database name has 1 to %d bytes.", NAMEDATALEN - 1);
		return false;
	}
	return true;
}

static bool
check_gcache_dir(char **newval, void **extra, GucSource source)
{
	char	   *path = *newval;

	if (path[0] == '\0' || strlen(path) >= MAXPGPATH - 64)
	{
		GUC_check_errdetail("The path is empty or too long.");
		return false;
	}
	canonicalize_path(path);
	if (!is_absolute_path(path) && (strcmp(path, ".") == 0 || path_contains_parent_reference(path)))
	{
		GUC_check_errdetail("A relative path must stay below the data directory.");
		GUC_check_errhint("Give an absolute path for a directory elsewhere.");
		return false;
	}
	return true;
}

static bool
check_notify_command(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] != '\0' && !is_absolute_path(*newval))
	{
		GUC_check_errdetail("It is run without a shell and must be the absolute path of an executable.");
		GUC_check_errhint("Put options into a script of your own.");
		return false;
	}
	return true;
}

/* A node is called as its machine unless it is told otherwise. */
static const char *
default_node_name(void)
{
	static char name[MG_NAME_BYTES_MAX];

	if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0')
		strlcpy(name, "node", sizeof(name));
	name[sizeof(name) - 1] = '\0';
	return name;
}

static void
define_identity(void)
{
	DefineCustomStringVariable("mgrepl.node_name",
							   "Name of this node, as messages and mgrepl.members show it.",
							   "Each node of a cluster should have another one. Default: the machine's name.",
							   &mgrepl_node_name, default_node_name(),
							   PGC_POSTMASTER, 0, check_name, NULL, NULL);
	DefineCustomStringVariable("mgrepl.cluster_name",
							   "Name of the cluster; nodes of another cluster name are not spoken to.",
							   NULL,
							   &mgrepl_cluster_name, "mgrepl",
							   PGC_POSTMASTER, 0, check_name, NULL, NULL);
	DefineCustomStringVariable("mgrepl.cluster_address",
							   "Members to join through: gcomm://host:port,host:port?option=value.",
							   "An empty list names nobody: the node waits for mgrepl.bootstrap() or mgrepl.join(address).",
							   &mgrepl_cluster_address, "",
							   PGC_SIGHUP, 0, check_cluster_address, NULL, NULL);
	DefineCustomStringVariable("mgrepl.listen_address",
							   "Address that this node listens on for other nodes: host:port.",
							   "The host may be * for all addresses of the machine; then mgrepl.node_address says where others find it.",
							   &mgrepl_listen_address, "127.0.0.1:5701",
							   PGC_POSTMASTER, 0, check_listen_address, NULL, NULL);
	DefineCustomStringVariable("mgrepl.node_address",
							   "Address that other nodes reach this node at: host:port.",
							   "Empty: the same as mgrepl.listen_address.",
							   &mgrepl_node_address, "",
							   PGC_POSTMASTER, 0, check_node_address, NULL, NULL);
	DefineCustomStringVariable("mgrepl.sql_address",
							   "Address at which other nodes reach this node's PostgreSQL server: host:port.",
							   "Empty: the host of mgrepl.node_address and the server's port. A joining node takes its snapshot there.",
							   &mgrepl_sql_address, "",
							   PGC_POSTMASTER, 0, check_node_address, NULL, NULL);
	DefineCustomStringVariable("mgrepl.database",
							   "The database that is replicated.",
							   "Other databases of the server stay local.",
							   &mgrepl_database, "postgres",
							   PGC_POSTMASTER, 0, check_database, NULL, NULL);
}

/* A known method, or a program by its path. */
static bool
check_sst_method(char **newval, void **extra, GucSource source)
{
	if (strcmp(*newval, "basebackup") == 0 || strcmp(*newval, "rsync") == 0 || strcmp(*newval, "dump") == 0 || strcmp(*newval, "none") == 0 ||
		is_absolute_path(*newval))
		return true;
	GUC_check_errdetail("There is no method \"%s\".", *newval);
	GUC_check_errhint("Methods are \"basebackup\", \"rsync\", \"dump\", \"none\", and the path of a program, which begins with \"/\".");
	return false;
}

static void
define_transfer(void)
{
	DefineCustomStringVariable("mgrepl.sst_method",
							   "How this node gets a snapshot of a member's data.",
							   "basebackup: pg_basebackup; rsync: mgrepl-sst-rsync; dump: pg_dump, into the running server; none: never by itself; or the path of a program.",
							   &mgrepl_sst_method, "basebackup",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_sst_method, NULL, NULL);
	DefineCustomStringVariable("mgrepl.sst_donor",
							   "Names of the members to take a snapshot from, the first that can is taken.",
							   "If none of them can, or the list is empty: one of the own segment, the least loaded.",
							   &mgrepl_sst_donor, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("mgrepl.sst_conninfo",
							   "Options for the connections to a donor: user, passfile, sslmode and others of libpq.",
							   "Host and port are those of the member unless they are given here.",
							   &mgrepl_sst_conninfo, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomBoolVariable("mgrepl.sst_keep_old",
							 "Keeps the data that a snapshot has replaced.",
							 "It lies in the data directory as pgsql_tmp.mgrepl_kept with the time; off: it is removed when the node is SYNCED.",
							 &mgrepl_sst_keep_old, false,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_resources(void)
{
	DefineCustomStringVariable("mgrepl.gcache_dir",
							   "Directory of the writeset log, relative to the data directory.",
							   "Its name should begin with pgsql_tmp: base backups leave out what is called so, "
							   "and a copy of this node's log must not become another node's.",
							   &mgrepl_gcache_dir, "pgsql_tmp.mgrepl",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY, check_gcache_dir, NULL, NULL);
	DefineCustomIntVariable("mgrepl.gcache_size",
							"Size up to which the writeset log keeps writesets for nodes that were away.",
							"What others still need is kept beyond it, in up to mgrepl.gcache_keep_pages_size more.",
							&mgrepl_gcache_size_mb, 1024, 64, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.gcache_keep_pages_size",
							"Size beyond mgrepl.gcache_size in which the writeset log keeps what others still need.",
							"A member that lags or joins, a donor's copy or a freeze. Beyond it the oldest goes, and they take a snapshot. "
							"What this node itself needs is kept without a limit.",
							&mgrepl_gcache_keep_pages_size_mb, 4096, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.gcache_mem_size",
							"Shared memory for the newest records of the writeset log.",
							"0: they are read from the files, which the system caches.",
							&mgrepl_gcache_mem_size_kb, 4 * 1024, 0, MAX_KILOBYTES,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.appliers",
							"Processes that apply the writesets of other nodes.",
							"0: one for each processor core.",
							&mgrepl_appliers, 0, 0, MGREPL_APPLIERS_MAX,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.max_ws_size",
							"Largest writeset of one transaction; a larger one is refused with 54000.",
							NULL,
							&mgrepl_max_ws_size_kb, 256 * 1024, 64, MG_WRITESET_BYTES_MAX / 1024,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.capture_mem",
							"Memory for a transaction's captured rows; more goes to a temporary file.",
							NULL,
							&mgrepl_capture_mem_kb, 4 * 1024, 64, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
}

static void
define_cluster(void)
{
	DefineCustomIntVariable("mgrepl.fc_limit",
							"Writesets that a member may lag behind before the cluster slows down for it.",
							NULL,
							&mgrepl_fc_limit, 4096, 16, 12000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.commit_timeout",
							"Longest time that a COMMIT waits for the cluster; 0 means no limit.",
							"When it runs out the client is told that the outcome is unknown (08007), "
							"or, when it is committed and waits only for durability \"local\", \"all\" or \"applied\", warned.",
							&mgrepl_commit_timeout_ms, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("mgrepl.durability",
							 "What the members have done with a transaction when its COMMIT returns.",
							 "memory: a majority has received it; local: and this node has flushed it to disk; "
							 "majority: a majority has flushed it; all: all members have flushed it; "
							 "applied: a majority has flushed it and all members have committed it. "
							 "Members that are suspected to be gone are not waited for.",
							 &mgrepl_durability, MG_DURABILITY_MAJORITY, durability_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("mgrepl.replicate",
							 "Replicates what this session writes.",
							 "Off: writes stay on this node, and it is the superuser who answers for nodes that differ.",
							 &mgrepl_replicate, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("mgrepl.dirty_reads",
							 "Reads tables also while this node is not in the primary component.",
							 "What is read then may be older than what the cluster has committed.",
							 &mgrepl_dirty_reads, false,
							 PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_state(void)
{
	DefineCustomBoolVariable("mgrepl.donor_rejects_queries",
							 "Refuses clients' reads and writes while this node gives a copy of its data to a joiner.",
							 "Off: a donor works as any other member.",
							 &mgrepl_donor_rejects_queries, false,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("mgrepl.notify_command",
							   "Executable that is run when the state of this node or the members change.",
							   "It gets --status, --uuid, --primary, --members and --index as arguments; no shell is involved.",
							   &mgrepl_notify_command, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_notify_command, NULL, NULL);
}

static void
define_membership(void)
{
	DefineCustomIntVariable("mgrepl.weight",
							"Votes of this node in the quorum.",
							NULL,
							&mgrepl_weight, 1, 0, MG_WEIGHT_MAX,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.segment",
							"Place of this node: nodes of one segment are near each other.",
							"Toward members of other segments the wan_ timeouts are used.",
							&mgrepl_segment, 0, 0, 255,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.keepalive_period",
							"Time of silence after which a node sends a sign of life.",
							"Must be less than a third of mgrepl.suspect_timeout.",
							&mgrepl_keepalive_period_ms, KEEPALIVE_MS, 10, 60 * 1000,
							PGC_POSTMASTER, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.suspect_timeout",
							"Time of silence after which a member is suspected to be gone.",
							"A leader silent for so long is replaced; a node that hears no majority for so long takes no writes.",
							&mgrepl_suspect_timeout_ms, SUSPECT_MS, SUSPECT_MIN_MS, 600 * 1000,
							PGC_POSTMASTER, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.inactive_timeout",
							"Time of silence, or without progress, after which a member is evicted.",
							"Must not be less than mgrepl.suspect_timeout.",
							&mgrepl_inactive_timeout_ms, INACTIVE_MS, SUSPECT_MIN_MS, 3600 * 1000,
							PGC_POSTMASTER, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.wan_suspect_timeout",
							"mgrepl.suspect_timeout for members of other segments; 0: the same.",
							NULL,
							&mgrepl_wan_suspect_timeout_ms, 0, 0, 600 * 1000,
							PGC_POSTMASTER, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("mgrepl.wan_inactive_timeout",
							"mgrepl.inactive_timeout for members of other segments; 0: the same.",
							NULL,
							&mgrepl_wan_inactive_timeout_ms, 0, 0, 3600 * 1000,
							PGC_POSTMASTER, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* Another value than asked for, which works.  A default that gives way is no reason to warn. */
static void
use_instead(const char *name, bool is_default, int ms, const char *why)
{
	char		value[16];

	snprintf(value, sizeof(value), "%d", ms);
	ereport(is_default ? LOG : WARNING,
			(errmsg("%s is set to %d ms instead of %s ms", name, ms, GetConfigOption(name, false, false)),
			 errhint("%s", why)));
	SetConfigOption(name, value, PGC_POSTMASTER, PGC_S_OVERRIDE);
}

/*
 * One lost sign of life must not make a member suspected, and nobody is evicted
 * who is not even suspected.
 */
static void
fit_timeouts(void)
{
	int			suspect;
	int			inactive;

	if (mgrepl_wan_suspect_timeout_ms > 0 && mgrepl_wan_suspect_timeout_ms < SUSPECT_MIN_MS)
		use_instead("mgrepl.wan_suspect_timeout", false, SUSPECT_MIN_MS, "Give 0 to use mgrepl.suspect_timeout.");
	suspect = mgrepl_suspect_timeout_ms;
	if (mgrepl_wan_suspect_timeout_ms > 0)
		suspect = Min(suspect, mgrepl_wan_suspect_timeout_ms);
	if (mgrepl_keepalive_period_ms * 3 >= suspect)
		use_instead("mgrepl.keepalive_period", mgrepl_keepalive_period_ms == KEEPALIVE_MS, suspect / 4,
					"It must be less than a third of mgrepl.suspect_timeout and mgrepl.wan_suspect_timeout.");
	if (mgrepl_inactive_timeout_ms < mgrepl_suspect_timeout_ms)
		use_instead("mgrepl.inactive_timeout", mgrepl_inactive_timeout_ms == INACTIVE_MS, mgrepl_suspect_timeout_ms,
					"It must not be less than mgrepl.suspect_timeout.");

	/* 0 stands for the value of the own segment, which may not fit the other one of the pair. */
	suspect = mgrepl_wan_suspect_timeout_ms > 0 ? mgrepl_wan_suspect_timeout_ms : mgrepl_suspect_timeout_ms;
	inactive = mgrepl_wan_inactive_timeout_ms > 0 ? mgrepl_wan_inactive_timeout_ms : mgrepl_inactive_timeout_ms;
	if (inactive < suspect)
		use_instead("mgrepl.wan_inactive_timeout", mgrepl_wan_inactive_timeout_ms == 0, suspect,
					"It must not be less than mgrepl.wan_suspect_timeout.");
}

void
mgrepl_guc_define(void)
{
	define_identity();
	define_resources();
	define_transfer();
	define_cluster();
	define_state();
	define_membership();
	MarkGUCPrefixReserved("mgrepl");
	fit_timeouts();
}
