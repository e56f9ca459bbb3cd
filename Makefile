# The commands of this project. `make help` lists them.
#
# Everything shares one target folder, so that what one command built the next one does not build again. For the same
# reason `cargo run` names the program and not its package: dependencies then have the features that the whole workspace
# asks of them, in every command.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test bench torture soak autobahn fuzz sbom check fmt fmt-check lint deny tools stack sqlx bundle bundle-check

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run two edges, NATS and Postgres on this machine, with a page to try it; Ctrl-C ends all of it
	@echo "Building Rejoin (some minutes the first time, seconds afterwards) …"
	@$(CARGO) run --locked --bin rejoin -- dev

test: ## Run every test, on a real nats-server and Postgres (gets them when they are not here)
	@scripts/test

bench: ## Measure side by side with Socket.IO (a quarter of an hour; more: scripts/bench --help)
	@scripts/bench

autobahn: ## Run the Autobahn test suite (RFC 6455) against the edge's handshake and framing (needs Python 3)
	@tests/autobahn/run

fuzz: ## Fuzz every parser of strangers' bytes with libFuzzer (SECONDS_EACH=60)
	@scripts/fuzz

torture: ## Hurt real processes in every way for up to 10 minutes and count what breaks the contract (docs/RELIABILITY.md)
	@$(CARGO) build --quiet --locked --bin rejoin --bin torture
	@timeout 600 "$${CARGO_TARGET_DIR:-target}/debug/torture"

soak: ## The same for four hours (TORTURE_SECONDS), to see whether memory, descriptors, threads or tasks of edges grow
	@$(CARGO) build --quiet --locked --bin rejoin --bin torture
	@TORTURE_SECONDS="$${TORTURE_SECONDS:-14400}" "$${CARGO_TARGET_DIR:-target}/debug/torture" --soak

check: fmt-check lint deny ## What CI checks before it tests: format, lints, dependencies

fmt: ## Format the code
	@$(CARGO) fmt --all

fmt-check:
	@$(CARGO) fmt --all --check

lint:
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

sbom: ## Write bills of materials (CycloneDX) of the program and the client into target/sbom
	@scripts/sbom

deny: ## Check licences, sources and which crate may depend on what
	@scripts/deny

tools: ## Find or get nats-server and Postgres, and say where they are
	@$(CARGO) run --quiet --locked --bin devstack -- tools

stack: ## Run a private nats-server and Postgres until Ctrl-C, and print their URLs
	@$(CARGO) run --quiet --locked --bin devstack -- run

bundle: ## Bundle the TypeScript client into the file that the demonstration's pages load
	@node clients/typescript/scripts/bundle.mjs

bundle-check: ## Fail if that file is not what the client's sources make
	@node clients/typescript/scripts/bundle.mjs --check

sqlx: ## Regenerate the queries' offline data (DATABASE_URL: a scratch database)
	@crates/store/prepare.sh
