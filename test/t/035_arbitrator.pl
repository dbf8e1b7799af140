# Two nodes and an arbitrator are three: whoever of the nodes dies, the other goes
# on writing; the arbitrator holds no data, is the same member after a kill -9,
# tells its state, has a member backed up, and refuses what is wrong with words.

use strict;
use warnings;

use MgArbitrator;
use MgCluster;
use MgLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my $c = MgCluster->new(nodes => 2, conf => "listen_addresses = '127.0.0.1'\n",
	setup => $MgLoad::tables . 'CREATE TABLE written (n int PRIMARY KEY);');
my $a = MgArbitrator->new('arb', cluster_name => 'test', cluster_address => 'gcomm://' . $c->address(1));

# ---- into the cluster ----

$a->start;
$a->wait_state('SYNCED');
$c->wait_size(3);
is($c->sql(1, "SELECT name, address, synced FROM mgrepl.members WHERE role = 'arbitrator'"),
	'arb|' . $a->address . '|t', 'the nodes see the arbitrator');
my $status = $a->status;
is($status->{exit}, 0, '--status in the primary component: exit code 0');
is_deeply([ sort map { "$_->{name} $_->{role}" } @{ $status->{members} } ],
	[ sort 'arb arbitrator', map { $c->node($_)->name . ' data' } $c->all ], 'it sees all members');
like($status->{cluster_uuid}, qr/^[0-9a-f-]{36}$/, 'and knows the cluster');
is((grep { $_->{is_leader} } @{ $status->{members} })[0]{role}, 'data', 'it does not lead');
ok(!(grep { -s > 1024 * 1024 } glob($a->dir . '/*')), 'it keeps next to nothing on disk');

my $second = $a->run('--data-dir=' . $a->dir, '--listen-address=127.0.0.1:1', '--cluster-address=127.0.0.1:2');
ok($second->{exit} == 1 && $second->{err} =~ /another arbitrator \(process \d+\) uses/, 'its directory takes no second process');

# ---- it forgets nothing ----

sub member_of
{
	my ($name) = @_;
	return $c->sql(1, "SELECT id FROM mgrepl.members WHERE name = '$name'");
}

my $id = member_of('arb');
$a->kill9;
my $none = $a->status;
ok($none->{exit} == 3 && $none->{err} =~ /no arbitrator runs in/, '--status of none: exit code 3, with words');
ok($c->try(1, 'INSERT INTO written VALUES (1)')->{ok}, 'the nodes write without it');
$a->start;
$a->wait_state('SYNCED');
is(member_of('arb'), $id, 'killed and started again it is the same member');

# ---- each node dies once; the other goes on ----

for my $dead (1, 2)
{
	my $alive = 3 - $dead;
	my $load = MgLoad->start($c, clients => 2, rate => 50);
	$load->wait_for_ack($_, MgLoad::now()) for 1, 2;
	$c->kill_node($dead);
	ok(eval { $load->wait_for_ack($alive, MgLoad::now(), 20) }, "node $dead is killed: node $alive goes on writing") or diag($@);
	is($c->status($alive, 'node_state'), 'SYNCED', "node $alive is in the primary component");
	is($a->state, 'SYNCED', 'and so is the arbitrator');
	$c->start_node($dead);
	ok(eval { $c->wait_synced($dead) }, "node $dead comes back") or diag($@);
	$load->stop;
	$load->check("node $dead was killed");
	$c->wait_size(3);
}
$c->same_content('both nodes are the same');

# ---- with the arbitrator dead, the second to die stops the last ----

$a->kill9;
$c->kill_node(2);
ok(eval { $c->wait_sql(1, "SELECT value FROM mgrepl.status WHERE name = 'node_state'", 'NON_PRIMARY', 20) },
	'one of three alone takes no writes') or diag($@);
$a->start;
ok(eval { $c->wait_synced(1, 20) }, 'the arbitrator comes back: they are a majority') or diag($@);
ok($c->try(1, 'INSERT INTO written VALUES (2)')->{ok}, 'and write');
is(member_of('arb'), $id, 'it is the same member still');
$c->start_node(2);
$c->wait_synced(2);
$c->wait_size(3);

# ---- a backup by its knowledge ----

my $backup = $a->run('backup', "--target=$tmp/backup", '--data-dir=' . $a->dir,
	'--username=' . $c->sql(1, 'SELECT current_user'), '--donor=' . $c->node(2)->name);
is($backup->{exit}, 0, 'backup of a member that it names') or diag($backup->{err});
like(slurp_file("$tmp/backup/mgrepl_backup_label"), qr/^GTID: [0-9a-f-]{36}:\d+\nNODE: @{[ $c->node(2)->name ]}\n/m,
	'with its position recorded');
my $wrong_donor = $a->run('backup', "--target=$tmp/backup2", '--data-dir=' . $a->dir, '--donor=nobody');
ok($wrong_donor->{exit} == 1 && $wrong_donor->{err} =~ /no member named "nobody"/, 'a donor that there is not: refused with words');

# ---- a copy of its directory is not it ----

