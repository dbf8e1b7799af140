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

PG_CPPFLAGS = -Isrc -I.
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Wno-declaration-after-statement -Wno-cast-function-type
SHLIB_LINK = $(HOST_LIB) $(CORE_LIB) -lzmq -lpthread

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

mgrepl.so: $(CORE_LIB) $(HOST_LIB)
$(OBJS): $(wildcard src/core/*.h src/core/*/*.h src/host/*.h src/pg/*.h bgworkers/*.h)

include test/test.mk
