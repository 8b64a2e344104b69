"""Each term's contrast as one number per model, layer and SAE: what the planned tests are about.

Pairs share notes and patients, occurrences share latents, and all of a term's rows share whatever
is peculiar to the term in one model. A model over pairs or occurrences that leaves one of these
out takes dependent rows for new evidence. Whatever is shared within a term enters its contrast
once, so tests over terms need none of it to be modelled; what they generalise to are terms.

    overlap    Δ = mean_s W(s) − mean_{s<s'} C(s, s')       (as ``medsae.polysemy.jaccard``)
    entropy    mean over senses
    ΔCE        y = asinh(ΔCE), cell means ȳ of linked or random latent, at own or other sense:
               on_sense = ȳ(linked, own) − ȳ(random, own)
               did      = on_sense − (ȳ(linked, other) − ȳ(random, other))
"""

import polars as pl

PLACE = ("model", "layer", "sae")
LEMMA_MODEL = "lemma_model"


def lemma_overlaps(pairs: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Δ of each ambiguous term from ``measure`` of its pairs: columns delta, lemma, place."""
    ends = pl.concat_list("sense_a", "sense_b").list.sort()
    by_sense = (
        pairs.filter(pl.col("polysemy") == "polysemous")
        .drop_nulls(measure)
        .with_columns(ends.alias("senses"), pl.col("pair_type").cast(pl.String))
        .group_by("lemma", *PLACE, "pair_type", "senses")
        .agg(pl.col(measure).mean())
    )

    def mean(pair_type: str) -> pl.Expr:
        return pl.col(measure).filter(pl.col("pair_type") == pair_type).mean()

    deltas = by_sense.group_by("lemma", *PLACE).agg((mean("within") - mean("cross")).alias("delta"))
    return _finish(deltas, "delta")


def lemma_entropies(senses: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Mean of ``measure`` over the senses of each term: columns measure, polysemy, lemma, place."""
    means = senses.group_by("lemma", "polysemy", *PLACE).agg(pl.col(measure).mean())
    return _finish(means, measure)


def lemma_ablations(deltas: pl.DataFrame, contrast: str) -> pl.DataFrame:
    """``contrast`` (on_sense or did) of each term, and the same of ln(activation) of the latents.

    Columns: contrast, ``log_activation``, lemma, place. A term without one of the cells has none.
    """
    measures = {
        contrast: pl.col("delta_ce").arcsinh(),
        "log_activation": pl.col("activation").log(),
    }
    cells = deltas.with_columns(pl.col("linked", "on_sense").cast(pl.String) == "yes")
    rows = []
    for name, value in measures.items():

        def mean(linked: bool, on: bool, value: pl.Expr = value) -> pl.Expr:
            here = (pl.col("linked") == linked) & (pl.col("on_sense") == on)
            return value.filter(here & value.is_finite()).mean()

        own = mean(True, True) - mean(False, True)
        other = mean(True, False) - mean(False, False)
        rows.append((own - other if contrast == "did" else own).alias(name))
    return _finish(cells.group_by("lemma", *PLACE).agg(rows), contrast)


def _finish(table: pl.DataFrame, measure: str) -> pl.DataFrame:
    # beyond ten figures a mean depends on the order of rows and on threads
    return (
        table.drop_nulls(measure)
        .with_columns(pl.selectors.float().round_sig_figs(10))
        .with_columns(pl.concat_str("lemma", "model", separator="/").alias(LEMMA_MODEL))
        .sort("lemma", *PLACE)
    )
