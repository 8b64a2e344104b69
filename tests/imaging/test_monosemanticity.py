import itertools

import numpy as np
import polars as pl
import pytest

from medsae.imaging.concepts import Concepts, concepts_of
from medsae.imaging.monosemanticity import (
    configuration_scores,
    expected_best,
    feature_scores,
    lifts,
    set_scores,
)
from medsae.imaging.result_columns import FEATURE_SCORES
from medsae.imaging.score_features import score_features
from medsae.imaging.top_slices import top_slices
from medsae.io import UserError

PUBLISHED = [
    "feature_idx", "dict_level", "coherence_10", "coherence_50", "specificity_10",
    "specificity_50", "monosemanticity_10", "monosemanticity_50", "pct_above_null",
    "n_nonzero_activations", "n_retrieved", "shared_concepts",
]  # fmt: skip


def organs_of(present, known=None):
    names = tuple(f"organ:{i}" for i in range(present.shape[1]))
    known = np.ones_like(present) if known is None else known
    return Concepts(names, present & known, known)


def naive_scores(organs, rows):
    """The published definition, every mask covering everything."""
    sets = [set(np.flatnonzero(organs[row])) for row in rows if row >= 0]
    pairs = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in itertools.combinations(sets, 2)]
    counts = np.bincount([organ for s in sets for organ in s], minlength=organs.shape[1])
    if not counts.sum():
        return np.mean(pairs), 0.0
    p = counts[counts > 0] / counts.sum()
    return np.mean(pairs), 1 + (p * np.log(p)).sum() / np.log(organs.shape[1])


def naive_covered(organs, rows):
    """Pair by pair and organ by organ, on what is known of both."""
    rows = [row for row in rows if row >= 0]
    sets = [
        (set(np.flatnonzero(organs.present[r])), set(np.flatnonzero(organs.known[r]))) for r in rows
    ]
    pairs = []
    for (a, could_a), (b, could_b) in itertools.combinations(sets, 2):
        both = could_a & could_b
        if both:
            a_, b_ = a & both, b & both
            pairs.append(len(a_ & b_) / len(a_ | b_) if a_ | b_ else 1.0)
    shares = []
    for organ in range(len(organs.names)):
        known = [organ in shown for shown, could in sets if organ in could]
        if len(known) >= 2:
            shares.append(np.mean(known))
    jaccard = np.mean(pairs) if pairs else np.nan
    if len(shares) < 2:
        return jaccard, np.nan
    if not sum(shares):
        return jaccard, 0.0
    p = np.array([share for share in shares if share]) / sum(shares)
    return jaccard, 1 + (p * np.log(p)).sum() / np.log(len(shares))


def test_scores_equal_the_definition_pair_by_pair():
    rng = np.random.default_rng(0)
    organs = rng.random((40, 6)) < 0.3
    rows = rng.integers(-1, 40, (30, 7))
    scores = set_scores(organs_of(organs), rows)
    for i, row in enumerate(rows):
        if (row >= 0).sum() < 2:
            assert np.isnan(scores.jaccard[i])
            continue
        jaccard, specificity = naive_scores(organs, row)
        assert scores.jaccard[i] == pytest.approx(jaccard, abs=1e-6)
        assert scores.specificity[i] == pytest.approx(specificity, abs=1e-6)


def test_slices_are_compared_on_what_both_masks_cover():
    rng = np.random.default_rng(1)
    organs = organs_of(rng.random((40, 6)) < 0.4, rng.random((40, 6)) < 0.5)
    rows = rng.integers(-1, 40, (30, 6))
    scores = set_scores(organs, rows)
    for i, row in enumerate(rows):
        jaccard, specificity = naive_covered(organs, row)
        assert scores.jaccard[i] == pytest.approx(jaccard, abs=1e-6, nan_ok=True)
        assert scores.specificity[i] == pytest.approx(specificity, abs=1e-6, nan_ok=True)


