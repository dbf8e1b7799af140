# Backups of a cluster: a mark is at the same place in every node's WAL, so that any
# node's base backup and archive end with the same data there; a backup carries
# its position; a copied data directory is another node, not the same one twice.

use strict;
use warnings;

use MgCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
mkdir "$tmp/archive$_" or die $! for 1, 2;

my $c = MgCluster->new(nodes => 2,
	node_conf => { map { $_ => "archive_mode = on\narchive_command = 'cp \"%p\" \"$tmp/archive$_/%f\"'\n" } 1, 2 },
	setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text);
INSERT INTO t SELECT g FROM generate_series(1, 1000) g;
CREATE TABLE log (id bigserial PRIMARY KEY, node text, n int);
CREATE ROLE plain LOGIN;
});

my $script = "$tmp/load.sql";
open my $f, '>', $script or die $!;
print $f <<'SQL';
\set id random(1, 1000)
BEGIN;
UPDATE t SET n = n + 1, v = repeat('x', n % 100) WHERE id = :id;
INSERT INTO t (id, n) VALUES (1000000 + :client_id * 100000 + random() * 90000, 1) ON CONFLICT (id) DO UPDATE SET n = t.n + 1;
COMMIT;
SQL
close $f;

sub line_of
{
	my ($i, $pattern) = @_;
	my @found = grep { /$pattern/ } split /\n/, slurp_file($c->node($i)->logfile);
	return @found;
}

# ---- the label of a backup ----
{
	my $label = $c->sql(1, 'SELECT mgrepl.backup_label()');
	my $gtid = $c->sql(1, 'SELECT mgrepl.gtid()');
	like($label, qr/^GTID: \Q$gtid\E\nNODE: n1\nCLUSTER: test\nSTATE: SYNCED\nTIME: 20\d\d-/, 'mgrepl.backup_label() says what to record');
}

# ---- marks under load, from both nodes ----
$c->node($_)->backup("base$_") for 1, 2;
my @runs = map { $c->pgbench_start($_, '-f', $script, '-T', 6, '-c', 4, '--max-tries', 100000) } 1, 2;
my $from = $c->status(1, 'committed_seqno');
MgCluster::wait_for('load', sub { $c->status(1, 'committed_seqno') > $from + 300 });
my %mark;
for my $round (1 .. 3)
{
	for my $i (1, 2)
	{
		my $at = $c->status($i, 'committed_seqno');
		$mark{"m$round.$i"} = $c->sql($i, "SELECT mgrepl.mark('m$round.$i')");
		MgCluster::wait_for('more load', sub { $c->status($i, 'committed_seqno') > $at + 100 });
	}
}
for (@runs)
{
	MgCluster::pgbench_finish($_);
	is($_->{rc}, 0, "clients of node $_->{node} see no error of the marks") or diag($_->{err});
}
$c->same_content('both nodes have the same');
for my $name (sort keys %mark)
{
	my ($seqno) = $mark{$name} =~ /:(\d+)$/;
	for my $i (1, 2)
	{
		is(scalar line_of($i, qr/mark "\Q$name\E" is at seqno $seqno$/), 1, "mark $name is at seqno $seqno in the WAL of node $i");
	}
}
my ($first, $last) = map { $mark{$_} =~ /:(\d+)$/ } 'm1.1', 'm3.2';
cmp_ok($last, '>', $first, 'later marks are later');

# after the last mark: what must not be there after the recovery
$c->sql(1, 'DELETE FROM t WHERE id > 500');
$c->settle;
for my $i (1, 2)
{
	my $segment = $c->sql($i, 'SELECT pg_walfile_name(pg_switch_wal())');
	$c->wait_sql($i, "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver", 't');
}

