"""The links to etcd's endpoints: channels, rotation, tokens, and one way to make a unary call.

Decides which endpoint is asked, when a call is tried again, and whether a failed write surely did
not happen (`StoreUnavailable`) or may have (`OutcomeUnknown`). Knows nothing of keys or watches.
Unary calls share one channel per endpoint; every long stream opens a channel of its own, so that
tearing one down never cancels another's call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from . import etcd_meters
from .errors import OutcomeUnknown, StartError, StoreUnavailable
from .etcd_errors import Meaning, meaning, refusal
from .etcd_options import Endpoint, EtcdOptions, credentials, endpoint
from .tls_files import Tls, flaw, read, stamp
from .v1 import etcd_pb2 as pb

MAX_MESSAGE_BYTES = 64 << 20
"""The largest answer that we receive; lists shrink their pages before they reach it."""
KEEPALIVE_MS = 10_000
"""gRPC pings on a busy channel; etcd closes links that ping more often than every 5 s."""
CONNECT_MOST_S = 2.0
"""Longest wait for one endpoint to accept a connection when there are others to try."""

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class Method(Generic[Asked, Answered]):
    """One of etcd's methods, called by path, with the types of its request and answer."""

    path: str
    asked: type[Asked]
    answered: type[Answered]

    @property
    def name(self) -> str:
        """The method's own name."""
        return self.path.rpartition("/")[2]

    def on(self, channel: Any) -> Any:
        """The unary callable for this method on `channel`."""
        return channel.unary_unary(self.path, *self._codec())

    def stream_on(self, channel: Any) -> Any:
        """The bidirectional stream callable for this method on `channel`."""
        return channel.stream_stream(self.path, *self._codec())

    def _codec(self) -> tuple[Any, Any]:
        asked: Any = self.asked
        answered: Any = self.answered
        return asked.SerializeToString, answered.FromString


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
KEEPALIVE = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse
)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)
AUTHENTICATE = Method(
    "/etcdserverpb.Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse
)


