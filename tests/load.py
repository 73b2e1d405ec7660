"""A steady, bounded load of queries, each of whose answers is held against what is allowed then.

`Load` asks every server at a fixed rate over UDP. A *picture* says what each question is answered
with; one picture is in force, or two while a change is on its way (`turning` .. `turned`). Between
the two a server may change over once; an old answer after a new one is wrong (a flap), and so is
whatever no picture in force from the question to its answer allows.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from msgspec import Struct

from ctl.digs import in_order, poll

SLOW_S = 0.1
"""An answer that takes longer counts as slow: the machine is shared with all parts and the test."""
PATIENCE_S = 2.0
"""An answer that takes longer counts as none."""
MOST_BEHIND_S = 0.25
"""A load that falls further behind than that leaves questions out; it never makes up in a burst."""
MAX_TOLD = 8
"""Wrong answers of which the text is kept."""
MAX_READ = 4096
"""Replies whose reading is remembered; the id aside there are few different ones."""

Picture = Mapping[str, str]
"""Question -> its one right answer, as `read` writes it."""


def asked(question: str) -> bytes:
    """The query for a question such as `www.example.com A`, with EDNS and the id 0."""
    name, _, qtype = question.partition(" ")
    query = dns.message.make_query(name, qtype, use_edns=0, payload=1232, id=0)
    query.flags &= ~dns.flags.RD
    return query.to_wire()


def read(reply: bytes) -> str:
    """What a reply says: the rcode, then its addresses in order; extended errors are left out."""
    try:
        message = dns.message.from_wire(reply)
    except (dns.exception.DNSException, ValueError) as error:
        return f"unreadable ({error})"
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    found = {
        one.address for rrset in message.answer if rrset.rdtype in kinds for one in rrset
    }  # fmt: skip
    return " ".join([dns.rcode.to_text(message.rcode()), *in_order(found)])


class Counts(Struct):
    """What came of the questions to one server, or to several."""

    asked: int = 0
    answered: int = 0
    wrong: int = 0
    slow: int = 0
    unanswered: int = 0
    gap_s: float = 0.0
    """The longest time from answer to answer."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            asked=self.asked + other.asked,
            answered=self.answered + other.answered,
            wrong=self.wrong + other.wrong,
            slow=self.slow + other.slow,
            unanswered=self.unanswered + other.unanswered,
            gap_s=max(self.gap_s, other.gap_s),
        )


class _Waiting(Struct, frozen=True):
    question: str
    sent: float
    epoch: int


