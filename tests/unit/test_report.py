"""The page as a parser reads it: what it says, what it allows, and what it must never hold."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from report_pages import AUDIT, EVALUATION, LOG, Page, embedded, facts, volumes

from synthmed.report import render_report
from synthmed.report.charts import STRIP_WIDTH, strip, ticks
from synthmed.report.verdict import is_met


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(facts())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_same_facts_give_the_same_page(html: str) -> None:
    assert render_report(facts()) == html


def test_elements_nest_and_no_identifier_occurs_twice(page: Page) -> None:
    assert page.open == []
    names = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(names) == len(set(names)) > 20
    anchors = {(attributes["href"] or "").removeprefix("#") for _, attributes, _ in page.of("a")}
    assert anchors <= set(names)
    pointed = {attributes["for"] for _, attributes, _ in page.elements if "for" in attributes}
    assert pointed <= set(names)


def test_the_policy_allows_this_style_and_this_script_alone(page: Page) -> None:
    [meta] = [a for _, a, _ in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    policy = dict(part.strip().split(" ", 1) for part in (meta["content"] or "").split(";"))
    style = page.text("style").encode()
    [script] = [said.encode() for _, attributes, said in page.of("script") if "type" not in attributes]
    hashed = {
        k: base64.b64encode(hashlib.sha256(v).digest()).decode() for k, v in (("style", style), ("script", script))
    }
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashed['script']}'",
        "style-src": f"'sha256-{hashed['style']}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_points_outside(html: str, page: Page) -> None:
    for _, attributes, _ in page.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\(|@import|https?://|//[a-z0-9-]+\.", html.replace("data:image/png", ""))


def test_text_cannot_become_markup(html: str, page: Page) -> None:
    assert page.text("h1") == "Synthetic <phantoms>"
    assert "alert(1)" in page.text("section", id="verdict")
    assert [attributes.get("type") for _, attributes, _ in page.of("script")] == ["application/json", None]
    assert "right </script>" in page.text("script", id="previews").encode().decode("unicode_escape")
    assert html.count("</script>") == 2


def test_the_verdict_says_what_it_rests_on(page: Page) -> None:
    said = page.text("section", id="verdict")
    for words in (
        "PASS",
        "The policy lets the set leave",
        "70 scans of 60 patients",
        "44 scans of 40 other",
        "found 135",
        "not proof",
    ):
        assert words in said
    [met, unmet] = [text for _, attributes, text in page.of("span") if attributes.get("class") in ("met", "unmet")]
    assert (met, unmet) == ("yes", "no")


def test_what_held_out_patients_decided_is_said_and_not_that_the_model_never_saw_them(page: Page) -> None:
    for part in ("verdict", "training"):
        assert re.search(
            "when training (stopped|ends) and which weights (were|are) kept", page.text("section", id=part)
        )
    assert "never saw" not in page.text("main")


@pytest.mark.parametrize(
    ("verdict", "words", "kind"),
    [("FAIL", "must not leave", "badge fail"), ("INCONCLUSIVE", "too weak", "badge unsure")],
)
def test_a_refusal_is_said_as_one(verdict: str, words: str, kind: str) -> None:
    page = Page(render_report(facts(audit=AUDIT | {"verdict": verdict})))
    assert words in page.text("section", id="verdict")
    assert verdict in page.text("p", **{"class": kind})
    assert "may be a copy of a patient's scan" in page.text("header")
    assert "scan of a person" not in page.text("main")


def test_the_audit_shows_scores_power_and_risks(page: Page) -> None:
    said = page.text("section", id="audit")
    for words in (
        "0.45",
        "Mixture",
        "50.0\N{NO-BREAK SPACE}%",
        "0.520 (0.440 to 0.600)",
        "one of 2 copies",
        "only images/",
        "a date",
    ):
        assert words in said
    assert "0.0200 (0.00 to 0.0900)" in said


def test_the_audit_s_scores_are_drawn_as_distributions(page: Page) -> None:
    titles = {"How near each set comes to training patients", "Which patients the synthetic volumes are nearer to"}
    assert titles <= {a.get("aria-label") for _, a, _ in page.of("svg")}
    assert "training patients, to one another" in page.text("section", id="audit")


def test_an_older_record_without_distributions_still_makes_a_page() -> None:
    older = {key: value for key, value in AUDIT.items() if key != "scores"}
    labels = [a.get("aria-label") for _, a, _ in Page(render_report(facts(audit=older))).of("svg")]
    assert not any("nearer to" in (label or "") for label in labels)


def test_figures_stand_beside_what_real_scans_give(page: Page) -> None:
    said = page.text("section", id="quality")
    for words in (
        "synthetic alone, 12 scans",
        "real and synthetic, 12 scans",
        "Dice with few real patients",
        "Correlation 0.500 (0.400 to 0.600)",
        "Recall: real cases among synthetic ones",
        "Intensities would have to move by 0.500",
        "flatness",
        "Times the floor",
        "0.500 (0.400 to 0.600)",
        "0.123 (0.100 to 0.200)",
        "25.0\N{NO-BREAK SPACE}%",
        "PSNR",
    ):
        assert words in said


def test_the_gap_of_training_is_named(page: Page) -> None:
    assert "memorisation gap 0.1 (+25.0 %)" in page.text("section", id="training")
    assert len(page.of("polygon", **{"class": "gap"})) == 2


def test_the_step_whose_weights_were_kept_is_named_where_it_is_not_the_last() -> None:
    worse = {"step": "300", "loss": "0.4", "train_loss": "0.2", "holdout_loss": "0.9"}
    said = Page(render_report(facts(training={"denoiser": [*LOG, worse]}))).text("section", id="training")
    assert "The weights that were kept are of step 200, of lowest held-out loss: 0.5, training 0.4, gap 0.1." in said
    assert "weights that were kept" not in Page(render_report(facts())).text("section", id="training")


def test_volumes_that_nobody_audited_are_not_called_harmless() -> None:
    page = Page(render_report(facts(audit=None, audit_rows=())))
    assert "may be a copy of a patient's scan" in page.text("header")
    assert "scan of a person" not in page.text("body")
    cleared = Page(render_report(facts()))
    assert "No scan of a person" in cleared.text("header")
    assert "None is a scan of a person" in cleared.text("section", id="volumes")


def test_settings_versions_digests_and_sources_are_there(page: Page) -> None:
    said = page.text("section", id="source")
    for words in ("sampling.steps", "1, 2", "dpmpp_2m", "0.1.0", "ab" * 32, "Holm 1979"):
        assert words in said


def test_every_volume_is_there_twice(page: Page) -> None:
    found = embedded(page)
    assert [name for name, _, _ in found] == [p.name for p in volumes()]
    for (_, _, label), p in zip(found, volumes(), strict=True):
        assert label is not None
        assert (label == p.label).all()
    assert found[0][1].mean() < found[1][1].mean() < found[2][1].mean()
    [image] = page.of("img")
    assert base64.b64decode((image[1]["src"] or "").split(",")[1])[:4] == b"\x89PNG"


@pytest.mark.parametrize("missing", ["audit", "evaluation"])
def test_a_part_that_is_not_there_is_said_to_be_missing(missing: str) -> None:
    page = Page(render_report(facts(**{missing: None}, audit_rows=())))
    name, words = {"audit": ("verdict", "must not leave"), "evaluation": ("quality", "Neither was measured")}[missing]
    assert words in page.text("section", id=name)


def test_a_page_of_nothing_is_a_page() -> None:
    page = Page(render_report(facts(audit=None, audit_rows=(), evaluation=None, training={}, previews=(), settings={},
                                    versions={}, digests={})))  # fmt: skip
    assert "There is no volume to show yet" in page.text("section", id="volumes")
    assert page.of("img") == []


def test_records_of_an_older_audit_are_shown_as_far_as_they_go() -> None:
    old = {
        "schema": "privacy-audit/1",
        "verdict": "PASS",
        "reasons": [],
        "measurements": {"tau_null": 0.2, "tau_id": 0.6},
    }
    said = Page(render_report(facts(audit=old, audit_rows=()))).text("section", id="audit")
    assert "recognisably" not in said


def test_utility_that_was_not_measured_says_why() -> None:
    result = EVALUATION | {"utility": {"measured": False, "reason": "no labels"}}
    assert "Not measured: no labels." in Page(render_report(facts(evaluation=result))).text("section", id="quality")


def test_real_scans_are_on_the_steward_s_page_alone_and_it_says_so() -> None:
    png = b"\x89PNG a real scan"
    held = base64.b64encode(png).decode()
    assert held not in render_report(facts())
    page = Page(render_report(facts(pairs=[png])))
    assert [a["src"] for _, a, _ in page.of("img") if a.get("class") == "pair"] == [f"data:image/png;base64,{held}"]
    assert "real patients" in page.text("header")
    assert "No scan of a person" not in page.text("header")


@pytest.mark.parametrize(
    ("found", "allowed", "met"),
    [("0", "at most 0", True), ("0.051", "at most 0.05", False), ("0.9", "at least 0.9", True),
     ("19", "at least 20", False), ("-", "at most 1", None), ("1", "about 1", None)],
)  # fmt: skip
def test_a_figure_meets_its_limit_or_not(found: str, allowed: str, met: bool | None) -> None:
    assert is_met(found, allowed) is met


def test_a_strip_places_its_value_between_the_ends() -> None:
    drawn = strip(0.0, 0.25, 0.5, (0.0, 1.0), mark=1.0).html
    inside = STRIP_WIDTH - 12
    assert f'cx="{6 + 0.25 * inside:.1f}"' in drawn
    assert f'x1="{6 + inside:.1f}" x2="{6 + inside:.1f}"' in drawn


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (100.0, 350.0, [100.0, 150.0, 200.0, 250.0, 300.0, 350.0]),
        (2.0, 2.0, [2.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected
