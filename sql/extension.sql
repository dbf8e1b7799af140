-- What CREATE EXTENSION makes, what \d shows of it, what DROP EXTENSION leaves.
-- The database of this test is not the replicated one (mgrepl.database).
CREATE TABLE before_extension (id int PRIMARY KEY, t text);
CREATE TEMP TABLE local_temp (id int);
CREATE UNLOGGED TABLE local_unlogged (id int);
CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10);

CREATE EXTENSION mgrepl;

SELECT e.extname, e.extversion, n.nspname, e.extrelocatable
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'mgrepl';
SELECT p.oid::regprocedure AS function, p.provolatile, p.proparallel
FROM pg_proc p WHERE p.pronamespace = 'mgrepl'::regnamespace
ORDER BY p.oid::regprocedure::text COLLATE "C";
\dv mgrepl.*

-- every ordinary permanent table has its capture trigger, nothing else has
SELECT c.relname, t.tgisinternal, t.tgenabled, t.tgfoid::regproc
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgfoid = 'mgrepl.capture_row()'::regprocedure
ORDER BY c.relname COLLATE "C";
\d before_extension
ALTER TABLE before_extension DISABLE TRIGGER USER;
SELECT tgenabled FROM pg_trigger
WHERE tgrelid = 'before_extension'::regclass AND tgfoid = 'mgrepl.capture_row()'::regprocedure;

-- again: nothing to do
SELECT mgrepl.install_capture();
CREATE TABLE after_extension (id int PRIMARY KEY);
SELECT mgrepl.install_capture();
SELECT mgrepl.install_capture();

-- tables are written as ever while there is no cluster
INSERT INTO before_extension SELECT g, 'row ' || g FROM generate_series(1, 5) g;
UPDATE before_extension SET t = upper(t) WHERE id < 3;
DELETE FROM before_extension WHERE id = 5;
INSERT INTO parted VALUES (1), (2);
SELECT * FROM before_extension ORDER BY id;

-- the state of a node that is in no cluster
SELECT name, value FROM mgrepl.status
WHERE name IN ('cluster_uuid', 'cluster_size', 'primary', 'leader', 'gtid',
               'committed_seqno', 'protocol_version', 'version')
ORDER BY name COLLATE "C";
SELECT count(*) FROM mgrepl.status WHERE description IS NULL OR description = '';
SELECT count(*) FROM mgrepl.members;
SELECT mgrepl.gtid();
SELECT mgrepl.wait_for_seqno(0);
SELECT mgrepl.wait_for_seqno(1);

-- commands belong to the replicated database, to the superuser, and to no transaction block
\set VERBOSITY terse
SELECT mgrepl.bootstrap();
SELECT mgrepl.join();
SELECT mgrepl.leave();
\set VERBOSITY default
CREATE ROLE regress_mgrepl_user;
SET ROLE regress_mgrepl_user;
SELECT mgrepl.bootstrap();
SELECT mgrepl.join('127.0.0.1:5701');
SELECT mgrepl.leave();
SELECT mgrepl.install_capture();
SELECT count(*) > 0 AS status_is_for_everybody FROM mgrepl.status;
RESET ROLE;
DROP ROLE regress_mgrepl_user;

-- hashes: the rows decide, not their order or how the session shows them
CREATE TABLE hash_a (id int, n numeric, d date, b bytea);
CREATE TABLE hash_b (LIKE hash_a);
INSERT INTO hash_a VALUES (1, 1.5, '2024-02-03', '\x01'), (2, NULL, NULL, NULL), (2, NULL, NULL, NULL);
INSERT INTO hash_b VALUES (2, NULL, NULL, NULL), (1, 1.5, '2024-02-03', '\x01'), (2, NULL, NULL, NULL);
SELECT mgrepl.table_hash('hash_a') = mgrepl.table_hash('hash_b') AS same_rows;
SELECT mgrepl.table_hash('hash_a') AS hash_a \gset
SET datestyle = 'German';
SET bytea_output = 'escape';
SELECT mgrepl.table_hash('hash_a') = :'hash_a' AS same_whatever_the_session_shows;
RESET datestyle;
RESET bytea_output;
UPDATE hash_b SET n = 1.6 WHERE id = 1;
SELECT mgrepl.table_hash('hash_a') = mgrepl.table_hash('hash_b') AS same_rows;
TRUNCATE hash_b;
SELECT mgrepl.table_hash('hash_b');
SELECT table_name, split_part(hash, ':', 1) AS rows FROM mgrepl.database_hash();

-- it goes, and its triggers with it
DROP EXTENSION mgrepl;
SELECT count(*) FROM pg_trigger t WHERE t.tgname LIKE '%mgrepl%';
INSERT INTO before_extension VALUES (6, 'still here');
DROP TABLE before_extension, after_extension, local_unlogged, parted, hash_a, hash_b;
