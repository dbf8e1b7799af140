# A running server that has nothing in common with the cluster is told to join:
# its data is replaced by a member's, under load, and it comes back with the
# same process id.

use strict;
use warnings;

use File::Path qw(make_path);
use MgCluster;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
make_path("$dir/ts");
my $c = MgCluster->new(nodes => 2, conf => "$MgCluster::transfer_conf\nmgrepl.gcache_size = '64MB'\n", setup => qq{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text);
INSERT INTO t SELECT g, 0, repeat('x', 200) FROM generate_series(1, 30000) g;
});
my $script = "$PostgreSQL::Test::Utils::tmp_check/load.sql";
PostgreSQL::Test::Utils::append_to_file($script,
	"\\set id random(1, 5000)\nUPDATE t SET n = n + 1 WHERE id = :id;\n");

sub pid_of
{
	my ($i) = @_;
	return ($c->processes($i))[0];
}

# ---- a tablespace, a replication slot and a standby signal's kin on the donor ----
# Both members have it at places of their own: the statement is not replicated.
$c->sql(1, "CREATE TABLESPACE space LOCATION '$dir/ts'");
make_path("$dir/ts2");
$c->sql(2, "CREATE TABLESPACE space LOCATION '$dir/ts2'");
$c->sql(1, 'CREATE TABLE in_space (id int PRIMARY KEY, v text) TABLESPACE space');
$c->sql(1, q{INSERT INTO in_space SELECT g, repeat('y', 100) FROM generate_series(1, 10000) g});
$c->sql(1, q{SELECT pg_create_physical_replication_slot('of_the_donor', true)});

my $new = $c->add_lone(conf => "work_mem = '7MB'\nmgrepl.sst_donor = 'n1'\n");
$c->sql($new, "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1); ALTER SYSTEM SET maintenance_work_mem = '77MB'");
PostgreSQL::Test::Utils::append_to_file($c->node($new)->data_dir . '/pg_hba.conf', "# the joiner's\n");
PostgreSQL::Test::Utils::append_to_file($c->node($new)->data_dir . '/my_own_file', "mine\n");
my $pid = pid_of($new);
my $gcache = $c->node($new)->data_dir . '/pgsql_tmp.mgrepl';

