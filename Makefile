# Every target makes its own virtual environment; Python and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo drawings test lint bench quality failures train mutations clean

demo: $(VENV)/demo-ready  ## the main job: two graphs on the embedded provider, their cost tree and bill; GRAPH=name runs any other
	$(BIN)/routed-agents demo $(if $(GRAPH),--graph $(GRAPH))

drawings: $(VENV)/demo-ready  ## draw the graphs again, into graphs/README.md
	$(BIN)/python graphs/draw.py

test: $(VENV)/test-ready  ## all tests that need no server
	$(BIN)/python -m pytest

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

mutations: $(VENV)/test-ready  ## every law's tests must fail when the law is broken
	$(BIN)/python tests/laws/mutations.py

clean:
	rm -rf $(VENV) out

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
