# Two commands on a fresh machine: `make demo`, then `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Of each fuzz target in `make nightly`.
FUZZ_S ?= 600
# Of the chaos on a virtual clock in `make nightly`, fresh ones each time.
CHAOS_SEEDS ?= 10000
# cython-lint starts pycodestyle by name.
export PATH := $(abspath $(BIN)):$(PATH)

SOURCES := setup.py pyproject.toml $(wildcard passivx/_core/*.pyx passivx/_core/*.pxd)
DEBUG_LIB := build/debug-lib
# What must hold on the bounds-checked build too: everything that runs compiled code.
CORE_TESTS := tests/core tests/reference tests/golden tests/data

.PHONY: help demo test build debug lint bench nightly annotate sdist clean

help:
	@echo "make demo      set up, backtest a made-up market and trade it on a simulated exchange: no keys"
	@echo "make test      set up, lint, types, the whole suite on release and debug builds"
	@echo "make build     compile the core in place (release)"
	@echo "make debug     compile the core bounds-checked, -O0 -g, into $(DEBUG_LIB)"
	@echo "make lint      ruff, cython-lint, mypy, stubtest"
	@echo "make bench     the benchmarks; writes build/benchmarks.json"
	@echo "make nightly   long fuzzing, chaos, a soak (PASSIVX_FUZZ_RUNS, PASSIVX_CHAOS_RUNS, FUZZ_S: its length)"
	@echo "make annotate  Cython's annotated HTML in build/cython-release"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

# The package itself, editable, so that the core compiles in place.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install -qq -e .
	@touch $@

# The `dev` extra by itself: installing it through the package would compile the core again.
$(VENV)/.dev: pyproject.toml $(VENV)/.installed
	$(BIN)/python -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['dev'], \
		sep='\n')" > $(VENV)/dev-requirements.txt
	$(BIN)/python -m pip install -q -r $(VENV)/dev-requirements.txt
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/passivx demo

build: $(VENV)/.dev
	$(BIN)/python setup.py -q build_ext --inplace --force -j$(JOBS)

$(DEBUG_LIB)/.built: $(SOURCES) $(wildcard passivx/*.py passivx/*/*.py) | $(VENV)/.dev
	PASSIVX_DEBUG=1 $(BIN)/python setup.py -q build --build-base build/debug \
		--build-lib $(DEBUG_LIB) -j$(JOBS)
	@touch $@

debug: $(DEBUG_LIB)/.built

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint passivx/_core
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/stubtest-allow.txt \
		$$($(BIN)/python -c "from pathlib import Path; print(' '.join(f'passivx._core.{p.stem}' \
		for p in sorted(Path('passivx/_core').glob('*.pyi'))))")

test: lint debug
	$(BIN)/pytest -n $(JOBS)
	PASSIVX_BENCH_ROWS=20000 $(BIN)/pytest -q benchmarks --benchmark-disable
	PYTHONPATH=$(DEBUG_LIB) PASSIVX_EXPECT_DEBUG=1 $(BIN)/pytest -n $(JOBS) $(CORE_TESTS)

bench: $(VENV)/.dev
	@mkdir -p build
	$(BIN)/pytest benchmarks --benchmark-only --benchmark-json=build/benchmarks.json

nightly: $(VENV)/.dev
	$(BIN)/pytest -n $(JOBS) -m nightly
	PASSIVX_CHAOS_FIRST=$$(date +%s) PASSIVX_CHAOS_SEEDS=$(CHAOS_SEEDS) $(BIN)/pytest -n $(JOBS) \
		tests/chaos/test_tier1.py -k nothing_is_sent_twice
	for target in $$(ls tests/fuzz/corpus); do \
		$(BIN)/python -m tests.fuzz.run $$target --seconds $(FUZZ_S) || exit 1; done

annotate: $(VENV)/.dev
	PASSIVX_ANNOTATE=1 $(BIN)/python setup.py -q build_ext --inplace --force

sdist: $(VENV)/.dev
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info passivx/_core/*.so
