"""Which addresses are answered past the network stack, and what is said where none can be."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gtm.errors import StartError
from resolver.native import NativeResponder
from resolver.native_meter import Loaded, Loads, NativeMeter
from resolver.xdp import Express

HERE, SIX = ("192.0.2.1", 53), ("2001:db8::1", 5300)
WILD = ("0.0.0.0", 53), ("::", 53)


class Fake:
    """A native responder that notes what it is asked, and may refuse."""

    def __init__(self, refusal: OSError | None = None) -> None:
        self.asked: list[tuple[str, list[tuple[str, int]]]] = []
        self.refusal = refusal

    def serve_xdp(self, interface: str, places: list[tuple[str, int]], seed: int) -> str:
        self.asked.append((interface, places))
        if self.refusal:
            raise self.refusal
        return "driver, copied"


def express(fake: Fake) -> Express:
    return Express(cast(NativeResponder, SimpleNamespace(native=cast(Any, fake))), "eth9")


def test_every_address_that_is_one_goes_past_and_wildcards_do_not() -> None:
    fake = Fake()
    express(fake).open([WILD[0], HERE, SIX, WILD[1]])
    assert fake.asked == [("eth9", [HERE, SIX])]


def test_wildcards_alone_are_refused() -> None:
    fake = Fake()
    with pytest.raises(StartError, match="--xdp eth9 answers at addresses") as raised:
        express(fake).open(WILD)
    assert (raised.value.status, fake.asked) == (2, [])


def test_without_the_native_responder_it_is_refused() -> None:
    with pytest.raises(StartError, match="--xdp eth9 needs the native responder") as raised:
        Express(None, "eth9")
    assert raised.value.status == 2


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EPERM, "no permission; give CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF"),
        (errno.EACCES, "no permission"),
        (errno.ENODEV, "this machine has no such interface"),
        (errno.EBUSY, "another program has it already"),
        (errno.ENOBUFS, "too little memory may be locked; raise RLIMIT_MEMLOCK"),
        (errno.EPROTONOSUPPORT, "it is no Ethernet"),
        (errno.EMSGSIZE, "it is too small for DNS"),
        (errno.EAFNOSUPPORT, "this kernel or driver has no AF_XDP"),
        (errno.EOPNOTSUPP, "this kernel or driver has no AF_XDP"),
        (errno.EINVAL, "Invalid argument; leave --xdp out"),
    ],
    ids=errno.errorcode.get,
)
def test_what_the_kernel_refuses_is_said_with_what_failed(number: int, said: str) -> None:
    refusal = OSError(number, "a socket")
    assert refusal.strerror == "a socket" != os.strerror(number)
    with pytest.raises(StartError) as raised:
        express(Fake(refusal)).open([HERE])
    assert str(raised.value).startswith(f"--xdp eth9: a socket: {said}")
    assert raised.value.status == 1


@pytest.mark.parametrize("counts", [None, (5, 2, 1)])
def test_metrics_are_there_also_where_nothing_goes_past(
    counts: tuple[int, int, int] | None,
) -> None:
    fake = SimpleNamespace(loads=Loads(), express=lambda: counts) if counts else None
    shown = {
        sample.name: sample.value
        for metric in NativeMeter(cast("Loaded | None", fake)).collect()
        for sample in metric.samples
    }
    names = [f"gtm_resolver_xdp_{name}_total" for name in ("queries", "malformed", "lost")]
    assert [shown[name] for name in names] == list(counts or (0, 0, 0))
