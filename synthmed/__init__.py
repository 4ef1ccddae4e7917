"""Turn a private cohort of 3D medical scans into a synthetic cohort that may be shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthmed.pictures import montage, pair, show

__version__ = "0.1.0"
__all__ = ["__version__", "montage", "pair", "show"]


def __getattr__(name: str) -> Any:
    """Load what draws only when it is asked for."""
    if name in {"montage", "pair", "show"}:
        from synthmed import pictures

        return getattr(pictures, name)
    raise AttributeError(f"module 'synthmed' has no attribute {name!r}")
