# Statements that change definitions: made on any node, there on every node, in
# their place among the rows; what cannot be done everywhere is refused.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3);

sub on
{
	my ($i, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $r = $c->try($i, $sql);
	ok($r->{ok}, $name // "node $i: " . ($sql =~ s/\s+/ /gr =~ s/^(.{60}).*/$1…/r)) or diag($r->{err});
	$c->settle;
	return;
}

# ---- made on one node, used on the others ----
on(1, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
on(2, "INSERT INTO t VALUES (1, 'two')");
on(3, 'ALTER TABLE t ADD COLUMN n int NOT NULL DEFAULT 7');
on(1, 'INSERT INTO t VALUES (2, $$one$$, 8)');
on(2, 'CREATE INDEX t_v ON t (v)');
on(2, 'CREATE UNIQUE INDEX t_n ON t (n) WHERE n > 100');
on(3, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (n > 0)');
on(1, 'ALTER TABLE t ALTER COLUMN n TYPE bigint');
on(2, "ALTER TABLE t ALTER COLUMN v SET DEFAULT 'nothing'");
on(3, 'INSERT INTO t (id) VALUES (3)');
on(1, 'ALTER TABLE t RENAME COLUMN v TO w');
on(2, 'ALTER TABLE t RENAME TO u');
on(3, "UPDATE u SET w = 'renamed' WHERE id = 1");
$c->same_content('a table altered on all nodes in turn');
for my $i ($c->all)
{
	my $r = $c->try($i, 'INSERT INTO u (id, n) VALUES (99, -1)');
	is($r->{sqlstate}, '23514', "node $i knows the constraint");
}

on(2, 'CREATE SCHEMA app');
on(3, 'CREATE TABLE app.u (id int PRIMARY KEY, id2 int REFERENCES public.u)');
on(1, 'INSERT INTO app.u VALUES (1, 3)');
on(1, "CREATE TYPE mood AS ENUM ('sad', 'happy')");
on(2, "ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy'");
on(3, 'CREATE TABLE moods (id int PRIMARY KEY, m mood)');
on(2, "INSERT INTO moods VALUES (1, 'ok')");
on(1, 'CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 * 2 $$');
on(2, 'CREATE TABLE calls (id int PRIMARY KEY, n int GENERATED ALWAYS AS (twice(id)) STORED)');
on(3, 'INSERT INTO calls (id) SELECT generate_series(1, 5)');
on(1, q{CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.m := 'happy'; RETURN NEW; END $$});
on(2, 'CREATE TRIGGER up BEFORE UPDATE ON moods FOR EACH ROW EXECUTE FUNCTION count_up()');
on(3, "UPDATE moods SET m = 'sad'");
is($c->sql($_, 'SELECT m FROM moods'), 'happy', "node $_: the trigger made elsewhere has worked once") for $c->all;
on(1, 'CREATE VIEW v AS SELECT id, w FROM u');
on(2, "UPDATE v SET w = 'through the view' WHERE id = 2");
on(3, 'CREATE SEQUENCE seq');
on(1, 'CREATE DOMAIN small AS int CHECK (VALUE < 10)');
on(2, 'CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)');
on(3, 'CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)');
on(1, 'CREATE TABLE parts_2 (id int PRIMARY KEY, v text)');
on(2, 'INSERT INTO parts_2 VALUES (150, $$early$$)');
on(3, 'ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200)');
on(1, "INSERT INTO parts SELECT g, 'v' FROM generate_series(90, 110) g");
on(2, 'ALTER TABLE parts DETACH PARTITION parts_1');
on(3, 'DROP TABLE parts_1');
on(1, "COMMENT ON TABLE u IS 'commented'");
$c->same_content('schemas, types, functions, triggers, views, partitions');
is($c->sql($_, "SELECT obj_description('u'::regclass)"), 'commented', "node $_ has the comment") for $c->all;

# the environment of the statement goes with it
on(2, 'SET search_path = app; CREATE TABLE here (id int PRIMARY KEY); INSERT INTO here VALUES (1)', 'node 2: a table in its search_path');
is($c->sql($_, 'SELECT count(*) FROM app.here'), 1, "node $_ has it in the same schema") for $c->all;
on(1, 'CREATE ROLE writer');
on(1, 'GRANT CREATE, USAGE ON SCHEMA public TO writer');
on(3, 'SET ROLE writer; CREATE TABLE owned (id int PRIMARY KEY)', 'node 3: a table made under SET ROLE');
is($c->sql($_, q{SELECT tableowner FROM pg_tables WHERE tablename = 'owned'}), 'writer', "node $_ has the same owner") for $c->all;

# TRUNCATE as a statement of its own
on(1, 'TRUNCATE calls');
is($c->sql($_, 'SELECT count(*) FROM calls'), 0, "node $_ has truncated") for $c->all;

# ---- a new table is captured from its first row ----
on(2, 'CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1); INSERT INTO fresh VALUES (2)', 'node 2: a table and its rows at once');
is($c->sql($_, 'SELECT count(*) FROM fresh'), 2, "node $_ has its rows") for $c->all;

# ---- DROP ----
on(3, 'DROP VIEW v');
on(1, 'DROP TABLE fresh, app.here');
on(2, 'DROP SCHEMA app CASCADE');
on(3, 'DROP TABLE IF EXISTS never_there');
on(1, 'DROP TABLE calls');
on(1, 'DROP FUNCTION twice(int)');
is($c->sql($_, q{SELECT count(*) FROM pg_class WHERE relname IN ('fresh', 'here', 'calls', 'v')}), 0, "node $_ has dropped them") for $c->all;
$c->same_content('after DROP');

# ---- what fails, fails everywhere and changes nothing ----
{
	my $before = $c->content(1);
	for my $i ($c->all)
	{
		my $r = $c->try($i, 'CREATE TABLE u (id int)');
		is($r->{sqlstate}, '42P07', "node $i: an existing table is not made again");
		$r = $c->try($i, 'ALTER TABLE u ADD CONSTRAINT c CHECK (id > 2)');
		is($r->{sqlstate}, '23514', "node $i: a constraint that rows violate is not added");
		$r = $c->try($i, 'CREATE UNIQUE INDEX ON parts_2 (v)');
		is($r->{sqlstate}, '23505', "node $i: a unique index over duplicates is not made");
	}
	is($c->try(2, 'DROP TABLE u_not_there')->{sqlstate}, '42P01', 'an unknown table is not dropped');
	is($c->content(1), $before, 'nothing has changed');
	$c->same_content('nor anywhere else');
	on(2, "INSERT INTO u (id, w, n) VALUES (50, 'still works', 500)");
}

# ---- what cannot be replicated is refused before anything happens ----
$c->refuses(1, 'BEGIN; CREATE TABLE x (id int PRIMARY KEY); COMMIT', '0A000', qr/transaction block/, 'DDL in a transaction block');
$c->refuses(2, 'BEGIN; TRUNCATE u; COMMIT', '0A000', qr/transaction block/, 'TRUNCATE in a transaction block');
$c->refuses(2, q{DO $$ BEGIN CREATE TABLE x (id int PRIMARY KEY); END $$}, '0A000', qr/DO block/, 'DDL in a DO block');
$c->refuses(3, 'CREATE TABLE x AS SELECT random() AS r', '0A000', qr/cannot be replicated/, 'CREATE TABLE AS');
$c->refuses(3, 'SELECT random() AS r INTO x', '0A000', qr/cannot be replicated/, 'SELECT INTO');
$c->refuses(1, 'ALTER TABLE u ADD COLUMN r float8 DEFAULT random()', '0A000', qr/ALTER TABLE/, 'a volatile default on present rows');
$c->refuses(1, 'ALTER TABLE u ADD COLUMN at timestamptz DEFAULT now()', '0A000', qr/ALTER TABLE/, 'a default that tells the time');
$c->refuses(1, 'CREATE INDEX CONCURRENTLY ON u (w)', '0A000', qr/CREATE INDEX/, 'CREATE INDEX CONCURRENTLY');
$c->refuses(2, 'DROP EXTENSION mgrepl CASCADE', '0A000', qr/DROP EXTENSION/, 'DROP EXTENSION mgrepl');
is($c->sql($_, q{SELECT count(*) FROM pg_class WHERE relname = 'x'}), 0, "node $_: no table was made") for $c->all;
$c->same_content('after the refusals');

# ---- DDL and writers at the same time ----
{
	on(1, 'CREATE TABLE busy (id int PRIMARY KEY, n int DEFAULT 0)');
	on(1, 'INSERT INTO busy SELECT generate_series(1, 50)');
	my $script = "$PostgreSQL::Test::Utils::tmp_check/busy.sql";
	open my $f, '>', $script or die $!;
	print $f "\\set id random(1, 50)\nUPDATE busy SET n = n + 1 WHERE id = :id;\n";
	close $f;
	my @runs = map { $c->pgbench_start($_, '-f', $script, '-T', 5, '-c', 2, '--max-tries', 100000) } $c->all;
	my $made = 0;
	for my $k (1 .. 6)
	{
		my $i = $k % 3 + 1;
		my $r;
		MgCluster::wait_for("ALTER TABLE while others write ($k)", sub {
			$r = $c->try($i, "ALTER TABLE busy ADD COLUMN c$k int DEFAULT $k");
			return $r->{ok} || $r->{sqlstate} ne '40001';
		});
		$made++ if $r->{ok};
		diag($r->{err}) unless $r->{ok};
	}
	is($made, 6, 'a table is altered on all nodes while all nodes write to it');
	my $done = 0;
	for (@runs)
	{
		MgCluster::pgbench_finish($_);
		is($_->{rc}, 0, "writers on node $_->{node} end well") or diag($_->{err});
		$done += $_->{done};
	}
	$c->settle;
	is($c->sql($_, 'SELECT sum(n) FROM busy'), $done, "node $_ has all $done updates") for $c->all;
	$c->same_content('after ALTER TABLE among writers');
}

# two nodes make the same table at once: one wins, the other is told
{
	my ($one, $two) = ($c->session(1), $c->session(2));
	for my $round (1 .. 5)
	{
		$one->start("CREATE TABLE race_$round (id int PRIMARY KEY, one int)");
		$two->start("CREATE TABLE race_$round (id int PRIMARY KEY, two int)");
		my @outcomes = ($one->finish, $two->finish);
		my @lost = grep { !$_->{ok} } @outcomes;
		ok(@lost >= 1 && @lost <= 2 && !(grep { $_->{sqlstate} !~ /^(40001|42P07)$/ } @lost),
			"race $round: at most one of them is made, the other is told")
		  or diag(map { $_->{err} } @outcomes);
	}
	$_->quit for $one, $two;
	$c->same_content('after the races');
}

$c->log_clean('no other errors in the logs', qr/ (?:0A000|42P07|42P01|23514|23505) /);
done_testing();
