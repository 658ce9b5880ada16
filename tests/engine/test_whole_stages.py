"""Where one worker moves what a stage of a request moves: nobody else has a part of it, whatever room there is."""

import pytest
from rank_harness import Script, operations_from, ref, request

from kvbench import timed_io
from kvbench.cache import Cache
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.engine.arrivals import Timeline
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.planner import Books
from kvbench.engine.ready import Limits
from kvbench.records.recorder import RowStore
from kvbench.records.schema import REQUEST_DTYPE, Phase
from kvbench.units import SECTOR_BYTES


@pytest.mark.parametrize("whole", [False, True])
def test_a_worker_takes_all_of_a_stage_or_its_part_of_what_is_ready(whole: bool) -> None:
    size = 1000 * SECTOR_BYTES
    books = Books(Cache([size], WaterfallLru(False)), [size], [True])
    limits = Limits(requests=1, writes=0, workers=4, whole_stages=whole)
    script = Script([[request(number, *(ref(1000 * number + n) for n in range(200)))] for number in range(1)])
    dispatcher = Dispatcher(books, script, "asap", limits, SECTOR_BYTES, 0, RowStore(REQUEST_DTYPE))
    now_ns = timed_io.now_ns()
    dispatcher.begin(Timeline(now_ns, now_ns, None, Phase.MEASURE))
    assert len(operations_from(dispatcher, (), 64)) == (200 if whole else 50)
