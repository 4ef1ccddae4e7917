"""The embedding: what it shrinks, that it is learned anew only when it must be, and that it tells scans apart."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from privacy_scans import SPACE, features, learned, records, scan, scans, voxels
from torch import Tensor

from privacy import embedding, suite
from privacy.embedding import Embedding, cached, learn, nuisances
from privacy.features import Features
from privacy.gallery import Gallery
from privacy.planted import DISGUISES
from privacy.records import Scan

PEOPLE, UNSEEN = range(8), range(60, 66)


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    values = np.random.default_rng(seed).normal(size=(columns, rows))
    return torch.from_numpy(np.linalg.qr(values)[0].T.astype(np.float32))


def spread_of(variance: list[float], columns: int) -> tuple[Tensor, Tensor]:
    """Return rows whose second moments along known directions are as given, and the directions."""
    n = len(variance)
    directions, mixing = orthonormal(n, columns, 0), orthonormal(n, n, 1)
    return n**0.5 * mixing @ torch.diag(torch.tensor(variance).sqrt()) @ directions, directions


def same(one: Embedding, two: Embedding) -> bool:
    pairs = [(getattr(one, key), getattr(two, key)) for key in ("mean", "nuisance", "gain")]
    pairs += [(one.atlas.features, two.atlas.features), (one.atlas.mask, two.atlas.mask)]
    return one.shape == two.shape and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def own() -> Embedding:
    return learned(scans(PEOPLE))


def test_nuisances_are_the_known_directions_and_keep_what_the_formula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "NUISANCES", 3)
    variance = [9.0, 4.0, 2.0, 0.5, 0.4, 0.3]
    spread, directions = spread_of(variance, 40)
    found, gain = nuisances(spread)
    assert (found @ directions.T).abs() == pytest.approx(torch.eye(3, 6), abs=1e-4)
    rest = (0.5 + 0.4 + 0.3) / (4 * 3)
    assert gain.tolist() == pytest.approx([rest / (v + rest) for v in (9.0, 4.0, 2.0)], rel=1e-4)


def test_with_few_lessons_all_but_the_last_direction_are_shrunk() -> None:
    variance = [8.0, 4.0, 2.0, 1.0]
    spread, directions = spread_of(variance, 30)
    found, gain = nuisances(spread)
    assert (found @ directions.T).abs() == pytest.approx(torch.eye(3, 4), abs=1e-4)
    rest = 1.0 / (embedding.REST_DIRECTIONS * embedding.NUISANCES)
    assert gain.tolist() == pytest.approx([rest / (v + rest) for v in (8.0, 4.0, 2.0)], rel=1e-3)


def test_nuisances_are_orthonormal_whatever_is_repeated_or_unchanged() -> None:
    spread, _ = spread_of([8.0, 4.0, 2.0, 1.0], 30)
    for rows in (spread, torch.cat([spread, spread]), torch.cat([spread, torch.zeros(3, 30)]), torch.zeros(3, 30)):
        found, gain = nuisances(rows)
        assert (found @ found.T) == pytest.approx(torch.eye(len(found)), abs=1e-4)
        assert torch.isfinite(gain).all()
        assert len(gain) == len(found)


def test_a_code_is_the_look_without_mean_and_nuisances(own: Embedding) -> None:
    plain = replace(own, gain=torch.ones_like(own.gain), mean=torch.zeros_like(own.mean))
    look = plain.encode(features(scans(PEOPLE)))[0].double()
    seen = look - own.mean.double()
    directions, taken = own.nuisance.double(), 1 - own.gain.double()
    kept = seen - torch.einsum("nhr,r,rd->nhd", seen @ directions.T, taken, directions)
    expected = kept / kept.norm(dim=-1, keepdim=True)
    assert torch.allclose(own.encode(features(scans(PEOPLE)))[0].double(), expected, atol=1e-4)


def test_codes_are_unit_vectors_for_each_pose(own: Embedding) -> None:
    codes, laid = own.encode(features(scans(range(40, 45))))
    assert codes.shape[:2] == laid.mirror.shape == laid.score.shape == (5, 2)
    assert codes.norm(dim=-1) == pytest.approx(torch.ones(5, 2), abs=1e-5)
    assert (laid.score[:, 0] >= laid.score[:, 1]).all()


def _alike(found: Embedding, people: range, name: str) -> Tensor:
    """Return similarities of disguised scans (rows) with real ones (columns)."""
    disguised = [DISGUISES[name](scan(k), np.random.default_rng([k, 1])) for k in people]
    codes, _ = found.encode(features([*scans(people), *disguised]))
    return (codes[len(people) :] @ codes[: len(people), 0].T).amax(1)


def test_disguised_scans_are_nearer_to_their_own_than_to_others(own: Embedding) -> None:
    right = 0
    for name in DISGUISES:
        alike, diagonal = _alike(own, PEOPLE, name), torch.eye(len(PEOPLE), dtype=torch.bool)
        nearest = int((alike.argmax(1) == torch.arange(len(PEOPLE))).sum())
        assert nearest >= 6, name  # of 8; a shift by four voxels takes a quarter of such a small scan away
        assert alike[diagonal].median() > alike[~diagonal].quantile(0.99), name
        right += nearest
    assert right >= 0.95 * len(DISGUISES) * len(PEOPLE)


def test_people_it_has_not_seen_are_told_apart_too(own: Embedding) -> None:
    right = [(_alike(own, UNSEEN, name).argmax(1) == torch.arange(6)).sum().item() for name in DISGUISES]
    assert min(right) >= 3  # by chance 1 of 6
    assert sum(right) >= 0.85 * 6 * len(DISGUISES)


def test_learning_depends_on_the_seed_and_on_nothing_else(own: Embedding) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    assert same(learned(scans(PEOPLE)), own)
    few = scans(range(3))
    assert not same(learned(few, seed=1, lessons=16), learned(few, lessons=16))


def test_each_lesson_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "LESSONS", 40)
    monkeypatch.setattr(embedding, "CHUNK", 16)
    ticks: list[int] = []
    learn(features(scans(range(3))), voxels(scans(range(3))), SPACE, 0, lambda: ticks.append(1))
    assert len(ticks) == 40


def _prepared(train: list[Scan], holdout: list[Scan]) -> Gallery:
    given = [(s.array(), s.spacing) for s in (*train, *holdout)]
    return suite._real(train, holdout, given, SPACE, 0, None, partial(suite._bar, hidden=True)).gallery


def test_sides_order_patients_and_names_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "LESSONS", 12)
    people = records(scans(range(6)))
    first = _prepared(people[:4], people[4:]).embedding
    assert same(_prepared(people[4:], people[:4]).embedding, first)
    assert same(_prepared([people[k] for k in (5, 1, 3)], [people[k] for k in (0, 4, 2)]).embedding, first)
    renamed = [replace(s, patient="one", name=f"x{k}") for k, s in enumerate(people)]
    assert same(_prepared(renamed[:4], renamed[4:]).embedding, first)


def test_a_code_belongs_to_its_scan_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "LESSONS", 12)
    people = records(scans(range(6)))
    order = [5, 1, 3, 0, 4, 2]
    one, two = _prepared(people, []), _prepared([people[k] for k in order], [])
    assert torch.allclose(one.codes[order], two.codes, atol=1e-5)
    assert torch.equal(one.features[order].fine, two.features[:].fine)


class _Stop(Exception):
    pass


def test_no_synthetic_scan_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], Tensor, object]] = []

    def record(
        folder: object, contents: list[str], real: Features, given: object, space: object, *rest: object
    ) -> None:
        seen.append((contents, real[:].intensity, space))
        raise _Stop

    monkeypatch.setattr(suite, "cached", record)
    train, holdout = scans(range(5)), scans(range(20, 24))
    wide = np.pad(scan(300), 2, mode="edge")
    for synthetic in (scans(range(200, 203)), [scan(0), wide, wide[1:]]):
        with pytest.raises(_Stop):
            suite.audit(train, holdout, synthetic, policy="research")
    (first, pictures, space), (second, again, other) = seen
    assert first == second == sorted(first)
    assert len(set(first)) == 9
    assert torch.equal(pictures, again)
    assert space == other


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make learning quick and list its seeds."""
    seeds: list[int] = []

    def counted(real: object, given: object, space: object, seed: int, *rest: object) -> Embedding:
        seeds.append(seed)
        return learn(real, given, space, seed, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(embedding, "LESSONS", 12)
    monkeypatch.setattr(embedding, "learn", counted)
    return seeds


def _cached(folder: Path | None, volumes: list[np.ndarray], seed: int = 0) -> Embedding:
    contents = [record.content for record in records(volumes)]
    return cached(folder, contents, features(volumes), voxels(volumes), SPACE, seed)


def test_the_second_call_reads(tmp_path: Path, lessons: list[int]) -> None:
    folder = tmp_path / "a" / "cache"
    first, second = (_cached(folder, scans(range(4))) for _ in range(2))
    assert lessons == [0]
    assert same(first, second)
    codes = [found.encode(features(scans(range(9, 12))))[0] for found in (first, second)]
    assert torch.equal(*codes)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_another_seed_scan_or_space_is_learned_anew(tmp_path: Path, lessons: list[int]) -> None:
    people = scans(range(4))
    _cached(tmp_path, people)
    _cached(tmp_path, people, seed=1)
    changed = [*people[:3], people[3] + np.float32(1e-3) * scan(50)]
    _cached(tmp_path, changed)
    _cached(tmp_path, people[:3])
    wide = replace(SPACE, spacing=1.5)
    cached(tmp_path, [s.content for s in records(people)], features(people), voxels(people), wide, 0)
    assert lessons == [0, 1, 0, 0, 0]
    _cached(tmp_path, changed)
    assert len(lessons) == 5
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_file_is_learned_anew(tmp_path: Path, lessons: list[int], damage: str) -> None:
    people = scans(range(4))
    first = _cached(tmp_path, people)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "other":
        embedding.save_file({"mean": torch.zeros(3)}, path)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not tensors" * 99}[damage])
    assert same(_cached(tmp_path, people), first)
    assert lessons == [0, 0]
    assert path.read_bytes() == whole
    _cached(tmp_path, people)
    assert lessons == [0, 0]


def test_without_a_folder_nothing_is_kept(tmp_path: Path, lessons: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        _cached(None, scans(range(4)))
    assert lessons == [0, 0]
    assert list(tmp_path.iterdir()) == []


def test_scans_of_unlike_shapes_are_learned_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "LESSONS", 12)
    people = [scan(0), np.pad(scan(1), 1, mode="edge"), scan(2)[1:, :-2]]
    found = learn(features(people), voxels(people), SPACE, 0)
    assert torch.isfinite(found.mean).all()
    assert torch.isfinite(found.encode(features(people))[0]).all()
