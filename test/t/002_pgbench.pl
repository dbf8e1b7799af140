# The main job: pgbench's TPC-B-like script on all three nodes at once.
#
# Nothing may be lost, doubled or different: the same rows everywhere, the
# TPC-B sums equal, and as many rows in the history as pgbench counted
# transactions.  No error but serialization failures, which pgbench retries.
#
#   MG_PGBENCH_SECONDS   how long (60)
#   MG_PGBENCH_SCALE     how many branches (10)

use strict;
use warnings;

use MgCluster;
use Test::More;

my $seconds = $ENV{MG_PGBENCH_SECONDS} || 60;
my $scale   = $ENV{MG_PGBENCH_SCALE}   || 10;

my $c = MgCluster->new(nodes => 3, conf => "shared_buffers = 256MB\nmax_wal_size = 4GB\n");

# ---- the tables, made and filled through the cluster ----
$c->sql(2, q{
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
CREATE TABLE pgbench_tellers (tid int NOT NULL PRIMARY KEY, bid int, tbalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_accounts (aid int NOT NULL PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_branches (bid int NOT NULL PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor = 100);
});
$c->sql(1, qq{
INSERT INTO pgbench_branches (bid, bbalance) SELECT g, 0 FROM generate_series(1, $scale) g;
INSERT INTO pgbench_tellers (tid, bid, tbalance) SELECT g, (g - 1) / 10 + 1, 0 FROM generate_series(1, $scale * 10) g;
});
$c->sql(1, qq{
INSERT INTO pgbench_accounts (aid, bid, abalance, filler)
SELECT g, (g - 1) / 100000 + 1, 0, '' FROM generate_series($_ * 100000 + 1, ($_ + 1) * 100000) g
}) for 0 .. $scale - 1;
{
	local $MgCluster::deadline_s = 180;
	$c->settle;
}
is($c->sql($_, 'SELECT count(*) FROM pgbench_accounts'), $scale * 100000, "node $_ has all accounts") for $c->all;
$c->sql($_, 'VACUUM ANALYZE pgbench_accounts') for $c->all;
$c->mark_logs;

# ---- the run ----
my @runs = map {
	$c->pgbench_start($_, '-b', 'tpcb-like', '-T', $seconds, '-c', 4, '-j', 2, '--max-tries', 1000)
} $c->all;
my ($done, $retried) = (0, 0);
for my $run (@runs)
{
	MgCluster::pgbench_finish($run);
	is($run->{rc},     0, "node $run->{node}: pgbench ends well") or diag($run->{out}, $run->{err});
	is($run->{failed}, 0, "node $run->{node}: every transaction was committed in the end");
	cmp_ok($run->{done}, '>', 0, "node $run->{node}: $run->{done} transactions, $run->{retried} of them retried, $run->{tps} a second");
	$done    += $run->{done};
	$retried += $run->{retried};
}

# ---- what it left ----
$c->settle;
for my $i ($c->all)
{
	my ($accounts, $tellers, $branches, $history) = split /\|/, $c->sql($i,
		q{SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
				 (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)});
	is("$tellers $branches $history", "$accounts $accounts $accounts", "node $i: the sums of balances agree ($accounts)");
	is($c->sql($i, 'SELECT count(*) FROM pgbench_history'), $done, "node $i: each of the $done transactions exactly once");
}
$c->same_content("same rows on every node after $done transactions ($retried retried)");
is($c->status($_, 'node_state'), 'SYNCED', "node $_ is still synced") for $c->all;
$c->log_clean('no errors but serialization failures in the logs');

done_testing();
