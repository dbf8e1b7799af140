# Wrong input of every kind: one clear error with a hint, and the cluster goes on
# with the same data everywhere.

use strict;
use warnings;

use IO::Socket::INET;
use MgCluster;
use Test::More;

my $c = MgCluster->new(
	nodes => 3,
	conf  => "mgrepl.max_ws_size = '1MB'\n",
	setup => q{
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 100) g;
CREATE TABLE nokey (a int, b text);
INSERT INTO nokey VALUES (1, 'one');
});
my $round = 0;

# After each kind of bad input: every node takes writes, and all have the same.
sub cluster_works
{
	my ($after) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$round++;
	my @failed = grep { !$c->try($_, "UPDATE t SET v = '$round' WHERE id = $_")->{ok} } 1 .. 3;
	is("@failed", '', "after $after every node takes writes");
	$c->same_content("after $after", 1 .. 3);
	return;
}

# ---- rows that cannot be replicated ----
$c->refuses(2, q{UPDATE nokey SET b = 'two'}, '55000', qr/nokey/, 'UPDATE of a table without a primary key');
$c->refuses(2, 'DELETE FROM nokey', '55000', qr/nokey/, 'DELETE from a table without a primary key');
ok($c->try(2, q{INSERT INTO nokey VALUES (2, 'two')})->{ok}, 'INSERT into it is fine');
$c->refuses(1, q{INSERT INTO t SELECT g, repeat(md5(g::text), 100) FROM generate_series(1001, 2000) g},
	'54000', qr/writeset/, 'a writeset over mgrepl.max_ws_size');
ok($c->try(1, q{INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1001, 2000) g})->{ok}, 'a smaller one is fine');
$c->refuses(1, q{BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE t SET v = 'x' WHERE id = 5; COMMIT}, '0A000', qr/SERIALIZABLE/, 'SERIALIZABLE');
$c->refuses(1, q{BEGIN; UPDATE t SET v = 'x' WHERE id = 5; PREPARE TRANSACTION 'p'}, '0A000|55000', qr/PREPARE|prepared/i, 'PREPARE TRANSACTION', no_hint => 1);
cluster_works('refused transactions');

# ---- addresses and names ----
my $new = $c->add_node(join => 0);
my $leader = $c->address(1);
ok($c->wait_sql($new, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'OPEN'),
	'a node from a base backup is in no cluster until it joins');
is($c->sql($new, 'SET mgrepl.dirty_reads = on; SELECT count(*) FROM t'), $c->sql(1, 'SELECT count(*) FROM t'), 'it can be read by who asks for it');
$c->refuses($new, q{UPDATE t SET v = 'astray'}, '55000|57P03', qr/joined|cluster/, 'a write before it has joined');
$c->refuses($new, q{SELECT mgrepl.join('http://example.org')}, '22023', qr/address/, 'join: another scheme');
$c->refuses($new, q{SELECT mgrepl.join('gcomm://127.0.0.1')}, '22023', qr/address/, 'join: no port');
$c->refuses($new, q{SELECT mgrepl.join('gcomm://127.0.0.1:99999')}, '22023', qr/address/, 'join: no such port');
$c->refuses($new, q{SELECT mgrepl.join('gcomm://')}, '22023', qr/address/, 'join: an empty list');
$c->refuses($new, q{SELECT mgrepl.join()}, '22023', qr/address/, 'join: no address set');
my $nobody = PostgreSQL::Test::Cluster::get_free_port();
$c->refuses($new, "SELECT mgrepl.join('gcomm://127.0.0.1:$nobody')", '\w{5}', qr/\S/, 'join: nobody answers there');
is($c->status($new, 'node_state'), 'OPEN', 'it is still in no cluster');
{
	my $r = $c->refuses($new, "BEGIN; SELECT mgrepl.join('gcomm://$leader'); COMMIT", '25001', qr/transaction block/, 'join: inside a transaction block');
	$c->refuses(1, 'SELECT mgrepl.bootstrap()', '\w{5}', qr/\S/, 'bootstrap: of a member');
	$c->refuses(2, "SELECT mgrepl.join('gcomm://127.0.0.1:$nobody')", '\w{5}', qr/\S/, 'join: by a member, to somebody else');
	ok($c->try(2, "SELECT mgrepl.join('gcomm://$leader')")->{ok}, 'join: by a member, to its own cluster: it is there already');
	$c->refuses($new, 'SELECT mgrepl.leave()', '\w{5}', qr/\S/, 'leave: by a node that is no member');
}
cluster_works('wrong addresses');