def test_a_structure_that_no_mask_covers_is_not_absent():
    # two scans of livers; the masks of the third were drawn for tumours only
    present = np.array([[True, False], [True, False], [False, True]])
    known = np.array([[True, False], [True, False], [False, True]])
    scores = set_scores(organs_of(present, known), np.array([[0, 1, 2]]))
    assert scores.jaccard[0] == 1 and scores.n_comparable[0] == 2
    as_if_absent = set_scores(organs_of(present), np.array([[0, 1, 2]]))
    assert as_if_absent.jaccard[0] == pytest.approx(1 / 3)


def test_two_empty_slices_are_alike_but_specific_to_nothing():
    scores = set_scores(organs_of(np.zeros((3, 4), bool)), np.array([[0, 1, 2]]))
    assert scores.jaccard[0] == 1
    assert scores.specificity[0] == 0


def small_table(n_scans, n_fired, n_latents=30):
    """A pool of one slice per scan and plane; each feature fires on ``n_fired`` scans."""
    rng = np.random.default_rng(0)
    scan = np.repeat(np.arange(n_scans), 3)
    plane = np.tile(["axial", "coronal", "sagittal"], n_scans)
    slices = pl.DataFrame(
        {
            "plane": plane, "modality": "ct", "scan": scan,
            "organs": [[str(o)] for o in rng.choice(["liver", "heart", "lung"], 3 * n_scans)],
        }
    )  # fmt: skip
    row = np.concatenate([np.sort(rng.choice(n_scans, n_fired, replace=False)) * 3] * n_latents)
    latent = np.repeat(np.arange(n_latents), n_fired)
    order = np.argsort(row, kind="stable")
    pool = np.ones(3 * n_scans, bool)
    batch = (row[order], latent[order], rng.random(len(row)).astype(np.float32))
    top = top_slices([batch], scan, pool, n_latents, 50)
    return feature_scores(top, top, concepts_of(slices), scan, pool, pool, [n_latents], seed=0)


def test_what_was_seen_on_a_few_scans_has_no_score_and_says_why():
    table = small_table(30, 4)
    assert table["monosemanticity_10"].is_null().all() and table["concept"].is_null().all()
    assert table["reason"].unique().to_list() == [
        "seen on fewer than 5 scans with comparable masks"
    ]
    enough = small_table(30, 5)
    assert enough["monosemanticity_10"].is_not_null().all() and enough["reason"].is_null().all()


def test_with_ten_scans_chance_is_not_estimable():
    few, many = small_table(10, 8), small_table(40, 8)
    for name in ("coherence_pvalue", "coherence_qvalue", "lift_pvalue", "lift_qvalue"):
        assert few[name].is_null().all() and many[name].is_not_null().all()
    assert configuration_scores(few)["n_lift_tested"] == 0
    assert configuration_scores(many)["n_lift_tested"] == 30
    # the features fire on axial slices alone, as every plane would show by chance once in 3⁸
    assert (many["concept"] == "plane:axial").all() and many["lift_qvalue"].max() < 0.05


@pytest.fixture(scope="module")
def scores(planted):
    folder = planted.folder
    return score_features(
        folder / "features.parquet", planted.slices, folder / "cfg.json", ["val"], 0
    )


def test_table_has_the_published_columns_first(scores):
    assert list(scores.columns) == list(FEATURE_SCORES)
    assert scores.columns[: len(PUBLISHED)] == PUBLISHED
    assert scores.height == 64
    assert scores["dict_level"].to_list() == [0] * 16 + [1] * 48


def test_planted_concepts_are_found_and_named(planted, scores):
    for latent, concept in planted.concepts.items():
        row = scores.row(latent, named=True)
        assert row["concept"] == concept
        assert row["concept_lift"] == pytest.approx(1)
        assert row["lift_qvalue"] < 0.05
        assert concept in row["shared_concepts"].split(";")


def test_organ_features_beat_random_ones(scores):
    organ, noise = scores["monosemanticity_10"][:6], scores["monosemanticity_10"][42:]
    assert organ.min() > noise.max()
    assert (scores["coherence_qvalue"][:6] < 0.05).all()


