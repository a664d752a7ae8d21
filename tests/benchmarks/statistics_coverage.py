"""Coverage of the intervals and size of the test on fresh simulations, beside the values that they are held to.

    PYTHONPATH=.:tests/metrics python tests/benchmarks/statistics_coverage.py [--replicates 1000] [--draws 1999]
        [--subsets 9999] [--subjects 6 8 12 20 50 100] [--seed 1]

Each row ends with the largest shortfall; coverage may be 0.025 below its table and size 0.02 above (three standard
errors at 1000 replicates). Single means: studentised bootstrap; differences: sign-flip test and its inversion.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import nan

import numpy as np
from simulated_subjects import Scene, coverage, interval_by_case, size

LABELS = Scene(cases=(1, 3), rho=0.5, labels=3, missing=0.25)
SUBJECTS = (6, 8, 12, 20, 50, 100)
MEANS = {
    "one case": (Scene(), (0.944, 0.949, 0.953, 0.947, 0.949, 0.952)),
    "one case, 4 % failures": (Scene().alone(0.04), (0.899, 0.905, 0.900, 0.888, 0.910, 0.940)),
    "one case, 8 % failures": (Scene().alone(0.08), (0.862, 0.848, 0.846, 0.860, 0.955, 0.964)),
    "two cases, rho 0.5": (Scene((2, 2), 0.5), (0.948, 0.949, 0.949, 0.947, 0.954, 0.951)),
    "two cases, rho 0.7": (Scene((2, 2), 0.7), (0.947, 0.949, 0.954, 0.949, 0.945, 0.951)),
    "two cases, rho 0.5, 4 % failures": (
        Scene((2, 2), 0.5).alone(0.04),
        (0.912, 0.901, 0.886, 0.900, 0.941, 0.957),
    ),
    "three labels, a quarter missing": (LABELS, (nan, 0.947, 0.943, 0.936, 0.946, nan)),
}
AS_CASES = {"two cases, rho 0.5, as cases": (Scene((2, 2), 0.5), (0.818, 0.845, 0.852, 0.866, 0.888, 0.890))}
DIFFERENCES = {
    "equal methods": (Scene(), (0.035, 0.045, 0.047, 0.048, 0.048, 0.040)),
    "equal, 4 % failures": (Scene(failures=(0.04, 0.04)), (0.031, 0.044, 0.047, 0.047, 0.050, 0.051)),
    "equal, ties and zeros": (Scene(step=0.02, equal=0.2), (0.021, 0.039, 0.043, 0.043, 0.044, 0.049)),
    # The limit of every method; how alike the two are decides the row, which the table does not tell.
    "mean 0, one with 2 % failures": (Scene(failures=(0, 0.02)), (0.036, 0.064, 0.084, 0.091, 0.100, 0.092)),
    "mean 0, one with 8 % failures": (Scene(failures=(0, 0.08)), (0.239, 0.350, 0.323, 0.201, 0.097, 0.072)),
    "three labels, a quarter missing": (LABELS, (nan, 0.044, 0.054, 0.048, 0.053, nan)),
    "one to four cases, rho 0.5": (Scene((1, 4), 0.5), (0.036, 0.052, 0.042, 0.049, 0.056, 0.052)),
}


def show(name: str, found: Sequence[float], tables: Sequence[float], sign: int) -> None:
    worst = np.nanmax(sign * (np.array(tables) - found))
    print(f"{name:36}", *(f"{value:.3f} ({table:.3f})" for value, table in zip(found, tables, strict=True)), end="")
    print(f"  worst {worst:+.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1999)
    parser.add_argument("--subsets", type=int, default=9999)
    parser.add_argument("--subjects", type=int, nargs="+", default=SUBJECTS, choices=SUBJECTS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    columns = [SUBJECTS.index(count) for count in given.subjects]
    print("Coverage of 95 % intervals of a mean, found (table); subjects:", *given.subjects)
    for name, (scene, table) in (MEANS | AS_CASES).items():
        interval = {"interval": interval_by_case} if name in AS_CASES else {}
        found = [
            coverage(
                scene, count, replicates=given.replicates, draws=given.draws, seed=given.seed * 1_000_000, **interval
            )
            for count in given.subjects
        ]
        show(name, [share for share, _ in found], [table[column] for column in columns], 1)
        print(f"{'  mean width':36}", *(f"{width:.3f}        " for _, width in found))
    print("Rejections at 5 % of a true mean difference of 0, found (table); subjects:", *given.subjects)
    for name, (scene, table) in DIFFERENCES.items():
        found = [
            size(scene, count, replicates=given.replicates, draws=given.subsets, seed=given.seed * 1_000_000)
            for count in given.subjects
        ]
        show(name, [rejected for rejected, _ in found], [table[column] for column in columns], -1)


if __name__ == "__main__":
    main()
