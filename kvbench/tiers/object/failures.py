"""What went wrong with a request, from what the library says of it: one clear sentence, with nothing of the environment
in it.
"""

import errno
import re
from typing import Final, NamedTuple

from kvbench.tiers.contract import ExplainedError
from kvbench.tiers.object.address import endpoint_variable

_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_METADATA: Final = re.compile(r"169\.254\.|metadata\.google|Error getting credentials|MissingToken|no credential", re.I)
_TOO_MANY: Final = 429
_SERVER: Final = 500
_FULL: Final = 507
_DENIED: Final = (401, 403)
_MISSING: Final = 404
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")

_KEYS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}


class RequestError(ExplainedError):
    """A request failed."""

    passing: bool = False
    """Whether the same request may work in a moment."""


class _Judged(NamedTuple):
    number: int
    text: str
    passing: bool = False


def judged(error: Exception, scheme: str) -> RequestError:
    """What the library raised, as an OSError with a number and a text."""
    found = _judge(error, scheme)
    made = RequestError(found.number, found.text)
    made.passing = found.passing
    return made


def _judge(error: Exception, scheme: str) -> _Judged:
    words = str(error)
    status, code = _STATUS.search(words), _CODE.search(words)
    name = f" {code[1]}" if code else ""
    if _METADATA.search(words):
        return _Judged(errno.EACCES, f"there are no keys for the store: set {_KEYS[scheme]}")
    if status is not None:
        return _of_status(int(status[1]), name, scheme)
    if isinstance(error, FileNotFoundError):
        return _Judged(errno.ENOENT, "there is no such object")
    number, what = _connection(words)
    return _Judged(
        number,
        f"{what}: see that the server is there and that {endpoint_variable(scheme)} says where",
        passing=True,
    )


def _of_status(status: int, name: str, scheme: str) -> _Judged:
    said = f"the store answered {status}{name}"
    if name.strip() in _NO_BUCKET:
        return _Judged(errno.ENOENT, f"{said}: there is no such bucket; make it, or give another with --dir")
    if status == _FULL or "Quota" in name:
        return _Judged(errno.EDQUOT, f"{said}: free space there, or set a smaller capacity_bytes for the object tier")
    if status in _DENIED:
        return _Judged(errno.EACCES, f"{said}: look at {_KEYS[scheme]}, and at what they allow in this bucket")
    if status == _MISSING:
        return _Judged(errno.ENOENT, f"{said}: there is no such object")
    if status == _TOO_MANY or status >= _SERVER:
        return _Judged(
            errno.EBUSY, f"{said}: it is overloaded, or fails; ask for less at once (io.depth)", passing=True
        )
    return _Judged(errno.EIO, f"{said}: it does not take such a request")


def _connection(words: str) -> tuple[int, str]:
    """Number and name of what happened to the connection."""
    low = words.lower()
    if "refused" in low:
        return errno.ECONNREFUSED, "the connection was refused"
    if "dns error" in low or "failed to lookup" in low:
        return errno.EHOSTUNREACH, "the server's name is not known"
    if "certificate" in low or "tls" in low:
        return errno.EPROTO, "TLS could not be agreed on"
    if "timedout" in low or "timed out" in low or "deadline" in low:
        return errno.ETIMEDOUT, "the server did not answer in time"
    if "reset" in low or "closed" in low or "incomplete" in low or "broken pipe" in low or "eof" in low:
        return errno.ECONNRESET, "the connection broke"
    return errno.EIO, "the request failed on its way"
