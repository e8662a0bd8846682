// Answers as DOM. What a model writes is hostile until it has passed here: its HTML is shown as
// text, its images become links, and the rest goes through a sanitiser that knows few elements.
import DOMPurify from 'dompurify';
import katex from 'katex';
import MarkdownIt from 'markdown-it';
import { highlight } from './highlight';
import { mathPlugin } from './math';

const md = new MarkdownIt({ html: false, linkify: true, highlight });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
md.use(mathPlugin);
// Nothing is fetched for an answer: an image would tell its server who reads what.
md.renderer.rules['image'] = (tokens, index) => {
  const image = tokens[index]!;
  const { escapeHtml } = md.utils;
  const address = String(image.attrGet('src') ?? '');
  return `<a href="${escapeHtml(address)}">${escapeHtml(image.content || address)}</a>`;
};

// The policy of the page allows no style in HTML: columns are aligned by class.
for (const rule of ['th_open', 'td_open']) {
  md.renderer.rules[rule] = (tokens, index, options, _env, self) => {
    const cell = tokens[index]!;
    const side = /text-align:(\w+)/.exec(String(cell.attrGet('style') ?? ''))?.[1];
    cell.attrs = side ? [['class', `to-${side}`]] : null;
    return self.renderToken(tokens, index, options);
  };
}

// [ ] and [x] at the beginning of a list's items.
md.core.ruler.after('inline', 'tasks', (state) => {
  const { tokens } = state;
  for (let i = 2; i < tokens.length; ++i) {
    if (tokens[i]!.type !== 'inline' || tokens[i - 2]!.type !== 'list_item_open') continue;
    const first = tokens[i]!.children?.[0];
    const box = /^\[([ xX])\] /.exec(first?.content ?? '');
    if (!first || first.type !== 'text' || !box) continue;
    first.content = first.content.slice(4);
    const done = box[1] !== ' ';
    tokens[i - 2]!.attrJoin('class', done ? 'task done' : 'task');
  }
});

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return;
  node.setAttribute('target', '_blank');
  node.setAttribute('rel', 'noopener noreferrer nofollow');
});

const ALLOWED = {
  ALLOWED_TAGS: [
    'a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li',
    'ol', 'p', 'pre', 's', 'span', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
  ],
  ALLOWED_ATTR: ['href', 'class', 'start', 'target', 'rel'],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true as const,
};

export interface Labels {
  copyCode: string;
}

export function render(text: string, labels: Labels): DocumentFragment {
  return finished(md.render(text), labels);
}

