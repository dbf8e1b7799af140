# Targets for people; included by the Makefile.
#
# None of them needs anything but bash and make to begin with: each script
# installs the missing packages first and calls make again for the build.
#
#   make test TIER=unit              one tier: lint unit regress pgtap tap
#   make test TESTS=test/t/002*.pl   these TAP tests only
#   make test-long                   the same, with more rounds where a test has rounds, and the fuzzers and canaries
#   make bench BENCH_FILTER=update   systems, scripts, clients that match
#   make bench-group                 ordering alone; how long a fault is felt
#   make bench-transfer              nodes that come and go: catching up, copying

.PHONY: deps demo demo-stop test test-long bench bench-group bench-transfer lint

deps:
	@bash test/deps test

demo:
	@bash test/demo start

demo-stop:
	@bash test/demo stop

test:
	@bash test/run

test-long:
	@MGREPL_LONG=1 bash test/run
	@$(MAKE) --no-print-directory fuzz sim-canaries

bench:
	@bash test/bench/run

bench-group:
	@bash test/bench/group

bench-transfer:
	@bash test/bench/transfer

lint:
	@bash test/lint

-include test/unit.mk
-include test/sim.mk
