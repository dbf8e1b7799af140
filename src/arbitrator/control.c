/*
 * arbitrator/control.c - see control.h.
 *
 * How: nothing here may block the daemon.  An answer is smaller than a socket's
 * buffer; one that does not fit, because the asker does not read, is cut.
 */
#include "arbitrator/control.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_NAME		"control"
#define PATIENCE_US		1000000
#define ASK_PATIENCE_S	5
#define ANSWER_MAX		(1024 * 1024)

typedef struct client
{
	int			fd;				/* -1: none */
	int64_t		until_us;
	size_t		len;
	char		request[MG_CONTROL_REQUEST_MAX];
} client;

struct mg_control
{
	mg_control_cb answer;
	void	   *arg;
	int			fd;
	client		clients[MG_CONTROL_CLIENTS_MAX];
};

static void
set_address(struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, SOCKET_NAME);
}

mg_control *
mg_control_open(mg_control_cb answer, void *arg)
{
	struct sockaddr_un address;
	mg_control *control;
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return NULL;
	set_address(&address);
	(void) unlink(SOCKET_NAME);	/* of one that was killed: there is no other, the lock file says so */
	if (bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(fd, 8) != 0)
	{
		int			saved = errno;

		close(fd);
		errno = saved;
		return NULL;
	}
	control = mg_alloc(sizeof(*control));
	control->answer = answer;
	control->arg = arg;
	control->fd = fd;
	for (int i = 0; i < MG_CONTROL_CLIENTS_MAX; i++)
		control->clients[i].fd = -1;
	return control;
}

void
mg_control_close(mg_control *control)
{
	if (control == NULL)
		return;
	for (int i = 0; i < MG_CONTROL_CLIENTS_MAX; i++)
		if (control->clients[i].fd >= 0)
			close(control->clients[i].fd);
	close(control->fd);
	(void) unlink(SOCKET_NAME);
	mg_free(control);
}

int
mg_control_poll(const mg_control *control, struct pollfd *fds)
{
	int			n = 0;

	for (int i = 0; i < MG_CONTROL_CLIENTS_MAX; i++)
		if (control->clients[i].fd >= 0)
			fds[n++] = (struct pollfd) {.fd = control->clients[i].fd,.events = POLLIN};
	if (n < MG_CONTROL_CLIENTS_MAX)
		fds[n++] = (struct pollfd) {.fd = control->fd,.events = POLLIN};
	return n;
}

static void
drop(client *c)
{
	close(c->fd);
	c->fd = -1;
}

static void
reply(mg_control *control, client *c)
{
	mg_buf		answer = {0};

	control->answer(control->arg, c->request, &answer);
	(void) !send(c->fd, answer.data, answer.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	mg_buf_free(&answer);
	drop(c);
}

static void
take(mg_control *control, client *c, int64_t now_us)
{
	ssize_t		n = recv(c->fd, c->request + c->len, sizeof(c->request) - 1 - c->len, MSG_DONTWAIT);
	char	   *end;

	if (n > 0)
	{
		c->len += (size_t) n;
		c->request[c->len] = '\0';
		end = strchr(c->request, '\n');
		if (end != NULL)
		{
			*end = '\0';
			reply(control, c);
		}
		else if (c->len == sizeof(c->request) - 1)
			drop(c);
	}
	else if (n == 0 || (errno != EAGAIN && errno != EINTR) || now_us >= c->until_us)
		drop(c);
}

void
mg_control_serve(mg_control *control, int64_t now_us)
{
	for (int i = 0; i < MG_CONTROL_CLIENTS_MAX; i++)
	{
		client	   *c = &control->clients[i];

		if (c->fd < 0 && (c->fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		{
			c->len = 0;
			c->until_us = now_us + PATIENCE_US;
		}
		if (c->fd >= 0)
			take(control, c, now_us);
	}
}

/* ---- the other side ---- */

static bool
exchange(int fd, const char *request, mg_buf *answer)
{
	struct sockaddr_un address;
	struct timeval patience = {.tv_sec = ASK_PATIENCE_S};
	char		bytes[4096];
	ssize_t		n;

	set_address(&address);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
		connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		send(fd, request, strlen(request), MSG_NOSIGNAL) < 0 || send(fd, "\n", 1, MSG_NOSIGNAL) < 0)
		return false;
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0 && answer->len < ANSWER_MAX)
		mg_buf_put(answer, bytes, (size_t) n);
	mg_buf_put_u8(answer, 0);
	return n == 0 && answer->len > 1;
}

bool
mg_control_ask(const char *request, mg_buf *answer)
{
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool		good;
	int			saved;

	if (fd < 0)
		return false;
	errno = ECONNRESET;
	good = exchange(fd, request, answer);
	saved = errno == EAGAIN ? ETIMEDOUT : errno;
	close(fd);
	errno = saved;
	return good;
}
