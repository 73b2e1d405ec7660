"""Who is calling, and whether they may: certificates and tokens against what each call needs.

Stands before every service of the coordinator. A caller is proved by the client certificate of
its link (an identity in it, see `gtm.tls_identity`) or, at the operators' door, by a token. On a
link in the clear nobody is proved and everybody may do everything: that is what --insecure means.
Refused calls are counted, logged once per caller and cause, and handed to the audit trail. Never
looks into a request; whether an agent's hello fits its certificate is asked by the gateway.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal

import grpc
import grpc.aio
from msgspec import Struct

from gtm import links
from gtm.grpc_log import Failure
from gtm.telemetry import transition
from gtm.tls_files import life
from gtm.tls_identity import Role, allows, parse

from . import metrics
from .tokens import Tokens

Who = Literal["agent", "coordinator", "resolver", "operator", "anybody"]

AGAIN_S = 600.0
"""The same refusal of the same caller is logged and audited again after so long."""
MAX_REMEMBERED = 1_000
"""Refusals that are remembered for that."""
TOKEN_KEY = "authorization"
"""The metadata that carries `Bearer TOKEN` (RFC 6750, section 2.1)."""

OPERATOR = "/gtm.v1.Operator/"
ROLE_OF: Mapping[str, Role] = {
    "Get": "read",
    "Status": "read",
    "Plan": "read",
    "ListVerdicts": "read",
    "WatchVerdicts": "read",
    "Explain": "read",
    "History": "read",
    "Recent": "read",
    "Audit": "read",
    "Stored": "read",
    "Force": "operate",
    "Release": "operate",
    "Apply": "admin",
    "Delete": "admin",
}
"""What a method of `Operator` needs; one that is not here needs admin."""
KIND_OF: Mapping[str, Who] = {
    "/gtm.v1.Agents/Connect": "agent",
    "/gtm.v1.Replicas/Report": "resolver",
}
FOR_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""What everybody may call who is somebody."""

log = logging.getLogger("coordinator")


class Caller(Struct, frozen=True, kw_only=True):
    """Who calls; `kind` is `anybody` in the clear.

    `since` and `until` are the certificate's life as Unix time; 0 without one.
    """

    name: str = ""
    kind: Who = "anybody"
    role: Role | None = None
    region: str = ""
    since: float = 0.0
    until: float = 0.0

    def who(self, said: str = "") -> str:
        """The text for forces and the audit trail: what is proved, else what the caller said."""
        if self.kind == "anybody":
            return said
        return self.name if self.kind == "operator" else str(self)

    def __str__(self) -> str:
        return " ".join((self.kind, "/".join(filter(None, (self.region, self.name))))).strip()


ANYBODY = Caller()
_calling: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


class Refusal(Struct, frozen=True, kw_only=True):
    """A call that was refused: by whom (as far as is known), from where, which, and why."""

    who: str
    peer: str
    method: str
    reason: str
    sentence: str


def caller_of(context: Any) -> Caller:
    """Who makes the call of `context`; ANYBODY where no check stands before the service."""
    return _calling.get()


def who(context: Any, said: str) -> str:
    """Who is to be named for what a call changes; `said` counts only where nobody is proved."""
    return caller_of(context).who(said)


def misfit(caller: Caller, region: str, agent: str) -> str:
    """Why an agent's certificate does not fit its hello, in a sentence; "" where it does."""
    if caller.kind != "agent":
        return ""
    if caller.region.lower() != region.lower():
        return f"its certificate is for region {caller.region}, it may not vote for {region}"
    if caller.name and caller.name != agent:
        return f"its certificate is for agent {caller.name}, it may not speak for {agent}"
    return ""


