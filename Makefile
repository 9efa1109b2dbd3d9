# `make demo` shows the main job; `make test` passes everything. Both install what they need.

CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

.DELETE_ON_ERROR:
.PHONY: help demo test lint plan world crds fuzz figures costs

help: ## List the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s '	'

demo: ## Watch the operator installed on a real node, and a team's pod search unsigned until its grant is gone.
	@tests/world/demo

# The tests on real parts mostly wait: for watches, for quiet, for retries. Hence more threads than cores.
test: lint ## Pass everything, on the real parts.
	@echo '==> preparing the real parts (first time about 20 minutes; then nothing)'
	@tests/world/prepare
	@echo '==> tests'
	RUST_TEST_THREADS=12 cargo test --locked --all-targets
	cargo test --locked --doc

lint: ## Format, lints, documentation, licences and sources.
	@echo '==> format, lints and documentation (first time about 3 minutes)'
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	@tests/world/prepare cargo-deny
	@echo '==> licences, bans and sources'
	"$$(tests/world/prepare --where)/cargo-deny" --locked --config .deny.toml check licenses bans sources

# Built as `make world` builds it, so that neither of them undoes the other's work.
plan: ## Show what the examples compile to, without a cluster.
	@cargo build --locked --quiet --bin opensearch-access --example world
	@"$(CARGO_TARGET_DIR)/debug/opensearch-access" plan -f deploy/examples || [ $$? = 2 ]

world: ## Leave a real API server, a fake AWS and OpenSearch running, and print how to use them.
	@tests/world/prepare etcd kube-apiserver kubectl opensearch
	@cargo run --locked --quiet --example world -- up --crds --opensearch

crds: ## Regenerate crds/ from the types.
	cargo run --locked --quiet -- crds --write crds

# Needs a C++ compiler, for libFuzzer, and nothing of nightly.
fuzz: ## Look for requests that break what stands before the signature: a minute for each target.
	@fuzz/run $(or $(FUZZ_SECONDS),60)

# The figures of the README; some are times, so nothing else should run beside.
figures: ## Measure what the README promises, and fail where it does not hold (about 20 minutes).
	@tests/world/prepare etcd kube-apiserver kubectl
	cargo test --locked --test proof -- --full
	PROPTEST_CASES=100000 cargo test --locked --profile bench --test properties plan::a_detour
	cargo bench --locked --bench growth
	cargo bench --locked --bench webhook

# The first time, the proxy and all that it is built of are compiled for this alone.
costs: ## Measure the proxy beside Envoy, haproxy and nginx, and fail where a goal is missed (7 minutes, at first 20).
	@tests/world/prepare envoy haproxy nginx wrk
	cargo bench --locked --bench proxy
