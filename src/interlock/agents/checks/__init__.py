"""What code can say of an output: one module per idea, all reached through ``registry.evaluate``."""
