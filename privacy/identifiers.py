"""A cohort's names, found again as whole words in linear time; running numbers are no identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from privacy.patients import stem
from privacy.records import Scan

WORD = re.compile(r"[^\W_]+")
MARKED = re.compile(r"\b(sub|subj|subject|pat|patient|pid|mrn)(?=\d)")
ASSUMED = ("train:", "holdout:", "synthetic:")  # patients whom nobody named: their files are
MARKERS = frozenset({"sub", "subj", "subject", "pat", "patient", "pid", "mrn", "id"})
_GENERIC = """
    image images img mask label labels seg t1 t2 t1w t2w flair dwi pet ct mr mri scan scans volume nifti dicom anat func
    brain head chest none unknown anonymous anonymized anonymised anon train training holdout test val validation
    synthetic sample samples data raw case subject patient baseline followup session series study
"""
GENERIC = frozenset(_GENERIC.split())
MADE_UP = re.compile(
    r"anon\w*|none|nil|null|unknown|unspecified|na|n|a|not|available|applicable|removed|redacted|deidentified|x+|0+"
    r"|synth\w*|sample|generated|phantom|test|fake|dummy|nobody|no|name|case|volume|image|subject|patient"
)
NO_DATES = frozenset({"19000101", "18990101", "00010101"})
BIRTH, NAME = "a date of birth", "a person's name"
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[A-Za-z]{2,}"),
    "a path of a machine": re.compile(r"(?:^|[\s\"'=:,(\[])(?:/(?:[\w.@+-]+/)+[\w.@+-]+|[A-Za-z]:\\\w|\\\\\w+\\\w)"),
    NAME: re.compile(
        r"\b[A-Z][A-Za-z'-]+\^[A-Z]|(?:^|[;,|])\s*[Nn]ame\s*[:=]\s*[A-Z][a-z]"
        r"|(?i:\b(?:patient|person)'?s?[ _]?name\s*[:=]\s*[a-z])"
    ),
    BIRTH: re.compile(
        r"(?i)\b(?:dob|birth\w*|born|geb\w*)\W{0,12}(?:(?:19|20)\d\d\W?[01]\d\W?[0-3]\d|[0-3]?\d[./-][0-3]?\d[./-]\d{2,4})"
    ),
}
DATE = re.compile(r"(?<![\d.])(?:19|20)\d\d([-/.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?![\d.])")


@dataclass(frozen=True)
class Identifiers:
    """Normalised identifiers and what each is.

    Attributes
    ----------
    kinds : mapping of str to str
        Words in small letters, one space between them -> what it identifies, in plain words.
    lengths : tuple of int
        How many words an identifier may have.
    """

    kinds: Mapping[str, str]
    lengths: tuple[int, ...]

    def find(self, text: str, role: str) -> tuple[str, str] | None:
        """Return the longest identifier in a text, and what it is.

        One that a running number or a common word could be counts only where identifiers of patients stand: in a
        field of that role, as all of it, or behind a word such as ``sub``.
        """
        words = normal(text).split()
        if role == "patient" and (key := " ".join(words)) in self.kinds:
            return key, self.kinds[key]
        for length in reversed(self.lengths):
            for start in range(len(words) - length + 1):
                key = " ".join(words[start : start + length])
                marked = start > 0 and words[start - 1] in MARKERS
                if key in self.kinds and (marked or not weak(key)):
                    return key, self.kinds[key]
        return None


def identifiers(real: Sequence[Scan], names: Iterable[str], headers: Iterable[tuple[str, str]] = ()) -> Identifiers:
    """Collect what would identify a patient of the cohort.

    Parameters
    ----------
    real : sequence of Scan
        Their patients, file names, and folders that are one patient's own.
    names : iterable of str
        More identifiers.
    headers : iterable of (role, text)
        UIDs and patients' names of real DICOM files.
    """
    kinds: dict[str, str] = {}
    owners: dict[str, set[str]] = {}
    for scan in real:
        for part in _parts(scan):
            owners.setdefault(part, set()).add(scan.patient)
    for part, patients in owners.items():
        if len(patients) == 1:
            kinds[part] = "the file or folder name of a real scan"
    for role, text in headers:
        kinds[normal(text)] = "a UID of a real scan" if role == "uid" else "the name or identifier of a patient"
    kinds |= {normal(text): "an identifier of the cohort" for text in names}
    kinds |= {normal(s.patient): "the identifier of a patient" for s in real if not s.patient.startswith(ASSUMED)}
    kinds.pop("", None)
    return Identifiers(kinds, tuple(sorted({len(key.split()) for key in kinds})))


def normal(text: str) -> str:
    """Return a text's words in small letters with one space between; ``sub01`` is two words."""
    return " ".join(WORD.findall(MARKED.sub(r"\1 ", text.casefold())))


def weak(key: str) -> bool:
    """Tell an identifier that stands in many places by chance: short, a running number, a common word."""
    words = key.split()
    plain = "".join(words)
    if len(plain) < 3:
        return True
    return len(plain) < 6 if plain.isdigit() else all(word in GENERIC or word.isdigit() for word in words)


def made_up(text: str) -> bool:
    """Tell a value that is evidently nobody's."""
    words = normal(text).split()
    if not words or "".join(words) in NO_DATES:
        return True
    told = [MADE_UP.fullmatch(word) is not None for word in words]
    return any(told) and all(made or word.isdigit() for made, word in zip(told, words, strict=True))


def running_numbers(names: Sequence[str]) -> frozenset[str]:
    """Return the names of a set that is numbered from 0 or 1 without a gap, which says nothing of its sources."""
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    numbers = sorted(int(part[2]) for part in parts if part)
    if len(names) < 3 or len(numbers) < len(names) or len({part[1] for part in parts if part}) > 1:
        return frozenset()
    first = numbers[0]
    return frozenset(names) if first in (0, 1) and numbers == list(range(first, first + len(names))) else frozenset()


def _parts(scan: Scan) -> set[str]:
    path = Path(scan.name)
    parts = path.parts[-3:] if path.is_absolute() else path.parts
    return {normal(stem(part)) for part in parts} - {""} if scan.path is not None else set()
