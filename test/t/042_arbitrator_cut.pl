# Two nodes and an arbitrator, each in a network of its own, and links that are
# cut: one of the nodes goes on, never both, nothing acknowledged is lost, and
# after each cut all are one cluster again by themselves.

use strict;
use warnings;

use MgNetns;
use MgArbitrator;
use MgCluster;
use MgLoad;
use Test::More;

plan skip_all => MgNetns::reason() if MgNetns::reason();

my $net = MgNetns->new(nodes => 3);
my $c = MgCluster->new(nodes => 2, net => $net, conf => "mgrepl.inactive_timeout = '2s'\n", setup => $MgLoad::tables);
my $a = MgArbitrator->new('arb', net => [ $net, 3 ], cluster_name => 'test', inactive_timeout => '2s',
	cluster_address => 'gcomm://' . join(',', map { $c->address($_) } 1, 2));
my $outside = "SELECT value FROM mgrepl.status WHERE name = 'primary'";

$a->start;
$a->wait_state('SYNCED');
$c->wait_size(3);

# Those who go on take commits that were asked for after the cut; the others refuse.
sub only_goes_on
{
	my ($load, $name, $i) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $other = 3 - $i;
	ok(eval { $load->wait_for_ack($i, MgLoad::now(), 30) }, "$name: node $i goes on") or diag($@);
	ok(eval { $c->wait_sql($other, $outside, 'off', 15) }, "$name: node $other is outside the primary component") or diag($@);
	$c->refuses($other, 'UPDATE hot SET v = v WHERE id = 1', '57P03', qr/primary component|is joining the cluster/, "$name: node $other refuses a write");
	is($c->status($i, 'node_state'), 'SYNCED', "$name: node $i is SYNCED");
	return;
}

sub one_again
{
	my ($load, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$net->heal;
	ok(eval { $c->wait_synced($_); 1 }, "$name: node $_ is back") or diag($@) for 1, 2;
	ok(eval { $a->wait_state('SYNCED') }, "$name: the arbitrator is in") or diag($@);
	$c->wait_size(3);
	$load->check($name);
	return;
}

for my $lost (1, 2)
{
	my $name = "node $lost is cut off";
	my $load = MgLoad->start($c, clients => 2, rate => 50);
	$load->wait_for_ack($_, MgLoad::now()) for 1, 2;
	$net->isolate($lost);
	only_goes_on($load, $name, 3 - $lost);
	is($a->state, 'SYNCED', "$name: the arbitrator is with node " . (3 - $lost));
	one_again($load, $name);
}

# Both hear the arbitrator, and it is with one of them: the one that leads already.
{
	my $name = 'the nodes do not hear each other';
	my $load = MgLoad->start($c, clients => 2, rate => 50);
	$load->wait_for_ack($_, MgLoad::now()) for 1, 2;
	my $leader = $c->leader(1);
	$net->cut([ 1, 2 ]);
	only_goes_on($load, $name, $leader);
	is($a->state, 'SYNCED', "$name: the arbitrator is with it");
	one_again($load, $name);
}

# Without the arbitrator the nodes are a majority.
{
	my $name = 'the arbitrator is cut off';
	my $load = MgLoad->start($c, clients => 2, rate => 50);
	$net->isolate(3);
	ok(eval { $a->wait_state('NON_PRIMARY', 15) }, "$name: it knows") or diag($@);
	for my $i (1, 2)
	{
		ok(eval { $load->wait_for_ack($i, MgLoad::now(), 15) }, "$name: node $i goes on") or diag($@);
	}
	one_again($load, $name);
}

is($a->stop, 0, 'the arbitrator ends well');
done_testing();
