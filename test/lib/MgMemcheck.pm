# MgMemcheck - servers under valgrind, for a test that stands on MgCluster.
#
# Why valgrind and not AddressSanitizer: a server that is not built with it
# needs its runtime by LD_PRELOAD, and there the packaged PostgreSQL locks up in
# glibc's bindtextdomain before main.  (The unit tests do have both sanitizers.)
#
# What valgrind sees: every byte that the core, the host and the glue got from
# malloc or keep on the stack, and what they hand to the kernel.  PostgreSQL's
# memory contexts are one large block each for it: bytes never written are
# noticed there, bytes beyond a palloc'd chunk are not.

package MgMemcheck;

use strict;
use warnings;

use Carp;
use PostgreSQL::Test::Utils;

# Frames from the top of an error's stack that are searched for the extension:
# it is everybody's caller further down, being a hook and a background worker.
our $frames = 8;

# Of a frame, with full paths: the object where it has no line numbers, else the source.
our $ours = qr{\(in [^)]*/mgrepl\.so\)|[(/](?:src/(?:core|host|pg)|bgworkers)/\w+\.[ch]:\d+\)};

=head1 MgMemcheck->new(suppressions => FILE)

From now on pg_ctl starts servers under valgrind, until ->end: it finds itself
through PATH, and the one put there names another "postgres".

=cut

sub new
{
	my ($class, %p) = @_;
	my $self = bless { dir => "$PostgreSQL::Test::Utils::tmp_check/memcheck", path => $ENV{PATH} }, $class;

	chomp(my $bin = `pg_config --bindir`);
	my ($valgrind) = grep { -x } map { "$_/valgrind" } split /:/, $ENV{PATH};
	croak 'no valgrind; test/deps installs it' unless defined $valgrind;
	croak "no $p{suppressions}" unless -r $p{suppressions};

	mkdir $_ or croak "$_: $!" for $self->{dir}, "$self->{dir}/bin";
	_script("$self->{dir}/bin/pg_ctl", "exec '$bin/pg_ctl' -p '$self->{dir}/bin/postgres' \"\$@\"");
	_script("$self->{dir}/bin/postgres",
		"exec '$valgrind' --quiet --trace-children=yes --leak-check=no --fullpath-after= --num-callers=30"
		  . " --error-limit=no --gen-suppressions=all --suppressions='$p{suppressions}'"
		  . " --log-file='$self->{dir}/%p.log' '$bin/postgres' \"\$@\"");
	$ENV{PATH} = "$self->{dir}/bin:$ENV{PATH}";
	return $self;
}

sub end
{
	my ($self) = @_;
	$ENV{PATH} = $self->{path};
	return;
}

sub _script
{
	my ($file, $line) = @_;
	open my $f, '>', $file or croak "$file: $!";
	print $f "#!/bin/sh\n$line\n";
	close $f;
	chmod 0755, $file or croak "$file: $!";
	return;
}

# Logs there are: one for each process that ran under valgrind.
sub logs
{
	my ($self) = @_;
	return glob "$self->{dir}/*.log";
}

# Every error block of all the logs, each once however many processes have met it.
sub blocks
{
	my ($self) = @_;
	my %seen;
	for my $log ($self->logs)
	{
		for my $block (parse(slurp_file($log)))
		{
			(my $key = $block) =~ s/0x[0-9A-Fa-f]+//g;
			$seen{$key} //= "$log\n$block";
		}
	}
	return map { $seen{$_} } sort keys %seen;
}

# The blocks of one log: lines without valgrind's "==PID== ", split where it leaves one empty.
sub parse
{
	my ($text) = @_;
	my @lines = map { s/^(?:==|\*\*)\d+(?:==|\*\*) ?//r } grep { /^(?:==|\*\*)\d+(?:==|\*\*)/ } split /\n/, $text;
	return grep { /^ +at 0x/m } split /\n(?:\s*\n)+/, join "\n", @lines;
}

# True if the extension is among the upper frames of a block's first stack, the one of the error itself.
sub is_ours
{
	my ($block) = @_;
	my ($stack) = $block =~ /^((?: +(?:at|by) 0x.*(?:\n|\z))+)/m or return 0;
	my @stack = split /\n/, $stack;
	splice @stack, $frames if @stack > $frames;
	return scalar grep { $_ =~ $ours } @stack;
}

1;
