/*
 * cli/conf.c - see conf.h.
 *
 * How: postgresql.auto.conf is read last by the server, so what is written there
 * holds whatever the copied files say.  It is replaced as a whole: until the new
 * one is there the directory is the donor's copy, afterwards it is the node's.
 */
#include "cli/conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

#define AUTO_CONF		"postgresql.auto.conf"
#define AUTO_CONF_MAX	(1024 * 1024)

/* Of the donor alone. */
static const char *const personal[] = {
	"mgrepl.node_name", "mgrepl.node_address", "mgrepl.listen_address", "mgrepl.sql_address", "mgrepl.cluster_address",
	"mgrepl.sst_donor", "data_directory", "hba_file", "ident_file", "external_pid_file", "primary_conninfo",
	"primary_slot_name", "promote_trigger_file", "restore_command", "archive_cleanup_command", "recovery_end_command",
	"recovery_target", "recovery_target_action", "recovery_target_inclusive", "recovery_target_lsn", "recovery_target_name",
	"recovery_target_time", "recovery_target_timeline", "recovery_target_xid"
};

static char *
copy_text(const char *text)
{
	char	   *copy = strdup(text);

	if (copy == NULL)
	{
		cli_error("out of memory");
		exit(CLI_FAILED);
	}
	return copy;
}

static bool
is_setting_name(const char *name)
{
	if (!isalpha((unsigned char) *name) && *name != '_')
		return false;
	for (; *name != '\0'; name++)
		if (!isalnum((unsigned char) *name) && *name != '_' && *name != '.')
			return false;
	return true;
}

bool
conf_set(conf *c, const char *name, const char *value)
{
	if (!is_setting_name(name) || strpbrk(value, "\r\n") != NULL)
		return false;
	for (int i = 0; i < c->n; i++)
		if (strcasecmp(c->list[i].name, name) == 0)
		{
			free(c->list[i].value);
			c->list[i].value = copy_text(value);
			return true;
		}
	if (c->n == CONF_MAX)
		return false;
	c->list[c->n].name = copy_text(name);
	c->list[c->n++].value = copy_text(value);
	return true;
}

bool
conf_set_pair(conf *c, const char *pair)
{
	const char *equals = strchr(pair, '=');
	char	   *name;
	bool		good;

	if (equals == NULL)
		return false;
	name = copy_text(pair);
	name[equals - pair] = '\0';
	good = conf_set(c, name, equals + 1);
	free(name);
	return good;
}

const char *
conf_get(const conf *c, const char *name)
{
	for (int i = 0; i < c->n; i++)
		if (strcasecmp(c->list[i].name, name) == 0)
			return c->list[i].value;
	return NULL;
}

void
conf_free(conf *c)
{
	for (int i = 0; i < c->n; i++)
	{
		free(c->list[i].name);
		free(c->list[i].value);
	}
	c->n = 0;
}

/* ---- postgresql.auto.conf ---- */

static bool
path_in(char to[CLI_PATH_MAX], const char *directory, const char *name)
{
	if (snprintf(to, CLI_PATH_MAX, "%s/%s", directory, name) < CLI_PATH_MAX)
		return true;
	cli_error("the path \"%s/%s\" is too long", directory, name);
	return false;
}

/* The whole file, ended by a 0; an empty text if there is none; NULL: it has said why. */
static char *
read_file(const char *path)
{
	FILE	   *file = fopen(path, "re");
	char	   *text = malloc(AUTO_CONF_MAX);
	size_t		n = 0;

	if (text == NULL || (file == NULL && errno != ENOENT))
	{
		cli_error("\"%s\" cannot be read: %s", path, strerror(errno));
		free(text);
		return NULL;
	}
	if (file != NULL)
	{
		n = fread(text, 1, AUTO_CONF_MAX, file);
		if (ferror(file) || n == AUTO_CONF_MAX)
		{
			cli_error("\"%s\" cannot be read, or is too large", path);
			fclose(file);
			free(text);
			return NULL;
		}
		fclose(file);
	}
	text[n] = '\0';
	return text;
}

/* Does this line set what the donor alone may have, or what is set anew? */
static bool
is_dropped(const char *line, const conf *settings)
{
	char		name[128];
	size_t		len;

	line += strspn(line, " \t");
	len = strcspn(line, " \t=");
	if (len == 0 || len >= sizeof(name))
		return false;
	memcpy(name, line, len);
	name[len] = '\0';
	for (size_t i = 0; i < sizeof(personal) / sizeof(personal[0]); i++)
		if (strcasecmp(name, personal[i]) == 0)
			return true;
	return conf_get(settings, name) != NULL;
}

