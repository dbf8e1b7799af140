/*
 * core/wire.c - encoding and checked decoding of frames, messages, entries and
 * views.
 *
 * How: fixed headers are written field by field through core/buf.h, so that
 * layout never depends on a compiler; decoding never trusts a length and is
 * done (or refused) before any state is touched.
 */
#include "core/wire.h"

void
mg_frame_begin(mg_buf *frame, const mg_frame_header *header)
{
	MG_ASSERT(frame->len == 0);
	mg_buf_put_u32(frame, MG_FRAME_MAGIC);
	mg_buf_put_u16(frame, MG_PROTOCOL_VERSION);
	mg_buf_put_u16(frame, 0);
	mg_buf_put_u32(frame, 0);
	mg_buf_put_u32(frame, 0);
	mg_buf_put_u64(frame, header->incarnation);
	mg_buf_put_u64(frame, header->cluster_hash);
	mg_buf_put_u64(frame, header->epoch);
	mg_buf_put_u32(frame, header->life);
	mg_buf_put_u32(frame, header->flags);
	mg_buf_put_u32(frame, header->member);
	mg_buf_put_u32(frame, 0);
}

void
mg_frame_end(mg_buf *frame)
{
	MG_ASSERT(frame->len >= MG_FRAME_HEADER_BYTES && frame->len <= UINT32_MAX);
	mg_buf_set_u32(frame, 8, (uint32_t) frame->len);
	mg_buf_set_u32(frame, 12, mg_crc32c(0, frame->data + 16, frame->len - 16));
}

mg_status
mg_frame_open(const void *bytes, size_t len, mg_frame_header *header, mg_reader *r, uint16_t *version)
{
	uint32_t	crc;

	*version = 0;
	mg_reader_init(r, bytes, len);
	if (len < 16)
		return MG_E_TRUNCATED;
	if (mg_read_u32(r) != MG_FRAME_MAGIC)
		return MG_E_FORMAT;
	*version = mg_read_u16(r);
	if (mg_read_u16(r) != 0)
		return MG_E_FORMAT;
	if (mg_read_u32(r) != len)
		return MG_E_TRUNCATED;
	crc = mg_read_u32(r);
	if (len < MG_FRAME_HEADER_BYTES)
		return MG_E_TRUNCATED;
	if (mg_crc32c(0, (const uint8_t *) bytes + 16, len - 16) != crc)
		return MG_E_CHECKSUM;
	header->incarnation = mg_read_u64(r);
	header->cluster_hash = mg_read_u64(r);
	header->epoch = mg_read_u64(r);
	header->life = mg_read_u32(r);
	header->flags = mg_read_u32(r);
	header->member = mg_read_u32(r);
	(void) mg_read_u32(r);
	return *version == MG_PROTOCOL_VERSION ? MG_OK : MG_E_VERSION;
}

size_t
mg_msg_begin(mg_buf *frame, mg_msg_type type)
{
	size_t		mark;

	mg_buf_put_u8(frame, (uint8_t) type);
	mark = frame->len;
	mg_buf_put_u32(frame, 0);
	return mark;
}

void
mg_msg_end(mg_buf *frame, size_t mark)
{
	mg_buf_set_u32(frame, mark, (uint32_t) (frame->len - mark - 4));
}

bool
mg_msg_next(mg_reader *r, mg_msg_type *type, mg_reader *body)
{
	uint8_t		t;
	uint32_t	len;
	const uint8_t *bytes;

	if (r->bad || mg_reader_left(r) == 0)
		return false;
	t = mg_read_u8(r);
	len = mg_read_u32(r);
	bytes = mg_read_bytes(r, len);
	if (r->bad || bytes == NULL || t == MG_MSG_NONE || t >= MG_MSG_TYPE_COUNT)
	{
		r->bad = true;
		return false;
	}
	*type = (mg_msg_type) t;
	mg_reader_init(body, bytes, len);
	return true;
}

/* ---- views ---- */

void
mg_view_encode(mg_buf *to, const mg_view *view)
{
	mg_buf_put_u64(to, view->id);
	mg_buf_put_u64(to, view->epoch);
	mg_buf_put_u64(to, view->members_id);
	mg_buf_put(to, view->uuid.bytes, sizeof(view->uuid.bytes));
	mg_buf_put_u32(to, view->leader);
	mg_buf_put_u32(to, view->next_member_id);
	mg_buf_put_u32(to, view->joined);
	mg_buf_put_u32(to, view->left);
	mg_buf_put_u8(to, view->left_how);
	mg_buf_put_u32(to, view->n);
	for (uint32_t i = 0; i < view->n; i++)
	{
		const mg_member *m = &view->members[i];

		mg_buf_put_u32(to, m->id);
		mg_buf_put_u8(to, m->role);
		mg_buf_put_u8(to, m->segment);
		mg_buf_put_u32(to, m->life);
		mg_buf_put_u32(to, m->weight);
		mg_buf_put_u64(to, m->incarnation);
		mg_buf_put_text(to, m->name);
		mg_buf_put_text(to, m->address);
		mg_buf_put_text(to, m->sql_address);
	}
}

