"""Record data: A and AAAA from addresses, every other type from text through a library."""
