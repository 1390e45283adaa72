"""The sandboxes of this machine, best first; there is no way to run a command without one.

``bubblewrap`` needs the program ``bwrap``; ``namespaces`` needs only a kernel that allows user namespaces. Both show
the same view, set the same limits and run the same first process inside (``_inside.py``).
"""

from interlock.runtime.sandbox._choice import TIERS, open_sandbox, probe

__all__ = ["TIERS", "open_sandbox", "probe"]
