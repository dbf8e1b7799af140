# MgLoad - clients that write all the time, and the book of what they were told.
#
# One process of its own holds some connections to each node and speaks
# PostgreSQL's protocol over their unix sockets itself, so that thousands of
# transactions a second cost little and the time of each answer is known.  Each
# transaction inserts a row that names it, (client, n), and adds one to a row
# that others change too.  What the client was told goes into a file:
#
#   a  acknowledged: committed, the row must be on every node
#   r  refused with an error: nothing happened, the row must be nowhere
#   u  the answer never came, or said that the outcome is not known
#
# A client that was refused or lost its connection goes on with its next number
# until it is told to stop.  Times are of the monotonic clock.

package MgLoad;

use strict;
use warnings;

use Carp;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Fcntl;
use POSIX ();
use Socket;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use Test::More;

use PostgreSQL::Test::Utils;

my $n_loads = 0;
my $n_clients = 0;
my $retry_s = 0.02;
my $hot_rows = 500;

# The tables of the load: for MgCluster->new's setup.
our $tables = qq{
CREATE TABLE acked (client int, n int, pad text, PRIMARY KEY (client, n));
CREATE TABLE hot (id int PRIMARY KEY, v int NOT NULL) WITH (fillfactor = 50);
INSERT INTO hot SELECT g, 0 FROM generate_series(0, $hot_rows - 1) g;
};

sub now { return clock_gettime(CLOCK_MONOTONIC); }

=head1 MgLoad->start($cluster, nodes => [1, 2], clients => 3, rate => 100, pad => 0)

Starts C<clients> connections to each of the nodes, which together try C<rate>
transactions a second on each node (0: as many as they can) with C<pad> bytes
of ballast each.

=cut

