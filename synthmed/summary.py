"""What a run made, in plain words: the last thing that a person reads in the terminal."""

from __future__ import annotations

from typing import Any

from synthmed.files import read_json
from synthmed.models.checkpoint import RECORD
from synthmed.pipeline import stage_costs
from synthmed.stages import Run
from synthmed.words import counted


def summarise(run: Run) -> str:
    """Say what a finished run made, what the audit found, what it cost and where to look.

    Returns
    -------
    str
        Several lines for a terminal.
    """
    from synthmed.evaluation import format_evaluation

    report = read_json(run.stage("audit") / "release" / "report.json")
    release = run.stage("export") / "release"
    return "\n".join(
        [
            "",
            f"Made {counted(report['synthetic']['n'], 'synthetic volume')} from "
            f"{counted(report['train']['n_patients'], 'training patient')}; held out to judge them: "
            f"{counted(report['holdout']['n_patients'], 'other patient')}.",
            f"The audit (policy {report['policy']['name']}): {report['verdict']}. " + " ".join(report["reasons"]),
            "",
            format_evaluation(read_json(run.stage("evaluate") / "evaluation.json")),
            "",
            _format_costs(run),
            f"  Release:       {release}  (signed; check it: synthmed verify {release})",
            f"  Audit:         {run.stage('audit') / 'steward' / 'report.md'}  (names patients: stays home)",
            f"  Look at them:  {release / 'audit' / 'report.html'}  (one page, for any browser)",
        ]
    )


def facts(run: Run) -> dict[str, Any]:
    """Return what `summarise` says, for another program: verdict, what was measured, costs, paths."""
    report = read_json(run.stage("audit") / "release" / "report.json")
    return {
        "directory": str(run.root),
        "volumes": report["synthetic"]["n"],
        "train_patients": report["train"]["n_patients"],
        "holdout_patients": report["holdout"]["n_patients"],
        "policy": report["policy"]["name"],
        "verdict": report["verdict"],
        "reasons": report["reasons"],
        "evaluation": read_json(run.stage("evaluate") / "evaluation.json"),
        "stages": _costs(run),
        "release": str(run.stage("export") / "release"),
    }


def training_facts(run: Run) -> dict[str, Any]:
    """Return how far each network was trained and what was measured of it, for another program."""
    models = {name: read_json(run.stage(name) / RECORD) for name in ("autoencoder", "denoiser")}
    trained = {name: {key: model[key] for key in ("steps", "measurements")} for name, model in models.items()}
    return {"directory": str(run.root), "stages": _costs(run)} | trained


def _costs(run: Run) -> dict[str, dict[str, float]]:
    return {name: {"seconds": s, "peak_memory_mib": mib} for name, (s, mib) in stage_costs(run).items()}


def _format_costs(run: Run) -> str:
    costs = stage_costs(run)
    total = sum(seconds for seconds, _ in costs.values())
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, (seconds, _) in costs.items())
    peak = max(memory for _, memory in costs.values())
    return f"  Took {total:.0f} s ({parts}); peak memory {peak} MiB."
