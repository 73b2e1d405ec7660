"""Who may speak in the clear, and links with TLS."""

from pathlib import Path

import grpc
import pytest
import trustme

from gtm import links
from gtm.errors import StartError
from gtm.v1 import operator_pb2, operator_pb2_grpc


class Answering(operator_pb2_grpc.OperatorServicer):
    async def Status(self, request: object, context: object) -> operator_pb2.StatusResponse:
        return operator_pb2.StatusResponse(coordinator_id="c1")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("192.0.2.1:1", False),
        ("[2001:db8::1]:1", False),
        ("coordinator:1", False),
        ("0.0.0.0:1", False),
    ],
)
def test_loopback_is_told_from_the_rest(address: str, loopback: bool) -> None:
    assert links.is_loopback(address) is loopback


async def test_a_link_in_the_clear_beyond_loopback_is_refused_unless_told() -> None:
    with pytest.raises(StartError, match="--insecure") as refused:
        links.channel("192.0.2.1:7400", links.Tls())
    assert refused.value.status == 2
    with pytest.raises(StartError, match="in the clear beyond loopback"):
        links.listen(links.server(), "0.0.0.0:0", links.Tls())
    server = links.server()
    assert links.listen(server, "0.0.0.0:0", links.Tls(), insecure=True) > 0
    await server.stop(None)


@pytest.mark.parametrize("address", ["nope", "host:", ":7400", "host:0", "host:70000", "::1"])
async def test_what_is_no_address_is_told_before_anybody_is_called(address: str) -> None:
    with pytest.raises(StartError, match="is not HOST:PORT") as refused:
        links.channel(address, links.Tls(), insecure=True)
    assert refused.value.status == 2


async def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot read .*missing\.pem: No such file"):
        links.channel("127.0.0.1:1", links.Tls(ca=str(tmp_path / "missing.pem")))


async def test_a_taken_port_is_one_sentence() -> None:
    first = links.server()
    port = links.listen(first, "127.0.0.1:0", links.Tls())
    await first.start()
    try:
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            links.listen(links.server(), f"127.0.0.1:{port}", links.Tls())
    finally:
        await first.stop(None)


async def test_with_a_ca_both_sides_must_show_a_certificate(tmp_path: Path) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    names = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    ca.cert_pem.write_to_path(names["ca"])
    issued.private_key_and_cert_chain_pem.write_to_path(names["cert"])
    issued.private_key_pem.write_to_path(names["key"])
    server = links.server()
    operator_pb2_grpc.add_OperatorServicer_to_server(Answering(), server)
    port = links.listen(server, "127.0.0.1:0", links.Tls(**names))
    await server.start()
    try:
        async with links.channel(f"localhost:{port}", links.Tls(**names)) as channel:
            stub = operator_pb2_grpc.OperatorStub(channel)
            answer = await stub.Status(operator_pb2.StatusRequest(), timeout=10)
            assert answer.coordinator_id == "c1"
        async with links.channel(f"localhost:{port}", links.Tls(ca=names["ca"])) as channel:
            stub = operator_pb2_grpc.OperatorStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Status(operator_pb2.StatusRequest(), timeout=10)
    finally:
        await server.stop(None)
