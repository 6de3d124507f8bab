"""What can be asked for by name: everything, or the images, the models, the scores alone."""

# Every cell by name: in a fresh clone the tables are there, and nothing else would ask for what they came from.
EVERYTHING = [*MODELS, *EVALUATIONS]
if any(TASKS.values()):
    EVERYTHING += [
        rules.report.output,
        rules.claims.output,
        FIGURES,
        rules.tables.output,
        rules.trivial_baselines.output,
    ]
else:
    # Images without any labels cannot be scored: then the models are the result, and a report of their features.
    EVERYTHING += [PATHS.of_study("report.html")]


localrules:
    data_ready,
    models,
    evaluation,


rule data_ready:
    input:
        MANIFESTS,


rule models:
    input:
        MODELS,


rule evaluation:
    input:
        PATHS.of_study("scores.csv"),
