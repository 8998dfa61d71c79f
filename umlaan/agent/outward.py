"""``outward NAMESPACE|- ssh … root@GUEST COMMAND``: run in a guest that uses this host's network.

A guest has no way out unless its network has a gateway. For as long as the command runs, ssh lends
it this lab host's: a SOCKS proxy on the guest's loopback (or the way to this host's own HTTP
proxy), named to the command in http_proxy and https_proxy. ssh itself stays outside the lab's
namespace, so that what it forwards leaves by the host's network; the connection to the guest is
made inside the namespace and handed over.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
from urllib.parse import urlsplit

from umlaan.agent import itself


def host_proxy() -> tuple[str, int] | None:
    """The HTTP proxy that this lab host itself needs, from the environment or from apt."""
    for name in ("http_proxy", "HTTP_PROXY"):
        if found := _host_port(os.environ.get(name, "")):
            return found
    try:
        done = subprocess.run(
            ["apt-config", "dump", "Acquire::http::Proxy"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    match = re.search(r'^Acquire::http::Proxy "([^"]+)"', done.stdout, re.MULTILINE)
    return _host_port(match.group(1)) if match else None


def _host_port(url: str) -> tuple[str, int] | None:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return None
    return parts.hostname, parts.port or 80


def options(namespace: str | None, port: int, proxy: tuple[str, int] | None) -> list[str]:
    """What ssh is told before its other options: the first value of each counts."""
    forward = f"127.0.0.1:{port}" + (f":{proxy[0]}:{proxy[1]}" if proxy else "")
    words = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
    words += ["-o", "ExitOnForwardFailure=yes", "-R", forward]
    if namespace is not None:
        connect = shlex.join(itself("connect", namespace))
        words += ["-o", f"ProxyCommand={connect} %h %p", "-o", "ProxyUseFdpass=yes"]
    return words


def exports(port: int, proxy: tuple[str, int] | None) -> str:
    """The shell words that tell the command of the proxy."""
    url = f"{'http' if proxy else 'socks5h'}://127.0.0.1:{port}"
    return f"export http_proxy={url} https_proxy={url}; "


def main(argv: list[str]) -> int:
    """The ``outward`` verb: becomes ssh."""
    namespace, program, *words = argv
    port = random.randint(20000, 60000)
    proxy = host_proxy()
    extra = options(None if namespace == "-" else namespace, port, proxy)
    os.execvp(program, [program, *extra, *words[:-1], exports(port, proxy) + words[-1]])
