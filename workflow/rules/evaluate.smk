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
    # Scored as soon as it is trained: then its models can go, where they are not kept.
    priority: 1
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        **ON_DEVICE,
    params:
        job=job_of_cell(job_params.evaluate_params),
    message:
        "evaluate {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        f"lowdata-cpt evaluate {STEP} {CELL_OPTION} {COMPUTE} {LOG}"
