/*
 * mgsim - runs seeds: each one is a whole cluster with its clients and faults.
 *
 * A seed that fails is run again with its trace remembered: it goes the same
 * way, and the last lines are printed.  An assertion or a wild pointer in the
 * core counts as a failure of its seed, and so does a step that does not end.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#include "sim/sim.h"

#define TAIL_LINES		5000
#define LINE_BYTES		400
#define SEED_SECONDS	120		/* of processor time */

static sigjmp_buf failed;
static char reason[600];
static bool stuck;				/* it was liveness that failed */
static char tail[TAIL_LINES][LINE_BYTES];
static uint64_t n_lines;
static int	n_tail = 60;

static void
set_reason(const world *w, const char *format, va_list args)
{
	int			at = snprintf(reason, sizeof(reason), "%.6f s: ", (double) w->now / 1e6);

	vsnprintf(reason + at, sizeof(reason) - (size_t) at, format, args);
}

void
sim_fail(world *w, const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	set_reason(w, format, args);
	va_end(args);
	stuck = false;
	siglongjmp(failed, 1);
}

void
sim_stuck(world *w, const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	set_reason(w, format, args);
	va_end(args);
	stuck = true;
	siglongjmp(failed, 1);
}

void
sim_trace_line(world *w, int host, const char *format, ...)
{
	char	   *line = tail[n_lines++ % TAIL_LINES];
	int			at = snprintf(line, LINE_BYTES, host >= 0 ? "%11.6f n%d " : "%11.6f -- ", (double) w->now / 1e6, host);
	va_list		args;

	va_start(args, format);
	vsnprintf(line + at, LINE_BYTES - (size_t) at, format, args);
	va_end(args);
	if (w->opt.trace)
		puts(line);
}

static void
on_signal(int signo)
{
	stuck = false;
	snprintf(reason, sizeof(reason), "signal %d (%s)", signo,
			 signo == SIGVTALRM ? "it does not come to an end" : strsignal(signo));
	siglongjmp(failed, 2);
}

static void
catch_signals(void)
{
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGVTALRM};
	struct sigaction action = {.sa_handler = on_signal,.sa_flags = SA_NODEFER};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

static void
set_alarm(int seconds)
{
	struct itimerval timer = {.it_value.tv_sec = seconds};

	setitimer(ITIMER_VIRTUAL, &timer, NULL);
}

/* True if all is well; adds to the totals. */
static bool
run_seed(uint64_t seed, const sim_options *opt, sim_totals *totals)
{
	static world *w;			/* outlives the jump */
	int			how;
	uint64_t   *from,
			   *to;

	w = mg_alloc(sizeof(world));
	w->opt = *opt;
	w->seed = seed;
	w->rng = mg_mix64(seed + 1);
	set_alarm(SEED_SECONDS);
	how = sigsetjmp(failed, 1);
	if (how == 0)
	{
		fault_scenario(w);
		fault_run(w);
	}
	set_alarm(0);
	from = (uint64_t *) &w->sum;
	to = (uint64_t *) totals;
	for (size_t i = 0; i < sizeof(sim_totals) / sizeof(uint64_t); i++)
		to[i] += from[i];
	if (how < 2)
		world_free(w);			/* after a wild pointer it may not be sound enough for that */
	return how == 0;
}

static void
print_totals(const sim_totals *t)
{
	int			n = 0;

#define X(name) printf("%-20s %12llu%s", #name, (unsigned long long) t->name, ++n % 3 == 0 ? "\n" : "   ");
	SIM_COUNTERS(X)
#undef X
	printf("%s", n % 3 == 0 ? "" : "\n");
}

static double
seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
report_failure(uint64_t seed, const sim_options *opt)
{
	sim_options again = *opt;
	sim_totals	ignored = {0};

	printf("seed %llu FAILED: %s\n", (unsigned long long) seed, reason);
	if (opt->trace)
		return;
	again.remember = true;
	n_lines = 0;
	if (run_seed(seed, &again, &ignored))
		printf("... but not when it was run again: something is not of the seed\n");
	for (uint64_t i = n_lines > (uint64_t) n_tail ? n_lines - (uint64_t) n_tail : 0; i < n_lines; i++)
		puts(tail[i % TAIL_LINES]);
	printf("seed %llu FAILED: %s\n", (unsigned long long) seed, reason);
}

static void
usage(void)
{
	fprintf(stderr,
			"mgsim --seed S [--trace]       one seed\n"
			"mgsim --seeds N [--first S]    many, one after the other\n"
			"mgsim --list FILE              the seeds in a file, one a line\n"
			"  --keep-going                 do not stop at the first seed that fails\n"
			"  --until-unsafe               do not stop at one that only does not come to an end\n"
			"  --only KINDS, --without KINDS   which faults, with commas between\n"
			"  --hosts N, --seconds N       instead of what the seed says\n"
			"  --tail N                     lines of the trace of a failure (60)\n"
			"  --quiet                      no totals\n"
			"kinds of faults:");
	fault_list(stderr);
	exit(2);
}

