"""The engines' packages in a virtual environment: the versions that are twinned, and what their storage code needs."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_NEEDED: Final = Path(__file__).parent / "needed.txt"
_PACKAGES: Final = {
    "lmcache": ("lmcache==0.5.6",),
    "lmcache-raw-block": ("lmcache==0.5.6", "lmcache-rust-raw-block-io==0.5.7rc2"),
    "mooncake": ("mooncake-transfer-engine-non-cuda==0.3.13.post1",),
    "nixl": ("sglang==0.5.23", "nixl==1.5.2", "nixl-cu12==1.5.1"),
    "sglang": ("sglang==0.5.23",),
    "vllm": ("vllm==0.33.0",),
}
_CUDA: Final = ("libtorch_cuda.so", "libc10_cuda.so", "libnvrtc.so.13")
"""Libraries that a package is linked with and calls nothing of: empty ones stand in where they are missing."""


class Missing(Exception):
    """A package cannot be installed here."""


def environment_with(package: str) -> list[str]:
    """The command that runs Python in an environment that has `package`. Raises Missing."""
    root = Path(os.environ.get("KVBENCH_TWINS") or Path(tempfile.gettempdir()) / f"kvbench-twins-{os.getuid()}")
    environment = root / "environment"
    python = environment / "bin" / "python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(environment))
    for mark, arguments in (("needed", ("-r", str(_NEEDED))), (package, _PACKAGES[package])):
        done = root / f"has-{mark}-{hash_of(arguments)}"
        if not done.exists():
            _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *arguments)
            done.touch()
    libraries = next((environment / "lib").iterdir()) / "site-packages" / "torch" / "lib"
    return ["env", f"LD_LIBRARY_PATH={_stand_ins(root / 'libraries')}:{libraries}", str(python)]


def hash_of(arguments: tuple[str, ...]) -> str:
    """Of what is asked for, to see that it was installed."""
    text = _NEEDED.read_text(encoding="utf-8") if "-r" in arguments else " ".join(arguments)
    return f"{sum(place * byte for place, byte in enumerate(text.encode(), 1)):x}"


def _stand_ins(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in _CUDA:
        if not (folder / name).exists():
            command = ["cc", "-shared", "-x", "c", "-", "-o", str(folder / name)]
            if subprocess.run(command, input=b"", check=False).returncode:
                raise Missing("a C compiler is needed to stand in for CUDA's libraries")
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr[-200:])
        raise Missing(f"cannot be installed here: {reason.strip()}")
