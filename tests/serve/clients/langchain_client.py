"""LangChain's client against quern serve, as its users use it: langchain_client.py ADDRESS"""

import sys
from typing import Literal

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

ADDRESS = dict(base_url=sys.argv[1], api_key="a-secret-for-tests", max_retries=0)
QUESTION = [("system", "You are a helpful assistant."), ("human", "Tell me a story about a cat.")]

chat = ChatOpenAI(model="tested", max_tokens=24, temperature=0.8, seed=7, **ADDRESS)
whole = chat.invoke(QUESTION)
assert whole.content and whole.usage_metadata["output_tokens"] <= 24, whole
pieces = list(chat.stream(QUESTION, stream_usage=True))
assert "".join(p.content for p in pieces) == whole.content
assert sum(p.usage_metadata["total_tokens"] for p in pieces if p.usage_metadata) > 24


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    legs: int
    tame: bool


kept = ChatOpenAI(model="tested", max_tokens=300, **ADDRESS)
pet = kept.with_structured_output(Pet, method="json_schema").invoke(QUESTION)
assert isinstance(pet, Pet) and pet.kind in ("cat", "dog"), pet



@tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Tells the weather."""
    return f"It rains in {city}."


@tool
def clock(zone: Literal["UTC", "CET"]) -> str:
    """Tells the time."""
    return f"Noon in {zone}."


caller = ChatOpenAI(model="tested", max_tokens=400, **ADDRESS)
known = {"weather": weather, "clock": clock}
talk = [HumanMessage("Do I need an umbrella?")]
asks = caller.bind_tools([weather, clock], tool_choice="required").invoke(talk)
assert asks.tool_calls and not asks.invalid_tool_calls, asks
talk += [asks, known[asks.tool_calls[0]["name"]].invoke(asks.tool_calls[0])]
parts = None
for part in caller.bind_tools([weather, clock], tool_choice="clock").stream(talk):
    parts = part if parts is None else parts + part
assert parts.tool_calls[0]["name"] == "clock" and parts.tool_calls[0]["args"]["zone"], parts

embed = OpenAIEmbeddings(model="tested", check_embedding_ctx_length=False, **ADDRESS)
vectors = embed.embed_documents(["a cat", "the sea", "a cat"])
assert vectors[0] == vectors[2] != vectors[1]
assert abs(sum(x * x for x in embed.embed_query("a cat")) - 1) < 1e-3
print("langchain-openai: chat, stream, structured output, tools, embeddings")
