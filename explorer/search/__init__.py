"""The search for the best plan: noise and latency as sums, a minimum cut over both, and runs that verify it."""
