"""How the RFC cases are asked: words, bytes, tools and scenes over TCP, each giving lines.

A question in words is `NAME TYPE` and options: +tcp, +rd, +ad, +cd, +hs (class), +edns (or any that
needs it), +do, +bufsize=N, +nsid, +keepalive, +ecs=NETWORK; +short counts the records.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest

from tests.conformance.servers import HOST, Client, Server

SILENCE_S = 0.3
"""How long silence is waited for; a question behind it proves that the server answers."""
PLAIN = ("tcp", "rd", "ad", "cd", "hs", "edns", "do", "nsid", "keepalive", "short")


def ask(server: Server, asked: str | bytes) -> list[str]:
    """What is seen when a case is asked."""
    if isinstance(asked, bytes):
        return _raw(server, asked)
    tool, _, rest = asked.partition(" ")
    if tool in ("dig", "kdig"):
        return [_tool(server, tool, rest)]
    if tool == "scene":
        return SCENES[rest](server)
    return _words(server, asked)


def _words(server: Server, asked: str) -> list[str]:
    name, kind, *options = asked.split()
    flags = {option[1:] for option in options if "=" not in option}
    values = dict(option[1:].split("=", 1) for option in options if "=" in option)
    assert flags <= set(PLAIN), asked
    assert values.keys() <= {"bufsize", "ecs"}, asked
    query = dns.message.make_query(
        dns.name.from_text(name),
        kind,
        dns.rdataclass.HS if "hs" in flags else dns.rdataclass.IN,
        flags=sum(getattr(dns.flags, flag.upper()) for flag in flags & {"rd", "ad", "cd"}),
    )
    extra: list[dns.edns.Option] = []
    if "nsid" in flags:
        extra.append(dns.edns.GenericOption(dns.edns.NSID, b""))
    if "keepalive" in flags:
        extra.append(dns.edns.GenericOption(11, b""))
    if "ecs" in values:
        address, _, length = values["ecs"].partition("/")
        extra.append(dns.edns.ECSOption(address, int(length)))
    if extra or values or flags & {"edns", "do"}:
        payload = int(values.get("bufsize", 1232))
        query.use_edns(0, dns.flags.DO if "do" in flags else 0, payload, options=extra)
    client = Client(server)
    try:
        # Not dnspython's way of sending: it would refuse or repeat what we want to see.
        reply = client.ask(query.to_wire(), tcp="tcp" in flags)
    finally:
        client.close()
    message = dns.message.from_wire(reply)
    assert message.id == query.id
    assert message.question == query.question
    assert message.question[0].name.labels == query.question[0].name.labels
    return lines(message, short="short" in flags)


def lines(message: dns.message.Message, *, short: bool = False) -> list[str]:
    """A reply as lines: flags and rcode, records by section, then what its OPT says."""
    bits = [
        flag
        for flag in ("AA", "TC", "RD", "RA", "AD", "CD")
        if message.flags & dns.flags.Flag[flag]
    ]
    head = [flag.lower() for flag in bits]
    if message.opcode():
        head.append(f"opcode {int(message.opcode())}")
    if message.flags & 0x40:
        head.append("reserved bit")
    found = [" ".join([*head, dns.rcode.to_text(message.rcode())])]
    records = []
    for mark, section in zip("=^+", message.sections[1:], strict=True):
        for rrset in section:
            kind = dns.rdatatype.to_text(rrset.rdtype)
            for data in rrset:
                row = f"{mark} {rrset.name} {rrset.ttl} {kind} {data}"
                records.append(row.partition(" SOA ")[0] + " SOA" if kind == "SOA" else row)
    found += [f"{len(records)} records"] if short else records
    if message.edns >= 0:
        version = f"opt {message.payload}" + (f" version {message.edns}" if message.edns else "")
        rest = message.ednsflags & 0x7FFF
        found.append(
            version
            + (" do" if message.ednsflags & dns.flags.DO else "")
            + (f" flags {rest:#x}" if rest else "")
        )
        found += [_option(option) for option in message.options]
    return found


def _option(option: dns.edns.Option) -> str:
    if isinstance(option, dns.edns.EDEOption):
        return f"ede {int(option.code)}"
    if isinstance(option, dns.edns.ECSOption):
        return f"ecs {option.address}/{option.srclen} scope {option.scopelen}"
    if option.otype == dns.edns.NSID:
        return f"nsid {option.to_wire().decode()}"
    if int(option.otype) == 11:
        return f"keepalive {int.from_bytes(option.to_wire(), 'big')}"
    return f"option {int(option.otype)}"


def _raw(server: Server, asked: bytes) -> list[str]:
    """Bytes over UDP; behind them a good question, so that silence is told from a late answer."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect((HOST, server.port))
        sock.settimeout(3)
        sock.send(asked)
        probe = dns.message.make_query("www.conf.test", "A", id=0x4321)
        sock.send(probe.to_wire())
        first = sock.recv(65535)
        if first[:2] == b"\x43\x21":
            sock.settimeout(SILENCE_S)
            try:
                sock.recv(65535)
            except TimeoutError:
                return ["silence"]
            return ["an answer behind the next one"]
        assert first[:2] == asked[:2]
        assert sock.recv(65535)[:2] == b"\x43\x21"
    return lines(dns.message.from_wire(first))


