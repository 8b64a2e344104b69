"""What retrieval by latents is compared with: no information, words, the raw residual stream."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from medsae.io import UserError, progress
from medsae.polysemy.retrieval import (
    cosine,
    dense_cosine,
    ranking,
    without_anchors,
    without_random,
)
from medsae.polysemy.sparse import LemmaLatents

CONTEXT = 100
"""Characters on either side of the term that TF-IDF reads; the term itself is left out."""

N_RANDOM = 10
"""Random orders whose metrics are averaged."""

Orders = list[NDArray[np.intp]]
"""Rankings [n, n] of one method, whose metrics are averaged."""


def baselines(
    latents: LemmaLatents,
    majority: NDArray[np.bool_],
    contexts: pl.DataFrame,
    activations: dict[str, Path],
    n_anchor: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, Orders]]:
    """(method, rankings [n, n] whose metrics are averaged) over one pool.

    ``majority`` [n]: occurrences of the sense that is most frequent on the development side.
    """
    patient = latents.patient
    n = len(latents)

    def ranked(similarity: NDArray) -> NDArray[np.intp]:
        return ranking(similarity, patient)

    yield "random", [ranked(rng.random((n, n))) for _ in range(N_RANDOM)]
    yield (
        "majority_sense",
        [ranked(majority[None, :] + 0.5 * rng.random((n, n))) for _ in range(N_RANDOM)],
    )
    texts = latents.table.select("occurrence_id").join(contexts, on="occurrence_id", how="left")
    yield "tfidf_context", [ranked(_tfidf((texts["left"] + " " + texts["right"]).to_list()))]
    yield "tfidf_left_context", [ranked(_tfidf(texts["left"].to_list()))]
    residual = residuals(latents.table, activations)
    yield "raw_residual", [ranked(dense_cosine(residual))]
    # a few large directions common to all tokens dominate raw cosines
    yield "raw_residual_centred", [ranked(dense_cosine(residual - residual.mean(0)))]
    yield "without_anchors", [ranked(cosine(without_anchors(latents.codes, n_anchor)))]
    drops = (without_random(latents.codes, n_anchor, rng) for _ in range(N_RANDOM // 2))
    yield "without_random", [ranked(cosine(codes)) for codes in drops]


def read_contexts(notes: str | Path, occurrences: pl.DataFrame) -> pl.DataFrame:
    """Text before and after each occurrence: occurrence_id, left, right.

    ``occurrences``: occurrence_id, doc_id, char_start, char_end. Notes stream by row group.
    """
    source = pq.ParquetFile(notes)
    parts = []
    for group in progress(range(source.num_row_groups), "reading contexts"):
        rows = source.read_row_group(group, ["doc_id", "text"])
        text = dict(zip(rows["doc_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
        own = occurrences.filter(pl.col("doc_id").is_in(list(text)))
        bounds = own.select("occurrence_id", "doc_id", "char_start", "char_end").iter_rows()
        parts += [
            (number, text[doc][max(0, start - CONTEXT) : start], text[doc][end : end + CONTEXT])
            for number, doc, start, end in bounds
        ]
    schema = ["occurrence_id", "left", "right"]
    table = pl.DataFrame(parts, schema=schema, orient="row", infer_schema_length=None)
    return table.with_columns(pl.col("occurrence_id").cast(occurrences.schema["occurrence_id"]))


def residuals(table: pl.DataFrame, activations: dict[str, Path]) -> NDArray[np.float32]:
    """Residual stream at the last token of each occurrence [n, d_model].

    ``table``: shard, row_end (exclusive). Raises ``UserError`` for a shard that is not there.
    """
    import torch

    from medsae.store import open_shard

    vectors: NDArray[np.float32] | None = None
    numbered = table.select("shard", "row_end").with_row_index("place")
    for (name,), part in numbered.group_by("shard", maintain_order=True):
        if name not in activations:
            raise UserError(f"no activation shard is named '{name}': extract activations again")
        index = torch.from_numpy(part["row_end"].to_numpy().astype(np.int64) - 1)
        rows = open_shard(activations[str(name)]).rows(index).float().numpy()
        if vectors is None:
            vectors = np.empty((len(table), rows.shape[1]), dtype=np.float32)
        vectors[part["place"].to_numpy()] = rows
    if vectors is None:
        raise ValueError("no occurrences")
    return vectors


def _tfidf(texts: list[str]) -> NDArray[np.float64]:
    try:
        matrix = TfidfVectorizer().fit_transform(texts)
    except ValueError:
        # no text holds a word
        return np.zeros((len(texts), len(texts)))
    return np.round((matrix @ matrix.T).toarray(), 12)
