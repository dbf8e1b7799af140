-- The SQL surface: what is there, who may use it, and that each part says what it is.
-- Needs pgtap and mgrepl in the database; changes nothing.
BEGIN;
SET LOCAL mgrepl.replicate = off;	-- the role below is gone at the end
SELECT plan(70);

SELECT has_extension('mgrepl');
SELECT has_schema('mgrepl');

SELECT has_function('mgrepl', 'bootstrap', ARRAY['boolean']);
SELECT has_function('mgrepl', 'join', ARRAY['text']);
SELECT has_function('mgrepl', 'leave', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'rebuild', ARRAY['text']);
SELECT has_function('mgrepl', 'gcache_freeze', ARRAY['bigint']);
SELECT has_function('mgrepl', 'install_capture', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'capture_row', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'gtid', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'wait_for_seqno', ARRAY['bigint', 'integer']);
SELECT has_function('mgrepl', 'table_hash', ARRAY['regclass']);
SELECT has_function('mgrepl', 'database_hash', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'donate', ARRAY['text']);
SELECT has_function('mgrepl', 'desync', ARRAY['boolean']);
SELECT has_function('mgrepl', 'export_snapshot', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'adopt_position', ARRAY['text']);
SELECT has_function('mgrepl', 'donation_rows', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'backup_label', ARRAY[]::text[]);
SELECT has_function('mgrepl', 'mark', ARRAY['text']);

SELECT function_returns('mgrepl', 'bootstrap', ARRAY['boolean'], 'text');
SELECT function_returns('mgrepl', 'join', ARRAY['text'], 'text');
SELECT function_returns('mgrepl', 'leave', ARRAY[]::text[], 'void');
SELECT function_returns('mgrepl', 'rebuild', ARRAY['text'], 'void');
SELECT function_returns('mgrepl', 'capture_row', ARRAY[]::text[], 'trigger');
SELECT function_returns('mgrepl', 'wait_for_seqno', ARRAY['bigint', 'integer'], 'boolean');
SELECT function_returns('mgrepl', 'table_hash', ARRAY['regclass'], 'text');
SELECT volatility_is('mgrepl', 'bootstrap', ARRAY['boolean'], 'volatile');
SELECT volatility_is('mgrepl', 'join', ARRAY['text'], 'volatile');
SELECT volatility_is('mgrepl', 'leave', ARRAY[]::text[], 'volatile');
SELECT volatility_is('mgrepl', 'table_hash', ARRAY['regclass'], 'stable');

SELECT has_view('mgrepl', 'status', 'view mgrepl.status');
SELECT has_view('mgrepl', 'members', 'view mgrepl.members');
SELECT columns_are('mgrepl', 'status', ARRAY['name', 'value', 'description']);
SELECT columns_are('mgrepl', 'members',
    ARRAY['id', 'name', 'address', 'sql_address', 'role', 'weight', 'segment', 'life',
          'is_leader', 'is_self', 'synced', 'desynced', 'held', 'flushed', 'committed', 'silent_ms']);
SELECT has_view('mgrepl', 'transfer_progress', 'view mgrepl.transfer_progress');
SELECT columns_are('mgrepl', 'transfer_progress',
    ARRAY['role', 'peer', 'method', 'phase', 'bytes_done', 'bytes_total', 'percent',
          'bytes_per_second', 'seconds_left', 'started_at', 'error']);

