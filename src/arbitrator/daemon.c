/*
 * arbitrator/daemon.c - see daemon.h.
 *
 * How: one thread, one poll over network, signals and control socket.  Started
 * again it is the member that it was, by node.state, which is durable before
 * anything that follows from it is said.  One that is none, or no longer, asks
 * for admission once a second: each attempt is a new node.  A refusal does not
 * end the process: what is wrong may be put right on the other side.
 *
 * Two processes with one identity would vote twice.  The lock keeps them apart
 * on one machine; a copy of the directory is known as one (host/home.h) and gives
 * no identity.
 */
#include "arbitrator/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arbitrator/control.h"
#include "arbitrator/engine.h"
#include "arbitrator/report.h"
#include "host/home.h"
#include "host/statefile.h"

#define STATE_FILE			"node.state"
#define SEEDS_FILE			"seeds"
#define LOCK_FILE			"lock"
#define SEEDS_BYTES_MAX		8192
#define JOIN_TIMEOUT_US		10000000
#define REJOIN_US			1000000
#define SAME_REFUSAL_US		60000000	/* told again after so long */
#define LEAVE_PATIENCE_US	2000000
#define LEAVE_LINGER_US		300000
#define FC_LIMIT			4096		/* of no use here: it orders nothing */

typedef struct arbitrator
{
	mg_options	options;
	mg_engine  *engine;
	mg_control *control;
	int			lock_fd;
	int			signal_fd;
	int64_t		rejoin_at;		/* 0: no */
	int64_t		leave_until;	/* shutting down, waits so long for the leave; 0: no */
	int64_t		linger_until;	/* has left: the others may still need its last words */
	int64_t		refused_at;
	uint64_t	view_id;		/* last one that was logged */
	mg_node_state state;
	bool		evicted;
	bool		leave_asked;	/* of the cluster, which has to agree */
	char		refusal[2 * MG_REASON_BYTES_MAX];	/* the last one */
	char		seeds[SEEDS_BYTES_MAX];
} arbitrator;

static arbitrator me;

/* ------------------------------------------------------------------ its files */

static bool
refuse(mg_options_trouble *trouble, const char *hint, const char *format,...)
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

static bool
save_state(const void *bytes, size_t len)
{
	if (mg_statefile_write(STATE_FILE, bytes, len) == MG_OK)
		return true;
	mg_report(MG_LOG_ERROR, "\"%s/%s\" cannot be written: %s; without it this arbitrator may not vote",
			  me.options.data_dir, STATE_FILE, strerror(errno));
	return false;
}

/* The identity belongs to the directory in which it was written. */
static bool
check_home(mg_options_trouble *trouble)
{
	mg_home		home;

	if (mg_home_look(".", &home) != MG_OK)
		return refuse(trouble, "Check the disk.", "directory \"%s\" cannot be examined: %s", me.options.data_dir, strerror(errno));
	if (home == MG_HOME_OWN)
		return true;
	if (home == MG_HOME_COPY)
	{
		mg_report(MG_LOG_WARNING, "\"%s\" is a copy of another arbitrator's directory: joins as a new member", me.options.data_dir);
		if (unlink(STATE_FILE) != 0 && errno != ENOENT)
			return refuse(trouble, "Remove it.", "\"%s/%s\" cannot be removed: %s", me.options.data_dir, STATE_FILE, strerror(errno));
	}
	if (mg_home_settle(".") != MG_OK)
		return refuse(trouble, "Check the disk.", "directory \"%s\" cannot be written: %s", me.options.data_dir, strerror(errno));
	return true;
}

/* What an earlier process saved; false: it cannot be read, and so it cannot be told what was promised. */
static bool
restore_state(void)
{
	uint8_t		body[MG_STATEFILE_BYTES_MAX];
	size_t		len = 0;
	mg_status	status = mg_statefile_read(STATE_FILE, body, sizeof(body), &len);
	mg_input	in = mg_engine_input(me.engine, MG_IN_RESTORE);

	if (status == MG_E_NOT_FOUND)
		return true;
	if (status == MG_E_IO)
	{
		mg_report(MG_LOG_ERROR, "\"%s/%s\" cannot be read: %s", me.options.data_dir, STATE_FILE, strerror(errno));
		return false;
	}
	if (status != MG_OK)
	{
		mg_report(MG_LOG_WARNING, "\"%s/%s\" cannot be used (%s): joins as a new member",
				  me.options.data_dir, STATE_FILE, mg_status_name(status));
		return true;
	}
	in.bytes = body;
	in.len = len;
	mg_engine_step(me.engine, &in);
	return true;
}

