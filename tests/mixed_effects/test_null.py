"""Without an effect the planned contrasts are found as often as their level says.

Every simulated study has what real ones have: two models see the same occurrences, pairs share
occurrences, notes and patients over all terms, notes and terms are peculiar in each model, and
a latent may depend on the sense without its kind doing so. None of it is an effect.
"""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from medsae.mixed_effects import bridge
from medsae.mixed_effects.data import NO_YES, PAIR_TYPE, POLYSEMY
from medsae.mixed_effects.formulas import INTERCEPT, build_formula
from medsae.mixed_effects.specifications import PLANNED, SPECIFICATIONS, UNAGGREGATED
from medsae.mixed_effects.study import prepared_rows

pytest.importorskip("rpy2")

N_SETS = 500
MODELS = ("alpha", "beta")


def null_pairs(number, layers=(("10",), ("10",))):
    """Overlap of pairs; within and across senses, and in both models, alike on average."""
    rng = np.random.default_rng([number, 51])
    n_lemmas, n_notes, per, spread = 12, 40, 24, 0.03
    lemma = np.repeat(np.arange(n_lemmas), 2 * per)
    within = np.tile(np.repeat([1, 0], per), n_lemmas)
    sense = rng.integers(0, 2, len(lemma))
    a, b = rng.integers(0, n_notes, (2, len(lemma)))
    notes = rng.normal(0, spread, n_notes)
    # how typical of its sense an occurrence is: closer to its own, farther from the others
    typical = rng.normal(0, spread, (n_lemmas, n_notes))
    base, slope = rng.normal(0, 0.05, n_lemmas), rng.normal(0, spread, n_lemmas)
    pair = rng.normal(0, spread, len(lemma))
    parts = []
    for model, of_model in zip(MODELS, layers, strict=True):
        slopes = slope + rng.normal(0, spread, n_lemmas)
        of_notes = notes + rng.normal(0, spread, n_notes)
        of_typical = typical + rng.normal(0, spread, typical.shape)
        for layer in of_model:
            here = slopes + rng.normal(0, 0.01, n_lemmas)
            y = 0.4 + base[lemma] + here[lemma] * within + of_notes[a] + of_notes[b] + pair
            y = y + (of_typical[lemma, a] + of_typical[lemma, b]) * (within - 0.5)
            parts.append(
                pl.DataFrame(
                    {
                        "jaccard": y + rng.normal(0, 0.03, len(lemma)),
                        "pair_type": np.where(within, "within", "cross").tolist(),
                        "lemma": [f"l{i:02d}" for i in lemma],
                        "sense_a": sense.astype(str),
                        "sense_b": np.where(within, sense, 1 - sense).astype(str),
                        "doc_a": [f"d{i}" for i in a],
                        "doc_b": [f"d{i}" for i in b],
                        **{"model": model, "layer": layer, "sae": "one", "polysemy": "polysemous"},
                    }
                )
            )
    return pl.concat(parts).with_columns(
        pl.col("pair_type").cast(PAIR_TYPE), pl.col("polysemy").cast(POLYSEMY)
    )


def null_pairs_of_other_layers(number):
    return null_pairs(number, layers=(("10", "20"), ("8", "16")))


def null_entropies(number):
    """Entropy of two senses of ambiguous terms and of controls in two models."""
    rng = np.random.default_rng([number, 53])
    rows = []
    for lemma in range(24):
        kind = "polysemous" if lemma % 2 else "control"
        own = rng.normal(0, 0.02)
        senses = rng.normal(0, 0.01, 1 + lemma % 2)
        for model in MODELS:
            peculiar = rng.normal(0, 0.02)
            for sense in senses:
                y = 0.5 + own + peculiar + sense + rng.normal(0, 0.01)
                rows.append((f"l{lemma:02d}", kind, model, y))
    table = pl.DataFrame(rows, ["lemma", "polysemy", "model", "rarefied_normalized"], orient="row")
    return table.with_columns(
        pl.col("polysemy").cast(POLYSEMY), layer=pl.lit("1"), sae=pl.lit("one")
    )


