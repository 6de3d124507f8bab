"""Which continued-pretraining method helps on 100 to 1000 unlabelled images? One workflow, several studies.

snakemake --cores 2                                     the quick study
snakemake --cores 2 --configfile config/embedded.yaml   the methods' recipes on a CPU
snakemake --cores 2 --configfile config/language.yaml   the language study
snakemake --profile slurm --cores 8 --configfile config/paper.yaml
"""

from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


# Study files are self-contained: the default one is read only when no other was given.
if "study" not in config:

    configfile: f"{workflow.basedir}/config/quick.yaml"


include: "workflow/rules/begin.smk"


if config.get("kind") == "language":

    include: "workflow/rules/language.smk"

else:

    include: "workflow/rules/common.smk"
    include: "workflow/rules/inputs.smk"
    include: "workflow/rules/pretrain.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/collect.smk"
    include: "workflow/rules/targets.smk"


include: "workflow/rules/start.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        EVERYTHING,
