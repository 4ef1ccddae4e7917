"""The verb that sends a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app
from synthmed.cli.common import Quiet, say
from synthmed.words import counted


@app.command()
def send(
    release: Annotated[Path, typer.Argument(help="The directory of a release with DICOM.")],
    to: Annotated[str, typer.Option("--to", help="dicom://AET@host:port, dicoms://..., or https://host/dicom-web.")],
    key: Annotated[Path | None, typer.Option("--key", help="The public key that must have signed it.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt a dicom:// connection.")] = False,
    ca: Annotated[Path | None, typer.Option("--ca", help="Trust this authority (PEM), not the system's.")] = None,
    cert: Annotated[Path | None, typer.Option("--cert", help="Our certificate (PEM), if the server asks.")] = None,
    client_key: Annotated[Path | None, typer.Option("--client-key", help="The key of --cert (PEM).")] = None,
    calling_aet: Annotated[str, typer.Option("--calling-aet", help="Our own title.")] = "SYNTHMED",
    retries: Annotated[int, typer.Option("--retries", min=0, max=100, help="Tries after a failure.")] = 4,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds of silence that are a failure.")] = 30.0,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Where progress is kept [default: beside the release].")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> Answer:
    """Send a verified release to a PACS or a DICOMweb service.

    Afterwards the server is asked what it holds: exit code 0 means that it is exactly the release. A broken or
    interrupted sending goes on with the same command. A user and password for https are read from
    SYNTHMED_SEND_USER and SYNTHMED_SEND_PASSWORD, or from ~/.netrc.

    Example: synthmed send runs/hippocampus_mri/export/release --to dicom://ORTHANC@localhost:4242
    """
    from synthmed.export import require_release, verify
    from synthmed.send import Certificates, Patience, parse_target
    from synthmed.send import send as send_release

    target = parse_target(to, tls=tls)
    require_release(release)
    done = send_release(
        release,
        target,
        certificates=Certificates(ca, cert, client_key),
        calling=calling_aet,
        patience=Patience(retries, timeout),
        journal=journal,
        progress=not quiet,
        say=say(quiet),
        key=key,
        check=verify,
    )
    remarks = "".join(f"{counted(times, 'file')} {remark}\n" for remark, times in sorted(done.remarks.items()))
    text = (
        f"{remarks}{counted(done.sent, 'file')} sent to {target}, {done.before} before. The server holds "
        f"{done.stored} of {done.sent + done.before}, in {done.series} series. Journal: {done.journal}"
    )
    counts = {name: getattr(done, name) for name in ("sent", "before", "stored", "series")}
    result = {"target": str(target), **counts, "remarks": dict(done.remarks), "journal": str(done.journal)}
    return Answer("send", result, text, json)
