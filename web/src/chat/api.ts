// The server's API as the page uses it: OpenAI's, and what failures mean.
import type { Alternative, Failure, FailureKind, Options, Token } from './conversation';
import { events } from './sse';

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export interface Delta {
  text?: string;
  reasoning?: string;
  tokens?: Token[];
  end?: 'stop' | 'length';
  model?: string;
  seed?: number;
  promptTokens?: number;
  answerTokens?: number;
}

export class ApiError extends Error {
  constructor(readonly failure: Failure) {
    super(failure.detail);
  }
}

const TOP = 5; // alternatives of each token

// What this server says of a model beyond its name; others say less.
export interface ModelCard {
  family: string;
  parameters: number;
  bytes: number;
  quantization: string;
  licence: string | null;
  context: number;
  chat: boolean; // it has a chat template
  defaults?: Partial<Record<string, number>>; // of sampling; only of a model that is loaded
}

export interface ModelEntry {
  id: string;
  quern?: ModelCard | null;
}

export async function listModels(key: string): Promise<ModelEntry[]> {
  const response = await request('/v1/models', key);
  return ((await response.json()) as { data: ModelEntry[] }).data;
}

export async function* streamChat(
  messages: ChatMessage[],
  options: Options,
  probabilities: boolean,
  key: string,
  signal: AbortSignal,
  goOn = false, // the last message is an answer that goes on
): AsyncGenerator<Delta> {
  const body = {
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...(options.model ? { model: options.model } : {}),
    ...(probabilities ? { logprobs: true, top_logprobs: TOP } : {}),
    ...options.sampling,
    ...(options.stop?.length ? { stop: options.stop } : {}),
    ...(options.schema ? { response_format: formatOf(options.schema) } : {}),
    ...(goOn ? { continue_final_message: true } : {}),
  };
  const response = await request('/v1/chat/completions', key, {
    method: 'POST',
    body: JSON.stringify(body),
    signal,
  });
  if (!response.body) throw new ApiError({ kind: 'broken', detail: '' });
  let done = false;
  try {
    for await (const data of events(response.body)) {
      if (data === '[DONE]') {
        done = true;
        break;
      }
      yield deltaOf(JSON.parse(data) as Chunk);
    }
  } catch (problem) {
    if (problem instanceof ApiError || signal.aborted) throw problem;
    throw new ApiError({ kind: 'broken', detail: '' });
  }
  if (!done) throw new ApiError({ kind: 'broken', detail: '' });
}

const formatOf = (schema: string): object => ({
  type: 'json_schema',
  json_schema: { name: 'answer', schema: JSON.parse(schema) as object, strict: true },
});

interface LogprobEntry {
  token: string;
  logprob: number;
  bytes: number[] | null;
}

interface Chunk {
  model?: string;
  seed?: number;
  error?: { message?: string };
  choices?: {
    delta?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null };
    finish_reason?: string | null;
    logprobs?: { content?: (LogprobEntry & { top_logprobs: LogprobEntry[] })[] } | null;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}

function deltaOf(chunk: Chunk): Delta {
  if (chunk.error) throw new ApiError({ kind: 'server', detail: chunk.error.message ?? '' });
  const choice = chunk.choices?.[0];
  const end = choice?.finish_reason;
  return {
    text: choice?.delta?.content ?? '',
    reasoning: choice?.delta?.reasoning_content ?? choice?.delta?.reasoning ?? '',
    tokens: choice?.logprobs?.content?.map((entry) => ({
      ...alternativeOf(entry),
      top: entry.top_logprobs.map(alternativeOf),
    })),
    end: end === 'length' ? 'length' : end ? 'stop' : undefined,
    model: chunk.model,
    seed: chunk.seed,
    promptTokens: chunk.usage?.prompt_tokens,
    answerTokens: chunk.usage?.completion_tokens,
  };
}

// A token that is part of a character is shown by its bytes.
function alternativeOf(entry: LogprobEntry): Alternative {
  const partial = entry.token.includes('\uFFFD') && entry.bytes;
  const text = partial
    ? `⟨${entry.bytes!.map((b) => b.toString(16).padStart(2, '0')).join(' ')}⟩`
    : entry.token;
  return { text, logprob: entry.logprob };
}

export async function request(path: string, key: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, {
      cache: 'no-store',
      ...init,
      credentials: 'omit',
      redirect: 'error',
      headers: {
        ...(init.body ? { 'Content-Type': 'application/json' } : {}),
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
      },
    });
  } catch (problem) {
    if (init.signal?.aborted) throw problem;
    throw new ApiError({ kind: 'unreachable', detail: '' });
  }
  if (!response.ok) throw new ApiError(await failureOf(response));
  return response;
}

async function failureOf(response: Response): Promise<Failure> {
  let detail = '';
  try {
    const body = (await response.json()) as { error?: { message?: unknown } };
    if (typeof body.error?.message === 'string') detail = body.error.message.slice(0, 500);
  } catch {
    // What a proxy says in between is no JSON, and says little.
  }
  const seconds = Number(response.headers.get('Retry-After') ?? NaN);
  const retryAt = Number.isFinite(seconds) ? Date.now() + 1000 * seconds : undefined;
  return { kind: kindOf(response.status), detail, retryAt };
}

function kindOf(status: number): FailureKind {
  if (status === 401) return 'key';
  if (status === 404) return 'unknown-model';
  if (status === 429 || status === 503) return 'busy';
  if (status === 502 || status === 504) return 'unreachable';
  return status >= 500 ? 'server' : 'refused';
}
