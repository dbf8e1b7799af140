/*
 * cli/conf.h - makes a copy of one node's data directory that of another node:
 * its settings, and what it must not inherit.
 */
#ifndef MG_CLI_CONF_H
#define MG_CLI_CONF_H

#include <stdbool.h>
#include <stddef.h>

#define CONF_MAX 128

typedef struct conf_setting
{
	char	   *name;
	char	   *value;
} conf_setting;

typedef struct conf
{
	int			n;
	conf_setting list[CONF_MAX];
} conf;

/* The later one of a name wins.  False: it is no name of a setting, or there are too many. */
extern bool conf_set(conf *c, const char *name, const char *value);

/* "name=value"; false: it is none. */
extern bool conf_set_pair(conf *c, const char *pair);
extern const char *conf_get(const conf *c, const char *name);	/* NULL: not set */
extern void conf_free(conf *c);

/* Does the directory hold its own postgresql.conf?  Debian keeps it elsewhere. */
extern bool conf_has_main_file(const char *directory);

/*
 * Puts the settings into postgresql.auto.conf, which wins over every other file,
 * takes out those that only the donor may have, writes the files without which a
 * server does not start, and removes slots, signals and `log_directory` (the
 * donor's writeset log, relative; NULL: not in the copy).  False: it has said why.
 */
extern bool conf_make_own(const char *directory, const conf *settings, const char *log_directory);

#endif							/* MG_CLI_CONF_H */
