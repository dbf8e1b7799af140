/*
 * arbitrator/options.c - see options.h.
 *
 * How: one table with a line per option; file, command line, usage text and
 * bounds all come from it.
 */
#include "arbitrator/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/address.h"
#include "core/wire.h"

#define LINE_MAX_BYTES	(MG_OPTIONS_LIST_MAX + 256)
#define HOUR_MS			(INT64_C(60) * 60 * 1000)

typedef enum option_kind
{
	KIND_NAME = 0,
	KIND_LIST,
	KIND_LISTEN,
	KIND_ADDRESS,
	KIND_PATH,
	KIND_NUMBER,
	KIND_TIME,
	KIND_LEVEL
} option_kind;

typedef struct option_def
{
	const char *name;
	option_kind kind;
	size_t		at;
	size_t		cap;			/* of a text */
	int64_t		lowest;
	int64_t		highest;
	const char *standard;
	const char *what;
} option_def;

#define TEXT(field)		offsetof(mg_options, field), sizeof(((mg_options *) 0)->field), 0, 0
#define NUMBER(field)	offsetof(mg_options, field), 0

static const option_def defs[] = {
	{"node_name", KIND_NAME, TEXT(node_name), NULL, "name of the arbitrator, unique in the cluster (default: the machine's name)"},
	{"cluster_name", KIND_NAME, TEXT(cluster_name), "mgrepl", "name of the cluster"},
	{"cluster_address", KIND_LIST, TEXT(cluster_address), NULL, "members to join through: gcomm://host:port,host:port"},
	{"listen_address", KIND_LISTEN, TEXT(listen_address), "127.0.0.1:5701", "host:port to listen on; host * for all addresses"},
	{"node_address", KIND_ADDRESS, TEXT(node_address), NULL, "host:port where the others reach it (default: listen_address)"},
	{"data_dir", KIND_PATH, TEXT(data_dir), "/var/lib/mgrepl-arbitrator", "directory of what it must not forget"},
	{"log_file", KIND_PATH, TEXT(log_file), NULL, "file to log to (default: standard error)"},
	{"pid_file", KIND_PATH, TEXT(pid_file), NULL, "file for the process id, beside the one in data_dir"},
	{"log_level", KIND_LEVEL, NUMBER(log_level), 0, 0, "info", "error, warning, info or debug; read again on SIGHUP"},
	{"segment", KIND_NUMBER, NUMBER(segment), 0, 255, "0", "number of the place where it runs"},
	{"weight", KIND_NUMBER, NUMBER(weight), 0, MG_WEIGHT_MAX, "1", "its votes in the quorum"},
	{"keepalive_period", KIND_TIME, NUMBER(keepalive_ms), 1, HOUR_MS, "100ms", "silence after which a sign of life is sent"},
	{"suspect_timeout", KIND_TIME, NUMBER(suspect_ms), 50, HOUR_MS, "1s", "silence after which a member is suspected"},
	{"inactive_timeout", KIND_TIME, NUMBER(inactive_ms), 50, HOUR_MS, "5s", "silence after which a member is evicted"},
	{"wan_suspect_timeout", KIND_TIME, NUMBER(wan_suspect_ms), 0, HOUR_MS, "0", "the same toward members of other segments; 0: suspect_timeout"},
	{"wan_inactive_timeout", KIND_TIME, NUMBER(wan_inactive_ms), 0, HOUR_MS, "0", "the same toward members of other segments; 0: inactive_timeout"},
};

#define N_DEFS (sizeof(defs) / sizeof(defs[0]))

static const char *const level_names[] = {"error", "warning", "info", "debug"};

/* Where the program was started: the daemon works elsewhere, and reads its file again. */
static char start_dir[MG_OPTIONS_PATH_MAX];

const char *
mg_log_level_name(mg_log_level level)
{
	return level_names[level];
}

static bool refuse(mg_options_trouble *trouble, const char *hint, const char *format,...)
	__attribute__((format(printf, 3, 4)));

static bool
refuse(mg_options_trouble *trouble, const char *hint, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(trouble->text, sizeof(trouble->text), format, args);
	va_end(args);
	snprintf(trouble->hint, sizeof(trouble->hint), "%s", hint);
	return false;
}

static const option_def *
find_def(const char *name)
{
	for (size_t i = 0; i < N_DEFS; i++)
	{
		const char *a = defs[i].name;
		const char *b = name;

		while (*a != '\0' && (*a == *b || (*a == '_' && *b == '-')))
			a++, b++;
		if (*a == '\0' && *b == '\0')
			return &defs[i];
	}
	return NULL;
}

static bool
set_text(mg_options *options, const option_def *def, const char *value, mg_options_trouble *trouble)
{
	if (strlen(value) >= def->cap)
		return refuse(trouble, "", "%s: the value has %zu bytes, at most %zu are possible", def->name, strlen(value), def->cap - 1);
	for (const char *p = value; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 127)
			return refuse(trouble, "", "%s: the value holds a control character", def->name);
	strcpy((char *) options + def->at, value);
	return true;
}

