# Each target sets up what it needs, in a fresh clone, as root or not, and works offline once it has run.
# Variables: PYTHON (an interpreter for .venv), PYTEST_ARGS, PYTEST_WORKERS, UPGRADE=--upgrade (for constraints).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.PHONY: help demo test lint format bench docs soak search clean constraints

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_WORKERS ?= 3
PYTEST_ARGS ?=
UV_VERSION := 0.13.9

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_NO_WARN_SCRIPT_LOCATION := 1

# An environment that was moved with its folder, or whose interpreter is gone or not ours to run, is made again.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
endif

help:
	@echo 'make demo    the main job, end to end, with what it measured on one screen'
	@echo 'make test    the whole suite and the coverage gate of every module'
	@echo 'make lint    style, types, import arrows, generated pages'
	@echo 'make format  let ruff rewrite what it can'
	@echo 'make bench   the measurements, with the floor beside each'
	@echo 'make docs    write docs/reference again'
	@echo 'make soak    the chaos tests for minutes'
	@echo 'make search  the property tests of the domain for an hour, elsewhere each time'
	@echo 'make constraints [UPGRADE=--upgrade]   resolve constraints.txt again'
	@echo 'make clean   remove everything that make made'

$(INSTALLED): pyproject.toml constraints.txt
	@set -e; if ! $(BIN)/python -c '' 2>/dev/null || [ "$$(cat $@ 2>/dev/null)" != '$(CURDIR)' ]; then \
	    python=$$(sh tools/find_python.sh); \
	    echo "setting up $(VENV) with $$("$$python" --version)"; \
	    rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi; \
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt; \
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	printf '%s\n' '$(CURDIR)' > $@

demo: $(INSTALLED)
	@$(BIN)/position-ledger demo

test: $(INSTALLED)
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest -n $(PYTEST_WORKERS) --dist loadgroup $(PYTEST_ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage json --quiet -o .coverage-report.json
	@$(BIN)/python -m tools.coverage_gates .coverage-report.json

lint: $(INSTALLED)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check || { echo 'formatting differs: run make format' >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary $(wildcard src projections workers tools bench tests)
	@$(BIN)/lint-imports --no-logo >.import-linter.log || { cat .import-linter.log >&2; exit 1; }
	@$(BIN)/python -m tools.house_check
	@$(BIN)/python -m tools.dependency_page --check
	@echo 'lint: no findings'

format: $(INSTALLED)
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet

bench: $(INSTALLED)
	@$(BIN)/python -m bench

docs: $(INSTALLED)
	@$(BIN)/python -m tools.dependency_page
	@$(BIN)/python -m tools.schema_pages

soak: $(INSTALLED)
	@POSITION_LEDGER_SOAK=1 $(BIN)/python -m pytest -m soak --timeout 3600 $(PYTEST_ARGS)

search: $(INSTALLED)
	@POSITION_LEDGER_TEST_PROFILE=long $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --timeout 0 tests/unit/domain $(PYTEST_ARGS)

# One resolution for every supported Python on Linux; uv is used here only and writes no address.
constraints: pyproject.toml
	@set -e; python=$$(sh tools/find_python.sh); \
	tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	"$$python" -m venv "$$tool"; \
	"$$tool/bin/python" -m pip install --quiet uv==$(UV_VERSION); \
	"$$tool/bin/uv" --quiet pip compile pyproject.toml --extra dev --universal --python-version 3.11 $(UPGRADE) \
	    --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o constraints.txt

clean:
	@rm -rf $(VENV) build dist bench-results htmlcov .coverage .coverage.* .coverage-report.json .import-linter.log \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
