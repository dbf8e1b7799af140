# The disk of a server that gets a snapshot is too small, or becomes full: before
# the copy, in the middle of it, when it is complete, and at steps of the
# exchange.  The server has its old data, or the new; with room again it is
# SYNCED, by an ordinary start at most.
#
#   MGREPL_LONG=1          every step

use strict;
use warnings;

use MgNetns;
use MgCluster;
use File::Copy qw(move);
use Test::More;

plan skip_all => MgNetns::reason() if MgNetns::reason();

# Steps of the exchange (src/pg/swap.c): begun, guard in place, 17 entries, log disowned, label, old data away, journal gone.
use constant STEPS => 23;

my $c = MgCluster->new(nodes => 2, conf => $MgCluster::transfer_conf, setup => q{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text);
INSERT INTO t SELECT g, 0, repeat(md5(g::text), 10) FROM generate_series(1, 50000) g;
});
my $join = "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')";
my $dir = $PostgreSQL::Test::Utils::tmp_check;

# ---- a server with a disk of its own: its data directory is where that is mounted ----
my $new = $c->add_lone;
my $data = $c->node($new)->data_dir;
$c->sql($new, q{CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine SELECT generate_series(1, 1000)});
$c->node($new)->stop;
sub size { my ($mb) = @_; return ('-o', "size=${mb}m,mode=0700") }
move($data, "$data.moved") or die $!;
mkdir $data, 0700 or die $!;
system('mount', '-t', 'tmpfs', size(120), 'tmpfs', $data) == 0 or BAIL_OUT('mount failed');
system("cp -a '$data.moved/.' '$data/'") == 0 or die 'cp failed';
$c->start_node($new);

sub resize { my ($mb) = @_; return system('mount', '-o', "remount,size=${mb}m", $data) == 0 || die 'remount failed' }

sub fill
{
	open my $f, '>', "$data/filler" or die "filler: $!";
	for my $size (1024 * 1024, 4096)
	{
		while (syswrite $f, 'x' x $size) { }
	}
	close $f;
	return;
}

sub failure
{
	$c->try($new, $join);
	$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'failed');
	return $c->sql($new, q{SELECT error FROM mgrepl.transfer_progress WHERE role = 'joiner'});
}

sub intact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	MgCluster::wait_for('what was copied to be removed', sub { !-e "$data/pgsql_tmp.mgrepl_staging" });
	ok(!-e "$data/pgsql_tmp.mgrepl_journal", "$name: no journal is left");
	is($c->sql($new, 'INSERT INTO mine VALUES (0); DELETE FROM mine WHERE id = 0; SELECT count(*) FROM mine'), 1000, "$name: the old data is there and can be written");
	return;
}

# ---- too small from the beginning ----
like(failure(), qr/the copy needs \d+ MB in "[^"]*", where \d+ MB are free/, 'a disk that is too small is refused before anything is copied');
intact('too small');

# ---- full in the middle of the copy, and when it is complete ----
resize(400);

# A program that copies as rsync does, and takes the room before or after.
sub method
{
	my ($name, $before, $after) = @_;
	PostgreSQL::Test::Utils::append_to_file("$dir/$name", <<"END");
#!/bin/bash
take() { dd if=/dev/zero of='$data/filler' bs=1M 2>/dev/null; dd if=/dev/zero bs=4k of='$data/filler' oflag=append conv=notrunc 2>/dev/null; true; }
$before
"\$MGREPL_SST_BINDIR/mgrepl-sst-rsync" || exit
$after
exit 0
END
	chmod 0755, "$dir/$name";
	$c->sql($new, "ALTER SYSTEM SET mgrepl.sst_method = '$dir/$name'");
	$c->sql($new, 'SELECT pg_reload_conf()');
	$c->wait_sql($new, 'SHOW mgrepl.sst_method', "$dir/$name");
	return;
}
method('full_before', 'take', '');
like(failure(), qr/No space left|rsync/, 'a disk that becomes full while the copy is made: the reason is told');
unlink "$data/filler" or die $!;
intact('full in the middle');

method('full_after', '', 'take');
my $error = failure();
like($error, qr/No space left/, 'a disk that is full when the copy is complete: the reason is told');
unlink "$data/filler" or die $!;
intact('full before the exchange');

# ---- full at steps of the exchange ----
$c->sql($new, 'ALTER SYSTEM RESET mgrepl.sst_method');
for my $step ($ENV{MGREPL_LONG} ? 1 .. STEPS : (1, 2, 10, 20, 21))
{
	my $name = "killed at step $step of the exchange, then full";
	{
		local $ENV{MGREPL_TEST_STOP_AT} = $step;
		$c->node($new)->restart;
	}
	$c->wait_synced($new) if $c->status($new, 'cluster_uuid');
	my $pid = $c->node($new)->{_pid};
	if ($c->sql($new, q{SELECT to_regclass('mine') IS NULL}) eq 't')
	{
		$c->sql($new, 'SELECT mgrepl.leave()');
		$c->wait_sql($new, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');
	}
	$c->try($new, $join =~ s/join/rebuild/r);
	MgCluster::wait_for("the postmaster $pid to kill itself", sub { !kill 0, $pid });
	$c->node($new)->{_pid} = undef;
	fill();
	if ($c->node($new)->start(fail_ok => 1))
	{
		note('it starts on a full disk');
	}
	unlink "$data/filler" or die $!;
	ok(eval { $c->start_node($new) unless $c->node($new)->{_pid} && kill 0, $c->node($new)->{_pid}; $c->wait_synced($new); 1 }, "$name: with room again it is SYNCED")
	  or diag($@);
	$c->same_content($name);
	MgCluster::wait_for('the old data to be removed', sub { !-e "$data/pgsql_tmp.mgrepl_old" && !-e "$data/pgsql_tmp.mgrepl_staging" });
}
$c->node($_)->stop for $c->all;
system('umount', '-l', $data);
done_testing();
