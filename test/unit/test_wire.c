/*
 * test_wire.c - frames, messages, views and entries: what goes out comes back,
 * and nothing else comes in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/wire.h"
#include "seed.h"

static const mg_frame_header header = {
	.incarnation = UINT64_C(0x1122334455667788),
	.cluster_hash = UINT64_C(0x99aabbccddeeff00),
	.epoch = 77,
	.life = 3,
	.flags = MG_FRAME_LEADING,
	.member = 9
};

/* One of each type; the body of type t has t * 5 bytes of value t, the first one none. */
static void
make_frame(mg_buf *frame)
{
	mg_frame_begin(frame, &header);
	for (int t = MG_MSG_NONE + 1; t < MG_MSG_TYPE_COUNT; t++)
	{
		size_t		mark = mg_msg_begin(frame, (mg_msg_type) t);

		for (int k = 0; k < (t - 1) * 5; k++)
			mg_buf_put_u8(frame, (uint8_t) t);
		mg_msg_end(frame, mark);
	}
	mg_frame_end(frame);
}

/* From memory of just that size: the sanitizer watches the end. */
static mg_status
open_copy(const uint8_t *bytes, size_t len, uint16_t *version)
{
	uint8_t    *copy = malloc(len > 0 ? len : 1);
	mg_frame_header h;
	mg_reader	r;
	mg_status	status;

	if (len > 0)
		memcpy(copy, bytes, len);
	status = mg_frame_open(copy, len, &h, &r, version);
	free(copy);
	return status;
}

static void
reseal(mg_buf *frame)
{
	mg_store_u32(frame->data + 8, (uint32_t) frame->len);
	mg_store_u32(frame->data + 12, mg_crc32c(0, frame->data + 16, frame->len - 16));
}

static void
frame_comes_back(void **state)
{
	mg_buf		frame = {0};
	mg_frame_header h;
	mg_reader	r,
				body;
	mg_msg_type type;
	uint16_t	version;
	int			expected = MG_MSG_NONE + 1;

	(void) state;
	make_frame(&frame);
	assert_int_equal(mg_frame_open(frame.data, frame.len, &h, &r, &version), MG_OK);
	assert_int_equal(version, MG_PROTOCOL_VERSION);
	assert_true(h.incarnation == header.incarnation && h.cluster_hash == header.cluster_hash);
	assert_true(h.epoch == header.epoch && h.life == header.life);
	assert_true(h.flags == header.flags && h.member == header.member);
	while (mg_msg_next(&r, &type, &body))
	{
		assert_int_equal(type, expected);
		assert_int_equal(mg_reader_left(&body), (expected - 1) * 5);
		while (mg_reader_left(&body) > 0)
			assert_int_equal(mg_read_u8(&body), expected);
		expected++;
	}
	assert_int_equal(expected, MG_MSG_TYPE_COUNT);
	assert_true(mg_reader_done(&r));
	mg_buf_free(&frame);
}

static void
frame_without_messages_is_one(void **state)
{
	mg_buf		frame = {0};
	mg_frame_header h;
	mg_reader	r,
				body;
	mg_msg_type type;
	uint16_t	version;

	(void) state;
	mg_frame_begin(&frame, &header);
	mg_frame_end(&frame);
	assert_int_equal(frame.len, MG_FRAME_HEADER_BYTES);
	assert_int_equal(mg_frame_open(frame.data, frame.len, &h, &r, &version), MG_OK);
	assert_false(mg_msg_next(&r, &type, &body));
	assert_true(mg_reader_done(&r));
	mg_buf_free(&frame);
}

static void
every_truncated_frame_is_refused(void **state)
{
	mg_buf		frame = {0};
	uint16_t	version;

	(void) state;
	make_frame(&frame);
	for (size_t len = 0; len < frame.len; len++)
		assert_int_equal(open_copy(frame.data, len, &version), MG_E_TRUNCATED);
	mg_buf_put_u8(&frame, 0);	/* nor is a longer one taken */
	assert_int_equal(open_copy(frame.data, frame.len, &version), MG_E_TRUNCATED);
	mg_buf_free(&frame);
}

