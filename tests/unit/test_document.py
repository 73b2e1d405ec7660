"""Documents as nodes: the YAML 1.2 core schema, JSON by its own rules, and every bound."""

from __future__ import annotations

import math

import pytest

from gtm import document
from gtm.document import Unreadable, from_bytes, from_plain

SCALARS = [
    ("NO", "NO"), ("yes", "yes"), ("on", "on"), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"),
    ("1_000", "1_000"), ("0b11", "0b11"), ("0x1F", 31), ("0o17", 15), ("010", 10), ("-7", -7),
    ("+1", 1), ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("-.inf", -math.inf),
    ("true", True), ("False", False), ("tRUE", "tRUE"), ("~", None), ("null", None), ("", None),
    ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("50%", "50%"), ("=", "="),
    ("9" * 41, "9" * 41), ("- x", ["x"]), ("{}", {}), ("[]", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_plain_scalar_is_what_the_core_schema_says(text: str, value: object) -> None:
    (node,) = from_bytes(f"- {text}".encode())
    found = node.plain()[0]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number_of_its_own() -> None:
    (node,) = from_bytes(b"a: .NaN")
    assert math.isnan(node.plain()["a"])


def test_lines_are_those_of_keys_and_items() -> None:
    (node,) = from_bytes(b"# first\na:\n  b:\n    - 1\n    - 2\n")
    assert node.entries is not None
    a = node.entries[0]
    assert a.line == 2
    assert a.node.entries is not None
    b = a.node.entries[0]
    assert b.line == 3
    assert [item.line for item in b.node.items or ()] == [4, 5]


JSON = [
    ('{"a":\t1}', {"a": 1}),
    ('{\n\t"a": [1,\t2]\n}', {"a": [1, 2]}),
    ('{"a": "x\\ty\\/z"}', {"a": "x\ty/z"}),
    ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ('{"a": "\\\\ud83d\\\\ude00"}', {"a": "\\ud83d\\ude00"}),
    ('{"a": "NO", "b": true, "c": null, "d": 1.5e3}', {"a": "NO", "b": True, "c": None, "d": 1500}),
    ('{"a": "\u2028\x7f"}', {"a": "\u2028\x7f"}),
    ('{"a": "# no comment", "b": "*x"}', {"a": "# no comment", "b": "*x"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), JSON)
def test_json_is_read_by_its_own_rules(text: str, value: object) -> None:
    (node,) = from_bytes(text.encode(), is_json=True)
    assert node.plain() == value


NOT_JSON = [
    ('{"a": 1,}', "is not JSON: "), ("a: 1", "is not JSON: "), ('{"a": NaN}', "no JSON number"),
    ("[" * 100_000, "deeper"), ('{"a": "\\ud83d"}', "is not YAML"), ("", "is not JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), NOT_JSON)
def test_what_is_no_json_is_refused_in_one_sentence(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        from_bytes(text.encode(), is_json=True)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line() -> None:
    with pytest.raises(Unreadable, match="UTF-8") as caught:
        from_bytes(b"a: 1\nb: \xff\n")
    assert caught.value.line == 2


def test_a_control_character_is_refused_with_its_line() -> None:
    with pytest.raises(Unreadable, match="control characters") as caught:
        from_bytes("ä: 1\nb: \x01\n".encode())
    assert caught.value.line == 2


def test_a_byte_order_mark_is_passed_over() -> None:
    assert from_bytes(b"\xef\xbb\xbfa: 1")[0].plain() == {"a": 1}


def test_a_file_over_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_DOCUMENT_BYTES", 2**20)
    from_bytes(b"#" * 2**20)
    with pytest.raises(Unreadable, match="larger than 1 MiB"):
        from_bytes(b"#" * (2**20 + 1))


def test_nesting_over_the_bound_is_refused() -> None:
    deep = document.MAX_DEPTH
    from_bytes(b"[" * deep + b"]" * deep)
    for refused in (b"[" * (deep + 1) + b"]" * (deep + 1), b"[" * 100_000, b"{a: " * 100_000):
        with pytest.raises(Unreadable, match="deeper"):
            from_bytes(refused)
    nested: object = 1
    for _ in range(deep):
        nested = [nested]
    from_plain(nested)
    with pytest.raises(Unreadable, match="deeper"):
        from_plain([nested])


def test_nodes_over_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 100)
    from_bytes(b"[" + b"1," * 99 + b"]")
    with pytest.raises(Unreadable, match="more than 100 values"):
        from_bytes(b"[" + b"1," * 101 + b"]")
    with pytest.raises(Unreadable, match="more than 100 values"):
        from_plain([1] * 101)


def test_aliases_that_multiply_are_refused_before_they_do() -> None:
    levels = ["l0: &l0 [1,1,1,1,1,1,1,1,1,1]"]
    levels += [f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 20)]
    with pytest.raises(Unreadable, match="values; split it"):
        from_bytes("\n".join(levels).encode())


def test_aliases_over_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_ALIASES", 3)
    from_bytes(b"[&a 1, *a, *a, *a]")
    with pytest.raises(Unreadable, match="more than 3 aliases"):
        from_bytes(b"[&a 1, *a, *a, *a, *a]")


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    with pytest.raises(Unreadable, match="no anchor"):
        from_bytes(b"a: &a [*a]")


@pytest.mark.parametrize("data", [{1: 2}, {"a": object()}, {"a": b"x"}, {"a": {3: 4}}])
def test_plain_data_that_is_not_json_is_refused(data: object) -> None:
    with pytest.raises(Unreadable):
        from_plain(data)
