"""Backends: what can run here, what it supports, and how long each layer takes on it."""
