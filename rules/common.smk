# Configuration, paths and resources: what every stage shares.
import hashlib
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from medsae.config import Layout, parse_config, together
from medsae.config.resources import Requests
from medsae.io import UserError
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

try:
    C = parse_config(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

L = Layout(C)
R = Requests(C)
# Threads of a heavy job: half of the machine, so that two run side by side. Two jobs of one
# thread do more than one of two. A cluster has no number of cores: eight there.
HALF = max(1, (workflow.resource_settings.cores or 16) // 2)
MODELS = {model.name: model for model in C.models}
SAES = {sae.name: sae for sae in C.saes}
PARTS = L.parts
IMAGE_GRID = C.imaging.saes.grid() if C.imaging else []


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    sae="|".join(map(re.escape, [*SAES, *(sae.name for sae in IMAGE_GRID)])),
    layer=r"\d+",
    group=r"[0-9a-f-]+",
    shard=r"(train|val)-\d{5}",
    part=r"part-\d{4}",


def every(pattern):
    """`pattern` for every model, layer and SAE of the configuration."""
    return sorted(
        {
            pattern.format(model=model.name, layer=layer, sae=sae.name)
            for model in C.models
            for layer in model.layers
            for sae in C.saes_of(model)
        }
    )


def every_trained(pattern):
    """`pattern` for every SAE of a model that is compared with random weights."""
    return sorted(
        {
            pattern.format(model=model, layer=layer, sae=sae.name)
            for model in C.untrained
            for layer in C.model(model).layers
            for sae in C.saes_of(C.model(model))
        }
    )


def untrained(pattern):
    """`pattern` for the SAE of random weights that the SAE at hand is compared with."""

    def path(wildcards):
        place = C.untrained_place(wildcards.model, int(wildcards.layer), wildcards.sae)
        return pattern.format(**dict(zip(("model", "layer", "sae"), place)))

    return path


def shards(pattern, names=L.shards):
    """`pattern` for each of the shards `names`, the other wildcards left open."""
    return [pattern.replace("{shard}", name) for name in names]


def parts(pattern):
    """`pattern` for each part of the shards, the other wildcards left open."""
    return [pattern.replace("{part}", name) for name in PARTS]


def sae_settings(wildcards):
    """What defines the weights of the SAE at hand, and nothing else."""
    return SAES[wildcards.sae].defining()


def statistics(*names):
    """The seed, and those of the statistics' keys that a rule uses."""
    return {name: getattr(C.polysemy, name) for name in names} | {"seed": C.seed}


def gpus(items, wildcard):
    """A resource function: GPUs that the entry named by `wildcard` asks for."""
    return lambda wildcards: items[getattr(wildcards, wildcard)].gpus


def required(path, key):
    """`path`, or one sentence when it neither exists nor is made by a rule."""
    if not Path(path).exists() and not path.startswith(L.demo("")):
        raise WorkflowError(
            f"The file {path} ({key}) does not exist: correct the path."
        )
    return path


def notes_if_there(path):
    """The notes as an input. Without them a plan can be printed, and the first job says so."""
    if Path(path).exists() or path.startswith(L.demo("")):
        return path
    logger.warning(
        f"The notes {path} (corpus.notes) are not there yet; a run would stop there."
    )
    return []


def language_model(wildcards):
    """The folder of a language model as an input, where a rule makes it."""
    model = MODELS[wildcards.model]
    packed = model.source.startswith("package:") or model.source.endswith(".gguf")
    made_here = packed or model.random_weights
    return {"folder": L.prepared_model(model.name)} if made_here else {}


def language_model_source(wildcards):
    """Where the scripts load the language model from."""
    return language_model(wildcards).get("folder", MODELS[wildcards.model].source)


def extraction_settings(wildcards):
    """How the hidden states of a language model are computed."""
    keys = {
        "dtype",
        "quantization",
        "store_dtype",
        "attention",
        "ctx_len",
        "stride",
        "trust_remote_code",
    }
    return MODELS[wildcards.model].model_dump(include=keys)


def description_settings(wildcards):
    """What is told of the model beside its activations.

    Whatever reads the activations runs again when one of these changes.
    """
    keys = {
        "name",
        "source",
        "random_weights",
        "ctx_len",
        "stride",
        "dtype",
        "attention",
    }
    return MODELS[wildcards.model].model_dump(include=keys)


def checkpoint_folder(wildcards):
    """Where a killed training job finds its checkpoints: never an output, so never wiped."""
    return L.checkpoints(SAES[wildcards.sae]).format(**wildcards)


def of_group(wildcards):
    """The SAEs that train in one job."""
    return together.members(wildcards.group, C.saes_of(MODELS[wildcards.model]), C.seed)


def recognition_settings(source):
    """How entities are found with the NER model at `source`."""
    keys = {"labels", "min_score", "chunk_words", "overlap_words"}
    return C.ner.model_dump(include=keys) | {"source": source}


def trained_together(wildcards):
    """The job that trains this SAE beside others, or has, if the configuration says so."""

    def is_trained(sae):
        place = L.checkpoints(sae).format(**dict(wildcards) | {"sae": sae.name})
        return any(Path(place).glob(together.TRAINED))

    place = L.together("{group}").format(group="*", **wildcards)
    made = [path.stem for path in Path(place).parent.glob(Path(place).name)]
    batch = together.batch_of(
        SAES[wildcards.sae],
        C.saes_of(MODELS[wildcards.model]),
        C.seed,
        made,
        is_trained,
    )
    return {"together": L.together(batch).format(**wildcards)} if batch else {}
