"""Snakemake as it is, but that it asks Slurm for the state of its jobs every second.

The Slurm plugin waits ten seconds longer after each time that no job has ended, which suits
jobs of hours and triples the time of a test whose jobs take seconds.
"""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, value: None)

sys.exit(main())
