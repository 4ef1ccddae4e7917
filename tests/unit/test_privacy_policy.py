"""Policies are read strictly; `judge` is pure and depends on every threshold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from privacy.errors import UsageError
from privacy.policy import BUNDLED, RANGES, RISKS, judge, load_policy, policy_from_values

CLEAN = {
    "samples": 100,
    "train_patients": 60,
    "holdout_patients": 30,
    "identity_matches": 0,
    "holdout_matches": 0,
    "copy_rate": 0.0,
    "copy_rate_upper": 0.03,
    "match_excess": 0.0,
    "match_excess_upper": 0.03,
    "membership_p": 0.4,
    "distance_p": 0.5,
    "density_p": 0.3,
    "linkability_risk": 0.0,
    "linkability_risk_lower": 0.0,
    "inference_risk": 0.0,
    "inference_risk_lower": 0.0,
    "identifying_headers": 0,
    "burned_in": 0,
    "faces": 0,
    "recall": 1.0,
    "recall_lower": 0.96,
    "least_disguise_recall": 0.9,
}
STATED = ("linkability_risk", "inference_risk")  # in a reason, where their lower bounds are too high


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_policies_explain_every_threshold(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert list(policy.thresholds) == list(RANGES)
    assert all(len(reason) > 30 for reason in policy.reasons.values())
    assert {risk for risks in policy.maps_to.values() for risk in risks} == set(RISKS)


def test_strict_is_nowhere_looser_than_default_and_default_than_research() -> None:
    loose, middle, tight = (load_policy(name).thresholds for name in ("research", "default", "strict"))
    for key in RANGES:
        if key.startswith("max_"):
            assert loose[key] >= middle[key] >= tight[key], key
        if key.startswith("min_"):
            assert loose[key] <= middle[key] <= tight[key], key


def test_digest_is_that_of_the_canonical_name_and_values() -> None:
    policy = load_policy("default")
    content = {"name": "default", "thresholds": {key: float(value) for key, value in policy.thresholds.items()}}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert policy.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert policy_from_values(policy.name, policy.thresholds).sha256 == policy.sha256


def _write(path: Path, **changes: object) -> Path:
    source = load_policy("default")
    entries = {
        key: {"value": value, "maps_to": list(source.maps_to[key]), "reason": source.reasons[key]}
        for key, value in source.thresholds.items()
    }
    content = {"name": "own", "purpose": "a test", "thresholds": entries} | changes
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _with(key: str, **changes: object) -> dict[str, object]:
    source = load_policy("default")
    entries: dict[str, object] = {
        name: {"value": value, "maps_to": ["inference"], "reason": "a reason"}
        for name, value in source.thresholds.items()
    }
    entry = entries[key]
    assert isinstance(entry, dict)
    entries[key] = entry | changes
    return entries


def test_a_file_is_read_by_path(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path / "own.yaml"))
    assert policy.name == "own"
    assert policy.thresholds == load_policy("default").thresholds
    assert policy.sha256 != load_policy("default").sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 3}, "wrong keys"),
        ({"thresholds": {"max_identity_matches": 0}}, "missing confidence"),
        ({"thresholds": _with("fdr") | {"max_copies": {}}}, "unknown max_copies"),
        ({"thresholds": _with("fdr", value=0.9)}, "fdr .* out of range"),
        ({"thresholds": _with("fdr", value="0.05")}, "fdr .* out of range"),
        ({"thresholds": _with("fdr", value=True)}, "fdr .* out of range"),
        ({"thresholds": _with("fdr", value=float("nan"))}, "fdr .* out of range"),
        ({"thresholds": _with("min_holdout_patients", value=20.5)}, "whole number"),
        ({"thresholds": _with("fdr", maps_to=["gossip"])}, "unknown risk"),
        ({"thresholds": _with("fdr", reason=" ")}, "no reason"),
        ({"thresholds": _with("fdr", note="x")}, "malformed"),
        ({"name": "strict"}, "bundled policy 'strict'"),
        ({"name": 3}, "malformed"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_policy(_write(tmp_path / "own.yaml", **changes))


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b\n", "", "\x00"])
def test_files_that_are_no_policy_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        load_policy(tmp_path / "own.yaml")


def test_a_missing_policy_names_the_bundled_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="default, research, strict"):
        load_policy(tmp_path / "none.yaml")


def test_a_clean_set_passes_with_what_was_shown() -> None:
    verdict, reasons = judge(CLEAN, load_policy("default"))
    assert verdict == "PASS"
    assert "0 identity matches in 100 distinct samples" in reasons[0]
    assert "smallest p of 3 tests of membership 0.9 after Holm's correction (limit 0.01)" in reasons[0]
    assert "; no risk of linkability or inference shown;" in reasons[0]
    assert "anonym" not in reasons[0]
    assert "No evidence" not in reasons[0]


@pytest.mark.parametrize(
    ("p", "said"),
    [(0.0127, "0.038 after Holm's correction, a weak sign of"), (0.017, "0.051 after Holm's correction (")],
)
def test_a_small_p_that_passes_is_called_a_weak_sign(p: float, said: str) -> None:
    verdict, reasons = judge(CLEAN | {"distance_p": p}, load_policy("default"))
    assert (verdict, len(reasons)) == ("PASS", 1)
    assert said in reasons[0]
    assert "(limit 0.01)" in reasons[0]


def test_a_pass_says_what_a_loose_policy_let_through(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path / "own.yaml", thresholds=_with("max_inference_risk", value=0.5)))
    changes = {"inference_risk": 0.3, "inference_risk_lower": 0.1, "attribute_risk": 0.3, "attribute_risk_lower": 0.2}
    [reason] = judge(CLEAN | changes, policy)[1]
    assert "risk of linkability and inference at least 20.0%;" in reason


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"identity_matches": 1, "copy_rate": 0.01}, "FAIL", "1 of 100 distinct samples"),
        ({"holdout_matches": 1}, "FAIL", "match one held-out patient"),
        ({"membership_p": 0.003}, "FAIL", "permutation p = 0.009 over 3 tests"),
        ({"distance_p": 0.0032}, "FAIL", "permutation p = 0.0096 over 3 tests"),
        ({"density_p": 0.0001}, "FAIL", "permutation p = 0.0003 over 3 tests"),
        ({"linkability_risk": 0.2, "linkability_risk_lower": 0.01}, "FAIL", "risk 20.0%, at least 1.0%"),
        ({"inference_risk": 0.3, "inference_risk_lower": 0.02}, "FAIL", "tells the other through the samples"),
        ({"attribute_risk": 0.3, "attribute_risk_lower": 0.02}, "FAIL", "tells an attribute"),
        ({"identifying_headers": 1}, "FAIL", "1 finding in headers or names"),
        ({"burned_in": 2}, "FAIL", "2 samples with what seems to be text burned"),
        ({"faces": 1}, "FAIL", "1 sample with a whole head"),
        ({"copy_rate": 0.06}, "FAIL", "6.0% of the samples match"),
        ({"match_excess": 0.06}, "FAIL", "exceeds that to held-out patients by 6.0%"),
        ({"holdout_patients": 5}, "INCONCLUSIVE", "Only 5 held-out patients; the policy needs 20"),
        ({"train_patients": 19}, "INCONCLUSIVE", "Only 19 training patients"),
        ({"samples": 1, "copy_rate_upper": 0.95}, "INCONCLUSIVE", "With 1 distinct sample, up to 95.0% of all"),
        ({"match_excess_upper": 0.051}, "INCONCLUSIVE", "more matches to training"),
        ({"recall": 0.9, "recall_lower": 0.82}, "INCONCLUSIVE", "a lower bound of 0.820"),
        ({"least_disguise_recall": 0.4}, "INCONCLUSIVE", "Under one disguise it found 40% of them"),
    ],
)
def test_each_threshold_decides(changes: dict[str, float], verdict: str, words: str) -> None:
    found, reasons = judge(CLEAN | changes, load_policy("default"))
    assert found == verdict
    assert len(reasons) == 1
    assert words in reasons[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"membership_p": 0.0034, "distance_p": 0.0034, "density_p": 0.0034},  # times three is above 0.01
        {"linkability_risk": 0.2},
        {"inference_risk": 0.2},
        {"attribute_risk": 0.2, "attribute_risk_lower": 0.0},
        {"least_disguise_recall": 0.5},
    ],
)
def test_what_stays_within_its_threshold_passes(changes: dict[str, float]) -> None:
    assert judge(CLEAN | changes, load_policy("default"))[0] == "PASS"


@pytest.mark.parametrize("key", ["identity_matches", "identifying_headers", "burned_in", "faces"])
def test_an_own_policy_may_allow_a_count(tmp_path: Path, key: str) -> None:
    policy = load_policy(_write(tmp_path / "own.yaml", thresholds=_with(f"max_{key}", value=2)))
    assert [judge(CLEAN | {key: count}, policy)[0] for count in (2, 3)] == ["PASS", "FAIL"]


def test_an_attribute_risk_needs_both_its_numbers() -> None:
    with pytest.raises(UsageError, match="attribute_risk_lower"):
        judge(CLEAN | {"attribute_risk": 0.1}, load_policy("default"))


def test_evidence_of_a_leak_outweighs_missing_power() -> None:
    verdict, _ = judge(
        CLEAN | {"identity_matches": 1, "holdout_patients": 5, "recall_lower": 0.1}, load_policy("default")
    )
    assert verdict == "FAIL"


@pytest.mark.parametrize("value", [None, "0", True, float("nan"), float("inf")])
@pytest.mark.parametrize("key", sorted(CLEAN))
def test_a_measurement_that_is_no_number_is_refused(key: str, value: object) -> None:
    high = {f"{key}_lower": 0.1} if key in STATED else {}
    with pytest.raises(UsageError, match=key):
        judge(CLEAN | high | {key: value}, load_policy("default"))


def test_judge_changes_nothing() -> None:
    measurements = dict(CLEAN)
    judge(measurements, load_policy("strict"))
    assert measurements == CLEAN
