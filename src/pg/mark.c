/*
 * pg/mark.c - see mark.h.
 *
 * A mark is a writeset without keys and with one MESSAGE event: it conflicts
 * with nothing and waits for nobody but its turn, so writers go on.
 *
 * Rejected: to let it travel as a statement whose commit carries the position.
 * The restore point would lie before or behind that commit record; behind it a
 * crash in between loses the mark on that node for good, before it the position
 * is that of the last transaction that changed something, which differs between
 * nodes where one had nothing to do.
 *
 * Event body: u8 MG_MESSAGE_MARK, text name.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "utils/builtins.h"

#include "core/buf.h"
#include "pg/commit.h"
#include "pg/error.h"
#include "pg/mark.h"
#include "pg/position.h"
#include "pg/shmem.h"

PG_FUNCTION_INFO_V1(mgrepl_mark);

/* Of the transaction that is open; empty: none. */
static char noted[MAXFNAMELEN];

static XLogRecPtr written_at = InvalidXLogRecPtr;

bool
mgrepl_mark_is(const mg_writeset *ws)
{
	uint32_t	at = 0;
	mg_event	event;

	return ws->header.n_events == 1 && mg_writeset_next_event(ws, &at, &event) && event.type == MG_EVENT_MESSAGE;
}

void
mgrepl_mark_note(const mg_event *event)
{
	mg_reader	r;
	int			kind;

	mg_reader_init(&r, event->body, event->len);
	kind = mg_read_u8(&r);
	if (!r.bad && kind == MG_MESSAGE_PLACE)
		return;
	if (!r.bad && kind != MG_MESSAGE_MARK)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a message of kind %d is not known to this node", kind),
				 errhint("All nodes must run the same version of mgrepl.")));
	mg_read_text(&r, noted, sizeof(noted));
	if (!mg_reader_done(&r) || noted[0] == '\0')
	{
		noted[0] = '\0';
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a mark could not be decoded")));
	}
}

void
mgrepl_mark_forget(void)
{
	noted[0] = '\0';
}

/*
 * Nobody else has the origin: it is taken in a turn only, and this is ours.  The
 * flush is left to the WAL writer: whoever waits for it waits outside the turn.
 */
void
mgrepl_mark_at_turn(mg_seqno seqno)
{
	if (noted[0] == '\0')
		return;
	if (!XLogIsNeeded())
		ereport(LOG,
				(errmsg("mgrepl: mark \"%s\" at seqno %llu is not in this node's WAL: wal_level is minimal",
						noted, (unsigned long long) seqno - 1)));
	else
	{
		replorigin_advance((RepOriginId) pg_atomic_read_u32(&mgrepl_shared->origin_id),
						   (XLogRecPtr) (seqno - 1), InvalidXLogRecPtr, false, true);
		written_at = XLogRestorePoint(noted);
		XLogSetAsyncXactLSN(written_at);
		ereport(LOG,
				(errmsg("mgrepl: mark \"%s\" is at seqno %llu", noted, (unsigned long long) seqno - 1)));
	}
	mgrepl_mark_forget();
}

static void
require_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) >= MAXFNAMELEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a mark has 1 to %d bytes", MAXFNAMELEN - 1),
				 errhint("It is what recovery_target_name will be set to.")));
}

/* mark(name text) returns text: the GTID at which a recovery to this mark ends */
Datum
mgrepl_mark(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	mg_buf		body = {0};
	volatile mg_seqno seqno = 0;

	mgrepl_require_database();
	require_name(name);
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mgrepl.mark() cannot run during recovery"),
				 errhint("Call it on a member of the cluster.")));
	if (!mgrepl_clustered())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is in no cluster"),
				 errhint("Use pg_create_restore_point().")));
	if (!XLogIsNeeded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL level not sufficient for creating a mark"),
				 errhint("wal_level must be set to \"replica\" or \"logical\" at server start, on every node.")));
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("mgrepl.mark() cannot run inside a transaction block"),
				 errhint("A mark takes its place at once and cannot be rolled back: call it as a statement of its own.")));

	mg_buf_put_u8(&body, MG_MESSAGE_MARK);
	mg_buf_put_text(&body, name);
	strlcpy(noted, name, sizeof(noted));
	PG_TRY();
	{
		seqno = mgrepl_commit_message(body.data, (uint32) body.len, mgrepl_mark_at_turn);
	}
	PG_FINALLY();
	{
		mgrepl_mark_forget();
		mg_buf_free(&body);
	}
	PG_END_TRY();

	/* Its caller may go on to archive this segment. */
	XLogFlush(written_at);
	PG_RETURN_TEXT_P(cstring_to_text(mgrepl_position_text(seqno - 1)));
}
