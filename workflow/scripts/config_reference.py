"""Write config/README.md from the schema; Snakemake is not needed for it."""

from pathlib import Path

from medsae.config.reference import reference_page

if __name__ == "__main__":
    target = Path(__file__).parents[2] / "config" / "README.md"
    target.write_text(reference_page(), encoding="utf-8")
    print(f"Wrote {target}")
