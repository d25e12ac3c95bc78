"""Clients that misbehave. Each try returns what is wrong with the server's reaction, or None."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random

from websockets.exceptions import ConnectionClosed, InvalidStatus

from stress.fuzz.damage import damaged
from stress.serving.process import END, TIMEOUT, Request, ServerProcess, problem_of

Attack = Callable[[ServerProcess, list[Request], Random], "str | None"]
_SLACK = 15  # seconds that a busy machine may add

# Sends what stands on its standard input, says so, and waits to be killed.
VICTIM = """
import socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
content = sys.stdin.buffer.read()
with socket.create_connection(("127.0.0.1", port)) as connection:
    connection.sendall(content[:count])
    connection.recv(1)
    connection.sendall(content[count:])
    print("sent", flush=True)
    time.sleep(60)
"""


def malformed(server: ServerProcess, requests: list[Request], random: Random) -> str | None:
    """Ten damaged messages, then a sound one on the same connection."""
    with server.connect() as client:
        for _ in range(10):
            sound = random.choice(requests).message
            client.send(damaged(random, sound) if random.random() < 0.8 else random.randbytes(random.randrange(4000)))
            client.recv(timeout=END)  # a text, or actions where it is still an observation
        request = random.choice(requests)
        client.send(request.message)
        return problem_of(client.recv(timeout=END), request)


def oversized(server: ServerProcess, requests: list[Request], random: Random) -> str | None:
    with server.connect() as client:
        with contextlib.suppress(ConnectionClosed):
            client.send(bytes(random.choice([80_000, 1 << 20, 16 << 20])))
            client.recv(timeout=END)
            return "a message above the limit is answered"
        return None if client.close_code in (1009, 1006) else f"closed with {client.close_code}"


def unauthenticated(server: ServerProcess, requests: list[Request], random: Random) -> str | None:
    wrong = random.choice(["x" * 40, server.token[:-1], server.token + "x", server.token.swapcase()])
    try:
        server.connect(wrong).close()
    except InvalidStatus as error:
        return None if error.response.status_code == 401 else f"status {error.response.status_code}"
    return "a wrong token is let in"


def slow(server: ServerProcess, requests: list[Request], random: Random) -> str | None:
    """Sends a byte of a message, or of its handshake, every 50 ms."""
    content = handshake(server) + frame(random.choice(requests).message)
    start = random.choice([20, len(handshake(server)) + 10])
    with socket.create_connection(("127.0.0.1", server.port), timeout=END) as connection:
        connection.sendall(content[:start])
        connection.setblocking(False)
        end = time.monotonic() + 3 * TIMEOUT + _SLACK
        for byte in content[start:]:
            try:
                connection.sendall(bytes([byte]))
                with contextlib.suppress(BlockingIOError):
                    if not connection.recv(1 << 16):
                        return None
            except OSError:
                return None
            if time.monotonic() > end:
                break
            time.sleep(0.05)
    return f"still connected after {time.monotonic() - end + 3 * TIMEOUT + _SLACK:.0f} s"


def killed(server: ServerProcess, requests: list[Request], random: Random) -> str | None:
    """SIGKILL of a client process up to 10 ms after it has asked."""
    opening = handshake(server)
    victim = subprocess.Popen(
        [sys.executable, "-S", "-c", VICTIM, str(server.port), str(len(opening))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert victim.stdin is not None and victim.stdout is not None
    with victim:
        victim.stdin.write(opening + frame(random.choice(requests).message))
        victim.stdin.close()
        sent = victim.stdout.readline()
        time.sleep(random.random() / 100)
        victim.kill()
    return None if sent == b"sent\n" else "the client could not ask"


def handshake(server: ServerProcess) -> bytes:
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = [
        "GET / HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Api-Key {server.token}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(message: bytes) -> bytes:
    """A whole binary message of a client (RFC 6455, section 5.2), masked with zeros."""
    assert 125 < len(message) < 1 << 16
    return struct.pack("!BBH4x", 0x82, 0x80 | 126, len(message)) + message


ATTACKS: dict[str, Attack] = {
    "malformed": malformed,
    "oversized": oversized,
    "unauthenticated": unauthenticated,
    "slow": slow,
    "killed in mid-request": killed,
}
