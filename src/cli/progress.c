/*
 * cli/progress.c - how far a transfer is: as a bar on a terminal, as a line now
 * and then elsewhere; and the command that watches a transfer of a server.
 */
#include "cli/cli.h"

#include <getopt.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LINE_EVERY_US	5000000
#define LINE_PERCENT	10
#define DRAW_EVERY_US	100000
#define SAMPLE_US		1000000
#define BAR_MIN			10
#define BAR_MAX			40
#define LOOK_MS			500

static int64_t
clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void
cli_progress_begin(cli_progress *progress, const char *what)
{
	memset(progress, 0, sizeof(*progress));
	progress->what = what;
	progress->terminal = !cli_quiet && isatty(STDOUT_FILENO);
	progress->started_us = clock_us();
	progress->shown_percent = -LINE_PERCENT;
}

static void
sample(cli_progress *progress, int64_t now)
{
	int			n = progress->n_samples;
	int			max = (int) (sizeof(progress->samples) / sizeof(progress->samples[0]));

	if (n > 0 && now - progress->samples[n - 1].at_us < SAMPLE_US)
		return;
	if (n == max)
	{
		memmove(progress->samples, progress->samples + 1, sizeof(progress->samples[0]) * (size_t) (max - 1));
		n--;
	}
	progress->samples[n].at_us = now;
	progress->samples[n].done = progress->done;
	progress->n_samples = n + 1;
}

/* Bytes a second: since the oldest sample, 0 while it is too early to say. */
static double
rate_of(const cli_progress *progress, int64_t now)
{
	if (progress->n_samples == 0 || now - progress->samples[0].at_us < SAMPLE_US / 2 ||
		progress->done < progress->samples[0].done)
		return 0;
	return (double) (progress->done - progress->samples[0].done) * 1e6 / (double) (now - progress->samples[0].at_us);
}

static int
bar_width(size_t text)
{
	struct winsize size;
	int			columns = 80;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		columns = size.ws_col;
	columns -= (int) text + 4;
	return columns > BAR_MAX ? BAR_MAX : columns < BAR_MIN ? 0 : columns;
}

static void
draw(int percent, const char *text)
{
	char		bar[BAR_MAX + 1];
	int			width = bar_width(strlen(text));

	memset(bar, ' ', sizeof(bar));
	memset(bar, '#', (size_t) (width * percent / 100));
	if (width > 0)
		printf("\r[%.*s] %s\033[K", width, bar, text);
	else
		printf("\r%s\033[K", text);
	fflush(stdout);
}

static void
show(cli_progress *progress, int64_t now)
{
	char		done[CLI_SIZE_BYTES];
	char		total[CLI_SIZE_BYTES];
	char		speed[CLI_SIZE_BYTES];
	char		text[256] = "";
	int			percent = progress->total == 0 ? 0 : (int) (progress->done * 100 / progress->total);
	double		rate = rate_of(progress, now);

	if (progress->total > 0)
		(void) cli_append(text, sizeof(text), "%3d%%  %s of %s", percent, cli_size(progress->done, done), cli_size(progress->total, total));
	else
		(void) cli_append(text, sizeof(text), "%s", cli_size(progress->done, done));
	if (rate > 0)
		(void) cli_append(text, sizeof(text), "  %s/s", cli_size((uint64_t) rate, speed));
	if (rate > 0 && progress->total > progress->done)
	{
		unsigned long left = (unsigned long) ((double) (progress->total - progress->done) / rate) + 1;

		if (left >= 3600)
			(void) cli_append(text, sizeof(text), "  %lu:%02lu:%02lu left", left / 3600, left / 60 % 60, left % 60);
		else
			(void) cli_append(text, sizeof(text), "  %lu:%02lu left", left / 60, left % 60);
	}
	if (progress->terminal)
		draw(percent, text);
	else
		cli_say("%s: %s", progress->what, text);
	progress->shown_us = now;
	progress->shown_percent = percent;
}

void
cli_progress_show(cli_progress *progress, uint64_t done, uint64_t total)
{
	int64_t		now = clock_us();
	int			percent;

	progress->done = done;
	progress->total = total > 0 && total < done ? done : total;
	percent = progress->total == 0 ? 0 : (int) (done * 100 / progress->total);
	sample(progress, now);
	if (progress->terminal ? now - progress->shown_us >= DRAW_EVERY_US :
		percent >= progress->shown_percent + LINE_PERCENT || now - progress->shown_us >= LINE_EVERY_US)
		show(progress, now);
}

void
cli_progress_end(cli_progress *progress, bool well)
{
	int64_t		now = clock_us();
	char		size[CLI_SIZE_BYTES];

	if (progress->terminal)
		printf("\r\033[K");
	if (well)
		cli_say("%s: %s in %.1f s", progress->what, cli_size(progress->done, size), (double) (now - progress->started_us) / 1e6);
	fflush(stdout);
}
