# make demo | test | check | gpu-check | env | format | docs
PYTHON ?= python3
VENV ?= .venv
# Where the environment lacks a GPU, PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# spares the download of the CUDA libraries.
PIP_FLAGS ?=
PHOTO ?= data/examples/mailbox_photo.jpg
OUTPUT ?= outputs/demo
BIN := $(VENV)/bin
# A process per core with a thread each: a whole run takes half the time of one process. Files go to them
# as tests/conftest.py orders them, the long ones first, so that none is left to the end.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test check gpu-check env format

demo: env
	$(BIN)/python scripts/generate.py $(PHOTO) --output $(OUTPUT) resume=true

test: env
	$(PYTEST)

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

gpu-check: env  # what a GPU does with the full size, in under ten minutes
	$(BIN)/python benchmarks/gpu_check.py --output outputs/gpu_check

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

env: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make env PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) $(shell grep '^torch==' requirements.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

.PHONY: docs
docs: env  # API pages in outputs/docs; broken references are errors
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[docs]'
	PYTHONPATH=. $(BIN)/python docs/build_pages.py --output outputs/docs
