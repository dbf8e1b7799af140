# MgArbitrator - arbitrators on this machine, for tests.

package MgArbitrator;

use strict;
use warnings;

use Carp;
use IPC::Run;
use JSON::PP qw(decode_json);

use MgCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my %running;

=head1 MgArbitrator->new($name, option => value, ..., dir => ..., net => [MgNetns, number])

One that is not started yet, with a configuration file of these options; with
C<net>, in that network.

=cut

sub new
{
	my ($class, $name, %options) = @_;
	my $tmp = $PostgreSQL::Test::Utils::tmp_check;
	my ($net, $in) = @{ delete $options{net} // [] };
	my $self = bless {
		name    => $name,
		enter   => $net ? [ 'nsenter', "--net=/proc/$net->{holders}[$in]{pid}/ns/net", qw(setpriv --ambient-caps=-all --inh-caps=-all) ] : [],
		dir     => delete $options{dir} // "$tmp/$name",
		config  => "$tmp/$name.conf",
		logfile => "$tmp/log/$name.log",
		address => ($net ? $net->host($in) : '127.0.0.1') . ':' . PostgreSQL::Test::Cluster::get_free_port(),
	}, $class;

	$self->{options} = { node_name => $name, data_dir => $self->{dir}, listen_address => $self->{address}, %options };
	$self->_write;
	return $self;
}

sub _write
{
	my ($self) = @_;
	open my $f, '>', $self->{config} or croak "$self->{config}: $!";
	print $f "# an arbitrator of a test\n", map { "$_ = '$self->{options}{$_}'\n" } sort keys %{ $self->{options} };
	close $f or croak $!;
	return;
}

# Changes an option in its file.
sub set
{
	my ($self, %options) = @_;
	@{ $self->{options} }{ keys %options } = values %options;
	$self->_write;
	return;
}

sub address { return $_[0]{address}; }
sub dir     { return $_[0]{dir}; }
sub config  { return $_[0]{config}; }
sub log     { return -e $_[0]{logfile} ? slurp_file($_[0]{logfile}) : ''; }

sub start
{
	my ($self) = @_;
	$self->{run} = IPC::Run::start([ @{ $self->{enter} }, 'mgrepl-arbitrator', "--config=$self->{config}" ],
		'<', '/dev/null', '>>', $self->{logfile}, '2>&1');
	$self->{pid} = ($self->{run}->{KIDS}[0]{PID});
	$running{ $self->{pid} } = 1;
	return;
}

sub signal
{
	my ($self, $signal) = @_;
	kill $signal, $self->{pid};
	return;
}

# Returns the exit code, or minus the signal.
sub _end
{
	my ($self, $signal) = @_;
	kill $signal, $self->{pid};
	$self->{run}->finish;
	delete $running{ $self->{pid} };
	return $? & 127 ? -($? & 127) : $? >> 8;
}

sub kill9 { my ($self) = @_; return $self->_end('KILL'); }
sub stop  { my ($self) = @_; return $self->_end('TERM'); }

# Runs the program with these arguments to its end: { exit, out, err }.
sub run
{
	my ($self, @args) = @_;
	my %r = (out => '', err => '');
	IPC::Run::run([ 'mgrepl-arbitrator', @args ], '<', '/dev/null', '>', \$r{out}, '2>', \$r{err},
		IPC::Run::timeout($MgCluster::deadline_s));
	$r{exit} = $? >> 8;
	return \%r;
}

# What --status tells, and its exit code.
sub status
{
	my ($self) = @_;
	my $r = $self->run('--status', "--config=$self->{config}");
	return { %$r, $r->{out} ne '' ? %{ decode_json($r->{out}) } : () };
}

sub state { my ($self) = @_; return $self->status->{state} // ''; }

sub wait_state
{
	my ($self, $state, $seconds) = @_;
	return MgCluster::wait_for("arbitrator $self->{name} to be $state", sub { $self->state eq $state }, $seconds);
}

END
{
	kill 'KILL', keys %running if %running;
}

1;
