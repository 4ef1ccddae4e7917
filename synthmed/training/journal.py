"""What a training run logs: one CSV, one TensorBoard folder, without duplicates after a resume."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter

from synthmed.files import storage_errors, write_text

LOG = "log.csv"


class Journal:
    """Append measurements to ``log.csv`` and ``tensorboard/``; rows later than `start` are forgotten first.

    Parameters
    ----------
    directory : Path
    columns : sequence of str
        Measurements, beside the step.
    start : int
        Steps that are done already.
    """

    def __init__(self, directory: Path, columns: Sequence[str], start: int) -> None:
        self.file = directory / LOG
        self.columns = ["step", *columns]
        kept = [row for row in read_log(directory) if int(row["step"]) <= start] if start else []
        lines = [",".join(self.columns), *(",".join(row.get(c) or "" for c in self.columns) for row in kept)]
        write_text(self.file, "\n".join(lines) + "\n")
        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=start + 1, write_to_disk=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row; a column without a value stays empty."""
        row = [str(step), *(format(values[c], ".6g") if c in values else "" for c in self.columns[1:])]
        with storage_errors(self.file), self.file.open("a", encoding="utf-8") as stream:
            stream.write(",".join(row) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()


def read_log(directory: Path) -> list[dict[str, str]]:
    """Return the whole rows of ``log.csv``; a line that a kill cut short is left out."""
    file = Path(directory) / LOG
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [row for row in rows if None not in row and None not in row.values() and row["step"].isdigit()]
