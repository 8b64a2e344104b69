"""Every encoder has one interface; packaged weights become what they were trained as."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    FocalNetConfig,
    FocalNetModel,
    ViTConfig,
    ViTModel,
)

from medsae.imaging.encoders import load_encoder
from medsae.imaging.encoders.prepare import prepare_encoder
from medsae.imaging.encoders.tiny_vit import TinyViT, fold_norms
from medsae.imaging.encoders.vision_transformer import check_vision_model
from medsae.io import UserError

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "patch_size": 8,
    "image_size": 32,
}


def small_model(kind):
    torch.manual_seed(0)
    if kind == "dinov3":
        return DINOv3ViTModel(DINOv3ViTConfig(**SMALL, num_register_tokens=4))
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**SMALL))
    if kind == "vit":
        return ViTModel(ViTConfig(**SMALL))
    return ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]))


@pytest.fixture
def folder(tmp_path):
    def saved(kind):
        small_model(kind).save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return saved


def load(source, layer=None, pooling="mean", size=32):
    return load_encoder(
        source, layer=layer, pooling=pooling, size=size, dtype="float32", device=CPU
    )


def images(n=3, side=40):
    return torch.randint(0, 256, (n, side, side), dtype=torch.uint8)


@pytest.mark.parametrize("kind", ["dinov3", "dinov2", "vit", "convnext"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_any_vision_model_gives_one_embedding_per_slice_and_its_patches(folder, kind, pooling):
    encoder = load(folder(kind), pooling=pooling)
    pooled, patches = encoder(images())
    assert pooled.shape == (3, encoder.width) == (3, 32)
    assert patches.shape == (3, encoder.n_patches, 32)
    assert encoder.n_patches == (1 if kind == "convnext" else 16)
    assert pooled.dtype == patches.dtype == torch.float32


def test_class_and_register_tokens_are_no_patches(folder):
    source = folder("dinov3")
    encoder, model = load(source), small_model("dinov3").eval()
    pixels = images(2, 32)
    scaled = encoder._prepare(pixels, CPU, torch.float32)
    states = model(scaled).last_hidden_state
    assert states.shape[1] == 16 + 1 + 4
    pooled, patches = encoder(pixels)
    assert torch.allclose(patches, states[:, 5:], atol=1e-5)
    assert torch.allclose(pooled, states[:, 5:].mean(1), atol=1e-5)
    pooler = load(source, pooling="pooler")(pixels)[0]
    assert torch.allclose(pooler, model(scaled).pooler_output, atol=1e-5)


@pytest.mark.parametrize("kind", ["dinov3", "dinov2", "vit"])
def test_a_layer_is_the_output_of_that_block_and_later_ones_are_dropped(folder, kind):
    source = folder(kind)
    pixels = images(2, 32)
    encoder, model = load(source, layer=1), small_model(kind).eval()
    scaled = encoder._prepare(pixels, CPU, torch.float32)
    states = model(scaled, output_hidden_states=True).hidden_states[2]  # 0 is the embedding
    prefix = states.shape[1] - 16
    assert torch.allclose(encoder(pixels)[1], states[:, prefix:], atol=1e-5)
    kept = sum(part.numel() for part in encoder._model.parameters())
    assert kept < sum(part.numel() for part in model.parameters())


def test_layers_beyond_the_depth_and_other_models_are_refused(folder, tmp_path):
    source = folder("dinov2")
    check_vision_model(source, 2, "mean")
    with pytest.raises(UserError, match="3 blocks, 0 to 2"):
        check_vision_model(source, 3, "mean")
    with pytest.raises(UserError, match="pooled output"):
        check_vision_model(source, 1, "pooler")
    text = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    text.save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="no vision model"):
        check_vision_model(str(tmp_path / "bert"), None, "mean")
    with pytest.raises(UserError, match="does not exist"):
        check_vision_model("./nothing", None, "mean")


def test_raw_pixels_are_mean_grey_values():
    encoder = load("pixels")
    pooled, patches = encoder(torch.full((2, 64, 64), 51, dtype=torch.uint8))
    assert pooled.shape == (2, 1024)
    assert torch.allclose(pooled, torch.full((2, 1024), 0.2))
    assert patches.shape == (2, 0, 1024) and encoder.n_patches == 0


def test_random_weights_keep_the_scale_and_lose_what_was_learned(folder, tmp_path):
    source = folder("dinov2")
    prepare_encoder(source, tmp_path / "twin", random_weights=True, seed=1)
    prepare_encoder(source, tmp_path / "again", random_weights=True, seed=1)
    prepare_encoder(source, tmp_path / "other", random_weights=True, seed=2)
    pixels = images()
    twin, again, other = (load(str(tmp_path / n))(pixels)[0] for n in ("twin", "again", "other"))
    assert torch.equal(twin, again)
    assert not torch.allclose(twin, other)
    trained, drawn = small_model("dinov2"), load(str(tmp_path / "twin"))._model
    for (_, one), (_, two) in zip(
        trained.named_parameters(), drawn.named_parameters(), strict=True
    ):
        if one.numel() > 500:
            assert float(two.detach().std()) == pytest.approx(float(one.detach().std()), rel=0.2)


def lite_medsam(path):
    torch.manual_seed(0)
    state = {f"image_encoder.{key}": part for key, part in TinyViT().state_dict().items()}
    torch.save(state | {"mask_decoder.x": torch.zeros(1)}, path)


def test_lite_medsam_is_read_from_its_checkpoint(tmp_path):
    lite_medsam(tmp_path / "m.pth")
    prepare_encoder(str(tmp_path / "m.pth"), tmp_path / "m", random_weights=False, seed=0)
    encoder = load(str(tmp_path / "m"), size=32)
    pooled, patches = encoder(images(2, 32))
    assert (pooled.shape, patches.shape) == ((2, 256), (2, 256, 256))
    assert torch.allclose(patches.mean(1), pooled, atol=1e-5)
    prepare_encoder(str(tmp_path / "m.pth"), tmp_path / "r", random_weights=True, seed=0)
    assert torch.isfinite(load(str(tmp_path / "r"), size=32)(images(1, 32))[0]).all()


def test_folded_norms_change_nothing():
    torch.manual_seed(0)
    network = TinyViT()
    for name, part in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            part.uniform_(0.5, 1.5)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = network.eval()(pixels)
        fold_norms(network)
        assert torch.allclose(network(pixels), before, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_windows_that_do_not_divide_the_image_are_padded(tmp_path):
    network = TinyViT().eval()
    assert network(torch.rand(1, 3, 40, 40)).shape == (1, 256, 10, 10)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(UserError, match="no checkpoint of LiteMedSAM"):
        prepare_encoder(str(tmp_path / "m.pth"), tmp_path / "m", random_weights=False, seed=0)
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match="does not exist"):
        prepare_encoder("./nothing.pth", tmp_path / "m", random_weights=False, seed=0)


PUBLISHED = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.norm.", "patch_embed.norm."),
    ("encoder.stages.", "layers."),
    (".layers.", ".blocks."),
    (".downsample.projection.", ".downsample.proj."),
    (".projection_in.", ".f."),
    (".projection_context.", ".h."),
    (".projection_out.", ".proj."),
    ("layernorm.", "norm1."),
)


def test_biomedparse_is_read_from_its_checkpoint(tmp_path):
    torch.manual_seed(0)
    config = FocalNetConfig(
        embed_dim=16, depths=[1, 2], focal_levels=[2, 3], focal_windows=[3, 3],
        use_conv_embed=True, use_layerscale=True, layerscale_value=0.5,
        use_post_layernorm=True, normalize_modulator=True,
    )  # fmt: skip
    model = FocalNetModel(config).eval()
    state = {"sem_seg_head.x": torch.zeros(1), "backbone.norm0.weight": torch.zeros(16)}
    for name, part in model.state_dict().items():
        for ours, published in PUBLISHED:
            name = name.replace(ours, published)
        state[f"backbone.{name}"] = part
    torch.save(state, tmp_path / "b.pt")
    prepare_encoder(str(tmp_path / "b.pt"), tmp_path / "b", random_weights=False, seed=0)
    encoder = load(str(tmp_path / "b"), pooling="pooler", size=64)
    pixels = images(2, 64)
    expected = model(encoder._prepare(pixels, CPU, torch.float32)).pooler_output
    pooled, patches = encoder(pixels)
    assert torch.allclose(pooled, expected, atol=1e-5)
    assert patches.shape == (2, 64, 32)
    assert encoder._prepare.mean[0] == pytest.approx(64.284 / 255)
    torch.save({"a": torch.zeros(2)}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="no checkpoint of BiomedParse"):
        prepare_encoder(str(tmp_path / "c.pt"), tmp_path / "c", random_weights=False, seed=0)


def as_onnx(model, path):
    """The weights of ``model`` as an exporter writes them: matrices transposed and nameless."""
    constants, nodes = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))

    state = {name: part.numpy() for name, part in model.state_dict().items()}
    positions = state.pop("embeddings.position_embeddings")
    state.pop("embeddings.mask_token")
    constant("onnx::a", positions[:, :1])
    constant("onnx::b", positions[:, 1:])
    number = 0
    for name, value in state.items():
        bias = f"backbone.{name.removesuffix('weight')}bias"
        is_matrix = value.ndim == 2 and name.endswith("weight")
        if not is_matrix:
            constant(f"backbone.{name}", value)
            continue
        number += 1
        constant(f"onnx::MatMul_{number}", value.T)
        nodes.append(
            helper.make_node("MatMul", [f"x{number}", f"onnx::MatMul_{number}"], [f"p{number}"])
        )
        # exporters write the bias first or second
        order = [bias, f"p{number}"] if number % 2 else [f"p{number}", bias]
        nodes.append(helper.make_node("Add", order, [f"y{number}"]))
    value = helper.make_tensor_value_info("x1", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [value], [value], constants)
    onnx.save(helper.make_model(graph), str(path))


def test_dinov2_comes_out_of_an_onnx_file_as_it_went_in(tmp_path):
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, patch_size=8, image_size=32
    )
    model = Dinov2Model(config).eval()
    for part in model.parameters():
        torch.nn.init.normal_(part, std=0.1)
    as_onnx(model, tmp_path / "m.onnx")
    prepare_encoder(str(tmp_path / "m.onnx"), tmp_path / "m", random_weights=False, seed=0)
    encoder = load(str(tmp_path / "m"))
    pixels = images(2, 32)
    expected = model(encoder._prepare(pixels, CPU, torch.float32)).last_hidden_state[:, 1:]
    assert torch.allclose(encoder(pixels)[1], expected, atol=1e-4)


def test_an_onnx_file_of_something_else_is_refused(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    onnx.save(
        helper.make_model(helper.make_graph([], "g", [value], [value])), str(tmp_path / "m.onnx")
    )
    with pytest.raises(UserError, match="no DINOv2 backbone"):
        prepare_encoder(str(tmp_path / "m.onnx"), tmp_path / "m", random_weights=False, seed=0)
