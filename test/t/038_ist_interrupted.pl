# A node that was away fetches what it has missed from the others' logs, and that
# is interrupted: the member it fetches from is killed, stopped or stands still,
# or it is killed itself.  It goes on with another member, from where it was; the
# others' commits go on meanwhile.

use strict;
use warnings;

use MgCluster;
use MgLoad;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $patience_s = 120;
my $suspect_s = 2;

# Four nodes: without the joiner and the member that it loses there is still a majority.
my $c = MgCluster->new(nodes => 4,
	conf => "fsync = on\nmgrepl.sst_method = 'none'\nmgrepl.gcache_size = 2GB\nmgrepl.suspect_timeout = ${suspect_s}s\n",
	setup => $MgLoad::tables . q{
CREATE TABLE big (id int PRIMARY KEY, v text);
ALTER TABLE big ALTER v SET STORAGE EXTERNAL;
});
my $n_big = 0;

# About $mb megabytes of writesets, in transactions of 200 kB; made on node $i.
sub history
{
	my ($i, $mb) = @_;
	my $n = 5 * $mb;
	$c->sql($i, "DO \$\$ BEGIN FOR g IN 1 .. $n LOOP INSERT INTO big SELECT $n_big + g, repeat(md5(g::text), 6250); COMMIT; END LOOP; END \$\$");
	$n_big += $n;
	return $c->status($i, 'committed_seqno');
}

sub log_of { my ($i, $from) = @_; return slurp_file($c->node($i)->logfile, $from); }

for my $how ('kill of the donor', 'stop of the donor', 'a donor that stands still', 'kill of the joiner')
{
	my $joiner = 4;
	my $from = -s $c->node($joiner)->logfile;
	my @others = grep { $_ != $joiner } $c->all;

	# Away, and taken out of the view.
	$c->settle;
	$how eq 'stop of the donor' ? $c->node($joiner)->stop : $c->kill_node($joiner);
	$c->wait_size(3, @others);
	history(1, 30);
	$c->settle(@others);
	my $load = MgLoad->start($c, nodes => \@others, clients => 2, rate => 40);

	# The donor is the leader; held still, it cannot give everything before it is ended.
	my $donor = $c->leader(1);
	my @rest = grep { $_ != $donor } @others;

	$c->start_node($joiner);
	my $started = MgLoad::now();
	my $admitted = qr/join: admitted, catching up from seqno (\d+) to (\d+)/;
	MgCluster::wait_for('its admission', sub { log_of($joiner, $from) =~ $admitted }, $patience_s);
	if ($how eq 'kill of the joiner')
	{
		$c->kill_node($joiner);
		$started = MgLoad::now();
		$c->start_node($joiner);
	}
	elsif ($how eq 'kill of the donor')
	{
		$c->kill_node($donor);
	}
	elsif ($how eq 'stop of the donor')
	{
		$c->node($donor)->stop('fast');
	}
	else
	{
		$c->pause($donor);
	}
	my $hit = MgLoad::now();
	my $middle = log_of($joiner, $from) !~ /-> SYNCED/;

	my $synced = eval { $c->wait_synced($joiner, $patience_s); 1 };
	ok($synced, sprintf "$how: the joiner is SYNCED, %.1f s after that", MgLoad::now() - $hit) or diag($@);
	ok($middle, "$how: it was not SYNCED before");
	for my $i ($how =~ /donor/ ? @rest : @others)
	{
		my $done = eval { $load->wait_for_ack($i, $hit, $patience_s) };
		my $gap = defined $done ? $load->gap($i, $started, $done) : 1e9;
		cmp_ok($gap, '<', $how =~ /donor/ ? 8 : 3, sprintf "$how: node $i goes on, longest time without a commit %.2f s", $gap);
	}
	my @fetches = log_of($joiner, $from) =~ /$admitted/g;
	note("$how: admitted ", join ', ', map { "$fetches[2 * $_] to $fetches[2 * $_ + 1]" } 0 .. @fetches / 2 - 1);
	unlike(log_of($joiner, $from), qr/snapshot/, "$how: without a copy of the data");
	my @starts = @fetches[ grep { $_ % 2 == 0 } 0 .. $#fetches ];
	is("@starts", join(' ', sort { $a <=> $b } @starts), "$how: never from further back than before");

	if ($how =~ /still/)
	{
		$c->resume($donor);
	}
	elsif ($how =~ /donor/)
	{
		$c->start_node($donor);
	}
	for my $i ($c->all)
	{
		ok(eval { $c->wait_synced($i, $patience_s); 1 }, "$how: node $i is SYNCED at the end") or diag($@);
	}
	$c->wait_size(4);
	$load->check($how);
}

# ---- undisturbed: the donor and the others go on while one fetches ----
{
	my $name = 'undisturbed';
	$c->kill_node(4);
	my $from = -s $c->node(4)->logfile;
	$c->wait_size(3, 1 .. 3);
	history(2, 30);
	my $load = MgLoad->start($c, nodes => [ 1 .. 3 ], clients => 2, rate => 60);
	my $started = MgLoad::now();
	$c->start_node(4);
	ok(eval { $c->wait_synced(4, $patience_s); 1 }, sprintf "$name: it is back after %.1f s", MgLoad::now() - $started) or diag($@);
	for my $i (1 .. 3)
	{
		my $done = $load->wait_for_ack($i, MgLoad::now());
		my $gap = $load->gap($i, $started, $done);
		cmp_ok($gap, '<', 2, sprintf "$name: node $i goes on, longest time without a commit %.2f s", $gap);
	}
	unlike(log_of(4, $from), qr/snapshot/, "$name: without a copy of the data");
	$load->check($name);
}

is($c->sql($_, 'SELECT count(*) FROM big'), $n_big, "node $_ has all of it") for $c->all;
is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed by itself, no node became inconsistent');

done_testing();
