rule scores:
    """Collect one tidy table: a row a metric."""
    input:
        study=f"{RESULTS}/study.json",
        probes=probe_results(CELLS),
        costs=MODELS,
    output:
        scores=f"{RESULTS}/scores.csv",
        cost=f"{RESULTS}/cost.csv",
        curves=f"{RESULTS}/curves.csv",
        selected=f"{RESULTS}/selected.csv",
    log:
        f"{RESULTS}/logs/scores.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        code=hand.collect_params(),
        folder=subpath(output.scores, parent=True),
    message:
        "collect the scores of study {config[study]}"
    shell:
        "lowdata-cpt scores --study {input.study} --out {params.folder} >> {log} 2> >(tee -a {log} >&2)"


rule floors:
    """Score predictors that never look at an image: what every row of the tables must beat."""
    input:
        manifests=MANIFESTS,
    output:
        f"{RESULTS}/floors.csv",
    log:
        f"{RESULTS}/logs/floors.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        code=hand.floors_params(),
    message:
        "score the floors of study {config[study]}"
    shell:
        "lowdata-cpt floors --manifests {input.manifests} --out {output} >> {log} 2> >(tee -a {log} >&2)"


rule qualitative:
    """Collect example predictions of every method: first seed, largest n."""
    input:
        study=f"{RESULTS}/study.json",
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
        probes=lambda wildcards: probe_results(
            grid.shown_cells(STUDY, wildcards.backbone, wildcards.domain)
        ),
    output:
        f"{RESULTS}/qualitative/{{backbone}}-{{domain}}.npz",
    log:
        f"{RESULTS}/logs/qualitative/{{backbone}}-{{domain}}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        code=hand.collect_params(),
    message:
        "collect examples of {wildcards.domain}"
    shell:
        "lowdata-cpt qualitative --study {input.study} --backbone {wildcards.backbone} --domain {wildcards.domain}"
        " --manifest {input.manifest} --out {output} >> {log} 2> >(tee -a {log} >&2)"


rule figures_drawn:
    """Draw every figure and table from the study's tables: torch is not needed."""
    input:
        f"{RESULTS}/scores.csv",
        f"{RESULTS}/cost.csv",
        f"{RESULTS}/curves.csv",
        f"{RESULTS}/claims.json",
        [
            f"{RESULTS}/qualitative/{backbone}-{domain}.npz"
            for backbone, domain in grid.pairs(STUDY)
        ],
        [f"{RESULTS}/qualitative/inside-{'-'.join(place)}.npz" for place in ILLUSTRATED],
    output:
        figures=report(
            directory(f"{RESULTS}/figures"),
            patterns=["{name}.png"],
            category="Figures",
            labels={"figure": "{name}"},
            caption="../report/figures.rst",
        ),
        tables=directory(f"{RESULTS}/tables"),
    log:
        f"{RESULTS}/logs/figures.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        code=hand.analysis_params(),
        folder=subpath(output.figures, parent=True),
    message:
        "draw the figures of study {config[study]}"
    shell:
        "lowdata-cpt figures {params.folder} --workers {threads} >> {log} 2> >(tee -a {log} >&2)"


rule statistics:
    """Intervals, tests with Holm correction, minimum detectable effects, ranks, losses, probes' choices."""
    input:
        f"{RESULTS}/scores.csv",
        f"{RESULTS}/curves.csv",
        f"{RESULTS}/selected.csv",
    output:
        directory(f"{RESULTS}/statistics"),
    log:
        f"{RESULTS}/logs/statistics.log",
    conda:
        "../../environment.yml"
    params:
        code=hand.analysis_params(),
        folder=subpath(output[0], parent=True),
    message:
        "statistics of study {config[study]}"
    shell:
        "lowdata-cpt statistics {params.folder} >> {log} 2> >(tee -a {log} >&2)"


rule claims:
    """Verdicts on the papers' claims."""
    input:
        scores=f"{RESULTS}/scores.csv",
        claims="config/claims.yaml",
    output:
        json=f"{RESULTS}/claims.json",
        text=report(
            f"{RESULTS}/claims.md", category="Claims", caption="../report/claims.rst"
        ),
    log:
        f"{RESULTS}/logs/claims.log",
    conda:
        "../../environment.yml"
    params:
        code=hand.analysis_params(),
        folder=subpath(output.json, parent=True),
    message:
        "verdicts of study {config[study]}"
    shell:
        "lowdata-cpt claims {params.folder} >> {log} 2> >(tee -a {log} >&2)"


rule report:
    """One offline page: the answer, the claims, the figures, where each number comes from."""
    input:
        rules.figures_drawn.output,
        rules.statistics.output,
        rules.claims.output,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        code=hand.analysis_params(),
        folder=subpath(output[0], parent=True),
    message:
        "report of study {config[study]}"
    shell:
        "lowdata-cpt report {params.folder} >> {log} 2> >(tee -a {log} >&2)"
