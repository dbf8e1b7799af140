# SIGSTOP of one node under load: for 3, 10 and 30 seconds, of a follower and of
# the leader, of the whole server and of its provider only.  The others go on
# meanwhile; after SIGCONT the node comes back by itself, with all the rest has.
#
# Two clusters at the same time, so that it takes half of it: the leader is
# stopped in one, a follower in the other.

use strict;
use warnings;

use MgCluster;
use MgLoad;
use Test::More;

my %cluster = map { $_ => MgCluster->new(nodes => 3, name => "${_}_", conf => "fsync = on\n", setup => $MgLoad::tables) } qw(leader follower);

# How long the others may be without a commit: a leader has to be suspected first.
my %patience = (leader => 3, follower => 1.5);

for my $round ([ 3, 0 ], [ 10, 1 ], [ 30, 0 ])
{
	my ($seconds, $provider_only) = @$round;
	my %run;

	for my $who (qw(leader follower))
	{
		my $c = $cluster{$who};
		my $leader = $c->leader(1);
		my $victim = $who eq 'leader' ? $leader : $leader % 3 + 1;
		my $load = MgLoad->start($c, rate => 60, clients => 2);
		$run{$who} = { c => $c, victim => $victim, load => $load, others => [ grep { $_ != $victim } $c->all ],
			name => "$who" . ($provider_only ? "'s provider" : '') . " stopped for $seconds s" };
		$run{$who}{from} = MgLoad::now();
		$c->pause($victim, $provider_only);
	}
	for my $run (values %run)
	{
		MgCluster::wait_for("$seconds seconds", sub { $_->{load}->poll for values %run; MgLoad::now() > $run->{from} + $seconds }, $seconds + 10);
	}
	for my $who (qw(leader follower))
	{
		my ($c, $load, $name, $victim, $others) = @{ $run{$who} }{qw(c load name victim others)};

		$run{$who}{to} = MgLoad::now();
		if ($seconds >= 10)
		{
			isnt($c->leader($others->[0]), $victim, "$name: it does not lead");
			my $size = $c->status($others->[0], 'cluster_size');
			is($size, 2, "$name: it is not a member any longer");
		}
		$c->resume($victim);
		$run{$who}{resumed} = MgLoad::now();
	}
	for my $who (qw(leader follower))
	{
		my ($c, $load, $name, $victim, $others) = @{ $run{$who} }{qw(c load name victim others)};

		for my $i (@$others)
		{
			my $gap = $load->gap($i, $run{$who}{from}, $run{$who}{to});
			cmp_ok($gap, '<', $patience{$who}, sprintf "$name: node $i goes on, longest time without a commit %.2f s", $gap);
		}
		ok(eval { $load->wait_for_ack($victim, $run{$who}{resumed}); 1 }, "$name: it takes writes again by itself") or diag($@);
		$c->wait_synced($_) for $c->all;
		$c->wait_size(3);
		$load->check($name);
	}
}

for my $c (values %cluster)
{
	is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed, no node became inconsistent');
}

done_testing();
