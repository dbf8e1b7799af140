/*
 * cli/join.c - makes a new node from a member's data, on a machine that has none.
 *
 * How: the cluster says who its members are (offer.c), or the user names one.
 * On a connection to it mgrepl.donate() is called: as long as that session lives
 * the donor is DONOR and keeps its log from there on, so that the new node finds
 * the rest there; it also tells everything that must fit, and that is compared
 * before a byte is copied.  pg_basebackup makes the copy, conf.c makes it
 * another node's.  Whoever cannot be reached, or fails, is followed by the next;
 * what does not fit would not fit with the next one either.
 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <gnu/libc-version.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "cli/conf.h"
#include "cli/offer.h"
#include "core/address.h"

#define WAL_SEGMENTS	4			/* room for what is written meanwhile */
#define TABLESPACES_MAX	64
#define DONORS_MAX		MG_MEMBERS_MAX
#define LOOK_MS			100
#define SYNCED_WAIT_S	300
#define LIST_BYTES		(MG_MEMBERS_MAX * (MG_ADDRESS_BYTES_MAX + 1))

typedef struct tablespace
{
	char		old[CLI_PATH_MAX];
	char		own[CLI_PATH_MAX];	/* where it comes to lie */
	uint64_t	bytes;
	bool		existed;
	bool		mapped;			/* the user has said where */
} tablespace;

typedef struct donor
{
	char		name[MG_NAME_BYTES_MAX];
	char		host[MG_ADDRESS_BYTES_MAX];
	char		port[8];
} donor;

/* What the donor has told. */
typedef struct facts
{
	char		gtid[256];
	int			server_version;
	int			block_size;
	uint64_t	wal_segment_bytes;
	char		collate[256];
	char		ctype[256];
	char		locale_provider[32];
	char		collation_version[64];
	uint64_t	data_bytes;
	char		extension_version[64];
	int			n_tablespaces;
	tablespace	tablespaces[TABLESPACES_MAX];
} facts;

typedef struct plan
{
	cli_target	target;
	char	   *pgdata;			/* absolute */
	const char *cluster;
	char		addresses[LIST_BYTES];
	const char *cluster_name;
	const char *donor;
	char		node_name[MG_NAME_BYTES_MAX];
	const char *listen_address;
	const char *node_address;
	const char *sql_address;
	const char *bindir;
	const char *log;
	int			segment;
	int			timeout_s;
	bool		start;
	bool		existed;		/* the directory, before */
	int			n_mappings;
	const char *mappings[TABLESPACES_MAX];	/* OLD=NEW */
	int			n_donors;
	donor		donors[DONORS_MAX];
	conf		settings;
	char	  **more;
	int			n_more;
} plan;

typedef enum outcome
{
	WELL = 0,
	NEXT,						/* another donor may do */
	STOP						/* the code is in `code` */
} outcome;

static int	code;				/* of the whole command */

static outcome
stop(int with)
{
	code = with;
	return STOP;
}

/* ------------------------------------------------------------------- options */

static bool
check_address(const char *option, const char *value, bool bind)
{
	const char *trouble = mg_address_trouble(value, strlen(value), bind);

	if (trouble == NULL)
		return true;
	cli_error("--%s: address \"%s\" is not valid: %s", option, value, trouble);
	cli_hint("An address is host:port, for example 10.0.0.4:5701.");
	return false;
}

static bool
check_number(const char *option, const char *value, int lowest, int highest, int *to)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || n < lowest || n > highest)
	{
		cli_error("--%s: \"%s\" is not a number from %d to %d", option, value, lowest, highest);
		return false;
	}
	*to = (int) n;
	return true;
}

enum
{
	OPT_LISTEN = 1000,
	OPT_CLUSTER,
	OPT_CLUSTER_NAME,
	OPT_DONOR,
	OPT_NODE_NAME,
	OPT_NODE_ADDRESS,
	OPT_SQL_ADDRESS,
	OPT_SERVER_PORT,
	OPT_SEGMENT,
	OPT_WEIGHT,
	OPT_SET,
	OPT_BINDIR,
	OPT_START,
	OPT_LOG,
	OPT_TIMEOUT
};

static bool
take_number(plan *p, const char *option, const char *value, int lowest, int highest, const char *setting)
{
	int			n;

	if (!check_number(option, value, lowest, highest, &n))
		return false;
	if (strcmp(option, "segment") == 0)
		p->segment = n;
	return conf_set(&p->settings, setting, value);
}

static bool
take_mapping(plan *p, const char *value)
{
	const char *equals = strchr(value, '=');

	if (equals == NULL || value[0] != '/' || equals[1] != '/')
	{
		cli_error("--tablespace-mapping: \"%s\" is not OLDDIR=NEWDIR with absolute paths", value);
		return false;
	}
	if (p->n_mappings == TABLESPACES_MAX)
	{
		cli_error("there are too many tablespaces");
		return false;
	}
	p->mappings[p->n_mappings++] = value;
	return true;
}

