"""Where a release comes from: an in-toto statement over its files, which `seal` signs.

The statement names the models, the settings, the audit and the software. It holds no digest of a patient's file:
whoever has a scan could compare, and learn that its patient was in the cohort. For the same reason the settings are
those in `CONFIGURATION` alone, in which no path and no name of a cohort occurs. There is no time in it either: the
same input and the same key give the same bytes.

References
----------
.. [1] in-toto Attestation Framework, Statement v1, https://in-toto.io/Statement/v1
.. [2] SLSA Provenance v1, https://slsa.dev/provenance/v1
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from synthmed import __version__
from synthmed.config import UNRECORDED, Config
from synthmed.export.approval import ReleaseApproval
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.samples import FACTS
from synthmed.files import sha256_file

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE, BUILDER = "urn:synthmed:release:1", "urn:synthmed:export"
RELEASED = {"formats", "enhanced", "compression", "title", "license", "source_statement"}
# Section -> keys; None: all of them. What is not named here stays home.
CONFIGURATION: dict[str, set[str] | None] = {
    "cohort": {"format", "holdout_fraction", "modality"},
    "preprocess": None,
    "conditioning": None,
    "autoencoder": None,
    "autoencoder_training": None,
    "denoiser": None,
    "diffusion": None,
    "denoiser_training": None,
    "sampling": None,
    "evaluation": None,
    "export": RELEASED,
}


def predicate(cohort: ApprovedCohort, configuration: Mapping[str, Any], release: Path) -> dict[str, Any]:
    """Return the SLSA provenance of a release.

    ``externalParameters`` are the settings and the policy, ``resolvedDependencies`` the models, the policy and the
    generated set as it was audited, ``byproducts`` the records of audit and gate.

    Parameters
    ----------
    cohort : ApprovedCohort
    configuration : mapping
        What `public_configuration` returned.
    release : Path
        Its ``audit/`` must be written.
    """
    approval = cohort.approval
    policy = {"name": str(approval.policy["name"]), "sha256": str(approval.policy["sha256"])}
    records = sorted(p.relative_to(release).as_posix() for p in (release / "audit").iterdir())
    versions = {"synthmed": __version__, **{name: metadata.version(name) for name in ("torch", "monai")}}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configuration": dict(configuration), "policy": policy},
            "internalParameters": {},
            "resolvedDependencies": [
                *_models(cohort),
                _resource(f"policy {policy['name']}", policy["sha256"]),
                *_generated(approval),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": versions},
            "byproducts": [_resource(name, sha256_file(release / name)) for name in records],
        },
    }


def public_configuration(config: Config) -> dict[str, Any]:
    """Return the settings of a run that a release may state: those that hold no path and no name of a cohort."""
    content = config.model_dump(mode="json", exclude=UNRECORDED)
    settings = {
        section: {key: value for key, value in content[section].items() if keys is None or key in keys}
        for section, keys in CONFIGURATION.items()
    }
    return {"seed": config.seed, **settings}


def _models(cohort: ApprovedCohort) -> list[dict[str, Any]]:
    facts = cohort.description.facts
    return [_resource(name, facts[FACTS[name]]) for name in ("autoencoder", "denoiser") if FACTS[name] in facts]


def _generated(approval: ReleaseApproval) -> list[dict[str, Any]]:
    records = [_resource(name, approval.records[name]) for name in ("generation.json", "samples.csv")]
    images = [_resource(f"images/{name}.nii.gz", digest) for name, digest in sorted(approval.images.items())]
    return records + images + [_resource(f"labels/{n}.nii.gz", digest) for n, digest in sorted(approval.labels.items())]


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def statement(subjects: Mapping[str, str], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the in-toto statement that `content` holds for the files in `subjects` (name -> SHA-256)."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [_resource(name, subjects[name]) for name in sorted(subjects)],
        "predicateType": PREDICATE_TYPE,
        "predicate": dict(content),
    }
