"""Rules PROV and EDN: stamps that later tools put beside a leaf, the manifest of a submission, and the rules' edition.

Nothing of these has to be there; what is there has to be right.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvbench.mlperf.option_table import OPTIONS, same, wanted_settings
from kvbench.mlperf.rules.registry import Problem, Weight, rule
from kvbench.mlperf.rules.workload import SEED
from kvbench.mlperf.tree.core_config import core_hash, plain
from kvbench.mlperf.tree.parts import Run, Submitter
from kvbench.mlperf.tree.tree_reading import PROVENANCE_NAME
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, kind_of, shown

EDITION: Final = "3.0"
"""Of the rules that are checked here: of a leaf or submission that declares none, too."""
_EDITIONS: Final = ("0.5", "1.0", "2.0", EDITION)
_UNKNOWN: Final = "unknown"
_STAMP_SCHEMA: Final = "mlps-run-provenance/1"
_MANIFEST_SCHEMA: Final = "mlps-submission-manifest/1"
_DLIO: Final = frozenset(
    {
        "edaf4bb3d6343ef2fb6b9f6dbafa6102032ae8bf",
        "24b13d7630a12e3d08624e5db254694a09f71599",
        "a7d56e73ed4630e47f89720436290a23c0f94b6c",
        "f6796ed281e39ccc83a450e2b1f21b9c909d8fd0",
        "252a54b18d113541e1e8e24832921fac0a7f2b96",
        "86945a7a203912435774e0972f6350221446229e",
        "c338e07412350df4d72279be985ff31b82407a80",
        "95c6a9d46a2a072b7f1455b65b3a5e22602b53e5",
        "17d982a3c7842355c25787c97f636a9f6a474caa",
        "21c0723de897add728158943d369abd4b333f7dc",
    }
)
"""Commits of DLIO that edition 3.0 accepts (mlpstorage_py/rules/editions.yaml)."""


def _no_stamp(run: Run) -> str:
    if run.provenance.exists or run.metadata.provenance_name is not None:
        return ""
    return f"no {PROVENANCE_NAME}, and none that metadata speaks of"


def _no_stamp_read(run: Run) -> str:
    return "" if isinstance(run.provenance.content, dict) else f"no {PROVENANCE_NAME}"


def _no_manifest(submitter: Submitter) -> str:
    return "" if submitter.manifest.exists else "no submission.yaml"


def _no_edition(submitter: Submitter) -> str:
    return "" if any(True for _ in _declared(submitter)) else f"no {PROVENANCE_NAME} and no submission.yaml"


@rule("PROV-01", "leafProvenance", Run, nothing=_no_stamp)
def leaf_provenance(run: Run) -> Iterator[Problem]:
    """A stamp parses and names the image that the leaf points at; one that metadata speaks of is there."""
    stamp = run.provenance
    if not stamp.exists:
        if (name := run.metadata.provenance_name) is not None:
            place = run.metadata.document.path
            yield Problem(place, f"provenance_file {shown(name)}, which is not there", f"the file {PROVENANCE_NAME}")
        return
    if not stamp.readable or dig(stamp.content, "schema") != _STAMP_SCHEMA:
        found = stamp.problem or f"schema {shown(dig(stamp.content, 'schema'))}"
        yield Problem(stamp.path, found, f"a stamp of the schema {_STAMP_SCHEMA}")
        return
    named, pointer = dig(stamp.content, "tool", "code_image"), run.pointer.digest
    if pointer is not None and named != f"md5-tree-v2:{pointer}":
        yield Problem(stamp.path, f"tool.code_image {shown(named)}", f"md5-tree-v2:{pointer}, as the leaf points at")


@rule("PROV-02", "submissionManifest", Submitter, nothing=_no_manifest)
def submission_manifest(submitter: Submitter) -> Iterator[Problem]:
    """A manifest parses, lists exactly the leaves that are there, and has the edition of every stamp."""
    manifest = submitter.manifest
    if not manifest.exists:
        return
    if not manifest.readable or dig(manifest.content, "schema") != _MANIFEST_SCHEMA:
        found = manifest.problem or f"schema {shown(dig(manifest.content, 'schema'))}"
        yield Problem(manifest.path, found, f"a manifest of the schema {_MANIFEST_SCHEMA}")
        return
    listed = [leaf for entry in items(dig(manifest.content, "runs")) if isinstance(leaf := dig(entry, "leaf"), str)]
    there = {
        run.path.relative_to(submitter.path).as_posix(): run for system in submitter.systems for run in system.runs
    }
    for leaf in listed:
        # Leaves of other workloads, and of other commands than run, are not read here.
        place = submitter.path.joinpath(*(part for part in leaf.split("/") if part not in ("", ".", "..")))
        if leaf not in there and kind_of(place) != "directory":
            yield Problem(
                manifest.path, f"the leaf {shown(leaf)}, which is not there", "exactly the leaves of the tree"
            )
    for leaf in sorted(set(there) - set(listed)):
        yield Problem(manifest.path, f"nothing of the leaf {shown(leaf)}", "exactly the leaves of the tree")
    edition = dig(manifest.content, "rules_edition")
    for run in there.values():
        stamped = dig(run.provenance.content, "rules_edition")
        if stamped is not MISSING and stamped != edition:
            found = f"rules_edition {shown(edition)}"
            yield Problem(manifest.path, found, f"{shown(stamped)}, as in {PROVENANCE_NAME} of {shown(run.path.name)}")


@rule("EDN-01", "rulesEdition", Submitter, nothing=_no_edition)
def rules_edition(submitter: Submitter) -> Iterator[Problem]:
    """A declared edition is one that there is."""
    for document, edition in _declared(submitter):
        if edition not in _EDITIONS:
            yield Problem(document.path, f"rules_edition {shown(edition)}", f"one of {', '.join(_EDITIONS)}")


@rule("EDN-02", "comparabilityClass", Run, nothing=_no_stamp_read)
def comparability_class(run: Run) -> Iterator[Problem]:
    """The stamped configuration is what its hash says, and that of the one class of the KV cache in closed."""
    stamp = run.provenance
    digest, keys = dig(stamp.content, "core_config", "hash"), items(dig(stamp.content, "core_config", "keys"))
    if digest in (MISSING, _UNKNOWN):
        if digest is not MISSING:
            yield Problem(stamp.path, "core_config.hash unknown", "the hash of what ran", "not checked")
        return
    parameters = dig(run.metadata.document.content, "parameters")
    values = {key: dig(parameters, *key.split(".")) for key in keys if isinstance(key, str)}
    if MISSING in values.values() or not values:
        found = "core_config.keys that the metadata does not have" if values else "no core_config.keys"
        yield Problem(stamp.path, found, "keys of the parameters in the metadata")
        return
    if digest != (wanted := core_hash(values)):
        yield Problem(stamp.path, f"core_config.hash {shown(digest)}", f"{wanted}, recomputed from its keys")
        return
    for name, found, value in _other_than_closed(values):
        text = f"{name} {shown(found)} in the stamped configuration"
        weight: Weight = "violation" if run.division == "closed" else "note"
        yield Problem(stamp.path, text, f"{shown(value)}, as in the class llama3.1-8b-A", weight)


@rule("EDN-03", "dlioRevision", Run, nothing=_no_stamp_read)
def dlio_revision(run: Run) -> Iterator[Problem]:
    """The commit of DLIO that was installed is one that the edition accepts; the KV cache does not run it."""
    commit = dig(run.provenance.content, "dlio", "commit")
    if isinstance(commit, str) and commit not in (*_DLIO, _UNKNOWN):
        wanted = f"a commit that edition {EDITION} accepts"
        yield Problem(run.provenance.path, f"dlio.commit {shown(commit)}", wanted, "note")


@rule("EDN-04", "checkableEdition", Submitter, nothing=_no_manifest)
def checkable_edition(submitter: Submitter) -> Iterator[Problem]:
    """The edition that a manifest declares can be checked."""
    edition = dig(submitter.manifest.content, "rules_edition")
    if edition in _EDITIONS and edition != EDITION:
        yield Problem(submitter.manifest.path, f"rules_edition {shown(edition)}", f"{EDITION}, which is checked here")


def _declared(submitter: Submitter) -> Iterator[tuple[Any, Any]]:
    """(document, edition) of the manifest and of every stamp that can be read."""
    documents = [submitter.manifest, *(run.provenance for system in submitter.systems for run in system.runs)]
    for document in documents:
        if isinstance(document.content, dict):
            yield document, dig(document.content, "rules_edition")


def _other_than_closed(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, value, value in closed) of what differs from the three options, the seed and no configuration file."""
    wanted: dict[str, Any] = {"sequence.seed": SEED, "sequence.config": "default"}
    names = ("model", "num_users", "duration", "gpu_mem_gb", "cpu_mem_gb", "max_concurrent_allocs", "generation_mode")
    for option in OPTIONS:
        for name, value in zip(names, wanted_settings(option).as_dict().values(), strict=True):
            wanted[f"options.{option}.{name}"] = value
    for key in sorted({*wanted, *values}):
        found = values.get(key, MISSING)
        if key not in wanted or not same(plain(found), wanted[key]):
            yield key, found, wanted.get(key, MISSING)
