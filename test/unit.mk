# Unit tests and fuzz targets; included by test/test.mk.
#
#   make unit                       every test/unit/test_*.c, and the fuzz targets' corpora,
#                                   under ASan and UBSan
#   make unit MG_SEED=7             with the seed that a run has printed
#   make fuzz FUZZ_SECONDS=600      every test/fuzz/fuzz_*.c, so long each
#
# Both link all of src/core and src/host, from objects of their own.

SAN_FLAGS = -fsanitize=address,undefined -fno-sanitize-recover=all
UNIT_CC ?= gcc
UNIT_CFLAGS = $(HOST_CFLAGS) -O1 $(SAN_FLAGS)
UNIT_LIBS = -lcmocka -lzmq -lpthread

PURE_HEADERS = $(wildcard src/core/*.h src/core/*/*.h src/host/*.h)
UNIT_PROGRAMS := $(patsubst test/unit/%.c,build/unit/%,$(sort $(wildcard test/unit/test_*.c)))
SAN_OBJECTS := $(patsubst src/%.c,build/san/%.o,$(wildcard src/core/*.c src/core/*/*.c src/host/*.c))

.PHONY: unit fuzz
.SECONDARY: $(SAN_OBJECTS)

build/san/%.o: src/%.c $(PURE_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -c -o $@ $<

build/san/libmg.a: $(SAN_OBJECTS)
	@rm -f $@
	ar rcs $@ $^

build/unit/%: test/unit/%.c build/san/libmg.a $(wildcard test/unit/*.h) $(PURE_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -Itest/unit -o $@ $< build/san/libmg.a $(UNIT_LIBS)

# The committed corpus through each fuzz target, without libFuzzer.
REPLAY_PROGRAMS := $(patsubst test/fuzz/fuzz_%.c,build/unit/replay_%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
FUZZ_HEADERS = $(wildcard test/fuzz/*.h test/unit/*.h) $(PURE_HEADERS)

build/unit/replay_%: test/fuzz/fuzz_%.c test/fuzz/replay.c build/san/libmg.a $(FUZZ_HEADERS)
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -Itest/unit -DFUZZ_NAME='"$*"' -o $@ $< test/fuzz/replay.c build/san/libmg.a $(UNIT_LIBS)

# All of them run, also after a failure.
unit: $(UNIT_PROGRAMS) $(REPLAY_PROGRAMS)
	@failed=; for t in $^; do ./$$t || failed="$$failed $$t"; done; \
	if [ -n "$$failed" ]; then echo "unit: failed:$$failed"; exit 1; fi

# ---- fuzzing: libFuzzer, so clang ----
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 60
# Low limits: a node is made faster, and the limits are met.
FUZZ_CFLAGS = $(HOST_CFLAGS) -O1 $(SAN_FLAGS) -Itest/unit -DMG_ENTRIES_MAX=4096 -DMG_PENDING_MAX=256

FUZZ_PROGRAMS := $(patsubst test/fuzz/%.c,build/fuzz/%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
FUZZ_OBJECTS := $(patsubst src/%.c,build/fuzz/obj/%.o,$(wildcard src/core/*.c src/core/*/*.c src/host/*.c))

.SECONDARY: $(FUZZ_OBJECTS)

build/fuzz/obj/%.o: src/%.c $(PURE_HEADERS)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link -c -o $@ $<

build/fuzz/libmg.a: $(FUZZ_OBJECTS)
	@rm -f $@
	ar rcs $@ $^

build/fuzz/%: test/fuzz/%.c build/fuzz/libmg.a $(FUZZ_HEADERS)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $< build/fuzz/libmg.a -lzmq -lpthread

# New inputs go to build/fuzz/corpus; test/fuzz/corpus is read only.
fuzz: $(FUZZ_PROGRAMS)
	@failed=; for f in $^; do \
		name=$${f##*/fuzz_}; \
		mkdir -p build/fuzz/corpus/$$name test/fuzz/corpus/$$name; \
		./$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$name- build/fuzz/corpus/$$name test/fuzz/corpus/$$name \
			|| failed="$$failed $$f"; \
	done; \
	if [ -n "$$failed" ]; then echo "fuzz: failed:$$failed"; exit 1; fi
