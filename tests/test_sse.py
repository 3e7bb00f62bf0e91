"""The parser of server-sent events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.backends.sse import MAX_EVENT_BYTES, Event, SseError, SseParser

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:no space",
        b"data:  two",
        b"data",
        b"data:",
        "data: größer 漢字 🙂".encode(),
        b"data: [DONE]",
        b"data: \xff\xfe",
        b": ping",
        b":",
        b"event: error",
        b"id: 7",
        b"retry: 10",
        b"nonsense",
        b"\xef\xbb\xbfdata: marked",
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=20).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def parse(*chunks: bytes) -> list[Event]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(stream=STREAMS | st.binary(max_size=60), data=st.data())
def test_the_cut_makes_no_difference(stream: bytes, data: st.DataObject) -> None:
    """Events do not depend on how the network cuts the bytes."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*chunks) == parse(stream)
    assert parse(*(bytes([byte]) for byte in stream)) == parse(stream)


@given(stream=STREAMS, end=ENDS)
def test_the_kind_of_line_end_makes_no_difference(stream: bytes, end: bytes) -> None:
    """The three line ends mean the same, as long as CR does not meet LF by chance."""
    plain = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert parse(plain.replace(b"\n", end)) == parse(plain)


def test_fields() -> None:
    """Data lines are joined, one leading space goes, comments and unknown fields vanish."""
    stream = b": hi\nid: 1\nretry: 5\nevent: error\ndata: a\ndata:b\ndata:  c\nwhat: d\n\n"
    assert parse(stream) == [Event("a\nb\n c", "error")]


def test_an_event_name_lasts_one_event() -> None:
    assert parse(b"event: error\ndata: a\n\ndata: b\n\n") == [Event("a", "error"), Event("b")]


def test_an_event_without_data_is_none() -> None:
    """A name alone is dropped and does not leak into the next event; empty data is data."""
    assert parse(b"event: error\n\ndata: b\n\n\n\n") == [Event("b")]
    assert parse(b"data:\n\n") == [Event("")]


def test_utf8_cut_within_a_character() -> None:
    whole = "data: 🙂\n\n".encode()
    assert parse(whole[:8], whole[8:]) == [Event("🙂")]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert parse(b"data: a\xffb\n\n") == [Event("a\ufffdb")]


def test_other_line_separators_are_text() -> None:
    """Unicode has more line ends than the format: they stay inside the data."""
    data = "a\u2028b\x0bc\x0cd\x85e"
    assert parse(f"data: {data}\n\n".encode()) == [Event(data)]


def test_a_byte_order_mark_only_opens_the_stream() -> None:
    assert parse(b"\xef\xbb", b"\xbfdata: a\n\n") == [Event("a")]
    assert parse(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [Event("a")]


def test_an_event_is_out_with_its_last_byte() -> None:
    """A CR ends the line at once; the LF that may follow is no second line."""
    parser = SseParser()
    assert list(parser.feed(b"data: a\r\n\r")) == [Event("a")]
    assert list(parser.feed(b"\ndata: b\r\n\r\n")) == [Event("b")]


def test_an_unfinished_event_is_none() -> None:
    assert parse(b"data: a\n\ndata: b\n") == [Event("a")]


def test_done() -> None:
    (end,) = parse(b"data: [DONE]\r\n\r\n")
    assert end.done
    assert not Event("[DONE] and more").done


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * 30, b"data: 0123456789\n" * 4, b":" + b" " * 30],
    ids=["one line", "many lines", "comment"],
)
def test_an_event_beyond_the_bound(stream: bytes) -> None:
    """The bound holds for a line without end and for an event of many lines, however cut."""
    whole = b"data: ok\n\n" + stream
    for size in (1, 7, len(whole)):
        parser = SseParser(max_event_bytes=24)
        cuts = (whole[start : start + size] for start in range(0, len(whole), size))
        events: list[Event] = []
        with pytest.raises(SseError, match="longer than 24 bytes"):
            # Extending a list keeps the events that come before the error.
            events.extend(event for cut in cuts for event in parser.feed(cut))
        assert events == [Event("ok")]


def test_the_bound_counts_one_event() -> None:
    """Many events together may be longer than the bound of one."""
    parser = SseParser(max_event_bytes=24)
    assert len(list(parser.feed(b"data: 0123456789\n\n" * 100))) == 100


def test_a_long_event_within_the_bound() -> None:
    text = "x" * (MAX_EVENT_BYTES // 2)
    whole = f"data: {text}\n\n".encode()
    chunks = [whole[start : start + 2**16] for start in range(0, len(whole), 2**16)]
    assert parse(*chunks) == [Event(text)]
