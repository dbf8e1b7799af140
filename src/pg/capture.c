/*
 * pg/capture.c - the open writeset of this backend.
 *
 * How: events are appended to one string of bytes in arrival order.  What is
 * over mgrepl.capture_mem moves to a temporary file, so that byte `spilled` is
 * the first of those in memory.  Beside it only runs are kept: a run is a
 * stretch of events with one command id, 16 bytes.  Sorting the events by
 * command id is sorting the runs; in the usual case they are in order and the
 * bytes go out as they came.
 *
 * Order: AFTER triggers fire at the end of the statement, and a user's trigger
 * that changes other rows makes their events arrive before those of the
 * statement that fired it.  The true order is the command id of the row
 * version, then arrival.  A RELATION event is no row; it sorts with the lowest
 * command id of all that arrived after it, so it stays before the rows that
 * need it and behind a statement that made the table.
 *
 * Savepoints: nothing happens when a subtransaction starts.  The first change
 * captured at a nesting level notes where the writeset stood; a rollback of
 * that level, or of one below, cuts there.  (As PostgreSQL's own per-level
 * stacks do; rejected: a note per savepoint, paid also by those who never
 * write.)
 *
 * Rows are written by PostgreSQL's logical replication encoder.  It writes a
 * value that is stored out of line as "unchanged", so whatever did change is
 * fetched first.  It converts text to the client's encoding, and text output
 * obeys the session's settings; both are neutralized around it where they
 * matter.
 *
 * The temporary file is not bound to a resource owner: it outlives portals and
 * subtransactions and is closed by mgrepl_capture_reset.  That needs no flush
 * and cannot fail, which BufFile could not promise.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "pgstat.h"
#include "replication/logicalproto.h"
#include "storage/fd.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "pg/capture.h"
#include "pg/commit.h"
#include "pg/compat.h"
#include "pg/error.h"
#include "pg/ddl.h"
#include "pg/guc.h"
#include "pg/keys.h"
#include "pg/relation.h"
#include "pg/shmem.h"

/*
 * The trigger's name sorts before those of referential actions and, as a rule,
 * of users: rows then mostly arrive in command order.
 */
#define CAPTURE_TRIGGER_NAME	"00_mgrepl_capture"
#define CAPTURE_SCHEMA			"mgrepl"
#define CAPTURE_FUNCTION		"capture_row"

#define EMIT_CHUNK_BYTES		65536
#define CAPTURE_MEM_BYTES_MAX	(256 * 1024 * 1024) /* a StringInfo ends at 1 GB, one row must fit behind */

PG_FUNCTION_INFO_V1(mgrepl_capture_row);

/* Events that lie together and share a command id; or one RELATION event. */
typedef struct MgRun
{
	uint32		offset;
	uint32		len;
	CommandId	cid;
	bool		relation;
} MgRun;

/* How far the writeset has come. */
typedef struct MgPosition
{
	uint32		bytes;			/* of events */
	uint32		n_events;
	uint32		n_statements;
	uint32		n_runs;
	uint32		n_keys;
	uint32		n_announced;
} MgPosition;

typedef struct MgSavepoint
{
	int			level;			/* transaction nesting level that began to write */
	MgPosition	start;
} MgSavepoint;

typedef struct MgOpenWriteset
{
	bool		open;
	bool		closed;			/* by mgrepl_capture_close */
	bool		used_sequence;	/* sequences do not roll back, so neither does this */
	MgPosition	at;

	StringInfoData buf;			/* events from byte `spilled` on */
	uint32		spilled;
	File		file;			/* 0: none */

	MgRun	   *runs;
	uint32		cap_runs;
	mg_key	   *keys;
	uint32		cap_keys;
	MgRelInfo **announced;		/* tables with a RELATION event, in order */
	uint32		cap_announced;
	MgSavepoint *savepoints;
	uint32		n_savepoints;
	uint32		cap_savepoints;
} MgOpenWriteset;

uint64		mgrepl_writeset_number = 0;
MemoryContext mgrepl_writeset_cxt = NULL;

static MgOpenWriteset ws;

