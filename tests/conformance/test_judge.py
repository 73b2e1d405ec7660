"""The judge sees what differs, and no reason explains away a wrong answer."""

from __future__ import annotations

from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from tests.conformance import explained, judge
from tests.conformance.questions import Dice, Question

Message = dns.message.Message


def reply(change: Callable[[Message], object] = lambda message: None) -> judge.Seen:
    """A good reply to www.conf.test A, changed."""
    message = dns.message.make_response(dns.message.make_query("www.conf.test", "A"))
    message.flags |= dns.flags.AA
    message.answer = [dns.rrset.from_text("www.conf.test.", 300, "IN", "A", "192.0.2.80")]
    change(message)
    return judge.read(message.to_wire())


def other_answer(message: Message) -> None:
    message.answer = [dns.rrset.from_text("www.conf.test.", 300, "IN", "A", "192.0.2.81")]


def other_ttl(message: Message) -> None:
    message.answer[0].ttl = 299


def more(message: Message) -> None:
    message.answer.append(dns.rrset.from_text("www.conf.test.", 300, "IN", "TXT", "x"))


def referral(message: Message) -> None:
    message.answer = []
    message.authority = [dns.rrset.from_text("conf.test.", 300, "IN", "NS", "ns1.conf.test.")]


CHANGES = [
    (other_answer, {"answer"}),
    (other_ttl, {"answer"}),
    (more, {"answer"}),
    (referral, {"answer", "authority"}),
    (lambda message: message.set_rcode(dns.rcode.NXDOMAIN), {"rcode"}),
    (lambda message: message.set_rcode(dns.rcode.SERVFAIL), {"rcode"}),
    (lambda message: setattr(message, "flags", message.flags ^ dns.flags.AA), {"flag aa"}),
    (lambda message: setattr(message, "flags", message.flags ^ dns.flags.RA), {"flag ra"}),
    (lambda message: message.use_edns(0), {"edns"}),
]


@pytest.mark.parametrize(("change", "fields"), CHANGES)
def test_a_wrong_answer_is_seen_and_not_explained(
    change: Callable[[Message], object], fields: set[str]
) -> None:
    good, wrong = reply(), reply(change)
    question = Question(dns.name.from_text("www.conf.test"), 1, True, None, False, 0)
    for peer in ("knot", "bind"):
        both = explained.Both(question, peer, wrong, good, wrong, good)
        found = judge.differences(wrong, good)
        assert found == fields
        assert explained.explain(both, found) == ([], frozenset(fields))


def test_the_order_and_case_of_records_do_not_count() -> None:
    def shuffled(message: Message) -> None:
        message.answer = [dns.rrset.from_text("WWW.conf.TEST.", 300, "IN", "A", "192.0.2.80")]

    assert judge.differences(reply(), reply(shuffled)) == frozenset()


def test_a_seed_gives_the_same_questions_again() -> None:
    first, second, third = Dice(7), Dice(7), Dice(8)
    questions = [first.question() for _ in range(300)]
    assert questions == [second.question() for _ in range(300)]
    assert questions != [third.question() for _ in range(300)]
    types = {question.qtype for question in questions}
    assert {1, 2, 5, 15, 16, 28, 33, 43, 255} <= types
    assert {question.tcp for question in questions} == {True, False}
    assert {question.do for question in questions} == {True, False}
    assert {None, 512, 1232, 4096} <= {question.payload for question in questions}
    assert any(dns.rdatatype.is_metatype(qtype) for qtype in types)