static bool
take_option(plan *p, int option, char *value)
{
	switch (option)
	{
		case 'D':
			p->pgdata = value;
			return true;
		case 'T':
			return take_mapping(p, value);
		case OPT_LISTEN:
			p->listen_address = value;
			return check_address("listen-address", value, true);
		case OPT_CLUSTER:
			p->cluster = value;
			return true;
		case OPT_CLUSTER_NAME:
			p->cluster_name = value;
			return true;
		case OPT_DONOR:
			p->donor = value;
			return true;
		case OPT_NODE_NAME:
			if (value[0] == '\0' || strlen(value) >= sizeof(p->node_name))
			{
				cli_error("--node-name: a name has 1 to %zu bytes", sizeof(p->node_name) - 1);
				return false;
			}
			strcpy(p->node_name, value);
			return true;
		case OPT_NODE_ADDRESS:
			p->node_address = value;
			return check_address("node-address", value, false);
		case OPT_SQL_ADDRESS:
			p->sql_address = value;
			return check_address("sql-address", value, false);
		case OPT_SERVER_PORT:
			return take_number(p, "server-port", value, 1, 65535, "port");
		case OPT_SEGMENT:
			return take_number(p, "segment", value, 0, 255, "mgrepl.segment");
		case OPT_WEIGHT:
			return take_number(p, "weight", value, 0, 255, "mgrepl.weight");
		case OPT_SET:
			if (conf_set_pair(&p->settings, value))
				return true;
			cli_error("--set: \"%s\" is not NAME=VALUE", value);
			return false;
		case OPT_BINDIR:
			p->bindir = value;
			return true;
		case OPT_START:
			return p->start = true;
		case OPT_LOG:
			p->log = value;
			return true;
		case OPT_TIMEOUT:
			return check_number("timeout", value, 1, 86400, &p->timeout_s);
		default:
			return cli_common_option(&p->target, option, value);
	}
}

static bool
is_conninfo(const char *donor_option)
{
	return strchr(donor_option, '=') != NULL || strstr(donor_option, "://") != NULL;
}

/* What goes with what. */
static bool
check_options(plan *p)
{
	if (p->pgdata == NULL || p->pgdata[0] == '\0')
		cli_error("join needs --pgdata=DIR, a new or an empty directory");
	else if (p->listen_address == NULL)
		cli_error("join needs --listen-address=HOST:PORT, where the new node listens for the others");
	else if (p->listen_address[0] == '*' && p->node_address == NULL)
		cli_error("--listen-address=%s does not say where the others reach the node: give --node-address too", p->listen_address);
	else if (p->cluster == NULL && p->donor == NULL)
		cli_error("join needs --cluster=HOST:PORT,... or --donor=CONNINFO");
	else if (p->cluster == NULL && !is_conninfo(p->donor))
		cli_error("--donor=%s names a member: then --cluster=HOST:PORT,... is needed too", p->donor);
	else if (p->cluster != NULL && p->donor != NULL && is_conninfo(p->donor))
		cli_error("--donor is a connection string and --cluster is given: only one of both is needed");
	else if (p->donor != NULL && is_conninfo(p->donor) && (p->target.conninfo != NULL || p->target.host != NULL || p->target.port != NULL))
		cli_error("--donor is a connection string: --dbname, --host and --port belong into it");
	else if (p->cluster != NULL && (p->target.host != NULL || p->target.port != NULL))
		cli_error("--host and --port do not go with --cluster: the cluster says where its members are reached");
	else
		return true;
	return false;
}

static bool
check_cluster(plan *p)
{
	const char *at;
	size_t		len;
	const char *trouble;

	if (p->cluster == NULL)
		return true;
	trouble = mg_address_list(p->cluster, p->addresses, sizeof(p->addresses), &at, &len);
	if (trouble == NULL)
		return true;
	cli_error("--cluster: \"%.*s\" is not valid: %s", (int) len, at, trouble);
	cli_hint("For example --cluster=10.0.0.1:5701,10.0.0.2:5701.");
	return false;
}

