# Every target sets itself up: Python 3.11 or later and make are all that it takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Tests at a time, each on one thread.
JOBS ?= 2

# Editors and type checkers do not see through the folder mapping of an editable install, but read the paths in .pth
# files: links show them the installed layout. Python itself is to go on importing from the folders.
LINKS := build/types/relmem
FOLDERS := $(shell sed -n 's/^"relmem\.[a-z]*" = "\(.*\)"/\1/p' pyproject.toml)
PURELIB = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
FOLDERS_FIRST := import sys; sys.meta_path.sort(key=lambda f: getattr(f, "__name__", "") != "_EditableFinder")

.PHONY: pong check test lint types docs smoke bench faults results trainings clean

pong: $(INSTALLED)
	$(BIN)/python train.py --config configs/pong/stm.yaml

check: lint types
	$(BIN)/python -m pytest -n $(JOBS) --quick

test: lint types
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) $(LINKS)
	$(BIN)/mypy

# The documentation as a site; open build/site/index.html.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

smoke: $(INSTALLED)
	for config in $$(cd configs && find . -name '*.yaml' | sort); do \
		$(BIN)/python train.py --config configs/$$config --smoke || exit 1; \
	done

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run $(ARGS)

# Some hundred faults; `make faults ARGS="--only kills"` takes one part of them.
faults: $(INSTALLED)
	$(BIN)/python -m benchmarks.faults $(ARGS)

results: $(INSTALLED)
	$(BIN)/python -m relmem.experiment.tables

# Whatever results/runs.yaml lists and no result exists for, one training per processor core; Ctrl-C saves them all.
trainings: $(INSTALLED)
	$(BIN)/python -m relmem.cli.queue --processes $$(nproc) $(ARGS)

clean:
	rm -rf build/lib build/bdist.* build/site dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find package $(FOLDERS) tests benchmarks -name __pycache__ -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt | $(LINKS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	printf '%s\n' '$(CURDIR)/build/types' '$(FOLDERS_FIRST)' > $(PURELIB)/relmem_links.pth
	touch $@

$(LINKS): pyproject.toml
	mkdir -p $@
	for folder in $(FOLDERS); do ln -sfn ../../../$$folder $@/$$folder; done
	for file in __init__.py py.typed; do ln -sfn ../../../package/$$file $@/$$file; done
	touch $@
