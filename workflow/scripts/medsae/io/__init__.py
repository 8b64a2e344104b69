"""Files, errors and progress: what every room needs and none owns."""

from medsae.io.atomic import atomic_path, write_json
from medsae.io.errors import UserError
from medsae.io.progress import progress

__all__ = ["UserError", "atomic_path", "progress", "write_json"]
