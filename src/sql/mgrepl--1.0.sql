/* src/sql/mgrepl--1.0.sql - what CREATE EXTENSION mgrepl makes */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION mgrepl" to load this file. \quit

COMMENT ON SCHEMA mgrepl IS 'synchronous multi-master replication';

-- Capture -------------------------------------------------------------------

CREATE FUNCTION mgrepl.capture_row() RETURNS trigger
LANGUAGE C
AS 'MODULE_PATHNAME', 'mgrepl_capture_row';
REVOKE ALL ON FUNCTION mgrepl.capture_row() FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.capture_row() IS
'internal: puts a changed row into the transaction''s writeset';

CREATE FUNCTION mgrepl.install_capture() RETURNS integer
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_install_capture';
REVOKE ALL ON FUNCTION mgrepl.install_capture() FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.install_capture() IS
'gives every table of this database that lacks it its capture trigger; returns how many';

-- Commands ------------------------------------------------------------------

CREATE FUNCTION mgrepl.bootstrap(force boolean DEFAULT false) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_bootstrap';
REVOKE ALL ON FUNCTION mgrepl.bootstrap(boolean) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.bootstrap(boolean) IS
'makes this node the first member of a primary component; force: without the members that it had, and without what only they hold; returns the position';

CREATE FUNCTION mgrepl.join(address text DEFAULT NULL) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_join';
REVOKE ALL ON FUNCTION mgrepl.join(text) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.join(text) IS
'joins the cluster through these members (default: mgrepl.cluster_address); returns the position';

CREATE FUNCTION mgrepl.leave() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_leave';
REVOKE ALL ON FUNCTION mgrepl.leave() FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.leave() IS
'leaves the cluster in order: the others do not count this node any longer';

