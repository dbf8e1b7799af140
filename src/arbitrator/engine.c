/*
 * arbitrator/engine.c - see engine.h; the provider's loop without PostgreSQL.
 *
 * How: a round feeds frames, link events and the time to the node, ends with
 * ROUND_END, and carries out the effects.  An effect may not feed the node, so
 * there is one list and no second pass.  The node has no log: MG_FX_APPEND and
 * its kind never come for an arbitrator, nor for one that only asks.
 */
#include "arbitrator/engine.h"

#include "host/clock.h"
#include "host/transport.h"

#define FRAMES_PER_ROUND	512
#define TICK_US				1000
#define IDLE_WAIT_MS		20
#define BUSY_WAIT_MS		5		/* votes are answers: they wait for a frame, not for the time */

/* An arbitrator gets views and votes: far less than what carries writesets. */
#define ENGINE_FRAME_BYTES_MAX	(16u * 1024u * 1024u)

struct mg_engine
{
	mg_engine_config config;
	mg_node    *node;
	mg_transport *transport;
	mg_effects	fx;
	int64_t		now_us;
	int64_t		ticked_us;
	bool		again;			/* there may be more to take in */
};

static mg_status
make_node(mg_engine *engine)
{
	mg_gtid		nothing;

	memset(&nothing, 0, sizeof(nothing));
	if (mg_random_bytes(&engine->config.node.incarnation, sizeof(engine->config.node.incarnation)) != MG_OK)
		return MG_E_IO;
	engine->config.node.incarnation |= 1;
	engine->now_us = mg_clock_monotonic_us();
	engine->node = mg_node_new(&engine->config.node, &nothing, engine->now_us);
	return MG_OK;
}

mg_status
mg_engine_open(const mg_engine_config *config, mg_engine **out, char reason[MG_REASON_BYTES_MAX])
{
	mg_engine  *engine = mg_alloc(sizeof(*engine));
	mg_transport_config net;
	mg_status	status;

	*out = NULL;
	engine->config = *config;
	status = make_node(engine);
	if (status != MG_OK)
		strcpy(reason, "no random numbers from the system");
	else
	{
		net.listen = config->listen;
		net.identity = engine->config.node.incarnation;
		net.frame_bytes_max = ENGINE_FRAME_BYTES_MAX;
		status = mg_transport_open(&net, &engine->transport, reason);
	}
	if (status != MG_OK)
	{
		mg_node_free(engine->node);
		mg_free(engine);
		return status;
	}
	*out = engine;
	return MG_OK;
}

void
mg_engine_close(mg_engine *engine)
{
	if (engine == NULL)
		return;
	mg_node_free(engine->node);
	mg_transport_close(engine->transport);
	mg_effects_free(&engine->fx);
	mg_free(engine);
}

static bool
carry_out(mg_engine *engine)
{
	bool		good = true;

	for (size_t i = 0; i < engine->fx.n && good; i++)
	{
		const mg_effect *e = &engine->fx.list[i];
		const char *at = engine->fx.bytes.data == NULL ? "" : (const char *) engine->fx.bytes.data + e->at;

		switch (e->type)
		{
			case MG_FX_CONNECT:
				/* An address that cannot be used is told as one where nobody answers. */
				if (mg_transport_connect(engine->transport, e->peer, at) != MG_OK)
					mg_transport_disconnect(engine->transport, e->peer);
				break;
			case MG_FX_DISCONNECT:
				mg_transport_disconnect(engine->transport, e->peer);
				break;
			case MG_FX_SEND:
				(void) mg_transport_send_many(engine->transport, e->peers, at, e->len);
				break;
			case MG_FX_NONE:
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
			case MG_FX_SNAPSHOT:
			case MG_FX_ANSWER:
			case MG_FX_LOG:
				good = engine->config.on_effect(engine->config.arg, e, at,
												e->type == MG_FX_ANSWER || e->type == MG_FX_SNAPSHOT ?
												(const char *) engine->fx.bytes.data + e->hint_at : "");
				break;
		}
	}
	mg_effects_reset(&engine->fx);
	return good;
}

bool
mg_engine_renew(mg_engine *engine)
{
	bool		good = carry_out(engine);

	mg_node_free(engine->node);
	engine->node = NULL;
	for (int i = 0; i < MG_PEERS_MAX; i++)
		mg_transport_disconnect(engine->transport, i);
	if (make_node(engine) != MG_OK)
		mg_assert_failed("no random numbers from the system", __FILE__, __LINE__);
	return good;
}

mg_input
mg_engine_input(const mg_engine *engine, mg_input_type type)
{
	mg_input	in;

	memset(&in, 0, sizeof(in));
	in.type = type;
	in.now_us = engine->now_us;
	in.peer = -1;
	in.slot = -1;
	return in;
}

void
mg_engine_step(mg_engine *engine, const mg_input *in)
{
	mg_node_step(engine->node, in, &engine->fx);
	engine->again = true;
}

static void
on_link(void *arg, int peer, bool up)
{
	mg_engine  *engine = arg;
	mg_input	in = mg_engine_input(engine, MG_IN_LINK);

	in.peer = peer;
	in.up = up;
	mg_node_step(engine->node, &in, &engine->fx);
}

bool
mg_engine_round(mg_engine *engine)
{
	const void *bytes;
	size_t		len;
	mg_input	in;
	int			n = 0;

	engine->now_us = mg_clock_monotonic_us();
	engine->again = false;
	while (n < FRAMES_PER_ROUND && mg_transport_receive(engine->transport, &bytes, &len))
	{
		in = mg_engine_input(engine, MG_IN_RECEIVE);
		in.bytes = bytes;
		in.len = len;
		mg_node_step(engine->node, &in, &engine->fx);
		n++;
	}
	mg_transport_links(engine->transport, on_link, engine);
	if (engine->now_us - engine->ticked_us >= TICK_US)
	{
		engine->ticked_us = engine->now_us;
		in = mg_engine_input(engine, MG_IN_TICK);
		mg_node_step(engine->node, &in, &engine->fx);
	}
	in = mg_engine_input(engine, MG_IN_ROUND_END);
	mg_node_step(engine->node, &in, &engine->fx);

	/* The descriptor tells of frames only once: nothing may be left when it is waited for. */
	if (n == FRAMES_PER_ROUND)
		engine->again = true;
	return carry_out(engine);
}

int
mg_engine_fd(const mg_engine *engine)
{
	return mg_transport_fd(engine->transport);
}

int
mg_engine_patience_ms(const mg_engine *engine)
{
	return engine->again ? 0 : mg_node_wants_tick(engine->node) ? BUSY_WAIT_MS : IDLE_WAIT_MS;
}

const mg_node *
mg_engine_node(const mg_engine *engine)
{
	return engine->node;
}

int64_t
mg_engine_now_us(const mg_engine *engine)
{
	return engine->now_us;
}
