"""Pictures of volumes for a person to look at, in a notebook or as PNG.

Each function returns a `Picture`, which a notebook displays and `Picture.save` writes. Sections run to right, front and
top; `PLANES` names their sides.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthmed.errors import InputError
from synthmed.files import atomic_path
from synthmed.sections import centre_of as centre_of
from synthmed.volume import Volume, reorient

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#ff5a36", "#35c3ff", "#ffd21f", "#7ddc4b", "#d783ff", "#ff9fc4")
PLANES = (("sagittal", "P", "A", "I", "S"), ("coronal", "L", "R", "I", "S"), ("axial", "L", "R", "P", "A"))
"""For each axis that a section is perpendicular to: its name, and what lies at its left, right, bottom and top."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn figure; displays itself as the last value of a notebook's cell."""

    figure: Figure

    def png(self) -> bytes:
        """Return the picture as PNG; the same figure gives the same bytes."""
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", metadata={"Software": None})
        return stream.getvalue()

    def save(self, path: Path | str) -> Path:
        """Write the picture as PNG and return its path.

        Raises
        ------
        StorageError
            If the disk is full or the folder is not writable.
        """
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(self.png())
        return Path(path)

    _repr_png_ = png


def show(
    volume: Volume | ArrayLike,
    label: Volume | ArrayLike | None = None,
    *,
    spacing: Spacing | None = None,
    names: Mapping[int, str] | None = None,
    title: str = "",
) -> Picture:
    """Draw the three planes of one volume, with the outline of its labels.

    Parameters
    ----------
    volume : Volume, or array of shape (I, J, K) or (1, I, J, K)
        An array's axes run to right, front and top (RAS); a `Volume` is turned so.
    label : the same, or None
        Class index, background 0. The planes pass where most of it is seen.
    spacing : tuple of float, mm, optional
        Of an array; default 1 mm.
    names : mapping of label value to structure, optional
        For the legend.
    title : str

    Raises
    ------
    InputError
        If the volume is not one, or its label has another shape.
    """
    image, edges = _oriented(volume, spacing)
    mask = None if label is None else _oriented(label, spacing)[0]
    _check_shapes(image[None], None if mask is None else mask[None])
    figure = _figure(8.4, 3.1 + 0.25 * bool(title))
    panes = figure.subplots(1, 3, squeeze=False)[0]
    _draw(panes, image, mask, _greys(image), edges)
    for axes, plane in zip(panes, PLANES, strict=True):
        _name_sides(axes, plane)
    _legend(figure, mask, names or {})
    if title:
        figure.suptitle(title, color="white", fontsize=11)
    return Picture(figure)


