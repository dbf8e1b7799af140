# MgCluster - several mgrepl nodes on this machine, for tests.
#
# Stands on PostgreSQL's own PostgreSQL::Test::Cluster: each node is one of its
# objects.  Node 1 bootstraps; the others start from base backups of it and
# join.  Nodes are numbered from 1.
#
# No function here sleeps for a fixed time: each waits for a condition, with a
# deadline, and dies with the last thing seen when the deadline has passed.

package MgCluster;

use strict;
use warnings;

use Carp;
use IPC::Run;
use Time::HiRes qw(time);
use Test::More;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our $deadline_s = 60;

# Settings of every node; what a test gives in "conf" comes later and wins.
my $base_conf = q{
shared_preload_libraries = 'mgrepl'
mgrepl.cluster_name = 'test'
mgrepl.database = 'postgres'
wal_level = replica
max_wal_senders = 10
max_connections = 60
shared_buffers = 64MB
max_wal_size = 1GB
log_statement = none
log_replication_commands = off
log_line_prefix = '%m [%p] %e %q%a '
log_error_verbosity = default
};

=head1 MgCluster->new(nodes => 3, conf => '...', setup => '...', name => 'n', net => MgNetns, node_conf => { 2 => '...' })

A running cluster, every node synced.  C<setup> is SQL that node 1 runs before
it bootstraps (its result travels in the base backups).  With C<net> each node
is in its network there.

=cut

