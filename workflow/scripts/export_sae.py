"""Rule export_sae: a calibrated SAE -> the files that another library reads."""

from entry import job

with job(snakemake):
    from pathlib import Path

    from medsae.sae import load_sae
    from medsae.sae.interchange import save_saelens, save_sparsify

    writers = {"saelens": save_saelens, "sparsify": save_sparsify}
    folder = Path(snakemake.output.folder)
    folder.mkdir(parents=True, exist_ok=True)
    writers[snakemake.wildcards.library](folder, load_sae(snakemake.input.sae))
