# A backup is restored and becomes the cluster; what is left of the history that
# went on behind it has the same cluster's uuid and seqnos that the new one has
# reached as well.  Nobody of it may be let in with what he has.

use strict;
use warnings;

use MgCluster;
use Test::More;

my $c = MgCluster->new(nodes => 2, conf => $MgCluster::transfer_conf, setup => 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql(1, q{INSERT INTO t VALUES (1, 'both')});
$c->settle;
my $restored = $c->add_node(join => 0);
$c->node($restored)->stop;
$c->sql(1, "INSERT INTO t VALUES ($_, 'old')") for 10 .. 20;
$c->settle(1, 2);
my $newer = $c->add_node(join => 0);    # a copy without a log
$c->node($newer)->stop;
$c->sql(1, "INSERT INTO t VALUES ($_, 'old')") for 30 .. 40;
my $old = $c->settle(1, 2);
$c->kill_node(1, 2);

$c->start_node($restored);
$c->refuses($restored, 'SELECT mgrepl.bootstrap()', '55000', qr/members this node does not know/, 'a copy makes no second cluster by accident');
$c->command($restored, 'SELECT mgrepl.bootstrap(force => true)');
$c->wait_synced($restored);
$c->sql($restored, "INSERT INTO t VALUES ($_, 'new')") for 110 .. 150;
cmp_ok($c->settle($restored), '>', $old, 'the restored cluster has got further than the old one');

sub joins
{
	my ($i, $name) = @_;
	$c->command($i, "SELECT mgrepl.join('gcomm://" . $c->address($restored) . "')");
	$c->wait_synced($i);
	like(PostgreSQL::Test::Utils::slurp_file($c->node($i)->logfile), qr/snapshot: needed, .*another transaction/, "$name takes a snapshot");
	$c->same_content($name, $restored, $i);
	return;
}

$c->start_node($newer);
joins($newer, 'a newer backup');
$c->start_node(2);
$c->command(2, 'SELECT mgrepl.leave()');
joins(2, 'a former member');

# ---- a copy of what is lost by a forced bootstrap ----
$c->node($newer)->stop;
$c->sql($restored, q{INSERT INTO t VALUES (200, 'of all')});
$c->settle($restored, 2);
$c->kill_node(2);
my $r = $c->try($restored, q{SET mgrepl.commit_timeout = '2s'; INSERT INTO t VALUES (201, 'of nobody')});
isnt($r->{ok}, 1, 'without a majority nothing is committed');
$c->kill_node($restored);
$c->start_node(2);
$c->command(2, 'SELECT mgrepl.bootstrap(force => true)');
$c->wait_synced(2);
$c->sql(2, "INSERT INTO t VALUES ($_, 'after')") for 300 .. 310;
my $copy = $c->add_node(join => 0, from => 2);
$c->node($copy)->stop;
$c->kill_node(2);
$c->start_node($restored);
$c->command($restored, 'SELECT mgrepl.bootstrap(force => true)');
$c->wait_synced($restored);
$c->sql($restored, "INSERT INTO t VALUES ($_, 'another')") for 400 .. 430;
$c->start_node($copy);
$c->command($copy, "SELECT mgrepl.join('gcomm://" . $c->address($restored) . "')");
$c->wait_synced($copy);
$c->same_content('a copy of what a second forced bootstrap gave up', $restored, $copy);
done_testing();
