// The official client for JavaScript against quern serve: openai_client.mjs ADDRESS
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'a-secret-for-tests', maxRetries: 0 });
const model = 'tested';
const messages = [{ role: 'user', content: 'Tell me a story about a cat.' }];

const names = [];
for await (const entry of client.models.list()) names.push(entry.id);
assert.deepEqual(names, [model]);

// Chat, whole and streamed
const asked = { model, messages, max_tokens: 24, seed: 7, temperature: 0.8 };
const whole = await client.chat.completions.create(asked);
const text = whole.choices[0].message.content;
assert.ok(whole.usage.completion_tokens > 0 && whole.usage.completion_tokens <= 24);
let pieces = '';
let usage = null;
const stream = await client.chat.completions.create({
  ...asked,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const event of stream) {
  pieces += event.choices[0]?.delta?.content ?? '';
  usage = event.usage ?? usage;
}
assert.equal(pieces, text);
assert.equal(usage.total_tokens, whole.usage.total_tokens);
const helper = client.chat.completions.stream(asked);
assert.equal(await helper.finalContent(), text);

// Completions
const done = await client.completions.create({
  model,
  prompt: 'Once upon a time',
  max_tokens: 4,
  echo: true,
  logprobs: 1,
});
assert.equal(done.choices[0].logprobs.tokens.join(''), done.choices[0].text);

// Embeddings: the client asks for base64 and unpacks it
const { data } = await client.embeddings.create({ model, input: ['a cat', 'the sea'] });
const squares = data[0].embedding.reduce((sum, x) => sum + x * x, 0);
assert.ok(Math.abs(squares - 1) < 1e-3 && data[1].index === 1);

// Answers kept to a schema
const schema = {
  type: 'object',
  properties: { kind: { enum: ['cat', 'dog'] }, tame: { type: 'boolean' } },
  required: ['kind', 'tame'],
  additionalProperties: false,
};
const parsed = await client.chat.completions.parse({
  model,
  messages,
  response_format: { type: 'json_schema', json_schema: { name: 'pet', strict: true, schema } },
});
assert.ok(['cat', 'dog'].includes(JSON.parse(parsed.choices[0].message.content).kind));

// Responses
const request = { model, input: messages, max_output_tokens: 24, seed: 7, temperature: 0.8 };
const response = await client.responses.create(request);
assert.equal(response.output_text, text);
const events = client.responses.stream(request);
let deltas = '';
events.on('response.output_text.delta', (event) => (deltas += event.delta));
assert.equal((await events.finalResponse()).output_text, text);
assert.equal(deltas, text);

// Errors come as the client's own classes
await assert.rejects(
  client.chat.completions.create({ ...asked, temperature: 9 }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature',
);
await assert.rejects(
  client.chat.completions.create({ ...asked, model: 'other' }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found',
);
await assert.rejects(
  client.withOptions({ apiKey: 'wrong' }).models.list(),
  OpenAI.AuthenticationError,
);
console.log('every check of the JavaScript client holds');