def pair(
    first: Volume | ArrayLike,
    second: Volume | ArrayLike,
    *,
    spacing: Spacing | None = None,
    titles: tuple[str, str] = ("first", "second"),
) -> Picture:
    """Draw two volumes above one another on one grey scale, and below them their difference.

    Parameters
    ----------
    first, second : as the volume in `show`, of equal shapes
    titles : tuple of str
        What the two are.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    (one, edges), (other, _) = _oriented(first, spacing), _oriented(second, spacing)
    if one.shape != other.shape:
        raise InputError("A pair needs equal shapes", found=f"{one.shape} and {other.shape}")
    figure = _figure(8.4, 7.6)
    rows = figure.subplots(3, 3, squeeze=False)
    limits = _greys(np.stack([one, other]))
    _draw(rows[0], one, None, limits, edges)
    _draw(rows[1], other, None, limits, edges)
    difference = np.asarray(other, np.float64) - one
    reach = max(float(np.abs(difference).max()), 1e-12)
    _draw(rows[2], difference, None, (-reach, reach), edges, cmap="RdBu_r")
    for panes, name in zip(rows, (*titles, "second - first"), strict=True):
        panes[0].set_axis_on()
        _bare(panes[0])
        panes[0].set_ylabel(name, color="white", fontsize=10)
    for axes, plane in zip(rows[0], PLANES, strict=True):
        axes.set_title(plane[0], color="white", fontsize=9)
    return Picture(figure)


def montage(
    volumes: ArrayLike | Sequence[Volume],
    labels: ArrayLike | Sequence[Volume] | None = None,
    *,
    spacing: Spacing | None = None,
    columns: int = 4,
    most: int = 16,
    title: str = "",
) -> Picture:
    """Draw the three planes of each volume, with the outline of its labels, on one grey scale.

    The planes pass where most of the label is seen, or through the middle of the grid where there is none.

    Parameters
    ----------
    volumes : array of shape (N, I, J, K) or (N, 1, I, J, K), or sequence of `Volume`
        As the volume in `show`, all of one shape.
    labels : the same, or None
        Class index, background 0.
    columns, most : int
        Volumes a row, and how many are drawn at most.

    Raises
    ------
    InputError
        If there is no volume, or labels and volumes disagree in shape.
    """
    images, edges = _stack(volumes, most, spacing)
    masks = None if labels is None else _stack(labels, most, spacing)[0]
    _check_shapes(images, masks)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(3.6 * columns, 1.4 * rows + 0.4)
    grid = figure.subplots(rows, 3 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    limits = float(images.min()), float(images.max())
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        panes = grid[row, 3 * column : 3 * column + 3]
        _draw(panes, image, None if masks is None else masks[index], limits, edges)
    if title:
        figure.suptitle(title, color="white", fontsize=10)
    return Picture(figure)


def _oriented(volume: Volume | ArrayLike, spacing: Spacing | None) -> tuple[NDArray[Any], Spacing]:
    """Return the first channel, shape (I, J, K), in RAS, and its spacing."""
    if isinstance(volume, Volume):
        turned = reorient(volume, "RAS")
        return turned.array[0], turned.spacing
    array = np.asarray(volume)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or array.size == 0:
        raise InputError("A picture needs volumes", found=f"shape {array.shape}", expected="(I, J, K), none of them 0")
    return array, spacing or (1.0, 1.0, 1.0)


def _stack(volumes: ArrayLike | Sequence[Volume], most: int, spacing: Spacing | None) -> tuple[NDArray[Any], Spacing]:
    """Return at most `most` volumes, shape (N, I, J, K), and the spacing of the first."""
    each = [_oriented(volume, spacing) for volume in list(volumes)[:most]]  # type: ignore[arg-type]
    if len({array.shape for array, _ in each}) != 1:
        raise InputError(
            "A picture needs volumes of one shape", found=str(sorted({array.shape for array, _ in each})) or "none"
        )
    return np.stack([array for array, _ in each]), each[0][1]


def _check_shapes(images: NDArray[Any], masks: NDArray[Any] | None) -> None:
    if masks is not None and masks.shape != images.shape:
        raise InputError(
            "A picture needs one label a volume", found=f"{masks.shape} beside {images.shape}", expected="equal shapes"
        )


def _greys(image: NDArray[Any]) -> tuple[float, float]:
    """Return the limits of the grey scale; a few voxels at either end do not darken the rest."""
    low, high = np.percentile(image, [0.5, 99.8])
    return (float(low), float(high)) if high > low else (float(image.min()), float(image.max()))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(
    panes: NDArray[Any],
    image: NDArray[Any],
    mask: NDArray[Any] | None,
    limits: tuple[float, float],
    spacing: Spacing,
    cmap: str = "gray",
) -> None:
    centre = centre_of(mask, image.shape)
    for axis, axes in enumerate(panes):
        across, up = (length for other, length in enumerate(spacing) if other != axis)
        section = np.take(image, centre[axis], axis=axis).T
        axes.imshow(section, cmap=cmap, vmin=limits[0], vmax=limits[1], origin="lower", aspect=up / across)
        axes.set_axis_off()
        if mask is not None:
            _outline(axes, np.take(mask, centre[axis], axis=axis).T)


def _outline(axes: Axes, section: NDArray[Any]) -> None:
    for value in np.unique(section[section > 0]):
        inside = (section == value).astype(float)
        if min(inside.shape) > 1:
            axes.contour(inside, levels=[0.5], colors=colour(int(value)), linewidths=0.9)


def colour(value: int) -> str:
    """Return the colour that outlines a label value."""
    return COLOURS[(value - 1) % len(COLOURS)]


def _name_sides(axes: Axes, plane: tuple[str, str, str, str, str]) -> None:
    name, left, right, bottom, top = plane
    axes.set_title(name, color="white", fontsize=9)
    places = {left: (0.02, 0.5), right: (0.98, 0.5), bottom: (0.5, 0.02), top: (0.5, 0.98)}
    for letter, (x, y) in places.items():
        across = "left" if x < 0.5 else "right" if x > 0.5 else "center"
        up = "bottom" if y < 0.5 else "top" if y > 0.5 else "center"
        axes.text(x, y, letter, transform=axes.transAxes, color="#ffd21f", fontsize=9, ha=across, va=up)


def _legend(figure: Figure, mask: NDArray[Any] | None, names: Mapping[int, str]) -> None:
    from matplotlib.lines import Line2D

    values = [] if mask is None else [int(v) for v in np.unique(mask) if v > 0]
    lines = [Line2D([], [], color=colour(v), label=names.get(v, f"label {v}")) for v in values]
    if lines:
        columns = min(len(lines), 6)
        figure.legend(
            handles=lines, loc="outside lower center", ncols=columns, frameon=False, labelcolor="white", fontsize=9
        )


def _bare(axes: Axes) -> None:
    """Keep an axes' label but none of its ticks and edges."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
