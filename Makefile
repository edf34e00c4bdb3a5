# make demo    set up, train the textbook's experiment, predict
# make test    set up, run all tests; make test T=data runs tests/data, T=data/tables runs tests/data/test_tables.py
# make test-thorough    run all tests, with more repetitions of those that try something at random
# make lint    check format, style and types
# make docs    generate docs/spec.md, cli.md, api.md and tutorial.ipynb, and the JSON Schema
# make site    build build/site from the pages, without a network; a broken link is an error
# make package     build dist/, check it, and try the wheel in a new environment
# make mutants     check that the tests notice twenty faults put into the code
# make torture     thousands of kills of runs, sweeps and groups, disk faults, damaged checkpoints; takes more than an hour
# make accuracy    measure the exact solution on certified data, write docs/accuracy.md
# make bench       set up a second environment with comparable tools, measure, write docs/performance.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
# the environment is installed uncompiled; the first import of a module compiles it, and this keeps the result
unexport PYTHONDONTWRITEBYTECODE

# the tests that T selects: a package, a module, or a file at the top
TESTS = $(if $(T),$(or $(wildcard tests/$(T) tests/$(T).py tests/$(dir $(T))test_$(notdir $(T)).py),\
	$(error T=$(T): no such tests; try T=data or T=data/tables)))

.PHONY: demo test test-thorough mutants torture lint docs site package accuracy bench clean

demo: $(VENV)/installed
	$(BIN)/linreg train configs/simple_linear_regression.yaml
	$(BIN)/linreg predict --inputs 0.20 0.34 0.57

# two processes run the tests, each with one thread
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS)

test-thorough: export LINREG_THOROUGH = 1
test-thorough: test

mutants: $(VENV)/installed
	$(BIN)/python -m tests.faults.mutants

torture: $(VENV)/installed
	$(BIN)/python -m tests.faults

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python docs/make_spec.py
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_notebook.py

site: $(VENV)/installed
	$(BIN)/python docs/make_site.py

package: $(VENV)/installed
	BIN=$(BIN) .ci/package

accuracy: $(VENV)/installed
	$(BIN)/python docs/make_accuracy.py

bench: $(BENCH)/installed
	$(BENCH)/bin/python -m benchmarks --page

clean:
	rm -rf $(VENV) $(BENCH) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

$(BENCH)/installed: pyproject.toml constraints.txt benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -c benchmarks/constraints.txt -e '.[bench]'
	touch $@
