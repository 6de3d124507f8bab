"""Validation, the grid, and what every rule shares. Paths are said in study/paths.py, parameters in study/job_params.py."""

from lowdata_cpt.analysis.figures import figure_reads
from lowdata_cpt.core.io import sha256_file
from lowdata_cpt.core.paths import CLAIMS, PACKAGE, project_file
from lowdata_cpt.jobs.figures import FACTS, code_modules, figure_names
from lowdata_cpt.study import grid, job_params
from lowdata_cpt.study.checks import check_machine
from lowdata_cpt.study.grid import ANY
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

try:
    NAMED = [str(FILES[-1]), FILES[-1].parent] if FILES else []
    STUDY = validate(config, *NAMED)
    # Not in the jobs that a cluster starts: a node may be cut off from the network.
    if workflow.is_main_process:
        check_machine(STUDY, *NAMED[:1])
    say_who_runs(STUDY.study)
    STUDY, NOT_RUN = grid.split_absent(STUDY)
    CELLS = list(grid.cells(STUDY))
    # Asked here, for all: a folder of images says only by looking at it which labels it has.
    TASKS = {domain: grid.probes_of(STUDY, domain) for domain in STUDY.domains}
    if not any(TASKS.values()) and not STUDY.keep_models:
        raise UserError(
            "keep_models is false, and no domain has labels to score: nothing would be left; expected true"
        )
except UserError as error:
    raise WorkflowError(f"error: {error}") from None
for domain, reason in NOT_RUN.items():
    print(f"not run: domain {domain}: {reason}", file=sys.stderr)

RESOURCES = STUDY.resources
LIMITS = RESOURCES.model_dump(include={"mem_mb", "runtime"})
ON_DEVICE = LIMITS | {"device": RESOURCES.device, "gpu": RESOURCES.gpu}
PATHS = Paths(f"results/{STUDY.study}")
CELL = PATHS.cell(ANY)
MANIFESTS = [PATHS.manifest(domain) for domain in STUDY.domains]
MODELS = list(dict.fromkeys(PATHS.cell(cell.trained) / "cost.json" for cell in CELLS))
EVALUATIONS = [
    PATHS.cell(cell) / "evaluation.json" for cell in CELLS if TASKS[cell.domain]
]
DIAGNOSTICS = {(c.backbone, c.domain, c.method): c for c in grid.diagnosed(STUDY)}
FIGURES = [PATHS.of_study(f"figures/{name}.png") for name in figure_names(STUDY)]
# The options by which a command is told what the workflow decided.
STEP = f"--results {PATHS.root} --params {{params.job:q}}"
CELL_OPTION = f"--cell {ANY.name}".replace("{", "{wildcards.")


wildcard_constraints:
    backbone="|".join(STUDY.backbones),
    domain="|".join(STUDY.domains),
    method="|".join(STUDY.methods),
    n=r"\d+",
    seed=r"\d+",
    figure=r"[\w-]+",


def cell_of(wildcards):
    """Return the cell that a rule's wildcards name."""
    return grid.parse_cell(ANY.name.format(**wildcards))


def job(params, *names):
    """Return a rule's parameter: what its result depends on, as text; read when a job is made."""
    return lambda wildcards: job_params.dump(
        params(STUDY, *(wildcards[name] for name in names))
    )


def code(*modules):
    """Return a rule's parameter: the version of its code; hashed for its own jobs only, not at each inner start."""
    return lambda wildcards: job_params.code_of(*modules)


def job_of_cell(params):
    """Return the same of a rule whose wildcards name a cell."""
    return lambda wildcards: job_params.dump(params(STUDY, cell_of(wildcards)))


def inputs_of_training(wildcards):
    """Return what a cell trains on; cells that train nothing (n = 0) have no subset."""
    cell = cell_of(wildcards)
    return {
        "backbone": PATHS.backbone(cell.backbone) / "model.safetensors",
        "manifest": PATHS.manifest(cell.domain),
        "subset": PATHS.subset(cell.domain, cell.n, cell.seed) if cell.n else [],
    }


def inputs_of_evaluation(wildcards):
    """Return what a cell's scores are made from: seeds share the one model of what does not depend on a seed."""
    cell = cell_of(wildcards)
    return {
        "model": PATHS.cell(cell.trained) / "export",
        "manifest": PATHS.manifest(cell.domain),
        "subset": PATHS.subset(cell.domain, cell.n, cell.seed) if cell.n else [],
    }