class Denied(Exception):
    """A call must not be made: a status code, a word for the metrics, a sentence.

    A service may raise it too, where only the request shows it.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.reason, self.sentence = code, reason, sentence


class Refusals:
    """Counts refusals; logs and audits each kind of them once in a while."""

    def __init__(
        self,
        audit: Callable[[Refusal], None] = lambda refusal: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.audit = audit
        self._monotonic = monotonic
        self._told: dict[tuple[str, str, str], float] = {}

    def note(self, refusal: Refusal) -> None:
        """A call was refused."""
        metrics.REFUSED_CALLS.labels(refusal.reason).inc()
        self._once(refusal)

    def _once(self, refusal: Refusal) -> None:
        known = refusal.who or refusal.peer.rpartition(":")[0]  # a port is no caller
        key, now = (known, refusal.method, refusal.sentence), self._monotonic()
        if now - self._told.get(key, -AGAIN_S) < AGAIN_S:
            return
        self._told.pop(key, None)
        if len(self._told) >= MAX_REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[key] = now
        transition(
            log,
            "refused",
            logging.WARNING,
            who=refusal.who or "unknown",
            peer=refusal.peer,
            method=refusal.method,
            why=refusal.sentence,
        )
        self.audit(refusal)

    def handshake(self, failure: Failure) -> None:
        """A TLS handshake failed; TLS does not say whose."""
        metrics.HANDSHAKES.labels(failure.reason).inc()
        sentence = f"it showed {failure.shown}"
        self._once(Refusal(who="", peer="", method="TLS", reason=failure.reason, sentence=sentence))


class Callers(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets a call through to its service only if its caller is proved and may make it.

    `clear`: the links have no TLS, so nobody is proved.
    """

    def __init__(self, tokens: Tokens, refusals: Refusals, *, clear: bool) -> None:
        self._tokens, self._refusals, self._clear = tokens, refusals, clear

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """The handler of a call, behind its check."""
        handler = await continuation(details)
        if handler is None:
            return None
        kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        kind = next(kind for kind in kinds if getattr(handler, kind) is not None)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        token = _bearer(details.invocation_metadata)
        return make(
            self._guarded(getattr(handler, kind), details.method, token),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _guarded(self, inner: Any, method: str, token: str) -> Any:
        if inspect.isasyncgenfunction(inner):

            @functools.wraps(inner)
            async def generated(request: Any, context: Any) -> Any:
                await self._admit(context, method, token)
                async for answer in inner(request, context):
                    yield answer

            return generated

        @functools.wraps(inner)
        async def called(request: Any, context: Any) -> Any:
            caller = await self._admit(context, method, token)
            left_s = caller.until - time.time() if caller.until else None
            try:
                async with asyncio.timeout(left_s):
                    answer = inner(request, context)
                    return await answer if inspect.isawaitable(answer) else answer
            except Denied as denied:
                return await self._refuse(context, method, str(caller), denied)
            except TimeoutError:
                if left_s is None or time.time() < caller.until:
                    raise
            ended = Denied(
                grpc.StatusCode.UNAUTHENTICATED, "expired", "its certificate has ended: renew it"
            )
            return await self._refuse(context, method, str(caller), ended)

        return called

    async def _admit(self, context: Any, method: str, token: str) -> Caller:
        caller = ANYBODY
        try:
            caller = self._proved(context, token)
            permitted(caller, method)
        except Denied as denied:
            proved = "" if caller is ANYBODY else str(caller)
            await self._refuse(context, method, proved, denied)
        _calling.set(caller)
        return caller

    async def _refuse(self, context: Any, method: str, who: str, denied: Denied) -> Any:
        refusal = Refusal(
            who=who,
            peer=context.peer(),
            method=method.rpartition("/")[2],
            reason=denied.reason,
            sentence=denied.sentence,
        )
        self._refusals.note(refusal)
        await context.abort(denied.code, denied.sentence, trailing_metadata=links.SPOKEN)

    def _proved(self, context: Any, token: str) -> Caller:
        """Who calls. Raises Denied."""
        if self._clear:
            return ANYBODY
        shown = context.auth_context()
        if pem := shown.get("x509_pem_cert"):
            return _certified(tuple(shown.get("peer_uri", ())), pem[0])
        if not token:
            raise Denied(
                grpc.StatusCode.UNAUTHENTICATED, "nobody", "neither a certificate nor a token"
            )
        holder = self._tokens.holder(token)
        if holder is None:
            raise Denied(grpc.StatusCode.UNAUTHENTICATED, "token", "the token is not known here")
        return Caller(kind="operator", name=holder.name, role=holder.role)


def permitted(caller: Caller, method: str) -> None:
    """Raise Denied unless `caller` may call `method`, a path such as /gtm.v1.Operator/Get."""
    if caller.kind == "anybody" or method.startswith(FOR_ALL):
        return
    needed = KIND_OF.get(method)
    if needed is not None:
        if caller.kind != needed:
            raise _denied("kind", f"{_a(caller.kind)} may not do what is {_a(needed)}'s")
        return
    role = ROLE_OF.get(method.removeprefix(OPERATOR), "admin")
    if caller.kind != "operator" or caller.role is None:
        if caller.kind == "coordinator" and role == "read":
            return
        raise _denied("kind", f"{_a(caller.kind)} may not do what is an operator's")
    if not allows(caller.role, role):
        raise _denied("role", f"{caller.name} has the role {caller.role}, this needs {role}")


def _denied(reason: str, sentence: str) -> Denied:
    return Denied(grpc.StatusCode.PERMISSION_DENIED, reason, sentence)


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


@functools.lru_cache(maxsize=4_096)
def _certified(uris: tuple[bytes, ...], pem: bytes) -> Caller:
    """Whom a certificate names that the link has verified already. Raises Denied."""
    found = [uri.decode(errors="replace") for uri in uris if uri.startswith(b"gtm:")]
    if len(found) != 1:
        raise Denied(
            grpc.StatusCode.UNAUTHENTICATED,
            "identity",
            f"its certificate has {len(found)} identities of the form gtm://KIND/NAME, not one",
        )
    try:
        identity = parse(found[0])
    except ValueError as error:
        raise Denied(grpc.StatusCode.UNAUTHENTICATED, "identity", str(error)) from None
    if identity.kind == "etcd":
        raise _denied("kind", "an etcd may not call a coordinator")
    since, until = life(pem)
    return Caller(
        name=identity.name,
        kind=identity.kind,
        role=identity.role,
        region=identity.region,
        since=since,
        until=until,
    )


def _bearer(metadata: Any) -> str:
    for key, value in metadata or ():
        if key == TOKEN_KEY and isinstance(value, str) and value.lower().startswith("bearer "):
            return value[7:].strip()
    return ""