static void
write_seeds(void)
{
	const mg_node *node = mg_engine_node(me.engine);
	const mg_view *view = mg_node_view(node);
	char		seeds[SEEDS_BYTES_MAX] = "";
	size_t		len = 0;

	if (mg_node_self(node) == 0)
		return;
	for (uint32_t i = 0; i < view->n; i++)
	{
		const mg_member *m = &view->members[i];

		if (m->id != mg_node_self(node) && len + strlen(m->address) + 2 < sizeof(seeds))
			len += (size_t) snprintf(seeds + len, sizeof(seeds) - len, "%s%s", len > 0 ? "," : "", m->address);
	}
	if (len == 0 || strcmp(seeds, me.seeds) == 0)
		return;
	memcpy(me.seeds, seeds, len + 1);
	if (mg_statefile_write(SEEDS_FILE, seeds, len) != MG_OK)
		mg_report(MG_LOG_WARNING, "\"%s/%s\" cannot be written: %s", me.options.data_dir, SEEDS_FILE, strerror(errno));
}

static void
read_seeds(void)
{
	size_t		len = 0;

	if (mg_statefile_read(SEEDS_FILE, me.seeds, sizeof(me.seeds) - 1, &len) != MG_OK)
		len = 0;
	me.seeds[len] = '\0';
}

/* Where to ask: the members that it knew, and those that it was told. */
static void
join_addresses(char to[SEEDS_BYTES_MAX + MG_OPTIONS_LIST_MAX])
{
	snprintf(to, SEEDS_BYTES_MAX + MG_OPTIONS_LIST_MAX, "%s%s%s", me.seeds,
			 me.seeds[0] != '\0' && me.options.cluster_address[0] != '\0' ? "," : "", me.options.cluster_address);
}

/* -------------------------------------------------------------------- effects */

static void
log_view(void)
{
	const mg_node *node = mg_engine_node(me.engine);
	const mg_view *view = mg_node_view(node);
	char		names[MG_MEMBERS_MAX * (MG_NAME_BYTES_MAX + 2)] = "";
	size_t		len = 0;

	if (mg_node_self(node) == 0 || view->id == me.view_id)
		return;
	me.view_id = view->id;
	for (uint32_t i = 0; i < view->n; i++)
		len += (size_t) snprintf(names + len, sizeof(names) - len, "%s%s", i > 0 ? ", " : "", view->members[i].name);
	mg_report(MG_LOG_INFO, "view %llu, epoch %llu: %u members: %s", (unsigned long long) view->id,
			  (unsigned long long) mg_node_epoch(node), view->n, names);
}

static void
note_refusal(const char *text, const char *hint)
{
	char		refusal[sizeof(me.refusal)];
	int64_t		now = mg_engine_now_us(me.engine);

	snprintf(refusal, sizeof(refusal), "%s%s%s", text, hint[0] != '\0' ? "; " : "", hint);
	if (strcmp(refusal, me.refusal) == 0 && now - me.refused_at < SAME_REFUSAL_US)
		return;
	memcpy(me.refusal, refusal, sizeof(me.refusal));
	me.refused_at = now;
	mg_report(MG_LOG_WARNING, "cannot join: %s", refusal);
}

