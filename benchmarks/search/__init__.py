"""Our search beside others, judged alike; `benchmarks/search_against_peers.py` is the entry."""
