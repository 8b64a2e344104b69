"""Statistics that know nothing of words or latents: arrays in, arrays out."""

from medsae.statistics.agreement import (
    clustered_share_interval,
    cohen_kappa,
    mcnemar_exact,
    wilson_interval,
)
from medsae.statistics.bootstrap import (
    MIN_CLUSTERS,
    cluster_mean,
    cluster_weights,
    percentile_interval,
)
from medsae.statistics.codes import code_matrix, codes_of
from medsae.statistics.elastic_net import LogisticFits, balanced_weights, fit_elastic_net
from medsae.statistics.fisher import fisher_greater
from medsae.statistics.multiple_testing import benjamini_hochberg, holm
from medsae.statistics.permutation import (
    NOT_EXCHANGEABLE,
    cluster_strata,
    exchange_changes,
    permuted_labels,
    pvalue_greater,
)
from medsae.statistics.ranking import auroc, precision_at_top, weighted_auroc_ap
from medsae.statistics.ratios import cluster_ratios
from medsae.statistics.retrieval import ndcg_at, precision_at
from medsae.statistics.seeds import stream
from medsae.statistics.sequential import SequentialPvalues, permutations_needed

__all__ = [
    "MIN_CLUSTERS",
    "NOT_EXCHANGEABLE",
    "LogisticFits",
    "SequentialPvalues",
    "auroc",
    "balanced_weights",
    "benjamini_hochberg",
    "cluster_mean",
    "cluster_ratios",
    "cluster_strata",
    "cluster_weights",
    "clustered_share_interval",
    "code_matrix",
    "codes_of",
    "cohen_kappa",
    "exchange_changes",
    "fisher_greater",
    "fit_elastic_net",
    "holm",
    "mcnemar_exact",
    "ndcg_at",
    "percentile_interval",
    "permutations_needed",
    "permuted_labels",
    "precision_at",
    "precision_at_top",
    "pvalue_greater",
    "stream",
    "weighted_auroc_ap",
    "wilson_interval",
]
