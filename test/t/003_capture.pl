# Every way to change a row, every built-in type: the same rows everywhere.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3, conf => "mgrepl.capture_mem = '64kB'\n");

# The objects of this test are made on node 1, statement by statement.
sub define
{
	my ($sql) = @_;
	$c->sql(1, $sql);
	$c->settle;
	return;
}

# ---- every built-in type ----
my %values = (
	bool => [ 'true', 'false' ],
	char => [ q{'a'}, q{'~'} ],
	name => [ q{'a name'}, q{''} ],
	int2 => [ q{'-32768'}, '32767' ],
	int4 => [ q{'-2147483648'}, '2147483647' ],
	int8 => [ q{'-9223372036854775808'}, '9223372036854775807' ],
	float4 => [ q{'NaN'}, q{'-0'}, '1.17549435e-38', q{'-Infinity'} ],
	float8 => [ q{'NaN'}, q{'-0'}, '0.1', '1.7976931348623157e308', q{'Infinity'} ],
	numeric => [ q{'NaN'}, '1.0', '1.00', q{'-1e-100'}, '9e999', q{'Infinity'} ],
	text => [ q{''}, q{E'line\nbreak \\\\ "quoted" ''single'' \t\u00e9\U0001F600'} ],
	varchar => [ q{'varying'}, q{''} ],
	bpchar => [ q{'padded  '}, q{''} ],
	bytea => [ q{'\x00ff10'}, q{''} ],
	date => [ q{'2000-02-29'}, q{'infinity'}, q{'4713-01-01 BC'} ],
	time => [ q{'23:59:59.999999'}, q{'24:00'} ],
	timetz => [ q{'12:00+05:30'}, q{'00:00:00.000001-15:59'} ],
	timestamp => [ q{'infinity'}, q{'2024-02-29 12:00:00.123456'}, q{'-infinity'} ],
	timestamptz => [ q{'2024-03-31 02:30:00+02'}, q{'infinity'} ],
	interval => [ q{'1 year -2 mons +3 days -04:05:06.000007'}, q{'0'} ],
	uuid => [ q{'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'} ],
	json => [ q{'{"a": 1,  "a": 2}'}, q{'null'} ],
	jsonb => [ q{'{"b": [1, 2.50, null], "a": "x"}'}, q{'"s"'} ],
	jsonpath => [ q{'$.a[*] ? (@ > 1)'} ],
	xml => [ q{'<a b="c">d</a>'} ],
	inet => [ q{'192.168.0.1/24'}, q{'::1'} ],
	cidr => [ q{'10.0.0.0/8'}, q{'2001:db8::/32'} ],
	macaddr => [ q{'08:00:2b:01:02:03'} ],
	macaddr8 => [ q{'08:00:2b:01:02:03:04:05'} ],
	bit => [ q{B'1'} ],
	varbit => [ q{B'10101'}, q{B''} ],
	point => [ q{'(1.5,-2)'} ],
	line => [ q{'{1,2,3}'} ],
	lseg => [ q{'[(0,0),(1,1)]'} ],
	box => [ q{'(1,1),(0,0)'} ],
	path => [ q{'[(0,0),(1,1)]'}, q{'((0,0),(1,1))'} ],
	polygon => [ q{'((0,0),(1,1),(1,0))'} ],
	circle => [ q{'<(1,2),3>'} ],
	money => [ q{'12.34'}, q{'-0.01'} ],
	tsvector => [ q{'a:1A fat:2B,4C cat:5'}, q{''} ],
	tsquery => [ q{'fat & (rat | !cat:*)'} ],
	int4range => [ q{'[1,5)'}, q{'empty'} ],
	int8range => [ q{'[,5)'} ],
	numrange => [ q{'(1.0,2.50]'} ],
	tsrange => [ q{'[2024-01-01,2024-02-01)'} ],
	tstzrange => [ q{'[2024-01-01 00:00+00,)'} ],
	daterange => [ q{'[2024-01-01,2024-02-01)'} ],
	int4multirange => [ q{'{[1,2),[5,9)}'} ],
	int8multirange => [ q{'{}'} ],
	nummultirange => [ q{'{(1.0,2.50]}'} ],
	tsmultirange => [ q{'{[2024-01-01,2024-02-01)}'} ],
	tstzmultirange => [ q{'{[2024-01-01 00:00+00,)}'} ],
	datemultirange => [ q{'{[2024-01-01,2024-02-01)}'} ],
	oid => [ '0', '4294967295' ],
	xid => [ q{'4294967295'} ],
	xid8 => [ q{'18446744073709551615'} ],
	cid => [ q{'7'} ],
	tid => [ q{'(4294967295,65535)'} ],
	pg_lsn => [ q{'FFFFFFFF/FFFFFFFF'} ],
	txid_snapshot => [ q{'10:20:10,14'} ],
	pg_snapshot => [ q{'10:20:10,14'} ],
	regclass => [ q{'types'}, q{'pg_class'}, q{'-'} ],
	regproc => [ q{'own_function'}, q{'now'} ],
	regprocedure => [ q{'own_function(int)'}, q{'abs(numeric)'} ],
	regtype => [ q{'mood'}, q{'int4'} ],
	regoper => [ q{'||/'} ],
	regoperator => [ q{'+(int4,int4)'} ],
	regrole => [ q{'pg_monitor'} ],
	regnamespace => [ q{'own_schema'}, q{'public'} ],
	regconfig => [ q{'english'} ],
	regdictionary => [ q{'simple'} ],
	regcollation => [ q{'"C"'} ],
	int2vector => [ q{'1 2 3'} ],
	oidvector => [ q{'1 2 3'} ],
	refcursor => [ q{'a cursor'} ],
	aclitem => [ q{'=r/pg_monitor'} ],
);
# These have no values that a user's table can hold.
my $impossible = q{'unknown', 'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list',
	'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'gtsvector'};

define(q{
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE SCHEMA own_schema;
CREATE FUNCTION own_function(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
});
my @all_types = split /\n/, $c->sql(1, qq{
	SELECT typname FROM pg_type
	WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typelem = 0 OR typname IN ('int2vector', 'oidvector', 'point', 'lseg', 'box', 'line', 'name')
	EXCEPT SELECT unnest(ARRAY[$impossible]) ORDER BY 1});
is(join(' ', grep { !$values{$_} } @all_types), '', 'every built-in type has a value in this test');
my @types = grep { $values{$_} } @all_types;
cmp_ok(@types, '>=', 65, 'and there are ' . @types . ' of them');

define('CREATE TABLE types (id int PRIMARY KEY, '
	  . join(', ', map { qq{"c_$_" "$_", "a_$_" "$_"[]} } @types) . ')');
{
	# one row for each value of each type, on the nodes in turn, then changed on the next node
	my ($id, @insert, @update) = (0);
	for my $type (@types)
	{
		for my $value (@{ $values{$type} })
		{
			my $cast = qq{$value\::pg_catalog."$type"};
			my $node = ++$id % 3;
			push @{ $insert[$node] },
			  qq{INSERT INTO types (id, "c_$type", "a_$type") VALUES ($id, $cast, ARRAY[$cast, NULL]);};
			push @{ $update[ ($node + 1) % 3 ] },
			  qq{UPDATE types SET "c_$type" = NULL, "a_$type" = ARRAY[[$cast], [$cast]] WHERE id = $id AND id % 2 = 0;};
		}
	}
	$c->sql($_ + 1, join "\n", @{ $insert[$_] }) for 0 .. 2;
	$c->same_content("$id values of all built-in types, inserted on three nodes");
	$c->sql($_ + 1, join "\n", @{ $update[$_] }) for 0 .. 2;
	$c->same_content('and changed on another node');
	$c->sql(2, 'UPDATE types SET id = id + 1000 WHERE id % 3 = 0; DELETE FROM types WHERE id % 5 = 0');
	$c->same_content('keys changed, rows deleted');
}

# found by a key of each hashable type
{
	my @keys = grep { !/^(json|jsonpath|xml|point|line|lseg|box|path|polygon|circle|txid_snapshot|pg_snapshot|xid|cid|aclitem|int2vector|refcursor|tsvector|tsquery|money|regclass|regproc)$/ } @types;
	my %btree = map { $_ => 1 } split /\n/, $c->sql(1, q{
		SELECT DISTINCT t.typname FROM pg_type t JOIN pg_opclass o ON o.opcintype = t.oid OR (o.opcintype = 'anyrange'::regtype AND t.typtype = 'r')
		  OR (o.opcintype = 'anymultirange'::regtype AND t.typtype = 'm')
		WHERE o.opcdefault AND o.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree')});
	@keys = grep { $btree{$_} } @keys;
	define(join "\n", map { qq{CREATE TABLE "key_$_" (k "$_" PRIMARY KEY, v int);} } @keys);
	for my $type (@keys)
	{
		$c->sql(1, join "\n", map { qq{INSERT INTO "key_$type" VALUES ($_, 1) ON CONFLICT DO NOTHING;} } @{ $values{$type} });
	}
	$c->settle;
	$c->sql(2, join "\n", map { qq{UPDATE "key_$_" SET v = v + 1;} } @keys);
	$c->settle;
	$c->sql(3, join "\n", map { qq{DELETE FROM "key_$_" WHERE k = (SELECT k FROM "key_$_" ORDER BY k LIMIT 1);} } @keys);
	$c->same_content('rows found by keys of ' . @keys . ' types');
}

# ---- types of one's own ----
define(q{CREATE TYPE pair AS (a int, b text, m mood)});
define(q{CREATE DOMAIN positive AS int CHECK (VALUE > 0)});
define(q{CREATE TYPE floats AS RANGE (subtype = float8, multirange_type_name = manyfloats)});
define(q{CREATE TABLE own (id int PRIMARY KEY, m mood, ms mood[], p pair, ps pair[], d positive, f floats, fm manyfloats)});
$c->sql(2, q{
INSERT INTO own VALUES (1, 'sad', '{ok,happy}', ROW(1, 'x,"y"', 'ok'), ARRAY[ROW(2, NULL, 'sad')::pair, NULL], 7, '[0.5,1)', '{[0,1),[2,3)}');
INSERT INTO own (id) VALUES (2);
});
$c->settle;
$c->sql(3, q{UPDATE own SET m = 'happy', p.b = 'changed', ps[1].a = 9, d = d + 1 WHERE id = 1});
$c->same_content('enums, composite types, domains, ranges of one\'s own');

# ---- kinds of statement ----
define(q{CREATE TABLE s (id int PRIMARY KEY, v text, n int DEFAULT 0, u int UNIQUE, g int GENERATED ALWAYS AS (n * 2) STORED)});
$c->sql(1, q{INSERT INTO s (id, v, u) SELECT g, 'v' || g, g FROM generate_series(1, 100) g});
$c->sql(2, "COPY s (id, v, u) FROM STDIN;\n" . join('', map { "$_\tcopied $_\t$_\n" } 101 .. 200) . "\\.\n");
$c->settle;
$c->sql(3, q{COPY s (id, v) FROM STDIN (FORMAT csv);
201,"with, comma"
202,
\.
});
$c->settle;
$c->sql(1, q{
INSERT INTO s (id, v, n) VALUES (1, 'one', 1), (301, 'new', 1) ON CONFLICT (id) DO UPDATE SET n = s.n + 1, v = EXCLUDED.v;
INSERT INTO s (id, v) VALUES (2, 'no'), (302, 'new') ON CONFLICT DO NOTHING;
MERGE INTO s USING (VALUES (3, 'merged'), (4, NULL), (303, 'merged in')) AS m (id, v) ON s.id = m.id
	WHEN MATCHED AND m.v IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET v = m.v, n = n + 1
	WHEN NOT MATCHED THEN INSERT (id, v) VALUES (m.id, m.v);
WITH gone AS (DELETE FROM s WHERE id BETWEEN 10 AND 19 RETURNING *), changed AS (UPDATE s SET n = 5 WHERE id BETWEEN 20 AND 29 RETURNING *)
	INSERT INTO s (id, v) SELECT id + 1000, v FROM gone UNION ALL SELECT id + 1000, v FROM changed;
UPDATE s SET n = t.c FROM (SELECT count(*) AS c FROM s) t WHERE s.id = 30;
DELETE FROM s USING (VALUES (31)) v(i) WHERE s.id = v.i;
});
is($c->sql(1, 'SELECT count(*) FROM s'), 213, 'the statements did what they say');
$c->same_content('INSERT, COPY, ON CONFLICT, MERGE, WITH, UPDATE FROM, DELETE USING');

$c->sql(2, q{
BEGIN;
UPDATE s SET n = n + 1 WHERE id = 50; UPDATE s SET n = n + 1 WHERE id = 50; UPDATE s SET id = 5050 WHERE id = 50; UPDATE s SET n = n * 3 WHERE id = 5050;
INSERT INTO s (id) VALUES (6000); DELETE FROM s WHERE id = 6000;
DELETE FROM s WHERE id = 51; INSERT INTO s (id, v, u) VALUES (51, 'back', 51);
COMMIT;
BEGIN;
DECLARE cur CURSOR FOR SELECT * FROM s WHERE id IN (52, 53) ORDER BY id FOR UPDATE;
FETCH cur; UPDATE s SET v = 'at the cursor' WHERE CURRENT OF cur;
FETCH cur; DELETE FROM s WHERE CURRENT OF cur;
COMMIT;
PREPARE p (int) AS UPDATE s SET v = 'prepared' WHERE id = $1; EXECUTE p (54); EXECUTE p (55);
});
$c->same_content('one row several times in a transaction, cursors, prepared statements');

# values of a unique index handed from row to row
define(q{CREATE TABLE swap (id int PRIMARY KEY, pos int UNIQUE DEFERRABLE INITIALLY DEFERRED)});
$c->sql(1, 'INSERT INTO swap SELECT g, g FROM generate_series(1, 10) g');
$c->settle;
$c->sql(2, 'BEGIN; UPDATE swap SET pos = 11 - pos; COMMIT');
$c->same_content('a deferrable unique key turned round');

# ---- savepoints ----
$c->sql(3, q{
BEGIN;
INSERT INTO s (id, v) VALUES (7001, 'kept');
SAVEPOINT a;
INSERT INTO s (id, v) VALUES (7002, 'rolled back');
UPDATE s SET v = 'rolled back' WHERE id = 60;
SAVEPOINT b;
DELETE FROM s WHERE id = 61;
RELEASE SAVEPOINT b;
ROLLBACK TO SAVEPOINT a;
INSERT INTO s (id, v) VALUES (7003, 'after');
SAVEPOINT c;
UPDATE s SET v = 'released' WHERE id = 62;
RELEASE SAVEPOINT c;
COMMIT;
DO $$ BEGIN
	FOR i IN 1 .. 50 LOOP
		BEGIN
			INSERT INTO s (id, v) VALUES (7100 + i, 'in a block');
			IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN raise_exception THEN
			UPDATE s SET n = n + 1 WHERE id = 63;
		END;
	END LOOP;
END $$;
});
is($c->sql(3, q{SELECT string_agg(id::text, ',' ORDER BY id) FROM s WHERE id BETWEEN 7000 AND 7099}), '7001,7003', 'savepoints as on one server');
$c->same_content('savepoints and exception blocks');

# ---- triggers, functions, views, rules ----
define(q{CREATE TABLE audit (id bigserial PRIMARY KEY, what text, row_id int)});
define(q{CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO audit (what, row_id) VALUES (TG_OP || ' ' || TG_WHEN, coalesce(NEW.id, OLD.id));
	IF TG_WHEN = 'BEFORE' THEN NEW.v := NEW.v || ' (seen)'; RETURN NEW; END IF;
	IF TG_OP = 'INSERT' AND NEW.n < 3 THEN UPDATE trig SET n = n + 1 WHERE id = NEW.id; END IF;
	IF TG_OP = 'UPDATE' AND NEW.n < 3 THEN UPDATE trig SET n = n + 1 WHERE id = NEW.id; END IF;
	RETURN NULL;
END $$});
define(q{CREATE TABLE trig (id int PRIMARY KEY, v text, n int DEFAULT 0)});
define(q{CREATE TRIGGER before_row BEFORE INSERT OR UPDATE ON trig FOR EACH ROW EXECUTE FUNCTION note()});
define(q{CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON trig FOR EACH ROW EXECUTE FUNCTION note()});
define(q{CREATE VIEW seen AS SELECT id, v FROM trig WHERE id > 0});
define(q{CREATE FUNCTION put(i int) RETURNS int LANGUAGE sql AS 'INSERT INTO seen VALUES ($1, $$by function$$) RETURNING id'});
define(q{CREATE RULE away AS ON DELETE TO seen DO ALSO UPDATE trig SET v = 'deleted through the view' WHERE id = OLD.id + 1});
$c->sql(1, q{INSERT INTO trig (id, v) SELECT g, 'x' FROM generate_series(1, 5) g});
is($c->sql(1, 'SELECT string_agg(DISTINCT n::text, $$,$$) FROM trig'), '3', 'triggers that change their own table');
$c->settle;
$c->sql(1, q{SELECT put(6); UPDATE seen SET v = 'through the view' WHERE id = 2; DELETE FROM seen WHERE id = 3; DELETE FROM trig WHERE id = 5});
$c->same_content('rows changed by triggers, functions, views and rules, once each');

# ---- foreign keys with actions ----
define(q{CREATE TABLE a (id int PRIMARY KEY)});
define(q{CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE)});
define(q{CREATE TABLE d (id int PRIMARY KEY, b_id int DEFAULT 1 REFERENCES b ON DELETE SET NULL ON UPDATE SET DEFAULT DEFERRABLE INITIALLY DEFERRED)});
$c->sql(2, q{
INSERT INTO a SELECT generate_series(1, 10);
INSERT INTO b SELECT g, g % 10 + 1 FROM generate_series(1, 50) g;
INSERT INTO d SELECT g, g % 50 + 1 FROM generate_series(1, 200) g;
});
$c->settle;
$c->sql(3, 'DELETE FROM a WHERE id IN (3, 4); UPDATE a SET id = 100 WHERE id = 5; UPDATE b SET id = 500 WHERE id = 20; BEGIN; INSERT INTO d VALUES (1000, 777); INSERT INTO b VALUES (777, 1); COMMIT');
is($c->sql(3, 'SELECT count(*) FROM d WHERE b_id IS NULL'), 40, 'the actions were taken');
$c->same_content('cascades, set null, set default, deferred checks');

# ---- partitions and inheritance ----
define(q{CREATE TABLE part (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k)});
define(q{CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100)});
define(q{CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200) PARTITION BY HASH (id)});
define(q{CREATE TABLE part_2a PARTITION OF part_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0)});
define(q{CREATE TABLE part_2b PARTITION OF part_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1)});
define(q{CREATE TABLE part_d PARTITION OF part DEFAULT});
define(q{CREATE TABLE parent (id int PRIMARY KEY, v text)});
define(q{CREATE TABLE heir (PRIMARY KEY (id), w int) INHERITS (parent)});
$c->sql(1, q{INSERT INTO part SELECT g, g * 3, 'v' FROM generate_series(0, 99) g; INSERT INTO parent VALUES (1, 'p'); INSERT INTO heir VALUES (2, 'h', 2)});
$c->settle;
$c->sql(2, q{UPDATE part SET v = 'w' WHERE k < 150; UPDATE part SET k = k + 100 WHERE id % 7 = 0; DELETE FROM part WHERE id % 11 = 0; UPDATE part_1 SET v = 'direct'; UPDATE parent SET v = v || '!'; DELETE FROM parent WHERE id = 2});
$c->same_content('rows that move between partitions, inheritance');
cmp_ok($c->sql(3, 'SELECT count(*) FROM ONLY part_2a'), '>', 0, 'a partition of a partition has rows on node 3');

