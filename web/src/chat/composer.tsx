// The box where messages are written.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { useWords } from '../shared/i18n';
import { Icon } from '../shared/icons';
import type { Attachment } from './conversation';

interface Props {
  box: { current: HTMLTextAreaElement | null };
  busy: boolean;
  onSend: (text: string, files: Attachment[]) => void;
  onStop: () => void;
  onEditLast: () => void;
  onProblem: (words: string) => void;
}

const MOST_KB = 512; // of a file: it all goes into the prompt

export function Composer({ box, busy, onSend, onStop, onEditLast, onProblem }: Props) {
  const t = useWords();
  const [text, setText] = useState('');
  const form = useRef<HTMLFormElement>(null);
  const [files, setFiles] = useState<Attachment[]>([]);
  const [dropping, setDropping] = useState(false);
  const ready = (text.trim() !== '' || files.length > 0) && !busy;
  const attach = async (list: FileList | null | undefined) => {
    for (const file of list ?? []) {
      if (file.size > MOST_KB * 1024) {
        onProblem(t('tooLarge', file.name, MOST_KB));
        continue;
      }
      try {
        const read = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
        if (read.includes('\0')) throw new TypeError('it holds NUL');
        setFiles((old) => [...old, { name: file.name, text: read }]);
      } catch {
        onProblem(t('notText', file.name));
      }
    }
    box.current?.focus();
  };
  useEffect(() => {
    // Files may be dropped anywhere on the page; without this the browser would leave it for them.
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      setDropping(event.type === 'dragover');
      if (event.type === 'drop') void attach(event.dataTransfer.files);
    };
    const kinds = ['dragover', 'dragleave', 'drop'] as const;
    for (const kind of kinds) document.addEventListener(kind, over);
    return () => {
      for (const kind of kinds) document.removeEventListener(kind, over);
    };
  });
  useLayoutEffect(() => {
    const area = box.current!;
    area.style.height = 'auto';
    area.style.height = `${Math.min(area.scrollHeight, window.innerHeight * 0.4)}px`;
  }, [text]);
  const send = () => {
    if (!ready) return;
    onSend(text.trim(), files);
    setText('');
    setFiles([]);
  };
  return (
    <form
      ref={form}
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        if (busy) onStop();
        else send();
        box.current!.focus();
      }}
    >
      {files.length > 0 && (
        <ul class="attached">
          {files.map(({ name }, i) => (
            <li key={i}>
              <Icon name="clip" />
              <span>{name}</span>
              <button
                type="button"
                class="quiet"
                aria-label={t('detach', name)}
                onClick={() => setFiles(files.filter((_, at) => at !== i))}
              >
                <Icon name="close" />
              </button>
            </li>
          ))}
        </ul>
      )}
      <div class={`composer-box ${dropping ? 'dropping' : ''}`}>
        <label class="attach quiet button" title={t('attach')}>
          <Icon name="clip" />
          <input
            type="file"
            class="unseen"
            multiple
            aria-label={t('attach')}
            onChange={(event) => {
              void attach(event.currentTarget.files);
              event.currentTarget.value = '';
            }}
          />
        </label>
        <textarea
          ref={box}
          rows={1}
          value={text}
          placeholder={t(dropping ? 'dropHere' : 'placeholder')}
          aria-label={t('messageBox')}
          aria-describedby="composer-hint"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.isComposing) return; // an input method chooses a character
            if (event.key === 'Enter' && !event.shiftKey) {
              event.preventDefault();
              send();
            } else if (event.key === 'ArrowUp' && text === '' && !busy) {
              event.preventDefault();
              onEditLast();
            }
          }}
        />
        {busy ? (
          <button type="submit" class="round stop" aria-label={t('stop')} title={t('stop')}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="round" aria-label={t('send')} title={t('send')} disabled={!ready}>
            <Icon name="send" />
          </button>
        )}
      </div>
      <p id="composer-hint" class="hint">
        {t('composerHint')}
      </p>
    </form>
  );
}
