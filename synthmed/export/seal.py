"""The seal of a release: checksums of every file, the statement about them, and an Ed25519 signature of each.

Two signatures by one key serve two kinds of reader: ``SHA256SUMS.sig`` is the bare signature that ``openssl`` checks,
``provenance.dsse.json`` the envelope that supply-chain tools read.

References
----------
.. [1] Dead Simple Signing Envelope v1.0, https://github.com/secure-systems-lab/dsse
.. [2] in-toto Attestation Framework, Statement v1, https://in-toto.io/Statement/v1
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from synthmed.export.findings import Finding
from synthmed.export.provenance import PREDICATE_TYPE, STATEMENT_TYPE, statement
from synthmed.export.signing import accepts, fingerprint, parse_public_key, public_pem
from synthmed.files import sha256_file, write_json, write_text

SUMS, SIGNATURE, SIGNER, PROVENANCE = "SHA256SUMS", "SHA256SUMS.sig", "signer.pub", "provenance.dsse.json"
SEAL = (PROVENANCE, SIGNER, SIGNATURE)
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def seal(release: Path, digests: Mapping[str, str], content: Mapping[str, Any], key: Ed25519PrivateKey) -> None:
    """Write ``SHA256SUMS`` over all files of a release, the statement over these, and both signatures.

    Parameters
    ----------
    release : Path
    digests : mapping of str to str
        Name in the release -> SHA-256, of everything that lies there.
    content : mapping
        The statement's predicate.
    key : Ed25519PrivateKey
    """
    write_text(release / SUMS, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))
    sums = (release / SUMS).read_bytes()
    subjects = {**digests, SUMS: sha256_file(release / SUMS)}
    write_json(release / PROVENANCE, envelope(statement(subjects, content), key))
    (release / SIGNER).write_bytes(public_pem(key.public_key()))
    (release / SIGNATURE).write_bytes(key.sign(sums))


def envelope(content: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the DSSE envelope of a statement, signed."""
    payload = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signature = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
    return {
        "payload": _encode(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": fingerprint(key.public_key()), "sig": _encode(signature)}],
    }


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature is of: ``DSSEv1 LEN(type) type LEN(payload) payload`` [1]_."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def seal_findings(
    release: Path, digests: Mapping[str, str], listed: Mapping[str, str], key: Ed25519PublicKey | None
) -> list[Finding]:
    """Check both signatures, and that the statement is about the files that the checksums list.

    Parameters
    ----------
    release : Path
    digests : mapping of str to str
        Name in the release -> SHA-256, as recomputed.
    listed : mapping of str to str
        What ``SHA256SUMS`` says.
    key : Ed25519PublicKey, optional
        The key that must have signed; without it, any key may.
    """
    missing = [name for name in SEAL if name not in digests]
    if len(missing) == len(SEAL):
        return [Finding(SIGNATURE, "is missing: the release is not signed")]
    findings = [Finding(name, "is missing") for name in missing]
    if SIGNER in missing:
        return findings
    try:
        signer = parse_public_key((release / SIGNER).read_bytes())
    except ValueError as error:
        return [*findings, Finding(SIGNER, f"cannot be used: it is {error}")]
    if key is not None and fingerprint(key) != fingerprint(signer):
        text = f"signed by another key: its fingerprint is {fingerprint(signer)}, not {fingerprint(key)}"
        findings.append(Finding(SIGNER, text))
    signed = _sums_are_signed(release, digests, signer)
    if not signed and SIGNATURE in digests:
        findings.append(Finding(SIGNATURE, f"is not a signature of {SUMS} by {SIGNER}"))
    if PROVENANCE in digests:
        # Forged checksums say nothing about what was changed; the files themselves do.
        files = listed if signed else {name: digest for name, digest in digests.items() if name not in (SUMS, *SEAL)}
        findings += _envelope_findings(release, digests, files, signer)
    return findings


def _sums_are_signed(release: Path, digests: Mapping[str, str], signer: Ed25519PublicKey) -> bool:
    if SUMS not in digests or SIGNATURE not in digests:
        return False
    return accepts(signer, (release / SIGNATURE).read_bytes(), (release / SUMS).read_bytes())


def _envelope_findings(
    release: Path, digests: Mapping[str, str], files: Mapping[str, str], signer: Ed25519PublicKey
) -> list[Finding]:
    try:
        payload = _open((release / PROVENANCE).read_text(encoding="utf-8"), signer)
        if payload is None:
            return [Finding(PROVENANCE, f"is not signed by {SIGNER}")]
        content = json.loads(payload)
        if (content["_type"], content["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            return [Finding(PROVENANCE, f"is not a {STATEMENT_TYPE} with {PREDICATE_TYPE}")]
        stated = {subject["name"]: subject["digest"]["sha256"] for subject in content["subject"]}
        records = {item["name"]: item["digest"]["sha256"] for item in content["predicate"]["runDetails"]["byproducts"]}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        return [Finding(PROVENANCE, f"cannot be read: {type(error).__name__} {' '.join(str(error).split())}")]
    expected = {**files, SUMS: digests.get(SUMS, "")}
    findings = [Finding(PROVENANCE, f"does not state {name}") for name in expected.keys() - stated.keys()]
    findings += [Finding(name, f"is missing: {PROVENANCE} states it") for name in stated.keys() - expected.keys()]
    changed = [name for name in stated.keys() & expected.keys() if stated[name] != expected[name]]
    findings += [Finding(name, f"is not the file that {PROVENANCE} states") for name in changed]
    unlike = [name for name in records if records[name] != digests.get(name)]
    return findings + [Finding(name, f"is not the record that {PROVENANCE} names") for name in unlike]


def _open(text: str, signer: Ed25519PublicKey) -> bytes | None:
    """Return the payload of an envelope, or None where `signer` has not signed it; raise where it is not one."""
    content = json.loads(text)
    payload = base64.b64decode(content["payload"], validate=True)
    encoded = pre_authentication_encoding(content["payloadType"], payload)
    signatures = [base64.b64decode(item["sig"], validate=True) for item in content["signatures"]]
    if content["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"the payload is not {PAYLOAD_TYPE}")
    return payload if any(accepts(signer, signature, encoded) for signature in signatures) else None


def signed_by(release: Path) -> str:
    """Return the fingerprint of the key beside a release; whether it signed is what `verify` says."""
    return fingerprint(parse_public_key((release / SIGNER).read_bytes()))
