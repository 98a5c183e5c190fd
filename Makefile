# make bench         train 13 rows with 3 seeds each and write results/quick/report.md and verdicts.md
# make coverage      the tests again, and which lines they reach
# make dist          source distribution and wheel of the newest tag's version, in dist
# make docs          the documentation as a site, in build/docs
# make env           the environment of all these, in .venv
# make gpu           on a GPU machine: gpu-check, gpu-full and gpu-speed
# make gpu-check     the tests of the CUDA path
# make gpu-full      every row but the extra ones at full size; results/full
# make gpu-speed     speed and peers on the GPU
# make growth        cost as the work grows: minutes, and 24 GB of disk for a set like CelebA; results/growth.md
# make install-dist  the wheel, then the source distribution, in a new environment, where README's example trains
# make integration   tests that start Ray, a browser, make or whole sessions, install, kill processes, or train long
# make lint          style, types, imports, spelling, unused code: seconds
# make long          kills and concurrent writes in large numbers, beside what make test does of them
# make peers         ours beside Lightning, and timm's and torchvision's scripts: minutes; results/peers.md
# make screenshot    docs/report.png, the top of results/quick/report.html; needs Chromium
# make speed         ours against the reference loop, and pages of many runs: minutes; results/speed.md
# make test          lint, and tests
# make test-lowest   the tests with the oldest versions that pyproject.toml allows; needs uv
# make tests         the tests that start no other programs

PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed

# The GPU targets run from the tree with the Python at hand (no installation, no network). All is written below $(OUT),
# and finished runs and comparisons are taken from there: each part can be called by itself, and again after an
# interruption. (A variable OUT of the environment is another's: make gpu OUT=DIR.)
# Example: make gpu ARGS="--seeds 5 --camvid local/CamVid --portraits local/portraits"
# MINUTES=15 limits all of it: 2 minutes for the tests, 8 for the benchmarks, 4 for speed. Pages are of what is
# finished, and the next call goes on.
DEVICE ?= cuda
PROFILE ?= full
OUT = results
GRAPHS ?= $(if $(filter cuda,$(DEVICE)),--cuda-graphs)
AT_ONCE ?= $(if $(filter cuda,$(DEVICE)),4,1)
ON_GPU = --device $(DEVICE) $(GRAPHS) --results $(OUT) --reuse -p no:cacheprovider
MINUTES ?=
limit = $(if $(MINUTES),timeout --signal=$(2) --kill-after=10 $$(awk 'BEGIN { print $(MINUTES) * 60 * $(1) / 15 }'))
FULL = $(PYTHON) -m pytest benchmarks --profile $(PROFILE) $(ON_GPU) $(ARGS)

.PHONY: help bench coverage dist docs env gpu gpu-check gpu-full gpu-speed growth install-dist integration lint long
.PHONY: peers screenshot speed test test-lowest tests
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make [a-z-]* .*\)/\1/p' Makefile

bench: env
	$(BIN)/python -m pytest benchmarks $(ARGS)

speed: env
	$(BIN)/python -m pytest benchmarks/performance -m speed -rP $(ARGS)

peers: env
	$(BIN)/python -m pytest benchmarks/performance -m peers -rP $(ARGS)

growth: env
	$(BIN)/python -m pytest benchmarks/performance -m growth $(ARGS)

