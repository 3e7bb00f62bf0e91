"""The backend ``openai``: options, opening, and what it asks of a real server on this machine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest
from openai_client import (
    KEY,
    KEY_ENV,
    a_backend,
    a_request,
    answer,
    answers,
    open_failure,
    open_info,
)
from openai_server import OpenAIServer, Script

from wattbench.backends.openai import (
    ConnectionFailed,
    HttpStatusError,
    OpenAIBackend,
    OpenAIOptions,
    RequestTimeout,
)
from wattbench.backends.openai_wire import WORDS, message_text
from wattbench.core.errors import BackendError, OptionError
from wattbench.core.load import Message
from wattbench.core.run import Mode
from wattbench.plugins import describe_options, parse_options, parse_spec


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY_ENV, KEY)
    return KEY


def test_options_by_the_grammar() -> None:
    """All options can be written on a command line, and have help."""
    spec = parse_spec("openai,url=https://h:8/v1?a=b,model=m,api=chat,timeout_s=3,verify_tls=no")
    options = parse_options(spec, OpenAIBackend.Options)
    assert options == OpenAIOptions(
        url="https://h:8/v1?a=b", model="m", api="chat", timeout_s=3.0, verify_tls=False
    )
    described = {row["name"]: row for row in describe_options(OpenAIBackend.Options)}
    assert described["url"]["default"] == "required"
    assert described["key_env"]["default"] == "OPENAI_API_KEY"
    assert all(row["help"] for row in described.values())


def test_the_url_is_required() -> None:
    with pytest.raises(OptionError, match="needs url="):
        parse_options(parse_spec("openai,model=m"), OpenAIBackend.Options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "localhost:8000/v1"}, "must begin with http"),
        ({"url": "ftp://localhost/v1"}, "must begin with http"),
        ({"url": "http:///v1"}, "is no URL"),
        ({"url": "http://localhost:99999/v1"}, "is no URL"),
        ({"url": "http://local host/v1"}, "is no URL"),
        ({"url": "http://me:hunter2@localhost/v1"}, "must not contain credentials"),
        ({"url": "me:hunter2@localhost/v1"}, "must not contain credentials"),
        ({"url": "http://h/v1", "key_env": "sk-hunter2"}, "NAME of an environment variable"),
        ({"url": "http://h/v1", "timeout_s": 0.0}, "positive number"),
        ({"url": "http://h/v1", "timeout_s": float("inf")}, "positive number"),
    ],
)
def test_impossible_options(values: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused, without repeating what may be a secret."""
    with pytest.raises(ValueError, match=message) as caught:
        OpenAIOptions(**values)
    assert "hunter2" not in str(caught.value)


def test_available_everywhere_and_light() -> None:
    """It is always available, and naming it does not load aiohttp."""
    assert OpenAIBackend.availability() is None
    code = "import sys, wattbench.backends.openai; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_open_takes_the_first_model() -> None:
    info, url = open_info(Script())
    assert (info.model, info.engine) == ("tiny", "openai (scripted/1.0)")
    assert (info.tokens_source, info.mode) == ("usage", Mode())
    assert info.detail == {"url": url, "api": "completions", "prompt_lengths": "words"}


def test_open_takes_the_model_asked_for() -> None:
    assert open_info(Script(), model="other")[0].model == "other"


def test_open_refuses_a_model_not_served() -> None:
    error = open_failure(Script(), model="huge")
    assert "does not serve 'huge' but tiny, other" in str(error)
    many = Script(models=tuple(f"m{number}" for number in range(30)))
    assert str(open_failure(many, model="huge")).endswith("m19 and 10 more")


def test_the_query_of_the_url_is_sent_but_not_shown() -> None:
    """A query belongs to each request; it may hold a secret, so neither detail nor errors tell."""

    async def main() -> None:
        async with OpenAIServer(Script(fail_status=500, fail_body="a=hunter2")) as server:
            backend = a_backend(server.url + "/?a=hunter2#part", api="chat")
            info = await backend.open()
            with pytest.raises(HttpStatusError) as caught:
                await answer(backend)
            await backend.close()
            assert info.detail["url"] == server.url + "/"
            assert "hunter2" not in str(caught.value)
            (served,) = server.requests
            assert (served.path, served.query) == ("/v1/chat/completions", "a=hunter2")

    asyncio.run(main())


def test_open_without_a_server() -> None:
    """The error names the URL and the way out."""

    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        backend = a_backend(url)
        with pytest.raises(ConnectionFailed) as caught:
            await backend.open()
        await backend.close()
        for part in (url, "Is the server up?", "end in /v1"):
            assert part in str(caught.value)

    asyncio.run(main())


