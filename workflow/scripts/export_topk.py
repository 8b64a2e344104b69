"""Rule export_topk: activations of one shard and an SAE -> the largest latents per token."""

from entry import job

with job(snakemake):
    from medsae.device import best_device
    from medsae.polysemy.topk import export_topk
    from medsae.sae import load_sae

    export_topk(
        snakemake.input.activations,
        snakemake.input.tokens,
        load_sae(snakemake.input.sae).to(best_device()),
        snakemake.params.k,
        snakemake.output.topk,
    )
