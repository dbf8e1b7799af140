/*
 * pg/error.c - errors that several files raise, with one wording each.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"

#include "pg/error.h"
#include "pg/guc.h"
#include "pg/shmem.h"

void
mgrepl_require_loaded(void)
{
	if (mgrepl_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mgrepl must be loaded via shared_preload_libraries"),
				 errhint("Add mgrepl to shared_preload_libraries in postgresql.conf and restart the server.")));
}

/*
 * By OID, so that it costs nothing in the hook: a session cannot change its
 * database, and a database in use can be neither renamed nor dropped.
 */
bool
mgrepl_in_database(void)
{
	static Oid	known = InvalidOid;
	static bool answer = false;

	if (mgrepl_shared == NULL || !OidIsValid(MyDatabaseId))
		return false;
	if (known != MyDatabaseId)
	{
		answer = MyDatabaseId == get_database_oid(mgrepl_database, true);
		known = MyDatabaseId;
	}
	return answer;
}

void
mgrepl_require_database(void)
{
	mgrepl_require_loaded();
	if (!mgrepl_in_database())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this is not the replicated database"),
				 errhint("Connect to database \"%s\" (mgrepl.database).", mgrepl_database)));
}