/* ---- beginning, savepoints, end ---- */

/* *array, grown to hold one more of `size` bytes. */
static void
make_room(void **array, uint32 n, uint32 *cap, Size size)
{
	if (n < *cap)
		return;
	*cap *= 2;
	*array = repalloc_huge(*array, (Size) *cap * size);
}

static void
begin_writeset(void)
{
	MemoryContext caller;

	if (IsolationIsSerializable())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("SERIALIZABLE is not available across the cluster"),
				 errhint("Use REPEATABLE READ.")));
	mgrepl_commit_require_ready();

	if (mgrepl_writeset_cxt == NULL)
		mgrepl_writeset_cxt = AllocSetContextCreate(TopMemoryContext, "mgrepl writeset",
													ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(mgrepl_writeset_cxt);
	memset(&ws, 0, sizeof(ws));
	initStringInfo(&ws.buf);
	ws.cap_runs = 16;
	ws.runs = palloc(ws.cap_runs * sizeof(MgRun));
	ws.cap_keys = 64;
	ws.keys = palloc(ws.cap_keys * sizeof(mg_key));
	ws.cap_announced = 16;
	ws.announced = palloc(ws.cap_announced * sizeof(MgRelInfo *));
	ws.cap_savepoints = 8;
	ws.savepoints = palloc(ws.cap_savepoints * sizeof(MgSavepoint));
	MemoryContextSwitchTo(caller);

	mgrepl_writeset_number++;
	ws.open = true;
}

/* Before anything is added. */
static inline void
prepare_to_add(void)
{
	int			level;

	if (unlikely(!ws.open))
		begin_writeset();
	Assert(!ws.closed);

	level = GetCurrentTransactionNestLevel();
	if (level > 1 &&
		(ws.n_savepoints == 0 || ws.savepoints[ws.n_savepoints - 1].level < level))
	{
		make_room((void **) &ws.savepoints, ws.n_savepoints, &ws.cap_savepoints, sizeof(MgSavepoint));
		ws.savepoints[ws.n_savepoints].level = level;
		ws.savepoints[ws.n_savepoints].start = ws.at;
		ws.n_savepoints++;
	}
}

static void
cut_back(const MgPosition *to)
{
	for (uint32 i = to->n_announced; i < ws.at.n_announced; i++)
		ws.announced[i]->announced = 0;

	/* The file may stay too long: it is written and read by offset. */
	if (to->bytes < ws.spilled)
		ws.spilled = to->bytes;
	ws.buf.len = to->bytes - ws.spilled;

	ws.at = *to;
	if (ws.at.n_runs > 0)
	{
		MgRun	   *last = &ws.runs[ws.at.n_runs - 1];

		last->len = ws.at.bytes - last->offset;
	}
}

void
mgrepl_capture_subxact(SubXactEvent event, SubTransactionId my, SubTransactionId parent)
{
	int			level;
	MgSavepoint *top;

	if (!ws.open || ws.n_savepoints == 0)
		return;
	level = GetCurrentTransactionNestLevel();
	top = &ws.savepoints[ws.n_savepoints - 1];
	if (top->level < level)
		return;

	switch (event)
	{
		case SUBXACT_EVENT_ABORT_SUB:
			cut_back(&top->start);
			ws.n_savepoints--;
			break;
		case SUBXACT_EVENT_COMMIT_SUB:
			/* What it wrote belongs to its parent now, which may have a note already. */
			if (level == 2 || (ws.n_savepoints > 1 && top[-1].level == level - 1))
				ws.n_savepoints--;
			else
				top->level--;
			break;
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;
	}
}

void
mgrepl_capture_reset(void)
{
	if (!ws.open)
		return;
	if (ws.file > 0)
		FileClose(ws.file);
	memset(&ws, 0, sizeof(ws));
	MemoryContextReset(mgrepl_writeset_cxt);
	mgrepl_relation_sweep();
}

bool
mgrepl_capture_pending(void)
{
	return ws.open && ws.at.n_events > 0;
}

bool
mgrepl_capture_used_sequence(void)
{
	return ws.open && ws.used_sequence;
}

