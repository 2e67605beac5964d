# Everything starts from one stamp: a virtual environment with exactly the versions of the lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
STAMP := $(VENV)/.installed

# The site is built in an environment of its own, so that this one does not grow.
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed

.PHONY: help demo test lint format docs bench bench-gpu lock lock-docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       set up, then run the whole main line on this machine"
	@echo "make test       set up, then run the tests (ARGS='-m slow' for the slow ones)"
	@echo "make lint       ruff, mypy and the import contracts"
	@echo "make format     let ruff rewrite the code"
	@echo "make docs       build the documentation site, build/site/index.html; warnings are errors"
	@echo "make bench      run every benchmark in benchmarks/"
	@echo "make bench-gpu  measure what the GPU here makes of training, curves and codecs"
	@echo "make lock       write requirements.lock from what .venv holds"
	@echo "make lock-docs  write requirements-docs.lock from what .venv-docs holds"
	@echo "make clean      remove .venv, .venv-docs, build files and caches; runs and data stay"

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) is not on the path: install Python 3.11, or name one with make PYTHON=..." >&2; \
	  exit 1; }
	@test -x $(BIN)/python || { echo "setting up $(VENV): about a minute, more on a slow line"; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install --prefer-binary -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DOCS_STAMP): requirements-docs.lock
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip -qq --disable-pip-version-check install --prefer-binary -r $<
	@$(DOCS_VENV)/bin/python -m pip check
	@touch $@

demo: $(STAMP)
	@$(BIN)/gencomp demo

# Passive waiting: idle OpenMP threads must not spin on the cores that other workers need.
test bench: export OMP_NUM_THREADS := 1
test bench: export OMP_WAIT_POLICY := PASSIVE

# Most of a test of Ray or Slurm is waiting, so four at a time fit on two cores, two of them long
# ones. Files with long tests are spread over the first half (tests/conftest.py).
test: $(STAMP)
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=10 $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Pages about commands, recipes and modules are written from the code, which needs all of .venv.
# Not with --quiet: mkdocs then counts no warnings, and --strict is without effect.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(STAMP) $(DOCS_STAMP)
	@$(BIN)/python -m docs.site build
	@$(DOCS_VENV)/bin/mkdocs build --strict --config-file build/mkdocs.yml

# The others are parts that benchmarks import; benchmarks/peers needs packages of its own.
bench: $(STAMP)
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do echo "== $$file"; $(BIN)/python $$file; done

# It ends after 8 minutes, and at once where there is no GPU (ARGS='--minutes 4 --parts steps').
bench-gpu: $(STAMP)
	@$(BIN)/python benchmarks/gpu.py $(ARGS)

# A local suffix such as +cpu names one build of a version; the lock must fit all of them.
lock: $(STAMP)
	@{ sed -n '/^#/p' requirements.lock; \
	   $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --exclude gencomp \
	   | sed -E 's/^([^=]+==[^+]+)\+.*/\1/'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

lock-docs: $(DOCS_STAMP)
	@{ sed -n '/^#/p' requirements-docs.lock; $(DOCS_VENV)/bin/python -m pip freeze; } > requirements-docs.lock.new
	@mv requirements-docs.lock.new requirements-docs.lock

clean:
	rm -rf $(VENV) $(DOCS_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