static bool
on_effect(void *arg, const mg_effect *e, const char *text, const char *hint)
{
	(void) arg;
	switch (e->type)
	{
		case MG_FX_SAVE:
			return save_state(text, e->len);
		case MG_FX_LOG:

			/* It asks again and again: why not, is told once. */
			mg_report(me.refusal[0] != '\0' ? MG_LOG_DEBUG : MG_LOG_INFO, "%s", text);
			break;
		case MG_FX_STATE:
			write_seeds();
			log_view();
			break;
		case MG_FX_EVICTED:
			me.evicted = true;
			me.rejoin_at = mg_engine_now_us(me.engine);
			break;
		case MG_FX_ANSWER:
			if (e->ok)
			{
				if (me.refusal[0] != '\0')
					mg_report(MG_LOG_INFO, "has joined after all");
				me.rejoin_at = 0;
				me.refusal[0] = '\0';
			}
			else if (me.leave_until == 0)
			{
				note_refusal(text, hint);
				me.rejoin_at = mg_engine_now_us(me.engine) + REJOIN_US;
			}
			break;
		case MG_FX_NONE:
		case MG_FX_CONNECT:
		case MG_FX_DISCONNECT:
		case MG_FX_SEND:
		case MG_FX_APPEND:
		case MG_FX_TRUNCATE:
		case MG_FX_RESET_LOG:
		case MG_FX_READ_LOG:
		case MG_FX_DELIVER:
		case MG_FX_VERDICT:
		case MG_FX_UNKNOWN:
		case MG_FX_REFUSED:
		case MG_FX_SNAPSHOT:
			break;				/* of nodes with data */
	}
	return true;
}

/* ------------------------------------------------------------- what it is asked */

static void put(mg_buf *to, const char *format,...) __attribute__((format(printf, 2, 3)));

static void
put(mg_buf *to, const char *format,...)
{
	char		text[1024];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	mg_buf_put(to, text, strlen(text));
}

static void
put_json_text(mg_buf *to, const char *text)
{
	mg_buf_put_u8(to, '"');
	for (; *text != '\0'; text++)
	{
		if (*text == '"' || *text == '\\')
			mg_buf_put_u8(to, '\\');
		if ((unsigned char) *text < ' ')
			put(to, "\\u%04x", (unsigned char) *text);
		else
			mg_buf_put_u8(to, (uint8_t) *text);
	}
	mg_buf_put_u8(to, '"');
}

static void
put_json_field(mg_buf *to, const char *name, const char *text)
{
	put(to, "\"%s\": ", name);
	put_json_text(to, text);
	put(to, ", ");
}

static void
put_member(mg_buf *to, const mg_node *node, const mg_member *m)
{
	mg_peer_info info;

	put(to, "    {\"id\": %u, ", m->id);
	put_json_field(to, "name", m->name);
	put_json_field(to, "address", m->address);
	put_json_field(to, "sql_address", m->sql_address);
	put_json_field(to, "role", m->role == MG_ROLE_ARBITRATOR ? "arbitrator" : "data");
	put(to, "\"weight\": %u, \"segment\": %u, \"is_leader\": %s, \"is_self\": %s, \"silent_ms\": ", m->weight, m->segment,
		m->id == mg_node_leader(node) ? "true" : "false", m->id == mg_node_self(node) ? "true" : "false");
	if (mg_node_peer_info(node, m->id, &info))
		put(to, "%lld}", (long long) ((mg_engine_now_us(me.engine) - info.heard_us) / 1000));
	else
		put(to, "null}");
}

static void
answer_status(mg_buf *to)
{
	const mg_node *node = mg_engine_node(me.engine);
	const mg_view *view = mg_node_view(node);
	char		uuid[MG_UUID_TEXT_BYTES];
	bool		member = mg_node_self(node) != 0;

	mg_uuid_format(&view->uuid, uuid);
	put(to, "{\n  ");
	put_json_field(to, "node_name", me.options.node_name);
	put_json_field(to, "cluster_name", me.options.cluster_name);
	put_json_field(to, "cluster_uuid", member ? uuid : "");
	put(to, "\n  ");
	put_json_field(to, "state", mg_node_state_name(mg_node_get_state(node)));
	put_json_field(to, "reason", !member && me.refusal[0] != '\0' ? me.refusal : mg_node_reason(node));
	put(to, "\n  \"primary\": %s, \"pid\": %d, \"member_id\": %u, \"epoch\": %llu, \"view_id\": %llu, \"frames_damaged\": %llu,\n",
		mg_state_is_synced(mg_node_get_state(node)) ? "true" : "false", (int) getpid(), mg_node_self(node),
		(unsigned long long) mg_node_epoch(node), (unsigned long long) view->id, (unsigned long long) mg_node_damaged(node));
	put(to, "  \"members\": [\n");
	for (uint32_t i = 0; member && i < view->n; i++)
	{
		put_member(to, node, &view->members[i]);
		put(to, i + 1 < view->n ? ",\n" : "\n");
	}
	put(to, "  ]\n}\n");
}

