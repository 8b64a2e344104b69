"""BiomedParse's image encoder out of its checkpoint, as a FocalNet of transformers.

BiomedParse (Zhao et al. 2024) segments with a FocalNet-L (Yang et al. 2022): its last stage
gives 1536 values per 32 × 32 pixels, of which the mean describes an image. Only that part
of the checkpoint is read, so neither its code nor its environment is needed.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import FocalNetConfig, FocalNetModel

from medsae.io import UserError

STEM = "patch_embed.proj.weight"
SIZE = 1024
MEAN = tuple(value / 255 for value in (64.284, 59.293, 59.962))
STD = tuple(value / 255 for value in (62.484, 60.865, 59.835))
FOCAL_FACTOR = 2
"""Each focal level's kernel is so much wider than that of the level before."""

NAMES = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    (r"^layers\.(\d+)\.downsample\.proj\.", r"encoder.stages.\1.downsample.projection."),
    (r"^layers\.(\d+)\.downsample\.norm\.", r"encoder.stages.\1.downsample.norm."),
    (r"\.modulation\.f\.", ".modulation.projection_in."),
    (r"\.modulation\.h\.", ".modulation.projection_context."),
    (r"\.modulation\.proj\.", ".modulation.projection_out."),
)


def biomedparse_encoder(checkpoint: Mapping[str, Tensor]) -> FocalNetModel:
    """The image encoder in the state dictionary ``checkpoint``.

    Its size is read off the tensors. Raises ``UserError`` if there is no FocalNet inside.
    """
    stem = next((name for name in checkpoint if name.endswith(STEM)), None)
    if stem is None:
        raise UserError("is no checkpoint of BiomedParse: it has no FocalNet backbone.")
    prefix = stem.removesuffix(STEM)
    own = {
        name.removeprefix(prefix): part
        for name, part in checkpoint.items()
        if name.startswith(prefix)
    }
    config = _config(own)
    last = len(config.depths) - 1
    state = {}
    for name, part in own.items():
        if match := re.match(r"^norm(\d+)\.(weight|bias)$", name):
            # Every stage has a norm for its output; only the last stage's output is used.
            if int(match[1]) == last:
                state[f"layernorm.{match[2]}"] = part
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = part
    model = FocalNetModel(config)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise UserError("its weights are not those of BiomedParse's FocalNet.") from None
    return model


def preprocessor() -> dict[str, Any]:
    """What BiomedParse does to an image, as transformers writes it down."""
    return {"image_mean": MEAN, "image_std": STD, "size": {"height": SIZE}}


def _config(state: Mapping[str, Tensor]) -> FocalNetConfig:
    blocks = [re.match(r"^layers\.(\d+)\.blocks\.(\d+)\.", name) for name in state]
    found = {(int(match[1]), int(match[2])) for match in blocks if match}
    depths = [
        1 + max(block for stage, block in found if stage == number)
        for number in range(1 + max(stage for stage, _ in found))
    ]
    kernels = "layers.{}.blocks.0.modulation.focal_layers.{}.0.weight"
    levels = [
        next(level for level in range(99) if kernels.format(stage, level) not in state)
        for stage in range(len(depths))
    ]
    stem = state[STEM]
    return FocalNetConfig(
        image_size=SIZE,
        embed_dim=stem.shape[0],
        depths=depths,
        focal_levels=levels,
        focal_windows=[state[kernels.format(n, 0)].shape[-1] for n in range(len(depths))],
        use_conv_embed=stem.shape[-1] == 7,
        use_layerscale="layers.0.blocks.0.gamma_1" in state,
        use_post_layernorm=True,
        use_post_layernorm_in_modulation=False,
        normalize_modulator=True,
    )
