# Snapshots by statements (mgrepl.sst_method = 'dump'): the exported snapshot is
# exactly that of its GTID; an empty server is filled under load and joins without
# a restart; one that is not empty is refused; one that is killed in the middle
# keeps nothing, and joins at the second try.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 2, conf => $MgCluster::transfer_conf, setup => q{
CREATE ROLE keeper LOGIN PASSWORD 'secret';
ALTER ROLE keeper SET search_path = public, pg_catalog;
CREATE ROLE readers;
GRANT readers TO keeper;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, gone int, m mood DEFAULT 'ok', v text);
ALTER TABLE t DROP COLUMN gone;
INSERT INTO t (id, v) SELECT g, repeat('x', 200) FROM generate_series(1, 20000) g;
CREATE UNIQUE INDEX t_expr ON t ((lower(v) || id));
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES t, s serial);
INSERT INTO child (id, parent) SELECT g, g FROM generate_series(1, 100) g;
ALTER TABLE child OWNER TO keeper;
CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO counter SELECT g, 0 FROM generate_series(1, 64) g;
CREATE TABLE cleared (id int PRIMARY KEY);
CREATE TABLE state (id int PRIMARY KEY, what text);
INSERT INTO state VALUES (1, 'empty');
CREATE VIEW sums AS SELECT sum(n) FROM counter;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
SELECT lo_from_bytea(0, 'a large object');	-- for which pg_dump would commit in the middle
});

# Rows that only one node writes: no certification is lost, every seqno is a commit.
sub script
{
	my ($name, $text) = @_;
	PostgreSQL::Test::Utils::append_to_file("$PostgreSQL::Test::Utils::tmp_check/$name.sql", $text);
	return "$PostgreSQL::Test::Utils::tmp_check/$name.sql";
}
my @counting = map { script("count$_", "\\set c random(" . (32 * $_ - 31) . ', ' . 32 * $_ . ")\nUPDATE counter SET n = n + 1 WHERE id = :c;\n") } 1, 2;
my $mixed = script('mixed', <<'END');
\set id random(1, 5000)
\set c random(1, 64)
BEGIN;
UPDATE t SET n = n + 1, m = 'happy' WHERE id = :id;
UPDATE counter SET n = n + 1 WHERE id = :c;
COMMIT;
END

# ---- the snapshot is exactly at its GTID ----
# Each seqno is one commit, which adds 1 to the counters, or an export: so the sum tells the seqno.
my $donor = $c->session(1);
ok($donor->run(q{SELECT gtid FROM mgrepl.donate('nobody')})->{ok}, 'a session donates');
my @load = map { $c->pgbench_start($_, '-f', $counting[ $_ - 1 ], '-T', 5, '-c', 4) } 1, 2;
my $reader = $c->session(1);
my (@wrong, $first, $last);
my $exports = 0;
my $end = time() + 4;
while (time() < $end)
{
	my $r = $donor->run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;\nSELECT snapshot || ' ' || gtid FROM mgrepl.export_snapshot()");
	my ($snapshot, $seqno) = $r->{out} =~ /(\S+) \S+:(\d+)$/ or die "no export: $r->{err}";
	my $sum = $reader->run("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET TRANSACTION SNAPSHOT '$snapshot';\nSELECT sum(n) FROM counter;\nCOMMIT")->{out};
	$donor->run('COMMIT');
	$first //= $seqno - $sum;
	$last = $seqno;
	push @wrong, "seqno $seqno has " . ($sum - ($seqno - $first - $exports)) . ' commits too many' if $sum != $seqno - $first - $exports;
	$exports++;
}
for (@load)
{
	MgCluster::pgbench_finish($_);
	is($_->{rc}, 0, "clients of node $_->{node} see no error") or diag($_->{err});
}

# ---- TRUNCATE keeps to no snapshot: a table that looks empty, and was not, is never exported ----
my $clear = script('clear', <<'END');
UPDATE state SET what = 'clearing' WHERE id = 1;
TRUNCATE cleared;
UPDATE state SET what = 'empty' WHERE id = 1;
BEGIN;
INSERT INTO cleared SELECT generate_series(1, 10);
UPDATE state SET what = 'full' WHERE id = 1;
COMMIT;
END
my ($good, $late) = (0, 0);
my @wrong_rows;
@load = $c->pgbench_start(2, '-f', $clear, '-T', 4, '--max-tries', 1000);
$end = time() + 3;
while (time() < $end)
{
	my $r = $donor->run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;\nSELECT 'it is ' || snapshot FROM mgrepl.export_snapshot()");
	if (my ($snapshot) = $r->{out} =~ /it is (\S+)/)
	{
		my $seen = $reader->run("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET TRANSACTION SNAPSHOT '$snapshot';\nSELECT what || (SELECT count(*) FROM cleared) FROM state;\nCOMMIT")->{out};
		if (!$donor->run('SELECT 1')->{ok} || $seen eq '')
		{
			$late++;	# the donor's locks are gone and the snapshot with them, or the reader was rolled back: nothing counts
		}
		elsif ($seen =~ /^(?:full10|empty0|clearing0|clearing10)$/)
		{
			$good++;
		}
		else
		{
			push @wrong_rows, $seen;
		}
	}
	else
	{
		$late++;
	}
	$donor->run('ROLLBACK');
}
MgCluster::pgbench_finish($_) for @load;
is("@wrong_rows", '', "no snapshot shows a table empty that was not ($good seen, $late not given)");
cmp_ok($good, '>', 0, 'some were seen');
$donor->quit;
$reader->quit;
cmp_ok($exports, '>=', 10, "snapshots were exported under load: $exports, over " . ($last - $first) . ' seqnos');
is("@wrong", '', 'each has exactly what its position says');
$c->refuses(1, 'BEGIN; SELECT * FROM mgrepl.export_snapshot()', '55000', qr/no donor's/, 'only a donor\'s session exports');

