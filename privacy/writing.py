"""Write the two records of an audit; the release's JSON comes last, so that a killed audit leaves none."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from privacy.drawing import draw_pair
from privacy.errors import UsageError
from privacy.report import AuditReport, Findings
from privacy.words import counted

COLUMNS = (
    "file",
    "score",
    "similarity",
    "p_value",
    "flag",
    "nearest_patient",
    "nearest_scan",
    "holdout_score",
    "holdout_similarity",
    "holdout_patient",
)
RISKS = {
    "linkability": "link two halves of a scan (linkability)",
    "inference": "tell one half from the other (inference)",
    "attribute": "tell an attribute from the scan (inference)",
}
CLOSEST = 4  # pairs drawn even when nothing is flagged
MOST_DRAWN = 50
CACHE = "cache"


def write_report(report: AuditReport, findings: Findings, out: Path) -> None:
    """Write ``steward/`` and ``release/`` under `out`, in place of those of an earlier audit.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    steward, release = out / "steward", out / "release"
    try:
        for folder in (release, steward):
            _require_audit(folder)
            _empty(folder)
        _write_pairs(report, findings, steward / "pairs")
        _write(steward / "samples.csv", _table(report.samples))
        _write(steward / "report.md", steward_markdown(report))
        _write(steward / "report.json", _json(report.steward))
        _write(release / "report.md", release_markdown(report.release))
        _write(release / "report.json", _json(report.release))
    except OSError as error:
        raise UsageError(f"Cannot write the reports to {out}", found=error.strerror or str(error)) from error


def check_folders(out: Path) -> None:
    """Refuse folders that cannot hold the reports, before the work is done; nothing is written.

    Raises
    ------
    UsageError
        If they hold what an audit did not write, or cannot be written.
    """
    for folder in (out / "release", out / "steward"):
        _require_audit(folder)
    above = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"Cannot write the reports to {out}", found=f"no permission in {above}")


def _require_audit(folder: Path) -> None:
    """Refuse to replace a folder that an audit did not write."""
    ours = {"report.json", "report.md", "samples.csv", "pairs", CACHE}
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = sorted(name for name in names if name not in ours and not name.startswith("."))
    if others:
        raise UsageError(
            f"{folder} is not an earlier audit's", found=others[0], next_step="Give --out a folder of its own"
        )


def cache_folder(out: Path) -> Path:
    """Return where the embedding of the real scans is kept between audits: with the steward, for it is made of them."""
    return out / "steward" / CACHE


def _empty(folder: Path) -> None:
    """Remove an earlier audit, but not what it learned."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and path.name != CACHE:
            shutil.rmtree(path)
        elif not path.is_dir():
            path.unlink()


def release_markdown(release: dict[str, Any]) -> str:
    """Say in plain words what was measured and what follows from it; names nobody."""
    m, limits = release["measurements"], release["policy"]["thresholds"]
    return f"""# Privacy audit: {release["verdict"]}

{_bullets(release["reasons"])}

This is evidence about copying, identity and membership as far as this audit could see. It does not show that nobody
can ever be recognised.

| set | scans | patients |
|---|---|---|
| training | {release["train"]["n_scans"]} | {release["train"]["n_patients"]} |
| held out | {release["holdout"]["n_scans"]} | {release["holdout"]["n_patients"]} |
| synthetic | {release["synthetic"]["n"]} ({m["samples"]} distinct) | |

## Is a sample recognisably one training patient?

{m["identity_matches"]} of {m["samples"]} distinct samples reach tau_id, a score of 1 (95 % interval
{min(m["tau_id_lower"]):.2f} to {max(m["tau_id_upper"]):.2f}): they resemble one patient so much more than the others
they are most like that at most {limits["false_match_rate"]:.1%} of honest sets would hold one such sample. The largest
score is {m["largest_score"]:.3f}, that of held-out scans {m["largest_null_score"]:.3f}; {m["null_matches"]} of
{m["null_scans"]} of these reach tau_id. At most {m["copy_rate_upper"]:.2%} of all samples from this source match, at
{limits["confidence"]:.0%} confidence. Training matches exceed held-out ones by {m["match_excess"]:.2%} (bound
{m["match_excess_upper"]:.2%}); matches with a held-out patient: {m["holdout_matches"]}.

## Do samples resemble training more than held-out patients do?

Flagged for a look: {counted(m["flagged"], "sample")}, at a false discovery rate of {limits["fdr"]:.0%};
{m["share_above_tau_null"]:.1%} exceed tau_null = {m["tau_null"]:.3f}, which 5 % of held-out patients exceed. This
filters samples; it does not decide the verdict.

## Does the set tell who was in training?

Of the samples' nearest patients {m["member_share"][0]:.1%} were in training; {m["member_share_expected"]:.1%} are
expected by chance. Of the {m["member_share_depth"][-1]:.0%} of the samples that resemble one patient most,
{m["member_share"][-1]:.1%}. Permutation by patient, over {len(m["member_share"])} such shares:
p = {m["membership_p"]:.3g}. This test could have seen {m["membership_smallest_patients"] or "no number of"}
copied patients or more, if nothing else were in the set. Two
attacks, permuted likewise: distance (AUC {m["distance_auc"]:.2f}, p = {m["distance_p"]:.3g}) and density ratio (AUC
{m["density_auc"]:.2f}, p = {m["density_p"]:.3g}). Holm's correction is over the three.

