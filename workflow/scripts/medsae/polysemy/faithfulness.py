"""What the model loses when its activations pass through the SAE.

    loss recovered = (CE_mean − CE_rec) / (CE_mean − CE_clean)
    FVU            = Σ‖x − x̂‖² / Σ‖x − x̄‖²   (raw units)

CE_rec: the block's output replaced by its reconstruction x̂ at every token of a window;
CE_mean: by the mean activation x̄ of the sample; CE_clean: untouched. With the error added
back, x̂ + e = x, the loss must be the clean one, which checks the splice itself. Special
tokens keep their activation, as the SAE never saw them.
"""

import math

import numpy as np
import polars as pl
import torch

from medsae.io import UserError, progress
from medsae.polysemy.splice import edited_losses, read_window
from medsae.polysemy.subject import Subject
from medsae.statistics import MIN_CLUSTERS, cluster_weights, percentile_interval, stream

N_WINDOWS = 24
"""Held-out notes that are scored."""

MAX_TOKENS = 256
"""Tokens of a note that are scored: its first."""

MIN_TOKENS = 8
"""Shorter notes are not scored."""

SPLICE_TOLERANCE = 0.02
"""Nats per token by which rounding may move the loss with the error kept."""

LOSSES = ("ce_clean", "ce_reconstructed", "ce_mean_ablated", "ce_error_kept")
PASSED = "passed"
NOT_APPLICABLE = "not applicable: random weights"
FEW_PATIENTS = f"notes of fewer than {MIN_CLUSTERS} patients are held out"
NO_GAP = "replacing the activations by their mean is not shown to raise the loss"


def sample_windows(tokens: pl.LazyFrame, ctx_len: int, seed: int) -> pl.DataFrame:
    """doc_id, patient_id, token_id (list) of `N_WINDOWS` documents at most, drawn by ``seed``."""
    documents = (
        tokens.group_by("doc_id")
        .agg(pl.col("patient_id").first(), pl.len().alias("n"))
        .filter(pl.col("n") >= MIN_TOKENS)
        .with_columns(pl.col("doc_id", "patient_id").cast(pl.String))
        .collect()
        .sort("doc_id")
    )
    length = min(ctx_len, MAX_TOKENS)
    drawn = documents[
        np.sort(stream(seed, "faithfulness").permutation(documents.height)[:N_WINDOWS])
    ]
    return (
        tokens.with_columns(pl.col("doc_id", "patient_id").cast(pl.String))
        .filter(pl.col("doc_id").is_in(drawn["doc_id"].implode()), pl.col("token_index") < length)
        .sort("doc_id", "token_index")
        .group_by("doc_id", "patient_id", maintain_order=True)
        .agg(pl.col("token_id"))
        .collect()
    )


