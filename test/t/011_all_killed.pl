# kill -9 of all nodes at once under load, again and again; they are started in
# another order each time.  The cluster forms again by itself - nobody calls
# bootstrap() or join(), no file is edited - as soon as a majority is back, and
# every transaction that was acknowledged before is there.

use strict;
use warnings;

use MgCluster;
use MgLoad;
use Test::More;

my $c = MgCluster->new(nodes => 3, conf => "fsync = on\n", setup => $MgLoad::tables);
my $uuid = $c->status(1, 'cluster_uuid');
my @before;

for my $order ([ 3, 2, 1 ], [ 2, 3, 1 ], [ 1, 3, 2 ])
{
	my ($first, $second, $last) = @$order;
	my $name = "started in the order @$order";
	my $load = MgLoad->start($c, rate => 200);
	my $from = MgLoad::now();

	MgCluster::wait_for('some load', sub { $load->count('a') > 400 });
	$c->kill_node($c->all);
	$load->stop;
	push @before, $load;

	$c->start_node($first);
	$c->refuses($first, 'UPDATE hot SET v = v WHERE id = 1', '57P03|55000|08\w{3}', qr/cluster/, "$name: one of three takes no writes");
	$c->start_node($second);
	my $formed = eval { $c->wait_synced($_) for $first, $second; 1 };
	ok($formed, "$name: two of three form the cluster by themselves") or diag($@);
	my $r = $c->try($second, 'UPDATE hot SET v = v WHERE id = 1');
	ok($r->{ok}, "$name: and take writes") or diag($r->{err});
	$c->start_node($last);
	ok(eval { $c->wait_synced($last); 1 }, "$name: the third comes back by itself") or diag($@);
	$c->wait_size(3);
	is($c->status($_, 'cluster_uuid'), $uuid, "$name: node $_ is in the same cluster") for $c->all;
	$load->check($name);
}

# What was acknowledged in the first round has survived all of them.
for my $i ($c->all)
{
	my $n = 0;
	$n += scalar @{ ($_->compare($i))[0] } for @before;
	is($n, 0, "node $i: nothing is lost of any round");
}

is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed by itself, no node became inconsistent');

done_testing();
