# Everything that one does with this repository. On a fresh machine `make explore` and `make test` are all it takes:
# they need Python 3.11 or newer and make, and keep everything else in $(VENV).
#
#   make explore RUNTIME=gpu         with onnxruntime-gpu; the two runtimes are never both installed
#   make test PYTHON=python3.13      with a Python of one's choice
#   make test WORKERS=8              with more processes

VENV ?= .venv
OUT ?= out
RUNTIME ?= cpu
WORKERS ?= 2
TRAINING_VENV ?= .venv-training
TORCH ?= torch==2.13.0# what the shipped sample models were made with (sample_models/README.md)
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

ifeq ($(filter $(RUNTIME),cpu gpu),)
$(error RUNTIME is '$(RUNTIME)'; it chooses ONNX Runtime and must be cpu or gpu)
endif
OTHER := $(if $(filter cpu,$(RUNTIME)),gpu,cpu)
OTHER_PACKAGE := $(if $(filter cpu,$(RUNTIME)),onnxruntime-gpu,onnxruntime)
BIN := $(VENV)/bin
SAMPLE := sample_models/digits_transformer

# A stamp tells that a set of extras is installed: $(call have,lab+dev). It is older than a changed pyproject.toml.
have = $(VENV)/.have-$(RUNTIME)$(if $(1),+$(1))
comma := ,

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help explore test test-all test-gpu test-training test-browser front-end test-front-end lab lint format types docs \
  pictures models wheel clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-15s %s\n", $$1, $$2 }'

explore: $(call have) ## Explore a sample model that fp16 breaks; writes out/
	$(BIN)/precision-explorer explore $(SAMPLE).onnx --inputs $(SAMPLE).npz --gpu-model H100 --out $(OUT)

test: $(call have,lab+dev) ## Run the tests that need neither a GPU nor a browser nor patience
	$(BIN)/python -m pytest -n $(WORKERS)

test-all: $(call have,lab+dev) ## Run the slow tests, the notebooks and the browser tests too
	$(BIN)/python -m pytest -n $(WORKERS) -m "not gpu and not tensorrt"

test-gpu: $(call have,lab+dev) ## Run the tests that need a CUDA device: make test-gpu RUNTIME=gpu
	$(BIN)/python -m pytest -m "gpu or tensorrt"

test-browser: $(call have,lab+dev) ## Run the tests that drive Chromium: the report, and the panel in a real JupyterLab
	$(BIN)/python -m pytest -m browser

js/node_modules/.package-lock.json: js/package-lock.json
	@command -v npm >/dev/null || { echo "The front end is built with Node 20 or newer, and there is no npm on the PATH." \
	  "Only those who change js/ need it: what it builds is part of the repository." >&2; exit 1; }
	npm --prefix js ci --no-audit --no-fund
	@touch $@

front-end: js/node_modules/.package-lock.json ## Build the panel's scripts again, from js/; needs Node
	npm --prefix js run build

test-front-end: js/node_modules/.package-lock.json ## Check and test the panel's scripts; needs Node
	npm --prefix js run check
	npm --prefix js test

test-training: ## Run the tests that need torch, in an environment of their own
	@$(MAKE) --no-print-directory VENV=$(TRAINING_VENV) .test-training

.PHONY: .test-training
.test-training: $(call have,training+dev)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not gpu and not tensorrt and not browser" tests/samples tests/model

notebooks/%.ipynb: notebooks/%.py | $(call have,lab)
	$(BIN)/jupytext --quiet --to ipynb --output $@ $<

lab: notebooks/01_quickstart.ipynb ## Open JupyterLab on the quickstart notebook
	$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_FLAGS) $<

lint: $(call have,lab+dev) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(call have,lab+dev) ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(call have,lab+dev) ## Check the types of the package
	$(BIN)/mypy

docs: $(call have,docs) ## Build the documentation into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pictures: $(call have,lab+dev) ## Take the pictures of docs/images again; needs Chromium
	$(BIN)/python docs/make_pictures.py

models: ## Train the sample models again
	@$(MAKE) --no-print-directory VENV=$(TRAINING_VENV) .models

.PHONY: .models
.models: $(call have,training)
	$(BIN)/python sample_models/make.py

wheel: $(call have,dev) ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --outdir dist

clean: ## Remove what is built; keeps the environments
	rm -rf $(OUT) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis notebooks/*.ipynb notebooks/.ipynb_checkpoints
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and there is none on the PATH." \
	  "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "'$(PYTHON)' is not Python 3.11 or" \
	  "newer. Name one that is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' lacks the venv module, which makes" \
	  "environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making the environment $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -f $@; exit 1; }

# onnxruntime and onnxruntime-gpu own the same folder: to change over, both go first.
$(VENV)/.have-%: pyproject.toml $(VENV)/pyvenv.cfg
	@if $(BIN)/python -m pip show --quiet $(OTHER_PACKAGE) 2>/dev/null; then \
	  echo "Changing over to ONNX Runtime for $(RUNTIME)"; rm -f $(VENV)/.have-*; \
	  $(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu; fi
	@$(if $(findstring training,$*),$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)")
	@echo "Installing precision-explorer[$(subst +,$(comma),$*)] into $(VENV); the first time takes a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(subst +,$(comma),$*)]"
	@touch $@
