# make demo and make test do everything on a fresh clone: own virtual environment, install, run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs build bench soak clean

demo: $(VENV)/.installed
	$(BIN)/python -m transferkit demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest --cov --cov-report=term
	$(BIN)/python -m coverage report --include='transferkit/content/*,transferkit/protocol/*' --fail-under=100

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

build: $(VENV)/.installed
	$(BIN)/python -m build --outdir dist .

$(VENV)/.installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server,test,lint,docs,bench]'
	touch $@

# Full size, about an hour: make bench, or a part of it: make bench ARGS='--rows small --size 0.1'
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks --json build/benchmarks.json --svg build/benchmarks.svg $(ARGS)

# 200 kill -9 of a download and of an upload, some minutes: make soak, or make soak ARGS='--kills 20 --seed 7'
soak: $(VENV)/.installed
	$(BIN)/python -m benchmarks.soak $(ARGS)

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
