"""LiteLLM against quern serve, as its users use it: litellm_client.py ADDRESS"""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its prices need no network
import litellm
from pydantic import BaseModel

HERE = dict(model="openai/tested", api_base=sys.argv[1], api_key="a-secret-for-tests", num_retries=0)
QUESTION = [{"role": "user", "content": "Tell me a story about a cat."}]

asked = dict(messages=QUESTION, max_tokens=24, temperature=0.8, seed=7, **HERE)
whole = litellm.completion(**asked)
text = whole.choices[0].message.content
assert text and whole.usage.completion_tokens <= 24, whole
pieces = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == text


class Pet(BaseModel):
    tame: bool
    legs: int


kept = litellm.completion(messages=QUESTION, max_tokens=300, response_format=Pet, **HERE)
pet = Pet.model_validate(json.loads(kept.choices[0].message.content))
assert isinstance(pet.tame, bool)

tools = [
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "tells the time",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"enum": ["UTC", "CET"]}},
                "required": ["zone"],
                "additionalProperties": False,
            },
        },
    }
]
asked = dict(messages=QUESTION, tools=tools, tool_choice="required", max_tokens=400, **HERE)
asks = litellm.completion(**asked).choices[0].message
call = asks.tool_calls[0]
assert json.loads(call.function.arguments)["zone"] in ("UTC", "CET"), asks
talk = QUESTION + [asks, {"role": "tool", "tool_call_id": call.id, "content": "Noon."}]
said = litellm.completion(messages=talk, tools=tools, tool_choice="none", max_tokens=8, **HERE)
assert said.choices[0].message.tool_calls is None

vectors = [d["embedding"] for d in litellm.embedding(input=["a cat", "the sea"], **HERE).data]
assert vectors[0] != vectors[1] and abs(sum(x * x for x in vectors[0]) - 1) < 1e-3
print("litellm: chat, stream, structured output, tools, embeddings")
