"""Convert an SAE between MedSAE, SAELens, sparsify and the original MedSAE.

    python workflow/scripts/convert_sae.py SOURCE TARGET --from FORMAT --to FORMAT

    medsae     a folder with sae.safetensors or best.safetensors, or such a file
    saelens    a folder with cfg.json and sae_weights.safetensors, as sae_lens.SAE reads it
    sparsify   a folder with cfg.json and sae.safetensors, as sparsify.SparseCoder reads it
    original   the state dict best.pt of the original MedSAE (only from; no code in it is run)

TARGET is a folder, made if it is not there.
"""

import argparse
import sys
from pathlib import Path

from medsae.io import UserError
from medsae.sae import load_sae
from medsae.sae.interchange import (
    load_original,
    load_saelens,
    load_sparsify,
    save_medsae,
    save_saelens,
    save_sparsify,
)

READERS = {
    "medsae": load_sae,
    "saelens": load_saelens,
    "sparsify": load_sparsify,
    "original": load_original,
}
WRITERS = {"medsae": save_medsae, "saelens": save_saelens, "sparsify": save_sparsify}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--from", dest="reader", choices=READERS, default="medsae")
    parser.add_argument("--to", dest="writer", choices=WRITERS, default="medsae")
    arguments = parser.parse_args()
    try:
        sae = READERS[arguments.reader](arguments.source)
        arguments.target.mkdir(parents=True, exist_ok=True)
        WRITERS[arguments.writer](arguments.target, sae)
    except UserError as error:
        sys.exit(f"Error: {error}")
    print(f"Wrote {sae.config.architecture} with {sae.config.n_latents} latents")


if __name__ == "__main__":
    main()