-- Rights: everybody may look, the superuser acts.
CREATE ROLE mgrepl_pgtap_user;
SELECT schema_privs_are('mgrepl', 'mgrepl_pgtap_user', ARRAY['USAGE']);
SELECT table_privs_are('mgrepl', 'status', 'mgrepl_pgtap_user', ARRAY['SELECT']);
SELECT table_privs_are('mgrepl', 'members', 'mgrepl_pgtap_user', ARRAY['SELECT']);
SELECT table_privs_are('mgrepl', 'transfer_progress', 'mgrepl_pgtap_user', ARRAY['SELECT']);
SELECT function_privs_are('mgrepl', 'donate', ARRAY['text'], 'mgrepl_pgtap_user', ARRAY['EXECUTE']);	-- it asks for REPLICATION itself
SELECT function_privs_are('mgrepl', 'desync', ARRAY['boolean'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'export_snapshot', ARRAY[]::text[], 'mgrepl_pgtap_user', ARRAY['EXECUTE']);	-- in a session that donates
SELECT function_privs_are('mgrepl', 'adopt_position', ARRAY['text'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'mark', ARRAY['text'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'bootstrap', ARRAY['boolean'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'join', ARRAY['text'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'leave', ARRAY[]::text[], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'rebuild', ARRAY['text'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'gcache_freeze', ARRAY['bigint'], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'install_capture', ARRAY[]::text[], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'capture_row', ARRAY[]::text[], 'mgrepl_pgtap_user', ARRAY[]::text[]);
SELECT function_privs_are('mgrepl', 'gtid', ARRAY[]::text[], 'mgrepl_pgtap_user', ARRAY['EXECUTE']);

-- Each part says what it is.
SELECT is_empty(
    $$ SELECT p.oid::regprocedure FROM pg_proc p
       WHERE p.pronamespace = 'mgrepl'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL $$,
    'every function has a comment');
SELECT is_empty(
    $$ SELECT c.oid::regclass FROM pg_class c
       WHERE c.relnamespace = 'mgrepl'::regnamespace AND obj_description(c.oid, 'pg_class') IS NULL $$,
    'every view has a comment');
SELECT is_empty(
    $$ SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
       WHERE c.relnamespace = 'mgrepl'::regnamespace AND a.attnum > 0
         AND col_description(a.attrelid, a.attnum) IS NULL $$,
    'every column of a view has a comment');
SELECT is_empty(
    $$ SELECT name FROM pg_settings WHERE name LIKE 'mgrepl.%' AND coalesce(short_desc, '') = '' $$,
    'every setting has a description');
SELECT is_empty(
    $$ SELECT name FROM mgrepl.status WHERE coalesce(description, '') = '' $$,
    'every row of mgrepl.status has a description');
SELECT is_empty(
    $$ SELECT name FROM mgrepl.status GROUP BY name HAVING count(*) > 1 $$,
    'no name stands twice in mgrepl.status');

-- The state is told whole.
SELECT set_has(
    $$ SELECT name FROM mgrepl.status $$,
    $$ VALUES ('node_name'), ('node_state'), ('node_state_reason'), ('desynced'), ('cluster_name'), ('cluster_uuid'),
              ('view_id'), ('epoch'), ('cluster_size'), ('primary'), ('leader'), ('committed_seqno'),
              ('delivered'), ('next_commit'), ('log_first'), ('log_last'), ('flushed_everywhere'), ('applied_everywhere'), ('gtid'), ('protocol_version'), ('version'),
              ('local_commits'), ('local_cert_failures'), ('local_bf_aborts'), ('applied') $$,
    'mgrepl.status has the rows that tools rely on');

-- Commands are no part of a transaction.
SELECT throws_ok('SELECT mgrepl.leave()', NULL, NULL, 'leave refuses to run inside a transaction block');
SELECT throws_ok('SELECT mgrepl.rebuild()', NULL, NULL, 'rebuild refuses to run inside a transaction block');
SELECT throws_ok($$ SELECT mgrepl.donate('x') $$, '25001', NULL, 'donate refuses to run inside a transaction block');
SELECT throws_ok('SELECT mgrepl.desync(true)', '25001', NULL, 'desync refuses to run inside a transaction block');
SELECT throws_ok($$ SELECT mgrepl.mark('x') $$, '25001', NULL, 'mark refuses to run inside a transaction block');
SELECT matches(mgrepl.backup_label(), 'GTID: ' || mgrepl.gtid() || E'\nNODE: one\n', 'the label of a backup begins with the GTID');
SELECT is_empty('SELECT * FROM mgrepl.transfer_progress', 'no transfer, no row');
SELECT throws_ok($$ SELECT mgrepl.wait_for_seqno(1, -1) $$, '22023', NULL, 'a negative timeout is refused');
SELECT ok(mgrepl.wait_for_seqno(0, 0), 'seqno 0 is always committed');

SELECT * FROM finish();
ROLLBACK;
