# Two commands do all the set-up: `make demo` and `make test`. Both create their own .venv with pip.
# Here: what everybody types. make/: engines in environments of their own, the night, benchmarks.

PYTHON ?= python3
PYTHON311 ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
BARE := .venv-bare
PIP_QUIET := --quiet --disable-pip-version-check

.PHONY: help venv demo paper simulate test test-core test-others lint types format test-bare test-pythons clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

venv: $(VENV)/installed  ## create .venv with everything that development needs

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(BIN)/python -m pip install $(PIP_QUIET) --constraint constraints.txt --editable . --group dev
	touch $@

demo: venv  ## three clients on a small real model under LPM, VTC and DLPM: a table and a picture (out/demo-engine.png)
	mkdir -p out
	$(BIN)/fairprefix demo --plot out/demo-engine.png

paper: venv  ## the evaluation of the DLPM paper in virtual time, ours beside the published figures (out/paper)
	$(BIN)/fairprefix paper --quick --out out/paper

simulate: venv  ## FCFS, LPM, VTC and DLPM on the packaged trace, in virtual time (out/demo.png)
	mkdir -p out
	$(BIN)/fairprefix simulate --plot out/demo.png --json out/demo.json

test: venv services  ## all tests, with branch coverage of the core: two or three at a time
	$(MAKE) --no-print-directory --jobs 2 test-core test-others

test-core: venv
	$(BIN)/python -m coverage run -m pytest -q tests/core tests/property  # from the start: our pytest plugin imports us
	$(BIN)/python -m coverage report --skip-covered

test-others: venv services
	$(BIN)/python -m pytest -n 2 --dist loadfile tests --ignore=tests/core --ignore=tests/property

lint: venv  ## style, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

types: venv  ## types as API: pyright on tests/typing, and no exported name without a full type
	$(BIN)/python make/check_types.py

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

test-pythons:  ## the tests of the core on Python 3.10 to 3.13, those of them that are at hand
	$(PYTHON) make/pythons.py

include make/*.mk

clean:  ## remove what was built
	rm -rf .venv* .nightly out build dist mutants .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
