"""Every model that is fitted; what they are for is said in ``medsae.mixed_effects.study``."""

from medsae.mixed_effects.aggregate import LEMMA_MODEL
from medsae.mixed_effects.formulas import Specification

PLANNED, UNAGGREGATED, PUBLISHED = "planned", "unaggregated", "published"

RESPONSES = (
    # response, metric, table, left, interest, what the response says if it is a contrast,
    # covariates
    ("jaccard", "jaccard", "overlap", "delta", (), "same sense − other sense", ()),
    ("jaccard_at_10", "jaccard", "overlap", "delta", (), "same sense − other sense", ()),
    ("entropy", "entropy", "entropy", "rarefied_normalized", ("polysemy",), "", ()),
    (
        "delta_ce", "delta_ce", "delta_ce", "did", (),
        "linked − random latent, own − other sense", ("log_activation",),
    ),
    (
        "delta_ce_on_sense", "delta_ce", "delta_ce", "on_sense", (),
        "linked − random latent, own sense", ("log_activation",),
    ),
)  # fmt: skip

SPECIFICATIONS = (
    *(
        Specification(
            response=response,
            specification=PLANNED,
            metric=metric,
            table=table,
            left=left,
            interest=interest,
            interaction=bool(interest),
            planned=interest,
            crossed="model",
            additive=(*covariates, "layer", "sae"),
            random={"lemma": (), LEMMA_MODEL: ()},
            engine="lmer",
            difference=difference,
            by_lemma=True,
        )
        for response, metric, table, left, interest, difference, covariates in RESPONSES
    ),
    *(
        Specification(
            response=name,
            specification=UNAGGREGATED,
            metric="jaccard",
            table="jaccard",
            left=name,
            interest=("pair_type",),
            interaction=True,
            planned=(),
            crossed="model",
            additive=("layer", "sae"),
            random={"lemma": ("pair_type",), "doc_a": (), "doc_b": ()},
            engine="lmer",
        )
        for name in ("jaccard", "jaccard_at_10")
    ),
    Specification(
        response="delta_ce",
        specification=UNAGGREGATED,
        metric="delta_ce",
        table="delta_ce",
        left="asinh(delta_ce)",
        interest=("linked", "on_sense"),
        interaction=True,
        planned=(),
        crossed=None,
        additive=("log(activation)", "model", "layer", "sae"),
        random={"lemma": (), "latent": (), "doc_id": ()},
        engine="lmer",
    ),
    *(
        Specification(
            response=response,
            specification=PUBLISHED,
            metric=response,
            table=response,
            left=left,
            interest=interest,
            interaction=False,
            planned=interest,
            crossed=None,
            additive=("model", "layer"),
            random=dict.fromkeys(random, ()),
            engine=engine,
        )
        for response, left, interest, random, engine in (
            ("jaccard", "jaccard", ("polysemy", "context"), ("lemma",), "beta"),
            ("entropy", "normalized_entropy", ("polysemy",), ("lemma",), "beta"),
            ("delta_ce", "delta_ce", ("polysemy", "context"), ("lemma", "doc_id"), "gamma"),
        )
    ),
)
