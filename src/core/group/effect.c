/*
 * core/group/effect.c - the list of what a step wants done.
 *
 * How: effects are appended in the order in which they must be carried out;
 * bytes and texts lie in one buffer beside them, named by offset, because the
 * buffer moves when it grows.
 */
#include "core/group/group.h"

#include <stdarg.h>
#include <stdio.h>

void
mg_effects_reset(mg_effects *effects)
{
	effects->n = 0;
	mg_buf_reset(&effects->bytes);
}

void
mg_effects_free(mg_effects *effects)
{
	mg_free(effects->list);
	mg_buf_free(&effects->bytes);
	memset(effects, 0, sizeof(*effects));
}

mg_effect *
mg_fx_add(mg_node *node, mg_effect_type type)
{
	mg_effects *fx = node->fx;
	mg_effect  *e;

	if (fx->n == fx->cap)
	{
		fx->cap = fx->cap ? fx->cap * 2 : 256;
		fx->list = mg_realloc(fx->list, fx->cap * sizeof(mg_effect));
	}
	e = &fx->list[fx->n++];
	memset(e, 0, sizeof(*e));
	e->type = type;
	e->slot = -1;
	e->peer = -1;
	return e;
}

size_t
mg_fx_text(mg_node *node, const char *text)
{
	size_t		at = node->fx->bytes.len;

	mg_buf_put(&node->fx->bytes, text, strlen(text) + 1);
	return at;
}

void
mg_fx_log(mg_node *node, const char *format, ...)
{
	char		text[512];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	size_t		at = mg_fx_text(node, text);

	mg_fx_add(node, MG_FX_LOG)->at = at;
}

void
mg_fx_answer(mg_node *node, bool ok, const char *text, const char *hint)
{
	size_t		at,
				hint_at;
	mg_effect  *e;

	if (!node->answer_due)
		return;
	node->answer_due = false;
	at = mg_fx_text(node, text);
	hint_at = mg_fx_text(node, hint);
	e = mg_fx_add(node, MG_FX_ANSWER);
	e->ok = ok;
	e->at = at;
	e->hint_at = hint_at;
}

/* From which state to which: everything else is a bug. */
#define TO(state) (1u << MG_STATE_##state)

static const uint32_t transitions[MG_STATE_COUNT] = {
	[MG_STATE_OPEN] = TO(PRIMARY) | TO(JOINED) | TO(NON_PRIMARY) | TO(INCONSISTENT),
	[MG_STATE_PRIMARY] = TO(JOINER) | TO(JOINED) | TO(OPEN),
	[MG_STATE_JOINER] = TO(JOINED) | TO(INCONSISTENT) | TO(OPEN),
	[MG_STATE_JOINED] = TO(SYNCED) | TO(DONOR) | TO(NON_PRIMARY) | TO(INCONSISTENT) | TO(OPEN),
	[MG_STATE_SYNCED] = TO(DONOR) | TO(NON_PRIMARY) | TO(INCONSISTENT) | TO(OPEN),
	[MG_STATE_DONOR] = TO(SYNCED) | TO(NON_PRIMARY) | TO(INCONSISTENT) | TO(OPEN),
	[MG_STATE_NON_PRIMARY] = TO(SYNCED) | TO(DONOR) | TO(JOINED) | TO(INCONSISTENT) | TO(OPEN),
	[MG_STATE_INCONSISTENT] = TO(OPEN)
};

bool
mg_node_may_shift(mg_node_state from, mg_node_state to)
{
	return (transitions[from] >> to & 1) != 0;
}

void
mg_node_shift(mg_node *node, mg_node_state to, const char *why)
{
	if (node->state == to && strcmp(node->reason, why) == 0)
		return;
	if (node->state == to)
	{
		/* The same for another reason: the membership was given up. */
		mg_fx_log(node, "node: state %s as before: %s", mg_node_state_name(to), why);
		snprintf(node->reason, sizeof(node->reason), "%s", why);
		mg_fx_add(node, MG_FX_STATE);
		return;
	}
	MG_ASSERT(mg_node_may_shift(node->state, to));
	mg_fx_log(node, "node: state %s -> %s: %s", mg_node_state_name(node->state), mg_node_state_name(to), why);
	node->state = to;
	snprintf(node->reason, sizeof(node->reason), "%s", why);
	mg_fx_add(node, MG_FX_STATE);
}

void
mg_node_shift_synced(mg_node *node, const char *why)
{
	mg_node_shift(node, node->desynced ? MG_STATE_DONOR : MG_STATE_SYNCED, why);
}

