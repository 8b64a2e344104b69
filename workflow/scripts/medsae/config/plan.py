"""A study before it runs: tokens, files and GPU-hours of a configuration.

Tokens are estimated from the length of the notes, everything else by ``estimates``.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from medsae.config import estimates as est
from medsae.config.layout import Layout
from medsae.config.sae_section import Sae
from medsae.config.schema import Config, LanguageModel
from medsae.io import UserError


@dataclass(frozen=True)
class Stage:
    """The jobs of one rule on one model, layer and SAE.

    ``gpus`` of one job; ``hours`` of all jobs together, one after the other; ``memory_gb``
    on each GPU, or of the job where it has none.
    """

    rule: str
    what: str
    jobs: int
    gpus: int
    hours: float
    memory_gb: float

    @property
    def gpu_hours(self) -> float:
        """GPUs held, times the hours they are held."""
        return self.gpus * self.hours


@dataclass(frozen=True)
class Artifact:
    """Files of one kind on disk, all shards together."""

    what: str
    path: str
    gb: float


@dataclass(frozen=True)
class Plan:
    """What ``make_plan`` found; ``n_tokens`` of one model."""

    corpus: str
    n_notes: int
    n_chars: float
    n_tokens: float
    shards: int
    artifacts: list[Artifact]
    stages: list[Stage]

    @property
    def gb(self) -> float:
        """All files together."""
        return sum(artifact.gb for artifact in self.artifacts)

    @property
    def gpu_hours(self) -> float:
        """All stages together."""
        return sum(stage.gpu_hours for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """The plan with its totals, for JSON."""
        stages = [{**asdict(stage), "gpu_hours": stage.gpu_hours} for stage in self.stages]
        return {**asdict(self), "stages": stages, "gb": self.gb, "gpu_hours": self.gpu_hours}


def make_plan(config: Config, n_notes: int, n_chars: float) -> Plan:
    """Plan the study of ``n_notes`` notes of together ``n_chars`` characters.

    Both count the whole file; ``corpus.max_rows`` is applied here.
    """
    studied = min(n_notes, config.corpus.max_rows or n_notes)
    chars = n_chars * studied / max(1, n_notes)
    tokens = chars / est.CHARS_PER_TOKEN
    return Plan(
        corpus=config.corpus.name,
        n_notes=studied,
        n_chars=chars,
        n_tokens=tokens,
        shards=config.corpus.shards + config.corpus.val_shards,
        artifacts=list(_artifacts(config, chars, tokens)),
        stages=list(_stages(config, chars, tokens)),
    )


def assumed_notes(config: Config) -> tuple[int, int, str]:
    """(notes, characters, the assumption in words) for a file that is not there yet.

    Raises ``UserError`` if the configuration does not bound the number of notes.
    """
    notes, path = config.corpus.max_rows, config.corpus.notes
    if notes is None:
        raise UserError(
            f"notes file {path} does not exist: put it there, or set corpus.max_rows to plan "
            "for that many notes"
        )
    length = est.CHARS_OF_A_LONG_NOTE
    words = (
        f"**Assumed:** {path} is not there yet, so {notes:,} notes of {length:,} characters, "
        "the length of discharge summaries."
    )
    return notes, notes * length, words


def _artifacts(config: Config, chars: float, tokens: float) -> Iterator[Artifact]:
    yield Artifact("notes", "notes/", est.NOTE_CHAR_BYTES * chars / 1e9)
    spans = est.SPANS_PER_WORD * chars / est.CHARS_PER_WORD
    yield Artifact("entity spans", "ner/", est.SPAN_BYTES * spans / 1e9)
    for model in config.models:
        yield Artifact("tokens", f"{model.name}/tokens/", est.TOKEN_ROW_BYTES * tokens / 1e9)
        yield Artifact(
            "spans with tokens", f"{model.name}/ner_spans_with_tokens.*",
            est.SPAN_BYTES * spans / 1e9,
        )  # fmt: skip
        for layer in model.layers:
            folder = f"{model.name}/layer-{layer}"
            row = est.activation_row_bytes(model)
            yield Artifact("activations", f"{folder}/activations/", row * tokens / 1e9)
            for sae in config.saes_of(model):
                yield from _sae_artifacts(sae, model, f"{folder}/{sae.name}", tokens)


def _sae_artifacts(
    sae: Sae, model: LanguageModel, folder: str, tokens: float
) -> Iterator[Artifact]:
    weights = est.sae_checkpoint_bytes(sae, model.size.d_model)
    state = est.sae_state_bytes(sae, model.size.d_model)
    yield Artifact(
        "training states", f"{folder}/checkpoints/",
        (sae.training.keep_last * state + 2 * weights) / 1e9,
    )  # fmt: skip
    yield Artifact(
        "SAE, as trained and calibrated", f"{folder}/{{sae,calibrated}}/", 3 * weights / 1e9
    )
    yield Artifact(
        "top latents of every token", f"{folder}/topk/", est.topk_bytes(sae, tokens) / 1e9
    )


def _stages(config: Config, chars: float, tokens: float) -> Iterator[Stage]:
    corpus = config.corpus
    shards = corpus.shards + corpus.val_shards
    words = chars / est.CHARS_PER_WORD
    yield Stage(
        "recognise_entities", config.ner.name, shards, config.ner.gpus,
        est.ner_seconds(config, words) / 3600, est.NER_MODEL_BYTES / 1e9,
    )  # fmt: skip
    for model in config.models:
        memory = est.extraction_device_bytes(model) / 1e9
        for layer in model.layers:
            where = f"{model.name}, layer {layer}"
            computed = tokens * est.window_overhead(model)
            seconds = est.extraction_seconds(model, layer, computed)
            seconds += (shards - 1) * est.load_seconds(model)
            yield Stage("extract_activations", where, shards, model.gpus, seconds / 3600, memory)
            for sae in config.saes_of(model):
                yield from _sae_stages(config, model, sae, f"{where}, {sae.name}", tokens)
                rescored = {
                    "measure_faithfulness": est.faithfulness_tokens(model),
                    "ablate_latents": est.ablation_tokens(config, model),
                }
                for rule, n_tokens in rescored.items():
                    seconds = est.extraction_seconds(model, model.size.n_layers - 1, n_tokens)
                    yield Stage(rule, f"{where}, {sae.name}", 1, model.gpus, seconds / 3600, memory)


def _sae_stages(
    config: Config, model: LanguageModel, sae: Sae, what: str, tokens: float
) -> Iterator[Stage]:
    d_model = model.size.d_model
    training = est.sae_training_device_bytes(sae, d_model) / 1e9
    encoding = est.sae_encoding_device_bytes(sae, d_model) / 1e9
    hours = est.sae_training_seconds(sae, d_model) / 3600
    yield Stage("train_sae", what, 1, sae.gpus, hours, training)
    held_in = tokens * (1 - config.corpus.val_fraction)
    hours = est.sae_encoding_seconds(sae, d_model, held_in) / 3600
    yield Stage("calibrate_sae", what, 1, sae.gpus, hours, encoding)
    hours = est.topk_seconds(sae, d_model, tokens) / 3600
    yield Stage("export_topk", what, len(Layout(config).parts), sae.gpus, hours, encoding)


def as_markdown(plan: Plan, assumed: str = "") -> str:
    """The plan as a page; ``assumed`` is a sentence on what was not known."""
    lines = [
        f"# Plan of the study of `{plan.corpus}`",
        "",
        f"{plan.n_notes:,} notes, {plan.n_chars / 1e6:,.1f} million characters, about "
        f"{plan.n_tokens / 1e6:,.1f} million tokens per model, in {plan.shards} shards. "
        f"Together about {_number(plan.gb)} GB on disk and {_number(plan.gpu_hours)} GPU-hours.",
        *(["", assumed] if assumed else []),
        "",
        "| files | where | GB |",
        "|---|---|---:|",
        *(f"| {a.what} | `{a.path}` | {_number(a.gb)} |" for a in plan.artifacts),
        f"| **all** | | **{_number(plan.gb)}** |",
        "",
        "| stage | of | jobs | GPUs per job | GB per GPU | hours, jobs one by one | GPU-hours |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(
            f"| `{s.rule}` | {s.what} | {s.jobs} | {s.gpus} | "
            f"{_number(s.memory_gb) if s.gpus else '–'} | {_number(s.hours)} | "
            f"{_number(s.gpu_hours)} |"
            for s in plan.stages
        ),
        f"| **all** | | | | | | **{_number(plan.gpu_hours)}** |",
        "",
        "Estimates from the configuration alone, meant to be right within a factor of two; the "
        "formulas are in `workflow/scripts/medsae/config/estimates.py`.",
    ]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
