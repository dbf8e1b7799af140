# What a session can choose: reads outside the primary component, and how much
# must be done with a transaction before its COMMIT returns.  Also the command
# that may lose something, and times that do not fit each other.

use strict;
use warnings;

use MgCluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

# A member is not evicted while the test holds it still; it is suspected soon.
my $c = MgCluster->new(nodes => 3, conf => "mgrepl.suspect_timeout = 2s\nmgrepl.inactive_timeout = 120s\n", setup => q{
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 100) g;
CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (100);
INSERT INTO parts SELECT g, 'p' FROM generate_series(1, 10) g;
CREATE VIEW t_view AS SELECT * FROM t;
CREATE VIEW catalog_view AS SELECT relname FROM pg_class;
CREATE UNLOGGED TABLE scratch (id int);
CREATE FUNCTION t_count() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END';
});
$c->join_node($_) for grep { $c->status($_, 'node_state') eq 'OPEN' } $c->all;

sub pids
{
	my ($i, $type) = @_;
	return split /\n/, $c->sql($i, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'mgrepl $type'");
}

# Everything that a node outside the primary component does about reads.
sub reads_are_refused
{
	my ($i, $sqlstate, $why) = @_;
	my %tables = (
		'a table' => 'SELECT * FROM t',
		'a count' => 'SELECT count(*) FROM t',
		'a partitioned table' => 'SELECT * FROM parts',
		'a partition' => 'SELECT * FROM parts_1',
		'a view of a table' => 'SELECT * FROM t_view',
		'a subquery' => 'SELECT (SELECT max(id) FROM t)',
		'a function that reads' => 'SELECT t_count()',
		'a row lock' => 'SELECT * FROM t WHERE id = 1 FOR UPDATE',
		'a cursor' => 'BEGIN; DECLARE k CURSOR FOR SELECT * FROM t; COMMIT',
		'a prepared statement' => 'PREPARE p AS SELECT * FROM t; EXECUTE p',
		'COPY of a table' => 'COPY t TO STDOUT',
		'COPY of a query' => 'COPY (SELECT * FROM t) TO STDOUT',
		'EXPLAIN ANALYZE' => 'EXPLAIN ANALYZE SELECT * FROM t',
		'a temporary copy' => 'CREATE TEMP TABLE mine AS SELECT * FROM t',
		'a table joined to catalogs' => 'SELECT * FROM pg_class, t',
	);
	$c->refuses($i, $tables{$_}, $sqlstate, qr/$why.*does not read tables/, "$why: $_") for sort keys %tables;

	my %others = (
		'no table' => 'SELECT 1',
		'catalogs' => 'SELECT count(*) FROM pg_class JOIN information_schema.tables ON true',
		'a view of catalogs' => 'SELECT count(*) FROM catalog_view',
		'mgrepl.status' => 'SELECT * FROM mgrepl.status',
		'mgrepl.members' => 'SELECT * FROM mgrepl.members',
		'hashes' => q{SELECT * FROM mgrepl.database_hash(), mgrepl.table_hash('t')},
		'an unlogged table' => 'SELECT * FROM scratch',
		'a temporary table' => 'CREATE TEMP TABLE mine (id int); INSERT INTO mine VALUES (1); SELECT * FROM mine',
		'EXPLAIN' => 'EXPLAIN SELECT * FROM t',
	);
	for (sort keys %others)
	{
		my $r = $c->try($i, $others{$_});
		ok($r->{ok}, "$why, read all the same: $_") or diag($r->{err});
	}

	my $r = $c->try($i, 'SET mgrepl.dirty_reads = on; SELECT t_count(); COPY t TO STDOUT');
	ok($r->{ok}, "$why: dirty reads for whoever asks for them") or diag($r->{err});
	$c->refuses($i, q{SET mgrepl.dirty_reads = on; UPDATE t SET v = 'astray'}, $sqlstate, qr/takes no writes/, "$why: dirty writes there are none");
	$c->refuses($i, q{INSERT INTO t VALUES (0, 'astray')}, $sqlstate, qr/takes no writes/, "$why: a write is refused as such");
	return;
}

# ---- a node that has left ----
$c->sql(3, 'SELECT mgrepl.leave()');
$c->wait_sql(3, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');
reads_are_refused(3, '55000', 'has not joined it');
{
	# Another database of the server is no part of the cluster.
	$c->sql(3, 'CREATE DATABASE other');
	is($c->node(3)->safe_psql('other', 'CREATE TABLE t (id int); SELECT count(*) FROM t'), 0, 'another database is read as ever');
	$c->sql(3, 'DROP DATABASE other');
}
$c->join_node(3);
$c->wait_size(3);
is($c->sql(3, 'SELECT t_count()'), 100, 'back in the cluster it reads as ever');

# ---- durability: every level commits ----
my $n = 1000;
for my $level (qw(memory local majority all applied))
{
	for my $i ($c->all)
	{
		my $r = $c->try($i, "SET mgrepl.durability = '$level'; INSERT INTO t VALUES (" . ++$n . ", '$level')");
		ok($r->{ok}, "durability $level on node $i") or diag($r->{err});
		is($r->{err}, '', 'without a warning');
	}
}
$c->settle;
is($c->sql($_, 'SELECT count(*) FROM t WHERE id > 1000'), $n - 1000, "node $_ has them all") for $c->all;

# "applied" is what the next one can rely on, on any node.
{
	my @reader = map { $c->session($_) } $c->all;
	my $writer = $c->session(2);
	my $missing = 0;

	$writer->run('SET mgrepl.durability = applied');
	for my $k (1 .. 50)
	{
		my $r = $writer->run("INSERT INTO t VALUES (" . ++$n . ", 'seen')");
		BAIL_OUT("applied: $r->{err}") unless $r->{ok};
		$missing += $_->run("SELECT count(*) FROM t WHERE id = $n")->{out} ne '1' for @reader;
	}
	is($missing, 0, 'applied: visible on every node when COMMIT returns');
	$_->quit for $writer, @reader;
}

# A session that waits for a durability: its next row is there, its COMMIT is not over.  Returns the row's id.
sub start_waiting
{
	my ($i, $session) = @_;
	my $pid = $session->pid;
	my $id = ++$n;
	$session->start("INSERT INTO t VALUES ($id, 'waits');");
	$c->wait_sql($i, "SELECT count(*) FROM t WHERE id = $id", '1');
	$c->wait_sql($i, "SELECT state = 'active' AND wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $pid");
	return $id;
}

sub commits
{
	my ($i, $level, $name) = @_;
	my $r = $c->try($i, "SET mgrepl.durability = '$level'; INSERT INTO t VALUES (" . ++$n . ", 'meanwhile')");
	ok($r->{ok} && $r->{err} eq '', "$name: node $i commits with $level") or diag($r->{err});
	return;
}

# Whatever ends the wait early is a WARNING that says what is missing; $hold and $release make $level wait on node 1.
sub ends_early
{
	my ($level, $missing, $hold, $release) = @_;
	my $waiting = $c->session(1);
	my $pid = $waiting->pid;

	$hold->();
	$waiting->run("SET mgrepl.durability = '$level'");
	start_waiting(1, $waiting);
	$c->sql(1, "SELECT pg_cancel_backend($pid)");
	my $r = $waiting->finish;
	ok($r->{ok}, "$level: a cancelled wait is no error") or diag($r->{err});
	like($r->{err}, qr/WARNING:.*is committed, but maybe not $missing.*user request.*DETAIL:.*seqno \d+.*"$level"/s, "$level: but a warning");

	$r = $waiting->run("SET mgrepl.commit_timeout = '200ms'; INSERT INTO t VALUES (" . ++$n . ", 'late')");
	ok($r->{ok}, "$level: commit_timeout ends the wait");
	like($r->{err}, qr/WARNING:.*is committed, but maybe not $missing.*commit_timeout/s, "$level: with a warning");
	$waiting->run('RESET mgrepl.commit_timeout');

	start_waiting(1, $waiting);
	$release->();
	$r = $waiting->finish;
	ok($r->{ok} && $r->{err} eq '', "$level: the wait ends by itself when it is so") or diag($r->{err});

	$hold->();
	my $id = start_waiting(1, $waiting);
	$c->sql(1, "SELECT pg_terminate_backend($pid)");
	$c->wait_sql(1, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0');
	is($c->sql(1, "SELECT count(*) FROM t WHERE id = $id"), 1, "$level: the end of the session takes nothing back");
	$release->();
	return;
}

# ---- a member that does not apply holds up "applied", and nobody else ----
{
	my @appliers = pids(3, 'applier');
	my $waiting = $c->session(1);

	kill STOP => @appliers;
	$waiting->run('SET mgrepl.durability = applied');
	my $id = start_waiting(1, $waiting);
	for my $i (1, 2)
	{
		commits($i, $_, 'a member does not apply') for qw(memory local majority all);
	}
	ok($c->try(2, "UPDATE t SET v = 'again' WHERE id = $id")->{ok}, 'the waiting one has released its locks');
	cmp_ok($c->status(1, 'applied_everywhere'), '<', $c->status(1, 'committed_seqno'), 'applied_everywhere tells it');
	ok(!$waiting->finished, 'applied: it waits');
	kill CONT => @appliers;
	my $r = $waiting->finish;
	ok($r->{ok} && $r->{err} eq '', 'applied: until the member goes on') or diag($r->{err});
	$waiting->quit;

	ends_early('applied', 'visible on all members', sub { kill STOP => @appliers }, sub { kill CONT => @appliers });
	$c->same_content('a member that did not apply for a while');
}

# ---- a disk that hangs holds up "local" there and "all" anywhere, and nobody else ----
# It is the thread that flushes the log that stands still, as in a flush that takes long.
my $thread;
my $ptrace = sub { return syscall(SYS_ptrace(), $_[0], $thread + 0, 0, 0) == 0 };
SKIP: {
	my $pid = $c->provider_pid(1);
	($thread) = grep { $_ != $pid && slurp_file("/proc/$pid/task/$_/comm") !~ /^ZMQ/ } map { m{(\d+)$} } glob "/proc/$pid/task/*";
	unless (eval { require 'syscall.ph' } && $ptrace->(0x4206))	# SEIZE
	{
		undef $thread;
		skip 'no ptrace here', 1;
	}

	my $hang = sub { $ptrace->(0x4207) && waitpid($thread, 0x40000000) == $thread or BAIL_OUT("INTERRUPT: $!") };	# and __WALL
	my $go_on = sub { $ptrace->(7) or BAIL_OUT("CONT: $!") };
	my %waiting = (local => $c->session(1), all => $c->session(2));

	$hang->();
	$waiting{$_}->run("SET mgrepl.durability = '$_'") for sort keys %waiting;
	my %id = (local => start_waiting(1, $waiting{local}), all => start_waiting(2, $waiting{all}));
	commits(1, $_, 'a disk hangs') for qw(memory majority applied);
	for my $i (2, 3)
	{
		commits($i, $_, 'a disk hangs') for qw(memory local majority applied);
	}
	ok($c->try(3, "UPDATE t SET v = 'again' WHERE id = $id{$_}")->{ok}, "$_: it has released its locks") for sort keys %id;
	cmp_ok($c->status($_, 'flushed_everywhere'), '<', $c->status($_, 'applied_everywhere'), "node $_: flushed_everywhere tells it") for $c->all;
	ok(!$waiting{$_}->finished, "$_: it waits") for sort keys %waiting;
	$go_on->();
	for (sort keys %waiting)
	{
		my $r = $waiting{$_}->finish;
		ok($r->{ok} && $r->{err} eq '', "$_: until the disk goes on") or diag($r->{err});
		$waiting{$_}->quit;
	}

	ends_early('local', 'flushed to disk by this node', $hang, $go_on);
	ends_early('all', 'flushed to disk by all members', $hang, $go_on);
	$hang->();
	$ptrace->(17) or BAIL_OUT("DETACH: $!");
	undef $thread;
	$c->same_content('a disk that hung for a while');
}

# ---- a silent member holds up "all" and "applied" until it is suspected, and nobody else ----
for my $level (qw(all applied))
{
	my $silent = $c->leader(1) == 3 ? 2 : 3;
	my $waiting = $c->session(1);
	my @others = map { $c->session($_) } grep { $_ != $silent } $c->all;
	my $meanwhile = 0;

	$waiting->run("SET mgrepl.durability = '$level'");
	$c->pause($silent);
	my $id = ++$n;
	$waiting->start("INSERT INTO t VALUES ($id, 'silent');");
	my $there = sub { return $others[0]->run("SELECT count(*) FROM t WHERE id = $id")->{out} eq '1' };
	MgCluster::wait_for("$level: the row", $there);
	until ($waiting->finished)
	{
		for (@others)
		{
			my $r = $_->run('INSERT INTO t VALUES (' . ++$n . ", 'meanwhile')");
			BAIL_OUT("$level: $r->{err}") unless $r->{ok};
		}
		$meanwhile++ unless $waiting->finished;
	}
	cmp_ok($meanwhile, '>=', 5, "$level: others commit while it waits for a silent member");
	my $r = $waiting->finish;
	ok($r->{ok} && $r->{err} eq '', "$level: it does not wait for one that is suspected") or diag($r->{err});
	is($c->status(1, 'cluster_size'), 3, "$level: and need not be evicted for that");
	$c->resume($silent);
	$_->quit for $waiting, @others;
	$c->wait_synced($_) for $c->all;
	$c->wait_size(3);
	$c->same_content("$level: a silent member is back");
}

# ---- alone: refuses reads and writes, and goes on without the others only by force ----
{
	my $open = $c->session(1);
	$open->run('BEGIN; DECLARE k CURSOR FOR SELECT id FROM t ORDER BY id; FETCH k');

	# Nobody is left who could hold "applied" up, and nobody who could confirm it.
	my $waiting = $c->session(1);
	kill STOP => map { pids($_, 'applier') } 2, 3;
	$waiting->run('SET mgrepl.durability = applied');
	start_waiting(1, $waiting);
	$c->kill_node(2, 3);
	my $alone = $waiting->finish;
	ok($alone->{ok}, 'applied: alone it is no error') or diag($alone->{err});
	like($alone->{err}, qr/WARNING:.*is committed, but maybe not visible on all members yet: this node is no longer in the primary component/, 'applied: but a warning');
	$waiting->quit;
	$c->wait_sql(1, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'NON_PRIMARY');
	reads_are_refused(1, '57P03', 'not in the primary component');
	is($open->run('FETCH k')->{out}, 2, 'a cursor that was opened before is read to its end');
	$open->quit;

	my $r = $c->refuses(1, 'SELECT mgrepl.bootstrap()', '55000', qr/\S/, 'bootstrap without the members that it had');
	like($r->{hint} // '', qr/force/, 'the hint names the way');
	ok($c->try(1, 'SELECT mgrepl.bootstrap(force => true)')->{ok}, 'bootstrap by force');
	$c->wait_synced(1);
	ok($c->try(1, 'INSERT INTO t VALUES (' . ++$n . ", 'alone')")->{ok}, 'it goes on alone');
	for my $i (2, 3)
	{
		$c->node($i)->start;
		$c->join_node($i) if $c->status($i, 'node_state') eq 'OPEN';
		$c->wait_synced($i);
	}
	$c->wait_size(3);
	$c->same_content('the others are back');
}

# ---- times that do not fit each other ----
{
	my $lone = MgCluster->lone_server(name => 'times', conf => <<'CONF');
mgrepl.keepalive_period = 900ms
mgrepl.suspect_timeout = 2s
mgrepl.inactive_timeout = 1s
mgrepl.wan_suspect_timeout = 5s
mgrepl.wan_inactive_timeout = 4s
mgrepl.segment = 7
mgrepl.weight = 3
CONF
	my $log = slurp_file($lone->node(1)->logfile);
	my %used = (keepalive_period => '500ms', suspect_timeout => '2s', inactive_timeout => '2s',
		wan_suspect_timeout => '5s', wan_inactive_timeout => '5s', segment => 7, weight => 3);
	is($lone->sql(1, "SHOW mgrepl.$_"), $used{$_}, "mgrepl.$_ is in force with $used{$_}") for sort keys %used;
	for (qw(keepalive_period inactive_timeout wan_inactive_timeout))
	{
		like($log, qr/WARNING:  mgrepl\.$_ is set to \d+ ms instead of \d+ ms/, "mgrepl.$_: the log says that it was changed");
	}
	$lone->node(1)->append_conf('postgresql.conf', join '', map { "mgrepl.$_ = '0'\n" } qw(wan_suspect_timeout wan_inactive_timeout));
	$lone->node(1)->append_conf('postgresql.conf', "mgrepl.suspect_timeout = 10s\nmgrepl.inactive_timeout = 30s\nmgrepl.keepalive_period = 1s\n");
	my $from = -s $lone->node(1)->logfile;
	$lone->node(1)->restart;
	unlike(substr(slurp_file($lone->node(1)->logfile), $from), qr/WARNING/, 'times that fit are taken as they are');
	is($lone->sql(1, 'SHOW mgrepl.keepalive_period'), '1s', 'and are in force');
	$lone->node(1)->stop;
}

my @crashes = grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log;
is("@crashes", '', 'no process crashed, no node became inconsistent');

done_testing();

# The server of a test that has died must be able to stop.
END
{
	$ptrace->(17) if $thread;
}
