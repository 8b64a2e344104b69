"""Planted tables with the columns of the real ones."""

import polars as pl
import pytest

from medsae.polysemy import columns
from medsae.polysemy.ablation_summary import ALL_TERMS

TERMS = {
    "discharge": ("administrative", "clinical"),
    "mass": ("radiological", "anatomical"),
    "shock": ("cardiovascular", "neurological"),
    "block": ("cardiac", "neurological"),
    "failure": ("cardiac", "renal"),
    "regurgitation": ("cardiac", "GI"),
    "insufficiency": ("renal", "endocrine"),
}
CONTROLS = ("hypertension", "pneumonia", "patient")
POOR = "insufficiency"  # too rare to say anything about
MIXED = "mass"  # its senses share their latents
PLACE = {"model": "small-lm", "layer": 10, "sae": "topk"}

RANDOM_PLACE = PLACE | {"model": "random-lm"}


def interval(name: str, value: float | None, half: float) -> dict:
    low, high = (None, None) if value is None else (value - half, value + half)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def cuts(size: float | None) -> dict:
    """What 95% of random cuts of terms with one meaning stay below."""
    low = None if size is None else -size
    return {"chance_delta_low": low, "chance_delta_high": size, "chance_delta_95": size}


def senses():
    for index, (lemma, pair) in enumerate(TERMS.items()):
        for sense in pair:
            yield index, lemma, sense


@pytest.fixture
def jaccard() -> pl.DataFrame:
    """Five terms separated (discharge within what cuts of controls do), one not, one not estimable;
    controls; a floor."""
    rows = []
    for k, base in ((10, 0.55), (50, 0.4)):
        for index, (lemma, pair) in enumerate(TERMS.items()):
            poor, mixed = lemma == POOR, lemma == MIXED
            delta = None if poor else 0.0 if mixed else 0.05 * (index + 1)
            rows.append(
                PLACE
                | {"lemma": lemma, "kind": "polysemous", "k": k}
                | {"sense1": pair[0], "sense2": pair[1]}
                | interval("within", None if poor else base, 0.04)
                | interval("cross", None if poor else base - (delta or 0), 0.05)
                | interval("delta", delta, 0.03)
                | interval("polysemy_index", None if delta is None else delta / base, 0.05)
                | {"pvalue": None if poor else 0.3 if mixed else 0.0001}
                | {"qvalue": None if poor else 0.4 if mixed else 0.0003}
                | {"n_occurrences1": 64, "n_occurrences2": 4 if poor else 58, "n_patients": 97}
                | {"matched_controls": "hypertension|patient", "control_within": 0.6}
                | cuts(None if poor else 0.06 if lemma == "discharge" else 0.012)
                | {"reason": "4 occurrences of endocrine; 10 needed" if poor else None}
            )
        for lemma in CONTROLS:
            rows.append(
                PLACE
                | {"lemma": lemma, "kind": "control", "k": k}
                | interval("within", base + 0.05, 0.04)
                | interval("cross", None, 0.0)
                | interval("delta", None, 0.0)
                | cuts(0.01)
                | {"n_occurrences1": 80, "n_patients": 70}
            )
        rows.append(
            PLACE
            | {"lemma": "different lemmas", "kind": "floor", "k": k}
            | interval("cross", 0.08, 0.01)
        )
    table = pl.DataFrame(rows, infer_schema_length=None)
    assert set(table.columns) <= set(columns.JACCARD_AT_K)
    return table


