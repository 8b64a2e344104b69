"""Every architecture against a plain dense autograd version of its paper's equations."""

import importlib
import sys

import polars as pl
import pytest
import torch
from torch.nn import Parameter

from medsae.config.sae_section import Sae
from medsae.io import UserError
from medsae.sae import (
    SAEConfig,
    TrainConfig,
    architectures,
    build_sae,
    load_sae,
    save_checkpoint,
    train_sae,
)
from medsae.sae.architectures.batch_topk import UNSET
from medsae.sae.initialize import initialize
from medsae.sae.sparse import gradient_of
from medsae.sae.train import METRICS_NAME
from medsae.sae.trainer import Trainer
from medsae.sae.validate import FEWEST_FOR_THRESHOLDS
from medsae.store import ActivationStore, ShardWriter

N, K, WIDTH = 40, 3, 24
FRESH_ROWS = 20_000  # of few a mean of 1 is not known to 5%

OPTIONS = {
    "topk": {},
    "batch_topk": {},
    "matryoshka": {"prefixes": [5, 12, N]},
    "matryoshka_levels": {"sizes": [8, 20, N], "level_k": [1, 2, K]},
    "relu": {"l1_coefficient": 0.05},
    "relu-weighted": {"l1_coefficient": 0.05, "decoder_norm_weighted": True},
    "jumprelu": {"l0_coefficient": 0.03, "bandwidth": 0.5, "initial_threshold": 0.4},
    "gated": {"l1_coefficient": 0.05},
}
CASES = list(OPTIONS)


@pytest.fixture
def make(planted):
    def build(case, **changes):
        config = SAEConfig(
            architecture=case.split("-")[0],
            n_latents=N,
            k=K,
            normalization="none",
            options=OPTIONS[case],
            **changes,
        )
        model = build_sae(config, WIDTH)
        initialize(model, planted[0](2000, 1), seed=0)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():  # away from the symmetric start
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.double()

    return build


def flat_top(u, n):
    z = torch.zeros_like(u).flatten()
    index = u.flatten().topk(n).indices
    return z.scatter(0, index, u.flatten()[index].relu()).view_as(u)


def reference(case, model, p, x):
    """Loss terms by dense autograd, straight from the equations."""
    options, n = model.options, x.shape[0]
    u = (x - p["b_pre"]) @ p["W_enc"].T + p["b_enc"]
    squared = lambda r: (r - x).square().sum() / n  # noqa: E731
    scaled = lambda r: (r - x).square().mean() * model.loss_scale  # noqa: E731
    full = lambda z: z @ p["W_dec"] + p["b_pre"]  # noqa: E731
    if case == "topk":
        top = u.topk(K, dim=1)
        return {"mse": scaled(full(torch.zeros_like(u).scatter(1, top.indices, top.values.relu())))}
    if case == "batch_topk":
        return {"mse": scaled(full(flat_top(u, n * K)))}
    if case == "matryoshka":
        z, terms = flat_top(u, n * K), {"mse_0": scaled(p["b_pre"].expand_as(x))}
        for m in options.prefixes:
            terms[f"mse_{m}"] = scaled(z[:, :m] @ p["W_dec"][:m] + p["b_pre"])
        return terms
    if case == "matryoshka_levels":
        return {
            f"mse_{m}": scaled(flat_top(u[:, :m], n * k) @ p["W_dec"][:m] + p["b_pre"]) / 3
            for m, k in zip(options.sizes, options.level_k, strict=True)
        }
    if case.startswith("relu"):
        z = u.relu()
        weights = p["W_dec"].norm(dim=1) if options.decoder_norm_weighted else 1.0
        l1 = options.l1_coefficient * (z * weights).sum() / n
        return {"mse": squared(full(z)), "l1": l1}
    if case == "gated":
        product = (x - p["b_pre"]) @ p["W_enc"].T
        z = (u > 0) * (p["r_mag"].exp() * product + p["b_mag"]).relu()
        frozen = u.relu() @ p["W_dec"].detach() + p["b_pre"].detach()
        l1 = options.l1_coefficient * u.relu().sum() / n
        return {"mse": squared(full(z)), "l1": l1, "gate_mse": squared(frozen)}
    raise AssertionError(case)


