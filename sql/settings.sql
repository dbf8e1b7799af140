-- Settings: names, units, ranges, and what is told about a wrong address.
SELECT name, boot_val, unit, context, vartype, min_val, max_val, enumvals
FROM pg_settings
WHERE name LIKE 'mgrepl.%' AND name <> 'mgrepl.node_name'
ORDER BY name COLLATE "C";

SELECT current_setting('mgrepl.node_name') <> '' AS node_has_a_name;

-- per session
SET mgrepl.durability = memory;
SHOW mgrepl.durability;
SET mgrepl.durability = local;
SET mgrepl.durability = 'all';
SET mgrepl.durability = applied;
SHOW mgrepl.durability;
SET mgrepl.durability = perhaps;
RESET mgrepl.durability;
SHOW mgrepl.durability;
SET mgrepl.commit_timeout = '5s';
SHOW mgrepl.commit_timeout;
RESET mgrepl.commit_timeout;
SET mgrepl.capture_mem = '1GB';
SHOW mgrepl.capture_mem;
RESET mgrepl.capture_mem;
SET mgrepl.max_ws_size = '2GB';
SET mgrepl.fc_limit = 100;
SET mgrepl.suspect_timeout = '2s';
SET mgrepl.weight = 2;
SET mgrepl.no_such_setting = 1;

-- replicate is the superuser's
CREATE ROLE regress_mgrepl_user;
SET ROLE regress_mgrepl_user;
SET mgrepl.replicate = off;
RESET ROLE;
SET mgrepl.replicate = off;
RESET mgrepl.replicate;

-- votes, places and times: ranges
ALTER SYSTEM SET mgrepl.weight = 256;
ALTER SYSTEM SET mgrepl.weight = -1;
ALTER SYSTEM SET mgrepl.segment = 256;
ALTER SYSTEM SET mgrepl.suspect_timeout = '10ms';
ALTER SYSTEM SET mgrepl.inactive_timeout = '2h';
ALTER SYSTEM SET mgrepl.wan_suspect_timeout = 'soon';
ALTER SYSTEM SET mgrepl.wan_inactive_timeout = '-1s';

-- dirty reads are everybody's
SET ROLE regress_mgrepl_user;
SET mgrepl.dirty_reads = on;
SHOW mgrepl.dirty_reads;
RESET mgrepl.dirty_reads;
RESET ROLE;
DROP ROLE regress_mgrepl_user;

-- addresses: checked when they are set
ALTER SYSTEM SET mgrepl.listen_address = 'localhost';
ALTER SYSTEM SET mgrepl.listen_address = 'localhost:';
ALTER SYSTEM SET mgrepl.listen_address = ':5701';
ALTER SYSTEM SET mgrepl.listen_address = 'localhost:5701x';
ALTER SYSTEM SET mgrepl.listen_address = 'localhost:0';
ALTER SYSTEM SET mgrepl.listen_address = 'localhost:65536';
ALTER SYSTEM SET mgrepl.listen_address = 'local host:5701';
ALTER SYSTEM SET mgrepl.listen_address = '::1:5701';
ALTER SYSTEM SET mgrepl.listen_address = '[::1:5701';
ALTER SYSTEM SET mgrepl.listen_address = '[::g]:5701';
ALTER SYSTEM SET mgrepl.node_address = '*:5701';
ALTER SYSTEM SET mgrepl.listen_address = '*:5701';
ALTER SYSTEM SET mgrepl.listen_address = '[::1]:5701';
ALTER SYSTEM RESET mgrepl.listen_address;

-- the cluster's address
ALTER SYSTEM SET mgrepl.cluster_address = '10.0.0.1:5701';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701,';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701,,10.0.0.2:5701';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701,*:5701';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701?';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701?weight';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701?weight=1&=2';
ALTER SYSTEM SET mgrepl.cluster_address = '';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://';
ALTER SYSTEM SET mgrepl.cluster_address = 'gcomm://10.0.0.1:5701,node-2.example.org:5701,[2001:db8::3]:5701?weight=1&name=a,b';
ALTER SYSTEM RESET mgrepl.cluster_address;

-- names and places
ALTER SYSTEM SET mgrepl.node_name = '';
ALTER SYSTEM SET mgrepl.node_name = 'a-name-that-goes-on-and-on-and-on-and-on-and-on-until-it-is-too-long';
ALTER SYSTEM SET mgrepl.gcache_dir = '../elsewhere';
ALTER SYSTEM SET mgrepl.gcache_dir = '.';
ALTER SYSTEM SET mgrepl.gcache_size = '32MB';
ALTER SYSTEM SET mgrepl.appliers = 33;
