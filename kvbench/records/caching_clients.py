"""Filesystems whose client keeps what it has moved in memory of a process of its own.

No call drops anything from there, and the kernel, which is asked what is in the page cache, knows nothing of it: a read
that goes through the page cache may be one of that memory, however cold it seems. O_DIRECT goes past it.
"""

from typing import Final

CACHING_CLIENTS: Final = frozenset({"fuse.ceph-fuse"})
"""As the mount table calls them; those that were measured (docs/findings.md)."""
