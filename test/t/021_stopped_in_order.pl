# All nodes are stopped cleanly, one after the other, and started again in any
# order: the last one that was stopped is the whole cluster, the others join it,
# and nobody has to do anything.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3, setup => 'CREATE TABLE t (id int PRIMARY KEY, v text)');
my $n = 0;

for my $stop ([ 3, 2, 1 ], [ 1, 2, 3 ], [ 2, 3, 1 ])
{
	my $name = "stopped in the order @$stop";

	$c->sql($_, 'INSERT INTO t VALUES (' . ++$n . ", '$name')") for $c->all;
	$c->settle;
	$c->node($_)->stop for @$stop;
	$c->node($_)->start for $c->all;
	for my $i ($c->all)
	{
		ok(eval { $c->wait_synced($i) }, "$name: node $i comes back by itself")
		  or BAIL_OUT('the cluster does not come back: ' . $c->status($i, 'node_state') . ', ' . $c->status($i, 'node_state_reason'));
	}
	$c->wait_size(3);
	is($c->sql($_, 'SELECT count(*) FROM t'), $n, "$name: node $_ has everything") for $c->all;
	ok($c->try($_, 'INSERT INTO t VALUES (' . ++$n . ", 'after')")->{ok}, "$name: node $_ takes writes") for $c->all;
	$c->same_content($name);
}

done_testing();
