# Two commands for a newcomer: `make serve` and `make test`; `make test-all` runs the long tests.

PYTHON ?= python3
MODEL ?= bundled
WORKERS ?= 2
BIN := .venv/bin
# Most tests wait for processes to start or to answer. Those of a file stay together: they share a
# service, or a model.
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile
# Progress bars and version notices of pip tell a newcomer nothing.
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: serve test test-all test-lowest lint docs bench clean

serve: .venv/serve
	$(BIN)/pagevec serve --model $(MODEL) --demo examples

test: .venv/test
	$(BIN)/python -m pytest -m "not long" $(SIDE_BY_SIDE)

test-all: .venv/test
	$(BIN)/python -m pytest -m "long and not alone" $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest -m "long and alone"

# The engine, and what else works with the packages whose lowest versions are allowed.
test-lowest: .venv-lowest/test
	.venv-lowest/bin/python -m pytest -m "not long" $(SIDE_BY_SIDE) \
	  tests/engine tests/wire tests/images tests/server --ignore-glob 'tests/server/test_fuzz*' \
	  --ignore tests/server/test_tracing.py \
	  tests/test_cli.py tests/test_settings.py tests/ingest/test_sources.py

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
	rm -rf .venv .venv-lowest

.venv/serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing from constraints.txt (torch among it: minutes on a slow line)"
	$(PIP) install --constraint constraints.txt --editable '.[serve,pdf]'
	@touch $@

.venv/test: .venv/serve
	$(PIP) install --constraint constraints.txt --editable '.[serve,pdf,dev]'
	@touch $@

.venv-lowest/test: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv --clear .venv-lowest
	@echo "installing from constraints-lowest.txt (torch among it: minutes on a slow line)"
	.venv-lowest/bin/pip --disable-pip-version-check --quiet install \
	  --constraint constraints-lowest.txt --editable '.[serve,pdf,precision,redis]' \
	  hypothesis jsonschema pytest pytest-timeout pytest-xdist
	@touch $@
