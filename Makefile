# A fresh clone on Debian needs Python 3.10 to 3.14 and make; as root the targets install the rest, Python's in .venv.
PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(VENV)/bin

# Debian keeps gearmand where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes, each of which would compile every module anew without what was kept.
export PYTHONDONTWRITEBYTECODE :=

REQUIREMENTS := $(VENV)/requirements.stamp
INSTALLED := $(VENV)/installed.stamp
DEMO_INSTALLED := $(DEMO_VENV)/installed.stamp
DEMO_PIP = $(DEMO_VENV)/bin/python -m pip install --quiet --no-compile
BUILT := $(VENV)/built.stamp
FUZZ_BUILT := build/fuzz/built.stamp
SANITIZED_BUILT := build/sanitized/built.stamp
COMPILED_SOURCES := $(shell find src -name '*.pyx' -o -name '*.pxd')
PYTHON_SOURCES := $(shell find src -name '*.py' -o -name '*.pyi')
STUBBED_MODULES := $(shell find src -name '*.pyi' | sed 's|^src/||; s|\.pyi$$||; s|/|.|g')

# The tests wait longer than they compute, unless the build is slow on purpose.
PROCESSORS := $(shell nproc)
TEST_PROCESSES := $(shell echo $$((4 * $(PROCESSORS) < 8 ? 4 * $(PROCESSORS) : 8)))
SANITIZED_PROCESSES := $(shell echo $$(($(PROCESSORS) < 4 ? $(PROCESSORS) + 1 : 4)))
PYTEST := $(BIN)/python -m pytest --dist worksteal

# Seconds for each target of `make fuzz`.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := packet_reader request_parser proxy_header forwarded key_header batch_lines http_connection tls_stream

.DEFAULT_GOAL := help
.PHONY: help demo test test-asan chaos fuzz lint build docs wheel wheelhouse bench clean gearmand operators_tools browser
.DELETE_ON_ERROR:

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(DEMO_INSTALLED) ## Run gateway, job server and sample worker in one process; LISTEN=HOST:PORT to choose where.
	@exec $(DEMO_VENV)/bin/gatewayx demo $(if $(LISTEN),--listen $(LISTEN))

test: gearmand operators_tools browser build ## Run all tests, those against a real gearmand included; ARGS are pytest's.
	$(PYTEST) --numprocesses $(TEST_PROCESSES) $(ARGS)

test-asan: gearmand operators_tools browser build $(SANITIZED_BUILT) ## Run all tests with the address and undefined behaviour sanitizers; ARGS are pytest's.
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=build/sanitized/lib \
		$(PYTEST) --numprocesses $(SANITIZED_PROCESSES) $(ARGS)

chaos: gearmand build ## Kill, freeze and fill job servers at full length (`make test` has short runs); ARGS are pytest's.
	CHAOS=1 $(BIN)/python -m pytest -o timeout=1500 -o faulthandler_timeout=1800 tests/chaos $(ARGS)

fuzz: $(FUZZ_BUILT) ## Fuzz each target for FUZZ_SECONDS, guided by coverage; see CONTRIBUTING.md.
	for target in $(FUZZ_TARGETS); do \
		PYTHONPATH=build/fuzz/lib $(BIN)/python -m fuzz $$target --fuzz $(FUZZ_SECONDS) || exit; \
	done

lint: build ## Check style and types, and the compiled modules against their stubs.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=src $(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-disjoint-bases \
		--allowlist tools/stubtest_allowlist.txt $(STUBBED_MODULES)

build: $(BUILT) $(INSTALLED) ## Compile in place and install for development.

docs: build ## Write the tables in docs that come from the code.
	$(BIN)/python docs/write_tables.py

wheel: $(REQUIREMENTS) ## Build the sdist, and the wheel from it, into dist.
	$(BIN)/python -m build

