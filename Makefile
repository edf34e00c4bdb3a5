# make demo: set up, train the textbook's experiment, predict.    make test: set up, run the whole test suite.
# make mutants: see that twenty mistakes in our own code, one after the other, are noticed by its tests.
# make torture: thousands of kills, faults of a disk and damaged checkpoints; takes the better part of an hour.
# make bench: set up a second environment with comparable tools, measure, write docs/performance.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench

.PHONY: demo test mutants torture lint docs accuracy bench clean

demo: $(VENV)/installed
	$(BIN)/linreg train configs/simple_linear_regression.yaml
	$(BIN)/linreg predict --inputs 0.20 0.34 0.57

test: $(VENV)/installed
	$(BIN)/python -m pytest

mutants: $(VENV)/installed
	$(BIN)/python -m tests.faults.mutants

torture: $(VENV)/installed
	$(BIN)/python -m tests.faults --kills 2000 --mutations 20000

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python docs/make_spec.py

accuracy: $(VENV)/installed
	$(BIN)/python docs/make_accuracy.py

bench: $(BENCH)/installed
	$(BENCH)/bin/python -m benchmarks --page

clean:
	rm -rf $(VENV) $(BENCH) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(BENCH)/installed: pyproject.toml constraints.txt benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -c benchmarks/constraints.txt -e '.[bench]'
	touch $@
