"""Numbers, documents and tables read the same everywhere."""

import math

import polars as pl
import pytest

from medsae.report.document import Bullets, Heading, Paragraph, Table, to_html, to_markdown, to_rst
from medsae.report.means import mean_over_terms
from medsae.report.phrases import estimated, listed, q_is, share
from medsae.report.tables import at_headline_k, read


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ({"value": 0.18, "low": 0.12, "high": 0.24}, "0.18 [0.12, 0.24]"),
        ({"value": -0.0181, "low": -0.05, "high": 0.012}, "−0.018 [−0.050, 0.012]"),
        ({"value": -0.0001, "low": -0.02, "high": 0.02}, "0.000 [−0.020, 0.020]"),
        ({"value": 0.004, "low": 0.0003, "high": 0.008}, "0.0040 [0.0003, 0.0080]"),
        ({"value": 0.004, "low": -0.0003, "high": 0.008}, "0.004 [0.000, 0.008]"),
        (None, "not estimable"),
    ],
)
def test_estimates_read_the_same_everywhere(estimate, text):
    assert estimated(estimate) == text


def test_phrases():
    assert estimated({"value": 0.2, "low": 0.1, "high": 0.3}, signed=True) == "+0.20 [+0.10, +0.30]"
    assert share({"value": 0.94, "low": 0.93, "high": 0.95}) == "94.0% [93.0%, 95.0%]"
    assert (q_is(0.0004), q_is(0.032), q_is(None)) == ("q < 0.001", "q = 0.032", "no q")
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_the_mean_over_terms_has_students_interval():
    mean = mean_over_terms("x", pl.Series([1.0, 2.0, 3.0, None]))
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2) · sd / √n with sd = 1
    assert (mean["x"], mean["x_low"], mean["x_high"]) == pytest.approx((2, 2 - half, 2 + half))
    assert mean_over_terms("x", pl.Series([], dtype=pl.Float64))["x"] is None
    assert mean_over_terms("x", pl.Series([1.0]))["x_low"] is None


def test_documents_keep_every_character():
    blocks = [
        Heading(1, "A & B"),
        Paragraph("x_ < **y|z** *"),
        Bullets(("a", "b")),
        Table(("n", "v"), (("a|b", "1"),)),
    ]
    assert to_markdown(blocks).splitlines()[-1] == "| a\\|b | 1 |"
    page = to_html(blocks)
    assert "<h1>A &amp; B</h1>" in page and "x_ &lt; <strong>y|z</strong> *" in page
    assert to_rst(blocks[1:3]) == "x\\_ \\< **y\\|z** \\*\n\n- a\n- b\n"


def test_headline_k_is_the_nearest_to_ten(jaccard):
    assert at_headline_k(jaccard)[1] == 10
    assert at_headline_k(jaccard.filter(pl.col("k") == 50))[1] == 50


def test_columns_without_a_number_stay_numbers(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("lemma,delta,reason\nmass,,\nblock,,\n")
    assert read(path).schema == {"lemma": pl.String, "delta": pl.Float64, "reason": pl.String}
