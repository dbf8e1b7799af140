# Every node dies, and some never come back.  Two of three form the cluster again
# by themselves; one of three waits, says whom it misses, and goes on only when an
# operator has been told what may be lost.  Whoever comes back later with more
# than that is refused with words, and keeps its data.

use strict;
use warnings;

use MgCluster;
use MgLoad;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

# A paused member stays one, so that it misses something; a dead one goes soon.
my $c = MgCluster->new(nodes => 3, conf => "fsync = on\nmgrepl.sst_method = 'none'\nmgrepl.suspect_timeout = 2s\nmgrepl.inactive_timeout = 20s\n",
	setup => $MgLoad::tables);
my $uuid = $c->status(1, 'cluster_uuid');

# ---- one of three never comes back ----
{
	my $name = 'one is lost';
	my $load = MgLoad->start($c, rate => 100);

	MgCluster::wait_for('some load', sub { $load->count('a') > 200 });
	$c->kill_node($c->all);
	$load->stop;
	$c->start_node($_) for 3, 2;
	ok(eval { $c->wait_synced($_) for 2, 3; 1 }, "$name: the other two form the cluster by themselves") or diag($@);
	$c->wait_size(2, 2, 3);
	pass("$name: it is no member any more");
	for my $i (2, 3)
	{
		is($c->status($i, 'cluster_uuid'), $uuid, "$name: node $i is in the same cluster");
		my $r = $c->try($i, 'UPDATE hot SET v = v WHERE id = 1');
		ok($r->{ok}, "$name: node $i takes writes") or diag($r->{err});
	}
	$load->check($name, 2, 3);

	# Found again after all.
	my $from = -s $c->node(1)->logfile;
	$c->start_node(1);
	ok(eval { $c->wait_synced(1); 1 }, "$name: when it is found it is taken in again") or diag($@);
	$c->wait_size(3);
	like(slurp_file($c->node(1)->logfile, $from), qr/join: admitted, catching up from seqno \d+/, "$name: from the others' logs");
	$load->check("$name and found");
}

# ---- two of three never come back ----
{
	my $name = 'two are lost';

	# Node 1 stands still while the others go on: they hold what it does not have.
	if ($c->leader(1) == 1)
	{
		$c->pause(1, 'provider only');
		$c->wait_sql($_, q{SELECT value <> 'n1' FROM mgrepl.status WHERE name = 'leader'}, 't') for 2, 3;
		$c->resume(1);
		$c->wait_synced($_) for $c->all;
	}
	$c->settle;
	my $load = MgLoad->start($c, nodes => [ 2, 3 ], rate => 100);
	$c->pause(1, 'provider only');
	my $paused_at = MgLoad::now();
	$load->wait_for_ack($_, $paused_at) for 2, 3;
	my $n = $load->count('a');
	MgCluster::wait_for('more load', sub { $load->count('a') > $n + 100 });
	$c->kill_node($c->all);
	$load->stop;
	my %before = map { $_ => -s $c->node($_)->logfile } $c->all;

	$c->start_node(1);
	MgCluster::wait_for('its search', sub { slurp_file($c->node(1)->logfile, $before{1}) =~ /-> NON_PRIMARY: started, in search of the other members/ });
	$c->wait_sql(1, q{SELECT value FROM mgrepl.status WHERE name = 'node_state'}, 'NON_PRIMARY');
	my $kept = $c->status(1, 'log_last');
	$c->refuses(1, 'UPDATE hot SET v = v WHERE id = 1', '57P03', qr/primary component/, "$name: one of three takes no writes");
	my $r = $c->refuses(1, 'SELECT mgrepl.bootstrap()', '55000', qr/other members: n2, n3; .*after seqno $kept\b/,
		"$name: bootstrap() says whom it misses and from where on something may be lost");
	like($r->{hint} // '', qr/force => true/, "$name: and how to go on without them");
	is($c->status(1, 'node_state'), 'NON_PRIMARY', "$name: and has done nothing");

	$r = $c->try(1, 'SELECT mgrepl.bootstrap(force => true)');
	ok($r->{ok}, "$name: bootstrap(force => true) goes on") or diag($r->{err});
	like($r->{err}, qr/WARNING:.*goes on without n2, n3: transactions after seqno $kept that only they hold are lost/, "$name: and says what that costs");
	like(slurp_file($c->node(1)->logfile, $before{1}), qr/group: this node goes on without n2, n3: transactions after seqno $kept/, "$name: the log, too");
	$c->wait_synced(1);
	$c->wait_size(1, 1);
	$r = $c->try(1, 'UPDATE hot SET v = v WHERE id = 1');
	ok($r->{ok}, "$name: it takes writes") or diag($r->{err});
	is($c->status(1, 'cluster_uuid'), $uuid, "$name: it is the same cluster");

	# What was acknowledged while it had everything is there; what is missing is what it was warned of.
	my ($lost) = $load->compare(1);
	cmp_ok(scalar @$lost, '>=', 100, "$name: what only the others had acknowledged is not there");
	is(scalar(grep { $_->{done} < $paused_at } @$lost), 0, "$name: everything else is");

	# ---- one that holds more comes back ----
	$name = 'one that holds more';
	my $rows = sub { return $c->sql($_[0], 'SET mgrepl.dirty_reads = on; SELECT count(*) FROM acked') };
	$c->start_node(2);
	my $own = $rows->(2);
	my $told = qr/another transaction at seqno \d+ than the cluster|is ahead of the cluster|holds transactions that the cluster has lost|history differs from the cluster's/;
	ok(eval { MgCluster::wait_for('a refusal', sub { $c->status(2, 'node_state_reason') =~ $told }); 1 }, "$name: is refused with words")
	  or diag($c->status(2, 'node_state') . ': ' . $c->status(2, 'node_state_reason'));
	like($c->status(2, 'node_state_reason'), $told, "$name: " . $c->status(2, 'node_state_reason'));
	ok(!$c->try(2, 'UPDATE hot SET v = v WHERE id = 1')->{ok}, "$name: takes no writes");
	is($rows->(2), $own, "$name: keeps its data");
	cmp_ok($own, '>', $c->sql(1, 'SELECT count(*) FROM acked'), "$name: which is more than the cluster's");
	$r = $c->try(1, 'UPDATE hot SET v = v WHERE id = 2');
	ok($r->{ok}, "$name: the cluster goes on") or diag($r->{err});
	is($c->status(1, 'cluster_size'), 1, "$name: without it");
}

is(join('', grep { /PANIC|TRAP/ } $c->unexpected_log), '', 'no process crashed by itself');

done_testing();