def test_open_of_a_server_that_says_nothing() -> None:
    """A port that accepts and stays silent ends in the time-out, not in a hang."""

    async def main() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
            backend = a_backend(url, timeout_s=0.2)
            with pytest.raises(RequestTimeout, match=r"no byte from http.* for 0.2 s"):
                await backend.open()
            await backend.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        "<html>" + "x" * 200,
        "[]",
        "{}",
        '{"data": []}',
        '{"data": [{"name": "m"}]}',
        '{"data": [{"id": 7}]}',
        '{"data": 7}',
        "[" * 100_000,
    ],
)
def test_open_of_another_kind_of_server(body: str) -> None:
    """What is no list of models is quoted, but not at length."""
    error = open_failure(Script(models_body=body, models_content_type="text/html"))
    for part in ("not an OpenAI-compatible server", "HTTP 200", "text/html", body[:80]):
        assert part in str(error)
    assert body[:81] not in str(error) or len(body) <= 80
    assert type(error) is BackendError


def test_open_at_a_wrong_path() -> None:
    error = open_failure(Script(), path="/nowhere")
    assert "not an OpenAI-compatible server" in str(error)
    assert "HTTP 404" in str(error)


def test_open_of_a_server_out_of_order() -> None:
    """A server that is still loading is not called incompatible."""
    error = open_failure(Script(models_status=503, models_body="still loading"))
    assert isinstance(error, HttpStatusError)
    assert "HTTP 503: 'still loading'" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_open_names_the_variable_of_the_key(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(models_status=status, models_body=f"no {KEY}")
    error = open_failure(script, key_env="MY_KEY")
    assert "wants a key; none is set in the environment variable MY_KEY" in str(error)
    monkeypatch.setenv("MY_KEY", KEY)
    error = open_failure(script, key_env="MY_KEY")
    assert "does not accept the key in the environment variable MY_KEY" in str(error)
    assert KEY not in str(error)


def test_a_key_that_no_header_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "sk-hunter2\nX: y")
    error = open_failure(Script())
    assert f"the key in {KEY_ENV} has characters" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_body_of_a_request(api: str) -> None:
    _, server, _ = answers(Script(), a_request(tokens=3), api=api)
    (served,) = server.requests
    prompt = served.body.pop("messages" if api == "chat" else "prompt")
    text = message_text(Message(role="user", tokens=5, seed=1))
    assert prompt == ([{"role": "user", "content": text}] if api == "chat" else text)
    assert served.body == {
        "model": "tiny",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
        "temperature": 0,
        "ignore_eos": True,
        "min_tokens": 3,
    }
    assert served.headers["Accept-Encoding"] == "identity"


def test_messages_keep_their_roles_in_a_chat_and_are_joined_otherwise() -> None:
    messages = (Message(role="system", text="Be brief."), Message(role="user", tokens=2, seed=3))
    request, words = a_request(messages=messages), message_text(messages[1])
    _, server, _ = answers(Script(), request, api="chat")
    assert server.requests[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": words},
    ]
    _, server, _ = answers(Script(), request)
    assert server.requests[0].body["prompt"] == f"Be brief.\n{words}"


def test_a_free_answer_asks_for_no_length() -> None:
    _, server, _ = answers(Script(), a_request(ignore_eos=False))
    assert not {"ignore_eos", "min_tokens"} & server.requests[0].body.keys()


def test_synthetic_texts() -> None:
    """A word per token; equal seeds give equal texts, others differ, longer ones continue."""
    texts = [message_text(Message(role="user", tokens=50, seed=seed)) for seed in range(100)]
    assert len(set(texts)) == 100
    assert all(len(text.split()) == 50 and set(text.split()) <= set(WORDS) for text in texts)
    assert message_text(Message(role="user", tokens=60, seed=7)).startswith(texts[7])
    assert message_text(Message(role="user", tokens=50, seed=7)) == texts[7]
    assert len(set(WORDS)) == len(WORDS) >= 200


def test_without_a_key_none_is_sent() -> None:
    _, server, _ = answers(Script())
    assert "Authorization" not in server.requests[0].headers


def test_the_key_is_a_bearer_token(key: str) -> None:
    """Both requests carry it, and it comes from the variable that was named."""
    _, server, _ = answers(Script(needs_key=key))
    assert server.requests[0].headers["Authorization"] == f"Bearer {key}"