/* The better, the lower; -1: cannot give a backup. */
static int
donor_rank(const mg_node *node, const mg_member *m)
{
	mg_peer_info info;

	if (m->role != MG_ROLE_DATA || m->sql_address[0] == '\0')
		return -1;
	return (m->segment != me.options.segment ? 4 : 0) +
		(mg_node_peer_info(node, m->id, &info) && info.desynced ? 2 : 0) +
		(m->id == mg_node_leader(node) ? 1 : 0);
}

/* "ok", then a line "name<TAB>host:port" for each member that could give a backup, the best first; or what is wrong. */
static void
answer_donors(const char *wanted, mg_buf *to)
{
	const mg_node *node = mg_engine_node(me.engine);
	const mg_view *view = mg_node_view(node);
	bool		any = false;

	if (!mg_state_is_synced(mg_node_get_state(node)))
	{
		put(to, "the arbitrator is not in the primary component: it does not know whose data is the newest\n");
		return;
	}
	for (int rank = 0; rank < 8; rank++)
		for (uint32_t i = 0; i < view->n; i++)
			if (donor_rank(node, &view->members[i]) == rank &&
				(wanted[0] == '\0' || strcmp(view->members[i].name, wanted) == 0))
			{
				put(to, "%s%s\t%s\n", any ? "" : "ok\n", view->members[i].name, view->members[i].sql_address);
				any = true;
			}
	if (any)
		return;
	if (wanted[0] != '\0')
		put(to, "no member named \"%s\" has data and says where its server is reached\n", wanted);
	else
		put(to, "no member has data and says where its server is reached\n");
}

static void
on_request(void *arg, const char *request, mg_buf *answer)
{
	(void) arg;
	if (strcmp(request, "status") == 0)
		answer_status(answer);
	else if (strncmp(request, "donors ", 7) == 0)
		answer_donors(request + 7, answer);
	else
		put(answer, "unknown request\n");
}

/* ------------------------------------------------------------------- its life */

static void
engine_config(mg_engine_config *config)
{
	const mg_options *o = &me.options;

	memset(config, 0, sizeof(*config));
	config->listen = o->listen_address;
	config->on_effect = on_effect;
	config->node.role = MG_ROLE_ARBITRATOR;
	config->node.segment = (uint8_t) o->segment;
	config->node.weight = (uint32_t) o->weight;
	memcpy(config->node.name, o->node_name, sizeof(config->node.name));
	memcpy(config->node.cluster_name, o->cluster_name, sizeof(config->node.cluster_name));
	memcpy(config->node.address, o->node_address, sizeof(config->node.address));
	config->node.keepalive_us = o->keepalive_ms * 1000;
	config->node.suspect_us = o->suspect_ms * 1000;
	config->node.inactive_us = o->inactive_ms * 1000;
	config->node.wan_suspect_us = o->wan_suspect_ms * 1000;
	config->node.wan_inactive_us = o->wan_inactive_ms * 1000;
	config->node.resend_us = config->node.fetch_us = o->suspect_ms * 1000;
	config->node.join_timeout_us = JOIN_TIMEOUT_US;
	config->node.fc_limit = FC_LIMIT;
}

