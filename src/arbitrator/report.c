/*
 * arbitrator/report.c - see report.h.  One write per line, so that lines of
 * several processes do not mix, and none is held back in a buffer.
 */
#include "arbitrator/report.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "host/clock.h"

#define LINE_BYTES	8192

static int	log_fd = STDERR_FILENO;
static mg_log_level shown = MG_LOG_INFO;

bool
mg_report_to(const char *path)
{
	int			fd = STDERR_FILENO;

	if (path[0] != '\0' && (fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)) < 0)
		return false;
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	return true;
}

void
mg_report_level(mg_log_level level)
{
	shown = level;
}

void
mg_report(mg_log_level level, const char *format,...)
{
	static const char *const words[] = {"ERROR", "WARNING", "INFO", "DEBUG"};
	char		line[LINE_BYTES];
	int64_t		now_us = mg_clock_wall_us();
	time_t		seconds = (time_t) (now_us / 1000000);
	struct tm	tm;
	va_list		args;
	int			n;
	int			more;

	if (level > shown)
		return;
	gmtime_r(&seconds, &tm);
	n = (int) strftime(line, sizeof(line), "%Y-%m-%d %H:%M:%S", &tm);
	n += snprintf(line + n, sizeof(line) - (size_t) n, ".%03d UTC [%d] %s:  ", (int) (now_us / 1000 % 1000), (int) getpid(), words[level]);
	va_start(args, format);
	more = vsnprintf(line + n, sizeof(line) - (size_t) n - 1, format, args);
	va_end(args);
	if (more < 0)
		return;
	n = n + more < (int) sizeof(line) - 2 ? n + more : (int) sizeof(line) - 2;
	line[n++] = '\n';

	/* Where a line that cannot be logged could be told, there is nobody. */
	if (write(log_fd, line, (size_t) n) != n)
		return;
}
