# What a person does with a clone. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test check chaos bench engines-up engines-down openapi

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: ## build, play the demo on the embedded default, show what came of it; leaves nothing running
	@scripts/demo

test: ## every test, on real engines (brought up and down here, unless CARILLON_TEST_* name running ones)
	@scripts/test

check: ## format, lints, docs, drift: what has to be clean before a push
	@scripts/check

chaos: ## break a running Carillon, seeded, and check what it promised: SEED=7 KILLS=12 MODE=standalone|cluster|sim
	@scripts/chaos

bench: ## measure against the raw parts, on real engines: ratios, a table, target/bench/report.json (half an hour)
	@scripts/bench

engines-up: ## bring Kafka, Redis, Cassandra and Elasticsearch up natively, on loopback
	@deploy/dev/engines up

engines-down: ## stop them
	@deploy/dev/engines down

openapi: ## write docs/openapi.json anew from the code
	UPDATE=1 cargo test --locked -q -p ingress openapi
