# SPDX-License-Identifier: Apache-2.0
# What people and CI type. `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: help deps build python-env test asan tsan test-systemd fuzz chaos bench gpu-bundle format lint run install
# Compilers at once; gRPC's headers need about 1 GB each.
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
# So that ccache knows a file again in another checkout.
export CCACHE_BASEDIR = $(CURDIR)
export CCACHE_NOHASHDIR = 1
SOURCES = $(shell git ls-files '*.cc' '*.h')

help:  ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps:  ## install what is missing (Debian packages; sudo when not root)
	@deploy/install-deps build python

build:  ## programs of a release build, in build/bin; the Python client in build/python
	@deploy/python-env build || echo "make: going on without the Python client" >&2
	@cmake --preset release --log-level=WARNING >/dev/null
	@cmake --build build -j $(JOBS)

python-env:
	@deploy/python-env test || echo "make: going on without the tests of the Python client" >&2

test: python-env build  ## every test, on the release build
	@tests/ctest-suite build

asan:  ## every test under AddressSanitizer and UndefinedBehaviorSanitizer
tsan:  ## every test under ThreadSanitizer
asan tsan:
	@cmake --preset $@ --log-level=WARNING >/dev/null
	@cmake --build build-$@ -j $(JOBS)
	@tests/ctest-suite build-$@

test-systemd: build  ## the system unit on a real systemd in a container (root, about two minutes)
	@deploy/install-deps systemd-test && tests/integration/systemd_test.sh --prepare
	@tests/ctest-suite build --label-regex '^systemd$$'

chaos: build python-env  ## daemons, workers and clients killed at random for a minute, every batch compared
	@PYTHONPATH=build/python STOKERD=build/bin/stokerd build/venv/bin/python tests/python/chaos.py

fuzz:  ## the readers' fuzz targets by coverage, ten seconds each (clang; make test has them without)
	@deploy/install-deps build fuzz
	@cmake --preset fuzz --log-level=WARNING >/dev/null
	@cmake --build build-fuzz -j $(JOBS) --target fuzz_targets
	@tests/ctest-suite build-fuzz --label-regex '^fuzz$$'

bench: build  ## measure this machine: memory limits, transforms, an epoch end to end
	@build/bin/stokerctl bench

gpu-bundle: build  ## tests and benchmark of the GPU with their libraries, for a machine with a driver only (needs nvcc here)
	@client/gpu/bundle build build/stoker-gpu.tar.gz

format:  ## clang-format on all sources
	@deploy/install-deps lint
	@clang-format -i $(SOURCES)

lint: build  ## clang-format, clang-tidy and shellcheck, as errors
	@deploy/install-deps lint
	@clang-format --dry-run --Werror $(SOURCES)
	@shellcheck $$(git grep -lE '^#!.*sh$$' -- deploy tests .ci)
	@run-clang-tidy -p build -quiet -extra-arg=-Wno-unknown-warning-option -j $(JOBS) '$(CURDIR)/(client|server|shared|tests)/.*'

run: build  ## a daemon for you alone, in the foreground; Ctrl-C ends it
	@build/bin/stokerd

install: build  ## programs, headers and the system unit below PREFIX (default /usr/local)
	@cmake --install build --prefix $(PREFIX)
