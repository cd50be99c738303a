"""Files of Debian packages for other processors, which are downloaded and not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.toolchain import report_missing

_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "packages"
_ARCHITECTURES = {"aarch64-linux-gnu": "arm64", "riscv64-linux-gnu": "riscv64"}
# The release that static archives are from, if it is not that of this machine.
_RELEASES = {"riscv64-linux-gnu": "trixie"}
_ROOT_RELEASE = "trixie"
_SOURCE = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    "http://deb.debian.org/debian {release} main\n"
)
_CONFIGURATION = """
Dir::State "{place}/state";
Dir::State::status "{place}/status";
Dir::Cache "{place}/cache";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
"""
_OTHER_SOURCES = """
Dir::Etc::sourcelist "{place}/sources.list";
Dir::Etc::sourceparts "{place}/state";
"""


def foreign_archive(target: str, package: str, name: str) -> Path:
    """A static archive of a development package; if it cannot be had, the test is skipped."""
    path = _unpacked(target, package, release=_RELEASES.get(target)) / "usr/lib" / target / name
    if not path.exists():
        report_missing(f"{target}/{name}", f"{package}:{_ARCHITECTURES[target]}")
    return path


def foreign_root(target: str, *packages: str) -> Path:
    """A root directory with the files of packages; if it cannot be had, the test is skipped.

    Packages that these depend on are to be named, too.
    """
    root = _unpacked(target, *packages, release=_ROOT_RELEASE)
    if not root.exists():
        architecture = _ARCHITECTURES[target]
        report_missing(f"a root for {target}", ", ".join(f"{p}:{architecture}" for p in packages))
    return root


@cache
def _unpacked(target: str, *packages: str, release: str | None) -> Path:
    """The directory with the files of packages, missing if these cannot be downloaded."""
    place = _CACHE / target / "+".join(packages)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=_CACHE))
        try:
            _download(_ARCHITECTURES[target], release, packages, staging)
            (staging / "files").rename(place)
        except (OSError, subprocess.CalledProcessError):
            # Another run may have been first; without the package, what is needed is missing.
            pass
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return place


def _download(architecture: str, release: str | None, packages: Sequence[str], place: Path) -> None:
    """Unpack packages into `files`, by a state of apt of its own."""
    for directory in ("state/lists/partial", "cache/archives/partial", "files/usr/lib"):
        (place / directory).mkdir(parents=True)
    # As in every root directory of Debian.
    (place / "files/lib").symlink_to("usr/lib")
    (place / "status").touch()
    configuration = place / "apt.conf"
    text = _CONFIGURATION
    if release is not None:
        (place / "sources.list").write_text(_SOURCE.format(release=release))
        text += _OTHER_SOURCES
    configuration.write_text(text.format(place=place, architecture=architecture))
    environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}

    def run(*words: str) -> None:
        subprocess.run(words, cwd=place, env=environment, check=True, capture_output=True)

    run("apt-get", "update")
    run("apt-get", "download", *packages)
    for found in sorted(place.glob("*.deb")):
        run("dpkg-deb", "--extract", str(found), "files")
