/*
 * core/base.c - names of statuses, the assertion, memory, UUIDs, CRC32C.
 *
 * The checksum runs over every byte that is sent or stored, so it has two
 * ways: the crc32 instruction of SSE 4.2, and tables that take eight bytes at
 * a time (Kounavis and Berry 2005, "slicing by 8").  Which one, and the tables,
 * are settled by a constructor, before anybody has a thread: a choice at the
 * first call would be a data race between the event loop and the flusher.
 */
#include "core/base.h"

#include <stdio.h>
#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define MG_CRC32C_SSE42
#include <nmmintrin.h>
#endif

const char *
mg_status_name(mg_status status)
{
	switch (status)
	{
		case MG_OK:
			return "ok";
		case MG_E_TRUNCATED:
			return "truncated";
		case MG_E_FORMAT:
			return "malformed";
		case MG_E_VERSION:
			return "unknown version";
		case MG_E_CHECKSUM:
			return "checksum mismatch";
		case MG_E_TOO_BIG:
			return "too big";
		case MG_E_FULL:
			return "full";
		case MG_E_NOT_FOUND:
			return "not found";
		case MG_E_STATE:
			return "not possible in this state";
		case MG_E_IO:
			return "input/output error";
		case MG_STATUS_COUNT:
			break;
	}
	return "unknown status";	/* a number from elsewhere */
}

void
mg_assert_failed(const char *what, const char *file, int line)
{
	fprintf(stderr, "mgrepl: assertion failed: %s (%s:%d)\n", what, file, line);
	fflush(stderr);
	abort();
}

void *
mg_alloc(size_t bytes)
{
	void	   *p = calloc(1, bytes > 0 ? bytes : 1);

	MG_ASSERT(p != NULL);
	return p;
}

void *
mg_realloc(void *p, size_t bytes)
{
	p = realloc(p, bytes > 0 ? bytes : 1);
	MG_ASSERT(p != NULL);
	return p;
}

void
mg_free(void *p)
{
	free(p);
}

/* ---- UUIDs ---- */

/* A hyphen stands before these bytes of the text form. */
static bool
hyphen_before(int byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

void
mg_uuid_format(const mg_uuid *uuid, char text[MG_UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++)
	{
		if (hyphen_before(i))
			*text++ = '-';
		*text++ = digits[uuid->bytes[i] >> 4];
		*text++ = digits[uuid->bytes[i] & 15];
	}
	*text = '\0';
}

/* The value of a hexadecimal digit, or -1. */
static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

mg_status
mg_uuid_parse(const char *text, mg_uuid *uuid)
{
	mg_uuid		parsed;

	/* Every step looks at one character, and stops at the 0. */
	for (int i = 0; i < 16; i++)
	{
		int			high,
					low;

		if (hyphen_before(i) && *text++ != '-')
			return MG_E_FORMAT;
		if ((high = hex_value(*text)) < 0)
			return MG_E_FORMAT;
		text++;
		if ((low = hex_value(*text)) < 0)
			return MG_E_FORMAT;
		text++;
		parsed.bytes[i] = (uint8_t) (high << 4 | low);
	}
	if (*text != '\0')
		return MG_E_FORMAT;
	*uuid = parsed;
	return MG_OK;
}

bool
mg_uuid_equal(const mg_uuid *a, const mg_uuid *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool
mg_uuid_is_zero(const mg_uuid *uuid)
{
	static const mg_uuid zero;

	return mg_uuid_equal(uuid, &zero);
}

/* ---- CRC32C ---- */

#define CRC32C_POLYNOMIAL	0x82f63b78u /* 0x1edc6f41, bits reversed */

/* crc32c_table[k][b]: what byte b does to the checksum, followed by k bytes of 0. */
static uint32_t crc32c_table[8][256];

static uint32_t (*crc32c_best) (uint32_t crc, const void *bytes, size_t len);

uint32_t
mg_crc32c_portable(uint32_t crc, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	crc = ~crc;
	for (; len >= 8; p += 8, len -= 8)
	{
		crc ^= (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 | (uint32_t) p[3] << 24;
		crc = crc32c_table[7][crc & 255] ^ crc32c_table[6][crc >> 8 & 255] ^
			crc32c_table[5][crc >> 16 & 255] ^ crc32c_table[4][crc >> 24] ^
			crc32c_table[3][p[4]] ^ crc32c_table[2][p[5]] ^
			crc32c_table[1][p[6]] ^ crc32c_table[0][p[7]];
	}
	for (; len > 0; p++, len--)
		crc = crc32c_table[0][(crc ^ *p) & 255] ^ crc >> 8;
	return ~crc;
}

#ifdef MG_CRC32C_SSE42
__attribute__((target("sse4.2")))
static uint32_t
crc32c_sse42(uint32_t crc, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint64_t	wide = ~crc;

	for (; len >= 8; p += 8, len -= 8)
	{
		uint64_t	eight;

		memcpy(&eight, p, sizeof(eight));	/* x86: little-endian as the format */
		wide = _mm_crc32_u64(wide, eight);
	}
	crc = (uint32_t) wide;
	for (; len > 0; p++, len--)
		crc = _mm_crc32_u8(crc, *p);
	return ~crc;
}
#endif

__attribute__((constructor))
static void
crc32c_settle(void)
{
	for (uint32_t b = 0; b < 256; b++)
	{
		uint32_t	crc = b;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
		crc32c_table[0][b] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (int b = 0; b < 256; b++)
		{
			uint32_t	crc = crc32c_table[k - 1][b];

			crc32c_table[k][b] = crc32c_table[0][crc & 255] ^ crc >> 8;
		}

	crc32c_best = mg_crc32c_portable;
#ifdef MG_CRC32C_SSE42
	__builtin_cpu_init();
	if (__builtin_cpu_supports("sse4.2"))
		crc32c_best = crc32c_sse42;
#endif
}

uint32_t
mg_crc32c(uint32_t crc, const void *bytes, size_t len)
{
	return crc32c_best(crc, bytes, len);
}
