"""Statistics and tables of polysemy against straightforward implementations of the published ones.

Both sides work on the same generated data, each in a process of its own, which gives its peak
memory. Where the straightforward side would take hours it does a stated part of the work and its
time is scaled by the share; the printed table marks such times with *.

    python benchmarks/polysemy.py [--occurrences 200000] [--k 128] [--only jaccard ...]
"""

import argparse

import common
import statistics_tasks
import table_tasks

TASKS = statistics_tasks.TASKS | table_tasks.TASKS


def main() -> None:
    """Generate the data, run the tasks, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--occurrences", type=int, default=200_000)
    parser.add_argument("--k", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    arguments = parser.parse_args()
    size = {"occurrences": arguments.occurrences, "k": arguments.k}
    with common.folder() as path:
        print(f"generating {size['occurrences']} occurrences x K = {size['k']}", flush=True)
        if set(arguments.only) & set(statistics_tasks.TASKS):
            statistics_tasks.generate(path / statistics_tasks.TABLE, **_sizes(size))
        if set(arguments.only) & set(table_tasks.TASKS):
            table_tasks.generate(path, **_sizes(size))
        print(common.HEADER)
        for name in arguments.only:
            straightforward, library = TASKS[name]
            entry = common.compare(name, straightforward, library, path)
            common.save("polysemy", {name: size | entry})


def _sizes(size: dict[str, int]) -> dict[str, int]:
    return {"n_occurrences": size["occurrences"], "k": size["k"]}


if __name__ == "__main__":
    main()
