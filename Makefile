# make demo   set up .venv, then photographs mixed, a small network trained with and without mixing, timings: one page
# make test   set up .venv, then lint, types and tests
# make install  the set-up alone; it does nothing when nothing changed

# The first of these that is Python 3.11 or newer; "make PYTHON=/path/to/python test" takes another.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint types check clean

install: $(STAMP)

# torch goes first and torchvision without its dependencies: nothing that comes later may replace torch.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "mixops needs Python 3.11 or newer: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev,peers]'
	touch $(STAMP)

demo: install
	$(BIN)/python -m mixops.pipelines.demo --out out/demo

test: install
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory types
	$(MAKE) --no-print-directory check

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy mixops
	$(BIN)/mypy pipelines

check: install
	$(BIN)/python -m pytest -q

clean:
	rm -rf .venv out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
