"""What published trees say is read as it stands there, and of what is not there nothing is said."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.mlperf.tree.code_hash import OLD_ALGORITHM, code_hash, image_hashes
from kvbench.mlperf.tree.code_images import image_for
from kvbench.mlperf.tree.commands import NOT_NAMED, read_command
from kvbench.mlperf.tree.declared import bad_numbers
from kvbench.mlperf.tree.description import description_of
from kvbench.mlperf.tree.metadata import TRUE_ARGUMENTS
from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.tree_reading import read_tree
from kvbench.mlperf.tree.untrusted import MISSING

COMMAND = (
    "mpirun -n 4 -host a:2,b:2 --npernode 2 -x LD_PRELOAD=/x/one.so:two.so -x HOME /x/python /x/mlperf_wrapper.py"
    " --rank-output-base /r/option_2/trial_1 --rank-cache-base /c --seed-base 42 --num-users 100 --flag"
)


def runs_of(folder: Path) -> dict[str, Run]:
    return {run.path.name: run for run in read_tree(folder).runs()}


def test_a_command_is_split_into_launcher_and_settings() -> None:
    command = read_command(COMMAND)
    assert (command.option, command.trial, command.ranks, command.npernode) == (2, 1, 4, 2)
    assert command.hosts == ("a", "b")
    assert command.preloaded == ("/x/one.so", "two.so")
    assert command.environment["HOME"] is None
    assert command.settings["num-users"] == "100"
    assert command.settings["flag"] is True
    assert command.launcher[-1] == "/x/mlperf_wrapper.py"


@pytest.mark.parametrize(
    ("words", "libraries"),
    [
        ("env LD_PRELOAD=a.so mpirun -n 1", ("a.so",)),
        ("mpirun -genv LD_PRELOAD 'a.so b.so' -n 1", ("a.so", "b.so")),
        ("mpirun --mca mca_base_env_list 'A=1;LD_PRELOAD=a.so' -n 1", ("a.so",)),
        ("mpirun -x LD_PRELOAD -n 1", (NOT_NAMED,)),
        ("mpirun -n 1", ()),
    ],
)
def test_libraries_are_found_in_every_way_of_giving_them(words: str, libraries: tuple[str, ...]) -> None:
    assert read_command(f"{words} mlperf_wrapper.py --num-users 1").preloaded == libraries


@given(
    text=st.text()
    | st.lists(st.sampled_from(["-x", "--x=", "'", "-n", "mlperf_wrapper.py", "LD_PRELOAD="])).map(" ".join)
)
def test_any_text_is_a_command(text: str) -> None:
    command = read_command(text)
    assert command.text == text
    assert isinstance(command.preloaded, tuple)
    assert command.ranks is None or command.ranks >= 0


def test_the_newer_hash_counts_names_and_content_and_leaves_out_what_it_says(tmp_path: Path) -> None:
    for name in ("b.py", "a/z.py", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    wanted = hashlib.md5(b".hidden.hiddena/z.pya/z.pyb.pyb.py").hexdigest()
    assert image_hashes(tmp_path) == (wanted, wanted)
    for name in (".code-hash.json", "tests/t.py", "build/x", ".git/z", "x.egg-info/y", "c.pyc", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("left out", encoding="utf-8")
    (tmp_path / "link.py").symlink_to("b.py")
    assert image_hashes(tmp_path) == (wanted, wanted)
    (tmp_path / "a" / "build").mkdir()
    (tmp_path / "a" / "build" / "x").touch()
    assert (code_hash(tmp_path), image_hashes(tmp_path)[1] == wanted) == (wanted, False)
    assert code_hash(tmp_path, OLD_ALGORITHM) != wanted


def test_an_accepted_leaf_is_read_whole(published: Path) -> None:
    tree = read_tree(published / "Suzhou_Zishan_Longlin")
    (run,) = tree.runs()
    assert (run.model, len(run.metadata.commands), run.metadata.preloaded()) == ("llama3.1-8b", 9, {})
    (pool,) = tree.pools
    assert (pool.version, run.pointer.digest) == ("3.0.37", pool.images[0].digest)
    assert image_for(tree.pools, run.submitter, run.pointer.digest or "") is pool.images[0]
    recorded = Recorded(run)
    assert [recorded[name] for name in ("seed", "trials", "delay_between_options_s", "total_ranks")] == [42, 3, 90, 1]
    assert (recorded["config_file"], recorded["autoscaling"], list(bad_numbers(run))) == (None, False, [])
    assert {
        option: (told["settings.users"], told["settings.cpu_gb"]) for option, told in recorded.options().items()
    } == {
        1: (200, 0),
        2: (100, 4),
        3: (70, 0),
    }
    (host,) = run.metadata.hosts
    assert (host.name, host.memory_bytes) == ("node27", 337354383360)
    (client,) = description_of(run.description).clients
    assert [(drives.count, drives.capacity_gb) for drives in client.drives] == [(1, 512), (16, 7680), (8, 3840)]
    assert all(len(trial.stamps) == 1 for _, trial in run.trials())


def test_a_dangling_pointer_names_no_image(published: Path) -> None:
    tree = read_tree(published / "HPE")
    (run,) = tree.runs()
    assert run.pointer.digest == "64104f046ea4f45d52ae17edb072a0c7" == run.metadata.argument("_validated_pool_hash")
    assert image_for(tree.pools, run.submitter, run.pointer.digest) is None


def test_libraries_twins_and_a_changed_workload_are_read(published: Path) -> None:
    runs = runs_of(published / "FarmGPU")
    names = {Path(library).name for library in runs["20260724_130034"].metadata.preloaded()}
    assert names == {"libtcmalloc_minimal.so.4", "libnofadvise.so", "libeatmydata.so"}
    twin = runs["20260709_215000"]
    assert (twin.pointer.digest is not None, twin.summaries, Recorded(twin)["seed"]) == (True, (), MISSING)
    changed = Recorded(runs["20260709_215001"])
    assert (changed["npernode"], changed["total_ranks"], changed["delay_between_options_s"]) == (6, 48, 15)
    assert (changed.options()[3]["settings.duration_s"], changed.options()[3]["settings.gpu_gb"]) == (60, 1.0)


def test_what_may_be_a_default_cannot_be_asked_for(published: Path) -> None:
    (run,) = read_tree(published / "HPE").runs()
    assert not {"num_users", "duration", "enable_autoscaling", "npernode"} & TRUE_ARGUMENTS
    with pytest.raises(AssertionError):
        run.metadata.argument("enable_autoscaling")
