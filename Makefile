# A thin front of CMake + Ninja. `make` installs missing Debian packages (as
# root or through sudo, otherwise it says what to run) and builds build/novaq.
# Variables: PREFIX, DESTDIR, JOBS, QUALITY, SPEED and STREAMING (arguments),
# LLAMA_BENCH (speed), FUZZ_SECONDS (fuzz).

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 30
CONFIGURE = cmake --preset

.DEFAULT_GOAL := build
.PHONY: build deps demo test kill-test bench quality speed streaming lint format install asan tsan fuzz clean help

build: ## build build/novaq and the libraries
	@tools/deps.sh
	@$(CONFIGURE) release -DCMAKE_INSTALL_PREFIX=$(PREFIX) --log-level=WARNING
	@cmake --build build --parallel $(JOBS) --target novaq novaq_shared
	@echo "built build/novaq; try: make demo"

deps: ## install every Debian package that building, testing and linting need
	@tools/deps.sh --lint

demo: build ## compress, measure and run a real model (under 10 minutes, needs the network once)
	@tools/demo.sh

test: ## every test: release, sanitizers, oracles, scripts
	@tools/deps.sh --test
	@JOBS=$(JOBS) tests/run_tests.sh

kill-test: build ## kill -9 two hundred runs at work; what goes on from them gives the same bytes
	@dir=$$(mktemp -d) && cd $$dir && $(CURDIR)/tests/cli/test_kill.sh $(CURDIR)/build/novaq 200; \
		code=$$?; rm -rf $$dir; exit $$code

bench: build ## measure the codec on Gaussian data; writes bench/codec.md
	@bench/codec.py

quality: build ## quality at every size on a model, against peers; see bench/quality.py --help
	@bench/quality.py $(QUALITY)

speed: build ## tokens per second beside llama.cpp, random weights; see bench/speed.py --help
	@bench/speed.py $(SPEED)

streaming: build ## download and compress at once, memory bound; see bench/streaming.py --help
	@bench/streaming.py $(STREAMING)

lint: ## clang-format, clang-tidy, layering, style
	@tools/deps.sh --lint
	@JOBS=$(JOBS) tools/lint.sh

format: ## clang-format every C file in place
	@tools/deps.sh --lint
	@git ls-files -co --exclude-standard -- '*.c' '*.h' | xargs clang-format -i

install: build ## install into $(DESTDIR)$(PREFIX)
	@cmake --build build --parallel $(JOBS) --target novaq novaq_static novaq_shared
	@DESTDIR=$(DESTDIR) cmake --install build --prefix $(PREFIX)

asan tsan: ## build with sanitizers into build/asan or build/tsan
	@tools/deps.sh
	@$(CONFIGURE) $@
	@cmake --build build/$@ --parallel $(JOBS)

fuzz: ## libFuzzer on every target for FUZZ_SECONDS each (needs clang-14)
	@tools/deps.sh --fuzz
	@$(CONFIGURE) fuzz --log-level=WARNING
	@cmake --build build/fuzz --parallel $(JOBS) --target fuzzers
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz.sh

clean: ## remove everything built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z -]*\):[a-z ]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
