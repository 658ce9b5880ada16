"""Addresses of places in buckets, and where the requests to them go: `s3://bucket/prefix`.

Keys and endpoint come from the environment, as the stores' own programs have them. Nothing of them is kept here, told
or recorded.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from kvbench.errors import KvbenchError

SCHEMES: Final = ("s3", "az", "gs")
"""Amazon's interface, which many stores have, Azure's blobs, and Google's cloud storage."""

_ENDPOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
"""Variables that say where the store is, the first that is set; without one it is where its maker has it."""

_ADDRESS: Final = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]*)(?:/(?P<prefix>.*))?")
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()=+@,-]+")
"""A part of a prefix: what every store takes as it stands, in a URL too."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a bucket."""

    scheme: str
    bucket: str
    prefix: str
    """Without slashes at its ends; "" for the whole bucket."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """That of `s3://bucket/some/prefix`. Raises KvbenchError where it is none."""
        found = _ADDRESS.fullmatch(text)
        if found is None or found["scheme"] not in SCHEMES:
            known = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
            raise KvbenchError(f"--dir {text}: an object tier lies in a bucket: give one of {known}")
        prefix = (found["prefix"] or "").strip("/")
        parts = prefix.split("/") if prefix else []
        if not all(_PREFIX.fullmatch(part) and part not in (".", "..") for part in parts):
            raise KvbenchError(
                f"--dir {text}: a prefix is made of letters, digits and !_.*'()=+@,- with single slashes between"
            )
        return cls(found["scheme"], found["bucket"], prefix)

    @property
    def root(self) -> str:
        """Of the bucket."""
        return f"{self.scheme}://{self.bucket}"

    def path(self, name: str) -> str:
        """The path of `name` in the bucket."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def __str__(self) -> str:
        return f"{self.root}/{self.prefix}" if self.prefix else self.root


def endpoint_variable(scheme: str) -> str:
    """The variable that says where the store is, as it is set, or would be."""
    names = _ENDPOINTS[scheme]
    return next((name for name in names if os.environ.get(name)), names[min(1, len(names) - 1)])


def is_plain(scheme: str) -> bool:
    """Whether requests go without TLS: to a server on this machine alone. Raises KvbenchError where they would go so to
    another."""
    name = endpoint_variable(scheme)
    url = urlsplit(os.environ.get(name, ""))
    if url.scheme != "http":
        return False
    if not _is_loopback(url.hostname or ""):
        raise KvbenchError(
            f"{name} is an http:// address of another machine: keys and objects would go there in the clear; give an "
            "https:// address (without TLS, kvbench talks to loopback alone)"
        )
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
