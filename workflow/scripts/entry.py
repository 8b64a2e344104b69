"""What every script does first: log, threads, and bad input told in one sentence."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medsae.io import UserError, remove_leftovers

# Intel's MKL then sums a product in one order whatever its threads; other libraries ignore it.
ONE_ORDER = ("MKL_CBWR", "AUTO,STRICT")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")


def files_in(*folders: str) -> list[Path]:
    """The files, one per shard, of folders that jobs wrote, in the order of the shards."""
    files = (path for folder in folders for path in Path(folder).iterdir())
    return sorted((path for path in files if not path.name.startswith(".")), key=lambda p: p.name)


@contextmanager
def job(snakemake: Any, same_for_any_threads: bool = False) -> Iterator[None]:
    """Run a rule's work: log lines to the terminal and to the rule's log.

    A ``UserError`` ends the job with its one sentence; anything else with the kind of the
    error and where it arose, but not its message. Thread pools get the rule's ``threads``;
    with ``same_for_any_threads`` MKL's products, on Intel's processors, do not depend on how
    many, to the bit; torch must not have been imported before.
    """
    log_path = Path(snakemake.log[0])
    log_path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(), logging.FileHandler(log_path, mode="w")],
        force=True,
    )
    if same_for_any_threads:
        os.environ.setdefault(*ONE_ORDER)
    for name in THREADS:
        os.environ.setdefault(name, str(snakemake.threads))
    logger = logging.getLogger("medsae")
    try:
        for path in snakemake.output:  # one job at a time writes it
            remove_leftovers(path)
        yield
    except UserError as error:
        logger.error("Error in %s: %s", snakemake.rule, error)
        sys.exit(1)
    except Exception as error:
        # The message of a library's error may quote a cell, and with it a patient's text.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s in %s, at\n%s", type(error).__name__, snakemake.rule, where)
        sys.exit(1)
