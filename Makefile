# Everything a developer or CI does starts here; `make help` lists it.
#
# The embedded cluster is used unless KUBECONFIG names another one.

# Some containers have Python write no bytecode; it would compile torch anew for every process that a test starts.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
CLUSTER := hack/cluster/cluster
SETUP_STAMP := $(VENV)/.setup-stamp
# What `make generate` writes, and `make verify` therefore compares.
GENERATED := crds/anomalyexperiments.yaml crds/anomalyinferences.yaml \
	manifests/base/crds helm/anomaly-operator/crds docs/reference.md docs/models.md \
	manifests/argocd/argocd-cm.yaml helm/anomaly-operator/files \
	operator/requirements.txt runner/requirements.txt runner/inference-requirements.txt \
	hack/demo/requirements.txt
PYTEST := $(VENV)/bin/pytest
# Processes of `make test`; one has the cluster and one a control plane beside it, whose tests mostly wait. Their threads
# wait asleep: OpenMP's would spin on CPUs that the others need.
TEST_PROCESSES ?= 3
PARALLEL_PYTEST = OMP_WAIT_POLICY=PASSIVE $(PYTEST) --numprocesses $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder

# Runs a command against the cluster in use: the user's own, or the embedded one.
EMBEDDED_KUBECONFIG := $(or $(ANOMALY_CLUSTER_HOME),/var/tmp/anomaly-cluster)/pki/admin.conf
OWN_CLUSTER := $(filter-out $(EMBEDDED_KUBECONFIG),$(KUBECONFIG))
ifdef OWN_CLUSTER
USE_CLUSTER :=
CLUSTER_TARGET :=
else
USE_CLUSTER := eval "$$($(CLUSTER) env)";
CLUSTER_TARGET := cluster-up
endif
# The same with the images delivered, and their references in the environment.
USE_IMAGES = $(USE_CLUSTER) images="$$(hack/images/images)"; export $$images;
# A test whose cluster or program is not there fails instead of being skipped.
NEED_ALL := ANOMALY_TESTS_NEED_ALL=1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(SETUP_STAMP) ## Install Debian packages if missing, and the Python environment

$(SETUP_STAMP): pyproject.toml constraints.txt hack/setup
	hack/setup
	touch $@

.PHONY: cluster-up
cluster-up: ## Bring the embedded Kubernetes up, or make it right again
	$(CLUSTER) up

.PHONY: test-tools
test-tools:
ifndef OWN_CLUSTER
	$(CLUSTER) build --tool helm --tool gitops
endif

.PHONY: cluster-down
cluster-down: ## Delete the embedded Kubernetes; binaries and images stay
	$(CLUSTER) down

.PHONY: images
images: $(CLUSTER_TARGET) ## Build the images and bring them to the cluster
	$(USE_CLUSTER) hack/images/images

.PHONY: demo
# The time it takes includes what is built for it.
demo: BEGUN := $(shell date +%s)
demo: setup $(CLUSTER_TARGET) ## Run both samples on a cluster and show what they made; with SWEEP=1 a sweep as well
	$(USE_IMAGES) $(PYTHON) -m hack.demo up --begun=$(BEGUN) $(if $(SWEEP),--sweep)

.PHONY: demo-down
demo-down: ## Remove everything that `make demo` started
ifdef OWN_CLUSTER
	$(PYTHON) -m hack.demo down
else
	$(CLUSTER) down
endif

.PHONY: generate
generate: setup ## Write what is generated: CRDs, references, Argo CD's ConfigMap, requirements
	$(PYTHON) hack/generate/crds.py
	$(PYTHON) hack/generate/reference.py
	$(PYTHON) hack/generate/models.py
	$(PYTHON) hack/generate/argocd.py
	$(PYTHON) -m hack.images.requirements

.PHONY: constraints
constraints: setup ## Pin the newest versions that pyproject.toml allows
	$(UV) pip compile --quiet --upgrade --system-certs --no-header --no-annotate --python-version=3.11 \
		--all-extras --output-file=constraints.txt pyproject.toml

.PHONY: verify
verify: setup ## Fail when something generated is not up to date
	hack/verify $(GENERATED)

.PHONY: lint
lint: setup ## Check style, types, imports and spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

.PHONY: lint-workflows
lint-workflows: ## Check the GitHub workflows with actionlint
	"$$($(CLUSTER) tool actionlint)" -color .github/workflows/*.yml

.PHONY: docs
docs: setup ## Build the documentation as a site, in build/site; a dead link fails it
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build

.PHONY: diagrams
diagrams: setup ## Draw the diagrams of the documentation anew where their source has changed
	$(PYTHON) -m hack.docs.diagrams

.PHONY: chart
chart: setup ## Package the Helm chart, in dist, for the images named in ANOMALY_*_IMAGE
	$(PYTHON) -m hack.release chart --helm "$$($(CLUSTER) tool helm)"

.PHONY: sbom
sbom: setup ## Write an SBOM (CycloneDX) for each image, in dist
	$(PYTHON) -m hack.release sbom

.PHONY: test-fast
test-fast: setup ## Run the unit tests on all CPUs: a minute on two of them, no torch, no cluster
	$(PYTEST) --numprocesses auto --dist worksteal tests/unit

.PHONY: test-component
test-component: setup ## Run the tests of the runner with torch, anomalib and servers: no cluster
	$(PARALLEL_PYTEST) tests/component

.PHONY: test-integration
test-integration: setup test-tools $(CLUSTER_TARGET) ## Run the operator's tests against a real API server
	$(USE_CLUSTER) $(NEED_ALL) $(PYTEST) tests/integration

.PHONY: gpu-wheels
gpu-wheels: setup ## Collect, in .gpu-wheels, what a machine with a GPU and no network lacks; hack/gpu/run is for there
	$(PYTHON) -m hack.gpu wheels

.PHONY: test-gpu
test-gpu: setup ## Run the tests that need a GPU, on this machine's
	$(PYTEST) tests/gpu -v

.PHONY: test-e2e
test-e2e: setup $(CLUSTER_TARGET) ## Run the samples and their failures in real pods
	$(USE_IMAGES) $(NEED_ALL) $(PYTEST) tests/e2e

.PHONY: test
test: lint verify test-tools $(CLUSTER_TARGET) ## Run all tests but the rare combinations
	$(USE_IMAGES) $(NEED_ALL) $(PARALLEL_PYTEST) tests

.PHONY: test-all
test-all: lint verify test-tools $(CLUSTER_TARGET) ## Run all tests, the rare combinations too, before a release
	$(USE_IMAGES) $(NEED_ALL) $(PARALLEL_PYTEST) tests --rare

.PHONY: benchmark-gpu
benchmark-gpu: setup ## Print the benchmarks of this machine's GPU
	$(PYTHON) -m benchmarks.gpu

.PHONY: mutants
mutants: setup ## Make small wrong changes to the code (MINUTES=..., MODULES=...), and name those that no unit test notices
	@$(PYTHON) -m hack.mutants --minutes $(or $(MINUTES),30) $(if $(WRITE),--write) $(foreach module,$(MODULES),'$(module)')

.PHONY: bench
bench: setup $(CLUSTER_TARGET) ## Run the benchmarks (ONLY=...) and write docs/benchmarks.md: hours; QUICK=1 tries each, and writes nothing
	$(USE_IMAGES) $(PYTHON) -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))