/* ---- adding ---- */

void
mgrepl_capture_key(mg_key key)
{
	prepare_to_add();
	make_room((void **) &ws.keys, ws.at.n_keys, &ws.cap_keys, sizeof(mg_key));
	ws.keys[ws.at.n_keys++] = key;
}

static uint64
bytes_max(void)
{
	return Min((uint64) mgrepl_max_ws_size_kb * 1024, MG_WRITESET_BYTES_MAX);
}

static Size
memory_max(void)
{
	return Min((Size) mgrepl_capture_mem_kb * 1024, CAPTURE_MEM_BYTES_MAX);
}

static void
refuse_if_too_big(uint64 bytes)
{
	if (bytes > bytes_max())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the transaction's writeset is larger than %llu bytes",
						(unsigned long long) bytes_max()),
				 errhint("Change fewer rows per transaction, or raise mgrepl.max_ws_size on all nodes.")));
}

static void
spill(void)
{
	uint32		done = 0;

	if (ws.file <= 0)
		ws.file = OpenTemporaryFile(true);

	while (done < (uint32) ws.buf.len)
	{
		int			n = FileWrite(ws.file, ws.buf.data + done, ws.buf.len - done,
								  (off_t) ws.spilled + done, WAIT_EVENT_BUFFILE_WRITE);

		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to file \"%s\": %m", FilePathName(ws.file))));
		}
		done += n;
	}
	ws.spilled += done;

	/* One huge row must not keep its memory for the rest of the transaction. */
	if (ws.buf.maxlen > 2 * memory_max() + EMIT_CHUNK_BYTES)
	{
		MemoryContext caller = MemoryContextSwitchTo(mgrepl_writeset_cxt);

		pfree(ws.buf.data);
		initStringInfo(&ws.buf);
		MemoryContextSwitchTo(caller);
	}
	else
		resetStringInfo(&ws.buf);
}

/*
 * An event is written straight behind the others: begin_event leaves room for
 * its header, the body is appended to ws.buf, end_event makes it count.  An
 * error in between rolls back to a position before it.
 */
static void
begin_event(void)
{
	Assert(ws.buf.len == ws.at.bytes - ws.spilled);
	if (ws.buf.len > memory_max())
		spill();
	enlargeStringInfo(&ws.buf, MG_EVENT_HEADER_BYTES);
	ws.buf.len += MG_EVENT_HEADER_BYTES;
}

static void
end_event(mg_event_type type, CommandId cid)
{
	uint32		start = ws.at.bytes - ws.spilled;
	uint32		len = ws.buf.len - start;
	uint8	   *header = (uint8 *) ws.buf.data + start;
	bool		relation = type == MG_EVENT_RELATION;
	MgRun	   *run = ws.at.n_runs > 0 ? &ws.runs[ws.at.n_runs - 1] : NULL;

	refuse_if_too_big((uint64) ws.at.bytes + len + MG_WRITESET_HEADER_BYTES);
	header[0] = type;
	mg_store_u32(header + 1, len - MG_EVENT_HEADER_BYTES);

	if (run == NULL || relation || run->relation || run->cid != cid)
	{
		make_room((void **) &ws.runs, ws.at.n_runs, &ws.cap_runs, sizeof(MgRun));
		run = &ws.runs[ws.at.n_runs++];
		run->offset = ws.at.bytes;
		run->len = 0;
		run->cid = cid;
		run->relation = relation;
	}
	run->len += len;
	ws.at.bytes += len;
	ws.at.n_events++;
	if (type == MG_EVENT_STATEMENT)
		ws.at.n_statements++;
}

void
mgrepl_capture_statement(const char *sql)
{
	static mg_buf body;			/* kept, so that an error leaks nothing */

	prepare_to_add();
	mg_buf_reset(&body);
	mgrepl_ddl_encode(&body, sql);
	begin_event();
	appendBinaryStringInfo(&ws.buf, (const char *) body.data, body.len);
	end_event(MG_EVENT_STATEMENT, GetCurrentCommandId(false));
}

