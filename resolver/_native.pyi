DIGEST: str
TABLE_VERSION: int

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
    def close(self) -> None:
        """End every worker after the batch at hand, and wait for that."""
    def defect(self) -> str:
        """The first defect that broke a query; "" where none did."""
    def counted(self, cells: int) -> list[int]:
        """The first `cells` counts, summed over the workers."""
