# Two commands matter: `make run` does the main job, `make test` passes the tests. Both set up first.
#
#   make run [DATA=synthetic|lfw_part_labels|FOLDER] [PROFILE=smoke|quick|full]
#   make figures [RUN=runs/...]     the paper's figures and tables from a run folder (default: the newest)
#                [VENUE=cvpr|eccv|ieee|neurips]
#   make test | test-fast           all tests, the notebooks among them | those that take milliseconds
#   make lint | bench               ruff | speed, as ratios
#   make test-kernels               the CUDA kernels without a GPU; needs Triton, and installs it
#   make gpu [DATA=folder]          the programme at full size, with this machine's own Python and CUDA:
#                [BUDGET_S=780]     see notebooks/studies/gpu/README.md. PROFILE=smoke: in tiny, on the CPU
#                [OUT=folder] [PARTS=1234]
#   make lab                        JupyterLab on the notebooks; it opens on 00_start_here
#   make book | test-browser        the notebooks as a site | run them in a real browser
#   make data-lfw                   prepare LFW Part Labels (downloads, or reads CONSENSUS_DATA_MIRROR)
#   make weights                    train the networks of FaceParser again, on rendered faces
#   make notebooks                  execute the notebooks and store their outputs
#   make setup | lock               the environment alone | pin it anew
#   make clean                      remove the cache of decoded images; data sets and runs stay

PYTHON ?= python3
DATA ?= synthetic
PROFILE ?= quick
RUN ?= $(firstword $(shell ls -td $${CONSENSUS_RUNS_DIR:-runs}/*/ 2>/dev/null))
VENUE ?= cvpr
BIN := .venv/bin
READY := .venv/.ready

# GNU OpenMP, for torch: threads that wait for each other soon sleep. If they spin for as long as is its habit
# and there is other work, on two cores a training step took twelve times as long.
export GOMP_SPINCOUNT ?= 1000

.PHONY: run figures test test-fast test-kernels test-browser gpu setup lab book data-lfw bench notebooks weights lint lock clean
.DELETE_ON_ERROR:

run: setup $(if $(filter lfw_part_labels,$(DATA)),data-lfw)
	$(BIN)/python -m consensus_lib run --data "$(DATA)" --profile $(PROFILE)

figures: setup
	@test -n "$(RUN)" || { echo "No run folder: make run first, or name one with RUN=" >&2; exit 1; }
	$(BIN)/python -m consensus_lib run --only 07 --out "$(RUN)" --set venue=$(VENUE)

# Notebooks train from nothing in a folder of their own, so that a test never reads an old result; with the profile
# smoke, see notebooks/conftest.py.
test: setup
	runs=$$(mktemp -d) && trap 'rm -rf "$$runs"' EXIT && \
	CONSENSUS_RUNS_DIR="$$runs" $(BIN)/python -m pytest --nbval-lax --nbval-current-env tests notebooks

setup: $(READY)

test-fast: setup
	$(BIN)/python -m pytest -q -m "not slow" tests

# uv, where the user has it, is faster and gives the same set, because the constraints pin all of it;
# where it cannot, pip decides.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	  "Python 3.11 or later is needed, and $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv .venv
	{ command -v uv >/dev/null && uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[lab,onnx,test]'; } || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,onnx,test]'
	@touch $@

# Apart, because torch's builds for CUDA bring a Triton of their own, and its build for the CPU none.
test-kernels: setup
	$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check triton==3.9.0
	$(BIN)/python -m pytest tests/losses/test_triton.py

# Full size needs no setup: a GPU machine's own Python has what it takes. DATA is a prepared folder here.
BUDGET_S ?= 780
SMOKE := $(filter smoke,$(PROFILE))
gpu: $(if $(SMOKE),setup)
	PYTHONPATH=data_scripts $(if $(SMOKE),$(BIN)/python,$(PYTHON)) -m notebooks.studies.gpu --budget $(BUDGET_S) \
	  --profile $(if $(SMOKE),smoke,full) $(if $(filter-out synthetic,$(DATA)),--data "$(DATA)") \
	  $(if $(OUT),--out "$(OUT)") $(if $(PARTS),--parts $(PARTS))

# The settings keep the state of widgets in a saved notebook, which else reopens without its controls. The
# start-up file of the kernels explains a cell that is run before the imports.
NOTEBOOKS ?= notebooks
lab: setup
	PYTHONSTARTUP="$(CURDIR)/notebooks/support/startup.py" $(BIN)/jupyter lab --notebook-dir="$(NOTEBOOKS)" --LabApp.default_url=/lab/tree/00_start_here.ipynb \
	  --LabApp.app_settings_dir="$(CURDIR)/notebooks/support/jupyterlab" $(LAB_OPTIONS)

# The site of the stored notebooks; every warning is an error.
book: setup
	$(BIN)/python -c 'import myst_nb, furo' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . build/book
	@echo "build/book/index.html"

# JupyterLab in Debian's Chromium (apt-get install chromium); screenshots are left in build/browser.
test-browser: setup
	$(BIN)/python -c 'import playwright' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -v tests/browser

data-lfw: setup
	$(BIN)/python data_scripts/prepare_lfw_part_labels.py --size 128

bench: setup
	$(BIN)/python -m pytest -s -q tests/benchmarks

# Stored outputs show rendered faces only: without a data folder, no photograph can get in.
notebooks: setup
	kept=$$(mktemp -d) && trap 'rm -rf "$$kept"' EXIT && \
	CONSENSUS_DATA_DIR="$$kept/data" CONSENSUS_RUNS_DIR="$$kept/runs" $(BIN)/python -m consensus_lib run --store

weights: setup
	$(BIN)/python notebooks/studies/weights.py

lint: setup
	$(BIN)/ruff check .

lock:
	rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet -e '.[lab,onnx,test,browser,docs]'
	{ head -2 constraints.txt; .venv/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > .venv/lock.txt
	mv .venv/lock.txt constraints.txt && rm -rf .venv/lock

clean:
	rm -rf "$${CONSENSUS_DATA_DIR:-data}/cache"