/* The table's first row in this writeset: its RELATION event and branch keys. */
static void
announce(MgRelInfo *info, CommandId cid)
{
	static mg_buf body;

	mg_buf_reset(&body);
	mg_buf_put_u32(&body, info->relid);
	mg_buf_put_text(&body, info->schema);
	mg_buf_put_text(&body, info->name);
	mg_buf_put_u64(&body, info->fingerprint);

	make_room((void **) &ws.announced, ws.at.n_announced, &ws.cap_announced, sizeof(MgRelInfo *));
	begin_event();
	appendBinaryStringInfo(&ws.buf, (const char *) body.data, body.len);
	end_event(MG_EVENT_RELATION, cid);
	mgrepl_keys_branches(info->keys);

	info->announced = mgrepl_writeset_number;
	ws.announced[ws.at.n_announced++] = info;
}

/* ---- rows ---- */

/*
 * The row as it is to be sent: what is stored out of line is fetched, except
 * (`old` given) where the old row has the very same pointer.  Most rows come
 * back untouched.  The trigger's own slot is not changed: other triggers see it.
 */
static TupleTableSlot *
fetch_toasted(const MgRelInfo *info, TupleTableSlot *row, TupleTableSlot *old, TupleTableSlot *copy)
{
	TupleTableSlot *result = row;

	slot_getallattrs(row);
	for (int i = 0; i < info->n_toastable; i++)
	{
		int			at = info->toastable[i] - 1;
		Datum		value = row->tts_values[at];

		if (row->tts_isnull[at] || !VARATT_IS_EXTERNAL_ONDISK(value))
			continue;
		if (old != NULL)
		{
			slot_getsomeattrs(old, at + 1);
			if (!old->tts_isnull[at] && VARATT_IS_EXTERNAL_ONDISK(old->tts_values[at]) &&
				memcmp(DatumGetPointer(value), DatumGetPointer(old->tts_values[at]),
					   VARSIZE_EXTERNAL(value)) == 0)
				continue;
		}
		if (result == row)
		{
			int			natts = row->tts_tupleDescriptor->natts;

			result = ExecClearTuple(copy);
			memcpy(copy->tts_values, row->tts_values, natts * sizeof(Datum));
			memcpy(copy->tts_isnull, row->tts_isnull, natts * sizeof(bool));
			ExecStoreVirtualTuple(copy);
		}
		copy->tts_values[at] = PointerGetDatum(detoast_attr((struct varlena *) DatumGetPointer(value)));
	}
	return result;
}

/* The old row reduced to what finds it: its identity's columns, or all of it. */
static TupleTableSlot *
old_identity(const MgRelInfo *info, TupleTableSlot *old)
{
	TupleTableSlot *copy = info->old_slot;

	if (info->identity == MG_IDENTITY_FULL)
		return fetch_toasted(info, old, NULL, copy);

	slot_getallattrs(old);
	ExecClearTuple(copy);
	memset(copy->tts_isnull, true, copy->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < info->n_identity; i++)
	{
		int			at = info->identity_columns[i] - 1;
		Datum		value = old->tts_values[at];

		copy->tts_isnull[at] = old->tts_isnull[at];
		if (!copy->tts_isnull[at] && TupleDescAttr(copy->tts_tupleDescriptor, at)->attlen == -1 &&
			VARATT_IS_EXTERNAL_ONDISK(value))
			value = PointerGetDatum(detoast_attr((struct varlena *) DatumGetPointer(value)));
		copy->tts_values[at] = value;
	}
	return ExecStoreVirtualTuple(copy);
}

static bool
identity_changed(const MgRelInfo *info, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	if (info->identity == MG_IDENTITY_FULL)
		return true;
	for (int i = 0; i < info->n_identity; i++)
		if (!mgrepl_keys_same(rel, info->identity_columns[i], old, new))
			return true;
	return false;
}

static void
write_row(Relation rel, mg_event_type type, TupleTableSlot *old, TupleTableSlot *new, bool binary)
{
	if (type == MG_EVENT_INSERT)
		MgLogicalWriteInsert(&ws.buf, rel, new, binary);
	else if (type == MG_EVENT_UPDATE)
		MgLogicalWriteUpdate(&ws.buf, rel, old, new, binary);
	else
		MgLogicalWriteDelete(&ws.buf, rel, old, binary);
}

