# Transactions in the way of each other: who gives way, what its client is
# told, and that nothing is lost.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3, setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, u int UNIQUE);
INSERT INTO t SELECT g, 0, g FROM generate_series(1, 20) g;
CREATE TABLE parent (id int PRIMARY KEY, note text);
CREATE TABLE child (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES parent);
INSERT INTO parent SELECT g, 'p' FROM generate_series(1, 20) g;
});

sub is_40001
{
	my ($r, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$r->{ok} && ($r->{sqlstate} // '') eq '40001', $name) or diag("got: $r->{out} $r->{err}");
	return;
}

sub is_fine
{
	my ($r, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($r->{ok}, $name) or diag("got: $r->{err}");
	return;
}

# ---- brute-force abort: idle in transaction ----
{
	my $s   = $c->session(2);
	my $pid = $s->pid;
	$s->run('BEGIN');
	is_fine($s->run('UPDATE t SET n = n + 1 WHERE id = 1'), 'idle: a local transaction holds the row');
	is_fine($c->try(1, 'UPDATE t SET n = n + 10 WHERE id = 1'), 'idle: another node commits a change of it');
	$c->settle;
	is($c->sql(3, 'SELECT n FROM t WHERE id = 1'), 10, 'idle: no node waits for the local one');
	is_40001($s->run('SELECT 1'), 'idle: its next statement reports 40001');
	$s->run('ROLLBACK');
	is($s->run('SELECT pg_backend_pid()')->{out}, $pid, 'idle: the connection was kept');
	is_fine($s->run('UPDATE t SET n = n + 1 WHERE id = 1'), 'idle: and works');
	$s->quit;
}

# the same, the next thing being COMMIT; and inside a savepoint
for my $savepoint (0, 1)
{
	my $name = 'idle, then COMMIT' . ($savepoint ? ', in a savepoint' : '');
	my $s = $c->session(3);
	$s->run('BEGIN');
	$s->run('SAVEPOINT a') if $savepoint;
	$s->run('UPDATE t SET n = -1 WHERE id = 2');
	$c->sql(1, 'UPDATE t SET n = 5 WHERE id = 2');
	$c->settle;
	is_40001($s->run('COMMIT'), "$name: COMMIT reports 40001");
	is_fine($s->run('SELECT count(*) FROM t'), "$name: the session goes on");
	is($c->sql(3, 'SELECT n FROM t WHERE id = 2'), 5, "$name: the certified change stands");
	$s->quit;
}

# a doomed transaction cannot be saved by going back to a savepoint
{
	my $s = $c->session(2);
	$s->run('BEGIN');
	$s->run('UPDATE t SET n = -1 WHERE id = 3');
	$s->run('SAVEPOINT a');
	$c->sql(1, 'UPDATE t SET n = 7 WHERE id = 3');
	$c->settle;
	my $back   = $s->run('ROLLBACK TO SAVEPOINT a');
	my $commit = $s->run('COMMIT');
	ok(!$back->{ok} || !$commit->{ok}, 'ROLLBACK TO SAVEPOINT does not save it');
	$s->run('ROLLBACK');
	$c->settle;
	is($c->sql(2, 'SELECT n FROM t WHERE id = 3'), 7, 'nor does its change appear');
	$s->quit;
}

# ---- brute-force abort: running a statement ----
{
	my $s = $c->session(2);
	$s->run('BEGIN');
	$s->run('UPDATE t SET n = n + 1 WHERE id = 4');
	my $pid = $s->pid;
	$s->start('SELECT pg_sleep(600)');
	$c->wait_sql(2, "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid");
	$c->sql(1, 'UPDATE t SET n = 40 WHERE id = 4');
	$c->settle;
	is_40001($s->finish, 'running: the statement ends with 40001');
	$s->run('ROLLBACK');
	is($s->run('SELECT pg_backend_pid()')->{out}, $pid, 'running: the connection was kept');
	$s->quit;
}

# PL/pgSQL cannot swallow it
{
	my $s = $c->session(2);
	my $pid = $s->pid;
	$s->start(q{DO $$ BEGIN
		UPDATE t SET n = n + 1 WHERE id = 5;
		BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN OTHERS THEN NULL; END;
	END $$});
	$c->wait_sql(2, "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid");
	$c->sql(3, 'UPDATE t SET n = 50 WHERE id = 5');
	$c->settle;
	is_40001($s->finish, 'running: WHEN OTHERS does not swallow it');
	is($c->sql(2, 'SELECT n FROM t WHERE id = 5'), 50, 'running: the certified change stands');
	$s->quit;
}

# ---- brute-force abort: waiting for a lock ----
{
	my ($holder, $waiter) = ($c->session(2), $c->session(2));
	$holder->run('BEGIN');
	$holder->run('UPDATE t SET n = -6 WHERE id = 6');
	$waiter->run('BEGIN');
	$waiter->run('UPDATE t SET n = -7 WHERE id = 7');
	my $pid = $waiter->pid;
	$waiter->start('UPDATE t SET n = -7 WHERE id = 6');
	$c->wait_sql(2, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid");
	$c->sql(1, 'UPDATE t SET n = 70 WHERE id = 7');
	$c->settle;
	is_40001($waiter->finish, 'waiting: the waiting transaction gives way');
	is_fine($holder->run('COMMIT'), 'waiting: the one it waited for is untouched');
	$waiter->run('ROLLBACK');
	$c->settle;
	is($c->sql(3, 'SELECT string_agg(n::text, $$,$$ ORDER BY id) FROM t WHERE id IN (6, 7)'), '-6,70', 'waiting: both changes stand');
	$_->quit for $holder, $waiter;
}

# a certified change waits for nobody: here a local transaction only locked the row
{
	my $s = $c->session(3);
	$s->run('BEGIN');
	$s->run('SELECT * FROM t WHERE id = 8 FOR UPDATE');
	is_fine($c->try(1, 'UPDATE t SET n = 80 WHERE id = 8'), 'row lock: another node commits');
	$c->settle;
	is($c->sql(3, 'SELECT n FROM t WHERE id = 8'), 80, 'row lock: and it is applied at once');
	is_40001($s->run('SELECT 1'), 'row lock: its holder is told 40001');
	$s->quit;
}
{
	my $s = $c->session(3);
	$s->run('BEGIN');
	$s->run('LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
	is_fine($c->try(1, 'UPDATE t SET n = 81 WHERE id = 8'), 'table lock: another node commits');
	$c->settle;
	is_40001($s->run('SELECT 1'), 'table lock: its holder is told 40001');
	$s->quit;
}

# ---- isolation levels ----
for my $isolation ('READ COMMITTED', 'REPEATABLE READ')
{
	my $s = $c->session(2);
	$s->run("BEGIN ISOLATION LEVEL $isolation");
	my $seen = $s->run('SELECT n FROM t WHERE id = 9')->{out};
	$c->sql(1, 'UPDATE t SET n = n + 1 WHERE id = 9');
	$c->settle;
	my $again = $s->run('SELECT n FROM t WHERE id = 9')->{out};
	is($again - $seen, $isolation eq 'READ COMMITTED' ? 1 : 0, "$isolation: sees what it should of another node's commit");
	my $r = $s->run('UPDATE t SET n = n + 100 WHERE id = 9');
	if ($isolation eq 'READ COMMITTED')
	{
		is_fine($r, "$isolation: may change it afterwards");
		is_fine($s->run('COMMIT'), "$isolation: and commit");
	}
	else
	{
		is_40001($r, "$isolation: may not change a row that another node changed since its snapshot");
		$s->run('ROLLBACK');
	}
	$s->quit;
	$c->settle;
}
is($c->sql(3, 'SELECT n FROM t WHERE id = 9'), 102, 'isolation: every committed increment is there');

# no node shows a part of a transaction
{
	my $writer = $c->session(1);
	my @sums;
	for my $round (1 .. 30)
	{
		$writer->run("BEGIN; UPDATE t SET n = n - $round WHERE id = 11; UPDATE t SET n = n + $round WHERE id = 12; COMMIT");
		push @sums, $c->sql(2, 'SELECT sum(n) FROM t WHERE id IN (11, 12)'), $c->sql(3, 'SELECT sum(n) FROM t WHERE id IN (11, 12)');
	}
	is(join(',', grep { $_ != 0 } @sums), '', 'a transaction is seen as a whole or not at all');
	$writer->quit;
}

# ---- unique keys other than the primary key ----
{
	my ($one, $two) = ($c->session(1), $c->session(2));
	$_->run('BEGIN') for $one, $two;
	is_fine($one->run('INSERT INTO t VALUES (101, 0, 1000)'), 'unique: node 1 inserts a value');
	is_fine($two->run('INSERT INTO t VALUES (102, 0, 1000)'), 'unique: node 2 inserts it in another row');
	my @outcome = ($one->run('COMMIT'), $two->run('COMMIT'));
	is(scalar(grep { $_->{ok} } @outcome), 1, 'unique: one of them commits');
	is_40001((grep { !$_->{ok} } @outcome)[0], 'unique: the other one fails with 40001');
	$c->settle;
	is($c->sql($_, 'SELECT count(*) FROM t WHERE u = 1000'), 1, "unique: node $_ has one such row") for $c->all;
	$_->quit for $one, $two;
}
{
	my ($one, $two) = ($c->session(1), $c->session(2));
	$_->run('BEGIN') for $one, $two;
	$one->run('UPDATE t SET u = 2000 WHERE id = 13');
	$two->run('UPDATE t SET u = 2000 WHERE id = 14');
	my @outcome = ($one->run('COMMIT'), $two->run('COMMIT'));
	is(scalar(grep { $_->{ok} } @outcome), 1, 'unique: of two updates to one value one commits');
	$_->quit for $one, $two;
	$c->settle;
}

# ---- foreign keys ----
{
	my ($one, $two) = ($c->session(1), $c->session(2));
	$_->run('BEGIN') for $one, $two;
	is_fine($one->run('DELETE FROM parent WHERE id = 1'), 'foreign key: node 1 deletes the parent');
	is_fine($two->run('INSERT INTO child VALUES (1, 1)'), 'foreign key: node 2 inserts a child of it');
	my @outcome = ($one->run('COMMIT'), $two->run('COMMIT'));
	is(scalar(grep { $_->{ok} } @outcome), 1, 'foreign key: one of them commits');
	is_40001((grep { !$_->{ok} } @outcome)[0], 'foreign key: the other one fails with 40001');
	$_->quit for $one, $two;
}
{
	my ($one, $two) = ($c->session(1), $c->session(2));
	$_->run('BEGIN') for $one, $two;
	$two->run('INSERT INTO child VALUES (2, 2)');
	$one->run('DELETE FROM parent WHERE id = 2');
	my @outcome = ($two->run('COMMIT'), $one->run('COMMIT'));
	is(scalar(grep { $_->{ok} } @outcome), 1, 'foreign key: the other way round, too');
	$_->quit for $one, $two;
}
# two children of one parent, and a change of the parent that leaves its key alone, do not conflict
{
	my @s = map { $c->session($_) } $c->all;
	$_->run('BEGIN') for @s;
	$s[0]->run('INSERT INTO child VALUES (3, 3)');
	$s[1]->run('INSERT INTO child VALUES (4, 3)');
	$s[2]->run(q{UPDATE parent SET note = 'changed' WHERE id = 3});
	is_fine($s[$_]->run('COMMIT'), 'foreign key: no conflict where PostgreSQL has none (' . ($_ + 1) . ')') for 0 .. 2;
	$_->quit for @s;
}
$c->settle;
for my $i ($c->all)
{
	is($c->sql($i, 'SELECT count(*) FROM child WHERE NOT EXISTS (SELECT FROM parent p WHERE p.id = parent_id)'),
		0, "foreign key: node $i has no orphan");
}
$c->same_content('after all single conflicts');

# ---- no lost update ----
for my $isolation ('read committed', 'repeatable read')
{
	$c->sql(1, 'UPDATE t SET n = 0 WHERE id = 20');
	$c->settle;
	my $script = "$PostgreSQL::Test::Utils::tmp_check/increment.sql";
	open my $f, '>', $script or die $!;
	print $f "UPDATE t SET n = n + 1 WHERE id = 20;\n";
	close $f;
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=" . ($isolation =~ s/ /\\ /r);
	my @runs = map { $c->pgbench_start($_, '-f', $script, '-t', 100, '-c', 4, '--max-tries', 100000) } $c->all;
	my $done = 0;
	for (@runs)
	{
		MgCluster::pgbench_finish($_);
		is($_->{rc}, 0, "$isolation: increments on node $_->{node} end well") or diag($_->{err});
		$done += $_->{done};
	}
	$c->settle;
	is($done, 1200, "$isolation: all increments were committed");
	is($c->sql($_, 'SELECT n FROM t WHERE id = 20'), $done, "$isolation: node $_ has counted all of them") for $c->all;
}

# money moved between rows by everybody: the sum stays, and sessions that read see it at every moment
{
	$c->sql(1, 'UPDATE t SET n = 1000 WHERE id <= 10');
	$c->settle;
	my $script = "$PostgreSQL::Test::Utils::tmp_check/transfer.sql";
	open my $f, '>', $script or die $!;
	print $f "\\set a random(1, 10)\n\\set b random(1, 10)\n\\set x random(1, 50)\nBEGIN;\n"
	  . "UPDATE t SET n = n - :x WHERE id = :a;\nUPDATE t SET n = n + :x WHERE id = :b;\nCOMMIT;\n";
	close $f;
	my @runs = map { $c->pgbench_start($_, '-f', $script, '-T', 5, '-c', 4, '--max-tries', 100000) } $c->all;
	my @wrong;
	while (grep { $_->{run}->pumpable } @runs)
	{
		for my $i ($c->all)
		{
			my $sum = $c->sql($i, 'SELECT sum(n) FROM t WHERE id <= 10');
			push @wrong, "node $i: $sum" if $sum != 10000;
		}
		$_->{run}->pump_nb for grep { $_->{run}->pumpable } @runs;
	}
	is(MgCluster::pgbench_finish($_)->{rc}, 0, "transfers on node $_->{node} end well") or diag($_->{err}) for @runs;
	is("@wrong", '', 'no snapshot on any node saw another sum');
	$c->same_content('after the transfers');
}
$c->log_clean('no errors but serialization failures in the logs',
	qr/ 25P01 /);

done_testing();
