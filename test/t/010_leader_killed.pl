# kill -9 of one node under load, of the leader and of a follower, of the whole
# server and of its provider only.  The others go on, the node comes back by
# itself, and whatever a client was told is true on every node.

use strict;
use warnings;

use MgCluster;
use MgLoad;
use Test::More;

my $c = MgCluster->new(nodes => 3, conf => "fsync = on\nrestart_after_crash = on\n", setup => $MgLoad::tables);

sub follower
{
	my ($leader) = @_;
	return $leader % 3 + 1;
}

for my $what (qw(server provider))
{
	for my $who (qw(leader follower))
	{
		my $name = "kill -9 of the $who\'s $what";
		my $leader = $c->leader(1);
		my $victim = $who eq 'leader' ? $leader : follower($leader);
		my @others = grep { $_ != $victim } $c->all;
		my $load = MgLoad->start($c, rate => 150);
		my $provider = $c->provider_pid($victim);

		my $killed_at = MgLoad::now();
		if ($what eq 'server')
		{
			$c->kill_node($victim);
		}
		else
		{
			kill 'KILL', $provider;
		}
		my $dead_at = MgLoad::now();
		for my $i (@others)
		{
			my $again = $load->wait_for_ack($i, $dead_at, 20);
			my $gap = $load->gap($i, $killed_at, $again);
			cmp_ok($gap, '<', 3, sprintf "$name: node $i goes on, longest time without a commit %.2f s", $gap);
		}
		if ($what eq 'server')
		{
			isnt($c->leader($others[0]), $victim, "$name: another one leads");
			$c->start_node($victim);
		}
		else
		{
			$c->wait_new_provider($victim, $provider);
		}
		my $back = eval { $c->wait_synced($victim); 1 };
		ok($back, "$name: it comes back by itself") or diag($@);
		$load->wait_for_ack($_, MgLoad::now()) for $c->all;
		pass("$name: all three take writes again");
		$c->wait_size(3);
		$load->check($name);
		my @errors = grep { $_->{node} != $victim && $_->{outcome} ne 'a' && $_->{sqlstate} ne '40001' } @{ $load->poll };
		is(scalar @errors, 0, "$name: clients of the others see no error")
		  or diag(map { "node $_->{node}: $_->{sqlstate} $_->{why}\n" } splice @errors, 0, 5);
	}
}

# ---- the check itself can fail ----
{
	my $load = MgLoad->start($c, nodes => [2], rate => 200);
	MgCluster::wait_for('some load', sub { $load->count('a') > 20 });
	$load->stop;
	my ($acked) = grep { $_->{outcome} eq 'a' } @{ $load->poll };
	$c->sql(1, "DELETE FROM acked WHERE client = $acked->{client} AND n = $acked->{n}");
	$c->settle;
	my ($lost) = $load->compare(3);
	is(join(',', map { "$_->{client} $_->{n}" } @$lost), "$acked->{client} $acked->{n}", 'a row that is missing is noticed');
	my ($other) = grep { $_->{outcome} eq 'a' && $_ != $acked } @{ $load->poll };
	$other->{outcome} = 'r';
	(undef, my $ghosts) = $load->compare(2);
	is(scalar @$ghosts, 1, 'a row that was refused and is there is noticed');
}

is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed by itself, no node became inconsistent');

done_testing();
