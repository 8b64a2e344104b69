"""Packages are unpacked without ``extractall``, whose filter Debian 12's Python lacks."""

import io
import tarfile
from pathlib import Path

import pytest

from medsae.imaging.demo_scans import _unpack


def test_only_wanted_files_are_written_and_none_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = tmp_path / "package.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in (
            "package-1/data/a.nii",
            "package-1/data/deep/b.nii",
            "package-1/code/c.py",
            "package-1/data/../../../out.nii",
            "/package-1/data/absolute.nii",
        ):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("package-1/data/link.nii")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    folder = tmp_path / "here" / "folder"
    folder.mkdir(parents=True)
    assert _unpack(archive, folder, ("data/",)) == folder / "package-1"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]
    assert sorted(path.relative_to(folder).as_posix() for path in written) == [
        "package-1/data/a.nii",
        "package-1/data/deep/b.nii",
    ]
    assert (folder / "package-1/data/a.nii").read_text() == "package-1/data/a.nii"
