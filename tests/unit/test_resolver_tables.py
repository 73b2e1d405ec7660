"""Tables of clients are made once, and no more of them are remembered than the bound."""

from __future__ import annotations

import pytest

from resolver import tables
from resolver.clients import Client
from resolver.place import Place
from resolver.tables import Tables
from tests.worlds import geography

WHERE = geography({"10.0.0.0/8": Place(continent="EU", country="DE")})


def test_the_same_question_is_answered_once() -> None:
    asked: list[Client] = []

    def country(client: Client) -> str:
        asked.append(client)
        return client.place.country

    made = Tables(WHERE, {})
    table, outcomes = made.table("country", (), country)
    assert [outcomes[table.find(bytes([first, 0, 0, 1]))[0]] for first in (10, 11)] == ["DE", ""]
    assert made.table("country", (), country) == (table, outcomes)
    assert len(asked) == 2


def test_the_least_used_tables_go_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLES", 3)
    made = Tables(WHERE, {})
    first = [made.table(key, (), lambda client: 0)[0] for key in "abc"]
    assert made.table("a", (), lambda client: 0)[0] is first[0]
    made.table("d", (), lambda client: 0)
    assert made.table("a", (), lambda client: 0)[0] is first[0]
    assert made.table("b", (), lambda client: 0)[0] is not first[1]