@torch.no_grad()
def measure_faithfulness(
    subject: Subject, windows: pl.DataFrame, random_weights: bool, n_bootstrap: int, seed: int
) -> pl.DataFrame:
    """One row: each loss in nats per token, loss recovered and FVU, with 95% intervals.

    Intervals are percentiles of a bootstrap over patients, null with fewer than
    ``MIN_CLUSTERS``. Loss recovered is null where the interval of CE_mean − CE_clean reaches
    zero, or is not known: there is nothing to recover.

    Raises ``UserError`` if no window was sampled, or if the clean loss is above
    ln(vocabulary), the loss of guessing: then model, tokens and precision do not belong
    together. A model with random weights does guess, so ``check`` says that this does not
    apply.
    """
    if windows.is_empty():
        raise UserError(
            f"No validation note has {MIN_TOKENS} tokens; raise corpus.val_fraction so that "
            "there are notes to score."
        )
    sums = _sums(subject, windows["token_id"].to_list())
    estimates = _estimates(sums.sum(0, keepdims=True))
    patients = np.unique(windows["patient_id"].to_numpy(), return_inverse=True)[1]
    by_patient = np.zeros((patients.max() + 1, sums.shape[1]))
    np.add.at(by_patient, patients, sums)
    weights = cluster_weights(
        len(by_patient), n_bootstrap, stream(seed, "faithfulness", "bootstrap")
    )
    resampled = _estimates(weights @ by_patient)
    guessing = math.log(subject.model.config.get_text_config().vocab_size)
    clean, kept = (float(estimates[name][0]) for name in ("ce_clean", "ce_error_kept"))
    if clean > guessing and not random_weights:
        raise UserError(
            f"The model's loss on validation notes is {clean:.2f} nats per token, above "
            f"{guessing:.2f} for guessing: check that tokenizer, weights and dtype of the model "
            "belong together."
        )
    if abs(clean - kept) > SPLICE_TOLERANCE:
        raise RuntimeError(f"the splice with its error kept moves the loss: {clean} to {kept} nats")
    row: dict[str, float | int | str | None] = {}
    few = len(by_patient) < MIN_CLUSTERS
    for name, values in estimates.items():
        low, high = (None, None) if few else percentile_interval(resampled[name])
        row |= {name: float(values[0])}
        row |= {
            f"{name}{suffix}": None if bound is None else float(bound)
            for suffix, bound in (("_low", low), ("_high", high))
        }
    gap_low = percentile_interval(resampled["ce_mean_ablated"] - resampled["ce_clean"])[0]
    meaningless = few or not gap_low > 0
    if meaningless:
        row |= dict.fromkeys(("loss_recovered", "loss_recovered_low", "loss_recovered_high"))
    row |= {
        "ce_guessing": guessing,
        "check": NOT_APPLICABLE if random_weights else PASSED,
        "n_tokens": int(sums[:, -1].sum()),
        "n_windows": windows.height,
        "n_patients": len(by_patient),
        "reason": (FEW_PATIENTS if few else NO_GAP) if meaningless else None,
    }
    bounds = [f"{name}{suffix}" for name in estimates for suffix in ("", "_low", "_high")]
    types = dict.fromkeys(bounds, pl.Float64) | {"reason": pl.String}
    return pl.DataFrame([row], schema_overrides=types).fill_nan(None)


def _sums(subject: Subject, windows: list[list[int]]) -> np.ndarray:
    """Per window: four summed losses, Σ‖x − x̂‖², Σ‖x − x̄‖², tokens scored."""
    first = len(subject.prefix)

    # At most N_WINDOWS · MAX_TOKENS positions: small enough to be read once and kept.
    readings = [
        read_window(
            subject.model,
            subject.layer,
            torch.tensor([*subject.prefix, *window], device=subject.device),
        )
        for window in progress(windows, "Faithfulness, notes read")
    ]
    mean = torch.cat([reading.hidden[first:] for reading in readings]).double().mean(0).float()
    rows = []
    for window, reading in zip(
        progress(windows, "Faithfulness, notes scored"), readings, strict=True
    ):
        hidden = reading.hidden[first:]
        x = hidden.float()
        rebuilt = subject.sae.reconstruct(x).to(x.device)
        versions = (x, rebuilt, mean.expand_as(x), rebuilt + (x - rebuilt))
        # The last token predicts nothing that is in the window.
        edited = torch.stack([version[:-1] for version in versions]).to(hidden.dtype)
        losses = edited_losses(
            subject.model,
            subject.layer,
            reading,
            edited,
            first,
            len(window) - 1,
            subject.max_tokens,
        )
        # A single sum over all is shared among threads, and its rounding would tell their number.
        error = (x - rebuilt).double().square().sum(1).sum()
        spread = (x - mean).double().square().sum(1).sum()
        rows.append(
            [*losses.double().sum(1).tolist(), float(error), float(spread), len(window) - 1]
        )
    return np.array(rows)


def _estimates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The measures of each row of summed losses, error, spread and number of tokens."""
    error, spread, scored = sums[:, 4], sums[:, 5], sums[:, 6]
    losses = {name: sums[:, index] / scored for index, name in enumerate(LOSSES)}
    with np.errstate(invalid="ignore", divide="ignore"):
        recovered = (losses["ce_mean_ablated"] - losses["ce_reconstructed"]) / (
            losses["ce_mean_ablated"] - losses["ce_clean"]
        )
        return {**losses, "loss_recovered": recovered, "fvu": error / spread}
