# Two commands matter: `make demo` and `make test`. Both set up everything that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GEO := python-geoacumen==2024.6.23
PROTOS := $(wildcard proto/gtm/v1/*.proto)
# The oldest supported generator, in an environment of its own: it pins an older protobuf.
PROTO_TOOLS := grpcio-tools==1.75.0
PYTEST := $(BIN)/python -m pytest
CARGO ?= cargo
# Empty without cargo, and where GTM_NATIVE=off wants nothing of it.
NATIVE := $(if $(filter off,$(GTM_NATIVE)),,$(shell command -v $(CARGO)))
# The tests in which GTM_NATIVE says who answers: once more by the reference responder, in a minute.
REFERENCE := $(wildcard tests/unit/test_resolver_*.py tests/integration/test_resolver_*.py \
  tests/conformance tests/differential)

.PHONY: help venv venv-dev native native-clean check-native suite system demo up test check style types contracts unit proto check-proto \
	docs lab lab-down lab-walk lab-kills lab-torture \
	acceptance bench bench-dns bench-xdp bench-agent compare-gdnsd conformance fuzz fuzz-native slow-clients faults soak torture \
	simulate simulate-mutants takeover differential clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# ---- setting up ------------------------------------------------------------------------------

# pip leaves the native responder out: `native` builds it, once, and again when its sources change.
$(VENV)/.run: pyproject.toml setup.py Makefile gtm/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	GTM_NATIVE=off $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[local]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps '$(GEO)'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	GTM_NATIVE=off $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[local,dev]'
	@touch $@

$(VENV)/proto/.stamp: Makefile | $(VENV)/.run
	$(PYTHON) -m venv $(VENV)/proto
	$(VENV)/proto/bin/python -m pip install --quiet --disable-pip-version-check \
	  '$(PROTO_TOOLS)' 'setuptools<81'
	@touch $@

native:  ## the native responder, optimised, where cargo is; GTM_NATIVE=off: without
	@deploy/build-native

native-clean:
	@deploy/build-native --clean

venv: $(VENV)/.run native  ## a virtual environment with the command `gtm`

venv-dev: $(VENV)/.dev native  ## the same with what the tests need

system:  ## the strangers of the tests (etcd, dig, kdig), from Debian where we may install them
	@deploy/test-packages

# ---- running ---------------------------------------------------------------------------------

demo: $(VENV)/.run native  ## the seed story on this machine, told step by step
	$(BIN)/gtm demo

up: $(VENV)/.run native  ## one machine with everything, from examples/quickstart.yaml
	$(BIN)/gtm up -c examples/quickstart.yaml

lab: $(VENV)/.run native  ## regions, coordinators, three etcds, resolvers as network namespaces; needs root
	deploy/lab/lab up

lab-walk: $(VENV)/.dev native  ## docs/failures.md row by row in a lab: expected and seen; a quarter of an hour
	PYTHONPATH=. $(BIN)/python -m deploy.lab.walk

KILLS ?= 50

lab-kills: $(VENV)/.dev native  ## KILLS=50 times kill -9 of the leader under load, in a lab: the table
	PYTHONPATH=. $(BIN)/python -m deploy.lab.kills --count $(KILLS)

lab-torture: $(VENV)/.dev  ## TORTURE=10 rounds of the etcd client on members whose links are cut
	PYTHONPATH=. $(BIN)/python -m deploy.lab.torture --rounds $(TORTURE)

lab-down: $(VENV)/.run  ## end the lab, whatever state it is in
	deploy/lab/lab down

# ---- proving ---------------------------------------------------------------------------------

# The native responder is built from nothing, and a crate that does not compile fails the tests.
test: system $(VENV)/.dev  ## everything that CI checks
	@$(MAKE) --no-print-directory -j 2 --output-sync=target \
	  check-native check-proto style types contracts
	@$(MAKE) --no-print-directory suite

suite: $(VENV)/.dev
ifeq ($(NATIVE),)
	GTM_NATIVE=off $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder
else
	GTM_NATIVE=require $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder
	GTM_NATIVE=off $(PYTEST) -q -n 2 --dist loadfile --no-loadscope-reorder $(REFERENCE)
endif

# A test binary linked like the module would take as long again; what it finds is the same.
check-native: native-clean
ifneq ($(NATIVE),)
	cd native && $(CARGO) fmt --check
	cd native && $(CARGO) clippy --quiet --release --locked --all-targets --features python \
	  -- --deny warnings
	cd native && MAKEFLAGS= $(CARGO) test --quiet --release --locked --config profile.release.lto=false
endif

check: $(VENV)/.dev style types contracts unit  ## style, types, contracts, unit: under a minute

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev native
	$(PYTEST) -q tests/unit tests/variants tests/scenarios

QUERIES ?= 10000
SEED ?= $(shell od -An -N3 -tu4 /dev/urandom | tr -d ' ')

conformance: system $(VENV)/.dev native  ## our answers beside Knot's and BIND's: QUERIES=10000 SEED=random
	GTM_CONFORMANCE_QUERIES=$(QUERIES) GTM_CONFORMANCE_SEED=$(SEED) \
	  $(PYTEST) -s tests/conformance

proto: $(VENV)/proto/.stamp  ## generate gtm/v1 from proto/
	$(VENV)/proto/bin/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. $(PROTOS)
	$(VENV)/proto/bin/python -m grpc_tools.protoc -Iproto --grpc_python_out=. \
	  $(filter-out %/etcd.proto,$(PROTOS))

check-proto: $(VENV)/proto/.stamp  ## is the generated code current?
	@PROTOC='$(VENV)/proto/bin/python -m grpc_tools.protoc' deploy/check-proto

docs: $(VENV)/.dev  ## write what is generated in docs/: configuration, schema, RFC table
	$(BIN)/python -m ctl.docs
	$(BIN)/python -m tests.conformance.cases

bench: $(VENV)/.dev native  ## every benchmark, beside its targets
	$(BIN)/python benchmarks/bench_engine.py
	$(BIN)/python benchmarks/bench_responder.py
	$(BIN)/python benchmarks/bench_compile.py
	$(BIN)/python benchmarks/bench_plan.py
	$(BIN)/python benchmarks/bench_failover.py
	$(BIN)/python benchmarks/bench_coordinator.py
	$(BIN)/python benchmarks/bench_stall.py
	$(BIN)/python benchmarks/bench_takeover.py
	$(BIN)/python benchmarks/bench_followers.py

BENCH_DNS ?=

bench-dns: $(VENV)/.dev native-clean  ## our resolver beside gdnsd, Knot, NSD, PowerDNS, a floor: BENCH_DNS=--help
	$(BIN)/python benchmarks/bench_dns.py $(BENCH_DNS)

bench-xdp: $(VENV)/.dev native  ## our resolver and Knot by sockets and by AF_XDP, CPU of a whole core by answer; root
	GTM_NATIVE=require $(BIN)/python benchmarks/bench_xdp.py

bench-agent: $(VENV)/.dev  ## the agent's probes beside blackbox_exporter's and fping's (install them first; root)
	$(BIN)/python benchmarks/bench_agent.py
	$(BIN)/python benchmarks/bench_ping.py

compare-gdnsd: $(VENV)/.dev native  ## our answers and scopes beside gdnsd's (install it first): QUERIES=10000 SEED=random
	$(BIN)/python benchmarks/compare_gdnsd.py --queries $(QUERIES) --seed $(SEED)

PACKETS ?= 1000000

differential: $(VENV)/.dev native  ## both responders, the same octets for each of PACKETS=1000000 packets: SEED=random
	GTM_NATIVE=require $(BIN)/python -m tests.differential.long --packets $(PACKETS) --seed $(SEED)

fuzz: $(VENV)/.dev native  ## a million datagrams and more that nobody should send; about an hour
	$(BIN)/python -m tests.fuzz.long

SECONDS ?= 60

# Needs a nightly toolchain and cargo-fuzz. The table and the seeds are made anew, corpora are kept.
fuzz-native: $(VENV)/.dev  ## the native responder under cargo-fuzz and AddressSanitizer: SECONDS=60 each of 4 targets, or RUNS=10000000
	$(BIN)/python -m tests.fuzz.seeds native/fuzz/seeds
	for target in datagram tcp_stream ecs load; do \
	  CARGO='$(CARGO)' native/fuzz/run $$target $(SECONDS) $(RUNS) || exit 1; done

slow-clients: $(VENV)/.dev native  ## crowds of 10,000 slow TCP clients, by both responders; two minutes
	GTM_CROWD=10000 $(PYTEST) -q -m '' tests/integration/test_resolver_slow_clients.py

faults: $(VENV)/.dev native  ## every fault by script, in its long form, and the table; a quarter of an hour
	FAULTS=long $(PYTEST) -q -s -m '' tests/integration/test_faults.py

acceptance: system $(VENV)/.dev native  ## applies that race and are killed, explain beside dig, in their long forms
	ACCEPTANCE=long $(PYTEST) -q -s $(addprefix tests/integration/test_,applies.py explained_live.py)

TORTURE ?= 10

torture: system $(VENV)/.dev  ## the etcd client on servers that are killed, full, sent back in time
	GTM_TORTURE_ROUNDS=$(TORTURE) $(PYTEST) -q --durations=0 $(addprefix tests/integration/test_etcd_,\
	  torture.py cluster.py restored.py)

soak: $(VENV)/.dev native  ## an hour of load: memory and descriptors of every part must stay flat
	$(BIN)/python benchmarks/soak.py

SEEDS ?= 1000
FIRST ?= 1

simulate: $(VENV)/.dev  ## a virtual hour of the whole system under faults, for each seed: SEEDS=1000 FIRST=1
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --first $(FIRST) --jobs 2

takeover: $(VENV)/.dev native  ## resolvers that take over under dnsperf, a million names loaded: the counts
	$(BIN)/python -m tests.takeover_long

simulate-mutants: $(VENV)/.dev  ## rules broken on purpose, and the seed that finds each
	$(BIN)/python -m tests.simulation.mutants

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  native/target native/fuzz/target native/fuzz/seeds resolver/_native*.so
