"""Has the etcds of ../compose.yaml know their users; does nothing where they do.

Coordinators write, resolvers read what they serve, and nobody else may do anything.
"""

from __future__ import annotations

import asyncio
import sys

from gtm.errors import StoreError
from gtm.etcd import EtcdOptions
from gtm.etcd_users import set_up


def main(endpoints: str, ca: str, cert: str, key: str) -> None:
    """`endpoints` of etcd, joined by commas, and the files of its user root."""
    options = EtcdOptions(endpoints=tuple(endpoints.split(",")), ca=ca, cert=cert, key=key)
    try:
        asyncio.run(set_up(options))
    except StoreError as error:
        sys.exit(f"cannot make the users of etcd ({error})")


if __name__ == "__main__":
    main(*sys.argv[1:])
