/*
 * test/unit/test_cert.c - certification against an oracle, and against itself.
 *
 * A history is a list of entries of the order with random keys, origins,
 * floors, reservations and departures.  The oracle decides an entry by looking
 * at all earlier ones, straight from the words of core/cert.h; it shares
 * nothing with the index, not even the conflict table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/cert.h"
#include "build.h"
#include "seed.h"

#define KEYS_MAX	12
#define ENTRIES_MAX 400
#define POOL_MAX	300
#define MEMBERS_MAX 5

typedef struct entry
{
	mg_seqno	floor;			/* set before this entry */
	mg_member_id origin;		/* 0: no writeset */
	mg_member_id left;			/* a member that this view lacks */
	mg_writeset_header header;
	mg_key		keys[KEYS_MAX];
	mg_buf		bytes;
	mg_writeset ws;
	bool		passed;
} entry;

typedef struct history
{
	entry		entries[ENTRIES_MAX + 1];	/* by seqno, from 1 */
	mg_seqno	last;
	mg_seqno	floor;
	mg_seqno	base;

	/* How it is made. */
	uint64_t	pool[POOL_MAX]; /* hashes */
	unsigned	pool_size;
	unsigned	keys_max;
	unsigned	lag;			/* of the floor and of last_seen */
	unsigned	reserve_percent;
	unsigned	n_members;
	mg_member_id members[MEMBERS_MAX];
	mg_member_id next_member;
	bool		floor_respects_reservations;
} history;

/* A view without this member: everybody else stays. */
static void
member_left(mg_cert *cert, mg_member_id left)
{
	mg_cert_origin members[64];
	uint32_t	n = 0;

	for (mg_member_id id = 1; id <= 64; id++)
		if (id != left)
			members[n++] = (mg_cert_origin) {id, 1};
	mg_cert_keep_members(cert, members, n);
}

static void
history_clear(history *h)
{
	for (mg_seqno s = 1; s <= h->last; s++)
		mg_buf_free(&h->entries[s].bytes);
	h->last = 0;
}

/* ---- the oracle ---- */

static bool
oracle_keys_meet(const entry *a, const entry *b)
{
	/* Rows and columns: KEY SHARE, SHARE, NO KEY UPDATE, UPDATE. */
	static const bool conflict[4][4] = {
		{false, false, false, true},
		{false, false, true, true},
		{false, true, true, true},
		{true, true, true, true},
	};

	for (uint32_t i = 0; i < a->header.n_keys; i++)
		for (uint32_t j = 0; j < b->header.n_keys; j++)
			if (a->keys[i] / 4 == b->keys[j] / 4 && conflict[a->keys[i] % 4][b->keys[j] % 4])
				return true;
	return false;
}

static bool
oracle_is_reservation(const entry *e)
{
	return e->origin != 0 && e->passed && (e->header.flags & MG_WS_RESERVE) != 0;
}

/* Is the reservation made at `made` open when `now` comes? */
static bool
oracle_is_open(const history *h, mg_seqno made, mg_seqno now)
{
	const entry *r = &h->entries[made];

	for (mg_seqno s = made + 1; s < now; s++)
	{
		const entry *e = &h->entries[s];

		if (e->left == r->origin)
			return false;
		if (e->origin == r->origin && (e->header.flags & MG_WS_RELEASE) != 0 &&
			e->header.trx_id == r->header.trx_id)
			return false;
	}
	return true;
}

static mg_cert_result
oracle_judge(const history *h, mg_seqno seqno)
{
	const entry *e = &h->entries[seqno];
	mg_seqno	depends = h->floor;
	mg_seqno	conflict = 0;
	mg_seqno	reserved = 0;

	if (e->header.last_seen < h->floor)
		return (mg_cert_result) {MG_VERDICT_TOO_OLD, 0, 0};
	for (mg_seqno s = h->base + 1; s < seqno; s++)
	{
		const entry *before = &h->entries[s];

		if (before->origin == 0 || !before->passed || !oracle_keys_meet(before, e))
			continue;
		if (oracle_is_reservation(before))
		{
			if (before->origin != e->origin && oracle_is_open(h, s, seqno))
				reserved = s;
			continue;
		}
		if (s > depends)
			depends = s;
		if (before->origin != e->origin && s > e->header.last_seen)
			conflict = s;
	}
	if (reserved > 0)
		return (mg_cert_result) {MG_VERDICT_RESERVED, 0, reserved};
	if (conflict > 0 && (e->header.flags & MG_WS_RESERVE) == 0)
		return (mg_cert_result) {MG_VERDICT_CONFLICT, 0, conflict};
	return (mg_cert_result) {MG_VERDICT_PASS, depends, 0};
}

