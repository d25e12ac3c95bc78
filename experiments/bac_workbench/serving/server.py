"""A websocket server for openpi's clients, with /healthz and /metrics, that reloads and shuts down without a break."""

from __future__ import annotations

import asyncio
import gc
import http
import logging
import time
import traceback
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bac_workbench.errors import clearest, is_users
from bac_workbench.serving.access import is_authorised
from bac_workbench.serving.limits import Limits, Rate
from bac_workbench.serving.metrics import Metrics
from bac_workbench.serving.served import Say, Served, check_replacement
from bac_workbench.serving.wire import BadRequest, packed, unpacked
from bac_workbench.serving.worker import Busy, Gone, Worker

LEAVING = "the server is shutting down"
_GOING_AWAY, _TRY_AGAIN = 1001, 1013  # RFC 6455 and its registry of close codes


class PolicyServer:
    """Serves one policy: metadata first, then an answer to each request.

    An answer is {'actions': [Ta, Da], 'server_timing': {'queue_ms', 'infer_ms'}}; a text instead says what was wrong
    with a request, and the connection goes on.

    Args:
        load: gives the policy anew, for a reload; called in a thread of its own.
        say: is told when it starts, reloads and ends.
    """

    def __init__(
        self,
        served: Served,
        limits: Limits,
        token: str | None,
        seed: int,
        deadline_ms: float | None,
        load: Callable[[], Served],
        say: Say,
    ):
        self.worker, self.limits, self.token = Worker(served, seed, limits.waiting), limits, token
        self.metrics, self._load, self._say = Metrics(deadline_ms), load, say
        self._server: Server | None = None
        self._leaving, self._idle = asyncio.Event(), asyncio.Event()
        self._unanswered = 0
        self._reloading: asyncio.Task | None = None

    # ---- life ----
    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port.

        Raises:
            OSError: nobody can listen there.
        """
        limits = self.limits
        quiet = logging.getLogger("bac_workbench.serving.websockets")
        quiet.disabled = True  # what strangers do wrong is counted, not logged
        self._server = await serve(
            self._handle,
            host,
            port,
            process_request=self._before_handshake,
            origins=[None],  # no page in a browser may use it
            compression=None,  # small messages cannot become large ones
            max_size=limits.request_bytes,
            max_queue=1,
            open_timeout=limits.timeout_s,
            ping_interval=limits.timeout_s,
            ping_timeout=limits.timeout_s,
            close_timeout=limits.timeout_s,
            logger=quiet,
            server_header=None,
        )
        return self._server.sockets[0].getsockname()[1]

    def leave(self) -> None:
        """Begins to shut down; called again, it does not wait for what is unfinished."""
        if self._leaving.is_set():
            self._idle.set()
        self._leaving.set()

    async def until_left(self) -> None:
        """Returns when `leave` was called, all requests that had come are answered, and all connections are closed."""
        await self._leaving.wait()
        assert self._server is not None
        self._server.close(close_connections=False)
        if self._unanswered:
            self._say(f"{LEAVING}: {self._unanswered} requests are still to be answered")
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), self.limits.drain_s)
            except TimeoutError:
                self._say(f"gave up {self._unanswered} requests after {self.limits.drain_s:g} s")
        await asyncio.gather(*(each.close(_GOING_AWAY, LEAVING) for each in self._server.connections))
        if self._reloading is not None:
            self._reloading.cancel()
        self.worker.close()

    def reload(self) -> None:
        """Begins to load the checkpoint anew; the one that is served goes on acting until the new one is ready."""
        if self._reloading is not None and not self._reloading.done():
            self._say("a reload is under way already")
            return
        self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        started = time.perf_counter()
        try:
            served = await asyncio.get_running_loop().run_in_executor(None, self._load)
            check_replacement(self.worker.served, served)
            await self.worker.replace(served)
            # The old policy and its sampler refer to each other.
            await asyncio.get_running_loop().run_in_executor(None, gc.collect)
        except Exception as error:
            self.metrics.reloads["failed"] += 1
            text = str(clearest(error)) if is_users(error) else traceback.format_exc()
            self._say(f"not reloaded, what was served goes on: {text}")
            return
        self.metrics.reloads["done"] += 1
        self._say(f"reloaded in {time.perf_counter() - started:.1f} s: hash {served.info['checkpoint_hash'][:12]}")

    # ---- HTTP ----
    def _before_handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            if self._leaving.is_set():
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{LEAVING}\n")
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        headers = request.headers.get_all("Authorization")
        if not is_authorised(headers[0] if len(headers) == 1 else None, self.token):
            return self._rejected(connection, "unauthorised", http.HTTPStatus.UNAUTHORIZED, "a token is needed")
        if path == "/metrics":
            self.metrics.waiting = self.worker.waiting
            return connection.respond(http.HTTPStatus.OK, self.metrics.text(self.worker.served.info))
        if self._leaving.is_set():
            return self._rejected(connection, "shutting_down", http.HTTPStatus.SERVICE_UNAVAILABLE, LEAVING)
        if self.metrics.clients >= self.limits.clients:
            return self._rejected(connection, "full", http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients")
        return None

    def _rejected(self, connection: ServerConnection, reason: str, status: http.HTTPStatus, text: str) -> Response:
        self.metrics.rejected[reason] += 1
        return connection.respond(status, f"{text}\n")

    # ---- a client ----
    async def _handle(self, connection: ServerConnection) -> None:
        if self.metrics.clients >= self.limits.clients:  # several were let in at once
            self.metrics.rejected["full"] += 1
            await connection.close(_TRY_AGAIN, "too many clients")
            return
        self.metrics.clients += 1
        try:
            await self._talk(connection)
        except ConnectionClosed:
            pass
        finally:
            self.metrics.clients -= 1

    async def _talk(self, connection: ServerConnection) -> None:
        rate = Rate(self.limits.rate)
        if not await self._sent(connection, packed(self.worker.served.metadata)):
            return
        async for message in connection:
            self._unanswered += 1
            try:
                outcome = await self._answer(connection, message, rate)
            finally:
                self._unanswered -= 1
                if self._leaving.is_set() and not self._unanswered:
                    self._idle.set()
            self.metrics.requests[outcome] += 1
            if outcome == "slow":
                return

    async def _answer(self, connection: ServerConnection, message: str | bytes, rate: Rate) -> str:
        """Answers one request; returns how that ended, one of `metrics.OUTCOMES`."""
        arrived = time.perf_counter()
        outcome, reply = await self._reply(connection, message, rate)
        try:
            sent = await self._sent(connection, reply)
        except ConnectionClosed:
            return "gone"
        if not sent:
            return "slow"
        if outcome == "answered":
            self.metrics.request.add(time.perf_counter() - arrived)
        return outcome

    async def _reply(self, connection: ServerConnection, message: str | bytes, rate: Rate) -> tuple[str, str | bytes]:
        if self._leaving.is_set():
            return "shutting_down", LEAVING
        if not rate.allows():
            return "too_fast", f"more than {self.limits.rate:g} requests per second: slow down"
        try:
            if isinstance(message, str):
                raise BadRequest("the message is a text: send msgpack in binary frames")
            request = unpacked(message)
        except BadRequest as error:
            return "malformed", str(error)
        try:
            answer = await self.worker.act(request, lambda: connection.state.name == "OPEN")
        except BadRequest as error:
            return "refused", str(error)
        except Busy:
            return "busy", f"{self.limits.waiting} requests wait already: try again"
        except Gone:
            return "gone", ""
        except Exception:
            self._say(f"a request failed:\n{traceback.format_exc()}")
            return "failed", "the server failed, its log says why"
        self.metrics.chunk.add(answer.computed)
        timing = {"queue_ms": answer.waited * 1e3, "infer_ms": answer.computed * 1e3}
        return "answered", packed({"actions": answer.actions, "server_timing": timing})

    async def _sent(self, connection: ServerConnection, reply: str | bytes) -> bool:
        """Whether a client took what was sent; one that does not read loses its connection."""
        return await _in_time(connection.send(reply), self.limits.timeout_s, connection)


async def _in_time(sending: Awaitable[None], seconds: float, connection: ServerConnection) -> bool:
    try:
        await asyncio.wait_for(sending, seconds)
    except TimeoutError:
        connection.transport.abort()
        return False
    return True
