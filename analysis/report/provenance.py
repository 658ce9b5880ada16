"""How the run was made: what was calibrated before it, the machines, the configuration, and the file's attributes."""

import json
from typing import Any, Final
from xml.etree.ElementTree import Element

from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.markup import element, table
from kvbench_analysis.text import units

_BYTES: Final = "_bytes"


def calibration_table(content: Content) -> Element | None:
    """The bandwidths that were measured before the run: per node, each rank alone and all together."""
    calibration = content.run.calibration
    if not {"node", "kind", "mode", "gib_per_s"} <= set(calibration) or calibration.empty:
        return None
    found = calibration.groupby(["node", "kind", "mode"], sort=False)["gib_per_s"].agg(["count", "mean", "sum"])
    rows = [
        (
            str(node),
            kind,
            mode,
            str(row["count"]),
            units.digits(row["mean"]),
            units.digits(row["sum"]) if mode == "together" else units.NONE,
        )
        for (node, kind, mode), row in zip(found.index, found.to_dict("records"), strict=True)
    ]
    columns = ["node", "what", "mode", "ranks", "GiB/s per rank", "GiB/s of the node"]
    return table(
        columns,
        rows,
        left=3,
        caption="Measured before the run. Alone: one rank at a time; together: all ranks of the node at once.",
    )


def machine_table(content: Content) -> Element | None:
    """Everything that the file says about each node."""
    nodes = content.run.nodes
    if nodes.empty:
        return None
    columns = ["", *(f"node {node}" for node in nodes.get("node", nodes.index))]
    rows = [
        (name.removesuffix(_BYTES), *(_fact(name, value) for value in nodes[name]))
        for name in map(str, nodes)
        if name != "node"
    ]
    return table(columns, rows, left=len(columns))


def attribute_table(content: Content) -> Element:
    """The attributes of the file: versions, what was written and how, and identities."""
    left_out = {"config_json", "tiers_json", "qos_classes_json"}
    rows = [
        (name, _fact(name, value)) for name, value in sorted(content.run.attributes.items()) if name not in left_out
    ]
    return table(["attribute", "value"], rows, left=2)


def configuration(content: Content) -> Element:
    """The whole configuration, and the tiers."""
    tiers = [{str(key): value for key, value in tier.items()} for tier in content.run.file.tiers]
    return element("pre", json.dumps(content.run.config | {"tiers as they were": tiers}, indent=2, ensure_ascii=False))


def _fact(name: str, value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    if name.endswith(_BYTES) and isinstance(value, int | float):
        return units.size(value)
    return str(value)
