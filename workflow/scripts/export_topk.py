"""Rule export_topk: activations of some shards and an SAE -> the largest latents per token."""

from entry import files_in, job

with job(snakemake):
    import shutil
    from pathlib import Path

    from medsae.activations.describe import shards_of
    from medsae.device import best_device
    from medsae.io import fingerprint
    from medsae.polysemy.topk import export_shards
    from medsae.sae import load_sae
    from medsae.store import open_shard

    source, params = snakemake.input, snakemake.params
    shards = [path for path in shards_of(source.activations) if path.stem in params.shards]
    tokens = [path for path in files_in(source.tokens) if path.stem in params.shards]
    data = [open_shard(path).fingerprint for path in shards]
    # A killed job goes on after its last shard; shards of another SAE or of other notes have
    # another folder. The output itself is wiped when a job fails, so it is filled at the end.
    folder = Path(params.unfinished) / fingerprint([source.sae, *tokens], data, params.k)
    export_shards(shards, tokens, load_sae(source.sae).to(best_device()), params.k, folder)
    for leftover in folder.glob(".*.tmp*"):  # of a job killed while it wrote
        leftover.unlink()
    folder.rename(snakemake.output.topk)
    shutil.rmtree(params.unfinished)