CREATE FUNCTION mgrepl.rebuild(address text DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_rebuild';
REVOKE ALL ON FUNCTION mgrepl.rebuild(text) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.rebuild(text) IS
'replaces this node''s data by a snapshot of a member''s, whatever it is (default: a member that it knows); the server restarts by itself';

CREATE FUNCTION mgrepl.gcache_freeze(seqno bigint DEFAULT NULL) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_gcache_freeze';
REVOKE ALL ON FUNCTION mgrepl.gcache_freeze(bigint) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.gcache_freeze(bigint) IS
'this node''s writeset log keeps everything from this seqno on (default: what the present members may need), up to its hard limit, also after a restart; returns the seqno';

CREATE FUNCTION mgrepl.gcache_unfreeze() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_gcache_unfreeze';
REVOKE ALL ON FUNCTION mgrepl.gcache_unfreeze() FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.gcache_unfreeze() IS
'ends mgrepl.gcache_freeze()';

-- State ---------------------------------------------------------------------

CREATE FUNCTION mgrepl.gtid() RETURNS text
LANGUAGE C VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mgrepl_gtid';
COMMENT ON FUNCTION mgrepl.gtid() IS
'GTID (cluster uuid:seqno) up to which everything is committed here; NULL outside a cluster';

CREATE FUNCTION mgrepl.wait_for_seqno(seqno bigint, timeout_ms integer DEFAULT 10000) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mgrepl_wait_for_seqno';
COMMENT ON FUNCTION mgrepl.wait_for_seqno(bigint, integer) IS
'waits until everything up to this seqno is committed here (looks every 5 ms); false if the time runs out';

CREATE FUNCTION mgrepl.status_rows(OUT name text, OUT value text, OUT description text)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mgrepl_status_rows';
COMMENT ON FUNCTION mgrepl.status_rows() IS
'internal: rows of the view mgrepl.status';

CREATE VIEW mgrepl.status AS
    SELECT s.name, s.value, s.description FROM mgrepl.status_rows() AS s;
COMMENT ON VIEW mgrepl.status IS
'state and counters of this node, one row each';
COMMENT ON COLUMN mgrepl.status.name IS 'what is told';
COMMENT ON COLUMN mgrepl.status.value IS 'its present value';
COMMENT ON COLUMN mgrepl.status.description IS 'what it means';

CREATE FUNCTION mgrepl.member_rows(
    OUT id bigint, OUT name text, OUT address text, OUT sql_address text, OUT role text,
    OUT weight integer, OUT segment integer, OUT life bigint,
    OUT is_leader boolean, OUT is_self boolean, OUT synced boolean, OUT desynced boolean,
    OUT held bigint, OUT flushed bigint, OUT committed bigint, OUT silent_ms bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mgrepl_member_rows';
COMMENT ON FUNCTION mgrepl.member_rows() IS
'internal: rows of the view mgrepl.members';

CREATE VIEW mgrepl.members AS
    SELECT m.id, m.name, m.address, m.sql_address, m.role, m.weight, m.segment, m.life,
           m.is_leader, m.is_self, m.synced, m.desynced, m.held, m.flushed, m.committed, m.silent_ms
    FROM mgrepl.member_rows() AS m;
COMMENT ON VIEW mgrepl.members IS
'members of the present view, as this node sees them';
COMMENT ON COLUMN mgrepl.members.id IS 'number of the member, never given twice';
COMMENT ON COLUMN mgrepl.members.name IS 'mgrepl.node_name of the member';
COMMENT ON COLUMN mgrepl.members.address IS 'where the others reach it';
COMMENT ON COLUMN mgrepl.members.sql_address IS 'where its PostgreSQL server is reached (mgrepl.sql_address of the member)';
COMMENT ON COLUMN mgrepl.members.role IS 'data, or arbitrator: it votes and holds no data';
COMMENT ON COLUMN mgrepl.members.weight IS 'its weight in the quorum (mgrepl.weight of the member)';
COMMENT ON COLUMN mgrepl.members.segment IS 'its place (mgrepl.segment of the member)';
COMMENT ON COLUMN mgrepl.members.life IS 'counts its starts as this member';
COMMENT ON COLUMN mgrepl.members.is_leader IS 'does it order the writesets';
COMMENT ON COLUMN mgrepl.members.is_self IS 'is it this node';
COMMENT ON COLUMN mgrepl.members.synced IS 'has it caught up, so that it counts in the quorum';
COMMENT ON COLUMN mgrepl.members.desynced IS 'flow control does not wait for it: it gives a snapshot, or an operator said so';
COMMENT ON COLUMN mgrepl.members.held IS 'has written its log up to this seqno';
COMMENT ON COLUMN mgrepl.members.flushed IS 'has made its log durable up to this seqno';
COMMENT ON COLUMN mgrepl.members.committed IS 'has committed up to this seqno';
COMMENT ON COLUMN mgrepl.members.silent_ms IS 'milliseconds since its last sign of life';

-- Giving data to a joiner, and backups ---------------------------------------

-- No REVOKE: it checks for superuser or REPLICATION itself.
CREATE FUNCTION mgrepl.donate(joiner text,
    OUT gtid text, OUT server_version_num integer, OUT catalog_version integer,
    OUT block_size integer, OUT wal_segment_size bigint, OUT data_checksums boolean,
    OUT "collate" text, OUT ctype text, OUT locale_provider text, OUT collation_version text,
    OUT data_bytes bigint, OUT tablespaces jsonb, OUT extension_version text)
RETURNS record
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_donate';
COMMENT ON FUNCTION mgrepl.donate(text) IS
'makes this node DONOR for that joiner, and keeps its writeset log, as long as this session lives; returns what the joiner''s server must agree with, and sizes (data_bytes: without tablespaces, each of which has its own)';

-- No REVOKE: it can be called in a session that donates only.
CREATE FUNCTION mgrepl.export_snapshot(OUT snapshot text, OUT gtid text, OUT epoch bigint)
RETURNS record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_export_snapshot';
COMMENT ON FUNCTION mgrepl.export_snapshot() IS
'for pg_dump --snapshot: exports a snapshot of exactly that GTID, until the end of the transaction; in a session that has called mgrepl.donate()';

CREATE FUNCTION mgrepl.adopt_position(gtid text) RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_adopt_position';
REVOKE ALL ON FUNCTION mgrepl.adopt_position(text) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.adopt_position(text) IS
'internal: the transaction that loads a dump says which position of the cluster that is';

CREATE FUNCTION mgrepl.desync(enabled boolean) RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_desync';
REVOKE ALL ON FUNCTION mgrepl.desync(boolean) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.desync(boolean) IS
'true: flow control does not wait for this node (for a backup or maintenance), until false or a restart of the server';

CREATE FUNCTION mgrepl.donation_rows(
    OUT joiner text, OUT pid integer, OUT started_at timestamptz, OUT data_bytes bigint,
    OUT log_kept_from bigint, OUT log_kept_until timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mgrepl_donation_rows';
COMMENT ON FUNCTION mgrepl.donation_rows() IS
'joiners that this node donates to (pid: of the session), or has donated to and still keeps its writeset log for (pid is null)';

CREATE FUNCTION mgrepl.joining_rows(
    OUT peer text, OUT method text, OUT phase text, OUT bytes_done bigint, OUT bytes_total bigint,
    OUT started_at timestamptz, OUT seconds double precision, OUT error text)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mgrepl_joining_rows';
COMMENT ON FUNCTION mgrepl.joining_rows() IS
'internal: the transfer of a snapshot to this node, if there is or was one; seconds: how long it has copied';

-- As its owner, so that who may see the view may see a donor's walsender.
CREATE FUNCTION mgrepl.transfer_rows(
    OUT role text, OUT peer text, OUT method text, OUT phase text,
    OUT bytes_done bigint, OUT bytes_total bigint,
    OUT started_at timestamptz, OUT seconds double precision, OUT error text)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'donor', d.joiner, b.method, coalesce(b.phase, 'session of the joiner is open'),
           b.backup_streamed, coalesce(b.backup_total, d.data_bytes),
           d.started_at, b.seconds, NULL::text
    FROM mgrepl.donation_rows() AS d
    LEFT JOIN LATERAL (
        SELECT 'basebackup' AS method, p.phase, p.backup_streamed, p.backup_total,
               extract(epoch FROM clock_timestamp() - a.backend_start)::double precision AS seconds
        FROM pg_stat_progress_basebackup AS p JOIN pg_stat_activity AS a USING (pid)
        WHERE a.application_name = left('mgrepl sst ' || d.joiner, 63)
        ORDER BY a.backend_start DESC LIMIT 1) AS b ON true
    WHERE d.pid IS NOT NULL
    UNION ALL
    SELECT 'joiner', j.peer, j.method, j.phase, j.bytes_done, j.bytes_total, j.started_at, j.seconds, j.error
    FROM mgrepl.joining_rows() AS j
$$;
COMMENT ON FUNCTION mgrepl.transfer_rows() IS
'internal: rows of the view mgrepl.transfer_progress';

CREATE VIEW mgrepl.transfer_progress AS
    SELECT t.role, t.peer, t.method, t.phase, t.bytes_done, t.bytes_total,
           least(round(100.0 * t.bytes_done / nullif(t.bytes_total, 0), 1), 100.0) AS percent,
           (t.bytes_done / nullif(t.seconds, 0))::bigint AS bytes_per_second,
           CASE WHEN t.bytes_done > 0 AND t.seconds IS NOT NULL
                THEN (t.seconds * greatest(t.bytes_total - t.bytes_done, 0) / t.bytes_done)::bigint END AS seconds_left,
           t.started_at, t.error
    FROM mgrepl.transfer_rows() AS t;
COMMENT ON VIEW mgrepl.transfer_progress IS
'transfers of a whole copy of the data from or to this node';
COMMENT ON COLUMN mgrepl.transfer_progress.role IS 'donor: this node gives its data; joiner: it gets a member''s';
COMMENT ON COLUMN mgrepl.transfer_progress.peer IS 'name of the other node';
COMMENT ON COLUMN mgrepl.transfer_progress.method IS 'how it is copied (mgrepl.sst_method of the joiner); null: not known here';
COMMENT ON COLUMN mgrepl.transfer_progress.phase IS 'what is being done';
COMMENT ON COLUMN mgrepl.transfer_progress.bytes_done IS 'bytes copied so far; null: not known here';
COMMENT ON COLUMN mgrepl.transfer_progress.bytes_total IS 'bytes to copy; an estimate';
COMMENT ON COLUMN mgrepl.transfer_progress.percent IS 'how much of it is done';
COMMENT ON COLUMN mgrepl.transfer_progress.bytes_per_second IS 'mean rate since the copying began';
COMMENT ON COLUMN mgrepl.transfer_progress.seconds_left IS 'time left at that rate';
COMMENT ON COLUMN mgrepl.transfer_progress.started_at IS 'when the transfer began';
COMMENT ON COLUMN mgrepl.transfer_progress.error IS 'why the last attempt failed; null: it has not';

CREATE FUNCTION mgrepl.backup_label() RETURNS text
LANGUAGE C VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mgrepl_backup_label';
COMMENT ON FUNCTION mgrepl.backup_label() IS
'what to record with a backup that begins now: GTID, node, cluster, state and time, a line each; NULL outside a cluster';

CREATE FUNCTION mgrepl.mark(name text) RETURNS text
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mgrepl_mark';
REVOKE ALL ON FUNCTION mgrepl.mark(text) FROM PUBLIC;
COMMENT ON FUNCTION mgrepl.mark(text) IS
'writes a restore point of this name into the WAL of every node, at one and the same seqno; returns the GTID at which a recovery with recovery_target_name ends';

-- Comparing nodes -----------------------------------------------------------

-- Independent of the rows' order; the settings that change how a value is
-- written as text are fixed, so that two nodes agree if their rows do.  Also
-- outside the primary component: that is where one wants to compare.
CREATE FUNCTION mgrepl.table_hash(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'iso_8601'
SET timezone = 'UTC'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET mgrepl.dirty_reads = on
AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format(
        'SELECT count(*) || '':'' || '
        'coalesce(sum(hashtextextended(ROW(mgrepl_t.*)::text COLLATE "C", 0)::numeric), 0) '
        'FROM %s AS mgrepl_t', relation)
    INTO result;
    RETURN result;
END
$$;
COMMENT ON FUNCTION mgrepl.table_hash(regclass) IS
'hash of a table''s rows whatever their order, "count:sum": equal on nodes that hold the same rows';

CREATE FUNCTION mgrepl.database_hash() RETURNS TABLE (table_name text, hash text)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::regclass::text, mgrepl.table_hash(c.oid::regclass)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p'
      AND n.nspname NOT IN ('information_schema', 'mgrepl') AND left(n.nspname, 3) <> 'pg_'
    ORDER BY c.oid::regclass::text COLLATE "C"
$$;
COMMENT ON FUNCTION mgrepl.database_hash() IS
'mgrepl.table_hash of every replicated table';

-- Rights --------------------------------------------------------------------

GRANT USAGE ON SCHEMA mgrepl TO PUBLIC;
GRANT SELECT ON mgrepl.status, mgrepl.members, mgrepl.transfer_progress TO PUBLIC;

-- Tables that are here already are captured from now on.
SELECT mgrepl.install_capture();