static void
every_flipped_bit_is_refused(void **state)
{
	mg_buf		frame = {0};
	uint16_t	version;

	(void) state;
	make_frame(&frame);
	for (size_t bit = 0; bit < frame.len * 8; bit++)
	{
		mg_status	expected = bit < 4 * 8 ? MG_E_FORMAT : bit < 6 * 8 ? MG_E_VERSION :
			bit < 8 * 8 ? MG_E_FORMAT : bit < 12 * 8 ? MG_E_TRUNCATED : MG_E_CHECKSUM;

		frame.data[bit / 8] ^= (uint8_t) (1u << bit % 8);
		assert_int_equal(open_copy(frame.data, frame.len, &version), expected);
		frame.data[bit / 8] ^= (uint8_t) (1u << bit % 8);
	}
	assert_int_equal(open_copy(frame.data, frame.len, &version), MG_OK);
	mg_buf_free(&frame);
}

/* It is whole, so that the sender can be told by name; a damaged one cannot be trusted in that either. */
static void
another_version_is_named(void **state)
{
	mg_buf		frame = {0};
	mg_frame_header h;
	mg_reader	r,
				body;
	mg_msg_type type;
	uint16_t	version;

	(void) state;
	make_frame(&frame);
	mg_store_u16(frame.data + 4, MG_PROTOCOL_VERSION + 41);
	assert_int_equal(mg_frame_open(frame.data, frame.len, &h, &r, &version), MG_E_VERSION);
	assert_int_equal(version, MG_PROTOCOL_VERSION + 41);
	assert_true(h.incarnation == header.incarnation);
	assert_true(mg_msg_next(&r, &type, &body));
	assert_int_equal(type, MG_MSG_NONE + 1);

	frame.data[frame.len - 1] ^= 1;
	assert_int_equal(open_copy(frame.data, frame.len, &version), MG_E_CHECKSUM);
	mg_buf_free(&frame);
}

/* Gives how many messages are read before the end, and whether the end is clean. */
static int
count_messages(const mg_buf *frame, bool *clean)
{
	mg_frame_header h;
	mg_reader	r,
				body;
	mg_msg_type type;
	uint16_t	version;
	int			n = 0;

	assert_int_equal(mg_frame_open(frame->data, frame->len, &h, &r, &version), MG_OK);
	while (mg_msg_next(&r, &type, &body))
		n++;
	*clean = mg_reader_done(&r);
	assert_false(mg_msg_next(&r, &type, &body));
	return n;
}

static void
what_is_no_message_ends_the_frame(void **state)
{
	mg_buf		frame = {0};
	bool		clean;
	size_t		second;

	(void) state;
	mg_frame_begin(&frame, &header);
	mg_msg_end(&frame, mg_msg_begin(&frame, MG_MSG_ACK));
	second = frame.len;
	mg_msg_end(&frame, mg_msg_begin(&frame, MG_MSG_ACK));
	mg_frame_end(&frame);
	assert_int_equal(count_messages(&frame, &clean), 2);
	assert_true(clean);

	frame.data[second] = MG_MSG_NONE;
	reseal(&frame);
	assert_int_equal(count_messages(&frame, &clean), 1);
	assert_false(clean);

	frame.data[second] = MG_MSG_TYPE_COUNT;
	reseal(&frame);
	assert_int_equal(count_messages(&frame, &clean), 1);
	assert_false(clean);

	frame.data[second] = MG_MSG_ACK;
	mg_store_u32(frame.data + second + 1, 1);	/* one byte more than there is */
	reseal(&frame);
	assert_int_equal(count_messages(&frame, &clean), 1);
	assert_false(clean);

	mg_store_u32(frame.data + second + 1, UINT32_MAX);
	reseal(&frame);
	assert_int_equal(count_messages(&frame, &clean), 1);
	assert_false(clean);

	frame.len = second + 4;		/* not even its header */
	reseal(&frame);
	assert_int_equal(count_messages(&frame, &clean), 1);
	assert_false(clean);
	mg_buf_free(&frame);
}

/* ---- views ---- */