/* Distinct keys of passed writesets above the floor. */
static size_t
oracle_key_count(const history *h)
{
	static mg_key seen[ENTRIES_MAX * KEYS_MAX];
	size_t		n = 0;

	for (mg_seqno s = h->floor + 1; s <= h->last; s++)
	{
		const entry *e = &h->entries[s];

		if (e->origin == 0 || !e->passed || oracle_is_reservation(e))
			continue;
		for (uint32_t i = 0; i < e->header.n_keys; i++)
		{
			size_t		at = 0;

			while (at < n && seen[at] != e->keys[i])
				at++;
			if (at == n)
				seen[n++] = e->keys[i];
		}
	}
	return n;
}

static size_t
oracle_reserved_count(const history *h)
{
	size_t		n = 0;

	for (mg_seqno s = 1; s <= h->last; s++)
		if (oracle_is_reservation(&h->entries[s]) && oracle_is_open(h, s, h->last + 1))
			n += h->entries[s].header.n_keys;
	return n;
}

/* ---- random histories ---- */

static void
history_begin(history *h, bool floor_respects_reservations)
{
	bool		crowded = test_random_chance(40);

	memset(h, 0, sizeof(*h));
	h->floor_respects_reservations = floor_respects_reservations;
	h->pool_size = 1 + (unsigned) test_random_below(test_random_chance(50) ? 12 : POOL_MAX);
	h->keys_max = (unsigned) test_random_below(KEYS_MAX + 1);
	h->lag = 1 + (unsigned) test_random_below(60);
	h->reserve_percent = test_random_chance(40) ? 0 : (unsigned) test_random_below(30);
	h->n_members = 1 + (unsigned) test_random_below(MEMBERS_MAX);
	for (unsigned i = 0; i < h->n_members; i++)
		h->members[i] = ++h->next_member;

	/*
	 * Crowded: all homes are around the end of a table of the smallest size,
	 * for long runs, many shifts, and runs that go around.
	 */
	for (unsigned i = 0; i < h->pool_size; i++)
		do
			h->pool[i] = test_random() & ~UINT64_C(3);
		while (crowded && ((mg_mix64(h->pool[i]) + 4) & 1023) >= 8);
	if (!crowded)
		h->pool[0] = 0;			/* the key 0 is a key as any other */
}

static mg_seqno
oldest_open_reservation(const history *h)
{
	for (mg_seqno s = 1; s <= h->last; s++)
		if (oracle_is_reservation(&h->entries[s]) && oracle_is_open(h, s, h->last + 1))
			return s;
	return h->last + 1;
}

/* Appends an entry at last + 1; the caller judges it, notes `passed`, and counts it. */
static entry *
history_next(history *h)
{
	entry	   *e = &h->entries[h->last + 1];
	unsigned	who = (unsigned) test_random_below(h->n_members);
	mg_writeset_header header = {0};
	uint32_t	n;

	memset(e, 0, sizeof(*e));
	if (test_random_chance(30))
	{
		mg_seqno	floor = h->last - test_random_below(h->lag) % (h->last + 1);

		if (h->floor_respects_reservations && floor >= oldest_open_reservation(h))
			floor = oldest_open_reservation(h) - 1;
		if (floor > h->floor)
			h->floor = floor;
	}
	e->floor = h->floor;

	if (test_random_chance(4))	/* a view or a no-op */
	{
		if (test_random_chance(50))
		{
			e->left = h->members[who];
			h->members[who] = ++h->next_member;
		}
		return e;
	}

	e->origin = h->members[who];
	header.trx_id = test_random_below(3);
	header.last_seen = h->last - test_random_below(h->lag) % (h->last + 1);
	if (header.last_seen < h->floor && test_random_chance(90))
		header.last_seen = h->floor;
	if (test_random_chance(h->reserve_percent))
		header.flags = test_random_chance(50) ? MG_WS_RESERVE : MG_WS_RELEASE;
	n = (uint32_t) test_random_below(h->keys_max + 1);
	for (uint32_t i = 0; i < n; i++)
		e->keys[i] = mg_key_make(h->pool[test_random_below(h->pool_size)],
								 (mg_key_strength) test_random_below(4));
	mg_keys_normalize(e->keys, &n);
	test_build_writeset(&e->bytes, header, e->keys, n, NULL, 0);
	assert_int_equal(mg_writeset_open(e->bytes.data, e->bytes.len, &e->ws), MG_OK);
	e->header = e->ws.header;
	return e;
}

