# Everything a contributor runs. Each target makes the virtual environment when it needs it.
# Needs GNU make and Python 3.11 or newer; nothing else.

.DEFAULT_GOAL := help
.PHONY: help venv serve test check static format bench bench-quick cds-eval wheel definitions clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
QUICK := $(BIN)/python -m tests.bench.quick
# Processes that pytest starts; each one has its own event loop and its own client.
JOBS ?= 2
# Handed on to the program: make serve ARGS="--port 9090", make bench ARGS="-k read".
ARGS ?=
# The Python that makes the virtual environment; the first one of these that is new enough.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
# Tests that need no MongoDB. A folder that is not there yet is left out.
PURE := $(wildcard $(addprefix tests/,\
    r4 search validation terminology patch repository))

help:  ## show this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed 's/:.*  ## /|/' | \
	    while IFS='|' read -r target text; do printf '  make %-12s %s\n' "$$target" "$$text"; done

# ---------------------------------------------------------------- the virtual environment
# A stamp file says what is installed. The larger installation contains the smaller one.

INSTALLS := pyproject.toml constraints.txt

venv: .venv/.dev  ## make .venv with everything that serving and testing need

.venv/.python:
	@for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making .venv with $$("$$python" --version)"; \
	        "$$python" -m venv .venv && touch $@ && exit 0; \
	        echo "That failed. On Debian and Ubuntu, install the package python3-venv." >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "No Python 3.11 or newer was found; looked for: $(PYTHONS)." >&2; \
	echo "Install one, or name it: make PYTHON=path/to/python ..." >&2; \
	exit 1

.venv/.serve: .venv/.python $(INSTALLS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded]'
	@touch $@

.venv/.dev: .venv/.python $(INSTALLS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,embedded]'
	@touch .venv/.serve $@

# ------------------------------------------------------------------------------ the server

# Everything is on for whoever tries it: decision support and HL7 v2, unless FHIR_FEATURES says else.
DEMO := $(if $(FHIR_FEATURES)$(shell grep -s '^FHIR_FEATURES=' .env),,\
    FHIR_FEATURES='["fhir_server.features.cds", "fhir_server.features.scheduling", "adapters.hl7v2"]')

serve: .venv/.serve  ## start the server on an embedded MongoDB with sample data (ARGS="...")
	$(DEMO) $(BIN)/fhir-server serve --sample $(ARGS)

# ------------------------------------------------------------------------------- the gates

static: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: static  ## format, lint, types, floors and the pure tests; no MongoDB
	$(PYTEST) -n $(JOBS) -m 'not slow' $(PURE) $(ARGS)

# What is slower is looked for when nothing else runs, and not after a choice of tests.
test: static  ## what `check` runs, the rest of the tests, and then bench-quick
	$(PYTEST) -n $(JOBS) $(ARGS)
	$(if $(ARGS),,$(QUICK))

format: .venv/.dev  ## format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# --------------------------------------------------------------------------- now and then

bench: .venv/.dev  ## print the table of workloads; with ARGS="-k …" other benchmarks, bench_*.py
	$(PYTEST) -s -rA --timeout 0 -o python_files='bench_*.py' $(if $(ARGS),tests/bench,tests/bench/bench_table.py) $(ARGS)

bench-quick: .venv/.dev  ## say in two minutes whether something became much slower
	$(QUICK) $(ARGS)

cds-eval: .venv/.dev  ## measure the drug safety knowledge on the development sets
	$(BIN)/python scripts/cds_eval.py $(ARGS)

wheel: .venv/.dev  ## build the wheel, install it in a throw-away environment, run it there
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel --outdir dist
	@set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; set -x; \
	$(BIN)/python -m venv "$$place"; \
	"$$place/bin/pip" install --quiet --constraint constraints.txt dist/*.whl; \
	cd "$$place"; bin/fhir-server version

definitions: .venv/.dev  ## distil profiles/ and terminology/ again from HL7's package
	$(BIN)/python scripts/distil_definitions.py $(ARGS)

clean:  ## remove everything that these targets made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
