# The two commands that a newcomer needs are `make demo` and `make test`; both fetch and build what is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help demo demo-up test test-security test-security-long test-matrix test-images soak faults bench bench-growth bench-overload bench-parts bench-report bench-sessions bench-streams bench-user bench-xds instructions profile lint fuzz advisories sbom reproducible tools build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: tools build ## the whole story on this machine: two clusters, a login, kubectl through kubepass, an audit trail
	@$(CARGO) test --quiet --test demo -- run

demo-up: tools build ## the same, left running for your own browser and kubectl
	@$(CARGO) test --quiet --test demo -- up

test: lint tools ## every check and test; needs no cluster and no Envoy of yours
	$(CARGO) build --no-default-features --bin kubepass --target-dir target/cli
	$(CARGO) test --test demo -- run
	$(CARGO) test --all-targets --no-fail-fast
	$(CARGO) test --test security -- run

test-security: tools ## attacks on the real parts, judged by the API servers' audit logs and a recording upstream
	@$(CARGO) test --quiet --test security -- run

test-security-long: tools ## the same with the attacks that take long, and each defence turned off to see what gets through without it (some 15 minutes)
	@$(CARGO) test --quiet --test security -- long
	@$(CARGO) test --quiet --test security -- defences

test-matrix: tools ## the end-to-end stories against other versions of Kubernetes and Envoy, and the long quiet streams
	@tests/tools/ensure --matrix > /dev/null
	KUBEPASS_TEST_MATRIX=1 $(CARGO) test --test e2e endurance
	@# Constrained impersonation, which the story of the stolen token is about, came with 1.36.
	KUBEPASS_TEST_KUBERNETES=1.34 $(CARGO) test --test e2e -- --skip endurance --skip rbac::
	KUBEPASS_TEST_KUBERNETES=1.37 $(CARGO) test --test e2e -- --skip endurance
	@# What is said to be tested in `TESTED_ENVOYS`, and what becomes of others.
	KUBEPASS_TEST_ENVOY=1.39 $(CARGO) test --test e2e -- headers sources stories web_pages
	$(CARGO) test --test e2e versions -- --ignored

test-images: tools ## the images by the Dockerfile's own stages, started with what the manifests say (Linux, root; some 5 minutes)
	@[ "$$(uname -s)/$$(id -u)" = Linux/0 ] || { echo "test-images changes root and user as a container runtime does: run it on Linux, as root" >&2; exit 1; }
	$(CARGO) test --test e2e hosting:: -- --ignored

soak: tools ## 1,000 mixed changes under open streams, with kubepass started again and its link to Envoy cut (about 15 minutes)
	KUBEPASS_TEST_SOAK=1000 $(CARGO) test --test e2e soak:: -- --nocapture

faults: tools ## every part fails once under load, then kubepass is killed 100 times; and floods of 20 seconds each (about 20 minutes)
	KUBEPASS_TEST_FAULTS=100 $(CARGO) test --test e2e fault_script:: -- --nocapture
	KUBEPASS_TEST_FLOODS=20 $(CARGO) test --test e2e floods:: -- --nocapture

bench: tools ## what kubepass adds to a request, beside Envoy alone and the API server itself (about 12 minutes; QUICK=1 takes 4)
	@command -v h2load > /dev/null || { echo "h2load is not there: apt-get install nghttp2-client (Debian, Ubuntu), brew install nghttp2 (macOS)" >&2; exit 1; }
	@$(CARGO) test --quiet --release --test bench -- run

bench-streams: tools ## 1,000 watches and 200 execs at once, and downloads of a gigabyte, beside Envoy alone (some 6 minutes; QUICK=1 for a short one)
	@$(CARGO) test --quiet --release --test bench -- streams

bench-overload: tools ## twice as much offered as can be answered (some 3 minutes; needs h2load)
	@$(CARGO) test --quiet --release --test bench -- overload

bench-user: tools ## what kubectl waits for: the plugin with a cached token, `get pods` beside direct, round trips of a login (some 2 minutes)
	@$(CARGO) test --quiet --release --test bench -- user

bench-growth: ## how the cost of a check and of a reload grows with routes, sessions, groups, rules and changes (2 minutes at most)
	@$(CARGO) test --quiet --release --test bench -- growth

bench-report: ## the README's tables and the plots from the last runs of these
	@$(CARGO) test --quiet --release --test bench -- report

bench-xds: tools ## what a change costs among 10,000 routes, beside go-control-plane (some 10 minutes; QUICK=1 stops at 1,000 routes)
	@$(CARGO) test --quiet --release --test bench -- xds

bench-sessions: ## what 10,000, 100,000 and 1,000,000 sessions cost: start, memory, a check (some 3 minutes)
	@$(CARGO) test --quiet --release --test bench -- sessions

bench-parts: ## the parts of a check and of a reload by themselves, with their allocations
	@$(CARGO) bench --quiet --bench in_process

instructions: ## that a decision takes as many instructions as tests/bench/instructions.txt says (needs valgrind)
	@command -v valgrind > /dev/null || { echo "valgrind is not there: apt-get install valgrind (Debian, Ubuntu), dnf install valgrind (Fedora)" >&2; exit 1; }
	@$(CARGO) test --quiet --test instructions

profile: tools ## where kubepass's own time goes under load (perf)
	@$(CARGO) test --quiet --release --test bench -- profile

lint: ## formatting, clippy, licences and sources of dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	@# `--all-targets` leaves out what is no test: the demo and the benchmarks.
	$(CARGO) clippy --test demo --test bench --test instructions --test security --bench in_process -- -D warnings
	@# It looks at the dependencies of every platform, of which a build fetches its own only.
	$(CARGO) fetch --locked --quiet
	@tests/tools/cargo-deny --offline --config .deny.toml check bans licenses sources

FUZZ_SECONDS ?= 60
fuzz: ## run each fuzz target for FUZZ_SECONDS, a minute by default (needs a nightly toolchain and cargo-fuzz)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run

advisories: ## known vulnerabilities of dependencies; says aloud, and fails, when it could not look them up (needs the network)
	@tests/tools/advisories

sbom: ## what the programs are built from, as CycloneDX: target/sbom
	@tests/tools/sbom

reproducible: ## that two release builds of the last commit are the same bytes (about 25 minutes)
	@tests/tools/reproducible

tools:
	@tests/tools/ensure > /dev/null

build:
	@$(CARGO) build --bins
