# Each target makes .venv by itself: with uv where it is installed, else with venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS := results/quickstart

PEERS := guidellm aiperf
guidellm_version := 0.8.1
aiperf_version := 0.13.0
llmd-benchmark-report_version := 0.2.1
dynosim_version := 1.6.1

.PHONY: help quickstart test test-engines test-peers check bench bench-truth bench-client bench-latency bench-sim clean

help:
	@echo "make quickstart  measure a real model on this machine: table, database, picture"
	@echo "make test        run the tests"
	@echo "make test-engines install and test llama-server, transformers serve and vLLM: 20 minutes, 6 GB"
	@echo "make test-peers  guidellm, aiperf and vLLM imported and wrapped, beside runs of our own"
	@echo "make check       lint, types and structure"
	@echo "make bench       speed of wattbench itself"
	@echo "make bench-client the load generator beside guidellm and aiperf, which it installs"
	@echo "make bench-latency measured latencies beside those that the server wrote"
	@echo "make bench-sim   the routing simulator on one core beside DynoSim, which it installs"
	@echo "make bench-truth measured joules beside a truth; TRUTH=DIR: records of a real meter"

$(VENV)/run.stamp: pyproject.toml
	@command -v uv >/dev/null 2>&1 && uv venv -q --allow-existing --python $(PYTHON) $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing wattbench and its engine into $(VENV) …"
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(BIN)/python -e '.[cpu]'; \
	else $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[cpu]'; fi
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "installing the tools for tests and checks …"
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(BIN)/python -e '.[cpu,dev]'; \
	else $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[cpu,dev]'; fi
	@touch $@

quickstart: $(VENV)/run.stamp
	@mkdir -p $(RESULTS)
	$(BIN)/wattbench run quickstart --concurrency 1,2,4,8 --repeats 3 --db $(RESULTS)/wattbench.sqlite
	@$(BIN)/wattbench plot frontier --runs latest --db $(RESULTS)/wattbench.sqlite --out $(RESULTS)/frontier.png

test: $(VENV)/dev.stamp
	@$(BIN)/python tests/compile_kernels.py & $(BIN)/python -m pytest -q -n 5 --dist loadfile; \
	code=$$?; wait; exit $$code

test-engines: $(VENV)/dev.stamp
	@$(BIN)/python tests/engines/run_engines.py $(ENGINES)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_structure.py

bench: $(VENV)/dev.stamp
	$(BIN)/python tests/bench.py

bench-truth: $(VENV)/dev.stamp
	@$(BIN)/python tests/bench_truth.py $(if $(TRUTH),--truth "$(TRUTH)")

.peers/%/installed.stamp:
	@echo "installing $* into .peers/$* …"
	@$(PYTHON) -m venv .peers/$*
	@.peers/$*/bin/pip install -q --disable-pip-version-check $*==$($*_version)
	@touch $@

bench-client: $(VENV)/dev.stamp $(PEERS:%=.peers/%/installed.stamp)
	@$(BIN)/python tests/bench_client.py

test-peers: $(VENV)/dev.stamp $(PEERS:%=.peers/%/installed.stamp) .peers/llmd-benchmark-report/installed.stamp
	@PYTHONPATH=tests $(BIN)/python tests/peers/run_peers.py $(TOOLS)
	@PYTHONPATH=tests $(BIN)/python tests/peers/check_exports.py

bench-latency: $(VENV)/dev.stamp
	@$(BIN)/python tests/bench_latency.py

# DynoSim comes in two packages; what the second one asks for is needed to serve, not to simulate.
.peers/dynosim/installed.stamp:
	@echo "installing dynosim into .peers/dynosim …"
	@$(PYTHON) -m venv .peers/dynosim
	@.peers/dynosim/bin/pip install -q --disable-pip-version-check ai-dynamo-runtime==$(dynosim_version)
	@.peers/dynosim/bin/pip install -q --disable-pip-version-check --no-deps ai-dynamo==$(dynosim_version)
	@touch $@

bench-sim: $(VENV)/dev.stamp .peers/dynosim/installed.stamp
	@$(BIN)/python tests/bench_sim.py

clean:
	rm -rf $(VENV) .peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
