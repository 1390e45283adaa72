"""Who does the work: manager, worker, verifier, and how they think and check."""