def test_useless_features_carry_a_reason_and_no_score(planted, scores):
    useless = ((planted.always, "active on every slice"), (planted.never, "never active"))
    for latent, reason in useless:
        row = scores.row(latent, named=True)
        assert row["reason"] == reason
        assert row["monosemanticity_10"] is None and row["concept"] is None


def test_null_is_calibrated_for_random_features(planted):
    rng = np.random.default_rng(1)
    n, n_latents = planted.slices.height, 600
    values = np.where(rng.random((n, n_latents)) < 0.2, rng.random((n, n_latents)), 0)
    row, latent = np.nonzero(values)
    scan = planted.slices["scan"].rank("dense").to_numpy().astype(int) - 1
    pool = np.ones(n, bool)
    top = top_slices([(row, latent, values[row, latent])], scan, pool, n_latents, 50)
    table = feature_scores(
        top, top, concepts_of(planted.slices), scan, pool, pool, [n_latents], seed=3
    )
    for level in (0.05, 0.2, 0.5):
        error = 3 * np.sqrt(level * (1 - level) / n_latents)
        coherent = (table["coherence_pvalue"] <= level).mean()
        assert level - error - 0.05 < coherent < level + error
        # the largest of several lifts takes few values: never more hits than the level allows
        assert (table["lift_pvalue"] <= level).mean() < level + error
    assert (table["lift_qvalue"] < 0.05).sum() <= 2


def test_expected_best_equals_all_subsets():
    values = np.array([0.9, 0.5, 0.4, 0.3, 0.1, 0.05])
    for size, n_best in ((3, 2), (4, 10), (6, 2), (1, 1)):
        every = [
            np.mean(sorted(subset, reverse=True)[:n_best])
            for subset in itertools.combinations(values, size)
        ]
        assert expected_best(values, size, n_best) == pytest.approx(np.mean(every))
    assert expected_best(values, 7) is None


def test_a_larger_dictionary_of_the_same_kind_is_not_favoured():
    rng = np.random.default_rng(0)
    small, large = rng.random(200), rng.random(5000)
    assert np.sort(large)[-10:].mean() > np.sort(small)[-10:].mean()
    # mean of the ten largest of 200 uniform numbers
    assert expected_best(large, 200) == pytest.approx(1 - 5.5 / 201, abs=0.003)


def test_configuration_scores_are_means_of_the_best(scores):
    summary = configuration_scores(scores, 20)
    best = scores["monosemanticity_10"].drop_nulls().sort(descending=True)[:10]
    assert summary["M_config"] == pytest.approx(best.mean())
    assert summary["M_config_fixed"] < summary["M_config"]
    assert summary["n_never_active"] == 1


def test_slices_without_masks_count_for_modality_but_not_for_organs(planted):
    scans = planted.slices.filter(split="val", modality="mr")["scan"].unique().sort()
    masked = ~pl.col("scan").is_in(scans[::2].to_list())
    slices = planted.slices.with_columns(organs=pl.when(masked).then(pl.col("organs")))
    table = score_features(
        planted.folder / "features.parquet", slices, planted.folder / "cfg.json", ["val"], 0
    )
    mr = table.row(11, named=True)
    assert mr["concept"] == "modality:mr"
    assert mr["n_retrieved"] == len(scans) // 2 and mr["n_retrieved_any"] == len(scans)
    assert table.row(2, named=True)["concept"] == "organ:liver"


def test_a_concept_known_for_few_of_the_slices_has_no_lift():
    present = np.zeros((10, 1), bool)
    known = np.zeros((10, 1), bool)
    present[:4], known[:4] = True, True
    concepts = Concepts(("organ:liver",), present, known)
    rows = np.array([[0, 1, 2, 9, 8, 7], [0, 1, 9, 8, 7, 6], [0, 1, -1, -1, -1, -1]])
    share, _ = lifts(concepts, np.array([0.5]), rows)
    assert share[:, 0].tolist()[::2] == [1, 1] and np.isnan(share[1, 0])


def test_an_empty_split_is_refused(planted):
    with pytest.raises(UserError, match="no slice of nowhere"):
        score_features(
            planted.folder / "features.parquet",
            planted.slices,
            planted.folder / "cfg.json",
            ["nowhere"],
            0,
        )
