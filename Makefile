# The two commands are `make reproduce` and `make test`; both do all set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# nproc obeys OMP_NUM_THREADS, which is set below: GNU make 4.4 and later pass it to $(shell).
NPROC := env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc
CORES ?= $(shell $(NPROC))
# Test processes side by side, a file in one of them; each holds torch.
WORKERS ?= $(shell n=$$($(NPROC)); echo $$((n > 4 ? 4 : n)))
STUDY ?= quick
RUN := .venv/bin
FILE := config/$(STUDY).yaml
CONFIG := $(if $(filter quick,$(STUDY)),,--configfile $(FILE))
# What runs and how much is done; in a log, where a bar is nothing, as lines. VERBOSE=1 adds reasons and commands.
TERMINAL := $(shell [ -t 2 ] && echo yes)
SAID := $(if $(VERBOSE),--printshellcmds,$(if $(TERMINAL),--logger rich,--quiet host reason --))
SNAKEMAKE := $(RUN)/snakemake --cores $(CORES) --rerun-incomplete $(CONFIG) $(SAID)
# One thread a process: with a busy neighbour two OpenMP threads are slower than one, and results are bit-equal.
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg
# Snakemake keeps a cache in the user's folder and stops where that cannot be written to.
ifeq ($(XDG_CACHE_HOME),)
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/.cache
endif
endif

.PHONY: help reproduce test test-slow test-browser chaos lint format config docs golden publish pack restore partial figures report forecast scale-down pull push verify crate dvc-commit test-slurm chaos-slurm slurm-up slurm-down bench mutants gpu-check clean

help: ## show the targets
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

.venv/.ready: uv.lock pyproject.toml executor/pyproject.toml
	@tools/bootstrap

reproduce: .venv/.ready ## run the quick study end to end (STUDY=embedded, language or paper for the others)
	@tools/install-gl
	@$(RUN)/lowdata-cpt validate $(FILE)
	@$(SNAKEMAKE)
	@$(RUN)/lowdata-cpt headline results/$(STUDY)

test: .venv/.ready ## run the fast tests
	@tools/install-gl
	@$(RUN)/pytest -n $(WORKERS) --dist loadfile -m "not slow and not slurm and not browser" $(PYTEST)

test-slow: .venv/.ready ## run the slow tests (kills, whole studies); SLURM's need `make slurm-up`
	@tools/install-gl
	@$(RUN)/pytest -n $(WORKERS) --dist loadfile --timeout 1500 -m "slow and not slurm and not browser" $(PYTEST)

lint: .venv/.ready ## formatting, lint, types, workflow lint, generated files
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/snakefmt --check Snakefile workflow
	@$(RUN)/snakemake --lint
	@$(RUN)/lint-imports --no-logo 2>/dev/null || $(RUN)/lint-imports
	@$(RUN)/python -m lowdata_cpt.dev.generate --check
	@$(RUN)/python -m lowdata_cpt.dev.golden --check

format: .venv/.ready ## rewrite the formatting
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .
	@$(RUN)/snakefmt Snakefile workflow

config docs: .venv/.ready ## regenerate schema, defaults, requirements.txt, deviations ledger, data cards, marked blocks of README and docs/probes.md
	@$(RUN)/python -m lowdata_cpt.dev.generate

golden: .venv/.ready ## after a change of code: compute the golden cells and record whether results changed
	@$(RUN)/python -m lowdata_cpt.dev.golden

publish: .venv/.ready ## gather what git keeps of a finished STUDY: provenance, benchmarks, subsets
	@$(RUN)/lowdata-cpt publish --study $(STUDY)

pack: .venv/.ready ## pack the finished cells of STUDY, so that git can keep them
	@$(RUN)/lowdata-cpt pack --study $(STUDY)

restore: .venv/.ready ## put STUDY's packed cells in place, so that `make reproduce` goes on from them
	@tools/install-gl
	@$(RUN)/lowdata-cpt restore --study $(STUDY)

partial: .venv/.ready ## tables, verdicts, figures and report of the cells of STUDY that are finished
	@$(RUN)/lowdata-cpt partial --study $(STUDY) --workers $(CORES)

figures: .venv/.ready ## verdicts, statistics and figures of STUDY again, from its committed tables, without torch
	@$(RUN)/lowdata-cpt claims results/$(STUDY) & $(RUN)/lowdata-cpt statistics results/$(STUDY) && wait $$!
	@$(RUN)/lowdata-cpt tables results/$(STUDY) & $(RUN)/lowdata-cpt figures results/$(STUDY) --workers $(CORES) && wait $$!

report: .venv/.ready ## STUDY's report again, from its tables and figures
	@$(RUN)/lowdata-cpt report results/$(STUDY)

