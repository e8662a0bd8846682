// The state behind the page: conversations, what is being answered, and what one can do with them.
// Views listen; whatever changes, they look again.
import { ApiError, streamChat, type ChatMessage, type Delta } from './api';
import * as tree from './conversation';
import type { Conversation, Message, Options } from './conversation';
import { drawMs } from './markdown';
import { partsOf } from './reasoning';
import { ConversationStore } from './store';
import { fresh, type Settings } from '../shared/settings';

const DRAW_MS = 40; // between two looks at a growing answer
const SAVE_MS = 1500; // between two saves of it

export class Chat {
  conversations: Conversation[] = []; // newest first
  current: Conversation | null = null; // null: an empty one that is not yet in the list
  draft: Options;
  storeFailure = '';
  loading = true; // the store has not been read yet
  onAnswer: (message: Message | null) => void = () => undefined; // begun: null; and when it ends

  private readonly store = new ConversationStore(() => void this.reload());
  private readonly running = new Map<string, { message: Message; control: AbortController }>();
  private readonly listeners = new Set<() => void>();

  constructor(
    readonly settings: () => Settings,
    readonly key: () => string,
  ) {
    this.draft = fresh(settings());
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  changed(): void {
    for (const listener of this.listeners) listener();
  }

  // Reads the store. The first time, the conversation that `first` names is opened, before any view looks.
  async reload(first = () => ''): Promise<void> {
    try {
      const stored = await this.store.all();
      // What is being answered here is newer than what is stored.
      const kept = stored.map((c) => {
        const busy = this.running.has(c.id) && this.conversations.find((mine) => mine.id === c.id);
        return busy || c;
      });
      // What began before the store was read isn't in it yet, even if its answer has ended.
      const fresh = this.conversations.filter(
        (c) => (this.loading || this.running.has(c.id)) && !stored.some((other) => other.id === c.id),
      );
      this.conversations = [...fresh, ...kept].sort((a, b) => b.updated - a.updated);
      const open = this.current?.id ?? (this.loading ? first() : '');
      if (open) this.current = this.conversations.find((c) => c.id === open) ?? null;
    } catch (problem) {
      this.storeFailed(problem);
    }
    this.loading = false;
    this.changed();
  }

  open(conversation: Conversation | null): void {
    this.current = conversation;
    if (!conversation) this.draft = fresh(this.settings());
    this.changed();
  }

  get options(): Options {
    return this.current?.options ?? this.draft;
  }

  setOptions(options: Options): void {
    if (this.current) {
      this.current.options = options;
      this.save(this.current);
    } else {
      this.draft = options;
    }
    this.changed();
  }

  answering(conversation: Conversation | null): boolean {
    return conversation !== null && this.running.has(conversation.id);
  }

  send(text: string, files: tree.Attachment[] = []): void {
    if (!this.current) {
      this.current = tree.newConversation(this.draft);
      this.conversations.unshift(this.current);
    }
    let last = tree.pathOf(this.current).at(-1);
    if (last && unanswered(last)) last = tree.remove(this.current, last);
    // Behind a question without an answer comes another version of it.
    const parent = last?.role === 'user' ? last.parent : (last?.id ?? null);
    this.answer(this.current, tree.add(this.current, parent, 'user', text, files.length ? { files } : {}));
  }

  edit(conversation: Conversation, message: Message, text: string): void {
    const more = message.files ? { files: message.files } : {};
    this.answer(conversation, tree.add(conversation, message.parent, 'user', text, more));
  }

  // An answer in the reader's words: another version of it.
  rewrite(conversation: Conversation, message: Message, text: string): void {
    tree.add(conversation, message.parent, 'assistant', text, { end: 'stop', model: message.model });
    this.save(conversation);
    this.changed();
  }

  removeMessage(conversation: Conversation, message: Message): void {
    if (this.answering(conversation)) return;
    tree.removeTree(conversation, message);
    this.save(conversation);
    this.changed();
  }

  // An answer that was stopped, cut or broken off goes on where it ended.
  goOn(conversation: Conversation, answer: Message): void {
    const question = conversation.messages.find((m) => m.id === answer.parent);
    if (question) void this.answer(conversation, question, answer);
  }

  // Another answer to the same question.
  regenerate(conversation: Conversation, answer: Message): void {
    const question = conversation.messages.find((m) => m.id === answer.parent);
    if (unanswered(answer)) tree.remove(conversation, answer);
    if (question) this.answer(conversation, question);
  }

  stop(conversation: Conversation): void {
    this.running.get(conversation.id)?.control.abort();
  }

  choose(conversation: Conversation, message: Message): void {
    tree.choose(conversation, message);
    this.save(conversation);
    this.changed();
  }

  rename(conversation: Conversation, title: string): void {
    conversation.title = title.trim();
    this.save(conversation);
    this.changed();
  }

  async remove(conversation: Conversation): Promise<void> {
    this.stop(conversation);
    this.conversations = this.conversations.filter((c) => c !== conversation);
    if (this.current === conversation) this.open(null);
    this.changed();
    await this.store.remove([conversation.id]).catch((problem) => this.storeFailed(problem));
  }

  async take(conversations: Conversation[]): Promise<void> {
    await this.store.put(conversations);
    await this.reload();
  }

  private save(conversation: Conversation): void {
    if (!this.conversations.includes(conversation)) return; // deleted meanwhile
    this.store.put([conversation]).catch((problem) => this.storeFailed(problem));
  }

  private storeFailed(problem: unknown): void {
    this.storeFailure = String(problem);
    this.changed();
  }

  private async answer(conversation: Conversation, question: Message, begun?: Message): Promise<void> {
    if (this.answering(conversation)) return;
    const messages: ChatMessage[] = tree
      .ancestryOf(conversation, question)
      .map((m) => ({ role: m.role, content: m.role === 'user' ? tree.contentOf(m) : partsOf(m.text).answer }));
    if (begun) messages.push({ role: 'assistant', content: begun.text });
    const { options } = conversation;
    if (options.system.trim()) messages.unshift({ role: 'system', content: options.system });
    const message = begun ?? tree.add(conversation, question.id, 'assistant', '');
    delete message.end;
    delete message.failure;
    const had = { tokens: message.answerTokens ?? 0, ms: message.totalMs ?? 0 };
    const control = new AbortController();
    this.running.set(conversation.id, { message, control });
    this.conversations.sort((a, b) => b.updated - a.updated);
    this.save(conversation);
    this.onAnswer(null);
    this.changed();

    const begin = performance.now();
    let drawn = 0;
    let saved = begin;
    try {
      const { probabilities } = this.settings();
      const key = this.key();
      for await (const delta of streamChat(
        messages,
        options,
        probabilities,
        key,
        control.signal,
        begun !== undefined,
      )) {
        take(message, delta, had.tokens);
        const now = performance.now();
        if ((delta.text || delta.reasoning) && message.firstMs === undefined) message.firstMs = now - begin;
        message.totalMs = had.ms + now - begin;
        // A long answer takes longer to draw: most of the time stays free for what comes.
        if (now - drawn > Math.max(DRAW_MS, 4 * drawMs())) {
          drawn = now;
          this.changed();
        }
        if (now - saved > SAVE_MS) {
          saved = now;
          this.save(conversation);
        }
      }
    } catch (problem) {
      if (control.signal.aborted) message.end = 'stopped';
      else if (problem instanceof ApiError) message.failure = problem.failure;
      else message.failure = { kind: 'broken', detail: String(problem) };
    }
    this.running.delete(conversation.id);
    conversation.updated = Date.now();
    this.save(conversation);
    this.onAnswer(message);
    this.changed();
  }
}

// A failure that left nothing behind is no version worth keeping.
function unanswered(message: Message): boolean {
  return message.role === 'assistant' && message.text === '' && message.failure !== undefined;
}

// Until the server has counted, an event is about a token. `had`: tokens of an answer that goes on.
function take(message: Message, delta: Delta, had: number): void {
  message.text += delta.text ?? '';
  if (delta.reasoning) message.reasoning = (message.reasoning ?? '') + delta.reasoning;
  if (delta.tokens) (message.tokens ??= []).push(...delta.tokens);
  message.end = delta.end ?? message.end;
  message.model = delta.model ?? message.model;
  message.seed = delta.seed ?? message.seed;
  message.promptTokens = delta.promptTokens ?? message.promptTokens;
  if (delta.answerTokens !== undefined) message.answerTokens = had + delta.answerTokens;
  else if (delta.text || delta.reasoning) {
    message.answerTokens = (message.answerTokens ?? 0) + (delta.tokens?.length || 1);
  }
}
