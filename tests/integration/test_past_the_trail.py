"""`gtm history --verify` on a real etcd: what coordinators wrote is clean, the rest is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import stored
from coordinator.part import Coordinator
from coordinator.settings import Settings
from ctl.policy import DirectPolicy
from gtm import keys, links
from gtm.etcd import connect
from gtm.etcd_options import EtcdOptions
from gtm.store import Delete, Op, Put, Store
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub

pytestmark = pytest.mark.integration

RESOURCES: dict[str, Any] = {
    "zones": {
        "gtm.test": {
            "nameservers": ["ns1.example.net"],
            "records": [
                {"name": f"host{n}", "type": "TXT", "data": [f'"{"x" * 200}"']} for n in range(500)
            ],
        }
    },
    "regions": {"eu": {}},
    "checks": {"web": {"type": "tcp", "port": 80, "interval": "15s", "timeout": "500ms"}},
    "pools": {
        name: {"type": "ipv4", "checks": ["web"], "addresses": [{"value": "192.0.2.1"}]}
        for name in ("a", "b")
    },
    "instances": {
        "shop": {
            "rules": [{"name": "world", "lines": ["default"], "tiers": [{"pools": ["a", "b"]}]}]
        }
    },
}
COUNT = 6


class World:
    """A coordinator on an etcd, and that etcd."""

    def __init__(self, port: int, store: Store) -> None:
        self.store = store
        self._address = f"127.0.0.1:{port}"

    async def apply(self, resources: dict[str, Any]) -> None:
        async with links.channel(self._address, links.Tls()) as channel:
            ask = OperatorStub(channel)  # type: ignore[no-untyped-call]
            request = pb.ApplyRequest(resources=json.dumps(resources), allow_mass_change=True)
            done = await ask.Apply(request)
            assert done.applied, (done.refusal, done.problems)

    async def write(self, *ops: Op) -> None:
        """Past the coordinator."""
        await self.store.txn([], ops)

    async def verify(self) -> tuple[int, dict[str, Any]]:
        """Exit status and JSON."""
        status, said = await self.gtm("history", "--verify", "-o", "json")
        found: dict[str, Any] = json.loads(said)
        return status, found

    async def gtm(self, *arguments: str) -> tuple[int, bytes]:
        """Exit status and what it says."""
        flags = ["--server", self._address, "--insecure"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ctl", *arguments, *flags, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode or 0, said


@pytest.fixture
async def world(start_etcd: Any) -> AsyncIterator[World]:
    store = connect(EtcdOptions(endpoints=(start_etcd().endpoint,)))
    made = Coordinator(Settings(id="one", grpc="127.0.0.1:0", http=""), store, DirectPolicy())
    async with contextlib.AsyncExitStack() as ending:
        ending.push_async_callback(store.close)
        ending.push_async_callback(made.close)
        await made.start()
        yield World(made.port, store)


async def test_what_coordinators_wrote_is_clean_and_each_thing_past_them_is_named(
    world: World,
) -> None:
    assert await world.verify() == (0, {"entries": 0, "last": "", "covered": 0, "older": 0,
                                        "wrong": []})  # fmt: skip
    await world.apply(RESOURCES)
    status, found = await world.verify()
    assert (status, found["covered"], found["wrong"]) == (0, COUNT, [])
    await world.apply({"pools": {"b": {**RESOURCES["pools"]["b"], "max_answers": 1}}})
    status, found = await world.verify()
    assert (status, found["covered"], found["entries"]) == (0, COUNT, 2)

    listing = await world.store.list(keys.CONFIG)
    value = {item.key: item.value for item in listing.items}
    records = (await world.store.list(keys.records("gtm.test", ""))).items
    assert len(records) > 1
    pool = keys.config("pools", "a")
    await world.write(
        Put(pool, value[pool].replace(b"192.0.2.1", b"192.0.2.66")),
        Put(keys.config("pools", "new"), value[pool]),
        Put(keys.config("odd", "thing/of"), b"\xff"),
        Put(records[0].key, records[0].value.replace(b"xxx", b"xyz", 1)),
        Put(keys.records("other.test", "-"), records[0].value),
        Delete(keys.config("instances", "shop")),
    )
    status, found = await world.verify()
    assert (status, found["covered"]) == (1, 3)
    named = sorted(sentence.split(" ")[0] for sentence in found["wrong"])
    assert named == [
        "instances/shop", "odd/thing/of", "pools/a", "pools/new", "records/other.test",
        "zones/gtm.test",
    ]  # fmt: skip

    await world.write(
        Delete(keys.config("pools", "new")),
        Delete(keys.config("odd", "thing/of")),
        Delete(keys.records("other.test", "-")),
    )
    await world.apply(RESOURCES)  # an apply puts right what it gives
    status, found = await world.verify()
    assert (status, found["covered"], found["wrong"]) == (0, COUNT, [])


async def test_a_bucket_that_is_taken_from_a_zone_is_found(world: World) -> None:
    await world.apply(RESOURCES)
    records = (await world.store.list(keys.records("gtm.test", ""))).items
    await world.write(Delete(records[0].key))
    status, found = await world.verify()
    assert (status, [one.split(" ")[0] for one in found["wrong"]]) == (1, ["zones/gtm.test"])


async def test_an_apply_of_more_than_an_entry_names_is_clean(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MAX_PART_OBJECTS", 100)
    one = RESOURCES["pools"]["a"]
    many = {f"p{n}": {**one, "checks": []} for n in range(1_300)}
    await world.apply({"pools": many})
    status, found = await world.verify()
    assert (status, found["covered"], found["wrong"]) == (0, len(many), [])
    await world.write(Put(keys.config("pools", "p1299"), b"{}"))
    status, found = await world.verify()
    assert (status, found["covered"]) == (1, len(many) - 1)
    assert "pools/p1299" in found["wrong"][0]


async def test_examples_come_out_clean(world: World) -> None:
    for path in sorted(Path("examples").glob("*.yaml")):
        status, _ = await world.gtm("apply", str(path), "--yes", "--allow-mass-change", "--prune")
        assert status == 0, path
        status, found = await world.verify()
        assert (status, found["wrong"]) == (0, []), path
        assert found["covered"] > 0, path
