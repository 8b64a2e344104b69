import pytest
import torch

from medsae.io import UserError
from medsae.sae import SAEConfig, TrainConfig, build_sae, load_sae, save_checkpoint
from medsae.sae.initialize import START_NORM, geometric_median, initialize

KINDS = ["none", "token", "dataset", "layer_norm"]


@pytest.fixture
def model(planted):
    def make(normalization, **changes):
        made = build_sae(SAEConfig(n_latents=96, k=5, normalization=normalization, **changes), 24)
        initialize(made, planted[0](3000, 1), seed=0)
        return made

    return make


@torch.no_grad()
def rebuilt(sae, values, indices, statistics):
    """x̂ = z W_dec + b_pre in raw units, z made dense."""
    z = torch.zeros(len(values), len(sae.W_dec)).scatter_(1, indices, values)
    return statistics.restore(z @ sae.W_dec + sae.b_pre)


@pytest.mark.parametrize("kind", KINDS)
def test_encode_and_decode_are_reconstruct_in_raw_units(model, planted, kind):
    sae, raw = model(kind), 7 * planted[0](60, 2) + 100
    values, indices = sae.encode(raw)
    assert values.shape == indices.shape == (60, 5)
    assert values.dtype == torch.float32 and indices.dtype == torch.int64
    assert (values.diff(dim=1) <= 0).all()
    _, statistics = sae.normalize(raw)
    torch.testing.assert_close(
        rebuilt(sae, values, indices, statistics), sae.reconstruct(raw), rtol=1e-5, atol=1e-4
    )


def test_token_normalisation_makes_codes_blind_to_shift_and_scale(model, planted):
    sae, raw = model("token"), planted[0](60, 2)
    values, indices = sae.encode(raw)
    moved_values, moved_indices = sae.encode(50 * raw - 3)
    torch.testing.assert_close(values, moved_values, rtol=1e-3, atol=1e-5)
    assert (indices == moved_indices).float().mean() > 0.99
    torch.testing.assert_close(
        sae.reconstruct(50 * raw - 3), 50 * sae.reconstruct(raw) - 3, rtol=1e-3, atol=1e-2
    )


def test_dataset_normalisation_has_mean_square_norm_d(model, planted):
    sae = model("dataset")
    x, _ = sae.normalize(planted[0](3000, 1))
    assert float(x.square().sum(1).mean()) == pytest.approx(24, rel=1e-4)
    assert x.mean(0).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_removing_latents_subtracts_their_contribution(model, planted, kind):
    sae, raw = model(kind), planted[0](60, 2)
    values, indices = sae.encode(raw)
    removed = indices[:, 0].unique()[:4]
    _, statistics = sae.normalize(raw)
    without = rebuilt(sae, values * ~torch.isin(indices, removed), indices, statistics)
    torch.testing.assert_close(
        sae.reconstruct(raw) - sae.latent_contribution(raw, removed), without, rtol=1e-5, atol=1e-5
    )


def test_encode_pads_with_zeros_when_fewer_latents_fire(model, planted):
    sae = model("none")
    with torch.no_grad():
        sae.b_enc.fill_(-1e4)
        sae.b_enc[7] = 1e4
    values, indices = sae.encode(planted[0](10, 2), k=8)
    assert (values[:, 0] > 0).all() and (indices[:, 0] == 7).all()
    assert (values[:, 1:] == 0).all() and (indices[:, 1:] == 0).all()


def test_encode_is_the_same_for_half_precision_input_and_for_many_rows(model, planted):
    sae, raw = model("token"), planted[0](9000, 2)
    values, indices = sae.encode(raw)
    parts = [sae.encode(part) for part in raw.split(1000)]
    assert torch.equal(indices, torch.cat([p[1] for p in parts]))
    half, _ = sae.encode(raw.bfloat16())
    torch.testing.assert_close(half, values, rtol=0.1, atol=0.05)


def test_a_file_stands_alone(model, planted, tmp_path):
    sae, raw = model("dataset"), planted[0](60, 2)
    save_checkpoint(tmp_path / "sae.safetensors", sae)
    loaded = load_sae(tmp_path / "sae.safetensors")
    assert loaded.config == sae.config
    assert torch.equal(loaded.reconstruct(raw), sae.reconstruct(raw))


def test_damage_to_a_model_file_is_named(model, tmp_path):
    path = tmp_path / "sae.safetensors"
    save_checkpoint(path, model("none"))
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-3], whole[:-60] + b"\x01" + whole[-59:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"sae\.safetensors"):
            load_sae(path)


def test_b_pre_starts_at_the_geometric_median_which_outliers_do_not_move():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2000, 3, generator=generator)
    points[:200] += 1000
    median = geometric_median(points)
    assert median.norm() < 0.5 and points.mean(0).norm() > 100
    total = torch.linalg.vector_norm(points - median, dim=1).sum()
    for direction in torch.eye(3):
        for step in (-0.01, 0.01):
            moved = torch.linalg.vector_norm(points - median - step * direction, dim=1).sum()
            assert moved >= total


def test_unit_inputs_start_reconstructed_at_the_stated_norm(model):
    sae = model("none")
    with torch.no_grad():
        sae.b_pre.zero_()
    probe = torch.nn.functional.normalize(torch.randn(2000, 24), dim=1)
    assert sae.reconstruct(probe).norm(dim=1).mean() == pytest.approx(START_NORM, rel=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAEConfig(k=9, n_latents=8), "lower k"),
        (lambda: SAEConfig(normalization="layer"), "none, token, dataset"),
        (lambda: build_sae(SAEConfig(architecture="topp"), 4), "no architecture 'topp'"),
        (lambda: build_sae(SAEConfig(options={"beta": 1}), 4), "options"),
        (lambda: SAEConfig.from_dict({"latents": 3}), "'latents' is unknown"),
        (lambda: TrainConfig(optimizer="sgd"), "adam, adamw"),
        (lambda: TrainConfig(warmup=2), "share"),
    ],
)
def test_a_wrong_configuration_is_explained(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_configurations_survive_json():
    import json

    sae = SAEConfig(architecture="matryoshka", options={"prefixes": [4, 8]}, n_latents=8, k=2)
    train = TrainConfig(learning_rate=1e-4, clip=None)
    assert SAEConfig.from_dict(json.loads(json.dumps(sae.to_dict()))) == sae
    assert TrainConfig.from_dict(json.loads(json.dumps(train.to_dict()))) == train