static void
set_for_output(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* What the session has set must not show in the writeset. */
static void
write_row_neutral(const MgRelInfo *info, Relation rel, mg_event_type type,
				  TupleTableSlot *old, TupleTableSlot *new)
{
	int			nest = NewGUCNestLevel();
	int			client_encoding = pg_get_client_encoding();

	/* As pg_dump and postgres_fdw do. */
	if (info->form != MG_FORM_BINARY)
	{
		if (DateStyle != USE_ISO_DATES)
			set_for_output("datestyle", "ISO");
		if (IntervalStyle != INTSTYLE_POSTGRES)
			set_for_output("intervalstyle", "postgres");
		if (extra_float_digits < 3)
			set_for_output("extra_float_digits", "3");
		if (info->form == MG_FORM_TEXT_QUALIFIED)
			set_for_output("search_path", "pg_catalog");
	}

	/* Not through the setting: the client would be told. */
	(void) SetClientEncoding(GetDatabaseEncoding());
	PG_TRY();
	{
		write_row(rel, type, old, new, info->form == MG_FORM_BINARY);
	}
	PG_FINALLY();
	{
		(void) SetClientEncoding(client_encoding);
	}
	PG_END_TRY();
	AtEOXact_GUC(true, nest);
}

static void
add_row(const MgRelInfo *info, Relation rel, mg_event_type type, CommandId cid,
		TupleTableSlot *old, TupleTableSlot *new)
{
	int			client_encoding = pg_get_client_encoding();

	begin_event();
	if (info->form == MG_FORM_BINARY &&
		(client_encoding == GetDatabaseEncoding() || client_encoding == PG_SQL_ASCII))
		write_row(rel, type, old, new, true);
	else
		write_row_neutral(info, rel, type, old, new);
	end_event(type, cid);
}

/* The command that made this version, or (`max`) ended it. */
static CommandId
version_cid(TupleTableSlot *slot, HeapTuple tuple, bool max)
{
	/* Another table access method keeps none: the time of firing must do. */
	if (!TTS_IS_BUFFERTUPLE(slot))
		return GetCurrentCommandId(false);
	if (!(tuple->t_data->t_infomask & HEAP_COMBOCID))
		return HeapTupleHeaderGetRawCommandId(tuple->t_data);
	return max ? HeapTupleHeaderGetCmax(tuple->t_data) : HeapTupleHeaderGetCmin(tuple->t_data);
}

static void
require_identity(const MgRelInfo *info, const char *what)
{
	if (info->identity == MG_IDENTITY_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s table \"%s.%s\": the cluster has no key to find its rows by",
						what, info->schema, info->name),
				 errhint("Add a primary key, or ALTER TABLE ... REPLICA IDENTITY USING INDEX/FULL.")));
}

static void
capture_insert(MgRelInfo *info, Relation rel, TriggerData *data)
{
	TupleTableSlot *new = data->tg_trigslot;
	CommandId	cid = version_cid(data->tg_trigslot, data->tg_trigtuple, false);

	if (info->announced != mgrepl_writeset_number)
		announce(info, cid);
	if (info->uses_sequence)
		ws.used_sequence = true;
	mgrepl_keys_insert(info->keys, new);
	add_row(info, rel, MG_EVENT_INSERT, cid, NULL,
			fetch_toasted(info, new, NULL, info->new_slot));
}

static void
capture_update(MgRelInfo *info, Relation rel, TriggerData *data)
{
	TupleTableSlot *old = data->tg_trigslot;
	TupleTableSlot *new = data->tg_newslot;
	CommandId	cid = version_cid(data->tg_newslot, data->tg_newtuple, false);
	TupleTableSlot *sent_old = NULL;

	require_identity(info, "update");
	if (info->announced != mgrepl_writeset_number)
		announce(info, cid);
	mgrepl_keys_update(info->keys, rel, old, new);
	if (identity_changed(info, rel, old, new))
		sent_old = old_identity(info, old);
	add_row(info, rel, MG_EVENT_UPDATE, cid, sent_old,
			fetch_toasted(info, new, old, info->new_slot));
}

