# One-line targets; CI calls the same ones. `make PYTHON=python3.12 test` picks the interpreter for a new environment.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
CHECK := $(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports --no-logo
# Two processes and more, each with whole files: most tests wait, or have one thread. Four are enough for the longest file.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs soak clean

help: ## Show the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(VENV)/installed-demo ## Simulated market, candles on the terminal, one minute
	@$(BIN)/tick-handler demo

test: $(VENV)/installed-dev ## Every check, then every test
	@{ $(CHECK); }; checked=$$?; $(PYTEST) && exit $$checked

check: $(VENV)/installed-dev ## Lint, format, types, import contracts
	@$(CHECK)

bench: $(VENV)/installed-dev ## Speed against the peers named in docs/dependencies.md
	@$(BIN)/python -m benchmarks

docs: $(VENV)/installed-dev ## Write the generated reference pages
	@$(BIN)/python docs/generate.py

soak: $(VENV)/installed-dev ## The tests with many more examples, and the long ones
	@$(PYTEST) --soak

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; found $$(python3 --version 2>&1). Install one, or: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0])'
	@echo "Creating the virtual environment $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/installed-demo: pyproject.toml | $(BIN)/python
	@echo "Installing the package with its streaming, batch and query extras (once; some minutes on a slow network) ..."
	@$(PIP) install --quiet --editable '.[streaming,batch,query]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing the package with its streaming, batch, gcp and dev extras (once; some minutes on a slow network) ..."
	@$(PIP) install --quiet --editable '.[streaming,batch,gcp,dev]'
	@touch $@ $(VENV)/installed-demo