sub start
{
	my ($class, $cluster, %p) = @_;
	my @nodes = @{ $p{nodes} // [ $cluster->all ] };
	my $clients = $p{clients} // 3;
	my $self = bless {
		cluster => $cluster,
		nodes   => \@nodes,
		file    => "$PostgreSQL::Test::Utils::tmp_check/load" . ++$n_loads,
		pad     => $p{pad} // 0,
		sql     => $p{sql},
		every   => $p{rate} ? $clients / $p{rate} : 0,
		records => [], last => {}, from => now(),
	}, $class;

	for my $i (@nodes)
	{
		my $node = $cluster->node($i);
		push @{ $self->{clients} }, map {
			{ node => $i, path => $node->host . '/.s.PGSQL.' . $node->port, id => ++$n_clients, n => 0, at => 0, state => 'off' }
		} 1 .. $clients;
	}
	open $self->{in}, '+>', $self->{file} or croak "$self->{file}: $!";
	my $parent = $$;
	$self->{pid} = fork // croak "fork: $!";
	if (!$self->{pid})
	{
		my $good = eval { $self->_run($parent); 1 };
		print STDERR $@ unless $good;
		POSIX::_exit($good ? 0 : 1);
	}
	$self->{owner} = $parent;
	$self->wait_for_ack($_, $self->{from}) for @nodes;
	return $self;
}

# No more transactions; waits for the answers that are due.  A client that got none within $seconds has none.
sub stop
{
	my ($self) = @_;
	return $self unless $self->{pid};
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	croak "the load ended with status $?" if $?;
	delete $self->{pid};
	$self->poll;
	my %n;
	$n{ $_->{outcome} }++ for @{ $self->{records} };
	note(sprintf 'load: %d acknowledged, %d refused, %d unknown', map { $n{$_} // 0 } qw(a r u));
	my %why;
	$why{"node $_->{node} $_->{sqlstate} $_->{why}"}++ for grep { $_->{outcome} ne 'a' } @{ $self->{records} };
	note("  $why{$_} x $_") for (sort { $why{$b} <=> $why{$a} } keys %why)[ 0 .. (keys %why > 8 ? 7 : keys(%why) - 1) ];
	return $self;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	if ($self->{pid} && ($self->{owner} // 0) == $$)
	{
		kill 'KILL', $self->{pid};
		waitpid $self->{pid}, 0;
	}
	return;
}

# ---- the book, as the test reads it ----

# Takes in what has been written since; the records so far.
sub poll
{
	my ($self) = @_;
	my $in = $self->{in};
	seek $in, 0, 1;
	while (defined(my $line = <$in>))
	{
		$self->{rest} .= $line;
		last unless $self->{rest} =~ s/^(.*)\n//;
		my %r;
		@r{qw(node client n sent done outcome sqlstate why)} = split / /, $1, 8;
		push @{ $self->{records} }, \%r;
		$self->{last}{ $r{node} } = $r{done} if $r{outcome} eq 'a';
	}
	return $self->{records};
}

# Waits until a client of node $i has been told of a commit that it asked for after $time.
sub wait_for_ack
{
	my ($self, $i, $time, $seconds) = @_;
	my $seen = @{ $self->{records} };
	my $found;
	MgCluster::wait_for("a commit on node $i", sub {
		my $records = $self->poll;
		while (!$found && $seen < @$records)
		{
			my $r = $records->[ $seen++ ];
			$found = $r if $r->{node} == $i && $r->{outcome} eq 'a' && $r->{sent} > $time;
		}
		return $found;
	}, $seconds);
	return $found->{done};
}

# The first record of node $i with that outcome (a, r, u) that was sent after $time.
sub first
{
	my ($self, $i, $outcome, $time) = @_;
	for my $r (@{ $self->poll })
	{
		return $r if $r->{node} == $i && $r->{outcome} eq $outcome && $r->{sent} > $time;
	}
	return;
}

# The longest time, from $from to $to, without a commit on node $i.
sub gap
{
	my ($self, $i, $from, $to) = @_;
	my ($last, $longest) = ($from, 0);
	for my $done (sort { $a <=> $b } (map { $_->{done} } grep { $_->{node} == $i && $_->{outcome} eq 'a' } @{ $self->poll }), $to)
	{
		next if $done < $from;
		$done = $to if $done > $to;
		$longest = $done - $last if $done - $last > $longest;
		$last = $done;
	}
	return $longest;
}

sub count
{
	my ($self, $outcome, @nodes) = @_;
	my %wanted = map { $_ => 1 } @nodes ? @nodes : @{ $self->{nodes} };
	return scalar grep { $_->{outcome} eq $outcome && $wanted{ $_->{node} } } @{ $self->poll };
}

# What the book says and node $i does not have, and what it has and should not: two array references.
sub compare
{
	my ($self, $i) = @_;
	my %there = map { $_ => 1 } split /\n/, $self->{cluster}->sql($i, q{SELECT client || ' ' || n FROM acked});
	my (@lost, @ghosts);
	for my $r (@{ $self->poll })
	{
		my $key = "$r->{client} $r->{n}";
		push @lost,   $r if $r->{outcome} eq 'a' && !$there{$key};
		push @ghosts, $r if $r->{outcome} eq 'r' && $there{$key};
	}
	return (\@lost, \@ghosts);
}

# A test for each node: it has everything acknowledged and nothing refused; and all have the same.
sub check
{
	my ($self, $name, @nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $c = $self->{cluster};
	@nodes = $c->all unless @nodes;
	$self->stop;
	$c->same_content("$name: the same on every node", @nodes);
	for my $i (@nodes)
	{
		my ($lost, $ghosts) = $self->compare($i);
		my $n = $self->count('a');
		ok(!@$lost, "$name: node $i has all $n acknowledged transactions")
		  or diag(scalar(@$lost) . " lost, the first: " . _show($lost->[0]) . ", the last: " . _show($lost->[-1]));
		ok(!@$ghosts, "$name: node $i has nothing that was refused")
		  or diag(scalar(@$ghosts) . " there, the first: " . _show($ghosts->[0]));
		is($c->sql($i, 'SELECT (SELECT sum(v) FROM hot) - (SELECT count(*) FROM acked)'), 0,
			"$name: node $i has every transaction whole and once");
	}
	return;
}

sub _show
{
	my ($r) = @_;
	return "client $r->{client} of node $r->{node}, number $r->{n}, $r->{sqlstate} $r->{why}";
}

# ---- the process that writes ----

sub _run
{
	my ($self, $parent) = @_;
	my $stop;
	my $give_up;
	my $by_fd = {};
	my $patience_s = 10;

	local $SIG{TERM} = sub { $stop = 1 };
	local $SIG{PIPE} = 'IGNORE';
	open $self->{out}, '>>', $self->{file} or die "$self->{file}: $!";
	my @clients = @{ $self->{clients} };
	$_->{at} = now() + rand($self->{every}) for @clients;
	while (1)
	{
		my $now = now();
		my $wake = $now + 0.05;
		my $wanted = '';

		if ($stop)
		{
			$give_up //= $now + $patience_s;
			last if $now > $give_up || !grep { $_->{state} eq 'busy' } @clients;
		}
		last if getppid() != $parent;
		for my $k (@clients)
		{
			if (!$stop && $k->{at} <= $now)
			{
				$self->_connect($k) if $k->{state} eq 'off';
				$self->_send($k, $now) if $k->{state} eq 'idle';
			}
			vec($wanted, fileno $k->{socket}, 1) = 1 if $k->{socket};
			$wake = $k->{at} if $k->{at} < $wake && ($k->{state} eq 'off' || $k->{state} eq 'idle');
		}
		$self->{out}->flush;
		my $wait = $wake - now();
		next if select($wanted, undef, undef, $wait > 0 ? $wait : 0) <= 0;
		for my $k (@clients)
		{
			$self->_receive($k) if $k->{socket} && vec($wanted, fileno $k->{socket}, 1);
		}
	}
	for my $k (@clients)
	{
		$self->_note($k, 'u', '-', 'no answer') if $k->{state} eq 'busy';
	}
	$self->{out}->flush;
	return;
}

sub _connect
{
	my ($self, $k) = @_;
	my $user = getpwuid $>;
	my $start = pack('N', 196608) . "user\0$user\0database\0postgres\0application_name\0load\0\0";

	$k->{at} = now() + $retry_s;
	socket my $socket, AF_UNIX, SOCK_STREAM, 0 or return;
	fcntl $socket, F_SETFL, O_NONBLOCK or return;
	connect $socket, sockaddr_un($k->{path}) or return;
	@$k{qw(socket buffer state error)} = ($socket, '', 'starting', undef);
	$self->_write($k, pack('N', 4 + length $start) . $start);
	return;
}

# What is written here is far smaller than a socket's buffer.
sub _write
{
	my ($self, $k, $bytes) = @_;
	my $n = syswrite $k->{socket}, $bytes;
	$self->_lost($k) unless defined $n && $n == length $bytes;
	return;
}

# Ballast that nothing can compress much: a piece of letters thrown once.
sub _noise
{
	my ($self) = @_;
	$self->{noise} //= join '', map { chr 97 + rand 26 } 1 .. 2 * $self->{pad};
	return substr $self->{noise}, rand $self->{pad}, $self->{pad};
}

sub _send
{
	my ($self, $k, $now) = @_;
	my $sql;

	$k->{n}++;
	$sql = sprintf q{INSERT INTO acked VALUES (%d, %d%s); UPDATE hot SET v = v + 1 WHERE id = %d},
	  $k->{id}, $k->{n}, $self->{pad} ? ", '" . $self->_noise . "'" : '', rand $hot_rows;
	$k->{sent} = $now;
	$k->{at} += $self->{every};
	$k->{at} = $now if $k->{at} < $now - 0.05;	# what was missed is not caught up with
	$k->{state} = 'busy';
	$self->_write($k, 'Q' . pack('N', 5 + length $sql) . "$sql\0");
	return;
}

sub _receive
{
	my ($self, $k) = @_;
	my $n = sysread $k->{socket}, $k->{buffer}, 65536, length $k->{buffer};

	if (!$n)
	{
		return if !defined $n && ($! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR);
		$self->_lost($k);
		return;
	}
	while (length $k->{buffer} >= 5)
	{
		my ($type, $len) = unpack 'a1 N', $k->{buffer};
		last if length $k->{buffer} < 1 + $len;
		my $body = substr $k->{buffer}, 5, $len - 4;
		substr($k->{buffer}, 0, 1 + $len) = '';
		if ($type eq 'E')
		{
			my %field = map { /^(.)(.*)/s ? ($1 => $2) : () } split /\0/, $body;
			$k->{error} = \%field;
		}
		elsif ($type eq 'Z')
		{
			if ($k->{state} eq 'busy')
			{
				my $e = $k->{error};
				if (!$e)
				{
					$self->_note($k, 'a', '-', '');
				}
				else
				{
					# 08: the connection, or the outcome, is not known
					$self->_note($k, $e->{C} =~ /^08/ ? 'u' : 'r', $e->{C}, $e->{M});
					$k->{at} = now() + $retry_s if $e->{C} !~ /^40/ && $k->{at} < now() + $retry_s;
				}
			}
			$k->{state} = 'idle';
			$k->{error} = undef;
		}
	}
	return;
}

sub _lost
{
	my ($self, $k) = @_;
	my $e = $k->{error} // { C => '-', M => 'connection lost' };

	$self->_note($k, 'u', $e->{C}, $e->{M}) if $k->{state} eq 'busy';
	close $k->{socket};
	@$k{qw(socket state error at)} = (undef, 'off', undef, now() + $retry_s);
	return;
}

sub _note
{
	my ($self, $k, $outcome, $sqlstate, $why) = @_;
	$why =~ s/\s+/ /g;
	printf { $self->{out} } "%d %d %d %.6f %.6f %s %s %s\n", $k->{node}, $k->{id}, $k->{n}, $k->{sent}, now(), $outcome, $sqlstate, $why;
	return;
}

1;
