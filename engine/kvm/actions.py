"""What KVM did, step by step, with the names of its functions."""

import msgspec


class Action(msgspec.Struct, frozen=True):
    """One thing KVM did: the kernel function, and what. ``tracepoint``: the event it would emit, '' for none."""

    function: str
    did: str
    tracepoint: str = ""
