/*
 * The event queue, the network between hosts, the clocks.
 *
 * A binary heap of events, ties broken by the order of their making, so that a
 * run is a function of its seed.  A frame is copied once however many get it.
 * A link keeps the order of its frames; a doubled one comes again at any later
 * time.  Frames for a paused host wait for it; those for one that is down are
 * mostly lost, but a few outlive it, as in a socket's queue, and meet its next
 * life.
 */
#include "sim/sim.h"

#include <stdlib.h>

static bool
event_before(const sim_event *a, const sim_event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void
world_push(world *w, sim_event *event)
{
	size_t		i = w->n_heap++;

	if (w->n_heap > w->heap_cap)
	{
		w->heap_cap = w->heap_cap ? w->heap_cap * 2 : 1024;
		w->heap = mg_realloc(w->heap, w->heap_cap * sizeof(sim_event));
	}
	event->order = ++w->orders;
	for (; i > 0 && event_before(event, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = *event;
}

static sim_event
heap_pop(world *w)
{
	sim_event	top = w->heap[0];
	sim_event	last = w->heap[--w->n_heap];
	size_t		i = 0;

	for (;;)
	{
		size_t		child = 2 * i + 1;

		if (child >= w->n_heap)
			break;
		if (child + 1 < w->n_heap && event_before(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (!event_before(&w->heap[child], &last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	if (w->n_heap > 0)
		w->heap[i] = last;
	return top;
}

void
world_call(world *w, int64_t in_us, sim_call call, int a, int b)
{
	sim_event	e = {.at = w->now + in_us,.type = EVENT_CALL,.a = a,.b = b,.call = call};

	world_push(w, &e);
}

int64_t
host_time(const world *w, const sim_host *h)
{
	return h->clock_us + (w->now - h->clock_since) * h->clock_rate / 1000;
}

int
world_host_of(const world *w, const char *address)
{
	for (int i = 0; i < w->n; i++)
		if (strcmp(w->hosts[i].address, address) == 0)
			return i;
	return -1;
}

bool
world_reaches(const world *w, int from, int to)
{
	return !w->cut[from][to];
}

void
frame_release(sim_frame *frame)
{
	if (--frame->refs == 0)
		free(frame);
}

static void
frame_schedule(world *w, int from, int to, sim_frame *frame, int64_t at, bool of_leader)
{
	sim_event	e = {.at = at,.type = EVENT_FRAME,.a = to,.b = from,.frame = frame,.of_leader = of_leader};

	frame->refs++;
	world_push(w, &e);
}

void
world_send(world *w, int from, int to, sim_frame *frame)
{
	int64_t		at;

	w->sum.frames++;
	if (w->cut[from][to] || (w->loss > 0 && (int) rnd(w, 1000) < w->loss))
	{
		w->sum.frames_lost++;
		return;
	}
	at = w->now + w->latency[from][to] + (int64_t) rnd(w, (uint64_t) w->jitter_us);
	if (w->loss > 0 && rnd(w, 500) == 0)
		at += spread(w, 5 * MS, 500 * MS);
	if (at <= w->last_arrival[from][to])
		at = w->last_arrival[from][to] + 1;
	w->last_arrival[from][to] = at;
	if (w->damaging > 0 && (int) rnd(w, 1000) < w->damaging)
	{
		sim_frame  *bad = malloc(sizeof(sim_frame) + frame->len);

		bad->refs = 0;
		bad->len = frame->len;
		memcpy(bad->bytes, frame->bytes, frame->len);
		bad->bytes[rnd(w, frame->len)] ^= (uint8_t) (1 << rnd(w, 8));
		w->sum.frames_damaged++;
		frame_schedule(w, from, to, bad, at, false);
		return;
	}
	frame_schedule(w, from, to, frame, at, false);
	if (w->doubling > 0 && (int) rnd(w, 1000) < w->doubling)
	{
		w->sum.frames_doubled++;
		frame_schedule(w, from, to, frame, at + spread(w, 1, 3 * SECOND),
					   w->hosts[from].running && host_leads(&w->hosts[from]));
	}
}

static void
frame_arrives(world *w, sim_event *e)
{
	sim_host   *h = &w->hosts[e->a];

	if (!h->running || h->n_inbox >= INBOX_MAX || w->cut[e->b][e->a])
	{
		/* It may wait at the sender for a connection to be made again. */
		if (!w->cut[e->b][e->a] && !h->running && rnd(w, 20) != 0 && percent(w, 60))
		{
			frame_schedule(w, e->b, e->a, e->frame, w->now + between(w, 20 * MS, 200 * MS), e->of_leader);
			frame_release(e->frame);
			return;
		}
		w->sum.frames_lost++;
		frame_release(e->frame);
		return;
	}
	if (!w->hosts[e->b].running || w->hosts[e->b].paused || (e->of_leader && !host_leads(&w->hosts[e->b])))
		w->stirred_us = w->now; /* a late or doubled one looks like a sign of life */
	if (h->n_inbox == h->inbox_cap)
	{
		h->inbox_cap = h->inbox_cap ? h->inbox_cap * 2 : 64;
		h->inbox = mg_realloc(h->inbox, h->inbox_cap * sizeof(sim_frame *));
	}
	h->inbox[h->n_inbox++] = e->frame;
	host_wake(w, h, between(w, 5, 100));
}

bool
world_step(world *w)
{
	sim_event	e;

	if (w->n_heap == 0)
		return false;
	e = heap_pop(w);
	MG_ASSERT(e.at >= w->now);
	w->now = e.at;
	w->steps++;
	switch (e.type)
	{
		case EVENT_NONE:
			break;
		case EVENT_ROUND:
			if (w->hosts[e.a].round_us == e.at)
				host_round(w, &w->hosts[e.a]);
			break;
		case EVENT_FRAME:
			frame_arrives(w, &e);
			break;
		case EVENT_FLUSH:
			if (w->hosts[e.a].life == e.life)
				host_flushed(w, &w->hosts[e.a], &e);
			break;
		case EVENT_CALL:
			e.call(w, e.a, e.b);
			break;
	}
	return true;
}

void
world_free(world *w)
{
	for (int i = 0; i < w->n; i++)
		host_free(&w->hosts[i]);
	for (size_t i = 0; i < w->n_heap; i++)
		if (w->heap[i].frame != NULL)
			frame_release(w->heap[i].frame);
	for (mg_seqno s = 1; s <= w->n_history; s++)
		entry_free(&w->history[s].e);
	free(w->heap);
	free(w->history);
	free(w->lost);
	free(w->trx);
	free(w);
}
