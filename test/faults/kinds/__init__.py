"""The kinds of faults: what each does to the node's surroundings, and what the node must say.

A fault is reported when the node publishes a status of `expected` that belongs to it, within
`limit`. A kind without `expected` is one that must do no harm: it need not be said, but no wrong
action may come of it, and the node must drive again afterwards like after any other.
"""

from kinds import camera, clock, command, ego, model, node  # noqa: F401
from kinds.base import Fault, Silence

ABSTRACT = (Silence, camera.BadFrames, ego.BadOdometry, model.ModelFault,
            model.ModelIsLost)


def every_kind(base=Fault):
    """Yield each kind that can be injected."""
    for kind in base.__subclasses__():
        if kind not in ABSTRACT:
            yield kind
        yield from every_kind(kind)


KINDS = {kind.name(): kind for kind in every_kind()}


def kinds_of(setup):
    """Names of the kinds that a setup can have, sorted."""
    return sorted(name for name, kind in KINDS.items() if setup in kind.setups)
