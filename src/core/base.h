/*
 * core/base.h - the vocabulary that every room of the house shares.
 *
 * Decides: status codes, assertion, identifiers (node, sequence number, GTID),
 * hard limits.  Pure: C11 and libc's string functions.
 *
 * Trouble has three kinds (docs/architecture.md): a bug is MG_ASSERT, on in
 * every build; an operating error is an mg_status that must not be ignored and
 * that leaves the object unchanged; an outcome has its own enum.
 */
#ifndef MG_CORE_BASE_H
#define MG_CORE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Cluster-wide place in the one order.  Dense, counts from 1; 0 means none. */
typedef uint64_t mg_seqno;

/*
 * A member's number, given by the leader when it joins, never given twice
 * under one cluster UUID: a node that left and came back is another member.
 * 0 means none.
 */
typedef uint32_t mg_member_id;

typedef struct mg_uuid
{
	uint8_t		bytes[16];
} mg_uuid;

typedef struct mg_gtid
{
	mg_uuid		uuid;
	mg_seqno	seqno;
} mg_gtid;

/* Limits.  Each is checked where bytes come in. */
#define MG_MEMBERS_MAX			16		/* members and learners of a view */
#define MG_NAME_BYTES_MAX		64		/* node and cluster names, with the 0 */
#define MG_ADDRESS_BYTES_MAX	256		/* "host:port", with the 0 */
#define MG_REASON_BYTES_MAX		256		/* texts that explain a refusal, with the 0 */
#define MG_WRITESET_BYTES_MAX	(1024u * 1024u * 1024u)

/* Versions of what is spoken and what is stored. */
#define MG_PROTOCOL_VERSION		1
#define MG_WRITESET_VERSION		1
#define MG_LOG_VERSION			1

typedef enum mg_status
{
	MG_OK = 0,
	MG_E_TRUNCATED,				/* fewer bytes than the format needs */
	MG_E_FORMAT,				/* bytes that the format does not allow */
	MG_E_VERSION,				/* a version that this build does not speak */
	MG_E_CHECKSUM,				/* CRC32C differs */
	MG_E_TOO_BIG,				/* over a named limit */
	MG_E_FULL,					/* a bounded queue has no room: try later */
	MG_E_NOT_FOUND,
	MG_E_STATE,					/* not possible in the object's state */
	MG_E_IO,					/* the system refused: errno says why */
	MG_STATUS_COUNT
} mg_status;

/* "checksum mismatch" and the like; never NULL. */
extern const char *mg_status_name(mg_status status);

/* Reports file, line and text on standard error, then aborts. */
extern void mg_assert_failed(const char *what, const char *file, int line)
	__attribute__((noreturn, cold));

#define MG_ASSERT(cond) \
	((cond) ? (void) 0 : mg_assert_failed(#cond, __FILE__, __LINE__))

#define MG_MUST_USE __attribute__((warn_unused_result))

/* calloc and realloc that abort on exhaustion: the core has no half-way.  Never NULL, 0 bytes included. */
extern void *mg_alloc(size_t bytes);			/* zeroed */
extern void *mg_realloc(void *p, size_t bytes);
extern void mg_free(void *p);

#define MG_UUID_TEXT_BYTES 37	/* with the 0 */
extern void mg_uuid_format(const mg_uuid *uuid, char text[MG_UUID_TEXT_BYTES]);
/* The 36 characters of the canonical form, in either case; else MG_E_FORMAT. */
extern mg_status mg_uuid_parse(const char *text, mg_uuid *uuid) MG_MUST_USE;
extern bool mg_uuid_equal(const mg_uuid *a, const mg_uuid *b);
extern bool mg_uuid_is_zero(const mg_uuid *uuid);

/*
 * CRC32C (Castagnoli), as RFC 3720 appendix B.4.  Start with crc = 0; feeding
 * pieces one after the other gives the same value as feeding them at once.
 * Uses the processor's instruction on x86-64 with SSE 4.2; mg_crc32c_portable
 * gives the same value everywhere, at about a quarter of the speed.
 */
extern uint32_t mg_crc32c(uint32_t crc, const void *bytes, size_t len);
extern uint32_t mg_crc32c_portable(uint32_t crc, const void *bytes, size_t len);

/* 64-bit mixing function (the finalizer of splitmix64), for seeded choices and tables. */
static inline uint64_t
mg_mix64(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	return x;
}

#endif							/* MG_CORE_BASE_H */
