# Needs Python 3.11 or newer, make and sh; everything else is installed into .venv, every version pinned.
# All paths are relative, so the checkout may lie in a folder whose name has spaces.

PYTHON = python3
BIN = .venv/bin
STAMP = .venv/installed

# Waiting threads that spin make two busy processes many times slower.
export OMP_WAIT_POLICY = passive

.PHONY: help demo test test-all check lint format setup clean

help:
	@echo 'make demo      run everything on the embedded phantom cohort, and show a leaking set being refused'
	@echo 'make test      run the tests that take seconds'
	@echo 'make test-all  run every test'
	@echo 'make check     ruff, mypy, and the tests that take seconds'
	@echo 'make format    let ruff rewrite what it can'
	@echo 'make clean     remove .venv and caches; runs/ stays'

demo: $(STAMP)
	$(BIN)/synthmed demo

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not slow'

test-all: $(STAMP)
	$(BIN)/python -m pytest

check: lint test

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@for python in '$(PYTHON)' python3.11 python3.12 python3.13; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Setting up .venv with $$python; the first time takes a few minutes"; \
	        exec "$$python" -m venv .venv; \
	    fi; \
	done; \
	echo "Python 3.11 or newer is needed; $(PYTHON) is $$('$(PYTHON)' --version 2>&1). Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
