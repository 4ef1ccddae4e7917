"""What a bundle is made from: a run's models, and the approval of the samples that these very models drew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthmed.config import ExportConfig, SamplingConfig
from synthmed.errors import ReleaseRefused
from synthmed.export.approval import ReleaseApproval, approve
from synthmed.files import GENERATION, read_json
from synthmed.models.checkpoint import RECORD, LoadedAutoencoder, LoadedDenoiser, load_autoencoder, load_denoiser
from synthmed.stages import Run


@dataclass(frozen=True)
class ApprovedModel:
    """A trained model whose samples passed the audit; `open_model` is what makes one.

    Attributes
    ----------
    autoencoder : LoadedAutoencoder
    denoiser : LoadedDenoiser
    autoencoder_record, denoiser_record : mapping
        Their ``model.json``.
    sampling : SamplingConfig
        How the audited samples were drawn.
    seed : int
        Of the audited samples.
    approval : ReleaseApproval
    audit : mapping of str to bytes
        ``report.json`` and ``report.md``, as approved.
    config : ExportConfig
        Title, licence and statement of source.
    """

    autoencoder: LoadedAutoencoder
    denoiser: LoadedDenoiser
    autoencoder_record: Mapping[str, Any]
    denoiser_record: Mapping[str, Any]
    sampling: SamplingConfig
    seed: int
    approval: ReleaseApproval
    audit: Mapping[str, bytes]
    config: ExportConfig

    @property
    def audited(self) -> int:
        """Number of samples that were audited."""
        return len(self.approval.images)


def open_model(run: Run) -> ApprovedModel:
    """Read a run's models, and hold them against the audit of its samples.

    Raises
    ------
    ReleaseRefused
        If there is no audit, its verdict is not PASS, or the audited samples are not of these models.
    AuditInconclusive
        If the audit was too weak to judge.
    InputError
        If a file cannot be read or used.
    """
    samples, audit = run.stage("generate"), run.stage("audit") / "release"
    if not (audit / "report.json").is_file():
        raise ReleaseRefused(
            f"A model leaves only after an audit of its samples, and {run.root} has none",
            next_step="Run `synthmed audit` first",
        )
    approval = approve(samples, audit / "report.json", run.config.audit.policy)
    generation = json.loads(approval.read_bound(samples / GENERATION, approval.records[GENERATION]))
    folders = {name: run.stage(name) for name in ("autoencoder", "denoiser")}
    autoencoder, denoiser = load_autoencoder(folders["autoencoder"]), load_denoiser(folders["denoiser"])
    for name, model in (("autoencoder", autoencoder), ("denoiser", denoiser)):
        _check_origin(name, model.digest, generation.get(name), run.root)
    return ApprovedModel(
        autoencoder,
        denoiser,
        read_json(folders["autoencoder"] / RECORD),
        read_json(folders["denoiser"] / RECORD),
        SamplingConfig(**{key: generation[key] for key in SamplingConfig.model_fields if key in generation}),
        int(generation["seed"]),
        approval,
        {name: approval.read_bound(audit / name, approval.records[name]) for name in ("report.json", "report.md")},
        run.config.export,
    )


def _check_origin(name: str, digest: str, audited: object, root: Path) -> None:
    if digest != audited:
        raise ReleaseRefused(
            f"The samples that were audited are not of this {name}",
            found=f"SHA-256 {digest[:12]}...",
            expected=f"{str(audited)[:12]}...",
            next_step=f"Run `synthmed audit {root}`",
        )
