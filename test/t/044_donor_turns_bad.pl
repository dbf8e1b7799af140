# A donor is found to differ from the cluster while it is being copied: the copy
# has its differences, known and unknown.  The joiner takes another donor's.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 3, conf => $MgCluster::transfer_conf, setup => qq{
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT g FROM generate_series(1, 1000) g;
});

# Copies, says so, and goes on when it may.
my $dir = PostgreSQL::Test::Utils::tempdir();
open my $f, '>', "$dir/slow" or die $!;
print $f <<"SH";
#!/bin/bash
set -e
"\$MGREPL_SST_BINDIR/pg_basebackup" -D "\$MGREPL_SST_DATADIR" -d "\$MGREPL_SST_CONNINFO" -X stream -c fast --no-manifest
touch "$dir/copied.\$MGREPL_SST_DONOR"
until [ -e "$dir/go" ] || [ "\$MGREPL_SST_DONOR" != n2 ]; do read -t 0.1 <> <(:) || :; done
SH
close $f;
chmod 0755, "$dir/slow";
my $new = $c->add_lone(conf => "mgrepl.sst_donor = 'n2'\nmgrepl.sst_method = '$dir/slow'\n");

$c->sql(2, q{SET mgrepl.replicate = off; DELETE FROM t WHERE id IN (471, 472)});
my $r = $c->try($new, "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')");
ok($r->{ok}, 'the copy begins') or diag($r->{err});
MgCluster::wait_for('the copy', sub { -e "$dir/copied.n2" });
$c->sql(1, 'UPDATE t SET n = -1 WHERE id = 471');
$c->wait_sql(2, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'INCONSISTENT');
$c->wait_sql(2, 'SELECT count(*) FROM mgrepl.donation_rows() WHERE pid <> 0', 0);
pass('it is no donor any more');
open $f, '>', "$dir/go" or die $!;
close $f;
$c->wait_synced($new);
like(PostgreSQL::Test::Utils::slurp_file($c->node($new)->logfile), qr/cannot be had from "n2": (?:the donor is gone|server closed the connection)/, 'its copy is not taken');
$c->same_content('the copy of another member', 1, 3, $new);

# ---- a name that a member has: told before the data is given up, not after ----
my $twin = $c->add_lone;
$c->sql($twin, q{CREATE TABLE mine (id int); ALTER SYSTEM SET mgrepl.node_name = 'n3'});
$c->node($twin)->restart;
MgCluster::wait_for('the provider', sub {
	$r = $c->try($twin, "SELECT mgrepl.join('gcomm://" . $c->address(1) . "')");
	return ($r->{message} // '') !~ /provider is not running/;
});
like($r->{message} // 'joined', qr/a member named "n3" is in the cluster already/, 'a name that is taken');
is($c->sql($twin, 'SELECT count(*) FROM mine'), 0, 'the data is as it was');
done_testing();
