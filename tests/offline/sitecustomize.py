"""No network: every Python process that starts with this folder on its path can reach this machine, and no other.

Python runs a module of this name when it starts. An audit hook cannot be taken away again, and hears of every socket.
"""
import sys

HERE = ("localhost", "127.", "::1", "0.0.0.0")


def _refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""         # a Unix socket's address is a path
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and not host.startswith(HERE):
        raise OSError(f"no network in this test: {event} to {host}")


sys.addaudithook(_refuse)
