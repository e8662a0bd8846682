"""Conversations that a model of ten million parameters can learn: python3 conversations.py DATA OUT VALID

Stories become answers to "Tell me a story about a fox" and to "How does this story go on?", word
problems answers with their arithmetic; with them go the conversations about who the model is, the
refusals, and the shorter ones of the service and role-play sets. Every fortieth is kept for
validation. The same input gives the same bytes.
"""

import gzip
import json
import random
import re
import sys

ASKS = [
    "Tell me a story about {}.",
    "Tell me a short story about {}.",
    "Can you tell me a story about {}?",
    "I would like to hear a story about {}.",
    "Please write a short story about {}.",
    "Make up a story about {}.",
]
PLAIN = ["Tell me a story.", "Can you tell me a short story?", "Please tell me a bedtime story."]
GOES_ON = ["How does this story go on?", "Continue this story.", "What happens next?"]
THINGS = (
    "dog cat bird fox bear rabbit mouse frog fish horse pig duck lion wolf tree flower garden ball "
    "car boat train doll kite hat cake apple king queen princess prince witch giant boy girl "
    "dragon snowman ring castle forest river moon star house farm park toy box bed shoe"
).split()
LONGEST = 1100  # characters of an answer: with its question it fits into 512 tokens


def records(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def tidy(text):
    # Some of the stories were read in a wrong encoding once.
    for wrong, right in (("â€œ", '"'), ("â€\x9d", '"'), ("â€™", "'"), ("â€“", "-"), ("â€”", "-"), ("â€", '"')):
        text = text.replace(wrong, right)
    return re.sub(r"[ \t]*\n(?!\n)", " ", text.replace("\n\n", "\0")).replace("\0", "\n\n").strip()


def shortened(text, longest):
    """The text up to the last end of a sentence before `longest`."""
    if len(text) <= longest:
        return text
    end = max(text.rfind(mark, 0, longest) for mark in ('. ', '."', '!', '?', '.\n'))
    return text[: end + 1].strip() if end > 0 else ""


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def story_turns(text, rng):
    text = tidy(text)
    words = set(re.findall(r"[a-z]+", text[:LONGEST].lower()))
    told = [word for word in THINGS if word in words]
    answer = shortened(text, LONGEST)
    if len(answer) > 80:
        ask = rng.choice(ASKS).format(article(rng.choice(told))) if told else rng.choice(PLAIN)
        yield ask, answer
        if told and rng.random() < 0.25:
            yield rng.choice(PLAIN), answer
    sentences = re.split(r"(?<=[.!?])\s+", text)
    if len(sentences) >= 6:
        cut = rng.randrange(2, min(5, len(sentences) - 2))
        before, after = " ".join(sentences[:cut]), " ".join(sentences[cut:])
        if len(before) < 400:
            yield f"{rng.choice(GOES_ON)}\n\n{before}", shortened(after, LONGEST - 300)


def conversations(data, rng):
    def pair(question, answer):
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    for record in records(f"{data}/train/en_stories.jsonl.gz"):
        text = record["text"]
        # A long tale gives several pieces.
        for begin in range(0, min(len(text), 6000), 3000):
            piece = text[begin:]
            if begin:
                piece = re.sub(r"\A.*?[.!?]\"?\s+", "", piece, count=1, flags=re.S)
            for question, answer in story_turns(piece, rng):
                yield pair(question, answer)
    for record in records(f"{data}/train/math.jsonl.gz"):
        if record["kind"] == "math word problem":
            answer = f"{record['equation']} = {record['answer']}\nThe answer is {record['answer']}."
            yield pair(record["question"], answer)
    for record in records(f"{data}/sft/identity.jsonl"):
        if record["lang"] == "en":
            for _ in range(12):
                yield record["messages"]
    for record in records(f"{data}/sft/refusals.jsonl"):
        question, answer = (turn["content"] for turn in record["messages"][-2:])
        yield pair(question, shortened(answer, 300))
    for record in records(f"{data}/sft/service_en_sgd.jsonl.gz"):
        turns = [{"role": t["role"], "content": t["content"]} for t in record["messages"]]
        if turns[0]["role"] == "user":
            yield turns[:10]
    for record in records(f"{data}/sft/instruct_open.jsonl.gz"):
        if record["lang"] == "en" and record["category"] == "roleplay":
            question, answer = (turn["content"] for turn in record["messages"][:2])
            answer = shortened(answer, 700)
            if len(question) < 300 and len(answer) > 40:
                yield pair(question, answer)


def main():
    data, out, valid = sys.argv[1:]
    rng = random.Random(7)
    everything = [c for c in conversations(data, rng) if any(t["role"] == "assistant" and t["content"] for t in c)]
    rng.shuffle(everything)
    with open(out, "w", encoding="utf-8") as train, open(valid, "w", encoding="utf-8") as kept:
        for index, messages in enumerate(everything):
            line = json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
            (kept if index % 40 == 0 else train).write(line)
    print(f"{len(everything)} conversations")


if __name__ == "__main__":
    main()