sub new
{
	my ($class, %p) = @_;
	my $self = bless {
		name  => $p{name} // 'n',
		conf  => $p{conf} // '',
		net   => $p{net},
		node_conf => $p{node_conf} // {},
		nodes => [], addresses => [], log_offsets => [],
	}, $class;

	my $first = $self->_make_node;
	$first->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
	$self->_configure(1);
	$self->start_node(1);
	$self->sql(1, 'CREATE EXTENSION mgrepl');
	$self->sql(1, $p{setup}) if defined $p{setup};
	$self->command(1, 'SELECT mgrepl.bootstrap()');
	$self->wait_synced(1);
	$self->add_node for 2 .. ($p{nodes} // 3);
	$self->wait_size($self->size);
	$self->mark_logs;
	return $self;
}

# A server that has the library and the extension, and belongs to no cluster.
sub lone_server
{
	my ($class, %p) = @_;
	my $self = bless {
		name  => $p{name} // 'lone',
		conf  => $p{conf} // '',
		nodes => [], addresses => [], log_offsets => [],
	}, $class;

	my $node = $self->_make_node;
	$node->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
	$self->_configure(1, without_library => $p{without_library});
	$node->start;
	$self->sql(1, 'CREATE EXTENSION mgrepl') unless $p{without_library} or $p{without_extension};
	return $self;
}

sub _make_node
{
	my ($self) = @_;
	my $i = @{ $self->{nodes} } + 1;
	my $node = PostgreSQL::Test::Cluster->new("$self->{name}$i");
	push @{ $self->{nodes} }, $node;
	push @{ $self->{addresses} },
	  ($self->{net} ? $self->{net}->host($i) : '127.0.0.1') . ':' . PostgreSQL::Test::Cluster::get_free_port();
	push @{ $self->{log_offsets} }, 0;
	return $node;
}

sub _configure
{
	my ($self, $i, %p) = @_;
	my $conf = $base_conf . $self->{conf} . ($self->{node_conf}{$i} // '') . ($p{conf} // '');
	$conf =~ s/^shared_preload_libraries.*$//m if $p{without_library};
	$self->node($i)->append_conf('postgresql.conf',
		    $conf
		  . "mgrepl.node_name = '" . $self->node($i)->name . "'\n"
		  . "mgrepl.listen_address = '" . $self->address($i) . "'\n");
	return;
}

# A new node from a base backup of node 1; joins unless join => 0.  Returns its number.
sub add_node
{
	my ($self, %p) = @_;
	my $from = $p{from} // 1;
	my $node = $self->_make_node;
	my $i    = $self->size;

	$self->node($from)->backup("for_" . $node->name);
	$node->init_from_backup($self->node($from), "for_" . $node->name);
	$self->_configure($i, conf => $p{conf});
	$self->start_node($i);
	$self->join_node($i, $from) if $p{join} // 1;
	return $i;
}

# A server made anew, that has nothing in common with the cluster; it is left alone.  Returns its number.
sub add_lone
{
	my ($self, %p) = @_;
	my $node = $self->_make_node;
	my $i    = $self->size;
	$node->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C', @{ $p{initdb} // [] } ]);
	$self->_configure($i, conf => $p{conf});
	$self->start_node($i);
	$self->sql($i, 'CREATE EXTENSION mgrepl');
	return $i;
}

# Settings with which a node can give and take snapshots: it must be reached by TCP.
our $transfer_conf = q{
listen_addresses = '127.0.0.1'
mgrepl.sst_conninfo = 'user=postgres'
};

# Tells a node to join with a snapshot and waits until it has it; the server restarts meanwhile.
sub join_by_snapshot
{
	my ($self, $i, $through, $seconds) = @_;
	my $r = $self->try($i, "SELECT mgrepl.join('gcomm://" . $self->address($through // 1) . "')");
	croak "node $i: join: $r->{err}" unless $r->{ok};
	$self->wait_synced($i, $seconds);
	return $r;
}

sub join_node
{
	my ($self, $i, $through) = @_;
	$through //= 1;
	$self->command($i, "SELECT mgrepl.join('gcomm://" . $self->address($through) . "')");
	$self->wait_synced($i);
	return;
}

# A command to the provider, which may need a moment after the server has started.
sub command
{
	my ($self, $i, $sql) = @_;
	my $r;
	wait_for("node $i: $sql", sub {
		$r = $self->try($i, $sql);
		return $r->{ok} || ($r->{message} // '') !~ /provider is not running/;
	});
	croak "node $i: $sql: $r->{err}" unless $r->{ok};
	return $r->{out};
}

# Starts a server, in its network if it has one.
sub start_node
{
	my ($self, $i) = @_;
	local $ENV{PATH} = $self->{net}->path($i) . ":$ENV{PATH}" if $self->{net};
	$self->node($i)->start;
	return;
}

# ---- faults ----

# All processes of a server, the postmaster first.
sub processes
{
	my ($self, $i) = @_;
	open my $f, '<', $self->node($i)->data_dir . '/postmaster.pid' or croak "node $i does not run";
	chomp(my $postmaster = <$f>);
	close $f;
	my @children = `pgrep -P $postmaster`;
	chomp @children;
	return ($postmaster, @children);
}

# kill -9 of every process of these servers at once; returns when all are gone.
sub kill_node
{
	my ($self, @nodes) = @_;
	my @pids = map { $self->processes($_) } @nodes;
	kill 'KILL', @pids;
	$self->node($_)->kill9 for @nodes;
	wait_for("the processes of node @nodes to end", sub { !grep { kill 0, $_ } @pids });
	return;
}

sub provider_pid
{
	my ($self, $i) = @_;
	return $self->sql($i, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'mgrepl provider'");
}

# Waits until a node's provider is another process than that.
sub wait_new_provider
{
	my ($self, $i, $old) = @_;
	$self->wait_sql($i, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mgrepl provider' AND pid <> $old", 1);
	return;
}

# SIGSTOP: of the whole server, or of its provider only.
my %paused;

sub pause
{
	my ($self, $i, $provider_only) = @_;
	my ($postmaster) = $self->processes($i);
	my @pids = $provider_only ? $self->provider_pid($i) : $postmaster;
	$paused{$_} = 1 for @pids;
	kill 'STOP', @pids;
	return if $provider_only;

	# A postmaster that stands still has no more children.
	(undef, @pids) = $self->processes($i);
	$paused{$_} = 1 for @pids;
	kill 'STOP', @pids;
	return;
}

sub resume
{
	my ($self, $i) = @_;
	my %own = map { $_ => 1 } $self->processes($i);
	my @pids = grep { $own{$_} } keys %paused;
	delete @paused{@pids};
	kill 'CONT', @pids;
	return;
}

# The server of a test that has died must be able to stop.
END
{
	kill 'CONT', keys %paused if %paused;
}

# The node that leads, as node $i sees it.
sub leader
{
	my ($self, $i) = @_;
	my $name = $self->status($i, 'leader');
	my ($found) = grep { $self->node($_)->name eq $name } $self->all;
	return $found // croak "node $i: unknown leader \"$name\"";
}

sub size    { my ($self) = @_;      return scalar @{ $self->{nodes} }; }
sub node    { my ($self, $i) = @_;  return $self->{nodes}[ $i - 1 ] // croak "no node $i"; }
sub address { my ($self, $i) = @_;  return $self->{addresses}[ $i - 1 ]; }
sub all     { my ($self) = @_;      return 1 .. $self->size; }

# ---- SQL ----

# Runs SQL that has to work; returns its output.
sub sql
{
	my ($self, $i, $sql) = @_;
	return $self->node($i)->safe_psql('postgres', $sql);
}

# Runs SQL that may fail: { ok, out, err, sqlstate, message, hint, errors }.
sub try
{
	my ($self, $i, $sql, %p) = @_;
	my ($rc, $out, $err) = $self->node($i)->psql(
		'postgres', $sql,
		timeout      => $p{timeout} // $deadline_s,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return _outcome($rc == 0, $out, $err);
}

sub _outcome
{
	my ($ok, $out, $err) = @_;
	my %r = (ok => $ok, out => $out, err => $err);
	my @errors = $err =~ /(?:ERROR|FATAL|PANIC):  /g;
	$r{errors} = @errors;
	@r{qw(sqlstate message)} = ($1, $2) if $err =~ /(?:ERROR|FATAL|PANIC):  (\w{5}): (.*)/;
	$r{hint} = $1 if $err =~ /HINT:  (.*)/;
	$r{ok} = 0 if @errors;
	return \%r;
}

# One clear error: this SQLSTATE, one message that matches, and a hint; node keeps working.
sub refuses
{
	my ($self, $i, $sql, $sqlstate, $message, $name, %p) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $r = $self->try($i, $sql);
	my $good = !$r->{ok} && $r->{errors} == 1
	  && ($r->{sqlstate} // '') =~ /^(?:$sqlstate)$/
	  && $r->{message} =~ $message
	  && (defined $r->{hint} || $p{no_hint});
	ok($good, $name) or diag("wanted $sqlstate $message with a hint, got: ",
		$r->{ok} ? "success: $r->{out}" : $r->{err});
	return $r;
}

# A session that stays open: an MgSession.
sub session
{
	my ($self, $i) = @_;
	return MgSession->new($self->node($i));
}

# ---- waiting ----

# Calls $sub until it returns true; dies when the deadline has passed.
sub wait_for
{
	my ($what, $sub, $seconds) = @_;
	my $end = time() + ($seconds // $deadline_s);
	my $seen;
	while (1)
	{
		$seen = $sub->();
		return $seen if $seen;
		croak "timed out waiting for: $what" if time() > $end;
		select(undef, undef, undef, 0.02);
	}
}

sub wait_sql
{
	my ($self, $i, $sql, $expected, $seconds) = @_;
	my $last = '';
	my $done = eval {
		wait_for($sql,
			sub {
				# psql() dies when there is no connection, as to a server that starts.
				my ($rc, $out, $err) = eval { $self->node($i)->psql('postgres', $sql) };
				$last = !defined $rc ? $@ : $rc == 0 ? $out : $err;
				return defined $rc && $rc == 0 && $out eq ($expected // 't');
			}, $seconds);
	};
	croak "node $i: timed out waiting for $sql; last answer: $last" unless $done;
	return 1;
}

sub wait_synced
{
	my ($self, $i, $seconds) = @_;
	return $self->wait_sql($i,
		"SELECT value FROM mgrepl.status WHERE name = 'node_state'", 'SYNCED', $seconds);
}

# Every given node sees that many members.
sub wait_size
{
	my ($self, $n, @nodes) = @_;
	$self->wait_sql($_, "SELECT value FROM mgrepl.status WHERE name = 'cluster_size'", $n)
	  for @nodes ? @nodes : $self->all;
	return;
}

sub status
{
	my ($self, $i, $name) = @_;
	return $self->sql($i, "SELECT value FROM mgrepl.status WHERE name = '$name'");
}

# All the given nodes have committed what any of them has; returns that seqno.
sub settle
{
	my ($self, @nodes) = @_;
	@nodes = $self->all unless @nodes;
	my $highest = 0;
	for (@nodes)
	{
		my $seqno = $self->status($_, 'committed_seqno');
		$highest = $seqno if $seqno > $highest;
	}
	for (@nodes)
	{
		my $there = $self->sql($_,
			"SELECT mgrepl.wait_for_seqno($highest, " . 1000 * $deadline_s . ")");
		croak "node $_ did not reach seqno $highest; it stands at "
		  . $self->status($_, 'committed_seqno') . ", state " . $self->status($_, 'node_state')
		  if $there ne 't';
	}
	return $highest;
}

# ---- content ----

# One line per table (rows, sum of the hashes of all rows) and one per object definition.
my $content_sql = q{
SET search_path = '';
SELECT pg_catalog.format('SELECT %L, pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.hashtextextended(t::text, 0)::numeric), 0) FROM ONLY %s t',
		c.oid::regclass, c.oid::regclass)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
	AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY c.oid::regclass::text COLLATE "C" \gexec
SELECT 'column ' || c.oid::regclass || '.' || a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
	|| ' ' || a.attnotnull || ' ' || coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'c') AND c.relpersistence = 'p'
	AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY 1;
SELECT 'index ' || pg_catalog.pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY 1;
SELECT 'constraint ' || k.conrelid::regclass || ' ' || k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid) || ' ' || k.convalidated
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY 1;
SELECT 'function ' || pg_catalog.md5(pg_catalog.pg_get_functiondef(p.oid)) || ' ' || p.oid::regprocedure
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.prokind IN ('f', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY 1;
SELECT 'trigger ' || pg_catalog.pg_get_triggerdef(t.oid) FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
ORDER BY 1;
SELECT 'view ' || c.oid::regclass || ' ' || pg_catalog.md5(pg_catalog.pg_get_viewdef(c.oid))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY 1;
SELECT 'type ' || t.oid::regtype || ' ' || t.typtype::text || ' '
	|| coalesce((SELECT pg_catalog.string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid), '')
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('e', 'd', 'c', 'r') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mgrepl') AND n.nspname NOT LIKE 'pg\_%'
	AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relpersistence <> 'p')
ORDER BY 1;
};

sub content
{
	my ($self, $i) = @_;
	return $self->sql($i, $content_sql);
}

# A test: the same rows and the same definitions on every (given) node.
sub same_content
{
	my ($self, $name, @nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	@nodes = $self->all unless @nodes;

	my %content;
	my $settled = eval { $self->settle(@nodes); 1 };
	if (!$settled)
	{
		fail($name);
		diag($@);
		return 0;
	}
	$content{$_} = $self->content($_) for @nodes;

	my ($first, @others) = @nodes;
	my @differences;
	for my $other (@others)
	{
		my %lines = map { $_ => 1 } split /\n/, $content{$first};
		push @differences, "only on node $other: $_"
		  for grep { !delete $lines{$_} } split /\n/, $content{$other};
		push @differences, "only on node $first, not on $other: $_" for sort keys %lines;
	}
	my $n = () = $content{$first} =~ /^[^\n|]+\|\d+\|/mg;
	ok(!@differences, "$name (tables: $n)") or diag(join "\n", @differences);
	return !@differences;
}

# ---- logs ----

# Marks the present end of every log: what comes later is judged by the next unexpected_log.
sub mark_logs
{
	my ($self) = @_;
	$self->{log_offsets}[ $_ - 1 ] = -s $self->node($_)->logfile // 0 for $self->all;
	return;
}

# Lines since mark_logs that say WARNING or worse, other than SQLSTATE 40001 and what the test allows.
sub unexpected_log
{
	my ($self, $allowed) = @_;
	my @found;
	for my $i ($self->all)
	{
		open my $log, '<', $self->node($i)->logfile or next;
		seek $log, $self->{log_offsets}[ $i - 1 ], 0;
		while (my $line = <$log>)
		{
			next unless $line =~ /\] (\w{5}) .*?\b(WARNING|ERROR|FATAL|PANIC):  /
			  or $line =~ /TRAP:|terminated by signal|assertion/i;
			next if defined $1 && $1 eq '40001';
			next if defined $allowed && $line =~ $allowed;
			push @found, $self->node($i)->name . ": $line";
		}
		close $log;
	}
	return @found;
}

sub log_clean
{
	my ($self, $name, $allowed) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @found = $self->unexpected_log($allowed);
	ok(!@found, $name) or diag(splice(@found, 0, 20));
	return;
}

# ---- pgbench ----

# Starts pgbench against node $i; MgCluster::pgbench_finish($handle) waits and reads its report.
sub pgbench_start
{
	my ($self, $i, @args) = @_;
	my $node = $self->node($i);
	my %h = (node => $i, out => '', err => '');
	my @cmd = ('pgbench', '-h', $node->host, '-p', $node->port, '-n', '--failures-detailed', @args, 'postgres');
	note("node $i: @cmd");
	$h{run} = IPC::Run::start(\@cmd, '<', '/dev/null', '>', \$h{out}, '2>', \$h{err});
	return \%h;
}

sub pgbench_finish
{
	my ($h) = @_;
	$h->{run}->finish;
	$h->{rc} = $? >> 8;
	note("node $h->{node}: pgbench exit code $h->{rc}\n$h->{out}\n$h->{err}");
	my $o = $h->{out};
	($h->{done})          = $o =~ /number of transactions actually processed: (\d+)/;
	($h->{failed})        = $o =~ /number of failed transactions: (\d+)/;
	($h->{retried})       = $o =~ /number of transactions retried: (\d+)/;
	($h->{tps})           = $o =~ /^tps = ([\d.]+)/m;
	$h->{aborted}         = () = $h->{err} =~ /client \d+ (?:script \d+ )?aborted/g;
	$h->{$_} //= 0 for qw(done failed retried tps);
	return $h;
}

# ---------------------------------------------------------------------------

# A psql that stays open.  Every statement gives an outcome as MgCluster->try does.
package MgSession;

use strict;
use warnings;
use PostgreSQL::Test::Utils qw(pump_until);

sub new
{
	my ($class, $node) = @_;
	my $psql = $node->background_psql('postgres',
		on_error_stop => 0, timeout => 4 * $MgCluster::deadline_s);
	my $self = bless { psql => $psql, n => 0 }, $class;
	$psql->query('\set VERBOSITY verbose');
	return $self;
}

# Runs SQL and waits for its end.
sub run
{
	my ($self, $sql) = @_;
	$self->start($sql);
	return $self->finish;
}

# Sends SQL and does not wait.
sub start
{
	my ($self, $sql) = @_;
	my $p = $self->{psql};
	$p->{stdout} = $p->{stderr} = '';
	my $mark = 'mgsession ' . ++$self->{n};
	$p->{stdin} .= "$sql\n;\n\\echo '$mark'\n\\warn '$mark'\n";
	$p->{run}->pump_nb;
	return;
}

sub finished
{
	my ($self) = @_;
	my $p = $self->{psql};
	my $mark = qr/mgsession $self->{n}\n/;
	$p->{run}->pump_nb;
	return $p->{stdout} =~ $mark && $p->{stderr} =~ $mark;
}

sub finish
{
	my ($self) = @_;
	my $p = $self->{psql};
	my $mark = qr/mgsession $self->{n}\n/;
	pump_until($p->{run}, $p->{timeout}, \$p->{stdout}, $mark);
	pump_until($p->{run}, $p->{timeout}, \$p->{stderr}, $mark);
	(my $out = $p->{stdout}) =~ s/$mark//;
	(my $err = $p->{stderr}) =~ s/$mark//;
	$out =~ s/\n\z//;
	return MgCluster::_outcome($err !~ /(?:ERROR|FATAL|PANIC):/, $out, $err);
}

sub pid
{
	my ($self) = @_;
	return $self->{pid} //= $self->run('SELECT pg_backend_pid()')->{out};
}

sub quit
{
	my ($self) = @_;
	return $self->{psql}->quit;
}

1;