def jump_gradients(model, x):
    """JumpReLU's loss with its pseudo-derivative written out, as gradients by name."""
    p = {n: v.detach().clone().requires_grad_() for n, v in model.named_parameters()}
    options, n = model.options, x.shape[0]
    u = (x - p["b_pre"]) @ p["W_enc"].T + p["b_enc"]
    theta = p["log_threshold"].exp()
    z = (u * (u > theta)).detach().requires_grad_()
    mse = (z @ p["W_dec"] + p["b_pre"] - x).square().sum() / n
    mse.backward()
    (u * (u > theta).detach() * z.grad).sum().backward()
    kernel = ((u - theta).abs() < options.bandwidth / 2) / options.bandwidth
    d_theta = -(kernel * (theta * z.grad + options.l0_coefficient / n)).sum(0)
    p["log_threshold"].grad = (d_theta * theta).detach()
    l0 = options.l0_coefficient * (u > theta).sum() / n
    return {"mse": mse, "l0": l0}, {name: v.grad for name, v in p.items()}


@pytest.mark.parametrize("case", CASES)
def test_terms_and_gradients_are_those_of_dense_autograd(make, planted, case):
    model, x = make(case), planted[0](50, 3).double()
    ours = model.objective(x)
    sum(ours.terms.values()).backward()
    if case == "jumprelu":
        terms, gradients = jump_gradients(model, x)
    else:
        copies = {n: Parameter(p.detach().clone()) for n, p in model.named_parameters()}
        terms = reference(case, model, copies, x)
        sum(terms.values()).backward()
        gradients = {name: p.grad for name, p in copies.items()}
    assert ours.terms.keys() == terms.keys()
    for name, term in terms.items():
        torch.testing.assert_close(ours.terms[name], term.to(x), msg=name)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


def differentiable_terms(case, name):
    """Which loss terms have an ordinary derivative for a parameter: None is all of them.

    Gated's last term holds the decoder fixed, and a JumpReLU threshold has a stand-in.
    """
    if case == "gated" and name in ("W_dec", "b_pre"):
        return ("mse", "l1")
    return () if name == "log_threshold" else None


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_finite_differences(make, planted, case):
    model, x = make(case), planted[0](50, 3).double()
    generator = torch.Generator().manual_seed(3)

    def loss(chosen):
        terms = model.objective(x).terms
        return sum(terms[name] for name in (terms if chosen is None else chosen))

    for name, parameter in model.named_parameters():
        chosen = differentiable_terms(case, name)
        if chosen == ():
            continue
        for each in model.parameters():
            each.grad = None
        loss(chosen).backward()
        direction = torch.randn(parameter.shape, generator=generator).double()
        step, losses = 1e-6, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step * direction)
                losses.append(loss(chosen))
                parameter.sub_(sign * step * direction)
        slope = (losses[0] - losses[1]) / (2 * step)
        expected = (parameter.grad * direction).sum()
        torch.testing.assert_close(slope.detach(), expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_every_step_begins_with_a_gradient_of_zero(make, planted, monkeypatch, case):
    weights = []
    for zeroed in (False, True):
        model = make(case).float()
        trainer = Trainer(model, TrainConfig(n_tokens=10**6, batch_size=64, learning_rate=1e-2))
        if zeroed:
            monkeypatch.setattr(
                "medsae.sae.trainer.forget_gradient", lambda weight: gradient_of(weight).zero_()
            )
        for batch in planted[0](256, 5).split(64):
            trainer.step(batch)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], msg=name)


