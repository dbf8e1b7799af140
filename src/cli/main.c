/*
 * cli/main.c - mgreplctl: what one does with an mgrepl cluster outside of SQL.
 * One file per subcommand; exit codes in cli.h, told by --help.
 */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#define CONNECTION_HELP \
	"  -h, --host=HOST  -p, --port=PORT  -U, --username=USER\n" \
	"  -d, --dbname=DB  the replicated database, or a connection string\n" \
	"  -q, --quiet      only what is asked for, and errors\n" \
	"Passwords come by libpq's own means: password file, PGPASSWORD, service file.\n"

#define EXIT_HELP \
	"Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the server, or any donor, cannot be\n" \
	"reached; 4 it is not in the primary component; 5 refused beforehand, nothing changed.\n"

typedef struct command
{
	const char *name;
	int			(*run) (int argc, char **argv);
	const char *what;
	const char *help;
} command;

static const command commands[] = {
	{"status", cli_status, "state of a node and the members it sees",
		"Usage: mgreplctl status [--json] [CONNECTION]\n\n"
		"  -j, --json       everything that the views show, as JSON\n"
	CONNECTION_HELP EXIT_HELP},
	{"join", cli_join, "makes a new node from a member's data, on a machine that has none",
		"Usage: mgreplctl join --pgdata=DIR --listen-address=HOST:PORT\n"
		"           {--cluster=HOST:PORT,... [--donor=NAME,...] | --donor=CONNINFO} [OPTIONS]\n"
		"           [-- OPTIONS OF pg_basebackup]\n\n"
		"  -D, --pgdata=DIR             the new data directory: absent or empty\n"
		"      --listen-address=H:P     mgrepl.listen_address of the new node\n"
		"      --cluster=H:P,...        addresses of members (gcomm://... is allowed); one of\n"
		"                               them names the donors\n"
		"      --cluster-name=NAME      of the cluster (default: mgrepl)\n"
		"      --donor=NAME,...         members to be asked first, in this order\n"
		"      --donor=CONNINFO         connection string of the one donor, without --cluster\n"
		"      --node-name=NAME         mgrepl.node_name of the new node (default: host name)\n"
		"      --node-address=H:P       where the others reach it (default: listen-address)\n"
		"      --sql-address=H:P        where its PostgreSQL is reached (default: by itself)\n"
		"      --server-port=PORT       port of the new server\n"
		"      --segment=N --weight=N   of the new node\n"
		"      --set=NAME=VALUE         any other setting of the new server\n"
		"  -T, --tablespace-mapping=OLD=NEW\n"
		"      --bindir=DIR             where PostgreSQL's programs are\n"
		"      --start                  start it, and wait until it is SYNCED\n"
		"      --log=FILE               for the server's output (default: DIR/server.log)\n"
		"      --timeout=SECONDS        longest wait for SYNCED (default: 300)\n"
	CONNECTION_HELP EXIT_HELP},
	{"backup", cli_backup, "base backup of a node with its position (GTID) recorded",
		"Usage: mgreplctl backup --target=DIR [CONNECTION] [-- OPTIONS OF pg_basebackup]\n\n"
		"  -t, --target=DIR the directory of the backup: absent or empty; the position is\n"
		"                   recorded there in mgrepl_backup_label, and printed\n"
		"      --bindir=DIR where PostgreSQL's programs are\n"
	CONNECTION_HELP EXIT_HELP},
	{"progress", cli_progress_command, "watches the state transfers of a node until they end",
		"Usage: mgreplctl progress [--once] [CONNECTION]\n\n"
		"      --once       what there is now, and no more\n"
	CONNECTION_HELP EXIT_HELP},
};

#define N_COMMANDS ((int) (sizeof(commands) / sizeof(commands[0])))

static void
help(void)
{
	printf("mgreplctl works with nodes of an mgrepl cluster.\n\nUsage: mgreplctl COMMAND [OPTIONS]\n\n");
	for (int i = 0; i < N_COMMANDS; i++)
		printf("  %-10s %s\n", commands[i].name, commands[i].what);
	printf("\nmgreplctl COMMAND --help tells more.\n" EXIT_HELP);
}

static bool
wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-?") == 0)
			return true;
	return false;
}

int
main(int argc, char **argv)
{
	if (argc < 2)
	{
		help();
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)
	{
		help();
		return CLI_DONE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
	{
		puts("mgreplctl " MGREPL_VERSION);
		return CLI_DONE;
	}
	for (int i = 0; i < N_COMMANDS; i++)
	{
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		if (wants_help(argc - 1, argv + 1))
		{
			fputs(commands[i].help, stdout);
			return CLI_DONE;
		}
		return commands[i].run(argc - 1, argv + 1);
	}
	cli_error("there is no command \"%s\"", argv[1]);
	cli_hint("mgreplctl --help names all there are.");
	return CLI_USAGE;
}
