# The verbs of this project; each works on a fresh clone with nothing but Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
BENCH_STAMP := .venv/.bench

.PHONY: venv demo test test-slow soak check bench bench-all bench-servers test-servers format proto

venv: $(STAMP)

# uv where it is installed, else venv and pip. The development group needs pip 25.1.
$(STAMP): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
		uv pip install --quiet --python $(BIN)/python --editable '.[agent]' --group dev; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
		$(BIN)/python -m pip install --quiet --editable '.[agent]' --group dev; \
	fi
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

$(BENCH_STAMP): $(STAMP)
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --group bench; \
	else \
		$(BIN)/python -m pip install --quiet --group bench; \
	fi
	@touch $@

bench: bench-servers
	@$(BIN)/python benchmarks/propagation.py --agents 3 --peers redis,nats,jetstream,serf,kinship
	@$(BIN)/python benchmarks/throughput.py --peers redis,nats,jetstream

# Every question, at most 25 minutes; the figures go to build/benchmarks.jsonl, a JSON object a line:
# make bench-all BENCH="--quick --only idle"
bench-all: bench-servers
	@$(BIN)/python benchmarks/run_all.py $(BENCH)