static bool
read_options(plan *p, int argc, char **argv)
{
	static const struct option options[] = {
		CLI_COMMON_LONG,
		{"pgdata", required_argument, NULL, 'D'},
		{"tablespace-mapping", required_argument, NULL, 'T'},
		{"listen-address", required_argument, NULL, OPT_LISTEN},
		{"cluster", required_argument, NULL, OPT_CLUSTER},
		{"cluster-name", required_argument, NULL, OPT_CLUSTER_NAME},
		{"donor", required_argument, NULL, OPT_DONOR},
		{"node-name", required_argument, NULL, OPT_NODE_NAME},
		{"node-address", required_argument, NULL, OPT_NODE_ADDRESS},
		{"sql-address", required_argument, NULL, OPT_SQL_ADDRESS},
		{"server-port", required_argument, NULL, OPT_SERVER_PORT},
		{"segment", required_argument, NULL, OPT_SEGMENT},
		{"weight", required_argument, NULL, OPT_WEIGHT},
		{"set", required_argument, NULL, OPT_SET},
		{"bindir", required_argument, NULL, OPT_BINDIR},
		{"start", no_argument, NULL, OPT_START},
		{"log", required_argument, NULL, OPT_LOG},
		{"timeout", required_argument, NULL, OPT_TIMEOUT},
		{NULL, 0, NULL, 0}
	};
	int			option;

	if (gethostname(p->node_name, sizeof(p->node_name) - 1) != 0 || p->node_name[0] == '\0')
		strcpy(p->node_name, "node");
	while ((option = getopt_long(argc, argv, "+" CLI_COMMON_SHORT "D:T:", options, NULL)) != -1)
		if (!take_option(p, option, optarg))
			return false;
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0)
	{
		cli_error("join takes no \"%s\"; options of pg_basebackup come behind --", argv[optind]);
		return false;
	}
	p->more = argv + optind;
	p->n_more = argc - optind;
	return check_options(p) && check_cluster(p);
}

/* The directory of the future; pg_ctl and the links of tablespaces want absolute paths. */
static bool
make_absolute(plan *p)
{
	static char path[CLI_PATH_MAX];
	char		here[CLI_PATH_MAX];
	size_t		len = strlen(p->pgdata);

	while (len > 1 && p->pgdata[len - 1] == '/')
		p->pgdata[--len] = '\0';
	if (p->pgdata[0] == '/')
		return true;
	if (getcwd(here, sizeof(here)) == NULL || snprintf(path, sizeof(path), "%s/%s", here, p->pgdata) >= (int) sizeof(path))
	{
		cli_error("\"%s\" cannot be made an absolute path", p->pgdata);
		return false;
	}
	p->pgdata = path;
	return true;
}

/* -------------------------------------------------------------------- donors */

static bool
split_address(const char *address, donor *d)
{
	const char *colon = strrchr(address, ':');
	size_t		len = colon != NULL ? (size_t) (colon - address) : 0;

	if (len > 2 && address[0] == '[')
		address++, len -= 2;
	if (len == 0 || len >= sizeof(d->host) || strlen(colon + 1) >= sizeof(d->port))
		return false;
	memcpy(d->host, address, len);
	d->host[len] = '\0';
	strcpy(d->port, colon + 1);
	return true;
}

static void
add_donor(plan *p, const mg_member *m)
{
	donor	   *d = &p->donors[p->n_donors];

	for (int i = 0; i < p->n_donors; i++)
		if (strcmp(p->donors[i].name, m->name) == 0)
			return;
	if (p->n_donors == DONORS_MAX || !split_address(m->sql_address, d))
		return;
	memcpy(d->name, m->name, sizeof(d->name));
	p->n_donors++;
}

static bool
can_donate(const plan *p, const mg_member *m)
{
	return m->role == MG_ROLE_DATA && m->sql_address[0] != '\0' && strcmp(m->name, p->node_name) != 0;
}

/* First those that are asked for, in that order; then the near ones, the leader last. */
static bool
choose_donors(plan *p, const mg_view *offer)
{
	char		names[CLI_TEXT_MAX];
	char	   *rest = names;
	char	   *name;

	if (p->donor != NULL && strlen(p->donor) >= sizeof(names))
		return false;
	strcpy(names, p->donor != NULL ? p->donor : "");
	while ((name = strsep(&rest, ",")) != NULL)
	{
		bool		found = name[0] == '\0';

		for (uint32_t i = 0; i < offer->n; i++)
			if (strcmp(offer->members[i].name, name) == 0 && can_donate(p, &offer->members[i]))
			{
				add_donor(p, &offer->members[i]);
				found = true;
			}
		if (!found)
			cli_error("--donor: no member named \"%s\" can give its data; the others are asked", name);
	}
	for (int rank = 0; rank < 4; rank++)
		for (uint32_t i = 0; i < offer->n; i++)
		{
			const mg_member *m = &offer->members[i];

			if (can_donate(p, m) && (m->segment != p->segment) * 2 + (m->id == offer->leader) == rank)
				add_donor(p, m);
		}
	return p->n_donors > 0;
}

