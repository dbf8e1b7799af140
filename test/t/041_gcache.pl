# The writeset log as a bounded store: what it keeps for a node that is away, a
# freeze, the hard limit, and directories that hold what does not belong there.

use strict;
use warnings;

use File::Copy qw(copy);
use MgCluster;
use Test::More;

use PostgreSQL::Test::Utils;

my $c = MgCluster->new(
	nodes => 3,
	conf  => "mgrepl.gcache_size = '64MB'\nmgrepl.gcache_keep_pages_size = '512MB'\nmgrepl.gcache_mem_size = '1MB'\nlog_min_error_statement = panic\n$MgCluster::transfer_conf",
	setup => q{CREATE TABLE big (id bigserial PRIMARY KEY, pad text);
ALTER TABLE big ALTER pad SET STORAGE EXTERNAL;});

my $mb = 1024 * 1024;

# Writes that many megabytes through node 1.
sub fill
{
	my ($n) = @_;
	$c->sql(1, "INSERT INTO big (pad) SELECT repeat(md5(random()::text), 31250);\n" x $n);
	return;
}

sub gcache { my ($i) = @_; return $c->node($i)->data_dir . '/pgsql_tmp.mgrepl'; }
sub segments { my ($i) = @_; return sort glob gcache($i) . '/*.seg'; }
sub log_size { my ($i) = @_; return -s $c->node($i)->logfile // 0; }
sub log_since { my ($i, $offset) = @_; return slurp_file($c->node($i)->logfile, $offset); }

sub log_says
{
	my ($i, $offset, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(eval { MgCluster::wait_for("node $i: $pattern", sub { log_since($i, $offset) =~ $pattern }); 1 }, $name) or diag($@);
	return;
}

sub bytes_fall
{
	my ($i, $to, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(eval { $c->wait_sql($i, "SELECT value::bigint <= $to FROM mgrepl.status WHERE name = 'log_bytes'", 't'); 1 }, $name) or diag($@);
	return;
}

# ---- nothing is needed: the log stays within its size ----

fill(80);
$c->settle;
bytes_fall($_, 64 * $mb, "80 MB later the log of node $_ has its 64 MB") for $c->all;
cmp_ok($c->status(1, 'log_first'), '>', 1, 'what is older than that is gone');
is($c->status(1, 'log_dropped'), 0, 'nobody needed it');
is($c->status($_, 'gcache_mem_misses') + $c->status($_, 'gcache_mem_hits') > 0 ? 'used' : '', 'used', "node $_ looks into its memory first") for 2, 3;

# ---- freeze ----

my $from = $c->status(1, 'committed_seqno');
for my $i (1, 2)
{
	my $at = $c->sql($i, 'SELECT mgrepl.gcache_freeze()');
	cmp_ok($at, '<=', $from + 1, "node $i: frozen from where the members are");
	cmp_ok($at, '>', $c->status($i, 'log_first'), "node $i: and not from the beginning");
	is($c->status($i, 'gcache_frozen_at'), $at, "node $i: and shown");
}
$c->refuses(1, 'SELECT mgrepl.gcache_freeze(1)', '55000', qr/begins at seqno/, 'what is gone cannot be frozen');
$c->refuses(1, 'SELECT mgrepl.gcache_freeze(-1)', '22023', qr/must be positive/, 'nor what never was');
$c->refuses(1, 'BEGIN; SELECT mgrepl.gcache_freeze()', '25001', qr/transaction block/, 'a freeze is no part of a transaction');

$c->kill_node(3);
$c->wait_size(2, 1, 2);
fill(100);
cmp_ok($c->status(1, 'log_bytes'), '>', 100 * $mb, 'node 3 is away, and the log keeps more than its size');
my $offset = log_size(1);
$c->node(1)->restart;
$c->wait_synced(1);
cmp_ok($c->status(1, 'gcache_frozen_at'), '>', 0, 'also after a restart');
$offset = log_size(3);
$c->start_node(3);
ok(eval { $c->wait_synced(3); 1 }, 'node 3 catches up from it') or diag($@);
like(log_since(3, $offset), qr/join: admitted, catching up from seqno/, 'with what it had missed');
$c->wait_size(3);
$c->sql($_, 'SELECT mgrepl.gcache_unfreeze()') for 1, 2;
is($c->status(1, 'gcache_frozen_at'), 0, 'unfrozen');
bytes_fall($_, 64 * $mb, "node $_ has given the room back") for $c->all;

# ---- the hard limit ----

for my $i (1, 2)
{
	$c->sql($i, "ALTER SYSTEM SET mgrepl.gcache_keep_pages_size = '32MB'");
	$c->sql($i, 'SELECT pg_reload_conf()');
	$c->wait_sql($i, 'SHOW mgrepl.gcache_keep_pages_size', '32MB');
	$c->sql($i, 'SELECT mgrepl.gcache_freeze()');
}
$c->kill_node(3);
$c->wait_size(2, 1, 2);
$offset = log_size(1);
fill(130);
bytes_fall($_, (64 + 32) * $mb, "a freeze keeps no more than the hard limit (node $_)") for 1, 2;
log_says(1, $offset, qr/at its hard limit: everything up to seqno \d+ is dropped/, 'which is said');
cmp_ok($c->status(1, 'log_dropped'), '>=', $c->status(1, 'gcache_frozen_at'), 'and shown');
$offset = log_size(3);
$c->start_node(3);
log_says(3, $offset, qr/snapshot: needed, the writesets from seqno \d+ on are no longer in the log/, 'node 3 is told that it is too late');
fill(1);
ok(eval { $c->wait_synced(3); 1 }, 'and takes a snapshot by itself') or diag($@);
like(log_since(3, $offset), qr/snapshot: this server has new data, its writeset log begins anew/, 'as its log says');
$c->wait_size(3);
$c->same_content('the same rows with a snapshot');
$c->sql($_, 'SELECT mgrepl.gcache_unfreeze()') for 1, 2;
$c->node(3)->stop;
$c->sql(1, 'TRUNCATE big');	# the log is large enough for what follows
fill(3);

# ---- what does not belong into the directory ----

# Files and directories of other names.
$c->node(2)->stop;
append_to_file(gcache(2) . '/README', "not a segment\n");
mkdir gcache(2) . '/ffffffffffffffff.old' or die $!;

# A record in the middle of the log cannot be read.
my $broken = (segments(2))[1];
open my $f, '+<', $broken or die "$broken: $!";
seek $f, 2 * $mb, 0;
print $f 'x' x 4096;
close $f;
$offset = log_size(2);
$c->start_node(2);
ok(eval { $c->wait_synced(2); 1 }, 'a corrupt segment: the node comes back by itself') or diag($@);
like(log_since(2, $offset), qr/writeset log: damaged: seqno \d+ to \d+ had been durable/, 'and says what it had lost');
ok(-e gcache(2) . '/README', 'files of other names are left alone');
$c->wait_size(2, 1, 2);
$c->same_content('the same rows afterwards', 1, 2);

# A segment of another log.
$c->node(2)->stop;
my $alien = gcache(2) . '/00000000ffffffff.seg';
copy((segments(1))[0], $alien) or die $!;
open $f, '+<:raw', $alien or die $!;
sysread $f, my $header, 60 or die $!;
substr($header, 8, 8) = pack 'Q<', 0xffffffff;
sysseek $f, 0, 0;
syswrite $f, $header . pack 'V', crc32c($header);
close $f;
$offset = log_size(2);
$c->start_node(2);
log_says(2, $offset, qr/FATAL: .*writeset log cannot be opened: segment \d+ in .* is of another log/, 'files of two logs are refused');
isnt($c->status(2, 'node_state'), 'SYNCED', 'the node waits');
unlink $alien or die $!;
ok(eval { $c->wait_synced(2); 1 }, 'without them it comes back by itself') or diag($@);
$c->same_content('the same rows as before', 1, 2);

# Another node's directory, in use.
my $own = gcache(2);
$c->sql(2, "ALTER SYSTEM SET mgrepl.gcache_dir = '" . gcache(1) . "'");
$offset = log_size(2);
$c->node(2)->restart;
log_says(2, $offset, qr/FATAL: .*writeset log cannot be opened: log directory .* is in use by another process/, 'a directory in use is refused');

# The directory of a node of another cluster.
my $other = MgCluster->new(name => 'o', nodes => 1);
$other->node(1)->stop;
$c->sql(2, "ALTER SYSTEM SET mgrepl.gcache_dir = '" . $other->node(1)->data_dir . "/pgsql_tmp.mgrepl'");
$offset = log_size(2);
$c->node(2)->restart;
log_says(2, $offset, qr/FATAL: .*the writeset log in .* belongs to cluster \S+, the data to \S+/, 'the log of another cluster is refused');
like(log_since(2, $offset), qr/HINT:  Set mgrepl.gcache_dir/, 'with a hint');
$c->sql(2, 'ALTER SYSTEM RESET mgrepl.gcache_dir');
$c->node(2)->restart;
ok(eval { $c->wait_synced(2); 1 }, 'with its own directory it is back') or diag($@);
$other->start_node(1);
ok(eval { $other->wait_synced(1); 1 }, 'and nothing happened to the other one') or diag($@);
$c->same_content('at the end: the same rows', 1, 2);
is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed, no node became inconsistent');

sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;
	for my $byte (unpack 'C*', $bytes)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

done_testing();