static bool
lock_directory(mg_options_trouble *trouble)
{
	char		pid[32];
	ssize_t		n;

	me.lock_fd = open(LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (me.lock_fd < 0)
		return refuse(trouble, "Check its owner and its rights.", "\"%s/%s\" cannot be opened: %s",
					  me.options.data_dir, LOCK_FILE, strerror(errno));
	if (flock(me.lock_fd, LOCK_EX | LOCK_NB) != 0)
	{
		n = pread(me.lock_fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? n : 0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		return refuse(trouble, "Each arbitrator needs a data_dir of its own.",
					  "another arbitrator (process %s) uses \"%s\"", pid, me.options.data_dir);
	}
	n = snprintf(pid, sizeof(pid), "%d\n", (int) getpid());
	if (ftruncate(me.lock_fd, 0) != 0 || pwrite(me.lock_fd, pid, (size_t) n, 0) != n)
		return refuse(trouble, "Check the disk.", "\"%s/%s\" cannot be written: %s",
					  me.options.data_dir, LOCK_FILE, strerror(errno));
	return true;
}

static bool
write_pid_file(mg_options_trouble *trouble)
{
	FILE	   *file;

	if (me.options.pid_file[0] == '\0')
		return true;
	file = fopen(me.options.pid_file, "we");
	if (file == NULL || fprintf(file, "%d\n", (int) getpid()) < 0 || fclose(file) != 0)
		return refuse(trouble, "Check its directory.", "pid_file \"%s\" cannot be written: %s",
					  me.options.pid_file, strerror(errno));
	return true;
}

bool
mg_daemon_open(const mg_options *options, mg_options_trouble *trouble)
{
	mg_engine_config config;
	char		reason[MG_REASON_BYTES_MAX];
	sigset_t	signals;

	me.options = *options;
	mg_report_level(options->log_level);
	if (mkdir(options->data_dir, 0700) != 0 && errno != EEXIST)
		return refuse(trouble, "Make it, owned by the user that the arbitrator runs as, or set data_dir.",
					  "directory \"%s\" cannot be made: %s", options->data_dir, strerror(errno));
	if (chdir(options->data_dir) != 0)
		return refuse(trouble, "Check its owner and its rights.", "directory \"%s\" cannot be used: %s",
					  options->data_dir, strerror(errno));
	if (!lock_directory(trouble))
		return false;
	read_seeds();
	if (me.seeds[0] == '\0' && options->cluster_address[0] == '\0')
		return refuse(trouble, "For example --cluster-address=gcomm://10.0.0.1:5701,10.0.0.2:5701.",
					  "cluster_address is not set: there is nobody to join");
	if (!mg_report_to(options->log_file))
		return refuse(trouble, "Check its directory.", "log_file \"%s\" cannot be opened: %s", options->log_file, strerror(errno));
	if (!check_home(trouble))
		return false;
	engine_config(&config);
	if (mg_engine_open(&config, &me.engine, reason) != MG_OK)
		return refuse(trouble, "Check listen_address.", "the network cannot be opened: %s", reason);
	me.control = mg_control_open(on_request, NULL);
	if (me.control == NULL)
		return refuse(trouble, "Check the file system of data_dir.", "the socket \"%s/control\" cannot be made: %s",
					  options->data_dir, strerror(errno));
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	me.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (me.signal_fd < 0)
		return refuse(trouble, "", "signals cannot be received: %s", strerror(errno));
	return write_pid_file(trouble);
}

static bool
join(void)
{
	char		addresses[SEEDS_BYTES_MAX + MG_OPTIONS_LIST_MAX];
	mg_input	in;

	if (mg_node_get_state(mg_engine_node(me.engine)) == MG_STATE_OPEN || me.evicted)
	{
		if (!mg_engine_renew(me.engine) || !restore_state())
			return false;
		me.evicted = false;
		me.view_id = 0;
	}
	join_addresses(addresses);
	in = mg_engine_input(me.engine, MG_IN_JOIN);
	in.text = addresses;
	mg_engine_step(me.engine, &in);
	return true;
}

static bool
maybe_join(void)
{
	if (me.rejoin_at == 0 || me.leave_until != 0 || mg_engine_now_us(me.engine) < me.rejoin_at ||
		(mg_node_get_state(mg_engine_node(me.engine)) != MG_STATE_OPEN && !me.evicted))
		return true;
	me.rejoin_at = mg_engine_now_us(me.engine) + REJOIN_US;
	return join();
}

static void
reload_options(mg_daemon_reload_cb reload, void *arg)
{
	mg_options	fresh;

	if (!mg_report_to(me.options.log_file))
		mg_report(MG_LOG_WARNING, "log_file \"%s\" cannot be opened again: %s", me.options.log_file, strerror(errno));
	if (!reload(arg, &fresh))
		return;
	mg_report_level(fresh.log_level);
	mg_report(MG_LOG_INFO, "configuration read again, log_level is %s", mg_log_level_name(fresh.log_level));
	me.options.log_level = fresh.log_level;
	if (memcmp(&fresh, &me.options, sizeof(fresh)) != 0)
		mg_report(MG_LOG_WARNING, "options other than log_level have changed: they need a restart");
}

static void
take_signals(mg_daemon_reload_cb reload, void *arg)
{
	struct signalfd_siginfo info;
	mg_node_state state = mg_node_get_state(mg_engine_node(me.engine));
	mg_input	in;

	while (read(me.signal_fd, &info, sizeof(info)) == (ssize_t) sizeof(info))
	{
		if (info.ssi_signo == SIGHUP)
			reload_options(reload, arg);
		else if (me.leave_until == 0)
		{
			mg_report(MG_LOG_INFO, "told to end by signal %u%s", info.ssi_signo,
					  mg_state_is_synced(state) ? ", leaves the cluster" : "");
			me.leave_until = mg_engine_now_us(me.engine) + LEAVE_PATIENCE_US;
			if (mg_state_is_synced(state) || mg_state_is_joining(state))
			{
				me.leave_asked = true;
				in = mg_engine_input(me.engine, MG_IN_LEAVE);
				mg_engine_step(me.engine, &in);
			}
		}
	}
}

/* The others count it no longer, or would not answer anyway. */
static bool
may_end(void)
{
	const mg_node *node = mg_engine_node(me.engine);
	int64_t		now = mg_engine_now_us(me.engine);

	if (me.leave_until == 0)
		return false;
	if (now >= me.leave_until)
		return true;
	switch (mg_node_get_state(node))
	{
		case MG_STATE_OPEN:
			if (me.linger_until == 0)
				me.linger_until = mg_node_view(node)->n > 0 ? now + LEAVE_LINGER_US : now;
			return now >= me.linger_until;
		case MG_STATE_PRIMARY:
		case MG_STATE_JOINER:
		case MG_STATE_JOINED:
		case MG_STATE_SYNCED:
		case MG_STATE_DONOR:
			return me.evicted;
		case MG_STATE_NON_PRIMARY:

			/* Out of the view by now, perhaps: it asks, and is told. */
			return me.evicted || !me.leave_asked;
		case MG_STATE_INCONSISTENT:
		case MG_STATE_COUNT:
			return true;
	}
	return true;
}

static bool
start(void)
{
	mg_input	in;

	if (!restore_state())
		return false;
	in = mg_engine_input(me.engine, MG_IN_START);
	in.up = true;
	mg_engine_step(me.engine, &in);
	if (mg_node_get_state(mg_engine_node(me.engine)) == MG_STATE_OPEN)
		me.rejoin_at = 1;		/* at once */
	return true;
}

static bool
live(mg_daemon_reload_cb reload, void *arg)
{
	struct pollfd fds[MG_CONTROL_CLIENTS_MAX + 3];

	if (!start())
		return false;
	while (!may_end())
	{
		int			n = 0;

		if (!mg_engine_round(me.engine))
			return false;
		if (!maybe_join())
			return false;
		fds[n++] = (struct pollfd) {.fd = mg_engine_fd(me.engine),.events = POLLIN};
		fds[n++] = (struct pollfd) {.fd = me.signal_fd,.events = POLLIN};
		n += mg_control_poll(me.control, fds + n);
		if (poll(fds, (nfds_t) n, mg_engine_patience_ms(me.engine)) < 0 && errno != EINTR)
		{
			mg_report(MG_LOG_ERROR, "cannot wait: %s", strerror(errno));
			return false;
		}
		take_signals(reload, arg);
		mg_control_serve(me.control, mg_engine_now_us(me.engine));
	}
	return true;
}

int
mg_daemon_run(mg_daemon_reload_cb reload, void *arg)
{
	bool		good;

	mg_report(MG_LOG_INFO, "arbitrator \"%s\" of cluster \"%s\" starts, listens on %s", me.options.node_name,
			  me.options.cluster_name, me.options.listen_address);
	good = live(reload, arg);
	mg_control_close(me.control);
	mg_engine_close(me.engine);
	close(me.signal_fd);
	if (me.options.pid_file[0] != '\0')
		(void) unlink(me.options.pid_file);
	mg_report(good ? MG_LOG_INFO : MG_LOG_ERROR, "arbitrator ends%s", good ? "" : " because of the error above");
	close(me.lock_fd);
	return good ? 0 : 1;
}
