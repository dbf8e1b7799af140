# MgNetns - each node in a network of its own, with links that can be cut.
#
# "use MgNetns;" starts the test again inside a user, a network and a mount
# namespace of its own: there it may make networks and mount file systems
# without being root, and all of that ends with its last process.  Where the
# machine does not allow that, MgNetns::reason() says why.
#
# Every node sits in a network namespace with one cable to the test's own,
# which routes between them.  A link is cut by a rule of that router: packets
# vanish on their way, nobody is told, and no process on either side can know
# otherwise than by waiting.  Clients come through unix sockets, which are not
# part of a network.
#
#                  10.99.1.1  router  10.99.2.1
#    node 1  10.99.1.2 /                  \ 10.99.2.2  node 2

package MgNetns;

use strict;
use warnings;

use Carp;
use Cwd;
use Test::More;

use PostgreSQL::Test::Utils ();

my @unshare = qw(unshare --user --map-current-user --keep-caps --net --mount);
my $reason;

sub import
{
	return if $^C;				# perl -c only compiles
	if ($ENV{MG_INSIDE})
	{
		system('ip link set lo up') == 0 or croak 'ip: no loopback';
		return;
	}
	my $probe = 'set -e; ip link set lo up; ip link add mga type veth peer name mgb;'
	  . ' echo 1 >/proc/sys/net/ipv4/ip_forward; ip rule add from 10.99.1.2 to 10.99.2.2 blackhole;'
	  . ' mount -t tmpfs tmpfs /mnt; command -v nsenter setpriv';
	my $said = join ' ', map { s/\s+$//r } qx{@unshare sh -c '$probe' 2>&1};
	if ($?)
	{
		$reason = "this machine does not let the test make namespaces, links, routes and mounts: $said";
		return;
	}
	$ENV{MG_INSIDE} = 1;
	my $script = Cwd::abs_path($0);
	exec @unshare, $^X, $script, @ARGV or croak "unshare: $!";
}

# Why there are no networks here; undef if there are.
sub reason { return $reason; }

=head1 MgNetns->new(nodes => 3)

=cut

sub new
{
	my ($class, %p) = @_;
	my $self = bless { n => $p{nodes} // 3, holders => [], cut => {}, owner => $$,
		dir => "$PostgreSQL::Test::Utils::tmp_check/netns" }, $class;

	PostgreSQL::Test::Utils::append_to_file('/proc/sys/net/ipv4/ip_forward', "1\n");
	mkdir $self->{dir} or croak "$self->{dir}: $!";
	$self->_make($_) for 1 .. $self->{n};
	return $self;
}

# The namespace lives as long as a process in it: one that ends with this test.
sub _make
{
	my ($self, $i) = @_;
	my $pid = open my $pipe, '|-', 'unshare', '--net', 'sh', '-c', 'exec cat >/dev/null' or croak "unshare: $!";
	$self->{holders}[$i] = { pid => $pid, pipe => $pipe };

	# It is there when its network is another one than ours.
	MgCluster::wait_for("network $i", sub { (readlink("/proc/$pid/ns/net") // '') ne readlink('/proc/self/ns/net') });
	$self->_ip(<<"END");
link add mg$i type veth peer name eth0 netns $pid
address add 10.99.$i.1/24 dev mg$i
link set mg$i up
END
	my $said = qx{nsenter --net=/proc/$pid/ns/net sh -c 'ip link set lo up && ip address add 10.99.$i.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.99.$i.1' 2>&1};
	croak "network $i: $said" if $?;

	# pg_ctl starts the server of this node there, and without our privileges.
	my $bin = $self->path($i);
	my ($pg_ctl) = grep { -x } map { "$_/pg_ctl" } split /:/, $ENV{PATH};
	mkdir $bin or croak "$bin: $!";
	open my $f, '>', "$bin/pg_ctl" or croak "$bin: $!";
	print $f "#!/bin/sh\nexec nsenter --net=/proc/$pid/ns/net setpriv --ambient-caps=-all --inh-caps=-all '$pg_ctl' \"\$@\"\n";
	close $f;
	chmod 0755, "$bin/pg_ctl" or croak "$bin: $!";
	return;
}

sub path { my ($self, $i) = @_; return "$self->{dir}/$i"; }
sub host { my ($self, $i) = @_; return "10.99.$i.2"; }

sub _ip
{
	my ($self, $lines) = @_;
	open my $ip, '|-', 'ip', '-batch', '-' or croak "ip: $!";
	print $ip $lines;
	close $ip or croak "ip: failed:\n$lines";
	return;
}

# Packets from the first node to the second vanish; all rules of a call come into force at once.
sub cut_one_way
{
	my ($self, @pairs) = @_;
	my @new = grep { !$self->{cut}{"@$_"}++ } @pairs;
	$self->_ip(join '', map { "rule add from 10.99.$_->[0].2 to 10.99.$_->[1].2 blackhole\n" } @new);
	return;
}

sub cut
{
	my ($self, @pairs) = @_;
	$self->cut_one_way(map { ($_, [ reverse @$_ ]) } @pairs);
	return;
}

# No node of these hears one that is not among them.
sub isolate
{
	my ($self, @nodes) = @_;
	my %inside = map { $_ => 1 } @nodes;
	my @outside = grep { !$inside{$_} } 1 .. $self->{n};
	$self->cut(map { my $i = $_; map { [ $i, $_ ] } @outside } @nodes);
	return;
}

sub heal
{
	my ($self) = @_;
	$self->_ip(join '', map { my ($a, $b) = split; "rule del from 10.99.$a.2 to 10.99.$b.2 blackhole\n" } sort keys %{ $self->{cut} });
	$self->{cut} = {};
	return;
}

# Makes the cable of a node slow, with what this kernel has; says how, or undef if it has nothing.
sub slow
{
	my ($self, $i) = @_;
	for my $how ('netem delay 60ms 20ms loss 1%', 'tbf rate 2mbit burst 16kb latency 400ms')
	{
		my @failed = grep { system("$_ 2>/dev/null") != 0 }
		  "tc qdisc add dev mg$i root $how",
		  "nsenter --net=/proc/$self->{holders}[$i]{pid}/ns/net tc qdisc add dev eth0 root $how";
		return $how unless @failed;
	}
	return;
}

sub fast
{
	my ($self, $i) = @_;
	system("tc qdisc del dev mg$i root; nsenter --net=/proc/$self->{holders}[$i]{pid}/ns/net tc qdisc del dev eth0 root") == 0
	  or croak "tc failed";
	return;
}

1;
