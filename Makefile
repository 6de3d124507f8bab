# The two commands are `make reproduce` and `make test`; both do all set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CORES ?= $(shell nproc)
STUDY ?= quick
RUN := .venv/bin
CONFIG := $(if $(filter quick,$(STUDY)),,--configfile config/$(STUDY).yaml)
SNAKEMAKE := $(RUN)/snakemake --cores $(CORES) --rerun-incomplete $(CONFIG)
# One thread a process: with a busy neighbour two OpenMP threads are slower than one, and results are bit-equal.
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg

.PHONY: help reproduce test test-slow lint format config docs figures slurm-up slurm-down clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

.venv/.ready: uv.lock pyproject.toml
	@tools/bootstrap

reproduce: .venv/.ready ## run the quick study end to end (STUDY=embedded or paper for the others)
	@tools/install-gl
	@$(SNAKEMAKE)
	@$(RUN)/lowdata-cpt headline results/$(STUDY)

test: .venv/.ready ## run the fast tests
	@tools/install-gl
	@$(RUN)/pytest -m "not slow and not slurm and not browser" $(PYTEST)

test-slow: .venv/.ready ## run the slow tests (kills, whole studies); SLURM's need `make slurm-up`
	@tools/install-gl
	@$(RUN)/pytest -m "slow and not slurm" $(PYTEST)

lint: .venv/.ready ## formatting, lint, types, workflow lint, generated files
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/snakefmt --check Snakefile workflow
	@$(RUN)/snakemake --lint
	@$(RUN)/python -m lowdata_cpt.generate --check

format: .venv/.ready ## rewrite the formatting
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .
	@$(RUN)/snakefmt Snakefile workflow

config docs: .venv/.ready ## regenerate schema, defaults, deviations ledger, environment.yml's requirements
	@$(RUN)/python -m lowdata_cpt.generate

figures: .venv/.ready ## draw the figures of STUDY again from its committed tables
	@$(RUN)/lowdata-cpt figures results/$(STUDY) --workers $(CORES)

slurm-up: ## start a real one-node SLURM for tests (Debian packages, loopback only)
	@bash tools/slurm/up

slurm-down: ## stop it
	@bash tools/slurm/down

clean: ## remove the environment, caches and unfinished runs (results stay)
	rm -rf .venv .tools .cache .snakemake work .pytest_cache .mypy_cache .ruff_cache
