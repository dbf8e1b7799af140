# A member goes and comes back: cleanly, by kill -9, by leave() and join(), with
# and without load.  The others go on, and in the end all have the same.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3, setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text);
INSERT INTO t SELECT g FROM generate_series(1, 1000) g;
CREATE TABLE log (node int, at bigserial, PRIMARY KEY (node, at));
});

my $script = "$PostgreSQL::Test::Utils::tmp_check/load.sql";
open my $f, '>', $script or die $!;
print $f "\\set id random(1, 1000)\nUPDATE t SET n = n + 1, v = repeat('x', n % 500) WHERE id = :id;\n";
close $f;

# A restarted node comes back by itself.
sub back
{
	my ($i) = @_;
	$c->node($i)->start;
	$c->wait_synced($i);
	$c->wait_size(3);
	return;
}

sub sum_is
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$c->settle;
	is($c->sql($_, 'SELECT sum(n) FROM t'), $expected, "$name: node $_ has every update") for $c->all;
	$c->same_content($name);
	return;
}
my $total = 0;

# ---- a clean restart while others write ----
$c->sql(3, 'UPDATE t SET n = n + 1');
$total += 1000;
$c->settle;
my $uuid = $c->status(1, 'cluster_uuid');
$c->node(3)->stop;
$c->sql(2, "UPDATE t SET n = n + 1, v = 'while 3 was away' WHERE id <= 500");
$c->sql(1, 'INSERT INTO t SELECT g, 1 FROM generate_series(2001, 2100) g');
$total += 600;
back(3);
is($c->status(3, 'cluster_uuid'), $uuid, 'it is in the same cluster');
sum_is($total, 'a clean restart');
ok($c->try(3, 'UPDATE t SET n = n + 1 WHERE id = 1')->{ok}, 'the node that came back takes writes');
$total++;

# a change of definitions while it was away
$c->node(2)->stop('immediate');
$c->sql(1, 'ALTER TABLE t ADD COLUMN later int DEFAULT 5');
$c->sql(3, 'UPDATE t SET later = id, n = n + 1 WHERE id <= 10');
$total += 10;
back(2);
sum_is($total, 'a crash and a change of definitions');

# ---- kill -9 under load, on each follower in turn ----
for my $victim (2, 3)
{
	my @others = grep { $_ != $victim } 1 .. 3;
	my @runs   = map { $c->pgbench_start($_, '-f', $script, '-T', 8, '-c', 3, '--max-tries', 100000) } @others;
	my $own    = $c->pgbench_start($victim, '-f', $script, '-T', 8, '-c', 3, '--max-tries', 100000);
	my $from = $c->status(1, 'committed_seqno');
	MgCluster::wait_for('load', sub { $c->status(1, 'committed_seqno') > $from + 300 });
	$c->kill_node($victim);
	MgCluster::pgbench_finish($own);
	isnt($own->{rc}, 0, "kill -9 of node $victim: its clients notice");
	$c->wait_size(2, @others);
	my $mid = $c->status(1, 'committed_seqno');
	MgCluster::wait_for('the others to go on', sub { $c->status(1, 'committed_seqno') > $mid + 100 });
	pass("kill -9 of node $victim: the others go on");
	back($victim);
	for my $run (@runs)
	{
		MgCluster::pgbench_finish($run);
		is($run->{rc}, 0, "kill -9 of node $victim: clients of node $run->{node} see no error") or diag($run->{err});
	}
	$c->settle;
	my $sum = $c->sql(1, 'SELECT sum(n) FROM t');
	my $known = $total;
	$known += $_->{done} for @runs;
	cmp_ok($sum, '>=', $known, "kill -9 of node $victim: no committed update is lost");
	$total = $sum;
	sum_is($total, "kill -9 of node $victim");
}

# ---- all clients gone, leave and join again ----
$c->sql(3, 'SELECT mgrepl.leave()');
$c->wait_sql(3, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');
$c->wait_size(2, 1, 2);
$c->refuses(3, 'UPDATE t SET n = n + 1', '55000|57P03', qr/\S/, 'a node that has left takes no writes');
$c->sql(2, 'UPDATE t SET n = n + 1 WHERE id <= 100');
$total += 100;
$c->join_node(3);
$c->wait_size(3);
sum_is($total, 'leave and join');

# leave and join under load, several times
{
	my @runs = map { $c->pgbench_start($_, '-f', $script, '-T', 8, '-c', 3, '--max-tries', 100000) } 1, 2;
	for my $round (1 .. 3)
	{
		$c->sql(3, 'SELECT mgrepl.leave()');
		$c->wait_size(2, 1, 2);
		$c->join_node(3);
		$c->wait_size(3);
	}
	for (@runs)
	{
		MgCluster::pgbench_finish($_);
		is($_->{rc}, 0, "leave and join under load: clients of node $_->{node} see no error") or diag($_->{err});
		$total += $_->{done};
	}
	sum_is($total, 'leave and join under load');
}

# ---- two of three gone: the one that is left takes no writes, and goes on when one is back ----
{
	$c->node($_)->stop for 2, 3;
	$c->node($_)->start for 2, 3;
	$c->wait_synced($_) for 1 .. 3;
	$c->wait_size(3);
	sum_is($total, 'two nodes away and back');
}

my @crashes = grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log;
is("@crashes", '', 'no process crashed, no node became inconsistent');

done_testing();
