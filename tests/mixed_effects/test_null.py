"""Without an effect the planned contrasts are found as often as their level says."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from medsae.mixed_effects import bridge
from medsae.mixed_effects.data import NO_YES, PAIR_TYPE
from medsae.mixed_effects.formulas import build_formula
from medsae.mixed_effects.study import SPECIFICATIONS

pytest.importorskip("rpy2")

N_SETS = 500


def null_pairs(number):
    """Terms and notes that differ, and terms whose pairs differ by type, but not on average."""
    rng = np.random.default_rng([number, 51])
    n_lemmas, per = 12, 24
    lemma = np.repeat(np.arange(n_lemmas), per)
    within = np.tile(np.arange(per) % 2, n_lemmas)
    notes = rng.normal(0, 0.03, 30)
    a, b = rng.integers(0, 30, (2, len(lemma)))
    slopes = rng.normal(0, 0.03, n_lemmas)[lemma] * within
    y = 0.4 + rng.normal(0, 0.05, n_lemmas)[lemma] + slopes + notes[a] + notes[b]
    return pl.DataFrame(
        {
            "jaccard": y + rng.normal(0, 0.04, len(lemma)),
            "pair_type": pl.Series(np.where(within, "within", "cross").tolist(), dtype=PAIR_TYPE),
            "lemma": [f"l{i}" for i in lemma],
            "doc_a": [f"d{i}" for i in a],
            "doc_b": [f"d{i}" for i in b],
            **{name: ["one"] * len(lemma) for name in ("model", "layer", "sae")},
        }
    )


def null_deltas(number):
    """Latents, terms and notes that differ; linked latents and their controls do not."""
    rng = np.random.default_rng([number, 52])
    latent = np.repeat(np.arange(24), 12)
    lemma, linked = latent // 4, latent % 2
    on = np.tile(np.arange(12) % 2, 24)
    doc = rng.integers(0, 40, len(latent))
    activation = rng.lognormal(size=len(latent))
    y = 0.02 * np.log(activation) + rng.normal(0, 0.05, 24)[latent] + rng.normal(0, 0.05, 6)[lemma]
    y = y + rng.normal(0, 0.05, 40)[doc] + rng.normal(0, 0.1, len(latent))

    def no_yes(values):
        return pl.Series(np.where(values, "yes", "no").tolist(), dtype=NO_YES)

    return pl.DataFrame(
        {
            "delta_ce": np.sinh(y),
            "linked": no_yes(linked),
            "on_sense": no_yes(on),
            "activation": activation,
            "lemma": [f"l{i}" for i in lemma],
            "latent": [f"z{i}" for i in latent],
            "doc_id": [f"d{i}" for i in doc],
            **{name: ["one"] * len(latent) for name in ("model", "layer", "sae")},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("response", "simulate", "term"),
    [
        ("jaccard", null_pairs, "pair_typewithin"),
        ("delta_ce", null_deltas, "linkedyes:on_senseyes"),
    ],
)
def test_p_of_a_planned_contrast_does_not_exceed_its_level(response, simulate, term):
    spec = next(s for s in SPECIFICATIONS if s.response == response)
    pvalues = []
    for number in range(N_SETS):
        table = simulate(number)
        result = bridge.fit(table, build_formula(spec, table).text, spec.engine)
        pvalues += result.coefficients.filter(pl.col("term") == term)["p.value"].to_list()
    assert len(pvalues) == N_SETS
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], N_SETS, level)
        assert low <= (np.array(pvalues) <= level).sum() <= high
