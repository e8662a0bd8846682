// The list of conversations.
import { useMemo, useState } from 'preact/hooks';
import { useWords, type Word } from '../shared/i18n';
import { Icon, Mark } from '../shared/icons';
import { Dialog } from '../shared/dialog';
import { matches, titleOf, type Conversation } from './conversation';

interface Props {
  conversations: Conversation[];
  current: Conversation | null;
  search: { current: HTMLInputElement | null };
  onOpen: (conversation: Conversation | null) => void;
  onRename: (conversation: Conversation, title: string) => void;
  onRemove: (conversation: Conversation) => void;
  onExport: (conversation: Conversation) => void;
  onMarkdown: (conversation: Conversation) => void;
  onSettings: () => void;
  onHide: () => void;
}

const PAGE = 100; // entries of the list at a time

export function Sidebar(props: Props) {
  const { conversations, current, search, onOpen, onSettings, onHide } = props;
  const t = useWords();
  const [words, setWords] = useState('');
  const [shown, setShown] = useState(PAGE);
  // Titles and texts are looked at only where something has changed: an answer that grows redraws
  // the page many times a second.
  const newest = conversations[0]?.updated;
  const found = useMemo(
    () => (words.trim() ? conversations.filter((c) => matches(c, words)) : conversations),
    [words, conversations, conversations.length, newest],
  );
  const more = found.length > shown;
  return (
    <nav class="sidebar" aria-label={t('conversations')}>
      <header class="brand">
        <Mark />
        <span>Quern</span>
        <button type="button" class="quiet hide" aria-label={t('closeMenu')} onClick={onHide}>
          <Icon name="close" />
        </button>
      </header>
      <button type="button" class="new-chat" onClick={() => onOpen(null)}>
        <Icon name="plus" />
        {t('newChat')}
      </button>
      <label class="search">
        <Icon name="search" />
        <input
          ref={search}
          type="search"
          value={words}
          placeholder={t('search')}
          aria-label={t('search')}
          onInput={(event) => setWords(event.currentTarget.value)}
        />
      </label>
      <div class="list">
        {found.length === 0 && <p class="empty">{t(words ? 'noneFound' : 'noneYet')}</p>}
        {byAge(more ? found.slice(0, shown) : found).map(([age, group]) => (
          <section key={age} aria-label={t(age)}>
            <h2>{t(age)}</h2>
            <ul>
              {group.map((c) => (
                <Entry key={c.id} {...props} conversation={c} isCurrent={c === current} />
              ))}
            </ul>
          </section>
        ))}
        {more && (
          <button
            type="button"
            class="plain more"
            ref={(button) => {
              if (button) whenSeen(button, () => setShown((count) => count + PAGE));
            }}
            onClick={() => setShown((count) => count + PAGE)}
          >
            {t('showMore')}
          </button>
        )}
      </div>
      <footer>
        <a href="/runs">
          <Icon name="curve" />
          {t('runs')}
        </a>
        <button type="button" class="plain" onClick={onSettings}>
          <Icon name="gear" />
          {t('settings')}
        </button>
      </footer>
    </nav>
  );
}

// Calls once the element comes into view.
function whenSeen(element: Element, action: () => void): void {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    action();
  });
  observer.observe(element);
}

function byAge(conversations: Conversation[]): [Word, Conversation[]][] {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const groups: [Word, Conversation[]][] = [['today', []], ['lastWeek', []], ['earlier', []]];
  for (const c of conversations) {
    const age = c.updated >= midnight ? 0 : c.updated >= midnight - 6 * 86_400_000 ? 1 : 2;
    groups[age]![1].push(c);
  }
  return groups.filter(([, group]) => group.length > 0);
}

interface EntryProps extends Props {
  conversation: Conversation;
  isCurrent: boolean;
}

function Entry(props: EntryProps) {
  const { conversation, isCurrent, onOpen, onRename, onRemove, onExport, onMarkdown } = props;
  const t = useWords();
  const [open, setOpen] = useState<'menu' | 'rename' | 'remove' | null>(null);
  const title = titleOf(conversation) || t('untitled');
  const close = () => setOpen(null);
  return (
    <li class={isCurrent ? 'current' : ''}>
      <button
        type="button"
        class="entry"
        aria-current={isCurrent ? 'page' : undefined}
        onClick={() => onOpen(conversation)}
      >
        {title}
      </button>
      <button
        type="button"
        class="quiet entry-more"
        aria-label={`${t('more')}: ${title}`}
        aria-expanded={open === 'menu'}
        onClick={() => setOpen(open === 'menu' ? null : 'menu')}
      >
        <Icon name="more" />
      </button>
      {open === 'menu' && (
        <div
          class="menu"
          onKeyDown={(event) => {
            if (event.key !== 'Escape') return;
            event.stopPropagation();
            close();
            (event.currentTarget.previousElementSibling as HTMLElement).focus();
          }}
          onFocusOut={(event) => {
            if (event.currentTarget.contains(event.relatedTarget as Node | null)) return;
            setOpen((now) => (now === 'menu' ? null : now)); // a choice has opened something else
          }}
        >
          <button type="button" ref={(b) => b?.focus()} onClick={() => setOpen('rename')}>
            {t('rename')}
          </button>
          <button type="button" onClick={() => { onExport(conversation); close(); }}>
            {t('exportOne')}
          </button>
          <button type="button" onClick={() => { onMarkdown(conversation); close(); }}>
            {t('exportMarkdown')}
          </button>
          <button type="button" class="danger" onClick={() => setOpen('remove')}>
            {t('remove')}
          </button>
        </div>
      )}
      {open === 'rename' && (
        <Dialog title={t('rename')} onClose={close}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              onRename(conversation, new FormData(event.currentTarget).get('title') as string);
              close();
            }}
          >
            <input name="title" aria-label={t('renameTo')} defaultValue={title} maxLength={200} autofocus />
            <div class="dialog-buttons">
              <button type="button" onClick={close}>{t('cancel')}</button>
              <button type="submit" class="primary">{t('save')}</button>
            </div>
          </form>
        </Dialog>
      )}
      {open === 'remove' && (
        <Dialog title={t('remove')} onClose={close}>
          <p>{t('removeSure')}</p>
          <p class="quote">{title}</p>
          <div class="dialog-buttons">
            <button type="button" onClick={close}>{t('cancel')}</button>
            <button type="button" class="primary danger" onClick={() => { close(); onRemove(conversation); }}>
              {t('remove')}
            </button>
          </div>
        </Dialog>
      )}
    </li>
  );
}
