/*
 * test/fuzz/fuzz_view.c - arbitrary bytes as a view.
 *
 * What decodes has one encoding: putting it back gives the bytes that were
 * read.  The bytes are tried twice, the second time with the number of members
 * made small, since a random one is nearly always over the limit.
 */
#include "core/wire.h"

#define N_AT	60				/* of the count of members, see mg_view_encode */

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_view(const uint8_t *bytes, size_t len)
{
	mg_view		view;
	mg_reader	r;
	mg_buf		again = {0};

	mg_reader_init(&r, bytes, len);
	if (mg_view_decode(&r, &view) != MG_OK)
	{
		/* Refused, and nobody can take it for a view with members. */
		MG_ASSERT(view.n == 0 || r.bad);
		return;
	}
	MG_ASSERT(!r.bad && view.n <= MG_MEMBERS_MAX);
	mg_view_encode(&again, &view);
	MG_ASSERT(again.len == (size_t) (r.p - bytes));
	MG_ASSERT(memcmp(again.data, bytes, again.len) == 0);
	for (uint32_t i = 0; i < view.n; i++)
	{
		const mg_member *m = &view.members[i];

		MG_ASSERT(m->id != 0 && m->weight <= MG_WEIGHT_MAX && m->role <= MG_ROLE_ARBITRATOR);
		MG_ASSERT(strlen(m->name) < sizeof(m->name) && strlen(m->address) < sizeof(m->address));
		MG_ASSERT(mg_view_find(&view, m->id) >= 0 && mg_view_find(&view, m->id) <= (int) i);
		MG_ASSERT(mg_view_find_incarnation(&view, m->incarnation) >= 0);
		MG_ASSERT(mg_view_find_name(&view, m->name) >= 0);
	}
	mg_buf_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_view(data, size);
	if (size >= N_AT + 4)
	{
		uint8_t    *bytes = mg_alloc(size);

		memcpy(bytes, data, size);
		mg_store_u32(bytes + N_AT, data[N_AT] % (MG_MEMBERS_MAX + 2));
		try_view(bytes, size);
		mg_free(bytes);
	}
	return 0;
}
