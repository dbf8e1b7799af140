/*
 * core/buf.c - growing byte buffers and checked readers.
 *
 * A reader has one gate, mg_read_bytes: every other read goes through it, so
 * there is one comparison with the end to get right.  It compares lengths,
 * never pointers past the end.
 */
#include "core/buf.h"

#define BUF_BYTES_MIN	64

void
mg_buf_free(mg_buf *buf)
{
	mg_free(buf->data);
	*buf = (mg_buf) {0};
}

void
mg_buf_reserve(mg_buf *buf, size_t more)
{
	size_t		cap = buf->cap > 0 ? buf->cap : BUF_BYTES_MIN;

	if (buf->cap - buf->len >= more)
		return;
	MG_ASSERT(more <= SIZE_MAX / 4 && buf->len <= SIZE_MAX / 4);
	while (cap - buf->len < more)
		cap *= 2;				/* doubling: putting n bytes costs O(n) */
	buf->data = mg_realloc(buf->data, cap);
	buf->cap = cap;
}

void
mg_buf_put(mg_buf *buf, const void *bytes, size_t len)
{
	if (len == 0)
		return;					/* memcpy from NULL is undefined even for 0 bytes */
	mg_buf_reserve(buf, len);
	memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
}

void
mg_buf_put_u8(mg_buf *buf, uint8_t v)
{
	mg_buf_put(buf, &v, 1);
}

void
mg_buf_put_u16(mg_buf *buf, uint16_t v)
{
	mg_buf_reserve(buf, 2);
	mg_store_u16(buf->data + buf->len, v);
	buf->len += 2;
}

void
mg_buf_put_u32(mg_buf *buf, uint32_t v)
{
	mg_buf_reserve(buf, 4);
	mg_store_u32(buf->data + buf->len, v);
	buf->len += 4;
}

void
mg_buf_put_u64(mg_buf *buf, uint64_t v)
{
	mg_buf_reserve(buf, 8);
	mg_store_u64(buf->data + buf->len, v);
	buf->len += 8;
}

void
mg_buf_set_u32(mg_buf *buf, size_t at, uint32_t v)
{
	MG_ASSERT(at < buf->len && buf->len - at >= 4);
	mg_store_u32(buf->data + at, v);
}

void
mg_buf_put_text(mg_buf *buf, const char *text)
{
	size_t		len = strlen(text);

	MG_ASSERT(len <= UINT16_MAX);
	mg_buf_put_u16(buf, (uint16_t) len);
	mg_buf_put(buf, text, len);
}

const uint8_t *
mg_read_bytes(mg_reader *r, size_t len)
{
	const uint8_t *at = r->p;

	if (r->bad || mg_reader_left(r) < len)
	{
		r->bad = true;
		return NULL;
	}
	if (len > 0)
		r->p += len;
	return at;
}

uint8_t
mg_read_u8(mg_reader *r)
{
	const uint8_t *p = mg_read_bytes(r, 1);

	return p != NULL ? *p : 0;
}

uint16_t
mg_read_u16(mg_reader *r)
{
	const uint8_t *p = mg_read_bytes(r, 2);

	return p != NULL ? mg_load_u16(p) : 0;
}

uint32_t
mg_read_u32(mg_reader *r)
{
	const uint8_t *p = mg_read_bytes(r, 4);

	return p != NULL ? mg_load_u32(p) : 0;
}

uint64_t
mg_read_u64(mg_reader *r)
{
	const uint8_t *p = mg_read_bytes(r, 8);

	return p != NULL ? mg_load_u64(p) : 0;
}

void
mg_read_copy(mg_reader *r, void *to, size_t len)
{
	const uint8_t *p = mg_read_bytes(r, len);

	if (len == 0)
		return;
	if (p != NULL)
		memcpy(to, p, len);
	else
		memset(to, 0, len);
}

void
mg_read_text(mg_reader *r, char *to, size_t cap)
{
	size_t		len = mg_read_u16(r);
	const uint8_t *p = mg_read_bytes(r, len);

	if (p == NULL || len >= cap || (len > 0 && memchr(p, 0, len) != NULL))
	{
		r->bad = true;
		len = 0;
	}
	if (len > 0)
		memcpy(to, p, len);
	if (cap > 0)
		to[len] = '\0';
}