static void
capture_delete(MgRelInfo *info, Relation rel, TriggerData *data)
{
	TupleTableSlot *old = data->tg_trigslot;
	CommandId	cid = version_cid(data->tg_trigslot, data->tg_trigtuple, true);

	require_identity(info, "delete from");
	if (info->announced != mgrepl_writeset_number)
		announce(info, cid);
	mgrepl_keys_delete(info->keys, old);
	add_row(info, rel, MG_EVENT_DELETE, cid, old_identity(info, old), NULL);
}

Datum
mgrepl_capture_row(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Relation	rel;
	MgRelInfo  *info;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!data->tg_trigger->tgisinternal)	/* a user's own trigger would capture rows twice */
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("mgrepl.capture_row() can only be called by its own triggers")));

	/* Without the library in all processes a write would stay on this node alone. */
	mgrepl_require_loaded();
	if (mgrepl_is_applier || !mgrepl_replicate || !mgrepl_clustered())
		return PointerGetDatum(NULL);

	prepare_to_add();
	rel = data->tg_relation;
	info = mgrepl_relation_get(rel);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		capture_insert(info, rel, data);
	else if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		capture_update(info, rel, data);
	else
		capture_delete(info, rel, data);
	return PointerGetDatum(NULL);
}

/* ---- closing and sending ---- */

/* By command id, then as they came. */
static int
run_cmp(const void *a, const void *b)
{
	const MgRun *left = a;
	const MgRun *right = b;

	if (left->cid != right->cid)
		return left->cid < right->cid ? -1 : 1;
	return left->offset < right->offset ? -1 : left->offset > right->offset;
}

static void
order_runs(void)
{
	bool		in_order = true;
	CommandId	lowest = InvalidCommandId;	/* the highest there is */

	for (uint32 i = 1; i < ws.at.n_runs && in_order; i++)
		in_order = ws.runs[i - 1].cid <= ws.runs[i].cid;

	if (in_order)
	{
		/* One stretch: as it came. */
		if (ws.at.n_runs > 0)
			ws.runs[0].len = ws.at.bytes;
		ws.at.n_runs = Min(ws.at.n_runs, 1);
		return;
	}

	for (uint32 i = ws.at.n_runs; i-- > 0;)
	{
		lowest = Min(lowest, ws.runs[i].cid);
		if (ws.runs[i].relation)
			ws.runs[i].cid = lowest;
	}
	qsort(ws.runs, ws.at.n_runs, sizeof(MgRun), run_cmp);
}

static uint64
total_bytes(void)
{
	return MG_WRITESET_HEADER_BYTES + (uint64) ws.at.n_keys * sizeof(mg_key) + ws.at.bytes;
}

uint32
mgrepl_capture_close(void)
{
	Assert(ws.open);
	if (!ws.closed)
	{
		mg_keys_normalize(ws.keys, &ws.at.n_keys);
		refuse_if_too_big(total_bytes());
		order_runs();
		ws.closed = true;
	}
	return (uint32) total_bytes();
}

/* Where a writeset goes: memory, or a file through a chunk of memory. */
typedef struct MgSink
{
	char	   *to;				/* next byte; NULL: into the file */
	const char *path;
	int			fd;
	char	   *chunk;
	uint32		n_chunk;
	uint32		crc;
} MgSink;

static void
sink_write_file(MgSink *sink, const char *bytes, Size len)
{
	while (len > 0)
	{
		ssize_t		n;

		errno = 0;
		n = write(sink->fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to file \"%s\": %m", sink->path)));
		}
		bytes += n;
		len -= n;
	}
}

static void
sink_flush(MgSink *sink)
{
	sink_write_file(sink, sink->chunk, sink->n_chunk);
	sink->n_chunk = 0;
}

