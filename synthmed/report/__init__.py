"""The report: one page for a governance board, made from plain records, with no real scan on it.

It knows nothing of approvals, releases or runs; whoever has such facts passes them.
"""

from __future__ import annotations

from synthmed.report.facts import Facts, Log
from synthmed.report.page import render_report
from synthmed.report.previews import Preview, chosen, preview, preview_of_files

__all__ = ["Facts", "Log", "Preview", "chosen", "preview", "preview_of_files", "render_report"]
