# Everything here sets itself up: Python 3.11 or later and a package index are all that is needed.
#
#   make demo    describe, question and classify the recordings in examples/ with the default model (also plain `make`)
#   make test    lint, types, layers and tests
#   make weights train the default model, in hours; continues where it was stopped (docs/training.md)
#   make docs    build the documentation as a site, into site/
#   make setup   only set up .venv
#
# PYTHON=python3.12 picks an interpreter; PIP_FLAGS adds options to pip, such as an index with CPU-only builds of torch.

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt
PENGI := $(BIN)/pengi
RUN := runs/pengi-mini
TCMALLOC := $(firstword $(wildcard /usr/lib/*/libtcmalloc_minimal.so.4))
CHECKPOINT := config.json vocabulary.json model.safetensors README.md

.PHONY: demo test weights docs setup lint clean
demo: $(VENV)/run.stamp
	$(PENGI) describe examples/*.opus
	$(PENGI) ask examples/french-horn.opus "what instrument is playing?"
	$(PENGI) ask examples/woman.opus "is the speaker a man or a woman?"
	$(PENGI) classify examples/dog.opus examples/rooster.opus examples/siren.opus --labels "dog barking, rooster crowing, siren, rain" --top 2

setup: $(VENV)/test.stamp

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Two processes with one thread each: the tests of one file share the models that they load.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# Features, tagger, transcripts and steps that are there already are not made again. tcmalloc makes training faster on a
# CPU with Linux (docs/training.md); it is not needed.
weights: export LD_PRELOAD = $(TCMALLOC)
weights: export TCMALLOC_RELEASE_RATE = 0
weights: runs/composed/manifest.jsonl runs/synthesized/manifest.jsonl $(VENV)/train.stamp
	@[ -n "$(TCMALLOC)" ] || echo "tcmalloc is not installed; with it (Debian: libtcmalloc-minimal4) training is faster"
	$(PENGI) train recipes/pengi-mini.yaml --out $(RUN) --resume
	@rm -rf $(RUN)/.checkpoint && mkdir $(RUN)/.checkpoint
	@cp $(addprefix $(RUN)/,$(CHECKPOINT)) $(RUN)/.checkpoint
	@rm -rf $(RUN)/checkpoint && mv $(RUN)/.checkpoint $(RUN)/checkpoint
	@echo "The model is in $(RUN)/checkpoint"

# The variable silences a notice about the successor of mkdocs-material.
docs: $(VENV)/docs.stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in site/index.html"

# Each folder appears whole or not at all.
runs/composed/manifest.jsonl: | $(VENV)/train.stamp
	$(PENGI) data compose --manifest ../shared/data/manifest.jsonl --ship-only --count 2000 --out $(@D)

runs/synthesized/manifest.jsonl: | $(VENV)/train.stamp
	$(PENGI) data synthesize --count 3248 --seed 0 --out $(@D)

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "pengi needs Python 3.11 or later; name one with 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# torch comes first and pinned: resolved together with the rest, it can bring gigabytes of GPU libraries along.
$(VENV)/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing pengi (a few minutes the first time)"
	@$(PIP) torch==2.13.0
	@$(PIP) --editable .
	@touch $@

$(VENV)/train.stamp: $(VENV)/run.stamp
	@echo "Installing what training needs"
	@$(PIP) --editable '.[train]'
	@touch $@

$(VENV)/docs.stamp: $(VENV)/run.stamp
	@echo "Installing what the documentation needs"
	@$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[test]'
	@echo "Fetching the frozen parts (tests that need them are skipped without)"
	@-for part in pengi-mini yamnet all-minilm-l6-v2; do $(BIN)/pengi pull $$part > /dev/null; done
	@touch $@
