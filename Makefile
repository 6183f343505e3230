# `make help` lists what there is. Everything sets itself up in .venv first.
PYTHON ?= python3
EDITION ?= demo
CORES ?= 2
RESULTS ?= results
KILLS ?= 50
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# what is given is text: neither make nor the shell reads a $(command) in it
override EDITION := $(value EDITION)
override CORES := $(value CORES)
override RESULTS := $(value RESULTS)
override DATA := $(value DATA)
override SET := $(value SET)
override KILLS := $(value KILLS)
override N := $(value N)
override BACKBONE := $(value BACKBONE)
quoted = '$(subst ','\'',$(1))'
SETTINGS := $(call quoted,edition=$(EDITION)) $(call quoted,results=$(RESULTS)) \
  $(if $(DATA),$(call quoted,data_root=$(DATA))) $(foreach word,$(SET),$(call quoted,$(word)))
# an OpenMP thread that waits sleeps: on a busy machine two that spin are 40 times slower
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONPATH :=
export PYTHONDONTWRITEBYTECODE :=  # set, as in many containers, it has every notebook compile PyTorch's modules anew
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup book notebook test test-fast kills twice lab bench lint lock retrain clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/' | expand -t 14
	@echo "  settings: EDITION=demo|smoke|imagenette|other-classes|more-photographs|amortised-rise|longer|imagenet|released|rehearsal CORES=2 DATA=<image folder> RESULTS=results"

setup: $(READY) ## make .venv with every dependency, as locked

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python >= 3.11 is needed, $(PYTHON) is older; say make PYTHON=/path/to/python3.11"; exit 1; }
	@rm -f $(READY)
	$(PYTHON) -m venv --clear $(VENV)
	@# a quarter each of four at once: one alone waits, for packages to come or to be unpacked
	for part in 0 1 2 3; do awk "/^[a-z]/ { i++ } i % 4 == $$part" requirements.lock > $(VENV)/$$part.lock; done
	printf '%s\n' 0 1 2 3 | xargs -P 4 -I {} $(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes -r $(VENV)/{}.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@rm $(VENV)/?.lock
	@# whatever loads jsonschema loads it too, and waits a second and a half for a grammar of web addresses
	@$(BIN)/python -m pip uninstall --quiet --yes rfc3987-syntax
	@touch $(READY)

book: $(READY) ## train, evaluate and build the book of an edition
	@exec $(BIN)/snakemake --profile profiles/local --nolock --cores $(call quoted,$(CORES)) --config $(SETTINGS)

notebook: $(READY) ## run one notebook (N=03 BACKBONE=demo_vit), beside the book's
	@set -- notebooks/$(call quoted,$(N))*.ipynb; test -f "$$1" \
	  || { echo "there is no notebook N="$(call quoted,$(N))"; expected a number of one, such as N=03"; exit 1; }; \
	mkdir -p results; \
	exec $(BIN)/papermill "$$1" "results/$$(basename "$$1")" -r edition $(call quoted,$(EDITION)) \
	  $(if $(BACKBONE),-r backbone $(call quoted,$(BACKBONE))) $(if $(DATA),-r data_root $(call quoted,$(DATA)))

test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: $(READY) ## run those that run no notebook and train nothing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

kills: $(READY) ## kill trainings, evaluations and the graph at random moments (KILLS=50), compare
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.project.kill $(call quoted,$(KILLS))

twice: $(READY) ## run the smoke edition twice and on two threads, compare
	$(BIN)/python -m tests.project.twice

lab: $(READY) ## open the notebooks in JupyterLab, or one of them (N=03)
	$(BIN)/jupyter lab notebooks$(if $(N),/$(call quoted,$(N))*.ipynb)

bench: $(READY) ## time the measures and the methods against the peers'
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/growth.py

lint: $(READY) ## check style, types, notebooks and configurations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/snakefmt --check Snakefile
	$(BIN)/mypy

retrain: $(READY) ## train the demo backbones anew and build the demo book on them
	$(MAKE) book SET=$(call quoted,$(SET) retrain=true)

lock: ## resolve requirements.lock again (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --no-strip-extras \
	  --all-extras --python-version 3.11 --quiet pyproject.toml -o requirements.lock

clean: ## remove the demo's and the smoke edition's results
	rm -rf $(call quoted,$(RESULTS)/demo) $(call quoted,$(RESULTS)/smoke)
