/*
 * test/fuzz/fuzz_state.c - arbitrary bytes as the state that a node once saved
 * (MG_FX_SAVE) and finds when it starts.
 *
 * First the input itself is the state.  Then it is a list of changes {u8 what,
 * u16 at, u8 value} to a real state, that of a member of two or of an
 * arbitrator.  The node starts with that and its log, meets the others or
 * nobody, and lives for a while.
 */
#include "cluster.h"

#define CHANGES_MAX	24

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
change(bytes *b, mg_reader *r)
{
	uint8_t		what = mg_read_u8(r);
	size_t		at = mg_read_u16(r);
	uint8_t		value = mg_read_u8(r);

	if (b->len == 0)
		return;
	at %= b->len;
	switch (what % 7)
	{
		case 0:
			b->data[at] ^= value;
			break;
		case 1:
			b->data[at] = value;
			break;
		case 2:
			if (b->len - at >= 4)
				mg_store_u32(b->data + at, value);
			break;
		case 3:
			if (b->len - at >= 8)
				mg_store_u64(b->data + at, value);
			break;
		case 4:
			if (b->len - at >= 8)
				mg_store_u64(b->data + at, UINT64_MAX - value);
			break;
		case 5:
			if (b->len - at >= 8)
				mg_store_u64(b->data + at, mg_load_u64(b->data + at) + (uint64_t) (int8_t) value);
			break;
		case 6:
			{
				bytes		cut = bytes_copy(b->data, at);

				bytes_free(b);
				*b = cut;
				break;
			}
	}
}

static void
live(cluster *c, int i, uint8_t how)
{
	resume(c, i, (how & 4) == 0);
	if ((how & 8) != 0)
		bootstrap(c, i, (how & 16) != 0);
	if ((how & 32) != 0)
		join(c, i, "h:0,h:1");
	run(c, 4);
	for (int k = 0; k < 3; k++)
		pass(c, 600000);
	submit(c, i, 0, 1, 0);
	run(c, 4);
	feed(c, i, (mg_input) {.type = MG_IN_LEAVE});
	end_round(c, i);
	run(c, 4);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mg_reader	r;
	uint8_t		how;
	cluster    *c = cluster_new(1, false);
	int			i;

	c->h[0].saved = bytes_copy(data, size);
	stop(c, 0);
	live(c, 0, 0);
	cluster_free(c);

	mg_reader_init(&r, data, size);
	how = mg_read_u8(&r);
	c = cluster_new(2 + (how & 1), (how & 1) != 0);
	cluster_form(c);
	i = c->n - 1;
	submit(c, 0, 0, 1, 0);
	run(c, 3);
	stop(c, i);
	if ((how & 2) != 0)
		stop(c, 0);
	for (int k = 0; k < CHANGES_MAX && mg_reader_left(&r) > 0; k++)
		change(&c->h[i].saved, &r);
	live(c, i, how);
	cluster_free(c);
	return 0;
}