static mg_cert_result
certify_entry(mg_cert *cert, mg_seqno seqno, const entry *e)
{
	mg_cert_set_floor(cert, e->floor);
	if (e->origin != 0)
		return mg_cert_certify(cert, seqno, (mg_cert_origin) {e->origin, 1}, &e->ws);
	mg_cert_skip(cert, seqno);
	if (e->left != 0)
		member_left(cert, e->left);
	return (mg_cert_result) {MG_VERDICT_NONE, 0, 0};
}

static void
insert_known_entry(mg_cert *cert, mg_seqno seqno, const entry *e)
{
	bool		bare = e->origin == 0 || (!e->passed && (e->header.flags & MG_WS_RELEASE) == 0);

	mg_cert_set_floor(cert, e->floor);
	mg_cert_insert_known(cert, seqno, (mg_cert_origin) {e->origin, 1},
						 e->origin == 0 || (bare && test_random_chance(50)) ? NULL : &e->ws, e->passed);
	if (e->left != 0)
		member_left(cert, e->left);
}

static void
assert_same_result(mg_cert_result got, mg_cert_result want)
{
	assert_string_equal(mg_verdict_name(got.verdict), mg_verdict_name(want.verdict));
	assert_true(got.depends == want.depends);
	assert_true(got.against == want.against);
}

static void
verdict_equals_oracle_over_random_histories(void **state)
{
	static history h;
	size_t		count[MG_VERDICT_TOO_OLD + 1] = {0};

	(void) state;
	for (int round = 0; round < 300; round++)
	{
		mg_cert    *cert = mg_cert_new(0);

		history_begin(&h, test_random_chance(50));
		while (h.last < ENTRIES_MAX)
		{
			entry	   *e = history_next(&h);
			mg_cert_result got = certify_entry(cert, h.last + 1, e);

			if (e->origin != 0)
			{
				mg_cert_result want = oracle_judge(&h, h.last + 1);

				assert_same_result(got, want);
				e->passed = want.verdict == MG_VERDICT_PASS;
				count[want.verdict]++;
			}
			h.last++;
			assert_true(mg_cert_last(cert) == h.last);
			assert_true(mg_cert_floor(cert) == h.floor);
			if (h.last % 20 == 0)
			{
				assert_int_equal(mg_cert_key_count(cert), oracle_key_count(&h));
				assert_int_equal(mg_cert_reserved_count(cert), oracle_reserved_count(&h));
			}
		}
		mg_cert_free(cert);
		history_clear(&h);
	}
	/* The histories are worth something: each outcome was among them, often. */
	for (int v = MG_VERDICT_PASS; v <= MG_VERDICT_TOO_OLD; v++)
		assert_true(count[v] > 100);
}

static void
rebuilt_index_gives_the_same_verdicts(void **state)
{
	static history h;

	(void) state;
	for (int round = 0; round < 300; round++)
	{
		mg_cert    *full = mg_cert_new(0);
		mg_cert    *rebuilt = NULL;
		mg_seqno	at = test_random_below(ENTRIES_MAX);

		history_begin(&h, true);
		while (h.last < ENTRIES_MAX)
		{
			entry	   *e;
			mg_cert_result got;

			if (h.last == at)
			{
				/* From the floor, or from further back where the log reaches that far. */
				mg_seqno	base = test_random_chance(50) ? h.floor : test_random_below(h.floor + 1);

				rebuilt = mg_cert_new(base);
				for (mg_seqno s = base + 1; s <= h.last; s++)
					insert_known_entry(rebuilt, s, &h.entries[s]);
			}
			e = history_next(&h);
			got = certify_entry(full, h.last + 1, e);
			e->passed = got.verdict == MG_VERDICT_PASS;
			if (rebuilt != NULL)
			{
				assert_same_result(certify_entry(rebuilt, h.last + 1, e), got);
				assert_int_equal(mg_cert_key_count(rebuilt), mg_cert_key_count(full));
				assert_int_equal(mg_cert_reserved_count(rebuilt), mg_cert_reserved_count(full));
			}
			h.last++;
		}
		mg_cert_free(full);
		mg_cert_free(rebuilt);
		history_clear(&h);
	}
}

