# A fresh clone on Debian needs Python 3.10 to 3.13 and make; as root the targets install the rest, Python's in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS := $(shell nproc 2>/dev/null || echo 1)

# Debian keeps gearmand where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

REQUIREMENTS := $(VENV)/requirements.stamp
INSTALLED := $(VENV)/installed.stamp
BUILT := $(VENV)/built.stamp
COMPILED_SOURCES := $(shell find src -name '*.pyx' -o -name '*.pxd')

.DEFAULT_GOAL := help
.PHONY: help demo test lint build wheel bench clean gearmand
.DELETE_ON_ERROR:

help: ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: build ## Run gateway, job server and sample worker in one process; LISTEN=HOST:PORT to choose where.
	@exec $(BIN)/gatewayx demo $(if $(LISTEN),--listen $(LISTEN))

test: gearmand build ## Run all tests, those against a real gearmand included; ARGS are pytest's.
	$(BIN)/python -m pytest $(ARGS)

lint: build ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(BUILT) $(INSTALLED) ## Compile in place and install for development.

wheel: $(REQUIREMENTS) ## Build the sdist, and the wheel from it, into dist.
	$(BIN)/python -m build

bench: build ## Compare with gearmand's HTTP plugin; ARGS are the script's.
	$(BIN)/python benchmarks/plugin_comparison.py $(ARGS)

clean: ## Remove everything that was built, .venv included.
	rm -rf $(VENV) build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src \( -name '*.so' -o -name '*.c' \) -delete
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

gearmand:
	@command -v gearmand >/dev/null && command -v gearman >/dev/null && command -v gearadmin >/dev/null \
		|| .ci/install_packages gearman-job-server gearman-tools

$(REQUIREMENTS): pyproject.toml
	PYTHON=$(PYTHON) .ci/install_toolchain
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(BUILT): $(REQUIREMENTS) setup.py $(COMPILED_SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel $(JOBS)
	touch $@

# After the modules were compiled in parallel, which pip would not; it finds nothing left to compile.
$(INSTALLED): $(REQUIREMENTS) | $(BUILT)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	touch $@
