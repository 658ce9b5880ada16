"""Whatever a configuration file or an override holds: a configuration, or a KvbenchError. Nothing is executed."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import fuzz, made, refused
from edits import EDITS, edited
from hypothesis import example, given
from hypothesis import strategies as st

from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig
from kvbench.config.source import read_mapping, shipped_configs
from kvbench.errors import KvbenchError

pytestmark = pytest.mark.slow

SHIPPED = {name: yaml.safe_dump(read_mapping(name)[0]).encode() for name in shipped_configs()}


def read_or_refused(source: object, *overrides: str) -> RunConfig | None:
    made["configuration"] += 1
    try:
        return load_config(str(source), overrides)
    except KvbenchError as error:
        refused["configuration"] += 1
        message = str(error)
    # An override is quoted in it.
    assert len(message) < 20_000 + 2 * sum(map(len, overrides))
    return None


@pytest.mark.parametrize("name", SHIPPED)
@fuzz(15)
@given(edits=EDITS)
def test_damaged_configurations_are_read_or_refused(tmp_path: Path, name: str, edits: list[Any]) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(edited(SHIPPED[name], edits))
    read_or_refused(path)


KEYS = st.sampled_from(
    [*RunConfig.model_fields, "kind", "path", "mode", "users", "capacity_bytes", "threads", "arena_bytes", "layers"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**60, 2**300),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(
        ["trace", "personas", "file", "memory", "open", "../../etc/passwd", "/dev/zero", "1e999GiB", "-1", "auto"]
    ),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


@fuzz(60)
@given(content=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_values_under_any_keys_are_read_or_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    read_or_refused(path)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@fuzz(60)
@given(text=st.text(st.sampled_from("abc:{}[]-&*!|>?,'\"#%@ \n\t0129.~<=") | st.characters(), max_size=80))
@example("name: " + "[" * 5000)
@example("{a: " * 3000)
@example(BOMB)
@example(BOMB + "name: *a39\n")
@example("workload: &a\n  mix: *a\n")
@example("&a [*a]")
@example("seed: 0x" + "f" * 9000)
@example("seed: " + "9" * 6000)
@example('name: !!python/object/apply:os.system ["touch escaped"]')
@example("name: !!python/name:os.system")
@example("workload: {kind: trace, path: 'a\\0b'}\npacing: {mode: asap}")
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    read_or_refused(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]
    assert not Path("escaped").exists()


@fuzz(60)
@given(
    key=st.lists(
        st.one_of(KEYS, st.sampled_from(["tiers", "0", "1", "99", "٣", "9" * 5000, ""])), min_size=1, max_size=5
    ),
    value=st.one_of(VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True)), st.text(max_size=20)),
)
def test_any_override_is_taken_or_refused(key: list[str], value: str) -> None:
    read_or_refused("smoke", f"{'.'.join(key)}={value}")