sub recover
{
	my ($i, $name) = @_;
	my $node = PostgreSQL::Test::Cluster->new("r$i" . ($name =~ tr/.//dr));
	$node->init_from_backup($c->node($i), "base$i");
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	$node->append_conf('postgresql.conf', qq{
archive_mode = off
restore_command = 'cp "$tmp/archive$i/%f" "%p"'
recovery_target_name = '$name'
recovery_target_action = 'promote'
mgrepl.node_name = 'recovered$i'
mgrepl.listen_address = '127.0.0.1:$port'
mgrepl.cluster_address = ''
});
	$node->set_recovery_mode;
	$node->start;
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery() AND mgrepl.gtid() IS NOT NULL') or die 'no recovery';
	my $r = {
		gtid => $node->safe_psql('postgres', 'SELECT mgrepl.gtid()'),
		hash => $node->safe_psql('postgres', 'SELECT * FROM mgrepl.database_hash()'),
		rows => $node->safe_psql('postgres', 'SET mgrepl.dirty_reads = on; SELECT count(*) FROM t WHERE id > 500'),
		node => $node,
	};
	return $r;
}

for my $name ('m1.2', 'm3.1')
{
	my @r = map { recover($_, $name) } 1, 2;
	is($r[0]{gtid}, $mark{$name}, "recovery of node 1 to mark $name ends at the GTID that mark() has returned");
	is($r[1]{gtid}, $mark{$name}, "recovery of node 2 to mark $name, too");
	is($r[1]{hash}, $r[0]{hash}, "and both have the same rows");
	cmp_ok($r[0]{rows}, '>', 0, 'what was deleted later is there');

	# One of them becomes a cluster again.
	if ($name eq 'm3.1')
	{
		$r[1]{node}->safe_psql('postgres', 'SELECT mgrepl.bootstrap(force => true)');
		$r[1]{node}->poll_query_until('postgres', q{SELECT value = 'SYNCED' FROM mgrepl.status WHERE name = 'node_state'}) or die 'not synced';
		$r[1]{node}->safe_psql('postgres', 'UPDATE t SET n = 0 WHERE id = 1');
		pass('a recovered node can be made a cluster');
	}
	$_->{node}->stop for @r;
}

# ---- a mark survives a crash right behind it, and is not lost on the other node either ----
{
	my $gtid = $c->sql(2, q{SELECT mgrepl.mark('crash')});
	my ($seqno) = $gtid =~ /:(\d+)$/;
	$c->kill_node(1);
	$c->start_node(1);
	$c->wait_synced($_) for 1, 2;
	cmp_ok(scalar line_of(1, qr/mark "crash" is at seqno $seqno$/), '>=', 1, 'a node that is killed behind a mark has it all the same');
	ok($c->try(1, 'UPDATE t SET n = n + 1 WHERE id = 2')->{ok}, 'and works on');
	$c->same_content('after the crash');
}

# ---- marks whose caller gives up at some point are on both nodes, at the same place, or on none ----
{
	my $load = $c->pgbench_start(2, '-f', $script, '-T', 4, '-c', 4, '--max-tries', 100000);
	my $s = $c->session(1);
	my %answer;
	for my $k (1 .. 60)
	{
		my $ms = 1 + $k % 6;
		$s->run("SET statement_timeout = '${ms}ms'");
		my $r = $s->run("SELECT mgrepl.mark('given_up.$k')");
		$answer{ $r->{ok} ? 'done' : $r->{sqlstate} }++;
		fail("mark given_up.$k: $r->{err}") if !$r->{ok} && $r->{sqlstate} !~ /^(?:57014|08007)$/;
	}
	$s->quit;
	MgCluster::pgbench_finish($load);
	note(join ', ', map { "$_: $answer{$_}" } sort keys %answer);
	is($load->{rc}, 0, 'clients see no error of marks that were given up') or diag($load->{err});
	$c->settle;
	my @there = map { my $i = $_; join "\n", sort map { /mark "(given_up\.\d+" is at seqno \d+)$/ } line_of($i, qr/mark "given_up/) } 1, 2;
	is($there[1], $there[0], 'marks whose caller gave up are at the same places on both nodes');
	cmp_ok(scalar(split /\n/, $there[0]), '>=', $answer{done} // 0, 'and none that was answered is missing');
	$c->same_content('after marks that were given up');
}

# ---- marks that are refused ----
$c->refuses(1, q{BEGIN; SELECT mgrepl.mark('x')}, '25001', qr/transaction block/, 'mark refuses a transaction block');
$c->refuses(1, q{SELECT mgrepl.mark('')}, '22023', qr/1 to 63 bytes/, 'mark needs a name');
$c->refuses(1, q{SELECT mgrepl.mark(repeat('x', 64))}, '22023', qr/1 to 63 bytes/, 'mark refuses a name that is too long');
$c->refuses(1, q{SET ROLE plain; SELECT mgrepl.mark('x')}, '42501', qr/permission denied/, 'mark is for who was granted it', no_hint => 1);

# ---- a copy of a stopped node's data directory ----

# Another node from a plain copy of node $i's files.
sub copy_of
{
	my ($i) = @_;
	my $node = $c->_make_node;
	my $k    = $c->size;
	my $dir  = $node->data_dir;
	system('cp', '-a', $c->node($i)->data_dir, $dir) == 0 or die "cp failed";
	unlink "$dir/postmaster.pid";
	$node->append_conf('postgresql.conf', 'port = ' . $node->port . "\narchive_mode = off\n");
	$c->_configure($k, conf => 'archive_mode = off' . "\n");
	return $k;
}

for my $mode ('fast', 'immediate')
{
	$c->sql(2, 'UPDATE t SET n = n + 1');
	$c->node(2)->stop($mode);
	my $k = copy_of(2);
	$c->sql(1, 'UPDATE t SET n = n + 1') if $mode eq 'fast';	# the other one sees no majority after a crash
	$c->start_node(2);
	$c->start_node($k);
	$c->wait_synced($_) for 1, 2, $k;
	$c->wait_size($k, 1, 2, $k);
	pass("a node stopped $mode and its copy are both members");
	$c->sql($k, "UPDATE t SET v = 'from the copy' WHERE id = 7");
	$c->same_content("and have the same ($mode)");
	is(scalar line_of($k, qr/is a copy of another node's: this node joins as a new member/), 1,
		"the copy says so once ($mode)");
	is(scalar line_of(2, qr/is a copy of another node's/), 0, "the one that was copied does not ($mode)");
	is(scalar line_of($k, qr/needs a snapshot/), 0, "the copy needs only what it lacks ($mode)");
	my $same = $c->sql(1, 'SELECT count(DISTINCT id) = count(*) AND count(DISTINCT name) = count(*) FROM mgrepl.members');
	is($same, 't', "nobody is the same member ($mode)");

	# It is at home now: a restart finds the member that it was.
	$c->kill_node($k);
	$c->start_node($k);
	$c->wait_synced($k);
	is(scalar line_of($k, qr/is a copy of another node's/), 1, "a restart of the copy is the same member ($mode)");
}

my @crashes = grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log;
is("@crashes", '', 'no process crashed, no node became inconsistent');
done_testing();
