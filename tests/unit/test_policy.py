"""The policy in process and in its child: same answers, deadlines, ends, refusals."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctl import policy, policy_child, validate
from ctl.policy import ChildPolicy, DirectPolicy, PolicyFailed
from ctl.validate import review_plain
from gtm.ports import Question
from gtm.view import View
from tests.geo_files import geo_file, packed

GOOD: Mapping[str, Mapping[str, Any]] = {
    "zones": {"example.net": {"nameservers": ["ns.example.org"]}},
    "pools": {"a": {"type": "ipv4", "addresses": [{"value": "192.0.2.1"}]}},
    "instances": {
        "shop": {"rules": [{"name": "w", "lines": ["default"], "tiers": [{"pools": ["a"]}]}]}
    },
}
BAD: Mapping[str, Mapping[str, Any]] = {"pools": {"a": {"type": "ipv5"}}}
LARGE = {
    "pools": {
        f"p{n}": {"type": "ipv4", "addresses": [{"value": f"10.0.{n // 250}.{n % 250}"}]}
        for n in range(20_000)
    }
}


@pytest.fixture
async def child() -> AsyncIterator[ChildPolicy]:
    made = ChildPolicy()
    yield made
    await made.close()


def pid_of(child: ChildPolicy) -> int:
    assert child._child is not None
    return child._child.pid


async def gone(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_the_child_judges_as_the_process_itself(child: ChildPolicy) -> None:
    direct = DirectPolicy()
    for resources in (GOOD, BAD, {}, {"pools": {"a": 1}}):
        assert await child.problems(resources) == await direct.problems(resources)
    await direct.close()


async def test_a_good_set_comes_back_with_its_only_zone_filled_in(child: ChildPolicy) -> None:
    review = await child.problems(GOOD)
    assert review.errors == ()
    assert review.resources is not None
    assert review.resources.instances["shop"].zone == "example.net"


async def test_a_judgement_that_overruns_ends_with_its_child_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "BYTES_PER_S", 1 << 40)  # no more time for a large set
    child = ChildPolicy(deadline_s=0.05)
    try:
        await child.warm()
        pid = pid_of(child)
        with pytest.raises(TimeoutError, match="longer than"):
            await child.problems(LARGE)
        assert await gone(pid)
        child._deadline_s = 30.0
        assert (await child.problems(BAD)).errors
        assert pid_of(child) != pid
    finally:
        await child.close()


async def test_a_child_that_was_killed_is_replaced(child: ChildPolicy) -> None:
    await child.warm()
    pid = pid_of(child)
    os.kill(pid, signal.SIGKILL)
    assert await gone(pid)
    for _ in range(3):  # the loop may hear of the end a little later: a failure is said, not hung
        try:
            assert (await child.problems(BAD)).errors
            break
        except PolicyFailed:
            continue
    assert pid_of(child) != pid


async def test_a_cancelled_call_leaves_no_answer_for_the_next(child: ChildPolicy) -> None:
    await child.warm()
    call = asyncio.create_task(child.problems(LARGE))
    await asyncio.sleep(0)
    while not child._waiting:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    review = await child.problems(BAD)
    assert [problem.path for problem in review.errors] == ["pools.a.type"]


async def test_calls_take_turns_up_to_a_bound(
    child: ChildPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MAX_WAITING", 3)
    await child.warm()
    outcomes = await asyncio.gather(
        *(child.problems(GOOD) for _ in range(5)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, TimeoutError)]
    assert len(refused) == 2
    assert (await child.problems(GOOD)).errors == ()


async def test_a_call_over_the_bound_is_refused_and_the_child_goes_on(
    child: ChildPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await child.warm()
    monkeypatch.setattr(policy, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(PolicyFailed, match="at once"):
        await child.problems({"pools": {"a": {"note": "x" * 1000}}})
    assert (await child.problems(BAD)).errors


async def test_a_type_that_is_none_is_a_value_error(child: ChildPolicy) -> None:
    with pytest.raises(ValueError, match="'BLAH' is no record type"):
        await child.explain(View(), Question(name="nobody.example.net", qtype="BLAH"))


async def test_a_name_that_nothing_has_is_a_lookup_error(child: ChildPolicy) -> None:
    with pytest.raises(LookupError, match="nobody"):
        await child.explain(View(), Question(name="nobody.example.net"))


def test_explanations_follow_geo_files_that_change_and_keep_the_last_good(tmp_path: Path) -> None:
    path = tmp_path / "geo.mmdb"
    world = {f"{number}.0.0.0/8": {"country_code": "DE"} for number in range(1, 20, 2)}
    steps = [
        (world, "DE"),
        ({**world, "19.0.0.0/8": {"country_code": "FR"}}, "FR"),
        ({f"{number}.0.0.0/8": {"country_code": "CN"} for number in range(1, 20, 2)}, "FR"),
        (None, "FR"),
        (world, "DE"),
    ]
    rules = policy_child.Rules((str(path),))
    for networks, country in steps:
        if networks is None:
            path.write_bytes(b"not a database")
        else:
            geo_file(path, networks)
        assert rules._locator().find(packed("19.0.0.1")).country == country


async def test_close_ends_the_child(child: ChildPolicy) -> None:
    await child.warm()
    pid = pid_of(child)
    await child.close()
    assert await gone(pid)
    await child.close()


async def test_a_copy_has_a_child_of_its_own(child: ChildPolicy) -> None:
    await child.warm()
    copy = pickle.loads(pickle.dumps(child))
    try:
        await copy.warm()
        assert pid_of(copy) != pid_of(child)
    finally:
        await copy.close()


async def test_the_child_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio\n"
        "from ctl.policy import ChildPolicy\n"
        "async def main():\n"
        "    policy = ChildPolicy()\n"
        "    await policy.warm()\n"
        "    print(policy._child.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(policy.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        assert await gone(pid)
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()


def test_an_unexpected_failure_is_said_in_one_sentence() -> None:
    class Broken(policy_child.Rules):
        def problems(self, resources: Mapping[str, Mapping[str, Any]]) -> Any:
            raise ZeroDivisionError("oh")

    assert policy_child._answer(Broken(), "problems", ({},)) == ("error", "ZeroDivisionError: oh")


def test_what_resolvers_could_not_compile_is_refused_even_where_no_rule_knows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unable(*_: object) -> None:
        raise ValueError("zone z.test: something new")

    written = {"zones": {"z.test": {"nameservers": ["ns.example.net"]}}}
    assert not review_plain(written).errors
    monkeypatch.setattr(validate, "compile_table", unable)
    [problem] = review_plain(written).errors
    assert problem.text == "resolvers could not serve this: zone z.test: something new"
