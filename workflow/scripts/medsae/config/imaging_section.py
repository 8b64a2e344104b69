"""The keys of the imaging study: volumes, slices, encoders, splits and the grid of SAEs."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medsae.config.imaging_evaluation_section import ImageEvaluation, Interpretation
from medsae.config.sae_section import Sae, SaeTraining, check_k_start
from medsae.config.section import RUNTIME, FolderName, Section

Plane = Literal["axial", "coronal", "sagittal"]
Count = Annotated[int, Field(ge=1)]
PLANES: list[Plane] = ["axial", "coronal", "sagittal"]
OTHER = "other"

SAIL_DICTIONARIES = [
    [16, 64, 256, 1024],
    [32, 128, 512, 2048],
    [64, 256, 1024, 4096],
    [128, 512, 2048, 8192],
]
SAIL_K = [
    *([k] * 4 for k in (5, 10, 20, 30)),
    *([k * times for k in (5, 10, 20, 40)] for times in (1, 2, 4, 6)),
]


class ImageSource(Section):
    """Where scans come from."""

    format: Literal["manifest", "totalsegmentator"] = Field(
        "manifest",
        description="`manifest`: a CSV (image_id, modality, volume; optionally masks, labels, "
        "patient_id, institute, sex, age, study_type and others). `totalsegmentator`: the "
        "unpacked data set, with its meta.csv.",
    )
    path: str = Field(description="The manifest, or the data set's folder.")
    modality: Literal["ct", "mr"] | None = Field(
        None, description="Modality of a TotalSegmentator data set."
    )

    @model_validator(mode="after")
    def _modality_is_known(self) -> "ImageSource":
        if self.format == "totalsegmentator" and self.modality is None:
            raise ValueError("a totalsegmentator source needs `modality: ct` or `modality: mr`")
        return self


class PlanesOf(Section):
    """Planes to cut, per modality."""

    ct: Literal["acquisition"] | list[Plane] = Field(
        list(PLANES), description="Of CT: names, or `acquisition` for the axis of fewest voxels."
    )
    mr: Literal["acquisition"] | list[Plane] = Field("acquisition", description="Of MR.")


class Slicing(Section):
    """How volumes become slices."""

    pixels: int = Field(256, ge=16, le=2048, description="Side of a slice, in pixels.")
    planes: PlanesOf = Field(PlanesOf(), description="Planes to cut.")
    step_mm: float | None = Field(
        None, gt=0, description="From slice to slice. Default: one per plane of voxels."
    )
    min_side_mm: float = Field(
        64.0, ge=0, description="Planes whose central square would be smaller are not cut."
    )
    max_anisotropy: float = Field(
        3.0, ge=1, description="Planes whose voxels are longer than wide by more are not cut."
    )
    max_per_plane: int | None = Field(
        None, ge=1, description="Thin the slices of each scan and plane evenly to so many."
    )
    trim: bool = Field(
        True, description="Leave out slices before the first and after the last structure."
    )
    windows: dict[str, tuple[float, Annotated[float, Field(gt=0)]]] = Field(
        {
            "thorax": (-200, 1400),
            "abdomen": (50, 1000),
            "head": (40, 400),
            "spine": (200, 2000),
            OTHER: (50, 1000),
        },
        description="CT windows (level, width in HU): the first whose name is part of the study "
        "type, else `other`.",
    )
    n4: bool = Field(True, description="Correct the bias field of MR (N4) before scaling.")
    overlays: bool = Field(
        True, description="Keep the masks of the slices, to draw them over the figures."
    )
    png: bool = Field(False, description="Write the slices as PNG files too.")

    @field_validator("windows")
    @classmethod
    def _has_other(cls, windows: dict) -> dict:
        if OTHER not in windows:
            raise ValueError("add the window `other`, for studies without a match")
        return windows


class ImageSplits(Section):
    """Which scans are held out."""

    test_institutes: list[str] = Field(
        ["A", "D", "E"], description="Institutes whose scans are the test split."
    )
    test_fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of the patients drawn as test split, for a modality "
        "without scans of these institutes.",
    )  # fmt: skip
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of the other patients that validate the SAE."
    )


class ImageEncoder(Section):
    """One image encoder under study."""

    name: FolderName = Field(description="Folder of this encoder under the study.")
    source: str = Field(
        description="A hub id or folder of a transformers vision model; "
        "`package:NAME/FILE` for weights inside an installed Python package (.onnx: DINOv2, "
        ".pth: LiteMedSAM); the path of BiomedParse's checkpoint (.pt); or `pixels`, the control "
        "without a network."
    )
    layer: int | None = Field(
        None, ge=0, description="Block whose output is taken, 0 is the first. Default: the "
        "model's own output.",
    )  # fmt: skip
    pooling: Literal["mean", "cls", "pooler"] = Field(
        "mean", description="How a slice's tokens become one embedding."
    )
    size: int | None = Field(
        None, ge=16, description="Side of its input, in pixels. Default: the model's own."
    )
    tokens: Literal["slice", "patch"] = Field(
        "slice", description="What the SAEs learn from: one embedding per slice, or its patches."
    )
    random_weights: bool = Field(
        False, description="Keep the architecture but draw the weights at random: the control."
    )
    control_of: FolderName | None = Field(
        None,
        description="With `random_weights`: name of the encoder that it is the control of.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision the encoder computes in."
    )
    store_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision the embeddings are stored in."
    )
    batch_size: int = Field(
        16, ge=1, description="Slices of one forward pass.", json_schema_extra=RUNTIME
    )
    gpus: int = Field(0, ge=0, description="GPUs of one embedding job.")

    @model_validator(mode="after")
    def _pixels_are_plain(self) -> "ImageEncoder":
        if self.source == "pixels" and (self.random_weights or self.tokens == "patch"):
            raise ValueError("`pixels` has neither weights nor patch tokens")
        return self

    @model_validator(mode="after")
    def _controls_say_of_what(self) -> "ImageEncoder":
        if self.random_weights and self.control_of is None:
            raise ValueError(
                "`random_weights` makes a control: name the encoder with trained weights that it "
                "stands beside in `control_of`"
            )
        if self.control_of is not None and not self.random_weights:
            raise ValueError("`control_of` is for an encoder with `random_weights: true`")
        return self

    @property
    def control(self) -> str | None:
        """What kind of control this encoder is; None for one under study."""
        if self.random_weights:
            return "random weights"
        return "no network" if self.source == "pixels" else None


class ImageSaes(Section):
    """The grid of Matryoshka SAEs, trained on every encoder."""

    architecture: Literal["matryoshka", "matryoshka_levels"] = Field(
        "matryoshka",
        description="`matryoshka`: one BatchTopK over all latents, k of the last level; "
        "`matryoshka_levels`: the published variant with a k for every level.",
    )
    dictionaries: list[list[Count]] = Field(
        SAIL_DICTIONARIES, min_length=1, description="Sizes of the nested dictionaries."
    )
    k: list[list[Count]] = Field(
        SAIL_K,
        min_length=1,
        description="Active latents of each level. Each is combined with each dictionary; "
        "combinations with more active latents than a level has are left out.",
    )
    normalization: Literal["none", "token", "dataset"] = Field(
        "dataset", description="Input normalisation, folded into the checkpoint."
    )
    epochs: int | None = Field(
        100, ge=1, description="Passes over the training slices; null takes `training.n_tokens`."
    )
    training: SaeTraining = Field(
        SaeTraining(learning_rate=1e-3, dead_after_tokens=100_000), description="How they train."
    )
    gpus: int = Field(0, ge=0, description="GPUs of one training job.")

    @model_validator(mode="after")
    def _levels_fit(self) -> "ImageSaes":
        for sizes in self.dictionaries:
            if sorted(set(sizes)) != sizes:
                raise ValueError(f"dictionaries: {sizes} must rise from level to level")
            if not any(_fits(sizes, k) for k in self.k):
                raise ValueError(f"no entry of k fits the dictionary {sizes}")
        check_k_start(self.architecture, self.training)
        return self

    def grid(self) -> list[Sae]:
        """The SAEs of the grid, dictionaries first."""
        return [
            self._sae(sizes, k) for sizes in self.dictionaries for k in self.k if _fits(sizes, k)
        ]

    def _sae(self, sizes: Sequence[int], k: Sequence[int]) -> Sae:
        options = {
            "matryoshka": {"prefixes": list(sizes)},
            "matryoshka_levels": {"sizes": list(sizes), "level_k": list(k)},
        }
        return Sae(
            name=f"D_{'_'.join(map(str, sizes))}_K_{'_'.join(map(str, k))}",
            architecture=self.architecture,
            n_latents=sizes[-1],
            k=k[-1],
            normalization=self.normalization,
            options=options[self.architecture],
            training=self.training,
            gpus=self.gpus,
        )


def _fits(sizes: Sequence[int], k: Sequence[int]) -> bool:
    return len(sizes) == len(k) and all(few <= size for few, size in zip(k, sizes, strict=True))


class Imaging(Section):
    """The study of CT and MR images."""

    name: FolderName = Field(description="Folder of this study under the results directory.")
    sources: list[ImageSource] = Field(min_length=1, description="Where scans come from.")
    batches: int = Field(
        1, ge=1, le=10_000, description="Pieces the scans are divided into, one job each."
    )
    slicing: Slicing = Field(Slicing(), description="How volumes become slices.")
    splits: ImageSplits = Field(ImageSplits(), description="Which scans are held out.")
    encoders: list[ImageEncoder] = Field(min_length=1, description="Image encoders under study.")
    saes: ImageSaes = Field(ImageSaes(), description="The grid of Matryoshka SAEs.")
    evaluation: ImageEvaluation = Field(
        ImageEvaluation(), description="How the features are judged."
    )
    interpretation: Interpretation = Field(Interpretation(), description="How features are named.")

    @field_validator("encoders")
    @classmethod
    def _names_are_unique(cls, encoders: list[ImageEncoder]) -> list[ImageEncoder]:
        names = [encoder.name for encoder in encoders]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the name '{name}' is used twice: give each entry its own")
        studied = [encoder.name for encoder in encoders if encoder.control is None]
        for encoder in encoders:
            if encoder.control_of is not None and encoder.control_of not in studied:
                raise ValueError(
                    f"'{encoder.name}' is `control_of` '{encoder.control_of}', which is no encoder "
                    "with trained weights of this study"
                )
        return encoders
