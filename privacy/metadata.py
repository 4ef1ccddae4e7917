"""Personal data in what is about to leave: names, headers, attributes, characters in the voxels, faces.

What is searched for follows DICOM PS3.15 Annex E; a finding is evidence, and its absence proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from privacy.burned_in import find_text
from privacy.faces import has_face
from privacy.fields import Field, Header, place_of, read_header, uids
from privacy.identifiers import BIRTH, DATE, NAME, PATTERNS, Identifiers, identifiers, made_up, normal, running_numbers
from privacy.patients import stem
from privacy.reading import is_nifti
from privacy.records import Scan

IDENTIFYING, NOTICE = "identifying", "notice"


@dataclass(frozen=True)
class MetadataFinding:
    """One thing that a sample says about a patient, or may.

    Attributes
    ----------
    kind : str
        ``"name"``, ``"header"``, ``"extension"``, ``"sidecar"``, ``"dicom"``, ``"geometry"``, ``"burned-in"`` or
        ``"face"``.
    severity : str
        ``"identifying"`` or ``"notice"``.
    sample : str
        Its name; for the steward alone.
    where : str
        The field, in its standard's own word.
    what : str
        In words that name no patient, file or path.
    detail : str
        The text that was found; for the steward alone.
    """

    kind: str
    severity: str
    sample: str
    where: str
    what: str
    detail: str = ""


def examine(
    samples: Sequence[Scan],
    real: Sequence[Scan],
    names: Iterable[str] = (),
    tick: Callable[[], object] = lambda: None,
) -> tuple[MetadataFinding, ...]:
    """Search samples for personal data.

    Parameters
    ----------
    samples : sequence of Scan
        Every file that is about to leave; arrays in memory have voxels alone.
    real : sequence of Scan
        The cohort, training and holdout.
    names : iterable of str
        More identifiers of the cohort.
    tick : callable
        Called once for each sample.

    Returns
    -------
    tuple of MetadataFinding
        In the order of the samples.

    Raises
    ------
    InputError
        If a file cannot be read, or changed since it was collected.
    """
    known = identifiers(real, names, _headers(samples, real))
    places = _places(real)
    running = running_numbers([stem(scan.name) for scan in samples])
    found: list[MetadataFinding] = []
    for scan in samples:
        header = read_header(scan)
        own = [item for field in header.fields for item in _judged(field, scan.name, known, running)]
        found += [*dict.fromkeys(own), *_copied(header, scan.name, places), *_seen(scan)]
        tick()
    return tuple(found)


def summary(findings: Sequence[MetadataFinding]) -> list[dict[str, str | int]]:
    """Count findings by kind, severity, field and description: what the release record may show."""
    counts = Counter((item.severity, item.kind, item.where, item.what) for item in dict.fromkeys(findings))
    keys = ("severity", "kind", "where", "what")
    return [{**dict(zip(keys, row, strict=True)), "findings": count} for row, count in sorted(counts.items())]


def _headers(samples: Sequence[Scan], real: Sequence[Scan]) -> Iterator[tuple[str, str]]:
    """Yield the UIDs and patients of real DICOM files; a series' first file names all but its slices."""
    dicom = any(scan.files and not is_nifti(scan.files[0]) for scan in samples)
    for scan in real:
        if scan.files and not is_nifti(scan.files[0]):
            for path in scan.files if dicom else scan.files[:1]:
                yield from uids(path)


def _places(real: Sequence[Scan]) -> frozenset[bytes]:
    """Return the transforms that exactly one real scan has."""
    counts = Counter(place_of(scan.files[0]) for scan in real if scan.files and is_nifti(scan.files[0]))
    return frozenset(place for place, count in counts.items() if count == 1 and place)


def _judged(field: Field, sample: str, known: Identifiers, running: frozenset[str]) -> Iterator[MetadataFinding]:
    def found(severity: str, what: str, detail: str) -> MetadataFinding:
        return MetadataFinding(field.kind, severity, sample, field.where, what, detail)

    match = known.find(field.text, field.role)
    if match and field.role == "name" and field.text in running:
        yield found(NOTICE, f"is {match[1]}, as running numbers may be", field.text)
    elif match:
        yield found(IDENTIFYING, f"holds {match[1]}", field.text)
    elif field.role in ("patient", "identity") and not _own(field.text, sample):
        yield found(IDENTIFYING, "is filled with what may be a person's", field.text)
    if field.role == "date":
        yield found(NOTICE, "holds a date", field.text)
    if field.role == "private":
        yield found(NOTICE, "is there, and only its maker knows all that it holds", "")
    if field.role in ("text", "description", "name", "private"):
        patterns = [what for what, pattern in PATTERNS.items() if pattern.search(field.text)]
        if field.role == "description" and NAME in patterns:
            patterns.remove(NAME)
        yield from (found(IDENTIFYING, f"holds {what}", field.text) for what in patterns)
        if DATE.search(field.text) and BIRTH not in patterns:
            yield found(NOTICE, "holds a date", field.text)


def _own(text: str, sample: str) -> bool:
    """Tell a value that is evidently nobody's, or the sample's own name."""
    return made_up(text) or normal(text) == normal(stem(sample))


def _copied(header: Header, sample: str, places: frozenset[bytes]) -> Iterator[MetadataFinding]:
    if header.place in places:
        what = "position and description are bit for bit those of one real scan"
        yield MetadataFinding("geometry", NOTICE, sample, "affine", what)


def _seen(scan: Scan) -> Iterator[MetadataFinding]:
    array = scan.array()
    line = find_text(array)
    if line:
        detail = f"{line.characters} characters across axis {line.axis}, voxels {line.box}"
        yield MetadataFinding("burned-in", NOTICE, scan.name, "voxels", "look as if characters were burned in", detail)
    if has_face(array, scan.spacing):
        yield MetadataFinding("face", NOTICE, scan.name, "voxels", "show a whole head with a face that was not removed")
