"""Pictures of volumes for a person to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthmed.errors import InputError
from synthmed.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#ff5a36", "#35c3ff", "#ffd21f", "#7ddc4b", "#d783ff", "#ff9fc4")


def montage(
    volumes: ArrayLike,
    labels: ArrayLike | None,
    path: Path,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    columns: int = 4,
    most: int = 16,
    title: str = "",
) -> Path:
    """Draw the three planes of each volume, with the outline of its labels, into a PNG.

    The planes pass through the middle of the label, or of the grid where there is none.

    Parameters
    ----------
    volumes : array, shape (N, I, J, K) or (N, 1, I, J, K)
        Axes run to right, front and top (RAS); all share one grey scale.
    labels : array of the same shape, or None
        Class index, background 0.
    path : Path
    spacing : tuple of float, mm
    columns : int
        Volumes a row.
    most : int
        At most so many volumes are drawn.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If there is no volume, or labels and volumes disagree in shape.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images = _stack(volumes)[:most]
    masks = None if labels is None else _stack(labels)[:most]
    if masks is not None and masks.shape != images.shape:
        raise InputError(
            "A montage needs one label a volume", found=f"{masks.shape} beside {images.shape}", expected="equal shapes"
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(3.6 * columns, 1.4 * rows + 0.4), dpi=110, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 3 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    limits = float(images.min()), float(images.max())
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        panes = grid[row, 3 * column : 3 * column + 3]
        _draw(panes, image, None if masks is None else masks[index], limits, spacing)
    if title:
        figure.suptitle(title, color="white", fontsize=10)
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return Path(path)


def centre_of(mask: NDArray[Any] | None, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the voxel the planes pass through: the label's rounded centroid, else the middle of the grid."""
    if mask is None or not mask.any():
        i, j, k = (side // 2 for side in shape)
    else:
        i, j, k = (round(float(c)) for c in np.argwhere(mask).mean(axis=0))
    return i, j, k


def _stack(volumes: ArrayLike) -> NDArray[Any]:
    array = np.asarray(volumes)
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 4 or array.size == 0:
        raise InputError(
            "A montage needs volumes", found=f"shape {array.shape}", expected="(N, I, J, K), none of them 0"
        )
    return array


def _draw(
    panes: NDArray[Any],
    image: NDArray[Any],
    mask: NDArray[Any] | None,
    limits: tuple[float, float],
    spacing: tuple[float, float, float],
) -> None:
    centre = centre_of(mask, image.shape)
    for axis, axes in enumerate(panes):
        across, up = (length for other, length in enumerate(spacing) if other != axis)
        section = np.take(image, centre[axis], axis=axis).T
        axes.imshow(section, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", aspect=up / across)
        if mask is not None:
            _outline(axes, np.take(mask, centre[axis], axis=axis).T)


def _outline(axes: Axes, section: NDArray[Any]) -> None:
    for value in np.unique(section[section > 0]):
        inside = (section == value).astype(float)
        if min(inside.shape) > 1:
            axes.contour(inside, levels=[0.5], colors=COLOURS[(int(value) - 1) % len(COLOURS)], linewidths=0.9)
