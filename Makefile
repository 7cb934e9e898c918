# Every target sets up .venv by itself when it is missing or when pyproject.toml has changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test lint format bench clean

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks.positions
	$(BIN)/python -m benchmarks.forward
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.drop_in
	$(BIN)/python -m benchmarks.convolutions
	$(BIN)/python -m benchmarks.fast
	$(BIN)/python -m benchmarks.fast_training
	$(BIN)/python -m benchmarks.modulation
	$(BIN)/python -m benchmarks.generate_folder
	$(BIN)/python -m benchmarks.check
	$(BIN)/python -m benchmarks.loading
	for dataset in ade20k cityscapes coco-stuff celebamask-hq deepfashion; do \
		$(BIN)/python -m benchmarks.profile --dataset $$dataset --rounds 3 || exit 1; \
	done

clean:
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache
