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
GRANT SELECT ON mgrepl.status, mgrepl.members TO PUBLIC;

-- Tables that are here already are captured from now on.
SELECT mgrepl.install_capture();
