"""The backend ``openai``: secrecy of the key, and connections."""

from __future__ import annotations

import asyncio
import gc
import shutil
import ssl
import subprocess
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from openai_client import (
    KEY,
    KEY_ENV,
    a_backend,
    a_request,
    answer,
    failure,
    open_failure,
    open_info,
    opened,
)
from openai_server import OpenAIServer, Script

from wattbench.backends.http_client import READ_BUFFER_BYTES
from wattbench.backends.openai import (
    ConnectionFailed,
    OpenAIBackend,
    StreamError,
)
from wattbench.core.errors import BackendError


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY_ENV, KEY)
    return KEY


ECHO = b'data: {"error": "Bearer ' + KEY.encode() + b'"}\n\n'


@pytest.mark.parametrize(
    "fail",
    [
        lambda: failure(Script(fail_status=401, fail_body="bad: {auth}"))[0],
        lambda: failure(Script(fail_status=500, fail_body="{auth}" * 5000))[0],
        lambda: failure(Script(fail_status=500, fail_body="x" * 180 + "{auth}"))[0],
        lambda: failure(Script(fail_status=302, fail_headers={"Location": f"http://h/?k={KEY}"}))[
            0
        ],
        lambda: failure(Script(insert=ECHO))[0],
        lambda: failure(Script(insert=f"data: {{{KEY}\n\n".encode()))[0],
        lambda: failure(Script(insert=f'data: ["{KEY}"]\n\n'.encode()))[0],
        lambda: failure(Script(at=1, stop="abort"))[0],
        lambda: open_failure(Script(models_body=f"{KEY} is wrong")),
        lambda: open_failure(Script(models_body="x" * 65 + KEY)),
        lambda: open_failure(Script(models_status=500, models_body=KEY)),
        lambda: open_failure(Script(models=(KEY,)), model="m"),
        lambda: open_failure(Script(), path="/nowhere"),
    ],
)
def test_the_key_is_in_no_error(fail: Callable[[], BackendError], key: str) -> None:
    """Neither whole nor cut, neither in the error nor in those it was made from."""
    error = fail()
    assert "hunter2" in key
    assert "hunter2" not in str(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))


def test_the_key_is_in_no_description(key: str) -> None:
    info, _ = open_info(Script(server=f"echo {key}"))
    assert key not in repr(info)
    backend = a_backend("http://h/v1")
    assert key not in repr(vars(backend))


def test_many_requests_at_once() -> None:
    """No request waits for the connection of another: all are answered only once all are there."""
    count = 150

    async def main() -> None:
        script = Script(tokens=1, gather=count)
        async with OpenAIServer(script) as server, opened(server) as backend:
            async with asyncio.timeout(30):
                chunks = await asyncio.gather(*(answer(backend) for _ in range(count)))
            assert all(len(each) == 2 for each in chunks)

    asyncio.run(main())


def test_a_connection_serves_one_request_after_another() -> None:
    """Also if the end of the body comes a little after ``[DONE]``, as it does in practice."""

    async def main() -> None:
        async with OpenAIServer(Script(linger_s=0.02)) as server, opened(server) as backend:
            for _ in range(3):
                await answer(backend)
            assert len({served.connection for served in server.requests}) == 1

    asyncio.run(main())


def test_the_counts_do_not_wait_for_the_end_of_the_body() -> None:
    """A server that keeps the body open after ``[DONE]`` delays no result, and is left soon."""

    async def main() -> None:
        async with OpenAIServer(Script(linger_s=100.0)) as server, opened(server) as backend:
            async with asyncio.timeout(30):
                stream = backend.generate(a_request())
                chunks = [await anext(stream) for _ in range(5)]
                assert chunks[-1].usage is not None
                await stream.aclose()
                assert len(await answer(backend)) == 5
                await until(lambda: server.abandoned == 2)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def give_up_by_closing(backend: OpenAIBackend) -> None:
    stream = backend.generate(a_request())
    await anext(stream)
    await stream.aclose()


async def give_up_by_forgetting(backend: OpenAIBackend) -> None:
    async for _ in backend.generate(a_request()):
        break
    gc.collect()


async def give_up_by_cancelling(backend: OpenAIBackend) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await answer(backend)


@pytest.mark.parametrize(
    "give_up", [give_up_by_closing, give_up_by_forgetting, give_up_by_cancelling]
)
def test_an_abandoned_answer_closes_its_connection(
    give_up: Callable[[OpenAIBackend], Coroutine[Any, Any, None]],
) -> None:
    """The server notices, and stops working on an answer that nobody reads."""

    async def main() -> None:
        async with OpenAIServer(Script(at=2, stop="hang")) as server, opened(server) as backend:
            await give_up(backend)
            await until(lambda: server.abandoned == 1)

    asyncio.run(main())


def test_a_slow_reader_holds_the_server_up() -> None:
    """What is not read yet stays within the buffer, and all of it arrives in the end."""
    tokens = 3 * READ_BUFFER_BYTES // 100

    async def main() -> None:
        script = Script(tokens=tokens, word="word" * 10)
        async with OpenAIServer(script) as server, opened(server) as backend:
            stream = backend.generate(a_request(tokens))
            await anext(stream)
            await asyncio.sleep(0.5)
            (connection,) = backend._client._all  # type: ignore[union-attr]
            assert connection._body_bytes < 2 * READ_BUFFER_BYTES
            assert len([chunk async for chunk in stream]) == tokens

    asyncio.run(main())


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl to make a certificate")
    key_file, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-keyout", str(key_file), "-out", str(certificate)]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key_file)
    return context


def test_a_certificate_is_checked_unless_told_otherwise(tls: ssl.SSLContext) -> None:
    async def main() -> None:
        async with OpenAIServer(tls=tls) as server:
            with pytest.raises(ConnectionFailed, match="verify_tls=false"):
                async with opened(server):
                    pass
            async with opened(server, verify_tls=False) as backend:
                assert len(await answer(backend)) == 5

    asyncio.run(main())


def test_several_processes_send() -> None:
    """Chunks carry their times; a failure keeps its class and what came before it."""

    async def main() -> None:
        async with OpenAIServer() as server, opened(server, client_processes=2) as backend:
            before_s = asyncio.get_running_loop().time()
            answered = await asyncio.gather(*(answer(backend) for _ in range(4)))
            after_s = asyncio.get_running_loop().time()
            assert [len(chunks) for chunks in answered] == [5] * 4
            times_s = [chunk.arrived_s or 0.0 for chunks in answered for chunk in chunks]
            assert before_s < min(times_s) <= max(times_s) < after_s
            assert len({served.connection for served in server.requests}) >= 2
            server.script = Script(tokens=9, at=3, stop="abort")
            stream = backend.generate(a_request(9))
            assert [(await anext(stream)).text for _ in range(3)] == ["word "] * 3
            with pytest.raises(StreamError, match="ended early"):
                await anext(stream)
            server.script = Script(at=2, stop="hang")
            await give_up_by_cancelling(backend)
            await until(lambda: server.abandoned == 1)

    asyncio.run(main())
