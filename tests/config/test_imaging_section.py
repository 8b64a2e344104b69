"""The imaging section: its grid, its defaults, its refusals."""

import pytest

from medsae.config import Layout, parse_config
from medsae.config.imaging_section import ImageSaes
from medsae.imaging.slicing import SliceSettings
from medsae.io import UserError


def config(**changes):
    imaging = {
        "name": "images",
        "sources": [{"path": "m.csv"}],
        "encoders": [{"name": "pixels", "source": "pixels"}],
    }
    return {"imaging": imaging | changes}


def test_the_published_grid_has_28_saes_per_encoder():
    names = [sae.name for sae in ImageSaes().grid()]
    assert len(names) == len(set(names)) == 28
    assert "D_128_512_2048_8192_K_20_40_80_160" in names
    assert "D_16_64_256_1024_K_20_20_20_20" not in names  # 20 of 16 latents


@pytest.mark.parametrize("architecture", ["matryoshka", "matryoshka_levels"])
def test_both_variants_build_with_their_options(architecture):
    from medsae.sae import SAEConfig, build_sae

    grid = ImageSaes(architecture=architecture, dictionaries=[[4, 16]], k=[[2, 3]]).grid()
    (sae,) = grid
    assert (sae.name, sae.k, sae.n_latents) == ("D_4_16_K_2_3", 3, 16)
    settings = sae.defining()
    del settings["training"]
    assert build_sae(SAEConfig(**settings), 8).config.n_latents == 16


def test_imaging_alone_is_a_study():
    parsed = parse_config(config())
    assert parsed.models == []
    layout = Layout(parsed)
    assert layout.image_sae("features.parquet") == "results/images/{encoder}/{sae}/features.parquet"
    assert layout.image_log("join_slices") == "results/images/logs/join_slices/join_slices.log"
    assert layout.batches == ["batch-00000"]
    SliceSettings(**parsed.imaging.slicing.model_dump())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"saes": {"dictionaries": [[64, 16]]}}, "must rise"),
        ({"saes": {"dictionaries": [[4, 8]], "k": [[9, 9]]}}, "no entry of k fits"),
        (
            {"saes": {"architecture": "matryoshka_levels", "training": {"k_start": 90}}},
            "k_start is for .*not for matryoshka_levels",
        ),
        ({"sources": [{"format": "totalsegmentator", "path": "d"}]}, "needs `modality: ct`"),
        ({"encoders": [{"name": "a", "source": "pixels"}] * 2}, "used twice"),
        (
            {"encoders": [{"name": "a", "source": "pixels", "random_weights": True}]},
            "neither weights nor patch tokens",
        ),
        ({"slicing": {"windows": {"head": [40, 400]}}}, "add the window `other`"),
        ({"slicing": {"plane": []}}, "did you mean 'planes'"),
    ],
)
def test_bad_values_are_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        parse_config(config(**changes))


def test_nothing_to_study_is_refused():
    with pytest.raises(UserError, match="nothing to study"):
        parse_config({})


def encoders(**changes):
    twin = {"name": "b", "source": "./model", "random_weights": True, "control_of": "a"}
    return [{"name": "a", "source": "./model"}, twin | changes, {"name": "p", "source": "pixels"}]


def test_controls_say_of_what_whatever_their_names():
    found = parse_config(config(encoders=encoders())).imaging.encoders
    assert [(each.control, each.control_of) for each in found] == [
        (None, None), ("random weights", "a"), ("no network", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"control_of": None}, "name the encoder with trained weights"),
        ({"control_of": "c"}, "no encoder with trained weights"),
        ({"control_of": "p"}, "no encoder with trained weights"),
        ({"random_weights": False}, "is for an encoder with `random_weights: true`"),
    ],
)
def test_controls_of_nothing_are_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        parse_config(config(encoders=encoders(**changes)))
