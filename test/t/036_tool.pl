# mgreplctl: a new node on a machine that has nothing, under load, ends SYNCED
# with the same rows and by the writesets that came meanwhile, not by a second
# copy; a backup knows its position and joins as it is; status and progress tell
# the truth; and what does not fit is refused before anything is changed.

use strict;
use warnings;

use IPC::Run;
use JSON::PP qw(decode_json);
use MgCluster;
use MgLoad;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my $space = PostgreSQL::Test::Utils::tempdir('space');
my $c = MgCluster->new(nodes => 2, conf => "listen_addresses = '127.0.0.1'\n", setup => $MgLoad::tables);
my $me = $c->sql(1, 'SELECT current_user');

sub tool
{
	my (@args) = @_;
	my %r = (out => '', err => '');
	IPC::Run::run([ 'mgreplctl', @args ], '<', '/dev/null', '>', \$r{out}, '2>', \$r{err}, IPC::Run::timeout(120));
	$r{exit} = $? >> 8;
	return \%r;
}

# Exit code, message and a hint; nothing else.
sub refused
{
	my ($args, $exit, $message, $name) = @_;
	my $r = tool(@$args);
	ok($r->{exit} == $exit && $r->{err} =~ $message && $r->{err} =~ /^HINT:  ./m, $name) or diag("exit $r->{exit}: $r->{err}");
	return;
}

sub port_of { my ($i) = @_; return $c->node($i)->port; }

# A server in a directory that the tool has made, as the cluster's next node.
my %servers;

sub adopt
{
	my ($dir, $port) = @_;
	$servers{$dir} = $port;
	return;
}

END
{
	local $?;
	system('pg_ctl', '-D', $_, '-m', 'immediate', '-s', 'stop') for grep { -e "$_/postmaster.pid" } keys %servers;
}

