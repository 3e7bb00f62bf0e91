"""The backend ``openai``: answers whole, refused, broken off and malformed."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from openai_client import (
    a_backend,
    a_request,
    answer,
    answers,
    failure,
    opened,
)
from openai_server import OpenAIServer, Script

from wattbench.backends.openai import (
    ConnectionFailed,
    HttpStatusError,
    RequestTimeout,
    StreamError,
    WrongUsage,
)
from wattbench.core.errors import BackendError, EngineDied
from wattbench.core.load import TokenChunk, Usage


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_an_answer(api: str, newline: str) -> None:
    """A chunk per event, its tokens unknown, then the counts of the server."""
    script = Script(tokens=5, tokens_per_chunk=2, cached_tokens=3, newline=newline)
    chunks, _, backend = answers(script, api=api)
    usage = Usage(input_tokens=5, output_tokens=5, cached_tokens=3, finish_reason="length")
    texts = ["word word ", "word word ", "word "]
    assert chunks == [
        *(TokenChunk(tokens=None, text=text) for text in texts),
        TokenChunk(tokens=0, usage=usage),
    ]
    assert backend.ignores_eos


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_an_opening_chunk_without_text_is_no_token(api: str) -> None:
    chunks, _, _ = answers(Script(tokens=2, role_first=True), api=api)
    assert [chunk.text for chunk in chunks] == ["word ", "word ", None]


def test_without_counts_nothing_is_known() -> None:
    """No usage is unknown, never zero and never a count of chunks."""
    chunks, _, _ = answers(Script(tokens=2, usage=False))
    assert chunks[-1].usage == Usage(
        input_tokens=None, output_tokens=None, cached_tokens=None, finish_reason="length"
    )


def test_thinking_is_counted() -> None:
    usage = '{"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}}'
    insert = f'data: {{"choices": [], "usage": {usage}}}\n\n'.encode()
    chunks, _, _ = answers(Script(usage=False, insert=insert), a_request(9))
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.output_tokens, chunks[-1].usage.reasoning_tokens) == (9, 6)


@pytest.mark.parametrize(
    "usage", ['{"prompt_tokens": "5"}', "7", '{"prompt_tokens": true, "prompt_tokens_details": 1}']
)
def test_counts_that_are_none(usage: str) -> None:
    insert = f'data: {{"choices": [], "usage": {usage}}}\n\n'.encode()
    chunks, _, _ = answers(Script(usage=False, insert=insert))
    assert chunks[-1].usage == Usage(input_tokens=None, output_tokens=None, finish_reason="length")


@pytest.mark.parametrize(("counted", "wrong"), [(40, True), (1, True), (4, False), (0, False)])
def test_a_count_that_cannot_be(counted: int, wrong: bool) -> None:
    """Ten times too many, or one for four chunks with text: the request fails by name."""
    usage = f'{{"prompt_tokens": 5, "completion_tokens": {counted}}}'
    script = Script(usage=False, insert=f'data: {{"choices": [], "usage": {usage}}}\n\n'.encode())
    if wrong:
        error, chunks = failure(script)
        assert type(error) is WrongUsage
        assert f"counts {counted} output tokens, but 4 chunks" in str(error)
        assert len(chunks) == 4
    else:
        answers(script)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ('{"delta": {"content": "a"}}', "a"),
        ('{"delta": {"reasoning_content": "hm"}}', "hm"),
        ('{"delta": {"content": null, "reasoning": "hm", "reasoning_content": "hm"}}', "hm"),
        ('{"delta": {"content": null, "role": "assistant"}}', None),
        ('{"delta": {"content": "größer \\ud83d\\ude42"}}', "größer 🙂"),
        ('{"delta": {"content": "\\ud83d"}}', "?"),
        ('{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}}', "f"),
        ('{"delta": {"tool_calls": [{"function": {"arguments": "{1"}}]}}', "{1"),
        ('{"delta": {"tool_calls": [{"function": 1}, 2]}}', None),
        ('{"delta": {"tool_calls": 1}}', None),
        ('{"text": "a"}', "a"),
        ('{"text": ""}', None),
        ("{}", None),
    ],
)
def test_where_the_text_is(event: str, text: str | None) -> None:
    """Thinking counts as answer, nothing counts as none, half a character as a question mark."""
    script = Script(tokens=0, at=0, insert=f'data: {{"choices": [{event}]}}\n\n'.encode())
    chunks, _, _ = answers(script)
    assert [chunk.text for chunk in chunks[:-1]] == ([] if text is None else [text])


def test_pings_and_events_after_the_end_are_skipped() -> None:
    ping = b": ping\n\ndata:\n\ndata: {}\n\nid: 1\n\n"
    chunks, _, _ = answers(Script(tokens=2, insert=ping))
    assert len(chunks) == 3
    late = b'data: [DONE]\n\ndata: {"choices": [{"text": "late"}]}\n\ndata: {\n\n'
    chunks, _, _ = answers(Script(tokens=1, insert=late))
    assert [chunk.text for chunk in chunks] == ["word ", None]


@pytest.mark.parametrize("missing", ["done", "finish_reason"])
def test_one_word_for_the_end_is_enough(missing: str) -> None:
    script = Script(tokens=2, done=False) if missing == "done" else Script(finish_reason=None)
    chunks, _, _ = answers(script)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.finish_reason == ("length" if missing == "done" else None)


def test_a_chunk_far_longer_than_a_network_packet() -> None:
    script = Script(tokens=200_000, tokens_per_chunk=200_000)
    chunks, _, _ = answers(script, a_request(200_000))
    assert [len(chunk.text or "") for chunk in chunks] == [10**6, 0]


@pytest.mark.parametrize(
    "refuses", [("ignore_eos",), ("min_tokens",), ("ignore_eos", "min_tokens")]
)
def test_a_server_that_refuses_unknown_fields(refuses: tuple[str, ...]) -> None:
    """It is asked once more without them, and not with them again."""

    async def main() -> None:
        async with OpenAIServer(Script(refuses=refuses)) as server, opened(server) as backend:
            assert len(await answer(backend)) == 5
            assert not backend.ignores_eos
            await answer(backend)
            asked = ["ignore_eos" in served.body for served in server.requests]
            assert asked == [True, False, False]
            assert "min_tokens" not in server.requests[-1].body

    asyncio.run(main())


def test_a_400_for_another_reason_blames_no_field() -> None:
    """Refused with and without the fields: the request fails and they are tried again."""

    async def main() -> None:
        async with OpenAIServer(Script(refuses=("prompt",))) as server, opened(server) as backend:
            for _ in range(2):
                with pytest.raises(HttpStatusError, match=r"HTTP 400.*Unrecognized"):
                    await answer(backend)
            assert backend.ignores_eos
            asked = ["ignore_eos" in served.body for served in server.requests]
            assert asked == [True, False, True, False]

    asyncio.run(main())


@pytest.mark.parametrize(("status", "ignore_eos"), [(500, True), (429, True), (400, False)])
def test_nothing_else_is_tried_again(status: int, ignore_eos: bool) -> None:
    async def main() -> None:
        async with OpenAIServer(Script(fail_status=status)) as server, opened(server) as backend:
            with pytest.raises(HttpStatusError):
                await answer(backend, a_request(ignore_eos=ignore_eos))
            assert len(server.requests) == 1

    asyncio.run(main())


def test_an_http_status() -> None:
    """The error tells the status and the beginning of the body, on one line."""
    body = "out of\n  memory " + "x" * 300
    error, chunks = failure(Script(fail_status=503, fail_body=body))
    assert type(error) is HttpStatusError
    assert "HTTP 503: 'out of memory xxx" in str(error)
    assert "x" * 186 in str(error)
    assert "x" * 187 not in str(error)
    assert chunks == []


def test_a_redirect_is_not_followed() -> None:
    """Following one would send the key elsewhere, turn POST into GET, and cost time each time."""
    script = Script(fail_status=308, fail_headers={"Location": "https://elsewhere/v1"})
    error, _ = failure(script)
    assert type(error) is HttpStatusError
    assert "redirects to 'https://elsewhere/v1'" in str(error)


@pytest.mark.parametrize("stop", ["end", "abort"])
def test_a_stream_that_breaks_off(stop: Literal["end", "abort"]) -> None:
    """What came before the break was yielded; the break is an error, not a short answer."""
    error, chunks = failure(Script(tokens=9, at=3, stop=stop))
    assert type(error) is StreamError
    assert "stream ended early" in str(error)
    assert [chunk.text for chunk in chunks] == ["word "] * 3


def test_a_stream_without_any_event() -> None:
    error, _ = failure(Script(at=0, insert=b'{"whole": "answer"}', stop="end"))
    assert "0 chunks of text/event-stream" in str(error)


def test_a_connection_lost_before_the_answer() -> None:
    """A server that closes instead of answering fails the request, not the run."""

    async def main() -> None:
        async with OpenAIServer() as server, opened(server) as backend:
            await server.stop()
            with pytest.raises(ConnectionFailed, match="cannot reach") as caught:
                await answer(backend)
            assert not isinstance(caught.value, EngineDied)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'data: {"choices": [{"te\n\n', "malformed JSON"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "malformed JSON"),
        (b"data: [1]\n\n", "malformed event"),
        (b'data: {"choices": 7}\n\n', "malformed event"),
        (b'data: {"choices": [7]}\n\n', "malformed event"),
        (b'data: {"error": {"message": "lost a GPU"}}\n\n', "reports an error.*lost a GPU"),
        (b'data: {"object": "error", "message": "lost a GPU"}\n\n', "reports an error.*lost"),
        (b'event: error\ndata: {"message": "lost a GPU"}\n\n', "reports an error.*lost a GPU"),
        (b"data: " + b"x" * 5_000_000, "stream ended early: .* an event is longer than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_event_that_cannot_be_read(data: bytes, message: str) -> None:
    error, chunks = failure(Script(tokens=9, at=2, insert=data))
    assert type(error) is StreamError
    assert len(chunks) == 2
    assert len(str(error)) < 400
    with pytest.raises(StreamError, match=message):
        raise error


@pytest.mark.parametrize("at", [0, 2])
def test_a_server_that_stops_sending(at: int) -> None:
    """The time-out is for silence, before the first byte and between two."""
    error, chunks = failure(Script(tokens=9, at=at, stop="hang"), timeout_s=0.2)
    assert type(error) is RequestTimeout
    assert "no byte" in str(error)
    assert "0.2 s" in str(error)
    assert len(chunks) == at


def test_a_request_before_open_and_after_close() -> None:
    async def main() -> None:
        async with OpenAIServer() as server:
            async with opened(server) as backend:
                pass
            for closed in (backend, a_backend(server.url)):
                with pytest.raises(BackendError, match="before it is open"):
                    await answer(closed)
                await closed.close()

    asyncio.run(main())
