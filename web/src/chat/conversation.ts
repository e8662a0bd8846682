// A conversation is a tree: editing or regenerating adds a sibling, nothing is overwritten. What
// the reader sees is one path through it, from the first message down the chosen children.

export type Role = 'user' | 'assistant';

// What the reader may set; absent is the server's default.
export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  seed?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
}

export interface Alternative {
  text: string;
  logprob: number;
}

export interface Token extends Alternative {
  top: Alternative[];
}

export type FailureKind =
  | 'key'
  | 'busy'
  | 'refused'
  | 'unknown-model'
  | 'unreachable'
  | 'broken'
  | 'server';

// Why an answer is not there, or not whole.
export interface Failure {
  kind: FailureKind;
  detail: string; // the server's words, as they are
  retryAt?: number; // milliseconds since 1970
}

// A text file that came with a question.
export interface Attachment {
  name: string;
  text: string;
}

export interface Message {
  id: string;
  parent: string | null;
  role: Role;
  text: string;
  created: number;
  files?: Attachment[]; // of questions
  // Of answers:
  reasoning?: string; // what the server tells apart; see partsOf() for what stands in the text
  model?: string;
  seed?: number;
  end?: 'stop' | 'length' | 'stopped';
  failure?: Failure;
  tokens?: Token[];
  promptTokens?: number;
  answerTokens?: number;
  firstMs?: number; // until the first token
  totalMs?: number;
}

export interface Options {
  model: string; // empty: the server's first
  system: string; // empty: the model's own
  sampling: Sampling;
  stop?: string[]; // texts that end an answer
  schema?: string; // JSON schema that an answer must have
}

export interface Conversation {
  id: string;
  title: string; // empty: the first message's words
  created: number;
  updated: number;
  options: Options;
  messages: Message[];
  chosen: Record<string, string>; // a parent's id, or ROOT, and its child on the path
}

const ROOT = 'root';
const keyOf = (parent: string | null): string => parent ?? ROOT;

// crypto.randomUUID would do, but exists under TLS and on localhost only.
export const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');

export function newConversation(options: Options): Conversation {
  const now = Date.now();
  return {
    id: newId(),
    title: '',
    created: now,
    updated: now,
    options: structuredClone(options),
    messages: [],
    chosen: {},
  };
}

export function childrenOf(c: Conversation, parent: string | null): Message[] {
  return c.messages.filter((m) => m.parent === parent);
}

// The messages that are shown, first to last.
export function pathOf(c: Conversation): Message[] {
  const children = new Map<string, Message[]>();
  for (const message of c.messages) {
    const key = keyOf(message.parent);
    children.set(key, [...(children.get(key) ?? []), message]);
  }
  const path: Message[] = [];
  let parent: string | null = null;
  while (path.length < c.messages.length) {
    const options: Message[] = children.get(keyOf(parent)) ?? [];
    const chosen: string | undefined = c.chosen[keyOf(parent)];
    const next: Message | undefined = options.find((m) => m.id === chosen) ?? options.at(-1);
    if (!next) break;
    path.push(next);
    parent = next.id;
  }
  return path;
}

// The path from the first message to this one.
export function ancestryOf(c: Conversation, message: Message): Message[] {
  const byId = new Map(c.messages.map((m) => [m.id, m]));
  const path: Message[] = [];
  let at: Message | undefined = message;
  while (at && path.length <= c.messages.length) {
    path.unshift(at);
    at = at.parent === null ? undefined : byId.get(at.parent);
  }
  return path;
}

// Adds a message and makes it the chosen one of its siblings.
export function add(
  c: Conversation,
  parent: string | null,
  role: Role,
  text: string,
  more: Partial<Message> = {},
): Message {
  const message: Message = { id: newId(), parent, role, text, created: Date.now(), ...more };
  c.messages.push(message);
  choose(c, message);
  c.updated = message.created;
  return message;
}

// Takes a message without children away and returns its parent.
export function remove(c: Conversation, message: Message): Message | undefined {
  c.messages = c.messages.filter((m) => m !== message);
  delete c.chosen[keyOf(message.parent)];
  return c.messages.find((m) => m.id === message.parent);
}

// Takes a message and all that follows it away.
export function removeTree(c: Conversation, message: Message): void {
  const gone = new Set([message.id]);
  // Children stand behind their parents.
  for (const m of c.messages) if (m.parent !== null && gone.has(m.parent)) gone.add(m.id);
  c.messages = c.messages.filter((m) => !gone.has(m.id));
  for (const [parent, child] of Object.entries(c.chosen)) {
    if (gone.has(parent) || gone.has(child)) delete c.chosen[parent];
  }
  c.updated = Date.now();
}

// A question as it is sent: its files stand before its words, in fences that their text can't close.
export function contentOf(message: Message): string {
  const files = (message.files ?? []).map(({ name, text }) => {
    const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((m) => m[0].length));
    const fence = '`'.repeat(longest + 1);
    return `${name}\n${fence}\n${text.replace(/\n$/, '')}\n${fence}`;
  });
  return [...files, message.text].filter(Boolean).join('\n\n');
}

// What is shown, for people and other programs.
export function toMarkdown(c: Conversation): string {
  const parts = [`# ${titleOf(c) || 'Conversation'}`];
  if (c.options.system.trim()) parts.push(`## System\n\n${c.options.system.trim()}`);
  for (const message of pathOf(c)) {
    const text = message.role === 'user' ? contentOf(message) : message.text;
    parts.push(`## ${message.role === 'user' ? 'User' : 'Assistant'}\n\n${text.trim()}`);
  }
  return parts.join('\n\n') + '\n';
}

export function choose(c: Conversation, message: Message): void {
  c.chosen[keyOf(message.parent)] = message.id;
}

export function titleOf(c: Conversation): string {
  if (c.title) return c.title;
  const begin = pathOf(c)[0];
  const first = begin?.text.trim().split('\n')[0] || begin?.files?.[0]?.name || '';
  const letters = [...first];
  return letters.length > 60 ? letters.slice(0, 59).join('') + '…' : first;
}

export function matches(c: Conversation, words: string): boolean {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return true;
  const text = [titleOf(c), ...c.messages.map(contentOf)].join('\n').toLowerCase();
  return wanted.every((word) => text.includes(word));
}
