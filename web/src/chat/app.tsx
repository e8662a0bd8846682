// The page: list of conversations, the conversation, its options.
import { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from 'preact/hooks';
import { translator, useWords, Words } from '../shared/i18n';
import { Icon, Mark } from '../shared/icons';
import { applySettings, loadKey, loadSettings, saveKey, saveSettings } from '../shared/settings';
import type { Settings } from '../shared/settings';
import { ApiError, listModels, type ModelEntry } from './api';
import { fromArchive, ImportError, toArchive } from './archive';
import { Chat } from './chat';
import { Composer } from './composer';
import {
  childrenOf,
  pathOf,
  titleOf,
  toMarkdown,
  type Attachment,
  type Conversation,
  type Message,
  type Options,
} from './conversation';
import { MessageView, wordsOf } from './message';
import { OptionsPanel, SettingsDialog } from './panels';
import { useShortcuts } from './shortcuts';
import { Sidebar } from './sidebar';

const NARROW = '(max-width: 760px)'; // where the list lies over the conversation; also in chat.css
const NOTICE_MS = 8000;
const NEAR_END = 80; // pixels: whoever reads this far down wants to see what comes

const idInAddress = (): string => location.hash.slice(1);

export function App() {
  const [settings, setSettings] = useState(loadSettings);
  const [key, setKey] = useState(loadKey);
  const latest = useRef({ settings, key });
  latest.current = { settings, key };
  const chat = useMemo(() => new Chat(() => latest.current.settings, () => latest.current.key), []);
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  const [models, setModels] = useState<ModelEntry[]>([]);
  const [keyAsked, setKeyAsked] = useState(false); // the server wants a key, or another one
  const [panel, setPanel] = useState<'options' | 'settings' | null>(null);
  const [menu, setMenu] = useState(false); // the list, where there is no room for it
  const [editing, setEditing] = useState<string | null>(null);
  const [spoken, setSpoken] = useState('');
  const [notice, setNotice] = useState('');
  const box = useRef<HTMLTextAreaElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const scroller = useRef<HTMLElement>(null);
  const [atEnd, setAtEnd] = useState(true);
  const t = useMemo(() => translator(settings.language), [settings.language]);

  useEffect(() => chat.listen(() => redraw(undefined)), []);
  useEffect(() => {
    // Each conversation has an address: #ID. It outlives a reload, and Back leads to the one before.
    const follow = () => {
      const id = idInAddress();
      if (id !== (chat.current?.id ?? '')) chat.open(chat.conversations.find((c) => c.id === id) ?? null);
    };
    void chat.reload(idInAddress);
    window.addEventListener('popstate', follow);
    box.current?.focus({ preventScroll: true });
    return () => window.removeEventListener('popstate', follow);
  }, []);
  useEffect(() => {
    // Screen readers hear that an answer begins, and then the whole of it, once.
    chat.onAnswer = (message) => {
      if (!message) setSpoken(t('answering'));
      else if (message.failure) setSpoken(wordsOf(message.failure, t));
      else setSpoken(t('answered', message.text));
    };
  }, [t]);
  useEffect(() => {
    applySettings(settings);
    saveSettings(settings);
    saveKey(key, settings.rememberKey);
  }, [settings, key]);
  useEffect(() => {
    let over = false;
    const look = () =>
      listModels(key).then(
        (list) => {
          if (over) return;
          setModels(list);
          setKeyAsked(false);
        },
        (problem) => {
          if (over) return;
          setModels([]);
          setKeyAsked(problem instanceof ApiError && problem.failure.kind === 'key');
        },
      );
    const timer = setTimeout(look, key ? 300 : 0);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [key]);
  useEffect(() => {
    // Who points at it reads it still.
    if (!notice) return;
    const timer = setInterval(() => {
      if (!document.querySelector('.toast:hover, .toast:focus-within')) setNotice('');
    }, NOTICE_MS);
    return () => clearInterval(timer);
  }, [notice]);

  const { current, options } = chat;
  const path = current ? pathOf(current) : [];
  const busy = chat.answering(current);
  const last = path.at(-1);
  const model = options.model
    ? (models.find((each) => each.id === options.model) ?? { id: options.model })
    : (models.find((each) => each.quern?.chat !== false) ?? models[0]);
  useEffect(() => {
    document.title = current ? `${titleOf(current)} · Quern` : 'Quern';
  });

  const id = current?.id ?? '';
  const known = useRef(idInAddress()); // the first one is opened when the store has been read
  useEffect(() => {
    if (id === known.current) return;
    if (id === '' && chat.loading) return;
    known.current = id;
    if (idInAddress() !== id) history.pushState(null, '', id ? `#${id}` : location.pathname);
  });

  const toEnd = () => scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  useLayoutEffect(() => {
    if (atEnd) toEnd();
  });
  useLayoutEffect(() => {
    setAtEnd(true);
    toEnd();
  }, [current?.id]);

  const open = (conversation: Conversation | null) => {
    chat.open(conversation);
    setMenu(false);
    setEditing(null);
    box.current?.focus();
  };
  const closePanel = () => {
    setPanel(null);
    box.current?.focus();
  };
  const openMenu = () => {
    setMenu(true);
    requestAnimationFrame(() => document.querySelector<HTMLElement>('.sidebar .hide')?.focus());
  };
  const send = (text: string, files: Attachment[] = []) => {
    setAtEnd(true);
    // The server's own choice is its first model; where that one can't chat, ours is named.
    if (!options.model && model && model.id !== models[0]?.id) chat.setOptions({ ...options, model: model.id });
    chat.send(text, files);
  };
  const setOptions = (next: Options) => {
    chat.setOptions(next);
    // The next conversation samples alike, but a system prompt belongs to this one.
    setSettings((old) => ({ ...old, defaults: { model: next.model, system: '', sampling: next.sampling } }));
  };
  const importFile = async (file: File) => {
    try {
      const taken = fromArchive(await file.text(), t('fromTerminal'), options);
      await chat.take(taken);
      setNotice(t('imported', taken.length));
    } catch (problem) {
      const why = problem instanceof ImportError ? t(problem.word, ...problem.values) : String(problem);
      setNotice(t('importFailed', why));
    }
  };
  const editLast = () => setEditing(path.findLast((m) => m.role === 'user')?.id ?? null);

  useShortcuts({
    search: () => {
      setMenu(true);
      requestAnimationFrame(() => search.current?.focus());
    },
    newChat: () => open(null),
    options: () => setPanel(panel === 'options' ? null : 'options'),
    settings: () => setPanel(panel === 'settings' ? null : 'settings'),
    focus: () => box.current?.focus(),
    escape: () => {
      if (busy && current) chat.stop(current);
      else if (panel) closePanel();
      else setMenu(false);
    },
  });

  return (
    <Words.Provider value={t}>
      <a class="skip" href="#message" onClick={(event) => { event.preventDefault(); box.current?.focus(); }}>
        {t('skip')}
      </a>
      <div class={`page ${menu ? 'menu-open' : ''} ${panel === 'options' ? 'options-open' : ''}`}>
        <Sidebar
          conversations={chat.conversations}
          current={current}
          search={search}
          onOpen={open}
          onRename={(c, title) => chat.rename(c, title)}
          onRemove={(c) => void chat.remove(c)}
          onExport={(c) => download(toArchive([c]), 'quern-conversation.json')}
          onMarkdown={(c) => download(toMarkdown(c), 'quern-conversation.md', 'text/markdown')}
          onSettings={() => setPanel('settings')}
          onHide={() => setMenu(false)}
        />
        <div class="shade" onClick={() => setMenu(false)} />
        <main class={current ? '' : 'fresh'} inert={menu && matchMedia(NARROW).matches}>
          <header class="bar">
            <button type="button" class="quiet open-menu" aria-label={t('openMenu')} onClick={openMenu}>
              <Icon name="menu" />
            </button>
            <ModelChoice models={models} options={options} onChange={setOptions} />
            <h1>{current ? titleOf(current) : t('untitled')}</h1>
            <button
              type="button"
              class="quiet"
              aria-label={t('options')}
              title={t('options')}
              aria-expanded={panel === 'options'}
              onClick={() => setPanel(panel === 'options' ? null : 'options')}
            >
              <Icon name="sliders" />
            </button>
          </header>
          <section
            ref={scroller}
            class="scroller"
            aria-label={t('conversation')}
            tabIndex={current ? 0 : -1}
            onScroll={(event) => {
              const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
              setAtEnd(scrollHeight - scrollTop - clientHeight < NEAR_END);
            }}
          >
            {keyAsked && <KeyForm refused={key !== ''} onKey={setKey} />}
            {chat.storeFailure && <p class="banner">{t('storeFailed', chat.storeFailure)}</p>}
            {current ? (
              <div class="messages">
                {path.map((message) => (
                  <MessageView
                    key={message.id}
                    message={message}
                    versions={childrenOf(current, message.parent)}
                    growing={busy && message === last}
                    busy={busy}
                    last={message === last}
                    editing={editing === message.id}
                    setEditing={(on) => {
                      setEditing(on ? message.id : null);
                      if (!on) box.current?.focus();
                    }}
                    actions={{
                      edit: (m, text) => { setAtEnd(true); chat.edit(current, m, text); },
                      rewrite: (m, text) => chat.rewrite(current, m, text),
                      remove: (m) => chat.removeMessage(current, m),
                      goOn: (m) => { setAtEnd(true); chat.goOn(current, m); },
                      regenerate: (m) => { setAtEnd(true); chat.regenerate(current, m); },
                      choose: (m) => chat.choose(current, m),
                      enterKey: () => setPanel('settings'),
                    }}
                  />
                ))}
              </div>
            ) : (
              <Welcome model={model?.id ?? 'Quern'} onChoose={(text) => send(text)} />
            )}
          </section>
          <div class="foot">
            {!atEnd && (
              <button type="button" class="round to-end" aria-label={t('backToEnd')} onClick={() => { setAtEnd(true); toEnd(); }}>
                <Icon name="down" />
              </button>
            )}
            <Composer
              box={box}
              busy={busy}
              onSend={send}
              onStop={() => current && chat.stop(current)}
              onEditLast={editLast}
              onProblem={setNotice}
            />
            <ContextMeter path={path} context={model?.quern?.context} />
          </div>
        </main>
        {panel === 'options' && (
          <OptionsPanel
            options={options}
            model={model}
            settings={settings}
            onSettings={setSettings}
            onChange={setOptions}
            onClose={closePanel}
          />
        )}
      </div>
      {panel === 'settings' && (
        <SettingsDialog
          settings={settings}
          apiKey={key}
          onChange={(next: Settings) => setSettings(next)}
          onKey={setKey}
          onExport={() => download(toArchive(chat.conversations), 'quern-conversations.json')}
          onImport={(file) => { setPanel(null); void importFile(file); }}
          onClose={() => setPanel(null)}
        />
      )}
      {notice && (
        <div class="toast">
          <span role="status">{notice}</span>
          <button type="button" class="quiet" aria-label={t('close')} onClick={() => setNotice('')}>
            <Icon name="close" />
          </button>
        </div>
      )}
      <div class="unseen" role="status" data-testid="spoken">
        {spoken}
      </div>
    </Words.Provider>
  );
}

interface WelcomeProps {
  model: string;
  onChoose: (text: string) => void;
}

function Welcome({ model, onChoose }: WelcomeProps) {
  const t = useWords();
  return (
    <div class="welcome">
      <Mark />
      <h2>{t('welcome')}</h2>
      <p>{t('welcomeHint', model)}</p>
      <div class="starters">
        {(['starter1', 'starter2', 'starter3'] as const).map((word) => (
          <button type="button" key={word} onClick={() => onChoose(t(word))}>
            {t(word)}
          </button>
        ))}
      </div>
    </div>
  );
}

interface ModelProps {
  models: ModelEntry[];
  options: Options;
  onChange: (options: Options) => void;
}

function ModelChoice({ models, options, onChange }: ModelProps) {
  const t = useWords();
  // A model that is gone is still shown, so that nothing is chosen behind the reader's back.
  const gone = options.model && !models.some((model) => model.id === options.model);
  const all: ModelEntry[] = gone ? [{ id: options.model }, ...models] : models;
  const first = all.find((model) => model.quern?.chat !== false) ?? all[0];
  return (
    <select
      class="model"
      aria-label={t('model')}
      value={options.model || first?.id}
      disabled={all.length === 0}
      onChange={(event) => onChange({ ...options, model: event.currentTarget.value })}
    >
      {all.length === 0 && <option>{t('noModel')}</option>}
      {all.map(({ id, quern }) => (
        <option key={id} value={id} disabled={quern?.chat === false}>
          {quern?.chat === false ? `${id} (${t('noChatShort')})` : id}
        </option>
      ))}
    </select>
  );
}

// How much of the context the last answer came to.
function ContextMeter({ path, context }: { path: Message[]; context: number | undefined }) {
  const t = useWords();
  const counted = path.findLast((m) => m.promptTokens !== undefined);
  if (!counted || !context) return null;
  const used = counted.promptTokens! + (counted.answerTokens ?? 0);
  const full = used > 0.9 * context;
  return (
    <p class={`context ${full ? 'full' : ''}`}>
      <meter min={0} max={context} high={0.9 * context} value={used} aria-label={t('contextHint')} />
      <span>{t('contextUsed', used.toLocaleString('en'), context.toLocaleString('en'))}</span>
      {full && <span role="status">{t('contextFull')}</span>}
    </p>
  );
}

// Where the server wants a key, it is asked for before anything can fail.
function KeyForm({ refused, onKey }: { refused: boolean; onKey: (key: string) => void }) {
  const t = useWords();
  return (
    <form
      class="banner key-form"
      onSubmit={(event) => {
        event.preventDefault();
        const key = String(new FormData(event.currentTarget).get('key') ?? '').trim();
        if (key) onKey(key);
      }}
    >
      <Icon name="alert" />
      <label>
        <span>{t(refused ? 'keyWrong' : 'keyAsked')}</span>
        <input name="key" type="password" autocomplete="off" spellcheck={false} aria-label={t('key')} />
      </label>
      <button type="submit" class="primary">
        {t('useKey')}
      </button>
    </form>
  );
}

function download(text: string, name: string, type = 'application/json'): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