wheelhouse: gearmand $(REQUIREMENTS) ## Build the sdist and a wheel for each Python into wheelhouse, and try each; see CONTRIBUTING.md.
	$(BIN)/python -m pip install --quiet --group wheelhouse
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tools.wheelhouse

bench: gearmand build ## Measure every claim and write benchmarks/results, in under fifteen minutes; ARGS are the script's.
	@command -v wrk >/dev/null && command -v nginx >/dev/null && test -e /usr/include/libgearman-1.0/gearman.h \
		|| .ci/install_packages wrk nginx-light gcc libgearman-dev
	$(BIN)/python benchmarks/run_all.py $(ARGS)

clean: ## Remove everything that was built, .venv included.
	rm -rf $(VENV) $(DEMO_VENV) build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src \( -name '*.so' -o -name '*.c' \) -delete
	find src tests benchmarks fuzz -name __pycache__ -prune -exec rm -rf {} +

gearmand:
	@command -v gearmand >/dev/null && command -v gearman >/dev/null && command -v gearadmin >/dev/null \
		|| .ci/install_packages gearman-job-server gearman-tools

# What reads the files in deploy.
operators_tools:
	@command -v promtool >/dev/null && command -v systemd-analyze >/dev/null && command -v logrotate >/dev/null \
		&& ldconfig -p | grep -q 'libseccomp\.so\.2 ' || .ci/install_packages prometheus systemd logrotate libseccomp2

# Who asks, and through what.
browser:
	@command -v chromium >/dev/null && command -v nginx >/dev/null && command -v curl >/dev/null \
		&& command -v node >/dev/null && command -v openssl >/dev/null && command -v haproxy >/dev/null \
		&& command -v javac >/dev/null && test -e /usr/lib/nginx/modules/ngx_stream_module.so \
		|| .ci/install_packages chromium nginx-light curl nodejs openssl haproxy default-jdk-headless libnginx-mod-stream

$(REQUIREMENTS): pyproject.toml
	PYTHON=$(PYTHON) .ci/install_toolchain
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(BUILT): $(REQUIREMENTS) setup.py $(COMPILED_SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

$(INSTALLED): $(REQUIREMENTS) | $(BUILT)
	GATEWAYX_BUILD=none $(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	touch $@

# Without development tools, and bytecode only of what the demo imports. The wheel of these very sources needs no compiler; without one the compilation is quick.
$(DEMO_INSTALLED): pyproject.toml setup.py $(COMPILED_SOURCES) $(PYTHON_SOURCES) src/gatewayx/demo_page.html
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || .ci/install_packages python3-venv
	test -x $(DEMO_VENV)/bin/python || $(PYTHON) -m venv $(DEMO_VENV)
	wheel=$$($(DEMO_VENV)/bin/python tools/sources.py wheel); \
	test -n "$$wheel" && $(DEMO_PIP) --force-reinstall "$$wheel" || { \
		PYTHON=$(PYTHON) .ci/install_toolchain && GATEWAYX_BUILD=quick $(DEMO_PIP) .; \
	}
	touch $@

# Beside the in-place build, which stays as it is; the C sources are the same for the fuzzer and the sanitizers.
$(FUZZ_BUILT): $(BUILT) $(PYTHON_SOURCES)
	command -v clang >/dev/null || .ci/install_packages clang
	$(BIN)/python -m pip install --quiet --only-binary :all: --group fuzz
	GATEWAYX_BUILD=checked CC=clang LDSHARED='clang -shared' CFLAGS='-O1 -g1 -fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp' \
		$(BIN)/python setup.py --quiet build --build-lib build/fuzz/lib --build-temp build/fuzz/temp
	touch $@

$(SANITIZED_BUILT): $(BUILT) $(PYTHON_SOURCES)
	GATEWAYX_BUILD=checked CC=gcc LDSHARED='gcc -shared' \
		CFLAGS='-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined' \
		$(BIN)/python setup.py --quiet build --build-lib build/sanitized/lib --build-temp build/sanitized/temp
	touch $@
