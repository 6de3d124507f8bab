rule pretrain:
    """Continue pretraining one cell; interrupted, it goes on from its checkpoint with the same command."""
    input:
        backbone=f"{RESULTS}/backbones/{{backbone}}/model.safetensors",
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
        subset=subset_of,
    output:
        export=(
            directory if STUDY.keep_models else lambda path: temp(directory(path))
        )(f"{CELL}/export"),
        log=f"{CELL}/log.csv",
        cost=f"{CELL}/cost.json",
    log:
        f"{RESULTS}/logs/pretrain/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pretrain/{{backbone}}/{{domain}}/{{method}}/n{{n}}/s{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        device=RESOURCES.device,
        checkpoint_seconds=str(RESOURCES.checkpoint_seconds),
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        config=lambda wildcards: hand.training_params(
            STUDY, wildcards.backbone, wildcards.method
        ),
        backbone=subpath(input.backbone, parent=True),
        folder=subpath(output.cost, parent=True),
        subset=lambda wildcards, input: (
            f"--subset {input.subset}" if input.subset else ""
        ),
        checkpoints=f"work/checkpoints/{CELL}",
    message:
        "pretrain {wildcards.method} on {wildcards.n} images of {wildcards.domain}, seed {wildcards.seed}"
    shell:
        "lowdata-cpt pretrain --config {params.config:q} --backbone {params.backbone} --manifest {input.manifest}"
        " {params.subset} --seed {wildcards.seed} --checkpoints {params.checkpoints} --out {params.folder}"
        " --device {resources.device} --threads {threads} --checkpoint-seconds {resources.checkpoint_seconds}"
        " >> {log} 2> >(tee -a {log} >&2)"


rule illustration:
    """Train one cell once more and look inside: masks over time, regions, what the value foretells."""
    input:
        backbone=f"{RESULTS}/backbones/{{backbone}}/model.safetensors",
        manifest=f"{RESULTS}/data/{{domain}}/manifest.json",
        subset=lambda wildcards: subset_of(ILLUSTRATED[tuple(wildcards)]),
    output:
        f"{RESULTS}/qualitative/inside-{{backbone}}-{{domain}}-{{method}}.npz",
    log:
        f"{RESULTS}/logs/illustrations/{{backbone}}-{{domain}}-{{method}}.log",
    conda:
        "../../environment.yml"
    threads: RESOURCES.threads
    resources:
        device=RESOURCES.device,
        gpu=RESOURCES.gpu,
        mem_mb=RESOURCES.mem_mb,
        runtime=RESOURCES.runtime,
    params:
        config=lambda wildcards: hand.illustration_params(
            STUDY, wildcards.backbone, wildcards.method
        ),
        backbone=subpath(input.backbone, parent=True),
        seed=STUDY.seeds[0],
    message:
        "look inside {wildcards.method} on {wildcards.domain}"
    shell:
        "lowdata-cpt illustrate --config {params.config:q} --backbone {params.backbone} --manifest {input.manifest}"
        " --subset {input.subset} --seed {params.seed} --out {output} --device {resources.device}"
        " --threads {threads} >> {log} 2> >(tee -a {log} >&2)"
