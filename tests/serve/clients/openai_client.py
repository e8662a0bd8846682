"""The official Python client against quern serve, as its users use it: openai_client.py ADDRESS"""

import json
import math
import sys

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1], api_key="a-secret-for-tests", max_retries=0, timeout=60)
MODEL = "tested"
QUESTION = [{"role": "user", "content": "Tell me a story about a cat."}]
checks = 0


def check(condition, *what):
    global checks
    checks += 1
    assert condition, what


def refused(kind, param, call, **arguments):
    try:
        call(**arguments)
    except kind as error:
        check(error.param == param, param, error.body)
        return error
    raise AssertionError((kind, arguments))


# Models
check([m.id for m in client.models.list()] == [MODEL])
check(client.models.retrieve(MODEL).object == "model")

# Chat, whole and streamed
asked = dict(model=MODEL, messages=QUESTION, max_tokens=24, seed=7, temperature=0.8)
whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
text = whole.choices[0].message.content
check(whole.object == "chat.completion" and whole.choices[0].message.role == "assistant")
check(whole.choices[0].finish_reason in ("stop", "length"))
check(0 < whole.usage.completion_tokens <= 24)
check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens)
tokens = whole.choices[0].logprobs.content
check(b"".join(bytes(t.bytes) for t in tokens).decode(errors="replace") == text, text)
for t in tokens:
    check(len(t.top_logprobs) == 2 and t.logprob <= 0)
    check(math.exp(t.top_logprobs[0].logprob) + math.exp(t.top_logprobs[1].logprob) <= 1.0001)
pieces = list(
    client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
)
check(pieces[0].choices[0].delta.role == "assistant")
check("".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == text)
check(pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason)
check(pieces[-1].usage.completion_tokens == whole.usage.completion_tokens)
check(not pieces[-1].choices and pieces[0].usage is None)
with client.chat.completions.stream(**asked) as stream:  # the helper that puts pieces together
    for event in stream:
        pass
    # Not get_final_completion(): it refuses an answer that ends at max_tokens.
    check(stream.current_completion_snapshot.choices[0].message.content == text)
several = client.chat.completions.create(**asked, n=3)
check([c.index for c in several.choices] == [0, 1, 2])
check(several.choices[0].message.content == text)
stopped = client.chat.completions.create(**asked, stop=[text[5:9]])
check(stopped.choices[0].message.content == text[: text.index(text[5:9])])

# Completions with echo and log-probabilities
done = client.completions.create(
    model=MODEL, prompt="Once upon a time", max_tokens=4, echo=True, logprobs=2, temperature=0
)
check(done.choices[0].text.startswith("Once upon a time"))
logprobs = done.choices[0].logprobs
check("".join(logprobs.tokens) == done.choices[0].text, logprobs.tokens)
check(logprobs.token_logprobs[0] is None and all(x <= 0 for x in logprobs.token_logprobs[1:]))
check(logprobs.text_offset[0] == 0 and len(logprobs.text_offset) == len(logprobs.tokens))
# The likeliest two, and the token that stands there.
check(all(2 <= len(top) <= 3 for top in logprobs.top_logprobs[1:]))
check(all(t in top for t, top in list(zip(logprobs.tokens, logprobs.top_logprobs))[1:]))
for chosen, top in list(zip(logprobs.token_logprobs, logprobs.top_logprobs))[-4:]:
    check(abs(chosen - max(top.values())) < 1e-4)  # greedy takes the likeliest
streamed = client.completions.create(
    model=MODEL, prompt="Once upon a time", max_tokens=4, temperature=0, stream=True
)
check("Once upon a time" + "".join(c.choices[0].text for c in streamed) == done.choices[0].text)

# Embeddings: the client asks for base64 and unpacks it
vectors = [
    d.embedding
    for d in client.embeddings.create(model=MODEL, input=["a cat", "the sea", "a cat"]).data
]
check(vectors[0] == vectors[2] != vectors[1])
check(all(abs(sum(x * x for x in v) - 1) < 1e-3 for v in vectors))
plain = client.embeddings.create(model=MODEL, input="a cat", encoding_format="float")
check(max(abs(x - y) for x, y in zip(plain.data[0].embedding, vectors[0])) < 1e-5)


# Answers kept to a schema: the client makes the schema from a class and parses the answer
class Pet(BaseModel):
    name: str
    legs: int
    tame: bool


SHORT = {
    "type": "json_schema",
    "json_schema": {
        "name": "pet",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"kind": {"enum": ["cat", "dog"]}, "tame": {"type": "boolean"}},
            "required": ["kind", "tame"],
            "additionalProperties": False,
        },
    },
}
kept = client.chat.completions.create(
    model=MODEL, messages=QUESTION, response_format=SHORT, max_tokens=200
)
value = json.loads(kept.choices[0].message.content)
check(value["kind"] in ("cat", "dog") and isinstance(value["tame"], bool))
# A model this small may talk on inside a string, so a few seeds may run out of tokens.
parsed = None
for seed in range(20):
    try:
        parsed = client.chat.completions.parse(
            model=MODEL, messages=QUESTION, response_format=Pet, max_tokens=300, seed=seed
        )
        break
    except openai.LengthFinishReasonError:
        continue
