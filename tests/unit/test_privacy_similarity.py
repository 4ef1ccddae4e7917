"""The search on made-up scans: disguised ones find their source, other people have no margin, sides stay apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from privacy_scans import features, gallery, scan, scans
from scipy import ndimage

from privacy.atlas import Laid
from privacy.coarse import coarse_search
from privacy.features import COARSE_STEP
from privacy.gallery import Gallery, Queries
from privacy.margins import Margins, margins, weigh
from privacy.pairs import as_given, joint_correlation, start_poses
from privacy.poses import MIRRORS, flip, mirror_all
from privacy.registration import grid_points, warp
from privacy.similarity import (
    CANDIDATES,
    NONE,
    PER_PATIENT,
    VIEWS,
    Matches,
    _gather,
    few_a_patient,
    join,
    match,
)

PEOPLE = range(8)


@pytest.fixture(scope="module")
def real() -> Gallery:
    return gallery(scans(PEOPLE))


def _queries(volumes: list[np.ndarray], real: Gallery) -> Queries:
    seen = features(volumes)
    return Queries(seen, *real.embedding.encode(seen))


def _search(volumes: list[np.ndarray], real: Gallery) -> Matches:
    everything = torch.ones(len(volumes), len(real), dtype=torch.bool)
    return match(_queries(volumes, real), real, [everything])[0]


def _margins(matches: Matches, real: Gallery) -> Margins:
    return margins(matches, real.patient, weigh(np.ones(len(VIEWS))))


def test_a_copy_that_lost_content_lies_as_its_file_says() -> None:
    """Half of a scan is margin in the copy: the middles of what is left differ, those of the grids do not."""
    canvas = np.zeros((26, 26, 20), np.float32)
    canvas[6:24, 2:24, 2:18] = scan(3)
    copy = canvas.copy()
    copy[:13] = 0
    real, copied = features([canvas]), features([copy])
    mirror, pose = as_given(copied, real, torch.tensor([0]), torch.tensor([0]))
    pose[:, :3, 3] *= COARSE_STEP
    assert mirror.tolist() == [0]
    assert joint_correlation(real.intensity, copied.intensity, pose)[0, 0] > 0.9
    assert joint_correlation(real.intensity, copied.intensity, torch.eye(4)[None])[0, 0] < 0.5


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v,
        lambda v: 1000 * v + 5,
        lambda v: (v / v.max()) ** 0.6,
        lambda v: v[::-1],
        lambda v: v[::-1, ::-1, ::-1],
        lambda v: np.roll(v, (2, -2, 1), (0, 1, 2)),
        lambda v: np.pad(v, ((0, 5), (3, 0), (1, 6))),
        lambda v: ndimage.gaussian_filter(v, 0.7),
        lambda v: ndimage.rotate(v, 6, axes=(0, 1), reshape=False, order=1, cval=float(v.min())),
    ],
    ids=["same", "scale", "gamma", "mirror", "point", "roll", "margins", "blur", "rotation"],
)
def test_a_disguised_scan_finds_its_source(real: Gallery, change: Callable[[np.ndarray], np.ndarray]) -> None:
    matches = _search([change(scan(k)) for k in (2, 5)], real)
    found = _margins(matches, real)
    assert found.scan.tolist() == [[2, 2], [5, 5]]
    assert found.margin.min() > 1.2
    assert (matches.views[:, 0, 1:] > 0.9).all()


def test_other_people_have_no_margin(real: Gallery) -> None:
    assert _margins(_search(scans(range(50, 58)), real), real).margin.max() < 0.6


@pytest.mark.parametrize("mirror", [(False, True, False), (True, False, True)])
def test_a_mirror_image_is_named_as_one(real: Gallery, mirror: tuple[bool, ...]) -> None:
    axes = [axis for axis, on in enumerate(mirror) if on]
    matches = _search([np.flip(scan(4), axes)], real)
    assert matches.index[0, 0] == 4
    assert MIRRORS[int(matches.mirror[0, 0])] == mirror


def test_the_pose_lays_the_query_over_its_source(real: Gallery) -> None:
    queries = _queries([ndimage.shift(scan(6)[::-1], (0, 1.5, -1), order=1, mode="nearest")], real)
    matches = match(queries, real, [torch.ones(1, len(real), dtype=torch.bool)])[0]
    place = int(np.flatnonzero(matches.index[0] == 6)[0])
    moving = flip(queries.features.intensity, MIRRORS[int(matches.mirror[0, place])])
    pose = torch.from_numpy(matches.pose[:1, place]).float()
    both = joint_correlation(real.features.intensity[[6]], moving, pose)
    assert both[0].tolist() == pytest.approx(matches.views[0, place, 1:].tolist(), abs=1e-4)
    moved, inside = warp(moving, pose, grid_points(real.space.fine))
    source = real.features.intensity[6].flatten(1)
    shared = (inside[0] > 0.9) & (source[1] > 0)
    assert torch.corrcoef(torch.stack([moved[0, shared], source[0, shared]]))[0, 1] > 0.9


def test_candidates_are_named_once_best_by_embedding_first(real: Gallery) -> None:
    matches = _search(scans(range(50, 54)), real)
    for index, views in zip(matches.index, matches.views, strict=True):
        named = index[index >= 0]
        assert len(set(named.tolist())) == len(named)
        assert (np.diff(views[: len(named), 0]) <= 0).all()
        assert (index[len(named) :] == -1).all()
        assert (views[len(named) :] == -1).all()


def test_the_first_view_is_the_inner_product_of_the_codes(real: Gallery) -> None:
    queries = _queries(scans(range(50, 53)), real)
    matches = match(queries, real, [torch.ones(3, len(real), dtype=torch.bool)])[0]
    alike = torch.einsum("nhd,gd->nhg", queries.codes, real.codes[:, 0]).amax(1).numpy()
    for row, (index, views) in enumerate(zip(matches.index, matches.views, strict=True)):
        assert views[index >= 0, 0] == pytest.approx(alike[row, index[index >= 0]], abs=1e-5)


def test_a_side_is_searched_as_if_alone(real: Gallery) -> None:
    queries, numbers = _queries(scans(range(3)), real), torch.arange(8).expand(3, 8)
    sides = [numbers < 4, numbers >= 4, torch.zeros(3, 8, dtype=torch.bool)]
    together = match(queries, real, sides)
    for side, matches in zip(sides, together, strict=True):
        alone = match(queries, real, [side])[0]
        assert np.array_equal(matches.index, alone.index)
        assert np.allclose(matches.views, alone.views, atol=1e-5)
        there = matches.index >= 0
        assert np.array_equal(matches.mirror[there], alone.mirror[there])
        assert np.allclose(matches.pose[there], alone.pose[there], atol=1e-4)
    assert (together[0].index < 4).all()
    assert (np.isin(together[1].index, (-1, 4, 5, 6, 7))).all()
    assert (together[2].index == -1).all()
    assert (together[2].views == -1).all()


def test_queries_are_searched_as_if_alone(real: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = scans(range(20, 25))
    whole = _search(volumes, real)
    monkeypatch.setattr("privacy.similarity.BATCH", 2)
    parts = _search(volumes, real)
    joined = join([_search(volumes[:1], real), _search(volumes[1:], real)])
    for other in (parts, joined):
        assert np.array_equal(other.index, whole.index)
        assert np.allclose(other.views, whole.views, atol=1e-4)


def test_scans_of_one_patient_leave_room_for_others() -> None:
    visits = [scan(0, visit) for visit in range(6)]
    real = gallery([*visits, *scans(range(1, 4))], [0] * 6 + [1, 2, 3])
    matches = _search([scan(0, 9)], real)
    named = matches.index[0][matches.index[0] >= 0]
    assert PER_PATIENT <= (named < 6).sum() <= 2 * PER_PATIENT
    assert set(named[named >= 6]) == {6, 7, 8}
    found = _margins(matches, real)
    assert found.patient.tolist() == [[0, 0]]
    assert found.margin.min() > 1.2


def test_few_a_patient_by_hand() -> None:
    score = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.1, 0.1, 0.1, NONE, NONE, 0.1]])
    marked = few_a_patient(score, np.array([7, 7, 7, 8, 9, 7]), 3)
    assert marked.tolist() == [[True, True, False, True, False, False], [True, True, False, False, False, False]]
    assert not few_a_patient(torch.full((1, 6), NONE), np.arange(6), 3).any()


def _few_by_sorting(score: torch.Tensor, patient: np.ndarray, count: int) -> torch.Tensor:
    """The rule by a sort of every whole row."""
    marked = torch.zeros_like(score, dtype=torch.bool)
    for row, ranked in enumerate(score.argsort(dim=1, descending=True, stable=True).tolist()):
        seen: dict[int, int] = {}
        for member in ranked:
            owner = int(patient[member])
            if sum(seen.values()) < count and seen.get(owner, 0) < PER_PATIENT and score[row, member] > NONE:
                marked[row, member] = True
                seen[owner] = seen.get(owner, 0) + 1
    return marked


@pytest.mark.parametrize("shortlist", [1, 8, 64])
@pytest.mark.parametrize("patients", [2, 5, 100])
def test_a_short_list_marks_what_a_sort_of_the_whole_row_does(
    shortlist: int, patients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many ties, with too few patients on the list, and with rows of which little or nothing is allowed."""
    monkeypatch.setattr("privacy.similarity.SHORTLIST", shortlist)
    generator = torch.Generator().manual_seed(patients)
    score = torch.randint(0, 9, (12, 200), generator=generator) / 10
    score[2:5, 30:] = NONE
    score[5] = NONE
    score[6] = 0.5
    patient = np.sort(np.random.default_rng(patients).integers(0, patients, 200))
    found = few_a_patient(score, patient, 6)
    assert torch.equal(found, _few_by_sorting(score, patient, 6))
    assert found.sum(1).max() == min(6, PER_PATIENT * len(np.unique(patient)))


