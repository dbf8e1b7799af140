# How fast does a node get what it lacks, and what do the others feel of it?
#
#	ist     a node is down while one pgbench client writes; how long it takes to
#	        fetch and apply that, against the time it took to write it
#	rejoin  a node is killed and comes back after 10 s under 500 transactions a
#	        second: time from the start of its server to SYNCED, and the longest
#	        time without a commit on the two others meanwhile; "before" is the
#	        same without a fault, what this machine does by itself
#	sst     a server that has nothing in common with the cluster joins it: time
#	        from join() to SYNCED and the donor's throughput meanwhile, against a
#	        plain pg_basebackup of the same data
#
# Three real servers with fsync on.  Times of a server's own steps are from its
# log.  Every part but the copy is repeated; "value" is the median of the runs.
# At the end all nodes hold the same rows, or there is no figure.  One JSON line
# per figure; `make bench-transfer` runs it through test/bench/transfer.
#
#   BENCH_PART="ist rejoin sst"  which parts
#   BENCH_RUNS=3
#   BENCH_SECONDS=20             of writing, for ist
#   BENCH_MB=1024                size of the data, for sst

use strict;
use warnings;

my $json;
BEGIN { open $json, '>&', \*STDOUT or die $!; }	# what follows takes STDOUT for its log

use MgCluster;
use MgLoad;
use Test::More;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

Test::More->builder->output(\*STDOUT);
$json->autoflush(1);
my $runs = $ENV{BENCH_RUNS} || 3;
my $seconds = $ENV{BENCH_SECONDS} || 20;
my $megabytes = $ENV{BENCH_MB} || 1024;
my %part = map { $_ => 1 } split ' ', $ENV{BENCH_PART} || 'ist rejoin sst';
my $rate = 500;
my $absence_s = 10;
my $work = $PostgreSQL::Test::Utils::tmp_check;

# pgbench's tables; $1 MB of them
sub tables
{
	my ($mb) = @_;
	my $scale = int($mb / 15) || 1;

	return qq{
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor = 100);
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 90);
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches SELECT g, 0, '' FROM generate_series(1, $scale) g;
INSERT INTO pgbench_tellers SELECT g, (g - 1) / 10 + 1, 0, '' FROM generate_series(1, 10 * $scale) g;
INSERT INTO pgbench_accounts SELECT g, (g - 1) / 100000 + 1, 0, '' FROM generate_series(1, 100000 * $scale) g;
VACUUM ANALYZE;
};
}

