"""Hidden states of every token of a shard, row for row."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from medsae.activations.language_model import BlockReader
from medsae.activations.windows import Windows, pack_batches, plan_windows
from medsae.io import UserError, progress
from medsae.store import ShardWriter


def extract_activations(
    tokens: str | Path,
    path: str | Path,
    reader: BlockReader,
    *,
    sink_token: int,
    ctx_len: int,
    stride: int | None,
    tokens_per_batch: int,
    store_dtype: str,
    metadata: dict[str, Any],
) -> int:
    """Write the hidden states of the token table ``tokens`` to the shard ``path``.

    Row i of the shard, [n_tokens, d_model] in ``store_dtype``, belongs to row i of the
    table. Every window is read after ``sink_token``, which is not stored. The shard
    appears whole or not at all, so a killed job costs one shard.

    Returns the number of rows. Raises ``UserError`` naming document and token if a hidden
    state is NaN or infinite in ``store_dtype``.
    """
    table = pl.read_parquet(tokens, columns=["token_id", "token_index"])
    ids = table["token_id"].to_torch().long()
    windows = plan_windows(_counts(table["token_index"].to_numpy()), ctx_len, stride)
    lengths = windows.stop - windows.start + 1
    batches = list(pack_batches(lengths, tokens_per_batch))
    dtype = getattr(torch, store_dtype)
    facts = {key: str(value) for key, value in metadata.items()}
    with ShardWriter(path, table.height, reader.d_model, dtype, facts) as writer:
        for batch in progress(batches, f"{Path(path).stem}: batches of windows"):
            hidden = reader(_padded(ids, windows, batch, sink_token))
            rows, states = _kept(hidden, windows, batch)
            states = states.to(dtype)
            _check_finite(states, rows, tokens, store_dtype)
            writer.scatter(rows, states)
    return table.height


def _counts(token_index: np.ndarray) -> np.ndarray:
    """Tokens of each document, from indices that start again at 0."""
    first = np.flatnonzero(token_index == 0)
    return np.diff(first, append=len(token_index))


def _padded(ids: Tensor, windows: Windows, batch: np.ndarray, sink_token: int) -> Tensor:
    """Token ids int64 [windows of the batch, longest + 1], padded on the right."""
    length = int((windows.stop - windows.start)[batch].max())
    rows = torch.from_numpy(windows.start[batch])[:, None] + torch.arange(length)
    inside = rows < torch.from_numpy(windows.stop[batch])[:, None]
    padded = torch.full((len(batch), length + 1), sink_token)
    padded[:, 1:][inside] = ids[rows[inside]]
    return padded


def _kept(hidden: Tensor, windows: Windows, batch: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rows int64 [m] and hidden states [m, d] of the tokens that these windows keep."""
    start, kept, stop = (
        torch.from_numpy(part[batch])[:, None]
        for part in (windows.start, windows.kept, windows.stop)
    )
    rows = start + torch.arange(-1, hidden.shape[1] - 1)  # position 0 is the sink token
    taken = (rows >= kept) & (rows < stop)
    return rows[taken], hidden[taken.to(hidden.device)].cpu()


def _check_finite(states: Tensor, rows: Tensor, tokens: str | Path, store_dtype: str) -> None:
    bad = (~torch.isfinite(states).all(1)).nonzero()
    if not bad.numel():
        return
    row = int(rows[bad].min())
    where = pl.scan_parquet(tokens).slice(row, 1).select("doc_id", "token_index").collect()
    doc_id, token_index = where.row(0)
    raise UserError(
        f"The hidden state of token {token_index} of document {doc_id} is NaN or infinite as "
        f"{store_dtype}: use bfloat16 or float32 for `dtype` and `store_dtype`."
    )