static uint32_t
kinds_of(const char *text)
{
	char		copy[300];
	uint32_t	kinds = 0;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok(copy, ","); word != NULL; word = strtok(NULL, ","))
	{
		uint32_t	kind = fault_kind(word);

		if (kind == 0)
			usage();
		kinds |= kind;
	}
	return kinds;
}

typedef struct run
{
	sim_options opt;
	sim_totals	totals;
	bool		keep_going;
	bool		until_unsafe;
	bool		quiet;
	uint64_t	done;
	uint64_t	n_failed;
	double		since;
	double		said;
} run;

/* False if the run is over. */
static bool
one(run *r, uint64_t seed)
{
	bool		ok = run_seed(seed, &r->opt, &r->totals);
	bool		go_on = ok || r->keep_going || (r->until_unsafe && stuck);
	double		now = seconds_now();

	r->done++;
	if (!ok)
	{
		r->n_failed++;
		if (go_on)
			printf("seed %llu FAILED: %s\n", (unsigned long long) seed, reason);
		else
			report_failure(seed, &r->opt);
	}
	if (now - r->said > 10 && !r->quiet)
	{
		r->said = now;
		printf("%llu seeds, %.0f a minute, %llu failed\n", (unsigned long long) r->done,
			   (double) r->done * 60 / (now - r->since), (unsigned long long) r->n_failed);
	}
	fflush(stdout);
	return go_on;
}

static bool
run_list(run *r, const char *path)
{
	FILE	   *f = fopen(path, "r");
	char		line[200];
	bool		go_on = true;

	if (f == NULL)
	{
		perror(path);
		exit(2);
	}
	while (go_on && fgets(line, sizeof(line), f) != NULL)
		if (line[0] >= '0' && line[0] <= '9')
			go_on = one(r, strtoull(line, NULL, 10));
	fclose(f);
	return go_on;
}

int
main(int argc, char **argv)
{
	static run	r;
	uint64_t	first = 1;
	uint64_t	n = 0;
	const char *list = NULL;
	bool		go_on = true;

	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--trace") == 0)
			r.opt.trace = true;
		else if (strcmp(argv[i], "--keep-going") == 0)
			r.keep_going = true;
		else if (strcmp(argv[i], "--until-unsafe") == 0)
			r.until_unsafe = true;
		else if (strcmp(argv[i], "--quiet") == 0)
			r.quiet = true;
		else if (value == NULL)
			usage();
		else
		{
			i++;
			if (strcmp(argv[i - 1], "--seed") == 0)
			{
				first = strtoull(value, NULL, 10);
				n = 1;
			}
			else if (strcmp(argv[i - 1], "--seeds") == 0)
				n = strtoull(value, NULL, 10);
			else if (strcmp(argv[i - 1], "--first") == 0)
				first = strtoull(value, NULL, 10);
			else if (strcmp(argv[i - 1], "--list") == 0)
				list = value;
			else if (strcmp(argv[i - 1], "--only") == 0)
				r.opt.only = kinds_of(value);
			else if (strcmp(argv[i - 1], "--without") == 0)
				r.opt.without = kinds_of(value);
			else if (strcmp(argv[i - 1], "--hosts") == 0)
				r.opt.hosts = atoi(value);
			else if (strcmp(argv[i - 1], "--seconds") == 0)
				r.opt.seconds = atoi(value);
			else if (strcmp(argv[i - 1], "--tail") == 0)
				n_tail = atoi(value);
			else
				usage();
		}
	}
	if ((n == 0 && list == NULL) || r.opt.hosts > HOSTS_MAX - 1 || n_tail > TAIL_LINES)
		usage();
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	catch_signals();
	r.since = r.said = seconds_now();
	if (list != NULL)
		go_on = run_list(&r, list);
	if (!r.quiet && n > 0)
		printf("seeds %llu to %llu\n", (unsigned long long) first, (unsigned long long) (first + n - 1));
	for (uint64_t i = 0; i < n && go_on; i++)
		go_on = one(&r, first + i);
	if (!r.quiet)
		print_totals(&r.totals);
	printf("%llu seeds, %llu failed, %.0f a minute\n", (unsigned long long) r.done, (unsigned long long) r.n_failed,
		   (double) r.done * 60 / (seconds_now() - r.since));
	return r.n_failed > 0 ? 1 : 0;
}