sub conf
{
	return "fsync = on\nshared_buffers = 128MB\nmax_wal_size = 4GB\ncheckpoint_timeout = 30min\nautovacuum_naptime = 10min\n" . ($ENV{BENCH_CONF} // '') . "\n";
}

sub figure
{
	my ($name, %f) = @_;
	my @out;

	for my $key (qw(value worst runs unit aim met), sort grep { !/^(?:value|worst|runs|unit|aim|met)$/ } keys %f)
	{
		next unless exists $f{$key};
		my $v = $f{$key};
		push @out, qq{"$key": } . (ref $v ? '[' . join(', ', @$v) . ']' : !defined $v ? 'null' :
			$v =~ /^(?:-?\d+(?:\.\d+)?|true|false)$/ ? $v : qq{"$v"});
	}
	print $json qq({"figure": "$name", ), join(', ', @out), "}\n";
	return;
}

# The median of some runs, against an aim that it must not exceed (or, with "at_least", must reach).
sub median
{
	my ($name, $runs, %f) = @_;
	my @sorted = sort { $a <=> $b } @$runs;
	my $value = $sorted[ @sorted / 2 ];
	my $least = delete $f{at_least};

	figure($name, value => sprintf('%.3f', $value), worst => sprintf('%.3f', $least ? $sorted[0] : $sorted[-1]),
		runs => [ map { sprintf '%.3f', $_ } @$runs ],
		defined $f{aim} ? (met => ($least ? $value >= $f{aim} : $value <= $f{aim}) ? 'true' : 'false') : (), %f);
	return;
}

sub pause { my ($s) = @_; my $end = time() + $s; MgCluster::wait_for("$s seconds", sub { time() >= $end }, $s + 60); return; }

# Seconds of the day's clock at which a server's log says something, by the pattern; undef if it does not.
sub said_at
{
	my ($c, $i, $offset, $pattern) = @_;
	open my $log, '<', $c->node($i)->logfile or die $!;
	seek $log, $offset, 0;
	while (my $line = <$log>)
	{
		next unless $line =~ $pattern;
		$line =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+\.\d+) / or die "no time: $line";
		return timegm(0, $5, $4, $3, $2 - 1, $1) + $6;
	}
	return;
}

# Kills nothing: starts a server that is down and waits until it is SYNCED; seconds of its steps since its start.
sub come_back
{
	my ($c, $i) = @_;
	my $offset = -s $c->node($i)->logfile // 0;

	$c->start_node($i);
	$c->wait_synced($i);
	my $synced;
	MgCluster::wait_for('the log to say SYNCED', sub { $synced = said_at($c, $i, $offset, qr/-> SYNCED/) });
	my $start = said_at($c, $i, $offset, qr/starting PostgreSQL/);
	my $ready = said_at($c, $i, $offset, qr/ready to accept connections/);
	my $admitted = said_at($c, $i, $offset, qr/join: admitted/) // $ready;
	return { synced => $synced - $start, ready => $ready - $start, admitted => $admitted - $start };
}

sub no_difference
{
	my ($c) = @_;
	$c->settle;
	my @hashes = map { $c->sql($_, 'SELECT * FROM mgrepl.database_hash()') } $c->all;
	die "the nodes differ:\n" . join "\n--\n", @hashes if grep { $_ ne $hashes[0] } @hashes;
	return;
}

sub somebody_else { my ($c) = @_; return $c->leader(1) % 3 + 1; }

# ---- ist ----

sub ist
{
	my ($c) = @_;
	my (@ratio, @total, @produced);

	for my $run (1 .. $runs)
	{
		my $victim = somebody_else($c);
		my @others = grep { $_ != $victim } $c->all;

		$c->kill_node($victim);
		$c->wait_size(2, @others);
		my $from = $c->settle(@others);
		my $pgbench = MgCluster::pgbench_finish($c->pgbench_start($c->leader($others[0]), '-c', 1, '-T', $seconds, '-M', 'prepared', '-b', 'simple-update'));
		my $n = $c->settle(@others) - $from;
		my $steps = come_back($c, $victim);

		push @produced, $n / $seconds;
		push @ratio, $n / ($steps->{synced} - $steps->{admitted}) / ($n / $seconds);
		push @total, $steps->{synced};
		note(sprintf 'ist: %d writesets, server ready after %.3f, admitted %.3f, synced %.3f', $n, @$steps{qw(ready admitted synced)});
		$c->wait_size(3);
	}
	no_difference($c);
	median('ist_rate_to_production', \@ratio, unit => 'times', aim => 5, at_least => 1, written_for_s => $seconds,
		produced_per_s => sprintf('%.0f', (sort { $a <=> $b } @produced)[ @produced / 2 ]));
	median('ist_server_start_to_synced', \@total, unit => 's');
	return;
}

# ---- rejoin ----

# The longest time without a commit from $from to $to, in the logs that one pgbench wrote.
sub longest_gap
{
	my ($prefix, $from, $to) = @_;
	my @done = ($to);

	for my $file (glob "$prefix.*")
	{
		open my $f, '<', $file or die $!;
		while (my $line = <$f>)
		{
			my @field = split ' ', $line;
			push @done, $field[4] + $field[5] / 1e6 if $field[2] =~ /^\d+$/;
		}
	}
	my ($last, $longest) = ($from, 0);
	for my $at (sort { $a <=> $b } @done)
	{
		next if $at < $from || $at > $to;
		$longest = $at - $last if $at - $last > $longest;
		$last = $at;
	}
	return $longest;
}

sub rejoin
{
	my ($c) = @_;
	my (@synced, @gap, @before);

	for my $run (1 .. $runs)
	{
		my $victim = somebody_else($c);
		my @others = grep { $_ != $victim } $c->all;
		my @load = map {
			$c->pgbench_start($_, '-c', 4, '-R', $rate / 2, '-T', $absence_s + 20, '-M', 'prepared', '-b', 'simple-update', '--max-tries=0',
				'-l', "--log-prefix=$work/rejoin-$run-$_")
		} @others;

		pause(2);
		my $quiet = time();
		pause(6);
		my $killed = time();
		$c->kill_node($victim);
		pause($absence_s);
		my $start = time();
		my $steps = come_back($c, $victim);
		pause($start + 6 - time()) if time() < $start + 6;
		my $end = time();
		MgCluster::pgbench_finish($_) for @load;
		push @synced, $steps->{synced};
		push @gap, (sort { $b <=> $a } map { longest_gap("$work/rejoin-$run-$_", $start, $end) } @others)[0];
		push @before, (sort { $b <=> $a } map { longest_gap("$work/rejoin-$run-$_", $quiet, $killed) } @others)[0];
		note(sprintf 'rejoin: ready %.3f, admitted %.3f, synced %.3f, gap %.3f, before %.3f', @$steps{qw(ready admitted synced)}, $gap[-1], $before[-1]);
		$c->wait_size(3);
	}
	no_difference($c);
	median('rejoin_server_start_to_synced', \@synced, unit => 's', aim => 3, absence_s => $absence_s, tps => $rate);
	median('rejoin_longest_gap', \@gap, unit => 's', aim => 0.1);
	median('rejoin_longest_gap_before', \@before, unit => 's');
	return;
}

# ---- sst ----

# Transactions a second from $from to $to, in the logs that one pgbench wrote.
sub tps
{
	my ($prefix, $from, $to) = @_;
	my $n = 0;

	for my $file (glob "$prefix.*")
	{
		open my $f, '<', $file or die $!;
		while (my $line = <$f>)
		{
			my @field = split ' ', $line;
			my $at = $field[4] + $field[5] / 1e6;
			$n++ if $field[2] =~ /^\d+$/ && $at >= $from && $at < $to;
		}
	}
	return $n / ($to - $from);
}

# Four clients write on the donor all the time, also while the plain copy is made.
sub sst
{
	my $c = MgCluster->new(nodes => 2, conf => conf() . $MgCluster::transfer_conf, setup => tables($megabytes));
	my $donor = somebody_else($c) == 1 ? 1 : 2;
	my $size = $c->sql($donor, q{SELECT pg_database_size('postgres') / 1024 / 1024});
	my $new = $c->add_lone(conf => "mgrepl.sst_donor = '" . $c->node($donor)->name . "'\n");
	my $load = $c->pgbench_start($donor, '-c', 4, '-j', 2, '-T', 600, '-M', 'prepared', '-b', 'simple-update', '--max-tries=0',
		'-l', "--log-prefix=$work/sst");

	pause(5);
	my $before = time();
	pause(10);
	my $plain = time();
	PostgreSQL::Test::Utils::system_or_bail('pg_basebackup', '-h', $c->node($donor)->host, '-p', $c->node($donor)->port,
		'-D', "$work/plain", '-c', 'fast', '-X', 'stream');
	my $plain_end = time();
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', "$work/plain");
	pause(5);
	my $start = time();
	$c->join_by_snapshot($new, $donor, 600);
	my $end = time();
	pause(2);
	kill 'INT', $load->{run}{KIDS}[0]{PID};
	MgCluster::pgbench_finish($load);
	$c->wait_size(3);
	no_difference($c);

	my $tps = tps("$work/sst", $before, $plain);
	my $aim = ($plain_end - $plain) * 1.3 + 5;
	figure('plain_pg_basebackup', value => sprintf('%.3f', $plain_end - $plain), unit => 's', megabytes => $size,
		donors_tps => sprintf('%.2f', tps("$work/sst", $plain, $plain_end) / $tps));
	figure('sst_join_to_synced', value => sprintf('%.3f', $end - $start), unit => 's', aim => sprintf('%.3f', $aim),
		met => $end - $start <= $aim ? 'true' : 'false', megabytes => $size);
	my $share = tps("$work/sst", $start, $end) / $tps;
	figure('sst_donors_tps', value => sprintf('%.2f', $share), unit => 'of before', aim => 0.7, met => $share >= 0.7 ? 'true' : 'false',
		before => sprintf('%.0f', $tps), longest_gap => sprintf('%.3f', longest_gap("$work/sst", $start, $end)));
	$c->node($_)->stop for $c->all;
	return;
}

if ($part{ist} || $part{rejoin})
{
	my $c = MgCluster->new(nodes => 3, conf => conf(), setup => tables(75));
	ist($c) if $part{ist};
	rejoin($c) if $part{rejoin};
	$c->node($_)->stop for $c->all;
}
sst() if $part{sst};
