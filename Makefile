# Two commands do all the set-up: `make demo` and `make test`. Both create their own .venv with pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BARE := .venv-bare
PIP_QUIET := --quiet --disable-pip-version-check

.PHONY: help venv demo test lint format test-bare bench nightly mutation mutation-note clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(VENV)/installed  ## create .venv with everything that development needs

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(BIN)/python -m pip install $(PIP_QUIET) --constraint constraints.txt --editable . --group dev
	touch $@

demo: venv  ## FCFS, LPM, VTC and DLPM on the packaged trace: a table and a picture (out/demo.png)
	mkdir -p out
	$(BIN)/fairprefix simulate --plot out/demo.png --json out/demo.json

test: venv  ## all tests, with branch coverage of the core
	$(BIN)/python -m coverage run -m pytest tests/core tests/property  # from the start: our pytest plugin imports us
	$(BIN)/python -m coverage report --skip-covered
	$(BIN)/python -m pytest tests --ignore=tests/core --ignore=tests/property

lint: venv  ## style, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv  ## format the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-bare:  ## the wheel in an empty environment: attrs alone, and the simulator works
	rm -rf $(BARE) && $(PYTHON) -m venv $(BARE)
	$(BARE)/bin/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(BARE)/bin/python -m pip install $(PIP_QUIET) --constraint constraints.txt .
	$(BARE)/bin/python -m pip list --format=freeze | sed 's/==.*//' | sort > $(BARE)/packages
	printf 'attrs\nfairprefix\npip\n' > $(BARE)/expected
	grep -v -x -e setuptools -e tomli $(BARE)/packages | diff - $(BARE)/expected
	cd $(BARE) && bin/fairprefix simulate --quiet --json - > runs.json && bin/python -c "import json; assert len(json.load(open('runs.json'))['runs']) == 4"

bench: venv  ## time of the policies by queue length
	$(BIN)/python benchmarks/policy_step.py

# Each part of the night leaves a stamp: `make nightly` goes on after an interruption, and repeats what has changed.
NIGHTLY := .nightly
CODE = $(shell find src tests -name '*.py')
PARTS := fcfs lpm vtc dlpm core bounds sim policies mutants kit formal
RUNS_fcfs := tests/property/test_fcfs.py
RUNS_lpm := tests/property/test_lpm.py
RUNS_vtc := tests/property/test_vtc.py
RUNS_dlpm := tests/property/test_dlpm.py
RUNS_core := tests/core
RUNS_bounds := tests/bounds
RUNS_sim := tests/sim
RUNS_policies := tests/quality/test_kill_matrix.py -k correct
RUNS_mutants := tests/quality/test_kill_matrix.py -k "not correct"
RUNS_kit := tests/quality --ignore=tests/quality/test_kill_matrix.py
RUNS_formal := tests/formal

nightly: $(PARTS:%=$(NIGHTLY)/%) mutation  ## everything with 20 000 examples, then mutation testing (hours; resumable)

nightly-%: $(NIGHTLY)/%  ## one part of it, such as nightly-dlpm
	@true

$(NIGHTLY)/%: $(CODE) | venv
	mkdir -p $(NIGHTLY)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -p no:cacheprovider --durations=5 $(RUNS_$*)
	touch $@

mutation: venv  ## mutation testing of the core; goes on where it stopped (docs/mutation.md)
	nice -n 15 $(BIN)/python -m tests.mutation.measure

mutation-note: venv  ## write down which functions have changed since, and measure nothing
	$(BIN)/python -m tests.mutation.measure --note

clean:  ## remove what was built
	rm -rf $(VENV) $(BARE) $(NIGHTLY) out build dist .coverage mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
