"""Where tensors are computed, and how fast in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

FLOAT32_ERROR = 1e-5  # largest relative error of a product that still counts as float32


def best_device() -> torch.device:
    """The GPU that the job was given, if any; the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def fast_float32_products() -> Iterator[None]:
    """Inside, float32 products on CPU use oneDNN where that is exact to float32.

    oneDNN is faster than MKL on many processors, but on some it quietly rounds to
    bfloat16, so it is tried once before it is trusted. CUDA is left as it is.
    """
    backend: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    try:
        backend.fp32_precision = "bf16"
        if not _is_exact():
            backend.fp32_precision = before
        yield
    finally:
        backend.fp32_precision = before


@cache
def has_fast_int8_products() -> bool:
    """Whether this CPU multiplies int8 in units of its own, without saturating on the way."""
    if not torch.cpu._is_vnni_supported():
        return False
    left = torch.full((16, 64), 127, dtype=torch.int8)
    right = torch.full((64, 32), -127, dtype=torch.int8)
    return bool((torch._int_mm(left, right) == -64 * 127**2).all())


def _is_exact() -> bool:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(256, 512, generator=generator)
    right = torch.randn(512, 256, generator=generator)
    exact = left.double() @ right.double()
    error = (left @ right - exact).abs().max() / exact.abs().max()
    return bool(error < FLOAT32_ERROR)
