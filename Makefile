# `make demo` and `make test` need Python 3.11 and nothing else; each makes .venv and installs the locked packages.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint docs unit slow golden lock clean

demo: $(INSTALLED)
	$(BIN)/keras-qat run --epochs 2

test: lint docs unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/; a link to nowhere, a page outside the navigation or an unknown name stops it.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A process that has no test left takes half of those that another still has: some files take minutes, others nothing.
unit: $(INSTALLED)
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# The tests that take minutes each.
slow: $(INSTALLED)
	$(BIN)/pytest -m slow

# Writes the golden placements anew: read the difference before you commit it.
golden: $(INSTALLED)
	$(BIN)/python tests/golden/regenerate.py

# The marker is touched last, so an interrupted installation starts anew.
$(INSTALLED): requirements.lock pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Rewrites the lock; needs uv.
lock:
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-emit-package keras-qat \
		--output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist site
