"""LiteMedSAM's image encoder: the TinyViT of Ma et al. (2024), written for inference.

After Wu et al. (2022, TinyViT): one stage of inverted-bottleneck convolutions and three of
windowed attention with a relative position bias, then SAM's neck. LiteMedSAM's variant
starts at full resolution and halves it twice, so an image of 256 pixels gives 64 × 64
tokens; any multiple of 4 works. Module names are those of the released weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
HALVED = (True, True, False)
"""Whether the step from each stage to the next halves the resolution."""
NECK = 256


class ConvNorm(nn.Sequential):
    """A convolution without bias, then batch normalisation."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.c = nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)


class Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, 4 * width, 1)
        self.conv2 = ConvNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvNorm(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(hidden))


class Merging(nn.Module):
    def __init__(self, width: int, out: int, halved: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, out, 1)
        self.conv2 = ConvNorm(out, out, 3, stride=2 if halved else 1, groups=out)
        self.conv3 = ConvNorm(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(self.conv1(x))
        return self.conv3(functional.gelu(self.conv2(hidden)))


class Attention(nn.Module):
    """Attention within windows; every head has a bias for each |Δrow|, |Δcolumn|."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        place = torch.arange(window)
        row, column = place.repeat_interleave(window), place.repeat(window)
        distance = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
        self.register_buffer("distance", distance, persistent=False)
        self.distance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        # Query, key and value of one head lie side by side.
        parts = self.qkv(self.norm(x)).view(n, length, self.heads, 3, width // self.heads)
        query, key, value = parts.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.distance]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).reshape(n, length, width))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class WindowBlock(nn.Module):
    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window)
        self.mlp = Mlp(width)
        self.local_conv = ConvNorm(width, width, 3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """x [n, width, rows, columns], and so is the result."""
        x = x + self._attend(x)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        n, width, rows, columns = x.shape
        w = self.window
        x = functional.pad(x, (0, -columns % w, 0, -rows % w)).permute(0, 2, 3, 1)
        high, wide = x.shape[1] // w, x.shape[2] // w
        windows = x.reshape(n, high, w, wide, w, width).transpose(2, 3).reshape(-1, w * w, width)
        x = self.attn(windows).view(n, high, wide, w, w, width).transpose(2, 3)
        x = x.reshape(n, high * w, wide * w, width)
        return x[:, :rows, :columns].permute(0, 3, 1, 2)


class Stage(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        width, window = WIDTHS[number], WINDOWS[number]
        self.blocks = nn.Sequential(
            *(
                WindowBlock(width, HEADS[number], window) if number else Bottleneck(width)
                for _ in range(DEPTHS[number])
            )
        )
        last = number + 1 == len(WIDTHS)
        self.downsample = (
            nn.Identity() if last else Merging(width, WIDTHS[number + 1], HALVED[number])
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        moved = x.movedim(1, -1)
        shape = self.weight.shape
        return functional.layer_norm(moved, shape, self.weight, self.bias, 1e-6).movedim(-1, 1)


class TinyViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.patch_embed = nn.Module()
        self.patch_embed.seq = nn.Sequential(
            ConvNorm(3, first // 2, 1), nn.GELU(), ConvNorm(first // 2, first, 1)
        )
        self.layers = nn.Sequential(*(Stage(number) for number in range(len(WIDTHS))))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], NECK, 1, bias=False),
            ChannelNorm(NECK),
            nn.Conv2d(NECK, NECK, 3, padding=1, bias=False),
            ChannelNorm(NECK),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Tokens [n, 256, side / 4, side / 4] of images [n, 3, side, side]."""
        return self.neck(self.layers(self.patch_embed.seq(images)))  # type: ignore[operator]


def fold_norms(network: nn.Module) -> None:
    """Put each batch normalisation of ``network`` (in eval mode) into its convolution."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.add_module("c", fuse_conv_bn_eval(module.c, module.bn))
            module.add_module("bn", nn.Identity())


def encoder_weights(state: Mapping[str, Tensor], prefix: str = "image_encoder.") -> dict:
    """The image encoder's part of a LiteMedSAM checkpoint."""
    return {key.removeprefix(prefix): part for key, part in state.items() if key.startswith(prefix)}