static void
random_view(mg_view *view, uint32_t n)
{
	memset(view, 0, sizeof(*view));
	view->id = test_random();
	view->epoch = test_random();
	view->members_id = test_random();
	test_random_bytes(view->uuid.bytes, sizeof(view->uuid.bytes));
	view->leader = (mg_member_id) test_random();
	view->next_member_id = (mg_member_id) test_random();
	view->joined = (mg_member_id) test_random();
	view->left = (mg_member_id) test_random();
	view->left_how = MG_LEFT_SUSPECTED;
	view->n = n;
	for (uint32_t i = 0; i < n; i++)
	{
		mg_member  *m = &view->members[i];
		size_t		name = test_random_below(sizeof(m->name));
		size_t		address = test_random_below(sizeof(m->address));

		m->id = 1 + (mg_member_id) test_random_below(UINT32_MAX);
		m->role = test_random_chance(50) ? MG_ROLE_DATA : MG_ROLE_ARBITRATOR;
		m->segment = (uint8_t) test_random();
		m->life = (uint32_t) test_random();
		m->weight = (uint32_t) test_random_below(MG_WEIGHT_MAX + 1);
		m->incarnation = test_random();
		memset(m->name, 'a' + (int) (i % 26), name);
		memset(m->address, 'A' + (int) (i % 26), address);
		memset(m->sql_address, 's', test_random_below(sizeof(m->sql_address)));
	}
}

static mg_status
decode_view(const uint8_t *bytes, size_t len, mg_view *view, size_t *left)
{
	uint8_t    *copy = malloc(len > 0 ? len : 1);
	mg_reader	r;
	mg_status	status;

	if (len > 0)
		memcpy(copy, bytes, len);
	mg_reader_init(&r, copy, len);
	status = mg_view_decode(&r, view);
	*left = mg_reader_left(&r);
	free(copy);
	return status;
}

static void
view_comes_back(void **state)
{
	mg_view		view,
				back;
	size_t		left;

	(void) state;
	for (uint32_t n = 0; n <= MG_MEMBERS_MAX; n++)
	{
		mg_buf		to = {0};

		random_view(&view, n);
		mg_view_encode(&to, &view);
		mg_buf_put(&to, "xyz", 3);	/* what follows is not touched */
		assert_int_equal(decode_view(to.data, to.len, &back, &left), MG_OK);
		assert_int_equal(left, 3);
		assert_true(back.id == view.id && back.epoch == view.epoch && back.members_id == view.members_id);
		assert_true(mg_uuid_equal(&back.uuid, &view.uuid));
		assert_true(back.leader == view.leader && back.next_member_id == view.next_member_id);
		assert_true(back.joined == view.joined && back.left == view.left && back.left_how == view.left_how);
		assert_int_equal(back.n, n);
		for (uint32_t i = 0; i < n; i++)
		{
			const mg_member *a = &view.members[i];
			const mg_member *b = &back.members[i];

			assert_true(a->id == b->id && a->role == b->role && a->segment == b->segment);
			assert_true(a->life == b->life && a->weight == b->weight && a->incarnation == b->incarnation);
			assert_string_equal(a->name, b->name);
			assert_string_equal(a->address, b->address);
		}
		mg_buf_free(&to);
	}
}

static void
every_truncated_view_is_refused(void **state)
{
	mg_view		view;
	mg_buf		to = {0};
	size_t		left;

	(void) state;
	random_view(&view, 3);
	mg_view_encode(&to, &view);
	for (size_t len = 0; len < to.len; len++)
	{
		assert_int_equal(decode_view(to.data, len, &view, &left), MG_E_TRUNCATED);
		assert_int_equal(view.n, 0);
	}
	mg_buf_free(&to);
}

static mg_status
decode_changed(const mg_view *view)
{
	mg_view		back;
	mg_buf		to = {0};
	mg_status	status;
	size_t		left;

	mg_view_encode(&to, view);
	status = decode_view(to.data, to.len, &back, &left);
	assert_true(status == MG_OK || back.n == 0);
	mg_buf_free(&to);
	return status;
}

static void
limits_of_a_view_are_kept(void **state)
{
	mg_view		view;
	mg_view		back;
	mg_buf		to = {0};
	size_t		left;
	size_t		n_at;

	(void) state;
	random_view(&view, 0);
	mg_view_encode(&to, &view);
	n_at = to.len - 4;
	for (uint32_t n = MG_MEMBERS_MAX + 1; n != 0; n *= 2)
	{
		mg_store_u32(to.data + n_at, n);
		assert_int_equal(decode_view(to.data, to.len, &back, &left), MG_E_TOO_BIG);
		assert_int_equal(back.n, 0);
	}
	mg_buf_free(&to);

	random_view(&view, 2);
	view.members[1].id = 0;
	assert_int_equal(decode_changed(&view), MG_E_FORMAT);
	random_view(&view, 2);
	view.members[1].weight = MG_WEIGHT_MAX + 1;
	assert_int_equal(decode_changed(&view), MG_E_FORMAT);
	random_view(&view, 2);
	view.members[1].role = MG_ROLE_ARBITRATOR + 1;
	assert_int_equal(decode_changed(&view), MG_E_FORMAT);
}

