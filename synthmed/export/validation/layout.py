"""The rules that nnU-Net v2 publishes for a data set, checked without nnU-Net.

References
----------
nnU-Net, documentation/dataset_format.md: keys of ``dataset.json``, names of files, labels, geometry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from synthmed.words import counted

_KEYS = ("channel_names", "labels", "numTraining", "file_ending")
_TOLERANCE = 1e-4


def nnunet_problems(folder: Path, values_of: Iterable[str] | None = None) -> list[str]:
    """Return what in a data set is not as nnU-Net v2 wants it, in plain words, naming files relative to `folder`.

    Parameters
    ----------
    folder : Path
        With ``dataset.json``, ``imagesTr`` and ``labelsTr``, or ``imagesTs`` where nothing is labelled.
    values_of : iterable of str, optional
        Cases whose label values are read [default: all].
    """
    try:
        dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        missing = [key for key in _KEYS if key not in dataset]
    except (OSError, ValueError, TypeError) as error:
        return [f"dataset.json cannot be read: {type(error).__name__}"]
    if missing:
        return [f"dataset.json lacks {key}" for key in missing]
    ending, channels = str(dataset["file_ending"]), list(dataset["channel_names"])
    problems = [*_channel_problems(dataset["channel_names"]), *_label_problems(dataset["labels"])]
    training, problems_tr = _cases(folder / "imagesTr", ending, channels)
    _, problems_ts = _cases(folder / "imagesTs", ending, channels)
    problems += [*problems_tr, *problems_ts, *_count_problems(folder, dataset, training, ending)]
    if problems:
        return problems
    wanted = training if values_of is None else [case for case in training if case in set(values_of)]
    return list(_volume_problems(folder, dataset, training, wanted))


def _channel_problems(channels: Any) -> list[str]:
    """Channels are numbered 0, 1, ... as strings, and each has a name."""
    if not isinstance(channels, Mapping) or list(channels) != [str(i) for i in range(len(channels))] or not channels:
        return ["channel_names are not numbered 0, 1, ..."]
    unnamed = [key for key, name in channels.items() if not isinstance(name, str) or not name]
    return [f"channel {key} has no name" for key in unnamed]


def _label_problems(labels: Any) -> list[str]:
    """Background is 0, and values follow one another without a gap."""
    if not isinstance(labels, Mapping) or labels.get("background") != 0:
        return ["labels lack background as 0"]
    values = sorted(labels.values(), key=str)
    if not all(isinstance(value, int) for value in values) or sorted(values) != list(range(len(values))):
        return [f"labels are not consecutive: {', '.join(map(str, values))}"]
    return []


def _cases(folder: Path, ending: str, channels: list[str]) -> tuple[list[str], list[str]]:
    """Return the cases of a folder of images, and what is wrong with its names."""
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    found: dict[str, set[str]] = {}
    problems = []
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(file.name)
        if match is None:
            problems.append(f"{folder.name}/{file.name} is not CASE_0000{ending}")
        else:
            found.setdefault(match[1], set()).add(match[2])
    expected = {f"{int(channel):04d}" for channel in channels if channel.isdigit()}
    problems += [f"{folder.name}: {case} has the wrong channels" for case, own in found.items() if own != expected]
    return list(found), problems


def _count_problems(folder: Path, dataset: Mapping[str, Any], training: list[str], ending: str) -> Iterator[str]:
    labels = folder / "labelsTr"
    names = sorted(file.name for file in labels.iterdir()) if labels.is_dir() else []
    labelled = {name.removesuffix(ending) for name in names}
    yield from (f"labelsTr/{name} does not end in {ending}" for name in names if not name.endswith(ending))
    yield from (f"imagesTr: {case} has no label map" for case in training if case not in labelled)
    yield from (f"labelsTr: {case} has no image" for case in sorted(labelled - set(training)))
    if dataset["numTraining"] != len(training):
        yield f"numTraining is {dataset['numTraining']}, and it lists {counted(len(training), 'case')}"


def _volume_problems(
    folder: Path, dataset: Mapping[str, Any], training: list[str], values_of: list[str]
) -> Iterator[str]:
    ending, declared = dataset["file_ending"], set(dataset["labels"].values())
    for case in training:
        try:
            label = nib.nifti1.Nifti1Image.from_filename(folder / "labelsTr" / f"{case}{ending}")
            images = [
                nib.nifti1.Nifti1Image.from_filename(folder / "imagesTr" / f"{case}_{int(channel):04d}{ending}")
                for channel in dataset["channel_names"]
            ]
            if any(image.shape != label.shape for image in images):
                yield f"{case}: image and label map differ in shape"
            elif any(not np.allclose(image.affine, label.affine, atol=_TOLERANCE) for image in images):
                yield f"{case}: image and label map differ in position or spacing"
            if case in values_of:
                foreign = sorted(set(np.unique(np.asarray(label.dataobj)).tolist()) - declared)
                yield from (f"{case}: label value {value:g} is not declared" for value in foreign)
        except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
            yield f"{case}: cannot be read ({type(error).__name__})"