long: env
	$(BIN)/python -m pytest tests -m long -rP $(ARGS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell .
	$(BIN)/vulture
	$(BIN)/deptry .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/mypy
	$(BIN)/lint-imports

TESTS = $(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile --timeout=900

test: env
	@$(MAKE) --no-print-directory --jobs=2 lint tests

tests: env
	$(TESTS) -m "not integration" $(ARGS)

integration: env
	$(TESTS) -m integration $(ARGS)

coverage: env
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile --cov=cvhw4 --cov-fail-under=90 --timeout=900 $(ARGS)

docs: env
	$(BIN)/python -m zensical build --clean --strict

CHROMIUM ?= chromium

screenshot: env
	$(BIN)/cvhw4 report
	$(CHROMIUM) --headless --no-sandbox --hide-scrollbars --window-size=1280,1000 --screenshot=docs/report.png \
	    file://$(CURDIR)/results/quick/report.html

dist:
	rm -rf dist
	$(PYTHON) -m venv build/builder
	build/builder/bin/python -m pip install --quiet build
	build/builder/bin/python -m build --outdir dist

# Nothing but what pip installs for the file is there, and scikit-learn, which the example imports.
install-dist:
	@set -e; unset PYTHONPATH; mkdir -p build; for file in dist/*.whl dist/*.tar.gz; do \
	    echo "$$file"; rm -rf build/installed build/example; cp -r examples/own-study build/example; \
	    $(PYTHON) -m venv build/installed; \
	    build/installed/bin/python -m pip install --quiet "$$file" scikit-learn; \
	    version=$$(build/installed/bin/cvhw4 --version | tr ' ' -); \
	    case "$$file" in "dist/$$version-py3-none-any.whl" | "dist/$$version.tar.gz") ;; \
	        *) echo "$$file installs $$version"; exit 1;; esac; \
	    (cd build/example && ../installed/bin/python make_photos.py && ../installed/bin/python -m pytest); \
	done

# PIP_EXTRA_INDEX_URL is uv's too, and of all indexes' versions uv then takes the newest that fits, as pip does.
env: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@$(if $(PIP_EXTRA_INDEX_URL),export UV_EXTRA_INDEX_URL="$$PIP_EXTRA_INDEX_URL" UV_INDEX_STRATEGY=unsafe-best-match;) \
	if command -v uv > /dev/null; then set -x; \
	    uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && \
	    uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else set -x; \
	    $(PYTHON) -m venv .venv && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

# All three whatever becomes of each, as time on such a machine is dear; red if one of them is.
gpu:
	@failed=; \
	    $(call limit,2,INT) $(MAKE) gpu-check || failed="$$failed gpu-check"; \
	    $(call limit,8,TERM) $(MAKE) gpu-full || failed="$$failed gpu-full"; \
	    $(call limit,4,INT) $(MAKE) gpu-speed || failed="$$failed gpu-speed"; \
	    $(if $(MINUTES),$(PYTHON) -c "from cvhw4.cli import main; main()" report --study $(PROFILE) --results $(OUT);) \
	    test -z "$$failed" || { echo "failed or ended early:$$failed"; exit 1; }

# cuBLAS reads its setting at a process's first product, so the tests of --deterministic need it from the start.
gpu-check:
	CUBLAS_WORKSPACE_CONFIG=:4096:8 $(PYTHON) -m pytest tests/test_cuda.py -p no:cacheprovider $(CHECKS)

# Two rounds of each peer where time is short; those that are not there are skipped.
gpu-speed:
	$(if $(MINUTES),CVHW4_TRIALS=$${CVHW4_TRIALS:-2}) $(PYTHON) -m pytest benchmarks/performance/test_speed.py \
	    benchmarks/performance/test_peers.py -m "speed or peers" -rP $(ON_GPU) $(ARGS)

# Runs of batches this small leave most of a GPU idle, so several sessions train at once, each its part of the runs;
# the last one finds all of them done, or does what is left, and judges; JUNIT names its file. A shell's background
# processes ignore Ctrl-C, so it is handed on to them.
gpu-full:
	@mkdir -p $(OUT); parts=; trap 'trap - INT TERM; kill $$parts 2> /dev/null; wait; exit 130' INT TERM; \
	    for part in $$(test $(AT_ONCE) = 1 || seq $(AT_ONCE)); do \
	    $(FULL) --part $$part/$(AT_ONCE) > $(OUT)/part-$$part.log 2>&1 & parts="$$parts $$!"; done; wait
	$(FULL) $(if $(JUNIT),--junitxml=$(JUNIT))

test-lowest:
	uv venv --quiet --allow-existing .venv-lowest
	uv pip install --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest tests $(ARGS)
