// The AI SDK's client of OpenAI-compatible servers against quern serve: ai_sdk_client.mjs ADDRESS
import assert from 'node:assert/strict';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateObject, generateText, jsonSchema, streamText } from 'ai';

const provider = createOpenAICompatible({
  name: 'quern',
  baseURL: process.argv[2],
  apiKey: 'a-secret-for-tests',
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const asked = {
  model: provider.chatModel('tested'),
  prompt: 'Tell me a story about a cat.',
  maxOutputTokens: 24,
  temperature: 0.8,
  seed: 7,
  maxRetries: 0,
};

const whole = await generateText(asked);
assert.ok(whole.text.length > 0 && whole.usage.outputTokens <= 24);
const stream = streamText(asked);
let pieces = '';
for await (const piece of stream.textStream) pieces += piece;
assert.equal(pieces, whole.text);
assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);

const { object } = await generateObject({
  ...asked,
  maxOutputTokens: 300,
  schema: jsonSchema({
    type: 'object',
    properties: { kind: { enum: ['cat', 'dog'] }, legs: { type: 'integer', minimum: 0, maximum: 8 } },
    required: ['kind', 'legs'],
    additionalProperties: false,
  }),
});
assert.ok(['cat', 'dog'].includes(object.kind) && object.legs >= 0 && object.legs <= 8);

const { embeddings } = await embedMany({
  model: provider.textEmbeddingModel('tested'),
  values: ['a cat', 'the sea'],
  maxRetries: 0,
});
assert.ok(Math.abs(embeddings[0].reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);
assert.notDeepEqual(embeddings[0], embeddings[1]);
console.log('@ai-sdk/openai-compatible: chat, stream, structured output, embeddings');
