"""Features in files are the features; the files have no name, and a full disk is said."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from privacy_scans import SPACE, features, learned, scans

from privacy import UsageError
from privacy.atlas import pictures
from privacy.coarse import coarse_search
from privacy.features import Features
from privacy.gallery import build_gallery
from privacy.similarity import match
from privacy.stored import Rows, even_spans, store

FIELDS = ("intensity", "fine", "coarse", "centre")


def _same(one: Features, two: Features) -> bool:
    return all(torch.equal(getattr(one, field), getattr(two, field)) for field in FIELDS)


def test_rows_are_read_as_they_were_written() -> None:
    values, rows = torch.arange(24, dtype=torch.uint8).view(6, 2, 2), Rows()
    for part in (values[:1], values[1:4], values[4:]):
        rows.append(part)
    assert len(rows) == 6
    for asked in (slice(1, 5), slice(None), [5, 0, 5], torch.tensor([2]), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(rows[asked], values[asked])
    few = rows.chosen([4, 1, 1])
    assert len(few) == 3
    assert torch.equal(few[:], values[[4, 1, 1]])
    assert torch.equal(few[[1, 0]], values[[1, 4]])


def test_transposed_rows_are_written_in_order() -> None:
    rows = Rows()
    rows.append(torch.arange(6.0).view(2, 3).T)
    assert rows[:].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file has a name")
def test_files_have_no_name_and_are_closed_with_their_last_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stored = store([features(scans([0]))])
    assert list(tmp_path.iterdir()) == []
    file, few = stored.fine._file, stored.chosen([0])
    del stored
    gc.collect()
    assert few[:].fine.shape[0] == 1
    del few
    handle = file.fileno()
    del file
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: Any) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(UsageError, match=r"found No space left on device.*TMPDIR"):
        store([features(scans([0]))])


def test_a_missing_temporary_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"found No such file or directory.*TMPDIR"):
        Rows()


def test_stored_features_are_the_features() -> None:
    whole = features(scans(range(4)))
    stored = store(whole[k : k + 1] for k in range(4))
    assert len(stored) == 4
    assert _same(stored[:], whole)
    assert _same(stored[torch.tensor([3, 1])], whole[[3, 1]])
    assert _same(stored.chosen([2, 0])[:], whole[[2, 0]])


def test_a_search_in_stored_scans_finds_the_same() -> None:
    people = scans(range(7))
    whole, embedding = features(people), learned(people)
    others = ~torch.eye(7, dtype=torch.bool)
    galleries = [build_gallery(real, np.arange(7), SPACE, embedding) for real in (whole, store([whole]))]
    (held,), (read,) = (match(gallery.queries, gallery, [others]) for gallery in galleries)
    assert all(
        np.array_equal(getattr(held, name), getattr(read, name)) for name in ("index", "views", "mirror", "pose")
    )


def test_it_does_not_matter_how_many_scans_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    people = scans(range(7))
    seen, embedding = features(people), learned(people)
    codes, laid = embedding.encode(seen)
    values, mask = pictures(seen, laid, embedding.atlas)
    score = coarse_search(seen.coarse[:2], seen.coarse).score
    for name in ("atlas.PART", "embedding.PART", "coarse.PART"):
        monkeypatch.setattr(f"privacy.{name}", 3)
    parts = pictures(seen, laid, embedding.atlas)
    assert torch.allclose(embedding.encode(seen)[0], codes, atol=1e-6)
    assert torch.allclose(parts[0], values, atol=1e-6)
    assert torch.equal(parts[1], mask)
    assert torch.allclose(coarse_search(seen.coarse[:2], seen.coarse).score, score, atol=1e-6)


def test_even_spans_leave_no_row_by_itself() -> None:
    assert even_spans(9, 4) == [slice(0, 3), slice(3, 6), slice(6, 9)]
    assert even_spans(4, 4) == [slice(0, 4)]
    assert even_spans(0, 4) == []
    for count in range(2, 200):
        sizes = [part.stop - part.start for part in even_spans(count, 4)]
        assert sum(sizes) == count
        assert 2 <= min(sizes) <= max(sizes) <= 4