pull: .venv/.ready ## get STUDY's models, predictions and data by DVC (FORCE=1 replaces files that differ)
	@$(RUN)/lowdata-cpt pull --study $(STUDY) $(if $(filter-out 0 no false,$(FORCE)),--force)

push: .venv/.ready ## send them to the DVC remote
	@$(RUN)/lowdata-cpt push --study $(STUDY)

verify: .venv/.ready ## check STUDY: hashes, figures, claims; CELL=backbone/domain/method/n100/s0 computes it again
	@$(RUN)/lowdata-cpt verify --study $(STUDY) $(if $(CELL),--cell $(CELL))

crate: .venv/.ready ## export STUDY's provenance as a Workflow Run RO-Crate
	@$(RUN)/lowdata-cpt crate --study $(STUDY)

dvc-commit: .venv/.ready ## write dvc.lock from a complete run of STUDY
	@$(RUN)/lowdata-cpt dvc-commit --study $(STUDY)

forecast: .venv/.ready ## print jobs, GPU-hours and disk of STUDY before it runs, at the rates of benchmarks/gpu.json (TFLOPS=60: at that)
	@$(RUN)/lowdata-cpt forecast --study $(FILE) $(if $(TFLOPS),--tflops $(TFLOPS),--measured benchmarks/gpu.json)

scale-down: .venv/.ready ## run two steps of every distinct cell type of STUDY (paper, if it is not given) on fixtures, on the CPU
	@$(RUN)/lowdata-cpt scale-down --study config/$(if $(filter file,$(origin STUDY)),paper,$(STUDY)).yaml

chaos: .venv/.ready ## full counts of kills, damaged files and full disks (half an hour); rewrites the table of docs/reliability.md
	@tools/install-gl
	@CHAOS=full $(RUN)/pytest tests/chaos $(PYTEST)

test-browser: .venv/.ready ## open the reports in headless Chromium and click through them
	@tools/install-chromium
	@$(RUN)/pytest -m browser $(PYTEST)

test-slurm: .venv/.ready slurm-up ## the SLURM tests, on a real one-node cluster that is stopped afterwards
	@status=0; $(RUN)/pytest tests/slurm -m slurm $(PYTEST) || status=$$?; bash tools/slurm/down; exit $$status

chaos-slurm: .venv/.ready slurm-up ## 20 seeded accidents in one run of a tiny study: kills, requeues, failures; rewrites the table of docs/slurm.md
	@status=0; $(RUN)/python tests/slurm/chaos.py --events 20 --seed 2 --steps 300 --pause 4 --page docs/slurm.md || status=$$?; bash tools/slurm/down; exit $$status

slurm-up: .venv/.ready ## start a real one-node SLURM for tests (Debian packages, loopback only)
	@bash tools/slurm/up

slurm-down: ## stop it
	@bash tools/slurm/down

BENCH := .cache/bench-venv
UV_HERE = SSL_CERT_FILE=$${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} $$([ -x .tools/bin/uv ] && echo .tools/bin/uv || echo uv)

$(BENCH)/.ready: .venv/.ready
	@UV_PROJECT_ENVIRONMENT=$(BENCH) $(UV_HERE) sync --frozen --quiet --group bench
	@touch $@

bench: $(BENCH)/.ready ## time this package beside what others would use (BENCH_ARGS="--only steps"): docs/benchmarks.md
	@PYTHONPATH=. $(BENCH)/bin/python -W ignore -m benchmarks $(BENCH_ARGS)

MUTANTS := .cache/mutants-venv

# pytest and mutmut of its own, and below them what is locked.
$(MUTANTS)/.ready: .venv/.ready
	@$(UV_HERE) venv --quiet --allow-existing --python .venv/bin/python $(MUTANTS)
	@$(UV_HERE) pip install --quiet --python $(MUTANTS) mutmut==3.8.1
	@$(RUN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(MUTANTS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/locked.pth
	@touch $@

mutants: $(MUTANTS)/.ready ## change what decides results one place at a time; tests must notice: docs/mutants.json (MODULES="core/io")
	@CORES=$(CORES) $(MUTANTS)/bin/python tools/mutants.py $(MODULES)

gpu-check: .venv/.ready ## on a machine with a GPU: its tests, each method's images/s, memory and share of peak, and the forecast of paper
	@$(RUN)/pytest tests/gpu -m gpu $(PYTEST)
	@PYTHONPATH=. CUBLAS_WORKSPACE_CONFIG=:4096:8 $(RUN)/python -m benchmarks.gpu
	@$(RUN)/lowdata-cpt forecast --study config/paper.yaml --measured benchmarks/gpu.json

clean: ## remove the environment and caches (results, unfinished runs and Snakemake's records stay)
	rm -rf .venv .tools .cache .pytest_cache .mypy_cache .ruff_cache
