# make demo, make test and make lint need nothing but this checkout and a network: they make
# .venv, install the pinned versions of constraints.txt, and go on.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-lowest gpu-check chaos peers screenshots docs dist timm-tests lint format check-system clean

demo: .venv/installed
	$(BIN)/python run_search.py demo

# A process a core, four at most; each test file stays in one process, with what its tests share.
test: .venv/installed-dev
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Every input size; minutes.
test-slow: .venv/installed-dev
	$(BIN)/pytest -m slow

# With the lowest versions that pyproject.toml allows: what depends on other packages' details.
test-lowest:
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet uv
	build/lowest/bin/uv pip install --resolution lowest-direct --python build/lowest/bin/python '.[dev]'
	build/lowest/bin/pytest -n 2 --dist loadfile tests/hpo/config tests/hpo/surrogate \
	  tests/hpo/schedulers tests/hpo/samplers tests/hpo/study tests/hpo/dashboard \
	  tests/sgformer/features tests/sgformer/model

# For a machine with a GPU, ten minutes at most: the tests marked gpu, and measurements, as one
# table. Elsewhere it names what it would do.
gpu-check: .venv/installed-dev
	$(BIN)/python benchmarks/gpu.py

# Every fault once and a hundred kills, compared with a search left alone; as root, 40 minutes.
chaos: .venv/installed-dev
	$(BIN)/python tests/support/chaos.py --kills 100 --outage-seconds 90

# The published optimizers of benchmarks/search_efficiency.py, each in its own environment. Minutes.
PEERS := syne-tune-0.13 syne-tune-0.16 smac neps dehb
peers: $(PEERS:%=build/peers/%/installed)

build/peers/%/installed: benchmarks/peers/%.txt
	$(PYTHON) -m venv build/peers/$*
	build/peers/$*/bin/pip install --quiet -r $<
	touch $@

# The pictures of docs/images, of the demo's run, in Debian's chromium. Look at them.
screenshots: .venv/installed-dev
	$(BIN)/python tests/support/screenshots.py

# The pages of docs/ as a site, which opens as files: site/index.html. A broken link fails
# (which --quiet would hide from --strict).
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel, and the sources that it is built from, in dist/.
dist: .venv/installed-dev
	$(BIN)/python -m build

# timm's own tests of models, of the installed timm's version, pointed at ours.
timm-tests: .venv/installed-dev
	mkdir -p build
	version=$$($(BIN)/python -c 'import timm; print(timm.__version__)') && \
	{ test -d build/timm-$$version || \
	  { $(BIN)/pip download --quiet --no-deps --no-binary timm timm==$$version -d build && \
	    tar -xzf build/timm-$$version.tar.gz -C build; }; } && \
	cd build/timm-$$version && PYTHONPATH=$(CURDIR)/tests/support \
	  $(CURDIR)/$(BIN)/python -m pytest tests/test_models.py -p timm_sg_former -q -W ignore

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build site *.egg-info

.venv/installed: pyproject.toml constraints.txt | check-system
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python .ci/pip_progress.py --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python .ci/pip_progress.py --constraint constraints.txt --editable '.[dev]'
	touch $@

# What pip cannot install. Each missing thing gets one line that says how to get it.
check-system:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "error: no $(PYTHON); apt-get install python3 (3.11 or newer)"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: python 3.11 or newer is needed, $(PYTHON) is older; make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: python's venv module is missing; apt-get install python3-venv"; exit 2; }
	@for library in libGL.so.1 libglib-2.0.so.0 libxcb.so.1; do \
	  $(PYTHON) -c "import ctypes; ctypes.CDLL('$$library')" 2>/dev/null || \
	  { echo "error: opencv-python needs $$library;" \
	    "apt-get install libgl1 libglib2.0-0 libxcb1"; exit 2; }; done