# another cluster's name
$c->node($new)->append_conf('postgresql.conf', "mgrepl.cluster_name = 'another'");
$c->node($new)->restart;
{
	my $r = $c->refuses($new, "SELECT mgrepl.join('gcomm://$leader')", '\w{5}', qr/cluster/, 'join: another cluster name');
	like($r->{err}, qr/another/, 'the error names it');
}
# a node name that is taken
$c->node($new)->append_conf('postgresql.conf', "mgrepl.cluster_name = 'test'\nmgrepl.node_name = 'n1'");
$c->node($new)->restart;
$c->refuses($new, "SELECT mgrepl.join('gcomm://$leader')", '\w{5}', qr/n1/, 'join: a name that a member has');
$c->node($new)->append_conf('postgresql.conf', "mgrepl.node_name = 'n4'");
$c->node($new)->restart;
cluster_works('wrong names');

# ---- other servers ----
{
	my $lone = MgCluster->lone_server(name => 'unrelated');
	$lone->refuses(1, "SELECT mgrepl.join('gcomm://$leader')", '\w{5}', qr/cluster/, 'join: a server whose data belongs to no cluster');
	$lone->command(1, 'SELECT mgrepl.bootstrap()');
	$lone->wait_synced(1);
	$lone->sql(1, 'CREATE TABLE t (id int PRIMARY KEY)');
	$lone->sql(1, 'SELECT mgrepl.leave()');
	$lone->refuses(1, "SELECT mgrepl.join('gcomm://$leader')", '\w{5}', qr/another cluster/, 'join: the data of another cluster');
	$lone->node(1)->stop;
}
{
	my $bare = MgCluster->lone_server(name => 'bare', without_library => 1);
	$bare->refuses(1, 'CREATE EXTENSION mgrepl', '55000|\w{5}', qr/shared_preload_libraries/, 'CREATE EXTENSION without the library preloaded');
	$bare->node(1)->stop;
}
{
	my $r = MgCluster->lone_server(name => 'empty', without_extension => 1);
	ok($r->try(1, 'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)')->{ok}, 'the library without the extension changes nothing');
	is($r->try(1, "SELECT mgrepl.join('gcomm://$leader')")->{sqlstate}, '3F000', 'and cannot join');
	ok($r->try(1, 'CREATE EXTENSION mgrepl')->{ok}, 'the extension can be made');
	$r->node(1)->stop;
}
# a member's data under a server that does not load the library: it must not take writes past the cluster
{
	$c->node($new)->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$c->node($new)->restart;
	$c->refuses($new, q{UPDATE t SET v = 'astray' WHERE id = 7}, '55000', qr/shared_preload_libraries/, 'a write to a member\'s data without the library preloaded');
	is($c->sql($new, q{SELECT count(*) FROM t WHERE v = 'astray'}), 0, 'and it has changed nothing');
	$c->node($new)->append_conf('postgresql.conf', "shared_preload_libraries = 'mgrepl'");
	$c->node($new)->restart;
}
cluster_works('unrelated servers');

# ---- bytes that nobody should send ----
my $seed = $ENV{MG_SEED} || time() % 1_000_000;
srand($seed);
note("seed: $seed");

sub crc32c
{
	my ($bytes) = @_;
	our @table;
	@table = map { my $r = $_; $r = $r & 1 ? ($r >> 1) ^ 0x82f63b78 : $r >> 1 for 1 .. 8; $r } 0 .. 255 unless @table;
	my $crc = 0xffffffff;
	$crc = ($crc >> 8) ^ $table[ ($crc ^ $_) & 0xff ] for unpack 'C*', $bytes;
	return $crc ^ 0xffffffff;
}

sub noise { return join '', map { chr int rand 256 } 1 .. $_[0]; }

