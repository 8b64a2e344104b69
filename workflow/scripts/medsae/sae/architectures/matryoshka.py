"""Matryoshka BatchTopK (Bussmann et al. 2025): nested dictionaries from one code.

The first m latents alone must reconstruct, for every prefix m. One BatchTopK over all
latents is shared by the prefixes, and their reconstructions are partial sums of one decode:

    x̂_0 = b_pre,  x̂_i = x̂_{i−1} + Σ_{j in (m_{i−1}, m_i]} z_j W_dec[j]
    Loss: Σ_i mean (x − x̂_i)² / Var(x), i = 0 … number of prefixes; the trainer adds AuxK.
"""

from dataclasses import dataclass

from torch import Tensor

from medsae.io import UserError
from medsae.sae import sharding
from medsae.sae.architectures.batch_topk import BatchTopK
from medsae.sae.architectures.registry import register
from medsae.sae.config import SAEConfig
from medsae.sae.model import Objective
from medsae.sae.sparse import Code, decode

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


@dataclass(frozen=True)
class MatryoshkaOptions:
    """``prefixes``: sizes of the nested dictionaries, rising to ``n_latents``; None takes
    1/16, 1/8, 1/4, 1/2 and all of the latents."""

    prefixes: tuple[int, ...] | None = None


@register("matryoshka")
class Matryoshka(BatchTopK):
    Options = MatryoshkaOptions

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        n = config.n_latents
        self.prefixes = check_prefixes(
            self.options.prefixes or sorted({max(1, int(n * share)) for share in SHARES}), n
        )

    def objective(self, x: Tensor) -> Objective:
        code = self.training_code(x)
        error = self.b_pre - x
        terms = {"mse_0": self.scaled_error(error)}
        begin = 0
        for end in self.prefixes:
            held = sharding.local_rows(begin, end)
            part = columns_between(code, held.start, held.stop)
            error = error + decode(part.values, part.pattern, self.W_dec, held)
            terms[f"mse_{end}"] = self.scaled_error(error)
            begin = end
        return Objective(error, code, terms)


def columns_between(code: Code, begin: int, end: int) -> Code:
    """The entries of latents ``begin`` … ``end − 1``, numbered from 0; differentiable."""
    columns = code.pattern.columns
    part = code.where((columns >= begin) & (columns < end))
    part.pattern.columns -= begin
    part.pattern.n_columns = end - begin
    return part


def check_prefixes(prefixes: list[int] | tuple[int, ...], n_latents: int) -> tuple[int, ...]:
    """The sizes as a tuple; raises ``UserError`` unless they rise from 1 to ``n_latents``."""
    sizes = tuple(int(size) for size in prefixes)
    if not sizes or sizes[0] < 1 or sizes[-1] != n_latents or sorted(set(sizes)) != list(sizes):
        raise UserError(
            f"SAEConfig: nested dictionaries {list(sizes)} must rise to n_latents = {n_latents}."
        )
    return sizes
