// Conversations as a JSON file, out and in. A file comes from anywhere: each field is checked, and
// what is read gets identities of its own, so that nothing here is overwritten.
import {
  newId,
  type Alternative,
  type Conversation,
  type Message,
  type Sampling,
  type Token,
} from './conversation';
import { SAMPLING_FIELDS } from './sampling';

const FORMAT = 'quern-conversations';
const VERSION = 1;
const MOST_MESSAGES = 10_000;

export function toArchive(conversations: Conversation[]): string {
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 1) + '\n';
}

// Throws an Error that says which field is not as it should be.
export function fromArchive(text: string): Conversation[] {
  const archive = object(JSON.parse(text), 'the file');
  if (archive['format'] !== FORMAT) throw new Error(`format is not ${FORMAT}`);
  if (archive['version'] !== VERSION) throw new Error(`version is not ${VERSION}`);
  return list(archive['conversations'], 'conversations').map(readConversation);
}

type Fields = Record<string, unknown>;

function object(value: unknown, name: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`${name} is not an object`);
  }
  return value as Fields;
}

function list(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${name} is not a list`);
  return value;
}

function string(value: unknown, name: string): string {
  if (typeof value !== 'string') throw new Error(`${name} is not a text`);
  return value;
}

function number(value: unknown, name: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new Error(`${name} is not a number`);
  }
  return value;
}

function readConversation(value: unknown, index: number): Conversation {
  const at = `conversations[${index}]`;
  const from = object(value, at);
  const options = object(from['options'], `${at}.options`);
  const items = list(from['messages'], `${at}.messages`);
  if (items.length > MOST_MESSAGES) throw new Error(`${at} has more than ${MOST_MESSAGES} messages`);
  const ids = new Map<string, string>(); // theirs and ours
  const messages: Message[] = [];
  for (const [i, item] of items.entries()) {
    const message = readMessage(item, `${at}.messages[${i}]`);
    if (ids.has(message.id)) throw new Error(`${at}.messages[${i}].id occurs twice`);
    if (message.parent !== null) {
      const parent = ids.get(message.parent); // it comes first, so there are no cycles
      if (!parent) throw new Error(`${at}.messages[${i}].parent is no earlier message`);
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
    },
    messages,
    chosen,
  };
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
  if (role !== 'user' && role !== 'assistant') throw new Error(`${at}.role is not known`);
  const message: Message = {
    id: string(from['id'], `${at}.id`),
    parent: from['parent'] === null ? null : string(from['parent'], `${at}.parent`),
    role,
    text: string(from['text'], `${at}.text`),
    created: number(from['created'], `${at}.created`),
  };
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
