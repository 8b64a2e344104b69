"""One SAE in training: its step, and everything that step needs as state."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from medsae.device import has_fast_int8_products
from medsae.sae import parallel, sharding
from medsae.sae.auxiliary import auxiliary_loss
from medsae.sae.checkpoint import pack_optimizer, unpack_optimizer, whole
from medsae.sae.config import TrainConfig
from medsae.sae.metrics import FIRING, QualityMeter, length
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.optimizer import build_optimizer
from medsae.sae.products import row_blocks
from medsae.sae.resample import resample
from medsae.sae.schedule import active_k, averaging_weight, base_learning_rate, learning_rate
from medsae.sae.selection import Arithmetic
from medsae.sae.sparse import forget_gradient, gradient_of


class Trainer:
    """Owns a model, its optimiser, its averaged weights and its dead-latent counters."""

    def __init__(self, model: SparseAutoencoder, train: TrainConfig) -> None:
        self.model, self.sae, self.train = model, model.config, train
        model.arithmetic = arithmetic_for(train.compute, model.W_enc.device)
        self.parameters = list(model.parameters())
        self._on_sphere = model.W_dec if model.unit_norm_decoder else None
        for parameter in self.parameters:
            gradient_of(parameter)
            # before autograd adds to a gradient itself
            parameter.register_hook(partial(_begin_at_zero, parameter))
        self.optimizer = build_optimizer(
            self.parameters, train, base_learning_rate(self.sae, train)
        )
        self.averages = (
            [p.detach().clone() for p in self.parameters] if train.ema is not None else []
        )
        self.tokens_since_fired = torch.zeros(
            model.n_latents, dtype=torch.int64, device=model.W_enc.device
        )
        self.k_aux = self.sae.k_aux or max(1, model.d_model // 2)
        self.meter = QualityMeter(model.b_pre)
        self._replicated = torch.tensor(
            [name == sharding.REPLICATED for name, _ in model.named_parameters()],
            device=model.W_enc.device,
        )
        self.step_number = 0
        self._reset_window()

    @property
    def dead(self) -> Tensor:
        """Mask [n_latents] of latents that have not fired for ``dead_after_tokens`` tokens."""
        return self.tokens_since_fired >= self.train.dead_after_tokens

    def step(self, x: Tensor) -> None:
        """Train on a batch x [n, d] of normalised activations."""
        model, rate = self.model, learning_rate(self.sae, self.train, self.step_number)
        model.k = active_k(self.sae, self.train, self.step_number)
        for parameter in self.parameters:
            forget_gradient(parameter)
        objective = model.objective(x)
        terms = objective.terms
        uses_auxk = model.uses_auxk and self.sae.aux_coefficient > 0
        dead = self.dead.nonzero().flatten() if uses_auxk else x.new_zeros(0)
        if self._is_any(dead):
            terms["auxk"] = self.sae.aux_coefficient * auxiliary_loss(
                model, x, objective.error, dead, self.k_aux
            )
        torch.stack(list(terms.values())).sum().backward()
        parallel.average_all(gradient_of(p) for p in self.parameters)
        lengths = [
            _remove_parallel(p) if p is self._on_sphere else length(gradient_of(p))
            for p in self.parameters
        ]
        norm = self._clip(torch.stack(lengths).square())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self._on_sphere is not None:
            _restore_unit_norms(self._on_sphere)
        model.after_step(objective.code, self.step_number)
        if self.train.ema is not None:
            weight = averaging_weight(self.train.ema, self.step_number)
            torch._foreach_lerp_(self.averages, [p.data for p in self.parameters], weight)
        self._count_firings(objective, x.shape[0])
        self._resample(x, objective.error)
        self.meter.add(x, objective.error, objective.code)
        for name, value in terms.items():
            self._terms[name] = value.detach().double() + self._terms.get(name, 0.0)
        self._norm += norm.double()
        self._window += 1
        self.step_number += 1

    def take_window(self) -> dict[str, float | int]:
        """Means over the steps since the last call, as a row of the metrics table."""
        quality = QualityMeter.quality(parallel.summed(self.meter.state()))
        means = {
            name: float(parallel.averaged(total)) / self._window
            for name, total in self._terms.items()
        }
        last = self.step_number - 1
        row: dict[str, float | int] = {
            "step": self.step_number,
            "n_tokens": self.step_number * self.train.batch_size,
            "loss": sum(means.values()),
            **{f"loss_{name}": value for name, value in means.items()},
            "fvu": quality.fvu,
            "nmse": quality.nmse,
            "l0": quality.l0,
            "dead_fraction": float(sharding.total(self.dead.sum())) / self.sae.n_latents,
            "learning_rate": learning_rate(self.sae, self.train, last),
            "k": active_k(self.sae, self.train, last),
            "gradient_norm": float(self._norm) / self._window,
        }
        self._reset_window()
        return row

    @contextmanager
    def averaged(self) -> Iterator[SparseAutoencoder]:
        """The model with its averaged weights, if it keeps any."""
        if not self.averages:
            yield self.model
            return
        kept = [p.detach().clone() for p in self.parameters]
        try:
            self._assign(self.averages)
            if self._on_sphere is not None:  # the mean of unit rows is shorter
                _restore_unit_norms(self._on_sphere)
            yield self.model
        finally:
            self._assign(kept)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything the next step depends on, as named tensors and a JSON note.

        Where processes share the latents all call this and the first has the tensors.
        """
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        packed, rest = pack_optimizer(self.optimizer)
        tensors |= {f"optimizer.{name}": value for name, value in packed.items()}
        tensors |= {f"average.{i}": value for i, value in enumerate(self.averages)}
        tensors["tokens_since_fired"] = self.tokens_since_fired
        tensors["meter_shift"] = self.meter.shift
        note = {"step": self.step_number, "optimizer": rest, "smallest": self.model.smallest}
        return whole(self.model, tensors), note

    def restore(self, tensors: dict[str, Tensor], note: dict[str, Any]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        unpack_optimizer(self.optimizer, under("optimizer."), note["optimizer"])
        for i, value in under("average.").items():
            self.averages[int(i)].copy_(value)
        self.tokens_since_fired.copy_(tensors["tokens_since_fired"])
        self.step_number = note["step"]
        self.model.smallest = list(note.get("smallest", self.model.smallest))
        self.meter = QualityMeter(tensors["meter_shift"].to(self.model.b_pre.device))
        self._reset_window()

    def _reset_window(self) -> None:
        self.meter.reset()
        self._terms: dict[str, Tensor] = {}
        self._norm = torch.zeros((), dtype=torch.float64, device=self.model.W_enc.device)
        self._window = 0

    def _is_any(self, latents: Tensor) -> bool:
        """Whether this process, or one that holds other latents, has some in ``latents``."""
        if not parallel.shards_latents():
            return bool(latents.numel())
        return bool(sharding.total(torch.tensor(latents.numel(), device=latents.device)))

    def _count_firings(self, objective: Objective, n_tokens: int) -> None:
        code, counts = objective.code, torch.zeros_like(self.tokens_since_fired, dtype=torch.int32)
        if objective.fired is None:
            counts.index_add_(0, code.pattern.columns, (code.values > FIRING).int())
        else:
            counts.index_add_(0, objective.fired, torch.ones_like(objective.fired))
        self.tokens_since_fired += n_tokens * parallel.batch_slice()[1]
        self.tokens_since_fired.masked_fill_(parallel.any_of(counts > 0), 0)

    def _resample(self, x: Tensor, error: Tensor) -> None:
        every = self.train.resample_every
        if every is None or (self.step_number + 1) % every:
            return
        dead = self.dead.nonzero().flatten()
        seed = self.train.seed + self.step_number
        resample(self.model, self.optimizer, x, error.detach(), dead, seed)
        self.tokens_since_fired[dead] = 0  # a fresh latent has its full time to fire

    def _clip(self, squares: Tensor) -> Tensor:
        """Norm [] of the gradient, which the optimiser then sees no longer than ``clip``.

        ``squares`` are those of the gradients' lengths, by parameter.
        """
        if parallel.shards_latents():
            of_all = sharding.total(squares.clone())
            squares = torch.where(self._replicated, squares, of_all)
        norm = squares.sum().sqrt()
        if self.train.clip is None:
            return norm
        excess = (norm / self.train.clip).clamp_min(1.0)
        if not norm.is_cuda and float(excess) == 1.0:  # on CUDA asking would stall the queue
            self.optimizer.grad_scale = self.optimizer.found_inf = None  # type: ignore[attr-defined]
        elif getattr(self.optimizer, "_step_supports_amp_scaling", False):
            # as torch's GradScaler does: a fused optimiser divides while it reads
            self.optimizer.grad_scale = excess  # type: ignore[attr-defined]
            self.optimizer.found_inf = torch.zeros_like(excess)  # type: ignore[attr-defined]
        else:
            torch._foreach_div_([gradient_of(p) for p in self.parameters], excess)
        return norm

    @torch.no_grad()
    def _assign(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def arithmetic_for(compute: str, device: torch.device) -> Arithmetic:
    """How latents are selected in training, for the precision that ``TrainConfig`` names."""
    in_int8 = device.type == "cpu" and has_fast_int8_products()
    if compute == "bfloat16":
        return Arithmetic.INT8 if in_int8 else Arithmetic.BFLOAT16
    return Arithmetic.CANDIDATES if in_int8 else Arithmetic.OWN


def _begin_at_zero(parameter: Tensor, gradient: Tensor) -> None:
    gradient_of(parameter)


@torch.no_grad()
def _remove_parallel(weight: Tensor) -> Tensor:
    """Take from the gradient of unit rows what would only change their length.

    Returns the length [] of what is left.
    """
    lengths = weight.new_empty(len(weight), 1)
    for rows, gradient, left in row_blocks(weight, gradient_of(weight), lengths):
        along = (gradient * rows).sum(1, keepdim=True)
        gradient.addcmul_(along, rows, value=-1)
        torch.linalg.vector_norm(gradient, dim=1, keepdim=True, out=left)
    return torch.linalg.vector_norm(lengths)


@torch.no_grad()
def _restore_unit_norms(weight: Tensor) -> None:
    for (rows,) in row_blocks(weight):
        rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))
