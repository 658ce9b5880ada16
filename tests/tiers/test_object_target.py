"""A bucket under test: addresses, what is kvbench's there, what is found and removed, and what a failure is called."""

import builtins
import errno
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import LocalStore

from kvbench.config.run_config import Io, RunConfig, TierSection
from kvbench.errors import KvbenchError
from kvbench.tiers.kinds import target_at, target_of
from kvbench.tiers.object import leftovers as leftovers_module
from kvbench.tiers.object.address import Address, is_plain
from kvbench.tiers.object.failures import judged
from kvbench.tiers.object.library import load_library, open_store
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.target import BucketTarget
from kvbench.tiers.payload import Payload
from kvbench.tiers.target import TierSettings
from kvbench.tiers.trial import try_out

RUN = "20260101-000000-abc123"
OTHER = "20260102-000000-abc123"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """The folder that stands for a bucket."""
    return tmp_path


@pytest.fixture
def target(bucket: Path) -> BucketTarget:
    return BucketTarget("s3://bucket/some/prefix", Requests(LocalStore(bucket), "s3", 0))


def names(bucket: Path) -> list[str]:
    return sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file())


# Addresses


@pytest.mark.parametrize(
    ("text", "parts", "again"),
    [
        ("s3://bucket", ("s3", "bucket", ""), "s3://bucket"),
        ("s3://bucket/", ("s3", "bucket", ""), "s3://bucket"),
        ("gs://a.b-c/x/y/", ("gs", "a.b-c", "x/y"), "gs://a.b-c/x/y"),
        ("az://container/x=1", ("az", "container", "x=1"), "az://container/x=1"),
    ],
)
def test_an_address_has_a_bucket_and_a_prefix(text: str, parts: tuple[str, str, str], again: str) -> None:
    address = Address.parse(text)
    assert (address.scheme, address.bucket, address.prefix) == parts
    assert str(address) == again


@pytest.mark.parametrize("text", ["s3://", "s3:/bucket", "/mnt/disk", "ftp://bucket", "s3://buc ket", "s3:///x"])
def test_what_is_no_address_of_a_bucket_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(KvbenchError, match="lies in a bucket: give one of s3://BUCKET/PREFIX, az:"):
        Address.parse(text)


@pytest.mark.parametrize("prefix", ["a//b", "../b", "a/./b", "a b", "a?b", "a#b", "a%2fb", "ä"])
def test_a_prefix_is_one_that_every_store_takes(prefix: str) -> None:
    with pytest.raises(KvbenchError, match="a prefix is made of"):
        Address.parse(f"s3://bucket/{prefix}")


def test_an_address_leads_to_the_kind_of_its_scheme() -> None:
    for scheme in ("s3", "az", "gs"):
        assert isinstance(target_at(f"{scheme}://bucket"), BucketTarget)
    assert not isinstance(target_at("/mnt/s3"), BucketTarget)


@pytest.mark.parametrize("kind", ["object"])
def test_a_directory_is_no_place_for_an_object_tier(kind: str, tmp_path: Path) -> None:
    config = RunConfig(tiers=(TierSection(kind=kind, capacity_bytes=2**30),))
    with pytest.raises(KvbenchError, match="an object tier lies in a bucket"):
        target_of(config, str(tmp_path)).check()


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://127.0.0.1:9000", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("https://store.example", False),
        ("", False),
    ],
)
def test_only_loopback_is_talked_to_without_tls(monkeypatch: pytest.MonkeyPatch, url: str, plain: bool) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert is_plain("s3") is plain