/* ---- one thing at a time ---- */

/* Certifies one writeset with up to two keys (0: none) at the next seqno. */
static mg_cert_result
one(mg_cert *cert, mg_member_id origin, mg_seqno last_seen, uint16_t flags, uint64_t trx_id,
	mg_key key1, mg_key key2)
{
	mg_key		keys[2];
	uint32_t	n = 0;
	mg_buf		buf = {0};
	mg_writeset ws;
	mg_cert_result result;

	if (key1 != 0)
		keys[n++] = key1;
	if (key2 != 0)
		keys[n++] = key2;
	test_build_writeset(&buf, (mg_writeset_header) {.flags = flags,.last_seen = last_seen,.trx_id = trx_id},
						keys, n, NULL, 0);
	assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_OK);
	result = mg_cert_certify(cert, mg_cert_last(cert) + 1, (mg_cert_origin) {origin, 1}, &ws);
	mg_buf_free(&buf);
	return result;
}

static mg_key
row(uint64_t number, mg_key_strength strength)
{
	return mg_key_make(number << 2, strength);
}

#define PASSES(depends_on) (mg_cert_result) {MG_VERDICT_PASS, (depends_on), 0}
#define CONFLICTS(with) (mg_cert_result) {MG_VERDICT_CONFLICT, 0, (with)}
#define RESERVED(by) (mg_cert_result) {MG_VERDICT_RESERVED, 0, (by)}
#define TOO_OLD (mg_cert_result) {MG_VERDICT_TOO_OLD, 0, 0}

static void
concurrent_writesets_of_two_members_conflict_by_strength(void **state)
{
	(void) state;
	for (int a = 0; a < 4; a++)
		for (int b = 0; b < 4; b++)
		{
			mg_cert    *cert = mg_cert_new(0);
			bool		conflict = mg_key_strengths_conflict((mg_key_strength) a, (mg_key_strength) b);

			assert_same_result(one(cert, 1, 0, 0, 1, row(7, (mg_key_strength) a), 0), PASSES(0));
			assert_same_result(one(cert, 2, 0, 0, 1, row(7, (mg_key_strength) b), 0),
							   conflict ? CONFLICTS(1) : PASSES(0));
			/* Once seen it is a dependency only.  (Seqno 2 has failed if it met seqno 1.) */
			assert_same_result(one(cert, 3, 2, 0, 1, row(7, (mg_key_strength) a), 0),
							   PASSES(mg_key_strengths_conflict((mg_key_strength) a, (mg_key_strength) a) ? 1 : 0));
			mg_cert_free(cert);
		}
}

static void
own_writesets_are_dependencies_and_never_conflicts(void **state)
{
	mg_cert    *cert = mg_cert_new(0);
	mg_key		key = row(7, MG_KEY_UPDATE);

	(void) state;
	assert_same_result(one(cert, 1, 0, 0, 1, key, 0), PASSES(0));
	assert_same_result(one(cert, 1, 0, 0, 2, key, 0), PASSES(1));
	assert_same_result(one(cert, 1, 0, 0, 3, key, 0), PASSES(2));
	mg_cert_free(cert);
}

/* The last seqno alone would hide what came before it. */
static void
an_own_writeset_does_not_hide_an_earlier_foreign_one(void **state)
{
	mg_cert    *cert = mg_cert_new(0);
	mg_key		key = row(7, MG_KEY_UPDATE);

	(void) state;
	assert_same_result(one(cert, 1, 0, 0, 1, key, 0), PASSES(0));
	assert_same_result(one(cert, 2, 1, 0, 1, key, 0), PASSES(1));
	assert_same_result(one(cert, 1, 2, 0, 2, key, 0), PASSES(2));
	assert_same_result(one(cert, 1, 1, 0, 3, key, 0), CONFLICTS(2));
	assert_same_result(one(cert, 2, 2, 0, 2, key, 0), CONFLICTS(3));
	assert_same_result(one(cert, 1, 2, 0, 4, key, 0), PASSES(3));
	mg_cert_free(cert);
}

