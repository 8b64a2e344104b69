"""Sparse codes and the two products that touch them, with sparse backward passes.

A batch of codes is kept in compressed rows: token i has the latents
``columns[pointers[i] : pointers[i + 1]]`` with as many ``values``. With a few of
n latents active, only the encoder product is dense, and only forwards:

decode       x̂ = Z W_dec           ∂Z = sampled(g W_decᵀ)      ∂W_dec = Zᵀ g
encode       u = sampled(x W_encᵀ)                             ∂W_enc = ∂Uᵀ x

where "sampled" computes the entries of the pattern alone. Gradients of the two large
matrices are added straight into ``weight.grad``: no dense gradient of the codes exists,
and no fresh matrix is allocated per step. Where codes are dense (a ReLU autoencoder early
in training) the same functions use dense products instead. On CUDA the products are the Triton
kernels of ``medsae.sae.kernels``, where Triton is installed, as it is beside torch for CUDA.
"""

import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medsae.sae import sharding

DENSE_ABOVE = 0.15  # share of entries above which dense products are faster (measured, CPU)

Rows = slice | Tensor | None


@dataclass
class Pattern:
    """Which latents are active for which token; int32 indices (sparse BLAS wants them)."""

    pointers: Tensor  # [n_tokens + 1]
    columns: Tensor  # [n_entries]
    n_columns: int

    @classmethod
    def of_rows(cls, columns: Tensor, n_columns: int) -> "Pattern":
        """As many latents for every token: ``columns`` int32 [n_tokens, k]."""
        n, k = columns.shape
        pointers = torch.arange(n + 1, dtype=torch.int32, device=columns.device) * k
        return cls(pointers, columns.flatten(), n_columns)

    @property
    def n_tokens(self) -> int:
        return self.pointers.numel() - 1

    @property
    def n_entries(self) -> int:
        return self.columns.numel()

    @property
    def is_dense(self) -> bool:
        return self.n_entries > DENSE_ABOVE * self.n_tokens * self.n_columns

    @cached_property
    def counts(self) -> Tensor:
        """Active latents of each token [n_tokens]."""
        return self.pointers.diff()

    @cached_property
    def longest(self) -> int:
        """Most active latents of a token."""
        return int(self.counts.max()) if self.n_tokens else 0

    @cached_property
    def tokens(self) -> Tensor:
        """Token of each entry [n_entries]."""
        tokens = torch.arange(self.n_tokens, dtype=torch.int32, device=self.columns.device)
        return tokens.repeat_interleave(self.counts, output_size=self.n_entries)

    @cached_property
    def flat(self) -> Tensor:
        """Position of each entry in the flattened [n_tokens, n_columns] matrix."""
        return self.tokens.long() * self.n_columns + self.columns

    @cached_property
    def transposed(self) -> tuple[Tensor, "Pattern"]:
        """(order of the entries by latent, the pattern [n_columns, n_tokens])."""
        # Sorted by as many bits as there are: fewer passes.
        keys = self.columns.short() if self.n_columns <= 1 << 15 else self.columns
        order = torch.sort(keys, stable=True).indices
        counts = torch.bincount(self.columns, minlength=self.n_columns)
        return order, Pattern(pointers_of(counts), self.tokens[order], self.n_tokens)

    def csr(self, values: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            return torch.sparse_csr_tensor(
                self.pointers,
                self.columns,
                values,
                (self.n_tokens, self.n_columns),
                check_invariants=False,
            )

    def dense(self, values: Tensor) -> Tensor:
        """The codes as a matrix [n_tokens, n_columns]."""
        matrix = values.new_zeros(self.n_tokens * self.n_columns)
        matrix[self.flat] = values
        return matrix.view(self.n_tokens, self.n_columns)


@dataclass
class Code:
    """Codes of a batch: a pattern and its values [n_entries]."""

    pattern: Pattern
    values: Tensor

    def where(self, keep: Tensor) -> "Code":
        """The code with only the entries marked in ``keep`` [n_entries]; differentiable."""
        index = keep.nonzero().flatten()
        pointers = torch.searchsorted(index, self.pattern.pointers.long()).int()
        columns = self.pattern.columns[index]
        return Code(Pattern(pointers, columns, self.pattern.n_columns), self.values[index])


def pointers_of(counts: Tensor) -> Tensor:
    """Row pointers [n + 1], int32, of rows with ``counts`` [n] entries."""
    pointers = torch.zeros(counts.numel() + 1, dtype=torch.int32, device=counts.device)
    torch.cumsum(counts, 0, out=pointers[1:])
    return pointers


def decode(values: Tensor, pattern: Pattern, weight: Tensor, rows: Rows = None) -> Tensor:
    """Σ_j z_j W_dec[j] for every token [n_tokens, d]; differentiable.

    ``weight`` [n_latents, d] receives its gradient in ``weight.grad`` if it requires one.
    With ``rows`` (a slice or a vector of latents) the pattern's columns number those rows.
    Where processes share the latents, the sum is over all of theirs.
    """
    return sharding.summed(_Decode.apply(values, pattern, weight, rows))


def pre_activations(
    centred: Tensor,
    b_pre: Tensor,
    weight: Tensor,
    b_enc: Tensor,
    pattern: Pattern,
    known: Tensor | None = None,
    rows: Rows = None,
) -> Tensor:
    """(x − b_pre) · W_enc[j] + b_enc[j] at the entries of ``pattern`` [n_entries]; differentiable.

    ``centred`` is x − b_pre [n_tokens, d]; ``known`` are the values where the selection has
    already computed them in full precision. Gradients reach ``b_pre`` [d], ``b_enc``
    [n_latents] and, in ``weight.grad``, ``weight`` [n_latents, d].
    """
    return _PreActivations.apply(b_pre, b_enc, centred, weight, pattern, known, rows)


@cache
def _triton_kernels() -> ModuleType | None:
    try:
        from medsae.sae import kernels
    except ImportError:
        return None
    return kernels


def _kernels_for(tensor: Tensor) -> ModuleType | None:
    """The kernels for tensors like this one, where there are any."""
    suitable = tensor.is_cuda and tensor.dtype != torch.float64  # they sum in float32
    return _triton_kernels() if suitable else None


def gradient_of(weight: Tensor) -> Tensor:
    """``weight.grad``, made if there is none."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    elif _is_left_over(weight):
        weight.grad.zero_()
        weight.gradient_is_left_over = False  # type: ignore[attr-defined]
    return weight.grad


def forget_gradient(weight: Tensor) -> None:
    """Let the next use of ``weight.grad`` begin at 0, without writing zeros now."""
    weight.gradient_is_left_over = True  # type: ignore[attr-defined]


def _is_left_over(weight: Tensor) -> bool:
    return getattr(weight, "gradient_is_left_over", False)


def sampled_product(pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
    """(left rightᵀ) at the entries of ``pattern`` [n_entries]."""
    if not pattern.n_entries:
        return left.new_zeros(0)
    if pattern.is_dense:
        return (left @ right.T).flatten()[pattern.flat]
    if kernels := _kernels_for(left):
        return kernels.sampled(pattern.pointers, pattern.columns, left, right, pattern.longest)
    empty = pattern.csr(left.new_zeros(pattern.n_entries))
    return torch.sparse.sampled_addmm(empty, left, right.T, beta=0).values()


def _add_transposed_product(
    weight: Tensor, rows: Rows, pattern: Pattern, values: Tensor, right: Tensor
) -> None:
    """weight.grad[rows] += Zᵀ right, with Z = (pattern, values) and right [n_tokens, d]."""
    if not pattern.n_entries:
        return
    kernels = _kernels_for(right)
    if _is_left_over(weight) and rows is None and not pattern.is_dense and not kernels:
        weight.gradient_is_left_over = False  # type: ignore[attr-defined]
        assert weight.grad is not None
        _add_sparse_product(weight.grad, pattern, values, right, beta=0)
        return
    gradient = gradient_of(weight)
    target = gradient[rows] if isinstance(rows, slice) else gradient
    if isinstance(rows, Tensor):
        target = weight.new_zeros(rows.numel(), weight.shape[1])
    if pattern.is_dense:
        target.addmm_(pattern.dense(values).T, right)
    else:
        _add_sparse_product(target, pattern, values, right, kernels)
    if isinstance(rows, Tensor):
        gradient.index_add_(0, rows, target)


def _add_sparse_product(
    target: Tensor,
    pattern: Pattern,
    values: Tensor,
    right: Tensor,
    kernels: ModuleType | None = None,
    beta: int = 1,
) -> None:
    """target = beta · target + Zᵀ right."""
    order, transposed = pattern.transposed
    if kernels:
        kernels.weighted_rows(
            transposed.pointers, transposed.columns, values[order], right, target, add=True
        )
    else:
        torch.addmm(target, transposed.csr(values[order]), right, beta=beta, out=target)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, pattern: Pattern, weight: Tensor, rows: Rows) -> Tensor:
        used = weight.detach() if rows is None else weight.detach()[rows]
        ctx.save_for_backward(values, used)
        ctx.pattern, ctx.weight, ctx.rows = pattern, weight, rows
        if not pattern.n_entries:
            return used.new_zeros(pattern.n_tokens, used.shape[1])
        if pattern.is_dense:
            return pattern.dense(values) @ used
        if kernels := _kernels_for(used):
            out = used.new_empty(pattern.n_tokens, used.shape[1])
            return kernels.weighted_rows(pattern.pointers, pattern.columns, values, used, out)
        return functional.embedding_bag(
            pattern.columns,
            used,
            pattern.pointers,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        values, used = ctx.saved_tensors
        gradient = gradient.contiguous()
        if ctx.weight.requires_grad:
            _add_transposed_product(ctx.weight, ctx.rows, ctx.pattern, values, gradient)
        wanted = ctx.needs_input_grad[0]
        return sampled_product(ctx.pattern, gradient, used) if wanted else None, None, None, None


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        b_pre: Tensor,
        b_enc: Tensor,
        centred: Tensor,
        weight: Tensor,
        pattern: Pattern,
        known: Tensor | None,
        rows: Rows,
    ) -> Tensor:
        used = weight.detach() if rows is None else weight.detach()[rows]
        ctx.save_for_backward(centred, used)
        ctx.pattern, ctx.weight, ctx.rows = pattern, weight, rows
        if known is not None:
            return known.clone()
        bias = b_enc if rows is None else b_enc[rows]
        return sampled_product(pattern, centred, used) + bias[pattern.columns]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        centred, used = ctx.saved_tensors
        pattern, weight, rows = ctx.pattern, ctx.weight, ctx.rows
        if weight.requires_grad:
            _add_transposed_product(weight, rows, pattern, gradient, centred)
        per_latent = gradient.new_zeros(pattern.n_columns)
        per_latent.index_add_(0, pattern.columns, gradient)
        g_bias = per_latent
        if rows is not None:
            g_bias = gradient.new_zeros(weight.shape[0])
            g_bias[rows] = per_latent
        return -sharding.total(per_latent @ used), g_bias, None, None, None, None, None
