# Everything runs in .venv, which `make setup` makes; nothing else has to be installed.

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

BIN := .venv/bin
PY := $(BIN)/python
# What is ours and Python; bench is not part of the tests, and obeys the same rules.
CODE := service gateway_http clients/python tests scripts bench
CHECKS := format lint types layers proto generated clients
# The tests are shared out to one process more than there are cores, since a fifth of their time is
# waiting; more than four wait for the disk.
SHARED := --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist worksteal

# Ours alone: a caller's settings must not decide what is built.
export GOTOOLCHAIN := local
export GOWORK := off
export GOFLAGS := -mod=readonly -buildvcs=false
# A PYTHONPATH of the caller's would come before what .venv holds.
unexport PYTHONPATH
unexport PYTHONHOME

.PHONY: help setup tools servers demo serve test check $(CHECKS) tests chaos fix bench generate baseline lock clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with everything that Python needs
	@scripts/bootstrap.sh

tools: setup ## get what the TypeScript and Go stubs need
	@scripts/tools.sh

servers: setup ## get what the tests start: PostgreSQL, Redis, nginx and Chromium, by Debian's packages
	@scripts/servers.sh

demo: setup ## a short conversation with the real CLI and a built-in model: no account needed
	@$(PY) scripts/demo.py

serve: setup ## run the service; `make serve ARGS="--provider loopback"` needs no account
	@$(BIN)/warmline serve $(ARGS)

test: tools servers ## every check, then every test
	@$(PY) scripts/steps.py $(CHECKS)
	@$(PY) -m pytest $(SHARED)

check: tools ## every check, no tests
	@$(PY) scripts/steps.py $(CHECKS)

format: setup ## check: the formatting of Python files
	@$(BIN)/ruff format --check --output-format concise .

lint: setup ## check: lint, and the length of files and functions
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(PY) scripts/check_size.py service gateway_http clients/python/warmline_client tests scripts bench

types: setup ## check: mypy --strict
	@$(BIN)/mypy $(wildcard $(CODE))

layers: setup ## check: who may import whom
	@$(BIN)/lint-imports --no-logo

proto: setup ## check: lint of the API, and that it breaks no released one
	@$(BIN)/buf lint
	@$(PY) scripts/contract.py check

generated: tools ## check: the generated files are current
	@$(PY) scripts/generate.py --check

clients: tools ## check: the TypeScript and Go stubs compile
	@build/bin/node clients/typescript/node_modules/typescript/bin/tsc -p clients/typescript
	@cd clients/go && ../../$(BIN)/go build ./... && ../../$(BIN)/go vet ./...

tests: setup servers ## every test, one by one; `make tests T="-k pool"` for some
	@$(PY) -m pytest $(T)

chaos: setup servers ## break what carries conversations, check every promise; `make chaos ARGS="--store postgres"`
	@cd tests && ../$(PY) -m chaos $(ARGS)

fix: setup ## repair formatting and what lint can repair
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

bench: setup ## measure; prints a table and writes JSON
	@$(PY) -m bench

generate: tools ## write the stubs for Python, TypeScript and Go
	@$(PY) scripts/generate.py
	@$(PY) scripts/settings_doc.py

baseline: setup ## make today's API the released one
	@$(PY) scripts/contract.py release

lock: setup ## renew constraints.txt and the locks of TypeScript and Go
	@scripts/lock.sh

clean: ## remove whatever was installed or built
	@rm -rf .venv build dist third_party clients/typescript/node_modules
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
