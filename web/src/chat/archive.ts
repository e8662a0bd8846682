// Conversations as a JSON file, out and in. A file comes from anywhere: each field is checked, and
// what is read gets identities of its own, so that nothing here is overwritten.
import type { Word } from '../shared/i18n';
import {
  add,
  newConversation,
  newId,
  type Alternative,
  type Conversation,
  type Message,
  type Options,
  type Sampling,
  type Token,
} from './conversation';
import { SAMPLING_FIELDS } from './sampling';

const FORMAT = 'quern-conversations';
const VERSION = 1;
const MOST_MESSAGES = 10_000;
const PLAIN: Options = { model: '', system: '', sampling: {} };

export function toArchive(conversations: Conversation[]): string {
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 1) + '\n';
}

// Why a file can't be taken, in words of the interface.
export class ImportError extends Error {
  readonly values: string[];
  constructor(
    readonly word: Word,
    ...values: string[]
  ) {
    super(`${word} ${values.join(' ')}`);
    this.values = values;
  }
}

const wrong = (field: string): ImportError => new ImportError('wrongField', field);

// This page's exports, and what /save in the terminal writes ({"messages": [...]}), which gets the
// options given. Throws ImportError, naming the field that is not as it should be.
export function fromArchive(text: string, title = '', options: Options = PLAIN): Conversation[] {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch {
    throw new ImportError('notJson');
  }
  const plain = typeof value === 'object' && value !== null && !Array.isArray(value);
  const archive = plain ? (value as Fields) : {};
  if (archive['format'] === FORMAT) {
    if (archive['version'] !== VERSION) throw wrong('version');
    return list(archive['conversations'], 'conversations').map(readConversation);
  }
  const messages = Array.isArray(value) ? value : archive['messages'];
  if (!Array.isArray(messages)) throw new ImportError('notConversation');
  return [readMessages(messages, title, options)];
}

// A list of {role, content} as the API has it.
function readMessages(items: unknown[], title: string, options: Options): Conversation {
  if (items.length > MOST_MESSAGES) throw wrong('messages');
  const conversation = newConversation({ ...options, system: '' });
  let parent: string | null = null;
  for (const [i, item] of items.entries()) {
    const from = object(item, `messages[${i}]`);
    const text = string(from['content'] ?? '', `messages[${i}].content`);
    const role = from['role'];
    if (role === 'system' && i === 0) {
      conversation.options.system = text;
      continue;
    }
    if (role !== 'user' && role !== 'assistant') throw wrong(`messages[${i}].role`);
    const message: Message = add(conversation, parent, role, text);
    const { reasoning_content: reasoning } = from;
    if (typeof reasoning === 'string' && reasoning) message.reasoning = reasoning;
    parent = message.id;
  }
  if (conversation.messages.length === 0) throw wrong('messages');
  if (conversation.messages[0]!.role !== 'user') conversation.title = title;
  return conversation;
}

type Fields = Record<string, unknown>;

function object(value: unknown, name: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw wrong(name);
  }
  return value as Fields;
}

function list(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value)) throw wrong(name);
  return value;
}

function string(value: unknown, name: string): string {
  if (typeof value !== 'string') throw wrong(name);
  return value;
}

function number(value: unknown, name: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw wrong(name);
  }
  return value;
}

function readConversation(value: unknown, index: number): Conversation {
  const at = `conversations[${index}]`;
  const from = object(value, at);
  const options = object(from['options'], `${at}.options`);
  const items = list(from['messages'], `${at}.messages`);
  if (items.length > MOST_MESSAGES) throw wrong(`${at}.messages`);
  const ids = new Map<string, string>(); // theirs and ours
  const messages: Message[] = [];
  for (const [i, item] of items.entries()) {
    const message = readMessage(item, `${at}.messages[${i}]`);
    if (ids.has(message.id)) throw wrong(`${at}.messages[${i}].id`);
    if (message.parent !== null) {
      const parent = ids.get(message.parent); // it comes first, so there are no cycles
      if (!parent) throw wrong(`${at}.messages[${i}].parent`);
      message.parent = parent;
    }
    const id = newId();
    ids.set(message.id, id);
    messages.push({ ...message, id });
  }
  const chosen: Record<string, string> = {};
  for (const [parent, child] of Object.entries(object(from['chosen'], `${at}.chosen`))) {
    const key = parent === 'root' ? parent : ids.get(parent);
    const target = ids.get(string(child, `${at}.chosen`));
    if (key && target) chosen[key] = target;
  }
  return {
    id: newId(),
    title: string(from['title'], `${at}.title`),
    created: number(from['created'], `${at}.created`),
    updated: number(from['updated'], `${at}.updated`),
    options: {
      model: string(options['model'], `${at}.options.model`),
      system: string(options['system'], `${at}.options.system`),
      sampling: readSampling(object(options['sampling'], `${at}.options.sampling`), at),
      ...readLimits(options, at),
    },
    messages,
    chosen,
  };
}

function readLimits(options: Fields, at: string): Partial<Options> {
  const out: Partial<Options> = {};
  if (options['stop'] !== undefined) {
    out.stop = list(options['stop'], `${at}.options.stop`).map((s) => string(s, `${at}.options.stop`));
  }
  if (options['schema'] !== undefined) out.schema = string(options['schema'], `${at}.options.schema`);
  return out;
}

function readSampling(from: Fields, at: string): Sampling {
  const sampling: Sampling = {};
  for (const { name } of SAMPLING_FIELDS) {
    if (from[name] !== undefined) sampling[name] = number(from[name], `${at}.sampling.${name}`);
  }
  return sampling;
}

function readMessage(value: unknown, at: string): Message {
  const from = object(value, at);
  const role = from['role'];
  if (role !== 'user' && role !== 'assistant') throw wrong(`${at}.role`);
  const message: Message = {
    id: string(from['id'], `${at}.id`),
    parent: from['parent'] === null ? null : string(from['parent'], `${at}.parent`),
    role,
    text: string(from['text'], `${at}.text`),
    created: number(from['created'], `${at}.created`),
  };
  if (from['reasoning'] !== undefined) {
    message.reasoning = string(from['reasoning'], `${at}.reasoning`);
  }
  if (from['files'] !== undefined) {
    message.files = list(from['files'], `${at}.files`).map((item) => {
      const file = object(item, `${at}.files`);
      return { name: string(file['name'], `${at}.files`), text: string(file['text'], `${at}.files`) };
    });
  }
  if (from['model'] !== undefined) message.model = string(from['model'], `${at}.model`);
  for (const name of ['seed', 'promptTokens', 'answerTokens', 'firstMs', 'totalMs'] as const) {
    if (from[name] !== undefined) message[name] = number(from[name], `${at}.${name}`);
  }
  const end = from['end'];
  if (end === 'stop' || end === 'length' || end === 'stopped') message.end = end;
  if (from['tokens'] !== undefined) {
    message.tokens = list(from['tokens'], `${at}.tokens`).map((token): Token => {
      const top = list(object(token, `${at}.tokens`)['top'], `${at}.tokens`);
      const name = `${at}.tokens`;
      return { ...readAlternative(token, name), top: top.map((t) => readAlternative(t, name)) };
    });
  }
  return message;
}

function readAlternative(value: unknown, at: string): Alternative {
  const from = object(value, at);
  return { text: string(from['text'], at), logprob: number(from['logprob'], at) };
}