/* The cluster must not have a member of this name, unless it is this one that has lost its data. */
static bool
check_name(const plan *p, const mg_view *offer)
{
	const char *own = p->node_address != NULL ? p->node_address : p->listen_address;

	for (uint32_t i = 0; i < offer->n; i++)
		if (strcmp(offer->members[i].name, p->node_name) == 0 && strcmp(offer->members[i].address, own) != 0)
		{
			cli_error("a member named \"%s\" is in the cluster already, at %s", p->node_name, offer->members[i].address);
			cli_hint("Give the new node another name with --node-name.");
			return false;
		}
	return true;
}

static bool
find_donors(plan *p)
{
	cli_asker	asker = {.cluster_name = p->cluster_name,.node_name = p->node_name,.listen_address = p->listen_address,
		.node_address = p->node_address != NULL ? p->node_address : p->listen_address,
	.addresses = p->addresses};
	mg_view		offer;

	if (p->cluster == NULL)
	{
		p->target.conninfo = p->donor;
		p->n_donors = 1;		/* without host and port: the connection string has them */
		return true;
	}
	cli_say("asking %s for members that can give their data", p->addresses);
	if (!cli_offer(&asker, &offer))
	{
		code = CLI_NO_SERVER;
		return false;
	}
	if (!check_name(p, &offer))
	{
		code = CLI_REFUSED;
		return false;
	}
	if (choose_donors(p, &offer))
		return true;
	cli_error("no member says where its server is reached");
	cli_hint("Name one by --donor=CONNINFO instead of --cluster.");
	code = CLI_NO_SERVER;
	return false;
}

/* -------------------------------------------------------------------- checks */

static void
take_text(PGresult *rows, int column, char *to, size_t cap)
{
	snprintf(to, cap, "%s", PQgetvalue(rows, 0, column));
}

static bool
ask_donation(PGconn *conn, const char *joiner, facts *f)
{
	PGresult   *rows = cli_query(conn,
								 "WITH d AS MATERIALIZED (SELECT * FROM mgrepl.donate($1))"
								 " SELECT d.gtid, d.server_version_num, d.block_size, d.wal_segment_size, d.\"collate\", d.ctype,"
								 " d.locale_provider, d.collation_version, d.data_bytes, d.extension_version, t.location, t.bytes"
								 " FROM d LEFT JOIN LATERAL pg_catalog.jsonb_to_recordset(d.tablespaces) AS t(location text, bytes bigint)"
								 " ON t.location LIKE '/%'", 1, &joiner);

	if (rows == NULL)
		return false;
	memset(f, 0, sizeof(*f));
	if (PQntuples(rows) == 0 || PQgetisnull(rows, 0, 0))
	{
		cli_error("the donor tells nothing of its data");
		PQclear(rows);
		return false;
	}
	take_text(rows, 0, f->gtid, sizeof(f->gtid));
	f->server_version = atoi(PQgetvalue(rows, 0, 1));
	f->block_size = atoi(PQgetvalue(rows, 0, 2));
	f->wal_segment_bytes = strtoull(PQgetvalue(rows, 0, 3), NULL, 10);
	take_text(rows, 4, f->collate, sizeof(f->collate));
	take_text(rows, 5, f->ctype, sizeof(f->ctype));
	take_text(rows, 6, f->locale_provider, sizeof(f->locale_provider));
	take_text(rows, 7, f->collation_version, sizeof(f->collation_version));
	f->data_bytes = strtoull(PQgetvalue(rows, 0, 8), NULL, 10);
	take_text(rows, 9, f->extension_version, sizeof(f->extension_version));
	for (int r = 0; r < PQntuples(rows) && r < TABLESPACES_MAX; r++)
	{
		tablespace *t = &f->tablespaces[f->n_tablespaces];

		if (PQgetisnull(rows, r, 10))
			continue;
		snprintf(t->old, sizeof(t->old), "%s", PQgetvalue(rows, r, 10));
		t->bytes = strtoull(PQgetvalue(rows, r, 11), NULL, 10);
		f->n_tablespaces++;
	}
	PQclear(rows);
	return true;
}

static bool
keep_version(void *arg, char *line)
{
	int		   *major = arg;
	const char *number = strpbrk(line, "0123456789");

	if (strncmp(line, "postgres (PostgreSQL)", 21) == 0 && number != NULL)
		*major = atoi(number);
	return true;
}

static bool
keep_number(void *arg, char *line)
{
	if (line[strspn(line, "0123456789")] == '\0')
		*(int *) arg = atoi(line);
	return true;
}

