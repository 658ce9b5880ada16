"""What breaks in an object store, done to runs whose objects lie in a bucket: of the test bed's server, but for what
ends a run before it sends anything to one."""

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from breaking import Outcome, Victim, missing
from judging import MOST_SECONDS_OF_A_KILL, beside, check_failed, fill
from kvbench_command import KVBENCH, attributes, column, overrides
from s3_server import BUCKET, Proxy, S3Server, brought_up, call_server, delete, paths_below, proxy_before, put

Break = Callable[..., Victim]
Tell = Callable[..., None]

OBJECTS = ("tiers.1={kind: object, capacity_bytes: 96MiB}", "io.depth=4")
STRANGERS = ["0123456789abcdef.kv", "kvbench-mine/rank-0/0123456789abcdef.kv", "notes.txt"]


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """The server of the test bed, brought up once for all tests."""
    checked = call_server("check")
    if checked.returncode != 0:
        reason = missing(f"an S3 server: {checked.stderr.strip()}")
        if reason is None:
            pytest.fail(f"CI must have an S3 server: {checked.stderr}")
        pytest.skip(reason)
    with brought_up(f"s{os.getpid() % 10**7}") as made:
        yield made


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An address in the server's bucket, below which there are objects of somebody else's."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    address = f"s3://{BUCKET}/{re.sub('[^a-z-]', '-', request.node.name)}"
    for name in STRANGERS:
        put(f"{address}/{name}", b"precious")
    return address


