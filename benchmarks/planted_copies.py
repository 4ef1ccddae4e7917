"""Recall and false alarms of the audit on copies planted among real and generated scans, beside the popular scores.

    python benchmarks/planted_copies.py [--data DIR] [--dataset NAME ...] [--quick] [--out DIR]

A cell is a disguise at a strength; those marked * have a target (recall 0.95 at a realised false-positive rate of 1 %).
The threshold of a realised rate is placed on the negatives: scans of people outside training, as they are and under
the same disguises, and generated scans. A set holds 200 samples; its copies come from the marked cells.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from copies.datasets import PLANS
from copies.printing import fpr_text, plot, recall_text, sets_text, summary_text
from copies.running import JUDGES, Settings, SplitResult, run_split
from copies.tables import fpr_rows, pool, recall_rows, set_rows, write_csv
from copies.transforms import TRANSFORMS, cells

FULL = {"plants": 60, "disguised": 400, "generated": 600, "dispersed": 100, "splits": None, "patients": None}
QUICK = {"plants": 2, "disguised": 50, "generated": 60, "dispersed": 10, "splits": 1, "patients": 50}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print, write and draw its tables."""
    options = _parser().parse_args(arguments)
    if options.generated_folder and len(options.dataset) != 1:
        _parser().error("--generated belongs to one set: name it with --dataset")
    settings = _settings(options)
    start = time.perf_counter()
    try:
        results = _run_all(settings, options.dataset, options.workers, options.out)
    except FileNotFoundError as error:
        _parser().error(str(error))
    print(f"\n{_times(results)}\nin all {time.perf_counter() - start:.0f} s, {options.workers} processes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SYNTHMED_DATA", "../shared/data")))
    parser.add_argument("--dataset", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--cells", nargs="+", choices=list(TRANSFORMS), help="disguises; all by default")
    parser.add_argument("--judges", nargs="+", choices=list(JUDGES), default=list(JUDGES))
    parser.add_argument("--generated", dest="generated_folder", type=Path, help="folder of NIfTI, judged as well")
    parser.add_argument("--clean-sets", type=int, default=100)
    parser.add_argument("--plants", type=int, help="copies a cell; 60 by default")
    parser.add_argument("--quick", action="store_true", help="few plants and patients: about 3 minutes, wide intervals")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/planted_copies"))
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    numbers: dict[str, Any] = dict(QUICK if options.quick else FULL)
    if options.plants is not None:
        numbers["plants"] = options.plants
    return Settings(
        data=options.data,
        cells=tuple(cells(options.cells)),
        judges=tuple(options.judges),
        clean_sets=options.clean_sets,
        folder=options.generated_folder,
        seed=options.seed,
        **numbers,
    )


def _run_all(settings: Settings, datasets: Sequence[str], workers: int, out: Path) -> list[SplitResult]:
    """Run one set after the other, each reported and written as soon as it is there."""
    out.mkdir(parents=True, exist_ok=True)
    results: list[SplitResult] = []
    tables: dict[str, list[dict[str, Any]]] = {"recall": [], "false_positives": [], "sets": []}
    for dataset in datasets:
        results += _run(settings, dataset, workers)
        for name, rows in _report(results, dataset, settings.judges).items():
            tables[name] += rows
            write_csv(tables[name], out / f"{name}.csv")
        plot(tables["recall"], settings.judges, out / "recall.png")
        print(f"\nwritten to {out}", flush=True)
    return results


def _run(settings: Settings, dataset: str, workers: int) -> list[SplitResult]:
    jobs = [(settings, dataset, number) for number in range(settings.plan(dataset).splits)]
    if workers == 1:
        return [run_split(*job) for job in jobs]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        return [future.result() for future in [executor.submit(run_split, *job) for job in jobs]]


def _report(results: list[SplitResult], dataset: str, judges: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Print the tables of one set and return their rows."""
    pooled = {judge: pool(results, dataset, judge) for judge in judges}
    recall = [row for judge, data in pooled.items() for row in recall_rows(dataset, judge, data)]
    false = [row for judge, data in pooled.items() for row in fpr_rows(dataset, judge, data)]
    drawn = [row for judge in judges for row in set_rows(results, dataset, judge)]
    print(f"\n== {dataset}", *(result.facts for result in results if result.dataset == dataset), sep="\n")
    print(f"\nRecall; the other judges at 1 % FPR, too\n{recall_text(recall, judges)}")
    print(f"\nCells with a target\n{summary_text(recall)}")
    print(f"\nFalse positives\n{fpr_text(false)}")
    print(f"\nShare of sets objected to, by rate of copies\n{sets_text(drawn)}")
    return {"recall": recall, "false_positives": false, "sets": drawn}


def _times(results: Sequence[SplitResult]) -> str:
    parts = dict.fromkeys(part for result in results for part in result.seconds)
    total = {part: sum(result.seconds.get(part, 0.0) for result in results) for part in parts}
    return "seconds: " + ", ".join(f"{part} {value:.0f}" for part, value in total.items())


if __name__ == "__main__":
    sys.exit(main())