/* Of the server that will run here: its major version and its page size. */
static bool
ask_local_server(const plan *p, int *major, int *block_size)
{
	char		path[CLI_PATH_MAX];
	cli_program version = {.on_line = keep_version,.arg = major};
	cli_program size = {.on_line = keep_number,.arg = block_size};

	cli_find_program(p->bindir, "postgres", path);
	*major = *block_size = 0;
	version.path = size.path = path;
	cli_program_add(&version, path);
	cli_program_add(&version, "-V");
	cli_program_add(&size, path);
	cli_program_add(&size, "-C");
	cli_program_add(&size, "block_size");
	cli_program_add(&size, "-D");
	cli_program_add(&size, "/");
	cli_program_add(&size, "-c");
	cli_program_add(&size, "config_file=/dev/null");
	if (cli_program_run(&version) == 0 && cli_program_run(&size) == 0 && *major > 0 && *block_size > 0)
		return true;
	cli_error("PostgreSQL's server \"%s\" cannot be run here", path);
	cli_hint("Install it, or say where its programs are with --bindir.");
	return false;
}

static bool
has_locale(const char *name)
{
	locale_t	l = newlocale(LC_COLLATE_MASK | LC_CTYPE_MASK, name, (locale_t) 0);

	if (l == (locale_t) 0)
		return false;
	freelocale(l);
	return true;
}

static bool
check_versions(const plan *p, const facts *f)
{
	int			major;
	int			block_size;

	if (!ask_local_server(p, &major, &block_size))
		return false;
	if (f->server_version / 10000 != major)
	{
		cli_error("the donor runs PostgreSQL %d, here is PostgreSQL %d", f->server_version / 10000, major);
		cli_hint("A copy of the files needs the same major version: --bindir says where its programs are.");
		return false;
	}
	if (f->block_size != block_size)
	{
		cli_error("the donor's pages have %d bytes, those of the server here %d", f->block_size, block_size);
		cli_hint("Install a PostgreSQL that was built with the same page size.");
		return false;
	}
	if (strcmp(f->extension_version, MGREPL_VERSION) != 0)
	{
		cli_error("the donor has mgrepl %s, here is mgrepl %s", f->extension_version, MGREPL_VERSION);
		cli_hint("Install the same version on all nodes.");
		return false;
	}
	return true;
}

/* A text index of another locale version finds other rows: the nodes would differ. */
static bool
check_locale(const facts *f)
{
	if (!has_locale(f->collate) || !has_locale(f->ctype))
	{
		cli_error("the donor's database has the locale \"%s\", which is not installed here", has_locale(f->collate) ? f->ctype : f->collate);
		cli_hint("Install it (Debian: dpkg-reconfigure locales).");
		return false;
	}
	if (strcmp(f->locale_provider, "libc") == 0 && f->collation_version[0] != '\0' &&
		strcmp(f->collation_version, gnu_get_libc_version()) != 0)
	{
		cli_error("the donor's texts are sorted by libc %s, here is libc %s", f->collation_version, gnu_get_libc_version());
		cli_hint("All nodes need the same version of the system's locale data: use the same release of the system.");
		return false;
	}
	return true;
}

/* ---- room ---- */

/* The nearest directory above that exists already. */
static bool
existing_parent(const char *path, char parent[CLI_PATH_MAX])
{
	struct stat st;
	char	   *slash;

	if (snprintf(parent, CLI_PATH_MAX, "%s", path) >= CLI_PATH_MAX)
		return false;
	while (stat(parent, &st) != 0)
	{
		slash = strrchr(parent, '/');
		if (errno != ENOENT || slash == NULL)
			return false;
		if (slash == parent)
			slash++;
		if (*slash == '\0')
			return false;
		*slash = '\0';
	}
	return true;
}

/* Everything that comes to lie on the file system of `path`. */
static uint64_t
bytes_on_device(const plan *p, const facts *f, dev_t device)
{
	char		parent[CLI_PATH_MAX];
	struct stat st;
	uint64_t	sum = 0;

	if (existing_parent(p->pgdata, parent) && stat(parent, &st) == 0 && st.st_dev == device)
		sum += f->data_bytes + WAL_SEGMENTS * f->wal_segment_bytes;
	for (int i = 0; i < f->n_tablespaces; i++)
		if (existing_parent(f->tablespaces[i].own, parent) && stat(parent, &st) == 0 && st.st_dev == device)
			sum += f->tablespaces[i].bytes;
	return sum;
}

static bool
check_room_at(const plan *p, const facts *f, const char *path)
{
	char		parent[CLI_PATH_MAX];
	char		wanted[CLI_SIZE_BYTES];
	char		left[CLI_SIZE_BYTES];
	struct stat st;
	struct statvfs vfs;
	uint64_t	bytes;

	if (!existing_parent(path, parent) || stat(parent, &st) != 0 || statvfs(parent, &vfs) != 0)
	{
		cli_error("\"%s\" cannot be examined: %s", path, strerror(errno));
		return false;
	}
	if (access(parent, W_OK | X_OK) != 0)
	{
		cli_error("\"%s\" is not writable: %s", parent, strerror(errno));
		cli_hint("Run mgreplctl as the user that the server will run as.");
		return false;
	}
	bytes = bytes_on_device(p, f, st.st_dev);
	if ((uint64_t) vfs.f_bavail * vfs.f_frsize >= bytes)
		return true;
	cli_error("there is too little room at \"%s\": %s are needed, %s are free", path, cli_size(bytes, wanted),
			  cli_size((uint64_t) vfs.f_bavail * vfs.f_frsize, left));
	cli_hint("Free some space, or name a directory elsewhere. Nothing was changed.");
	return false;
}

