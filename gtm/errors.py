"""The few exceptions of Meridian GTM.

Expected outcomes are values (a verdict, an rcode, a list of problems); these are for the rest.

    GtmError
    ├── StartError            a part cannot start: one sentence that says what to do
    ├── RefusedError          input is refused; carries every problem found
    ├── UnreachableError      a part that was asked did not answer
    └── StoreError
        ├── StoreUnavailable  no endpoint answered; the request surely did not take effect
        ├── OutcomeUnknown    the request may or may not have taken effect: read before writing
        ├── StoreDenied       wrong user, password or permission
        ├── Compacted         the revision asked for is gone
        ├── NoSpace           the store's quota is used up
        └── LeaseLost         the lease is over, or may be
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtm.ports import Problem


class GtmError(Exception):
    """The root of every exception that Meridian GTM raises on purpose."""


class StartError(GtmError):
    """A part cannot start; the text is one sentence that says what to do; `status` is the exit."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class RefusedError(GtmError):
    """Input was refused as a whole; `problems` lists everything that was wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class UnreachableError(GtmError):
    """A part that was asked (a coordinator, a resolver) could not be reached."""


class StoreError(GtmError):
    """Something went wrong between us and the store."""


class StoreUnavailable(StoreError):
    """No endpoint answered; what was asked surely did not take effect."""


class OutcomeUnknown(StoreError):
    """The link broke after a write was sent: it may or may not have taken effect, or may yet.

    A member that stood still reads what it was sent when it goes on: after later writes, which only
    a compare of revisions guards.
    """


class StoreDenied(StoreError):
    """The store refused the user, the password or the permission."""


class Compacted(StoreError):
    """The revision asked for was compacted away; `revision` is the oldest one that is left."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted: the oldest revision left is {revision}")
        self.revision = revision


class NoSpace(StoreError):
    """The store's quota is used up; it refuses writes until space is made."""


class LeaseLost(StoreError):
    """The lease has ended, or may have: what it guarded must not be relied on."""
