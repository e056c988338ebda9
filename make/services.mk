# What the gateway's tests run for real beside Python: Redis, Chromium and OpenSSL.

.PHONY: services

services:  ## install redis-server, chromium and openssl with apt where they are missing
	@missing=""; \
	command -v redis-server valkey-server > /dev/null || missing="$$missing redis-server"; \
	command -v chromium chromium-browser google-chrome > /dev/null || missing="$$missing chromium"; \
	command -v openssl > /dev/null || missing="$$missing openssl"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  else \
	    echo "the gateway's tests need these programs:$$missing (such as: sudo apt-get install$$missing)"; exit 1; \
	  fi; \
	fi