static bool
put_settings(char *to, size_t cap, const conf *settings)
{
	bool		good = true;

	for (int i = 0; good && i < settings->n; i++)
	{
		good = cli_append(to, cap, "%s = '", settings->list[i].name);
		for (const char *p = settings->list[i].value; good && *p != '\0'; p++)
			good = cli_append(to, cap, *p == '\'' || *p == '\\' ? "%c%c" : "%c", *p, *p);
		good = good && cli_append(to, cap, "'\n");
	}
	return good;
}

static bool
write_auto_conf(const char *directory, const conf *settings)
{
	char		path[CLI_PATH_MAX];
	char	   *old;
	char	   *fresh = malloc(2 * AUTO_CONF_MAX);
	size_t		len = 0;
	bool		good;

	if (!path_in(path, directory, AUTO_CONF) || fresh == NULL || (old = read_file(path)) == NULL)
	{
		free(fresh);
		return false;
	}
	for (char *line = old; *line != '\0';)
	{
		size_t		n = strcspn(line, "\n");
		char		stop = line[n];

		line[n] = '\0';
		if (!is_dropped(line, settings))
		{
			memcpy(fresh + len, line, n);
			fresh[len + n] = '\n';
			len += n + 1;
		}
		line += n + (stop != '\0');
	}
	fresh[len] = '\0';
	good = put_settings(fresh, 2 * AUTO_CONF_MAX, settings);
	if (!good)
		cli_error("the settings do not fit into \"%s\"", path);
	else if (!cli_write_file(path, fresh, strlen(fresh), 0600))
	{
		cli_error("\"%s\" cannot be written: %s", path, strerror(errno));
		good = false;
	}
	free(old);
	free(fresh);
	return good;
}

/* ---- the other files ---- */

bool
conf_has_main_file(const char *directory)
{
	char		path[CLI_PATH_MAX];

	return path_in(path, directory, "postgresql.conf") && access(path, F_OK) == 0;
}

/* The donor keeps them elsewhere: the least that a server needs. */
static bool
write_missing(const char *directory)
{
	static const struct
	{
		const char *name;
		const char *text;
	}			files[] = {
		{"postgresql.conf", "# The settings of this node are in postgresql.auto.conf, where mgreplctl join wrote them.\n"},
		{"pg_hba.conf", "# TYPE  DATABASE     USER  ADDRESS       METHOD\n"
			"local   all          all                 peer\n"
			"host    all          all   127.0.0.1/32  scram-sha-256\n"
			"host    all          all   ::1/128       scram-sha-256\n"
			"local   replication  all                 peer\n"},
		{"pg_ident.conf", "# MAPNAME  SYSTEM-USERNAME  PG-USERNAME\n"}
	};
	char		path[CLI_PATH_MAX];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		if (!path_in(path, directory, files[i].name))
			return false;
		if (access(path, F_OK) == 0)
			continue;
		if (!cli_write_file(path, files[i].text, strlen(files[i].text), 0600))
		{
			cli_error("\"%s\" cannot be written: %s", path, strerror(errno));
			return false;
		}
		if (strcmp(files[i].name, "pg_hba.conf") == 0)
			cli_say("the donor's pg_hba.conf is not in its data directory: look at \"%s\"", path);
	}
	return true;
}

static bool
remove_inherited(const char *directory, const char *log_directory)
{
	static const char *const files[] = {"standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"};
	char		path[CLI_PATH_MAX];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		if (!path_in(path, directory, files[i]))
			return false;
		if (unlink(path) != 0 && errno != ENOENT)
		{
			cli_error("\"%s\" cannot be removed: %s", path, strerror(errno));
			return false;
		}
	}
	if (!path_in(path, directory, "pg_replslot") || !cli_directory_clear(path, true))
		return false;
	return log_directory == NULL || (path_in(path, directory, log_directory) && cli_directory_clear(path, false));
}

bool
conf_make_own(const char *directory, const conf *settings, const char *log_directory)
{
	return remove_inherited(directory, log_directory) && write_missing(directory) && write_auto_conf(directory, settings);
}
