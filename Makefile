# Every target sets itself up: Python 3.11 or later and make are all that it takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Type checkers do not follow the folder mapping of an editable install; links show them the installed layout.
LINKS := build/types/relmem
FOLDERS := agents cli common configs envs experiment tasks

.PHONY: pong test lint types smoke bench results clean

pong: $(INSTALLED)
	$(BIN)/python train.py --config configs/pong/stm.yaml

test: lint types
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	mkdir -p $(LINKS)
	for folder in $(FOLDERS); do ln -sfn ../../../$$folder $(LINKS)/$$folder; done
	$(BIN)/mypy

smoke: $(INSTALLED)
	for config in $$(cd configs && find . -name '*.yaml' | sort); do \
		$(BIN)/python train.py --config configs/$$config --smoke || exit 1; \
	done

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run $(ARGS)

results: $(INSTALLED)
	$(BIN)/python -m benchmarks.results

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find agents cli common configs envs experiment tasks tests -name __pycache__ -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@