/* The texts' limits: a name one byte too long, one with a 0 in it. */
static void
texts_of_a_view_are_checked(void **state)
{
	mg_view		view;
	mg_view		back;
	mg_buf		to = {0};
	size_t		left;
	size_t		name_at;
	char		name[MG_NAME_BYTES_MAX + 1];

	(void) state;
	random_view(&view, 0);
	mg_view_encode(&to, &view);
	mg_store_u32(to.data + to.len - 4, 1);
	mg_buf_put_u32(&to, 1);		/* id */
	mg_buf_put_u8(&to, MG_ROLE_DATA);
	mg_buf_put_u8(&to, 0);
	mg_buf_put_u32(&to, 1);
	mg_buf_put_u32(&to, 1);
	mg_buf_put_u64(&to, 5);
	name_at = to.len;
	memset(name, 'n', sizeof(name));
	name[MG_NAME_BYTES_MAX - 1] = '\0';
	mg_buf_put_text(&to, name);
	mg_buf_put_text(&to, "h:1");
	mg_buf_put_text(&to, "h:5432");
	assert_int_equal(decode_view(to.data, to.len, &back, &left), MG_OK);
	assert_string_equal(back.members[0].name, name);

	to.data[name_at + 2 + 5] = '\0';
	assert_true(decode_view(to.data, to.len, &back, &left) != MG_OK);

	to.len = name_at;
	name[MG_NAME_BYTES_MAX - 1] = 'n';
	name[MG_NAME_BYTES_MAX] = '\0';
	mg_buf_put_text(&to, name);
	mg_buf_put_text(&to, "h:1");
	assert_true(decode_view(to.data, to.len, &back, &left) != MG_OK);
	mg_buf_free(&to);
}

static void
members_are_found(void **state)
{
	mg_view		view = {.n = 3};

	(void) state;
	for (uint32_t i = 0; i < view.n; i++)
	{
		view.members[i].id = 10 + i;
		view.members[i].incarnation = 100 + i;
		snprintf(view.members[i].name, sizeof(view.members[i].name), "n%u", i);
	}
	for (int i = 0; i < 3; i++)
	{
		assert_int_equal(mg_view_find(&view, 10 + (mg_member_id) i), i);
		assert_int_equal(mg_view_find_incarnation(&view, 100 + (uint64_t) i), i);
		assert_int_equal(mg_view_find_name(&view, view.members[i].name), i);
	}
	assert_int_equal(mg_view_find(&view, 13), -1);
	assert_int_equal(mg_view_find_incarnation(&view, 103), -1);
	assert_int_equal(mg_view_find_name(&view, "n"), -1);
}

/* ---- entries ---- */

static void
random_entry(mg_entry_header *h, uint8_t type)
{
	memset(h, 0, sizeof(*h));
	h->type = type;
	h->flags = (uint8_t) test_random_below(MG_ENTRY_FLAGS_ALL + 1);
	h->n_failed = (uint8_t) test_random_below(MG_ENTRY_FAILED_MAX + 1);
	if (type == MG_ENTRY_WRITESET)
	{
		h->origin = 1 + (mg_member_id) test_random_below(UINT32_MAX);
		h->msgno = 1 + test_random_below(INT64_MAX);
	}
	h->epoch = test_random();
	h->view_id = test_random();
	h->floor = test_random();
	for (int i = 0; i < h->n_failed; i++)
		h->failed[i] = (i > 0 ? h->failed[i - 1] : 0) + 1 + test_random_below(1000);
	h->cert_upto = (h->n_failed > 0 ? h->failed[h->n_failed - 1] : 0) + test_random_below(10);
}

