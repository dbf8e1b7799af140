# Three nodes: what is written on any of them is on all of them, in one order.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3);

# ---- a cluster comes into being ----
for my $i ($c->all)
{
	is($c->status($i, 'node_state'),   'SYNCED', "node $i is synced");
	is($c->status($i, 'cluster_size'), 3,        "node $i sees three members");
	is($c->status($i, 'primary'),      'on',     "node $i is in the primary component");
	is($c->status($i, 'leader'),       'n1',     "node $i knows the leader");
}
is($c->status(2, 'cluster_uuid'), $c->status(1, 'cluster_uuid'), 'one cluster uuid');
is( $c->sql(2, q{SELECT string_agg(name || ' ' || is_leader || ' ' || is_self || ' ' || synced, ', ' ORDER BY name) FROM mgrepl.members}),
	'n1 true false true, n2 false true true, n3 false false true',
	'mgrepl.members lists everybody');
is($c->sql(1, q{SELECT count(*) FROM mgrepl.status WHERE description IS NULL OR description = ''}),
	0, 'every status row has a description');

# ---- writes on any node ----
$c->sql(2, 'CREATE TABLE t (id int PRIMARY KEY, node int, v text)');
$c->settle;
$c->sql($_, "INSERT INTO t SELECT g, $_, 'row ' || g FROM generate_series($_ * 100, $_ * 100 + 9) g") for $c->all;
$c->settle;
is($c->sql($_, 'SELECT count(*), count(DISTINCT node) FROM t'), '30|3', "node $_ has all rows") for $c->all;
$c->same_content('inserts on three nodes');

# each node changes and deletes rows that another one made
for my $i ($c->all)
{
	my $other = $i % 3 + 1;
	$c->sql($i, "UPDATE t SET v = v || ' changed by $i' WHERE node = $other AND id % 2 = 0");
	$c->sql($i, "DELETE FROM t WHERE id = $other * 100 + 1");
	$c->settle;
}
is($c->sql(1, q{SELECT count(*), count(*) FILTER (WHERE v LIKE '%changed%') FROM t}), '27|15', 'rows made elsewhere changed and deleted');
$c->same_content('updates and deletes on three nodes');

# ---- one order ----
{
	my ($uuid, $before) = split /:/, $c->sql(3, 'SELECT mgrepl.gtid()');
	is($uuid, $c->status(1, 'cluster_uuid'), 'the GTID begins with the cluster uuid');
	$c->sql(3, "INSERT INTO t VALUES (999, 3, 'one more')");
	my (undef, $after) = split /:/, $c->sql(3, 'SELECT mgrepl.gtid()');
	is($after, $before + 1, 'one transaction, one seqno');
	$c->settle;
	my %gtid = map { $c->sql($_, 'SELECT mgrepl.gtid()') => 1 } $c->all;
	is(keys %gtid, 1, 'all nodes stand at one GTID');
	is($c->sql(1, 'SELECT count(*) FROM t WHERE id = 999'), 1, 'wait_for_seqno waits for the data');
}

# a reader that waits for a seqno sees what was committed with it, without polling the data
for my $round (1 .. 10)
{
	$c->sql(1, "UPDATE t SET v = 'round $round' WHERE id = 999");
	my (undef, $seqno) = split /:/, $c->sql(1, 'SELECT mgrepl.gtid()');
	is( $c->sql(2, "SELECT mgrepl.wait_for_seqno($seqno, 60000); SELECT v FROM t WHERE id = 999"),
		"t\nround $round", "round $round is seen on node 2 at its seqno")
	  if $round == 1 || $round == 10;
}

# ---- what writes nothing takes no place in the order ----
{
	my $before = $c->status(2, 'committed_seqno');
	$c->sql(2, 'SELECT count(*) FROM t; UPDATE t SET v = v WHERE false');
	$c->sql(2, "BEGIN; INSERT INTO t VALUES (1, 1, 'never'); ROLLBACK");
	$c->sql(2, "CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (1); SELECT * FROM mine");
	is($c->status(2, 'committed_seqno'), $before, 'reads, rollbacks and temporary tables are not ordered');
}

# ---- two open transactions, two nodes, one row: exactly one 40001 ----
for my $isolation ('READ COMMITTED', 'REPEATABLE READ')
{
	my ($one, $two) = ($c->session(1), $c->session(2));
	$_->run("BEGIN ISOLATION LEVEL $isolation") for $one, $two;
	ok($one->run("UPDATE t SET v = 'from one' WHERE id = 102")->{ok}, "$isolation: node 1 changes the row");
	ok($two->run("UPDATE t SET v = 'from two' WHERE id = 102")->{ok}, "$isolation: node 2 changes it too");
	my @outcomes = ($one->run('COMMIT'), $two->run('COMMIT'));
	my @failed = grep { !$_->{ok} } @outcomes;
	is(@failed, 1, "$isolation: one of the two fails");
	is($failed[0]{sqlstate}, '40001', "$isolation: with a serialization failure");
	ok($outcomes[0]{ok}, "$isolation: the first to commit wins");
	ok($_->run('SELECT 1')->{ok}, "$isolation: the session goes on") for $one, $two;
	$_->quit for $one, $two;
	$c->settle;
	is($c->sql($_, 'SELECT v FROM t WHERE id = 102'), 'from one', "$isolation: node $_ has the winner's row") for $c->all;
}
my $conflicts = $c->status(2, 'local_cert_failures') + $c->status(2, 'local_bf_aborts');
is($conflicts, 2, 'the loser counts them');
$c->same_content('after the conflicts');
$c->log_clean('no errors but serialization failures in the logs');

done_testing();
