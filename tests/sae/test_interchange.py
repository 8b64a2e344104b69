"""Checkpoints of other libraries: their formulas by hand, and the libraries where installed.

`make test-interchange` runs these tests in environments that have the libraries.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medsae.io import UserError
from medsae.sae import SAEConfig, build_sae, load_sae
from medsae.sae.initialize import initialize
from medsae.sae.interchange import (
    load_original,
    load_saelens,
    load_sparsify,
    save_medsae,
    save_saelens,
    save_sparsify,
)

WIDTH, N, K = 24, 96, 4
EXPORTS = ["topk", "relu", "gated", "jumprelu", "batch_topk", "matryoshka", "matryoshka_levels"]
LEVELS = {"sizes": [32, N], "level_k": [2, K]}


@pytest.fixture
def make(planted):
    def build(architecture="topk", normalization="none"):
        options = LEVELS if architecture == "matryoshka_levels" else {}
        config = SAEConfig(architecture, N, K, normalization=normalization, options=options)
        sae = build_sae(config, WIDTH)
        initialize(sae, planted[0](3000, 1), seed=0)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
            for name in ("threshold", "thresholds"):
                if hasattr(sae, name):
                    getattr(sae, name).fill_(0.2)
        return sae.requires_grad_(False)

    return build


@pytest.fixture
def rows_for(planted):
    """Rows whose σ is as large as in most residual streams where tokens are normalised.

    SAELens divides by σ + 1e-5, so that codes agree to 1e-5/σ of themselves at best.
    Nor do these rows hold a value so near a JumpReLU's threshold that its rounding decides.
    """

    def make(normalization, n=200):
        return planted[0](n, 3) * (8 if normalization == "token" else 1)

    return make


def library(module, peer):
    """The module, which may be missing unless these tests were started for ``peer``."""
    if os.environ.get("MEDSAE_PEER") == peer:
        return importlib.import_module(module)
    return pytest.importorskip(module)


def dense_codes(sae, raw):
    code = sae.sparse_code(raw)
    return code.pattern.dense(code.values)


@pytest.mark.parametrize("architecture", EXPORTS)
@pytest.mark.parametrize("normalization", ["none", "dataset", "token"])
def test_saelens_round_trip_keeps_codes_and_reconstructions(
    make, rows_for, tmp_path, architecture, normalization
):
    sae, raw = make(architecture, normalization), rows_for(normalization)
    save_saelens(tmp_path, sae)
    back = load_saelens(tmp_path)
    torch.testing.assert_close(dense_codes(back, raw), dense_codes(sae, raw), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.reconstruct(raw), sae.reconstruct(raw), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalization", ["none", "dataset"])
def test_sparsify_round_trip_keeps_codes_and_reconstructions(
    make, planted, tmp_path, normalization
):
    sae, raw = make("topk", normalization), planted[0](200, 2)
    save_sparsify(tmp_path, sae)
    back = load_sparsify(tmp_path)
    torch.testing.assert_close(dense_codes(back, raw), dense_codes(sae, raw), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.reconstruct(raw), sae.reconstruct(raw), rtol=1e-4, atol=1e-4)
    weights = load_file(tmp_path / "sae.safetensors")  # sparsify's own formula
    pre = (raw - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"]
    top = pre.relu().topk(K, dim=1)
    expected = torch.zeros_like(pre).scatter(1, top.indices, top.values)
    torch.testing.assert_close(dense_codes(sae, raw), expected, rtol=1e-5, atol=1e-5)


def test_saelens_options_without_a_flag_here_are_folded(make, planted, tmp_path):
    sae, raw = make("topk"), planted[0](100, 2)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.5, 2, N)[:, None])
    save_saelens(tmp_path, sae)
    config = json.loads((tmp_path / "cfg.json").read_text())
    config |= {"apply_b_dec_to_input": False, "rescale_acts_by_decoder_norm": True}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    norms = sae.W_dec.norm(dim=1)
    pre = (raw @ sae.W_enc.T + sae.b_enc) * norms
    top = pre.topk(K, dim=1)
    expected = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    back = load_saelens(tmp_path)
    torch.testing.assert_close(dense_codes(back, raw), expected, rtol=1e-4, atol=1e-4)
    decoded = expected @ (sae.W_dec / norms[:, None]) + sae.b_pre
    torch.testing.assert_close(back.reconstruct(raw), decoded, rtol=1e-4, atol=1e-4)


def test_a_gated_checkpoint_without_a_centred_input_is_read_as_it_encodes(make, tmp_path):
    sae = make("gated")
    save_saelens(tmp_path, sae)
    config = json.loads((tmp_path / "cfg.json").read_text())
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"apply_b_dec_to_input": False}))
    raw = torch.randn(20, sae.d_model, generator=torch.Generator().manual_seed(2))
    pre = raw @ tensors["W_enc"]
    open_gates = pre + tensors["b_gate"] > 0
    expected = open_gates * (pre * tensors["r_mag"].exp() + tensors["b_mag"]).relu()
    torch.testing.assert_close(dense_codes(load_saelens(tmp_path), raw), expected)


OLD_TOPK = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}


@pytest.fixture
def write_old(make, tmp_path):
    """Writes a TopK checkpoint as SAELens did before 6.0, with other keys where given."""
    save_saelens(tmp_path, make("topk"))

    def write(**keys):
        config = {"d_in": WIDTH, "d_sae": N, "dtype": "float32", "device": "cpu"}
        config |= {"hook_name": "blocks.0.hook_resid_post", "normalize_activations": "none"}
        (tmp_path / "cfg.json").write_text(json.dumps(config | keys))
        return tmp_path

    return write


@pytest.mark.parametrize(
    "keys",
    [
        {"architecture": "standard", **OLD_TOPK},
        {"architecture": "topk", **OLD_TOPK},
        {"normalize_activations": False, **OLD_TOPK},
        {"activation_fn": "topk", "activation_fn_kwargs": {"k": K}},
    ],
)
def test_topk_as_an_activation_function_is_read_as_topk(make, planted, write_old, keys):
    sae, raw = make("topk"), planted[0](200, 2)
    back = load_saelens(write_old(**keys))
    assert (back.config.architecture, back.config.k) == ("topk", K)
    torch.testing.assert_close(dense_codes(back, raw), dense_codes(sae, raw))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"architecture": "standard", "activation_fn_str": "topk"}, "lacks the k"),
        ({"architecture": "topk"}, "lacks the k"),
        ({"activation_fn_str": "tanh-relu"}, "function 'tanh-relu'"),
        ({"architecture": "jumprelu", **OLD_TOPK}, "'jumprelu' with the .* 'topk'"),
        ({"architecture": "temporal"}, "architecture 'temporal'"),
    ],
)
def test_what_saelens_encodes_otherwise_is_refused(write_old, keys, reason):
    with pytest.raises(UserError, match=reason):
        load_saelens(write_old(**keys))


def test_an_architecture_that_saelens_lacks_is_refused(make, tmp_path):
    sae = make("topk")
    sae.config = dataclasses.replace(sae.config, architecture="new")
    with pytest.raises(UserError, match="nothing like the architecture 'new'"):
        save_saelens(tmp_path, sae)


def test_the_original_medsae_is_imported_with_its_own_formula(planted, tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        "W_enc": torch.randn(N, WIDTH, generator=generator),
        "b_enc": torch.randn(N, generator=generator),
        "W_dec": torch.randn(WIDTH, N, generator=generator),
        "b_dec": torch.randn(WIDTH, generator=generator),
        "feature_scale": torch.rand(N, generator=generator),
        "feature_hits": torch.arange(N),
    }
    torch.save(state, tmp_path / "best.pt")
    sae, raw = load_original(tmp_path / "best.pt", k=K), planted[0](100, 2)
    centred = raw - raw.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    pre = (centred / norm) @ state["W_enc"].T + state["b_enc"]
    top = pre.topk(K, dim=1)
    z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    torch.testing.assert_close(dense_codes(sae, raw), z, rtol=1e-4, atol=1e-4)
    decoded = (z @ state["W_dec"].T + state["b_dec"]) * norm + raw.mean(1, keepdim=True)
    torch.testing.assert_close(sae.reconstruct(raw), decoded, rtol=1e-4, atol=1e-3)
    assert torch.equal(sae.feature_hits, state["feature_hits"])


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"W_enc": Malicious()}, tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"best\.pt"):
        load_original(tmp_path / "best.pt")
    assert "code ran" not in capsys.readouterr().out


def test_what_sparsify_cannot_hold_is_refused(make, tmp_path):
    for sae in (make("relu"), make("topk", "token")):
        with pytest.raises(UserError, match="SAELens"):
            save_sparsify(tmp_path, sae)


def off_the_jump(sae, raw):
    """Where codes do not hang on the last bit of a pre-activation: gates jump from 0."""
    pre = (sae.normalize(raw)[0] - sae.b_pre) @ sae.W_enc.T + sae.b_enc
    if sae.config.architecture in ("topk", "relu"):  # continuous
        return torch.ones_like(pre, dtype=torch.bool)
    state, threshold = sae.state_dict(), 0.0
    if sae.config.architecture != "gated":
        own = ("log_threshold", "thresholds", "threshold")
        kept = next(state[name] for name in own if name in state)
        threshold = kept.exp() if "log_threshold" in state else kept.reshape(-1)[-1]
    clear = (pre - threshold).abs() > 1e-5
    assert clear.double().mean() > 0.999
    return clear


@pytest.mark.parametrize("architecture", EXPORTS)
@pytest.mark.parametrize("normalization", ["none", "dataset", "token"])
def test_saelens_itself_encodes_the_same(make, rows_for, tmp_path, architecture, normalization):
    sae_lens = library("sae_lens", "saelens")
    sae, raw = make(architecture, normalization), rows_for(normalization)
    clear = off_the_jump(sae, raw)
    save_saelens(tmp_path / "ours", sae)
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "ours"))
    encoded = theirs.encode(raw)
    expected = dense_codes(sae, raw)
    torch.testing.assert_close(encoded[clear], expected[clear], rtol=1e-5, atol=1e-5)
    theirs.save_model(str(tmp_path / "theirs"))
    back = load_saelens(tmp_path / "theirs")
    clear &= off_the_jump(back, raw)
    torch.testing.assert_close(dense_codes(back, raw)[clear], encoded[clear], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "keys", [OLD_TOPK, {"architecture": "standard", **OLD_TOPK}, {"activation_fn_str": "relu"}]
)
def test_saelens_itself_reads_its_old_checkpoints_so(planted, write_old, keys):
    sae_lens = library("sae_lens", "saelens")
    folder, raw = write_old(**keys), planted[0](200, 2)
    theirs = sae_lens.SAE.load_from_disk(str(folder)).encode(raw)
    found = dense_codes(load_saelens(folder), raw)
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)


def test_what_saelens_normalised_by_token_is_read_with_its_epsilon(make, planted, tmp_path):
    sae_lens = library("sae_lens", "saelens")
    save_saelens(tmp_path / "ours", make("topk", "token"))
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "ours"))
    theirs.save_model(str(tmp_path / "theirs"))
    back = load_saelens(tmp_path / "theirs")
    small = 0.01 * planted[0](200, 2)  # σ of 0.003: without ε codes would be 0.3% larger
    torch.testing.assert_close(dense_codes(back, small), theirs.encode(small), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.reconstruct(small), theirs(small), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalization", ["none", "dataset"])
def test_sparsify_itself_encodes_the_same(make, planted, tmp_path, normalization):
    sparse_coder = library("sparsify.sparse_coder", "sparsify")
    sae, raw = make("topk", normalization), planted[0](200, 2)
    save_sparsify(tmp_path / "ours", sae)
    theirs = sparse_coder.SparseCoder.load_from_disk(tmp_path / "ours")
    out = theirs.encode(raw)
    codes = torch.zeros(200, N).scatter_(1, out.top_indices, out.top_acts)
    torch.testing.assert_close(codes, dense_codes(sae, raw), rtol=1e-5, atol=1e-5)
    theirs.save_to_disk(tmp_path / "theirs")
    back = load_sparsify(tmp_path / "theirs")
    torch.testing.assert_close(dense_codes(back, raw), codes, rtol=1e-5, atol=1e-5)


def convert(*arguments):
    root = Path(__file__).parents[2]
    script = root / "workflow" / "scripts" / "convert_sae.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command_converts_there_and_back(make, planted, tmp_path):
    sae, raw = make("batch_topk", "dataset"), planted[0](100, 2)
    save_medsae(tmp_path / "ours", sae)
    for source, target, to in (("ours", "lens", "saelens"), ("lens", "back", "medsae")):
        reader = ["--from", "saelens"] if source == "lens" else []
        done = convert(tmp_path / source, tmp_path / target, *reader, "--to", to)
        assert done.returncode == 0, done.stderr
    back = load_sae(tmp_path / "back")
    torch.testing.assert_close(dense_codes(back, raw), dense_codes(sae, raw), rtol=1e-5, atol=1e-5)
    refused = convert(tmp_path / "ours", tmp_path / "x", "--to", "sparsify")
    assert refused.returncode == 1 and "export this one for SAELens" in refused.stderr
    assert "Traceback" not in refused.stderr
