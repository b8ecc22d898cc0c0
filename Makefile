# verify only reads, fix rewrites. One selection of crates everywhere, so nothing is compiled twice.
CARGO ?= cargo
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
TARGET := $(or $(CARGO_TARGET_DIR),target)
STATIC := x86_64-unknown-linux-gnu
SWARM_IMAGE ?= swarm:dev
NATS_IMAGE ?= nats:2

.PHONY: help verify fix test test-rust test-loom test-containers prepare bench images lint docs clean-prepared

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 20

verify: lint test docs ## everything CI asks, rewriting nothing

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; \
	else echo '!!! SKIPPED: cargo-deny is not installed: bans, licences and sources are not checked (cargo install cargo-deny)'; fi

docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

fix: ## format and apply clippy's suggestions
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

prepare: ## get, once, what the tests use from the package registries
	@bash scripts/prepare.sh

test: prepare test-rust test-loom test-containers ## all tests; loud about what is left out

test-rust:
	$(CARGO) build --workspace --all-targets
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace
else
	@echo '!!! cargo-nextest is not installed; falling back to cargo test (cargo install cargo-nextest)'
	$(CARGO) test --workspace --all-targets
endif
	$(CARGO) test --workspace --doc

# In a folder of its own: loom takes the place of std's atomics.
test-loom: ## the registry's lock-free parts in every order that the memory model allows
	cd registry-svc/client/model && LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=$(abspath $(TARGET))/loom $(CARGO) test

test-containers: ## the compose suite; needs Docker
	@bash scripts/test-containers.sh

images: ## build the container images from static binaries
	@bash scripts/images.sh $(SWARM_IMAGE)

bench: ## every benchmark area, as tables
	$(CARGO) run --release -p bench -- all
