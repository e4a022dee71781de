# The commands of a contributor, of CI and of the README are these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: help demo test lint test-all clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       make a sample data set and run the whole pipeline on it"
	@echo "make test       style, types and the default tests"
	@echo "make test-all   the slow and the chaos tests too"
	@echo "make clean      remove the demo and the environment"

# One stamp per set of extras: an unchanged pyproject.toml installs nothing again.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing mmcore and what it needs into $(VENV) (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[samples]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/mmcore sample digits $(DEMO)/digits --samples 2000 --seed 0
	@$(BIN)/mmcore run $(DEMO)/digits/pipeline.yaml

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered --durations=15

test-all: lint
	$(BIN)/pytest -n auto --dist loadfile -m 'not gpu' --cov --cov-report=term:skip-covered --durations=30

clean:
	rm -rf $(DEMO) $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage
