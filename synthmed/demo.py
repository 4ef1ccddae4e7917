"""The demonstration: the whole run on phantoms, then the same set with patients' scans slipped in, refused."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthmed.config import find_config, load_config
from synthmed.errors import ReleaseRefused
from synthmed.files import read_json, sha256_file
from synthmed.io import read_volume, write_volume
from synthmed.pipeline import run_stages
from synthmed.stages import Run
from synthmed.summary import facts, summarise
from synthmed.volume import Volume
from synthmed.words import counted

NUM_COPIES = 3


@dataclass(frozen=True)
class Demonstration:
    """Both halves of the demonstration.

    Attributes
    ----------
    run : Run
        The honest half, released.
    leaking : Path
        Where the other half lies.
    sources : dict of str
        Sample -> the training case it was made from.
    verdict : str
        The audit's, of the leaking set.
    refusal : str
        What the gate said to it.
    """

    run: Run
    leaking: Path
    sources: dict[str, str]
    verdict: str
    refusal: str

    def text(self) -> str:
        """Return what was made, both verdicts and where to look, in plain words."""
        slipped = ", ".join(f"{name} (from {case})" for name, case in self.sources.items())
        evidence = f"{self._evidence} (report.md; each flagged sample beside its source in pairs/)"
        return "\n".join(
            [
                summarise(self.run),
                "",
                f"The same set with {counted(len(self.sources), 'training scan')} slipped in: {self.verdict}, and "
                "nothing was released.",
                f"  Slipped in:  {slipped}",
                f"  The gate:    {self.refusal}",
                f"  Evidence:    {evidence}",
            ]
        )

    def facts(self) -> dict[str, Any]:
        """Return the same for another program."""
        half = {"verdict": self.verdict, "slipped_in": self.sources, "refusal": self.refusal}
        return {"honest": facts(self.run), "leaking": half | {"evidence": str(self._evidence)}}

    @property
    def _evidence(self) -> Path:
        return self.leaking / "audit" / "steward"


def run_demo(root: Path, overrides: Iterable[str], *, progress: bool, say: Callable[[str], None]) -> Demonstration:
    """Run the phantom configuration, then audit and try to export a leaking copy of its result.

    Raises
    ------
    ReleaseRefused
        If the honest set is refused, or the leaking one is not.
    """
    run = Run(load_config(find_config("phantom"), overrides), root)
    run_stages(run, "export", progress=progress, say=say)
    say(f"\nThe other half: {NUM_COPIES} training scans, slightly changed, are slipped in among the synthetic ones")
    leaking = root / "leaking"
    sources = slip_copies_in(run, leaking)
    return Demonstration(run, leaking, sources, *audit_and_export(run, leaking, progress=progress))


def slip_copies_in(run: Run, out: Path) -> dict[str, str]:
    """Copy the generated set to ``out/generate``, replacing its first volumes by training scans.

    Each scan is shifted by two voxels, brightened and made noisy, as a memorising generator might return it.

    Returns
    -------
    dict of str
        Sample name -> the training case it was made from.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run.stage("generate"), out / "generate")
    train = run.stage("prepare") / "train"
    cases = sorted((train / "images").glob("*.nii.gz"))[:NUM_COPIES]
    names = sorted(p.name for p in (out / "generate" / "images").glob("*.nii.gz"))
    rng = np.random.default_rng(run.config.seed)
    for name, case in zip(names, cases, strict=False):
        template = read_volume(out / "generate" / "images" / name)
        scan = read_volume(case).array
        low, high = run.config.preprocess.intensity_range
        changed = np.roll(scan, 2, axis=2) * 1.05 + rng.normal(0.0, 0.02 * (high - low), scan.shape)
        copied = Volume(np.clip(changed, low, high), template.affine)
        write_volume(out / "generate" / "images" / name, copied, dtype="int16", description="SYNTHETIC")
    _renew_digests(out / "generate")
    return {n.removesuffix(".nii.gz"): c.name.removesuffix(".nii.gz") for n, c in zip(names, cases, strict=False)}


def audit_and_export(run: Run, out: Path, *, progress: bool) -> tuple[str, str]:
    """Put the set in ``out/generate`` through the same audit and gate; return the verdict and the refusal."""
    import privacy
    from synthmed.export import approve, export

    prepared, policy = run.stage("prepare"), run.config.audit.policy
    # The real scans are the same, and so is what the first audit learned from them.
    learned = run.stage("audit") / "steward" / "cache"
    shutil.copytree(learned, out / "audit" / "steward" / "cache", dirs_exist_ok=True)
    privacy.audit(
        train=prepared / "train",
        holdout=prepared / "holdout",
        synthetic=out / "generate" / "images",
        policy=policy,
        seed=run.config.seed,
        out=out / "audit",
        progress=progress,
    )
    report = out / "audit" / "release" / "report.json"
    try:
        approval = approve(out / "generate", report, policy)
        export(out / "generate", approval, out / "release", config=run.config.export, audit_dir=report.parent)
    except ReleaseRefused as refusal:
        if (verdict := read_json(report)["verdict"]) == "FAIL":
            return verdict, str(refusal)
    raise ReleaseRefused(
        "The audit did not find the copied training scans", next_step=f"Look at {out / 'audit' / 'steward'}"
    )


def _renew_digests(samples: Path) -> None:
    with (samples / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["image_sha256"] = sha256_file(samples / "images" / f"{row['name']}.nii.gz")
    with (samples / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
