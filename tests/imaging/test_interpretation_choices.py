import itertools

import numpy as np
import polars as pl
import pytest

from medsae.imaging.interpret.prompts import parse_description, parse_features, parse_ranking
from medsae.imaging.interpret.select import (
    coefficient_ranks,
    hard_distractors,
    max_min_diverse,
    select_features,
)
from medsae.imaging.phrases import concepts_in, sentence


def test_features_are_selected_by_the_mean_of_two_ranks():
    scores = pl.DataFrame(
        {
            "feature_idx": [0, 1, 2, 3, 4, 5],
            "monosemanticity_10": [0.9, 0.5, None, 0.1, None, None],
            "n_nonzero_activations": [9, 9, 9, 9, 0, 30],
            "reason": [None, None, "too few", None, "never active", "active on every slice"],
        }
    )
    recovery = pl.DataFrame({"features": ["1;0", None, "2;3"]})
    assert coefficient_ranks(recovery, 4).tolist() == [3.5, 1.5, 1.5, 3.5]
    everything = select_features(scores, recovery)
    # one seen on too few scans for a score comes last by it; what tells no slice apart is left out
    assert dict(everything.select("feature_idx", "rank_mono").iter_rows()) == {
        0: 1,
        1: 2,
        3: 3,
        2: 4,
    }
    selected = select_features(scores, recovery, 2)
    assert selected["feature_idx"].to_list() == [1, 0]
    assert selected["rank_mean"].to_list() == [1.75, 2.25]


def test_diverse_choice_is_the_greedy_max_min_one():
    vectors = np.array([[1, 0], [0.99, 0.1], [0, 1], [0.7, 0.7], [-1, 0.05]], float)
    assert max_min_diverse(vectors, 3) == [0, 4, 2]
    assert max_min_diverse(vectors, 9) == [0, 4, 2, 3, 1]
    assert max_min_diverse(vectors[:0], 5) == []


def test_distractors_are_the_nearest_that_are_no_duplicates():
    similarity = np.array([[1, 0.9, 0.8, 0.7, 0.1]] + [[0] * 5] * 4, float)
    duplicate = np.eye(5, dtype=bool)
    duplicate[0, 1] = duplicate[1, 0] = True  # as good a description of feature 10
    duplicate[2, 3] = duplicate[3, 2] = True  # twins of each other
    assert hard_distractors(10, [10, 11, 12, 13, 14], similarity, duplicate, 4) == [12, 14]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "liver",
        '{"concept": ""}',
        '{"concept": "x"}',
        '{"concept": 1, "description": 2}',
        "{",
        "[1]",
    ],
)
def test_what_is_no_description_is_a_failure(answer):
    assert parse_description(answer) is None


def test_descriptions_are_read_out_of_code_fences():
    found = parse_description('```json\n{"concept": "liver", "description": "axial  CT"}\n```')
    assert (found.concept, found.description) == ("liver", "axial CT")


@pytest.mark.parametrize(
    "answer", ['{"ranking": [1, 2]}', '{"ranking": [1, 1, 2]}', '{"ranking": [0, 1, 2]}', "1, 2, 3"]
)
def test_what_is_no_ranking_is_a_failure(answer):
    assert parse_ranking(answer, 3) is None


def test_rankings_and_picks_are_read():
    assert parse_ranking('{"ranking": [3, 1, 2]}', 3) == [2, 0, 1]
    assert parse_features('{"features": [7, 9, 8]}', [7, 8, 9], 3) == [7, 9, 8]
    assert parse_features('{"features": [7, 7, 8]}', [7, 8, 9], 3) is None
    assert parse_features('{"features": [7, 1, 8]}', [7, 8, 9], 3) is None


NAMES = (
    "modality:ct", "modality:mr", "plane:axial", "plane:coronal", "organ:kidney",
    "organ:kidney_left", "organ:liver", "content:no structure",
    "sex:f", "sex:m", "age:<40", "age:>=80",
)  # fmt: skip


def test_concepts_put_into_words_are_found_again():
    families = {}
    for name in NAMES:
        families.setdefault(name.split(":")[0], []).append(name)
    for combination in itertools.product(*families.values()):
        text = sentence(list(combination))
        assert set(concepts_in(text, NAMES)) == set(combination), text


def test_synonyms_name_a_concept_and_parts_of_words_do_not():
    assert concepts_in("An MRI of a female, transverse", NAMES) == [
        "modality:mr", "plane:axial", "sex:f",
    ]  # fmt: skip
    assert concepts_in("the woman's factual liverwort", NAMES) == ["sex:f"]
