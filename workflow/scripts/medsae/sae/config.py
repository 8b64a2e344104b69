"""What an SAE is and how it is trained: two frozen dataclasses, stored as ``cfg.json``."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from medsae.io import UserError, write_json

Normalization = Literal["none", "token", "dataset", "layer_norm"]
Optimizer = Literal["adam", "adamw", "adafactor", "adam8bit"]
Decay = Literal["none", "linear", "cosine"]
ComputeType = Literal["float32", "bfloat16"]

CONFIG_NAME = "cfg.json"

RUNTIME = ("log_every", "checkpoint_every", "keep_last", "reader_threads")
"""Keys of ``TrainConfig`` that say what is recorded and how data are read: same weights."""


class _Json:
    """JSON both ways, refusing keys it does not know."""

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - known):
            raise UserError(f"{cls.__name__}: the key '{unknown[0]}' is unknown; remove it.")
        return cls(**values)


@dataclass(frozen=True)
class SAEConfig(_Json):
    """A sparse autoencoder, apart from the width of its input.

    ``k``             latents kept per token (on average, for batch-wise top-k); for the
                      other architectures only how many ``encode`` returns
    ``k_aux``         dead latents used by the auxiliary loss; None is half the input width
    ``aux_coefficient``  weight of the auxiliary loss; 0 turns it off
    ``normalization`` ``token``: centre each token and divide by its norm; ``dataset``:
                      subtract the training mean and scale to E‖x‖² = d; ``none``;
                      ``layer_norm``: SAELens's, of checkpoints read from it
    ``options``       parameters of the architecture alone; each module of
                      ``medsae.sae.architectures`` documents its own
    ``seed``          of the first weights; None is the training's
    """

    architecture: str = "topk"
    n_latents: int = 4096
    k: int = 32
    k_aux: int | None = None
    aux_coefficient: float = 1 / 32
    normalization: Normalization = "token"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        _at_least(self, "n_latents", 1)
        _at_least(self, "k", 1)
        _at_least(self, "aux_coefficient", 0)
        if self.k > self.n_latents:
            raise UserError(f"SAEConfig: k is {self.k} of {self.n_latents} latents; lower k.")
        if self.k_aux is not None:
            _at_least(self, "k_aux", 1)
        _one_of(self, "normalization", Normalization)


@dataclass(frozen=True)
class TrainConfig(_Json):
    """How an SAE is trained.

    ``n_tokens``      rows to train on, counted over all epochs; a whole number of batches
                      is made of it
    ``learning_rate`` None is 2e-4 / sqrt(n_latents / 2¹⁴)
    ``warmup`` and ``decay_share``  shares of the steps at the start and at the end
    ``clip``          largest gradient norm; None does not clip
    ``ema``           decay per step of the averaged weights that are validated and kept as
                      the best (smaller at first, ``schedule.averaging_weight``); None keeps
                      the weights themselves
    ``dead_after_tokens``  a latent that has not fired for so many tokens is dead
    ``resample_every``  steps between resamplings of dead latents; None never resamples
    ``k_start``       k at the first step, falling linearly to ``k`` over ``k_anneal`` of
                      the steps, for architectures with one k; None is ``k`` throughout
    ``log_every``, ``validate_every``, ``checkpoint_every``  in steps
    ``validation_rows``  at most so many of the held-out rows are used
    ``patience``      validations without a better NMSE after which training stops early
    ``buffer_rows``   rows held in memory for shuffling
    ``compute``       ``float32``: all in it. ``bfloat16``: encoder product and selection in
                      bfloat16, everything else, and the weights, in float32. Where a CPU is
                      faster in int8 and batches are large (``medsae.sae.candidates``), it
                      finds candidates, among which float32 decides; with ``bfloat16``, TopK
                      takes its first k as they are
    """

    n_tokens: int = 100_000_000
    batch_size: int = 2048
    learning_rate: float | None = None
    optimizer: Optimizer = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 6.25e-10
    weight_decay: float = 0.0
    warmup: float = 0.05
    decay: Decay = "linear"
    decay_share: float = 0.2
    clip: float | None = 1.0
    ema: float | None = None
    seed: int = 0
    dead_after_tokens: int = 10_000_000
    resample_every: int | None = None
    k_start: int | None = None
    k_anneal: float = 0.1
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep_last: int = 2
    validation_rows: int = 262_144
    patience: int | None = None
    buffer_rows: int = 262_144
    reader_threads: int = 1
    compute: ComputeType = "float32"

    def __post_init__(self) -> None:
        for name in (
            "n_tokens",
            "batch_size",
            "dead_after_tokens",
            "buffer_rows",
            "validation_rows",
        ):
            _at_least(self, name, 1)
        for name in ("log_every", "validate_every", "checkpoint_every", "keep_last"):
            _at_least(self, name, 1)
        for name, choices in (
            ("optimizer", Optimizer),
            ("decay", Decay),
            ("compute", ComputeType),
        ):
            _one_of(self, name, choices)
        for name in ("warmup", "decay_share", "k_anneal"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"TrainConfig: {name} is a share of the steps, from 0 to 1.")

    @property
    def n_steps(self) -> int:
        return max(1, self.n_tokens // self.batch_size)

    def defining(self) -> dict[str, Any]:
        """The keys that decide the weights; a run may go on with other values of the rest."""
        return {key: value for key, value in self.to_dict().items() if key not in RUNTIME}


def save_config(folder: Path, sae: SAEConfig, train: TrainConfig | None) -> None:
    """Write ``cfg.json`` with the keys ``sae`` and, where known, ``train``."""
    sections = {"sae": sae.to_dict()}
    if train is not None:
        sections["train"] = train.to_dict()
    write_json(folder / CONFIG_NAME, sections)


def load_config(path: Path) -> tuple[SAEConfig, TrainConfig | None]:
    """Read a ``cfg.json``; raises ``UserError`` naming it if it is missing or malformed."""
    try:
        sections = json.loads(path.read_text(encoding="utf-8"))
        train = sections.get("train")
        return (
            SAEConfig.from_dict(sections["sae"]),
            None if train is None else TrainConfig.from_dict(train),
        )
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; train the SAE first.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an SAE configuration ({error}).") from None


def _at_least(config: object, name: str, least: float) -> None:
    if getattr(config, name) < least:
        raise UserError(f"{type(config).__name__}: {name} must be at least {least}.")


def _one_of(config: object, name: str, choices: Any) -> None:
    if getattr(config, name) not in choices.__args__:
        raise UserError(
            f"{type(config).__name__}: {name} is '{getattr(config, name)}'; "
            f"choose one of {', '.join(choices.__args__)}."
        )
