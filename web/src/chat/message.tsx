// One message with what can be done to it.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { useWords, type Translate, type Word } from '../shared/i18n';
import { Icon } from '../shared/icons';
import { Dialog } from '../shared/dialog';
import type { Attachment, Failure, Message } from './conversation';
import { draw } from './markdown';
import { partsOf } from './reasoning';
import { Tokens } from './tokens';

export interface Actions {
  edit: (message: Message, text: string) => void;
  regenerate: (message: Message) => void;
  rewrite: (message: Message, text: string) => void;
  remove: (message: Message) => void;
  goOn: (message: Message) => void;
  choose: (message: Message) => void;
  enterKey: () => void;
}

interface Props {
  message: Message;
  versions: Message[]; // itself and its siblings
  growing: boolean; // being written now
  busy: boolean; // something in this conversation is
  last: boolean; // of those that are shown
  editing: boolean;
  setEditing: (on: boolean) => void;
  actions: Actions;
}

export function MessageView(props: Props) {
  const { message, growing, editing } = props;
  const t = useWords();
  const [probabilities, setProbabilities] = useState(false);
  const asTokens = probabilities && message.tokens !== undefined;
  const name = message.role === 'user' ? t('you') : t('answer');
  const parts =
    message.role === 'user'
      ? { reasoning: '', answer: message.text, open: false }
      : partsOf(message.text, message.reasoning);
  return (
    <article class={`message ${message.role}`} aria-label={name} aria-busy={growing}>
      {message.role === 'user' ? (
        editing ? (
          <Editor {...props} />
        ) : (
          <>
            {message.files && <Files files={message.files} />}
            {message.text && <div class="bubble">{message.text}</div>}
          </>
        )
      ) : editing ? (
        <Editor {...props} />
      ) : asTokens ? (
        <Tokens tokens={message.tokens!} />
      ) : (
        <>
          {parts.reasoning && <Reasoning text={parts.reasoning} growing={growing && parts.open} />}
          <Markdown text={parts.answer} growing={growing} />
        </>
      )}
      {growing && message.text === '' && !parts.reasoning && <Waiting />}
      {message.failure && <FailureNote {...props} failure={message.failure} />}
      {!growing && !message.failure && <EndNote message={message} />}
      {growing && message.text !== '' && (
        <p class="live">
          <Stats message={message} />
        </p>
      )}
      {!editing && !growing && (
        <Tools {...props} probabilities={asTokens} setProbabilities={setProbabilities} />
      )}
    </article>
  );
}

function Waiting() {
  const t = useWords();
  return (
    <div class="waiting" title={t('thinking')}>
      <i />
      <i />
      <i />
    </div>
  );
}

function Markdown({ text, growing }: { text: string; growing: boolean }) {
  const t = useWords();
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    draw(element.current!, text, { copyCode: t('copyCode') }, growing);
  }, [text, t, growing]);
  const copy = (event: MouseEvent) => {
    const button = (event.target as Element).closest<HTMLButtonElement>('button.copy-code');
    const code = button?.closest('.code')?.querySelector('pre')?.textContent;
    if (!button || code === undefined) return;
    void copyText(code ?? '').then(() => {
      button.textContent = t('copied');
      setTimeout(() => (button.textContent = t('copyCode')), 1500);
    });
  };
  return <div ref={element} class={`prose ${growing ? 'growing' : ''}`} onClick={copy} />;
}

function Files({ files }: { files: Attachment[] }) {
  return (
    <div class="files">
      {files.map(({ name, text }, i) => (
        <details key={i}>
          <summary>
            <Icon name="clip" />
            {name}
          </summary>
          <pre tabIndex={0}>{text}</pre>
        </details>
      ))}
    </div>
  );
}

// Folded: who wants to read it opens it.
function Reasoning({ text, growing }: { text: string; growing: boolean }) {
  const t = useWords();
  return (
    <details class="reasoning">
      <summary>{t(growing ? 'reasoningNow' : 'reasoning')}</summary>
      <div class="reasoning-text">{text}</div>
    </details>
  );
}

function EndNote({ message }: { message: Message }) {
  const t = useWords();
  if (message.role === 'user') return null;
  if (message.end === 'length') return <p class="note">{t('endLength')}</p>;
  if (message.end === 'stopped') return <p class="note">{t('stopped')}</p>;
  if (message.text === '') return <p class="note">{t('endEmpty')}</p>;
  return null;
}

// What went wrong, for people; the server's own words come beside it.
export function wordsOf(failure: Failure, t: Translate, seconds = 0): string {
  const words: Record<Failure['kind'], Word> = {
    key: 'failKey',
    busy: 'failBusy',
    refused: 'failRefused',
    'unknown-model': 'failModel',
    unreachable: 'failUnreachable',
    broken: 'failBroken',
    server: 'failServer',
  };
  return failure.kind === 'busy' && seconds > 0 ? t('failBusyIn', seconds) : t(words[failure.kind]);
}

