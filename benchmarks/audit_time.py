"""How long an audit takes, the embedding's training included and from its cache, and how much memory.

    python benchmarks/audit_time.py [--train 200] [--holdout 60] [--synthetic 300] [--shape 40 56 40]

Scans and samples are procedural phantoms of people who differ.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import nibabel as nib
import torch

import privacy
from synthmed.cohort.phantom import Phantom


def write(folder: Path, subjects: range, shape: tuple[int, int, int], seed: int) -> Path:
    """Write one phantom a subject."""
    folder.mkdir()
    for subject in subjects:
        volume, _ = Phantom(seed, subject, shape).render()
        nib.save(nib.Nifti1Image(volume.array[0], volume.affine), folder / f"scan-{subject:05d}.nii.gz")
    return folder


def main() -> None:
    """Audit once with an empty cache and once more with a full one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--holdout", type=int, default=60)
    parser.add_argument("--synthetic", type=int, default=300)
    parser.add_argument("--shape", type=int, nargs=3, default=(40, 56, 40))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape = (options.shape[0], options.shape[1], options.shape[2])
    with tempfile.TemporaryDirectory() as name:
        root, first, sets = Path(name), 0, {}
        for role in ("train", "holdout", "synthetic"):
            count = getattr(options, role)
            sets[role] = write(root / role, range(first, first + count), shape, options.seed)
            first += count
        print(f"{options.train} training, {options.holdout} held-out, {options.synthetic} synthetic scans of {shape}")
        for cache in ("empty", "full"):
            began = time.perf_counter()
            report = privacy.audit(**sets, seed=options.seed, out=root / "audit", progress=True)
            seconds = time.perf_counter() - began
            print(f"embedding cache {cache}: {seconds:.0f} s, {report.verdict}, {torch.get_num_threads()} threads")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
