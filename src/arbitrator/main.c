/*
 * arbitrator/main.c - the command line of mgrepl-arbitrator.
 *
 * Runs the daemon (in the foreground, as systemd wants it, or detached), asks a
 * running one for its state, or has a member backed up: for that it knows best
 * who is there.  The backup itself is mgreplctl's work, which is started with an
 * argument vector, never through a shell.
 *
 * Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 no arbitrator
 * runs there; 4 it runs and is not in the primary component.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arbitrator/control.h"
#include "arbitrator/daemon.h"
#include "arbitrator/report.h"

#define EXIT_USAGE		2
#define EXIT_NOT_THERE	3
#define EXIT_NO_PRIMARY	4
#define MAX_OPTIONS		64
#define MAX_ARGS		64
#define DONORS_BYTES	4096

enum
{
	OPT_CONFIG = 'c',
	OPT_HELP = 'h',
	OPT_VERSION = 'V',
	OPT_STATUS = 1000,
	OPT_DAEMONIZE,
	OPT_TARGET,
	OPT_DONOR,
	OPT_DBNAME,
	OPT_USERNAME,
	OPT_SETTING					/* and all behind it: by its number in the table */
};

typedef struct command_line
{
	char		config[MG_OPTIONS_PATH_MAX];	/* "": none */
	int			n_settings;
	struct
	{
		const char *name;
		const char *value;
	}			settings[MAX_ARGS];
	bool		status;
	bool		daemonize;
	bool		backup;
	const char *target;
	const char *donor;
	const char *dbname;
	const char *username;
	char	  **rest;			/* behind "--" */
	int			n_rest;
} command_line;

static command_line cl;

static void
say(const mg_options_trouble *trouble)
{
	fprintf(stderr, "mgrepl-arbitrator: %s\n", trouble->text);
	if (trouble->hint[0] != '\0')
		fprintf(stderr, "HINT:  %s\n", trouble->hint);
}

static void
help(void)
{
	const char *name;
	const char *what;
	const char *standard;

	printf("mgrepl-arbitrator votes in an mgrepl cluster and holds no data.\n\n"
		   "Usage:\n"
		   "  mgrepl-arbitrator [--config=FILE] [--daemonize] [--NAME=VALUE ...]\n"
		   "  mgrepl-arbitrator --status [--config=FILE | --data-dir=DIR]\n"
		   "  mgrepl-arbitrator backup --target=DIR [--donor=NAME] [--dbname=CONNINFO]\n"
		   "                    [--username=USER] [--config=FILE | --data-dir=DIR]\n"
		   "                    [-- OPTIONS OF pg_basebackup]\n\n"
		   "  -c, --config=FILE     file of lines \"name = value\"; options win over it\n"
		   "      --daemonize       detach from the terminal once it listens\n"
		   "      --status          print the state of the one that runs, as JSON\n"
		   "      backup            base backup of a member, with its position (GTID) recorded\n"
		   "  -h, --help; -V, --version\n\n"
		   "Names, in the file and as options:\n");
	for (int i = 0; mg_options_describe(i, &name, &what, &standard); i++)
		printf("  %-22s%s%s%s%s\n", name, what, standard != NULL ? " (default: " : "", standard != NULL ? standard : "",
			   standard != NULL ? ")" : "");
	printf("\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 none runs there,\n"
		   "4 it runs and is not in the primary component.\n");
}

/* ---- options ---- */

static bool
wrong(const char *text, const char *value, const char *hint)
{
	mg_options_trouble trouble;

	snprintf(trouble.text, sizeof(trouble.text), "%s%s%s%s", text, value != NULL ? " \"" : "", value != NULL ? value : "",
			 value != NULL ? "\"" : "");
	snprintf(trouble.hint, sizeof(trouble.hint), "%s", hint);
	say(&trouble);
	return false;
}

