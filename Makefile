# Each target does its own set-up from a fresh clone; what is needed is Python 3.11 or newer, make and git.
# pip is used as the machine has it configured: its settings and PIP_* variables apply.

PYTHON ?= $(shell for p in python3.11 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
ARGS ?=

VENV := .venv
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
CODE := src tests recipes benchmarks examples docs

.PHONY: help quickstart test fuzz lint types imports docs docs-check lock clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

quickstart: $(RUN)  ## measure the built-in model, train it two ways, compare; ARGS=--quick for a short one
	$(VENV)/bin/headway quickstart --out runs/quickstart $(ARGS)

test: $(DEV)  ## the test suite
	$(VENV)/bin/pytest $(ARGS)

fuzz: $(DEV)  ## hostile inputs, all of them, 20 minutes of one core; ARGS="imports --only parquet" for some
	$(VENV)/bin/python tests/fuzz $(ARGS)

lint: $(DEV)  ## ruff: rules and format
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)

types: $(DEV)  ## mypy --strict on src
	$(VENV)/bin/mypy

imports: $(DEV)  ## the layers
	$(VENV)/bin/lint-imports

docs: $(DEV)  ## the documentation as a site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build -q

docs-check: docs  ## that, and links, names and code blocks of the documentation
	$(VENV)/bin/pytest -q tests/test_docs.py

lock:  ## write requirements.lock anew: the newest versions that pyproject.toml allows; test before committing it
	rm -rf $(VENV)/lock
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install -q ".[dev]"
	$(VENV)/lock/bin/pip list --format=freeze --exclude headway --exclude pip --exclude setuptools \
		| sed 's/+[A-Za-z0-9.]*$$//' > requirements.lock
	rm -rf $(VENV)/lock

clean:  ## remove the environment, caches and runs
	rm -rf $(VENV) runs dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml requirements.lock | $(VENV)/bin/pip
	$(VENV)/bin/pip install -q -c requirements.lock -e ".[train]"
	touch $@

$(DEV): pyproject.toml requirements.lock | $(VENV)/bin/pip
	$(VENV)/bin/pip install -q -c requirements.lock -e ".[dev]"
	touch $@
