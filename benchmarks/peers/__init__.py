"""Side-by-side measurements against other converters; `benchmarks/against_peers.py` is the entry."""
