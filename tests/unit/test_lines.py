"""Built-in lines: their forms and their precedence."""

import pytest

from gtm.lines import RANK, parse_line

GOOD = ["default", "oversea", "continent:EU", "country:CN", "subdivision:CN-BJ", "asn:4134",
        "isp:telecom", "network:203.0.113.0/24", "network:2001:db8::/32"]  # fmt: skip
BAD = {
    "": "is no line",
    "country": "two capital letters",
    "country:cn": "two capital letters",
    "country:CHN": "two capital letters",
    "continent:XX": "one of AF, AN",
    "subdivision:CN": "such as CN-BJ",
    "asn:0": "no AS number",
    "asn:4294967296": "no AS number",
    "asn:x": "no AS number",
    "isp:nobody": "one of aliyun, cstnet",
    "network:203.0.113.1/24": "host bits set",
    "network:nowhere": "no network",
    "default:x": "is no line",
    "default:": "is no line",
    "the office": "is no line",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_line_prints_as_it_was_written(text: str) -> None:
    assert str(parse_line(text)) == text


@pytest.mark.parametrize(("text", "why"), BAD.items())
def test_what_is_no_line_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_line(text)


def test_an_isp_is_a_list_of_autonomous_systems() -> None:
    assert 4134 in parse_line("isp:telecom").asns
    assert parse_line("asn:4134").asns == (4134,)


def test_precedence_is_networks_then_isp_then_places_then_default() -> None:
    order = sorted(GOOD, key=lambda text: RANK[parse_line(text).kind])
    assert [line.partition(":")[0] for line in order] == [
        "network", "network", "asn", "isp", "subdivision", "country", "oversea", "continent",
        "default",
    ]  # fmt: skip
