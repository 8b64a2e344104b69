# Before the first job of a run: everything that can be refused is refused, in one sentence.
#
# A gate that jobs depend on would do it too, but then a corrected lexicon or a second model
# would run everything behind the gate again, and `ancient()` does not help: a run that remakes
# an ancient input may end without making the targets behind it (Snakemake 9.27).
import subprocess

MODEL_RULES = {
    "prepare_language_model",
    "tokenize_notes",
    "extract_activations",
    "ablate_latents",
    "measure_faithfulness",
    "adapt_ner",
    "recognise_entities",
}


IMAGE_RULES = {"find_scans", "prepare_image_encoder", "embed_slices"}
# The rules that ask models are planned only once the SAEs are ranked: a run that ranks them, and
# goes on to the summary, will ask.
ASKING_RULES = {"interpret_features", "retrieve_by_language"}
ASKING_LATER = {"rank_configurations", "write_imaging_summary"}


def asks(rules_to_run):
    """Whether a run of `rules_to_run` asks models, or will once it has ranked the SAEs."""
    return bool(ASKING_RULES & rules_to_run) or ASKING_LATER <= rules_to_run


def preflight_checks(rules_to_run):
    """The checks that a run of `rules_to_run` needs, as preflight.py reads them."""
    checks = {}
    if rules_to_run & {"prepare_lexicon", "find_occurrences"}:
        checks["lexicon"] = {
            "lexicon": C.polysemy.lexicon,
            "controls": C.polysemy.controls,
            "sense_labels": C.polysemy.sense_labels,
            "ner_labels": C.ner.labels,
        }
    if "prepare_notes" in rules_to_run and C.corpus.notes != L.demo("notes.csv"):
        checks["notes"] = NOTES_SETTINGS
    gold = C.corpus.gold_senses
    if gold and "find_occurrences" in rules_to_run and Path(gold).exists():
        checks["gold_senses"] = gold
    spans = {
        "evaluate_ner": C.corpus.gold_spans,
        "adapt_ner": C.ner.adapt and C.ner.adapt.spans,
    }
    checks["spans"] = [
        path
        for rule, path in spans.items()
        if rule in rules_to_run and path and Path(path).exists()
    ]
    if "adapt_ner" in rules_to_run and Path(C.ner.adapt.notes).exists():
        columns = {
            key: C.corpus.model_dump()[f"{key}_column"] for key in ("text", "doc_id")
        }
        checks["ner_notes"] = {"path": C.ner.adapt.notes, "columns": columns}
    if MODEL_RULES & rules_to_run:
        keys = {"name", "source", "layers", "ctx_len", "trust_remote_code"}
        checks["models"] = {
            "models": [model.model_dump(include=keys) for model in C.models],
            "ner_source": C.ner.source,
        }
    if IMAGE_RULES & rules_to_run or asks(rules_to_run):
        checks["imaging"] = imaging_checks(rules_to_run)
    return checks


def imaging_checks(rules_to_run):
    """The arguments of `check_imaging` that a run of `rules_to_run` needs."""
    keys = {"name", "source", "layer", "pooling"}
    sources, encoders, asked = [], [], {}
    if IMAGE_RULES & rules_to_run:
        sources = [
            source.model_dump()
            for source in C.imaging.sources
            if not source.path.startswith(L.demo_scans(""))
        ]
        encoders = [encoder.model_dump(include=keys) for encoder in C.imaging.encoders]
    if asks(rules_to_run):
        asked = {
            role: model.model_dump()
            for role in ("explainer", "judge", "picker")
            if (model := getattr(C.imaging.interpretation, role))
        }
    return {"sources": sources, "encoders": encoders, "asked": asked}


onstart:
    checks = preflight_checks(
        {job.rule.name for job in workflow.dag.needrun_jobs()}
    )
    done = subprocess.run(
        [sys.executable, Path(workflow.basedir) / "workflow/scripts/preflight.py"],
        input=json.dumps(checks),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if done.returncode:
        # Warnings of libraries go to the other stream; it speaks only if Python did not start.
        raise WorkflowError(done.stdout.strip() or done.stderr.strip())
