"""Facts of this node, and of nodes that are laid out as files here."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from kvbench.cluster import node as machine
from kvbench.units import GIB, KIB, MIB


def lay_out(root: Path, files: Mapping[str, str]) -> Path:
    """The files of a kernel below `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="utf-8")
    return root


def processor_caches(caches: Mapping[int, tuple[str, str, str, str]], number: int) -> dict[str, str]:
    """Files of processor `number`: index -> (level, type, size, shared_cpu_list)."""
    names = ("level", "type", "size", "shared_cpu_list")
    folder = f"sys/devices/system/cpu/cpu{number}/cache"
    return {
        f"{folder}/index{index}/{name}": value
        for index, values in caches.items()
        for name, value in zip(names, values, strict=True)
    }


def test_the_facts_of_this_node_agree_with_what_it_tells_elsewhere() -> None:
    node = machine.describe_node()
    assert node.cpus == psutil.cpu_count()
    assert 0 < node.memory_available_bytes <= node.memory_bytes <= psutil.virtual_memory().total
    assert node.host
    assert node.cpu_model
    assert node.kernel == os.uname().release
    assert node.huge_pages in {"always", "madvise", "never", machine.UNKNOWN}


def test_last_level_caches_are_counted_once_however_many_processors_share_them(tmp_path: Path) -> None:
    for number in range(8):
        shared = f"{number // 2 * 2}-{number // 2 * 2 + 1}"
        caches = {
            0: ("1", "Data", "32K", str(number)),
            2: ("2", "Unified", "1024K", str(number)),
            3: ("3", "Unified", "16384K", shared),
        }
        lay_out(tmp_path, processor_caches(caches, number))
    assert machine.llc_bytes(tmp_path) == 4 * 16 * MIB


def test_without_a_third_level_the_second_is_the_last(tmp_path: Path) -> None:
    for number in range(4):
        caches = {
            0: ("1", "Data", "64K", str(number)),
            1: ("1", "Instruction", "64K", str(number)),
            2: ("2", "Unified", "512K", str(number)),
        }
        lay_out(tmp_path, processor_caches(caches, number))
    assert machine.llc_bytes(tmp_path) == 4 * 512 * KIB


def test_a_kernel_that_tells_nothing_gives_no_figures(tmp_path: Path) -> None:
    assert machine.llc_bytes(tmp_path) == 0
    assert machine.memory_limits(tmp_path) == (None, None)
    assert machine.huge_pages(tmp_path) == machine.UNKNOWN
    assert machine.governors(tmp_path) == ()
    assert not machine.schedstat_works(tmp_path)


CGROUP2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def test_the_smallest_limit_of_a_control_group_and_its_parents_holds(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/jobs"
    lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/job-7",
            "proc/self/mountinfo": CGROUP2_MOUNT,
            f"{group}/job-7/memory.max": "max",
            f"{group}/job-7/memory.current": str(GIB),
            f"{group}/memory.max": str(8 * GIB),
            f"{group}/memory.current": str(5 * GIB),
            f"{group}/memory.stat": f"anon 17\ninactive_file {GIB}\nactive_file {2 * GIB}",
        },
    )
    assert machine.memory_limits(tmp_path) == (8 * GIB, 6 * GIB), "page cache can be given up"


def test_in_a_container_the_mount_shows_only_its_own_part_of_the_tree(tmp_path: Path) -> None:
    mount = "31 23 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
    lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n0::/",
            "proc/self/mountinfo": mount,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {MIB}\ntotal_active_file 0",
        },
    )
    assert machine.memory_limits(tmp_path) == (2 * GIB, GIB + MIB)


def test_a_group_outside_of_what_a_container_sees_is_taken_for_its_root(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../elsewhere",
            "proc/self/mountinfo": CGROUP2_MOUNT,
            "sys/fs/cgroup/memory.max": str(GIB),
            "sys/fs/cgroup/memory.current": str(2 * GIB),
        },
    )
    assert machine.memory_limits(tmp_path) == (GIB, 0), "more used than allowed leaves nothing, not less"


def test_the_first_version_says_no_limit_with_a_very_large_number(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,memory:/",
            "proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,cpu,memory",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
        },
    )
    assert machine.memory_limits(tmp_path) == (None, None)


@pytest.mark.parametrize(("text", "works"), [("12 34 5", True), ("0 0 0", False), ("", False)])
def test_schedstat_works_where_it_counts(tmp_path: Path, text: str, works: bool) -> None:
    assert machine.schedstat_works(lay_out(tmp_path, {"proc/self/schedstat": text})) is works


def test_governors_and_huge_pages_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    files = {f"{cpu}/cpu{number}/cpufreq/scaling_governor": "powersave" for number in range(3)}
    files[f"{cpu}/cpu3/cpufreq/scaling_governor"] = "performance"
    files["sys/kernel/mm/transparent_hugepage/enabled"] = "always [madvise] never"
    lay_out(tmp_path, files)
    assert machine.governors(tmp_path) == ("performance", "powersave")
    assert machine.huge_pages(tmp_path) == "madvise"


def test_network_links_are_those_with_hardware_that_are_up(tmp_path: Path) -> None:
    interfaces = {"eth0": ("up", "25000", True), "eth1": ("down", "10000", True), "lo": ("unknown", "", False)}
    for name, (state, speed, hardware) in interfaces.items():
        lay_out(
            tmp_path,
            {
                f"sys/class/net/{name}/{file}": text
                for file, text in {"operstate": state, "speed": speed, "mtu": "9000"}.items()
            },
        )
        if hardware:
            (tmp_path / "sys/class/net" / name / "device").mkdir()
    lay_out(tmp_path, {"sys/class/infiniband/mlx5_0/ports/1/rate": "200 Gb/sec (4X HDR)"})
    assert machine.network_links(tmp_path) == ["eth0 25000 Mb/s, MTU 9000", "mlx5_0 port 1 200 Gb/sec (4X HDR)"]
