// Formulas in Markdown: $…$ and \(…\) within a line, $$…$$ and \[…\] set apart. They become empty
// elements that carry the TeX, which are filled after everything else has been sanitised.
import type { MarkdownIt } from 'markdown-it';

const PAIRS: [open: string, close: string, display: boolean][] = [
  ['$$', '$$', true],
  ['\\[', '\\]', true],
  ['\\(', '\\)', false],
  ['$', '$', false],
];

// Where `close` begins, passing over what a backslash escapes; -1 where it does not come.
function findClose(text: string, close: string, from: number): number {
  for (let at = from; at < text.length; ++at) {
    if (text.startsWith(close, at)) return at;
    if (text[at] === '\\') ++at;
  }
  return -1;
}

export function mathPlugin(md: MarkdownIt): void {
  md.inline.ruler.before('escape', 'math', (state, silent) => {
    for (const [open, close, display] of PAIRS) {
      if (!state.src.startsWith(open, state.pos)) continue;
      const begin = state.pos + open.length;
      const end = findClose(state.src, close, begin);
      if (end < 0 || end >= state.posMax) continue;
      const tex = state.src.slice(begin, end);
      if (tex.trim() === '') continue;
      // "from $5 to $10" is about money: spaces inside, or a digit behind, make it no formula.
      if (open === '$' && (/^\s|\s$/.test(tex) || /\d/.test(state.src[end + 1] ?? ''))) continue;
      if (!silent) {
        const token = state.push('math', '', 0);
        token.content = tex;
        token.meta = { display };
      }
      state.pos = end + close.length;
      return true;
    }
    return false;
  });

  md.block.ruler.before(
    'fence',
    'math_block',
    (state, startLine, endLine, silent) => {
      const begin = state.bMarks[startLine]! + state.tShift[startLine]!;
      const pair = PAIRS.find(([open, , display]) => display && state.src.startsWith(open, begin));
      if (!pair) return false;
      const [open, close] = pair;
      for (let line = startLine; line < endLine; ++line) {
        const from = line === startLine ? begin + open.length : state.bMarks[line]!;
        const text = state.src.slice(from, state.eMarks[line]);
        const at = findClose(text, close, 0);
        if (at < 0) continue;
        if (text.slice(at + close.length).trim() !== '') return false;
        if (silent) return true;
        const token = state.push('math', '', 0);
        token.content = state.src.slice(begin + open.length, from + at);
        token.meta = { display: true };
        token.block = true;
        state.line = line + 1;
        return true;
      }
      return false;
    },
    { alt: ['paragraph', 'reference', 'blockquote', 'list'] },
  );

  md.renderer.rules['math'] = (tokens, index) => {
    const token = tokens[index]!;
    const kind = (token.meta as { display: boolean }).display ? 'math display' : 'math';
    return `<span class="${kind}">${md.utils.escapeHtml(token.content)}</span>`;
  };
}
