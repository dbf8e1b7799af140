# What nobody can decide or commit for a while holds up no more than it must, and
# the node says what it waits for: a COMMIT that waits for a majority keeps its
# row locks, and a delivered transaction may meet a lock whose owner hears nothing.

use strict;
use warnings;

use MgCluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $c = MgCluster->new(
	nodes => 3,
	conf  => "mgrepl.suspect_timeout = 1s\nmgrepl.inactive_timeout = 3s\n",
	setup => 'CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT g FROM generate_series(1, 100) g');

# ---- a COMMIT without a majority ----
# Its outcome is open until the others are back.  Whoever wants its row is
# refused like everybody else: at once, not when the lock is free.
{
	my $open = $c->session(1);
	my $pid  = $open->pid;

	$c->pause($_) for 2, 3;
	$open->start('UPDATE t SET n = n + 1 WHERE id = 1;');
	$c->wait_sql(1, "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $pid", 't');
	$c->wait_sql(1, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'NON_PRIMARY');
	ok(!$open->finished, 'a COMMIT without a majority waits');

	my %writes = (
		'the row that it has changed' => 'UPDATE t SET n = n + 1 WHERE id = 1',
		'... in a transaction block' => 'BEGIN; UPDATE t SET n = n + 1 WHERE id = 1; COMMIT',
		'... through a CTE' => 'WITH w AS (DELETE FROM t WHERE id = 1 RETURNING *) SELECT count(*) FROM w',
		'... with dirty reads' => 'SET mgrepl.dirty_reads = on; UPDATE t SET n = n + 1 WHERE id = 1',
		'a key that may be a duplicate' => 'INSERT INTO t VALUES (1)',
		'no row at all' => 'DELETE FROM t WHERE id = -1',
		'COPY' => q{COPY t FROM PROGRAM 'echo 1'},
	);
	for my $name (sort keys %writes)
	{
		my $r = eval { $c->try(1, $writes{$name}, timeout => 20) } // { err => $@, sqlstate => '' };
		is($r->{sqlstate} // '', '57P03', "a write is refused at once: $name") or diag($r->{err});
	}
	my $r = $c->try(1, 'SET mgrepl.replicate = off; UPDATE t SET n = n WHERE id = 2');
	ok($r->{ok}, 'what the superuser keeps on this node is the superuser\'s business') or diag($r->{err});

	$c->resume($_) for 2, 3;
	$r = $open->finish;
	ok($r->{ok}, 'with the majority the COMMIT returns') or diag($r->{err});
	$open->quit;
	$c->wait_synced($_) for $c->all;
	$c->wait_size(3);
	$c->settle;
	is($c->sql($_, 'SELECT n FROM t WHERE id = 1'), 1, "node $_ has it, and nothing else") for $c->all;
}

# ---- a delivered transaction that cannot be committed ----
# A process that stands still holds the row: nothing that an applier asks of it
# is heard.  The others go on without this node; it says what it waits for, and
# joins again by itself.
{
	my $log = $c->node(3)->logfile;
	my $from = -s $log;
	my $deaf = $c->session(3);
	my $deaf_pid = $deaf->pid;

	is($c->status(3, 'next_commit'), '', 'nothing waits to be committed');
	$deaf->run('BEGIN; UPDATE t SET n = n + 1 WHERE id = 3');
	kill 'STOP', $deaf_pid;
	$c->sql(1, 'UPDATE t SET n = n + 1 WHERE id = 3');
	my $seqno = $c->status(1, 'committed_seqno');
	$c->wait_sql(3, "SELECT value LIKE 'seqno $seqno: the applier with pid % applies it; see pg_blocking_pids(%' FROM mgrepl.status WHERE name = 'next_commit'", 't');
	pass('status tells which writeset is next, and who is at it');
	my $pid = $c->sql(3, q{SELECT substring(value FROM 'pid (\d+)') FROM mgrepl.status WHERE name = 'next_commit'});
	$c->wait_sql(3, "SELECT $deaf_pid = ANY (pg_blocking_pids($pid))", 't');
	pass('and pg_blocking_pids who is in the way');

	my $r = $c->try(1, 'UPDATE t SET n = n + 1 WHERE id = 3');
	ok($r->{ok}, 'the others go on without it, also with this row') or diag($r->{err});

	MgCluster::wait_for('the log line', sub { slurp_file($log, $from) =~ /seqno $seqno has not been committed here for \d+ s: the applier with pid $pid/ });
	pass('the log tells it after some seconds');

	# The others take it out of the view, and it hears of that.
	$c->pause(3, 'provider only');
	$c->wait_size(2, 1, 2);
	$c->resume(3);
	$c->wait_sql(3, "SELECT value LIKE 'joins again when seqno $seqno is committed here: the applier with pid $pid%' FROM mgrepl.status WHERE name = 'node_state_reason'", 't');
	pass('its state tells what joining again waits for');
	isnt($c->status(3, 'node_state'), 'SYNCED', 'it has not joined yet');

	$c->sql(2, 'UPDATE t SET n = n + 1 WHERE id = 4');
	kill 'CONT', $deaf_pid;
	$c->wait_synced(3);
	$c->wait_size(3);
	is($c->status(3, 'next_commit'), '', 'with the row free it is back by itself');
	my @ends = slurp_file($log, $from) =~ /ending connection pid=$deaf_pid/g;
	cmp_ok(scalar @ends, '==', 1, 'that the connection in the way is being ended is said once');
}

$c->same_content('at the end');
is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed, no node became inconsistent');

done_testing();