# ---- large values ----
define(q{CREATE TABLE big (id int PRIMARY KEY, a text, b text, c bytea, n int DEFAULT 0)});
define(q{ALTER TABLE big ALTER COLUMN b SET STORAGE EXTERNAL});
define(q{CREATE TABLE big_full (a text, b text, n int)});
define(q{ALTER TABLE big_full REPLICA IDENTITY FULL});
my $noise = q{(SELECT string_agg(md5(i::text || g), '') FROM generate_series(1, 5000) i)};
$c->sql(1, qq{
INSERT INTO big SELECT g, $noise, $noise, decode(md5(g::text), 'hex'), 0 FROM generate_series(1, 10) g;
INSERT INTO big_full SELECT $noise, 'short', g FROM generate_series(1, 5) g;
});
$c->settle;
$c->sql(2, q{
UPDATE big SET n = n + 1;
UPDATE big SET a = a || 'x' WHERE id = 2;
UPDATE big SET a = b, b = a WHERE id = 3;
UPDATE big SET b = 'small now' WHERE id = 4;
UPDATE big SET id = 400, n = 7 WHERE id = 5;
BEGIN; UPDATE big SET n = 1 WHERE id = 6; UPDATE big SET a = 'new' WHERE id = 6; UPDATE big SET n = 2 WHERE id = 6; COMMIT;
UPDATE big_full SET n = n + 10 WHERE n > 1; DELETE FROM big_full WHERE n = 1;
});
$c->same_content('toasted values, changed and not');

