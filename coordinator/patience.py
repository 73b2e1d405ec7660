"""Waiting for etcd while a coordinator starts or takes over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from gtm import keys
from gtm.errors import StartError, StoreDenied, StoreError, StoreUnavailable
from gtm.store import Store
from gtm.telemetry import transition

START_S = 5.0
"""How long a coordinator waits for etcd before it gives up its start."""
LOOK_S = 0.2
AGAIN_S = 0.5
"""Wait before what is stored is read again, where etcd went away meanwhile."""

log = logging.getLogger("coordinator")


async def reached(store: Store, endpoints: Iterable[str]) -> None:
    """Wait until the store answers. Raises StartError after `START_S`, or where it refuses us."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            await store.get(keys.HEAD)
        except StoreDenied as error:
            raise StartError(
                f"etcd at {', '.join(endpoints)} refuses us ({error}): "
                "see --etcd-user and --etcd-password"
            ) from error
        except StoreError as error:
            if time.monotonic() > deadline:
                raise StartError(
                    f"no etcd answers at {', '.join(endpoints)}: "
                    "start it, or name another with --etcd",
                    3,
                ) from error
            await asyncio.sleep(LOOK_S)
        else:
            return


async def outlasting(read: Callable[[], Awaitable[None]]) -> None:
    """Await `read()`, once more while the store is away."""
    waited = False
    while True:
        try:
            return await read()
        except StoreUnavailable as error:
            if not waited:
                transition(log, "etcd went away during the start", logging.WARNING, cause=error)
            waited = True
            await asyncio.sleep(AGAIN_S)
