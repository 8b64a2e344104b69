"""The peers' environments, at pinned versions; and the tests that need a peer installed.

python benchmarks/sae_training/peers.py     # the tests of interchange, in each peer they read
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".envs"
PEERS = ("sparsify", "saelens", "dictionary_learning", "overcomplete")
INTERCHANGE = ("saelens", "sparsify")
TESTS = "tests/sae/test_interchange.py"


def environment(peer: str, folder: Path) -> Path:
    """The Python of the peer's environment, made if it is not there."""
    home = folder / peer
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install(python, peer)
        # the CUDA build on PyPI cannot be imported beside a CPU torch, and nothing needs it
        remove = [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"]
        subprocess.run(remove, check=True)
        (home / "ready").touch()
    return python


def install(python: Path, requirements: str) -> None:
    path = HERE / "requirements" / f"{requirements}.txt"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    arguments = parser.parse_args()
    root = HERE.parents[1]
    failed = []
    for peer in INTERCHANGE:
        python = environment(peer, arguments.environments)
        install(python, "tests")
        print(f"{peer}:", flush=True)
        # a test that finds its library missing would skip: here that is a failure
        run = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-rs", TESTS]
        done = subprocess.run(run, cwd=root, env={**os.environ, "MEDSAE_PEER": peer})
        failed += [peer] if done.returncode else []
    if failed:
        sys.exit(f"Interchange fails with {', '.join(failed)}")


if __name__ == "__main__":
    main()