function finished(html: string, labels: Labels): DocumentFragment {
  const fragment = DOMPurify.sanitize(html, ALLOWED);
  for (const element of fragment.querySelectorAll<HTMLElement>('.math')) setFormula(element);
  for (const pre of fragment.querySelectorAll('pre')) frameCode(pre, labels);
  for (const item of fragment.querySelectorAll('li.task')) markTask(item);
  for (const table of fragment.querySelectorAll('table')) {
    const frame = document.createElement('div');
    frame.className = 'table';
    frame.tabIndex = 0; // wide ones scroll, by keyboard too
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

// A box that only shows what the answer says: it can't be ticked.
function markTask(item: Element): void {
  const box = document.createElement('input');
  box.type = 'checkbox';
  box.disabled = true;
  if (item.classList.contains('done')) box.setAttribute('checked', '');
  box.setAttribute('aria-label', item.textContent?.trim().slice(0, 80) ?? '');
  const first = item.firstElementChild;
  (first?.tagName === 'P' ? first : item).prepend(box);
}

// While an answer grows, what its last blocks leave behind doesn't change any more: it stays drawn,
// and only the rest is read anew. `used` characters of `text` are in the first `nodes` children.
interface Drawn {
  text: string;
  used: number;
  nodes: number;
}
const drawn = new WeakMap<HTMLElement, Drawn>();
const KEPT_BLOCKS = 2; // at the end, which what follows may still change

let last = 0;
export const drawMs = (): number => last;

export function draw(element: HTMLElement, text: string, labels: Labels, growing: boolean): void {
  const begin = performance.now();
  const old = drawn.get(element);
  if (growing && old && text.startsWith(old.text)) {
    drawRest(element, text, labels, old);
  } else if (growing) {
    const fresh = { text: '', used: 0, nodes: 0 };
    drawRest(element, text, labels, fresh);
    drawn.set(element, fresh);
  } else {
    // Once, as a whole: links may be defined at the end.
    patch(element, render(text, labels));
    drawn.delete(element);
  }
  last = performance.now() - begin;
}

function drawRest(element: HTMLElement, text: string, labels: Labels, state: Drawn): void {
  const rest = text.slice(state.used);
  const env = {};
  const tokens = md.parse(rest, env);
  // Where each block begins, in tokens and in lines.
  const blocks: { token: number; line: number }[] = [];
  tokens.forEach((token, i) => {
    if (token.level === 0 && token.nesting >= 0 && token.map) blocks.push({ token: i, line: token.map[0] });
  });
  const cut = blocks[blocks.length - KEPT_BLOCKS];
  if (cut && cut.line > 0) {
    const html = md.renderer.render(tokens.slice(0, cut.token), md.options, env);
    const done = finished(html, labels);
    const count = done.childNodes.length;
    patch(element, done, state.nodes, false);
    state.nodes += count;
    state.used += offsetOfLine(rest, cut.line);
  }
  const tail = cut && cut.line > 0 ? tokens.slice(cut.token) : tokens;
  patch(element, finished(md.renderer.render(tail, md.options, env), labels), state.nodes);
  state.text = text;
}

function offsetOfLine(text: string, line: number): number {
  let at = 0;
  for (let i = 0; i < line; ++i) at = text.indexOf('\n', at) + 1;
  return at;
}

const formulas = new Map<string, HTMLElement>(); // while an answer streams, the same ones come again
const MOST_FORMULAS = 300;

function setFormula(element: HTMLElement): void {
  const tex = element.textContent ?? '';
  const display = element.classList.contains('display');
  const key = `${display}${tex}`;
  let formula = formulas.get(key);
  if (!formula) {
    formula = document.createElement('span');
    // Built node by node, without HTML; \href, \includegraphics and the like stay off.
    katex.render(tex, formula, {
      displayMode: display,
      throwOnError: false,
      trust: false,
      strict: 'ignore',
      maxSize: 20,
      maxExpand: 500,
    });
    if (formulas.size >= MOST_FORMULAS) formulas.clear();
    formulas.set(key, formula);
  }
  element.replaceChildren(...formula.cloneNode(true).childNodes);
  if (display) element.tabIndex = 0;
}

// A line above the code: its language, and a button that copies it.
function frameCode(pre: HTMLPreElement, labels: Labels): void {
  const frame = document.createElement('div');
  frame.className = 'code';
  const head = document.createElement('div');
  head.className = 'code-head';
  const language = document.createElement('span');
  const known = /language-([\w+#-]{1,20})/.exec(pre.firstElementChild?.className ?? '');
  language.textContent = known?.[1] ?? '';
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'copy-code';
  button.textContent = labels.copyCode;
  head.append(language, button);
  pre.tabIndex = 0;
  pre.replaceWith(frame);
  frame.append(head, pre);
}

// Puts `next` where `element`'s children from `first` on are, leaving alone those that stay as they
// are: a selection in them, or the focus, survives while the answer grows. `all`: what is behind
// goes.
export function patch(element: HTMLElement, next: DocumentFragment, first = 0, all = true): void {
  const wanted = [...next.childNodes];
  wanted.forEach((node, i) => {
    const old = element.childNodes[first + i];
    if (!old) element.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  if (!all) return;
  while (element.childNodes.length > first + wanted.length) element.lastChild!.remove();
}
