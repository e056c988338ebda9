# What is shipped: packages, their dependencies, the release notes.

PACKAGING := .venv-packaging
AUDIT ?=

.PHONY: test-packages audit changelog

$(PACKAGING)/installed: make/packages.mk constraints.txt
	$(PYTHON) -m venv $(PACKAGING)
	$(PACKAGING)/bin/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(PACKAGING)/bin/python -m pip install $(PIP_QUIET) --constraint constraints.txt build pip-audit towncrier
	touch $@

test-packages: $(PACKAGING)/installed  ## sdist and wheel, installed with every extra into empty environments
	$(PACKAGING)/bin/python make/packages.py

audit: $(PACKAGING)/installed  ## known vulnerabilities of what constraints.txt pins (AUDIT=--must: fail where nothing can be asked)
	$(PACKAGING)/bin/python make/audit.py $(AUDIT)

changelog: $(PACKAGING)/installed  ## the fragments of changelog.d as release notes; with VERSION=1.2.3 into CHANGELOG.md
	$(PACKAGING)/bin/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version next)