def test_candidates_that_are_alike_come_in_the_gallerys_order() -> None:
    views = torch.tensor([[0.5, 0, 0, 0], [0.9, 0, 0, 0], [0.5, 0, 0, 0], [0.5, 0, 0, 0]])
    place = torch.full((1, 300), -1)
    place[0, [250, 7, 40, 199]] = torch.arange(4)
    found = _gather(place, views, torch.arange(4), torch.eye(4).repeat(4, 1, 1))
    assert found.index[0].tolist() == [7, 40, 199, 250, *[-1] * (CANDIDATES - 4)]
    assert found.mirror[0, :4].tolist() == [1, 2, 3, 0]


def test_the_poses_over_an_atlas_compose() -> None:
    """A gallery scan and a query that is its mirror image, moved: atlas to scan, scan to query."""
    rng = np.random.default_rng(0)
    matrices = torch.eye(4).repeat(2, 1, 1)
    matrices[:, :3] += torch.from_numpy(0.1 * rng.normal(size=(2, 3, 4))).float()
    first, second = torch.tensor([5]), torch.tensor([3])
    query = Laid(first[:, None], matrices[None, :1], torch.ones(1, 1))
    member = Laid(second[:, None], matrices[None, 1:], torch.ones(1, 1))
    mirror, pose = start_poses(query, 0, member, torch.tensor([0]), torch.tensor([0]))
    assert mirror.item() == 5 ^ 3
    # A point of the atlas, seen in the mirrored scan; undone, the scan's own point; then in the mirrored query.
    point = torch.tensor([1.0, -2.0, 0.5, 1.0])
    signs = [torch.tensor([-1.0 if on else 1.0 for on in MIRRORS[k]] + [1.0]) for k in (5, 3, 5 ^ 3)]
    in_scan = signs[1] * (matrices[1] @ point)
    in_query = signs[0] * (matrices[0] @ point)
    assert torch.allclose(pose[0] @ in_scan, signs[2] * in_query, atol=1e-5)