@pytest.fixture
def entropy() -> pl.DataFrame:
    rows = [
        PLACE
        | {"lemma": lemma, "sense": sense, "kind": "polysemous", "n_occurrences": 60 + index}
        | {"rarefied_n": None if lemma == POOR else 30}
        | interval("rarefied_entropy", None if lemma == POOR else 4 + 0.3 * index, 0.2)
        | {"reason": "4 occurrences; 10 needed" if lemma == POOR else None}
        for index, lemma, sense in senses()
    ]
    rows += [
        PLACE
        | {"lemma": lemma, "sense": None, "kind": "control", "n_occurrences": 80, "rarefied_n": 40}
        | interval("rarefied_entropy", 4.4, 0.2)
        for lemma in CONTROLS
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture
def linked() -> pl.DataFrame:
    """``discharge`` has three latents per sense, of which the second is the strongest."""
    rows = [
        PLACE
        | {"lemma": lemma, "sense": sense, "latent_id": 100 * index + j, "n_sense_total": 60}
        | {"presence_rate": 0.6 + 0.1 * (j == 1), "presence_rate_other": 0.1}
        | {"rate_diff_confirmation": 0.5 + 0.1 * (j == 1)}
        | {"discovered": True, "confirmed": lemma != MIXED and j < 2}
        | {"n_tests": 5000, "smallest_q": 0.05, "pvalue": 0.0001, "reason": None}
        for index, lemma, sense in senses()
        if lemma != POOR
        for j in range(3)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture
def probes() -> pl.DataFrame:
    rows = []
    for index, (lemma, pair) in enumerate(TERMS.items()):
        poor = lemma == POOR
        auroc = None if poor else 0.52 if lemma == MIXED else 0.75 + 0.03 * index
        area = {"auroc": auroc} | interval("auroc_null", 0.5, 0.08)
        reason = "4 occurrences; 10 needed" if poor else None
        rows.append(
            PLACE
            | {"lemma": lemma, "sense": None, "reason": reason}
            | ({} if poor else area | {"qvalue": 0.5 if lemma == MIXED else 0.001})
        )
        rows += [
            PLACE
            | {"lemma": lemma, "sense": sense, "prevalence": 0.5, "n_positive": 60}
            | area
            | {"ap": 0.8}
            for sense in pair
            if not poor
        ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    assert set(table.columns) <= set(columns.SENSE_PROBES)
    return table


@pytest.fixture
def ablation() -> pl.DataFrame:
    rows = []
    for index, lemma, sense in senses():
        poor = lemma in (POOR, MIXED)
        effect = None if poor else 0.02 * (index + 1)
        rows.append(
            PLACE
            | {"lemma": lemma, "sense": sense}
            | interval("linked_on", effect, 0.01)
            | interval("random_on", None if poor else 0.002, 0.002)
            | interval("linked_off", None if poor else 0.004, 0.004)
            | interval("contrast", None if effect is None else effect - 0.002, 0.01)
            | interval("did", None if effect is None else effect - 0.005, 0.012)
            | {"qvalue": None if poor else 0.01, "qvalue_contrast": None if poor else 0.01}
            | {"smallest_q": None if poor else 0.04, "smallest_q_contrast": None if poor else 0.02}
            | {"n_occurrences": 20, "n_patients": 15, "n_patients_on": 0 if poor else 12}
            | {"reason": "no confirmed sense-linked latent" if poor else None}
        )
    overall = interval("contrast", 0.05, 0.01) | interval("did", 0.04, 0.01) | {"n_patients": 90}
    overall |= interval("activation_on_over_off", 1.38, 0.16)
    rows.append(PLACE | {"lemma": ALL_TERMS, "sense": None, "reason": None} | overall)
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture
def faithfulness() -> pl.DataFrame:
    rows = [
        PLACE
        | {"layer": layer}
        | interval("ce_clean", 3.1, 0.1)
        | interval("ce_reconstructed", 3.4, 0.1)
        | interval("ce_mean_ablated", 8.0, 0.2)
        | interval("loss_recovered", 0.94, 0.01)
        | interval("fvu", 0.2, 0.02)
        | {"n_tokens": 5000, "check": "passed", "reason": None}
        for layer in (10, 20)
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def sweep() -> pl.DataFrame:
    rows = [
        PLACE
        | {"k": k, "delta_P@1_mean": 0.002 * k, "delta_P@1_low": 0.002 * k - 0.03}
        | {"delta_P@1_high": 0.002 * k + 0.03, "p_adjusted": 0.2 if k < 20 else 0.01, "n": 300}
        | {"n_patients": 90, "n_anchor": 5, "chosen": k == 20}
        | {"delta_MAP_mean": 0.001 * k, "delta_MAP_low": 0.0005 * k, "delta_MAP_high": 0.002 * k}
        for k in (5, 10, 15, 20, 25, 30, 40, 50)
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def baselines() -> pl.DataFrame:
    values = {
        "rerank": 0.81,
        "full": 0.74,
        "raw_residual": 0.78,
        "raw_residual_centred": 0.75,
        "tfidf_context": 0.79,
        "random": 0.5,
    }
    rows = [
        dict(PLACE | {"word": "all", "method": m})
        | interval("p_at_1", v, 0.04)
        | interval("delta_p_at_1", v - 0.74, 0.02)
        | interval("p_at_3", v - 0.02, 0.04)
        | interval("p_at_5", v - 0.03, 0.04)
        | interval("p_at_10", v - 0.05, 0.03)
        | interval("mrr", v + 0.05, 0.03)
        | interval("map", v - 0.1, 0.02)
        for m, v in values.items()
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def agreement() -> pl.DataFrame:
    rows = [
        {"lemma": lemma, "n_occurrences": 122, "n_resolved": 101, "n_sense": 122, "n_gold": 122}
        | interval("kappa", None if lemma == POOR else 0.6 + 0.04 * index, 0.06)
        | interval("accuracy", 0.9 + 0.01 * index, 0.03)
        | interval("ner_accuracy", 0.85 + 0.01 * index, 0.03)
        | interval("cue_accuracy", 0.88, 0.03)
        for index, lemma in enumerate(TERMS)
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def ner() -> pl.DataFrame:
    labels = ("all labels", "cardiovascular disorder", "anatomical structure", "unseen")
    rows = [
        {"label": label, "matching": matching, "precision": 0.8, "recall": 0.7}
        | interval("f1", None if label == "unseen" else bonus + 0.75 - 0.05 * index, 0.03)
        | {"n_gold": 0 if label == "unseen" else 250, "n_predicted": 240}
        for matching, bonus in (("exact", 0.0), ("overlap", 0.1))
        for index, label in enumerate(labels)
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def training() -> pl.DataFrame:
    n = 40
    return pl.DataFrame(
        {
            "n_tokens": [50_000 * (i + 1) for i in range(n)],
            "fvu": [0.2 + 0.8 / (i + 1) for i in range(n)],
            "val_fvu": [0.22 + 0.8 / (i + 1) if i % 5 == 4 else None for i in range(n)],
            "l0": [32.0] * n,
            "dead_fraction": [0.3 * i / n for i in range(n)],
            "tokens_per_s": [9000.0 + 100 * (i % 3) for i in range(n)],
        }
    )


@pytest.fixture
def contrasts() -> pl.DataFrame:
    rows = [
        ("jaccard", "planned", "same sense − other sense", 0.12, 0.001),
        ("jaccard", "planned", "same sense − other sense, random-lm − small-lm", -0.01, 0.6),
        ("delta_ce", "planned", "linked − random latent, own − other sense", 0.03, 0.02),
        ("delta_ce", "published", "own − other sense", 0.4, 0.02),
    ]
    return pl.DataFrame(
        [
            {"response": response, "specification": kind, "contrast": contrast, "estimate": value}
            | {"conf_low": value - 0.02, "conf_high": value + 0.02, "qvalue": q, "status": "ok"}
            for response, kind, contrast, value, q in rows
        ]
    )


@pytest.fixture
def fits() -> pl.DataFrame:
    rows = [
        ("jaccard", "planned", 3000, "ok", None),
        ("entropy", "planned", 0, "not estimable", "there are no rows"),
        ("delta_ce", "planned", 400, "singular", None),
        ("jaccard", "unaggregated", 5000, "ok", None),
        ("delta_ce", "published", 300, "ok", None),
    ]
    return pl.DataFrame(
        rows, schema=["response", "specification", "n", "status", "reason"], orient="row"
    ).with_columns(pl.lit(None, pl.String).alias("dropped"), pl.lit(None, pl.String).alias("note"))


@pytest.fixture
def occurrences() -> pl.DataFrame:
    rows = []
    for index, lemma, sense in senses():
        n = 4 if sense == "endocrine" else 40 + 3 * index
        rows += [(f"d{i}", f"p{i // 2}", lemma, "polysemous", sense) for i in range(n)]
    rows += [(f"d{i}", f"p{i // 2}", "mass", "polysemous", None) for i in range(12)]
    rows += [
        (f"d{i}", f"p{i // 2}", lemma, "control", None) for lemma in CONTROLS for i in range(70)
    ]
    names = ["doc_id", "patient_id", "lemma", "kind", "sense"]
    return pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)


@pytest.fixture
def notes() -> dict:
    return {
        "n_notes": 600,
        "n_patients": 240,
        "patient_ids": "given",
        "n_dropped_empty": 0,
        "n_train": 570,
        "n_val": 30,
        "n_characters": 700_000,
    }


@pytest.fixture
def diagnostics() -> pl.DataFrame:
    """Residuals and two random effects of every fit of ``fits`` that was estimated."""
    points = [x / 10 - 2 for x in range(41)]
    rows = [
        {"response": response, "specification": kind, "group": group}
        | {"fitted": x / 2 if group == "residual" else None, "value": 1.1 * x, "quantile": x}
        for response, kind in (("jaccard", "planned"), ("delta_ce", "planned"))
        for group in ("residual", "lemma", "lemma: pair_typewithin")
        for x in points
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def poolings() -> pl.DataFrame:
    """Terms of one to three tokens; the mean over tokens separates a little less."""
    rows = [
        PLACE
        | {"lemma": lemma, "pooling": pooling, "chosen": pooling == "last", "k": 10}
        | interval("delta", None if lemma == POOR else 0.2 - loss, 0.05)
        | interval("change", None if lemma == POOR else -loss, 0.02)
        | {"tokens_per_occurrence": 1.0 + index % 3, "reason": "too few" if lemma == POOR else None}
        for index, lemma in enumerate(TERMS)
        for pooling, loss in (("last", 0.0), ("max", 0.01), ("mean", 0.04 * (index % 3 > 0)))
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture
def gains_at(jaccard: pl.DataFrame):
    """``training_gain.csv`` as a function of what share of each Δ random weights leave.

    One term has too few occurrences.
    """
    at_10 = jaccard.filter(pl.col("k") == 10, pl.col("kind") == "polysemous")
    ends = [pl.col(f"delta{end}") for end in ("", "_low", "_high")]

    def make(share: float) -> pl.DataFrame:
        table = at_10.select(
            *PLACE,
            *(pl.lit(value).alias(f"untrained_{name}") for name, value in RANDOM_PLACE.items()),
            "lemma",
            "k",
            *ends,
            *((end * share).name.replace("delta", "delta_untrained") for end in ends),
            *((end * (1 - share)).name.replace("delta", "gain") for end in ends),
            pl.col("n_occurrences1").alias("n_occurrences"),
            "n_patients",
            "reason",
        )
        assert table.columns == list(columns.TRAINING_GAIN)
        return table

    return make


@pytest.fixture
def gains(gains_at) -> pl.DataFrame:
    """``training_gain.csv``: random weights leave a tenth of each Δ."""
    return gains_at(0.1)
