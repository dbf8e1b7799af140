# Nodes are killed and stopped, one, two or all at once, again and again, at
# random and under load, and started again in any order.  Each time all of them
# are SYNCED without an operator and without a copy of the data: what a node
# lacks comes from its own log and from the others' logs.  At the end nothing
# that was acknowledged is missing.
#
# MGREPL_LONG=1 makes it 50 rounds (make test-long); MGREPL_SEED=n repeats a run's
# choices, MGREPL_ROUNDS=n its length.

use strict;
use warnings;

use MgCluster;
use MgLoad;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $rounds = $ENV{MGREPL_ROUNDS} // ($ENV{MGREPL_LONG} ? 50 : 8);
my $seed = $ENV{MGREPL_SEED} // time ^ $$ << 8;
srand $seed;
diag("$rounds rounds, MGREPL_SEED=$seed");

my $patience_s = 120;
my $c = MgCluster->new(nodes => 3, conf => "fsync = on\n", setup => $MgLoad::tables);
my $uuid = $c->status(1, 'cluster_uuid');
my %came_back;

sub pick { return $_[ rand @_ ]; }

sub shuffled
{
	my @from = @_;
	return map { splice @from, rand @from, 1 } 1 .. @from;
}

my %signal = (kill => 'KILL', immediate => 'QUIT', fast => 'INT');

# Ends servers, all at the same moment, each in its way: { node => way }.
sub end_nodes
{
	my ($how) = @_;
	my (@killed, @pids);

	for my $i (keys %$how)
	{
		my ($postmaster, @children) = $c->processes($i);
		push @pids, $postmaster, @children;
		push @killed, $how->{$i} eq 'kill' ? ($postmaster, @children) : ();
	}
	kill 'KILL', @killed;
	for my $i (grep { $how->{$_} ne 'kill' } keys %$how)
	{
		kill $signal{ $how->{$i} }, ($c->processes($i))[0];
	}
	MgCluster::wait_for('the processes of nodes ' . join(' ', sort keys %$how) . ' to end', sub { !grep { kill 0, $_ } @pids }, $patience_s);
	$c->node($_)->kill9 for keys %$how;		# ended already: its object learns it
	return;
}

# What the log says since $from about the way in which a node came back.
sub way_back
{
	my ($i, $from) = @_;
	my $log = slurp_file($c->node($i)->logfile, $from);
	my $member = $log =~ /-> NON_PRIMARY: started, in search of the other members/;
	my @fetches = $log =~ /join: admitted, catching up from seqno (\d+) to (\d+)/g;

	return 'a copy of the data' if $log =~ /mgrepl: snapshot:/ || grep { -e $c->node($i)->data_dir . "/pgsql_tmp.mgrepl_$_" } qw(old staging);
	return 'a new member that fetched what it lacked' if @fetches;
	return 'the member that it was' if $member;
	return 'in a way that the log does not tell';
}

my $load = MgLoad->start($c, clients => 2, rate => 60);
for my $round (1 .. $rounds)
{
	# Every third round takes all of them; the first is the one that says most.
	my @victims = (shuffled($c->all))[ 0 .. ($round % 3 == 1 ? 2 : pick(0, 0, 1)) ];
	my %how = map { $_ => pick(qw(kill kill immediate fast)) } @victims;
	my %down = map { $_ => 1 } @victims;
	my @rest = grep { !$down{$_} } $c->all;
	my $again = rand() < 0.25 ? pick(@victims) : 0;
	my $pause = pick(0, 0, 50, 200);
	my $name = "round $round (" . join(', ', map { "$how{$_} of $_" } @victims) . ($again ? ", $again twice" : '') . ')';
	my %from = map { $_ => -s $c->node($_)->logfile } $c->all;

	$load->wait_for_ack($_, MgLoad::now(), $patience_s) for $c->all;

	end_nodes(\%how);
	if (@rest == 2)
	{
		# The others go on, for a moment or until the dead one is no member any more.
		my $n = $load->count('a', @rest);
		MgCluster::wait_for('the others to go on', sub { $load->count('a', @rest) > $n + $pause }, $patience_s);
		$c->wait_size(2, @rest) if $pause > 100;
	}
	my @order = shuffled(@victims);
	for my $i (@order)
	{
		$c->start_node($i);
		next unless $i == $again;
		end_nodes({ $i => 'kill' });
		$c->start_node($i);
	}
	my $started = MgLoad::now();
	my $back = eval { $c->wait_synced($_, $patience_s) for shuffled($c->all); 1 };
	my $synced_s = MgLoad::now() - $started;
	ok($back, sprintf "$name: all are SYNCED by themselves after %.1f s", $synced_s)
	  or do
	{
		diag($@);
		for my $i ($c->all)
		{
			my $r = eval { $c->try($i, q{SELECT string_agg(name || '=' || coalesce(value, ''), ' ') FROM mgrepl.status WHERE name ~ '^(node_state|view|epoch|leader|commit|next|deliv|log_)'}, timeout => 10) };
			diag("node $i: " . ($r ? $r->{out} . $r->{err} : $@));
		}
		BAIL_OUT("MGREPL_SEED=$seed: the cluster does not come back");
	};

	my %ways = map { $_ => way_back($_, $from{$_}) } @victims;
	$came_back{$_}++ for values %ways;
	is(join('', grep { $ways{$_} !~ /member/ } @victims), '', "$name: without a copy")
	  or diag(map { "node $_ came back: $ways{$_}\n" } @victims);
	is(join(' ', map { $c->status($_, 'cluster_uuid') } $c->all), "$uuid $uuid $uuid", "$name: the same cluster");
	ok(eval { $load->wait_for_ack($_, $started, $patience_s) for $c->all; 1 }, "$name: all take writes") or diag($@);
}
note("$_: $came_back{$_} times") for sort keys %came_back;

$load->check('at the end');
is(scalar(grep { $_->{sqlstate} eq '55000' } @{ $load->poll }), 0, 'no client was told that a node that was just starting had never joined');
is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed by itself, no node became inconsistent');
diag("MGREPL_SEED=$seed") unless Test::More->builder->is_passing;

done_testing();
