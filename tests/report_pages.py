"""Facts for pages, small and wholly known, and a reader of pages that knows nothing of how they are written."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthmed.report import Facts, preview
from synthmed.volume import Volume

SHAPE = (20, 24, 16)
ROWS = [
    ("Samples that are recognisably one training patient", "0", "at most 0"),
    ("Planted copies that the audit found, lower bound", "0.5", "at least 0.9"),
]
AUDIT: dict[str, Any] = {
    "schema": "privacy-audit/2",
    "verdict": "PASS",
    "reasons": ["Nothing was found </script><script>alert(1)</script>"],
    "policy": {"name": "default", "sha256": "0" * 64, "thresholds": {"confidence": 0.95, "min_disguise_recall": 0.5}},
    "synthetic": {"n": 30},
    "train": {"n_scans": 70, "n_patients": 60},
    "holdout": {"n_scans": 44, "n_patients": 40},
    "measurements": {
        "samples": 30, "tau_null": 0.4, "largest_score": 0.3, "largest_null_score": 0.45, "distance_auc": 0.52,
        "distance_auc_lower": 0.44, "distance_auc_upper": 0.6, "distance_p": 0.4, "member_share": [0.6, 0.5],
        "member_share_depth": [1.0, 0.5], "member_share_expected": 0.61, "linkability_risk": 0.02,
        "linkability_risk_lower": 0.0, "linkability_risk_upper": 0.09, "linkability_train_rate": 0.05,
        "linkability_control_rate": 0.03,
    },
    "scores": {
        "edges": [0.0, 0.25, 0.5, 0.75, 1.0, 1.25],
        "counts": {
            "samples_to_training": [25, 5, 0, 0, 0], "samples_to_holdout": [27, 3, 0, 0, 0],
            "holdout_to_training": [38, 2, 0, 0, 0], "training_to_training": [60, 9, 1, 0, 0],
        },
    },
    "power": {"planted": 140, "found": 135, "recall": 0.964, "recall_lower": 0.93, "smallest_detectable_copies": 2,
              "by_disguise": {"identity": 1.0, "mixture": 0.5}},
    "notes": ["only images/ was read"],
    "metadata": [{"severity": "harmless", "what": "a date", "where": "header", "findings": 3}],
    "citations": ["Holm 1979"],
}  # fmt: skip
_POINT = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "sd": 0.1}
_FLOOR = {"value": 0.123, "low": 0.1, "high": 0.2}
_SET = {"dice": _POINT, "structures": {"left": _POINT, "right": _POINT}, "n_training": 12}
_COMPARED = {"synthetic": _POINT, "floor": _FLOOR, "ratio": _POINT}
_TOLD = {"correlation": _POINT, "slope": _FLOOR, "n": 9}
_SHAPE = {"synthetic": {"ks": _POINT}, "train": {"ks": _FLOOR}}
_VOLUME = {"mean_mm3": 100.0, "sd_mm3": 5.0, "empty": 0.25, "n": 9, "ks": 0.2}
EVALUATION: dict[str, Any] = {
    "n": {"synthetic": 30, "holdout": 9, "holdout_patients": 8},
    "utility": {
        "measured": True,
        "sets": {"tstr": _SET, "trtr": _SET, "both": _SET},
        "ratio": _FLOOR,
        "gain": _POINT,
        "sizes": [{"patients": 20, "trtr": _POINT, "both": _FLOOR, "gain": None}],
    },
    "conditions": {
        "measured": True,
        "covariates": {"age": {"kind": "scalar", "holdout": _TOLD, "synthetic": _TOLD, "ratio": _POINT}},
    },
    "distance": {"measured": True, "encoder": {"kid": _COMPARED, "recall": _COMPARED, "auc": _COMPARED}},
    "diversity": {"synthetic": _POINT, "real": _FLOOR, "intensities": _COMPARED},
    "labels": {"left": {"synthetic": _VOLUME, "train": _VOLUME, "holdout": _VOLUME, "shape": {"flatness": _SHAPE}}},
    "autoencoder": {"psnr_db": _POINT, "dice": {"left": _POINT}},
}
LOG = [
    {"step": "100", "loss": "0.9", "train_loss": "0.8", "holdout_loss": "0.85"},
    {"step": "200", "loss": "0.5", "train_loss": "0.4", "holdout_loss": "0.5"},
]


def volumes(number: int = 3, *, labelled: bool = True) -> list[Any]:
    """Previews of volumes that are each brighter than the one before, with two structures."""
    made = []
    for index in range(number):
        grid = np.indices(SHAPE).sum(axis=0, dtype=np.float32)
        label = np.zeros(SHAPE, np.float32)
        label[4:12, 6:18, 4:12], label[14:18, 6:18, 4:12] = 1, 5
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        shown = Volume(label[None], affine) if labelled else None
        made.append(preview(f"synth_{index:05d}", Volume((grid * (index + 1))[None], affine), shown, (0, 1, 5)))
    return made


def facts(**changed: Any) -> Facts:
    """Return everything that a page can show, with `changed` parts."""
    content: dict[str, Any] = {
        "title": "Synthetic <phantoms>",
        "audit": AUDIT,
        "audit_rows": ROWS,
        "evaluation": EVALUATION,
        "training": {"autoencoder": LOG, "denoiser": LOG},
        "previews": volumes(),
        "number_of_volumes": 30,
        "structures": ("background", "left", "right </script>"),
        "settings": {"seed": 0, "sampling": {"sampler": "dpmpp_2m", "steps": [1, 2]}},
        "versions": {"synthmed": "0.1.0"},
        "digests": {"denoiser": "ab" * 32},
    }
    return Facts(**(content | changed))


class Page(HTMLParser):
    """What a parser finds in a page: (tag, attributes, text inside) of every element, in order of their end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"meta", "img", "input"}:
            self.elements.append((tag, dict(attrs), ""))
        else:
            self.open.append((tag, dict(attrs), []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes, said = self.open.pop()
        if opened != tag:
            raise ValueError(f"<{opened}> ends with </{tag}>")
        self.elements.append((tag, attributes, "".join(said)))
        if self.open:
            self.open[-1][2].append("".join(said))

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)

    def of(self, tag: str, **attributes: str) -> list[tuple[str, dict[str, str | None], str]]:
        """Return the elements of a kind whose attributes have these values."""
        return [e for e in self.elements if e[0] == tag and attributes.items() <= e[1].items()]

    def text(self, tag: str, **attributes: str) -> str:
        """Return the text inside the one element that fits."""
        [(_, _, said)] = self.of(tag, **attributes)
        return said


def embedded(page: Page) -> list[tuple[str, NDArray[np.uint8], NDArray[np.uint8] | None]]:
    """Return name, image and label of each preview in a page, as a reader of its format would unpack them."""
    found = page.of("script", id="previews")
    content = json.loads(found[0][2]) if found else {"volumes": []}

    def unpack(text: str, shape: list[int]) -> NDArray[np.uint8]:
        return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape, order="F")

    return [
        (v["name"], unpack(v["image"], v["shape"]), unpack(v["label"], v["shape"]) if v["label"] else None)
        for v in content["volumes"]
    ]
