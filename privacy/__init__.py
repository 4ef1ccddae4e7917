"""Judge whether a synthetic cohort of scans gives away the patients it was made from, whoever made it.

``python -m privacy audit --train DIR --holdout DIR --synthetic DIR --out DIR``, or `audit` from Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from privacy.errors import AuditError, InputError, UsageError
from privacy.policy import Policy, judge, load_policy

if TYPE_CHECKING:
    from privacy.report import AuditReport
    from privacy.suite import audit

__all__ = ["AuditError", "AuditReport", "InputError", "Policy", "UsageError", "audit", "judge", "load_policy"]


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for."""
    if name == "audit":
        from privacy.suite import audit

        return audit
    if name == "AuditReport":
        from privacy.report import AuditReport

        return AuditReport
    raise AttributeError(f"module 'privacy' has no attribute {name!r}")
