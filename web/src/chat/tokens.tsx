// An answer as its tokens, tinted by how likely each was; pointing at one, or walking to it with
// the arrow keys, shows what else the model might have said.
import { useRef, useState } from 'preact/hooks';
import { useWords } from '../shared/i18n';
import type { Token } from './conversation';

const percent = (logprob: number): string => {
  const value = 100 * Math.exp(logprob);
  return value >= 10 ? `${value.toFixed(0)} %` : value >= 0.1 ? `${value.toFixed(1)} %` : '< 0.1 %';
};

const visible = (text: string): string =>
  text.replaceAll('\n', '↵').replaceAll('\t', '⇥').replaceAll(' ', '␣') || '∅';

const shade = (logprob: number): string => {
  const p = Math.exp(logprob);
  return p > 0.8 ? 'p5' : p > 0.5 ? 'p4' : p > 0.25 ? 'p3' : p > 0.1 ? 'p2' : 'p1';
};

export function Tokens({ tokens }: { tokens: Token[] }) {
  const t = useWords();
  const box = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState<number | null>(null);
  const token = at === null ? undefined : tokens[at];

  const walk = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === 'Escape') setAt(null);
    if (!step) return;
    event.preventDefault();
    setAt((old) => Math.min(tokens.length - 1, Math.max(0, old === null ? 0 : old + step)));
  };
  const place = (): { left: string; top: string } => {
    const span = box.current?.children[at!] as HTMLElement | undefined;
    if (!span) return { left: '0', top: '0' };
    const most = Math.max(0, box.current!.clientWidth - 248);
    return {
      left: `${Math.min(span.offsetLeft, most)}px`,
      top: `${span.offsetTop + span.offsetHeight + 4}px`,
    };
  };
  return (
    <div class="tokens-frame">
      <div
        ref={box}
        class="tokens"
        tabIndex={0}
        role="group"
        aria-label={t('tokensHint')}
        onKeyDown={walk}
        onFocus={() => setAt((old) => old ?? 0)}
        onBlur={() => setAt(null)}
        onMouseLeave={() => setAt(null)}
        onMouseOver={(event) => {
          const index = (event.target as HTMLElement).dataset['index'];
          if (index !== undefined) setAt(Number(index));
        }}
      >
        {tokens.map((each, i) => (
          <span
            key={i}
            data-index={i}
            class={`token ${shade(each.logprob)} ${i === at ? 'current' : ''}`}
          >
            {each.text}
          </span>
        ))}
      </div>
      {token && (
        <div class="token-card" style={place()} aria-hidden="true">
          {alternatives(token).map((other) => (
            <div class={`alternative ${other.text === token.text ? 'chosen' : ''}`}>
              <code>{visible(other.text)}</code>
              <meter min={0} max={1} value={Math.exp(other.logprob)} />
              <span>{percent(other.logprob)}</span>
            </div>
          ))}
        </div>
      )}
      <div class="unseen" role="status">
        {token && t('probability', visible(token.text), percent(token.logprob))}
      </div>
    </div>
  );
}

// The likeliest, and the chosen one where it is none of them.
function alternatives(token: Token) {
  return token.top.some((other) => other.text === token.text) ? token.top : [...token.top, token];
}
