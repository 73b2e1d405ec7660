"""A coordinator's Operator service, as commands call it: deadlines, and errors in one sentence.

Never retries what may have taken effect, except an apply, which its request id makes repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from gtm.errors import GtmError, StartError, UnreachableError
from gtm.links import SPOKEN, Tls, channel, chosen
from gtm.tls_files import hint
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub

from .beside import beside_up

T = TypeVar("T")

DEFAULT_SERVER = "127.0.0.1:7400"
DEADLINE_S = 10.0
"""For one call."""
APPLY_DEADLINE_S = 60.0
"""For a plan or an apply, which may carry a large set."""
APPLY_TRIES = 3
"""How often an apply is sent while its outcome is unknown."""
RETRY_S = 1.0
"""Between two of them."""
NEVER_SENT = ("failed to connect", "dns resolution failed", "handshake")
"""gRPC's words for a link that was never there: what was asked was not even sent."""


class LostError(UnreachableError):
    """Nobody answered a call that may have been carried out."""


class AnswerNo(GtmError):
    """A coordinator answered, and the answer is no; becomes exit status 1."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags by which every client command finds its coordinator."""
    group = parser.add_argument_group("the coordinator that is asked")
    for flag, variable, default, text in (
        ("--server", "GTM_SERVER", DEFAULT_SERVER, "its address"),
        ("--ca", "GTM_CA", "", "PEM file: whom to trust"),
        ("--cert", "GTM_CERT", "", "PEM file: our certificate"),
        ("--key", "GTM_KEY", "", "PEM file: its key"),
        ("--token", "GTM_TOKEN", "", "in the place of a certificate; better as a variable"),
    ):
        shown = f" ({variable}, default {default})" if default else f" ({variable})"
        value = os.environ.get(variable) or default
        metavar = {"--server": "ADDR", "--token": "TOKEN"}.get(flag, "FILE")
        group.add_argument(flag, metavar=metavar, default=value, help=text + shown)
    group.add_argument(
        "--insecure",
        action="store_true",
        default=os.environ.get("GTM_INSECURE", "").lower() in ("1", "true", "yes", "on"),
        help="a link in the clear, without certificates (GTM_INSECURE)",
    )


