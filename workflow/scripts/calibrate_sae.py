"""Rule calibrate_sae: an SAE and the shards it learned from -> the scale of each latent."""

from entry import job

with job(snakemake):
    from pathlib import Path

    from medsae.activations.describe import shards_of
    from medsae.device import best_device
    from medsae.sae import calibrate, load_sae, save_calibrated

    sae = load_sae(snakemake.input.sae).to(best_device())
    shards = shards_of(snakemake.input.activations, "train")
    calibration = calibrate(sae, shards, quantile=snakemake.params.quantile)
    save_calibrated(Path(snakemake.output.sae).parent, sae, calibration)
