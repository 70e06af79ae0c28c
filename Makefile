# make demo and make test do everything on a fresh clone: own virtual environment, install, run.
PYTHON ?= python3
VENV ?= .venv
FLOOR ?= .venv-floor
THREADS ?= .venv-threads
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check

# Tests wait for sockets more than they compute: four workers for two cores. A group of tests runs in one worker.
WORKERS ?= 4
ROUNDS ?= 50
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup
PLAIN := TRANSFERKIT_TEST_TRANSPORT=plain

# Where it is set, each worker and each program that a test starts would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-plain test-full test-floor test-threads lint docs man build bench soak install clean

demo: $(VENV)/.installed-server
	$(BIN)/python -m transferkit demo --model

# What reads the words of a peer is covered by its own tests, in every branch; how much of the rest is, test-full says.
PURE := content protocol

test: $(VENV)/.installed-test
	$(PYTEST) $(PURE:%=--cov=transferkit/%) --cov-fail-under=100 $(PURE:%=tests/unit/%)
	$(PYTEST) $(PURE:%=--ignore=tests/unit/%)

# What both lanes promise, on the ordinary one: every request goes through requests.Session.send.
test-plain: $(VENV)/.installed-test
	$(PLAIN) $(PYTEST) -m lanes tests/functional

# The full product of faults, contents and lanes.
test-full: $(VENV)/.installed-test
	TRANSFERKIT_TEST_FULL=1 $(PYTEST) --cov --cov-report=term
	TRANSFERKIT_TEST_FULL=1 $(PLAIN) $(PYTEST) tests/functional tests/integration

# The transport on the oldest releases that are supported; tests/unit/transport touches their private attributes.
test-floor: $(FLOOR)/.installed-test
	$(FLOOR)/bin/python -m pytest --numprocesses=$(WORKERS) tests/unit/transport

# Threads under stress, with exact figures, on any interpreter: make test-threads PYTHON=python3.14t ROUNDS=200
test-threads: $(THREADS)/.installed-server
	$(THREADS)/bin/python -m benchmarks.threads --rounds $(ROUNDS)

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# The manual page that is installed; tests/unit/cli/test_manual.py holds it to the commands.
man: $(VENV)/.installed-test
	$(BIN)/python -m transferkit.cli.manual > docs/transferkit.1

build: $(VENV)/.installed-lint
	$(BIN)/python -m build --outdir dist .

# One environment; each target installs the extra that it needs.
$(VENV)/.installed-%: setup.cfg setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -e '.[$*]'
	touch $@

# What the stages of .ci/run need, so that their times are their own.
install: $(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-docs $(FLOOR)/.installed-test

$(FLOOR)/.installed-test: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/python $(PIP) -e '.[test]' 'requests==2.33.*' 'urllib3==2.7.*'
	touch $@

$(THREADS)/.installed-server: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(THREADS)
	$(THREADS)/bin/python $(PIP) -e '.[server]'
	touch $@

# Full size, about an hour: make bench, or a part of it: make bench ARGS='--rows small --size 0.1'
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks --json build/benchmarks.json --svg build/benchmarks.svg $(ARGS)

# Kills, 10,000 faults of the network, processes that share a folder, a server: 40 minutes; docs/soak.rst. A part of it:
# make soak ARGS='--only kills --kills 20 --seed 7'
soak: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.soak $(ARGS)
	$(BIN)/python -m benchmarks.interrupts
	$(BIN)/python -m benchmarks.chain

clean:
	rm -rf $(VENV) $(FLOOR) $(THREADS) build dist docs/_build *.egg-info
