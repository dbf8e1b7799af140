# What could stop a node for ever: a certified transaction whose session ends
# while every applier is ahead of it; a provider that other processes wait for; a
# row that is not there; bootstrap() while sessions wait for an outcome.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 2, conf => "mgrepl.appliers = 1\nmgrepl.suspect_timeout = 20s\n", setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT g FROM generate_series(1, 100) g;
});

sub wait_for_commit_of
{
	my ($i, $pid) = @_;
	$c->wait_sql($i, "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $pid", 't');
	return;
}

# ---- a replay while the only applier is ahead ----
{
	my $slow = $c->session(1);
	my $ended = $c->session(1);
	my ($slow_pid, $ended_pid) = ($slow->pid, $ended->pid);
	my $provider = $c->provider_pid(1);
	my $before = $c->status(1, 'committed_seqno');

	kill 'STOP', $provider;
	$slow->start('UPDATE t SET n = n + 1 WHERE id = 1;');
	wait_for_commit_of(1, $slow_pid);
	kill 'STOP', $slow_pid;
	$ended->start('UPDATE t SET n = n + 1 WHERE id = 2;');
	wait_for_commit_of(1, $ended_pid);
	kill 'CONT', $provider;
	$c->sql(2, 'UPDATE t SET n = n + 1 WHERE id = 3');
	$c->wait_sql(1, "SELECT value::bigint >= $before + 3 FROM mgrepl.status WHERE name = 'delivered'", 't');
	$c->wait_sql(1, "SELECT xact_start IS NOT NULL AND wait_event = 'Extension' FROM pg_stat_activity WHERE backend_type = 'mgrepl applier'", 't');
	is($c->status(1, 'committed_seqno'), $before, 'the first of them has not committed yet');

	$c->sql(1, "SELECT pg_terminate_backend($ended_pid)");
	$c->wait_sql(1, "SELECT count(*) FROM pg_stat_activity WHERE pid = $ended_pid", '0');
	kill 'CONT', $slow_pid;
	ok($slow->finish->{ok}, 'the slow session commits');
	$c->settle;
	is($c->sql($_, 'SELECT sum(n) FROM t WHERE id <= 3'), 3, "node $_ has all three, that of the ended session too") for 1, 2;
	is($c->status(1, 'local_replays'), 1, 'an applier replayed it');
	$c->same_content('after the replay');
	$slow->quit;
}

# ---- the provider takes part in what all processes must ----
$c->sql(1, 'CREATE DATABASE other');
$c->sql(1, 'DROP DATABASE other');
pass('DROP DATABASE does not wait for the provider');

# ---- a provider that is ended is started again, and the node comes back ----
{
	my $old = $c->provider_pid(2);

	$c->sql(2, "SELECT pg_terminate_backend($old)");
	$c->wait_new_provider(2, $old);
	$c->wait_synced(2);
	$c->wait_size(2);
	ok($c->try(2, 'UPDATE t SET n = n + 1 WHERE id = 4')->{ok}, 'the node takes writes again');
	$c->settle;
	$c->same_content('after the provider was ended');
}

# ---- bootstrap while sessions wait ----
{
	my @waiting = map { $c->session(1) } 1 .. 3;
	my @pids = map { $_->pid } @waiting;
	my $r;

	# The other node says nothing any more: nothing gets a majority, and nobody knows it yet.
	$c->pause(2);
	for my $k (0 .. 2)
	{
		$waiting[$k]->start('UPDATE t SET n = n + 1 WHERE id = ' . (10 + $k) . ';');
		wait_for_commit_of(1, $pids[$k]);
	}
	$c->kill_node(2);
	$c->wait_sql(1, "SELECT value LIKE 'NON_PRIMARY%' FROM mgrepl.status WHERE name = 'node_state'", 't');
	$c->refuses(1, 'SELECT mgrepl.bootstrap()', '55000', qr/member/, 'bootstrap of one of two members has to be forced');
	ok(!$_->finished, 'a session waits on') for @waiting;
	$r = $c->try(1, 'SELECT mgrepl.bootstrap(force => true)');
	ok($r->{ok}, 'a forced bootstrap comes back') or diag($r->{err});
	for my $s (@waiting)
	{
		my $o = $s->finish;

		is($o->{sqlstate}, '08007', 'it is told that its outcome is not known');
		$s->quit;
	}
	$c->wait_synced(1);
	ok($c->try(1, 'UPDATE t SET n = n + 1 WHERE id = ' . (20 + $_))->{ok}, "session $_ after it commits") for 1 .. 5;
	$c->node(2)->start;
	$c->wait_synced(2);
	$c->settle;
	$c->same_content('after the bootstrap');
}

# ---- a row that is not there ----
{
	$c->sql(2, 'SET mgrepl.replicate = off; DELETE FROM t WHERE id = 50');
	$c->sql(1, 'UPDATE t SET n = n + 1 WHERE id = 50');
	$c->wait_sql(2, "SELECT value LIKE 'INCONSISTENT%' FROM mgrepl.status WHERE name = 'node_state'", 't');
	my $r = $c->try(2, 'UPDATE t SET n = n + 1 WHERE id = 60');
	ok(!$r->{ok}, 'a node that differs takes no writes');
	like($r->{err}, qr/HINT/, 'and says what to do');
	$c->wait_sql(1, "SELECT count(*) FROM mgrepl.members", '1');
	ok($c->try(1, 'UPDATE t SET n = n + 1 WHERE id = 60')->{ok}, 'the others go on');

	$c->node(2)->restart;
	$c->wait_sql(2, "SELECT value LIKE 'INCONSISTENT%' FROM mgrepl.status WHERE name = 'node_state'", 't');
	$r = $c->try(2, "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')");
	ok(!$r->{ok}, 'a restart does not make it forget');
	like($r->{err}, qr/differs.*HINT/s, 'and it is told why');
}

done_testing();
