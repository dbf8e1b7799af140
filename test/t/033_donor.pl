# A donor: while somebody copies its data it works on, keeps its writeset log for
# the joiner and is not waited for; whoever dies, it is an ordinary member again.
# The operator's switch for the same state, and how changes of state are told.

use strict;
use warnings;

use IPC::Run;
use MgCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tmp = $PostgreSQL::Test::Utils::tmp_check;

# What the notify command was told, a line each.
my $told = "$tmp/told";
my $tell = "$tmp/tell";
open my $f, '>', $tell or die $!;
print $f "#!/bin/sh\necho \"\$*\" >>'$told'\n";
close $f;
chmod 0755, $tell;

my $c = MgCluster->new(nodes => 2, conf => "mgrepl.gcache_size = 64MB\n",
	node_conf => { 1 => "mgrepl.notify_command = '$tell'\nallow_in_place_tablespaces = on\n",
		2 => "allow_in_place_tablespaces = on\n" },
	setup => q{
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g;
CREATE ROLE plain LOGIN;
CREATE ROLE copier LOGIN REPLICATION;
});

sub state { my ($i) = @_; return $c->status($i, 'node_state'); }

sub becomes
{
	my ($i, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(eval { $c->wait_sql($i, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, $state, 20) }, $name)
	  or diag('it is ' . state($i));
	return;
}

sub donations { my ($where) = @_; return $c->sql(1, "SELECT count(*) FROM mgrepl.donation_rows() WHERE $where"); }

# ---- the operator's switch, and who is told ----
{
	my $listener = $c->session(1);
	$listener->run('LISTEN mgrepl_state');
	$c->sql(1, 'SELECT mgrepl.desync(true)');
	is(state(1), 'DONOR', 'desync: the node is DONOR when the call returns');
	like($c->status(1, 'desynced'), qr/^mgrepl\.desync\(true\) by \w+ at /, 'desync: status says who and when');
	$c->wait_sql(2, q{SELECT desynced FROM mgrepl.members WHERE name = 'n1'}, 't');
	pass('desync: the other node sees it');
	ok($c->try(1, q{UPDATE t SET v = 'desynced' WHERE id = 1})->{ok}, 'desync: it takes writes');
	is($c->sql(1, 'SELECT v FROM t WHERE id = 1'), 'desynced', 'desync: and reads');
	is($c->status(1, 'primary'), 'on', 'desync: it is in the primary component');
	$c->sql(1, 'SELECT mgrepl.desync(true)');
	is(state(1), 'DONOR', 'desync: twice is once');
	$c->sql(1, 'SELECT mgrepl.desync(false)');
	is(state(1), 'SYNCED', 'desync: back');
	is($c->status(1, 'desynced'), '', 'desync: no reason any more');
	my $heard = '';
	MgCluster::wait_for('the notifications', sub {
		$heard .= $listener->run('SELECT 1')->{out};
		return $heard =~ /mgrepl_state.*DONOR SYNCED /s;
	});
	like($heard, qr/"mgrepl_state" with payload "SYNCED DONOR \w/, 'NOTIFY mgrepl_state says from where, to where and why');
	$listener->quit;

	MgCluster::wait_for('the command', sub { (-e $told ? slurp_file($told) : '') =~ /--status SYNCED[^\n]*\n\z/ });
	my $uuid = $c->status(1, 'cluster_uuid');
	like(slurp_file($told), qr/^--status DONOR --uuid $uuid --primary yes --members \d+\/n1\/[\w.:]+,\d+\/n2\/[\w.:]+ --index 0$/m,
		'mgrepl.notify_command gets state, cluster, members and its place among them');
}
$c->refuses(1, 'BEGIN; SELECT mgrepl.desync(true)', '25001', qr/transaction block/, 'desync refuses a transaction block');
$c->refuses(1, 'SET ROLE plain; SELECT mgrepl.desync(true)', '42501', qr/permission denied/, 'desync is for who was granted it', no_hint => 1);

# ---- a donation ----
my $a = $c->session(1);
my $seqno = $c->status(1, 'committed_seqno');
my $row = $a->run(q{SELECT row_to_json(d) FROM mgrepl.donate('n3') d});
ok($row->{ok}, 'donate') or diag($row->{err});
is(state(1), 'DONOR', 'donate: the node is DONOR when the call returns');
like($c->status(1, 'desynced'), qr/^donates to n3 since /, 'donate: status says to whom');
{
	my $facts = $row->{out};
	my $uuid = $c->status(1, 'cluster_uuid');
	like($facts, qr/"gtid":"$uuid:$seqno"/, 'donate: position');
	my $expected = $c->sql(1, q{
SELECT format('"server_version_num":%s,"catalog_version":%s,"block_size":%s,"wal_segment_size":%s,"data_checksums":%s,"collate":"C","ctype":"C","locale_provider":"libc"',
	current_setting('server_version_num'), s.catalog_version_no, current_setting('block_size'), i.bytes_per_wal_segment,
	CASE i.data_page_checksum_version WHEN 0 THEN 'false' ELSE 'true' END)
FROM pg_control_system() s, pg_control_init() i});
	like($facts, qr/\Q$expected\E/, 'donate: what the joiner must agree with');
	like($facts, qr/"extension_version":"1\.0"/, 'donate: version of the extension');
	my ($bytes) = $facts =~ /"data_bytes":(\d+)/;
	my $all = $c->sql(1, 'SELECT sum(pg_database_size(oid)) FROM pg_database');
	cmp_ok($bytes, '>=', $all, 'donate: the size covers all databases');
	cmp_ok($bytes, '<', 2 * $all, 'donate: and not much more');
}
is(donations(q{joiner = 'n3' AND pid IS NOT NULL}), 1, 'donate: the donation is listed');
is($c->sql(1, q{SELECT role || ' ' || peer || ' ' || (bytes_total > 0) FROM mgrepl.transfer_progress}), 'donor n3 true',
	'donate: the progress view has a row for it');
ok($c->try(1, q{UPDATE t SET v = 'donor' WHERE id = 2})->{ok}, 'donate: it takes writes');
like($a->run(q{SELECT mgrepl.donate('n4')})->{message}, qr/donates to "n3" already/, 'one donation a session');
$c->refuses(1, q{BEGIN; SELECT mgrepl.donate('n4')}, '25001', qr/transaction block/, 'donate refuses a transaction block');
$c->refuses(1, q{SET ROLE plain; SELECT mgrepl.donate('n4')}, '42501', qr/superuser or replication role/, 'donate needs rights');
$c->refuses(1, q{SELECT mgrepl.donate('')}, '22023', qr/1 to \d+ bytes/, 'donate needs a name');
ok($c->try(1, q{SET ROLE copier; SELECT mgrepl.donate('n4')})->{ok}, 'donate: REPLICATION is enough');
is(state(1), 'DONOR', 'the node is DONOR as long as one donation lasts');
is(donations(q{joiner = 'n4' AND pid IS NULL AND log_kept_until > now()}), 1, 'the log is kept for a while for one that has ended');
{
	my @more = map { $c->session(1) } 1 .. 3;
	ok($more[ $_ - 1 ]->run("SELECT mgrepl.donate('m$_')")->{ok}, "donation $_ at the same time") for 1 .. 3;
	$c->refuses(1, q{SELECT mgrepl.donate('m4')}, '53400', qr/donates to 4 joiners already/, 'no more than four at once');
	$c->sql(1, 'SELECT pg_terminate_backend(' . $_->pid . ')') for @more[ 0, 1 ];
	$more[2]->quit;
	$c->wait_sql(1, 'SELECT count(*) FROM mgrepl.donation_rows() WHERE pid IS NOT NULL', 1);
	is(state(1), 'DONOR', 'still DONOR for the first');
}

# ---- tablespaces are named, each with its size ----
{
	$c->sql($_, q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE other LOCATION ''}) for 1, 2;
	$c->sql(1, q{CREATE TABLE s (id int PRIMARY KEY, v text) TABLESPACE other});
	$c->sql(1, q{INSERT INTO s SELECT g, repeat('y', 1000) FROM generate_series(1, 1000) g});
	my $s = $c->session(1);
	my $facts = $s->run(q{SELECT tablespaces->0->>'name' || ' ' || ((tablespaces->0->>'bytes')::bigint > 1000000) || ' ' || (tablespaces->0->>'location')
FROM mgrepl.donate('n5')})->{out};
	like($facts, qr/^other true pg_tblspc\/\d+$/, 'donate: tablespaces');
	$s->quit;
}

# ---- the log is kept for the joiner, beyond its size and beyond the session ----
$c->node(1)->backup('for_n3');
for my $round (1 .. 12)
{
	$c->sql(2, "UPDATE t SET v = (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 65) WHERE t.id > 0) WHERE id % 12 = $round - 1");
	$c->sql(2, "INSERT INTO t SELECT g, repeat(md5(g::text), 320) FROM generate_series(10000 + $round * 1000, 10999 + $round * 1000) g");
}
$c->settle;
cmp_ok($c->status(1, 'log_bytes'), '>', 96 * 1024 * 1024, 'the donor has kept its log beyond mgrepl.gcache_size');
cmp_ok($c->status(2, 'log_bytes'), '>', 96 * 1024 * 1024, 'and so has the other: the joiner asks whoever leads then');
my $killed = $a->pid;
kill 'KILL', $a->{psql}{run}{KIDS}[0]{PID};
becomes(1, 'SYNCED', 'the client of the donation is killed: the donor is SYNCED again');
is(donations(q{joiner = 'n3' AND pid IS NULL}), 1, 'its log is still kept');
{
	my $node = $c->_make_node;
	$node->init_from_backup($c->node(1), 'for_n3');
	$c->_configure(3);
	$c->start_node(3);
	$c->join_node(3);
	pass('a node from the copy joins by what the log has');
	$c->same_content('and has the same');
	$c->wait_sql(1, q{SELECT count(*) FROM mgrepl.donation_rows() WHERE joiner = 'n3'}, 0);
	pass('when it is synced the log is not kept for it any longer');
}

# ---- a donor that refuses queries ----
{
	my $before = $c->session(1);
	$before->run(q{BEGIN});
	$before->run(q{UPDATE t SET v = 'begun before' WHERE id = 3});
	$c->sql(1, q{ALTER SYSTEM SET mgrepl.donor_rejects_queries = on});
	$c->sql(1, q{SELECT pg_reload_conf()});
	$c->wait_sql(1, q{SHOW mgrepl.donor_rejects_queries}, 'on');
	ok($c->try(1, 'SELECT count(*) FROM t')->{ok}, 'donor_rejects_queries: nothing is refused without a donation');
	my $d = $c->session(1);
	ok($d->run(q{SELECT mgrepl.donate('n9')})->{ok}, 'a donation');
	$c->refuses(1, 'SELECT count(*) FROM t', '57P03', qr/gives a copy of its data/, 'donor_rejects_queries: reads');
	$c->refuses(1, q{UPDATE t SET v = '' WHERE id = 4}, '57P03', qr/gives a copy of its data/, 'donor_rejects_queries: writes');
	$c->refuses(1, 'CREATE TABLE u (id int PRIMARY KEY)', '57P03', qr/gives a copy of its data/, 'donor_rejects_queries: DDL');
	$c->refuses(1, 'COPY t TO STDOUT', '57P03', qr/gives a copy of its data/, 'donor_rejects_queries: COPY');
	ok($before->run('COMMIT')->{ok}, 'donor_rejects_queries: what has begun may end');
	ok($d->run('SELECT count(*) FROM t')->{ok}, 'donor_rejects_queries: the session of the donation may read');
	ok($c->try(1, 'SELECT * FROM mgrepl.transfer_progress')->{ok}, 'donor_rejects_queries: the views can be read');
	ok($c->try(1, 'SET mgrepl.dirty_reads = on; SELECT count(*) FROM t')->{ok}, 'donor_rejects_queries: who asks for dirty reads may read');
	ok($c->try(2, q{UPDATE t SET v = 'on 2' WHERE id = 5})->{ok}, 'donor_rejects_queries: the others work');
	is($c->sql(2, q{SELECT v FROM t WHERE id = 3}), 'begun before', 'and have what was ended');

	# A real copy, slowed down so that it can be watched.
	my $base = $c->node(1);
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[ 'pg_basebackup', '-D', "$tmp/watched", '-c', 'fast', '-X', 'stream', '--max-rate', '8M',
			'-d', 'application_name=\'mgrepl sst n9\' host=' . $base->host . ' port=' . $base->port ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	my $seen = '';
	MgCluster::wait_for('progress', sub {
		$seen = $c->sql(1, q{SELECT method || ' ' || phase || ' ' || (percent BETWEEN 0 AND 100) || ' ' || (bytes_per_second > 0) || ' ' || (seconds_left >= 0)
FROM mgrepl.transfer_progress WHERE peer = 'n9' AND bytes_done > 0});
		return $seen ne '';
	});
	is($seen, 'basebackup streaming database files true true true', 'mgrepl.transfer_progress shows the copy');
	$run->kill_kill;
	$d->quit;
	becomes(1, 'SYNCED', 'the donation ends');
	ok($c->try(1, 'SELECT count(*) FROM t')->{ok}, 'the node reads again');
	$before->quit;
	$c->sql(1, q{ALTER SYSTEM RESET mgrepl.donor_rejects_queries});
	$c->sql(1, q{SELECT pg_reload_conf()});
}

# ---- where it is refused ----
$c->sql(3, 'SELECT mgrepl.leave()');
$c->wait_sql(3, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN');
$c->refuses(3, q{SELECT mgrepl.donate('n9')}, '57P03', qr/this node is OPEN: it cannot donate/, 'a node that has left donates nothing');
$c->refuses(3, q{SELECT mgrepl.desync(true)}, '57P03', qr/this node is OPEN: it cannot be desynced/, 'nor is it desynced');
$c->refuses(1, q{ALTER SYSTEM SET mgrepl.notify_command = 'mail root'}, '22023', qr/invalid value/, 'a command must be a path');

# ---- a command that fails, and one that cannot be run, harm nobody ----
$c->sql(1, q{ALTER SYSTEM SET mgrepl.notify_command = '/bin/false'});
$c->sql(1, q{SELECT pg_reload_conf()});
$c->sql(1, 'SELECT mgrepl.desync(true)');
MgCluster::wait_for('the log', sub { slurp_file($c->node(1)->logfile) =~ m{notify_command "/bin/false" failed: exit code 1} });
$c->sql(1, q{ALTER SYSTEM SET mgrepl.notify_command = '/does/not/exist'});
$c->sql(1, q{SELECT pg_reload_conf()});
$c->sql(1, 'SELECT mgrepl.desync(false)');
MgCluster::wait_for('the log', sub { slurp_file($c->node(1)->logfile) =~ m{notify_command "/does/not/exist" cannot be run} });
pass('a command that fails is a line in the log');
is(state(1), 'SYNCED', 'and nothing else');

# ---- one that hangs holds nobody up, and ends with the server ----
{
	my $hangs = "$tmp/hangs";
	open my $h, '>', $hangs or die $!;
	print $h "#!/bin/sh\necho \$\$ >'$hangs.pid.new'\nmv '$hangs.pid.new' '$hangs.pid'\nexec tail -f /dev/null\n";
	close $h;
	chmod 0755, $hangs;
	$c->sql(1, "ALTER SYSTEM SET mgrepl.notify_command = '$hangs'");
	$c->sql(1, q{SELECT pg_reload_conf()});
	my $listener = $c->session(1);
	$listener->run('LISTEN mgrepl_state');
	$c->sql(1, 'SELECT mgrepl.desync(true)');
	MgCluster::wait_for('the command', sub { -e "$hangs.pid" });
	chomp(my $pid = slurp_file("$hangs.pid"));
	$c->sql(1, 'SELECT mgrepl.desync(false)');
	my $heard = '';
	MgCluster::wait_for('the notification', sub { ($heard .= $listener->run('SELECT 1')->{out}) =~ /DONOR SYNCED/ });
	pass('a command that hangs does not hold up notifications');
	ok(kill(0, $pid), 'it still runs');
	$listener->quit;
	$c->node(1)->stop;
	ok(!kill(0, $pid), 'it is gone with the server');
	unlink "$hangs.pid";
	$c->start_node(1);
	$c->wait_synced(1);
	MgCluster::wait_for('the command', sub { -e "$hangs.pid" });
	chomp($pid = slurp_file("$hangs.pid"));
	$c->node(1)->stop('immediate');
	MgCluster::wait_for('its end', sub { !kill(0, $pid) });
	pass('also when the server is stopped at once');
	$c->start_node(1);
	$c->wait_synced(1);
	$c->sql(1, 'ALTER SYSTEM RESET mgrepl.notify_command');
}

my @crashes = grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log;
is("@crashes", '', 'no process crashed');
done_testing();
