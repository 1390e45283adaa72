"""AgentDojo's suites, run by an agent that is wholly in the attacker's hands: ``docs/taint.md`` says what is measured.

AgentDojo lives in an environment of its own (``run.sh`` makes it), which Interlock is installed into.
"""
