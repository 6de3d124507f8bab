"""A language study from its data to its figures; included in place of the other rules when the study is of that kind."""

from lowdata_cpt.core.paths import project_file
from lowdata_cpt.language import config as language_config, plan
from lowdata_cpt.language.figures import FIGURES
from lowdata_cpt.language.plan import ANY, base_of
from lowdata_cpt.language.results import CLAIMS
from lowdata_cpt.study.job_params import code_of, dump, study_params

try:
    STUDY = language_config.validate(config, str(FILES[-1]))
    # Not in the jobs that a cluster starts: a node may be cut off from the network.
    if workflow.is_main_process:
        plan.check_machine(STUDY, str(FILES[-1]))
except UserError as error:
    raise WorkflowError(f"error: {error}") from None
say_who_runs(STUDY.study)

RESOURCES = STUDY.resources
LIMITS = RESOURCES.model_dump(include={"mem_mb", "runtime"})
ON_DEVICE = LIMITS | {"device": RESOURCES.device, "gpu": RESOURCES.gpu}
PATHS = plan.Paths(f"results/{STUDY.study}")
CELLS = list(plan.cells(STUDY))
BASES = [base_of(learner) for learner in STUDY.learners]
COSTS = [PATHS.cell(cell) / "cost.json" for cell in [*BASES, *CELLS]]
EVALUATIONS = [PATHS.cell(cell) / "evaluation.json" for cell in [*BASES, *CELLS]]
CELL = PATHS.cell(ANY)
BASE = PATHS.cell(base_of("{learner}"))
MANIFEST = PATHS.data("{learner}") / "manifest.json"
STEP = f"--results {PATHS.root} --params {{params.job:q}}"
CELL_OPTION = f"--cell {ANY.name}".replace("{", "{wildcards.")


wildcard_constraints:
    learner="|".join(STUDY.learners),
    arm="|".join((*STUDY.arms, language_config.BASE)),
    seed=r"\d+",


ruleorder: language_base > language_continue


rule language_data:
    """Write a learner's splits: mixture, stream, feedback, held-out problems and prose."""
    output:
        directory(PATHS.data("{learner}")),
    log:
        PATHS.log("data", "{learner}"),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS,
    params:
        job=lambda wildcards: dump(plan.data_params(STUDY, wildcards.learner)),
    message:
        "splits of {wildcards.learner}"
    shell:
        f"lowdata-cpt language data {STEP} --learner {{wildcards.learner}} {LOG}"


rule language_base:
    """Make a learner's start: pretrain it once, or fetch released weights."""
    input:
        PATHS.data("{learner}"),
    output:
        export=directory(BASE / "export"),
        log=BASE / "log.csv",
        cost=BASE / "cost.json",
    log:
        PATHS.log("base", "{learner}"),
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        **ON_DEVICE,
        checkpoint_seconds=str(RESOURCES.checkpoint_seconds),
    params:
        job=lambda wildcards: dump(plan.base_params(STUDY, wildcards.learner)),
    message:
        "start of {wildcards.learner}"
    shell:
        f"lowdata-cpt language base {STEP} --learner {{wildcards.learner}} {COMPUTE}"
        f" --checkpoint-seconds {{resources.checkpoint_seconds}} {LOG}"


rule language_continue:
    """Continue one cell, exported at each milestone; interrupted, it resumes from its last checkpoint."""
    input:
        PATHS.data("{learner}"),
        BASE / "export",
    output:
        export=(
            directory if STUDY.keep_models else lambda path: temp(directory(path))
        )(CELL / "export"),
        log=CELL / "log.csv",
        cost=CELL / "cost.json",
    log:
        PATHS.log("continue", ANY.name),
    benchmark:
        PATHS.benchmark("continue", ANY.name)
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        **ON_DEVICE,
        checkpoint_seconds=str(RESOURCES.checkpoint_seconds),
    params:
        job=lambda wildcards: dump(
            plan.continue_params(STUDY, plan.parse_cell(ANY.name.format(**wildcards)))
        ),
    message:
        "continue {wildcards.learner} by {wildcards.arm}, seed {wildcards.seed}"
    shell:
        f"lowdata-cpt language continue {STEP} {CELL_OPTION} {COMPUTE}"
        f" --checkpoint-seconds {{resources.checkpoint_seconds}} {LOG}"


rule language_evaluate:
    """Score every milestone of a cell, or of a start."""
    input:
        PATHS.data("{learner}"),
        CELL / "export",
    output:
        CELL / "evaluation.json",
        CELL / "outcomes.npz",
    log:
        PATHS.log("evaluate", ANY.name),
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        **ON_DEVICE,
    params:
        job=lambda wildcards: dump(
            plan.evaluate_params(STUDY, plan.parse_cell(ANY.name.format(**wildcards)))
        ),
    message:
        "score {wildcards.learner} after {wildcards.arm}, seed {wildcards.seed}"
    shell:
        f"lowdata-cpt language evaluate {STEP} {CELL_OPTION} {COMPUTE} {LOG}"


rule language_collect:
    """Gather every cell into tidy tables."""
    input:
        COSTS,
        EVALUATIONS,
    output:
        [
            update(PATHS.of_study(name))
            for name in (
                "study.json",
                "scores.csv",
                "cost.csv",
                "curves.csv",
                "value.csv",
            )
        ],
        update(PATHS.of_study("outcomes.npz")),
    log:
        PATHS.log("collect"),
    conda:
        "../../environment.yml"
    params:
        code=lambda wildcards: code_of("language.results"),
        job=lambda wildcards: dump(study_params(STUDY)),
    message:
        "collect the scores of study {config[study]}"
    shell:
        f"lowdata-cpt language collect {STEP} {LOG}"


rule language_report:
    """Intervals, verdicts and figures, from the study's tables alone."""
    input:
        PATHS.of_study("scores.csv"),
        PATHS.of_study("curves.csv"),
        PATHS.of_study("value.csv"),
        PATHS.of_study("outcomes.npz"),
        project_file(CLAIMS),
    output:
        [PATHS.of_study(f"figures/{name}.png") for name in FIGURES],
        PATHS.of_study("statistics.csv"),
        PATHS.of_study("designer.csv"),
        PATHS.of_study("claims.json"),
        PATHS.of_study("claims.md"),
    log:
        PATHS.log("report"),
    conda:
        "../../environment.yml"
    params:
        code=lambda wildcards: code_of("language.results", "language.figures"),
        folder=PATHS.root,
    message:
        "intervals, verdicts and figures of study {config[study]}"
    shell:
        f"lowdata-cpt language report {{params.folder}} {LOG}"


EVERYTHING = [COSTS, EVALUATIONS, rules.language_report.output]
