"""The real vLLM on the CPU, with a small model: what tests and benchmarks run against."""
