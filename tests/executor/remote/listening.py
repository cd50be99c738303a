"""Executors that listen, and certificates for their TLS."""

import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.process import own_executor
from tests.toolchain import require, run

PROGRAM = own_executor() or ""
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from jitlink.executor.remote.command import main; sys.exit(main())",
]
"""The installed command."""


class Listening:
    """An executor that listens.

    Attributes:
        process: the process.
        host: where it listens; empty if that is a path.
        port: the port.
        path: the path, if it listens at one.
    """

    def __init__(self, *words: str, command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*(command or [PROGRAM]), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on (.*?)(?::(\d+))?\n", line)
        assert found, self.errors()
        self.host = self.path = found[1].strip("[]")
        self.port = int(found[2] or 0)

    def errors(self) -> str:
        """What it has written, once it has ended."""
        _, errors = self.process.communicate(timeout=20)
        return errors

    def connect(
        self,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> RemoteExecutorProcessControl:
        """A connection that the test closes."""
        return RemoteExecutorProcessControl.connect(
            self.host,
            self.port,
            token=token,
            ssl_context=context,
            server_hostname=name,
            timeout=20,
        )


@contextmanager
def listening(*words: str, command: list[str] | None = None) -> Iterator[Listening]:
    """An executor that is killed in the end, if it is still there."""
    server = Listening(*words, command=command)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        for stream in (server.process.stdout, server.process.stderr):
            assert stream is not None
            stream.close()


class Certificates(NamedTuple):
    """Files: those of an authority, of a server that it vouches for, and of a client."""

    authority: Path
    server: Path
    client: Path
    stranger: Path


def _certificate(place: Path, name: str, signed_by: Path | None = None) -> Path:
    """A certificate and its key in one file; without `signed_by` it signs itself."""
    path = place / f"{name}.pem"
    key = place / f"{name}.key"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(path), "-days", "2"]
    if signed_by is None:
        words += ["-addext", "basicConstraints=critical,CA:TRUE"]
    else:
        words += ["-CA", str(signed_by), "-CAkey", str(signed_by.with_suffix(".key"))]
        words += ["-addext", "basicConstraints=critical,CA:FALSE"]
        words += ["-addext", "subjectAltName=DNS:executor.test,IP:127.0.0.1"]
    run([require("openssl"), *words])
    path.write_text(path.read_text() + key.read_text())
    return path


def certificates_in(place: Path) -> Certificates:
    """Make certificates."""
    authority = _certificate(place, "authority")
    return Certificates(
        authority,
        _certificate(place, "server", authority),
        _certificate(place, "client", authority),
        _certificate(place, "stranger"),
    )
