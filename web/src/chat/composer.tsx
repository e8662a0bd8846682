// The box where messages are written.
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { useWords } from '../shared/i18n';
import { Icon } from '../shared/icons';

interface Props {
  box: { current: HTMLTextAreaElement | null };
  busy: boolean;
  onSend: (text: string) => void;
  onStop: () => void;
  onEditLast: () => void;
}

export function Composer({ box, busy, onSend, onStop, onEditLast }: Props) {
  const t = useWords();
  const [text, setText] = useState('');
  const form = useRef<HTMLFormElement>(null);
  const ready = text.trim() !== '' && !busy;
  useLayoutEffect(() => {
    const area = box.current!;
    area.style.height = 'auto';
    area.style.height = `${Math.min(area.scrollHeight, window.innerHeight * 0.4)}px`;
  }, [text]);
  const send = () => {
    if (!ready) return;
    onSend(text.trim());
    setText('');
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
      <div class="composer-box">
        <textarea
          ref={box}
          rows={1}
          value={text}
          placeholder={t('placeholder')}
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