class _Server:
    """One server: its socket, the questions under way, and what came of the others."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.counts = Counts()
        self.waiting: dict[int, _Waiting] = {}
        self.turned: dict[str, float] = {}
        """Question -> when it was first answered as the picture that is coming says."""
        self.heard = time.monotonic()
        self.ids = itertools.cycle(range(1, 65536))
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        host, _, port = address.rpartition(":")
        self.socket.connect((host, int(port)))
        self.socket.setblocking(False)

    def send(self, question: str, query: bytes, now: float, epoch: int) -> None:
        """Ask; where the kernel knows that nobody listens, it is unanswered at once."""
        number = next(self.ids)
        self.counts.asked += 1
        try:
            self.socket.send(struct.pack("!H", number) + query[2:])
        except OSError:
            self.counts.unanswered += 1
        else:
            self.waiting[number] = _Waiting(question, now, epoch)

    def give_up(self, now: float) -> None:
        """What has waited too long is unanswered."""
        for number, one in list(self.waiting.items()):
            if now - one.sent < PATIENCE_S:
                break  # the others were asked later
            del self.waiting[number]
            self.counts.unanswered += 1


class Load:
    """`with Load(servers, picture, rate) as load:` asks from then on, at most for `limit_s`."""

    def __init__(
        self, servers: Sequence[str], picture: Picture, rate: float = 200.0, limit_s: float = 900.0
    ) -> None:
        self.told: list[str] = []
        """The first wrong answers, in words."""
        self._queries = [(question, asked(question)) for question in picture]
        self._epochs: list[tuple[Picture, ...]] = [(picture,)]
        self._servers = {address: _Server(address) for address in servers}
        self._pause_s, self._limit_s = 1.0 / rate, limit_s
        self._readings: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        for server in self._servers.values():
            server.socket.close()

    # ---- what is allowed -----------------------------------------------------------------------

    def turning(self, *pictures: Picture) -> None:
        """From now on the answers may change to those of `pictures`, one after the other."""
        with self._lock:
            self._epochs.append((*self._epochs[-1], *pictures))
            for server in self._servers.values():
                server.turned = {}

    def turned(self) -> None:
        """The last picture alone is right from now on."""
        with self._lock:
            self._epochs.append(self._epochs[-1][-1:])

    def arrives(self, deadline_s: float, servers: Sequence[str] = ()) -> float | None:
        """Wait until `servers` (all) give the last picture, then `turned`; seconds, None: late."""
        took_s = poll(lambda: self.shows(servers), deadline_s, 0.005)
        if took_s is not None:
            self.turned()
        return took_s

    def shows(self, servers: Sequence[str] = ()) -> bool:
        """Whether `servers` (all) have answered every question as the last picture says."""
        with self._lock:
            before, after = self._epochs[-1][0], self._epochs[-1][-1]
            changed = [one for one in after if before[one] != after[one]]
            return all(
                question in self._servers[server].turned
                for server in servers or self._servers
                for question in changed
            )

    # ---- what was seen -------------------------------------------------------------------------

    def counts(self, *servers: str) -> Counts:
        """The counts of `servers`, or of all."""
        if self._failure is not None:
            raise AssertionError("the load broke") from self._failure
        with self._lock:
            chosen = [self._servers[server].counts for server in servers or self._servers]
            return sum(chosen, Counts())

    def heard(self, server: str) -> float:
        """The monotonic instant of the last answer of `server`."""
        return self._servers[server].heard

    # ---- asking --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._ask()
        except BaseException as error:
            self._failure = error

    def _ask(self) -> None:
        began = due = time.monotonic()
        questions = itertools.cycle(self._queries)
        with selectors.DefaultSelector() as selector:
            for server in self._servers.values():
                server.heard = began
                selector.register(server.socket, selectors.EVENT_READ, server)
            while not self._ends.is_set() and (now := time.monotonic()) - began < self._limit_s:
                if now >= due:
                    question, query = next(questions)
                    with self._lock:
                        epoch = len(self._epochs) - 1
                        for server in self._servers.values():
                            server.give_up(now)
                            server.send(question, query, now, epoch)
                    due = max(due + self._pause_s, now - MOST_BEHIND_S)
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    self._take(key.data)
            # What is under way when all ends gets its time.
            end = time.monotonic() + PATIENCE_S
            while any(one.waiting for one in self._servers.values()) and time.monotonic() < end:
                for key, _ in selector.select(0.05):
                    self._take(key.data)
                now = time.monotonic()
                with self._lock:
                    for server in self._servers.values():
                        server.give_up(now)

    def _take(self, server: _Server) -> None:
        while True:
            try:
                reply = server.socket.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                return  # nobody listens; what was asked stays unanswered
            now = time.monotonic()
            with self._lock:
                self._judge(server, reply, now)

    def _judge(self, server: _Server, reply: bytes, now: float) -> None:
        waiting = server.waiting.pop(int.from_bytes(reply[:2], "big"), None)
        if waiting is None:
            return  # too late: it is counted
        counts = server.counts
        counts.answered += 1
        counts.slow += now - waiting.sent > SLOW_S
        counts.gap_s = max(counts.gap_s, now - server.heard)
        server.heard = now
        said = self._said(reply)
        question = waiting.question
        epochs = self._epochs[waiting.epoch :]
        allowed = [picture[question] for epoch in epochs for picture in epoch]
        newest = self._epochs[-1]
        back = (
            said != newest[-1][question]
            and question in server.turned
            and waiting.sent > server.turned[question]
        )
        if said not in allowed or back:
            counts.wrong += 1
            if len(self.told) < MAX_TOLD:
                why = "again, after" if back else "instead of"
                right = " or ".join(sorted({*allowed}))
                self.told.append(f"{server.address} {question}: {said} {why} {right}")
        elif said == newest[-1][question] and waiting.epoch == len(self._epochs) - 1:
            server.turned.setdefault(question, now)

    def _said(self, reply: bytes) -> str:
        key = reply[2:]
        said = self._readings.get(key)
        if said is None:
            if len(self._readings) >= MAX_READ:
                self._readings.clear()
            said = self._readings[key] = read(reply)
        return said
