# How long do the survivors stand still when a node is killed or stopped?
#
# Three real servers with default settings; clients write 500 transactions a
# second on each of the two nodes that stay, each transaction one row inserted
# and one changed.  The figure is the longest time in which one of the two
# nodes acknowledged nothing, as its clients saw it, from the fault on until a
# few seconds behind it.  Every fault is repeated; "value" is the median of the
# runs, which an aim is compared with, and "worst" the longest.  "nothing" is the
# same without a fault: what this machine does by itself.
#
# Afterwards every acknowledged transaction has to be on all nodes, or there is
# no figure.  One JSON line per figure; test/bench/group runs it.
#
#   BENCH_RUNS=3       how often each
#   BENCH_RATE=500     transactions a second on each surviving node

use strict;
use warnings;

my $json;
BEGIN { open $json, '>&', \*STDOUT or die $!; }	# what follows takes STDOUT for its log

use MgCluster;
use MgLoad;
use Test::More;

Test::More->builder->output(\*STDOUT);
my $runs = $ENV{BENCH_RUNS} || 3;
my $rate = $ENV{BENCH_RATE} || 500;
my $watch_s = 5;

# name, aim in seconds, whom, the fault, how long it lasts
my @faults = (
	[ 'nothing',          undef, 'follower', sub { },                                   0 ],
	[ 'kill9_follower',   0.15,  'follower', sub { $_[0]->kill_node($_[1]) },           0 ],
	[ 'kill9_leader',     0.5,   'leader',   sub { $_[0]->kill_node($_[1]) },           0 ],
	[ 'sigstop3_follower', 0.3,  'follower', sub { $_[0]->pause($_[1]) },               3 ],
	[ 'sigstop3_leader',  2,     'leader',   sub { $_[0]->pause($_[1]) },               3 ],
);

my $c = MgCluster->new(nodes => 3, conf => "fsync = on\n", setup => $MgLoad::tables);
my %gaps;

for my $run (1 .. $runs)
{
	for my $fault (@faults)
	{
		my ($name, $aim, $who, $do, $lasts) = @$fault;
		my $leader = $c->leader(1);
		my $victim = $who eq 'leader' ? $leader : $leader % 3 + 1;
		my @others = grep { $_ != $victim } $c->all;
		my $load = MgLoad->start($c, nodes => \@others, rate => $rate, clients => 8);
		my $from = MgLoad::now();

		MgCluster::wait_for('a steady load', sub { $load->poll; MgLoad::now() > $from + 2 });
		my $at = MgLoad::now();
		$do->($c, $victim);
		MgCluster::wait_for("$lasts seconds", sub { $load->poll; MgLoad::now() > $at + $lasts });
		$c->resume($victim) if $lasts;
		MgCluster::wait_for('what comes behind it', sub { $load->poll; MgLoad::now() > $at + $lasts + $watch_s });
		my ($worst) = sort { $b <=> $a } map { $load->gap($_, $at, $at + $lasts + $watch_s) } @others;
		push @{ $gaps{$name} }, $worst;
		$load->stop;

		$c->start_node($victim) if $name =~ /kill/;
		$c->wait_synced($_) for $c->all;
		$c->wait_size(3);
		$c->settle;
		for my $i ($c->all)
		{
			my ($lost, $ghosts) = $load->compare($i);
			die "$name: node $i has lost " . @$lost . ' transactions and has ' . @$ghosts . " that were refused\n" if @$lost || @$ghosts;
		}
	}
}

for my $fault (@faults)
{
	my ($name, $aim) = @$fault;
	my @sorted = sort { $a <=> $b } @{ $gaps{$name} };

	printf $json qq({"figure": "longest_gap_%s", "value": %.3f, "worst": %.3f, "runs": [%s], "unit": "s", "tps_per_survivor": %d, "aim": %s, "met": %s}\n),
	  $name, $sorted[ @sorted / 2 ], $sorted[-1], join(', ', map { sprintf '%.3f', $_ } @{ $gaps{$name} }), $rate,
	  $aim // 'null', !defined $aim ? 'null' : $sorted[ @sorted / 2 ] <= $aim ? 'true' : 'false';
}