static void
a_failed_writeset_leaves_no_trace(void **state)
{
	mg_cert    *cert = mg_cert_new(0);

	(void) state;
	assert_same_result(one(cert, 1, 0, 0, 1, row(7, MG_KEY_UPDATE), 0), PASSES(0));
	assert_same_result(one(cert, 2, 0, 0, 1, row(7, MG_KEY_UPDATE), row(8, MG_KEY_UPDATE)), CONFLICTS(1));
	assert_same_result(one(cert, 3, 1, 0, 1, row(8, MG_KEY_UPDATE), 0), PASSES(0));
	assert_int_equal(mg_cert_key_count(cert), 2);
	mg_cert_free(cert);
}

static void
last_seen_outside_the_index_is_too_old(void **state)
{
	mg_cert    *cert = mg_cert_new(100);

	(void) state;
	assert_same_result(one(cert, 1, 99, 0, 1, row(7, MG_KEY_UPDATE), 0), TOO_OLD);
	assert_same_result(one(cert, 1, 100, 0, 1, row(7, MG_KEY_UPDATE), 0), PASSES(100));
	assert_same_result(one(cert, 1, 103, 0, 1, row(7, MG_KEY_UPDATE), 0), TOO_OLD);	/* itself is 103 */
	mg_cert_set_floor(cert, 103);
	assert_same_result(one(cert, 1, 102, 0, 1, 0, 0), TOO_OLD); /* without a single key, too */
	assert_same_result(one(cert, 1, 103, 0, 1, row(7, MG_KEY_UPDATE), 0), PASSES(103));
	mg_cert_free(cert);
}

static void
floor_never_falls_and_never_passes_the_last_seqno(void **state)
{
	mg_cert    *cert = mg_cert_new(10);

	(void) state;
	mg_cert_skip(cert, 11);
	mg_cert_skip(cert, 12);
	mg_cert_set_floor(cert, 11);
	mg_cert_set_floor(cert, 5);
	assert_true(mg_cert_floor(cert) == 11);
	mg_cert_set_floor(cert, UINT64_MAX);
	assert_true(mg_cert_floor(cert) == 12);
	assert_same_result(one(cert, 1, 12, 0, 1, row(7, MG_KEY_UPDATE), 0), PASSES(12));
	mg_cert_free(cert);
}

static void
a_reservation_holds_until_its_transaction_releases_it(void **state)
{
	mg_cert    *cert = mg_cert_new(0);
	mg_key		key = row(7, MG_KEY_UPDATE);
	mg_key		share = row(7, MG_KEY_KEY_SHARE);

	(void) state;
	assert_same_result(one(cert, 2, 0, 0, 1, share, 0), PASSES(0));
	/* Not tested against seqno 1, but told to wait for it. */
	assert_same_result(one(cert, 1, 0, MG_WS_RESERVE, 50, key, 0), PASSES(1));
	assert_int_equal(mg_cert_key_count(cert), 1);
	assert_int_equal(mg_cert_reserved_count(cert), 1);

	assert_same_result(one(cert, 2, 2, 0, 2, share, row(8, MG_KEY_UPDATE)), RESERVED(2));
	assert_same_result(one(cert, 2, 2, MG_WS_RESERVE, 3, share, 0), RESERVED(2));
	assert_same_result(one(cert, 2, 2, 0, 4, row(8, MG_KEY_UPDATE), 0), PASSES(0));
	assert_same_result(one(cert, 1, 2, 0, 51, share, 0), PASSES(0));	/* another transaction of the holder */
	assert_same_result(one(cert, 1, 2, MG_WS_RELEASE, 51, 0, 0), PASSES(0));	/* which can't release it */
	assert_same_result(one(cert, 2, 7, MG_WS_RELEASE, 50, 0, 0), PASSES(0));	/* nor another member */
	assert_same_result(one(cert, 2, 8, 0, 5, share, 0), RESERVED(2));

	assert_same_result(one(cert, 1, 9, MG_WS_RELEASE, 50, key, 0), PASSES(6));
	assert_int_equal(mg_cert_reserved_count(cert), 0);
	assert_same_result(one(cert, 2, 9, 0, 6, share, 0), CONFLICTS(10));
	assert_same_result(one(cert, 2, 10, 0, 7, share, 0), PASSES(10));
	mg_cert_free(cert);
}

