# SGLang on the CPU, in an environment of its own.

SGLANG := .venv-sglang
SGLANG_PYTHON := $(PYTHON311)
SGLANG_OTHERS := .venv-sglang-matrix
SGLANG_TEST := $(SGLANG)/bin/python -m pytest -o filterwarnings=default -p no:cacheprovider

.PHONY: sglang-venv test-sglang test-sglang-matrix

sglang-venv: $(SGLANG)/installed  ## create .venv-sglang: SGLang for the CPU (2.7 GB)

$(SGLANG)/installed: tests/sglang/requirements.txt tests/sglang/requirements-sglang.txt pyproject.toml
	$(SGLANG_PYTHON) -m venv $(SGLANG)
	$(SGLANG)/bin/python -m pip install $(PIP_QUIET) --requirement tests/sglang/requirements.txt
	$(SGLANG)/bin/python -m pip install $(PIP_QUIET) --no-deps --requirement tests/sglang/requirements-sglang.txt
	$(SGLANG)/bin/python -m pip install $(PIP_QUIET) --no-deps --editable .
	touch $@

test-sglang: sglang-venv  ## the SGLang adapter in SGLang 0.5.23: its policy and trees, and real servers on the CPU
	PYTHONPATH=tests/sglang/stubs $(SGLANG_TEST) tests/sglang

# Other versions of SGLang in the same environment, each with the transformers that it was made for.
SGLANG_ANY := tests/sglang/test_order.py tests/sglang/test_targets.py tests/sglang/test_server.py
SGLANG_VERSIONS := 0.5.11:5.6.0 0.5.16:5.12.1 0.5.20:5.12.1

test-sglang-matrix: sglang-venv  ## the SGLang adapter in SGLang 0.5.11, 0.5.16 and 0.5.20: their policies, trees and servers
	set -e; for pair in $(SGLANG_VERSIONS); do \
	  sglang=$(SGLANG_OTHERS)/sglang-$${pair%%:*}; transformers=$(SGLANG_OTHERS)/transformers-$${pair##*:}; \
	  install="$(SGLANG)/bin/python -m pip install $(PIP_QUIET) --no-deps"; \
	  test -d $$sglang || $$install --target $$sglang sglang==$${pair%%:*}; \
	  test -d $$transformers || $$install --target $$transformers transformers==$${pair##*:} tokenizers==0.22.2; \
	  echo "SGLang $${pair%%:*}"; \
	  PYTHONPATH=$(CURDIR)/$$transformers:$(CURDIR)/$$sglang:$(CURDIR)/tests/sglang/stubs \
	    $(SGLANG_TEST) $(SGLANG_ANY) -k "not server or charged_exactly"; \
	done

