"""How often a process looks for garbage in circles: seldom, since its work makes hardly any."""

import gc

_YOUNG = 20_000
"""New objects between two looks at the new ones; Python's own 700 cost a twentieth to a tenth of an agent's time."""

_YOUNG_LOOKS = 20
_OLD_LOOKS = 50


def collect_seldom() -> None:
    """Look for garbage seldom, and never again at what is there now; to be called once all is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _YOUNG_LOOKS, _OLD_LOOKS)
