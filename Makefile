# Every target calls setup when it needs it; setup is quick when nothing changed.
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := libs services cli bench tests
PROTOS := $(shell find protos -name '*.proto' | sort)
CONFIG ?= labferry.yaml
RUN ?=
ROWS ?=
BASE ?= origin/main
# The tests start hundreds of services: each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make .venv with everything
	@./bootstrap.sh

demo: setup ## the main job, end to end, on this machine (RUN=/any/folder for your own files)
	@$(PY) -m cli.demo $(if $(RUN),--run "$(RUN)")

up: setup ## start the three services in the foreground (CONFIG=labferry.yaml)
	@exec $(VENV)/bin/labferry up --config "$(CONFIG)"

test: setup ## every test
	@./tests/parts.sh
	@$(PY) -m pytest -n 5 --dist worksteal

lint: setup ## formatting, lint, types, protos
	@$(VENV)/bin/ruff format --check $(SOURCES)
	@$(VENV)/bin/ruff check $(SOURCES)
	@$(PY) -m mypy
	@cd protos && ../$(VENV)/bin/buf lint
	@$(MAKE) --no-print-directory breaking

breaking: setup ## protos against the last landed main
	@if git rev-parse --quiet --verify $(BASE) >/dev/null && git cat-file -e $(BASE):protos/buf.yaml 2>/dev/null; then \
		cd protos && ../$(VENV)/bin/buf breaking --against '../.git#ref=$(BASE),subdir=protos'; \
	else echo "buf breaking: nothing has landed at $(BASE) yet"; fi

protos: setup ## generate the code under labferry/ from protos/
	@rm -rf labferry
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iprotos --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS)
	@find labferry -type d -exec touch {}/__init__.py \;
	@touch labferry/py.typed

lock: setup ## pin every dependency anew in requirements.lock
	@$(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 --extra dev pyproject.toml -o requirements.lock

bench: setup ## measure beside the peers (ROWS=name,name for some)
	@$(PY) -m bench $(if $(ROWS),--rows "$(ROWS)")

clean: ## remove what was made here
	@rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

.PHONY: help setup demo up test lint breaking protos lock bench clean