static void
sink_put(MgSink *sink, const char *bytes, Size len)
{
	sink->crc = mg_crc32c(sink->crc, bytes, len);
	if (sink->to != NULL)
	{
		memcpy(sink->to, bytes, len);
		sink->to += len;
		return;
	}
	if (sink->n_chunk + len > EMIT_CHUNK_BYTES)
		sink_flush(sink);
	if (len > EMIT_CHUNK_BYTES)
	{
		sink_write_file(sink, bytes, len);
		return;
	}
	memcpy(sink->chunk + sink->n_chunk, bytes, len);
	sink->n_chunk += len;
}

static void
sink_put_keys(MgSink *sink)
{
#ifdef WORDS_BIGENDIAN
	for (uint32 i = 0; i < ws.at.n_keys; i++)
	{
		uint8		key[sizeof(mg_key)];

		mg_store_u64(key, ws.keys[i]);
		sink_put(sink, (const char *) key, sizeof(key));
	}
#else
	sink_put(sink, (const char *) ws.keys, (Size) ws.at.n_keys * sizeof(mg_key));
#endif
}

/* Events lie in the file up to `spilled`, then in memory. */
static void
sink_put_events(MgSink *sink, char *scratch, uint32 offset, uint32 len)
{
	while (len > 0 && offset < ws.spilled)
	{
		int			want = Min(Min(len, ws.spilled - offset), EMIT_CHUNK_BYTES);
		int			n = FileRead(ws.file, scratch, want, offset, WAIT_EVENT_BUFFILE_READ);

		if (n < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", FilePathName(ws.file))));
		if (n == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not read file \"%s\": it ends at %u", FilePathName(ws.file), offset)));
		sink_put(sink, scratch, n);
		offset += n;
		len -= n;
		CHECK_FOR_INTERRUPTS();
	}
	if (len > 0)
		sink_put(sink, ws.buf.data + (offset - ws.spilled), len);
}

void
mgrepl_capture_emit(mg_seqno last_seen, uint64 trx_id, uint16 flags, char *to, const char *path)
{
	mg_writeset_header header;
	uint8		head[MG_WRITESET_HEADER_BYTES] = {0};
	MgSink		sink = {0};
	char	   *scratch = NULL;
	MemoryContext caller;

	Assert(ws.closed);
	memset(&header, 0, sizeof(header));
	header.flags = flags | (ws.at.n_statements > 0 ? MG_WS_STATEMENT : 0);
	header.last_seen = last_seen;
	header.trx_id = trx_id;
	header.time_us = GetCurrentTimestamp() +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	header.n_keys = ws.at.n_keys;
	header.n_events = ws.at.n_events;
	header.events_len = ws.at.bytes;
	sink.crc = mg_writeset_crc_begin(&header);

	caller = MemoryContextSwitchTo(mgrepl_writeset_cxt);
	if (ws.spilled > 0)
		scratch = palloc(EMIT_CHUNK_BYTES);
	if (to != NULL)
		sink.to = to + MG_WRITESET_HEADER_BYTES;
	else
	{
		sink.chunk = palloc(EMIT_CHUNK_BYTES);
		sink.path = path;
		sink.fd = OpenTransientFile(path, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
		if (sink.fd < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not create file \"%s\": %m", path)));
		sink_write_file(&sink, (const char *) head, sizeof(head));
	}
	MemoryContextSwitchTo(caller);

	sink_put_keys(&sink);
	for (uint32 i = 0; i < ws.at.n_runs; i++)
		sink_put_events(&sink, scratch, ws.runs[i].offset, ws.runs[i].len);

	mg_writeset_header_encode(&header, sink.crc, head);
	if (to != NULL)
		memcpy(to, head, sizeof(head));
	else
	{
		sink_flush(&sink);
		if (lseek(sink.fd, 0, SEEK_SET) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not seek in file \"%s\": %m", path)));
		sink_write_file(&sink, (const char *) head, sizeof(head));
		if (CloseTransientFile(sink.fd) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not close file \"%s\": %m", path)));
		pfree(sink.chunk);
	}
	if (scratch != NULL)
		pfree(scratch);
}

/* ---- triggers ---- */

