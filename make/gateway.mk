# The gateway: its tests, its chaos, and the routers that it is measured beside.

ROUTERS := .venv-routers

.PHONY: test-gateway test-gateway-chaos bench-gateway bench-gateway-fairness

test-gateway: venv services  ## the gateway's tests, with sixty seconds of chaos
	FAIRPREFIX_CHAOS_S=60 $(BIN)/python -m pytest tests/gateway

test-gateway-chaos: venv  ## the sixty seconds of chaos alone; `make test` has eight, the night ten minutes
	FAIRPREFIX_CHAOS_S=60 $(BIN)/python -m pytest tests/gateway/test_chaos.py

$(ROUTERS)/installed:
	$(PYTHON) -m venv $(ROUTERS)
	$(ROUTERS)/bin/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(ROUTERS)/bin/python -m pip install $(PIP_QUIET) vllm-router==0.1.17 sglang-router==0.3.2
	touch $@

bench-gateway: venv $(ROUTERS)/installed  ## latency and throughput of the gateway beside vllm-router and sglang-router
	$(BIN)/python benchmarks/gateway.py

bench-gateway-fairness: venv $(ROUTERS)/installed  ## a light client beside sixty streams: gateway and cache_aware routing
	$(BIN)/python -m benchmarks.gateway_fairness --rounds 3
	$(BIN)/python -m benchmarks.gateway_fairness --engine --rounds 3
