"""Command line: ``python -m privacy audit``. Progress and errors go to stderr, the outcome to stdout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from privacy.errors import AuditError, UsageError

DESCRIPTION = "Judge whether synthetic scans give away the patients they were made from."
CODES = "Exit codes: 0 PASS, 2 usage, 3 FAIL, 4 INCONCLUSIVE, 5 unreadable or incomparable input, 130 interrupted."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _audit(options)
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; no release record was written", file=sys.stderr)
        return 130


def _audit(options: argparse.Namespace) -> int:
    from privacy.suite import audit

    tables = {role: getattr(options, f"{role}_patients") for role in ("train", "holdout")}
    if options.patients and any(tables.values()):
        raise UsageError("--patients is for both sets", next_step="Use it, or --train-patients and --holdout-patients")
    report = audit(
        options.train,
        options.holdout,
        options.synthetic,
        train_patients=tables["train"] or options.patients,
        holdout_patients=tables["holdout"] or options.patients,
        attributes=options.attributes,
        policy=options.policy,
        seed=options.seed,
        out=options.out,
        progress=not options.quiet,
    )
    if options.json:
        print(json.dumps(report.release, indent=2, allow_nan=False))
    else:
        print(f"{report.verdict}: {'; '.join(report.reasons)}")
        print(f"Steward's record (stays home): {options.out / 'steward'}; for the release: {options.out / 'release'}")
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m privacy", description=DESCRIPTION, epilog=CODES)
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "audit", help="compare three folders of NIfTI volumes or DICOM series", description=DESCRIPTION, epilog=CODES
    )
    for role, text in (
        ("train", "scans that the generator was trained on"),
        ("holdout", "scans of other patients from the same source, split off before training"),
        ("synthetic", "what the generator made"),
    ):
        command.add_argument(f"--{role}", type=Path, required=True, metavar="DIR", help=text)
    command.add_argument(
        "--patients",
        type=Path,
        metavar="CSV",
        help="patient of each real scan: columns file (or volume, series) and subject; DICOM has its PatientID",
    )
    command.add_argument("--train-patients", type=Path, metavar="CSV", help="the same, for training only")
    command.add_argument("--holdout-patients", type=Path, metavar="CSV", help="the same, for the holdout only")
    command.add_argument(
        "--attributes",
        type=Path,
        metavar="CSV",
        help="attributes that an attacker might guess: columns set (train, holdout, synthetic), file, and one for each",
    )
    command.add_argument("--policy", default="default", help="default, strict, research or a YAML file")
    command.add_argument("--seed", type=int, default=0, help="of planted copies, permutations and bootstraps")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write steward/ and release/")
    command.add_argument("--json", action="store_true", help="print the release record to stdout")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
