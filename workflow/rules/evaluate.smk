rule features:
    """Pass every labelled image through a frozen model once."""
    input:
        model=f"{CELL}/export",
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        temp(f"{CELL}/features.safetensors"),
    log:
        f"{RESULTS}/logs/features/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/features/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    group:
        "evaluate"
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        device=RESOURCES.device,
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    params:
        config=lambda wildcards: hand.features_params(
            STUDY, wildcards.backbone, wildcards.domain
        ),
    message:
        "features of {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt features --config {params.config:q} --model {input.model} --manifest {input.manifest}"
        " --out {output} --device {resources.device} --threads {threads} >> {log} 2> >(tee -a {log} >&2)"


rule linear:
    """kNN and linear classification on cached features."""
    input:
        features=features_of,
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        f"{CELL}/{{probe,linear}}.json",
    log:
        f"{RESULTS}/logs/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    group:
        "evaluate"
    conda:
        "../../environment.yml"
    resources:
        device=RESOURCES.device,  # SLURM wants one value in the whole group
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    params:
        config=lambda wildcards: hand.probe_params(STUDY, wildcards.probe),
    message:
        "{wildcards.probe} probe of {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt probe {wildcards.probe} --config {params.config:q} --features {input.features}"
        " --manifest {input.manifest} --seed {wildcards.seed} --out {output} >> {log} 2> >(tee -a {log} >&2)"


rule segmentation:
    """Linear segmentation head with batch norm on cached patch tokens."""
    input:
        features=features_of,
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
    output:
        scores=f"{dense_probe('segmentation')}.json",
        examples=f"{dense_probe('segmentation')}.npy",
    log:
        f"{RESULTS}/logs/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{probe}}/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    group:
        "evaluate"
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        device=RESOURCES.device,
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        config=lambda wildcards: hand.probe_params(STUDY, wildcards.probe),
    message:
        "{wildcards.probe} probe of {wildcards.method}, {wildcards.domain}, n {wildcards.n}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt probe {wildcards.probe} --config {params.config:q} --features {input.features}"
        " --manifest {input.manifest} --seed {wildcards.seed} --out {output.scores} --device {resources.device}"
        " --threads {threads} >> {log} 2> >(tee -a {log} >&2)"


use rule segmentation as depth with:
    output:
        scores=f"{dense_probe('depth')}.json",
        examples=f"{dense_probe('depth')}.npy",
