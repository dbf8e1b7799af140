# The simulator; included by test/test.mk.  docs/simulator.md
#
#   make sim SEEDS=500 FIRST=1     the seeds that once failed, then these
#   make sim SAN=1                 with AddressSanitizer and UndefinedBehaviorSanitizer
#   make sim-canaries              each deliberate bug in the core must be found
#   build/mgsim --seed 7 --trace   one seed, told line by line
#
# It links the core alone, from objects of its own.

SEEDS ?= 500
FIRST ?= 1

SIM_CORE := $(wildcard src/core/*.c src/core/*/*.c)
SIM_SRC := $(wildcard test/sim/*.c)
SIM_HEADERS := $(wildcard src/core/*.h src/core/*/*.h test/sim/*.h)

# The core with its own flags, optimised; -DMG_CANARY=n for a build that is broken on purpose.
SIM_CFLAGS = $(PURE_CFLAGS) -D_GNU_SOURCE -Itest $(SIM_DEFINES)
SIM_DIR = build/sim/plain
SIM_PROGRAM = build/mgsim
ifneq ($(SAN),)
SIM_DIR = build/sim/san
SIM_PROGRAM = build/mgsim-san
SIM_CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=all
endif
ifneq ($(CANARY),)
SIM_DIR = build/sim/canary-$(CANARY)
SIM_PROGRAM = $(SIM_DIR)/mgsim
SIM_DEFINES = -DMG_CANARY=$(CANARY)
endif

SIM_OBJECTS = $(SIM_CORE:src/%.c=$(SIM_DIR)/%.o) $(SIM_SRC:test/%.c=$(SIM_DIR)/%.o)

.PHONY: sim mgsim sim-canaries

$(SIM_DIR)/core/%.o: src/core/%.c $(SIM_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(SIM_CFLAGS) -c -o $@ $<

$(SIM_DIR)/sim/%.o: test/sim/%.c $(SIM_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(SIM_CFLAGS) -c -o $@ $<

$(SIM_PROGRAM): $(SIM_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(SIM_CFLAGS) -o $@ $^

mgsim: $(SIM_PROGRAM)

sim: $(SIM_PROGRAM)
	$(SIM_PROGRAM) --list test/sim/once-failed.txt --seeds $(SEEDS) --first $(FIRST)

sim-canaries:
	@MAKE="$(MAKE)" bash test/sim/canaries