def test_a_gallery_of_one_has_one_candidate() -> None:
    """Its embedding tells nothing, for the mean of all scans is the scan; registration does."""
    alone = gallery([scan(1)])
    matches = _search([scan(1), scan(40)], alone)
    assert matches.index.shape == (2, CANDIDATES)
    assert matches.index[:, 0].tolist() == [0, 0]
    assert (matches.index[:, 1:] == -1).all()
    assert matches.views[0, 0, 1:].min() > 0.99
    assert matches.views[1, 0, 1:].max() < 0.8


@pytest.mark.parametrize(
    "change",
    [lambda v: v[:, ::-1], lambda v: np.roll(v, 2, 1), lambda v: ndimage.rotate(v, 9, reshape=False, order=1)],
    ids=["mirror", "roll", "turn"],
)
def test_the_coarse_search_finds_a_scan_without_an_atlas(
    real: Gallery, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    found = coarse_search(features([change(scan(k)) for k in PEOPLE]).coarse, real.features.coarse)
    assert torch.equal(found.score.argmax(1), torch.arange(8))
    own = found.score.diag()
    assert own.min() > 0.6
    assert (own - (found.score - 2 * torch.eye(8)).max(1).values).min() > 0.1


def test_the_coarse_search_names_a_mirror_image_and_a_pose(real: Gallery) -> None:
    found = coarse_search(features([scan(2)[::-1], scan(3)]).coarse, real.features.coarse)
    mirror, pose = found.poses(torch.tensor([0, 1]), torch.tensor([2, 3]))
    assert [MIRRORS[index] for index in mirror.tolist()] == [(True, False, False), (False, False, False)]
    assert torch.allclose(pose, torch.eye(4).expand(2, 4, 4))


def test_mirrored_volumes_are_searched_by_value() -> None:
    seen = features(scans(range(2)))
    turned = mirror_all(seen.intensity, torch.tensor([0, 7]))
    assert torch.equal(turned[0], seen.intensity[0])
    assert torch.equal(turned[1], seen.intensity[1].flip((1, 2, 3)))
