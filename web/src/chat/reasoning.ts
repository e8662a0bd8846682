// Reasoning and answer told apart: models put the former between <think> and </think> at the
// beginning, or begin inside it where their template has opened it.
export interface Parts {
  reasoning: string;
  answer: string;
  open: boolean; // the reasoning has not ended yet
}

const OPEN = '<think>';
const CLOSE = '</think>';

// `given` is what the server sent as reasoning already.
export function partsOf(text: string, given = ''): Parts {
  const start = text.trimStart();
  const opens = start.startsWith(OPEN);
  const close = text.indexOf(CLOSE);
  // Half a tag, while the text still comes, is no answer yet.
  if (!opens && start !== '' && OPEN.startsWith(start)) return { reasoning: given, answer: '', open: true };
  if (!opens && (close < 0 || text.slice(0, close).includes('`'))) {
    return { reasoning: given, answer: text, open: given !== '' && text === '' };
  }
  const from = opens ? text.indexOf(OPEN) + OPEN.length : 0;
  if (close < 0) return { reasoning: join(given, text.slice(from)), answer: '', open: true };
  return {
    reasoning: join(given, text.slice(from, close)),
    answer: text.slice(close + CLOSE.length).replace(/^\s+/, ''),
    open: false,
  };
}

const join = (given: string, text: string): string => [given, text.trim()].filter(Boolean).join('\n');
