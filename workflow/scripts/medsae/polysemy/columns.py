"""Column names of the tables of this room: published ones first, then ours."""

import polars as pl

LEXICON = ("term", "sense", "forms", "domain_regexes", "exclude_regexes", "ner_labels", "kind")

OCCURRENCES = (
    "occurrence_id",
    "doc_id",
    "patient_id",
    "split",
    "lemma",
    "kind",
    "surface",
    "char_start",
    "char_end",
    "sense",
    "ner_sense",
    "cue_sense",
    "gold_sense",
    "ner_label",
    "ner_score",
)

POLYSEMOUS = "polysemous"
CONTROL = "control"
FLOOR = "floor"
"""Values of ``kind``. The floor compares occurrences of two different terms."""

SOURCE = ("model", "layer", "sae")
"""What every metrics table says about where its numbers come from."""

JACCARD_CROSS_SENSE = (
    "lemma",
    "sense1",
    "sense2",
    "mean_jaccard",
    "median_jaccard",
    "std_jaccard",
    "n_pairs",
    "n_samples_sense1",
    "n_samples_sense2",
    "n_samples_sense1_sampled",
    "n_samples_sense2_sampled",
    "layer",
    "model",
    "sae",
)

JACCARD_AT_K = (
    *SOURCE,
    "lemma",
    "kind",
    "k",
    "sense1",
    "sense2",
    "within",
    "within_low",
    "within_high",
    "cross",
    "cross_low",
    "cross_high",
    "delta",
    "delta_low",
    "delta_high",
    "polysemy_index",
    "polysemy_index_low",
    "polysemy_index_high",
    "pvalue",
    "qvalue",
    "n_permutations",
    "n_occurrences1",
    "n_occurrences2",
    "n_patients",
    "n_tested",
    "matched_controls",
    "control_within",
    "chance_delta_low",
    "chance_delta_high",
    "chance_delta_95",
    "n_cuts",
    "reason",
)
"""``chance_delta_*``: the central 95% of Δ, and the 95th percentile of its size, over ``n_cuts``
random cuts of the patients of terms with one meaning: of a control itself, into halves; of the
controls matched to an ambiguous term, into parts as large as its senses. The mean of such cuts is
zero by construction, so controls have no ``cross`` and ``delta``. ``reason``: why a number is
missing."""

JACCARD_PAIRS = (
    *SOURCE,
    "lemma",
    "kind",
    "pair_type",
    "sense_a",
    "sense_b",
    "jaccard_at_10",
    "jaccard",
    "doc_a",
    "doc_b",
    "patient_a",
    "patient_b",
)

POOLING = (
    *SOURCE,
    "lemma",
    "pooling",
    "chosen",
    "k",
    "delta",
    "delta_low",
    "delta_high",
    "change",
    "change_low",
    "change_high",
    "tokens_per_occurrence",
    "n_occurrences",
    "n_patients",
    "reason",
)
"""``change``: Δ minus that of the pooling the study uses, which is ``chosen``."""

TRAINING_GAIN = (
    *SOURCE,
    "untrained_model",
    "untrained_layer",
    "untrained_sae",
    "lemma",
    "k",
    "delta",
    "delta_low",
    "delta_high",
    "delta_untrained",
    "delta_untrained_low",
    "delta_untrained_high",
    "gain",
    "gain_low",
    "gain_high",
    "n_occurrences",
    "n_patients",
    "reason",
)
"""``gain``: Δ minus that of the SAE of random weights, over the same occurrences."""

ENTROPY = (
    "lemma",
    "sense",
    "entropy",
    "normalized_entropy",
    "n_occurrences",
    "n_unique_latents",
    "layer",
    "model",
    "sae",
    "kind",
    "n_patients",
    "rarefied_n",
    "rarefied_entropy",
    "rarefied_entropy_low",
    "rarefied_entropy_high",
    "rarefied_normalized",
    "rarefied_normalized_low",
    "rarefied_normalized_high",
    "n_alive_latents",
    "reason",
)

SENSE_LINKED = (
    "lemma",
    "sense",
    "latent_id",
    "n_hits",
    "n_sense_total",
    "presence_rate",
    "n_lemma_hits",
    "n_lemma_total",
    "n_other_hits",
    "n_other_total",
    "presence_rate_other",
    "presence_rate_diff",
    "pvalue",
    "qvalue",
    "pvalue_fisher",
    "log_odds",
    "rate_diff_discovery",
    "rate_diff_confirmation",
    "log_odds_confirmation",
    "pvalue_confirmation",
    "qvalue_confirmation",
    "discovered",
    "confirmed",
    "n_tests",
    "n_permutations",
    "smallest_q",
    "reason",
    *SOURCE,
)
"""``n_permutations``: what the test took; ``smallest_q``: of a single latent that no permutation
reaches; ``reason``: why there is no p. A row with ``sense`` and ``latent_id`` null is of a term
without a latent to test."""

