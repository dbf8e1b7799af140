# Snapshots that cannot be had: one clear error with a hint, the joiner's data as
# it was, the cluster undisturbed.  Programs of one's own.  A data directory
# that is a mount point, WAL elsewhere.  A history that went another way.

use strict;
use warnings;

use Cwd;
use MgCluster;
use Test::More;

my $dir = Cwd::abs_path(PostgreSQL::Test::Utils::tempdir());
my $c = MgCluster->new(nodes => 2, conf => $MgCluster::transfer_conf, setup => q{
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 10000) g;
});

my $new = $c->add_lone(conf => "logging_collector = on\n");
my $data = $c->node($new)->data_dir;
my $join = "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')";
$c->sql($new, q{CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine VALUES (42)});
my $uuid = $c->status(1, 'cluster_uuid');

sub set
{
	my ($i, $name, $value) = @_;
	$c->sql($i, "ALTER SYSTEM SET $name = '$value'");
	$c->sql($i, 'SELECT pg_reload_conf()');
	$c->wait_sql($i, "SHOW $name", $value);
	return;
}

# It is as it was, and the cluster too.
sub intact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @left = glob("$data/pgsql_tmp.mgrepl_*");
	is("@left", '', "$name: nothing is left");
	is($c->sql($new, 'SELECT id FROM mine'), 42, "$name: the data is as it was");
	ok($c->try($new, 'UPDATE mine SET id = 42')->{ok}, "$name: it takes writes as before");
	is($c->status($new, 'node_state'), 'OPEN', "$name: it is in no cluster");
	$c->wait_sql($_, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'SYNCED') for 1, 2;
	return;
}

# ---- the way there ----
set($new, 'mgrepl.sst_method', 'none');
$c->refuses($new, $join, '55000', qr/does not belong to any cluster/, 'no snapshots wanted: refused as data that does not fit');
$c->refuses($new, q{ALTER SYSTEM SET mgrepl.sst_method = 'magic'}, '22023', qr/invalid value/, 'a method that does not exist');
set($new, 'mgrepl.sst_method', 'basebackup');

$c->sql($_, q{SET mgrepl.replicate = off; CREATE ROLE copier LOGIN REPLICATION PASSWORD 'right'}) for 1, 2;
for my $i (1, 2)
{
	my $hba = $c->node($i)->data_dir . '/pg_hba.conf';
	my $old = PostgreSQL::Test::Utils::slurp_file($hba);
	open my $f, '>', $hba or die "$hba: $!";
	print $f "host all copier 127.0.0.1/32 scram-sha-256\nhost replication copier 127.0.0.1/32 scram-sha-256\n$old";
	close $f;
	$c->sql($i, 'SELECT pg_reload_conf()');
}
set($new, 'mgrepl.sst_conninfo', 'user=copier password=wrong');
my $r = $c->refuses($new, $join, '55000', qr/n1: .*password authentication failed.*; n2: .*password authentication failed|n2: .*password authentication failed.*; n1: .*password authentication failed/,
	'a wrong password: told for each member');
like($r->{hint}, qr/mgrepl\.sst_conninfo.*pg_hba\.conf/s, 'a wrong password: the hint says where to look');
like($c->sql($new, q{SELECT phase || ' ' || error FROM mgrepl.transfer_progress WHERE role = 'joiner'}), qr/failed .*password/,
	'mgrepl.transfer_progress has the error');
intact('a wrong password');
set($new, 'mgrepl.sst_conninfo', 'user=postgres port=1');
$c->refuses($new, $join, '55000', qr/(?:refused|no connection)/, 'no server there');
set($new, 'mgrepl.sst_conninfo', 'user=postgres nonsense=1');
$c->refuses($new, $join, '55000', qr/nonsense/, 'an option that libpq does not know');
set($new, 'mgrepl.sst_conninfo', 'user=nobody_of_that_name');
$c->refuses($new, $join, '55000', qr/nobody_of_that_name/, 'no such role');
intact('donors that cannot be reached');
set($new, 'mgrepl.sst_conninfo', 'user=postgres');

# ---- data that does not fit: the donors tell something else about themselves ----
$c->sql($_, q{SET mgrepl.replicate = off; ALTER FUNCTION mgrepl.donate(text) RENAME TO donate_truly}) for 1, 2;
my $columns = 'gtid, server_version_num, catalog_version, block_size, wal_segment_size, data_checksums, "collate", ctype, locale_provider, collation_version, data_bytes, tablespaces, extension_version';

