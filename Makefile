# `make demo` and `make test` set up .venv themselves; they need only Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-whole lint bench clean

demo: $(VENV)/ready
	$(BIN)/krobust demo --out demo

# One thread each: processes that all start a thread for every core stand in each other's way. One more than two
# cores, because some tests wait for what they started.
test test-whole: $(VENV)/ready
	OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile \
		--no-loadscope-reorder $(if $(filter test-whole,$@),--whole)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready
	$(BIN)/pip install --quiet --editable ".[bench]"
	$(BIN)/python tools/bench.py

# The stamp is renewed when the dependencies change.
$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,litert]"
	touch $@

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
