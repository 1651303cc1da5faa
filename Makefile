# Each command makes .venv if it is missing and installs what it needs; nothing is written outside the repository.
PYTHON ?= python3
BIN := .venv/bin

# More options for pytest, such as MORE="-k resnet".
MORE ?=

# Examples of each reader that `make fuzz` damages.
FUZZ ?= 20000

.PHONY: demo test test-all test-slow test-browser fuzz check format lint types bench docs clean

demo: .venv/.demo
	$(BIN)/nexus demo --output demo

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not browser" $(MORE)

test-all: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not browser" $(MORE)

test-slow: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not browser" $(MORE)

# The pages in a real browser without a window: Debian's chromium, or the one that NEXUS_CHROMIUM names.
test-browser: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser -m browser $(MORE)

fuzz: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --examples $(FUZZ)

check: lint types test

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.dev
	$(BIN)/pyrefly check --summary=none

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.dev
	for table in benchmarks/*.py; do $(BIN)/python $$table || exit 1; done

docs: .venv/.dev
	$(BIN)/python docs/reference.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

# constraints.txt names the releases that were tested; who wants others passes CONSTRAINTS=another-file, or nothing for none.
CONSTRAINTS ?= constraints.txt
INSTALL = $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable

.venv/.demo: pyproject.toml $(CONSTRAINTS) | .venv/bin/python
	$(INSTALL) ".[demo]"
	touch $@

.venv/.dev: pyproject.toml $(CONSTRAINTS) | .venv/bin/python
	$(INSTALL) ".[dev]"
	touch $@ .venv/.demo

clean:
	rm -rf .venv demo runs