function FailureNote({ message, failure, actions, busy }: Props & { failure: Failure }) {
  const t = useWords();
  const [now, setNow] = useState(Date.now());
  const seconds = Math.ceil(((failure.retryAt ?? 0) - now) / 1000);
  useEffect(() => {
    if (seconds <= 0) return;
    const timer = setTimeout(() => setNow(Date.now()), 500);
    return () => clearTimeout(timer);
  });
  return (
    <div class="failure">
      <Icon name="alert" />
      <div>
        <p>{wordsOf(failure, t, seconds)}</p>
        {failure.detail && <p class="detail">{failure.detail}</p>}
      </div>
      {failure.kind === 'key' && (
        <button type="button" onClick={actions.enterKey}>
          {t('enterKey')}
        </button>
      )}
      <button type="button" disabled={busy} onClick={() => actions.regenerate(message)}>
        {t('retry')}
      </button>
    </div>
  );
}

function Editor({ message, setEditing, actions }: Props) {
  const t = useWords();
  const box = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    box.current!.focus();
    box.current!.setSelectionRange(message.text.length, message.text.length);
  }, []);
  const save = () => {
    const text = box.current!.value.trim();
    setEditing(false);
    if (message.role === 'assistant') {
      if (text) actions.rewrite(message, text);
    } else if (text || message.files) {
      actions.edit(message, text);
    }
  };
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <textarea
        ref={box}
        aria-label={t('editMessage')}
        defaultValue={message.text}
        rows={Math.min(12, message.text.split('\n').length + 1)}
        onKeyDown={(event) => {
          if (event.key === 'Escape') {
            event.stopPropagation();
            setEditing(false);
          } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            save();
          }
        }}
      />
      <div class="editor-buttons">
        <button type="button" onClick={() => setEditing(false)}>
          {t('cancel')}
        </button>
        <button type="submit" class="primary">
          {t(message.role === 'assistant' ? 'saveOnly' : 'saveAndSend')}
        </button>
      </div>
    </form>
  );
}

interface ToolProps extends Props {
  probabilities: boolean;
  setProbabilities: (on: boolean) => void;
}

function Tools(props: ToolProps) {
  const { message, versions, busy, actions, setEditing, probabilities, setProbabilities } = props;
  const t = useWords();
  const [copied, setCopied] = useState(false);
  const [removing, setRemoving] = useState(false);
  const broken = message.end !== 'stop' && message.text !== '' && props.last;
  const at = versions.indexOf(message);
  const copy = () =>
    copyText(message.role === 'user' ? message.text : partsOf(message.text).answer).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    });
  const button = (label: string, icon: Parameters<typeof Icon>[0]['name'], more: object) => (
    <button type="button" class="quiet" aria-label={label} title={label} {...more}>
      <Icon name={icon} />
    </button>
  );
  return (
    <div class="tools">
      {versions.length > 1 && (
        <span class="versions">
          {button(t('previousVersion'), 'left', {
            disabled: at === 0 || busy,
            onClick: () => actions.choose(versions[at - 1]!),
          })}
          <span aria-label={t('version', at + 1, versions.length)} role="img">
            {at + 1}/{versions.length}
          </span>
          {button(t('nextVersion'), 'right', {
            disabled: at === versions.length - 1 || busy,
            onClick: () => actions.choose(versions[at + 1]!),
          })}
        </span>
      )}
      {message.text && button(copied ? t('copied') : t('copy'), copied ? 'check' : 'copy', { onClick: copy })}
      {message.role === 'assistant' &&
        broken &&
        button(t('goOn'), 'play', { disabled: busy, onClick: () => actions.goOn(message) })}
      {(message.role === 'user' || message.text) &&
        button(t('edit'), 'edit', { disabled: busy, onClick: () => setEditing(true) })}
      {button(t('removeMessage'), 'trash', { disabled: busy, onClick: () => setRemoving(true) })}
      {removing && (
        <Dialog title={t('removeMessage')} onClose={() => setRemoving(false)}>
          <p>{t('removeMessageSure')}</p>
          <div class="dialog-buttons">
            <button type="button" onClick={() => setRemoving(false)}>
              {t('cancel')}
            </button>
            <button
              type="button"
              class="primary danger"
              onClick={() => {
                setRemoving(false);
                actions.remove(message);
              }}
            >
              {t('remove')}
            </button>
          </div>
        </Dialog>
      )}
      {message.role === 'assistant' && (
        <>
          {!message.failure &&
            button(t('regenerate'), 'again', {
              disabled: busy,
              onClick: () => actions.regenerate(message),
            })}
          {message.tokens &&
            button(t('showTokens'), 'bars', {
              'aria-pressed': probabilities,
              onClick: () => setProbabilities(!probabilities),
            })}
          <Stats message={message} />
        </>
      )}
    </div>
  );
}

function Stats({ message }: { message: Message }) {
  const t = useWords();
  const { answerTokens, promptTokens, firstMs, totalMs, seed } = message;
  if (!answerTokens || firstMs === undefined || totalMs === undefined) return null;
  const rate = totalMs > firstMs ? ((answerTokens - 1) / (totalMs - firstMs)) * 1000 : 0;
  return (
    <span class="stats" title={t('statsHint', promptTokens ?? '?', seed ?? '?')}>
      {t('stats', answerTokens, rate.toFixed(rate < 10 ? 1 : 0), (firstMs / 1000).toFixed(1))}
    </span>
  );
}

// Without TLS, beyond localhost, browsers have no clipboard for pages.
async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = document.createElement('textarea');
  box.value = text;
  document.body.append(box);
  box.select();
  document.execCommand('copy');
  box.remove();
}
