"""Sessions as JSON lines that hold only what their turn adds: "mooncake-style" multi-turn traces of AIPerf and Dynamo.

The first line of a session has a `timestamp`, the later ones a `delay` after the answer before. A prompt is all of its
session before it, answers included, and then its own tokens; the ids of its blocks, and of those that the answer goes
on with, are worked out from what is in each.
How long an answer took is not recorded: a later turn arrives its delay after the turn before, and has that as its gap.
"""

from array import array
from typing import Final

from kvbench.workload.traces.collect import BadRowError, LineParser, Row
from kvbench.workload.traces.fields import Fields
from kvbench.workload.traces.format import session_lines_format
from kvbench.workload.traces.ids import check_ids, id_of_text, session_of
from kvbench.workload.traces.json_lines import (
    HashIds,
    JsonLine,
    Length,
    Milliseconds,
    Name,
    milliseconds_ns,
    validated,
)
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import MAX_TOKENS

BLOCK_TOKENS: Final = 512
_ID_MASK: Final = (1 << 64) - 1


class _Line(JsonLine):
    session_id: Name | None = None
    input_length: Length
    output_length: Length
    hash_ids: HashIds | None = None
    """Of the turn's own tokens, the last partial block among them; without them nobody else has these tokens."""
    timestamp: Milliseconds | None = None
    delay: Milliseconds | None = None


class _Session:
    """The context of one session so far, as blocks."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.turns = 0
        self.arrival_ns = 0
        self._blocks = array("Q")
        """Ids of the full ones."""
        self._open: list[tuple[int | str, int, int]] = []
        """What the last block holds while it is not full: whose tokens, from which of them on, how many."""
        self._open_tokens = 0

    @property
    def tokens(self) -> int:
        """Of the whole context so far."""
        return len(self._blocks) * BLOCK_TOKENS + self._open_tokens

    def ask(self, tokens: int, ids: list[int] | None) -> list[int]:
        """Add a turn's own tokens. Returns the ids of all blocks of its prompt."""
        if ids is None:
            self._add(f"asked {self.number} {self.turns}", tokens)
        for place, hash_id in enumerate(ids or ()):
            self._add(hash_id, min(BLOCK_TOKENS, tokens - place * BLOCK_TOKENS))
        return [*self._blocks, *([self._id()] if self._open else [])]

    def answer(self, tokens: int) -> list[int]:
        """Add the answer to a turn, which no other session has. Returns the ids of the blocks that it is in."""
        before = len(self._blocks)
        self._add(f"answered {self.number} {self.turns}", tokens)
        ids = [*self._blocks[before:], *([self._id()] if self._open else [])] if tokens else []
        self.turns += 1
        return ids

    def _add(self, whose: int | str, tokens: int) -> None:
        done = 0
        while done < tokens:
            piece = min(BLOCK_TOKENS - self._open_tokens, tokens - done)
            self._open.append((whose, done, piece))
            self._open_tokens += piece
            done += piece
            if self._open_tokens == BLOCK_TOKENS:
                self._blocks.append(self._id() & _ID_MASK)
                self._open, self._open_tokens = [], 0

    def _id(self) -> int:
        """Of the last block. The first turn's blocks have the file's own ids, by which sessions share them, but for one
        that the answer goes on with."""
        whose = self._open[0][0]
        if self.turns == 0 and len(self._open) == 1 and isinstance(whose, int):
            return whose
        return id_of_text(repr((self._blocks[-1:].tolist(), self._open)))


def _parser(stream: TraceStream) -> LineParser:
    sessions: dict[Name, _Session] = {}

    def parse(line: bytes) -> Row:
        row = validated(_Line, line)
        name = row.session_id
        if name is None:
            raise BadRowError(
                "a delay without a session_id: it counts from the answer before in a session"
                if row.delay is not None
                else "session_id is missing"
            )
        if row.hash_ids is not None:
            check_ids(len(row.hash_ids), row.input_length, BLOCK_TOKENS, "ceil", keys=("hash_ids", "input_length"))
        session = sessions.get(name)
        if session is None and row.timestamp is None:
            raise BadRowError(
                f"session_id {name!r} has no first turn: the first line of a session has a timestamp, the later ones a "
                "delay"
            )
        if session is None:
            session = _Session(session_of("deltas", stream.index, name))
        if session.tokens + row.input_length + row.output_length > MAX_TOKENS:
            raise BadRowError(f"a session of more than {MAX_TOKENS} tokens")
        if row.input_length == 0 and session.tokens == 0:
            raise BadRowError("a first turn without input tokens")
        later = session.turns > 0
        if row.timestamp is not None and later and milliseconds_ns(row.timestamp) < session.arrival_ns:
            raise BadRowError(f"the timestamp lies before the turn before of session_id {name!r}")
        if row.timestamp is not None:
            session.arrival_ns = milliseconds_ns(row.timestamp)
        elif row.delay is not None:
            session.arrival_ns += milliseconds_ns(row.delay)
        else:
            raise BadRowError(f"a turn of session_id {name!r} that has neither a delay nor a timestamp")
        gap_ns = milliseconds_ns(row.delay) if later and row.delay is not None else -1
        sessions[name] = session
        ids = session.ask(row.input_length, row.hash_ids)
        tokens = session.tokens
        answer_ids = session.answer(row.output_length)
        return Row(session.arrival_ns, tokens, row.output_length, ids, session.number, gap_ns, answer_ids)

    return parse


def _fits(fields: Fields) -> bool:
    return (
        "input_length" in fields
        and bool(fields.keys() & {"session_id", "delay"})
        and not fields.keys() & {"chat_id", "parent_chat_id"}
    )


DELTAS: Final = session_lines_format(
    "deltas",
    _parser,
    shape="JSONL of sessions whose later lines are deltas",
    block_tokens=BLOCK_TOKENS,
    fits=_fits,
    sorts=True,
)
