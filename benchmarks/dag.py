"""How long Snakemake takes over a study of many models, layers, SAEs and shards, running nothing.

python benchmarks/dag.py [--models 4] [--layers 3] [--saes 4] [--shards 64]

The report is timed last, with the figures of the demo in the place of each study's own: run
`make demo` before.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import common
import yaml

COMMANDS = {
    "jobs (-n --quiet)": ["--dry-run", "--quiet"],
    "jobs on Slurm, all printed (-n)": ["--dry-run", "--profile", common.ROOT / "profiles/slurm"],
    "rules (--rulegraph)": ["--rulegraph"],
    "the program alone (--version)": ["--version"],
}
RUNS = 3
SHOWN = {".svg", ".html", ".rst", ".md", ".json"}
DEMO = common.ROOT / "results/demo"


def study(size: dict[str, int], folder: Path) -> dict:
    """The configuration of MedGemma-27B, multiplied."""
    config = yaml.safe_load((common.ROOT / "config/medgemma-27b.yaml").read_text())
    model, sae = config["models"][0], config["saes"][0]
    layers = [10 * (number + 1) for number in range(size["layers"])]
    config["models"] = [
        model | {"name": f"model-{i}", "layers": layers} for i in range(size["models"])
    ]
    config["saes"] = [sae | {"name": f"sae-{i}"} for i in range(size["saes"])]
    config["corpus"]["shards"] = size["shards"]
    config["corpus"]["notes"] = str(folder / "notes.csv")
    config["polysemy"] = {
        name: str(common.ROOT / "config" / file)
        for name, file in {
            "lexicon": "lexicon.csv",
            "controls": "controls.csv",
            "sense_labels": "sense_labels.yaml",
        }.items()
    }
    (folder / "notes.csv").write_text("note_id,subject_id,text\nn1,p1,none\n")
    return config


def seconds(arguments: list, folder: Path, runs: int = RUNS) -> tuple[float, float, str]:
    """Wall and CPU seconds of the fastest of some runs in ``folder``, and what it printed."""
    command = [sys.executable, "-m", "snakemake", "all", "--snakefile", common.ROOT / "Snakefile"]
    command += ["--directory", folder, "--configfile", folder / "config.yaml", *arguments]
    times = []
    for _ in range(runs):
        begin, used = time.perf_counter(), os.times()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        after = os.times()
        cpu = after.children_user + after.children_system
        cpu -= used.children_user + used.children_system
        times.append((time.perf_counter() - begin, cpu))
    return (*min(times), done.stdout)


def finish(folder: Path) -> None:
    """Put a file in the place of every output: the demo's of that name, or an empty one."""
    finished = {path.name: path for path in DEMO.rglob("*") if path.suffix in SHOWN}
    *_, table = seconds(["--summary"], folder, runs=1)
    for line in table.splitlines()[1:]:
        output = folder / line.split("\t")[0]
        output.parent.mkdir(parents=True, exist_ok=True)
        if not output.suffix:
            output.mkdir(exist_ok=True)
        elif output.name in finished:
            shutil.copy(finished[output.name], output)
        else:
            output.touch()


def main() -> None:
    """Print and write the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"models": 4, "layers": 3, "saes": 4, "shards": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    size = vars(parser.parse_args())
    with common.folder() as folder:
        (folder / "config.yaml").write_text(yaml.safe_dump(study(size, folder)))
        entry: dict = dict(size)
        print(" × ".join(f"{number} {name}" for name, number in size.items()))
        for what, arguments in COMMANDS.items():
            wall, cpu, printed = seconds(arguments, folder)
            entry[what] = {"seconds": wall, "cpu_seconds": cpu}
            jobs = re.search(r"^total +(\d+)$", printed, re.MULTILINE)
            entry |= {"jobs": int(jobs[1])} if jobs else {}
            note = f", {jobs[1]} jobs" if jobs else ""
            print(f"{what:36}{wall:8.1f} s ({cpu:.1f} s of CPU){note}", flush=True)
        if (DEMO / "summary.html").exists():
            finish(folder)
            wall, cpu, _ = seconds(["--report", folder / "report.html", "--quiet"], folder)
            entry["report (--report)"] = {"seconds": wall, "cpu_seconds": cpu}
            figures = len(list(folder.rglob("*.svg")))
            print(f"{'report (--report)':36}{wall:8.1f} s ({cpu:.1f} s of CPU), {figures} figures")
        else:
            print("report: not timed, there is no finished demo to take figures from")
    common.save("dag", {"-".join(map(str, size.values())): entry})


if __name__ == "__main__":
    main()
