/*
 * core/wire.h - what nodes say to each other and what the log keeps: frames,
 * messages, entries, views.  Encoding and checked decoding, nothing else.
 *
 * Frame, little-endian:
 *	 0 u32 magic "MGFR"   4 u16 protocol version   6 u16 0
 *	 8 u32 total_len     12 u32 crc32c of [16, total_len)
 *	16 u64 sender's incarnation   24 u64 hash of the cluster's name, with its uuid from members
 *	32 u64 epoch  40 u32 sender's life  44 u32 flags (MG_FRAME_*)
 *	48 u32 sender's member id  52 u32 0
 *	56 messages: { u8 type, u32 len, body } until total_len
 * The header never changes: a node of another version can be recognised and
 * refused by name.
 *
 * Entry (a log record's body, and an element of MG_MSG_ENTRIES):
 *	 0 u16 version  2 u8 type  3 u8 flags  4 u32 origin  8 u64 msgno
 *	16 u64 epoch   24 u64 view id  32 u64 floor  40 u64 cert_upto
 *	48 u8 n_failed, n_failed * u64, payload to the end
 *
 * Stamps.  Every entry carries what certification needs to be the same
 * everywhere and rebuilt anywhere, as part of the order itself: `floor`, below
 * which no last_seen can arrive any more, and the verdicts of earlier entries:
 * all up to cert_upto are decided, and of those not yet named by an earlier
 * entry just `failed` failed.  So the log alone is enough to rebuild the index,
 * and every node checks its own verdicts against the leader's all the time.
 */
#ifndef MG_CORE_WIRE_H
#define MG_CORE_WIRE_H

#include "core/base.h"
#include "core/buf.h"

#define MG_FRAME_MAGIC			0x5246474du
#define MG_FRAME_HEADER_BYTES	56
#define MG_FRAME_BYTES_MAX		(MG_WRITESET_BYTES_MAX + 1024u * 1024u)
#define MG_ENTRY_FAILED_MAX		16
#define MG_WEIGHT_MAX			255

typedef enum mg_msg_type
{
	MG_MSG_NONE = 0,
	MG_MSG_JOIN_REQUEST,
	MG_MSG_JOIN_REPLY,
	MG_MSG_REFUSE,
	MG_MSG_PAYLOAD,
	MG_MSG_ORDER,
	MG_MSG_ACK,
	MG_MSG_FETCH,
	MG_MSG_ENTRIES,
	MG_MSG_LEAVE_REQUEST,
	MG_MSG_VOTE_REQUEST,
	MG_MSG_VOTE_REPLY,
	MG_MSG_LEAD,
	MG_MSG_NOT_MEMBER,
	MG_MSG_HANDOVER,
	MG_MSG_TYPE_COUNT
} mg_msg_type;

#define MG_FRAME_LEADING	0x01	/* the sender leads its epoch and hears a quorum */

typedef struct mg_frame_header
{
	uint64_t	incarnation;
	uint64_t	cluster_hash;
	uint64_t	epoch;			/* of the leader that the sender follows */
	uint32_t	life;			/* how often this member has started; 0 from who is none */
	uint32_t	flags;
	mg_member_id member;
} mg_frame_header;

/* Starts a frame in an empty buffer / sets its length and checksum at the end. */
extern void mg_frame_begin(mg_buf *frame, const mg_frame_header *header);
extern void mg_frame_end(mg_buf *frame);

/*
 * Checks magic, version, length and checksum and leaves `r` at the first
 * message.  On MG_E_VERSION *version is the sender's, and the frame is whole:
 * header and `r` are set all the same.
 */
extern mg_status mg_frame_open(const void *bytes, size_t len, mg_frame_header *header,
							   mg_reader *r, uint16_t *version) MG_MUST_USE;

/* Appends a message's header; mg_msg_end sets its length. Returns a mark for mg_msg_end. */
extern size_t mg_msg_begin(mg_buf *frame, mg_msg_type type);
extern void mg_msg_end(mg_buf *frame, size_t mark);

/* The next message; false at the end or (r->bad) when the bytes are not messages. */
extern bool mg_msg_next(mg_reader *r, mg_msg_type *type, mg_reader *body);

/* ---- views ---- */
typedef enum mg_role
{
	MG_ROLE_DATA = 0,
	MG_ROLE_ARBITRATOR			/* votes on leaders and views; its vote never stands for data */
} mg_role;

typedef struct mg_member
{
	mg_member_id id;
	uint8_t		role;			/* mg_role */
	uint8_t		segment;
	uint32_t	life;
	uint32_t	weight;
	uint64_t	incarnation;
	char		name[MG_NAME_BYTES_MAX];
	char		address[MG_ADDRESS_BYTES_MAX];
	char		sql_address[MG_ADDRESS_BYTES_MAX];	/* where clients reach its server, "": not told */
} mg_member;

typedef enum mg_left_how
{
	MG_LEFT_NOBODY = 0,
	MG_LEFT_GRACEFULLY,
	MG_LEFT_SUSPECTED,
	MG_LEFT_RESTARTED
} mg_left_how;

typedef struct mg_view
{
	uint64_t	id;				/* seqno of the entry that made it */
	uint64_t	epoch;
	uint64_t	members_id;		/* seqno of the last view that changed who counts: below it, all is agreed */
	mg_uuid		uuid;
	mg_member_id leader;
	mg_member_id next_member_id;	/* above all that were ever given in this log */
	mg_member_id joined;		/* 0: none; with MG_LEFT_RESTARTED and no `left`: came back in a new life */
	mg_member_id left;			/* 0: none */
	uint8_t		left_how;		/* mg_left_how */
	uint32_t	n;
	mg_member	members[MG_MEMBERS_MAX];
} mg_view;

extern void mg_view_encode(mg_buf *to, const mg_view *view);
extern mg_status mg_view_decode(mg_reader *r, mg_view *view) MG_MUST_USE;

/* Index in members, or -1. */
extern int	mg_view_find(const mg_view *view, mg_member_id id);
extern int	mg_view_find_incarnation(const mg_view *view, uint64_t incarnation);
extern int	mg_view_find_name(const mg_view *view, const char *name);

/* ---- entries ---- */
typedef enum mg_entry_type
{
	MG_ENTRY_NONE = 0,
	MG_ENTRY_WRITESET,
	MG_ENTRY_VIEW
} mg_entry_type;

/*
 * What must be so before the entry is delivered: a majority of the view's data
 * members, by weight, has flushed it, or only holds it in memory.  Whoever wants
 * more than that waits after the commit; nobody else is held up by it.
 */
#define MG_ENTRY_MAJORITY	0x00
#define MG_ENTRY_MEMORY		0x01
#define MG_ENTRY_FLAGS_ALL	0x01

typedef struct mg_entry_header
{
	uint8_t		type;			/* mg_entry_type */
	uint8_t		flags;			/* MG_ENTRY_* */
	uint8_t		n_failed;
	mg_member_id origin;
	uint64_t	msgno;			/* the origin's own count of its messages, from 1; 0 for views */
	uint64_t	epoch;
	uint64_t	view_id;
	mg_seqno	floor;
	mg_seqno	cert_upto;
	mg_seqno	failed[MG_ENTRY_FAILED_MAX];
} mg_entry_header;

/* Appends the header; the payload's bytes follow. */
extern void mg_entry_encode(mg_buf *to, const mg_entry_header *entry);

/* Reads the header; what is left in `r` is the payload. */
extern mg_status mg_entry_decode(mg_reader *r, mg_entry_header *entry) MG_MUST_USE;

#endif							/* MG_CORE_WIRE_H */
