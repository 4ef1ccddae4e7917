"""One thing is one thing; the audit, which imports nothing of synthmed, has words of its own."""

from __future__ import annotations

import pytest

from privacy import words as audit_words
from synthmed import words


@pytest.mark.parametrize("counted", [words.counted, audit_words.counted])
def test_a_noun_agrees_with_its_count(counted) -> None:  # type: ignore[no-untyped-def]
    assert [counted(n, "volume") for n in (0, 1, 2)] == ["0 volumes", "1 volume", "2 volumes"]
    assert [counted(n, "copy", "copies") for n in (1, 1.0, 2.0)] == ["1 copy", "1 copy", "2 copies"]


def test_what_a_record_does_not_hold_is_a_dash() -> None:
    assert words.counted("-", "scan") == "- scans"