{_risks_markdown(release)}
{_power_markdown(release)}"""


def _risks_markdown(release: dict[str, Any]) -> str:
    """Say what the samples let an attacker do to members and not to held-out patients, and what the files carry."""
    m, limits = release["measurements"], release["policy"]["thresholds"]
    rows = "\n".join(
        f"| {text} | {m[f'{key}_train_rate']:.1%} | {m[f'{key}_control_rate']:.1%} | {m[f'{key}_risk']:.1%} |"
        f" {m[f'{key}_risk_lower']:.1%} to {m[f'{key}_risk_upper']:.1%} |"
        for key, text in RISKS.items()
        if f"{key}_risk" in m
    )
    carried = [
        f"{row['severity']}: {row['what']} ({row['where']}, {counted(row['findings'], 'time')})"
        for row in release["metadata"]
    ]
    return f"""## What do the samples let an attacker do?

| attack | succeeds on members | on held-out patients | risk | bounds at {limits["risk_confidence"]:.1%} |
|---|---|---|---|---|
{rows}

## What do the files carry?

{_bullets(carried or ["nothing was found in file names, headers or voxels"])}

## What was taken for granted?

{_bullets(release["notes"] or ["nothing"])}
"""


def _power_markdown(release: dict[str, Any]) -> str:
    """Say what the audit could have seen, by which thresholds it judged, and whose methods it used."""
    power, limits = release["power"], release["policy"]["thresholds"]
    thresholds = "\n".join(f"| {key} | {value:g} |" for key, value in limits.items())
    disguises = "\n".join(f"| {name} | {value:.0%} |" for name, value in power["by_disguise"].items())
    return f"""## What could this audit have seen?

It planted {counted(power["planted"], "copy", "copies")} of training scans and found {power["found"]} by the same
search and threshold: recall {power["recall"]:.1%}, at least {power["recall_lower"]:.1%}. {_seen(release)}

| disguise | found |
|---|---|
{disguises}

Comparison: {release["space"]["method"]}; voxels of {release["space"]["voxel_mm"]:.2f} mm.

## Policy `{release["policy"]["name"]}`

| threshold | value |
|---|---|
{thresholds}

## Sources

{_bullets(release["citations"])}
"""


def _seen(release: dict[str, Any]) -> str:
    power, confidence = release["power"], release["policy"]["thresholds"]["confidence"]
    count = power["smallest_detectable_copies"]
    if not 0 < count <= release["measurements"]["samples"]:
        return f"No number of copies in a set of this size would have been seen at {confidence:.0%} confidence."
    copies = "a single such copy" if count == 1 else f"one of {count} such copies"
    return (
        f"In a set of this size {copies} or more ({power['smallest_detectable_rate']:.2%}) would have"
        f" been seen, at {confidence:.0%} confidence."
    )


def steward_markdown(report: AuditReport) -> str:
    """List the pairs by name, then what was merged and purged."""
    steward = report.steward
    rows = [row for row in report.samples if row["flag"]] or report.samples[:CLOSEST]
    lines = ["| " + " | ".join(str(row[key]) for key in COLUMNS) + " |" for row in rows]
    merged = [" = ".join(group) for group in steward["merged_patients"]]
    return "\n".join(
        [
            f"# Steward's record: {report.verdict}",
            "",
            "This record names patients and files and shows their scans. It stays home.",
            "",
            _bullets(report.reasons),
            "",
            "## Flagged samples" if any(row["flag"] for row in rows) else "## Closest samples; none is flagged",
            "",
            "`match` reaches tau_id, `holdout-match` reaches it with a held-out patient; `look` is flagged at the false"
            f" discovery rate. Pairs with training scans are drawn in `pairs/`, the first {MOST_DRAWN} at most.",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + "---|" * len(COLUMNS),
            *lines,
            "",
            "## Real scans",
            "",
            "Held-out patients that occur in training, left out: "
            + (", ".join(steward["purged_holdout_patients"]) or "none"),
            "",
            "Identifiers that are one patient: " + ("; ".join(merged) or "none"),
            "",
            "## What the files carry",
            "",
            _bullets([_carried(item) for item in steward["metadata"]] or ["nothing was found"]),
            "",
        ]
    )


def _carried(item: dict[str, str]) -> str:
    detail = f": {item['detail']}" if item["detail"] else ""
    return f"{item['sample']}, {item['where']}: {item['what']} ({item['severity']}){detail}"


def _write_pairs(report: AuditReport, findings: Findings, folder: Path) -> None:
    folder.mkdir()
    wanted = [row for row in report.samples if row["flag"]][:MOST_DRAWN]
    seen = {row["row"] for row in wanted}
    wanted += [row for row in report.samples if row["row"] not in seen and row["nearest_scan"]][
        : max(0, CLOSEST - len(wanted))
    ]
    for number, row in enumerate(wanted, 1):
        draw_pair(findings, row, folder / f"{number:03d}.png")


def _table(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, (*COLUMNS, "candidates"), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _bullets(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".part-{path.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
