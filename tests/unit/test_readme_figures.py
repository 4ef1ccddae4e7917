"""The README's table of results, typed by hand, against the cards and audits of the shipped models it tells of.

What no record in the repository holds is not compared: Dice of single structures (their mean is), ventricles against
age, and the rows of the other methods, which `benchmarks/utility.py` measures.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from synthmed.files import read_json

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "synthmed" / "weights"
MODELS = {"hippocampus-mri": 0, "brain-t1": 2}
"""Which of the four columns of figures is a model's own; the next is that of real scans."""
ROWS = {
    "autoencoder: PSNR, dB": "Autoencoder on held-out scans, PSNR in dB",
    "segmenter trained on synthetic, Dice": "Segmenter, mean Dice",
    "segmenter trained on real + synthetic": "Segmenter of real and synthetic, mean Dice",
    "KID, self-taught encoder, times the floor": "Kernel distance, self-taught encoder times the floor",
    "KID, random convolutions, times the floor": "Kernel distance, random convolutions times the floor",
    "KID, radiomics, times the floor": "Kernel distance, radiomics times the floor",
    "recall, self-taught encoder": "Recall, self-taught encoder",
    "recall, random convolutions": "Recall, random convolutions",
    "recall, radiomics": "Recall, radiomics",
    "MS-SSIM of pairs": "Likeness of pairs, MS-SSIM",
    "age asked for and age seen: correlation": "Age asked and seen, correlation",
}
"""Row of the README -> row of a card."""
ELSEWHERE = {"autoencoder: label Dice", "ventricle volume against age, mm3 a year", "audit, policy `default`"}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def table(text: str, head: str) -> dict[str, list[str]]:
    """Return the rows below a line that begins so, by their first cell."""
    lines = text[text.index(f"\n{head}") + 1 :].split("\n\n")[0].splitlines()[2:]
    return {row[0]: row[1:] for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


def card(model: str) -> dict[str, list[str]]:
    """Return a card's figures by name; what is times the floor of a distance has its name before it."""
    text = (WEIGHTS / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    rows, before = {}, ""
    for line in text.splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[f"{before} {name}" if name == "times the floor" else name] = cells
        before = name
    return rows


def audit(model: str) -> dict[str, Any]:
    record: dict[str, Any] = read_json(WEIGHTS / model / "audit" / "report.json")
    return record


def agree(said: str, recorded: str) -> bool:
    """Say whether the numbers of a cell are those of another one, rounded; an interval may be left out."""
    one, other = NUMBER.findall(said), NUMBER.findall(recorded)
    pairs = list(zip(one, other, strict=False))
    return len(pairs) == len(one) > 0 and all(abs(float(a) - float(b)) <= half(a) + half(b) + 1e-9 for a, b in pairs)


def half(number: str) -> float:
    """Return half a unit of a number's last digit, none of a whole number's."""
    decimals = len(number.partition(".")[2])
    return 0.5 * 10.0**-decimals if decimals else 0.0


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_row_has_a_source_or_is_known_to_have_none(readme: str) -> None:
    assert set(table(readme, "| held-out patients |")) == set(ROWS) | ELSEWHERE


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("model", MODELS)
def test_a_figure_is_the_card_s(readme: str, model: str, row: str) -> None:
    said = table(readme, "| held-out patients |")[row][MODELS[model] : MODELS[model] + 2]
    if not any(said):
        pytest.skip("the README gives none")
    made, real = card(model)[ROWS[row]]
    for shown, recorded in zip(said, (real, "") if row.startswith("autoencoder") else (made, real), strict=True):
        assert shown == recorded == "" or agree(shown, recorded), f"{shown} is not {recorded}"


@pytest.mark.parametrize("model", MODELS)
def test_dice_of_the_autoencoder_goes_with_the_card_s_mean(readme: str, model: str) -> None:
    said = table(readme, "| held-out patients |")["autoencoder: label Dice"][MODELS[model]]
    structures = [float(number) for number in NUMBER.findall(said)]
    assert min(structures) <= float(card(model)["Dice of labels, held-out patients"][0]) <= max(structures)


@pytest.mark.parametrize("model", MODELS)
def test_the_verdict_is_the_audit_s(readme: str, model: str) -> None:
    record = audit(model)
    assert table(readme, "| held-out patients |")["audit, policy `default`"][MODELS[model]] == record["verdict"]
    assert record["policy"]["name"] == "default"


def test_the_first_row_beside_other_methods_is_the_hippocampi_s(readme: str) -> None:
    dice, share, matches, verdict = table(readme, "| 200 volumes by |")["**synthmed**"]
    record, rows = audit("hippocampus-mri"), card("hippocampus-mri")
    measured = record["measurements"]
    assert agree(dice, rows["Segmenter, mean Dice"][0])
    assert agree(share, rows["as a share of real"][0])
    assert agree(matches, f"{measured['identity_matches']} {100 * measured['copy_rate_upper']:.1f}")
    assert (record["synthetic"]["n"], verdict) == (200, record["verdict"])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("hippocampus-mri", r"(\d+) T1 crops .{,40}, (\d+) patients, (\d+) to train on and \d+ held out"),
        ("brain-t1", r"(\d+)() IXI brains at 4 mm, (\d+) to train on"),
    ],
)
def test_the_cohorts_are_as_large_as_the_audits_say(readme: str, model: str, words: str) -> None:
    found = re.search(words, " ".join(readme.split()))
    assert found is not None
    train, holdout = audit(model)["train"], audit(model)["holdout"]
    patients = train["n_patients"] + holdout["n_patients"]
    sizes = (train["n_scans"] + holdout["n_scans"], patients, train["n_patients"])
    assert tuple(int(number or patients) for number in found.groups()) == sizes


def test_texture_gives_samples_away_as_the_cards_say(readme: str) -> None:
    found = re.search(r"\(AUC (.+?) and (.+?) on hippocampi, (.+?) and (.+?) on brains\)", readme)
    assert found is not None
    for k, model in enumerate(MODELS):
        for j, features in enumerate(("random convolutions", "radiomics")):
            assert agree(found[2 * k + j + 1], card(model)[f"Classifier's AUC, {features}"][0])


def test_what_is_off_by_a_digit_is_seen() -> None:
    assert agree("0.84 (0.22 to 2.11)", "0.845 (0.218 to 2.113)")
    assert agree("30.4 (22.3 to 39.7)", "30.354 (22.326 to 39.655)")
    assert agree("0.541", "0.541 (0.402 to 0.662)")
    assert not agree("0.61", "0.604")
    assert not agree("", "0.604")
    assert not agree("0.84 (0.22 to 2.11)", "0.845")
