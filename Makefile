# make run    installs gpusim with pictures, numba and predictions into .venv, and runs the first experiment
# make test   installs what the tests need too and runs them
# Needs python3 >= 3.11; PYTHON=... names another interpreter, VENV=... another folder,
# EXTRAS=... what make test installs of pyproject.toml's extras.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= plot,numba,predict,test,dev
PYTEST_ARGS ?=
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test

run: $(VENV)/.installed-run
	$(BIN)/gpusim experiment=first_run

test: $(VENV)/.installed-test-$(EXTRAS)
	$(BIN)/python -m pytest -q -n auto --dist worksteal $(PYTEST_ARGS)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpusim needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

# The stamps make a second run start at once; a change of the dependencies installs again.
$(VENV)/.installed-run: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable '.[plot,numba,predict]'
	touch $@

$(VENV)/.installed-test-$(EXTRAS): pyproject.toml | $(BIN)/python
	$(INSTALL) --editable '.[$(EXTRAS)]'
	touch $@ $(VENV)/.installed-run