# A frame with a right header and checksum around these bytes (core/wire.h).
sub frame
{
	my ($body, %p) = @_;
	my $rest = pack('Q<Q<Q<L<L<L<L<', $p{incarnation} // 4711, $p{cluster} // 0, $p{epoch} // 1, $p{life} // 1, $p{flags} // 0, $p{member} // 2, 0) . $body;
	return pack('A4SSLL', 'MGFR', $p{version} // 1, 0, 16 + length $rest, crc32c($rest)) . $rest;
}

# What ZeroMQ's DEALER says: greeting, READY, then each frame as a message.
sub zmq_send
{
	my ($address, $routing_id, @frames) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $address, Timeout => 10) or return;
	local $SIG{PIPE} = 'IGNORE';
	$socket->autoflush(1);
	print $socket "\xff" . "\0" x 8 . "\x7f\3\0" . pack('a20', 'NULL') . "\0" . "\0" x 31;
	read $socket, my $greeting, 64;
	my $ready = "\5READY\x0bSocket-Type" . pack('N/a*', 'DEALER') . "\x08Identity" . pack('N/a*', $routing_id);
	print $socket "\4" . chr(length $ready) . $ready;
	print $socket "\2" . pack('Q>', length $_) . $_ for @frames;
	shutdown $socket, 1;
	my $ignored;
	1 while sysread $socket, $ignored, 65536;
	close $socket;
	return 1;
}

for my $i (1 .. 3)
{
	my $s = IO::Socket::INET->new(PeerAddr => $c->address($i)) or BAIL_OUT("cannot connect: $!");
	local $SIG{PIPE} = 'IGNORE';
	print $s noise(100_000);
	close $s;
	IO::Socket::INET->new(PeerAddr => $c->address($i)) for 1 .. 20;
}
cluster_works('bytes that are not ZeroMQ');

for my $i (1 .. 3)
{
	my $before = $c->status($i, 'frames_damaged');
	my @frames = (
		'', noise(1), noise(16), noise(5000),
		substr(frame(noise(100)), 0, 60),                       # cut short
		frame(noise(100)) . 'x',                                # longer than it says
		map({ my $f = frame("\4" . pack('L<', 100) . noise(100));
			substr($f, int rand length $f, 1) ^= chr(1 << int rand 8); $f } 1 .. 50),   # one bit wrong
		map({ frame(noise(int rand 300)) } 1 .. 50),                # right checksum, no messages
		map({ frame(pack('CL<', $_, 40) . noise(40)) } 0 .. 20),       # messages of every type, of noise
		map({ frame(pack('CL<', $_, 40) . noise(40), incarnation => 0, member => 1, epoch => 1 << 40) } 0 .. 20),
	);
	ok(zmq_send($c->address($i), '', @frames), "node $i: " . @frames . " frames of noise from a stranger");
	ok(zmq_send($c->address($i), 'M' . noise(12), @frames), "node $i: the same from somebody who looks like a node");
	MgCluster::wait_for("node $i to count damaged frames", sub { $c->status($i, 'frames_damaged') > $before });
	pass("node $i counts them in mgrepl.status");
}
cluster_works('damaged frames');

{
	zmq_send($c->address(1), 'M' . noise(12), frame(pack('CL<', 1, 0), version => 99)) for 1 .. 3;
	MgCluster::wait_for('a log line about the version', sub {
		PostgreSQL::Test::Utils::slurp_file($c->node(1)->logfile) =~ /protocol version 99/;
	});
	pass('a frame of another protocol version is named in the log');
}
cluster_works('another version');

# ---- and the node that was refused so often joins in the end ----
$c->join_node($new);
$c->wait_size(4);
ok($c->try($new, q{UPDATE t SET v = 'joined' WHERE id = 50})->{ok}, 'the fourth node takes writes');
$c->same_content('all four nodes in the end');
is($c->status($_, 'node_state'), 'SYNCED', "node $_ is synced") for $c->all;

my @crashes = grep { /PANIC|TRAP|terminated by signal/ } $c->unexpected_log;
is("@crashes", '', 'no process crashed');

done_testing();
