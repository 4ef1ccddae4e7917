"""The validators of the field but DICOM's, each started on a release as its user would start it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from synthmed.export.validation.layout import nnunet_problems
from synthmed.export.validation.validators_dicom import dcentvfy, dciodvfy, dcm2niix
from synthmed.export.validation.verdicts import (
    ABSENT,
    MOST_FILES,
    UNUSED,
    Verdict,
    executable,
    installed_version,
    judge,
    run,
    spread,
)


def bids_validator(part: Path) -> Verdict:
    """Run the BIDS validator on ``bids/`` and the derivatives in it."""
    tool = executable("bids-validator-deno") or executable("bids-validator")
    files = sorted(p.relative_to(part).as_posix() for p in (part / "bids").rglob("*") if p.is_file())
    if tool is None or not files:
        return Verdict("bids-validator", UNUSED if tool else ABSENT)
    status, out, _ = run(part, [tool, "bids", "--recursive", "--format", "json", "--max-rows", "-1"])
    command = "bids-validator-deno bids --recursive --format json --max-rows -1"
    said = list(_bids_messages(out)) or ([("Error", f"exit status {status}", "")] if status else [])
    return judge("bids-validator", installed_version("bids-validator-deno"), command, ["bids/**"], len(files), said)


def _bids_messages(out: str) -> Iterator[tuple[str, str, str]]:
    try:
        content = json.loads(out)
        parts = [
            ("bids", content),
            *((f"bids{k}".rstrip("/"), v) for k, v in content.get("derivativesSummary", {}).items()),
        ]
        for root, one in parts:
            for issue in one["issues"]["issues"]:
                text = " ".join(str(issue[key]) for key in ("code", "subCode") if issue.get(key))
                yield issue["severity"], text, root + issue.get("location", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        yield "Error", "did not answer in JSON", ""


def mlcroissant(part: Path) -> Verdict:
    """Validate ``croissant.json``."""
    tool, name = executable("mlcroissant"), "croissant.json"
    if tool is None or not (part / name).is_file():
        return Verdict("mlcroissant", UNUSED if tool else ABSENT)
    status, out, err = run(part, [tool, "validate", "--jsonld", name])
    level, said = "Warning", []
    for line in (out + err).splitlines():
        if "error(s) during the validation" in line:
            level = "Error"
        elif "warning(s) during the validation" in line:
            level = "Warning"
        elif line.startswith("  -  "):
            said.append((level, line.removeprefix("  -  "), name))
    if status and not any(one[0] == "Error" for one in said):
        said.append(("Error", f"exit status {status}", name))
    command = f"mlcroissant validate --jsonld {name}"
    return judge("mlcroissant", installed_version("mlcroissant"), command, [name], 1, said)


def monai_datalist(part: Path) -> Verdict:
    """Load the datalist with MONAI, and the first case with its transform."""
    name = "nifti/datalist.json"
    if not (part / name).is_file():
        return Verdict("monai", UNUSED)
    with _quiet():
        cases, said = _load_with_monai(part / name)
    command = "monai.data.load_decathlon_datalist; LoadImaged of the first case"
    return judge("monai", installed_version("monai"), command, [name], cases, said)


def _load_with_monai(datalist: Path) -> tuple[int, list[tuple[str, str, str]]]:
    """Return the number of cases, and what went wrong."""
    from monai.data.decathlon_datalist import load_decathlon_datalist
    from monai.transforms.io.dictionary import LoadImaged

    try:
        cases = load_decathlon_datalist(datalist, data_list_key="training")
        absent = [Path(file).name for case in cases for file in case.values() if not Path(file).is_file()]
        if absent:
            return len(cases), [("Error", "a listed file is not there", file) for file in absent]
        loaded = LoadImaged(keys=list(cases[0]), image_only=True)(cases[0])
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, EOFError) as error:
        return 0, [("Error", f"cannot be loaded: {type(error).__name__}", f"nifti/{datalist.name}")]
    if len({tuple(array.shape) for array in loaded.values()}) != 1:
        return len(cases), [("Error", "image and label map differ in shape", Path(cases[0]["image"]).name)]
    return len(cases), []


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MONAI's remarks about readers that it does not have off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def nnunet_rules(part: Path) -> Verdict:
    """Hold ``nifti/`` against nnU-Net v2's published rules."""
    folder = part / "nifti"
    if not folder.is_dir():
        return Verdict("nnunet", UNUSED)
    files = sorted(p.relative_to(part).as_posix() for p in folder.rglob("*") if p.is_file())
    cases = sorted(p.name.removesuffix(".nii.gz") for p in (folder / "labelsTr").glob("*.nii.gz"))
    said = [("Error", problem, "") for problem in nnunet_problems(folder, spread(cases, MOST_FILES))]
    version = "rules of nnU-Net 2, documentation/dataset_format.md"
    command = f"synthmed's own check; label values of at most {MOST_FILES} cases"
    return judge("nnunet", version, command, ["nifti/**"], len(files), said)


VALIDATORS: tuple[Callable[[Path], Verdict], ...] = (
    dciodvfy,
    dcentvfy,
    dcm2niix,
    bids_validator,
    mlcroissant,
    monai_datalist,
    nnunet_rules,
)