def null_deltas(number):
    """ΔCE; latents depend on the sense and on the term, linked ones no more than others."""
    rng = np.random.default_rng([number, 52])
    n_lemmas, per_lemma, n_notes = 10, 6, 40
    latent = np.repeat(np.arange(n_lemmas * per_lemma), 12)
    lemma, linked = latent // per_lemma, latent % 2
    on = np.tile(np.arange(12) % 2, n_lemmas * per_lemma)
    doc = rng.integers(0, n_notes, len(latent))
    activation = rng.lognormal(size=len(latent))
    y = 0.02 * np.log(activation) + rng.normal(0, 0.05, latent.max() + 1)[latent]
    y = y + rng.normal(0, 0.05, latent.max() + 1)[latent] * on
    y = y + rng.normal(0, 0.05, n_lemmas)[lemma] + rng.normal(0, 0.04, n_lemmas)[lemma] * linked
    y = y + rng.normal(0, 0.05, n_notes)[doc] + rng.normal(0, 0.05, len(latent))

    def no_yes(values):
        return pl.Series(np.where(values, "yes", "no").tolist(), dtype=NO_YES)

    return pl.DataFrame(
        {
            "delta_ce": np.sinh(y),
            "linked": no_yes(linked),
            "on_sense": no_yes(on),
            "activation": activation,
            "lemma": [f"l{i:02d}" for i in lemma],
            "latent": [f"z{i}" for i in latent],
            "doc_id": [f"d{i}" for i in doc],
            **{name: ["one"] * len(latent) for name in ("model", "layer", "sae")},
        }
    )


def pvalues_of(response, simulate, terms, n_sets, specification=PLANNED):
    """p of each of ``terms`` in ``n_sets`` simulated studies: [sets, terms]."""
    (spec,) = (
        s for s in SPECIFICATIONS if (s.response, s.specification) == (response, specification)
    )
    pvalues = []
    for number in range(n_sets):
        formula = build_formula(spec, prepared_rows(spec, simulate(number)))
        result = bridge.fit(formula.data, formula.text, formula.engine)
        p = dict(result.coefficients.select("term", "p.value").iter_rows())
        pvalues.append([p[term] for term in terms])
    return np.array(pvalues)


def found(pvalues, level=0.05):
    return (pvalues <= level).sum(0)


PLANNED_NULLS = {
    "jaccard": (null_pairs, (INTERCEPT, "modelbeta")),
    "jaccard, other layers": (null_pairs_of_other_layers, (INTERCEPT, "modelbeta")),
    "entropy": (null_entropies, ("polysemypolysemous", "polysemypolysemous:modelbeta")),
    "delta_ce": (null_deltas, (INTERCEPT,)),
    "delta_ce_on_sense": (null_deltas, (INTERCEPT,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("null", PLANNED_NULLS)
def test_p_of_a_planned_contrast_keeps_its_level(null):
    simulate, terms = PLANNED_NULLS[null]
    pvalues = pvalues_of(null.split(",")[0], simulate, terms, N_SETS)
    for level in (0.05, 0.2, 0.5):
        print(null, level, found(pvalues, level) / N_SETS)
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], N_SETS, level)
        assert (low <= found(pvalues, level)).all() and (found(pvalues, level) <= high).all()


def test_models_that_do_not_differ_are_rarely_said_to():
    # the same on few sets: the level is held from above
    n_sets = 60
    pvalues = pvalues_of("jaccard", null_pairs, (INTERCEPT, "modelbeta"), n_sets)
    assert (found(pvalues) <= binom.ppf(0.9995, n_sets, 0.05)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("response", "simulate", "term"),
    [
        ("jaccard", null_pairs, "pair_typewithin:modelbeta"),
        ("delta_ce", null_deltas, "linkedyes:on_senseyes"),
    ],
)
def test_unaggregated_formulas_find_what_is_not_there(response, simulate, term):
    # why their coefficients are kept but not tested
    n_sets = 100
    pvalues = pvalues_of(response, simulate, (term,), n_sets, UNAGGREGATED)
    print(response, found(pvalues) / n_sets)
    assert found(pvalues)[0] > binom.ppf(0.9995, n_sets, 0.05)