def test_the_registry_has_every_module_of_the_folder():
    assert {case.split("-")[0] for case in CASES} == set(architectures())
    for name in architectures():
        assert Sae(name="a", n_latents=96, k=3, architecture=name).architecture == name


SEVENTH = """
import torch

from medsae.sae.architectures.registry import register
from medsae.sae.architectures.topk import TopK


@register("absolute")
class Absolute(TopK):
    @torch.no_grad()
    def gate(self, centred):
        return super().gate(centred.abs())
"""


def test_a_new_architecture_is_one_new_file(
    shards, sae_config, train_config, tmp_path, monkeypatch
):
    from medsae.sae.architectures import registry

    package = importlib.import_module("medsae.sae.architectures")
    (tmp_path / "absolute.py").write_text(SEVENTH)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    sae = sae_config(architecture="absolute")
    train_sae(sae, train_config(20), *shards, tmp_path / "run")
    assert type(load_sae(tmp_path / "run")).__name__ == "Absolute"
    monkeypatch.delitem(sys.modules, "medsae.sae.architectures.absolute")


@pytest.mark.parametrize("case", CASES)
def test_every_architecture_trains_saves_and_reloads(
    shards, sae_config, train_config, tmp_path, case
):
    sae = sae_config(
        architecture=case.split("-")[0],
        n_latents=96 if case != "matryoshka_levels" else N,
        options=OPTIONS[case] if case != "matryoshka" else {"prefixes": [10, 30, 96]},
        normalization="dataset",
    )
    result = train_sae(sae, train_config(150, ema=0.9), *shards, tmp_path / "run")
    assert result.val_fvu < 0.75
    loaded = load_sae(tmp_path / "run")
    x = ActivationStore(shards[1]).read(0, 500)
    error = (loaded.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert error < 0.75
    values, _ = loaded.encode(x, k=96)
    code = loaded.sparse_code(x)
    assert int((values > 0).sum()) == int((code.values > 0).sum())
    save_checkpoint(tmp_path / "again.safetensors", loaded)
    assert torch.equal(
        load_sae(tmp_path / "again.safetensors").reconstruct(x), loaded.reconstruct(x)
    )


@pytest.mark.parametrize(
    ("steps", "changes"),
    [(150, {}), (150, {"learning_rate": 1e-3}), (150, {"ema": 0.99}), (500, {})],
)
@pytest.mark.parametrize("validation_rows", [FEWEST_FOR_THRESHOLDS - 1, FEWEST_FOR_THRESHOLDS])
@pytest.mark.parametrize("case", ["batch_topk", "matryoshka", "matryoshka_levels"])
def test_the_inference_threshold_reproduces_the_training_l0_on_held_out_rows(
    shards, sae_config, train_config, planted, tmp_path, case, steps, changes, validation_rows
):
    """By the running mean over training batches, and by enough held-out rows."""
    sae = sae_config(
        architecture=case,
        n_latents=N,
        options={} if case == "batch_topk" else OPTIONS[case],
    )
    train = train_config(steps, validate_every=steps, validation_rows=validation_rows, **changes)
    train_sae(sae, train, *shards, tmp_path / "run")
    metrics = pl.read_parquet(tmp_path / "run" / METRICS_NAME)
    assert metrics["l0"][-1] == K
    model, raw = load_sae(tmp_path / "run"), planted[0](FRESH_ROWS, 9)
    code = model.sparse_code(raw)
    assert int((code.values > 0).sum()) / FRESH_ROWS == pytest.approx(K, rel=0.05)


@pytest.mark.parametrize("case", ["batch_topk", "matryoshka_levels"])
def test_rows_known_by_heart_do_not_set_the_threshold(sae_config, train_config, tmp_path, case):
    """Noise has nothing to learn but itself: by θ of training rows new ones get 6 to 12% more.

    The held-out rows come in blocks of two lengths, as if of two notes.
    """
    options = {} if case == "batch_topk" else {"sizes": [24, 96], "level_k": [2, K]}
    generator, shards = torch.Generator().manual_seed(5), []

    def noise(n):
        lengths = torch.linspace(0, 2, n).floor().clamp_max(1)[:, None] + 1
        return lengths * torch.randn(n, WIDTH, generator=generator)

    for name, n in (("train", 400), ("val", 9000)):
        shards.append(tmp_path / f"{name}.safetensors")
        with ShardWriter(shards[-1], n, WIDTH, torch.float32, {}) as writer:
            writer.write(0, noise(n))
    sae = sae_config(architecture=case, options=options)
    train_sae(sae, train_config(300), shards[:1], shards[1:], tmp_path / "run")
    model = load_sae(tmp_path / "run")
    centred = noise(FRESH_ROWS) - model.b_pre
    codes = [(model.gate(centred), K)]
    if case == "matryoshka_levels":
        codes = [(model.gate_level(centred, level), k) for level, k in enumerate((2, K))]
    for code, k in codes:
        assert int((code.values > 0).sum()) / FRESH_ROWS == pytest.approx(k, rel=0.04)


def test_every_level_has_the_l0_of_its_own_threshold(
    shards, sae_config, train_config, planted, tmp_path
):
    options = OPTIONS["matryoshka_levels"]
    sae = sae_config(architecture="matryoshka_levels", n_latents=N, options=options)
    train = train_config(300, validation_rows=FEWEST_FOR_THRESHOLDS - 1)  # the running mean
    train_sae(sae, train, *shards, tmp_path / "run")
    model, raw = load_sae(tmp_path / "run"), planted[0](FRESH_ROWS, 9)
    centred = model.normalize(raw)[0] - model.b_pre
    for level, (size, k) in enumerate(zip(model.sizes, model.level_k, strict=True)):
        code = model.gate_level(centred, level)
        assert code.pattern.columns.max() < size
        assert int((code.values > 0).sum()) / FRESH_ROWS == pytest.approx(k, rel=0.05)


def test_an_untrained_batch_topk_is_gated_by_its_batch(make, planted):
    model = make("batch_topk")
    assert float(model.threshold) == UNSET
    code = model.gate(planted[0](50, 3).double() - model.b_pre)
    assert code.pattern.n_entries == 50 * K


def test_smaller_matryoshka_prefixes_reconstruct_on_their_own(
    shards, sae_config, train_config, tmp_path
):
    sae = sae_config(architecture="matryoshka", n_latents=96, options={"prefixes": [12, 48, 96]})
    train_sae(sae, train_config(400), *shards, tmp_path / "run")
    model, x = load_sae(tmp_path / "run"), ActivationStore(shards[1]).read(0, 1000)
    code = model.sparse_code(x)
    z = code.pattern.dense(code.values)
    fvu = [
        float((z[:, :m] @ model.W_dec[:m] + model.b_pre - x).square().sum())
        / float((x - x.mean(0)).square().sum())
        for m in (0, 12, 48, 96)
    ]
    assert 1.1 > fvu[0] > fvu[1] > fvu[2] and fvu[1] < 0.9 and max(fvu[2:]) < 0.3


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("matryoshka", {"prefixes": [5, 5, 40]}, "rise to n_latents"),
        ("matryoshka", {"prefixes": [5, 39]}, "rise to n_latents"),
        ("matryoshka_levels", {"sizes": [2, 40], "level_k": [3, 3]}, "level_k"),
        ("matryoshka_levels", {"sizes": [4, 40], "level_k": [3]}, "level_k"),
        ("matryoshka_levels", {}, "options"),
        ("relu", {"l1": 2}, "options"),
    ],
)
def test_wrong_options_are_explained(architecture, options, message):
    with pytest.raises(UserError, match=message):
        build_sae(SAEConfig(architecture, n_latents=N, k=K, options=options), WIDTH)