class Backoff:
    """Pauses that double from `first_s` to `most_s`, each drawn between half and all of it."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s, self._now_s = first_s, most_s, first_s

    def next_s(self) -> float:
        """The next pause in seconds."""
        drawn = self._now_s * random.uniform(0.5, 1.0)
        self._now_s = min(self._most_s, self._now_s * 2)
        return drawn

    def reset(self) -> None:
        """Start again from the first pause."""
        self._now_s = self._first_s


@dataclass(eq=False)
class _Wire:
    """A shared channel; closed when it is retired and its last call has ended."""

    channel: Any
    endpoint: Endpoint
    calls: int = 0
    retired: bool = False
    closing: asyncio.Task[None] | None = None

    def close_if_done(self) -> None:
        if self.retired and not self.calls and self.closing is None:
            self.closing = asyncio.get_running_loop().create_task(self.channel.close())


class Link:
    """Every connection of one store to its etcd cluster."""

    def __init__(self, options: EtcdOptions) -> None:
        if not options.endpoints:
            raise StartError("no etcd endpoint is given")
        secure = bool(options.ca or options.cert)
        self.options = options
        self.endpoints = tuple(endpoint(text, secure=secure) for text in options.endpoints)
        self.closed = False
        self._tls = Tls(ca=options.ca, cert=options.cert, key=options.key)
        self._files = stamp(self._tls)
        self._credentials = credentials(options) if any(e.secure for e in self.endpoints) else None
        self._at = random.randrange(len(self.endpoints))
        self._wires: dict[Endpoint, _Wire] = {}
        self._token = ""
        self._no_auth = not options.user
        self._auth_lock = asyncio.Lock()

    @property
    def current(self) -> Endpoint:
        """The endpoint that unary calls go to first."""
        return self.endpoints[self._at]

    def after(self, failed: Endpoint | None) -> Endpoint:
        """The endpoint that a stream takes after `failed`; the current one to begin with."""
        if failed is None:
            return self.current
        return self.endpoints[(self.endpoints.index(failed) + 1) % len(self.endpoints)]

    def open(self, to: Endpoint) -> Any:
        """A new channel to one endpoint; its owner closes it."""
        arguments = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
        ]
        if to.secure:
            self._renew()
            return grpc.aio.secure_channel(to.target, self._credentials, options=arguments)
        return grpc.aio.insecure_channel(to.target, options=arguments)

    def _renew(self) -> None:
        """Show new certificates on channels from now on; what does not fit together is not new.

        Channels that stand go on: etcd asks for a certificate when a connection begins.
        """
        if (now := stamp(self._tls)) == self._files:
            return
        try:
            if not flaw(read(self._tls)):
                self._credentials, self._files = credentials(self.options), now
        except StartError:
            pass  # being replaced

    async def metadata(self, channel: Any, timeout_s: float) -> tuple[tuple[str, str], ...]:
        """What every call carries: `hasleader`, and the token, fetched over `channel` if needed.

        Raises NotReached when that takes longer than `timeout_s`, and what the call raises.
        """
        leader = (("hasleader", "true"),)
        if self._no_auth:
            return leader
        try:
            async with asyncio.timeout(timeout_s), self._auth_lock:
                if not self._token:
                    await self._authenticate(channel)
        except TimeoutError:
            raise NotReached("does not authenticate us in time") from None
        return leader if self._no_auth else (*leader, ("token", self._token))

    def forget_token(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        """Drop the token that a failed call carried, unless somebody has renewed it since."""
        used = dict(metadata).get("token")
        if used is None or used == self._token:
            self._token = ""
        if self.options.user:
            self._no_auth = False

    async def _authenticate(self, channel: Any) -> None:
        asked = pb.AuthenticateRequest(name=self.options.user, password=self.options.password)
        try:
            answer = await AUTHENTICATE.on(channel)(asked, timeout=self.options.timeout_s)
        except grpc.aio.AioRpcError as error:
            if _meaning(error) is not Meaning.NO_AUTH:
                raise
            self._no_auth = True
        else:
            self._token = answer.token

    async def call(
        self, method: Method[Asked, Answered], request: Asked, *, write: bool = False
    ) -> Answered:
        """Make one unary call, at whichever endpoint answers, within `timeout_s` in all.

        A `write` is tried again only where the failed try surely had no effect. Raises
        StoreUnavailable, OutcomeUnknown (writes only), StoreDenied, NoSpace, LeaseLost,
        `AnswerTooLarge`, `RevisionCompacted`, or StoreError for a request that etcd refuses.
        """
        with etcd_meters.call(method.name):
            return await self._called(method, request, write=write)

    async def _called(
        self, method: Method[Asked, Answered], request: Asked, *, write: bool
    ) -> Answered:
        deadline = time.monotonic() + self.options.timeout_s
        pause = Backoff(0.02, 1.0)
        renewed = False
        reason = "no time left"
        while (left_s := deadline - time.monotonic()) > 0 and not self.closed:
            attempt = _Attempt(self, self.current, self._share_s(left_s), left_s)
            try:
                return await attempt.run(method, request, whole=write)
            except NotReached as error:
                found, reason = Meaning.AGAIN, f"{attempt.to.url} {error}"
            except grpc.aio.AioRpcError as error:
                found = _meaning(error)
                reason = f"{attempt.to.url}: {error.details()}"
                if found is Meaning.DENIED and self._no_auth and self.options.user:
                    found = Meaning.RENEW  # authentication was switched on meanwhile
                _raise_if_final(found, attempt.to.url, error)
            if found is Meaning.RENEW:
                self.forget_token(attempt.metadata)
                if not renewed:
                    renewed = True
                    continue
            self._retire(attempt.to)
            if attempt.to == self.current:
                self._at = (self._at + 1) % len(self.endpoints)
            if found is Meaning.UNSURE and write and attempt.sent:
                raise OutcomeUnknown(f"the link to etcd broke after a write was sent ({reason})")
            await asyncio.sleep(min(pause.next_s(), max(0.0, deadline - time.monotonic())))
        if self.closed:
            raise StoreUnavailable("the store is closed")
        raise StoreUnavailable(f"no etcd endpoint answered (last: {reason})")

    def _share_s(self, left_s: float) -> float:
        """One try's part of the time left: with several endpoints a hung one must not take all."""
        count = len(self.endpoints)
        return left_s if count == 1 else min(left_s, max(CONNECT_MOST_S / 2, left_s / count))

    def wire(self, to: Endpoint) -> _Wire:
        """The shared channel to `to`, opened when there is none."""
        if to not in self._wires:
            self._wires[to] = _Wire(self.open(to), to)
        return self._wires[to]

    def _retire(self, to: Endpoint) -> None:
        wire = self._wires.pop(to, None)
        if wire is not None:
            wire.retired = True
            wire.close_if_done()

    async def close(self) -> None:
        """Close every shared channel; calls under way end with StoreUnavailable."""
        self.closed = True
        wires = list(self._wires.values())
        self._wires.clear()
        for wire in wires:
            await wire.channel.close()


