# test/bench/bench.pl - the same load on four systems, one after the other, each
# alone on the machine, with the same settings, on the same disk:
#
#	plain         one PostgreSQL
#	standbys      a primary with two streaming standbys, ANY 1 (s1, s2), remote_apply
#	mgrepl-one    three mgrepl nodes, all clients on the one that leads
#	mgrepl-spread three mgrepl nodes, clients spread over them (a single
#	              client is on a node that does not lead)
#
# Scripts: one-row-update (of a random account), simple-update and tpcb-like
# (pgbench's own).  fsync is on; commits are durable on the node (plain), on
# two nodes (standbys), on a majority (mgrepl).
#
# Prints one JSON line per figure.  Latencies come from pgbench's log of
# every transaction.  CPU seconds are those of all processes of all servers
# (user and system, children that have ended included) divided by the committed
# transactions.

use strict;
use warnings;

use Time::HiRes qw(time);

my $work    = $ENV{BENCH_WORK} or die "called by test/bench/run\n";
my $bin     = $ENV{MG_BIN};
my $seconds = $ENV{BENCH_SECONDS} || 10;
my $scale   = $ENV{BENCH_SCALE} || 10;
my @clients = split ' ', $ENV{BENCH_CLIENTS} || '1 8 32';
my $filter  = qr/$ENV{BENCH_FILTER}/ if length($ENV{BENCH_FILTER} // '');
my @scripts = ('one-row-update', 'simple-update', 'tpcb-like');
my $hz      = 100;               # USER_HZ: a constant of Linux's user interface
my $next_port = 16480;
my %plain_tps;
$| = 1;
chdir $work or die "$work: $!";
delete @ENV{ grep { /^PG/ && $_ ne 'PG_CONFIG' } keys %ENV };

open my $sql, '>', "$work/one-row-update.sql" or die $!;
print $sql "\\set aid random(1, 100000 * :scale)\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n";
close $sql;

my $conf = <<'CONF';
listen_addresses = ''
shared_buffers = 256MB
max_connections = 100
max_wal_size = 8GB
checkpoint_timeout = 30min
wal_level = replica
max_wal_senders = 10
autovacuum = on
autovacuum_naptime = 10min
logging_collector = off
log_min_messages = warning
CONF

# ---- servers ----

sub run
{
	my (@cmd) = @_;
	my $pid = fork // die $!;
	if (!$pid)
	{
		open STDOUT, '>>', "$work/commands.log";
		open STDERR, '>&', \*STDOUT;
		exec @cmd or die "$cmd[0]: $!";
	}
	waitpid $pid, 0;
	return if $? == 0;
	open my $log, '<', "$work/commands.log";
	my @lines = <$log>;
	die "failed: @cmd\n", splice(@lines, $#lines > 20 ? -20 : 0);
}

sub free_port
{
	use IO::Socket::INET;
	while (1)
	{
		my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $next_port++, Listen => 1) or next;
		return $next_port - 1;
	}
}

sub append
{
	my ($file, $text) = @_;
	open my $f, '>>', $file or die "$file: $!";
	print $f $text;
	close $f;
	return;
}

sub new_server
{
	my ($name, %p) = @_;
	my $s = { name => $name, dir => "$work/$name", port => free_port() };
	if ($p{from})
	{
		run("$bin/pg_basebackup", '-h', $work, '-p', $p{from}{port}, '-U', 'postgres', '-D', $s->{dir}, '-c', 'fast',
			$p{standby} ? '-R' : ());
	}
	else
	{
		run("$bin/initdb", '-D', $s->{dir}, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync');
		append("$s->{dir}/postgresql.conf", $conf);
	}
	append("$s->{dir}/postgresql.conf", "port = $s->{port}\nunix_socket_directories = '$work'\n" . ($p{conf} // ''));
	start($s);
	return $s;
}

sub start
{
	my ($s) = @_;
	run("$bin/pg_ctl", '-D', $s->{dir}, '-l', "$s->{dir}.log", '-w', '-t', 60, 'start');
	open my $f, '<', "$s->{dir}/postmaster.pid" or die $!;
	chomp($s->{pid} = <$f>);
	return;
}

sub stop
{
	for my $s (@_)
	{
		run("$bin/pg_ctl", '-D', $s->{dir}, '-m', 'fast', '-w', '-t', 120, 'stop');
		run('rm', '-rf', $s->{dir});
	}
	return;
}

sub query
{
	my ($s, $sql) = @_;
	open my $psql, '-|', "$bin/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', $work, '-p', $s->{port}, '-U', 'postgres', '-d', 'postgres', '-c', $sql
	  or die $!;
	my $out = join '', <$psql>;
	close $psql or die "failed on $s->{name}: $sql\n";
	chomp $out;
	return $out;
}

sub wait_for
{
	my ($s, $sql, $answer) = @_;
	my $end = time() + 120;
	my $seen;
	while (($seen = query($s, $sql)) ne $answer)
	{
		die "$s->{name}: timed out waiting for $sql = $answer; it is $seen\n" if time() > $end;
		select undef, undef, undef, 0.05;
	}
	return;
}

sub fill
{
	my ($s) = @_;
	run("$bin/pgbench", '-h', $work, '-p', $s->{port}, '-U', 'postgres', '-i', '-q', '-s', $scale, 'postgres');
	return;
}

# ---- measuring ----

# Seconds of CPU of a postmaster and its children, those that have ended included.
sub cpu_seconds
{
	my $ticks = 0;
	my %postmaster = map { $_->{pid} => 1 } @_;
	opendir my $proc, '/proc' or die $!;
	for my $pid (grep { /^\d+$/ } readdir $proc)
	{
		open my $f, '<', "/proc/$pid/stat" or next;
		my $line = <$f> // next;
		my @field = split ' ', $line =~ s/^\d+ \(.*\) //r;
		my ($parent, $user, $system, $child_user, $child_system) = @field[ 1, 11, 12, 13, 14 ];
		$ticks += $user + $system if $postmaster{$pid} || $postmaster{$parent};
		$ticks += $child_user + $child_system if $postmaster{$pid};
	}
	return $ticks / $hz;
}

sub stages
{
	my %sum;
	for my $s (@_)
	{
		for (split /\n/, query($s, "SELECT name, value FROM mgrepl.status WHERE name LIKE 'time\\_%\\_us' OR name = 'local_commits'"))
		{
			my ($name, $value) = split /\|/;
			$sum{$name} += $value;
		}
	}
	return %sum;
}

sub json
{
	my (@pairs) = @_;
	my @out;
	while (my ($key, $value) = splice @pairs, 0, 2)
	{
		push @out, qq{"$key":} . (!defined $value ? 'null' : $value =~ /^-?\d+(?:\.\d+)?$/ ? $value : qq{"$value"});
	}
	return '{' . join(',', @out) . "}\n";
}

# Runs one script with n clients, spread over the targets; prints the figure.
sub measure
{
	my ($system, $script, $n, $servers, $targets) = @_;
	return if $filter && "$system $script $n" !~ $filter;

	query($_, 'CHECKPOINT') for @$servers;
	my @from = $n == 1 ? $targets->[-1] : @$targets;
	my @share = map { int(($n + $#from - $_) / @from) } 0 .. $#from;
	my %stages_before = $system =~ /^mgrepl/ ? stages(@$servers) : ();
	unlink glob "$work/pgbench_log.*";

	# pgbench cannot retry a PREPARE that meets 40001 at its first execution: not prepared where conflicts are many.
	my $protocol = $script eq 'tpcb-like' ? 'extended' : 'prepared';
	my $cpu = cpu_seconds(@$servers);
	my @pgbench;
	for my $k (0 .. $#from)
	{
		open my $p, '-|', "exec $bin/pgbench -h '$work' -p $from[$k]{port} -U postgres -n -M $protocol -T $seconds"
		  . " -c $share[$k] -j " . ($share[$k] < 4 ? $share[$k] : 4)
		  . ($script eq 'one-row-update' ? " -D scale=$scale -f '$work/one-row-update.sql'" : " -b $script")
		  . " --max-tries=0 -l --log-prefix=$work/pgbench_log.$k postgres 2>&1" or die $!;
		push @pgbench, $p;
	}
	my ($done, $tps, $retries) = (0, 0, 0);
	for my $p (@pgbench)
	{
		my $out = join '', <$p>;
		close $p or die "pgbench failed ($system $script $n):\n$out";
		$done    += $1 if $out =~ /number of transactions actually processed: (\d+)/;
		$tps     += $1 if $out =~ /^tps = ([\d.]+)/m;
		$retries += $1 if $out =~ /total number of retries: (\d+)/;
	}
	$cpu = cpu_seconds(@$servers) - $cpu;

	my @ms;
	for my $file (glob "$work/pgbench_log.*")
	{
		open my $f, '<', $file or die $!;
		while (my $line = <$f>)
		{
			my @field = split ' ', $line;
			push @ms, $field[2] / 1000 if $field[2] =~ /^\d+$/;
		}
		close $f;
	}
	unlink glob "$work/pgbench_log.*";
	@ms = sort { $a <=> $b } @ms;
	$plain_tps{"$script $n"} = $tps if $system eq 'plain';
	my $plain = $plain_tps{"$script $n"};

	print json(
		system  => $system, script => $script, clients => $n,
		tps     => sprintf('%.0f', $tps),
		median_ms => @ms ? sprintf('%.3f', $ms[ $#ms / 2 ]) : undef,
		p99_ms    => @ms ? sprintf('%.3f', $ms[ $#ms * 0.99 ]) : undef,
		server_cpu_s_per_1000 => $done ? sprintf('%.3f', $cpu / $done * 1000) : undef,
		ratio_to_plain => $plain ? sprintf('%.2f', $tps / $plain) : undef,
		retries => $retries);

	if (%stages_before)
	{
		my %after = stages(@$servers);
		my $commits = $after{local_commits} - $stages_before{local_commits};
		print json(
			system => $system, script => $script, clients => $n, commits => $commits,
			map { (s/^time_(.*)_us$/stage_$1_us/r => sprintf('%.0f', ($after{$_} - $stages_before{$_}) / $commits)) }
			  grep { /^time_/ } sort keys %after) if $commits > 0;
	}
	return;
}

sub measure_all
{
	my ($system, $servers, $targets) = @_;
	for my $script (@scripts)
	{
		measure($system, $script, $_, $servers, $targets) for @clients;
	}
	return;
}

sub wanted
{
	my ($system) = @_;
	return !$filter || grep { my $s = $_; grep { "$system $s $_" =~ $filter } @clients } @scripts;
}

# ---- the four systems ----

if (wanted('plain'))
{
	my $s = new_server('plain');
	fill($s);
	measure_all('plain', [$s], [$s]);
	stop($s);
}

if (wanted('standbys'))
{
	my $primary = new_server('primary');
	fill($primary);
	my @standbys = map { new_server($_, from => $primary, standby => 1) } 's1', 's2';
	for my $s (@standbys)
	{
		append("$s->{dir}/postgresql.auto.conf", "primary_conninfo = 'host=$work port=$primary->{port} user=postgres application_name=$s->{name}'\n");
		run("$bin/pg_ctl", '-D', $s->{dir}, '-l', "$s->{dir}.log", '-w', '-m', 'fast', 'stop');
		start($s);
	}
	wait_for($primary, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", 2);
	append("$primary->{dir}/postgresql.conf", "synchronous_standby_names = 'ANY 1 (s1, s2)'\nsynchronous_commit = remote_apply\n");
	query($primary, 'SELECT pg_reload_conf()');
	wait_for($primary, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'", 2);
	measure_all('standbys', [ $primary, @standbys ], [$primary]);
	stop(@standbys, $primary);
}

if (wanted('mgrepl-one') || wanted('mgrepl-spread'))
{
	my @address = map { '127.0.0.1:' . free_port() } 1 .. 3;
	my $node_conf = sub {
		my ($i) = @_;
		return "shared_preload_libraries = 'mgrepl'\nmgrepl.cluster_name = 'bench'\nmgrepl.node_name = 'node$i'\n"
		  . "mgrepl.listen_address = '$address[$i - 1]'\nmgrepl.cluster_address = 'gcomm://$address[0]'\n" . ($ENV{BENCH_CONF} // '') . "\n";
	};
	my @nodes = new_server('node1', conf => $node_conf->(1));
	fill($nodes[0]);
	query($nodes[0], 'CREATE EXTENSION mgrepl');
	wait_for($nodes[0], "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mgrepl provider'", 1);
	query($nodes[0], 'SELECT mgrepl.bootstrap()');
	for my $i (2, 3)
	{
		my $s = new_server("node$i", from => $nodes[0], conf => $node_conf->($i));
		wait_for($s, "SELECT value FROM mgrepl.status WHERE name = 'node_state'", 'SYNCED');
		push @nodes, $s;
	}
	wait_for($_, "SELECT value FROM mgrepl.status WHERE name = 'cluster_size'", 3) for @nodes;
	measure_all('mgrepl-one', \@nodes, [ $nodes[0] ]) if wanted('mgrepl-one');
	measure_all('mgrepl-spread', \@nodes, \@nodes) if wanted('mgrepl-spread');
	stop(reverse @nodes);
}