# ---- a server whose database is not empty ----
my $new = $c->add_lone(conf => "mgrepl.sst_method = 'dump'\n");
my ($postmaster) = $c->processes($new);
my $join = "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')";
$c->sql($new, 'CREATE TABLE mine (id int PRIMARY KEY)');
my $r = $c->refuses($new, $join, '55000', qr/not empty \(table mine\)/, 'a database that is not empty is refused');
like($r->{hint}, qr/Drop|basebackup/, 'the hint says what to do');
is($c->status($new, 'node_state'), 'OPEN', 'it is in no cluster');
ok($c->try($new, 'INSERT INTO mine VALUES (1); DROP TABLE mine')->{ok}, 'it takes writes as before');
my $writer = $c->session($new);
$writer->run("BEGIN;\nCREATE TABLE mine (id int PRIMARY KEY)");
my $refused = $c->session($new);
$refused->start($join);
$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'choosing a donor');
$c->refuses($new, 'CREATE TABLE other (id int)', '57P03', qr/joining/, 'nothing new is written while the transfer begins');
$writer->run('COMMIT');
like($refused->finish->{err}, qr/not empty \(table mine\)/, 'what was being written meanwhile is waited for');
$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'failed');
$c->sql($new, 'DROP TABLE mine');
$_->quit for $writer, $refused;
$c->refuses($new, q{BEGIN; SELECT mgrepl.adopt_position('3b1b2f0c-7a50-4b0d-9a60-8a5a6d3f2b11:7')}, '55000', qr/no dump/, 'a position is adopted in a transfer only');

# ---- loaded under load, and killed in the middle ----
sub loading
{
	$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'copying');
	$c->wait_sql($new, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'mgrepl sst%' AND backend_xid IS NOT NULL AND wait_event_type = 'Lock'}, 't');
	return;
}

# The load waits for this lock in the middle, when it comes to constraints.
my $holder = $c->session($new);
$holder->run("BEGIN;\nLOCK TABLE pg_catalog.pg_constraint IN SHARE MODE");
@load = map { $c->pgbench_start($_, '-f', $mixed, '-T', 10, '-c', 2, '--max-tries', 100000) } 1, 2;

$r = $c->try($new, $join);
like($r->{err}, qr/NOTICE:.*being loaded into this server/s, 'join() says what will happen');
loading();
$c->refuses($new, 'CREATE TABLE other (id int)', '57P03', qr/joining/, 'the server takes no writes meanwhile');
my ($joiner) = split /\n/, $c->sql($new, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mgrepl joiner'});
kill 'TERM', $joiner;
$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'failed');
$c->wait_sql($new, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mgrepl sst%'}, 0);
is($c->sql($new, q{SELECT count(*) FROM pg_class WHERE relname IN ('t', 'counter', 'child', 'sums')}), 0, 'killed in the middle: nothing is left of it');
is($c->sql($new, q{SELECT count(*) FROM pg_replication_origin}) . $c->sql($new, q{SELECT count(*) FROM pg_roles WHERE rolname = 'keeper'}), '00', 'neither position nor roles');
$c->wait_sql($new, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');

ok($c->try($new, $join)->{ok}, 'the server is killed while it loads');
loading();
$c->kill_node($new);
$c->start_node($new);
($postmaster) = $c->processes($new);
$c->wait_synced($new);
is(($c->processes($new))[0], $postmaster, 'it goes on by itself after the restart, and the server does not restart for it');
for (@load)
{
	MgCluster::pgbench_finish($_);
	is($_->{rc}, 0, "clients of node $_->{node} see no error") or diag($_->{err});
}
$c->wait_size(3);
$c->same_content('a dump under load');
is($c->sql(1, q{SELECT string_agg(rolname || coalesce(rolpassword, '-'), ',' ORDER BY rolname) FROM pg_authid WHERE rolname IN ('keeper', 'readers')}),
	$c->sql($new, q{SELECT string_agg(rolname || coalesce(rolpassword, '-'), ',' ORDER BY rolname) FROM pg_authid WHERE rolname IN ('keeper', 'readers')}), 'roles and their passwords');
is($c->sql($new, q{SELECT pg_has_role('keeper', 'readers', 'member') || (SELECT setconfig::text FROM pg_db_role_setting WHERE setrole = 'keeper'::regrole)}),
	'true{"search_path=public, pg_catalog"}', 'memberships and settings of roles');
is($c->sql($new, 'SELECT count(*) FROM pg_largeobject_metadata'), 0, 'no large objects, which are not replicated either');

# ---- it is a member like any other ----
$c->sql($new, q{UPDATE t SET m = 'sad', v = 'from the new one' WHERE id = 1});
$c->sql(1, q{UPDATE t SET n = n + 1 WHERE id = 1});
$c->sql($new, q{ALTER TABLE t ADD COLUMN more int DEFAULT 7; });
$c->sql(2, q{INSERT INTO t (id, more) VALUES (0, 8)});
$c->same_content('and it writes');
$c->node($new)->stop('immediate');
$c->sql(1, 'UPDATE counter SET n = n + 1');
$c->start_node($new);
$c->wait_synced($new);
$c->same_content('after a crash');

$c->log_clean('nothing unexpected in the logs', qr/mgrepl: snapshot: |invalid snapshot identifier|25P01|25P02|57P03|57P01|55000|57014|starting up|shutting down|terminating (?:connection|background worker)|provider|canceling|broken|client|terminated by signal/i);
done_testing();