def _tool(server: Server, tool: str, arguments: str) -> str:
    """What dig or kdig prints; the test is skipped where there is none."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing (Debian: bind9-dnsutils, knot-dnsutils)")
    words = shlex.split(arguments.replace("ZONE", "conf.test"))
    done = subprocess.run(
        [tool, f"@{HOST}", "-p", str(server.port), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr


# ---- scenes over TCP ---------------------------------------------------------------------------


def _query(ident: int, name: str = "www.conf.test") -> bytes:
    wire = dns.message.make_query(name, "A", id=ident).to_wire()
    return struct.pack(">H", len(wire)) + wire


def _read(sock: socket.socket) -> dns.message.Message | None:
    """The next reply on a connection; None at its end."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        size = 2 if len(data) < 2 else 2 + int.from_bytes(data[:2], "big")
        more = sock.recv(size - len(data))
        if not more:
            assert not data, "the connection ended inside a reply"
            return None
        data += more
    return dns.message.from_wire(data[2:])


def _connected(server: Server) -> socket.socket:
    return socket.create_connection((HOST, server.port), timeout=5)


def _pipelined(server: Server) -> list[str]:
    with _connected(server) as sock:
        sock.sendall(b"".join(_query(number) for number in range(50)))
        replies = [_read(sock) for _ in range(50)]
    good = {reply.id for reply in replies if reply is not None and reply.answer}
    return [f"{len(good)} answers"]


def _piecemeal(server: Server) -> list[str]:
    with _connected(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in _query(7):
            sock.sendall(bytes((octet,)))
        reply = _read(sock)
    assert reply is not None
    return lines(reply)


def _half_closed(server: Server) -> list[str]:
    with _connected(server) as sock:
        sock.sendall(_query(1) + _query(2))
        sock.shutdown(socket.SHUT_WR)
        replies = [_read(sock), _read(sock)]
        end = _read(sock)
    assert end is None
    return [f"{sum(reply is not None for reply in replies)} answers, then the end"]


def _another(server: Server) -> list[str]:
    """A malformed query does not end the connection."""
    broken = struct.pack(">H", 12) + struct.pack(">6H", 1, 0, 1, 0, 0, 0)
    with _connected(server) as sock:
        sock.sendall(broken + _query(2))
        replies = [_read(sock), _read(sock)]
    return [dns.rcode.to_text(reply.rcode()) for reply in replies if reply is not None]


def _no_length(server: Server) -> list[str]:
    with _connected(server) as sock:
        sock.sendall(b"\0\0")
        try:
            return ["the end" if _read(sock) is None else "a reply"]
        except ConnectionResetError:
            return ["the end"]


def _one_segment(server: Server) -> list[str]:
    """Length and message come together, where one read may take all."""
    with _connected(server) as sock:
        sock.sendall(_query(3))
        data = sock.recv(65535)
    return ["together" if len(data) == 2 + int.from_bytes(data[:2], "big") else "apart"]


SCENES: dict[str, Callable[[Server], list[str]]] = {
    "pipelined": _pipelined,
    "piecemeal": _piecemeal,
    "half closed": _half_closed,
    "another": _another,
    "no length": _no_length,
    "one segment": _one_segment,
}
