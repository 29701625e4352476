# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
# Needed beforehand: Python 3.11 or newer with venv and pip, and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# A stamp says that the environment holds what pyproject.toml and constraints.txt ask for.
# The other stamps depend on the first, so two installations never run at the same time.
TRAIN := $(VENV)/.installed-train
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # the steps print one after the other, with -j as well
.PHONY: help demo bench quick test lint types layers docs unit ray clean

help:
	@echo 'make demo    install what training needs into $(VENV) and train a Double DQN on CartPole-v1'
	@echo 'make bench   install other replay libraries and measure ours beside them: about 20 minutes'
	@echo '             and 10 GB of memory, results in docs/results: benchmarks, vector, index,'
	@echo '             stacks, sequences, ray'
	@echo 'make quick   install the development tools, check the style and run the short tests: less than'
	@echo '             a minute on two cores, two more when the kernels have to be compiled'
	@echo 'make test    install the development tools and run the whole gate:'
	@echo '             make lint types layers docs unit'
	@echo 'make ray     run the tests that start processes of Ray and kill them, one at a time: minutes,'
	@echo '             on a machine that does nothing else'
	@echo 'make docs    build the documentation into docs/_build/html, warnings are errors'
	@echo 'make clean   remove caches and built documentation (not $(VENV), not runs/)'
	@echo
	@echo 'PYTHON=...   the interpreter to make the environment with (now: $(PYTHON))'
	@echo 'VENV=...     the environment itself (now: $(VENV))'

demo: $(TRAIN)
	$(BIN)/per train CartPole-v1 --run-dir runs/demo --overwrite

bench: $(BENCH)
	$(BIN)/python -m benchmarks --parts add replay worst memory start training --output docs/results/benchmarks
	$(BIN)/python -m benchmarks --parts vector note --output docs/results/vector
	$(BIN)/python -m benchmarks --parts index --output docs/results/index
	$(BIN)/python -m benchmarks --parts stacks files --output docs/results/stacks
	$(BIN)/python -m benchmarks --parts sequences --output docs/results/sequences
	$(BIN)/python -m benchmarks --parts ray --output docs/results/ray
	$(BIN)/python -m benchmarks.ray_model docs/results/ray

quick: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m 'not slow and not processes' tests

# pytest comes last, so that its closing line is the last one of the gate
test: lint types layers docs unit

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(DEV)
	$(BIN)/mypy

layers: $(DEV)
	$(BIN)/lint-imports --no-cache --no-logo

docs: $(DEV)
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html docs docs/_build/html
	@echo 'documentation: docs/_build/html/index.html'

# two processes: the tests are independent of each other and of their order
unit: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not processes' --ignore=docs/ray.rst

# one test at a time: each starts Ray, which needs both cores of a small machine for itself
ray: $(DEV)
	$(BIN)/python -m pytest -n 0 -m processes tests
	$(BIN)/python -m pytest docs/ray.rst

# venv makes the interpreter first and pip last: an environment without pip was interrupted
$(TRAIN): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[train]'
	@touch $@

$(DEV): $(TRAIN)
	$(INSTALL) '.[dev]'
	@touch $@

$(BENCH): $(TRAIN)
	$(INSTALL) '.[bench]'
	@touch $@

clean:
	rm -rf docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests docs -name __pycache__ -type d -exec rm -rf {} +
