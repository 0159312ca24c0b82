"""The domain: x86 paging, memory images, hosts and hypervisors. No Qt, no SQL."""
