# Everything works from a clean clone with nothing but make and Python 3.11 or newer.
#   make demo                      compile the shipped network, print its report and its accuracy
#   make test                      the tests
#   make lint                      ruff and mypy
#   make size                      long files, long functions, lines per package
#   make bench [MODELS=folder]     how long things take
#   make evidence MODELS=folder    the long runs; tables go to docs/evidence/
#   make validation                predictions against published figures; docs/validation.md
# PYTHON=/path/to/python3.11 picks the Python of the virtual environment.

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip install -qq --disable-pip-version-check
HW := edge_npu

.PHONY: demo test lint size bench evidence validation clean

demo: $(VENV)/installed
	$(BIN)/codesign compile examples/digits/digits.onnx --hw $(HW) -o build/digits
	$(BIN)/python examples/digits/evaluate.py build/digits

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=10

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

size: $(VENV)/created
	@$(BIN)/python benchmarks/size.py

bench: $(VENV)/installed-dev
	@set -e; for script in benchmarks/bench_*.py; do $(BIN)/python $$script $(MODELS); done

evidence: $(VENV)/installed-dev
	@test -d "$(MODELS)" || { echo "make evidence MODELS=folder: no folder of ONNX models at '$(MODELS)'" >&2; exit 2; }
	@status=0; for script in benchmarks/evidence_*.py; do \
	  echo "== $$script"; $(BIN)/python $$script "$(MODELS)" || status=1; done; exit $$status

validation: $(VENV)/installed-dev
	$(BIN)/python benchmarks/validation.py

clean:
	rm -rf $(VENV) build dist *.egg-info

# Stamps: a second run installs nothing unless pyproject.toml changed.
$(VENV)/created:
	@.ci/make_venv $(VENV) "$(PYTHON)"
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml
	@echo "installing codesign into $(VENV) (the first time fetches a few hundred megabytes)"
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@
