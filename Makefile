# Everything a developer, a newcomer and CI run. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BASE_IMAGE ?= python:3.11-slim
IMAGE_TAG ?= 0.1.0
DEMO_OBSERVATIONS ?= 12
SEEDS ?= 3101 3102
PYTEST := nice $(BIN)/python -m pytest

# One thread per process: the suite runs many processes side by side.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

.PHONY: install
install: $(STAMP) ## make .venv with everything that the demo and the tests need

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found; set PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q operator workers
	@touch $@

.PHONY: demo
demo: install ## the whole pipeline on a simulated sky, on this machine; writes out/demo/report.html
	$(BIN)/astrid demo --queues manifests/samples --observations $(DEMO_OBSERVATIONS) --out out/demo

.PHONY: test
test: install lint types ## everything a fresh machine can run: lint, types and every tier of tests but e2e
	$(PYTEST) tests/unit tests/contract tests/functional tests/cluster

.PHONY: lint
lint: install ## ruff, import contracts, Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile.operator Dockerfile.worker

.PHONY: types
types: install ## mypy, strict
	$(BIN)/mypy

.PHONY: unit
unit: install ## rules and kernels, nothing started
	$(PYTEST) tests/unit tests/contract

.PHONY: functional
functional: install ## real server, real workers, real databases
	$(PYTEST) tests/functional

.PHONY: cluster
cluster: install ## the operator against a real Kubernetes control plane
	$(PYTEST) tests/cluster

.PHONY: e2e
e2e: install ## images, manifests and real frames on a real node: KUBECONFIG, or ASTRID_NODE_TOOL
	$(PYTEST) -s tests/e2e

.PHONY: bench-science
bench-science: install ## false candidates, depth, flux and cost of the subtraction, on fresh seeds
	$(BIN)/python benchmarks/science/false_positives.py $(SEEDS)

.PHONY: bench-scaling
bench-scaling: install ## fleets against models of KEDA and shared GPUs in the simulator, then reaction times on a real control plane, alone and beside noisy neighbours (and a KEDA that ASTRID_KEDA_RIG starts)
	$(BIN)/python benchmarks/scaling/contest.py
	$(BIN)/python benchmarks/scaling/gpu_sharing.py
	$(BIN)/python benchmarks/scaling/control_latency.py
	$(BIN)/python benchmarks/scaling/noisy_neighbours.py
	if [ -n "$${ASTRID_KEDA_RIG:-}" ]; then $(BIN)/python benchmarks/scaling/against_keda.py bursts; fi

.PHONY: bench-workers
bench-workers: install ## real workers as pods: interruptions, due messages, orphans, full prefetch, changes of leader, faults of Redis, shared GPUs
	$(BIN)/python benchmarks/scaling/gpu_sharing.py live --name gpu-sharing-live
	for each in interruptions due_messages orphans full_prefetch leader_change redis_faults; do $(BIN)/python benchmarks/scaling/$$each.py || exit; done

.PHONY: images
images: ## build the operator's and the lean worker's image with docker: BASE_IMAGE, IMAGE_TAG
	docker build -f Dockerfile.operator --build-arg BASE_IMAGE=$(BASE_IMAGE) -t astrid-operator:$(IMAGE_TAG) .
	docker build -f Dockerfile.worker --target lean --build-arg BASE_IMAGE=$(BASE_IMAGE) -t astrid-worker:$(IMAGE_TAG) .

.PHONY: requirements
requirements: ## resolve the hashed requirement files again (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra dev pyproject.toml -o requirements/dev.txt
	for image in operator workers; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra $$image -c requirements/dev.txt pyproject.toml -o requirements/$$image.txt; \
	done
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra inference -c requirements/dev.txt pyproject.toml -o requirements/inference.txt
	echo 'hatchling' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -c requirements/dev.txt - -o requirements/build.txt

.PHONY: clean
clean: ## remove what the targets above made, except the virtual environment
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