# ---- large transactions ----
define(q{CREATE TABLE many (id int PRIMARY KEY, v text, n int)});
$c->sql(1, q{INSERT INTO many SELECT g, repeat('x', g % 100), g FROM generate_series(1, 100000) g});
$c->settle;
$c->sql(2, q{
BEGIN;
UPDATE many SET n = n + 1 WHERE id <= 50000;
SAVEPOINT a; DELETE FROM many WHERE id > 50000; ROLLBACK TO SAVEPOINT a;
DELETE FROM many WHERE id > 90000;
UPDATE many SET n = n + 1 WHERE id <= 10000;
COMMIT;
});
is($c->sql(2, 'SELECT count(*), sum(n) FROM many'), '90000|4050105000', 'a large transaction with a savepoint');
$c->same_content('transactions that are spilled to disk');

# ---- what has no key ----
define(q{CREATE TABLE nokey (a int, b text)});
define(q{CREATE TABLE byindex (a int NOT NULL, b text, n int)});
define(q{CREATE UNIQUE INDEX byindex_a ON byindex (a)});
define(q{ALTER TABLE byindex REPLICA IDENTITY USING INDEX byindex_a});
define(q{CREATE TABLE expressions (id int PRIMARY KEY, v text, deleted bool DEFAULT false)});
define(q{CREATE UNIQUE INDEX ON expressions (lower(v)) WHERE NOT deleted});
$c->sql(1, q{
INSERT INTO nokey SELECT g % 3, 'twice' FROM generate_series(1, 10) g;
INSERT INTO byindex SELECT g, 'b', 0 FROM generate_series(1, 10) g;
INSERT INTO expressions SELECT g, 'V' || g FROM generate_series(1, 10) g;
});
$c->settle;
$c->sql(2, q{UPDATE byindex SET n = n + 1 WHERE a > 3; DELETE FROM byindex WHERE a = 2; UPDATE byindex SET a = 50 WHERE a = 5;
UPDATE expressions SET deleted = true WHERE id < 5; INSERT INTO expressions VALUES (20, 'v1'); UPDATE expressions SET v = upper(v)});
$c->same_content('tables without a primary key, with another identity, with an index on an expression');

# ---- what stays on its node ----
{
	my $before = $c->status(1, 'committed_seqno');
	$c->sql(1, q{CREATE TEMP TABLE mine (a int PRIMARY KEY); INSERT INTO mine SELECT generate_series(1, 10); UPDATE mine SET a = -a; DROP TABLE mine});
	is($c->status(1, 'committed_seqno'), $before, 'temporary tables stay on their node');
}

# ---- columns that come and go ----
define(q{ALTER TABLE s DROP COLUMN v});
define(q{ALTER TABLE s ADD COLUMN w text DEFAULT 'filled in'});
define(q{ALTER TABLE s RENAME COLUMN n TO number});
$c->sql($_, "INSERT INTO s (id, number) VALUES (9000 + $_, $_); UPDATE s SET w = w || ' $_' WHERE id = 70 + $_") for $c->all;
$c->same_content('columns dropped, added and renamed');

$c->log_clean('no errors but serialization failures in the logs');
done_testing();
