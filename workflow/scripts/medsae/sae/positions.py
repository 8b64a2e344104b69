"""How much of the variance an SAE explains, by the position of a token in its document.

    explained variance of position p = 1 − Σ‖x − x̂‖² / Σ‖x − x̄_p‖²

over the tokens at p, in raw units, with x̄_p their own mean. Sums are in float64 about a point
near the data; memory is bounded by the number of positions told apart.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import polars as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from medsae.device import fast_float32_products
from medsae.io import UserError, atomic_path
from medsae.sae.model import SparseAutoencoder

COLUMNS = {
    "position": pl.Int64,
    "n_tokens": pl.Int64,
    "explained_variance": pl.Float64,
    "fvu": pl.Float64,
    "l0": pl.Float64,
    "norm": pl.Float64,
}
"""``position`` counts from 0; the last row stands for all later ones too. ``norm`` is the mean of
‖x‖, ``l0`` the latents active per token. Null where there are no tokens, or only one."""


@torch.no_grad()
def explained_variance_by_position(
    sae: SparseAutoencoder, batches: Iterable[tuple[Tensor, Tensor]], n_positions: int
) -> pl.DataFrame:
    """A row per position, from batches of raw activations [n, d] and their positions [n].

    Positions from ``n_positions`` − 1 on are one row. Raises ``UserError`` if a batch has not
    one position for every activation, or if there are no batches.
    """
    device, d = sae.W_enc.device, sae.d_model
    sums = torch.zeros(n_positions, d, dtype=torch.float64, device=device)
    # count, squared error, squared distance from the shift, active latents, norm
    scalars = torch.zeros(n_positions, 5, dtype=torch.float64, device=device)
    shift: Tensor | None = None
    with fast_float32_products():
        for raw, positions in batches:
            if raw.shape[0] != positions.shape[0]:
                raise UserError(
                    f"{raw.shape[0]} activations came with {positions.shape[0]} positions; "
                    "use shards and tables of the same run."
                )
            x = raw.to(device).float()
            shift = x.mean(0) if shift is None else shift
            where = positions.to(device).long().clamp_max(n_positions - 1)
            moved = x - shift
            sums.index_add_(0, where, moved.double())
            rebuilt, active = _rebuilt(sae, x)
            values = (
                torch.ones_like(x[:, 0]),
                (x - rebuilt).square().sum(1),
                moved.square().sum(1),
                active,
                torch.linalg.vector_norm(x, dim=1),
            )
            scalars.index_add_(0, where, torch.stack(values, 1).double())
    if shift is None:
        raise UserError("there are no activations to explain; give at least one shard with rows.")
    count, error, squared, firing, norm = scalars.unbind(1)
    spread = squared - sums.square().sum(1) / count.clamp_min(1)
    fvu = torch.where((count > 1) & (spread > 0), error / spread, torch.nan)
    mean = torch.where(count > 0, 1 / count, torch.nan)
    return pl.DataFrame(
        {
            "position": torch.arange(n_positions).numpy(),
            "n_tokens": count.long().cpu().numpy(),
            "explained_variance": (1 - fvu).cpu().numpy(),
            "fvu": fvu.cpu().numpy(),
            "l0": (firing * mean).cpu().numpy(),
            "norm": (norm * mean).cpu().numpy(),
        },
        schema=COLUMNS,
    ).fill_nan(None)


def plot_positions(table: pl.DataFrame, figure: str | Path) -> None:
    """Draw explained variance over the position, with the mean norm behind it."""
    with matplotlib.rc_context({"svg.hashsalt": "medsae", "font.size": 9}):
        known = table.drop_nulls("explained_variance")
        drawn = Figure(figsize=(7, 3), layout="constrained")
        axes = drawn.subplots()
        place = known["position"] + 1
        axes.plot(place, known["explained_variance"], "o-", ms=2.5, lw=1, color="#0072B2")
        axes.set(xscale="log", xlabel="token of the document (the last stands for all later ones)")
        axes.set_ylabel("variance explained")
        axes.set_ylim(top=1)
        behind = axes.twinx()
        behind.plot(place, known["norm"], lw=1, color="#6F6F6F", ls=":")
        behind.set_ylabel("mean norm (dotted)")
        behind.set_ylim(bottom=0)
        for each in (axes, behind):
            each.spines["top"].set_visible(False)
        with atomic_path(figure) as temporary:
            metadata = {"Date": None} if Path(figure).suffix in (".svg", ".pdf") else {}
            drawn.savefig(temporary, dpi=150, metadata=metadata)


def _rebuilt(sae: SparseAutoencoder, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstructions [n, d] in raw units and the number of active latents [n]."""
    x, statistics = sae.normalize(raw)
    code = sae.gate(x - sae.b_pre)
    active = torch.zeros(x.shape[0], device=x.device)
    active.index_add_(0, code.pattern.tokens.long(), (code.values > 0).float())
    return statistics.restore(sae.decode(code.values, code.pattern)), active
