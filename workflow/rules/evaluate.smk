def inputs_of_evaluation(wildcards):
    """Return what a cell's scores are made from: seeds share the one model of what does not depend on a seed."""
    cell = cell_of(wildcards)
    return {
        "model": PATHS.cell(cell.trained) / "export",
        "manifest": PATHS.manifest(cell.domain),
        "subset": PATHS.subset(cell.domain, cell.n, cell.seed) if cell.n else [],
    }


rule evaluate:
    """At each milestone of a cell: one feature pass, then every probe that the domain's labels allow."""
    input:
        unpack(inputs_of_evaluation),
    output:
        evaluation=CELL / "evaluation.json",
        outcomes=CELL / "outcomes.npz",
        examples=CELL / "examples.npz",
    log:
        PATHS.log("evaluate", ANY.name),
    benchmark:
        PATHS.benchmark("evaluate", ANY.name)
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        device=RESOURCES.device,
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        job=job_of_cell(job_params.evaluate_params),
    message:
        "evaluate {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        f"lowdata-cpt evaluate {STEP} {CELL_OPTION} {COMPUTE} {LOG}"
