"""KVM: what it captures, what it writes, how it answers faults."""
