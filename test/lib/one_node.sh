#!/bin/bash
#
# test/lib/one_node.sh start|stop DIR - a cluster of one node with pgTAP, in DIR
# with its socket beside it.  Runs as the unprivileged user.

set -eu
. "$(dirname "$0")/common.sh"
MG_BIN=$("$PG_CONFIG" --bindir)
dir=$2
cd /

case $1 in
	start)
		mkdir -p "$(dirname "$dir")"
		mg_initdb "$dir"
		cat >>"$dir/postgresql.conf" <<-CONF
			shared_preload_libraries = 'mgrepl'
			mgrepl.node_name = 'one'
			mgrepl.cluster_name = 'one'
			mgrepl.listen_address = '127.0.0.1:$(mg_free_port 17401)'
			listen_addresses = ''
			unix_socket_directories = '$(dirname "$dir")'
			fsync = off
		CONF
		mg_start "$dir"
		"$MG_BIN/psql" -X -q -h "$(dirname "$dir")" -U postgres -d postgres -v ON_ERROR_STOP=1 \
			-c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION mgrepl' -c 'SELECT mgrepl.bootstrap()'
		;;
	stop)
		mg_stop "$dir"
		;;
esac
