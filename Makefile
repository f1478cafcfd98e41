# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
RUN := .venv/bin/python
# Two spinning threads beside another job are many times slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint docs clean

demo: export OMP_NUM_THREADS = $(shell nproc)
demo: .venv/ready
	.venv/bin/penult demo --out penult-demo
	.venv/bin/penult demo --seed 1 --out penult-demo-2 > /dev/null
	.venv/bin/penult diff penult-demo penult-demo-2 --report penult-demo/diff.html

test: .venv/ready-dev
	$(RUN) -m pytest -n auto --dist loadfile

test-slow: .venv/ready-dev
	$(RUN) -m pytest -n auto -m slow

lint: .venv/ready-dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

docs: .venv/ready-dev
	$(RUN) docs/api.py

clean:
	rm -rf .venv penult-demo penult-demo-2 build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/ready: pyproject.toml constraints.txt | .venv/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev,vision,hf]'
	touch $@
