"""The sparse autoencoder that every architecture refines.

    u = (x − b_pre) W_encᵀ + b_enc        pre-activations
    z = gate(u)                           codes; the gate is the architecture
    x̂ = z W_dec + b_pre

W_enc and W_dec are both [n_latents, d]: row j is how latent j reads and what it writes.
x is the normalised activation; the public methods take raw activations and give raw units.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medsae.io import UserError
from medsae.sae import sharding
from medsae.sae.config import SAEConfig
from medsae.sae.metrics import length
from medsae.sae.normalization import Statistics, normalize
from medsae.sae.selection import Arithmetic
from medsae.sae.sparse import Code, Pattern, decode, pre_activations

INFERENCE_ROWS = 4096


@dataclass(frozen=True)
class NoOptions:
    """An architecture without parameters of its own."""


@dataclass
class Objective:
    """What one training step minimises: the sum of ``terms``."""

    error: Tensor  # x̂ − x [n, d], normalised
    code: Code
    terms: dict[str, Tensor] = field(default_factory=dict)
    fired: Tensor | None = None  # latents that fired, where ``code`` does not tell all


class SparseAutoencoder(nn.Module, ABC):
    """Base of the architectures; ``load_sae`` and ``build_sae`` make one."""

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    unit_norm_decoder: bool = True
    uses_auxk: ClassVar[bool] = True
    anneals_k: ClassVar[bool] = False  # whether training selects ``self.k`` latents
    selects_by_batch: ClassVar[bool] = False  # so that inference needs thresholds instead

    input_mean: Tensor
    input_scale: Tensor
    loss_scale: Tensor
    feature_scale: Tensor | None = None  # of a calibrated SAE, [n_latents]
    feature_hits: Tensor | None = None

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__()
        self.config, self.d_model = config, d_model
        self.options = self.parse_options(config)
        self.n_latents = n = sharding.share(config.n_latents)  # of this process
        self.W_enc = nn.Parameter(torch.zeros(n, d_model))
        self.b_enc = nn.Parameter(torch.zeros(n))
        self.W_dec = nn.Parameter(torch.zeros(n, d_model))
        self.b_pre = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("input_mean", torch.zeros(d_model))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("loss_scale", torch.ones(()))  # 1 / Var(x)
        self.k = config.k  # annealed in training
        # The smallest kept of the last batch, by level; where the next selection begins to look.
        self.smallest: list[float | None] = []
        self.arithmetic = Arithmetic.OWN  # of selections in training

    @classmethod
    def parse_options(cls, config: SAEConfig) -> Any:
        try:
            values = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in config.options.items()
            }
            return cls.Options(**values)
        except TypeError as error:
            raise UserError(
                f"SAEConfig: options of the architecture '{cls.name}' are wrong ({error})."
            ) from None

    @abstractmethod
    def gate(self, centred: Tensor) -> Code:
        """Codes of x − b_pre [n, d] at inference; no gradient."""

    @abstractmethod
    def objective(self, x: Tensor) -> Objective:
        """Loss terms of a batch x [n, d], normalised; differentiable."""

    def after_step(self, code: Code, step: int) -> None:
        """Update running statistics from the codes of training step ``step``, from 0."""

    def see_held_out(self, x: Tensor, weight: float) -> None:
        """Move the thresholds by ``weight`` to those of held-out rows x [n, d], normalised."""

    def pre_activations_at(self, centred: Tensor, pattern: Pattern, known: Tensor | None) -> Tensor:
        return pre_activations(centred, self.b_pre, self.W_enc, self.b_enc, pattern, known)

    def decode(self, values: Tensor, pattern: Pattern) -> Tensor:
        """x̂ [n, d], normalised; differentiable."""
        return decode(values, pattern, self.W_dec).add_(self.b_pre)

    def squared_error(self, error: Tensor) -> Tensor:
        """Mean over tokens of ‖x̂ − x‖²."""
        return _SumOfSquares.apply(error) / error.shape[0]

    def scaled_error(self, error: Tensor) -> Tensor:
        """mean (x̂ − x)² / Var(x)."""
        return _SumOfSquares.apply(error) * (self.loss_scale / error.numel())

    @torch.no_grad()
    def normalize(self, raw: Tensor) -> tuple[Tensor, Statistics]:
        """Normalised activations [n, d] on the model's device, and how to undo it."""
        raw = raw.to(self.W_enc.device)
        return normalize(raw, self.config.normalization, self.input_mean, self.input_scale)

    @torch.no_grad()
    def sparse_code(self, raw: Tensor) -> Code:
        """All active latents of raw activations [n, d]."""
        return self.gate(self.normalize(raw)[0] - self.b_pre)

    @torch.no_grad()
    def encode(self, raw: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """The ``k`` largest active latents of raw activations [n, d].

        Returns values float32 [n, k], descending, and indices int64 [n, k]; where fewer
        fire, value 0 and index 0 fill up. ``k`` is ``config.k`` unless given. Architectures
        without a fixed k may have more active latents than that: ``sparse_code`` has all.
        """
        k = self.config.k if k is None else k
        device = self.W_enc.device
        values = torch.zeros(raw.shape[0], k, device=device)
        indices = torch.zeros(raw.shape[0], k, dtype=torch.int64, device=device)
        for start in range(0, raw.shape[0], INFERENCE_ROWS):
            rows = slice(start, start + INFERENCE_ROWS)
            _fill_largest(self.sparse_code(raw[rows]), values[rows], indices[rows])
        return values, indices

    @torch.no_grad()
    def reconstruct(self, raw: Tensor) -> Tensor:
        """Reconstruction of raw activations [n, d] in raw units, with all active latents."""
        parts = []
        for part in raw.split(INFERENCE_ROWS):
            x, statistics = self.normalize(part)
            code = self.gate(x - self.b_pre)
            parts.append(statistics.restore(self.decode(code.values, code.pattern)))
        return torch.cat(parts) if parts else torch.zeros(0, self.d_model)

    @torch.no_grad()
    def latent_contribution(self, raw: Tensor, latent_ids: Tensor) -> Tensor:
        """Σ over ``latent_ids`` of z_j W_dec[j] in raw units [n, d].

        Removing those latents subtracts exactly this from the reconstruction: the scale of
        each token is included, the shift and b_pre are not.
        """
        wanted = torch.zeros(self.config.n_latents, dtype=torch.bool, device=self.W_enc.device)
        wanted[latent_ids.to(self.W_enc.device)] = True
        parts = []
        for part in raw.split(INFERENCE_ROWS):
            x, statistics = self.normalize(part)
            code = self.gate(x - self.b_pre)
            code = code.where(wanted[code.pattern.columns])
            parts.append(decode(code.values, code.pattern, self.W_dec) * statistics.scale)
        return torch.cat(parts) if parts else torch.zeros(0, self.d_model)


class _SumOfSquares(torch.autograd.Function):
    """Σ e², in two passes over e [n, d]."""

    @staticmethod
    def forward(ctx: Any, error: Tensor) -> Tensor:
        ctx.save_for_backward(error)
        return length(error).square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (error,) = ctx.saved_tensors
        return error * (2 * gradient)


def _fill_largest(code: Code, values: Tensor, indices: Tensor) -> None:
    """Write the largest positive entries of each token into zeroed [n, k] matrices."""
    positive = code.values > 0
    tokens = code.pattern.tokens[positive].long()
    columns, kept = code.pattern.columns[positive], code.values[positive]
    order = torch.argsort(kept, descending=True, stable=True)
    order = order[torch.argsort(tokens[order], stable=True)]
    tokens, columns, kept = tokens[order], columns[order], kept[order]
    first = torch.searchsorted(tokens, torch.arange(values.shape[0], device=tokens.device))
    rank = torch.arange(tokens.numel(), device=tokens.device) - first[tokens]
    within = rank < values.shape[1]
    values[tokens[within], rank[within]] = kept[within]
    indices[tokens[within], rank[within]] = columns[within].long()
