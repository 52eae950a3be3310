# The verbs of this project; each works on a fresh clone with nothing but Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
BENCH_STAMP := .venv/.bench
INSTALL := $(shell command -v uv >/dev/null 2>&1 && echo uv pip install --quiet --python $(BIN)/python \
	|| echo $(BIN)/python -m pip install --quiet --disable-pip-version-check)

.PHONY: venv demo test test-slow soak check bench bench-all bench-servers test-servers format proto lock sbom

venv: $(STAMP)

# Exactly the releases of requirements/, each compared with its hash; with uv where it is installed.
$(STAMP): pyproject.toml requirements/development.txt
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv; \
	else \
		$(PYTHON) -m venv .venv; \
	fi
	@$(INSTALL) --require-hashes --requirement requirements/development.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv
	@$(BIN)/coherd demo

# Tests of real processes run in one of the two, one after the other; all others where there is room.
WORKERS ?= 2

test: venv test-servers
	@$(BIN)/python -m pytest --numprocesses $(WORKERS)

# Minutes rather than seconds: two hundred kills, ten million keys, a fuzzer.
test-slow: venv test-servers
	@$(BIN)/python -m pytest -m slow

# Twenty minutes of random faults on five agents under load (docs/soak.md), or as SOAK says:
# make soak SOAK="--minutes 5 --seed 7"
soak: venv test-servers
	@PYTHONPATH=tests $(BIN)/python -m soak $(SOAK)

check: venv
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports
	@$(BIN)/buf lint proto
	@$(BIN)/buf format --diff --exit-code proto
	@$(BIN)/python proto/generate.py --check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_tidy.py tests/test_docs.py

format: venv
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .
	@$(BIN)/buf format -w proto

proto: venv
	@$(BIN)/python proto/generate.py

# The real servers that the tests talk to: one list, in tests/servers.txt.
test-servers:
	@tests/install-servers

# What the benchmarks are measured beside: servers in benchmarks/servers.txt, libraries in pyproject.toml.
bench-servers: $(BENCH_STAMP)
	@tests/install-servers benchmarks/servers.txt

$(BENCH_STAMP): $(STAMP) requirements/benchmarks.txt
	@$(INSTALL) --require-hashes --requirement requirements/benchmarks.txt
	@touch $@

bench: bench-servers
	@$(BIN)/python benchmarks/propagation.py --agents 3 --peers redis,nats,jetstream,serf,kinship
	@$(BIN)/python benchmarks/throughput.py --peers redis,nats,jetstream

# Every question, at most 25 minutes; the figures go to build/benchmarks.jsonl, a JSON object a line:
# make bench-all BENCH="--quick --only idle"
bench-all: bench-servers
	@$(BIN)/python benchmarks/run_all.py $(BENCH)

# Which release of what is installed, with hashes: anew from pyproject.toml, keeping what still fits.
# All of it newer: make lock LOCK=--upgrade
LOCKED := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(LOCK) pyproject.toml

lock: venv
	@$(LOCKED) --extra agent --group dev --output-file requirements/development.txt
	@$(LOCKED) --extra agent --constraint requirements/development.txt --output-file requirements/agent.txt
	@$(LOCKED) --group bench --constraint requirements/development.txt --output-file requirements/benchmarks.txt

# What a cache host has besides Python (CycloneDX): installed for the purpose and looked at.
SBOM_VENV := build/sbom-venv

sbom: venv
	@$(PYTHON) -m venv --clear $(SBOM_VENV)
	@$(SBOM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement requirements/agent.txt
	@$(SBOM_VENV)/bin/python -m pip uninstall --quiet --yes pip setuptools
	@$(BIN)/cyclonedx-py environment $(SBOM_VENV) --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json
	@echo build/sbom.json
