# The extension with AddressSanitizer, in build/asan/mgrepl.so; test/run starts
# servers with it through dynamic_library_path and LD_PRELOAD.  PostgreSQL itself
# is the packaged one; the core, the host and the glue are instrumented.

ASAN_FLAGS = -fsanitize=address -fno-omit-frame-pointer -g -O1
ASAN_SRC = $(GLUE_SRC) $(CORE_SRC) $(HOST_SRC)
ASAN_OBJS = $(ASAN_SRC:%.c=build/asan/%.o)

build/asan/src/core/%.o: src/core/%.c $(wildcard src/core/*.h)
	@mkdir -p $(@D)
	$(CC) $(PURE_CFLAGS) $(ASAN_FLAGS) -c -o $@ $<

build/asan/src/host/%.o: src/host/%.c $(wildcard src/core/*.h src/host/*.h)
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) $(ASAN_FLAGS) -c -o $@ $<

build/asan/%.o: %.c $(wildcard src/core/*.h src/host/*.h src/pg/*.h bgworkers/*.h)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_SL) $(ASAN_FLAGS) -c -o $@ $<

build/asan/mgrepl.so: $(ASAN_OBJS)
	$(CC) -shared $(ASAN_FLAGS) -o $@ $^ -lzmq -lpthread

.PHONY: asan
asan: build/asan/mgrepl.so