sub donors_tell
{
	my ($column, $value) = @_;
	(my $select = $columns) =~ s/\Q$column\E/$value/ or die $column;
	$c->sql($_, qq{SET mgrepl.replicate = off; DROP FUNCTION IF EXISTS mgrepl.donate(text);
CREATE FUNCTION mgrepl.donate(joiner text, OUT gtid text, OUT server_version_num int, OUT catalog_version int, OUT block_size int, OUT wal_segment_size bigint, OUT data_checksums bool,
	OUT "collate" text, OUT ctype text, OUT locale_provider text, OUT collation_version text, OUT data_bytes bigint, OUT tablespaces jsonb, OUT extension_version text)
RETURNS record LANGUAGE sql VOLATILE AS 'SELECT $select FROM mgrepl.donate_truly(joiner)'}) for 1, 2;
	return;
}
for (
	[ 'server_version_num', '140005',          qr/PostgreSQL 14, this server 15/ ],
	[ 'catalog_version',    '202107181',       qr/catalog version is 202107181/ ],
	[ 'block_size',         '4096',            qr/page size is 4096/ ],
	[ 'wal_segment_size',   '1048576',         qr/WAL segment size is 1048576/ ],
	[ 'data_checksums',     'true',            qr/its data has checksums, this server's has none/ ],
	[ '"collate"',          q{''xx_YY''},      qr/locale "xx_YY"/ ],
	[ 'ctype',              q{''xx_YY''},      qr/locale "xx_YY"/ ],
	[ 'extension_version',  q{''0.9''},        qr/extension mgrepl is of version 0\.9/ ],
	[ 'data_bytes',         '9000000000000000', qr/the copy needs \d+ MB .* where \d+ MB are free/ ],
	[ 'tablespaces', qq{''[{"oid": 99999, "name": "s", "location": "$dir/made/space", "bytes": 9000000000000000}]''::jsonb}, qr{the copy needs \d+ MB .* where \d+ MB are free} ],
	[ 'tablespaces', q{''[{"oid": 99999, "name": "s", "location": "/proc/nowhere", "bytes": 1}]''::jsonb}, qr{"/proc/nowhere".*cannot be} ],
  )
{
	my ($column, $value, $message) = @$_;
	donors_tell($column, $value);
	$c->refuses($new, $join, '55000', $message, "another $column");
}
$c->sql($_, q{SET mgrepl.replicate = off; DROP FUNCTION mgrepl.donate(text); ALTER FUNCTION mgrepl.donate_truly(text) RENAME TO donate}) for 1, 2;
ok(!glob("$dir/made/*"), 'a directory that was made for nothing is removed');
intact('data that does not fit');

# ---- programs of one's own ----
sub program
{
	my ($name, $text) = @_;
	open my $f, '>', "$dir/$name" or die "$dir/$name: $!";
	print $f "#!/bin/sh\n$text";
	close $f;
	chmod 0755, "$dir/$name";
	return "$dir/$name";
}
set($new, 'mgrepl.sst_method', "$dir/not_there");
my $failures = sub {
	my ($what) = @_;
	my ($said) = ($c->try($new, $join)->{err});
	$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'failed');
	return $c->sql($new, q{SELECT error FROM mgrepl.transfer_progress WHERE role = 'joiner'});
};
like($failures->(), qr{n1: cannot execute "\Q$dir\E/not_there"}, 'a program that is not there');
set($new, 'mgrepl.sst_method', program('fails', "mkdir \$MGREPL_SST_DATADIR\necho 'something is wrong' >&2\nexit 3\n"));
like($failures->(), qr/n1: something is wrong/, 'a program that fails: its last line is the reason');
set($new, 'mgrepl.sst_method', program('lies', "mkdir \$MGREPL_SST_DATADIR\nexit 0\n"));
like($failures->(), qr/n1: .*not whole/, 'a program that lies is found out');
mkdir $_ or die "$_: $!" for "$dir/foreign", "$dir/foreign/PG_15_202209061";
PostgreSQL::Test::Utils::append_to_file("$dir/foreign/PG_15_202209061/file", '');
set($new, 'mgrepl.sst_method', program('links', "mkdir -p \$MGREPL_SST_DATADIR/pg_tblspc\nln -s $dir/foreign \$MGREPL_SST_DATADIR/pg_tblspc/1\necho linked >&2\nexit 3\n"));
like($failures->(), qr/n1: linked/, 'a program that copies links of tablespaces');
ok(-e "$dir/foreign/PG_15_202209061/file", 'what they lead to is not touched');
intact('programs that fail');

