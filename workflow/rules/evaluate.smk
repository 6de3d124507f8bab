rule features:
    """Pass every labelled image through a frozen model once."""
    input:
        model=f"{CELL}/export",
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        temp(f"{CELL}/features.safetensors"),
    params:
        config=features_config,
    log:
        f"{RESULTS}/logs/features/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/features/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    group:
        "evaluate"
    threads: RESOURCES.threads
    resources:
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    conda:
        "../../environment.yml"
    message:
        "features of {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt features --config {params.config:q} --model {input.model} --manifest {input.manifest}"
        " --out {output} --device {RESOURCES.device} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule linear:
    """kNN and linear classification on cached features."""
    input:
        features=features_of,
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        f"{CELL}/{{probe,linear}}.json",
    params:
        config=probe_config,
    log:
        f"{RESULTS}/logs/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    group:
        "evaluate"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    conda:
        "../../environment.yml"
    message:
        "{wildcards.probe} probe of {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt probe {wildcards.probe} --config {params.config:q} --features {input.features}"
        " --manifest {input.manifest} --seed {wildcards.seed} --out {output} > {log} 2> >(tee -a {log} >&2)"


def dense_probe(name):
    """Return the name of a dense probe as a wildcard that matches only it."""
    return f"{CELL}/{{probe,{name}}}"


rule segmentation:
    """Linear segmentation head with batch norm on cached patch tokens."""
    input:
        features=features_of,
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        scores=f"{dense_probe('segmentation')}.json",
        examples=f"{dense_probe('segmentation')}.npy",
    params:
        config=probe_config,
    log:
        f"{RESULTS}/logs/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    group:
        "evaluate"
    threads: RESOURCES.threads
    resources:
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    conda:
        "../../environment.yml"
    message:
        "{wildcards.probe} probe of {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt probe {wildcards.probe} --config {params.config:q} --features {input.features}"
        " --manifest {input.manifest} --seed {wildcards.seed} --out {output.scores} --device {RESOURCES.device}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


use rule segmentation as depth with:
    output:
        scores=f"{dense_probe('depth')}.json",
        examples=f"{dense_probe('depth')}.npy",
