"""What is said before an abort has been read by then."""

import os
import threading
import time

import pytest

from kvbench import streams
from kvbench.streams import wait_until_passed_on


def test_one_waits_until_a_slow_reader_has_read_what_was_said() -> None:
    reading, writing = os.pipe()
    read_at_s: list[float] = []

    def read_late() -> None:
        time.sleep(0.3)
        read_at_s.append(time.monotonic())
        os.read(reading, 100)

    os.write(writing, b"kvbench: the disk is gone\n")
    reader = threading.Thread(target=read_late)
    reader.start()
    wait_until_passed_on(writing)
    assert read_at_s
    assert time.monotonic() > read_at_s[0]
    reader.join()
    os.close(reading)
    os.close(writing)


def test_nobody_waits_long_for_a_reader_who_reads_nothing_or_for_one_who_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_READ_WITHIN_S", 0.5)
    reading, writing = os.pipe()
    os.write(writing, b"text")
    begin_s = time.monotonic()
    wait_until_passed_on(writing)
    assert time.monotonic() - begin_s > 0.5
    os.close(reading)
    os.close(writing)
    wait_until_passed_on(writing)
