"""What agent processes of ``bench.stop`` import to go wrong."""
