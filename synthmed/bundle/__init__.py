"""A trained model as a MONAI bundle: refused unless its samples passed the audit, written whole or not at all."""

from __future__ import annotations

from synthmed.bundle.source import ApprovedModel, open_model
from synthmed.bundle.writing import write_bundle

__all__ = ["ApprovedModel", "open_model", "write_bundle"]
