# Distributed engines on the CPU, each in an environment of its own.

RAY_VENV := .venv-ray
RAY_BIN := $(RAY_VENV)/bin
RAY_ENV := RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=150 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
DYNAMO_VENV := .venv-dynamo
DYNAMO_BIN := $(DYNAMO_VENV)/bin
# Warnings in there are the engines'; an error of ours is an exception.
DISTRIBUTED_PYTEST := -m pytest -p no:cacheprovider -o filterwarnings=default -W ignore

.PHONY: test-ray test-dynamo

$(RAY_VENV)/installed: make/distributed.mk
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_BIN)/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(RAY_BIN)/python -m pip install $(PIP_QUIET) "ray[serve]==2.60.0" torch==2.13.0+cpu
	$(RAY_BIN)/python -m pip install $(PIP_QUIET) --editable ".[engine,server]" pytest hypothesis httpx openai
	touch $@

test-ray: $(RAY_VENV)/installed  ## D2LPM in a real Ray Serve on three local nodes (its own .venv-ray, 1.5 GB)
	$(RAY_ENV) $(RAY_BIN)/python $(DISTRIBUTED_PYTEST) tests/ray

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