sub sql_at
{
	my ($port, $sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-X', '-A', '-t', '-q', '-h', '127.0.0.1', '-p', $port, '-U', $me, '-d', 'postgres', '-c', $sql ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	chomp $out;
	return $? == 0 ? $out : "failed: $err";
}

sub wait_at
{
	my ($port, $sql, $expected) = @_;
	my $last = '';
	my $there = eval { MgCluster::wait_for($sql, sub { ($last = sql_at($port, $sql)) eq $expected }) };
	diag("$sql: $last") unless $there;
	return $there;
}

my $state_sql = "SELECT value FROM mgrepl.status WHERE name = 'node_state'";
my $hash_sql = 'SELECT string_agg(table_name || hash, chr(10)) FROM mgrepl.database_hash()';

# The same rows at the same place in the order.
sub same_as_node_1
{
	my ($port, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $seqno = $c->status(1, 'committed_seqno');
	is(sql_at($port, "SELECT mgrepl.wait_for_seqno($seqno, 60000)"), 't', "$name: it has caught up");
	is(sql_at($port, $hash_sql), $c->sql(1, $hash_sql), "$name: the same rows");
	return;
}

# ---- status ----

my $status = tool('status', '-h', '127.0.0.1', '-p', port_of(1), '-U', $me);
is($status->{exit}, 0, 'status of a member: exit code 0') or diag($status->{err});
like($status->{out}, qr/^state    SYNCED$/m, 'it tells the state');
like($status->{out}, qr/^n1 \*  .*leader.*\nn2  .*follower/m, 'and the members') or diag($status->{out});
my $json = tool('status', '--json', '-d', 'postgres', '-h', '127.0.0.1', '-p', port_of(2), '-U', $me);
is(decode_json($json->{out})->{status}{node_name}, 'n2', 'the same as JSON');
is(scalar @{ decode_json($json->{out})->{members} }, 2, 'with the members');
like(tool('status', '-h', '127.0.0.1', '-p', 1)->{err}, qr/Connection refused/, 'a server that there is not: libpq tells');
is(tool('status', '-h', '127.0.0.1', '-p', 1)->{exit}, 3, 'exit code 3');
is(tool('progress', '-h', '127.0.0.1', '-p', port_of(1), '-U', $me)->{out}, "no transfer runs\n", 'progress: nothing runs');

# ---- join, with a tablespace, a slot on the donor, and load ----

mkdir "$space/$_" or die $! for 1, 2, 3, 4;
my $load = MgLoad->start($c, clients => 2, rate => 100, pad => 200);
$c->sql(2, "SET allow_in_place_tablespaces = off; CREATE TABLESPACE fast LOCATION '$space/2'");
$c->sql(1, "CREATE TABLESPACE fast LOCATION '$space/1'");
$c->sql(1, 'CREATE TABLE big (id int PRIMARY KEY, v text) TABLESPACE fast');
$c->sql(1, "INSERT INTO big SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 20000) g");
$c->sql($_, "SELECT pg_create_physical_replication_slot('slot', true)") for 1, 2;
my $members = $c->address(1) . ',' . $c->address(2);
my ($port3, $repl3) = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
my $dir3 = "$tmp/made3";
adopt($dir3, $port3);
my $joined = tool('join', '--pgdata', $dir3, "--cluster=gcomm://$members", '--cluster-name=test', '--node-name=made3',
	"--listen-address=127.0.0.1:$repl3", "--server-port=$port3", '-U', $me,
	"--tablespace-mapping=$space/1=$space/3", "--tablespace-mapping=$space/2=$space/3", '--segment=3',
	'--set=log_min_messages=info', '--start');
is($joined->{exit}, 0, 'join: a new node is there') or diag("$joined->{out}$joined->{err}");
like($joined->{out}, qr/^donor n2 at /m, 'it asks the cluster for a donor, and takes one that does not lead');
like($joined->{out}, qr/^base backup: .* in [\d.]+ s$/m, 'it tells how far it is');
like($joined->{out}, qr/^node "made3" is SYNCED$/m, 'and waits until it is SYNCED');
is(sql_at($port3, $state_sql), 'SYNCED', 'it is SYNCED under load');
$c->wait_size(3);
is($c->sql(1, "SELECT address, segment FROM mgrepl.members WHERE name = 'made3'"), "127.0.0.1:$repl3|3", 'under its own name, address and segment');
is(sql_at($port3, 'SELECT count(*) FROM pg_replication_slots'), 0, "the donor's slot is not inherited");
is(sql_at($port3, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"), "$space/3", 'the tablespace is where it was told to be');
is(sql_at($port3, 'SHOW log_min_messages'), 'info', '--set is set');
my $log3 = slurp_file("$dir3/server.log");
like($log3, qr/join: admitted, catching up/, 'it came by the writesets since the copy');
unlike($log3, qr/snapshot/, 'and needed no other copy');
is($c->status(2, 'node_state'), 'SYNCED', 'the donor is SYNCED again');
is(sql_at($port3, "INSERT INTO big VALUES (0, 'by made3')"), '', 'it takes writes');
$load->stop;
$load->check('with a node that joined under load');
same_as_node_1($port3, 'the new node');

# ---- join by a connection string, without a start; the donor's files are elsewhere, as Debian has them ----

my @files = qw(postgresql.conf pg_hba.conf pg_ident.conf);
my $etc = "$tmp/etc2";
mkdir $etc or die $!;
$c->node(2)->stop;
rename $c->node(2)->data_dir . "/$_", "$etc/$_" or die $! for @files;
system_or_bail('pg_ctl', '-D', $c->node(2)->data_dir, '-l', "$tmp/log/elsewhere.log", '-w', '-s', '-o',
	"-c config_file=$etc/postgresql.conf -c hba_file=$etc/pg_hba.conf -c ident_file=$etc/pg_ident.conf", 'start');
ok(wait_at(port_of(2), $state_sql, 'SYNCED'), "a node with its files elsewhere");
my ($port4, $repl4) = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
my $dir4 = "$tmp/made4";
my $socket = PostgreSQL::Test::Utils::tempdir_short();
mkdir $dir4, 0700 or die $!;
adopt($dir4, $port4);
my $ready = tool('join', '-q', '-D', $dir4, '--donor', "host=127.0.0.1 port=@{[ port_of(2) ]} user=$me", '--node-name', "it's four",
	"--listen-address=127.0.0.1:$repl4", "--server-port=$port4", "--set=unix_socket_directories=$socket",
	'-T', "$space/1=$space/4", '-T', "$space/2=$space/4");
is($ready->{exit}, 0, 'join by a connection string, into an empty directory') or diag($ready->{err});
is($ready->{out}, '', 'quietly');
my $auto = slurp_file("$dir4/postgresql.auto.conf");
unlike($auto, qr/primary_conninfo/, 'no settings of a standby');
like($auto, qr/^shared_preload_libraries = 'mgrepl'$/m, 'what it must have as the donor does is there');
is(() = $auto =~ /mgrepl\.node_name/g, 1, 'and its name, once');
ok(!-e "$dir4/standby.signal", 'and no signal');
system_or_bail('pg_ctl', '-D', $dir4, '-l', "$dir4/server.log", '-w', '-s', 'start');
sub sql4 { my ($sql) = @_; local $ENV{PGHOST} = $socket; return `psql -X -A -t -q -p $port4 -U $me -d postgres -c "$sql"` =~ s/\n\z//r; }
ok(eval { MgCluster::wait_for('SYNCED', sub { sql4($state_sql) eq 'SYNCED' }) }, 'started by hand it joins by itself') or diag(sql4($state_sql));
is(sql4('SHOW mgrepl.node_name'), "it's four", 'a name with a quote');
my $seqno4 = $c->status(1, 'committed_seqno');
is(sql4("SELECT mgrepl.wait_for_seqno($seqno4, 60000)"), 't', 'it has caught up');
is(sql4($hash_sql), $c->sql(1, $hash_sql), 'the same rows');
system_or_bail('pg_ctl', '-D', $dir4, '-m', 'fast', '-s', 'stop');
system_or_bail('pg_ctl', '-D', $c->node(2)->data_dir, '-m', 'fast', '-s', 'stop');
rename "$etc/$_", $c->node(2)->data_dir . "/$_" or die $! for @files;
$c->node(2)->start;
$c->wait_synced(2);
$c->wait_size(3);

# ---- backup ----

my $backup = tool('backup', '--target', "$tmp/backup", '-h', '127.0.0.1', '-p', $port3, '-U', $me, '--', '-T', "$space/3=$tmp/backup_space");
is($backup->{exit}, 0, 'backup') or diag($backup->{err});
my $label = slurp_file("$tmp/backup/mgrepl_backup_label");
my ($gtid) = $label =~ /^GTID: (\S+)$/m;
like($gtid, qr/^[0-9a-f-]{36}:\d+$/, 'its label holds the position');
like($label, qr/^NODE: made3\nCLUSTER: test\nSTATE: SYNCED\n/m, 'and where it comes from');
like($label, qr/^END GTID: \S+$/m, 'and where it ended');
like($backup->{out}, qr/^GTID: \Q$gtid\E$/m, 'and it is printed');
is(system('pg_verifybackup', '-i', 'mgrepl_backup_label', "$tmp/backup"), 0, "PostgreSQL's own tool finds it whole");
$c->sql(1, "INSERT INTO big VALUES (-1, 'after the backup')");
my ($port5, $repl5) = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
append_to_file("$tmp/backup/postgresql.auto.conf",
	"port = $port5\nmgrepl.node_name = 'restored'\nmgrepl.listen_address = '127.0.0.1:$repl5'\nmgrepl.cluster_address = 'gcomm://$members'\n");
adopt("$tmp/backup", $port5);
system_or_bail('pg_ctl', '-D', "$tmp/backup", '-l', "$tmp/backup/server.log", '-w', '-s', 'start');
ok(wait_at($port5, $state_sql, 'SYNCED'), 'a backup that is started joins by itself');
unlike(slurp_file("$tmp/backup/server.log"), qr/snapshot/, 'by the writesets since');
same_as_node_1($port5, 'the restored node');
system_or_bail('pg_ctl', '-D', "$tmp/backup", '-m', 'fast', '-s', 'stop');
$c->wait_size(3);

# ---- the donor dies in the middle ----

my $slow = { out => '' };
my $dir6 = "$tmp/made6";
my ($port6, $repl6) = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
rmdir "$space/4" or system_or_bail('rm', '-rf', "$space/4");
adopt($dir6, $port6);
$slow->{run} = IPC::Run::start([ 'mgreplctl', 'join', '-D', $dir6, "--cluster=$members", '--cluster-name=test', '--node-name=made6', '--donor=n2',
		"--listen-address=127.0.0.1:$repl6", "--server-port=$port6", '-U', $me, '-T', "$space/1=$space/4", '-T', "$space/2=$space/4",
		'--start', '--', '--max-rate=8M' ], '<', '/dev/null', '>', \$slow->{out}, '2>&1');
MgCluster::wait_for('the copy to begin', sub { $slow->{run}->pump_nb; $slow->{out} =~ /base backup: +[1-9]/ });
is($c->status(2, 'node_state'), 'DONOR', 'the donor is DONOR meanwhile');
my $watched = tool('progress', '--once', '-h', '127.0.0.1', '-p', port_of(2), '-U', $me);
like($watched->{out}, qr/^to made6, .*: .*%/m, 'progress on the donor shows it') or diag("$watched->{out}$watched->{err}");
$c->kill_node(2);
$c->start_node(2);
ok(eval { $slow->{run}->finish; 1 }, 'the donor is killed in the middle of the copy');
is($? >> 8, 0, 'another one gives its data') or diag($slow->{out});
like($slow->{out}, qr/^donor n2 at .*^donor (?:n1|made3) at .*^node "made6" is SYNCED/ms, 'and the new node is SYNCED') or diag($slow->{out});
same_as_node_1($port6, 'the node of two donors');
system_or_bail('pg_ctl', '-D', $_, '-m', 'fast', '-s', 'stop') for $dir6, $dir3;
$c->wait_synced(2);
$c->wait_size(2);

# ---- interrupted ----

my $dir7 = "$tmp/made7";
my $cut = { out => '' };
$cut->{run} = IPC::Run::start([ 'mgreplctl', 'join', '-D', $dir7, "--cluster=$members", '--cluster-name=test', '--node-name=made7',
		"--listen-address=127.0.0.1:$repl6", '-U', $me, '-T', "$space/1=$tmp/space7", '-T', "$space/2=$tmp/space7", '--', '--max-rate=1M' ],
	'<', '/dev/null', '>', \$cut->{out}, '2>&1');
MgCluster::wait_for('the copy to begin', sub { $cut->{run}->pump_nb; $cut->{out} =~ /base backup: +[1-9]/ });
kill 'INT', $cut->{run}->{KIDS}[0]{PID};
$cut->{run}->finish;
is($? >> 8, 1, 'interrupted: exit code 1') or diag($cut->{out});
ok(!-e $dir7 && !-e "$tmp/space7", 'and nothing is left');
$c->wait_sql($_, $state_sql, 'SYNCED') for 1, 2;

$cut = { out => '' };
$cut->{run} = IPC::Run::start([ 'mgreplctl', 'join', '-D', $dir7, "--cluster=$members", '--cluster-name=test', '--node-name=made7',
		"--listen-address=127.0.0.1:$repl6", '-U', $me, '-T', "$space/1=$tmp/space7", '-T', "$space/2=$tmp/space7", '--', '--max-rate=1M' ],
	'<', '/dev/null', '>', \$cut->{out}, '2>&1');
MgCluster::wait_for('the copy to begin', sub { $cut->{run}->pump_nb; $cut->{out} =~ /base backup: +[1-9]/ });
kill 'KILL', $cut->{run}->{KIDS}[0]{PID};
$cut->{run}->finish;
$c->wait_sql($_, $state_sql, 'SYNCED') for 1, 2;
$c->wait_sql($_, 'SELECT count(*) FROM pg_stat_replication', 0) for 1, 2;
pass('killed: the donor is SYNCED again, and nobody copies any more');
refused([ 'join', '-D', $dir7, "--listen-address=127.0.0.1:$repl6", "--cluster=$members", '--cluster-name=test' ], 5, qr/is not empty/,
	'what it has left is not taken for a new directory');

# ---- what does not fit ----

my @join = ('join', '-D', "$tmp/new", "--listen-address=127.0.0.1:$repl6", '-U', $me);
my @from1 = ("--donor=host=127.0.0.1 port=@{[ port_of(1) ]}");
mkdir "$tmp/full" or die $!;
append_to_file("$tmp/full/file", "x");
refused([ 'join', '-D', "$tmp/full", "--listen-address=127.0.0.1:$repl6", @from1 ], 5, qr/is not empty/, 'a directory that is not empty');
refused([ @join, @from1 ], 5, qr/"\Q$space\E\/1" is not empty/, "the donor's tablespace on the same machine");
is(tool(@join, '--donor=host=127.0.0.1 port=1')->{exit}, 3, 'a donor that there is not: exit code 3');
refused([ @join, '--cluster=127.0.0.1:1' ], 3, qr/no member of a primary component answered/, 'nobody at the address') if $ENV{MGREPL_LONG};
refused([ @join, "--cluster=$members", '--cluster-name=other' ], 3, qr/this is cluster "test", not "other"/, 'another cluster name');
refused([ @join, "--cluster=$members", '--cluster-name=test', '--node-name=n1' ], 3, qr/a member named "n1" is in the cluster already/, 'a name that is taken');
refused([ 'join', '-D', "$tmp/new", '--listen-address=' . $c->address(1), "--cluster=$members", '--cluster-name=test' ], 3, qr/cannot bind/,
	'an address that is taken');
refused([ @join, "--cluster=nowhere" ], 2, qr/"nowhere" is not valid: the port is missing/, 'no address');
refused([ @join, @from1, '--bindir=/nowhere' ], 5, qr/cannot be run here/, 'no server here');
refused([ 'join', '-D', '/proc/new', "--listen-address=127.0.0.1:$repl6", '-U', $me, @from1 ], 5, qr/room|writable/, 'a place that cannot be written');
refused([ 'join', "--listen-address=127.0.0.1:$repl6", @from1 ], 2, qr/needs --pgdata/, 'no directory');
refused([ 'join', '-D', "$tmp/new", @from1 ], 2, qr/needs --listen-address/, 'no address of its own');
refused([ @join ], 2, qr/needs --cluster/, 'nobody to ask');
refused([ @join, '--donor=n1' ], 2, qr/names a member: then --cluster/, 'a name without a cluster');
refused([ @join, @from1, '--set=nonsense' ], 2, qr/"nonsense" is not NAME=VALUE/, 'a setting without a value');
refused([ @join, @from1, '--segment=256' ], 2, qr/"256" is not a number from 0 to 255/, 'a number that is too large');
refused([ @join, @from1, 'nonsense' ], 2, qr/takes no "nonsense"/, 'a word too many');
refused([ 'nonsense' ], 2, qr/there is no command "nonsense"/, 'an unknown command');
refused([ 'backup', '-t', "$tmp/full", '-h', '127.0.0.1', '-p', port_of(1), '-U', $me ], 5, qr/is not empty/, 'backup into a directory that is not empty');
refused([ 'backup' ], 2, qr/needs --target/, 'backup to nowhere');
$c->sql(1, 'CREATE ROLE nobody LOGIN');
refused([ 'join', '-D', "$tmp/new", "--listen-address=127.0.0.1:$repl6", '-U', 'nobody', @from1 ], 3, qr/must be superuser or replication role/,
	'a role without rights');
ok(!-e "$tmp/new", 'nothing was made');
is(slurp_file("$tmp/full/file"), 'x', 'and nothing was removed');
is($c->status($_, 'node_state'), 'SYNCED', "node $_ is SYNCED") for 1, 2;
$c->same_content('both nodes are the same at the end');

done_testing();
