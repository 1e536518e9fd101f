# make demo   see it work            make test   everything that is tested, real servers too
# Needs Python >= 3.10 and make. All of it goes into .venv; the servers of the tests into ~/.cache (see tests/servers).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
WHAT ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick coverage bench bench-agents bench-outage bench-report bench-scale bench-servers bench-smoke soak lint docs servers clean

help:
	@echo "make demo         install the command and watch a link fail and come back"
	@echo "make test         install what the tests need, real servers too, and run them (WHAT=path::test for some)"
	@echo "make test-quick   the same without the real servers"
	@echo "make coverage     the quick tests, with a report of the branches not taken"
	@echo "make lint         ruff, mypy --strict, the layers"
	@echo "make docs         build the documentation into build/docs, warnings are errors"
	@echo "make bench        how fast, how small, how quiet, under 15 minutes (bench-smoke: whether they run at all)"
	@echo "make bench-servers  how fast a backlog drains into the real servers, near and over slow links, half an hour"
	@echo "make bench-scale  a backlog of ten million, five minutes"
	@echo "make bench-agents beside rsyslog, syslog-ng and the OpenTelemetry Collector, 25 minutes (root: Debian's packages)"
	@echo "make bench-outage what nine senders lose in an outage, nine minutes"
	@echo "make bench-report tables and plots of docs/performance, of what the benchmarks have found"
	@echo "make soak         the tests that take minutes to hours"
	@echo "make servers      only install the real servers"
	@echo "make clean        remove .venv, build/ and caches"

demo: $(VENV)/.ready-demo
	@$(BIN)/rexport demo

test: $(VENV)/.ready-test servers
ifdef WHAT
	@$(BIN)/python -m pytest --quiet $(WHAT)
else
	@mkdir -p build
	@$(BIN)/python -m pytest --quiet $(WITH_SERVERS) >build/test-servers.txt 2>&1 & servers=$$!; \
	  trap 'kill $$servers; exit 130' INT TERM; \
	  $(BIN)/python -m pytest --quiet tests $(WITH_SERVERS:%=--ignore=%); code=$$?; \
	  echo "with servers, beside it:"; wait $$servers || code=$$?; \
	  cat build/test-servers.txt; exit $$code
endif

test-quick: $(VENV)/.ready-test
	@$(BIN)/python -m pytest --quiet --ignore=tests/servers $(WHAT)

coverage: $(VENV)/.ready-test
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --quiet --ignore=tests/servers $(WHAT)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks

bench-servers: $(VENV)/.ready-bench servers
	@$(BIN)/python -m benchmarks servers

bench-scale: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks scale

bench-agents: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks agents

bench-outage: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks outage

bench-report: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks report

bench-smoke: $(VENV)/.ready-bench
	@$(BIN)/python -m benchmarks --smoke

soak: $(VENV)/.ready-soak servers
	@$(BIN)/python -m pytest --quiet -m soak --timeout=0 $(WHAT)

lint: $(VENV)/.ready-lint
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.ready-docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "build/docs/index.html"

servers: $(VENV)/.ready-test
	@$(BIN)/python -m tests.servers.provision install

clean:
	@rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# They wait for servers more than they compute, so they run beside the others.
WITH_SERVERS := tests/servers tests/compat

# What each needs, installed once and again only when the pins change.

EXTRAS_demo := [cli,sql]
EXTRAS_test := [all]
EXTRAS_soak := [all]
EXTRAS_lint := [all]
EXTRAS_bench := [all]
EXTRAS_docs := [all]
GROUPS_test := --group test
GROUPS_soak := --group test --group soak
GROUPS_lint := --group lint --group test
GROUPS_docs := --group docs
GROUPS_bench := --group bench --group test

$(VENV)/.ready-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what 'make $*' needs into $(VENV)"
	@$(if $(GROUPS_$*),$(PIP) install --constraint constraints.txt pip) # dependency groups need a recent one
	@$(PIP) install --constraint constraints.txt --editable '.$(EXTRAS_$*)' $(GROUPS_$*)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, and '$(PYTHON)' is not. Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python lacks venv and ensurepip; Debian and Ubuntu have them in a package: apt-get install python3-venv"; \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv >/dev/null && \
	    $(PYTHON) -c 'import ensurepip, venv'; }
	@$(PYTHON) -m venv --clear $(VENV)
