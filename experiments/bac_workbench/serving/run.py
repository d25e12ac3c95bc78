"""`bac serve` from its settings to its end."""

from __future__ import annotations

import asyncio
import signal

from bac_workbench.serving.access import token_for
from bac_workbench.serving.limits import Limits
from bac_workbench.serving.served import Say, Served, load_served
from bac_workbench.serving.server import PolicyServer
from bac_workbench.settings.serving import Serve
from diffusion_policy.common.config import ConfigError


def run(settings: Serve, say: Say = print) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP loads the checkpoint anew.

    Raises:
        UserError: the policy cannot be served as asked for, or nobody can listen there.
    """
    token = token_for(settings.host, settings.token_file)  # before anything takes long
    served = load_served(settings, say)
    for note in served.notes:
        say(f"note: {note}")
    say(str(served.fast.verification or "runtime reference: nothing to verify"))
    asyncio.run(_serve(settings, served, token, say))


def limits_of(settings: Serve, served: Served) -> Limits:
    kilobytes = settings.max_request_kb
    return Limits(
        clients=settings.max_clients,
        waiting=settings.max_waiting,
        request_bytes=served.request_bytes if kilobytes is None else kilobytes << 10,
        rate=settings.max_rate,
        timeout_s=settings.timeout_s,
        drain_s=settings.drain_s,
    )


async def _serve(settings: Serve, served: Served, token: str | None, say: Say) -> None:
    limits = limits_of(settings, served)
    server = PolicyServer(
        served, limits, token, settings.seed, settings.deadline_ms, lambda: load_served(settings, say), say
    )
    loop = asyncio.get_running_loop()
    for name, react in {"SIGTERM": server.leave, "SIGINT": server.leave, "SIGHUP": server.reload}.items():
        loop.add_signal_handler(getattr(signal, name), react)
    try:
        port = await server.start(settings.host, settings.port)
    except OSError as error:
        raise ConfigError(
            f"nobody can listen at host={settings.host} port={settings.port} ({error.strerror or error}): use another "
            "port=, or 0 for a free one"
        ) from error
    place = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"serving at ws://{place}:{port}; http://{place}:{port}/metrics and /healthz")
    say(
        f"{'a token is needed' if token else 'no token'}; {limits.clients} clients, {limits.waiting} waiting requests, "
        f"{limits.request_bytes >> 10} kB and {limits.rate:g} requests per second each"
    )
    await server.until_left()
    answered = server.metrics.requests["answered"]
    say(f"shut down; {answered} chunks answered")
