/*
 * arbitrator/engine.h - a node without data: the core, driven over the network
 * by a program that has no PostgreSQL in it.
 *
 * Used by the arbitrator, which votes, and by the command-line tool, which only
 * asks a cluster who could give a base backup.  Owns the node, the transport
 * and the list of effects; carries out CONNECT, DISCONNECT and SEND itself and
 * hands every other effect to its owner, in order.  One thread, no locks.
 *
 * A node is used for one membership or one attempt to get one: for the next,
 * mg_engine_renew makes a new one, so that nothing of the old gets into it.
 */
#ifndef MG_ARBITRATOR_ENGINE_H
#define MG_ARBITRATOR_ENGINE_H

#include "core/node.h"

typedef struct mg_engine mg_engine;

/*
 * An effect and its texts (or, for MG_FX_SAVE, its e->len bytes at `text`).
 * False: what it asks for cannot be done; nothing behind it is carried out and
 * mg_engine_round returns false.  Must not call the engine.
 */
typedef bool (*mg_engine_effect_cb) (void *arg, const mg_effect *e, const char *text, const char *hint);

typedef struct mg_engine_config
{
	mg_node_config node;		/* its incarnation is made here, another one for each node */
	const char *listen;
	mg_engine_effect_cb on_effect;
	void	   *arg;
} mg_engine_config;

/* On failure *out is NULL and `reason` says why. */
extern mg_status mg_engine_open(const mg_engine_config *config, mg_engine **out,
								char reason[MG_REASON_BYTES_MAX]) MG_MUST_USE;
extern void mg_engine_close(mg_engine *engine);

/* A new node in the place of the old one, whose last effects are carried out. */
extern bool mg_engine_renew(mg_engine *engine) MG_MUST_USE;

/* An input with the time in it, and nothing else. */
extern mg_input mg_engine_input(const mg_engine *engine, mg_input_type type);
extern void mg_engine_step(mg_engine *engine, const mg_input *in);

/* Takes in what has come, the time, and carries out what follows from it. */
extern bool mg_engine_round(mg_engine *engine) MG_MUST_USE;

/* Wait for this descriptor to be readable, but not longer than so many milliseconds. */
extern int	mg_engine_fd(const mg_engine *engine);
extern int	mg_engine_patience_ms(const mg_engine *engine);

extern const mg_node *mg_engine_node(const mg_engine *engine);
extern int64_t mg_engine_now_us(const mg_engine *engine);	/* of the last round */

#endif							/* MG_ARBITRATOR_ENGINE_H */
