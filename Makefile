# `make help` lists the targets. Everything is made under .venv, node_modules and build.
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where an image forbids Python to keep what it compiled, each of a hundred processes would compile anew.
export PYTHONDONTWRITEBYTECODE :=
# One thread a notebook, since several run at once; and the same bits whatever runs beside.
run-notebook := OMP_NUM_THREADS=1 python -m robustnb.notebooks
cores := $(shell getconf _NPROCESSORS_ONLN)
sync := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

notebooks := $(wildcard book/*.ipynb)
executed := $(notebooks:%=build/%)
pages := _config.yml _toc.yml book/stage.py book/csp.py $(wildcard book/*.md book/*.bib book/assets/*)
libraries := build/libraries

# Only the inner make, of the notebooks, runs in parallel.
ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:
endif

.PHONY: help book serve lab page student bench test unit-and-faults test-long audit links check lint unit hooks notebooks clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

book: build/html.stamp ## run every notebook, render the book
	@echo "The book: file://$(CURDIR)/build/html/book/index.html"

PORT ?= 8000
serve: book ## the same, then serve it on 127.0.0.1 (another port: make serve PORT=8001)
	python -m http.server $(PORT) --bind 127.0.0.1 --directory build/html

lab: .venv/installed ## JupyterLab on the book's notebooks (with options: make lab ARGS=--no-browser)
	jupyter lab book/index.ipynb $(ARGS)

# Alone it takes seconds, where the book takes minutes; what it warns of are its links to pages that are not there.
NAME ?= index
page: build/book/$(NAME).ipynb $(libraries)/robustnb-engine.js $(libraries)/widgets.js ## run and render one notebook alone: make page NAME=lazy
	rm -rf build/page build/page_stage; mkdir -p build/page_stage/book
	cp _config.yml build/page_stage; cp book/bibliography.md book/references.bib build/page_stage/book
	printf 'format: jb-book\nroot: book/$(NAME)\nchapters:\n  - file: book/bibliography\n' > build/page_stage/_toc.yml
	python book/stage.py $< build/page_stage/book; rm build/page_stage/book/run_times.md
	cp -r $(libraries) build/page_stage/page; cp book/assets/* build/page_stage/page
	jupyter-book build build/page_stage --path-output build/page --quiet 2>&1 >/dev/null | sed '/xref_missing\|unknown document\|undefined label\|cross-reference\|target not found\|label .* not found/d'
	mv build/page/_build/html build/page/html; rm -rf build/page/_build build/page_stage
	@echo "The page: file://$(CURDIR)/build/page/html/book/$(NAME).html"

student: book ## the book and its notebooks without the solutions, for a class: build/student
	rm -rf build/student build/student_stage; cp -r build/stage build/student_stage
	python book/student.py build/student_stage/book build/student_stage/book
	python book/student.py book build/student/notebooks
	jupyter-book build build/student_stage --path-output build/student --all -W -n --keep-going --quiet >/dev/null
	mv build/student/_build/html build/student; rm -rf build/student/_build build/student_stage
	@echo "The book: file://$(CURDIR)/build/student/html/book/index.html, the notebooks: build/student/notebooks"

check: .venv/installed node_modules/installed ## lint, types and fast unit tests: before each commit
	@$(MAKE) --silent -j2 $(sync) lint unit

lint: .venv/installed node_modules/installed
	ruff check .
	ruff format --check .
	mypy
	node_modules/.bin/tsc --project tsconfig.json

unit: .venv/installed
	pytest -q -n $(cores) tests/unit

hooks: .venv/installed ## run `make check` and strip outputs before each commit
	pre-commit install

bench: .venv/installed ## race the engine against its peers (10 minutes; nothing else should run beside it)
	pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	python -m benchmarks --out book/atlas/speed.json

# What needs one core goes beside what needs all; what lint finds is said at once, and the notebooks go on.
test: .venv/installed node_modules/installed build/inputs.sum ## everything that CI runs
	@$(MAKE) --silent -j$(cores) $(sync) --keep-going lint $(executed)
	@$(MAKE) --silent -j2 $(sync) build/html.stamp unit-and-faults
	pytest -q -n $(cores) --dist loadgroup -m "not alone" tests/notebooks tests/book
	pytest -q -m alone tests/book

unit-and-faults: .venv/installed
	pytest -q -n $(cores) tests/unit tests/faults

test-long: build/html.stamp ## the long profile: arbitrary arguments, every notebook with other seeds and at full scale, faults (an hour)
	ROBUSTNB_EXAMPLES=1000 ROBUSTNB_RESULTS=book/atlas/tested.json pytest -q -n $(cores) --dist loadgroup -m long tests
	ROBUSTNB_EXAMPLES=1000 pytest -q -m alone tests/book

audit: .venv/installed node_modules/installed ## ask the advisory services about every pinned dependency (not in CI: their answers change)
	python -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@failed=0; build/audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.txt || failed=1; npm audit || failed=1; exit $$failed

links: .venv/installed ## list every address outside the book, with where it stands
	@python book/links.py

clean: ## remove everything that was made
	rm -rf .venv node_modules build dist

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, not %d.%d: make PYTHON=/path/to/python3" % v)'
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	pip install --quiet --disable-pip-version-check --no-deps --editable .
	@# pip would compile one file after the other. A few that are in torch are for later Pythons: these are left.
	@python -m compileall -q -j 0 .venv/lib >/dev/null || true
	@touch $@

node_modules/installed: package.json package-lock.json .npmrc .venv/installed
	npm ci --silent
	@touch $@

# What every notebook depends on, by content: written anew only when a file of it changed, came or went.
build/inputs.sum: FORCE
	@mkdir -p build
	@find robustnb book/atlas requirements.txt -type f -not -name '*.pyc' -not -name '*.part' | LC_ALL=C sort | xargs cksum > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
# Which pages and assets there are: one that goes must go from the book.
build/pages.list: FORCE
	@mkdir -p build; printf '%s\n' $(sort $(pages) $(notebooks)) > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
FORCE:

# That this comes to be asked means that there is none.
book/%.ipynb:
	@echo 'NAME must be one of $(notebooks:book/%.ipynb=%), not $*.'; exit 1

build/book/%.ipynb: book/%.ipynb build/inputs.sum | .venv/installed
	$(run-notebook) $< $@

notebooks: .venv/installed build/inputs.sum
	@$(MAKE) --silent -j$(cores) $(sync) --keep-going $(executed)

# The page's libraries, from npm and pip: the book loads nothing from elsewhere. The theme's icons come as a font and, once more and
# five times as heavy, as a script: that one is left empty.
$(libraries)/installed: node_modules/installed
	@rm -rf $(libraries) && mkdir -p $(libraries)/mathjax/output/chtml/fonts $(libraries)/scripts
	cp node_modules/mathjax/es5/tex-mml-chtml.js $(libraries)/mathjax
	cp -r node_modules/mathjax/es5/output/chtml/fonts/woff-v2 $(libraries)/mathjax/output/chtml/fonts
	echo '// The icons come from the font.' > $(libraries)/scripts/fontawesome.js
	@touch $@

$(libraries)/widgets.js: book/widgets.js robustnb/widgets/lab.js $(libraries)/installed
	node_modules/.bin/esbuild $< --bundle --minify --format=iife --log-level=warning --outfile=$@ --loader:.svg=dataurl \
	  --alias:anywidget="$$(python -c 'import anywidget, pathlib; print(pathlib.Path(anywidget.__file__).parent / "nbextension/index.js")')" \
	  --alias:@jupyter-widgets/base7=@jupyter-widgets/base --alias:@jupyter-widgets/controls7=@jupyter-widgets/controls \
	  --define:process.env={}

# The laboratory's view; and what trains in the page, our engine with jax-js and the digits, loaded when Train is first pressed.
$(libraries)/robustnb-engine.js: $(wildcard robustnb/widgets/*) robustnb/data.py $(libraries)/installed
	node_modules/.bin/esbuild robustnb/widgets/engine.js --bundle --minify --format=iife --log-level=warning --outfile=build/engine.bundle.js
	python -m robustnb.widgets.page build/engine.bundle.js $(libraries)

# Rendered from the executed notebooks alone, always whole, so that nothing stale is left in it.
build/html.stamp: notebooks $(executed) $(pages) build/pages.list $(libraries)/robustnb-engine.js $(libraries)/widgets.js
	@set -e; if [ -e $@ ] && [ -d build/html ] && [ -z "$(filter-out notebooks,$?)" ]; then exit 0; fi; \
	rm -rf build/stage build/_build; mkdir -p build/stage/book; \
	cp _config.yml _toc.yml build/stage; \
	cp $(filter %.md %.bib,$(pages)) build/stage/book; \
	python book/stage.py $(executed) build/stage/book; \
	cp -r $(libraries) build/stage/page; cp book/assets/* build/stage/page; \
	jupyter-book build build/stage --path-output build --all -W -n --keep-going --quiet >/dev/null; \
	python book/csp.py build/_build/html > build/csp.txt; mv build/csp.txt build/_build/html; \
	rm -rf build/html; mv build/_build/html build/html; touch $@
