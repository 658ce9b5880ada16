"""Keys of stored objects: 64-bit numbers that name the same content on every machine.

A key is the xxh3 hash of a tuple of whole numbers that begins with the kind of object, so that tuples of different
kinds never meet. Two different tuples share a key with probability 2^-64: among n objects, some pair does with
n^2 / 2^65 (3e-6 for ten million objects on a rank). What would follow is one false hit. This module stores nothing.
"""

import struct
from enum import IntEnum

import numpy as np
import xxhash
from numpy.typing import NDArray


class KeyKind(IntEnum):
    """What a tuple of numbers names; the numbers that follow it are given for each."""

    PERSONA_TURN = 1
    """rank, user, conversation, turn, block"""
    PERSONA_ENTRY = 2
    """rank, user, entry, block"""
    TRACE_BLOCK = 3
    """hash id, tokens"""
    TRACE_PREFIX = 4
    """hash of all hash ids up to the end of the object, tokens of the object"""
    TRACE_REQUEST = 5
    """number of the request in the trace, block"""
    CONVERSATION_BLOCK = 6
    """number of the conversation in the file, block, tokens"""
    REQUEST_QOS = 7
    """seed, number of the request in the trace"""
    REFERENCE_TURN = 8
    """rank, user, conversation, turn"""
    BLOCK_PART = 9
    """key of the block, number of the object that is a part of it"""
    PRECONDITION = 10
    """number of the object: written before a run, of no meaning to its workload"""
    SESSION_PROMPT = 16
    """seed, application, whether it is its subagents'"""
    SESSION_CHUNK = 17
    """seed, chunk; what stands before it where its place in a context is meant"""
    SESSION_OWN = 18
    """seed + rank, user, session, subagent, how often its context began anew"""


def object_key(kind: KeyKind, *numbers: int) -> int:
    """The 64-bit key of a tuple of whole numbers of 0 to 2^64 - 1."""
    return int(xxhash.xxh3_64_intdigest(struct.pack(f"<{1 + len(numbers)}Q", kind, *numbers)))


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A one-to-one hash of 64-bit numbers (the finalizer of SplitMix64: Steele et al., OOPSLA 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
