"""The licence of a release: its name as the configuration gives it, and what SPDX and the Hugging Face hub call it."""

from __future__ import annotations

from synthmed.config import ExportConfig

_SPDX = ("Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC0-1.0", "MIT", "ODC-By-1.0", "PDDL-1.0")
_HUB = {"odc-by-1.0": "odc-by", "pddl-1.0": "pddl"}


def spdx_address(name: str) -> str | None:
    """Return where SPDX keeps the text of a licence; None for one that is not widely known."""
    known = {identifier.lower(): identifier for identifier in _SPDX}.get(name.lower())
    return f"https://spdx.org/licenses/{known}" if known else None


def hub_fields(name: str) -> dict[str, str]:
    """Return the licence's fields of the hub's front matter."""
    if spdx_address(name) is None:
        return {"license": "other", "license_name": name, "license_link": "LICENSE"}
    return {"license": _HUB.get(name.lower(), name.lower())}


def render_license(config: ExportConfig) -> str:
    """Return the text of the release's ``LICENSE``."""
    address = spdx_address(config.license)
    return (
        f"{config.title}\n\nLicence of the volumes, labels and documents in this directory: {config.license}\n"
        f"{f'Its text: {address}' + chr(10) if address else ''}\n"
        'They are provided "as is", without warranty of any kind, express or implied, fitness for a particular\n'
        "purpose among them. They are synthetic and not for clinical use.\n"
    )
