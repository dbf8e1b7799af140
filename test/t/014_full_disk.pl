# The disk under the writeset log of one node is full, of the leader first, then
# of a follower.  It stops to acknowledge, the others go on; with room again it
# comes back by itself.

use strict;
use warnings;

use MgNetns;
use MgCluster;
use MgLoad;
use Test::More;

plan skip_all => MgNetns::reason() if MgNetns::reason();

my $disk = "$PostgreSQL::Test::Utils::tmp_check/disk";
mkdir $disk or die "$disk: $!";
$disk = Cwd::abs_path($disk);
system('mount', '-t', 'tmpfs', '-o', 'size=80m,mode=0700', 'tmpfs', $disk) == 0 or BAIL_OUT('mount failed');

my $c = MgCluster->new(
	nodes     => 3,
	conf      => "mgrepl.gcache_size = '64MB'\nlog_min_error_statement = panic\n",	# the statements are long
	node_conf => { 1 => "mgrepl.gcache_dir = '$disk/gcache'\n", map { $_ => "mgrepl.gcache_dir = 'pgsql_tmp.mgrepl'\n" } 2, 3 },
	setup     => $MgLoad::tables);

my $offset = 0;

# Takes all the room there is; gives the bytes that it got.
sub fill
{
	my $got = 0;
	open my $f, '>', "$disk/filler" or die "filler: $!";
	for my $size (1024 * 1024, 4096)
	{
		my $n;
		$got += $n while ($n = syswrite $f, 'x' x $size);
	}
	close $f;
	return $got;
}

for my $who (qw(leader follower))
{
	my $name = "the disk of the $who is full";
	is($c->leader(2) == 1 ? 'leader' : 'follower', $who, "$name: node 1 it is");

	# Segments of the log are made in advance: it takes a while to fill them.
	my $load = MgLoad->start($c, rate => 60, pad => 50_000);
	my $full_at = MgLoad::now();

	cmp_ok(fill(), '>', 0, "$name: no room is left");
	ok(eval { $c->wait_sql(1, q{SELECT value <> 'SYNCED' FROM mgrepl.status WHERE name = 'node_state'}, 't'); 1 },
		"$name: node 1 is out of the primary component") or diag($@);
	$c->refuses(1, 'UPDATE hot SET v = v WHERE id = 1', '57P03|55000', qr/takes no writes|not ready for writes/, "$name: node 1 takes no writes");
	my $out_at = MgLoad::now();
	$load->wait_for_ack($_, $out_at) for 2, 3;
	my $until = MgLoad::now();
	for my $i (2, 3)
	{
		my $gap = $load->gap($i, $full_at, $until);
		cmp_ok($gap, '<', 3, sprintf "$name: node $i goes on, longest time without a commit %.2f s", $gap);
	}
	like(PostgreSQL::Test::Utils::slurp_file($c->node(1)->logfile, $offset), qr/FATAL: .* the writeset log in .* failed: No space left/,
		"$name: node 1 says why");
	unlink "$disk/filler" or die "filler: $!";
	my $free_at = MgLoad::now();
	ok(eval { $c->wait_synced(1); $load->wait_for_ack(1, $free_at); 1 }, "$name: with room again it comes back by itself") or diag($@);
	$offset = -s $c->node(1)->logfile;
	$c->wait_size(3);
	$load->check($name);
}

is(join('', grep { /PANIC|TRAP|inconsistent/i } $c->unexpected_log), '', 'no process crashed, no node became inconsistent');

done_testing();
