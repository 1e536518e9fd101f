"""Where the servers are kept, and the package clients that fetch them: apt-get, Maven, Go and pip, as configured."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>provision</groupId><artifactId>jars</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class UnavailableError(Exception):
    """A server cannot be had on this machine. The first line says why; tests that need it are skipped with it."""


def run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it printed; UnavailableError with the end of that if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except OSError as error:
        raise UnavailableError(f"{words[0]} does not run: {error}") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()][-15:] or ["it printed nothing"]
        telling = next((line for line in lines if "error" in line.lower() or line.startswith("E: ")), lines[-1])
        summary = f"`{Path(words[0]).name} {' '.join(words[1:3])} …`"
        raise UnavailableError("\n".join([f"{summary} failed with {done.returncode}: {telling}", *lines]))
    return done.stdout


class Cache:
    """A folder with everything that was fetched or built. It may be deleted at any time.

    Args:
        root: the folder; None: ``$RESILIENT_EXPORTERS_SERVERS``, else ``~/.cache/resilient-exporters-servers``.
    """

    def __init__(self, root: Path | None = None) -> None:
        given = root or os.environ.get("RESILIENT_EXPORTERS_SERVERS") or "~/.cache/resilient-exporters-servers"
        self.root = Path(given).expanduser().resolve()
        self._apt_turn = threading.Lock()
        self._apt_fresh = False

    @contextlib.contextmanager
    def installing(self, name: str) -> Iterator[Path]:
        """Give an empty folder to fill, which takes the place of ``root/name`` only if all went well.

        Processes that want the same name wait for each other.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            final, partial = self.root / name, self.root / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                yield partial
                if not final.exists():  # another process may have been first
                    partial.rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def apt(self, *packages: str) -> None:
        """Install Debian packages without starting the services they bring."""
        command = f"apt-get install {' '.join(packages)}"
        if not shutil.which("apt-get"):
            raise UnavailableError(f"it comes from Debian's packages and there is no apt-get here ({command})")
        if os.geteuid():
            raise UnavailableError(f"only root may run: {command}")
        quiet = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        with self._apt_turn, _services_stay_down():
            if not self._apt_fresh:
                run(*quiet, "update", env=env)
                self._apt_fresh = True
            run(*quiet, "install", "-y", "--no-install-recommends", *packages, env=env)

    def unpack(self, folder: Path, *packages: str) -> None:
        """Unpack Debian packages into a folder; nothing of the system is touched, and nobody has to be root."""
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise UnavailableError(f"it comes from Debian's packages and there is no apt-get here ({packages[0]})")
        with self._apt_turn:
            if not os.geteuid() and not self._apt_fresh:
                run("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update")
                self._apt_fresh = True
            run("apt-get", "-qq", "download", *packages, cwd=folder)
        for archive in folder.glob("*.deb"):
            run("dpkg", "-x", archive, folder)
            archive.unlink()

    def need(self, program: str, package: str) -> None:
        """Make sure that a program is on PATH, from a Debian package if it is not."""
        if not shutil.which(program):
            self.apt(package)

    def jdk(self, minimum: int) -> Path:
        """Home of the oldest JDK here that is at least this version; a missing one is asked of Debian."""
        if not any(version >= minimum for version, _ in _jdks()):
            with contextlib.suppress(UnavailableError):  # told below, with what is here instead
                self.apt(f"openjdk-{minimum}-jdk-headless")
        found = sorted(_jdks())
        for version, home in found:
            if version >= minimum:
                return home
        here = ", ".join(str(version) for version, _ in found) or "none"
        raise UnavailableError(f"it needs a JDK {minimum} or newer, here: {here}")

    def jars(self, folder: Path, *artifacts: str) -> None:
        """Put Maven artifacts (``group:name:version``) and all they need at run time into a folder."""
        self.need("mvn", "maven")
        folder.mkdir(parents=True, exist_ok=True)
        pom = folder / "pom.xml"
        pom.write_text(POM.format(dependencies="".join(DEPENDENCY.format(*name.split(":")) for name in artifacts)))
        maven = ("mvn", "-q", "-B", "-ntp", "-Dstyle.color=never", f"-Dmaven.repo.local={self.root / 'maven'}")
        run(*maven, "-f", pom, COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder}")
        pom.unlink()

    def need_go(self, minor: int) -> None:
        """Make sure that there is at least Go 1.`minor`."""
        self.need("go", "golang")
        version = re.search(r"go1\.(\d+)", run("go", "version"))
        if version is None or int(version[1]) < minor:
            raise UnavailableError(f"it needs Go 1.{minor} or newer, here: {version[0] if version else 'unknown'}")

    def go(self, folder: Path, *command: object, cwd: Path | None = None) -> str:
        """Run the go command with all its caches below a folder that the caller throws away."""
        self.need("go", "golang")
        env = {
            "GOPATH": str(folder / "gopath"),
            "GOCACHE": str(folder / "gocache"),
            "GOBIN": str(folder),
            "GOFLAGS": "-modcacherw -mod=mod -trimpath -buildvcs=false",
            "CGO_ENABLED": "0",
        }
        return run("go", *command, cwd=cwd or folder, env=env)

    def pip(self, folder: Path, *requirements: str) -> None:
        """Install Python packages into a folder that a process can have on its PYTHONPATH."""
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "install", "--upgrade", "--target", folder, *requirements)


def _jdks() -> Iterator[tuple[int, Path]]:
    candidates = [*Path("/usr/lib/jvm").glob("*"), Path(os.environ.get("JAVA_HOME", "/usr/lib/jvm"))]
    for home in {candidate.resolve() for candidate in candidates}:
        release = home / "release"
        if not (release.is_file() and (home / "bin" / "javac").exists()):
            continue
        for line in release.read_text().splitlines():
            if line.startswith("JAVA_VERSION="):
                yield int(line.split('"')[1].split(".")[0]), home


@contextlib.contextmanager
def _services_stay_down() -> Iterator[None]:
    """Debian asks this file before it starts the service of a package that it installs."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            policy.unlink()
