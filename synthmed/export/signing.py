"""Ed25519 keys: made with safe permissions, read only if nobody else can read them, and named by their fingerprint.

A private key is PKCS8 in PEM, its public key SubjectPublicKeyInfo in PEM; both are what ``openssl`` reads and writes.

References
----------
.. [1] S. Josefsson, I. Liusvaara, "Edwards-Curve Digital Signature Algorithm (EdDSA)", RFC 8032 (2017).
.. [2] S. Josefsson, J. Schaad, "Algorithm Identifiers for Ed25519 [...]", RFC 8410 (2018).
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from synthmed.errors import ConfigError, StorageError
from synthmed.files import storage_errors, write_text

PASSWORD = "SYNTHMED_KEY_PASSWORD"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_key() -> Path:
    """Return where the signing key lies when none is named: ``$XDG_CONFIG_HOME/synthmed/signing-key.pem``."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        root = Path(configured) if Path(configured).is_absolute() else Path.home() / ".config"
    except RuntimeError as error:
        raise ConfigError("There is no home directory for the signing key", next_step="Name a key: --key") from error
    return root / "synthmed" / "signing-key.pem"


def at_home(path: Path) -> Path:
    """Return a path with ``~`` made the home directory; raise `ConfigError` where there is none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"There is no home directory for {path}", next_step="Write the path in full") from error


def signing_key(path: Path | None, say: Callable[[str], None]) -> Ed25519PrivateKey:
    """Return the key at `path`, or the default one, which is made if there is none yet.

    Parameters
    ----------
    path : Path, optional
    say : callable
        Receives one line if a key is made.

    Raises
    ------
    ConfigError
        If the key cannot be used.
    StorageError
        If the default key cannot be written.
    """
    if path is not None:
        return load_private_key(at_home(path))
    file = default_key()
    if not file.exists():
        _make_default(file, say)
    return load_private_key(file)


def _make_default(file: Path, say: Callable[[str], None]) -> None:
    try:
        public = make_key(file)
    except StorageError as error:
        raise StorageError(error.what, found=error.found, next_step="Name a signing key: --key") from error
    except ConfigError:
        if not file.exists():  # otherwise another export, started at the same time, made it first
            raise
    else:
        say(f"A signing key was made: {file}. Keep it safe and secret, and give out its public key, {public}")


def make_key(path: Path) -> Path:
    """Write a new private key, readable by its owner alone, and its public key beside it; never overwrite.

    The private key is encrypted if the environment variable ``SYNTHMED_KEY_PASSWORD`` is set.

    Returns
    -------
    Path
        The public key: ``.pub`` in place of ``.pem``.

    Raises
    ------
    ConfigError
        If either file exists, the name is one for a public key, or the folder is a file.
    StorageError
        If they cannot be written.
    """
    if path.suffix == ".pub":
        raise ConfigError(
            f"{path} is a name for a public key",
            expected="a name for the private key; the public one is written beside it",
            next_step=f"For example: synthmed keygen {path.with_suffix('.pem')}",
        )
    public_file = public_path(path)
    for file in (path, public_file):
        if file.exists() or file.is_symlink():
            raise _exists(file)
    key = Ed25519PrivateKey.generate()
    with storage_errors(path):
        _make_folder(path.parent)
        _write_secret(path, private_pem(key))
    write_text(public_file, public_pem(key.public_key()).decode())
    return public_file


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"No key can be written into {folder}", found="a file", expected="a folder", next_step="Name another place"
        ) from error


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 that takes its name whole, and only if the name is free."""
    handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.link(name, path)
    except FileExistsError as error:
        raise _exists(path) from error
    finally:
        os.unlink(name)


def _exists(file: Path) -> ConfigError:
    return ConfigError(f"{file} exists already, and a key is never overwritten", next_step="Name another file")


def public_path(path: Path) -> Path:
    """Return where the public key of a private key lies."""
    return path.with_suffix(".pub") if path.suffix == ".pem" else path.with_name(f"{path.name}.pub")


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key that its owner alone can read.

    Raises
    ------
    ConfigError
        If it is missing, others can read it, it needs a password, or it is not an Ed25519 private key.
    """
    try:
        with path.open("rb") as stream:
            mode, content = os.fstat(stream.fileno()).st_mode, stream.read()
    except OSError as error:
        raise ConfigError(
            f"Cannot read the signing key {path}",
            found=error.strerror or str(error),
            next_step=f"Make one: synthmed keygen {path}",
        ) from error
    if b"-----BEGIN PUBLIC KEY-----" in content:
        raise ConfigError(
            f"{path} is a public key, which cannot sign",
            expected="the private key that belongs to it",
            next_step=f"It may be {path.with_suffix('.pem')}",
        )
    if os.name == "posix" and mode & _OTHERS:
        raise ConfigError(
            f"Others than its owner can use the signing key {path}",
            found=f"mode {stat.S_IMODE(mode):04o}",
            expected="0600",
            next_step=f"If nobody has copied it: chmod 600 {path}",
        )
    return _parse_private(path, content)


def _parse_private(path: Path, content: bytes) -> Ed25519PrivateKey:
    encrypted = b"ENCRYPTED" in content
    password = os.environ.get(PASSWORD, "").encode() or None if encrypted else None
    if encrypted and password is None:
        raise ConfigError(
            f"The signing key {path} has a password", next_step=f"Put it into the environment variable {PASSWORD}"
        )
    try:
        key = serialization.load_pem_private_key(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        found = f"another password than that in {PASSWORD}, or a damaged file" if encrypted else "something else"
        raise _not_a_key(path, found) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, f"a key for {type(key).__name__.removesuffix('PrivateKey').lstrip('_')}")
    return key


def _not_a_key(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"Cannot use the signing key {path}", found=found, expected="an Ed25519 private key in PEM (PKCS8)"
    )


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key; raise `ConfigError` where it is not an Ed25519 one."""
    try:
        return parse_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        found = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise ConfigError(
            f"Cannot use the public key {path}",
            found=found,
            expected="an Ed25519 public key in PEM, such as the .pub that `synthmed keygen` writes",
        ) from error


def parse_public_key(content: bytes) -> Ed25519PublicKey:
    """Parse a public key in PEM; raise `ValueError` where it is not an Ed25519 one."""
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Return PKCS8 in PEM, encrypted if the environment holds a password."""
    password = os.environ.get(PASSWORD, "").encode()
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return SubjectPublicKeyInfo in PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the hexadecimal SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def accepts(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Say whether `signature` is one of `content` by the private half of `key`."""
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def say_on_stderr(line: str) -> None:
    """Print a line where it does not mix with a result."""
    print(line, file=sys.stderr)
