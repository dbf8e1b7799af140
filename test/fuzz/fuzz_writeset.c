/*
 * test/fuzz/fuzz_writeset.c - arbitrary bytes as writesets, and their way
 * through certification.
 *
 * The input is, first, opened as it is.  Second, it is cut into pieces {u8
 * control, u8 length, bytes}: each piece is the part of a writeset behind its
 * first 16 bytes, which are made right (magic, version, length, checksum), so
 * that the fuzzer reaches what lies behind the checksum.  What opens is
 * certified, with origin, flags and floor from the control byte; a second
 * index, rebuilt half-way with the known verdicts, must agree from there on.
 */
#include "core/cert.h"
#include "core/writeset.h"

#define PIECES_MAX	64
#define PIECE_BYTES_MAX (16 + 255)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

/* Touches all that an opened writeset promises. */
static void
walk(const mg_writeset *ws)
{
	mg_event	event;
	uint32_t	at = 0;
	uint32_t	n = 0;

	for (uint32_t i = 0; i < ws->header.n_keys; i++)
		sink += mg_writeset_key(ws, i);
	while (mg_writeset_next_event(ws, &at, &event))
	{
		MG_ASSERT(event.type > MG_EVENT_NONE && event.type < MG_EVENT_TYPE_COUNT);
		for (uint32_t i = 0; i < event.len; i++)
			sink += event.body[i];
		n++;
	}
	MG_ASSERT(n == ws->header.n_events && at == ws->header.events_len);
}

typedef struct piece
{
	uint8_t    *bytes;			/* of its own size on the heap: the sanitizer watches its end */
	mg_writeset ws;
	mg_seqno	floor;
	mg_member_id origin;
	bool		valid;
	bool		passed;
} piece;

static void
read_piece(mg_reader *r, mg_seqno seqno, piece *to)
{
	uint8_t		control = mg_read_u8(r);
	size_t		len = 16 + (size_t) mg_read_u8(r);
	uint8_t		full[PIECE_BYTES_MAX] = {0};

	if (len - 16 > mg_reader_left(r))
		len = 16 + mg_reader_left(r);
	mg_read_copy(r, full + 16, len - 16);
	mg_store_u32(full, MG_WRITESET_MAGIC);
	mg_store_u16(full + 4, MG_WRITESET_VERSION);
	mg_store_u16(full + 6, control & 3);
	mg_store_u32(full + 8, (uint32_t) len);
	mg_store_u32(full + 12, mg_crc32c(mg_crc32c(0, full, 12), full + 16, len - 16));

	to->bytes = mg_alloc(len);
	memcpy(to->bytes, full, len);
	to->origin = 1 + (control >> 2 & 3);
	to->floor = seqno - 1 > (control >> 4) ? seqno - 1 - (control >> 4) : 0;
	to->valid = mg_writeset_open(to->bytes, len, &to->ws) == MG_OK;
	if (to->valid)
		walk(&to->ws);
}

static mg_cert_result
feed(mg_cert *cert, mg_seqno seqno, const piece *p, bool known)
{
	mg_cert_result result = {MG_VERDICT_NONE, 0, 0};

	mg_cert_set_floor(cert, p->floor);
	if (!p->valid)
		mg_cert_skip(cert, seqno);
	else if (known)
		mg_cert_insert_known(cert, seqno, (mg_cert_origin) {p->origin, 1}, &p->ws, p->passed);
	else
		result = mg_cert_certify(cert, seqno, (mg_cert_origin) {p->origin, 1}, &p->ws);
	return result;
}

static void
certify_all(const uint8_t *data, size_t size)
{
	piece		pieces[PIECES_MAX];
	mg_cert    *full = mg_cert_new(0);
	mg_cert    *rebuilt = NULL;
	mg_seqno	half = size > 0 ? data[0] % PIECES_MAX : 0;
	mg_seqno	n = 0;
	mg_reader	r;

	mg_reader_init(&r, data, size);
	while (n < PIECES_MAX && mg_reader_left(&r) > 2)
	{
		piece	   *p = &pieces[n];
		mg_cert_result a,
					b;

		if (n == half)
		{
			/* From the very start: these floors do not respect reservations. */
			rebuilt = mg_cert_new(0);
			for (mg_seqno s = 1; s <= n; s++)
				feed(rebuilt, s, &pieces[s - 1], true);
		}
		n++;
		memset(p, 0, sizeof(*p));
		read_piece(&r, n, p);
		a = feed(full, n, p, false);
		p->passed = a.verdict == MG_VERDICT_PASS;
		MG_ASSERT(a.depends < n && a.against < n);
		MG_ASSERT(!p->passed || a.depends >= mg_cert_floor(full));
		if (rebuilt != NULL)
		{
			b = feed(rebuilt, n, p, false);
			MG_ASSERT(a.verdict == b.verdict && a.depends == b.depends && a.against == b.against);
			MG_ASSERT(mg_cert_key_count(full) == mg_cert_key_count(rebuilt));
			MG_ASSERT(mg_cert_reserved_count(full) == mg_cert_reserved_count(rebuilt));
		}
	}
	mg_cert_set_floor(full, n);
	MG_ASSERT(mg_cert_key_count(full) == 0);
	mg_cert_free(full);
	mg_cert_free(rebuilt);
	for (mg_seqno s = 0; s < n; s++)
		mg_free(pieces[s].bytes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mg_writeset ws;

	if (mg_writeset_open(data, size, &ws) == MG_OK)
		walk(&ws);
	certify_all(data, size);
	return 0;
}
