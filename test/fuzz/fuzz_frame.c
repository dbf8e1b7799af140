/*
 * test/fuzz/fuzz_frame.c - arbitrary bytes as frames, to nodes in every state.
 *
 * The whole input is opened as a frame, as it is.  Then its first byte chooses
 * a scene (a node alone, joining, leading, following, an arbitrator, come back
 * from its disk), and the rest is a play in it: frames composed of the input's
 * bytes and frames that the nodes really sent, changed on their way; between
 * them time, lost and late frames, submissions, commands, restarts.
 *
 * Lengths, checksum, and unless told otherwise the header, are made right, so
 * that the bytes get behind the checks that chance does not pass.  Nodes do not
 * have to stay in agreement under lies, but none may fall over, and what a
 * host relies on (cluster.h) has to hold.
 */
#include "cluster.h"

#define ACTS_MAX		48
#define MESSAGES_MAX	32
#define BODY_BYTES_MAX	4096
#define SWEEP_MAX		768

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct message
{
	mg_msg_type type;
	mg_buf		body;
} message;

typedef struct letter
{
	mg_frame_header header;
	bool		foreign;		/* of another version */
	bool		torn;			/* its last bytes are no message */
	message		m[MESSAGES_MAX];
	int			n;
} letter;

static void
letter_free(letter *l)
{
	for (int k = 0; k < l->n; k++)
		mg_buf_free(&l->m[k].body);
}

static void
letter_add(letter *l, mg_msg_type type, const void *body, size_t len)
{
	if (l->n == MESSAGES_MAX)
		return;
	l->m[l->n] = (message) {.type = type};
	mg_buf_put(&l->m[l->n++].body, body, len);
}

static void
letter_post(cluster *c, int to, const letter *l)
{
	mg_buf		frame = {0};

	mg_frame_begin(&frame, &l->header);
	for (int k = 0; k < l->n; k++)
	{
		size_t		mark = mg_msg_begin(&frame, l->m[k].type);

		mg_buf_put(&frame, l->m[k].body.data, l->m[k].body.len);
		mg_msg_end(&frame, mark);
	}
	if (l->torn)
		mg_buf_put(&frame, "\x05\xff", 2);
	mg_frame_end(&frame);
	if (l->foreign)
		mg_store_u16(frame.data + 4, MG_PROTOCOL_VERSION + 1);
	receive(c, to, frame.data, frame.len);
	mg_buf_free(&frame);
}

/*
 * The header as host `from` would write it, and what the control bytes change:
 * another sender, a neighbouring epoch or life, the claim to lead.
 */
static mg_frame_header
header_of(const cluster *c, int from, int to, mg_reader *r)
{
	mg_frame_header h = c->h[from].spoken;
	uint8_t		control = mg_read_u8(r);

	if (h.incarnation == 0)
		h = c->h[to].spoken;	/* it never spoke: the hash at least is known */
	h.epoch = mg_node_epoch(c->h[to].node) + (control & 3);
	if ((control & 3) == 3)
		h.epoch -= 4;
	h.flags ^= (control >> 2 & 1) * MG_FRAME_LEADING;
	if ((control & 8) != 0)
		h.incarnation ^= 8;		/* a stranger */
	if ((control & 16) != 0)
		h.life++;
	if ((control & 32) != 0)
		h.member = mg_read_u8(r) % 5;
	if ((control & 64) != 0)
		h.cluster_hash ^= 1;
	if ((control & 128) != 0)
		h.epoch = mg_read_u64(r);
	return h;
}

/* {u8 type, u8 length, body}, until a type 0 */
static void
compose(cluster *c, int to, mg_reader *r)
{
	letter		l = {.n = 0};
	uint8_t		from = mg_read_u8(r);
	uint8_t		type;

	l.foreign = (from & 0x80) != 0;
	l.torn = (from & 0x40) != 0;
	l.header = header_of(c, from % c->n, to, r);
	while (l.n < MESSAGES_MAX && (type = mg_read_u8(r)) % MG_MSG_TYPE_COUNT != MG_MSG_NONE)
	{
		size_t		len = mg_read_u8(r);

		if (len > mg_reader_left(r))
			len = mg_reader_left(r);
		letter_add(&l, type % MG_MSG_TYPE_COUNT, mg_read_bytes(r, len), len);
	}
	letter_post(c, to, &l);
	letter_free(&l);
}

/* Numbers that are somebody's limit, or just above. */
static uint64_t
number(uint8_t value)
{
	static const uint64_t limits[] = {256, 257, 4095, 4096, 65536, INT32_MAX, UINT32_MAX, UINT32_MAX + UINT64_C(1),
	UINT64_MAX / 4, UINT64_MAX / 2, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};

	return value < 240 ? value : limits[value % 13];
}