static void
map_tablespaces(const plan *p, facts *f)
{
	for (int i = 0; i < f->n_tablespaces; i++)
	{
		tablespace *t = &f->tablespaces[i];

		memcpy(t->own, t->old, sizeof(t->own));
		for (int m = 0; m < p->n_mappings; m++)
		{
			size_t		len = strcspn(p->mappings[m], "=");

			if (strlen(t->old) == len && strncmp(p->mappings[m], t->old, len) == 0)
			{
				snprintf(t->own, sizeof(t->own), "%s", p->mappings[m] + len + 1);
				t->mapped = true;
			}
		}
	}
}

static bool
check_room(const plan *p, facts *f)
{
	if (!check_room_at(p, f, p->pgdata))
		return false;
	for (int i = 0; i < f->n_tablespaces; i++)
	{
		tablespace *t = &f->tablespaces[i];

		if (!cli_directory_is_free(t->own, &t->existed))
		{
			if (!t->mapped)
				cli_hint("It is the donor's tablespace: --tablespace-mapping=%s=NEWDIR puts it elsewhere.", t->old);
			return false;
		}
		if (!check_room_at(p, f, t->own))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------ settings */

/* What the new node must have as the donor has it, where the donor's file is not in its data directory. */
static bool
inherit_settings(PGconn *conn, plan *p)
{
	PGresult   *rows = cli_query(conn,
								 "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE setting <> '' AND"
								 " (name IN ('shared_preload_libraries', 'max_connections', 'max_worker_processes', 'max_wal_senders',"
								 " 'max_prepared_transactions', 'max_locks_per_transaction', 'max_replication_slots', 'wal_level')"
								 " OR (name LIKE 'mgrepl.%' AND source IN ('configuration file', 'command line')))", 0, NULL);

	if (rows == NULL)
		return false;
	for (int r = 0; r < PQntuples(rows); r++)
		if (conf_get(&p->settings, PQgetvalue(rows, r, 0)) == NULL)
			(void) conf_set(&p->settings, PQgetvalue(rows, r, 0), PQgetvalue(rows, r, 1));
	PQclear(rows);
	return true;
}

static bool
collect_settings(PGconn *conn, plan *p)
{
	char		members[LIST_BYTES] = "";
	char		name[MG_NAME_BYTES_MAX] = "";
	char		url[LIST_BYTES + 16];

	if (!conf_has_main_file(p->pgdata) && !inherit_settings(conn, p))
		return false;
	if (!cli_value(conn, "SELECT pg_catalog.string_agg(address, ',' ORDER BY id) FROM mgrepl.members WHERE role = 'data' AND address <> $1",
				   p->node_address != NULL ? p->node_address : p->listen_address, members, sizeof(members)) ||
		!cli_value(conn, "SELECT pg_catalog.current_setting('mgrepl.cluster_name')", NULL, name, sizeof(name)))
	{
		cli_error("the donor does not say who the members are");
		return false;
	}
	snprintf(url, sizeof(url), MG_GCOMM_SCHEME "%s", members);
	return conf_set(&p->settings, "mgrepl.cluster_address", url) &&
		conf_set(&p->settings, "mgrepl.cluster_name", name) &&
		conf_set(&p->settings, "mgrepl.database", PQdb(conn)) &&
		conf_set(&p->settings, "mgrepl.node_name", p->node_name) &&
		conf_set(&p->settings, "mgrepl.listen_address", p->listen_address) &&
		conf_set(&p->settings, "mgrepl.node_address", p->node_address != NULL ? p->node_address : "") &&
		conf_set(&p->settings, "mgrepl.sql_address", p->sql_address != NULL ? p->sql_address : "");
}

/* The donor's writeset log, if it is where the copy takes it along. */
static const char *
copied_log(PGconn *conn, char to[CLI_PATH_MAX])
{
	if (!cli_value(conn, "SELECT pg_catalog.current_setting('mgrepl.gcache_dir')", NULL, to, CLI_PATH_MAX) || to[0] == '/')
		return NULL;
	return to;
}

/* A server that listens only at the donor's addresses would not start elsewhere. */
static void
warn_of_addresses(PGconn *conn, const plan *p)
{
	char		list[CLI_TEXT_MAX];

	if (conf_get(&p->settings, "listen_addresses") != NULL ||
		!cli_value(conn, "SELECT pg_catalog.current_setting('listen_addresses')", NULL, list, sizeof(list)) ||
		list[0] == '\0' || strcmp(list, "*") == 0 || strcmp(list, "localhost") == 0 || strncmp(list, "127.", 4) == 0 ||
		strcmp(list, "0.0.0.0") == 0)
		return;
	cli_say("listen_addresses is '%s', as on the donor: --set=listen_addresses=... if that is not right here", list);
}

/* ---------------------------------------------------------------------- copy */

/* As it was before: nothing was there. */
static void
undo(const plan *p, const facts *f)
{
	for (int i = 0; i < f->n_tablespaces; i++)
		(void) cli_directory_clear(f->tablespaces[i].own, f->tablespaces[i].existed);
	(void) cli_directory_clear(p->pgdata, p->existed);
}

static bool
copy_data(PGconn *conn, const plan *p, const facts *f)
{
	char		application[MG_NAME_BYTES_MAX + 16];
	const char *more[CLI_ARGS_MAX];
	int			n = 0;
	cli_copy	copy = {.directory = p->pgdata,.bindir = p->bindir,.application = application,.more = more};

	snprintf(application, sizeof(application), "mgrepl sst %s", p->node_name);
	for (int i = 0; i < p->n_mappings && n < CLI_ARGS_MAX - 3; i++)
	{
		more[n++] = "--tablespace-mapping";
		more[n++] = p->mappings[i];
	}
	for (int i = 0; i < p->n_more && n < CLI_ARGS_MAX - 1; i++)
		more[n++] = p->more[i];
	more[n++] = "--format=plain";
	copy.n_more = n;
	if (cli_copy_run(conn, &copy))
		return true;
	undo(p, f);
	return false;
}

static outcome
prepare(PGconn *conn, plan *p, facts *f)
{
	if (!ask_donation(conn, p->node_name, f))
		return NEXT;
	map_tablespaces(p, f);
	if (!check_versions(p, f) || !check_locale(f) || !check_room(p, f))
		return stop(CLI_REFUSED);
	return WELL;
}

static outcome
fetch(PGconn *conn, plan *p, const facts *f)
{
	char		log[CLI_PATH_MAX];
	char		size[CLI_SIZE_BYTES];
	uint64_t	bytes = f->data_bytes;

	for (int i = 0; i < f->n_tablespaces; i++)
		bytes += f->tablespaces[i].bytes;
	cli_say("copying %s from %s:%s, at %s, into \"%s\"", cli_size(bytes, size), PQhost(conn), PQport(conn), f->gtid, p->pgdata);
	if (!copy_data(conn, p, f))
	{
		code = CLI_FAILED;
		return cli_interrupted ? STOP : NEXT;
	}
	if (!collect_settings(conn, p) || !conf_make_own(p->pgdata, &p->settings, copied_log(conn, log)))
	{
		undo(p, f);
		return stop(CLI_FAILED);
	}
	warn_of_addresses(conn, p);
	return WELL;
}

/* --------------------------------------------------------------------- start */

/* Line `wanted` of postmaster.pid: 4 is the port, 5 the directory of the socket, 6 an address. */
static bool
read_pid_file(const char *pgdata, int wanted, char *to, size_t cap)
{
	char		path[CLI_PATH_MAX];
	char		line[2 * CLI_PATH_MAX];
	FILE	   *file;
	bool		good = false;

	if (snprintf(path, sizeof(path), "%s/postmaster.pid", pgdata) >= (int) sizeof(path) || (file = fopen(path, "re")) == NULL)
		return false;
	for (int i = 1; i <= wanted; i++)
		good = fgets(line, sizeof(line), file) != NULL;
	fclose(file);
	if (!good)
		return false;
	line[strcspn(line, "\n")] = '\0';
	return line[0] != '\0' && snprintf(to, cap, "%s", line) < (int) cap;
}

static bool
start_server(const plan *p, PGconn *donor_conn, cli_target *own, char host[CLI_PATH_MAX], char port[16])
{
	char		path[CLI_PATH_MAX];
	char		log[CLI_PATH_MAX];
	char		seconds[16];
	cli_program program = {0};
	int			result;

	cli_find_program(p->bindir, "pg_ctl", path);
	snprintf(log, sizeof(log), "%.*s/server.log", CLI_PATH_MAX - 16, p->pgdata);
	snprintf(seconds, sizeof(seconds), "%d", p->timeout_s);
	program.path = path;
	cli_program_add(&program, path);
	cli_program_add(&program, "-D");
	cli_program_add(&program, p->pgdata);
	cli_program_add(&program, "-l");
	cli_program_add(&program, p->log != NULL ? p->log : log);
	cli_program_add(&program, "-w");
	cli_program_add(&program, "-t");
	cli_program_add(&program, seconds);
	cli_program_add(&program, "start");
	cli_say("starting the server");
	result = cli_program_run(&program);
	if (result != 0)
	{
		cli_error("the server does not start: %s", result < 0 ? strerror(errno) : program.last_lines);
		cli_hint("\"%s\" says why; the data is complete.", p->log != NULL ? p->log : log);
		return false;
	}
	if (!read_pid_file(p->pgdata, 4, port, 16) || (!read_pid_file(p->pgdata, 5, host, CLI_PATH_MAX) &&
												   !read_pid_file(p->pgdata, 6, host, CLI_PATH_MAX)))
	{
		cli_error("the server runs, but \"%s/postmaster.pid\" does not say where it is reached", p->pgdata);
		return false;
	}
	own->host = host;
	own->port = port;
	own->user = PQuser(donor_conn);
	own->conninfo = PQdb(donor_conn);
	own->application = "mgreplctl join";
	return true;
}

static bool
wait_synced(const plan *p, PGconn *donor_conn)
{
	char		host[CLI_PATH_MAX];
	char		port[16];
	char		state[64] = "";
	char		reason[1024] = "";
	cli_target	own = {0};
	time_t		until = time(NULL) + p->timeout_s;
	PGconn	   *conn;

	if (!start_server(p, donor_conn, &own, host, port) || (conn = cli_connect(&own)) == NULL)
		return false;
	while (!cli_interrupted && time(NULL) < until)
	{
		if (!cli_value(conn, "SELECT value FROM mgrepl.status WHERE name = 'node_state'", NULL, state, sizeof(state)))
			break;
		if (strcmp(state, "SYNCED") == 0 || strcmp(state, "DONOR") == 0 || strcmp(state, "INCONSISTENT") == 0)
			break;
		(void) poll(NULL, 0, LOOK_MS);
	}
	(void) cli_value(conn, "SELECT coalesce(value, '') FROM mgrepl.status WHERE name = 'node_state_reason'", NULL, reason, sizeof(reason));
	PQfinish(conn);
	if (strcmp(state, "SYNCED") == 0 || strcmp(state, "DONOR") == 0)
	{
		cli_say("node \"%s\" is %s", p->node_name, state);
		return true;
	}
	cli_error("node \"%s\" is %s: %s", p->node_name, state[0] != '\0' ? state : "away", reason);
	cli_hint("The server runs with its data; its log says more.");
	return false;
}

/* ------------------------------------------------------------------------ all */

static outcome
with_donor(plan *p, const donor *d, facts *f)
{
	cli_target	target = p->target;
	PGconn	   *conn;
	outcome		o;

	if (d->host[0] != '\0')
	{
		target.host = d->host;
		target.port = d->port;
		cli_say("donor %s at %s:%s", d->name, d->host, d->port);
	}
	conn = cli_connect(&target);
	if (conn == NULL)
	{
		code = CLI_NO_SERVER;
		return NEXT;
	}
	code = CLI_NO_SERVER;
	o = prepare(conn, p, f);
	if (o == WELL)
		o = fetch(conn, p, f);

	/* The donor keeps its log for the new node as long as this session lives, and some minutes more. */
	if (o == WELL)
	{
		code = CLI_DONE;
		if (p->start && !wait_synced(p, conn))
			code = CLI_FAILED;
		else if (!p->start)
			cli_say("node \"%s\" is ready in \"%s\": start it soon, and it joins by itself", p->node_name, p->pgdata);
	}
	PQfinish(conn);
	return o;
}

int
cli_join(int argc, char **argv)
{
	static plan p = {.cluster_name = "mgrepl",.timeout_s = SYNCED_WAIT_S};
	static facts f;
	outcome		o = NEXT;

	p.target.database = "postgres";
	p.target.application = "mgreplctl join";
	if (!read_options(&p, argc, argv))
		return cli_usage("join");
	if (geteuid() == 0)
	{
		cli_error("join cannot run as root: the server would not start with root's files");
		cli_hint("Run it as the user that the server will run as: runuser -u postgres -- mgreplctl join ...");
		return CLI_USAGE;
	}
	if (!make_absolute(&p) || !cli_directory_is_free(p.pgdata, &p.existed))
		return CLI_REFUSED;
	cli_catch_signals();
	if (!find_donors(&p))
		o = STOP;
	for (int i = 0; i < p.n_donors && o == NEXT && !cli_interrupted; i++)
		o = with_donor(&p, &p.donors[i], &f);
	if (o == NEXT && p.n_donors > 1)
		cli_error("no member could give its data");
	conf_free(&p.settings);
	return code;
}
