from typing import Literal

DIGEST: str
TABLE_VERSION: int

Ranked = tuple[list[tuple[bytes, int, int]], int, int]
"""The fields of `top.Ranked`."""

class Native:
    """The table and the workers of one resolver (`native/src/python.rs`)."""

    def __init__(self) -> None: ...
    def load(self, data: bytes) -> tuple[int, int, int, int, int, float]:
        """(names, nodes, client tables, bytes of names, bytes of tables, seconds) in force now.

        ValueError says why a message is refused; then everything stays as it was.
        """
    def sweep(self) -> int:
        """Free what no worker reads any more; gives how many tables are left."""
    def heard(self, at_s: float) -> None:
        """Note the monotonic second at which the table was last known to be up to date."""
    def respond(
        self, query: bytes, client: bytes, transport: str, now: float, draw: int
    ) -> bytes | None:
        """The reply of the table in force, as a worker would give it; None for silence."""
    def serve_udp(self, fd: int, wildcard: bool, seed: int) -> None:
        """Serve a bound UDP socket, which is duplicated, in a thread of its own."""
    def serve_xdp(self, interface: str, places: list[tuple[str, int]], seed: int) -> str:
        """Serve what is asked over UDP at `places` and comes by an interface; gives how.

        OSError has the number of what failed, and in its text what that was.
        """
    def xdp_lost(self) -> int:
        """Packets that the kernel had no place for on the interface that is served."""
    def serve_tcp(
        self,
        fds: list[int],
        connections: int,
        per_client: int,
        idle_s: float,
        total_s: float,
        seed: int,
    ) -> None:
        """Serve listening TCP sockets, which are duplicated, all in one thread.

        ValueError for times that are none, RuntimeError where TCP is served already.
        """
    def drain_tcp(self, grace_s: float) -> None:
        """Accept no further TCP connection, and end with the last one, or in `grace_s`; at once."""
    def end_udp(self) -> None:
        """End UDP after the batches at hand, and wait for that."""
    def end_tcp(self) -> None:
        """End TCP, and wait for that: what is asked is answered, as far as clients take it soon."""
    def close(self) -> None:
        """End every worker after the batch at hand, and wait for that."""
    def observe(self, top_every: int, log_every: int) -> None:
        """Have workers that begin from now on rank one query of `top_every`; 0: none.

        They log one of `log_every`.
        """
    def logged(
        self, most: int
    ) -> list[
        tuple[float, Literal["udp", "tcp"], bytes, bytes, int, tuple[int, bytes] | None, bytes, int]
    ]:
        """Take at most `most` queries out of the log, as the fields of `query_log.Seen`."""
    def tops(self) -> list[tuple[Ranked, Ranked]]:
        """The sketches of each worker: of names and of clients."""
    def defect(self) -> str:
        """The first defect that broke a query; "" where none did."""
    def counted(self, cells: int) -> list[int]:
        """The first `cells` counts, summed over the workers."""
