"""The contract between agents, pure: no NATS, no clock, no randomness and no await in here."""
