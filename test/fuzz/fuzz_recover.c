/*
 * test/fuzz/fuzz_recover.c - arbitrary bytes as the entries of a node's own log
 * when it starts.
 *
 * A node leads a cluster of its own, orders a few writesets, perhaps takes a
 * second member in, and stops.  Its log is then changed as the input says:
 * entries are edited, dropped, doubled, exchanged for bytes of the input; and
 * the node starts on that, resumes or bootstraps, and lives for a while.  It
 * may refuse to go on; it must not fall over.
 *
 * Input: {u8 scene}, then pieces {u8 what, u8 entry, operands}.
 */
#include "cluster.h"

#define PIECES_MAX	32

#define SCENE_TWO		0x01	/* with a second member */
#define SCENE_RESTORE	0x02	/* its state is there */
#define SCENE_BOOTSTRAP	0x04
#define SCENE_FORCE		0x08	/* bootstrap, forced */
#define SCENE_DAMAGED	0x10	/* the log lost records that were durable */
#define SCENE_BEHIND	0x20	/* the data are as old as can be */
#define SCENE_ALONE		0x40	/* the other one stays down */

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
entry_set(bytes *b, const mg_buf *to)
{
	bytes_free(b);
	*b = bytes_copy(to->data, to->len);
}

/* A header composed of the input's bytes before the old payload, or the input's. */
static void
compose(bytes *b, mg_reader *r)
{
	uint8_t		control = mg_read_u8(r);
	mg_entry_header h;
	mg_reader	old;
	mg_buf		to = {0};

	mg_reader_init(&old, b->data, b->len);
	if (mg_entry_decode(&old, &h) != MG_OK)
		memset(&h, 0, sizeof(h));
	if ((control & 1) != 0)
		h.type = mg_read_u8(r) % 3;
	if ((control & 2) != 0)
		h.origin = mg_read_u8(r);
	if ((control & 4) != 0)
		h.msgno += (uint64_t) (int8_t) mg_read_u8(r);
	if ((control & 8) != 0)
		h.epoch += (uint64_t) (int8_t) mg_read_u8(r);
	if ((control & 16) != 0)
		h.floor = mg_read_u8(r);
	if ((control & 32) != 0)
		h.cert_upto = mg_read_u8(r);
	if ((control & 64) != 0)
	{
		h.n_failed = mg_read_u8(r) % 4;
		for (int k = 0; k < h.n_failed; k++)
			h.failed[k] = mg_read_u8(r);
	}
	mg_entry_encode(&to, &h);
	if ((control & 128) != 0)
	{
		size_t		len = mg_read_u8(r);

		if (len <= mg_reader_left(r))
			mg_buf_put(&to, mg_read_bytes(r, len), len);
	}
	else
		mg_buf_put(&to, old.p, mg_reader_left(&old));
	entry_set(b, &to);
	mg_buf_free(&to);
}

static void
change(host *h, mg_reader *r)
{
	uint8_t		what = mg_read_u8(r);
	uint8_t		which = mg_read_u8(r);
	bytes	   *b;
	size_t		at;
	uint8_t		value;

	if (h->log_len == 0)
		return;
	b = &h->log[which % h->log_len];
	switch (what % 8)
	{
		case 0:
			compose(b, r);
			break;
		case 1:
		case 2:
			at = mg_read_u8(r);
			value = mg_read_u8(r);
			if (b->len == 0)
				break;
			at %= b->len;
			if (what % 8 == 1)
				b->data[at] ^= value;
			else if (b->len - at >= 8)
				mg_store_u64(b->data + at, mg_load_u64(b->data + at) + (uint64_t) (int8_t) value);
			break;
		case 3:
			{
				bytes		short_one = bytes_copy(b->data, mg_read_u8(r) % (b->len + 1));

				bytes_free(b);
				*b = short_one;
				break;
			}
		case 4:					/* the log ends before it */
			log_cut(h, which % h->log_len);
			break;
		case 5:					/* it comes twice */
			{
				bytes		copy = bytes_copy(b->data, b->len);

				log_append(h, log_last(h) + 1, copy.data, copy.len);
				bytes_free(&copy);
				break;
			}
		case 6:					/* the log's seqnos are not where they were */
			value = mg_read_u8(r);
			h->log_first = value == 255 ? UINT64_MAX - 300 : (mg_seqno) value + 1;
			break;
		case 7:					/* something else altogether */
			at = mg_read_u8(r);
			if (at > mg_reader_left(r))
				at = mg_reader_left(r);
			bytes_free(b);
			*b = bytes_copy(mg_read_bytes(r, at), at);
			break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mg_reader	r;
	uint8_t		how;
	cluster    *c;
	host	   *h;

	mg_reader_init(&r, data, size);
	how = mg_read_u8(&r);
	c = cluster_new((how & SCENE_TWO) != 0 ? 2 : 1, false);
	h = &c->h[0];
	cluster_form(c);
	for (int k = 0; k < 4; k++)
		submit(c, k % c->n, k, (uint8_t) (k & 1), 0);
	run(c, 3);
	stop(c, 0);
	if ((how & SCENE_ALONE) != 0 && c->n > 1)
		stop(c, 1);

	for (int k = 0; k < PIECES_MAX && mg_reader_left(&r) > 0; k++)
		change(h, &r);
	if ((how & SCENE_RESTORE) == 0)
		bytes_free(&h->saved);
	if ((how & SCENE_BEHIND) != 0)
		h->committed = 0;

	resume(c, 0, (how & SCENE_DAMAGED) == 0);
	if ((how & SCENE_BOOTSTRAP) != 0)
		bootstrap(c, 0, (how & SCENE_FORCE) != 0);
	run(c, 2);
	for (int k = 0; k < 4; k++)
		pass(c, 400000);
	submit(c, 0, 10, 1, 0);
	run(c, 5);
	cluster_free(c);
	return 0;
}
