"""How to load a release: a recipe for each format that is in it, with paths that exist."""

from __future__ import annotations

from collections.abc import Mapping

from synthmed.config import ExportConfig
from synthmed.export.cohort import ApprovedCohort

_MARKS = {"nifti": "image", "dicom": "dicom_series", "bids": "bids_image"}

_NIFTI = """**NIfTI.** nnU-Net v2: copy `nifti/` to `$nnUNet_raw/Dataset501_Synthetic`. MONAI:

```python
from monai.data import load_decathlon_datalist

cases = load_decathlon_datalist("nifti/datalist.json", data_list_key="training")
```"""

_UNLABELLED = "There are no labels, so the images lie in `imagesTs`, nnU-Net's place for cases without one."

_DICOM = """**DICOM.** Into a PACS: `synthmed send . --to dicom://AET@host:port`, or any DICOM sender. In Python:

```python
{code}
```"""

_CLASSIC = """import SimpleITK

names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames("{series}")
image = SimpleITK.ReadImage(names)"""

_ENHANCED = """from pathlib import Path

import highdicom

(file,) = Path("{series}").glob("*.dcm")
image = highdicom.imread(file).get_volume()"""

_SEG = """import highdicom

segmentation = highdicom.seg.segread("{seg}")"""

_BIDS = """**BIDS.** `bids/` is a dataset of its own; each case is a subject. The suffix T1w is a placeholder: the
weighting is not recorded.

```python
import nibabel

image = nibabel.load("{image}")
```"""

_TABLE = """**The table of cases**, by hand or through Croissant:

```python
import mlcroissant

cases = mlcroissant.Dataset("croissant.json").records("cases")
```"""


def formats_of(columns: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Return the formats that the exporters wrote."""
    names = {name for cells in columns.values() for name in cells}
    return tuple(name for name, mark in _MARKS.items() if mark in names)


def loading_section(config: ExportConfig, cohort: ApprovedCohort, columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return the card's section on loading; every snippet runs in the release's directory.

    Parameters
    ----------
    config : ExportConfig
    cohort : ApprovedCohort
    columns : mapping
        What the exporters wrote for each case.
    """
    formats = formats_of(columns)
    cells = next(iter(columns.values()), {})
    parts = ["## Loading it"]
    if "nifti" in formats:
        parts += [_NIFTI] if cohort.samples[0].has_label else [_NIFTI, _UNLABELLED]
    if "dicom" in formats:
        code = (_ENHANCED if config.enhanced else _CLASSIC).format(series=cells["dicom_series"])
        seg = [_SEG.format(seg=cells["dicom_seg"])] if cells.get("dicom_seg") else []
        parts.append(_DICOM.format(code="\n\n".join([code, *seg])))
    if "bids" in formats:
        parts.append(_BIDS.format(image=cells["bids_image"]))
    return "\n\n".join([*parts, _TABLE])
