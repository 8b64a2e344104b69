"""GLiNER models: found, loaded, built on a plain encoder, saved.

A source is a hub id, a local folder, or ``package:NAME/FOLDER``, a folder inside an installed
Python package.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gliner import GLiNER, GLiNERConfig
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoConfig

from medsae.device import best_device
from medsae.io import UserError, atomic_folder

logger = logging.getLogger("medsae")

PACKAGE = "package:"
GLINER_CONFIG = "gliner_config.json"
ENCODER_CONFIG = "config.json"

MAX_WIDTH = 12
MAX_WORDS = 384
"""Words of the longest span and of the longest chunk of a GLiNER built here (its defaults)."""

DROPOUT = 0.1
"""Dropout of its head: less than GLiNER's 0.4, since a fine-tuning of a few passes over the notes
does not overfit."""


def locate(source: str) -> str:
    """The folder that ``package:NAME/FOLDER`` stands for; any other source unchanged.

    The package is found without importing it. Raises ``UserError`` if it is not installed or
    has no such folder.
    """
    if not source.startswith(PACKAGE):
        return source
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"ner.source {source}: the Python package '{name}' is not installed; install it or "
            "name another model"
        )
    folder = Path(spec.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise UserError(f"ner.source {source}: the package '{name}' has no folder '{inside}'")
    return str(folder)


def load_gliner(source: str) -> Any:
    """Load a GLiNER from a hub id or folder, in evaluation mode, on the best device.

    Raises ``UserError`` if it is not there or cannot be reached.
    """
    where = locate(source)
    if Path(where).is_dir() and not (Path(where) / GLINER_CONFIG).is_file():
        raise UserError(
            f"ner.source {source} has no {GLINER_CONFIG}, so it is no GLiNER model; to build one "
            "on a plain encoder, give ner.adapt annotated notes"
        )
    with _one_sentence(source):
        model = GLiNER.from_pretrained(where, local_files_only=Path(where).is_dir())
    return model.to(best_device()).eval()


def load_or_build_gliner(source: str) -> tuple[Any, bool]:
    """Load a GLiNER, or put a new GLiNER head on ``source`` if that is a plain encoder.

    Returns the model and whether its head is new: drawn from torch's global random state.
    """
    where = locate(source)
    if _has_file(source, where, GLINER_CONFIG):
        return load_gliner(source), False
    if not _has_file(source, where, ENCODER_CONFIG):
        raise UserError(
            f"ner.source {source} has neither {GLINER_CONFIG} nor {ENCODER_CONFIG}: name a GLiNER "
            "model or a pretrained encoder"
        )
    with _one_sentence(source):
        encoder = AutoConfig.from_pretrained(where)
        config = GLiNERConfig(
            model_name=where,
            span_mode="markerV0",
            max_width=MAX_WIDTH,
            max_len=MAX_WORDS,
            hidden_size=encoder.hidden_size,
            dropout=DROPOUT,
            # A plain encoder knows nothing of GLiNER's entity token and has no LSTM above it;
            # both would have to be learned from the few notes. Its own state on a label's
            # first word already means something.
            num_rnn_layers=0,
            embed_ent_token=False,
        )
        model = GLiNER.from_config(config, backbone_from_pretrained=True)
    return model.to(best_device()), True


def save_gliner(model: Any, folder: str | Path, name: str) -> None:
    """Save ``model`` so that ``GLiNER.from_pretrained(folder)`` needs nothing else.

    The encoder's configuration is written into the model's own, under ``name`` instead of the
    place it was read from. The folder appears whole or not at all.
    """
    model.config.model_name = name
    model.config.encoder_config = model.model.token_rep_layer.bert_layer.model.config
    model.config.encoder_config._name_or_path = name
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)


def token_limit(model: Any) -> int | None:
    """Subword tokens after which the model's tokenizer cuts a chunk off, if it does."""
    limit = model.data_processor.transformer_tokenizer.model_max_length
    return int(limit) if limit < 1_000_000 else None


def _has_file(source: str, where: str, name: str) -> bool:
    if Path(where).is_dir():
        return (Path(where) / name).is_file()
    with _one_sentence(source):
        try:
            hf_hub_download(where, name)
        except LocalEntryNotFoundError:
            if name == ENCODER_CONFIG:  # neither file is here and the hub was not asked
                raise
            return False
        except EntryNotFoundError:
            return False
    return True


@contextmanager
def _one_sentence(source: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            yield
    except UserError:
        raise
    # Hubs, tokenizers and weight readers raise everything from ValueError to their own kinds;
    # the cause goes to the log, the sentence to the person.
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        logger.debug("loading %s failed", source, exc_info=True)
        raise UserError(
            f"the NER model {source} cannot be loaded ({type(error).__name__}): check ner.source, "
            "and that the model is in the local cache or its hub can be reached"
        ) from error
