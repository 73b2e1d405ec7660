"""The resolver: an authoritative DNS server that answers from compiled tables."""
