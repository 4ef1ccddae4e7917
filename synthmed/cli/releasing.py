"""The verbs that make a release, check one, and make the key that signs it."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app
from synthmed.cli.common import Quiet, RunDir, Set, Target, stages
from synthmed.words import counted

Formats = Annotated[list[str] | None, typer.Option("--format", help="nifti, dicom or bids; repeatable.")]
Enhanced = Annotated[
    bool | None, typer.Option("--enhanced/--classic", help="DICOM: one multi-frame file a series, or one a slice.")
]
Compression = Annotated[
    str | None, typer.Option(help="DICOM: none, rle, jpeg-ls, jpeg-2000 or htj2k; all lossless.", show_default=False)
]
Key = Annotated[Path | None, typer.Option("--key", help="The private key that signs [default: in ~/.config/synthmed].")]
Validate = Annotated[
    bool | None,
    typer.Option("--validate/--no-validate", help="Run the validators that are installed; keep what they say."),
]
DICOM_DEFAULTS = ("export.enhanced=false", "export.compression=none")


@app.command()
def export(
    target: Target,
    formats: Formats = None,
    enhanced: Enhanced = None,
    compression: Compression = None,
    key: Key = None,
    validate: Validate = None,
    run_dir: RunDir = None,
    set_: Set = None,
    quiet: Quiet = False,
    json: Json = False,
) -> Answer:
    """Write and sign the release, if the audit passed.

    The audit must be of these very bytes; otherwise nothing is written.

    Options are remembered in the run's config.yaml and hold for the next export too. These take them back:
    --classic, --compression none, --no-validate, --set export.key=null. Naming each --format anew, without
    dicom, takes back those of DICOM.

    Example: synthmed export runs/hippocampus_mri --format nifti --format dicom
    """
    from synthmed.errors import ConfigError
    from synthmed.export import EXPORTERS, signed_by
    from synthmed.export.signing import at_home

    if unknown := [name for name in formats or () if name not in EXPORTERS]:
        raise ConfigError(f"There is no format {unknown[0]} for --format", expected="nifti, dicom or bids")
    options = {
        "formats": formats or None,
        "enhanced": enhanced,
        "compression": compression,
        "key": str(at_home(key).absolute()) if key is not None else None,
        "validate_with_tools": validate,
    }
    asked = [f"export.{name}={json_text.dumps(value)}" for name, value in options.items() if value is not None]
    forgotten = DICOM_DEFAULTS if formats and "dicom" not in formats else ()
    run = stages(target, run_dir, [*forgotten, *(set_ or ()), *asked], quiet, "export")
    release = run.stage("export") / "release"
    signer = signed_by(release)
    result = {"release": str(release), "formats": list(run.config.export.formats), "signer": signer}
    text = f"Release: {release}, signed by the key with SHA-256 {signer}.\nCheck it: synthmed verify {release}"
    return Answer("export", result, text, json)


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="The directory of a release.")],
    key: Annotated[Path | None, typer.Option("--key", help="The public key that must have signed it.")] = None,
    json: Json = False,
) -> Answer:
    """Check that a release is what was approved and signed.

    Recomputes checksums, signatures, the gate's decision and the marks of synthetic data.

    Example: synthmed verify runs/hippocampus_mri/export/release --key signing-key.pub
    """
    from dataclasses import asdict

    from synthmed.errors import VerificationFailed
    from synthmed.export import require_release, signed_by
    from synthmed.export import verify as findings_of
    from synthmed.export.signing import at_home

    require_release(release)
    findings = findings_of(release, at_home(key) if key else None)
    if findings:
        count = counted(len(findings), "finding")
        failure = VerificationFailed(f"{release} does not verify: {count}, listed on stdout")
        typer.echo(f"synthmed: {failure}", err=True)
        result = {"verifies": False, "findings": [asdict(finding) for finding in findings], "signer": None}
        return Answer("verify", result, "\n".join(map(str, findings)), json, failure.exit_code)
    signer = signed_by(release)
    known = f"which is the one in {key}" if key else "and says who that was only if you know this key: name it by --key"
    text = f"{release} verifies: every file is as it was approved and signed.\n"
    text += f"The signature is by the key with SHA-256 {signer}, {known}."
    return Answer("verify", {"verifies": True, "findings": [], "signer": signer}, text, json)


@app.command()
def keygen(
    path: Annotated[
        Path | None, typer.Argument(help="The private key to write [default: in ~/.config/synthmed].")
    ] = None,
    json: Json = False,
) -> Answer:
    """Make an Ed25519 key that signs releases.

    Its owner alone can read it; the public key is written beside it. A folder that is not there is made. Nothing
    is overwritten. With a password in the environment variable SYNTHMED_KEY_PASSWORD it is encrypted, and each
    export needs the variable.

    Example: synthmed keygen keys/hospital.pem
    """
    from synthmed.export.signing import at_home, default_key, fingerprint, load_public_key, make_key

    file = at_home(path) if path else default_key()
    known = file.parent.is_dir()
    public = make_key(file)
    digest = fingerprint(load_public_key(public))
    text = (
        f"Signing key: {file} (keep it secret, and a copy of it safe)\n"
        f"Public key:  {public} (give it to whoever verifies: synthmed verify RELEASE --key {public.name})\n"
        f"SHA-256:     {digest}"
    )
    if not known:
        text += f"\nThe folder {file.parent} was not there and was made, open to you alone."
    return Answer("keygen", {"private_key": str(file), "public_key": str(public), "sha256": digest}, text, json)
