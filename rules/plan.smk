# What the study will take, before anything runs: `snakemake plan`.
localrules:
    plan,


# Without outputs, so that it is made anew whenever it is asked for; the page and its numbers
# are also left in the corpus' folder.
rule plan:
    input:
        notes=notes_if_there(C.corpus.notes),
    log:
        L.log("plan"),
    conda:
        "../envs/notes.yaml"
    params:
        config=C.model_dump(),
        page=L.corpus("plan.md"),
        table=L.corpus("plan.json"),
    message:
        "Estimating tokens, files and GPU-hours"
    script:
        "../workflow/scripts/plan.py"