system('cp', '-a', $a->dir, "$tmp/copy") == 0 or die 'cp';
my $copy = MgArbitrator->new('arb2', cluster_name => 'test', cluster_address => 'gcomm://' . $c->address(1), dir => "$tmp/copy");
$copy->start;
$copy->wait_state('SYNCED');
$c->wait_size(4);
isnt(member_of('arb2'), $id, 'a copy of its directory joins as another member');
like($copy->log, qr/is a copy of another arbitrator's directory/, 'and says so');

# ---- leaving, reloading ----

is($copy->stop, 0, 'SIGTERM: it ends well');
$c->wait_size(3);
pass('and has left the cluster');
$a->set(log_level => 'debug');
$a->signal('HUP');
MgCluster::wait_for('SIGHUP to be served', sub { $a->log =~ /configuration read again, log_level is debug/ });
pass('SIGHUP reads log_level again');
$a->set(weight => 7);
$a->signal('HUP');
MgCluster::wait_for('SIGHUP to be served', sub { $a->log =~ /they need a restart/ });
pass('what cannot change at once is told');
$a->set(weight => 1000);
$a->signal('HUP');
MgCluster::wait_for('SIGHUP to be served', sub { $a->log =~ /the configuration is not used: .*weight: "1000" is not between 0 and 255/ });
pass('a wrong file is told and not used');
$a->set(weight => 1);
is($a->state, 'SYNCED', 'it goes on');

# ---- detached ----

my $d = MgArbitrator->new('arb3', cluster_name => 'test', cluster_address => 'gcomm://' . $c->address(2));
my $detached = $d->run('--config=' . $d->config, '--daemonize', "--pid-file=$tmp/arb3.pid");
is($detached->{exit}, 0, '--daemonize returns when it listens') or diag($detached->{err});
$d->wait_state('SYNCED');
chomp(my $pid = slurp_file("$tmp/arb3.pid"));
is($d->status->{pid}, $pid, 'pid_file holds its process id');
kill 'TERM', $pid;
MgCluster::wait_for('the detached one to end', sub { !kill 0, $pid });
ok(!-e "$tmp/arb3.pid", 'pid_file is gone with it');
like(slurp_file($d->dir . '/mgrepl-arbitrator.log'), qr/left the cluster/, 'it logs into its directory');
$c->wait_size(3);

# ---- what is wrong ----

my $wrong = MgArbitrator->new('wrong', cluster_name => 'other', cluster_address => 'gcomm://' . $c->address(1));
$wrong->start;
MgCluster::wait_for('the refusal', sub { $wrong->log =~ /cannot join: this is cluster "test", not "other"/ });
pass('another cluster name: refused with words');
my $refused = $wrong->status;
ok($refused->{exit} == 4 && $refused->{reason} =~ /this is cluster "test"/, '--status tells them too: exit code 4');
is($wrong->stop, 0, 'one that never joined ends well');
my $twin = MgArbitrator->new('twin', node_name => 'arb', cluster_name => 'test', cluster_address => 'gcomm://' . $c->address(1));
$twin->start;
MgCluster::wait_for('the refusal', sub { $twin->log =~ /cannot join: a member named "arb" is in the cluster already/ });
pass('a name that is taken: refused with words');
$twin->stop;

for my $case (
	[ ['--weight=300'], qr/weight: "300" is not between 0 and 255/ ],
	[ ['--segment=x'], qr/segment: "x" is not a number/ ],
	[ ['--suspect-timeout=5 parsecs'], qr/suspect_timeout: "5 parsecs" is not a time/ ],
	[ ['--keepalive_period=1s'], qr/keepalive_period must be less than a third/ ],
	[ ['--inactive-timeout=100ms'], qr/inactive_timeout must not be less/ ],
	[ ['--listen-address=here'], qr/listen_address: address "here" is not valid: the port is missing/ ],
	[ ['--listen-address=*:5701'], qr/does not say where the others reach/ ],
	[ ['--node-address=*:5701'], qr/not an address that others can connect to/ ],
	[ ['--cluster-address=gcomm://a:1,,b:2'], qr/cluster_address: "" is not valid: it is empty/ ],
	[ ['--node-name='], qr/node_name: the value is empty/ ],
	[ [ '--node-name=' . 'x' x 64 ], qr/node_name: the value has 64 bytes/ ],
	[ ['--log-level=loud'], qr/there is no level "loud"/ ],
	[ ['--nonsense'], qr/unrecognized option/ ],
	[ ['nonsense'], qr/there is no command "nonsense"/ ],
	[ ["--config=$tmp/none.conf"], qr/configuration file ".*none.conf" cannot be read: No such file/ ],
	[ ['backup'], qr/backup needs --target/ ],
	[ [ '--target=x' ], qr/belong to the command backup/ ])
{
	my $r = $a->run(@{ $case->[0] });
	ok($r->{exit} == 2 && $r->{err} =~ $case->[1],
		"@{$case->[0]}: refused with words") or diag("exit $r->{exit}: $r->{err}");
}
append_to_file("$tmp/bad.conf", "cluster_name = 'test'\nweight 3\n");
my $bad = $a->run("--config=$tmp/bad.conf");
ok($bad->{exit} == 2 && $bad->{err} =~ /bad.conf, line 2: "weight 3" has no =/, 'a wrong line is told with its number') or diag($bad->{err});
my $nobody = $a->run("--data-dir=$tmp/nobody", '--listen-address=127.0.0.1:1');
ok($nobody->{exit} == 1 && $nobody->{err} =~ /cluster_address is not set/, 'nobody to join: refused with words') or diag($nobody->{err});
my $taken = $a->run("--data-dir=$tmp/taken", '--listen-address=' . $a->address, '--cluster-address=' . $c->address(1));
ok($taken->{exit} == 1 && $taken->{err} =~ /cannot bind/, 'an address in use: refused with words') or diag($taken->{err});

is($a->stop, 0, 'the arbitrator ends well');
$c->wait_size(2);
ok($c->try(1, 'INSERT INTO written VALUES (3)')->{ok}, 'the nodes go on');
$c->same_content('both nodes are the same at the end');

done_testing();
