# make book    the executed book in _build/html   (SCALE=fast|book|gpu|paper, CHAPTER=02 for one chapter)
# make test    unit tests, every notebook re-run and compared, the book built with warnings as errors
# make gpu     device tests and benchmarks on a GPU, at most eight minutes
# make outputs re-run the chapters at the fast scale and refresh the outputs committed with them
# make devices the library, studies and chapters on a second device, made of the CPU   (MEMLIB_DEVICE=cuda for a GPU)
# make faults  kill, fill, damage and fuzz everything, at most an hour; a run that was stopped goes on
# make audit-deps  known vulnerabilities and the licences of what is installed, as a report
# make print   the book on one page, _build/print/_build/singlehtml/index.html, for a browser to print or save as PDF
# make lint    ruff, pyright   make clean   removes what was built; caches of trained models stay

SCALE   ?= fast
CHAPTER ?=
# The first interpreter that really runs and is new enough.
PYTHON  ?= $(shell for p in python3.11 python3 python; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VENDORED  := book/_static/vendor/versions.json

.PHONY: book print test devices gpu faults audit-deps outputs lint clean install vendor
.DEFAULT_GOAL := book

book: install vendor
	$(BIN)/python -m memlib.cli book --scale $(SCALE) $(if $(CHAPTER),--chapter $(CHAPTER))

print: install vendor
	$(BIN)/jupyter-book build . --builder singlehtml --path-output _build/print

# All parts run even if one fails. Each is a session of its own: the notebooks really train, since their cache is empty,
# and a second device, once torch has it, stays for the rest of a process.
test: install vendor
	@status=0; \
	$(BIN)/python -m pytest -n 2 --dist loadfile || status=1; \
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/devices || status=1; \
	$(BIN)/python -m pytest --nbval notebooks || status=1; \
	exit $$status

# What only a GPU can show (benchmarks/gpu.py), with the torch of that machine: nothing is installed.
GPU_PYTHON ?= python3
gpu:
	MEMLIB_COMMIT=$${MEMLIB_COMMIT:-$$(git rev-parse HEAD 2>/dev/null)} $(GPU_PYTHON) -m benchmarks.gpu

outputs: install
	$(BIN)/python -m memlib.cli outputs

devices: install
	MEMLIB_DEVICE=$(or $(MEMLIB_DEVICE),pretend) $(BIN)/python -m pytest -n 2 tests/devices

# Finished cases stand in runs/faults; what is counted in results/faults.json.
faults: install
	nice -n 10 $(BIN)/python -m faults

audit-deps: install
	$(BIN)/python -m faults.dependencies

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf _build .pytest_cache .ruff_cache

install: $(INSTALLED)
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "No Python >= 3.11 found: install one, or name it with make PYTHON=/path/to/python."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[book,test]'
	@touch $@

# MathJax and the widget manager, copied into the book so that it opens offline. Without npm the pages use CDN addresses.
vendor:
	@if ! command -v npm >/dev/null 2>&1; then echo "npm not found: the book's pages will load MathJax from a CDN."; \
	elif [ ! -e $(VENDORED) ] || [ book/package-lock.json -nt $(VENDORED) ] || [ book/vendor.mjs -nt $(VENDORED) ]; then \
	  node book/vendor.mjs || echo "npm could not fetch MathJax and the widget manager: the book's pages will load them from a CDN."; fi
