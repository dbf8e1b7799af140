/*
 * core/buf.h - growing byte buffers and checked readers, little-endian.
 *
 * A writer owns its memory (mg_buf_free); all zeros is an empty one.  A reader borrows the bytes it walks
 * over; once it has met the end too early it stays `bad`, every later read
 * gives 0, and the caller asks once, at the end, with mg_reader_done().
 */
#ifndef MG_CORE_BUF_H
#define MG_CORE_BUF_H

#include "core/base.h"

typedef struct mg_buf
{
	uint8_t    *data;
	size_t		len;
	size_t		cap;
} mg_buf;

extern void mg_buf_free(mg_buf *buf);
extern void mg_buf_reserve(mg_buf *buf, size_t more);	/* room for `more` bytes behind len */
extern void mg_buf_put(mg_buf *buf, const void *bytes, size_t len);
extern void mg_buf_put_u8(mg_buf *buf, uint8_t v);
extern void mg_buf_put_u16(mg_buf *buf, uint16_t v);
extern void mg_buf_put_u32(mg_buf *buf, uint32_t v);
extern void mg_buf_put_u64(mg_buf *buf, uint64_t v);

/* Overwrites four bytes at `at`, which must be below len. */
extern void mg_buf_set_u32(mg_buf *buf, size_t at, uint32_t v);

/* u16 length, then the bytes without the 0.  Longer than 65535 is a bug. */
extern void mg_buf_put_text(mg_buf *buf, const char *text);

static inline void
mg_buf_reset(mg_buf *buf)
{
	buf->len = 0;
}

typedef struct mg_reader
{
	const uint8_t *p;
	const uint8_t *end;
	bool		bad;
} mg_reader;

static inline void
mg_reader_init(mg_reader *r, const void *bytes, size_t len)
{
	r->p = bytes;
	r->end = len > 0 ? r->p + len : r->p;	/* NULL and 0 are allowed */
	r->bad = false;
}

static inline size_t
mg_reader_left(const mg_reader *r)
{
	return (size_t) (r->end - r->p);
}

extern uint8_t mg_read_u8(mg_reader *r);
extern uint16_t mg_read_u16(mg_reader *r);
extern uint32_t mg_read_u32(mg_reader *r);
extern uint64_t mg_read_u64(mg_reader *r);
extern const uint8_t *mg_read_bytes(mg_reader *r, size_t len);	/* NULL when too few */
extern void mg_read_copy(mg_reader *r, void *to, size_t len);

/* Copies the text and a 0 into `to`; bad if it does not fit or holds a 0. */
extern void mg_read_text(mg_reader *r, char *to, size_t cap);

/* True if nothing was read past the end and nothing is left over. */
static inline bool
mg_reader_done(const mg_reader *r)
{
	return !r->bad && r->p == r->end;
}

/*
 * Single values at an address, any alignment.  Composed byte by byte: compilers
 * make one move of it, and the machine's own byte order does not matter.
 */
static inline void
mg_store_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t) v;
	p[1] = (uint8_t) (v >> 8);
}

static inline void
mg_store_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t) v;
	p[1] = (uint8_t) (v >> 8);
	p[2] = (uint8_t) (v >> 16);
	p[3] = (uint8_t) (v >> 24);
}

static inline void
mg_store_u64(uint8_t *p, uint64_t v)
{
	mg_store_u32(p, (uint32_t) v);
	mg_store_u32(p + 4, (uint32_t) (v >> 32));
}

static inline uint16_t
mg_load_u16(const uint8_t *p)
{
	return (uint16_t) (p[0] | p[1] << 8);
}

static inline uint32_t
mg_load_u32(const uint8_t *p)
{
	return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 | (uint32_t) p[3] << 24;
}

static inline uint64_t
mg_load_u64(const uint8_t *p)
{
	return (uint64_t) p[0] | (uint64_t) p[1] << 8 | (uint64_t) p[2] << 16 | (uint64_t) p[3] << 24 |
		(uint64_t) p[4] << 32 | (uint64_t) p[5] << 40 | (uint64_t) p[6] << 48 | (uint64_t) p[7] << 56;
}

#endif							/* MG_CORE_BUF_H */