@pytest.mark.parametrize("url", ["http://10.0.0.1:9000", "http://store.example", "http://localhost.example"])
def test_another_machine_is_refused_without_tls(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(KvbenchError, match="AWS_ENDPOINT_URL is an http:// address of another machine") as caught:
        BucketTarget("s3://bucket").check()
    assert url not in str(caught.value)


def test_the_library_is_loaded_only_where_it_is_needed_and_asked_for_where_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("obstore"):
            raise ImportError("No module named 'obstore'", name="obstore")
        return whole(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(KvbenchError, match=r"an object tier needs obstore .*: pip install 'kvbench\[object\]'"):
        load_library()
    with pytest.raises(KvbenchError, match="an object tier needs obstore"):
        BucketTarget("s3://bucket").check()


def test_what_stands_in_the_environment_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://secret-place:notaport")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    with pytest.raises(KvbenchError) as caught:
        BucketTarget("s3://bucket", Requests(open_store(Address.parse("s3://bucket")), "s3", 0)).check()
    assert "secret" not in str(caught.value)


# What is kvbench's


def test_a_rank_has_a_marked_part_and_leaves_nothing(target: BucketTarget, bucket: Path, payload: Payload) -> None:
    (bucket / "some" / "prefix").mkdir(parents=True)
    (bucket / "some" / "prefix" / "theirs").write_text("x")
    area = target.area(RUN, 3)
    area.create()
    marker = f"some/prefix/kvbench-{RUN}/rank-3/.kvbench-run"
    assert names(bucket) == [marker, "some/prefix/theirs"]
    assert json.loads((bucket / marker).read_text()) == {"program": "kvbench", "run_id": RUN}
    assert target.holds(RUN)
    assert not target.holds(OTHER)
    section = TierSection(kind="object", capacity_bytes=2**30)
    tier = area.open_tier(TierSettings(section, Io(), 2**30))
    assert try_out(tier) is None
    assert tier.where(255) == f"s3://bucket/some/prefix/kvbench-{RUN}/rank-3/00000000000000ff.kv"
    tier.close()
    assert area.remove() == []
    assert area.remove() == []
    assert names(bucket) == ["some/prefix/theirs"]


def fill(target: BucketTarget, bucket: Path, run_id: str, rank: int) -> Path:
    area = target.area(run_id, rank)
    area.create()
    folder = bucket / area.prefix
    for key in range(3):
        (folder / f"{key:016x}.kv").write_bytes(b"x" * 100)
    return folder


def test_what_is_not_kvbenchs_stays_with_its_marker(target: BucketTarget, bucket: Path) -> None:
    folder = fill(target, bucket, RUN, 0)
    (folder / "notes.txt").write_text("x")
    (folder / "deep").mkdir()
    (folder / "deep" / "0000000000000000.kv").write_text("x")
    assert sorted(target.area(RUN, 0).remove()) == ["deep/0000000000000000.kv", "notes.txt"]
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        ".kvbench-run",
        "0000000000000000.kv",
        "notes.txt",
    ]


def test_nothing_is_removed_without_a_marker_of_the_run(target: BucketTarget, bucket: Path) -> None:
    for content in (None, b"", b"[]", b'{"program": "kvbench", "run_id": "another"}', b"x" * 5000):
        folder = fill(target, bucket, RUN, 0)
        marker = folder / ".kvbench-run"
        marker.unlink()
        if content is not None:
            marker.write_bytes(content)
        before = names(bucket)
        assert target.area(RUN, 0).remove() == []
        assert names(bucket) == before


def test_leftovers_are_found_and_go_only_when_their_run_is_named(target: BucketTarget, bucket: Path) -> None:
    folder = fill(target, bucket, RUN, 0)
    fill(target, bucket, RUN, 1)
    (folder / "notes.txt").write_text("x")
    other = fill(target, bucket, OTHER, 0)
    (other / ".kvbench-run").unlink()
    (bucket / "some" / "prefix" / "theirs").write_text("x")
    (bucket / "some" / f"kvbench-{RUN}").mkdir()
    found = {leftover.run_id: leftover for leftover in target.leftovers()}
    ours, theirs = found[RUN], found[OTHER]
    assert len(found) == 2
    assert (ours.state, ours.files, ours.nbytes) == ("unknown", 6, 600)
    assert ours.strangers == ["rank-0/notes.txt"]
    assert (ours.text, ours.place) == (f"s3://bucket/some/prefix/kvbench-{RUN}", "s3://bucket/some/prefix")
    assert (theirs.state, theirs.files) == ("not ours", 0)
    before = names(bucket)
    assert target.remove_leftover(ours).state == "unknown"
    assert target.remove_leftover(theirs, even_unknown=True).state == "not ours"
    assert names(bucket) == before
    left = target.remove_leftover(ours, even_unknown=True)
    assert (left.files, left.strangers) == (0, ["rank-0/notes.txt"])
    gone = set(before) - set(names(bucket))
    assert len(gone) == 3 + 4
    assert all(f"kvbench-{RUN}" in name for name in gone)


def test_signs_are_seen_and_taken_down_and_an_old_one_is_left_over(
    target: BucketTarget, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert target.lowest_sign(RUN, [1, 2, 3]) is None
    target.put_up_sign(RUN, 3)
    target.put_up_sign(RUN, 2)
    assert target.lowest_sign(RUN, [1, 2, 3]) == 2
    assert target.lowest_sign(OTHER, [1, 2, 3]) is None
    target.take_down_sign(RUN, 2)
    assert target.lowest_sign(RUN, [1, 2, 3]) == 3
    (sign,) = target.leftovers()
    assert (sign.state, sign.files) == ("in use", 1)
    assert target.remove_leftover(sign, even_unknown=True).state == "in use"
    monkeypatch.setattr(leftovers_module, "SIGN_S", -1.0)
    assert target.remove_leftover(sign).files == 0
    assert names(bucket) == []
    assert time.time() - sign.age_s > 0


def test_prefixes_of_a_bucket_are_one_place(target: BucketTarget) -> None:
    assert target.is_same(BucketTarget("s3://bucket"))
    assert not target.is_same(BucketTarget("s3://other/some/prefix"))
    volume = target.describe()
    assert (volume.kind, volume.reach, volume.tells_space, volume.disk) == ("s3", "network", False, None)


def test_a_doctor_finds_all_requests_working_and_leaves_nothing(target: BucketTarget, bucket: Path) -> None:
    findings = {finding.subject: finding for finding in target.examine()}
    for subject in ("bucket", "put", "put in parts", "get", "get a range", "list", "delete"):
        assert findings[subject].state == "ok", findings[subject].text
    assert findings["free space"].state == "warn"
    assert names(bucket) == []


# What a failure is called


def answered(status: int, code: str) -> str:
    return (
        f"Error performing PUT http://secret/x - Server returned non-2xx status code: {status} X: <Code>{code}</Code>"
    )


@pytest.mark.parametrize(
    ("error", "number", "words", "passing"),
    [
        (GenericError(answered(503, "SlowDown")), errno.EBUSY, "answered 503 SlowDown: it is overloaded", True),
        (GenericError(answered(429, "X")), errno.EBUSY, "answered 429 X", True),
        (GenericError(answered(500, "InternalError")), errno.EBUSY, "answered 500 InternalError", True),
        (GenericError(answered(507, "X")), errno.EDQUOT, "free space there", False),
        (PermissionDeniedError(answered(403, "QuotaExceeded")), errno.EDQUOT, "free space there", False),
        (PermissionDeniedError(answered(403, "InvalidAccessKeyId")), errno.EACCES, "look at AWS_ACCESS_KEY_ID", False),
        (FileNotFoundError(answered(404, "NoSuchBucket")), errno.ENOENT, "there is no such bucket; make it", False),
        (FileNotFoundError(answered(404, "NoSuchKey")), errno.ENOENT, "there is no such object", False),
        (GenericError(answered(400, "EntityTooSmall")), errno.EIO, "does not take such a request", False),
        (GenericError("HTTP error: ConnectError: Connection refused"), errno.ECONNREFUSED, "was refused", True),
        (GenericError("HTTP error: dns error: not known"), errno.EHOSTUNREACH, "name is not known", True),
        (GenericError("HTTP error: operation timed out"), errno.ETIMEDOUT, "did not answer in time", True),
        (GenericError("HTTP error: connection closed"), errno.ECONNRESET, "the connection broke", True),
        (GenericError("PUT http://169.254.169.254/latest/api/token"), errno.EACCES, "no keys for the store", False),
    ],
)
def test_a_failure_is_one_sentence_without_what_the_library_says(
    error: Exception, number: int, words: str, passing: bool
) -> None:
    found = judged(error, "s3")
    assert (found.errno, found.passing) == (number, passing)
    assert words in str(found.strerror)
    assert "secret" not in str(found)
    assert "\n" not in str(found)


# What a configuration may ask for


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"io": {"read_path": "direct"}}, "io.read_path: what a server is asked for has no path"),
        ({"io": {"write_path": "direct"}}, "io.write_path: what a server is asked for has no path"),
        ({"io": {"sync": "end"}}, "io.sync: only what is written to a file tier is synced"),
        ({"namespace": "shared"}, "namespace: ranks share objects in files"),
        ({"tiers": [{"kind": "file", "retries": 1}]}, "retries is for object tiers"),
        ({"tiers": [{"kind": "file", "part_bytes": "16MiB"}]}, "part_bytes is for object tiers"),
        ({"tiers": [{"kind": "object", "part_bytes": "1MiB"}]}, "part_bytes"),
        ({"tiers": [{"kind": "object", "layout": {"levels": 1}}]}, "layout is for file tiers"),
        ({"io": {"depth": 0}}, "io.depth"),
    ],
)
def test_what_an_object_tier_does_not_heed_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RunConfig.model_validate({"tiers": [{"kind": "object"}]} | settings)


def test_what_came_with_object_tiers_leaves_fingerprints_as_they_were() -> None:
    usual = RunConfig()
    assert usual.fingerprint(1) == RunConfig(io=Io(depth=32)).fingerprint(1)
    assert usual.fingerprint(1) != RunConfig(io=Io(depth=31)).fingerprint(1)
    parts = {RunConfig(tiers=(TierSection(kind="object", retries=n),)).fingerprint(1) for n in (0, 5)}
    assert len(parts) == 2
