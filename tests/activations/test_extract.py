"""Row i of a shard is the hidden state of token i of its table, whatever the batching."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from medsae.activations.describe import describe_activations, shards_of
from medsae.activations.extract import extract_activations
from medsae.activations.language_model import BlockReader, load_block_reader
from medsae.activations.tokenize import tokenize_notes
from medsae.io import UserError
from medsae.store import open_shard

LAYER = 2
BOS = 1


@pytest.fixture(scope="module")
def reader(smollm: str) -> BlockReader:
    return load_block_reader(smollm, LAYER)


@pytest.fixture(scope="module")
def tokens(
    smollm_tokenizer: Tokenizer, notes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "train-00000.parquet"
    tokenize_notes(notes, "train-00000", smollm_tokenizer, path)
    return path


def extract(tokens: Path, path: Path, reader: BlockReader, **changes: object) -> Tensor:
    settings = {
        "sink_token": BOS,
        "ctx_len": 16,
        "stride": None,
        "tokens_per_batch": 256,
        "store_dtype": "float32",
        "metadata": {"layer": LAYER},
    }
    n_rows = extract_activations(tokens, path, reader, **(settings | changes))
    shard = open_shard(path)
    assert shard.n_rows == n_rows
    return shard.read(0, n_rows)


def by_hand(tokens: Path, reader: BlockReader, ctx_len: int, stride: int) -> Tensor:
    """One window at a time: each token from the first window that reaches it."""
    parts = []
    for _, part in pl.read_parquet(tokens).group_by(["doc_id"], maintain_order=True):
        ids = part["token_id"].to_torch().long()
        done = start = 0
        while done < len(ids):
            stop = min(start + ctx_len, len(ids))
            window = torch.cat([torch.tensor([BOS]), ids[start:stop]])
            parts.append(reader(window[None])[0, 1 + done - start :])
            done, start = stop, start + stride
    return torch.cat(parts)


@pytest.mark.parametrize("stride", [16, 6])
@pytest.mark.parametrize("tokens_per_batch", [1, 60, 4096])
def test_rows_equal_windows_read_one_at_a_time(
    tokens: Path, reader: BlockReader, tmp_path: Path, stride: int, tokens_per_batch: int
):
    found = extract(
        tokens, tmp_path / "a.safetensors", reader, stride=stride, tokens_per_batch=tokens_per_batch
    )
    expected = by_hand(tokens, reader, 16, stride)
    assert found.shape == (pl.read_parquet(tokens).height, 576)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert found.norm(dim=1).max() < 20 * found.norm(dim=1).median()  # no sink among the rows


def test_extracting_again_gives_the_same_bytes(tokens: Path, reader: BlockReader, tmp_path: Path):
    for name in ("one", "two"):
        extract(tokens, tmp_path / f"{name}.safetensors", reader, store_dtype="bfloat16")
    one, two = (tmp_path / f"{name}.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert open_shard(one).dtype == torch.bfloat16
    assert open_shard(one).metadata == {"layer": "2"}


class Broken(BlockReader):
    """A model whose hidden state explodes on one token."""

    def __call__(self, token_ids: Tensor) -> Tensor:
        hidden = super().__call__(token_ids).clone()
        hidden[token_ids == self.target] = float("nan")
        return hidden

    target: int = -1


def test_a_nan_names_the_document_and_token(tokens: Path, reader: BlockReader, tmp_path: Path):
    table = pl.read_parquet(tokens)
    counts = table["token_id"].value_counts().filter(pl.col("count") == 1)
    bad = table.filter((pl.col("doc_id") == "b") & pl.col("token_id").is_in(counts["token_id"]))
    Broken.target = bad["token_id"][0]
    broken = Broken(reader.decoder, reader.device)
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match=f"token {bad['token_index'][0]} of document b is NaN"):
        extract(tokens, path, broken)
    assert list(tmp_path.iterdir()) == []


def test_float16_overflow_is_an_error_not_an_infinity(
    tokens: Path, reader: BlockReader, tmp_path: Path
):
    class Large(BlockReader):
        def __call__(self, token_ids: Tensor) -> Tensor:
            return super().__call__(token_ids) + 1e5

    large = Large(reader.decoder, reader.device)
    with pytest.raises(UserError, match="infinite as float16"):
        extract(tokens, tmp_path / "a.safetensors", large, store_dtype="float16")


def test_a_shard_without_tokens_is_an_empty_shard(
    tokens: Path, reader: BlockReader, tmp_path: Path
):
    empty = tmp_path / "empty.parquet"
    pl.read_parquet(tokens).head(0).write_parquet(empty)
    assert extract(empty, tmp_path / "a.safetensors", reader).shape == (0, 576)


def test_metadata_count_what_the_shards_hold(tokens: Path, reader: BlockReader, tmp_path: Path):
    path = tmp_path / "train-00000.safetensors"
    states = extract(tokens, path, reader)
    metadata = describe_activations([tokens], [path], {"model": "m", "layer": LAYER})
    assert metadata["model"] == "m"
    assert metadata["d_model"] == 576
    assert metadata["store_dtype"] == "float32"
    assert metadata["splits"] == {"train": {"tokens": len(states), "documents": 3}}
    shard = metadata["shards"]["train-00000"]
    assert shard["norm_median"] == pytest.approx(float(states.norm(dim=1).median()), rel=0.02)

    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    assert shards_of(tmp_path / "metadata.json", "train") == [path]
    assert shards_of(tmp_path / "metadata.json", "val") == []
    path.rename(tmp_path / "aside")
    with pytest.raises(UserError, match=r"has been deleted: delete .*metadata\.json too"):
        shards_of(tmp_path / "metadata.json")
    (tmp_path / "aside").rename(path)

    short = tmp_path / "short.parquet"
    pl.read_parquet(tokens).head(5).write_parquet(short)
    with pytest.raises(UserError, match="rows for the 5 tokens"):
        describe_activations([short], [path], {})
