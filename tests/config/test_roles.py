"""Which ranks prefill and which decode: what is understood, and what is refused with which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.config.load import parse_config
from kvbench.config.roles import Roles
from kvbench.errors import KvbenchError


@pytest.mark.parametrize(
    ("text", "prefill", "decode"),
    [
        ("prefill=0-3,decode=4-7", (0, 1, 2, 3), (4, 5, 6, 7)),
        ("decode=0,prefill=1", (1,), (0,)),
        ("prefill=0,2,decode=1,3-4", (0, 2), (1, 3, 4)),
        (" prefill=0 , decode=1 ", (0,), (1,)),
    ],
)
def test_roles_are_ranges_of_ranks(text: str, prefill: tuple[int, ...], decode: tuple[int, ...]) -> None:
    assert Roles.parse(text) == Roles(prefill, decode)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected such as prefill=0-3,decode=4-7"),
        ("0-3", "0-3 is no role"),
        ("prefill=0-3", "both prefill and decode need ranks"),
        ("prefill=3-0,decode=4", "from low to high"),
        ("prefill=0-3,decode=3-4", "rank 3 is named twice"),
        ("prefill=0,decode=../1", "is no role"),
        ("train=0,decode=1", "is no role"),
        ("prefill=0-999999999,decode=1", "below 10000000"),
    ],
)
def test_what_is_no_role_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Roles.parse(text)


def test_every_rank_of_the_job_has_one_role() -> None:
    roles = Roles.parse("prefill=0-1,decode=2-3")
    assert roles.problem(4) == ""
    assert roles.problem(3) == "rank 3 has a role, and the job has 3 ranks (0-2)"
    assert roles.problem(6) == "rank 4 of 6 has no role; name every rank"


@given(prefill=st.integers(1, 20), decode=st.integers(1, 20), users=st.integers(1, 50))
def test_users_are_dealt_evenly_over_the_decode_ranks(prefill: int, decode: int, users: int) -> None:
    roles = Roles(tuple(range(prefill)), tuple(range(prefill, prefill + decode)))
    dealt = [roles.decoder(rank, user, users) for rank in roles.prefill for user in range(users)]
    counts = [dealt.count(rank) for rank in roles.decode]
    assert sum(counts) == len(dealt)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"roles": "prefill=0,decode=1"}, "set namespace to shared"),
        ({"namespace": "shared", "tiers": [{"kind": "memory", "capacity_bytes": "1MiB"}]}, "needs a file tier"),
        (
            {
                "namespace": "shared",
                "roles": "prefill=0,decode=1",
                "tiers": [{"kind": "memory", "capacity_bytes": "1MiB"}, {"kind": "file"}],
            },
            "cannot be handed over",
        ),
        (
            {"namespace": "shared", "roles": "prefill=0,decode=1", "workload": {"mode": "decode"}},
            "must be prefill-decode",
        ),
        ({"namespace": "shared", "cache": {"promote_on_hit": True}}, "takes the object away"),
        ({"namespace": "shared", "roles": "nonsense"}, "roles: nonsense is no role"),
        ({"namespace": "common"}, "namespace"),
    ],
)
def test_a_configuration_that_cannot_share_is_refused(content: dict[str, object], said: str) -> None:
    with pytest.raises(KvbenchError, match=said):
        parse_config(content, "test.yaml")
