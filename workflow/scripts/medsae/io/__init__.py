"""Files, errors and progress: what every room needs and none owns."""

from medsae.io.atomic import atomic_folder, atomic_path, remove_leftovers, write_json
from medsae.io.errors import UserError
from medsae.io.fingerprint import fingerprint
from medsae.io.progress import progress

__all__ = [
    "UserError",
    "atomic_folder",
    "atomic_path",
    "fingerprint",
    "progress",
    "remove_leftovers",
    "write_json",
]
