# `make` brings the environment into being; everything else stands on it.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo
SIZE ?= small

.PHONY: all demo test lint format bench teachers clean

all: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/avvp-pipe demo --out $(OUT) --size $(SIZE)

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed
	for script in tests/bench/bench_*.py; do $(BIN)/python $$script || exit 1; done

# Trains the embedded teachers anew; the weights in the repository were made by this line.
teachers: .venv/installed
	$(BIN)/python -m avvp_pipe.stages.teachers.train_embedded --seed 0

clean:
	rm -rf .venv build dist *.egg-info
