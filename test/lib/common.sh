# test/lib/common.sh - shared by test/run, test/demo and test/bench/run.
#
# Servers refuse to run as root: what starts one runs as an unprivileged user
# and from a copy of the scripts in a directory of its own, because that user
# may not be allowed to read the clone.

unset MAKEFLAGS MFLAGS MAKELEVEL
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGDATA PGOPTIONS
export LC_ALL=C

if [ -z "${PG_CONFIG:-}" ]; then
	PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config
fi
export PG_CONFIG

mg_die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

mg_as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo -E "$@"
	fi
}

# Who runs the servers: postgres when called by root, else the caller.
mg_user()
{
	if [ "$(id -u)" -ne 0 ]; then
		id -un
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		echo nobody
	fi
}

# mg_as_user HOME COMMAND ...
mg_as_user()
{
	local home=$1
	shift
	if [ "$(id -u)" -ne 0 ]; then
		env HOME="$home" "$@"
	elif command -v runuser >/dev/null; then
		runuser -u "$(mg_user)" -- env HOME="$home" "$@"
	else
		setpriv --reuid="$(mg_user)" --regid="$(id -g "$(mg_user)")" --init-groups \
			env HOME="$home" "$@"
	fi
}

# The packages, the build and the installation: quiet unless something fails.
# mg_prepare SET-OF-PACKAGES LOGFILE
mg_prepare()
{
	bash test/deps "$1" || return 1
	[ -x "$PG_CONFIG" ] || mg_die "no $PG_CONFIG; set PG_CONFIG to the pg_config to build for"
	if ! make -s -j"$(nproc)" PG_CONFIG="$PG_CONFIG" all >"$2" 2>&1; then
		echo "build failed:"
		tail -n 40 "$2"
		return 1
	fi
	if ! mg_as_root make -s PG_CONFIG="$PG_CONFIG" install >>"$2" 2>&1; then
		echo "installation failed:"
		tail -n 20 "$2"
		return 1
	fi
}

# Copies what the unprivileged user needs into DIR/src and gives it DIR.
mg_give()
{
	local dir=$1

	mkdir -p "$dir/src"
	cp -R test "$dir/src/"
	[ ! -d sql ] || cp -R sql "$dir/src/"
	[ ! -d expected ] || cp -R expected "$dir/src/"
	chmod -R u+rwX,go+rX "$dir"
	if [ "$(id -u)" -eq 0 ]; then
		chown -R "$(mg_user)" "$dir"
	fi
}

# mg_tap_env DIR NAME COMMAND ...: with what PostgreSQL's test modules need, in DIR/NAME
mg_tap_env()
{
	local dir=$1 name=$2 pgxs
	shift 2
	pgxs=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/../.." && pwd)
	mg_as_user "$dir" env \
		PATH="$MG_BIN:$PATH" PERL5LIB="$pgxs/src/test/perl:$dir/src/test/lib" \
		PG_REGRESS="$pgxs/src/test/regress/pg_regress" TESTDIR="$dir/$name" TESTDATADIR="$dir/$name/tmp_check" \
		TESTLOGDIR="$dir/$name/tmp_check/log" PG_TEST_PORT_DIR="$dir/ports" "$@"
}

# mg_stop_leftovers DIR: servers below it that were left behind, by their own
# postmaster.pid, also those that somebody has stopped with a signal.
mg_stop_leftovers()
{
	local file pid

	[ -n "${MG_BIN:-}" ] || return
	while read -r file; do
		pid=$(head -n 1 "$file")
		# shellcheck disable=SC2046
		mg_as_user "$1" kill -CONT "$pid" $(pgrep -P "$pid") 2>/dev/null
		mg_as_user "$1" "$MG_BIN/pg_ctl" -D "${file%/postmaster.pid}" -m immediate -t 30 stop >/dev/null 2>&1
	done < <(find "$1" -name postmaster.pid 2>/dev/null)
}

# Prints the first free TCP port of 127.0.0.1 from $1 on.
mg_free_port()
{
	local port=$1

	while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		port=$((port + 1))
	done
	echo "$port"
}

# Everything below runs as the unprivileged user.

# mg_initdb DIR [initdb's options]: a new data directory, logging to DIR.log
mg_initdb()
{
	local dir=$1
	shift
	"$MG_BIN/initdb" -D "$dir" -U postgres -E UTF8 --locale=C --no-sync -A trust "$@" >"$dir.log" 2>&1 ||
		{ cat "$dir.log"; mg_die "initdb failed"; }
}

# mg_start DIR
mg_start()
{
	"$MG_BIN/pg_ctl" -D "$1" -l "$1.log" -w -t 60 start </dev/null >/dev/null ||
		{ tail -n 30 "$1.log"; mg_die "server in $1 did not start"; }
}

# mg_stop DIR [MODE]: does nothing if it isn't running
mg_stop()
{
	[ -f "$1/postmaster.pid" ] || return 0
	"$MG_BIN/pg_ctl" -D "$1" -m "${2:-fast}" -w -t 60 stop >/dev/null 2>&1 ||
		"$MG_BIN/pg_ctl" -D "$1" -m immediate -w -t 30 stop >/dev/null 2>&1 || true
}