def user() -> str:
    """Who we say we are, where no certificate proves better."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"


class Client:
    """One coordinator: `async with Client(address) as client: await client.status()`.

    Calls raise UnreachableError (nobody answered), AnswerNo (refused) or StartError (wrong use).
    """

    def __init__(
        self, address: str, tls: Tls | None = None, *, insecure: bool = False, token: str = ""
    ) -> None:
        _checked(address)
        self.address = address
        found = None if insecure else beside_up(address, os.environ)
        self._tls = tls or found or Tls()
        self._channel = channel(address, self._tls, insecure=insecure)
        self._shown = (("authorization", f"Bearer {token}"),) if token else ()
        self._stub = OperatorStub(self._channel)  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, args: argparse.Namespace) -> Client:
        """The client that `add_flags` described."""
        _checked(args.server)
        tls = Tls(ca=args.ca, cert=args.cert, key=args.key)
        if args.token:
            if args.insecure or not tls.ca:
                raise StartError("--token wants --ca: a token in the clear is anybody's", 2)
        elif not tls and not args.insecure and (found := beside_up(args.server, os.environ)):
            tls = found
        else:
            chosen(tls, insecure=args.insecure, what=f"the link to {args.server}")
        return cls(args.server, tls, insecure=args.insecure, token=args.token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def plan(self, request: pb.ApplyRequest) -> pb.PlanResponse:
        """What `apply` would do."""
        return await self._call(self._stub.Plan, request, APPLY_DEADLINE_S)

    async def apply(self, request: pb.ApplyRequest) -> pb.ApplyResponse:
        """Apply; sent again under the same request id while nobody can tell whether it was done."""
        lost = False
        for left in reversed(range(APPLY_TRIES)):
            try:
                return await self._call(self._stub.Apply, request, APPLY_DEADLINE_S)
            except UnreachableError as error:
                lost = lost or isinstance(error, LostError)
                if not left and lost:
                    raise self._unknown(
                        "apply", "gtm plan has nothing to change if it did"
                    ) from error
                if not left:
                    raise
            await asyncio.sleep(RETRY_S)
        raise AssertionError("unreachable")

    async def get(self, kind: str, name: str = "") -> pb.GetResponse:
        """Resources as JSON text."""
        return await self._call(self._stub.Get, pb.GetRequest(kind=kind, name=name))

    async def delete(self, request: pb.DeleteRequest) -> pb.ApplyResponse:
        """Delete one resource."""
        try:
            return await self._call(self._stub.Delete, request, APPLY_DEADLINE_S)
        except LostError as error:
            raise self._unknown("delete", f"gtm get {request.kind} shows what is there") from error

    def _unknown(self, what: str, way: str) -> UnreachableError:
        """What is said of a change of which nobody can tell whether it was made."""
        return UnreachableError(
            f"whether the {what} took effect is unknown, the coordinator at {self.address} was "
            f"lost before it answered: once one can be reached again, {way}"
        )

    async def force(self, request: pb.ForceRequest) -> pb.ForceResponse:
        """Have a force stand."""
        return await self._call(self._stub.Force, request)

    async def release(self, request: pb.ReleaseRequest) -> pb.ReleaseResponse:
        """End a force or a manual failback."""
        return await self._call(self._stub.Release, request)

    async def recent(self, request: pb.RecentRequest) -> AsyncIterator[pb.RecentTarget]:
        """The recent results of a check's targets, one target at a time."""
        async for message in self._stream(self._stub.Recent, request, APPLY_DEADLINE_S):
            yield message

    async def status(self) -> pb.StatusResponse:
        """Members, revisions, alarms."""
        return await self._call(self._stub.Status, pb.StatusRequest())

    async def verdicts(self, filter_: str = "") -> pb.ListVerdictsResponse:
        """Every verdict that `filter_` names, read page by page."""
        whole = pb.ListVerdictsResponse()
        token = ""
        while True:
            request = pb.ListVerdictsRequest(filter=filter_, page_token=token)
            page = await self._call(self._stub.ListVerdicts, request)
            whole.verdicts.extend(page.verdicts)
            if not (token := page.next_page_token):
                return whole

    async def watch(self, filter_: str = "") -> AsyncIterator[pb.WatchVerdictsResponse]:
        """Verdicts as they are, then as they change, until the link breaks."""
        asked = pb.ListVerdictsRequest(filter=filter_)
        async for message in self._stream(self._stub.WatchVerdicts, asked):
            yield message

    async def explain(self, request: pb.ExplainRequest) -> str:
        """The JSON text of an explanation."""
        response: pb.ExplainResponse = await self._call(self._stub.Explain, request)
        return response.json

    async def history(self, request: pb.HistoryRequest) -> pb.HistoryResponse:
        """One part of what changed since a time."""
        return await self._call(self._stub.History, request)

    async def audit(self, seq: int = 0) -> pb.AuditResponse:
        """Entries of the audit trail from `seq` on."""
        return await self._call(self._stub.Audit, pb.AuditRequest(seq=seq))

    async def stored(self) -> AsyncIterator[pb.StoredPart]:
        """Digests of what configuration is stored, part by part."""
        async for part in self._stream(self._stub.Stored, pb.StoredRequest(), APPLY_DEADLINE_S):
            yield part

    async def _stream(
        self,
        method: Callable[..., AsyncIterable[T]],
        request: Any,
        deadline_s: float | None = None,
    ) -> AsyncIterator[T]:
        try:
            async for message in method(request, timeout=deadline_s, metadata=self._shown):
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    async def _call(
        self, method: Callable[..., Awaitable[T]], request: Any, deadline_s: float = DEADLINE_S
    ) -> T:
        try:
            return await method(request, timeout=deadline_s, metadata=self._shown)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    def _error(self, error: grpc.aio.AioRpcError) -> GtmError:
        """The exception that says in one sentence what a failed call means."""
        said = " ".join((error.details() or "").split())
        spoken = SPOKEN[0] in tuple(error.trailing_metadata() or ())
        match error.code():
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED if spoken and said:
                return UnreachableError(said)
            case grpc.StatusCode.UNAVAILABLE:
                lost = not any(words in said.lower() for words in NEVER_SENT)
                why = hint(self._tls) or _why(said, bool(self._tls))
                kind = LostError if lost else UnreachableError
                return kind(
                    f"could not reach a coordinator at {self.address} ({why}); "
                    "start one (gtm up, gtm coordinator) or name one with --server"
                )
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return LostError(
                    f"the coordinator at {self.address} did not answer in time; "
                    "see its log, or name another with --server"
                )
            case grpc.StatusCode.INVALID_ARGUMENT:
                return StartError(said, 2)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return AnswerNo(f"the coordinator at {self.address} refused us: {said}")
            case grpc.StatusCode.UNIMPLEMENTED:
                return UnreachableError(
                    f"what listens at {self.address} is no coordinator of this version; "
                    "name another with --server"
                )
            case grpc.StatusCode.UNKNOWN | grpc.StatusCode.INTERNAL:
                return UnreachableError(
                    f"the coordinator at {self.address} failed ({said or 'no reason given'}); "
                    "see its log"
                )
        return AnswerNo(said or f"the coordinator answered {error.code().name}")


def _checked(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise StartError(f"--server {address!r} is not HOST:PORT such as {DEFAULT_SERVER}", 2)


def _why(said: str, tls: bool) -> str:
    """The telling part of gRPC's words about a link that could not be made."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        why = said.partition("CERTIFICATE_VERIFY_FAILED: ")[2].partition(":")[0]
        return f"--ca does not stand for its certificate: {why[:120] or 'verification failed'}"
    if "Socket closed" in said and tls:
        return "it closed the link: our certificate may not be one that it takes"
    if "Socket closed" in said or "recvmsg" in said:
        return "it closed the link: it may want TLS, see --ca, --cert and --key"
    for words in ("Connection refused", "SSL", "DNS resolution failed"):
        if words in said:
            return {"SSL": "TLS failed"}.get(words, words.lower())
    return said.rpartition(": ")[2][:120] or "no answer"
