"""Where every artifact lives: a new layout is an edit of this file.

Paths are patterns with Snakemake wildcards (``{model}``, ``{layer}``, ``{sae}``,
``{shard}``; ``{encoder}`` and ``{batch}`` for images); the corpus is fixed by the
configuration and already filled in.
"""

from math import ceil

from medsae.config.sae_section import Sae
from medsae.config.schema import Config
from medsae.config.together import training_digest

DEMO = "resources/demo"
DEMO_SCANS = "resources/scans"
SHARDS_PER_PART = 16
"""Shards whose top latents one job exports: several, since each takes seconds on a GPU."""


class Layout:
    """Path patterns of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._corpus = f"{config.results_dir}/{config.corpus.name}"

    def corpus(self, name: str) -> str:
        """An artifact of the corpus, shared by all models."""
        return f"{self._corpus}/{name}"

    def model(self, name: str) -> str:
        """An artifact of one language model."""
        return f"{self._corpus}/{{model}}/{name}"

    def layer(self, name: str) -> str:
        """An artifact of one layer of a model."""
        return f"{self._corpus}/{{model}}/layer-{{layer}}/{name}"

    def sae(self, name: str) -> str:
        """An artifact of one SAE on one layer."""
        return f"{self._corpus}/{{model}}/layer-{{layer}}/{{sae}}/{name}"

    def checkpoints(self, sae: Sae) -> str:
        """Folder of what is left of training ``sae``, named after what defines its weights."""
        return self.sae(f"checkpoints/{training_digest(sae, self._config.seed)}")

    def together(self, batch: str) -> str:
        """Says that the SAEs of ``batch`` were trained, in one job (``medsae.config.together``)."""
        return self.layer(f"together/{batch}.done")

    def image(self, name: str) -> str:
        """An artifact of the imaging study, shared by all encoders."""
        study = self._config.imaging.name if self._config.imaging else "imaging"
        return f"{self._config.results_dir}/{study}/{name}"

    def encoder(self, name: str) -> str:
        """An artifact of one image encoder."""
        return self.image(f"{{encoder}}/{name}")

    def image_sae(self, name: str) -> str:
        """An artifact of one SAE on one image encoder."""
        return self.image(f"{{encoder}}/{{sae}}/{name}")

    def image_log(self, rule: str, *wildcards: str) -> str:
        """The log of a rule of the imaging study."""
        return self.image(self._record("logs", rule, wildcards, "log"))

    def image_benchmark(self, rule: str, *wildcards: str) -> str:
        """The time and memory record of a rule of the imaging study."""
        return self.image(self._record("benchmarks", rule, wildcards, "tsv"))

    def log(self, rule: str, *wildcards: str) -> str:
        """The log of a rule, one file per combination of ``wildcards``."""
        return self.corpus(self._record("logs", rule, wildcards, "log"))

    def benchmark(self, rule: str, *wildcards: str) -> str:
        """The time and memory record of a rule."""
        return self.corpus(self._record("benchmarks", rule, wildcards, "tsv"))

    @staticmethod
    def _record(folder: str, rule: str, wildcards: tuple[str, ...], suffix: str) -> str:
        name = "_".join(f"{{{wildcard}}}" for wildcard in wildcards) or rule
        return f"{folder}/{rule}/{name}.{suffix}"

    @property
    def train_shards(self) -> list[str]:
        """Names of the shards the SAE learns from."""
        return [f"train-{index:05d}" for index in range(self._config.corpus.shards)]

    @property
    def val_shards(self) -> list[str]:
        """Names of the shards that validate it."""
        return [f"val-{index:05d}" for index in range(self._config.corpus.val_shards)]

    @property
    def shards(self) -> list[str]:
        """All shards, training first."""
        return self.train_shards + self.val_shards

    @property
    def parts(self) -> dict[str, list[str]]:
        """The shards divided among the jobs that export top latents: name of a part -> shards."""
        shards = self.shards
        n = ceil(len(shards) / SHARDS_PER_PART)
        bounds = [len(shards) * index // n for index in range(n + 1)]
        return {
            f"part-{index:04d}": shards[bounds[index] : bounds[index + 1]] for index in range(n)
        }

    @property
    def batches(self) -> list[str]:
        """Names of the pieces that the scans of the imaging study are divided into."""
        n = self._config.imaging.batches if self._config.imaging else 0
        return [f"batch-{index:05d}" for index in range(n)]

    @staticmethod
    def prepared_encoder(name: str) -> str:
        """Folder of an image encoder converted from a package's weights or drawn at random."""
        return f"resources/encoders/{name}"

    @staticmethod
    def demo_packages() -> str:
        """Folder of the packages that hold the embedded default's scans."""
        return "resources/packages"

    @staticmethod
    def demo_scans(name: str) -> str:
        """A file of the embedded default's scans."""
        return f"{DEMO_SCANS}/{name}"

    @staticmethod
    def prepared_model(name: str) -> str:
        """Folder of a language model converted from a package's weights or drawn at random."""
        return f"resources/models/{name}"

    @staticmethod
    def adapted_ner(name: str) -> str:
        """Folder of a fine-tuned NER model."""
        return f"resources/ner/{name}"

    @staticmethod
    def demo(name: str) -> str:
        """A file of the generated demo corpus."""
        return f"{DEMO}/{name}"
