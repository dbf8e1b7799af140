# Links that are cut, each way and between any two, and slow ones: in networks
# of the test's own.  A minority refuses writes within suspect_timeout, the
# majority goes on, and after the cut all are one cluster again by themselves.

use strict;
use warnings;

use MgNetns;
use MgCluster;
use MgLoad;
use Test::More;
use Time::HiRes ();
use Time::Local ();

plan skip_all => MgNetns::reason() if MgNetns::reason();

my $suspect_s = 1;
my $slack_s = 0.5;		# to notice it, to tell it, and for what else this machine does

my $net = MgNetns->new(nodes => 3);
my $c = MgCluster->new(
	nodes => 3,
	net   => $net,
	conf  => "fsync = on\nlog_timezone = 'GMT'\nmgrepl.suspect_timeout = '${suspect_s}s'\n",
	setup => $MgLoad::tables);

# How long after that moment the node has left the primary component, by its own
# log: a client that asks again and again is late by its own start on a busy
# machine.
sub left_primary_after
{
	my ($i, $cut_at) = @_;
	my $cut_time = Time::HiRes::time() - (MgLoad::now() - $cut_at);
	return eval { MgCluster::wait_for("node $i outside the primary component", sub {
			open my $log, '<', $c->node($i)->logfile or die $!;
			while (<$log>)
			{
				next unless /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)\.(\d+) GMT .* node: state \w+ -> NON_PRIMARY/;
				my $after = Time::Local::timegm($6, $5, $4, $3, $2 - 1, $1) + "0.$7" - $cut_time;
				return $after if $after > 0;
			}
			return; }, 15) };
}

# A node that is cut off says so in time, and refuses.  (Who has sent a
# transaction before that is told nothing until its outcome is known.)
sub minority_refuses
{
	my ($load, $name, $i, $cut_at) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $after = left_primary_after($i, $cut_at) // 99;
	cmp_ok($after, '<=', $suspect_s + $slack_s, sprintf "$name: node $i is out of the primary component after %.2f s", $after);
	eval { $c->wait_sql($i, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'NON_PRIMARY', 15) };
	$c->refuses($i, 'UPDATE hot SET v = v WHERE id = 1', '57P03', qr/primary component/, "$name: node $i refuses a write, says why, with a hint");
	my $late = grep { $_->{node} == $i && $_->{outcome} eq 'a' && $_->{sent} > $cut_at + $suspect_s + $slack_s } @{ $load->poll };
	is($late, 0, "$name: node $i acknowledges nothing");
	return;
}

sub majority_goes_on
{
	my ($load, $name, $cut_at, $within, @nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $i (@nodes)
	{
		my $done = eval { $load->wait_for_ack($i, $cut_at + 0.2) };
		my $gap = defined $done ? $load->gap($i, $cut_at, $done) : undef;
		ok(defined $gap && $gap < $within,
			sprintf "$name: node $i goes on, longest time without a commit %s s", defined $gap ? sprintf('%.2f', $gap) : 'too long');
	}
	return;
}

sub all_back
{
	my ($load, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$net->heal;
	my $healed_at = MgLoad::now();
	for my $i ($c->all)
	{
		ok(eval { $c->wait_synced($i, 30); $load->wait_for_ack($i, $healed_at, 30); 1 }, "$name: then node $i takes writes again by itself")
		  or diag($@);
	}
	$c->wait_size(3);
	$load->check($name);
	return;
}

sub follower_of { my ($leader) = @_; return $leader % 3 + 1; }

# ---- one node alone ----
for my $who (qw(follower leader))
{
	my $leader = $c->leader(1);
	my $alone = $who eq 'leader' ? $leader : follower_of($leader);
	my @rest = grep { $_ != $alone } $c->all;
	my $name = "the $who is alone";
	my $load = MgLoad->start($c, rate => 100);
	my $cut_at = MgLoad::now();

	$net->isolate($alone);
	minority_refuses($load, $name, $alone, $cut_at);
	majority_goes_on($load, $name, $cut_at, $who eq 'leader' ? 4 : 1.5, @rest);
	isnt($c->leader($rest[0]), $alone, "$name: it does not lead");
	all_back($load, $name);
}

# ---- nobody hears anybody ----
{
	my $name = 'each is alone';
	my $load = MgLoad->start($c, rate => 60);
	my $cut_at = MgLoad::now();

	$net->isolate($_) for $c->all;
	minority_refuses($load, $name, $_, $cut_at) for $c->all;
	all_back($load, $name);
}

# ---- it hears the others, they do not hear it; and the other way round ----
for my $who (qw(follower leader))
{
	for my $direction (qw(speaks hears))
	{
		my $leader = $c->leader(1);
		my $victim = $who eq 'leader' ? $leader : follower_of($leader);
		my @rest = grep { $_ != $victim } $c->all;
		my $name = "the $who only $direction";
		my $load = MgLoad->start($c, rate => 100);
		my $cut_at = MgLoad::now();

		$net->cut_one_way(map { $direction eq 'speaks' ? [ $_, $victim ] : [ $victim, $_ ] } @rest);
		majority_goes_on($load, $name, $cut_at, 6, @rest);
		minority_refuses($load, $name, $victim, $cut_at) if $direction eq 'speaks';
		all_back($load, $name);
	}
}

# ---- two do not hear each other, the third hears both ----
for my $with_leader (0, 1)
{
	my $leader = $c->leader(1);
	my $a = follower_of($leader);
	my $b = $with_leader ? $leader : follower_of($a);
	my ($third) = grep { $_ != $a && $_ != $b } $c->all;
	my $name = $with_leader ? 'the leader and a follower cannot hear each other' : 'two followers cannot hear each other';
	my $load = MgLoad->start($c, rate => 100);
	my $cut_at = MgLoad::now();

	# Whoever of the two is out of it: two nodes go on.
	$net->cut([ $a, $b ]);
	majority_goes_on($load, $name, $cut_at, 6, $third);
	ok(eval { MgCluster::wait_for('a second node that takes writes', sub {
			$load->poll;
			grep { ($load->{last}{$_} // 0) > $cut_at + 2 * $suspect_s } $a, $b }, 15) },
		"$name: one of the two goes on, too");
	all_back($load, $name);
}

# ---- a slow link ----
SKIP:
{
	my $slow = follower_of($c->leader(1));
	my @rest = grep { $_ != $slow } $c->all;
	my $name = 'a slow link';
	my $how = $net->slow($slow) or skip 'no netem and no tbf in this kernel', 1;
	my $load = MgLoad->start($c, rate => 150, pad => 200);
	my $from = MgLoad::now();

	note("node $slow: $how");
	for my $i (@rest)
	{
		my $done = $load->wait_for_ack($i, $from + 3);
		my $gap = $load->gap($i, $from, $done);
		cmp_ok($gap, '<', 1.5, sprintf "$name: node $i goes on, longest time without a commit %.2f s", $gap);
	}
	$net->fast($slow);
	all_back($load, $name);
}

is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed, no node became inconsistent');

done_testing();
