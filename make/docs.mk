# The documentation as a site, in an environment of its own.

DOCS_VENV := .venv-docs

.PHONY: docs

$(DOCS_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install $(PIP_QUIET) --upgrade "pip>=25.1"
	$(DOCS_VENV)/bin/python -m pip install $(PIP_QUIET) --constraint constraints.txt --group docs
	touch $@

docs: $(DOCS_VENV)/installed  ## the documentation as a site (out/site/index.html); broken links are errors
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
