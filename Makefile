.DEFAULT_GOAL := help
SHELL := /bin/bash
STACK ?= qwen3-32b-disagg
PY := .venv/bin/python
PINS := requirements.txt requirements-dev.txt requirements.lock
# What .venv was made from and for: a moved checkout or a changed pin sets up again, anything else does not.
WANTED = { echo "$(CURDIR)"; cat $(PINS); }
PYTEST := $(PY) -m pytest

.PHONY: help setup engine control-plane serving tuning tuning-figures browser lint format test test-cluster test-serving test-all chaos rehearse benchmark lock lock-serving lock-tuning clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv from the pinned requirements (does nothing when it is up to date)
	@if $(WANTED) | cmp -s - .venv/made-from.txt && $(PY) -c '' 2>/dev/null; then exit 0; fi; \
	if [ -L .venv ]; then \
	  echo "make setup: .venv is a link to $$(readlink .venv), an environment that somebody else may be using; it is not made anew from here" >&2; \
	  echo "Next: set it up where it belongs, or remove the link to have one of your own" >&2; exit 1; fi; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "make setup: Python 3.11 or newer is needed; python3 here is: $$(python3 --version 2>&1 || true)" >&2; \
	  echo "Next: install one, or name one: make setup PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	echo "Setting up .venv with $$("$$found" --version) (about a minute)"; \
	rm -f .venv/made-from.txt; \
	if ! "$$found" -m venv --clear .venv; then \
	  echo "make setup: $$found cannot make a virtual environment" >&2; \
	  echo "Next: install its venv module (Debian, Ubuntu: apt install python3-venv), check the disk has 2 GB free" >&2; exit 1; fi; \
	if ! $(PY) -m pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements.txt -r requirements-dev.txt; then \
	  echo "make setup: the pinned packages could not be installed (see pip's message above)" >&2; \
	  echo "Next: check that the Python package index is reachable and the disk has 2 GB free, then run this again" >&2; exit 1; fi; \
	$(WANTED) > .venv/made-from.txt

engine: setup ## find or build the Pulumi engine (about 7 minutes the first time, where no pulumi is installed)
	@$(PY) -m rehearsal.engine

control-plane: setup ## build Kubernetes' API server, controllers and scheduler, etcd and kwok (up to 20 minutes, the first time)
	@$(PY) -m rehearsal.cluster

serving: setup ## set up Dynamo's frontend and mock engine in an environment of their own (1.3 GB, about 2 minutes, the first time)
	@$(PY) -m rehearsal.serving

tuning: setup ## set up NVIDIA's layout search in an environment of its own (0.8 GB, about a minute, the first time)
	@$(PY) -m rehearsal.tuning

browser: ## Debian's chromium for the one test that opens a page, where root and apt can install it
	@if command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing chromium (once)"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || \
	    echo "make browser: chromium could not be installed; its test is skipped" >&2; \
	else echo "make browser: no chromium, and only root can install it with apt-get; its test is skipped" >&2; fi

lint: setup ## formatting, lint and types
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy .

format: setup ## format the code and mend what ruff can mend
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

test: lint engine ## lint and all tests except the slow ones
	@$(PYTEST) -m "not slow"

test-cluster: control-plane ## what is rendered, on a real control plane with pretended nodes: accepted, placed, running
	@$(PYTEST) tests/cluster

test-serving: serving ## of these, what runs Dynamo's own frontend and router with mock engines
	@$(PYTEST) tests/serving

test-all: lint engine control-plane serving tuning browser ## every tier there is
	@$(PYTEST)

chaos: engine ## kill the engine at every place, and every fault, on the pretend cloud (a quarter of an hour on 2 cores); writes docs/chaos.md
	@$(PY) -m ops.chaos

rehearse: setup ## run the whole life of STACK on the real engine against a pretend cloud, tokens included (STACK=qwen3-32b-disagg; SERVE=0 without)
	@$(PY) -m ops rehearse $(STACK)

benchmark: engine control-plane serving ## measure commands (20 minutes) and the served rehearsal (40); ONLY=commands or served; writes docs/benchmarks.md
	@$(PY) -m ops.benchmark $(if $(ONLY),--only $(ONLY))

tuning-figures: tuning ## search every model x GPU x traffic and write docs/tuning-figures.md (20 minutes; what was asked before is kept)
	@$(PY) -m ops tune --all --write docs/tuning-figures.md

lock: setup ## pin the newest fitting version of what requirements*.txt bring along
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && $(PY) -m venv "$$work" && \
	"$$work"/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt && \
	{ sed -n '/^#/p' requirements.lock; "$$work"/bin/python -m pip freeze | tr 'A-Z_' 'a-z-' | sort; } > "$$work"/lock && \
	cp "$$work"/lock requirements.lock

lock-serving: setup ## pin the newest fitting version of what rehearsal/serving/requirements.in brings along
	@$(PY) -m rehearsal.lock rehearsal/serving/requirements.in rehearsal/serving/requirements.lock

lock-tuning: setup ## the same of rehearsal/tuning/requirements.in
	@$(PY) -m rehearsal.lock rehearsal/tuning/requirements.in rehearsal/tuning/requirements.lock

clean: ## remove .venv and the tools' caches (a built engine stays: see `python -m rehearsal.engine --help`)
	@rm -rf .venv .cache .hypothesis .pytest_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
