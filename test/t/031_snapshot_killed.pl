# kill -9 while a snapshot is taken: of the joiner in each part of putting the
# new data in place, of the joiner and of the donor at random moments.  Always it
# ends SYNCED with the same rows, by ordinary starts of the servers.
#
#   MGREPL_LONG=1          every step, and more rounds
#   MGREPL_SEED=number     the same random moments again

use strict;
use warnings;

use MgCluster;
use Time::HiRes qw(time);
use Test::More;

my $seed = $ENV{MGREPL_SEED} // int(rand(1_000_000));
note("seed $seed");
srand($seed);

# Steps of the exchange (src/pg/swap.c): begun, guard in place, 17 entries, log disowned, label, old data away, journal gone.
use constant STEPS => 23;

my $c = MgCluster->new(nodes => 3, conf => $MgCluster::transfer_conf, setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text);
INSERT INTO t SELECT g, 0, repeat(md5(g::text), 10) FROM generate_series(1, 50000) g;
});
my $script = "$PostgreSQL::Test::Utils::tmp_check/load.sql";
PostgreSQL::Test::Utils::append_to_file($script, "\\set id random(1, 1000)\nUPDATE t SET n = n + 1 WHERE id = :id;\n");

my $new = $c->add_lone;
$c->join_by_snapshot($new, 2);
$c->same_content('to begin with');

