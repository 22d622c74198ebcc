# Set up, run, test and check branchtune in a virtual environment of its own. `make help` lists the targets.
#
#   PYTHON=python3.12      the interpreter that creates the environment (default: python3)
#   VENV=.venv             where the environment goes
#   CONSTRAINTS=           install from the ranges of pyproject.toml instead of the pinned versions
#   ARGS="-k tree -x"      more arguments for pytest, `branchtune demo`, `branchtune compare` or the benchmarks
#   WORKERS=1              processes of the quick suite, runs at a time of results-small (default: 2)

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
RUNTIME_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
INPUTS := pyproject.toml $(wildcard $(CONSTRAINTS))
FIRST_IMPORT := torch.utils.tensorboard, torchvision, timm, lightning, torchmetrics, scipy.stats, jsonargparse, rich.table

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo results-small bench test test-slow test-data test-browser docs check format

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: $(DEV_STAMP)  ## create the environment with the development tools
	@echo "== ready: $(BIN)/branchtune, $(BIN)/pytest"

demo: $(RUNTIME_STAMP)  ## set up, then run the demo: measure, plan, train, compare
	@echo "== demo: branchtune demo $(ARGS)"
	@$(BIN)/branchtune demo $(ARGS)

# Memory that is kept is 10 % faster: glibc gives large tensors back to Linux in every step, for new page faults.
results-small: export MALLOC_MMAP_THRESHOLD_ = 8589934592
results-small: export MALLOC_TRIM_THRESHOLD_ = 8589934592
results-small: $(RUNTIME_STAMP)  ## set up, then remake the scenes table of docs/results.md from nothing (65 to 100 minutes)
	@echo "== results-small: branchtune compare configs/scenes_comparison.yaml, $(WORKERS) runs at a time"
	@echo "== results-small: in runs/results-small; an interrupted one goes on, delete the folder to begin from nothing"
	@$(BIN)/python scripts/check_results.py configs/scenes_comparison.yaml results/scenes/comparison.json
	@$(BIN)/branchtune compare configs/scenes_comparison.yaml --rates=results/scenes/tuning.json \
	  --output=runs/results-small --workers=$(WORKERS) $(ARGS)
	@$(BIN)/python scripts/check_results.py runs/results-small/scenes/comparison.json results/scenes/comparison.json

bench: $(DEV_STAMP)  ## set up, then time branchtune against its limits and peers, and check the goals
	@echo "== bench: python -m benchmarks $(ARGS)"
	@$(BIN)/python -m benchmarks $(ARGS)

# One thread per process: small tensors gain nothing from a second one, and processes would fight for the cores. A file's
# tests stay in one process, which makes its fixtures once; the longest files are among the first of the alphabet. Bytecode
# is kept, even where PYTHONDONTWRITEBYTECODE would make every process that a test starts compile everything anew.
test: $(DEV_STAMP)  ## set up, then run the quick tests
	@echo "== test: quick suite, $(WORKERS) processes"
	@env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(DEV_STAMP)  ## set up, then run the tests marked slow (full-size models, long runs)
	@echo "== test-slow: tests marked slow"
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-data: $(DEV_STAMP)  ## set up, then run the tests marked data (real data or weights from outside the repository)
	@echo "== test-data: tests marked data"
	@$(BIN)/python -m pytest -m data $(ARGS)

# Debian's Chromium is driven as it is: nothing is downloaded by Playwright.
test-browser: $(DEV_STAMP)  ## set up, then open report, page and documentation in Chromium (installs it with apt-get where it is missing)
	@command -v chromium >/dev/null || { echo "== test-browser: installing Debian's chromium"; apt-get install -y -qq chromium >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "== test-browser: no chromium here" >&2; }
	@echo "== test-browser: tests marked browser, screenshots in runs/screenshots"
	@$(BIN)/python -m pytest -m browser $(ARGS)

docs: $(DEV_STAMP)  ## set up, then build the documentation into build/site
	@echo "== docs: mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "== docs: open build/site/index.html; search needs a server: $(BIN)/mkdocs serve"

check: $(DEV_STAMP)  ## lint, verify the formatting and check the types
	@echo "== check: ruff check"
	@$(BIN)/ruff check .
	@echo "== check: ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "== check: mypy"
	@$(BIN)/mypy

format: $(DEV_STAMP)  ## format the code and apply the linter's safe fixes
	@echo "== format: ruff check --fix, ruff format"
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: name a Python, as in 'make setup PYTHON=python3.12'" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "branchtune needs Python >= 3.10, and $(PYTHON) is $$($(PYTHON) -V): try 'make setup PYTHON=python3.12'" >&2; exit 2; }
	@echo "== setup: $$($(PYTHON) -V) environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) -m venv failed (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }

# uv downloads and unpacks in parallel, which halves the wait; pip is the way that works wherever pip is set up.
# The imports compile bytecode once, also where PYTHONDONTWRITEBYTECODE would make every process compile anew.
define install
	@pins=$$($(BIN)/python -c 'import sys; print("$(CONSTRAINTS)" if sys.version_info >= (3, 11) else "")'); \
	with=$${pins:+-c $$pins}; if [ -t 2 ]; then quiet=; else quiet=--quiet; fi; \
	echo "== setup: installing $(1) with $${pins:-no pinned versions} (minutes and 6 GB the first time)"; \
	{ $(PIP) install -qq uv $$with && $(BIN)/uv pip install $$quiet --python $(BIN)/python -e '$(1)' $$with; } || { \
	  echo "== setup: that failed, once more with pip" >&2; $(PIP) install $$quiet --no-compile -e '$(1)' $$with; }
	@echo "== setup: first import"
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -c 'import $(FIRST_IMPORT)'
endef

$(RUNTIME_STAMP): $(INPUTS) | $(BIN)/pip
	$(call install,.)
	@touch $@

$(DEV_STAMP): $(INPUTS) | $(BIN)/pip
	$(call install,.[dev])
	@touch $(RUNTIME_STAMP) $@
