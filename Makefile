# Everything a person or CI runs. Each target sets up `.venv` first, from the lock file and from nothing but Python, git
# and make; a second run finds it up to date. Extra arguments: `make demo ARGS=--exit`, `make test ARGS="-k gate"`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SETUP_AIM_SECONDS := 240
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
SECONDS_SINCE = $(PYTHON) -c 'import sys, time; print(round(time.time() - float(sys.argv[1]) + float(sys.argv[2]), 1))'

.PHONY: setup demo test lint types imports format lock docs deploy-files screenshots clean help
.DELETE_ON_ERROR:

help:
	@echo "make demo | test | lint | types | imports | format | lock | docs | deploy-files | screenshots | bench-NAME | clean"

setup: .venv/.stamp

# uv is installed by pip from its own lines of the lock file, so that it too is held to a version and a hash.
.venv/.uv:
	@echo "making .venv with $(PYTHON)"
	@started=$$($(PYTHON) -c 'import time; print(time.time())') \
	&& $(PYTHON) -m venv --clear .venv \
	&& sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock \
	&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock \
	&& $(SECONDS_SINCE) $$started 0 > .venv/.made_seconds
	@touch $@

# Compiled once and here: a process that may not write beside the modules compiles thousands of them each time it starts.
# The figure of a set-up from nothing is kept for `make demo`; bringing an old .venv up to date does not replace it.
.venv/.stamp: requirements.lock pyproject.toml | .venv/.uv
	@echo "installing what requirements.lock names"
	@started=$$($(PYTHON) -c 'import time; print(time.time())') \
	&& $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock \
	&& $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . \
	&& if [ -f .venv/.made_seconds ]; then \
		$(SECONDS_SINCE) $$started $$(cat .venv/.made_seconds) > .venv/.setup_seconds && rm .venv/.made_seconds; \
	fi
	@touch $@

demo: .venv/.stamp
	@awk '{ printf "aim  demo.setup_seconds  %s  <= $(SETUP_AIM_SECONDS)  %s\n", $$1, ($$1 <= $(SETUP_AIM_SECONDS) ? "met" : "short") }' \
		.venv/.setup_seconds
	@$(BIN)/mlplatform demo $(ARGS)

# Three processes on the two cores that the smallest machine has: a third of the time is spent waiting for servers. In
# the order of collection, in which the long ones, docs and end to end, come early. `conftest.py` says what stays together.
test: .venv/.stamp
	@$(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: .venv/.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.stamp
	@$(BIN)/mypy

imports: .venv/.stamp
	@$(BIN)/lint-imports

# Prometheus' rules and Grafana's dashboards, made from the names that the code exports.
deploy-files: .venv/.stamp
	@$(BIN)/python -m deploy.generate

format: .venv/.stamp
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The three locks agree with each other: the small ones are constrained by the large one. Versions move only when
# pyproject.toml asks for it, or with ARGS=--upgrade, or ARGS="--upgrade-package NAME".
lock: .venv/.stamp
	@$(LOCK) --extra serving --extra pipeline --extra cpu --group dev $(ARGS) --output-file requirements.lock
	@$(LOCK) --extra serving --extra cpu --constraints requirements.lock --output-file serving/requirements.lock
	@$(LOCK) --extra serving --extra gpu --constraints requirements.lock --output-file serving/requirements-gpu.lock
	@! grep -n '://' requirements.lock serving/requirements.lock serving/requirements-gpu.lock

docs: .venv/.stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "open site/index.html"

# The pictures of the docs are made by the tests of the UI.
screenshots: .venv/.stamp
	@$(BIN)/pytest mlplatform_tests/end_to_end/test_ui.py --screenshots

# bench-online-store runs bench/online_store.py.
bench-%: .venv/.stamp
	@$(BIN)/python -m bench.$(subst -,_,$*) $(ARGS)

# var/, the platform's data, is not ours to delete.
clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
