# Each part of the night leaves a stamp: `make nightly` goes on after an interruption, and repeats what has changed.

NIGHTLY := .nightly
CODE = $(shell find src tests -name '*.py')
PARTS := fcfs lpm vtc dlpm d2lpm core bounds sim policies mutants kit formal chaos
RUNS_fcfs := tests/property/test_fcfs.py
RUNS_lpm := tests/property/test_lpm.py
RUNS_vtc := tests/property/test_vtc.py
RUNS_dlpm := tests/property/test_dlpm.py
RUNS_d2lpm := tests/property/test_d2lpm.py
RUNS_core := tests/core
RUNS_bounds := tests/bounds
RUNS_sim := tests/sim
RUNS_policies := tests/quality/test_kill_matrix.py -k correct
RUNS_mutants := tests/quality/test_kill_matrix.py -k "not correct"
RUNS_kit := tests/quality --ignore=tests/quality/test_kill_matrix.py
RUNS_formal := tests/formal
RUNS_chaos := tests/gateway/test_chaos.py

.PHONY: nightly test-defences mutation mutation-note

nightly: $(PARTS:%=$(NIGHTLY)/%) test-defences test-compiled test-vllm-compiled test-vllm-matrix test-sglang-matrix test-ray-matrix test-ray-llm mutation  ## 20 000 examples, every version of every engine, mutation testing (hours; resumable)

nightly-%: $(NIGHTLY)/%  ## one part of it, such as nightly-dlpm
	@true

$(NIGHTLY)/chaos: export FAIRPREFIX_CHAOS_S := 600

$(NIGHTLY)/%: $(CODE) | venv
	mkdir -p $(NIGHTLY)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -p no:cacheprovider --durations=5 $(RUNS_$*)
	touch $@

test-defences: venv  ## takes each defence of SECURITY.md out, and sees that its test fails
	$(BIN)/python -m tests.quality.defences

mutation: venv  ## mutation testing of the core; goes on where it stopped (docs/mutation.md)
	nice -n 15 $(BIN)/python -m tests.mutation.measure

mutation-note: venv  ## write down which functions have changed since, and measure nothing
	$(BIN)/python -m tests.mutation.measure --note
