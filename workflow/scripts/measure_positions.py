"""Rule measure_positions: held-out activations and an SAE -> variance explained by position."""

from entry import files_in, job

with job(snakemake):
    import polars as pl
    import pyarrow.parquet as pq
    import torch

    from medsae.activations.describe import shards_of
    from medsae.device import best_device
    from medsae.io import UserError, atomic_path
    from medsae.sae import load_sae
    from medsae.sae.model import INFERENCE_ROWS
    from medsae.sae.positions import explained_variance_by_position, plot_positions
    from medsae.store import open_shard

    def batches():
        """Activations of the shards, beside the index of their tokens in the document."""
        for path in shards_of(snakemake.input.activations, "val"):
            shard, table = open_shard(path), pq.ParquetFile(tables[path.stem])
            if table.metadata.num_rows != shard.n_rows:
                raise UserError(
                    f"{path} has {shard.n_rows} rows, its token table {table.metadata.num_rows}; "
                    "delete both and run again"
                )
            start = 0
            for rows in table.iter_batches(INFERENCE_ROWS, columns=["token_index"]):
                stop = min(start + len(rows), shard.n_rows)
                index = pl.Series(rows.column(0)).cast(pl.Int64).to_numpy(writable=True)
                yield shard.read(start, stop), torch.from_numpy(index)
                start = stop

    tables = {path.stem: path for path in files_in(snakemake.input.tokens)}
    sae = load_sae(snakemake.input.sae).to(best_device())
    table = explained_variance_by_position(sae, batches(), snakemake.params.n_positions)
    with atomic_path(snakemake.output.table) as temporary:
        table.write_csv(temporary)
    plot_positions(table, snakemake.output.figure)
