"""Categories as integers, and list columns as sparse matrices."""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array


def codes_of(values: pl.Series) -> NDArray[np.intp]:
    """Codes 0 … C − 1 of ``values`` in their sorted order."""
    return np.unique(values.to_numpy(), return_inverse=True)[1]


def code_matrix(
    latent_ids: pl.Series, z_values: pl.Series, n_latents: int | None = None
) -> csr_array:
    """List columns (column numbers, their values) as CSR [n, n_latents] float32.

    The order of a row's entries is kept, so ``indices`` need not be sorted within a row.
    """
    lengths = latent_ids.list.len().fill_null(0).to_numpy().astype(np.int64)
    # an empty list explodes to one null
    indices = latent_ids.explode().drop_nulls().to_numpy().astype(np.int32)
    data = z_values.explode().drop_nulls().to_numpy().astype(np.float32)
    # scikit-learn wants 32-bit indices; whoever has 2^31 activations streams them
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if n_latents is None:
        n_latents = int(indices.max(initial=-1)) + 1
    return csr_array((data, indices, indptr), shape=(len(lengths), n_latents))
