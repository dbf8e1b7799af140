/*
 * arbitrator/options.h - what the arbitrator is told: by a file of lines
 * "name = value" and by options --name=value, which have the same names and
 * win over the file.
 *
 * Decides: names, defaults, bounds, and what fits together.  What is wrong is
 * said in one message and a hint; nothing is guessed.
 */
#ifndef MG_ARBITRATOR_OPTIONS_H
#define MG_ARBITRATOR_OPTIONS_H

#include "core/base.h"

#define MG_OPTIONS_PATH_MAX		1024
#define MG_OPTIONS_LIST_MAX		4096
#define MG_OPTIONS_TEXT_MAX		4608	/* of a message: the longest value and what is said of it */

/* What is logged: this and all above it. */
typedef enum mg_log_level
{
	MG_LOG_ERROR = 0,
	MG_LOG_WARNING,
	MG_LOG_INFO,
	MG_LOG_DEBUG
} mg_log_level;

typedef struct mg_options
{
	char		node_name[MG_NAME_BYTES_MAX];
	char		cluster_name[MG_NAME_BYTES_MAX];
	char		cluster_address[MG_OPTIONS_LIST_MAX];	/* checked, without scheme: "host:port,host:port" */
	char		listen_address[MG_ADDRESS_BYTES_MAX];
	char		node_address[MG_ADDRESS_BYTES_MAX];		/* told to the others: never empty once checked */
	char		data_dir[MG_OPTIONS_PATH_MAX];
	char		log_file[MG_OPTIONS_PATH_MAX];			/* "": standard error */
	char		pid_file[MG_OPTIONS_PATH_MAX];			/* "": none beside the one in data_dir */
	int64_t		segment;
	int64_t		weight;
	int64_t		keepalive_ms;
	int64_t		suspect_ms;
	int64_t		inactive_ms;
	int64_t		wan_suspect_ms;
	int64_t		wan_inactive_ms;
	mg_log_level log_level;
} mg_options;

typedef struct mg_options_trouble
{
	char		text[MG_OPTIONS_TEXT_MAX];
	char		hint[MG_REASON_BYTES_MAX];
} mg_options_trouble;

extern void mg_options_init(mg_options *options);

/* "node-name" is "node_name".  False: nothing was set, `trouble` says why. */
extern bool mg_options_set(mg_options *options, const char *name, const char *value, mg_options_trouble *trouble);
extern bool mg_options_read_file(mg_options *options, const char *path, mg_options_trouble *trouble);

/* Paths become absolute, times and addresses are compared with each other. */
extern bool mg_options_check(mg_options *options, mg_options_trouble *trouble);

/* Of a path below the directory in which the program was started. */
extern bool mg_options_absolute(const char *name, char path[MG_OPTIONS_PATH_MAX], mg_options_trouble *trouble);

/* The i-th option, for usage texts and getopt: false behind the last one. */
extern bool mg_options_describe(int i, const char **name, const char **what, const char **standard);

extern const char *mg_log_level_name(mg_log_level level);

#endif							/* MG_ARBITRATOR_OPTIONS_H */
