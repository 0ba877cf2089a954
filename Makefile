# On a machine with Python 3.11 or newer and nothing else: `make run`, `make test`.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# Tried in this order; the first that is new enough and can make a virtual environment is taken.
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 /usr/bin/python3
PIP := PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-input
# Test processes beside each other, for two cores: they wait more than they compute. 0: everything in one.
PYTEST_PROCESSES ?= 3
PYTEST_ARGS ?=
PYTEST = $(BIN)/python -m pytest -n $(PYTEST_PROCESSES) --dist worksteal $(PYTEST_ARGS)
BENCH_ARGS ?=
COVERAGE_FLOOR ?= 90

.DEFAULT_GOAL := help
.PHONY: help run test lint audit lock docs screenshots bench soak clean install install-test

help: ## say what can be made
	@sed -n -E 's/^([a-z-]+):.*## /\1\t/p' Makefile | expand -t 16

run: install ## everything on this machine, at http://127.0.0.1:8000 (PORT)
	@exec $(BIN)/chat-backend up

test: install-test ## every test
	@$(PYTEST)

coverage: install-test ## every test at half the speed, then the lines that none of them reaches
	@rm -f .coverage .coverage.*
	@status=0; $(BIN)/python -m coverage run $(PYTEST:$(BIN)/python%=%) || status=$$?; \
	$(BIN)/python -m coverage combine --quiet && \
	$(BIN)/python -m coverage report --fail-under=$(COVERAGE_FLOOR) || status=1; exit $$status

lint: install-test ## style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

audit: install-test ## what is installed and locked, against the vulnerabilities known here; asks no network
	$(BIN)/python -m pytest -q tests/architecture/test_dependencies.py

# setuptools is locked with the rest: the project itself is then installed without fetching anything more.
LOCK = echo 'setuptools>=77' | $(BIN)/uv pip compile setup.cfg - --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --quiet
lock: install ## write requirements.txt and requirements-test.txt anew (LOCK_ARGS=--upgrade)
	$(PIP) uv
	$(LOCK) $(LOCK_ARGS) --output-file requirements.txt
	$(LOCK) $(LOCK_ARGS) --extra test --constraint requirements.txt --output-file requirements-test.txt

docs: install ## write docs/settings.md from the code
	@{ printf '# Settings\n\nEnvironment variables, checked at the start. Written by `make docs`.\n\n'; \
	$(BIN)/chat-backend settings; } > docs/settings.md

screenshots: install-test ## the README's pictures of the page, taken anew (Chromium)
	@$(BIN)/python -m docs.screenshots.take

bench: install-bench ## measure against the provider itself and a reference (BENCH_ARGS=--help)
	@$(BIN)/python -m bench $(BENCH_ARGS)

bench-long: install-bench ## and idle sockets, fan-out, depth, enqueueing, joining
	@$(BIN)/python -m bench --long $(BENCH_ARGS)

soak: install-test ## chaos for SOAK_SECONDS=600 from SOAK_SEED: lost, doubled, hanging must stay zero
	$(BIN)/python -m tests.soak

clean: ## remove what make made, but not var/
	rm -rf $(VENV) build *.egg-info .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test
install-bench: $(VENV)/.installed-bench

$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing (once; a minute or less) ..."
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: requirements-test.txt $(VENV)/.installed
	@echo "Installing what the tests need ..."
	@$(PIP) --require-hashes -r requirements-test.txt
	@touch $@

# Only what the reference is made of: the product and its tests never see it.
$(VENV)/.installed-bench: setup.cfg $(VENV)/.installed-test
	@$(PIP) --no-build-isolation --editable '.[bench]'
	@touch $@

$(BIN)/python:
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python -m venv --clear $(VENV) && exit 0; rm -rf $(VENV); \
		fi; \
	done; \
	for python in $(PYTHONS); do \
		if $$python -c 'import sys, venv, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python -m venv --clear --without-pip $(VENV) \
			&& $$python -m pip --quiet --python $(BIN)/python install pip && exit 0; rm -rf $(VENV); \
		fi; \
	done; \
	if command -v uv >/dev/null 2>&1; then uv venv --quiet --seed --python '>=3.11' $(VENV) && exit 0; rm -rf $(VENV); fi; \
	if command -v python3 >/dev/null 2>&1; then \
		echo "No usable Python: 3.11 or newer with venv and pip is needed, and python3 is $$(python3 -V 2>&1)." \
		"On Debian and Ubuntu: apt-get install python3-venv. Or name one: make PYTHON=/path/to/python3.11" >&2; \
	else \
		echo "No Python found: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11" >&2; \
	fi; exit 1
