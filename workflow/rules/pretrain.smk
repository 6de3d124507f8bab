rule pretrain:
    """Continue pretraining one cell, exported at each milestone; interrupted, it resumes from its last checkpoint."""
    input:
        unpack(inputs_of_training),
    output:
        export=(
            directory if STUDY.keep_models else lambda path: temp(directory(path))
        )(CELL / "export"),
        log=CELL / "log.csv",
        cost=CELL / "cost.json",
    log:
        PATHS.log("pretrain", ANY.name),
    benchmark:
        PATHS.benchmark("pretrain", ANY.name)
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        **ON_DEVICE,
        checkpoint_seconds=str(RESOURCES.checkpoint_seconds),
    params:
        job=job_of_cell(job_params.pretrain_params),
    message:
        "pretrain {wildcards.method} on {wildcards.n} images of {wildcards.domain}, seed {wildcards.seed}"
    shell:
        f"lowdata-cpt pretrain {STEP} {CELL_OPTION} {COMPUTE}"
        f" --checkpoint-seconds {{resources.checkpoint_seconds}} {LOG}"


rule diagnostics:
    """Train one cell once more and look inside its method: masks over time, regions, what the value predicts."""
    input:
        lambda wildcards: list(
            inputs_of_training(DIAGNOSTICS[tuple(wildcards)]._asdict()).values()
        ),
    output:
        PATHS.diagnostics("{backbone}", "{domain}", "{method}"),
    log:
        PATHS.log("diagnostics", "{backbone}-{domain}-{method}"),
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        **ON_DEVICE,
    params:
        job=lambda wildcards: job_params.dump(
            job_params.diagnostics_params(STUDY, DIAGNOSTICS[tuple(wildcards)])
        ),
        cell=lambda wildcards: DIAGNOSTICS[tuple(wildcards)].name,
    message:
        "look inside {wildcards.method} on {wildcards.domain}"
    shell:
        f"lowdata-cpt diagnostics {STEP} --cell {{params.cell}} {COMPUTE} {LOG}"
