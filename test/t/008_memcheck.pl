# Servers under valgrind: no process of them, whatever it does for the extension,
# reads bytes that nobody has written, or touches memory that is not its own.

use strict;
use warnings;

use FindBin;
use MgCluster;
use MgMemcheck;
use Test::More;

# ---- the judge itself: what is an error of the extension, and what is not ----
{
	my @blocks = MgMemcheck::parse(<<'END');
==7== Conditional jump or move depends on uninitialised value(s)
==7==    at 0x1: index_delta (/home/x/src/core/cert.c:10)
==7==    by 0x2: PostgresMain (in /usr/lib/postgresql/15/bin/postgres)
==7==
==7== Invalid read of size 8
==7==    at 0x1: memcpy (vg_replace_strmem.c:1)
==7==    by 0x2: ??? (in /usr/lib/postgresql/15/lib/mgrepl.so)
==7==  Address 0x5 is 0 bytes after a block of size 8 alloc'd
==7==
==7== Invalid write of size 1
==7==    at 0x1: relation_open (/build/postgresql/src/backend/access/common/relation.c:1)
==7==    by 0x2: PostgresMain (in /usr/lib/postgresql/15/bin/postgres)
==7==  Address 0x5 is 0 bytes after a block of size 8 alloc'd
==7==    at 0x1: malloc (vg_replace_malloc.c:1)
==7==    by 0x2: mg_alloc (/home/x/src/core/base.c:1)
END
	is(join(',', map { MgMemcheck::is_ours($_) ? 1 : 0 } @blocks), '1,1,0', 'the judge tells errors of the extension from others');
}

# ---- the cluster; valgrind makes everything some twenty times slower ----
$MgCluster::deadline_s = 120;
$ENV{PGCTLTIMEOUT} = 120;
my $memcheck = MgMemcheck->new(suppressions => "$FindBin::RealBin/../memcheck.supp");
my $c = MgCluster->new(nodes => 2, conf => q{
mgrepl.suspect_timeout = 30s
mgrepl.keepalive_period = 2s
mgrepl.appliers = 2
shared_buffers = 16MB
autovacuum = off
jit = off
}, setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text, u int UNIQUE);
INSERT INTO t SELECT g, 0, 'v' || g, g FROM generate_series(1, 50) g;
});