/* One change to the bytes of a message. */
static void
change(message *m, uint8_t what, size_t at, uint8_t value)
{
	uint8_t    *p;
	size_t		left;

	if (m->body.len == 0)
		return;
	at %= m->body.len;
	p = m->body.data + at;
	left = m->body.len - at;
	switch (what)
	{
		case 0:
			*p ^= value;
			break;
		case 1:
			*p = value;
			break;
		case 2:
			if (left >= 4)
				mg_store_u32(p, (uint32_t) number(value));
			break;
		case 3:
			if (left >= 8)
				mg_store_u64(p, number(value));
			break;
		case 4:
			if (left >= 8)		/* a neighbour of what is there */
				mg_store_u64(p, mg_load_u64(p) + (uint64_t) (int8_t) value);
			break;
		case 5:
			m->body.len = at;
			break;
	}
}

/* One change to a real frame. */
static void
edit(letter *l, mg_reader *r)
{
	uint8_t		what = mg_read_u8(r);
	message    *m = &l->m[what >> 4 & (l->n > 1 ? 3 : 0)];
	size_t		at = mg_read_u8(r);
	uint8_t		value = mg_read_u8(r);

	l->foreign = (what & 0x40) != 0;
	if (m >= l->m + l->n)
		return;
	if ((what & 0x80) != 0)
		at += 256;
	switch (what & 15)
	{
		case 6:
			if (value < mg_reader_left(r) && m->body.len < BODY_BYTES_MAX)
				mg_buf_put(&m->body, mg_read_bytes(r, value), value);
			break;
		case 7:
			mg_buf_reset(&m->body);
			break;
		case 8:
			if (value % MG_MSG_TYPE_COUNT != MG_MSG_NONE)
				m->type = value % MG_MSG_TYPE_COUNT;
			break;
		case 9:
			letter_add(l, m->type, m->body.data, m->body.len);
			break;
		case 10:
			l->header.epoch += (uint64_t) (int8_t) value;
			break;
		case 11:
			l->header.epoch = number(value);
			break;
		case 12:
			l->header.member = (mg_member_id) number(value);
			break;
		case 13:
			l->header.life = (uint32_t) number(value);
			break;
		case 14:
			l->header.incarnation = 16 * (uint64_t) (1 + value % HOSTS_MAX) + value / 64;
			break;
		case 15:
			l->header.flags ^= value;
			break;
		default:
			change(m, what & 15, at, value);
			break;
	}
}

/* The frame comes down many times, each time with the same change at another place. */
static void
sweep(cluster *c, int to, letter *l, mg_reader *r)
{
	uint8_t		what = mg_read_u8(r);
	message    *m = &l->m[what >> 4 & 3];
	uint8_t		value = mg_read_u8(r);
	mg_buf		whole;

	if (m >= l->m + l->n)
		return;
	whole = m->body;
	for (size_t at = 0; at < whole.len && at < SWEEP_MAX; at++)
	{
		m->body = (mg_buf) {0};
		mg_buf_put(&m->body, whole.data, whole.len);
		change(m, what % 6, at, value);
		letter_post(c, to, l);
		mg_buf_free(&m->body);
	}
	m->body = whole;
}

/* A frame on its way comes down changed, or at somebody else's; it may stay on its way as well. */
static void
falsify(cluster *c, mg_reader *r)
{
	uint8_t		which = mg_read_u8(r);
	uint8_t		edits = mg_read_u8(r);
	letter		l = {.n = 0};
	mg_reader	frame,
				body;
	mg_msg_type type;
	uint16_t	version;
	flying		f;

	if (c->n_flight == 0)
		return;
	f = c->flight[which % c->n_flight];
	if (c->h[f.to].node == NULL)
		return;
	MG_ASSERT(mg_frame_open(f.frame.data, f.frame.len, &l.header, &frame, &version) == MG_OK);
	while (l.n < MESSAGES_MAX && mg_msg_next(&frame, &type, &body))
		letter_add(&l, type, body.p, mg_reader_left(&body));
	if ((edits & 0x40) == 0)
	{
		f = take_off(c, which % c->n_flight);
		bytes_free(&f.frame);
	}
	for (int k = edits % 8; k > 0; k--)
		edit(&l, r);
	if ((edits & 0x20) != 0)
		sweep(c, f.to, &l, r);
	if ((edits & 0x80) != 0 && c->h[(f.to + 1) % c->n].node != NULL)
		f.to = (f.to + 1) % c->n;
	letter_post(c, f.to, &l);
	letter_free(&l);
}

