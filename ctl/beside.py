"""The operator certificate that `gtm up` leaves beside its data, for commands on the same machine.

Decides when it is used: for the very coordinator that `gtm up` started there, and only where a
command was told nothing else. The folder is `--data-dir` of `gtm up`, as GTM_DATA_DIR or `.gtm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gtm.links import Tls

DATA_DIR = ".gtm"
"""The data directory of `gtm up` unless told."""
FOLDER = "tls"
OPERATOR = "operator"
"""The name of the certificate."""
PLACE = "coordinator.address"
"""The file that says for which coordinator it is."""


_started: dict[str, Tls] = {}


def know(server: str, tls: Tls) -> None:
    """Remember the files for a `gtm up` that this process has started itself."""
    _started[server] = tls


def beside_up(server: str, environ: Mapping[str, str]) -> Tls | None:
    """The files to show `server` where it is the coordinator of a `gtm up` here; else None."""
    if server in _started:
        return _started[server]
    folder = Path(environ.get("GTM_DATA_DIR") or DATA_DIR) / FOLDER
    try:
        place = (folder / PLACE).read_text().strip()
    except OSError:
        return None
    return operator(folder) if server in place.split() else None


def operator(folder: Path) -> Tls:
    """The operator's files in the folder of certificates of a `gtm up`."""
    return Tls(
        ca=str(folder / "ca.pem"),
        cert=str(folder / f"{OPERATOR}.pem"),
        key=str(folder / f"{OPERATOR}.key"),
    )