static void
a_failing_release_releases_nevertheless(void **state)
{
	(void) state;
	for (int known = 0; known < 2; known++)
	{
		mg_cert    *cert = mg_cert_new(10);
		mg_key		key = row(7, MG_KEY_UPDATE);

		assert_same_result(one(cert, 1, 10, MG_WS_RESERVE, 50, key, 0), PASSES(10));
		if (known)
		{
			mg_buf		buf = {0};
			mg_writeset ws;

			test_build_writeset(&buf, (mg_writeset_header) {.flags = MG_WS_RELEASE,.trx_id = 50}, &key, 1,
								NULL, 0);
			assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_OK);
			mg_cert_insert_known(cert, 12, (mg_cert_origin) {1, 1}, &ws, false);
			mg_buf_free(&buf);
		}
		else
			assert_same_result(one(cert, 1, 9, MG_WS_RELEASE, 50, key, 0), TOO_OLD);
		assert_int_equal(mg_cert_reserved_count(cert), 0);
		assert_same_result(one(cert, 2, 10, 0, 1, key, 0), PASSES(10));
		mg_cert_free(cert);
	}
}

static void
a_departure_ends_the_reservations_of_that_member_only(void **state)
{
	mg_cert    *cert = mg_cert_new(0);

	(void) state;
	one(cert, 1, 0, MG_WS_RESERVE, 50, row(7, MG_KEY_UPDATE), 0);
	one(cert, 1, 0, MG_WS_RESERVE, 51, row(8, MG_KEY_UPDATE), 0);
	one(cert, 2, 0, MG_WS_RESERVE, 50, row(9, MG_KEY_UPDATE), 0);
	member_left(cert, 1);
	assert_int_equal(mg_cert_reserved_count(cert), 1);
	assert_same_result(one(cert, 3, 0, 0, 1, row(7, MG_KEY_UPDATE), row(8, MG_KEY_UPDATE)), PASSES(0));
	assert_same_result(one(cert, 3, 0, 0, 1, row(9, MG_KEY_UPDATE), 0), RESERVED(3));
	mg_cert_free(cert);
}

static void
a_new_life_ends_the_reservations_of_the_one_before(void **state)
{
	mg_cert    *cert = mg_cert_new(0);
	mg_cert_origin members[] = {{1, 2}, {2, 1}};

	(void) state;
	one(cert, 1, 0, MG_WS_RESERVE, 50, row(7, MG_KEY_UPDATE), 0);
	one(cert, 2, 0, MG_WS_RESERVE, 50, row(9, MG_KEY_UPDATE), 0);
	mg_cert_keep_members(cert, members, 2);
	assert_int_equal(mg_cert_reserved_count(cert), 1);
	assert_same_result(one(cert, 3, 0, 0, 1, row(7, MG_KEY_UPDATE), 0), PASSES(0));
	assert_same_result(one(cert, 3, 0, 0, 1, row(9, MG_KEY_UPDATE), 0), RESERVED(2));
	mg_cert_free(cert);
}

static void
compatible_reservations_of_several_members_live_side_by_side(void **state)
{
	mg_cert    *cert = mg_cert_new(0);

	(void) state;
	assert_same_result(one(cert, 1, 0, MG_WS_RESERVE, 50, row(7, MG_KEY_SHARE), 0), PASSES(0));
	assert_same_result(one(cert, 2, 0, MG_WS_RESERVE, 60, row(7, MG_KEY_SHARE), 0), PASSES(0));
	assert_same_result(one(cert, 3, 0, 0, 1, row(7, MG_KEY_KEY_SHARE), 0), PASSES(0));
	assert_same_result(one(cert, 3, 0, 0, 1, row(7, MG_KEY_NO_KEY_UPDATE), 0), RESERVED(2));
	/* Each holder is in the other's way. */
	assert_same_result(one(cert, 1, 0, 0, 50, row(7, MG_KEY_NO_KEY_UPDATE), 0), RESERVED(2));
	assert_same_result(one(cert, 2, 0, MG_WS_RELEASE, 60, row(7, MG_KEY_NO_KEY_UPDATE), 0), RESERVED(1));
	assert_same_result(one(cert, 1, 0, MG_WS_RELEASE, 50, row(7, MG_KEY_NO_KEY_UPDATE), 0), PASSES(0));
	mg_cert_free(cert);
}

static void
several_reservations_of_one_transaction_end_together(void **state)
{
	mg_cert    *cert = mg_cert_new(0);

	(void) state;
	one(cert, 1, 0, MG_WS_RESERVE, 50, row(7, MG_KEY_UPDATE), 0);
	one(cert, 1, 0, MG_WS_RESERVE, 50, row(7, MG_KEY_UPDATE), row(8, MG_KEY_UPDATE));
	assert_int_equal(mg_cert_reserved_count(cert), 3);
	one(cert, 1, 0, MG_WS_RELEASE, 50, 0, 0);
	assert_int_equal(mg_cert_reserved_count(cert), 0);
	mg_cert_free(cert);
}