@pytest.fixture
def proxy(bucket: str, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands before the server, and passes on everything at first."""
    with proxy_before(server.environment["AWS_ENDPOINT_URL"]) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


def kvbench(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVBENCH, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )


def refused(address: str, out: Path, *, kind: str = OBJECTS[0]) -> str:
    """What a run says that is refused before it begins, with one message and nothing left."""
    done = kvbench("run", "smoke", "--dir", address, "--out", out, *overrides(kind))
    assert done.returncode == 1
    assert len(re.findall(r"^kvbench: ", done.stderr, re.MULTILINE)) == 1
    assert "Traceback" not in done.stderr
    assert not out.exists()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        assert not os.environ.get(name) or os.environ[name] not in done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.slow
def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    said = refused("s3://bucket/x", tmp_path / "run.h5")
    assert "s3://bucket/x cannot be used: the connection was refused: see that the server is there and that " in said
    assert "AWS_ENDPOINT_URL says where" in said


def test_another_machine_without_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.1.2.3:9000")
    assert "AWS_ENDPOINT_URL is an http:// address of another machine" in refused("s3://bucket", tmp_path / "run.h5")


@pytest.mark.parametrize(
    ("kind", "address", "words"),
    [
        (OBJECTS[0], "/tmp", "an object tier lies in a bucket"),
        ("tiers.1={kind: object}", "s3://bucket/x y", "a prefix is made of letters"),
        ("tiers.1.capacity_bytes=96MiB", "s3://bucket/x", "does not exist"),
    ],
)
def test_a_place_that_does_not_go_with_the_tier(tmp_path: Path, kind: str, address: str, words: str) -> None:
    assert words in refused(address, tmp_path / "run.h5", kind=kind)


@pytest.mark.slow
def test_the_servers_keys_are_its_owners_alone_and_one_name_is_one_server(server: S3Server) -> None:
    assert server.state.stat().st_mode & 0o777 == 0o700
    assert "client.rgw.a: running" in server.call("status")
    again = call_server("up", name=server.name)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert "client.rgw.a: running" in server.call("status")
    port = server.environment["AWS_ENDPOINT_URL"].rpartition(":")[2]
    taken = call_server("up", "--port", port, name="second")
    assert taken.returncode == 1
    assert f"something listens on port {port} already" in taken.stderr
    assert not server.state.with_name("second.s3").exists()


@pytest.mark.slow
def test_a_capacity_that_follows_free_space(bucket: str, tmp_path: Path) -> None:
    said = refused(bucket, tmp_path / "run.h5", kind="tiers.1={kind: object}")
    assert f"{bucket} (s3) does not tell its free space: set capacity_bytes of the object tier" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "WRONG-ONE")
    said = refused(bucket, tmp_path / "run.h5")
    code = "InvalidAccessKeyId" if name == "AWS_ACCESS_KEY_ID" else "SignatureDoesNotMatch"
    assert f"the store answered 403 {code}: look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said


@pytest.mark.slow
@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there(tmp_path: Path) -> None:
    said = refused("s3://no-such-bucket/x", tmp_path / "run.h5")
    assert "the store answered 404 NoSuchBucket: there is no such bucket; make it, or give another with --dir" in said


@pytest.mark.slow
def test_a_whole_run_leaves_nothing_and_says_where_time_went(bucket: str, tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    settings = overrides(*OBJECTS, "payload.verify=full")
    done = kvbench("run", "smoke", "--dir", bucket, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    assert paths_below(bucket) == STRANGERS
    assert attributes(out)["status"] == "complete"
    assert column(out, "ranks/retried_requests").tolist() == [0]
    # Tier 1; 4 is `library`.
    assert set(column(out, "splits/tier").tolist()) == {1}
    assert set(column(out, "splits/timed_by").tolist()) == {4}
    parts = np.stack([column(out, f"splits/{name}_ns") for name in ("device", "host", "runq")])
    assert (parts.sum(axis=0) == column(out, "splits/wall_ns")).all()
    assert (column(out, "splits/helper_ns") > 0).all()
    on_store = column(out, "records/tier") == 1
    reads = on_store & (column(out, "records/op") == 0)
    assert reads.any()
    assert (column(out, "records/span_ns")[reads] < column(out, "records/wall_ns")[reads]).all()
    assert not column(out, "records/device_ns")[on_store & (column(out, "records/timed_by") == 4)].any()


@pytest.mark.slow
def test_a_doctor_and_what_it_finds(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = kvbench("doctor", "--dir", bucket)
    assert done.returncode == 0, done.stdout
    for what in ("put", "put in parts", "get", "get a range", "list", "delete"):
        assert re.search(rf"ok +{what} +works", done.stdout), done.stdout
    assert paths_below(bucket) == STRANGERS
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONG-ONE")
    done = kvbench("doctor", "--dir", bucket)
    assert done.returncode == 1
    assert re.search(r"fail +bucket +.*the store answered 403", done.stdout), done.stdout


@pytest.mark.slow
def test_some_requests_answered_with_503(
    victim: Break, bucket: str, proxy: Proxy, tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = victim(*OBJECTS, directory=bucket)

    def fail_some() -> None:
        proxy.fails = lambda number: number % 7 == 0

    run.break_it(fail_some)
    run.go_on()
    failed = proxy.failed
    run.command.send(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    out = tmp_path / "run.h5"
    assert attributes(out)["status"] == "interrupted"
    assert not column(out, "records/errno")[column(out, "records/errno") != 125].any(), "but for those canceled"
    retried = int(column(out, "ranks/retried_requests").sum())
    assert 0 < retried <= proxy.failed
    assert failed > 0
    summary = " ".join(kvbench("summary", out).stdout.split())
    words = f"{retried} requests to the object store failed for a reason that may pass and were sent again"
    assert words in summary
    proxy.fails = lambda number: False
    assert paths_below(bucket) == STRANGERS
    rows = int(column(out, "ranks/rows").sum())
    assert rows > outcome.before > 0
    tell("every seventh request answered with 503; Ctrl-C later", outcome, rows, f"the summary warns: {words}")


@pytest.mark.slow
def test_every_request_answered_with_503(victim: Break, bucket: str, proxy: Proxy, tmp_path: Path, tell: Tell) -> None:
    run = victim(*OBJECTS, "tiers.1.retries=2", directory=bucket)

    def fail_all() -> None:
        proxy.fails = lambda number: True

    run.break_it(fail_all)
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "the store answered 503 SlowDown: it is overloaded, or fails")
    assert (column(tmp_path / "run.h5", "ranks/retried_requests") > 0).any()
    proxy.fails = lambda number: False
    clean_run(bucket, tmp_path / "run.h5")
    assert paths_below(bucket) == STRANGERS
    tell("every request answered with 503 from now on (retries=2)", outcome, rows)


@pytest.mark.slow
def test_a_server_that_dies(victim: Break, bucket: str, server: S3Server, tmp_path: Path, tell: Tell) -> None:
    run = victim(*OBJECTS, directory=bucket)
    try:
        run.break_it(lambda: server.call("kill"))
        outcome = run.outcome()
    finally:
        server.call("restart")
    rows = check_failed(outcome, tmp_path / "run.h5", "see that the server is there")
    assert "'kvbench clean s3://" in outcome.message
    assert len(paths_below(bucket)) > len(STRANGERS)
    clean_run(bucket, tmp_path / "run.h5")
    assert paths_below(bucket) == STRANGERS
    tell("kill -9 of the server", outcome, rows)


@pytest.mark.slow
def test_a_server_that_is_gone_for_a_second(
    victim: Break, bucket: str, server: S3Server, tmp_path: Path, tell: Tell
) -> None:
    run = victim(*OBJECTS, directory=bucket)

    def pause() -> None:
        server.call("kill")
        server.call("restart")

    run.break_it(pause)
    run.go_on()
    run.command.send(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    retried = int(column(tmp_path / "run.h5", "ranks/retried_requests").sum())
    assert retried > 0
    assert paths_below(bucket) == STRANGERS
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    said = f"none, the run goes on until it is asked to stop; {retried} requests were sent again"
    tell("kill -9 of the server, which is started again at once", outcome, rows, said)


@pytest.mark.slow
def test_a_server_that_stands_still(victim: Break, bucket: str, server: S3Server, tmp_path: Path, tell: Tell) -> None:
    stopped_s = 3.0
    run = victim(*OBJECTS, directory=bucket)

    def pause() -> None:
        server.call("stop")
        try:
            time.sleep(stopped_s)
        finally:
            server.call("continue")

    run.break_it(pause)
    run.go_on()
    run.command.send(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    longest_s = column(tmp_path / "run.h5", "records/wall_ns").max() / 1e9
    assert longest_s > stopped_s / 2
    assert paths_below(bucket) == STRANGERS
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    said = f"none, the run goes on until it is asked to stop; the longest operation took {longest_s:.1f} s"
    tell(f"the server stopped for {stopped_s:.0f} s", outcome, rows, said)


KILLED: dict[str, tuple[bool, Callable[[Victim], psutil.Process], signal.Signals]] = {
    "kill -9 of rank 1 (mpirun, 2 ranks)": (True, lambda run: run.rank(1), signal.SIGKILL),
    "kill -9 of rank 0 (mpirun, 2 ranks)": (True, lambda run: run.rank(0), signal.SIGKILL),
    "kill -9 of mpirun (kvbench run --ranks 2)": (False, Victim.mpirun, signal.SIGKILL),
    "kill -STOP of rank 1 (mpirun, 2 ranks, --patience 4)": (True, lambda run: run.rank(1), signal.SIGSTOP),
}
"""Whether mpirun is called by hand, who is killed or stopped, and by what."""


@pytest.mark.slow
@pytest.mark.parametrize("what", KILLED, ids=["rank-a", "rank-b", "mpirun", "stopped"])
def test_a_killed_process(victim: Break, bucket: str, tell: Tell, what: str) -> None:
    bare, who, how = KILLED[what]
    run = victim(*OBJECTS, directory=bucket, bare=bare, options=("--patience", 4))
    run.break_it(lambda: who(run).send_signal(how))
    outcome = run.outcome()
    assert outcome.ended.code != 0
    assert outcome.seconds < MOST_SECONDS_OF_A_KILL
    rows, _ = run.recovered()
    assert sum(rows) >= outcome.before > 0
    left = paths_below(bucket)
    assert set(STRANGERS) < set(left)
    run_id = next(name.split("/")[0].removeprefix("kvbench-") for name in left if re.match(r"kvbench-\d", name))
    listed = kvbench("clean", bucket, "--yes")
    assert re.search(rf"kvbench-{run_id} .*unknown", listed.stdout), listed.stdout
    assert "delete such a run with --run once you know it is over" in listed.stdout
    assert paths_below(bucket) == left, "only a run that is named is deleted: whether it is alive cannot be told"
    done = kvbench("clean", bucket, "--run", run_id)
    assert "nothing was deleted; with --yes: " in done.stdout
    assert paths_below(bucket) == left
    assert kvbench("clean", bucket, "--run", run_id, "--yes").returncode == 0
    assert paths_below(bucket) == STRANGERS
    tell(what, outcome, sum(rows))


@pytest.mark.slow
def test_no_space_for_the_run_file(victim: Break, bucket: str, mount: Callable[[str], Path], tell: Tell) -> None:
    out = mount("8k") / "run.h5"
    run = victim(*OBJECTS, directory=bucket, out=out)
    run.break_it(lambda: run.command.send(signal.SIGINT))
    outcome = run.outcome()
    assert outcome.ended.code == 1
    assert f"cannot write {out}: No space left on device" in outcome.message
    rows, _ = run.recovered()
    assert sum(rows) >= outcome.before > 0
    assert paths_below(bucket) == STRANGERS
    tell("no space for the run file on rank 0, at its end (Ctrl-C)", outcome, sum(rows))


@pytest.mark.slow
def test_no_space_for_spill_files(
    victim: Break, bucket: str, mount: Callable[[str], Path], tmp_path: Path, tell: Tell
) -> None:
    place = mount("32m")
    run = victim(*OBJECTS, directory=bucket, spill=place)
    run.break_it(lambda: fill(place))
    seen = set(paths_below(bucket))
    run.command.wait_for(lambda: bool(set(paths_below(bucket)) - seen))
    run.command.send(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows > outcome.before > 0, "what came later was kept in memory"
    summary = kvbench("summary", tmp_path / "run.h5").stdout
    assert "could not write their spill file to the end" in " ".join(summary.split())
    assert paths_below(bucket) == STRANGERS
    said = "the run goes on; the summary warns: 2 ranks could not write their spill file to the end"
    tell("the filesystem of the spill files filled by somebody else; Ctrl-C later", outcome, rows, said)


@pytest.mark.slow
def test_an_interrupt(victim: Break, bucket: str, tmp_path: Path, tell: Tell) -> None:
    run = victim(*OBJECTS, directory=bucket)
    run.break_it(lambda: run.command.send(signal.SIGINT))
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
    assert paths_below(bucket) == STRANGERS
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows >= outcome.before > 0
    tell("Ctrl-C", outcome, rows, "interrupted")


@pytest.mark.slow
def test_two_runs_at_once_below_one_prefix(victim: Break, bucket: str, tmp_path: Path, tell: Tell) -> None:
    first = victim(*OBJECTS, directory=bucket)
    second: list[Victim] = []

    def start() -> None:
        second.append(victim(*OBJECTS, directory=bucket, out=tmp_path / "second.h5", spill=beside(first.spill)))
        second[0].break_it(lambda: None)

    first.break_it(start)
    assert "unknown" in kvbench("clean", bucket, "--yes").stdout, "what may be alive is not cleaned"
    for run in (first, *second):
        run.command.send(signal.SIGINT)
    outcome, other = first.outcome(), second[0].outcome()
    for ended, name in ((outcome, "run.h5"), (other, "second.h5")):
        assert ended.ended.messages[-1] == "kvbench: interrupted"
        assert set(column(tmp_path / name, "records/errno").tolist()) <= {0, errno.ECANCELED}
    assert paths_below(bucket) == STRANGERS
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows >= outcome.before > 0
    said = "interrupted; both runs end well, neither lost an object to the other or to clean"
    tell("a second run, `kvbench clean --yes`, and then Ctrl-C at both", outcome, rows, said)


@pytest.mark.slow
def test_objects_that_somebody_shortens(victim: Break, bucket: str, tmp_path: Path, tell: Tell) -> None:
    run = victim(*OBJECTS, directory=bucket)

    def shorten() -> None:
        def once() -> None:
            for name in paths_below(bucket):
                if "/rank-1/" in name and name.endswith(".kv"):
                    put(f"{bucket}/{name}", b"short")

        run.command.keep_doing(once)

    run.break_it(shorten)
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "the store gave 5 bytes and not ")
    assert "rank 1 on " in outcome.message
    tell("the objects of rank 1 put anew, shorter, by somebody else", outcome, rows)


@pytest.mark.slow
def test_a_corrupted_object(victim: Break, bucket: str, tmp_path: Path, tell: Tell) -> None:
    run = victim(*OBJECTS, directory=bucket)

    def corrupt() -> None:
        def damage() -> None:
            for name in paths_below(bucket):
                if "/rank-1/" in name and name.endswith(".kv"):
                    put(f"{bucket}/{name}", b"\xff" * 1536 * 1024)

        run.command.keep_doing(damage)

    run.break_it(corrupt)
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "the data is not what was written: at offset ")
    assert "rank 1 on " in outcome.message
    tell("the objects of rank 1 overwritten by somebody else", outcome, rows)


@pytest.mark.slow
def test_an_object_that_somebody_deleted(victim: Break, bucket: str, tmp_path: Path, tell: Tell) -> None:
    run = victim(*OBJECTS, directory=bucket)

    def delete_all() -> None:
        def once() -> None:
            for name in paths_below(bucket):
                if "/rank-1/" in name and name.endswith(".kv"):
                    delete(f"{bucket}/{name}")

        run.command.keep_doing(once)

    run.break_it(delete_all)
    outcome: Outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "there is no such object")
    assert paths_below(bucket) == STRANGERS
    tell("the objects of rank 1 deleted by somebody else", outcome, rows)


def clean_run(bucket: str, run_file: Path) -> None:
    """`kvbench clean` of one run."""
    done = kvbench("clean", bucket, "--run", attributes(run_file)["run_id"], "--yes")
    assert done.returncode == 0, done.stderr
