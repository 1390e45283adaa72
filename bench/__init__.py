"""Benchmarks: each is one command and prints a table or, with ``--json``, one line."""
