"""Tools: what agents can do, and the types that doing it safely needs."""
