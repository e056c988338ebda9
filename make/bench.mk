# Benchmarks of the core, and the core compiled by mypyc.

COMPILED := .venv-compiled

# Policies may be derived from compiled ones. What swaps an object's class, or counts in floats, is refused by them.
DERIVABLE := not AdmitsAtZero and not TopsUp and not CountsInFloats

.PHONY: bench bench-smoke compiled test-compiled

bench: venv  ## time and memory of the policies: steps by queue length, hostile queues, single operations
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/policy_step.py
	$(BIN)/python benchmarks/policy_worst_cases.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/routing.py
	$(BIN)/python benchmarks/kv_events.py
	$(BIN)/python -m pytest benchmarks/test_operations.py --benchmark-only --benchmark-columns=min,median,ops

bench-smoke: venv  ## the benchmarks of the core at a small size: that they run, not how fast
	$(BIN)/python benchmarks/import_time.py --rounds 1
	$(BIN)/python benchmarks/policy_step.py --waiting 200 --steps 20
	$(BIN)/python benchmarks/policy_worst_cases.py --waiting 200 --steps 20
	$(BIN)/python benchmarks/scale.py --requests 60 --workers 2
	$(BIN)/python benchmarks/kv_events.py
	$(BIN)/python -m pytest -q benchmarks/test_operations.py --benchmark-disable

compiled:  ## an environment with the core compiled by mypyc (.venv-compiled); the sources are copied, not touched
	rm -rf build/compiled && mkdir -p build/compiled
	cp -r pyproject.toml README.md LICENSE src build/compiled
	$(PYTHON) -m venv $(COMPILED)
	$(COMPILED)/bin/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	cd build/compiled && HATCH_BUILD_HOOK_ENABLE_MYPYC=1 ../../$(COMPILED)/bin/python -m pip wheel $(PIP_QUIET) --no-deps --wheel-dir . .
	$(COMPILED)/bin/python -m pip install $(PIP_QUIET) --constraint constraints.txt --force-reinstall build/compiled/*.whl hypothesis pytest

test-compiled: venv compiled  ## compiled and interpreted core decide alike; the property tests on the compiled one
	$(COMPILED)/bin/python -c "import fairprefix.core.dlpm as m; assert m.__file__.endswith('.so'), m.__file__"
	$(COMPILED)/bin/python -c "from fairprefix import RecordedIndex; RecordedIndex(16, print).cached((1, 2))"  # hosts derive from the index
	PYTHONPATH=. $(BIN)/python tests/core/decision_log.py > build/interpreted.log
	PYTHONPATH=. $(COMPILED)/bin/python tests/core/decision_log.py > build/compiled.log
	cmp build/interpreted.log build/compiled.log
	$(COMPILED)/bin/python -m pytest tests/property tests/core/test_prefixes.py tests/adapters/vllm/test_queue.py
	$(COMPILED)/bin/python -m pytest tests/quality/test_kill_matrix.py -k "$(DERIVABLE)"
	$(BIN)/python benchmarks/compiled.py $(COMPILED)/bin/python $(BIN)/python