static void
command(cluster *c, int i, mg_reader *r)
{
	uint8_t		what = mg_read_u8(r);
	char		text[256] = "";

	if (what >= 128)
	{
		/* Addresses that somebody mistyped. */
		mg_read_copy(r, text, mg_reader_left(r) < what - 127u ? mg_reader_left(r) : what - 127u);
		feed(c, i, (mg_input) {.type = MG_IN_JOIN,.text = text});
		end_round(c, i);
		return;
	}
	switch (what % 5)
	{
		case 0:
			feed(c, i, (mg_input) {.type = MG_IN_LEAVE});
			break;
		case 1:
			feed(c, i, (mg_input) {.type = MG_IN_JOIN,.text = "h:0,h:1,h:2"});
			break;
		case 2:
			feed(c, i, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = c->uuid});
			break;
		case 3:
			feed(c, i, (mg_input) {.type = MG_IN_BOOTSTRAP,.uuid = c->uuid,.up = true});
			break;
		case 4:
			feed(c, i, (mg_input) {.type = MG_IN_LOG_FIRST,.seqno = c->h[i].committed});
			break;
	}
	end_round(c, i);
}

static void
act(cluster *c, mg_reader *r)
{
	static const int64_t times[] = {1000, 20000, 150000, 1100000, 3500000};
	uint8_t		what = mg_read_u8(r);
	int			i = (what >> 4) % c->n;
	uint8_t		arg;

	if (c->h[i].node == NULL)
	{
		resume(c, i, (what & 1) == 0);
		return;
	}
	if (c->h[i].evicted)
		renew(c, i);
	switch (what & 15)
	{
		case 0:
		case 1:
			compose(c, i, r);
			break;
		case 2:
		case 3:
		case 4:
		case 5:
			falsify(c, r);
			break;
		case 6:
			land(c);
			break;
		case 7:
			arg = mg_read_u8(r);
			if (c->n_flight > 0)
			{
				flying		f = take_off(c, arg % c->n_flight);

				bytes_free(&f.frame);
			}
			break;
		case 8:
			pass(c, times[mg_read_u8(r) % 5]);
			break;
		case 9:
			run(c, 1 + mg_read_u8(r) % 8);
			break;
		case 10:
			arg = mg_read_u8(r);
			receive(c, i, mg_read_bytes(r, arg < mg_reader_left(r) ? arg : 0), arg < mg_reader_left(r) ? arg : 0);
			break;
		case 11:
			arg = mg_read_u8(r);
			submit(c, i, arg % SLOTS_MAX, arg >> 6, mg_read_u8(r));
			break;
		case 12:
			arg = mg_read_u8(r);
			feed(c, i, (mg_input) {.type = MG_IN_LINK,.peer = arg % MG_PEERS_MAX,.up = (arg & 0x80) != 0});
			end_round(c, i);
			break;
		case 13:
			command(c, i, r);
			break;
		case 14:
			arg = mg_read_u8(r);
			stop(c, i);
			if ((arg & 3) != 3)
				resume(c, i, (arg & 3) != 2);
			break;
		case 15:
			c->h[i].stalled = !c->h[i].stalled;
			break;
	}
}

static cluster *
scene(uint8_t which)
{
	cluster    *c;

	switch (which % 9)
	{
		case 0:					/* open */
			return cluster_new(1, false);
		case 1:					/* joins nobody */
			c = cluster_new(1, false);
			join(c, 0, "h:1,h:2");
			return c;
		case 2:					/* leads itself */
			c = cluster_new(1, false);
			cluster_form(c);
			return c;
		case 3:					/* one leads, one joins */
			c = cluster_new(2, false);
			bootstrap(c, 0, false);
			join(c, 1, "h:0");
			return c;
		case 4:
			c = cluster_new(2, false);
			cluster_form(c);
			return c;
		case 5:
			c = cluster_new(3, false);
			cluster_form(c);
			return c;
		case 6:
			c = cluster_new(3, true);
			cluster_form(c);
			return c;
		case 7:					/* back from its disk, alone */
			c = cluster_new(2, false);
			cluster_form(c);
			submit(c, 0, 0, 1, 0);
			run(c, 3);
			stop(c, 0);
			stop(c, 1);
			resume(c, 1, true);
			return c;
		default:				/* the leader is gone */
			c = cluster_new(3, false);
			cluster_form(c);
			submit(c, 1, 0, 1, 0);
			stop(c, 0);
			return c;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mg_frame_header header;
	uint16_t	version;
	mg_msg_type type;
	mg_reader	r,
				body;
	cluster    *c;

	if (mg_frame_open(data, size, &header, &r, &version) == MG_OK)
		while (mg_msg_next(&r, &type, &body))
			MG_ASSERT(type > MG_MSG_NONE && type < MG_MSG_TYPE_COUNT && body.end <= r.p);
	if (size == 0)
		return 0;
	mg_reader_init(&r, data, size);
	c = scene(mg_read_u8(&r));
	for (int k = 0; k < ACTS_MAX && mg_reader_left(&r) > 0; k++)
		act(c, &r);
	cluster_free(c);
	return 0;
}