check(parsed is not None and isinstance(parsed.choices[0].message.parsed, Pet))

# Responses, whole and as typed events
asked = dict(
    model=MODEL,
    input="Tell me a story about a cat.",
    instructions="You are a helpful assistant.",
    max_output_tokens=24,
    extra_body={"seed": 7},
    temperature=0.8,
)
response = client.responses.create(**asked)
check(response.output_text == text, response.output_text, text)
check(response.usage.input_tokens == whole.usage.prompt_tokens)
check(response.usage.input_tokens_details.cached_tokens > 0)
check(response.status == ("completed" if whole.choices[0].finish_reason == "stop" else "incomplete"))
events = list(client.responses.create(**asked, stream=True))
check([e.sequence_number for e in events] == list(range(len(events))))
check(type(events[0]).__name__ == "ResponseCreatedEvent", events[0])
check(type(events[-1]).__name__ in ("ResponseCompletedEvent", "ResponseIncompleteEvent"))
check("".join(e.delta for e in events if e.type == "response.output_text.delta") == text)
with client.responses.stream(
    model=MODEL,
    input=QUESTION,
    text={"format": {"type": "json_schema", "name": "pet", **SHORT["json_schema"]}},
) as stream:
    for event in stream:
        pass
    value = json.loads(stream.get_final_response().output_text)
check(value["kind"] in ("cat", "dog"))

# A conversation with two tools, whole and streamed
def function(name, properties):
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": name,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            },
        },
    }


DAYS = {"type": "integer", "minimum": 1, "maximum": 9}
TOOLS = [
    function("weather", {"city": {"enum": ["Oslo", "Rome"]}, "days": DAYS}),
    function("clock", {"zone": {"enum": ["UTC", "CET"]}}),
]
talk = list(QUESTION)
first = client.chat.completions.create(
    model=MODEL, messages=talk, tools=TOOLS, tool_choice="required", max_tokens=400
)
check(first.choices[0].finish_reason == "tool_calls", first)
call = first.choices[0].message.tool_calls[0]
arguments = json.loads(call.function.arguments)
check(call.type == "function" and call.function.name in ("weather", "clock"))
check(set(arguments) in ({"city", "days"}, {"zone"}), arguments)
talk.append(first.choices[0].message.model_dump(exclude_none=True))
talk.append({"role": "tool", "tool_call_id": call.id, "content": "It rains."})
named = {"type": "function", "function": {"name": "clock"}}
name, streamed_arguments, reason = "", "", None
for event in client.chat.completions.create(
    model=MODEL, messages=talk, tools=TOOLS, tool_choice=named, max_tokens=400, stream=True
):
    for piece in event.choices[0].delta.tool_calls or []:
        name += piece.function.name or ""
        streamed_arguments += piece.function.arguments or ""
    reason = event.choices[0].finish_reason or reason
check(name == "clock" and reason == "tool_calls", name, reason)
check(json.loads(streamed_arguments)["zone"] in ("UTC", "CET"))
last = client.chat.completions.create(
    model=MODEL, messages=talk, tools=TOOLS, tool_choice="none", max_tokens=8
)
check(last.choices[0].message.tool_calls is None)
flat = [dict(type="function", strict=True, **t["function"]) for t in TOOLS]
response = client.responses.create(
    model=MODEL, input="x", tools=flat, tool_choice="required", max_output_tokens=400
)
item = response.output[-1]
check(item.type == "function_call" and json.loads(item.arguments), response)
done = client.responses.create(
    model=MODEL,
    tools=flat,
    max_output_tokens=8,
    tool_choice="none",
    input=[
        {"role": "user", "content": "x"},
        item.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": item.call_id, "output": "7"},
    ],
)
check(done.output[-1].type == "message")

# Errors come as the client's own classes
bad, chat = openai.BadRequestError, client.chat.completions.create
refused(bad, "temperature", chat, model=MODEL, messages=QUESTION, temperature=9)
refused(bad, "messages", chat, model=MODEL, messages=[])
refused(bad, "messages[0].role", chat, model=MODEL, messages=[{"role": "cat", "content": "x"}])
refused(bad, "tools[0].type", chat, model=MODEL, messages=QUESTION, tools=[{"type": "x"}])
missing = refused(openai.NotFoundError, "model", chat, model="other", messages=QUESTION)
check(missing.code == "model_not_found")
try:
    client.with_options(api_key="wrong").models.list()
    raise AssertionError("a wrong key was taken")
except openai.AuthenticationError as error:
    check(error.status_code == 401)
long = [{"role": "user", "content": "word " * 100_000}]
refused(bad, "messages", chat, model=MODEL, messages=long)
print(f"openai {openai.__version__}: {checks} checks")
