"""What the masks of a scan do not cover is unknown, in concepts and in what is asked of them."""

import polars as pl

from medsae.imaging.concepts import EMPTY, concepts_of
from medsae.imaging.targets import targets_of


def slices():
    whole = ["heart", "liver", *(f"bone_{i}" for i in range(10))]
    return pl.DataFrame(
        {
            "scan": ["a", "a", "b", "b", "c"],
            "modality": ["ct", "ct", "ct", "ct", "mr"],
            "organs": [["liver"], [], ["tumour"], [], None],
            "structures": [whole, whole, ["tumour"], ["tumour"], None],
        }
    )


def test_a_structure_is_known_where_the_masks_cover_it():
    concepts = concepts_of(slices())
    liver, tumour = concepts.index("organ:liver"), concepts.index("organ:tumour")
    assert concepts.known[:, liver].tolist() == [True, True, False, False, False]
    assert concepts.present[:, liver].tolist() == [True, False, False, False, False]
    assert concepts.known[:, tumour].tolist() == [False, False, True, True, False]
    assert not (concepts.present & ~concepts.known).any()


def test_a_slice_without_a_tumour_is_not_one_without_structures():
    concepts = concepts_of(slices())
    empty = concepts.index(EMPTY)
    assert concepts.present[:, empty].tolist() == [False, True, False, False, False]
    assert concepts.known[:, empty].tolist() == [True, True, True, False, False]


def test_probes_leave_out_what_is_unknown():
    targets = targets_of(concepts_of(slices()))
    t = targets.name.index("organ:tumour")
    assert targets.used[:, t].tolist() == [False, False, True, True, False]


def test_parts_keep_what_is_known():
    organs = concepts_of(slices()).of_family("organ")
    assert organs.names == ("organ:liver", "organ:tumour")
    assert organs.of_rows([2, 0]).known.tolist() == [[False, True], [True, False]]