# What happens while node 1 is written to, whose clients must not notice; then all must have the same.
sub under_load
{
	my ($name, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $load = $c->pgbench_start(1, '-f', $script, '-R', 200, '-T', 600, '-c', 2, '--max-tries', 100000);
	$what->();
	ok(eval { $c->start_node($new) unless $c->node($new)->{_pid}; $c->wait_synced($new); 1 }, "$name: it comes back") or diag($@);
	$load->{run}->signal('KILL');
	eval { $load->{run}->finish };
	is($load->{err} =~ s/^pgbench.*?\n//r, '', "$name: clients of another node do not notice");
	$c->same_content($name);
	return;
}

# The data is to be replaced: again, whatever it is.
sub rebuild
{
	my ($donor) = @_;
	$c->sql($new, "ALTER SYSTEM SET mgrepl.sst_donor = '" . $c->node($donor)->name . "'");
	$c->sql($new, 'SELECT pg_reload_conf()');
	$c->wait_sql($new, 'SHOW mgrepl.sst_donor', $c->node($donor)->name);
	$c->sql($new, 'SELECT mgrepl.leave()');
	$c->wait_sql($new, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');
	$c->sql($new, "SELECT mgrepl.rebuild('gcomm://" . $c->address($donor) . "')");
	return;
}

sub postmaster_is_gone
{
	my $pid = $c->node($new)->{_pid};
	MgCluster::wait_for("the postmaster $pid to kill itself", sub { !kill 0, $pid });
	$c->node($new)->{_pid} = undef;
	return;
}

# Restarted so that its postmaster kills itself at that step; restart => 0: it has been killed already.
sub arm
{
	my ($step, %p) = @_;
	local $ENV{MGREPL_TEST_STOP_AT} = $step;
	$c->node($new)->stop if $p{stop} // 1;
	my $started = $c->node($new)->start(fail_ok => 1);
	return $started;
}

# ---- the joiner, at each step of the exchange ----
my @steps = $ENV{MGREPL_LONG} ? 1 .. STEPS : (1 + int(rand(2)), 3 + int(rand(16)), 20 + int(rand(4)));
for my $step (@steps)
{
	arm($step);
	$c->wait_synced($new);
	under_load("killed at step $step", sub {
		rebuild(2);
		postmaster_is_gone();
		return unless $step == ($ENV{MGREPL_LONG} ? 8 : $steps[1]);

		# Nobody else may start what is neither the old data nor the new.
		my $log = $c->node($new)->logfile;
		my $before = -s $log;
		my $failed = system('pg_ctl', '-w', '-s', '-D', $c->node($new)->data_dir, '-l', $log, '-o', '-c shared_preload_libraries=', 'start');
		isnt($failed, 0, 'a server without the library does not start on it');
		like(PostgreSQL::Test::Utils::slurp_file($log, $before), qr/invalid data in file "backup_label"/, 'because of the guard');

		# It is killed in the second attempt too.
		ok(!arm(2, stop => 0), 'killed again while it goes on');
		$c->node($new)->{_pid} = undef;
	});
}
ok(!-e $c->node($new)->data_dir . "/$_", "no $_ is left")
  for qw(pgsql_tmp.mgrepl_journal pgsql_tmp.mgrepl_staging);

# ---- told to stop while it is about to restart, and with old data in the way that cannot be removed ----
{
	my $data = $c->node($new)->data_dir;
	my $old = "$data/pgsql_tmp.mgrepl_old";
	MgCluster::wait_for('the old data to be removed', sub { !-e $old });
	mkdir $_ or die "$_: $!" for $old, "$old/fixed";
	PostgreSQL::Test::Utils::append_to_file("$old/fixed/file", '');
	chmod 0500, "$old/fixed";

	# The copy waits until it is told to go on.
	my $gate = "$PostgreSQL::Test::Utils::tmp_check/gate";
	my $program = "$PostgreSQL::Test::Utils::tmp_check/gated";
	system('mkfifo', $gate) == 0 or die 'mkfifo failed';
	PostgreSQL::Test::Utils::append_to_file($program, <<"END");
#!/bin/sh
read line <'$gate' || exit 1
exec "\$MGREPL_SST_BINDIR/pg_basebackup" -D "\$MGREPL_SST_DATADIR" -d "\$MGREPL_SST_CONNINFO" -X stream -c fast --no-manifest
END
	chmod 0755, $program;
	$c->sql($new, "ALTER SYSTEM SET mgrepl.sst_method = '$program'");
	under_load('told to stop', sub {
		rebuild(2);
		$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'copying');
		my $session = $c->session($new);	# a smart shutdown waits for it, the transfer goes on
		my $log = $c->node($new)->logfile;
		my $before = -s $log;
		my $postmaster = $c->node($new)->{_pid};
		kill 'TERM', $postmaster or die "kill: $!";
		MgCluster::wait_for('the shutdown to begin',
			sub { PostgreSQL::Test::Utils::slurp_file($log, $before) =~ /received smart shutdown request/ });
		PostgreSQL::Test::Utils::append_to_file($gate, "go\n");
		postmaster_is_gone();
		like(PostgreSQL::Test::Utils::slurp_file($log, $before), qr/the new data is in place, the server stops as it was told to/,
			'a server that is told to stop does not come back');
		ok(!-e "$data/postmaster.pid" && !-e "$data/pgsql_tmp.mgrepl_journal", 'and has ended what it had begun');
		ok(-d "$old.1", 'old data goes under another name if the first is taken');
		eval { $session->quit };
	});
	MgCluster::wait_for('the old data to be removed', sub { !-e "$old.1" });
	ok(-e "$old/fixed/file", 'what cannot be removed stays, and stops nothing');
	chmod 0700, "$old/fixed";
	$c->sql($new, 'ALTER SYSTEM RESET mgrepl.sst_method');
	$c->sql($new, 'SELECT pg_reload_conf()');
	$c->wait_sql($new, 'SHOW mgrepl.sst_method', 'basebackup');
}

# ---- the joiner, at random moments ----
for my $round (1 .. ($ENV{MGREPL_LONG} ? 12 : 2))
{
	under_load("joiner killed, round $round", sub {
		rebuild(2);
		my $at = time() + rand(2);
		MgCluster::wait_for('a random moment', sub { time() > $at });
		eval { note('phase: ', $c->sql($new, 'SELECT phase FROM mgrepl.transfer_progress')) };
		eval { $c->kill_node($new); 1 } or diag($@);
	});
}

# ---- the donor, at random moments: another one gives the rest ----
for my $round (1 .. ($ENV{MGREPL_LONG} ? 12 : 2))
{
	my $donor = 2 + $round % 2;
	under_load("donor killed, round $round", sub {
		rebuild($donor);
		my $at = time() + rand(1);
		MgCluster::wait_for('a random moment', sub { time() > $at });
		eval { note('phase: ', $c->sql($new, 'SELECT phase FROM mgrepl.transfer_progress')) };
		$c->kill_node($donor);
		$c->wait_synced($new);
		$c->start_node($donor);
		$c->wait_synced($donor);
	});
}

my @crashes = grep { /PANIC|TRAP:|INCONSISTENT/ } $c->unexpected_log;
is("@crashes", '', 'no process crashed, no node became inconsistent');
done_testing();