my @load = map { $c->pgbench_start($_, '-f', $script, '-T', 6, '-c', 2, '--max-tries', 100000) } 1, 2;
my $r = $c->try($new, "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')");
ok($r->{ok}, 'told to join, the server copies') or diag($r->{err});
my $refused = eval { $c->try($new, 'INSERT INTO mine VALUES (2)') };
ok($refused && ($refused->{sqlstate} // '') eq '57P03' && $refused->{message} =~ /joining/, 'a write meanwhile would be lost: it is refused') or diag($refused ? $refused->{err} : $@);
$c->wait_synced($new);
like($r->{err}, qr/NOTICE:.*data is being replaced.*HINT:.*restarts by itself/s, 'join() says what will happen');
is(pid_of($new), $pid, 'the server came back with the same process id');
is($c->sql($new, 'SHOW work_mem'), '7MB', 'postgresql.conf is the joiner\'s');
is($c->sql($new, 'SHOW maintenance_work_mem'), '77MB', 'postgresql.auto.conf is the joiner\'s');
like(PostgreSQL::Test::Utils::slurp_file($c->node($new)->data_dir . '/pg_hba.conf'), qr/the joiner's/, 'pg_hba.conf is the joiner\'s');
ok(-e $c->node($new)->data_dir . '/my_own_file', 'a file of somebody else\'s stays where it was');
is($c->sql($new, 'SELECT count(*) FROM pg_replication_slots'), 0, 'the donor\'s replication slot is not inherited');
is($c->sql($new, 'SELECT pg_is_in_recovery()'), 'f', 'the server is no standby');
isnt($c->sql($new, q{SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'space'}), "$dir/ts",
	'the tablespace has a place of its own where the donor\'s is taken');
is($c->sql($new, 'SELECT count(*) FROM in_space'), 10000, 'the table there is there');
for (@load)
{
	MgCluster::pgbench_finish($_);
	is($_->{rc}, 0, "clients of node $_->{node} see no error") or diag($_->{err});
}
$c->wait_size(3);
$c->same_content('a snapshot under load');
ok($c->try($new, 'UPDATE t SET n = n + 1 WHERE id = 1')->{ok}, 'the new node takes writes');
MgCluster::wait_for('the old data to be removed', sub { !-e $c->node($new)->data_dir . '/pgsql_tmp.mgrepl_old' });
pass('the old data is removed when the node is level with the cluster');
ok(!-e $c->node($new)->data_dir . '/pgsql_tmp.mgrepl_journal', 'no journal is left');
ok(!-e $c->node($new)->data_dir . '/pgsql_tmp.mgrepl_staging', 'no copy is left');
is($c->status(1, 'node_state'), 'SYNCED', 'the donor is SYNCED again');

# ---- restarts are ordinary ----
$c->node($new)->restart;
$c->wait_synced($new);
$c->same_content('after a restart');

# ---- rebuilt, by rsync, with the old data kept ----
$c->sql($new, q{SET mgrepl.replicate = off; DELETE FROM t WHERE id = 4711});
$c->sql(1, 'UPDATE t SET n = -1 WHERE id = 4711');
$c->wait_sql($new, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'INCONSISTENT');
like($c->status($new, 'node_state_reason'), qr/public\.t.*4711|4711.*\bt\b/s, 'an inconsistent node names table and row');
is($c->sql($new, q{SET ROLE pg_database_owner; SELECT value FROM mgrepl.status WHERE name = 'node_state_reason'}), '<insufficient privilege>',
	'but not to everybody');
$c->refuses($new, "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')", '55000', qr/differs/, 'it does not join');
$c->sql($new, q{ALTER SYSTEM SET mgrepl.sst_keep_old = on});
$c->sql($new, q{ALTER SYSTEM SET mgrepl.sst_method = 'rsync'});
$c->sql($new, 'SELECT pg_reload_conf()');
$c->wait_sql($new, 'SHOW mgrepl.sst_keep_old', 'on');
$pid = pid_of($new);
$c->sql($new, 'SELECT mgrepl.rebuild()');
$c->wait_synced($new);
is(pid_of($new), $pid, 'rebuild: the same process id');
$c->same_content('an inconsistent node, rebuilt');
like(PostgreSQL::Test::Utils::slurp_file($c->node($new)->logfile), qr/snapshot: copied from .*bytes=[1-9]\d{6,}/, 'by rsync');
is($c->sql(1, q{SELECT count(*) FROM pg_replication_slots WHERE temporary}), 0, 'no slot is left at the donor');
my @kept = glob($c->node($new)->data_dir . '/pgsql_tmp.mgrepl_kept.*');
is(scalar @kept, 1, 'the old data was kept');
ok(-e "$kept[0]/global/pg_control", 'all of it');

sub log_first
{
	return $c->status($_[0], 'log_first');
}
my $away = $c->settle;

# ---- away for longer than any log reaches: it takes a snapshot by itself, in the same process ----
$c->sql($new, 'ALTER SYSTEM RESET mgrepl.sst_keep_old');
$c->sql($new, 'ALTER SYSTEM RESET mgrepl.sst_method');
$c->node($new)->stop;
$c->wait_size(2, 1, 2);
$c->sql(1, q{INSERT INTO t SELECT g, 0, repeat(md5(g::text), 40) FROM generate_series(100001, 180000) g});
$c->settle(1, 2);
$c->sql(1, q{DELETE FROM t WHERE id > 100000});
MgCluster::wait_for('the log to forget', sub { $c->try(1, 'INSERT INTO t VALUES (99999) ON CONFLICT (id) DO UPDATE SET n = t.n + 1'); log_first(1) > $away && log_first(2) > $away });
$c->node($new)->start;
$pid = pid_of($new);
$c->wait_synced($new);
is(pid_of($new), $pid, 'away for too long: a snapshot, by itself, and the same process id');
like(PostgreSQL::Test::Utils::slurp_file($c->node($new)->logfile), qr/snapshot: needed, .*no longer in the log.*automatic=yes/, 'because no log reaches back');
$c->same_content('away for too long');

# ---- the data of another cluster ----
my $other = $c->add_lone;
$c->sql($other, 'CREATE TABLE theirs (id int PRIMARY KEY); INSERT INTO theirs VALUES (1)');
$c->sql($other, 'SELECT mgrepl.bootstrap()');
$c->sql($other, 'INSERT INTO theirs VALUES (2)');
$c->sql($other, 'SELECT mgrepl.leave()');
$c->join_by_snapshot($other);
$c->same_content('the data of another cluster');
$c->node($other)->stop('immediate');
$c->start_node($other);
$c->wait_synced($other);
$c->same_content('... and after a crash');

$c->log_clean('nothing unexpected in the logs', qr/57P03|57P01|55000|starting up|shutting down|inconsisten|terminating (?:connection|background worker)|provider/i);
done_testing();
