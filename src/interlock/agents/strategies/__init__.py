"""How a worker thinks: one module per strategy, chosen by name in ``registry``."""
