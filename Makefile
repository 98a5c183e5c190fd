# make bench   trains every row of the report and writes results/quick/report.md
# make test    lint, types and tests
# make speed   ours against the reference loop: minutes of a quiet machine; writes results/speed.md
# make env     the environment both use, in .venv

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

# make gpu: what a GPU machine is for, run from the tree with the Python at hand (no installation, no network):
# the tests of the CUDA path, then the full profile. Restartable: finished runs are taken from $(OUT).
# Example: make gpu ARGS="--seeds 5 --camvid local/CamVid --portraits local/portraits --weights local/weights"
DEVICE ?= cuda
PROFILE ?= full
OUT ?= results

.PHONY: bench speed test env test-lowest gpu
.DELETE_ON_ERROR:

bench: env
	$(BIN)/python -m pytest benchmarks $(ARGS)

speed: env
	$(BIN)/python -m pytest benchmarks/test_speed.py -m speed $(ARGS)

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests --cov=cvhw4 --cov-fail-under=90 --timeout=900 $(ARGS)

env: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@if command -v uv > /dev/null; then set -x; \
	    uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && \
	    uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else set -x; \
	    $(PYTHON) -m venv .venv && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

gpu:
	$(PYTHON) -m pytest tests/test_training.py -k "cuda or learns" -p no:cacheprovider
	$(PYTHON) -m pytest benchmarks --profile $(PROFILE) --device $(DEVICE) --results $(OUT) --reuse $(ARGS)

# The lower bounds of pyproject.toml: the same tests with the oldest versions it allows. Needs uv.
test-lowest:
	uv venv --quiet --allow-existing .venv-lowest
	uv pip install --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest tests $(ARGS)
