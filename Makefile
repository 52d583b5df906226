# `make` alone lists the targets. Each finds what is missing and installs it where it can, or says what to install.

.DEFAULT_GOAL := help
.PHONY: help run run-three test test-apps check components format lint docs pages book deny deny-offline bench bench-shop bench-faults bench-micro load siege readings fuzz dist
.NOTPARALLEL:

SHELL := /bin/bash
CARGO ?= cargo
CONFIG ?= config/demo.toml
TARGET := $(or $(CARGO_TARGET_DIR),target)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The settings name target/release/origin, so that is where it is built whatever CARGO_TARGET_DIR says.
run: ## build and start the shop: https://localhost:8443 (CONFIG=FILE for other settings)
	@tests/requirements.sh run
	@[ -x target/release/edge ] || echo 'The first build takes 5 to 15 minutes, later ones seconds. The last line is then: open https://localhost:8443'
	$(CARGO) build --release --locked --workspace --bins --target-dir target
	exec target/release/edge run --config $(CONFIG)

run-three: ## three edges that are one, three origins, PostgreSQL with a replica, Redis, on free ports, until Ctrl-C
	@tests/requirements.sh run-three
	$(CARGO) build --release --locked --workspace --bins
	exec $(CARGO) run --release --locked --quiet -p gatehouse-tests --bin run_three

test: ## install what the tests need and pass them
	@tests/requirements.sh test
	$(CARGO) build --release --locked --workspace --all-targets
	@if $(CARGO) nextest --version >/dev/null 2>&1; \
	then set -x; $(CARGO) nextest run --release --locked --workspace; \
	else set -x; $(CARGO) test --release --locked --workspace --lib --bins --tests; fi

test-apps: ## WordPress, MediaWiki, Next.js and a file server behind the edge, in a browser (installs them; 10 minutes)
	@tests/requirements.sh test-apps
	$(CARGO) build --release --locked --workspace --bins
	$(CARGO) test --release --locked -p gatehouse-tests --features real-apps --test real_apps -- --test-threads 1

check: format lint docs deny-offline test ## everything CI runs

components:
	@{ $(CARGO) fmt --version && $(CARGO) clippy --version; } >/dev/null 2>&1 || rustup component add rustfmt clippy

format: components
	$(CARGO) fmt --all --check

lint: components
	@tests/requirements.sh build
	$(CARGO) clippy --locked --workspace --all-targets --features gatehouse-tests/real-apps -- -D warnings

docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

# tests/tests/repository/book/ and edge/src/cli/schema.rs compare these pages with what they are made of; here it writes them.
pages: ## write the pages of docs/, and config/edge.schema.json, that are made from the code and the settings
	@tests/requirements.sh build
	GATEHOUSE_WRITE=1 $(CARGO) test --release --locked --workspace --lib --test repository -- the_page_of

# No part of `check`: what would break it (links, pages that are missing or behind) are tests.
book: ## render docs/ into target/book (installs mdbook)
	@mdbook --version >/dev/null 2>&1 || $(CARGO) install mdbook --locked
	mdbook build docs
	@echo "target/book/index.html"

# The advisory database lives on the network, so it is no part of `check`; building cargo-deny takes minutes, so
# `check` uses it only where it is installed. tests/tests/repository/ holds the rule on single versions either way.
deny-offline:
	@if $(CARGO) deny --version >/dev/null 2>&1; \
	then set -x; $(CARGO) deny --workspace --locked check bans licenses sources; \
	else echo 'SKIPPED: cargo deny (licences, sources, bans): cargo-deny is not installed; `make deny` installs and runs it'; fi

deny: ## licences, sources, banned crates and security advisories (installs cargo-deny)
	@tests/requirements.sh build
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked
	$(CARGO) deny --workspace --locked check

bench: ## requests/s and CPU per request beside nginx and HAProxy, in one run
	@tests/requirements.sh bench
	$(CARGO) build --profile dist --locked --bins -p edge
	$(CARGO) run --release --locked -p gatehouse-tests --bin bench -- --edge $(TARGET)/dist/edge

bench-shop: ## requests/s, latencies and connections of the origin with 100,000 products and 200 clients
	@tests/requirements.sh bench-shop
	$(CARGO) build --release --locked --bins -p origin -p gatehouse-tests
	$(CARGO) run --release --locked -p gatehouse-tests --bin bench_shop

bench-faults: ## what clients notice when servers go wrong, beside HAProxy and nginx, in one run (7 minutes)
	@tests/requirements.sh bench-faults
	$(CARGO) build --release --locked --bins -p edge -p gatehouse-tests
	$(CARGO) run --release --locked -p gatehouse-tests --bin bench_faults

load: ## the capacity guide's load tests and targets on the whole shop, into docs/capacity.md (17 minutes)
	@tests/requirements.sh load
	$(CARGO) build --release --locked --workspace --bins
	$(CARGO) run --release --locked -p gatehouse-tests --bin load -- --write docs/capacity.md

siege: ## what a good client notices of seventeen attacks, beside nginx and HAProxy, in one run (15 minutes)
	@tests/requirements.sh siege
	$(CARGO) build --release --locked --bins -p edge -p gatehouse-tests
	$(CARGO) run --release --locked -p gatehouse-tests --bin siege

readings: ## how the edge, nginx and HAProxy read some hundred requests, octet by octet, where they differ (5 minutes)
	@tests/requirements.sh siege
	$(CARGO) build --release --locked --bins -p edge -p gatehouse-tests
	$(CARGO) run --release --locked -p gatehouse-tests --bin readings

fuzz: ## each parser of ours under libFuzzer for SECONDS each (30); says what is missing for it
	@tests/fuzz.sh $(or $(SECONDS),30)

bench-micro: ## time and allocations of one hit and of its parts, in memory
	@tests/requirements.sh build
	$(CARGO) bench --locked -p edge --bench hit

# What the archive holds beside the programs: what the settings name, and what the README links to.
DIST := config certs/README.md migrations docs README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md SECURITY.md \
  LICENSE-MIT LICENSE-APACHE

dist: ## optimised binaries and what they need, as one archive under target/dist
	@tests/requirements.sh build
	$(CARGO) build --profile dist --locked --workspace --bins
	rm -rf $(TARGET)/dist/gatehouse
	mkdir $(TARGET)/dist/gatehouse
	cp --parents -r $(DIST) $(TARGET)/dist/gatehouse
	cp $(TARGET)/dist/edge $(TARGET)/dist/origin $(TARGET)/dist/gatehouse
	$(TARGET)/dist/edge man $(TARGET)/dist/gatehouse/man/man1
	mkdir $(TARGET)/dist/gatehouse/completions
	for shell in bash zsh fish; do $(TARGET)/dist/edge completions $$shell >$(TARGET)/dist/gatehouse/completions/edge.$$shell; done
	sed -i 's,"target/release/,"./,' $(TARGET)/dist/gatehouse/config/*.toml
	tar -czf $(TARGET)/dist/gatehouse.tar.gz -C $(TARGET)/dist gatehouse
	@echo "$(TARGET)/dist/gatehouse.tar.gz: unpack it, and there: ./edge run --config config/demo.toml"