sub is_40001
{
	my ($r, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$r->{ok} && ($r->{sqlstate} // '') eq '40001', $name) or diag("got: $r->{out} $r->{err}");
	return;
}

# One session on each node for all of it: a new process costs more than a statement.
my @s = map { $c->session($_) } $c->all;
sub run
{
	my ($i, $sql) = @_;
	my $r = $s[ $i - 1 ]->run($sql);
	diag("node $i: $sql: $r->{err}") unless $r->{ok};
	return $r;
}
# What was committed on the other node is seen on node $i.
sub catch_up
{
	my ($i) = @_;
	my ($seqno) = run(3 - $i, 'SELECT mgrepl.gtid()')->{out} =~ /:(\d+)/;
	my $there = run($i, "SELECT mgrepl.wait_for_seqno($seqno, 60000)")->{out};
	die "node $i did not reach $seqno" unless $there eq 't';
	return;
}

# Statements in this order, each on the given node and seeing the ones before.
sub works
{
	my ($name, @steps) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($good, $last) = (1, $steps[0]);
	while (my ($i, $sql) = splice @steps, 0, 2)
	{
		catch_up($i) if $i != $last;
		$good &&= run($i, $sql)->{ok};
		$last = $i;
	}
	ok($good, $name);
	return;
}

works('definitions on both nodes',
	1, q{CREATE TYPE mood AS ENUM ('good', 'bad')},
	1, q{CREATE TABLE parent (id int PRIMARY KEY, note text COLLATE "C", m mood, d numeric, a int[], j jsonb, at timestamptz)},
	2, q{CREATE TABLE child (id bigserial PRIMARY KEY, parent_id int NOT NULL REFERENCES parent ON DELETE CASCADE, b bytea)},
	2, q{CREATE INDEX ON parent (note, id)},
	1, q{CREATE TABLE part (id int, k text, PRIMARY KEY (id, k)) PARTITION BY RANGE (id);
		CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100)},
	2, q{CREATE TABLE nokey (a int, b text)},
	2, q{CREATE FUNCTION twice(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE t SET n = n + 1 WHERE id = $1; RETURN 2 * $1; END'});

works('rows of many types, changed on both nodes',
	1, q{INSERT INTO parent SELECT g, 'p' || g, 'good', g / 7.0, ARRAY[g, NULL, 3], jsonb_build_object('k', g), now() FROM generate_series(1, 10) g},
	2, q{INSERT INTO child (parent_id, b) SELECT g, decode(md5(g::text), 'hex') FROM generate_series(1, 5) g},
	2, q{UPDATE parent SET note = NULL, m = 'bad' WHERE id IN (1, 2)},
	1, q{UPDATE parent SET id = 1000 WHERE id = 9},
	1, q{DELETE FROM parent WHERE id = 3},
	2, q{INSERT INTO part VALUES (1, 'a'), (2, NULLIF('b', 'c')), (3, '')},
	1, q{UPDATE part SET k = k || 'x' WHERE id = 1; DELETE FROM part WHERE id = 3},
	1, q{INSERT INTO nokey VALUES (1, 'one'), (1, 'one'), (NULL, NULL)},
	2, q{SELECT twice(7)},
	2, q{INSERT INTO t (id, n) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = t.n + 1},
	1, q{ALTER TABLE t ADD COLUMN later int DEFAULT 5},
	2, q{UPDATE t SET later = id WHERE id < 5},
	1, q{ALTER TABLE t DROP COLUMN later},
	2, q{UPDATE t SET n = n + 1 WHERE id < 5});

works('a toast value: stored, kept, changed',
	1, q{INSERT INTO t (id, v) SELECT 100, string_agg(md5(g::text), '') FROM generate_series(1, 2000) g},
	2, q{UPDATE t SET n = n + 1 WHERE id = 100},
	1, q{UPDATE t SET v = reverse(v) WHERE id = 100},
	2, q{SET default_toast_compression = 'lz4'; INSERT INTO t (id, v) VALUES (101, repeat('z', 100000)); RESET default_toast_compression});

works('savepoints, kept and given up',
	2, q{BEGIN; INSERT INTO t (id) VALUES (200); SAVEPOINT a; INSERT INTO t (id) VALUES (201); UPDATE t SET n = 5 WHERE id = 1;
		ROLLBACK TO a; SAVEPOINT b; INSERT INTO t (id) VALUES (202); RELEASE b; COMMIT},
	1, q{DO $$ BEGIN
		FOR i IN 1 .. 5 LOOP BEGIN INSERT INTO t (id) VALUES (200 + i); EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP;
	END $$});

works('a large transaction, most of it in a temporary file',
	2, q{SET mgrepl.capture_mem = '64kB'; BEGIN; INSERT INTO t (id, v) SELECT g, repeat('x', 200) FROM generate_series(1001, 2500) g},
	2, q{SAVEPOINT a; UPDATE t SET n = 1 WHERE id > 1000; ROLLBACK TO a; UPDATE t SET n = 2 WHERE id > 1900; COMMIT},
	2, q{RESET mgrepl.capture_mem; TRUNCATE nokey});

# ---- conflicts ----
run(2, 'BEGIN; UPDATE t SET n = n + 1 WHERE id = 20');
run(1, 'UPDATE t SET n = 10 WHERE id = 20');
$c->wait_sql(2, 'SELECT n = 10 FROM t WHERE id = 20');
is_40001($s[1]->run('SELECT 1'), 'a session idle in its transaction makes way for a certified change');
run(2, 'ROLLBACK');

run(2, 'BEGIN; UPDATE t SET n = n + 1 WHERE id = 21');
$s[1]->start('SELECT pg_sleep(600)');
$c->wait_sql(2, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
run(1, 'UPDATE t SET n = 10 WHERE id = 21');
is_40001($s[1]->finish, 'a running statement makes way');
run(2, 'ROLLBACK');

run($_, "BEGIN; INSERT INTO t (id, u) VALUES (300 + $_, 7777)") for 1, 2;
my @outcome = map { $_->run('COMMIT') } @s;
is(scalar(grep { $_->{ok} } @outcome), 1, 'a unique value claimed by two nodes: one commits');
is_40001((grep { !$_->{ok} } @outcome)[0], 'the other one is told 40001');

run(1, 'BEGIN; DELETE FROM parent WHERE id = 10');
run(2, 'BEGIN; INSERT INTO child (parent_id) VALUES (10)');
@outcome = map { $_->run('COMMIT') } @s;
is(scalar(grep { $_->{ok} } @outcome), 1, 'a parent deleted under a new child: one commits');

# Both nodes at once on few rows: certification fails, applies wait for each other.
{
	my $script = "$PostgreSQL::Test::Utils::tmp_check/load.sql";
	open my $f, '>', $script or die $!;
	print $f "\\set id random(1, 10)\nUPDATE t SET n = n + 1 WHERE id = :id;\n";
	close $f;
	my @runs = map { $c->pgbench_start($_, '-f', $script, '-t', 25, '-c', 2, '--max-tries', 100000) } $c->all;
	is(MgCluster::pgbench_finish($_)->{rc}, 0, "load on node $_->{node}") or diag($_->{err}) for @runs;
}

$c->refuses(1, 'CREATE TABLE x AS SELECT 1', '0A000', qr/cannot be replicated/, 'a definition that cannot be replicated', no_hint => 1);
works('what SQL shows of the cluster',
	$_, 'SELECT * FROM mgrepl.status; SELECT * FROM mgrepl.members; SELECT mgrepl.gtid()')
  for $c->all;

# ---- out and in again, with something missed; a server that stops and comes back ----
run(2, 'SELECT mgrepl.leave()');
$c->wait_size(1, 1);
works('writes on the one that stays', 1, q{INSERT INTO t (id, v) SELECT g, 'missed' FROM generate_series(5001, 5100) g});
$c->join_node(2);
$c->wait_size(2);
works('writes after leave and join', 2, 'UPDATE t SET n = 3 WHERE id > 5000');
catch_up(1);
my @hash = map { run($_, 'SELECT * FROM mgrepl.database_hash()')->{out} } $c->all;
is($hash[0], $hash[1], 'the same on both nodes');
like($hash[0], qr/\bpart_low\b.*\bt\b/s, 'and not nothing');

$_->quit for @s;
$c->node(2)->stop;
$c->node(2)->start;
$c->wait_synced(2);
ok($c->try(2, 'DELETE FROM t WHERE id > 5050')->{ok}, 'writes after a restart');
$c->log_clean('no process died, nothing but what was expected in the logs', qr/ (?:0A000|25P01|57P01|55000) /);
$c->node($_)->stop for reverse $c->all;
$memcheck->end;

# ---- the verdict ----
my @logs   = $memcheck->logs;
my @blocks = $memcheck->blocks;
my @ours   = grep { MgMemcheck::is_ours($_) } @blocks;
cmp_ok(scalar(@logs), '>', 20, 'the processes of the servers ran under valgrind');
note(scalar(@logs), ' logs, ', scalar(@blocks), ' errors outside of the extension: ', map { "\n$_\n" } @blocks);
is(scalar(@ours), 0, 'valgrind found no error of the extension') or diag(map { "$_\n\n" } @ours);

done_testing();