static bool
set_address(mg_options *options, const option_def *def, const char *value, mg_options_trouble *trouble)
{
	const char *wrong = mg_address_trouble(value, strlen(value), def->kind == KIND_LISTEN);

	if (wrong != NULL)
		return refuse(trouble, "An address is host:port, for example 10.0.0.3:5701 or [2001:db8::1]:5701.",
					  "%s: address \"%s\" is not valid: %s", def->name, value, wrong);
	return set_text(options, def, value, trouble);
}

static bool
set_list(mg_options *options, const option_def *def, const char *value, mg_options_trouble *trouble)
{
	char		list[MG_OPTIONS_LIST_MAX];
	const char *at;
	size_t		len;
	const char *wrong = mg_address_list(value, list, sizeof(list), &at, &len);

	if (wrong != NULL)
		return refuse(trouble, "For example gcomm://10.0.0.1:5701,10.0.0.2:5701.",
					  "%s: \"%.*s\" is not valid: %s", def->name, (int) len, at, wrong);
	return set_text(options, def, list, trouble);
}

/* A number, or with `time` one of milliseconds that may have a unit. */
static bool
set_number(mg_options *options, const option_def *def, const char *value, bool time, mg_options_trouble *trouble)
{
	static const struct
	{
		const char *unit;
		int64_t		ms;
	}			units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"min", 60 * 1000}, {"h", 60 * 60 * 1000}};
	char	   *end;
	long long	n;
	int64_t		factor = 0;

	errno = 0;
	n = strtoll(value, &end, 10);
	while (*end == ' ')
		end++;
	for (size_t i = 0; i < (time ? sizeof(units) / sizeof(units[0]) : 1); i++)
		if (strcmp(end, units[i].unit) == 0)
			factor = units[i].ms;
	if (end == value || factor == 0)
		return refuse(trouble, time ? "A time is a number with ms, s, min or h; without a unit it is milliseconds." : "",
					  "%s: \"%s\" is not a %s", def->name, value, time ? "time" : "number");
	if (errno == ERANGE || n > INT64_MAX / factor || n < 0 || n * factor < def->lowest || n * factor > def->highest)
		return refuse(trouble, "", "%s: \"%s\" is not between %lld and %lld%s", def->name, value,
					  (long long) def->lowest, (long long) def->highest, time ? " ms" : "");
	n *= factor;
	memcpy((char *) options + def->at, &n, sizeof(int64_t));
	return true;
}

static bool
set_level(mg_options *options, const option_def *def, const char *value, mg_options_trouble *trouble)
{
	for (mg_log_level l = MG_LOG_ERROR; l <= MG_LOG_DEBUG; l++)
		if (strcmp(value, level_names[l]) == 0)
		{
			options->log_level = l;
			return true;
		}
	return refuse(trouble, "There are error, warning, info and debug.", "%s: there is no level \"%s\"", def->name, value);
}

bool
mg_options_set(mg_options *options, const char *name, const char *value, mg_options_trouble *trouble)
{
	const option_def *def = find_def(name);

	if (def == NULL)
		return refuse(trouble, "mgrepl-arbitrator --help names all there are.", "there is no option \"%s\"", name);
	if (value[0] == '\0' && def->kind != KIND_PATH)
		return refuse(trouble, def->what, "%s: the value is empty", def->name);
	switch (def->kind)
	{
		case KIND_NAME:
		case KIND_PATH:
			return set_text(options, def, value, trouble);
		case KIND_LIST:
			return set_list(options, def, value, trouble);
		case KIND_LISTEN:
		case KIND_ADDRESS:
			return set_address(options, def, value, trouble);
		case KIND_NUMBER:
			return set_number(options, def, value, false, trouble);
		case KIND_TIME:
			return set_number(options, def, value, true, trouble);
		case KIND_LEVEL:
			return set_level(options, def, value, trouble);
	}
	return false;
}

void
mg_options_init(mg_options *options)
{
	mg_options_trouble trouble;

	if (start_dir[0] == '\0' && getcwd(start_dir, sizeof(start_dir)) == NULL)
		start_dir[0] = '\0';
	memset(options, 0, sizeof(*options));
	for (size_t i = 0; i < N_DEFS; i++)
		if (defs[i].standard != NULL)
			MG_ASSERT(mg_options_set(options, defs[i].name, defs[i].standard, &trouble));
	if (gethostname(options->node_name, sizeof(options->node_name) - 1) != 0 || options->node_name[0] == '\0')
		strcpy(options->node_name, "arbitrator");
}

bool
mg_options_describe(int i, const char **name, const char **what, const char **standard)
{
	if (i < 0 || (size_t) i >= N_DEFS)
		return false;
	*name = defs[i].name;
	*what = defs[i].what;
	*standard = defs[i].standard;
	return true;
}

