"""The keys of a sparse autoencoder; names and defaults are the engine's, held to it by a test."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from medsae.config.section import RUNTIME, FolderName, Section

# The modules of the engine's folder: a new architecture is a new file there, and nothing else.
_FOLDER = Path(__file__).parents[1] / "sae" / "architectures"
_MODULES = sorted({path.stem for path in _FOLDER.glob("[a-z]*.py")} - {"registry"})
if TYPE_CHECKING:
    Architecture = str
else:
    Architecture = Literal[tuple(_MODULES)]


class SaeTraining(Section):
    """How an SAE is trained; the names are those of ``medsae.sae.TrainConfig``."""

    n_tokens: int = Field(
        100_000_000, ge=1, description="Tokens to train on; the store is read as often as needed."
    )
    batch_size: int = Field(2048, ge=1, description="Tokens of one optimiser step.")
    learning_rate: float | None = Field(
        None, gt=0, description="Default: 2e-4 / sqrt(n_latents / 2^14)."
    )
    optimizer: Literal["adam", "adamw", "adafactor", "adam8bit"] = Field(
        "adam", description="Optimiser; adam8bit needs CUDA and bitsandbytes."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the second moment.")
    epsilon: float = Field(6.25e-10, gt=0, description="Adam's epsilon.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of adamw.")
    warmup: float = Field(
        0.05, ge=0, le=1, description="Share of the steps over which the learning rate rises."
    )
    decay: Literal["none", "linear", "cosine"] = Field(
        "linear", description="How the learning rate falls at the end."
    )
    decay_share: float = Field(
        0.2, ge=0, le=1, description="Share of the steps over which the learning rate falls."
    )
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm; null does not clip.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay per step of averaged weights; null keeps none."
    )
    dead_after_tokens: int = Field(
        10_000_000, ge=1, description="A latent that has not fired for this many tokens is dead."
    )
    resample_every: int | None = Field(
        None, ge=1, description="Steps between two resamplings of dead latents; null never."
    )
    k_start: int | None = Field(
        None, ge=1, description="k at the first step, falling linearly to k; null is k throughout."
    )
    k_anneal: float = Field(0.1, ge=0, le=1, description="Share of the steps over which k falls.")
    log_every: int = Field(
        50, ge=1, description="Steps between two rows of metrics.", json_schema_extra=RUNTIME
    )
    validate_every: int = Field(1000, ge=1, description="Steps between two validations.")
    checkpoint_every: int = Field(
        1000, ge=1, description="Steps between two checkpoints.", json_schema_extra=RUNTIME
    )
    keep_last: int = Field(
        2,
        ge=1,
        description="Checkpoints kept, besides the best weights.",
        json_schema_extra=RUNTIME,
    )
    validation_rows: int = Field(
        262_144,
        ge=1,
        description="At most so many held-out tokens are used per validation. With 1,024 or more "
        "they also set the thresholds of SAEs that select by batch.",
    )
    patience: int | None = Field(
        None, ge=1, description="Validations without a better NMSE after which training stops."
    )
    buffer_rows: int = Field(262_144, ge=1, description="Tokens held in memory for shuffling.")
    reader_threads: int = Field(
        1, ge=1, description="Threads that read shards.", json_schema_extra=RUNTIME
    )
    compute: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: encoder product and selection in bfloat16, or TopK's in int8 on "
        "CPUs that are faster in it; float32 weights.",
    )


class Sae(Section):
    """One sparse autoencoder, trained on every layer of every model that names it."""

    name: FolderName = Field(description="Folder of this SAE under the layer.")
    architecture: Architecture = Field("topk", description="Which SAE.")
    n_latents: int = Field(ge=1, description="Latents of the dictionary.")
    k: int = Field(128, ge=1, description="Latents active per token; also exported per token.")
    k_aux: int | None = Field(
        None, ge=1, description="Dead latents the auxiliary loss uses. Default: d_model / 2."
    )
    aux_coefficient: float = Field(1 / 32, ge=0, description="Weight of the auxiliary loss.")
    normalization: Literal["none", "token", "dataset"] = Field(
        "token",
        description="Input normalisation, folded into the checkpoint: none; each token centred "
        "and scaled to unit norm; or the data set centred and scaled to E‖x‖² = d.",
    )
    options: dict[str, Any] = Field(
        {}, description="Parameters of the architecture alone, e.g. its L1 or L0 penalty."
    )
    seed: int | None = Field(
        None, ge=0, description="Seed of the first weights. Default: the study's."
    )
    training: SaeTraining = Field(SaeTraining(), description="How it is trained.")
    calibration_quantile: float = Field(
        0.999, gt=0, le=1, description="Quantile of a latent's activations that maps to 1."
    )
    together: FolderName | None = Field(
        None,
        description="SAEs with the same name here train in one job that reads the activations "
        "once; their `training` must be the same. One that joins later, or changes, is trained by "
        "itself, and nothing of the others runs again.",
    )
    gpus: int = Field(0, ge=0, description="GPUs of one training job.")
    processes: int | None = Field(
        None,
        ge=1,
        description="Processes of one training job, sharing its batches or, where the SAE is too "
        "large for one, its latents. Default: one for each GPU.",
        json_schema_extra=RUNTIME,
    )

    @property
    def n_processes(self) -> int:
        """Processes of one training job."""
        return self.processes or max(1, self.gpus)

    def defining(self) -> dict[str, Any]:
        """The keys that define the weights, as far as the data do not."""
        return self.tracked(exclude={"name", "gpus", "calibration_quantile", "together"})

    @model_validator(mode="after")
    def _k_fits(self) -> "Sae":
        if self.k > self.n_latents:
            raise ValueError(
                f"k {self.k} is larger than n_latents {self.n_latents}: lower k or raise n_latents"
            )
        return self

    @model_validator(mode="after")
    def _k_is_annealed_where_there_is_one(self) -> "Sae":
        check_k_start(self.architecture, self.training)
        return self


def check_k_start(architecture: str, training: SaeTraining) -> None:
    """Raise ``ValueError`` if k is to be annealed where training selects by something else.

    Without torch, which a machine that only submits jobs may lack, it is left to the training.
    """
    if training.k_start is None or find_spec("torch") is None:
        return
    from medsae.sae.architectures import architectures  # slow, so only where it is needed

    annealed = [name for name, known in architectures().items() if known.anneals_k]
    if architecture not in annealed:
        raise ValueError(
            f"training.k_start is for {', '.join(annealed)}, not for {architecture}: leave it out"
        )
