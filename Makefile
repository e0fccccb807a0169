# make setup once, then check and test. Every target takes PYTHON=… for another interpreter.
PYTHON  ?= .venv/bin/python
TESTS   = $(PYTHON) -m pytest -q -n 3
SEED    ?= 1
SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup check fmt test test-all sim sim-long chaos soak bench bench-peers docs ci clean

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup:  ## Make .venv with tq (editable) and what its tests need
	python3 -m venv .venv
	.venv/bin/pip install -q -e '.[test]'

check:  ## Style, types, layers, generated files
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/tidy

fmt:  ## Format and mend what ruff can mend
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

test:  ## The quick tests
	$(TESTS) -m 'not slow'

test-all:  ## All tests, as CI runs them
	$(TESTS)

sim:  ## Replay one seed of the simulator: make sim SEED=7
	$(PYTHON) -m tests.sim --seed $(SEED)

sim-long:  ## A thousand seeds, and what they covered; then a hundred with the real sessions
	$(PYTHON) -m tests.sim --seeds 1000 --jobs 2
	$(PYTHON) -m tests.sim.played_run $$(seq 1 100)

chaos:  ## Real processes, killed, frozen and cut off at random: make chaos SECONDS=3600 SEED=7
	TQ_CHAOS_SECONDS=$(SECONDS) TQ_CHAOS_SEED=$(SEED) $(PYTHON) -m pytest -q -s tests/faults/test_chaos.py

soak:  ## A steady load, under which nothing may grow: make soak SECONDS=1800
	TQ_SOAK_SECONDS=$(SECONDS) $(PYTHON) -m pytest -q -s tests/faults/test_soak.py

docs:  ## Write the pages that are generated from code
	for generator in tools/gen_*.py; do $(PYTHON) $$generator || exit; done

bench:  ## Measure this machine; writes bench/RESULTS.md
	$(PYTHON) bench/run.py

bench-peers:  ## Measure other queues beside tq; installs them in a scratch directory (and Debian's, as root)
	$(PYTHON) bench/run.py --only peers --install

ci:  ## What CI does, in a clean copy of HEAD
	bash .ci/run

clean:  ## Remove caches and scratch, never .venv
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .scratch build dist
