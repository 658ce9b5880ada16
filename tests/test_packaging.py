"""What is installed is what is in the folders: every package is listed, and every file that is no module. And it has
one version, and extensions for every Python."""

import configparser
import re
import subprocess
import sysconfig
from fnmatch import fnmatch
from pathlib import Path

import pytest

import kvbench
from kvbench import timed_io
from kvbench.cache import chains

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"kvbench": "kvbench", "kvbench_analysis": "analysis", "kvbench_configs": "configs"}


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found


def package_of(path: Path) -> str:
    """The package that a folder of the source is installed as."""
    top, *below = path.relative_to(ROOT).parts
    return ".".join([next(name for name, folder in FOLDERS.items() if folder == top), *below])


def test_every_package_is_installed(setup: configparser.ConfigParser) -> None:
    found = {package_of(path.parent) for folder in FOLDERS.values() for path in (ROOT / folder).rglob("__init__.py")}
    listed = setup["options"]["packages"].split()
    assert listed == sorted(found), "in the order of their names, each once"


def test_every_module_lies_in_a_package() -> None:
    lost = [path for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in lost if not (path.parent / "__init__.py").exists()]


def test_every_file_that_is_no_module_is_installed_with_its_package(setup: configparser.ConfigParser) -> None:
    data = {package: globs.replace(",", " ").split() for package, globs in setup["options.package_data"].items()}
    known = subprocess.run(
        ["git", "ls-files", *FOLDERS.values()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if known.returncode:
        pytest.skip("needs the repository, to tell the project's files from what was made beside them")
    for path in (ROOT / name for name in known.stdout.splitlines() if not name.endswith(".py")):
        package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
        name = path.relative_to(package).as_posix()
        assert any(fnmatch(name, glob) for glob in data.get(package_of(package), [])), f"{path} is not installed"


def test_the_version_stands_in_one_place(setup: configparser.ConfigParser) -> None:
    version = setup["metadata"]["version"]
    assert kvbench.__version__ == version, "install it again: pip install --no-deps -e ."
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == version
    job = (ROOT / "launch" / "mpijob.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"image: \S+/kvbench:(\S+)", job)) == {version}
    for name in ("launch/containers/Dockerfile", "launch/containers/kvbench.def", "docs/installing.md"):
        named = re.findall(r"kvbench[-:](\d+\.\d+\.\d+)", (ROOT / name).read_text(encoding="utf-8"))
        assert set(named) == {version}, name


def test_extensions_are_built_for_every_python() -> None:
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("a Python of free threads has no limited API")
    if timed_io.TIMER != "extension" or not chains.COMPILED:
        pytest.skip("needs the extensions, which a C compiler builds")
    built = [path.name for path in (ROOT / "kvbench").rglob("*.so")]
    assert sorted(built) == ["_core.abi3.so", "_curves.abi3.so", "_stopwatch.abi3.so"]


def test_every_extra_that_is_named_exists(setup: configparser.ConfigParser) -> None:
    """In messages, documentation and scripts, as `kvbench[EXTRA]`."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    sources = [*(ROOT / "kvbench").rglob("*.py"), *(path for path in (ROOT / "launch").rglob("*") if path.is_file())]
    texts = [path.read_text(encoding="utf-8") for path in [*pages, *sources]]
    named = {name for text in texts for group in re.findall(r"kvbench\[([\w,]+)\]", text) for name in group.split(",")}
    assert named
    assert named <= set(setup["options.extras_require"])
