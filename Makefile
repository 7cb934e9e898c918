# Every target sets up .venv by itself when it is missing or when pyproject.toml has changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# A process per core, each with one torch thread (tests/conftest.py). Slow tests share trainings within their file.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

.PHONY: setup demo test test-slow test-all test-avx2 test-processors lint format bench clean

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(PYTEST) --dist worksteal -m "not slow"

test-slow: $(READY)
	$(PYTEST) --dist loadfile -m slow --timeout 900

test-all: test test-slow

# A processor with AVX2 alone, as most laptops have; what depends on it, in some two minutes.
test-avx2: $(READY)
	ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) --dist worksteal -m "processor and not slow"

# All instruction sets that this processor has: where a limit changes nothing, its own are that set already.
test-processors: $(READY)
	asked='from clade.system.processor import instruction_set; print(instruction_set())'; \
	own=$$($(BIN)/python -c "$$asked"); \
	for limit in AVX2:avx2:AVX2 AVX512_CORE:avx512:AVX512; do \
		export ONEDNN_MAX_CPU_ISA=$${limit%%:*} MKL_ENABLE_INSTRUCTIONS=$${limit##*:}; \
		limit=$${limit%:*}; export ATEN_CPU_CAPABILITY=$${limit#*:}; \
		if [ "$$($(BIN)/python -c "$$asked")" != "$$own" ]; then $(PYTEST) --dist loadfile -m processor || exit 1; fi; \
	done; \
	unset ONEDNN_MAX_CPU_ISA MKL_ENABLE_INSTRUCTIONS ATEN_CPU_CAPABILITY; \
	$(PYTEST) --dist loadfile -m processor

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
