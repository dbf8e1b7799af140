/*
 * cli/offer.c - see offer.h.
 *
 * How: asks for admission as the new node will, but without any data.  A member
 * refuses, because a snapshot is needed, and says who could give one.  That the
 * answer comes shows also that the addresses are right in both directions.
 */
#include "cli/offer.h"

#include <poll.h>
#include <stdio.h>

#include "arbitrator/engine.h"
#include "cli/cli.h"

#define JOIN_TIMEOUT_US	10000000
#define KEEPALIVE_US	100000
#define SUSPECT_US		1000000
#define INACTIVE_US		5000000
#define FETCH_US		10000

typedef enum outcome
{
	WAITS = 0,
	OFFERED,
	REFUSED
} outcome;

static outcome come;

static bool
on_effect(void *arg, const mg_effect *e, const char *text, const char *hint)
{
	(void) arg;
	switch (e->type)
	{
		case MG_FX_SNAPSHOT:
			come = OFFERED;
			break;
		case MG_FX_ANSWER:
			if (come == WAITS)
			{
				cli_error("the cluster does not take this node: %s", text);
				if (hint[0] != '\0')
					cli_hint("%s", hint);
				come = REFUSED;
			}
			break;
		case MG_FX_NONE:
		case MG_FX_CONNECT:
		case MG_FX_DISCONNECT:
		case MG_FX_SEND:
		case MG_FX_SAVE:
		case MG_FX_APPEND:
		case MG_FX_TRUNCATE:
		case MG_FX_RESET_LOG:
		case MG_FX_READ_LOG:
		case MG_FX_DELIVER:
		case MG_FX_VERDICT:
		case MG_FX_UNKNOWN:
		case MG_FX_REFUSED:
		case MG_FX_STATE:
		case MG_FX_EVICTED:
		case MG_FX_LOG:
			break;				/* it has no data, no log and no membership */
	}
	return true;
}

bool
cli_offer(const cli_asker *asker, mg_view *offer)
{
	mg_engine_config config;
	mg_engine  *engine;
	mg_input	in;
	char		reason[MG_REASON_BYTES_MAX];

	memset(&config, 0, sizeof(config));
	config.listen = asker->listen_address;
	config.on_effect = on_effect;
	config.node.role = MG_ROLE_DATA;
	snprintf(config.node.name, sizeof(config.node.name), "%s", asker->node_name);
	snprintf(config.node.cluster_name, sizeof(config.node.cluster_name), "%s", asker->cluster_name);
	snprintf(config.node.address, sizeof(config.node.address), "%s", asker->node_address);
	config.node.keepalive_us = KEEPALIVE_US;
	config.node.suspect_us = SUSPECT_US;
	config.node.inactive_us = INACTIVE_US;
	config.node.resend_us = SUSPECT_US;
	config.node.fetch_us = FETCH_US;
	config.node.join_timeout_us = JOIN_TIMEOUT_US;
	config.node.fc_limit = 1;
	if (mg_engine_open(&config, &engine, reason) != MG_OK)
	{
		cli_error("%s", reason);
		cli_hint("--listen-address is where the new node will listen: nothing else may use it.");
		return false;
	}
	come = WAITS;
	in = mg_engine_input(engine, MG_IN_JOIN);
	in.text = asker->addresses;
	in.up = true;
	mg_engine_step(engine, &in);
	while (come == WAITS && mg_engine_round(engine) && come == WAITS && !cli_interrupted)
	{
		struct pollfd fd = {.fd = mg_engine_fd(engine),.events = POLLIN};

		(void) poll(&fd, 1, mg_engine_patience_ms(engine));
	}
	if (come == OFFERED)
		*offer = *mg_node_offer(mg_engine_node(engine));
	mg_engine_close(engine);
	return come == OFFERED;
}