/* ---- the file ---- */

static char *
trim(char *text)
{
	size_t		len;

	text += strspn(text, " \t\r\n");
	len = strlen(text);
	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
		text[--len] = '\0';
	return text;
}

/* Value as it is meant: 'in quotes' or up to a # that begins a comment; NULL: the quotes do not match. */
static char *
value_of(char *text)
{
	text = trim(text);
	if (*text == '\'' || *text == '"')
	{
		char	   *end = strchr(text + 1, *text);
		char	   *rest;

		if (end == NULL)
			return NULL;
		rest = trim(end + 1);
		if (*rest != '\0' && *rest != '#')
			return NULL;
		*end = '\0';
		return text + 1;
	}
	text[strcspn(text, "#")] = '\0';
	return trim(text);
}

static bool
take_line(mg_options *options, char *line, mg_options_trouble *trouble)
{
	char	   *equals;
	char	   *name = trim(line);
	char	   *value;

	if (*name == '\0' || *name == '#')
		return true;
	equals = strchr(name, '=');
	if (equals == NULL)
		return refuse(trouble, "A line is name = value, or a comment that begins with #.", "\"%s\" has no =", name);
	*equals = '\0';
	value = value_of(equals + 1);
	if (value == NULL)
		return refuse(trouble, "", "the quotes of the value do not match");
	return mg_options_set(options, trim(name), value, trouble);
}

bool
mg_options_read_file(mg_options *options, const char *path, mg_options_trouble *trouble)
{
	char		line[LINE_MAX_BYTES];
	int			number = 0;
	bool		good = true;
	FILE	   *file = fopen(path, "re");

	if (file == NULL)
		return refuse(trouble, "Give another one with --config=FILE, or check its rights.",
					  "configuration file \"%s\" cannot be read: %s", path, strerror(errno));
	while (good && fgets(line, sizeof(line), file) != NULL)
	{
		number++;
		if (strchr(line, '\n') == NULL && !feof(file))
			good = refuse(trouble, "", "the line is too long");
		else
			good = take_line(options, line, trouble);
	}
	if (good && ferror(file))
	{
		good = refuse(trouble, "", "it cannot be read: %s", strerror(errno));
	}
	fclose(file);
	if (!good)
	{
		char		text[MG_OPTIONS_TEXT_MAX];

		/* A message that is too long loses its end, nothing else. */
		if (snprintf(text, sizeof(text), "%s, line %d: %s", path, number, trouble->text) > 0)
			memcpy(trouble->text, text, sizeof(text));
	}
	return good;
}

/* ---- what fits together ---- */

bool
mg_options_absolute(const char *name, char path[MG_OPTIONS_PATH_MAX], mg_options_trouble *trouble)
{
	char		whole[2 * MG_OPTIONS_PATH_MAX] = "";
	int			n;

	if (path[0] == '\0' || path[0] == '/')
		return true;
	n = snprintf(whole, sizeof(whole), "%s/%s", start_dir, path);
	if (start_dir[0] == '\0' || n < 0 || n >= MG_OPTIONS_PATH_MAX)
		return refuse(trouble, "Give a shorter, absolute path.", "%s: \"%s\" cannot be made absolute", name, path);
	memcpy(path, whole, MG_OPTIONS_PATH_MAX);
	return true;
}

bool
mg_options_check(mg_options *options, mg_options_trouble *trouble)
{
	int64_t		wan_suspect = options->wan_suspect_ms > 0 ? options->wan_suspect_ms : options->suspect_ms;
	int64_t		wan_inactive = options->wan_inactive_ms > 0 ? options->wan_inactive_ms : options->inactive_ms;

	if (!mg_options_absolute("data_dir", options->data_dir, trouble) ||
		!mg_options_absolute("log_file", options->log_file, trouble) ||
		!mg_options_absolute("pid_file", options->pid_file, trouble))
		return false;
	if (options->data_dir[0] == '\0')
		return refuse(trouble, "", "data_dir: the value is empty");
	if (options->node_address[0] == '\0')
	{
		if (options->listen_address[0] == '*')
			return refuse(trouble, "Set node_address to host:port as the other members can connect to it.",
						  "listen_address \"%s\" does not say where the others reach this arbitrator", options->listen_address);
		memcpy(options->node_address, options->listen_address, sizeof(options->node_address));
	}
	if (options->keepalive_ms * 3 >= options->suspect_ms || options->keepalive_ms * 3 >= wan_suspect)
		return refuse(trouble, "A sign of life may get lost: three must fit into the time.",
					  "keepalive_period must be less than a third of suspect_timeout and wan_suspect_timeout");
	if (options->inactive_ms < options->suspect_ms || wan_inactive < wan_suspect)
		return refuse(trouble, "A member is suspected first, evicted later.",
					  "inactive_timeout must not be less than suspect_timeout, nor wan_inactive_timeout than wan_suspect_timeout");
	return true;
}
