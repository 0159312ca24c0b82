"""Two moments compared: what translates differently, who is exposed, what KVM does about it, and what is amiss."""
