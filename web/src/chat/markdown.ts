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
  const fragment = DOMPurify.sanitize(md.render(text), ALLOWED);
  for (const element of fragment.querySelectorAll<HTMLElement>('.math')) setFormula(element);
  for (const pre of fragment.querySelectorAll('pre')) frameCode(pre, labels);
  for (const table of fragment.querySelectorAll('table')) {
    const frame = document.createElement('div');
    frame.className = 'table';
    frame.tabIndex = 0; // wide ones scroll, by keyboard too
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
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

// Puts `next` where `element`'s children are, leaving alone those that stay as they are: a
// selection in them, or the focus, survives while the answer grows.
export function patch(element: HTMLElement, next: DocumentFragment): void {
  const wanted = [...next.childNodes];
  wanted.forEach((node, i) => {
    const old = element.childNodes[i];
    if (!old) element.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  while (element.childNodes.length > wanted.length) element.lastChild!.remove();
}
