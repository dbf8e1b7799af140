/*
 * host/segment.h - where a record of the writeset log lies, and how to read it.
 *
 * The one part of host that appliers use: they read writesets straight from
 * the log's segment files, so that a writeset is never copied through shared
 * memory.  POSIX only.
 *
 * A segment file "<16 hex digits>.seg" starts with a 64-byte file header:
 *	 0 u32 magic "MGSF"   4 u32 version            8 u64 segment number
 *	16 u64 first seqno   24 u64 log id            32 zeros
 *	60 u32 crc32c of [0, 60)
 * A first seqno of 0 is a segment without records.  The log id is random, made
 * when the log is made or emptied; segments with another one are not of this
 * log.  A file whose header is all zeros was made ahead and never used.
 *
 * Then records follow, each aligned to 8 bytes:
 *	 0 u32 magic "MGLR"   4 u32 len (of the body)   8 u32 crc
 *	12 u32 version       16 u64 seqno              24 body
 * The crc is CRC32C over the segment number (8 bytes) and then [12, 24+len).
 * The number is in it because a recycled file still holds the records of the
 * segment that it was: they never verify under the new number.  Numbers grow
 * and are never given twice.  All integers are little-endian.
 */
#ifndef MG_HOST_SEGMENT_H
#define MG_HOST_SEGMENT_H

#include "core/base.h"
#include "host/recent.h"

#define MG_SEGMENT_HEADER_BYTES		64
#define MG_SEGMENT_MAGIC			0x4653474du		/* "MGSF" */
#define MG_RECORD_HEADER_BYTES		24
#define MG_RECORD_MAGIC				0x524c474du		/* "MGLR" */
#define MG_RECORD_BODY_BYTES_MAX	(MG_WRITESET_BYTES_MAX + 1024u * 1024u)

/* A record's place.  Valid until the log recycles or cuts the segment. */
typedef struct mg_log_place
{
	uint64_t	segment;		/* number in the file's name, counts from 1 */
	uint32_t	offset;			/* of the record header in the file */
	uint32_t	len;			/* of the body */
} mg_log_place;

/*
 * Reads the body at `place` into `to` (place.len bytes): from `recent` if it is
 * there, else from its file, and checks magic, seqno, length and checksum.  Keeps the last segment's descriptor open in
 * `reader`; one reader per process, no locks, no memory taken.  MG_E_IO,
 * MG_E_FORMAT, MG_E_CHECKSUM, MG_E_NOT_FOUND (the segment is gone, also when
 * it went while being read); then `to` holds nothing of use.
 */
typedef struct mg_segment_reader
{
	char		dir[1024];
	mg_recent  *recent;			/* set by the owner after init; NULL: none */
	uint64_t	segment;		/* 0: none open */
	int			fd;
} mg_segment_reader;

/* MG_E_TOO_BIG: the path does not fit. */
extern mg_status mg_segment_reader_init(mg_segment_reader *reader, const char *dir) MG_MUST_USE;
extern mg_status mg_segment_read(mg_segment_reader *reader, const mg_log_place *place,
								 mg_seqno seqno, void *to) MG_MUST_USE;
extern void mg_segment_reader_close(mg_segment_reader *reader);

/* "<dir>/<16 hex digits>.seg" */
extern void mg_segment_path(char *to, size_t cap, const char *dir, uint64_t segment);

/* What a record takes in its file: header, body, and zeros up to 8 bytes. */
static inline uint64_t
mg_record_bytes(uint32_t len)
{
	return (MG_RECORD_HEADER_BYTES + (uint64_t) len + 7) & ~UINT64_C(7);
}

/* Fills a record's header; the body goes behind it as it is. */
extern void mg_record_seal(uint8_t header[MG_RECORD_HEADER_BYTES], uint64_t segment,
						   mg_seqno seqno, const void *body, uint32_t len);

/* The crc of segment number and header; goes on over the body with mg_crc32c. */
extern uint32_t mg_record_crc_begin(const uint8_t header[MG_RECORD_HEADER_BYTES], uint64_t segment);

#endif							/* MG_HOST_SEGMENT_H */