set($new, 'mgrepl.sst_method', program('hangs', "mkdir \$MGREPL_SST_DATADIR\necho \$\$ > $dir/pid\necho progress 10 100\nexec tail -f /dev/null >/dev/null 2>&1\n"));	# its output ends long before it does
ok($c->try($new, $join)->{ok}, 'a program that hangs: join() has returned');
$c->wait_sql($new, q{SELECT phase || bytes_done || '/' || bytes_total FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'copying10/100');
like($c->status(1, 'node_state') . $c->status(2, 'node_state'), qr/DONOR/, 'one member is donor meanwhile');
$c->refuses($new, $join, '55000', qr/snapshot .* is being taken/, 'a second join meanwhile');
chomp(my $pid = PostgreSQL::Test::Utils::slurp_file("$dir/pid"));
$c->sql($new, 'SELECT mgrepl.leave()');
$c->wait_sql($new, q{SELECT phase || ': ' || error FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'failed: the state transfer was called off');
ok(!kill(0, $pid), 'leave() calls it off, and the program is ended');
$c->wait_sql($new, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');
intact('a program that hangs');

# killed while it hangs: the next start removes what it has left, and tries again by itself
ok($c->try($new, $join)->{ok}, 'it is told to join again');
$c->wait_sql($new, q{SELECT phase FROM mgrepl.transfer_progress WHERE role = 'joiner'}, 'copying');
ok(-d "$data/pgsql_tmp.mgrepl_staging", 'a copy is being made');
MgCluster::wait_for('the program', sub { -s "$dir/pid" });
chomp($pid = PostgreSQL::Test::Utils::slurp_file("$dir/pid"));
$c->kill_node($new);
MgCluster::wait_for('the program to end with the server', sub { !kill 0, $pid });

# ---- one that works, on a server whose WAL lies elsewhere and whose data directory is given by a relative path ----
mkdir "$dir/wal";
rename "$data/pg_wal", "$dir/wal/here" or die $!;
symlink "$dir/wal/here", "$data/pg_wal" or die $!;
PostgreSQL::Test::Utils::append_to_file("$data/postgresql.conf", "mgrepl.sst_method = '" . program('works', <<'END') . "'\n");
test "$MGREPL_SST_ROLE" = joiner || exit 1
test -n "$MGREPL_SST_GTID" -a -n "$MGREPL_SST_BYTES" -a -n "$MGREPL_SST_DONOR" -a -n "$PGHOST" -a -n "$PGPORT" || exit 1
exec "$MGREPL_SST_BINDIR/pg_basebackup" -D "$MGREPL_SST_DATADIR" -d "$MGREPL_SST_CONNINFO" -X stream -c fast --no-manifest --waldir="$MGREPL_SST_WALDIR"
END
unlink "$data/postgresql.auto.conf";
{
	my $cwd = getcwd();
	chdir "$data/.." or die $!;
	local $ENV{PGAPPNAME};
	system('pg_ctl', '-w', '-s', '-D', 'pgdata', '-l', $c->node($new)->logfile, 'start') == 0 or die 'pg_ctl failed';
	chdir $cwd or die $!;
	$c->node($new)->_update_pid(1);
}
ok(eval { $c->wait_synced($new); 1 }, 'what was interrupted goes on after the restart, by a program of one\'s own') or diag($@);
$c->same_content('a program of one\'s own');
like(readlink("$data/pg_wal"), qr{^\Q$dir\E/wal/here\.mgrepl_}, 'WAL stays where it was put');
MgCluster::wait_for('the old data to be removed', sub { !-e "$data/pgsql_tmp.mgrepl_old" });
ok(!-e "$dir/wal/here/000000010000000000000001", 'the old WAL is removed');
$c->sql($new, 'SELECT mgrepl.leave()');
$c->sql($new, "SELECT mgrepl.rebuild('gcomm://" . $c->address(2) . "')");
$c->wait_synced($new);
like(readlink("$data/pg_wal"), qr{^\Q$dir\E/wal/here\.mgrepl_[^.]*$}, 'also the second time');
my ($postmaster) = $c->processes($new);
MgCluster::wait_for('one log collector', sub { 1 == (() = `ps -o args= --ppid $postmaster` =~ /logger/g) });
pass('the log collector of the server before has ended');
$c->same_content('WAL elsewhere');

# ---- a history that went another way: the node comes back by itself, what only it had is kept ----
$c->wait_size(3);
$c->pause(2);
$c->sql(1, q{INSERT INTO t VALUES (-1, 'lost')});
$c->settle(1, $new);
$c->sql($new, 'CHECKPOINT');	# so that it is in its data, not only in its log
$c->kill_node(1, $new);		# before they have evicted node 2: it is the one that they will ask
$c->kill_node(2);
$c->start_node(2);
$c->command(2, 'SELECT mgrepl.bootstrap(force => true)');
$c->wait_synced(2);
$c->sql(2, q{INSERT INTO t VALUES (-2, 'instead')});
$c->start_node($new);
$c->wait_synced($new);
is($c->sql($new, 'SELECT v FROM t WHERE id < 0'), 'instead', 'a node of another history has taken a snapshot by itself');
$c->same_content('a history that went another way', 2, $new);
is(scalar(my @kept = glob("$data/pgsql_tmp.mgrepl_kept.*")), 1, 'and what it had is kept');

my @crashes = grep { /PANIC|TRAP:|INCONSISTENT/ } $c->unexpected_log;
is("@crashes", '', 'no process crashed, no node became inconsistent');
done_testing();