class AnswerTooLarge(Exception):
    """The answer exceeds `MAX_MESSAGE_BYTES`: ask for fewer keys."""


class RevisionCompacted(Exception):
    """The revision asked for is gone; etcd does not say here which one is left."""


class NotReached(Exception):
    """The endpoint accepted no connection, or did not authenticate us: nothing was sent."""


class _Attempt:
    """One try of one call at one endpoint; remembers whether the request itself was sent."""

    def __init__(self, link: Link, to: Endpoint, share_s: float, left_s: float) -> None:
        self.to = to
        self.sent = False
        self.metadata: tuple[tuple[str, str], ...] = ()
        self._link, self._share_s, self._until = link, share_s, time.monotonic() + left_s

    async def run(
        self, method: Method[Asked, Answered], request: Asked, *, whole: bool
    ) -> Answered:
        """Connect, authenticate, call. `whole` gives the call all the time that is left."""
        wire = self._link.wire(self.to)
        wire.calls += 1
        try:
            if not await connected(wire.channel, self._share_s):
                raise NotReached("does not accept a connection")
            self.metadata = await self._link.metadata(wire.channel, self._share_s)
            left_s = max(0.001, self._until - time.monotonic())
            self.sent = True
            answer: Answered = await method.on(wire.channel)(
                request,
                timeout=left_s if whole else min(left_s, self._share_s),
                metadata=self.metadata,
            )
            return answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling() or not self._link.closed:
                raise
            if whole and self.sent:
                raise OutcomeUnknown("the store was closed while a write was under way") from None
            raise StoreUnavailable("the store is closed") from None
        finally:
            wire.calls -= 1
            wire.close_if_done()


async def connected(channel: Any, timeout_s: float) -> bool:
    """Wait until `channel` has a connection; False as soon as the endpoint refuses, or too late."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in (
                    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
                    grpc.ChannelConnectivity.SHUTDOWN,
                ):
                    return False
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
            return True
    return False


def status_of(error: Any) -> tuple[Meaning, str]:
    """The meaning and etcd's words of a failed stream."""
    return _meaning(error), str(error.details() or error.code().name)


def _meaning(error: Any) -> Meaning:
    return meaning(error.code().name, error.details() or "")


def _raise_if_final(found: Meaning, where: str, error: Any) -> None:
    if found is Meaning.COMPACTED:
        raise RevisionCompacted from error
    if found is Meaning.TOO_LARGE:
        raise AnswerTooLarge from error
    if found not in (Meaning.AGAIN, Meaning.RENEW, Meaning.UNSURE):
        raise refusal(found, where, error.details() or error.code().name) from error