/* Over several chunks of the queue and several sizes of the table. */
static void
big_writesets_are_kept_whole_and_forgotten_whole(void **state)
{
	enum
	{
		N = 60000
	};
	mg_key	   *keys = malloc(2 * N * sizeof(mg_key));
	mg_cert    *cert = mg_cert_new(0);
	mg_buf		buf = {0};
	mg_writeset ws;

	(void) state;
	for (uint32_t i = 0; i < 2 * N; i++)
		keys[i] = row(i + 1, MG_KEY_NO_KEY_UPDATE);
	test_build_writeset(&buf, (mg_writeset_header) {0}, keys, N, NULL, 0);
	assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_OK);
	assert_same_result(mg_cert_certify(cert, 1, (mg_cert_origin) {1, 1}, &ws), PASSES(0));
	mg_buf_reset(&buf);

	/* The second one shares half of its keys. */
	test_build_writeset(&buf, (mg_writeset_header) {.last_seen = 1}, keys + N / 2, N, NULL, 0);
	assert_int_equal(mg_writeset_open(buf.data, buf.len, &ws), MG_OK);
	assert_same_result(mg_cert_certify(cert, 2, (mg_cert_origin) {2, 1}, &ws), PASSES(1));
	assert_int_equal(mg_cert_key_count(cert), N + N / 2);
	for (uint32_t i = 0; i < N + N / 2; i += 501)
		assert_same_result(one(cert, 3, 0, 0, 1, keys[i], 0), CONFLICTS(i < N / 2 ? 1 : 2));

	mg_cert_set_floor(cert, 1);
	assert_int_equal(mg_cert_key_count(cert), N);
	for (uint32_t i = 0; i < N + N / 2; i += 501)
	{
		assert_same_result(one(cert, 3, 1, MG_WS_RESERVE, 1, keys[i], 0), PASSES(i < N / 2 ? 1 : 2));
		one(cert, 3, 1, MG_WS_RELEASE, 1, 0, 0);
	}
	mg_cert_set_floor(cert, mg_cert_last(cert));
	assert_int_equal(mg_cert_key_count(cert), 0);
	assert_same_result(one(cert, 3, mg_cert_last(cert), 0, 1, keys[N], 0), PASSES(mg_cert_floor(cert)));
	mg_buf_free(&buf);
	mg_cert_free(cert);
	free(keys);
}

static void
every_verdict_has_a_name_of_its_own(void **state)
{
	(void) state;
	for (int a = 0; a <= MG_VERDICT_TOO_OLD; a++)
		for (int b = 0; b < a; b++)
			assert_string_not_equal(mg_verdict_name((mg_verdict) a), mg_verdict_name((mg_verdict) b));
	assert_non_null(mg_verdict_name((mg_verdict) 99));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(concurrent_writesets_of_two_members_conflict_by_strength),
		cmocka_unit_test(own_writesets_are_dependencies_and_never_conflicts),
		cmocka_unit_test(an_own_writeset_does_not_hide_an_earlier_foreign_one),
		cmocka_unit_test(a_failed_writeset_leaves_no_trace),
		cmocka_unit_test(last_seen_outside_the_index_is_too_old),
		cmocka_unit_test(floor_never_falls_and_never_passes_the_last_seqno),
		cmocka_unit_test(a_reservation_holds_until_its_transaction_releases_it),
		cmocka_unit_test(a_failing_release_releases_nevertheless),
		cmocka_unit_test(a_departure_ends_the_reservations_of_that_member_only),
		cmocka_unit_test(a_new_life_ends_the_reservations_of_the_one_before),
		cmocka_unit_test(compatible_reservations_of_several_members_live_side_by_side),
		cmocka_unit_test(several_reservations_of_one_transaction_end_together),
		cmocka_unit_test(big_writesets_are_kept_whole_and_forgotten_whole),
		cmocka_unit_test(verdict_equals_oracle_over_random_histories),
		cmocka_unit_test(rebuilt_index_gives_the_same_verdicts),
		cmocka_unit_test(every_verdict_has_a_name_of_its_own),
	};

	test_seed("test_cert");
	return cmocka_run_group_tests_name("cert", tests, NULL, NULL);
}
