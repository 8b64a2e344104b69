"""Statistics that know nothing of words or latents: arrays in, arrays out."""

from medsae.statistics.agreement import cohen_kappa, mcnemar_exact, wilson_interval
from medsae.statistics.bootstrap import cluster_weights, percentile_interval
from medsae.statistics.fisher import fisher_greater
from medsae.statistics.multiple_testing import benjamini_hochberg, holm
from medsae.statistics.permutation import cluster_strata, permuted_labels, pvalue_greater
from medsae.statistics.ranking import auroc, average_precision, weighted_auroc_ap
from medsae.statistics.seeds import stream

__all__ = [
    "auroc",
    "average_precision",
    "benjamini_hochberg",
    "cluster_strata",
    "cluster_weights",
    "cohen_kappa",
    "fisher_greater",
    "holm",
    "mcnemar_exact",
    "percentile_interval",
    "permuted_labels",
    "pvalue_greater",
    "stream",
    "weighted_auroc_ap",
    "wilson_interval",
]
