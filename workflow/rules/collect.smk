rule collect:
    """Gather every cell into tidy tables: scores (a row per metric and milestone), costs, curves, choices, outcomes."""
    input:
        evaluations=EVALUATIONS,
        costs=MODELS,
    # A table whose results are equal stays as it is: `update` keeps Snakemake from deleting it first.
    output:
        study=update(PATHS.of_study("study.json")),
        not_run=update(PATHS.of_study("not_run.json")),
        scores=update(PATHS.of_study("scores.csv")),
        cost=update(PATHS.of_study("cost.csv")),
        curves=update(PATHS.of_study("curves.csv")),
        selected=update(PATHS.of_study("selected.csv")),
        outcomes=directory(PATHS.of_study("outcomes")),
    log:
        PATHS.log("collect"),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS,
    params:
        code=code("jobs.collect"),
        job=job(job_params.study_params),
        not_run=job_params.dump(NOT_RUN),
    message:
        "collect the scores of study {config[study]}"
    shell:
        f"lowdata-cpt collect {STEP} --not-run {{params.not_run:q}} {LOG}"


if not any(TASKS.values()):

    rule unlabelled:
        """Where nothing can be scored: losses, the geometry of features and neighbours, before and after."""
        input:
            MODELS,
            MANIFESTS,
        output:
            PATHS.of_study("report.html"),
        log:
            PATHS.log("unlabelled"),
        conda:
            "../../environment.yml"
        resources:
            mem_mb=RESOURCES.mem_mb,
            runtime=RESOURCES.runtime,
        params:
            code=code("jobs.collect", "jobs.report", "jobs.geometry", *FACTS),
            job=job(job_params.study_params),
            not_run=job_params.dump(NOT_RUN),
            folder=PATHS.root,
        message:
            "report of study {config[study]}, whose images have no labels"
        shell:
            f"lowdata-cpt collect {STEP} --not-run {{params.not_run:q}} {LOG}; "
            f"lowdata-cpt report {{params.folder}} {LOG}"

    ruleorder: unlabelled > report


rule trivial_baselines:
    """Score predictors that never look at an image: what every row of the tables must beat."""
    input:
        manifests=MANIFESTS,
    output:
        PATHS.of_study("trivial_baselines.csv"),
    log:
        PATHS.log("trivial_baselines"),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS,
    params:
        code=code("probes.metrics"),
    message:
        "score the trivial baselines of study {config[study]}"
    shell:
        f"lowdata-cpt trivial-baselines {{input.manifests}} --out {{output}} {LOG}"


rule examples:
    """Gather example predictions of every method: first seed, largest n."""
    input:
        study=PATHS.of_study("study.json"),
        manifest=PATHS.manifest("{domain}"),
        evaluations=lambda wildcards: [
            PATHS.cell(cell) / "evaluation.json"
            for cell in grid.shown_cells(STUDY, wildcards.backbone, wildcards.domain)
        ],
    output:
        PATHS.examples("{backbone}", "{domain}"),
    log:
        PATHS.log("examples", "{backbone}-{domain}"),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS,
    params:
        code=code("jobs.collect"),
        folder=PATHS.root,
    message:
        "gather examples of {wildcards.domain}"
    shell:
        f"lowdata-cpt examples {{params.folder}} --backbone {{wildcards.backbone}} --domain {{wildcards.domain}} {LOG}"


rule figure:
    """Draw one figure from the study's tables: torch is not needed."""
    input:
        lambda wildcards: [
            PATHS.of_study(name) for name in figure_reads(wildcards.figure)
        ],
    output:
        png=report(
            PATHS.of_study("figures/{figure}.png"),
            category="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figures.rst",
        ),
        caption=PATHS.of_study("figures/{figure}.md"),
        source=PATHS.of_study("figures/{figure}.csv"),
    log:
        PATHS.log("figure", "{figure}"),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS,
    params:
        code=lambda wildcards: job_params.code_of(*code_modules(wildcards.figure)),
        folder=PATHS.root,
    message:
        "draw figure {wildcards.figure}"
    shell:
        f"lowdata-cpt figures {{params.folder}} {{wildcards.figure}} {LOG}"


rule tables:
    """Write the tables of the answer, of every gain, of scores and verdicts."""
    input:
        PATHS.of_study("scores.csv"),
        PATHS.of_study("outcomes"),
        PATHS.of_study("curves.csv"),
        PATHS.of_study("cost.csv"),
        PATHS.of_study("study.json"),
        PATHS.of_study("not_run.json"),
        PATHS.of_study("claims.json"),
    output:
        directory(PATHS.of_study("tables")),
    log:
        PATHS.log("tables"),
    conda:
        "../../environment.yml"
    params:
        code=code("analysis.tables", *FACTS),
        folder=PATHS.root,
    message:
        "tables of study {config[study]}"
    shell:
        f"lowdata-cpt tables {{params.folder}} {LOG}"


rule statistics:
    """Intervals, tests with Holm correction, minimum detectable effects, ranks, losses, probes' choices."""
    input:
        PATHS.of_study("scores.csv"),
        PATHS.of_study("curves.csv"),
        PATHS.of_study("selected.csv"),
        PATHS.of_study("cost.csv"),
        PATHS.of_study("study.json"),
        PATHS.of_study("outcomes"),
    output:
        directory(PATHS.of_study("statistics")),
    log:
        PATHS.log("statistics"),
    conda:
        "../../environment.yml"
    params:
        code=code("jobs.report", *FACTS),
        folder=PATHS.root,
    message:
        "statistics of study {config[study]}"
    shell:
        f"lowdata-cpt statistics {{params.folder}} {LOG}"


rule claims:
    """Verdicts on the papers' claims."""
    input:
        PATHS.of_study("scores.csv"),
        PATHS.of_study("curves.csv"),
        PATHS.of_study("cost.csv"),
        PATHS.of_study("study.json"),
        PATHS.of_study("not_run.json"),
        PATHS.of_study("outcomes"),
        claims=project_file(CLAIMS),
    output:
        json=PATHS.of_study("claims.json"),
        text=report(
            PATHS.of_study("claims.md"),
            category="Claims",
            caption="../report/claims.rst",
        ),
    log:
        PATHS.log("claims"),
    conda:
        "../../environment.yml"
    params:
        code=code("jobs.report", *FACTS),
        folder=PATHS.root,
    message:
        "verdicts of study {config[study]}"
    shell:
        f"lowdata-cpt claims {{params.folder}} {LOG}"


rule report:
    """One offline page: the answer, the claims, the figures, where each number comes from."""
    input:
        FIGURES,
        rules.tables.output,
        rules.statistics.output,
        rules.claims.output,
    output:
        PATHS.of_study("report.html"),
    log:
        PATHS.log("report"),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS,
    params:
        code=code("jobs.report", *FACTS),
        template=lambda wildcards: sha256_file(
            PACKAGE / "analysis/report/templates/report.html.j2"
        ),
        folder=PATHS.root,
    message:
        "report of study {config[study]}"
    shell:
        f"lowdata-cpt report {{params.folder}} {LOG}"
