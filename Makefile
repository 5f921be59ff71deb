# Everything lives in .venv; nothing is installed outside it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO_SECONDS ?=
DEMO_RATE ?= 2000
TESTS ?=
CHAOS_SECONDS ?= 600
CHAOS_SEED ?=
CHAOS_OPTIONS ?=
COMPAT ?= 8.19.21 9.5.3
# Universal: one file for every platform and for each Python from 3.11 on.
LOCK := $(BIN)/uv pip compile --quiet --no-config --upgrade --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock'

.PHONY: help setup demo test test-all coverage test-compat chaos disk-week bench bench-quick bench-growth bench-deletions bench-trends screenshot
.PHONY: lint audit docs lock format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: .venv/.installed ## make .venv and install the project with all it needs

.venv/.installed: setup.py requirements.txt pyproject.toml
	@echo "Python packages are fetched the first time, 175 MB, with a Java and the tools of the developers ..."
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name it with make PYTHON=...")'
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: .venv/.installed ## Elasticsearch, a simulated Jetstream and the worker; DEMO_SECONDS=60 ends by itself
	$(BIN)/python -m slurp.demo --rate $(DEMO_RATE) $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: .venv/.installed ## the quick tests: every promise, against a real Elasticsearch node; about 5 minutes
	$(BIN)/python -m pytest -m "not slow" --hypothesis-profile=quick

test-all: .venv/.installed ## all tests, with the slow ones (chaos, packaging, browser, long faults); about 20 minutes
	$(BIN)/python -m pytest

coverage: .venv/.installed ## what the tests reach, worker processes included; TESTS=tests/test_units.py for some
	$(BIN)/python -m pytest --cov --cov-report=term-missing $(TESTS)

test-compat: .venv/.installed ## the same against other releases, as far as a JDK is found that can start them
	$(BIN)/python -m tests.compat $(COMPAT)

chaos: .venv/.installed ## minutes of faults under load: is every event there, once? CHAOS_SEED=7 repeats one
	$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(CHAOS_OPTIONS)

disk-week: .venv/.installed ## minutes: a simulated week at full speed with --max-disk 300MB; is the folder smaller, is a kept event missing?
	$(BIN)/python -m tests.disk_week

bench: .venv/.installed ## minutes: ours beside the limit and a textbook script, into docs/benchmarks.md
	$(BIN)/python -m bench --write

bench-quick: .venv/.installed ## a minute or two of the same, to the screen
	$(BIN)/python -m bench --quick

bench-growth: .venv/.installed ## half an hour: ten million documents in one index, into docs/benchmarks.md
	$(BIN)/python -m bench --write growth

bench-deletions: .venv/.installed ## twenty minutes: deletions on ten million documents in 31 indices, into docs/benchmarks.md
	$(BIN)/python -m bench --write deletions

bench-trends: .venv/.installed ## half an hour: trends of a day of twenty million documents, into docs/benchmarks.md
	$(BIN)/python -m bench --write trends

screenshot: .venv/.installed ## two or three minutes: the page of --http as it looks, into docs/page-*.png; needs a Chromium
	$(BIN)/python -m tests.screenshot

lint: .venv/.installed ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Strict: a package that the service does not know would else pass for one without vulnerabilities.
audit: .venv/.installed ## known vulnerabilities of what is installed; asks pypi.org
	@$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable > .venv/installed.txt
	@$(BIN)/python -m pip_audit --strict --disable-pip --no-deps --progress-spinner=off -r .venv/installed.txt || \
		{ echo "audit FAILED: a vulnerability is listed above, or pypi.org/pypi/NAME/VERSION/json did not answer" \
		"and nothing is known of the packages" >&2; exit 1; }

docs: .venv/.installed ## generate docs/cli.md, docs/fields.md, the graph in docs/architecture.md, mappings, dashboards, the role of elk/
	$(BIN)/python -m slurp.reference build
	$(BIN)/python -m slurp.documents build
	$(BIN)/python -m slurp.kibana build
	$(BIN)/python -m slurp.elastic.privileges skeetslurper_worker_with_setup > elk/skeetslurper_writer.json
	$(BIN)/python -m tests.architecture build

lock: .venv/.installed ## the newest versions that requirements.txt and pyproject.toml allow, with hashes, into deploy/
	$(LOCK) --output-file deploy/requirements.lock requirements.txt
	$(LOCK) --output-file deploy/build.lock deploy/build.in

format: .venv/.installed ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and all caches of the tools
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage build dist *.egg-info
