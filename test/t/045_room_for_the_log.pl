# What a node keeps in its log for others (a freeze, a joiner's copy, a member that
# lags) does not take the last room on the log's disk: it could not go on itself,
# and as all members keep the same, none could.

use strict;
use warnings;

use MgNetns;
use MgCluster;
use Test::More;

plan skip_all => MgNetns::reason() if MgNetns::reason();

my $disk = "$PostgreSQL::Test::Utils::tmp_check/disk";
mkdir $disk or die "$disk: $!";
$disk = Cwd::abs_path($disk);
system('mount', '-t', 'tmpfs', '-o', 'size=240m,mode=0700', 'tmpfs', $disk) == 0 or BAIL_OUT('mount failed');

my $c = MgCluster->new(
	nodes     => 2,
	conf      => "mgrepl.gcache_size = '64MB'\nmgrepl.gcache_keep_pages_size = '4GB'\n",
	node_conf => { 1 => "mgrepl.gcache_dir = '$disk/gcache'\n", 2 => "mgrepl.gcache_dir = 'pgsql_tmp.mgrepl'\n" },
	setup     => 'CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL');
$c->sql($_, 'SELECT mgrepl.gcache_freeze()') for 1, 2;
my $offset = -s $c->node(1)->logfile;
$c->sql(1, "INSERT INTO t SELECT g, repeat('x', 2000) FROM generate_series(${_}0000 + 1, ${_}0000 + 5000) g") for 1 .. 40;
$c->settle;
is($c->status($_, 'node_state'), 'SYNCED', "node $_ has gone on") for 1, 2;
cmp_ok($c->status(2, 'log_bytes'), '>', 380 * 1024 * 1024, 'where there is room all is kept');
cmp_ok($c->status(1, 'log_bytes'), '>', 100 * 1024 * 1024, 'where there is little, what fits');
my $log = PostgreSQL::Test::Utils::slurp_file($c->node(1)->logfile, $offset);
like($log, qr/at its hard limit: everything up to seqno \d+ is dropped/, 'the log says what is gone');
unlike($log, qr/No space left/, 'the disk was never full');
$c->same_content('the data');
$c->node($_)->stop for 1, 2;
system('umount', '-l', $disk);
done_testing();
