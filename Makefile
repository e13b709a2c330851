# Everything is built on .venv; a stamp says what is installed in it, so a second run installs nothing.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p))))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo test check bench soak schema clean

help:  ## Show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.core  ## Create .venv with what the simulator needs

demo: $(VENV)/.core  ## Compare the 4-slot and the 24-slot setup; print the table, write the report
	$(BIN)/python -m sim compare scenarios/four_vs_24.yaml --out results/four_vs_24

test: $(VENV)/.live  ## Run every test that needs no GPU
	$(PYTEST)

check: $(VENV)/.live  ## Lint, types, import contracts, tests with coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) --cov --cov-report=term-missing:skip-covered
	$(BIN)/coverage report --include='shared/*' --fail-under=100 --format=total
	$(BIN)/coverage report --include='sim/*,live/*' --fail-under=90 --format=total

bench: $(VENV)/.core  ## Measure the engine, the readers and the commands; print ratios
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.readers

soak: $(VENV)/.live  ## Kill the daemon 1,000 times, examine what is left, then load it for 10 minutes; time a start
	@missed=0; for each in soak live_load ready; do \
		$(BIN)/python -m benchmarks.$$each || missed=1; \
	done; exit $$missed

schema: $(VENV)/.core  ## Write the JSON Schema of scenario files
	$(BIN)/python -m sim schema > scenarios/scenario.schema.json

clean:  ## Remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.live: $(VENV)/.core
	$(PIP) --editable '.[live,image,dev]'
	@touch $@
