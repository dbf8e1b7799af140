# mgrepl - synchronous multi-master for unmodified PostgreSQL
#
#   make            core, host, extension
#   make demo       a three-node cluster on loopback (make demo-stop removes it)
#   make test       every test; ends with "N passed, N failed"
#   make bench      figures, one JSON line each
#   make lint       the rules of the house
#
# The core is built without PostgreSQL's include path: a slip does not compile.

MODULE_big = mgrepl
EXTENSION = mgrepl
DATA = src/sql/mgrepl--1.0.sql
PGFILEDESC = "mgrepl - synchronous multi-master replication"

CORE_SRC := $(wildcard src/core/*.c src/core/*/*.c)
HOST_SRC := $(wildcard src/host/*.c)
GLUE_SRC := $(wildcard src/pg/*.c) $(wildcard bgworkers/*.c)

OBJS = $(GLUE_SRC:.c=.o)
CORE_LIB = build/libmgcore.a
HOST_LIB = build/libmghost.a

PG_CPPFLAGS = -Isrc -I. -I$(shell $(PG_CONFIG) --includedir)
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Wno-declaration-after-statement -Wno-cast-function-type
SHLIB_LINK = $(HOST_LIB) $(CORE_LIB) -lzmq -lpq -lpthread

# Programs: the arbitrator needs no PostgreSQL, the command-line tool its client library.
ARBITRATOR = build/mgrepl-arbitrator
MGREPLCTL = build/mgreplctl
SCRIPTS_built = $(ARBITRATOR) $(MGREPLCTL)
SCRIPTS = src/sst/mgrepl-sst-rsync src/sst/mgrepl-sst-dump

EXTRA_CLEAN = build

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
# No bitcode: just-in-time inlining would gain nothing here and needs clang.
override with_llvm = no
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
endif

# ---- core and host: plain C11, no PostgreSQL ----
PURE_CFLAGS = -std=c11 -O2 -g -fPIC -fno-omit-frame-pointer -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Isrc
HOST_CFLAGS = $(PURE_CFLAGS) -D_GNU_SOURCE -pthread

build/core/%.o: src/core/%.c $(wildcard src/core/*.h src/core/*/*.h)
	@mkdir -p $(@D)
	$(CC) $(PURE_CFLAGS) -c -o $@ $<

build/host/%.o: src/host/%.c $(wildcard src/core/*.h src/host/*.h)
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -c -o $@ $<

$(CORE_LIB): $(CORE_SRC:src/core/%.c=build/core/%.o)
	@rm -f $@
	ar rcs $@ $^

$(HOST_LIB): $(HOST_SRC:src/host/%.c=build/host/%.o)
	@rm -f $@
	ar rcs $@ $^

# ---- programs ----
VERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" mgrepl.control)
PROGRAM_CFLAGS = $(HOST_CFLAGS) -DMGREPL_VERSION='"$(VERSION)"'
PROGRAM_HEADERS = $(wildcard src/core/*.h src/core/*/*.h src/host/*.h src/arbitrator/*.h src/cli/*.h)
ARBITRATOR_OBJS := $(patsubst src/%.c,build/%.o,$(wildcard src/arbitrator/*.c))
MGREPLCTL_OBJS := $(patsubst src/%.c,build/%.o,$(wildcard src/cli/*.c)) build/arbitrator/engine.o
LIBPQ_CFLAGS = -I$(shell $(PG_CONFIG) --includedir 2>/dev/null)

build/arbitrator/%.o: src/arbitrator/%.c $(PROGRAM_HEADERS) mgrepl.control
	@mkdir -p $(@D)
	$(CC) $(PROGRAM_CFLAGS) -c -o $@ $<

build/cli/%.o: src/cli/%.c $(PROGRAM_HEADERS) mgrepl.control
	@mkdir -p $(@D)
	$(CC) $(PROGRAM_CFLAGS) $(LIBPQ_CFLAGS) -c -o $@ $<

$(ARBITRATOR): $(ARBITRATOR_OBJS) $(HOST_LIB) $(CORE_LIB)
	$(CC) -o $@ $^ -lzmq -lpthread

$(MGREPLCTL): $(MGREPLCTL_OBJS) $(HOST_LIB) $(CORE_LIB)
	$(CC) -o $@ $^ -lpq -lzmq -lpthread

# For a machine without PostgreSQL: the arbitrator, its unit for systemd and an
# example of its configuration.
PREFIX ?= /usr/local

.PHONY: install-arbitrator
install-arbitrator: $(ARBITRATOR)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/mgrepl
	install -m 755 $(ARBITRATOR) $(DESTDIR)$(PREFIX)/bin/
	sed 's|@bindir@|$(PREFIX)/bin|; s|@docdir@|$(PREFIX)/share/doc/mgrepl|' src/arbitrator/mgrepl-arbitrator.service.in \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/mgrepl-arbitrator.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/mgrepl-arbitrator.service
	install -m 644 src/arbitrator/mgrepl-arbitrator.conf $(DESTDIR)$(PREFIX)/share/doc/mgrepl/

mgrepl.so: $(CORE_LIB) $(HOST_LIB)
$(OBJS): $(wildcard src/core/*.h src/core/*/*.h src/host/*.h src/pg/*.h bgworkers/*.h)

include test/test.mk
