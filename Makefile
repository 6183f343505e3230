# `make help` lists what there is. Everything sets itself up in .venv first.
PYTHON ?= python3
EDITION ?= demo
CORES ?= 2
RESULTS ?= results
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SETTINGS := edition=$(EDITION) results=$(RESULTS) $(if $(DATA),data_root="$(DATA)") $(SET)
export PYTHONPATH :=
export PYTHONDONTWRITEBYTECODE :=  # set, as in many containers, it has every notebook compile PyTorch's modules anew
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup book test test-fast lab bench lint lock retrain clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/' | expand -t 14
	@echo "  settings: EDITION=demo|smoke|imagenette|imagenet CORES=2 DATA=<image folder> RESULTS=results"

setup: $(READY) ## make .venv with every dependency, as locked

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python >= 3.11 is needed, $(PYTHON) is older; say make PYTHON=/path/to/python3.11"; exit 1; }
	@rm -f $(READY)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)

book: $(READY) ## train, evaluate and build the book of an edition
	@mkdir -p .snakemake; running=$$(cat .snakemake/book.pid 2>/dev/null); \
	  if [ -n "$$running" ] && ps -o args= -p "$$running" 2>/dev/null | grep -q snakemake; then \
	    echo "make book runs already (process $$running); wait for it or stop it"; exit 1; fi; \
	  echo $$$$ > .snakemake/book.pid; \
	  if ls .snakemake/locks/* >/dev/null 2>&1; then \
	    $(BIN)/snakemake --unlock --quiet all --cores $(CORES) --config $(SETTINGS); fi; \
	  exec $(BIN)/snakemake --profile profiles/local --cores $(CORES) --config $(SETTINGS)

test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: $(READY) ## run those that run no notebook and train nothing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

bench: $(READY) ## time the measures and the methods against the peers'
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/methods.py

lint: $(READY) ## check style, types, notebooks and configurations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/snakefmt --check Snakefile
	$(BIN)/mypy

retrain: $(READY) ## train the demo backbones anew and build the demo book on them
	$(MAKE) book EDITION=$(EDITION) SET="$(SET) retrain=true"

lock: ## resolve requirements.lock again (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --no-strip-extras \
	  --all-extras --python-version 3.11 --quiet pyproject.toml -o requirements.lock

clean: ## remove the demo's and the smoke edition's results
	rm -rf $(RESULTS)/demo $(RESULTS)/smoke
