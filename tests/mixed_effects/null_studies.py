"""Simulated studies without an effect.

Every simulated study has what real ones have: models see the same occurrences, pairs share
occurrences, notes and patients over all terms, notes and terms are peculiar in each model, and
a latent may depend on the sense without its kind doing so. None of it is an effect.
"""

import numpy as np
import polars as pl

from medsae.mixed_effects.data import NO_YES, PAIR_TYPE, POLYSEMY
from tests.mixed_effects.planted import overlaps_of

MODELS = ("alpha", "beta", "gamma")
ONE_LAYER = (("10",), ("10",))
"""Layers of each model; there are as many models."""

COSTS = (0.08, 0.0, 0.03)
FIRES_ON = (0.9, 0.5, 0.7)
FIRES_OFF = (0.15, 0.6, 0.3)
"""What removing each linked latent of a term costs whatever is meant, and how often it fires where
its own sense is meant and where not."""


def null_pairs(number, layers=ONE_LAYER):
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
    for model, of_model in zip(MODELS, layers, strict=False):
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


def null_overlaps(number, layers=ONE_LAYER):
    """Δ of each term over all of its pairs, of the same study."""
    return overlaps_of(null_pairs(number, layers))


def null_overlaps_of_other_layers(number):
    return null_overlaps(number, layers=(("10", "20"), ("8", "16")))


def null_overlaps_of_uneven_spread(number):
    """In the first of three models terms spread a quarter as much, as with random weights."""
    overlaps = null_overlaps(number, layers=(("10",), ("10",), ("10",)))
    quiet = pl.when(pl.col("model") == MODELS[0]).then(4).otherwise(1)
    return overlaps.with_columns(pl.col("jaccard") / quiet)


def null_entropies(number):
    """Entropy of two senses of ambiguous terms and of controls in two models."""
    rng = np.random.default_rng([number, 53])
    rows = []
    for lemma in range(24):
        kind = "polysemous" if lemma % 2 else "control"
        own = rng.normal(0, 0.02)
        senses = rng.normal(0, 0.01, 1 + lemma % 2)
        for model in MODELS[:2]:
            peculiar = rng.normal(0, 0.02)
            for sense in senses:
                y = 0.5 + own + peculiar + sense + rng.normal(0, 0.01)
                rows.append((f"l{lemma:02d}", kind, model, y))
    table = pl.DataFrame(rows, ["lemma", "polysemy", "model", "rarefied_normalized"], orient="row")
    return table.with_columns(
        pl.col("polysemy").cast(POLYSEMY), layer=pl.lit("1"), sae=pl.lit("one")
    )


def null_deltas(number, costs=COSTS):
    """ΔCE; latents depend on the sense and on the term, linked ones no more than others.

    Linked latents cost more than their controls, and the costly ones fire where their own sense
    is meant, as linked latents do; what their removal costs does not depend on the sense.
    """
    rng = np.random.default_rng([number, 52])
    n_lemmas, n_places, n_notes, n_linked = 10, 24, 40, len(costs)
    on = rng.random((n_lemmas, n_places, 1)) < 0.6
    fires = rng.random((n_lemmas, n_places, n_linked)) < np.where(on, FIRES_ON, FIRES_OFF)
    lemma, place, own = np.nonzero(fires)
    on = on[lemma, place, 0]
    doc = rng.integers(0, n_notes, (n_lemmas, n_places))[lemma, place]
    notes, of_lemma = rng.normal(0, 0.05, n_notes), rng.normal(0, 0.05, n_lemmas)
    of_linked = rng.normal(0, 0.04, n_lemmas)
    parts = []
    for linked in (True, False):
        # a control is drawn anew at each occurrence, from a few
        drawn = np.zeros(len(lemma), int) if linked else rng.integers(1, 3, len(lemma))
        latent = lemma * 100 + own * 10 + drawn
        activation = rng.lognormal(size=len(lemma))
        y = 0.02 * np.log(activation) + rng.normal(0, 0.05, 1000)[latent]
        y = y + rng.normal(0, 0.05, 1000)[latent] * on + notes[doc] + of_lemma[lemma]
        y = y + (np.array(costs)[own] + of_linked[lemma]) * linked
        y = y + rng.normal(0, 0.05, len(lemma))
        parts.append(
            pl.DataFrame(
                {
                    "delta_ce": np.sinh(y),
                    "linked": ["yes" if linked else "no"] * len(lemma),
                    "on_sense": np.where(on, "yes", "no").tolist(),
                    "activation": activation,
                    "lemma": [f"l{i:02d}" for i in lemma],
                    "latent_id": latent.astype(str),
                    "matched_to": [None] * len(lemma) if linked else (latent - drawn).astype(str),
                    "latent": [f"z{i}" for i in latent],
                    "doc_id": [f"d{i}" for i in doc],
                },
                schema_overrides={"matched_to": pl.String, "linked": NO_YES, "on_sense": NO_YES},
            )
        )
    names = {name: pl.lit("one") for name in ("sense", "model", "layer", "sae")}
    return pl.concat(parts).with_columns(**names)


def null_deltas_on_sense(number):
    """The same, where linked latents cost no more than their controls at their own sense either."""
    return null_deltas(number, costs=(0.0, 0.0, 0.0))
