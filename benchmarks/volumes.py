"""Prepare and export of many small volumes beside the plain nibabel loop: volumes/s, MB/s, and where the time goes.

    python benchmarks/volumes.py [--volumes 1000] [--side 48] [--grid 32] [--rounds 3] [--clock process] [--json FILE]

The scans are phantoms of `--side` voxels along each axis, no two alike, written as NIfTI in LAS order with their label
maps. ``prepare`` brings them onto `--grid` voxels, at half as coarse a spacing again. The plain loop loads, reorients,
smooths and resamples with scipy, scales by percentiles, crops or pads and saves with nibabel; it takes no digests,
looks for no duplicates, splits no patients, keeps no record and cannot go on where it was stopped. ``export`` writes
what was prepared as if it had been generated: images and label maps in the layout of nnU-Net. Its plain loop loads and
saves with nibabel, or only copies; ours copies the audited bytes, checks every digest, writes the documents, seals, and
verifies the finished release. Ours and the plain loops run in turn; seconds are medians. MB are of int16 voxels, of
images and label maps, as the stage writes them. The compressor is part of it: nibabel's is zlib at level 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage
from speed.measuring import (
    CLOCKS,
    Clock,
    Row,
    add_ratios,
    clock_of,
    conditions,
    in_turn,
    spread,
    table_text,
    told,
    write_rows,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from releases import make_audit, write_table

from synthmed.cohort.phantom import LABEL_NAMES, Phantom
from synthmed.config import Config, ExportConfig, parse_config
from synthmed.export import approve, export
from synthmed.export.cohort import open_approved
from synthmed.export.nifti import write_nifti
from synthmed.io import read_label, read_volume, write_volume
from synthmed.prepare.prepared import load_space
from synthmed.prepare.preprocess import prepare
from synthmed.sampling.generated import volume_name, write_pair
from synthmed.volume import reorient

COARSER = 1.5
"""Spacing of the grid over that of the scans."""
PERCENTILES, TOP = (0.5, 99.9), 1000.0
PLAIN, COPYING = "nibabel loop", "copying alone"
COLUMNS = ("name", "stage", "seconds", "low", "high", "volumes/s", "MB/s", "times as fast")
Work = Callable[[Path], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    clock = clock_of(options.clock)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["XDG_CONFIG_HOME"] = name  # the key that signs is made anew, and goes with the releases
        write_scans(root / "scans", options.volumes, options.side, options.seed)
        config = config_of(root / "scans", options.grid, options.seed)
        preparing: dict[str, Work] = {
            PLAIN: partial(plain_prepare, root / "scans", options.grid),
            "synthmed prepare": partial(prepare, config, progress=False),
        }
        rows = rows_of("prepare", preparing, options, root, clock)
        prepare(config, root / "prepared", progress=False)
        rows += rows_of("export", export_works(root), options, root, clock)
    facts = conditions(volumes=options.volumes, side=options.side, grid=options.grid, clock=options.clock)
    facts |= {"seed": options.seed, "rounds": options.rounds}
    print(told(facts))
    print(table_text(rows, COLUMNS))
    if options.json:
        write_rows(options.json, rows, facts)
    return 0


def write_scans(folder: Path, count: int, side: int, seed: int) -> None:
    """Write phantoms and their label maps, each of a person of their own, in LAS order as many scanners store them."""
    for number in range(count):
        image, label = Phantom(seed, number, (side, side, side)).render()
        name = f"scan_{number:05d}.nii.gz"
        write_volume(folder / "images" / name, reorient(image, "LAS"), description="")
        write_volume(folder / "labels" / name, reorient(label, "LAS"), dtype="uint8", description="")


def config_of(scans: Path, grid: int, seed: int) -> Config:
    """Return the configuration that prepares the scans."""
    return parse_config(
        {
            "seed": seed,
            "cohort": {"path": str(scans), "images": "images", "labels": "labels", "label_names": LABEL_NAMES},
            "preprocess": {
                "grid": [grid] * 3,
                "spacing": [COARSER] * 3,
                "normalisation": "percentile",
                "percentiles": list(PERCENTILES),
                "intensity_range": [0.0, TOP],
            },
        }
    )


def plain_prepare(scans: Path, grid: int, out: Path) -> None:
    """Bring every scan onto the grid as one would write it with nibabel and scipy."""
    for kind in ("images", "labels"):
        (out / kind).mkdir(parents=True)
        for file in sorted((scans / kind).iterdir()):
            nib.save(on_grid(nib.load(file), grid, kind == "images"), out / kind / file.name)


def on_grid(scan: nib.Nifti1Image, grid: int, is_image: bool) -> nib.Nifti1Image:
    """Reorient, resample about the centre and fit to the grid; scale an image by its percentiles."""
    scan = scan.as_reoriented(ornt_transform(io_orientation(scan.affine), axcodes2ornt("RAS")))
    voxels = scan.get_fdata(dtype=np.float32)
    low, high = np.percentile(voxels, PERCENTILES) if is_image else (0.0, 1.0)
    if is_image:
        width = np.sqrt((COARSER**2 - 1) / (8 * np.log(2)))
        voxels = np.clip((ndimage.gaussian_filter(voxels, width, mode="nearest") - low) / (high - low), 0, 1) * TOP
    first = (np.array(voxels.shape) - 1) / 2 - (grid - 1) / 2 * COARSER
    fitted = ndimage.affine_transform(
        voxels, [COARSER] * 3, first, output_shape=(grid, grid, grid), order=int(is_image), prefilter=False
    )
    step = np.diag([COARSER] * 3 + [1.0])
    step[:3, 3] = first
    return nib.Nifti1Image(np.rint(fitted).astype(np.int16), scan.affine @ step)


def export_works(root: Path) -> dict[str, Work]:
    """Make a generated set of what was prepared, approve it, and return what is timed."""
    samples, audit = generated(root / "prepared", root / "generate"), root / "audit"
    make_audit(audit, samples)
    approval = approve(samples, audit / "report.json", "default")
    config = ExportConfig(formats=("nifti",))

    def ours(out: Path) -> None:
        export(samples, approval, out / "release", config=config, audit_dir=audit, say=lambda line: None)

    def plain(out: Path, copying: bool = False) -> None:
        for kind, folder, channel in (("images", "imagesTr", "_0000"), ("labels", "labelsTr", "")):
            (out / folder).mkdir(parents=True)
            for file in sorted((samples / kind).iterdir()):
                target = out / folder / file.name.replace(".nii.gz", f"{channel}.nii.gz")
                if copying:
                    shutil.copyfile(file, target)
                    continue
                image = nib.load(file)
                nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), target)
        (out / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "file_ending": ".nii.gz"}))

    return {
        PLAIN: plain,
        COPYING: partial(plain, copying=True),
        "synthmed, files alone": lambda out: write_nifti(open_approved(samples, approval), out, config),
        "synthmed export": ours,
    }


def generated(prepared: Path, out: Path) -> Path:
    """Write prepared scans as `generate` would; return the folder."""
    space, rows = load_space(prepared), []
    files = sorted(prepared.glob("*/images/*.nii.gz"))
    for number, file in enumerate(files):
        name = volume_name(number)
        write_pair(out, name, read_volume(file), read_label(file.parents[1] / "labels" / file.name), space)
        rows.append({"name": name, "seed": number, "condition": "{}"})
    write_table(out, rows)
    (out / "generation.json").write_text(json.dumps({"space": space.to_json(), "seed": 0}))
    return out


def rows_of(stage: str, works: dict[str, Work], options: argparse.Namespace, root: Path, clock: Clock) -> list[Row]:
    """Do every piece of work in turn, each time into a new folder, and return its figures."""
    seconds = in_turn({name: partial(_timed, work, root, clock) for name, work in works.items()}, options.rounds)
    megabytes = options.volumes * options.grid**3 * 2 * np.dtype(np.int16).itemsize / 1e6
    rows = []
    for name in works:
        found = spread(seconds[name])
        rates = {"volumes/s": options.volumes / found["median"], "MB/s": megabytes / found["median"]}
        limits = {"low": found["low"], "high": found["high"], "repeats": found["repeats"]}
        rows.append({"name": name, "stage": stage, "seconds": found["median"], **limits, **rates})
    return add_ratios(rows, PLAIN, "seconds")


def _timed(work: Work, root: Path, clock: Clock) -> list[float]:
    with tempfile.TemporaryDirectory(dir=root) as out:
        began = clock()
        work(Path(out))
        return [clock() - began]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--side", type=int, default=48, help="voxels of a scan along each axis")
    parser.add_argument("--grid", type=int, default=32, help="voxels of the grid along each axis")
    parser.add_argument("--rounds", type=int, default=3, help="of each piece of work; the median counts")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds over threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the rows, as JSON or, by its name, CSV")
    return parser


if __name__ == "__main__":
    sys.exit(main())
