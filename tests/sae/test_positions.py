import pytest
import torch

from medsae.io import UserError
from medsae.sae import SAEConfig, build_sae
from medsae.sae.initialize import initialize
from medsae.sae.positions import COLUMNS, explained_variance_by_position, plot_positions


@pytest.fixture
def sae(planted):
    made = build_sae(SAEConfig(n_latents=96, k=5, normalization="token"), 24)
    initialize(made, planted[0](3000, 1), seed=0)
    return made.requires_grad_(False)


def rows_and_positions(planted):
    raw = planted[0](600, 2)
    positions = torch.arange(600) % 7
    raw[positions == 0] *= 30  # a first token far larger than the others, as in language models
    raw[-1], positions[-1] = raw[-1] + 100, 5  # the only token that sits at 5 …
    kept = (positions != 5) | (torch.arange(600) == 599)  # … after the others there have gone
    return raw[kept], positions[kept]


def test_every_position_has_the_variance_of_its_own_tokens(sae, planted):
    raw, positions = rows_and_positions(planted)
    parts = zip(raw.split(97), positions.split(97), strict=True)
    table = explained_variance_by_position(sae, parts, 7)
    assert table.columns == list(COLUMNS) and table["n_tokens"].sum() == raw.shape[0]
    for row in table.iter_rows(named=True):
        here = raw[positions == row["position"]]
        error = (sae.reconstruct(here) - here).double().square().sum()
        spread = (here.double() - here.double().mean(0)).square().sum()
        assert row["norm"] == pytest.approx(float(here.norm(dim=1).mean()), rel=1e-5)
        assert row["l0"] == pytest.approx(5, abs=0.01)
        if row["position"] == 5:
            assert row["n_tokens"] == 1 and row["explained_variance"] is None
        else:
            assert row["fvu"] == pytest.approx(float(error / spread), rel=1e-4)
            assert row["explained_variance"] == pytest.approx(1 - row["fvu"])


def test_later_positions_are_one_row_and_empty_ones_are_null(sae, planted):
    raw = planted[0](50, 2)
    table = explained_variance_by_position(sae, [(raw, torch.arange(50) + 4)], 10)
    assert table["n_tokens"].to_list() == [0] * 4 + [1] * 5 + [45]
    assert table["l0"].is_null().to_list() == [True] * 4 + [False] * 6


def test_what_does_not_belong_together_is_refused(sae, planted):
    with pytest.raises(UserError, match="50 activations came with 49 positions"):
        explained_variance_by_position(sae, [(planted[0](50, 2), torch.arange(49))], 10)
    with pytest.raises(UserError, match="no activations"):
        explained_variance_by_position(sae, [], 10)


def test_the_figure_is_drawn_and_the_same_again(sae, planted, tmp_path):
    raw, positions = rows_and_positions(planted)
    table = explained_variance_by_position(sae, [(raw, positions)], 7)
    for name in ("one.svg", "two.svg"):
        plot_positions(table, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_bytes()
    assert len(drawn) > 5000 and drawn == (tmp_path / "two.svg").read_bytes()
