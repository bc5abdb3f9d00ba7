# Two commands for a newcomer: `make serve` and `make test`; `make test-all` runs the long tests.

PYTHON ?= python3
MODEL ?= bundled
BIN := .venv/bin
# Progress bars and version notices of pip tell a newcomer nothing.
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: serve test test-all lint docs bench clean

serve: .venv/serve
	$(BIN)/pagevec serve --model $(MODEL) --demo examples

test: .venv/test
	$(BIN)/python -m pytest -m "not long"

test-all: .venv/test
	$(BIN)/python -m pytest -m long

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/serve
	$(BIN)/python docs/update.py

bench: .venv/serve
	$(BIN)/python -m benchmarks.http

clean:
	rm -rf .venv

.venv/serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing from constraints.txt (torch among it: minutes on a slow line)"
	$(PIP) install --constraint constraints.txt --editable '.[serve,pdf]'
	@touch $@

.venv/test: .venv/serve
	$(PIP) install --constraint constraints.txt --editable '.[serve,pdf,dev]'
	@touch $@
