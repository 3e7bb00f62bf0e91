"""The OpenAI API as a server sees it: bodies in, events out; and the loopback port."""

from wattbench.openai_api.answers import DONE, AnswerWriter, models, refusal, usage
from wattbench.openai_api.asks import Ask, BadRequest, Kind, understand

__all__ = [
    "DONE",
    "AnswerWriter",
    "Ask",
    "BadRequest",
    "Kind",
    "models",
    "refusal",
    "understand",
    "usage",
]