static mg_status
decode_entry(const mg_buf *from, size_t len, mg_entry_header *h, size_t *left)
{
	uint8_t    *copy = malloc(len > 0 ? len : 1);
	mg_reader	r;
	mg_status	status;

	if (len > 0)
		memcpy(copy, from->data, len);
	mg_reader_init(&r, copy, len);
	status = mg_entry_decode(&r, h);
	*left = mg_reader_left(&r);
	free(copy);
	return status;
}

static void
entry_comes_back(void **state)
{
	(void) state;
	for (int k = 0; k < 1000; k++)
	{
		mg_entry_header h,
					back;
		mg_buf		to = {0};
		size_t		left;

		random_entry(&h, k % 2 == 0 ? MG_ENTRY_WRITESET : MG_ENTRY_VIEW);
		mg_entry_encode(&to, &h);
		mg_buf_put(&to, "payload", 7);
		assert_int_equal(decode_entry(&to, to.len, &back, &left), MG_OK);
		assert_int_equal(left, 7);
		assert_true(back.type == h.type && back.flags == h.flags && back.origin == h.origin && back.msgno == h.msgno);
		assert_true(back.epoch == h.epoch && back.view_id == h.view_id && back.floor == h.floor);
		assert_true(back.cert_upto == h.cert_upto && back.n_failed == h.n_failed);
		for (int i = 0; i < h.n_failed; i++)
			assert_true(back.failed[i] == h.failed[i]);
		for (size_t len = 0; len < to.len - 7; len++)
			assert_int_equal(decode_entry(&to, len, &back, &left), MG_E_TRUNCATED);
		mg_buf_free(&to);
	}
}

static mg_status
reencode(const mg_entry_header *h)
{
	mg_entry_header back;
	mg_buf		to = {0};
	mg_status	status;
	size_t		left;

	mg_entry_encode(&to, h);
	status = decode_entry(&to, to.len, &back, &left);
	mg_buf_free(&to);
	return status;
}

static void
entries_that_cannot_be_are_refused(void **state)
{
	mg_entry_header good,
				h;
	mg_buf		to = {0};
	size_t		left;

	(void) state;
	random_entry(&good, MG_ENTRY_WRITESET);
	good.n_failed = 3;
	good.failed[0] = 4;
	good.failed[1] = 5;
	good.failed[2] = 9;
	good.cert_upto = 9;
	assert_int_equal(reencode(&good), MG_OK);

	h = good, h.type = MG_ENTRY_NONE;
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.type = MG_ENTRY_VIEW + 1;
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.flags = MG_ENTRY_FLAGS_ALL + 1;
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.origin = 0;
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.msgno = 0;
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.msgno = (uint64_t) INT64_MAX + 1;
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.cert_upto = 8;	/* below one that it names */
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.failed[1] = 4;	/* twice */
	assert_int_equal(reencode(&h), MG_E_FORMAT);
	h = good, h.failed[1] = 3;	/* not ascending */
	assert_int_equal(reencode(&h), MG_E_FORMAT);

	/* More names than there can be; an array of that size is not even made. */
	mg_entry_encode(&to, &good);
	to.data[48] = MG_ENTRY_FAILED_MAX + 1;
	for (int i = 0; i < MG_ENTRY_FAILED_MAX; i++)
		mg_buf_put_u64(&to, 9);
	assert_int_equal(decode_entry(&to, to.len, &h, &left), MG_E_FORMAT);

	mg_store_u16(to.data, MG_LOG_VERSION + 1);
	assert_int_equal(decode_entry(&to, to.len, &h, &left), MG_E_VERSION);
	mg_buf_free(&to);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frame_comes_back),
		cmocka_unit_test(frame_without_messages_is_one),
		cmocka_unit_test(every_truncated_frame_is_refused),
		cmocka_unit_test(every_flipped_bit_is_refused),
		cmocka_unit_test(another_version_is_named),
		cmocka_unit_test(what_is_no_message_ends_the_frame),
		cmocka_unit_test(view_comes_back),
		cmocka_unit_test(every_truncated_view_is_refused),
		cmocka_unit_test(limits_of_a_view_are_kept),
		cmocka_unit_test(texts_of_a_view_are_checked),
		cmocka_unit_test(members_are_found),
		cmocka_unit_test(entry_comes_back),
		cmocka_unit_test(entries_that_cannot_be_are_refused),
	};

	test_seed("test_wire");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
