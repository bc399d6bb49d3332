"""The GPU suite: what it measures, its record, and the pages that are written from it."""