static Oid
capture_function(void)
{
	if (!OidIsValid(get_namespace_oid(CAPTURE_SCHEMA, true)))
		return InvalidOid;
	return LookupFuncName(list_make2(makeString(CAPTURE_SCHEMA), makeString(CAPTURE_FUNCTION)),
						  0, NULL, true);
}

static bool
should_capture(Relation rel)
{
	Oid			extension;
	char	   *schema;

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT ||
		RelationGetRelid(rel) < FirstNormalObjectId ||
		IsSystemRelation(rel))
		return false;

	schema = get_namespace_name(RelationGetNamespace(rel));
	if (schema == NULL || strcmp(schema, CAPTURE_SCHEMA) == 0 || strcmp(schema, "information_schema") == 0)
		return false;

	extension = get_extension_oid("mgrepl", true);
	return !OidIsValid(extension) ||
		getExtensionOfObject(RelationRelationId, RelationGetRelid(rel)) != extension;
}

static bool
has_capture_trigger(Relation rel, Oid function)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (triggers->triggers[i].tgfoid == function)
			return true;
	return false;
}

static void
create_capture_trigger(Oid relid, Oid function)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	ObjectAddress trigger;
	ObjectAddress referenced;

	stmt->trigname = pstrdup(CAPTURE_TRIGGER_NAME);
	stmt->funcname = list_make2(makeString(CAPTURE_SCHEMA), makeString(CAPTURE_FUNCTION));
	stmt->row = true;
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE;
	trigger = CreateTriggerFiringOn(stmt, NULL, relid, InvalidOid, InvalidOid, InvalidOid,
									function, InvalidOid, NULL, true, false, TRIGGER_FIRES_ALWAYS);

	/* DROP EXTENSION takes the triggers along, without CASCADE. */
	CommandCounterIncrement();
	(void) deleteDependencyRecordsForSpecific(TriggerRelationId, trigger.objectId, DEPENDENCY_NORMAL,
											  ProcedureRelationId, function);
	ObjectAddressSet(referenced, ProcedureRelationId, function);
	recordDependencyOn(&trigger, &referenced, DEPENDENCY_AUTO);
	CommandCounterIncrement();
}

static bool
install(Oid relid, Oid function)
{
	Relation	rel = try_relation_open(relid, ShareRowExclusiveLock);
	bool		wanted;

	if (rel == NULL)
		return false;
	wanted = should_capture(rel) && !has_capture_trigger(rel, function);
	relation_close(rel, NoLock);
	if (wanted)
		create_capture_trigger(relid, function);
	return wanted;
}

bool
mgrepl_capture_install(Oid relid)
{
	Oid			function = capture_function();

	return OidIsValid(function) && install(relid, function);
}

/* Every table that may need a trigger. */
static List *
candidate_tables(void)
{
	Relation	class;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *tables = NIL;

	class = table_open(RelationRelationId, AccessShareLock);
	scan = systable_beginscan(class, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relkind == RELKIND_RELATION &&
			form->relpersistence == RELPERSISTENCE_PERMANENT &&
			form->oid >= FirstNormalObjectId)
			tables = lappend_oid(tables, form->oid);
	}
	systable_endscan(scan);
	table_close(class, AccessShareLock);
	return tables;
}

int
mgrepl_capture_missing(void)
{
	Oid			function = capture_function();
	List	   *tables = candidate_tables();
	ListCell   *cell;
	int			n = 0;

	foreach(cell, tables)
	{
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		rel = try_relation_open(lfirst_oid(cell), AccessShareLock);
		if (rel == NULL)
			continue;
		if (should_capture(rel) && !has_capture_trigger(rel, function))
			n++;
		relation_close(rel, AccessShareLock);
	}
	list_free(tables);
	return n;
}

int
mgrepl_capture_install_all(void)
{
	Oid			function = capture_function();
	List	   *tables;
	ListCell   *cell;
	int			n = 0;

	if (!OidIsValid(function))
		return 0;
	tables = candidate_tables();
	foreach(cell, tables)
	{
		CHECK_FOR_INTERRUPTS();
		if (install(lfirst_oid(cell), function))
			n++;
	}
	list_free(tables);
	return n;
}
