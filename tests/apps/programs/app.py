"""One answer, by WSGI and by ASGI: which process gave it."""

import asyncio
import os
import time

FIELDS = [("content-type", "text/plain"), ("cache-control", "no-store")]


def wsgi(environ, start_response):
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    start_response("200 OK", FIELDS)
    return [str(os.getpid()).encode()]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    fields = [(name.encode(), value.encode()) for name, value in FIELDS]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
