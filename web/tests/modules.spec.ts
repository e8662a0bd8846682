// What can be judged without a browser.
import { webcrypto } from 'node:crypto';
import { expect, test } from '@playwright/test';
import { fromArchive, toArchive } from '../src/chat/archive';
import * as tree from '../src/chat/conversation';
import { partsOf } from '../src/chat/reasoning';
import { parseField, SAMPLING_FIELDS } from '../src/chat/sampling';
import { events } from '../src/chat/sse';
import { format, ticks } from '../src/runs/chart';

(globalThis as { crypto?: unknown }).crypto ??= webcrypto; // Node 18 keeps it in a module

const OPTIONS = { model: 'm', system: '', sampling: { top_k: 3 } };

async function eventsOf(bytes: Uint8Array, step: number): Promise<string[]> {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += step) parts.push(bytes.slice(at, at + step));
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(part);
      controller.close();
    },
  });
  const all: string[] = [];
  for await (const event of events(body)) all.push(event);
  return all;
}

test('events are the same however the network cuts them', async () => {
  const text = ': ping\n\ndata: {"a":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: 你好 🙂\n\ndata: half';
  const bytes = new TextEncoder().encode(text);
  for (const step of [1, 2, 3, 7, bytes.length]) {
    expect(await eventsOf(bytes, step)).toEqual(['{"a":1}', 'two\nlines', '你好 🙂']);
  }
});

test('a conversation shows the chosen path, and each version keeps what followed it', () => {
  const c = tree.newConversation(OPTIONS);
  const texts = () => tree.pathOf(c).map((m) => m.text);
  const question = tree.add(c, null, 'user', 'q1');
  const first = tree.add(c, question.id, 'assistant', 'a1');
  tree.add(c, first.id, 'user', 'q2');
  tree.add(c, question.id, 'assistant', 'a1 again');
  expect(texts()).toEqual(['q1', 'a1 again']);
  tree.choose(c, first);
  expect(texts()).toEqual(['q1', 'a1', 'q2']);
  tree.add(c, null, 'user', 'q1 edited');
  expect(texts()).toEqual(['q1 edited']);
  expect(tree.childrenOf(c, null).map((m) => m.text)).toEqual(['q1', 'q1 edited']);
  expect(tree.ancestryOf(c, first).map((m) => m.text)).toEqual(['q1', 'a1']);
  expect(tree.matches(c, 'AGAIN q1')).toBe(true);
  expect(tree.matches(c, 'again nothing')).toBe(false);
});

test('an archive comes back the same but for its identities', () => {
  const c = tree.newConversation(OPTIONS);
  const question = tree.add(c, null, 'user', 'q');
  const kept = tree.add(c, question.id, 'assistant', 'a', {
    tokens: [{ text: 'a', logprob: -1, top: [{ text: 'b', logprob: -2 }] }],
    end: 'stop',
  });
  tree.add(c, question.id, 'assistant', 'b');
  tree.choose(c, kept);
  const [back] = fromArchive(toArchive([c]));
  expect(back!.id).not.toBe(c.id);
  expect(back!.options).toEqual(OPTIONS);
  expect(tree.pathOf(back!).map((m) => m.text)).toEqual(['q', 'a']);
  expect(tree.pathOf(back!)[1]!.tokens).toEqual(kept.tokens);
});

test('a bad archive is refused, and says which field', () => {
  const c = tree.newConversation(OPTIONS);
  const question = tree.add(c, null, 'user', 'q');
  tree.add(c, question.id, 'assistant', 'a');
  const change = (edit: (value: { conversations: Record<string, any>[]; version: number }) => void) => {
    const value = JSON.parse(toArchive([c]));
    edit(value);
    return () => fromArchive(JSON.stringify(value));
  };
  expect(() => fromArchive('{"a": 1}')).toThrow('notConversation');
  expect(() => fromArchive('{')).toThrow('notJson');
  expect(() => fromArchive('[]')).toThrow('messages');
  expect(change((v) => (v.version = 2))).toThrow('version');
  expect(change((v) => (v.conversations[0]!['messages'][1].text = 7))).toThrow('messages[1].text');
  expect(change((v) => (v.conversations[0]!['messages'][0].created = 'x'))).toThrow('created');
  expect(change((v) => v.conversations[0]!['messages'].reverse())).toThrow('messages[0].parent');
  expect(change((v) => (v.conversations[0]!['messages'][0].parent = question.id))).toThrow('messages[0].parent');
  expect(change((v) => (v.conversations[0]!['messages'][1].id = question.id))).toThrow('messages[1].id');
  expect(change((v) => (v.conversations[0]!['options'].sampling.top_k = '3'))).toThrow('top_k');
  const odd = change((v) => (v.conversations[0]!['chosen'] = { ['__proto__']: 'x', root: 'gone' }))();
  expect(odd[0]!.chosen).toEqual({});
});

test('what /save writes in the terminal is a conversation', () => {
  const saved = {
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'q' },
      { role: 'assistant', content: 'a', reasoning_content: 'hm' },
    ],
  };
  const [c] = fromArchive('\uFEFF' + JSON.stringify(saved), 'title', OPTIONS);
  expect(c!.options).toEqual({ ...OPTIONS, system: 'Be brief.' });
  expect(tree.pathOf(c!).map((m) => [m.role, m.text, m.reasoning])).toEqual([
    ['user', 'q', undefined],
    ['assistant', 'a', 'hm'],
  ]);
  const bad = { messages: [{ role: 'user', content: 'q' }, { role: 'root', content: 'q' }] };
  expect(() => fromArchive(JSON.stringify(bad))).toThrow('messages[1].role');
});

test('reasoning is told apart from the answer, also while it comes', () => {
  expect(partsOf('<think>\na b\n</think>\n\nc')).toEqual({ reasoning: 'a b', answer: 'c', open: false });
  expect(partsOf('a b\n</think>\nc')).toEqual({ reasoning: 'a b', answer: 'c', open: false });
  expect(partsOf('<think>a')).toEqual({ reasoning: 'a', answer: '', open: true });
  expect(partsOf('<thi')).toEqual({ reasoning: '', answer: '', open: true });
  expect(partsOf('Write `</think>` there')).toEqual({ reasoning: '', answer: 'Write `</think>` there', open: false });
  expect(partsOf('c', 'a')).toEqual({ reasoning: 'a', answer: 'c', open: false });
  expect(partsOf('<b>')).toEqual({ reasoning: '', answer: '<b>', open: false });
});

test('fields take numbers within bounds, and nothing else', () => {
  const top_p = SAMPLING_FIELDS.find((field) => field.name === 'top_p')!;
  expect(parseField(top_p, '0.9')).toBe(0.9);
  for (const bad of ['', ' ', 'x', '1.5', '-1', 'NaN', 'Infinity']) expect(parseField(top_p, bad)).toBeUndefined();
});

test('axes have round numbers within their bounds', () => {
  expect(ticks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
  expect(ticks(1.93, 9.2, 5)).toEqual([2, 4, 6, 8]);
  expect(ticks(-0.3, 0.3, 5)).toEqual([-0.2, 0, 0.2]);
  expect([0, 0.5, 1234, 6144000, 0.0003].map(format)).toEqual(['0', '0.5', '1234', '6.144M', '3e−4']);
});
