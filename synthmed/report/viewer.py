"""The synthetic volumes themselves: a viewer where scripts run, a still picture everywhere."""

from __future__ import annotations

import base64
import json

from synthmed.report.facts import Facts
from synthmed.report.markup import Markup, bullets, element, figure, join, paragraph, section
from synthmed.report.previews import encode, montage_png
from synthmed.words import counted

PREVIEWS = "previews"
_PLANES = ("Sagittal", "Coronal", "Axial")
_STRUCTURES = '<ul class="legend" id="structures"></ul>'
_LEGEND = f'<p id="here"></p><details id="legend"><summary>Structures</summary>{_STRUCTURES}</details>'
_KEYS = (
    "N and P: next and previous volume",
    "O: labels on and off",
    "arrow keys on a slider: through its plane; or click into a picture, or turn the wheel over it",
)


def viewer_section(facts: Facts) -> Markup:
    """Return the viewer with its previews and the montage, or a line where there is no volume."""
    if not facts.previews:
        return section("volumes", "The volumes", [paragraph("There is no volume to show yet.")])
    labelled = any(p.label is not None for p in facts.previews)
    shown = (
        f"{len(facts.previews)} of {counted(facts.number_of_volumes, 'synthetic volume')}, evenly spread over the "
        "set and made smaller for this page."
    ) + (" None is a scan of a person." if facts.cleared else "")
    png = base64.b64encode(montage_png(facts.previews)).decode("ascii")
    described = "Three planes each of synthetic volumes" + (", their labels in colour" if labelled else "")
    image = Markup(f'<img class="montage" alt="{described}" src="data:image/png;base64,{png}">')
    caption = "Sagittal, coronal and axial planes through the labels, or through the middle."
    return section(
        "volumes",
        "The volumes",
        [
            paragraph(shown),
            _viewer(labelled),
            element("noscript", paragraph("The viewer needs scripts; the picture below shows the same volumes.")),
            figure(image, caption),
            _data(facts),
        ],
    )


def _viewer(labelled: bool) -> Markup:
    overlay = (
        '<label><input type="checkbox" id="overlay" checked> Labels</label>'
        '<label>Opacity <input type="range" id="opacity" min="0" max="100" value="50"></label>'
        if labelled
        else ""
    )
    buttons = (
        '<button type="button" id="previous">Previous</button>'
        '<label>Volume <select id="volume"></select></label>'
        f'<button type="button" id="next">Next</button>{overlay}'
    )
    panes = "".join(_pane(name) for name in _PLANES)
    status = '<p id="status" role="status" aria-live="polite"></p>'
    html = (
        f'<div id="viewer" hidden><div class="controls">{buttons}</div>{status}'
        f'<div class="panes">{panes}</div>{_LEGEND if labelled else ""}</div>'
    )
    return join([Markup(html), element("div", bullets(_KEYS), id="keys", class_="note", hidden="hidden")])


def _pane(name: str) -> str:
    low = name.lower()
    return (
        f'<div class="pane"><canvas id="{low}" role="img" aria-label="{name} plane" width="16" height="16"></canvas>'
        f'<label>{name} <input type="range" id="{low}-slice" min="0" value="0"></label></div>'
    )


def _data(facts: Facts) -> Markup:
    """Return the voxels as JSON that no text in it can end early."""
    content = json.dumps(encode(facts.previews, facts.structures), separators=(",", ":"), ensure_ascii=True)
    safe = content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{PREVIEWS}">{safe}</script>')
