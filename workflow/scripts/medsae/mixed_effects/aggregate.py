"""Each term's contrast as one number per model, layer and SAE: what the planned tests are about.

Pairs share notes and patients, occurrences share latents, and all of a term's rows share whatever
is peculiar to the term in one model. A model over pairs or occurrences that leaves one of these
out takes dependent rows for new evidence. Whatever is shared within a term enters its contrast
once, so tests over terms need none of it to be modelled; what they generalise to are terms.

    overlap    Δ = mean_s W(s) − mean_{s<s'} C(s, s') over all pairs (``medsae.polysemy.jaccard``)
    entropy    mean over senses
    ΔCE        y = asinh(ΔCE); of each linked latent ℓ of a sense, at own (on) and at other
               senses (off): d_ℓ = ȳ(ℓ) − ȳ(its controls), n_ℓ occurrences
               on_sense = Σ_ℓ n_ℓ,on d_ℓ,on / Σ_ℓ n_ℓ,on
               did      = Σ_ℓ w_ℓ (d_ℓ,on − d_ℓ,off) / Σ_ℓ w_ℓ,
                          w_ℓ = n_ℓ,on n_ℓ,off / (n_ℓ,on + n_ℓ,off)

As in ``medsae.polysemy.ablation_summary`` did compares each latent with itself: a difference of
means over all latents would compare the costly ones, which fire at their own sense, with others.
"""

import polars as pl

from medsae.mixed_effects.data import PLACE

LEMMA_MODEL = "lemma_model"


def lemma_overlaps(overlaps: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Δ of each ambiguous term, of the latents of ``measure``: columns delta, lemma, place."""
    return _finish(overlaps.select("lemma", *PLACE, pl.col(measure).alias("delta")), "delta")


def lemma_entropies(senses: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Mean of ``measure`` over the senses of each term: columns measure, polysemy, lemma, place."""
    means = senses.group_by("lemma", "polysemy", *PLACE).agg(pl.col(measure).mean())
    return _finish(means, measure)


def lemma_ablations(deltas: pl.DataFrame, contrast: str) -> pl.DataFrame:
    """``contrast`` (on_sense or did) of each term, and the same of ln(activation) of the latents.

    Columns: contrast, ``log_activation``, lemma, place. A latent without controls takes no part,
    for did neither one that fires on one side only; a term without any latent left has no row.
    """
    linked = pl.col("linked").cast(pl.String) == "yes"
    latent = ["lemma", "sense", "linked_latent", *PLACE]
    measures = {
        contrast: pl.col("delta_ce").arcsinh(),
        "log_activation": pl.col("activation").log(),
    }

    def difference(value: pl.Expr) -> pl.Expr:
        finite = value.is_finite()
        return value.filter(linked & finite).mean() - value.filter(~linked & finite).mean()

    sides = (
        deltas.with_columns(pl.coalesce("matched_to", "latent_id").alias("linked_latent"))
        .group_by(*latent, pl.col("on_sense").cast(pl.String).alias("own"))
        .agg(
            linked.sum().cast(pl.Float64).alias("n"),
            **{name: difference(value) for name, value in measures.items()},
        )
        .drop_nulls(list(measures))
    )
    rows = sides.filter(own="yes").with_columns(pl.col("n").alias("weight"))
    if contrast == "did":
        off = sides.filter(own="no")
        rows = rows.join(off, on=latent, suffix="_off", nulls_equal=True).with_columns(
            (pl.col("n") * pl.col("n_off") / (pl.col("n") + pl.col("n_off"))).alias("weight"),
            *(pl.col(name) - pl.col(f"{name}_off") for name in measures),
        )
    weighted = [
        (pl.col(name) * pl.col("weight")).sum() / pl.col("weight").sum() for name in measures
    ]
    return _finish(rows.group_by("lemma", *PLACE).agg(weighted), contrast)


def _finish(table: pl.DataFrame, measure: str) -> pl.DataFrame:
    # beyond ten figures a mean depends on the order of rows and on threads
    return (
        table.drop_nulls(measure)
        .with_columns(pl.selectors.float().round_sig_figs(10))
        .with_columns(pl.concat_str("lemma", "model", separator="/").alias(LEMMA_MODEL))
        .sort("lemma", *PLACE)
    )
