"""Two hosts on one machine: network namespaces joined by a virtual cable."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace. Example: Host("rloop-1-near", "10.77.0.1")."""

    name: str
    address: str

    def start(self, command: Sequence[str], **variables: str) -> "subprocess.Popen[str]":
        """Start a command there; its output is read from the returned process."""
        # A host name of its own, so that errors say which of the two is meant.
        script = 'hostname "$0" && exec "$@"'
        inside = ["unshare", "--uts", "sh", "-c", script, self.name, *command]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *inside],
            env={**os.environ, "GLOO_SOCKET_IFNAME": INTERFACE, **variables},
            text=True,
            stdout=-1,
            stderr=subprocess.STDOUT,
        )

    def cable(self, state: str) -> None:
        """Pull the cable out (`down`), or plug it in again (`up`)."""
        ip("-n", self.name, "link", "set", INTERFACE, state)


@contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Yield two hosts that reach each other and nobody else; they are gone afterwards."""
    names = [f"rloop-{os.getpid()}-{place}" for place in ("near", "far")]
    hosts = [Host(names[0], "10.77.0.1"), Host(names[1], "10.77.0.2")]
    try:
        for host in hosts:
            ip("netns", "add", host.name)
        cable = ("name", INTERFACE, "netns")
        ip("link", "add", *cable, names[0], "type", "veth", "peer", *cable, names[1])
        for host in hosts:
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", INTERFACE)
            for device in ("lo", INTERFACE):
                ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host in hosts:
            ip("netns", "delete", host.name, check=False)


def why_no_hosts() -> str:
    """Return why this machine cannot make them; nothing where it can."""
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"needs {missing[0]} (Debian: iproute2, util-linux)"
    try:
        with two_hosts():
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr.strip()}"


def ip(*arguments: str, check: bool = True) -> None:
    """Run `ip` with these arguments."""
    subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)