/* Each name of the table twice: as it is, and with - for _. */
static void
make_long_options(struct option *to)
{
	static const struct option fixed[] = {
		{"config", required_argument, NULL, OPT_CONFIG},
		{"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, OPT_VERSION},
		{"status", no_argument, NULL, OPT_STATUS},
		{"daemonize", no_argument, NULL, OPT_DAEMONIZE},
		{"target", required_argument, NULL, OPT_TARGET},
		{"donor", required_argument, NULL, OPT_DONOR},
		{"dbname", required_argument, NULL, OPT_DBNAME},
		{"username", required_argument, NULL, OPT_USERNAME},
	};
	static char dashed[MAX_OPTIONS / 2][32];
	const char *name;
	const char *unused;
	int			n = 0;

	for (; n < (int) (sizeof(fixed) / sizeof(fixed[0])); n++)
		to[n] = fixed[n];
	for (int i = 0; mg_options_describe(i, &name, &unused, &unused); i++)
	{
		to[n++] = (struct option) {name, required_argument, NULL, OPT_SETTING + i};
		if (strchr(name, '_') == NULL)
			continue;
		snprintf(dashed[i], sizeof(dashed[i]), "%s", name);
		for (char *p = dashed[i]; *p != '\0'; p++)
			if (*p == '_')
				*p = '-';
		to[n++] = (struct option) {dashed[i], required_argument, NULL, OPT_SETTING + i};
	}
	MG_ASSERT(n < MAX_OPTIONS);
	memset(&to[n], 0, sizeof(to[n]));
}

static bool
take_option(int option, const char *value)
{
	const char *name;
	const char *unused;

	switch (option)
	{
		case OPT_CONFIG:
			if (strlen(value) >= sizeof(cl.config))
				return wrong("the path of the configuration file is too long", NULL, "");
			strcpy(cl.config, value);
			return true;
		case OPT_STATUS:
			return cl.status = true;
		case OPT_DAEMONIZE:
			return cl.daemonize = true;
		case OPT_TARGET:
			cl.target = value;
			return true;
		case OPT_DONOR:
			cl.donor = value;
			return true;
		case OPT_DBNAME:
			cl.dbname = value;
			return true;
		case OPT_USERNAME:
			cl.username = value;
			return true;
		default:
			if (option < OPT_SETTING || !mg_options_describe(option - OPT_SETTING, &name, &unused, &unused))
				return false;	/* getopt has said why */
			if (cl.n_settings == MAX_ARGS)
				return wrong("there are too many options", NULL, "");
			cl.settings[cl.n_settings].name = name;
			cl.settings[cl.n_settings++].value = value;
			return true;
	}
}

/* -1: go on; else the exit code. */
static int
read_command_line(int argc, char **argv)
{
	struct option options[MAX_OPTIONS];
	int			option;

	make_long_options(options);
	while ((option = getopt_long(argc, argv, "+c:hV", options, NULL)) != -1 || (optind < argc && !cl.backup &&
		   strcmp(argv[optind], "backup") == 0))
	{
		if (option == -1)
		{
			cl.backup = true;
			optind++;
		}
		else if (option == OPT_HELP)
		{
			help();
			return 0;
		}
		else if (option == OPT_VERSION)
		{
			printf("mgrepl-arbitrator %s, protocol version %d\n", MGREPL_VERSION, MG_PROTOCOL_VERSION);
			return 0;
		}
		else if (!take_option(option, optarg))
		{
			if (option == '?')
				fprintf(stderr, "HINT:  mgrepl-arbitrator --help names all options.\n");
			return EXIT_USAGE;
		}
	}
	cl.rest = argv + optind;
	cl.n_rest = argc - optind;
	if (cl.n_rest > 0 && (!cl.backup || strcmp(argv[optind - 1], "--") != 0))
	{
		wrong("there is no command", argv[optind], "Commands: backup. mgrepl-arbitrator --help tells more.");
		return EXIT_USAGE;
	}
	if (cl.backup && cl.target == NULL)
	{
		wrong("backup needs --target", NULL, "--target=DIR names the directory for the backup: a new one, or an empty one.");
		return EXIT_USAGE;
	}
	if (!cl.backup && (cl.target != NULL || cl.donor != NULL || cl.dbname != NULL || cl.username != NULL))
	{
		wrong("--target, --donor, --dbname and --username belong to the command backup", NULL, "mgrepl-arbitrator backup --target=DIR");
		return EXIT_USAGE;
	}
	return -1;
}

/* Defaults, then the file, then the command line. */
static bool
read_options(mg_options *options, mg_options_trouble *trouble)
{
	mg_options_init(options);
	if (cl.config[0] != '\0' && (!mg_options_absolute("config", cl.config, trouble) ||
								 !mg_options_read_file(options, cl.config, trouble)))
		return false;
	for (int i = 0; i < cl.n_settings; i++)
		if (!mg_options_set(options, cl.settings[i].name, cl.settings[i].value, trouble))
			return false;
	return mg_options_check(options, trouble);
}

static bool
reload(void *arg, mg_options *options)
{
	mg_options_trouble trouble;

	(void) arg;
	if (read_options(options, &trouble))
		return true;
	mg_report(MG_LOG_WARNING, "the configuration is not used: %s%s%s", trouble.text, trouble.hint[0] != '\0' ? "; " : "", trouble.hint);
	return false;
}

/* ---- run ---- */

static void
block_signals(void)
{
	sigset_t	signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/*
 * The caller's process waits until the daemon listens, or hears that it does
 * not.  Returns in the daemon only: where to tell that it does.
 */
static int
detach(void)
{
	int			ends[2];
	char		well = 0;
	pid_t		child;

	if (pipe(ends) != 0 || (child = fork()) < 0)
	{
		fprintf(stderr, "mgrepl-arbitrator: cannot detach: %s\n", strerror(errno));
		exit(1);
	}
	if (child > 0)
	{
		close(ends[1]);
		exit(read(ends[0], &well, 1) == 1 ? 0 : 1);
	}
	close(ends[0]);
	(void) fcntl(ends[1], F_SETFD, FD_CLOEXEC);
	if (setsid() < 0 || (child = fork()) < 0)
	{
		fprintf(stderr, "mgrepl-arbitrator: cannot detach: %s\n", strerror(errno));
		exit(1);
	}
	if (child > 0)
		_exit(0);
	return ends[1];
}

/* Nobody reads a daemon's standard error: what a library or an assertion says there goes to the log. */
static void
leave_terminal(const char *log_file)
{
	int			null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int			log = open(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

	if (null < 0 || log < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
		mg_report(MG_LOG_WARNING, "cannot leave the terminal: %s", strerror(errno));
	if (null > STDERR_FILENO)
		close(null);
	if (log > STDERR_FILENO)
		close(log);
}

static int
run(mg_options *options)
{
	mg_options_trouble trouble;
	int			told = -1;

	if (cl.daemonize && options->log_file[0] == '\0' &&
		snprintf(options->log_file, sizeof(options->log_file), "%s/mgrepl-arbitrator.log", options->data_dir) >=
		(int) sizeof(options->log_file))
	{
		wrong("the path of the log file is too long", NULL, "Set log_file.");
		return EXIT_USAGE;
	}
	block_signals();
	if (cl.daemonize)
		told = detach();
	if (!mg_daemon_open(options, &trouble))
	{
		say(&trouble);
		return 1;
	}
	if (cl.daemonize)
	{
		leave_terminal(options->log_file);
		if (write(told, "y", 1) != 1)
			mg_report(MG_LOG_WARNING, "the process that started this one is gone");
		close(told);
	}
	return mg_daemon_run(reload, NULL);
}

/* ---- ask ---- */

static bool
ask(const mg_options *options, const char *request, mg_buf *answer)
{
	mg_options_trouble trouble;
	int			here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		good = chdir(options->data_dir) == 0 && mg_control_ask(request, answer);
	int			saved = errno;

	if (here >= 0)
	{
		if (fchdir(here) != 0)
			good = false;
		close(here);
	}
	if (good)
		return true;
	if (saved == ENOENT || saved == ECONNREFUSED || saved == ENOTDIR)
		snprintf(trouble.text, sizeof(trouble.text), "no arbitrator runs in \"%s\"", options->data_dir);
	else
		snprintf(trouble.text, sizeof(trouble.text), "the arbitrator in \"%s\" cannot be asked: %s", options->data_dir, strerror(saved));
	snprintf(trouble.hint, sizeof(trouble.hint), "%s", saved == EACCES ? "Ask as the user that it runs as." :
			 "Start it, or give its directory with --data-dir=DIR or --config=FILE.");
	say(&trouble);
	return false;
}

static int
status(const mg_options *options)
{
	mg_buf		answer = {0};
	int			code = EXIT_NOT_THERE;

	if (ask(options, "status", &answer))
	{
		fputs((const char *) answer.data, stdout);
		code = strstr((const char *) answer.data, "\"primary\": true") != NULL ? 0 : EXIT_NO_PRIMARY;
	}
	mg_buf_free(&answer);
	return code;
}

/* ---- backup ---- */

/* Beside this program, where it was installed with it, else wherever PATH finds it. */
static void
path_of_tool(char to[MG_OPTIONS_PATH_MAX])
{
	ssize_t		n = readlink("/proc/self/exe", to, MG_OPTIONS_PATH_MAX - 16);
	char	   *slash;

	to[n > 0 ? n : 0] = '\0';
	slash = strrchr(to, '/');
	if (slash != NULL)
	{
		strcpy(slash + 1, "mgreplctl");
		if (access(to, X_OK) == 0)
			return;
	}
	strcpy(to, "mgreplctl");
}

/* "name<TAB>host:port" lines into libpq's lists of hosts and of ports: it takes the first that answers. */
static bool
split_donors(char *lines, char *hosts, char *ports, size_t cap)
{
	size_t		h = 0;
	size_t		p = 0;

	for (char *line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n"))
	{
		char	   *address = strchr(line, '\t');
		char	   *colon = address != NULL ? strrchr(address, ':') : NULL;
		size_t		len;

		if (colon == NULL)
			return false;
		address++;
		len = (size_t) (colon - address);
		if (len > 2 && address[0] == '[')
			address++, len -= 2;
		h += (size_t) snprintf(hosts + h, h < cap ? cap - h : 0, "%s%.*s", h > 0 ? "," : "", (int) len, address);
		p += (size_t) snprintf(ports + p, p < cap ? cap - p : 0, "%s%s", p > 0 ? "," : "", colon + 1);
	}
	return h > 0 && h < cap && p < cap;
}

static int
backup(const mg_options *options)
{
	char		request[MG_NAME_BYTES_MAX + 16];
	char		tool[MG_OPTIONS_PATH_MAX];
	char		hosts[DONORS_BYTES];
	char		ports[DONORS_BYTES];
	const char *args[MAX_ARGS];
	int			n = 0;
	mg_buf		answer = {0};
	char	   *lines;

	if (cl.n_rest > MAX_ARGS - 16)
	{
		wrong("there are too many options behind --", NULL, "");
		return EXIT_USAGE;
	}
	if (cl.donor != NULL && (strlen(cl.donor) >= MG_NAME_BYTES_MAX || strchr(cl.donor, '\n') != NULL))
	{
		wrong("this is not the name of a member:", cl.donor, "");
		return EXIT_USAGE;
	}
	snprintf(request, sizeof(request), "donors %s", cl.donor != NULL ? cl.donor : "");
	if (!ask(options, request, &answer))
	{
		mg_buf_free(&answer);
		return EXIT_NOT_THERE;
	}
	lines = (char *) answer.data;
	if (strncmp(lines, "ok\n", 3) != 0 || !split_donors(lines + 3, hosts, ports, sizeof(hosts)))
	{
		lines[strcspn(lines, "\n")] = '\0';
		wrong(lines, NULL, "mgrepl-arbitrator --status shows the members it knows.");
		mg_buf_free(&answer);
		return 1;
	}
	mg_buf_free(&answer);

	path_of_tool(tool);
	args[n++] = tool;
	args[n++] = "backup";
	args[n++] = "--target";
	args[n++] = cl.target;
	if (cl.dbname != NULL)
	{
		args[n++] = "--dbname";
		args[n++] = cl.dbname;
	}
	if (cl.username != NULL)
	{
		args[n++] = "--username";
		args[n++] = cl.username;
	}
	args[n++] = "--host";
	args[n++] = hosts;
	args[n++] = "--port";
	args[n++] = ports;
	if (cl.n_rest > 0)
		args[n++] = "--";
	for (int i = 0; i < cl.n_rest; i++)
		args[n++] = cl.rest[i];
	args[n] = NULL;
	execvp(tool, (char *const *) (uintptr_t) args);
	fprintf(stderr, "mgrepl-arbitrator: \"%s\" cannot be started: %s\n"
			"HINT:  Install mgreplctl, which comes with mgrepl and makes the backup.\n", tool, strerror(errno));
	return 1;
}

int
main(int argc, char **argv)
{
	mg_options	options;
	mg_options_trouble trouble;
	int			code = read_command_line(argc, argv);

	if (code >= 0)
		return code;
	if (!read_options(&options, &trouble))
	{
		say(&trouble);
		return EXIT_USAGE;
	}
	if (cl.backup)
		return backup(&options);
	if (cl.status)
		return status(&options);
	return run(&options);
}