mg_status
mg_view_decode(mg_reader *r, mg_view *view)
{
	memset(view, 0, sizeof(*view));
	view->id = mg_read_u64(r);
	view->epoch = mg_read_u64(r);
	view->members_id = mg_read_u64(r);
	mg_read_copy(r, view->uuid.bytes, sizeof(view->uuid.bytes));
	view->leader = mg_read_u32(r);
	view->next_member_id = mg_read_u32(r);
	view->joined = mg_read_u32(r);
	view->left = mg_read_u32(r);
	view->left_how = mg_read_u8(r);
	view->n = mg_read_u32(r);
	if (r->bad)
		return MG_E_TRUNCATED;
	if (view->n > MG_MEMBERS_MAX)
	{
		view->n = 0;
		return MG_E_TOO_BIG;
	}
	for (uint32_t i = 0; i < view->n; i++)
	{
		mg_member  *m = &view->members[i];

		m->id = mg_read_u32(r);
		m->role = mg_read_u8(r);
		m->segment = mg_read_u8(r);
		m->life = mg_read_u32(r);
		m->weight = mg_read_u32(r);
		m->incarnation = mg_read_u64(r);
		mg_read_text(r, m->name, sizeof(m->name));
		mg_read_text(r, m->address, sizeof(m->address));
		mg_read_text(r, m->sql_address, sizeof(m->sql_address));
		if (r->bad || m->id == 0 || m->role > MG_ROLE_ARBITRATOR || m->weight > MG_WEIGHT_MAX)
		{
			view->n = 0;
			return r->bad ? MG_E_TRUNCATED : MG_E_FORMAT;
		}
	}
	return MG_OK;
}

int
mg_view_find(const mg_view *view, mg_member_id id)
{
	for (uint32_t i = 0; i < view->n; i++)
		if (view->members[i].id == id)
			return (int) i;
	return -1;
}

int
mg_view_find_incarnation(const mg_view *view, uint64_t incarnation)
{
	for (uint32_t i = 0; i < view->n; i++)
		if (view->members[i].incarnation == incarnation)
			return (int) i;
	return -1;
}

int
mg_view_find_name(const mg_view *view, const char *name)
{
	for (uint32_t i = 0; i < view->n; i++)
		if (strcmp(view->members[i].name, name) == 0)
			return (int) i;
	return -1;
}

/* ---- entries ---- */

void
mg_entry_encode(mg_buf *to, const mg_entry_header *entry)
{
	mg_buf_reserve(to, 64 + 8 * (size_t) entry->n_failed);
	mg_buf_put_u16(to, MG_LOG_VERSION);
	mg_buf_put_u8(to, entry->type);
	mg_buf_put_u8(to, entry->flags);
	mg_buf_put_u32(to, entry->origin);
	mg_buf_put_u64(to, entry->msgno);
	mg_buf_put_u64(to, entry->epoch);
	mg_buf_put_u64(to, entry->view_id);
	mg_buf_put_u64(to, entry->floor);
	mg_buf_put_u64(to, entry->cert_upto);
	mg_buf_put_u8(to, entry->n_failed);
	for (int i = 0; i < entry->n_failed; i++)
		mg_buf_put_u64(to, entry->failed[i]);
}

mg_status
mg_entry_decode(mg_reader *r, mg_entry_header *entry)
{
	uint16_t	version = mg_read_u16(r);

	if (r->bad)
		return MG_E_TRUNCATED;
	if (version != MG_LOG_VERSION)
		return MG_E_VERSION;
	entry->type = mg_read_u8(r);
	entry->flags = mg_read_u8(r);
	entry->origin = mg_read_u32(r);
	entry->msgno = mg_read_u64(r);
	entry->epoch = mg_read_u64(r);
	entry->view_id = mg_read_u64(r);
	entry->floor = mg_read_u64(r);
	entry->cert_upto = mg_read_u64(r);
	entry->n_failed = mg_read_u8(r);
	if (r->bad)
		return MG_E_TRUNCATED;
	if ((entry->type != MG_ENTRY_WRITESET && entry->type != MG_ENTRY_VIEW) ||
		(entry->flags & ~MG_ENTRY_FLAGS_ALL) != 0 ||
		entry->n_failed > MG_ENTRY_FAILED_MAX)
		return MG_E_FORMAT;
	if (entry->type == MG_ENTRY_WRITESET &&
		(entry->origin == 0 || entry->msgno == 0 || entry->msgno > INT64_MAX))
		return MG_E_FORMAT;
	for (int i = 0; i < entry->n_failed; i++)
	{
		entry->failed[i] = mg_read_u64(r);
		if (entry->failed[i] > entry->cert_upto || (i > 0 && entry->failed[i] <= entry->failed[i - 1]))
			return r->bad ? MG_E_TRUNCATED : MG_E_FORMAT;
	}
	return r->bad ? MG_E_TRUNCATED : MG_OK;
}
