"""The library that sends the requests, loaded only where there are some, and the stores that it opens.

Its own retries are switched off: those are counted here (`requests`).
"""

import atexit
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from kvbench.errors import KvbenchError
from kvbench.tiers.object.address import Address, is_plain
from kvbench.tiers.object.helpers import wait_until_quiet

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

    Store = AzureStore | GCSStore | LocalStore | MemoryStore | S3Store

_CONNECT_S: Final = 5
_SILENCE_S: Final = 30
"""Without a byte from a server, a request has failed."""
_WHOLE_H: Final = 24
"""The library would end a request after 30 s, however large its object."""


def load_library() -> Any:
    """The module `obstore`. Raises KvbenchError where it is not installed."""
    try:
        library = import_module("obstore")
    except ImportError as error:
        raise KvbenchError(f"an object tier needs obstore ({error}): pip install 'kvbench[object]'") from error
    _end_after_its_threads()
    return library


@cache
def _end_after_its_threads() -> None:
    atexit.register(wait_until_quiet)


def open_store(address: Address) -> "Store":
    """The bucket of `address`, with keys and endpoint from the environment; nothing is sent yet. Raises
    KvbenchError."""
    load_library()
    stores = import_module("obstore.store")
    try:
        opened = stores.from_url(
            address.root,
            client_options={
                "allow_http": is_plain(address.scheme),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "read_timeout": timedelta(seconds=_SILENCE_S),
                "timeout": timedelta(hours=_WHOLE_H),
            },
            retry_config={"max_retries": 0},
        )
    except KvbenchError:
        raise
    except (stores.BaseError, ValueError) as error:
        # The library's own words may have what stands in the environment.
        raise KvbenchError(
            f"{address} cannot be opened ({type(error).__name__}): look at the variables of the environment that say "
            "where the store is and who you are"
        ) from None
    return cast("Store", opened)
