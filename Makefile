# Set-up is part of every target: a fresh Debian machine with Python 3.11+ and make needs nothing before it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types imports unit bench isolated backlog scale fuzz sim fuzz-peers chaos chaos-pair \
	chaos-quorum pin wheel release-before \
	system clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/.ready  ## Three nodes on this machine, with most reports sent to the wrong one
	$(BIN)/dlrproxy demo $(DEMO)

test: system check unit  ## Everything that CI runs

check: lint types imports  ## Style, types, and who may import whom

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

imports: $(VENV)/.ready
	$(BIN)/lint-imports --no-cache

# Two at a time, whole files each: much of a test of processes or databases is waiting. The order is tests/conftest.py's;
# pytest-xdist would put the files with the fewest tests last, which are the longest ones here.
WORKERS ?= 2

unit: $(VENV)/.ready $(TOOLS)/npm/.ready
	$(BIN)/pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(PYTEST)

# What tests need besides Python: Node.js for an SMPP server, and tshark for a decoder, that none of us wrote.
system:
	@tests/system-packages.sh

$(TOOLS)/npm/.ready: tests/foreign/package.json | system
	mkdir -p $(TOOLS)/npm
	cp tests/foreign/package.json $(TOOLS)/npm/
	npm install --prefix $(TOOLS)/npm --no-audit --no-fund --loglevel=error
	touch $@

bench: $(VENV)/.ready  ## What a message costs, against a plain byte relay and HAProxy, in one run
	@benchmarks/install-haproxy.sh
	@tests/system-packages.sh || echo "without MariaDB the benchmark leaves active-passive out" >&2
	$(BIN)/python -m benchmarks $(BENCH)

isolated: $(VENV)/.ready  ## Messages a second of the modes with databases to ring mode's, each process on a processor of its own
	@tests/system-packages.sh || echo "without MariaDB only ring mode is measured" >&2
	$(BIN)/python -m benchmarks.isolated $(ISOLATED)

scale: $(VENV)/.ready  ## What a report at the wrong node costs rings of 3 to 32 nodes, with summaries and without
	$(BIN)/python -m benchmarks.ring_scale $(SCALE)

ITEMS ?= 2000000

backlog: $(VENV)/.ready  ## What ITEMS parked or waiting reports cost, and other traffic while they drain: BACKLOG="--kind node"
	$(BIN)/python -m benchmarks.backlog --items $(ITEMS) $(BACKLOG)

SEEDS ?= 1-20000

sim: $(VENV)/.ready  ## Whole rings in virtual time while everything fails, from SEEDS=FIRST-LAST: nothing is lost or doubled
	$(BIN)/python -m simulation --seeds $(SEEDS) $(SIM)

RUNS ?= 2000000

fuzz: $(VENV)/.fuzz  ## Any bytes from any peer, RUNS of them: nothing but the named errors comes out
	PYTHONPATH=tests $(BIN)/python -m fuzz --runs $(RUNS) $(FUZZ)

fuzz-peers: MINUTES ?= 5
fuzz-peers: $(VENV)/.ready $(TOOLS)/npm/.ready  ## A node between foreign peers, MINUTES of what their encoders can make
	PYTHONPATH=tests $(BIN)/python -m fuzz.foreign --minutes $(MINUTES) $(FUZZ)

# The fuzzer only, for it is built for few platforms: nothing else needs it.
$(VENV)/.fuzz: fuzz/requirements.txt | $(VENV)/.ready
	$(BIN)/pip install --quiet --requirement fuzz/requirements.txt
	touch $@

chaos: MINUTES ?= 10
chaos: $(VENV)/.ready  ## Five nodes under load for MINUTES, and everything breaks: nothing may be lost (docs/chaos.md)
	$(BIN)/python -m chaos --minutes $(MINUTES) $(CHAOS)

chaos-quorum: MINUTES ?= 10
chaos-quorum: system $(VENV)/.ready  ## A quorum of three nodes and real Galera servers for MINUTES, and everything breaks (docs/chaos.md)
	PYTHONPATH=tests $(BIN)/python -m chaos.quorum --minutes $(MINUTES) $(CHAOS)

ROUNDS ?= 10

chaos-pair: system $(VENV)/.ready  ## A pair over MariaDB: the active and its database are killed under load, ROUNDS times
	PYTHONPATH=tests $(BIN)/python -m chaos.pair --rounds $(ROUNDS) $(CHAOS)

wheel: $(VENV)/.ready  ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

release-before: $(VENV)/.ready  ## Build the wheel of COMMIT into tests/releases/, from which upgrades are tested
	rm -rf build/before && mkdir -p build/before
	git archive $(COMMIT) | tar -x -C build/before
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct $(COMMIT)) \
	  $(BIN)/python -m build --wheel --no-isolation --outdir tests/releases build/before

pin: $(VENV)/.ready  ## Write the installed versions to requirements.txt
	{ echo "# Every version that development, tests and CI use; refresh with \`make pin\`."; \
	  $(BIN)/pip freeze --exclude-editable --exclude atheris | grep -v ' @ '; } > requirements.txt.new
	mv requirements.txt.new requirements.txt

clean:  ## Remove everything that set-up made
	rm -rf $(VENV) $(TOOLS) dist build