SINGLE_PROBES = (
    "latent_id",
    "w",
    "b",
    "ce_val",
    "auroc",
    "ap",
    "lemma",
    "sense",
    "confirmed",
    "prevalence",
    "ap_lift",
    "precision_at_k",
    "precision_k",
    "auroc_null",
    "auroc_null_high",
    "pvalue",
    "qvalue",
    "n_train",
    "n_test",
    "n_test_positive",
    "n_test_patients",
    "reason",
    *SOURCE,
)

SENSE_PROBES = (
    *SOURCE,
    "lemma",
    "sense",
    "auroc",
    "ap",
    "prevalence",
    "ap_lift",
    "precision_at_k",
    "precision_k",
    "auroc_null",
    "auroc_null_low",
    "auroc_null_high",
    "pvalue",
    "qvalue",
    "n_positive",
    "n_negative",
    "n_patients",
    "n_shuffles",
    "n_folds",
    "n_active_weights",
    "reason",
)
"""A row with ``sense`` null is of the whole term: AUROC is the mean over its senses, and p and q
are the term's, which has one test. Rows of single senses have none."""

AGREEMENT = (
    "lemma",
    "n_occurrences",
    "n_resolved",
    "coverage",
    "n_ner",
    "n_cue",
    "n_both",
    "n_agree",
    "n_abstained",
    "n_sense",
    "kappa",
    "kappa_low",
    "kappa_high",
    "n_gold",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "ner_accuracy",
    "ner_accuracy_low",
    "ner_accuracy_high",
    "cue_accuracy",
    "cue_accuracy_low",
    "cue_accuracy_high",
    "majority_baseline",
)


RETRIEVAL_DETAIL = (
    "word",
    "rerank_k",
    "query_sense",
    "full_P@1",
    "rerank_P@1",
    "full_AP",
    "rerank_AP",
    "delta_P@1",
    "delta_AP",
    "n_anchor",
    "occurrence_id",
    "doc_id",
    "patient_id",
    *(
        f"{stage}_{metric}"
        for metric in ("P@3", "P@5", "P@10", "RR")
        for stage in ("full", "rerank")
    ),
    *SOURCE,
)

RETRIEVAL_SUMMARY = (
    "k",
    "delta_P@1_mean",
    "delta_P@1_ci",
    "delta_MAP_mean",
    "p_value",
    "n",
    "p_adjusted",
    "delta_P@1_low",
    "delta_P@1_high",
    "delta_MAP_low",
    "delta_MAP_high",
    "p_clustered",
    "n_better",
    "n_worse",
    "n_patients",
    "n_anchor",
    "development_delta_MAP",
    "chosen",
    "reason",
    *(
        f"{stage}_{metric}"
        for metric in ("P@1", "P@3", "P@5", "P@10", "RR", "AP")
        for stage in ("full", "rerank")
    ),
    *SOURCE,
)
"""``delta_P@1_ci`` is half the width of the 95 % interval, over patients as queries and as
candidates. ``p_value`` is McNemar's, as published, which takes queries for
independent; ``p_clustered`` is Student's, of the same error as that interval, and
``p_adjusted`` Holm's correction of it over the k; null, with the ``reason``, where no first hit
changes or patients are too few. Where nothing could be estimated one row has k null and the
``reason``."""

RETRIEVAL_BASELINES = (
    *SOURCE,
    "word",
    "method",
    *(
        f"{metric}{bound}"
        for metric in ("p_at_1", "p_at_3", "p_at_5", "p_at_10", "mrr", "map")
        for bound in ("", "_low", "_high")
    ),
    *(f"delta_{metric}{bound}" for metric in ("p_at_1", "map") for bound in ("", "_low", "_high")),
    "n_queries",
    "n_patients",
)
"""Deltas are paired differences from stage 1 (method ``full``)."""


def tidy(table: pl.DataFrame) -> pl.DataFrame:
    """Floats to ten significant figures, NaN as null.

    Beyond that, sums depend on how many threads the linear algebra ran on; files must not.
    """
    floats = pl.selectors.float()
    return table.with_columns(floats.fill_nan(None).round_sig_figs(10))
