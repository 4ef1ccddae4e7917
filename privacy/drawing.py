"""Draw a sample beside the scan that it resembles most, in three planes, with their difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.features import extract
from privacy.poses import MIRRORS, flip
from privacy.registration import grid_points, warp
from privacy.report import Findings

PLANES = ("sagittal", "coronal", "axial")


def draw_pair(findings: Findings, row: dict[str, Any], path: Path) -> None:
    """Write one PNG: rows are planes, columns the sample (laid over its source), the source and the difference."""
    from matplotlib.figure import Figure

    sample, source = aligned_pair(findings, row["row"])
    figure = Figure(figsize=(7.5, 8), dpi=100, layout="constrained")
    axes = figure.subplots(3, 3)
    for line, plane in zip(axes, range(3), strict=True):
        middle = sample.shape[plane] // 2
        a, b = (np.rot90(np.take(volume, middle, plane)) for volume in (sample, source))
        line[0].imshow(a, cmap="gray", vmin=0, vmax=1)
        line[1].imshow(b, cmap="gray", vmin=0, vmax=1)
        line[2].imshow(a - b, cmap="RdBu_r", vmin=-1, vmax=1)
        line[0].set_ylabel(PLANES[plane])
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], (row["file"], row["nearest_patient"], "difference"), strict=True):
        axis.set_title(str(title)[-28:], fontsize=9)
    figure.suptitle(f"score {row['score']:.3f}, similarity {row['similarity']:.3f} {row['flag']}", fontsize=10)
    figure.savefig(path, metadata={"Software": None})


def aligned_pair(findings: Findings, k: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return sample `k` laid over its nearest training scan, and that scan: (D, H, W), fine grid, in [0, 1]."""
    gallery, matches, scan = findings.cleaned.real.gallery, findings.matches, findings.samples[k]
    place = int(findings.evidence.samples.place[k])
    source = gallery.features[[int(matches.index[k, place])]].intensity[0, 0]
    features = extract(scan.array(), scan.spacing, gallery.space)
    moving = flip(features.intensity, MIRRORS[int(matches.mirror[k, place])])
    pose = torch.from_numpy(matches.pose[k, place]).float()[None]
    moved, _ = warp(moving, pose, grid_points(gallery.space.fine))
    return moved.view(source.shape).clamp(0, 1).numpy(), source.clamp(0, 1).numpy()
