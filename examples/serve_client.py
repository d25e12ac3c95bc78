"""A robot's loop that asks `bac serve` for the next chunk early: python examples/serve_client.py [steps port]"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

HZ, AHEAD = 10, 2  # control rate, and how many actions before a chunk's end the next one is asked for


def observe(takes: dict) -> dict:
    """Stands for the sensors: the last observations, [To, ...] by name."""
    return {name: np.random.rand(*item["shape"]).astype(np.float32) for name, item in takes.items()}


steps, port = sys.argv[1:] or ("50", "8000")
client = WebsocketClientPolicy("127.0.0.1", int(port))  # api_key=... where the server has a token
takes = client.get_server_metadata()["observations"]
with ThreadPoolExecutor(1) as network:
    chunk, step, following = client.infer(observe(takes))["actions"], 0, None
    for number in range(int(steps)):
        if step == len(chunk):  # the first actions of the next chunk were for the steps meanwhile
            chunk, step, following = following.result()["actions"], AHEAD, None
        if following is None and step >= len(chunk) - AHEAD:
            following = network.submit(client.infer, observe(takes))
        print(f"step {number}: {np.round(chunk[step], 2)}")  # your robot's command
        step += 1
        time.sleep(1 / HZ)
