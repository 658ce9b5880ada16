"""The row of a request, written when it has ended. Makes no figure of it."""

import struct
from typing import Final

from kvbench.engine.operation import ActiveRequest
from kvbench.records.recorder import RowStore
from kvbench.records.schema import REQUEST_DTYPE

_REQUEST_ROW: Final = struct.Struct("<qqqqIIIIIIIIIIBBBBIqqqqq")
assert _REQUEST_ROW.size == REQUEST_DTYPE.itemsize


def log_request(log: RowStore, rank: int, active: ActiveRequest, now_ns: int) -> None:
    """Add the row of `active`, which ended at `now_ns`, to `log` (REQUEST_DTYPE rows)."""
    rows, row = log.reserve()
    request = active.request
    _REQUEST_ROW.pack_into(
        rows.data,
        row * _REQUEST_ROW.size,
        active.intended_ns,
        active.start_ns,
        now_ns,
        active.storage_ns,
        request.number & 0xFFFFFFFF,
        request.user,
        rank,
        request.context_tokens,
        request.output_tokens,
        active.hit_objects,
        active.miss_objects,
        active.hit_tokens,
        active.miss_tokens,
        active.operations,
        request.qos,
        active.phase,
        active.state,
        0,
        0,
        active.prefill_ns,
        active.decode_ns,
        active.look_up_ns,
        active.load_ns,
        active.first_token_ns,
    )
    log.commit()
