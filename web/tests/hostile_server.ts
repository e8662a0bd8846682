// A server that shows quern's pages and speaks its API, but whose answers are what the worst model,
// or the worst network, would give. The question says what happens.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const PWN = 'window.pwned=1';
export const ATTACKS = [
  `<script>${PWN}</script>`,
  `<img src=x onerror="${PWN}">`,
  `<svg onload="${PWN}"><animate onbegin="${PWN}" attributeName=x></svg>`,
  `<iframe srcdoc="<script>parent.${PWN}</script>"></iframe>`,
  `<a href="javascript:${PWN}">a</a>`,
  `[link](javascript:${PWN})`,
  `[link](JaVaScRiPt&colon;${PWN})`,
  `[link](data:text/html,<script>${PWN}</script>)`,
  `[link](vbscript:x "title\\" onmouseover=${PWN}")`,
  `<javascript:${PWN}>`,
  '![picture](https://evil.example/a.png)',
  `![picture](x"onerror="${PWN})`,
  '<img src="https://evil.example/b.png"><link rel=stylesheet href="https://evil.example/c.css">',
  '<style>@import "https://evil.example/d.css";</style>',
  `\`\`\`"><img src=x onerror=${PWN}>\nx\n\`\`\``,
  `\`\`\`html\n<img src=x onerror=${PWN}>\n\`\`\``,
  `$\\href{javascript:${PWN}}{x}$ $\\url{javascript:${PWN}}$`,
  '$\\includegraphics{https://evil.example/e.png}$',
  `$\\htmlData{onclick=${PWN}}{x}$ $\\htmlStyle{background:url(https://evil.example/f)}{x}$`,
  `$\\text{<img src=x onerror=${PWN}>}$`,
  `| a |\n| - |\n| <img src=x onerror=${PWN}> |`,
  `<form action="https://evil.example"><input name=a><button formaction="javascript:${PWN}">`,
  `<math><mtext><table><mglyph><style><img src=x onerror=${PWN}>`,
  `<noscript><p title="</noscript><img src=x onerror=${PWN}>">`,
  '<base href="https://evil.example/"><meta http-equiv=refresh content="0;url=https://evil.example">',
  '[good](https://good.example/page)',
];

// 114 KB in pieces as a model makes them.
const LONG = Array.from({ length: 1200 }, (_, i) =>
  i % 20 === 0
    ? `## Part ${i / 20}\n\n`
    : i % 7 === 0
      ? `- item ${i}: **strong** and \`code\` and $x_{${i}}$\n- [x] done ${i}\n\n`
      : `Sentence ${i} says a thing or two about nothing in particular, and then some more of it.\n\n`,
).join('');

const TABLE = `| setting | meaning | default |
| --- | --- | --- |
| \`temperature\` | Divides the logits before the softmax | 0.8 |
| \`repetition_penalty\` | Divides positive, multiplies negative logits of tokens seen before | 1.05 |

- [ ] to do
- [x] **done**
- [y] neither
`;

const MARKDOWN = `## A title

Some *emphasis*, \`code\`, a list:

1. first
2. second

| name | value |
| --- | ---: |
| a | 1 |

\`\`\`python
def double(x):
    return 2 * x  # twice
\`\`\`

Inline $e^{i\\pi} + 1 = 0$, it costs $5 and $10, and

$$\\int_0^1 x^2 \\, dx = \\frac{1}{3}$$
`;

let gone = 0; // clients that left a stream before its end
const cut: (() => void)[] = []; // ends the streams that are to break, at /cut
const tries = new Map<string, number>();

const chunk = (content: string, more: object = {}): string =>
  `data: ${JSON.stringify({
    model: '<img src=x onerror=window.pwned=1>',
    choices: [{ index: 0, delta: { content }, finish_reason: null, ...more }],
  })}\n\n`;

function fail(response: ServerResponse, status: number, message: string, headers = {}): void {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify({ error: { message } }));
}

function whole(response: ServerResponse, text: string): void {
  const token = { token: text.slice(0, 400), logprob: -0.5, bytes: null };
  const logprobs = { content: [{ ...token, top_logprobs: [token] }] };
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.write(': ping\n\n');
  response.write(chunk(text, { logprobs }));
  response.write(chunk('', { finish_reason: 'stop' }));
  response.end('data: [DONE]\n\n');
}

function answer(question: string, request: IncomingMessage, response: ServerResponse): void {
  const count = (tries.get(question) ?? 0) + 1;
  tries.set(question, count);
  const [what] = question.split(':'); // what follows keeps the tests' counts apart
  if (what === 'attack') return whole(response, ATTACKS.join('\n\n'));
  if (what === 'markdown') return whole(response, MARKDOWN);
  if (what === 'formulas') {
    const all = ['\\sqrt{\\frac{a}{b}}', '\\overbrace{x+y}^{n}', '\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}',
      '\\color{red}{x} \\textcolor{#00f}{y}', '\\xrightarrow{\\text{long arrow}}', '\\boxed{\\cancel{z}}'];
    return whole(response, all.map((tex) => `$$${tex}$$`).join('\n\n'));
  }
  if (what === 'table') return whole(response, TABLE);
  if (what === 'think') return whole(response, '<think>\nLet me <b>see</b>.\n</think>\n\nIt is 42.');
  if (what === 'reason') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    const delta = (part: object) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: part }] })}\n\n`;
    response.write(delta({ reasoning_content: 'Hm, hm.' }));
    response.write(delta({ content: 'Yes.' }));
    return void response.end('data: [DONE]\n\n');
  }
  if (what === 'long') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    let at = 0;
    const timer = setInterval(() => {
      for (let i = 0; i < 40 && at < LONG.length; ++i, at += 24) {
        response.write(chunk(LONG.slice(at, at + 24)));
      }
      if (at < LONG.length) return;
      clearInterval(timer);
      response.end('data: [DONE]\n\n');
    }, 10);
    return void response.on('close', () => clearInterval(timer));
  }
  if (what === 'key') {
    if (request.headers.authorization === 'Bearer let-me-in-please') return whole(response, 'in');
    return fail(response, 401, 'the key is <b>wrong</b>', { 'WWW-Authenticate': 'Bearer' });
  }
  if (what === 'busy') {
    if (count > 1) return whole(response, 'now there is room');
    return fail(response, 429, 'too many requests wait', { 'Retry-After': '90' });
  }
  if (what === 'refuse') return fail(response, 400, 'top_p is <img src=x onerror=window.pwned=1>');
  if (what === 'break' && count === 1) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(chunk('half an ans'));
    return void cut.push(() => request.socket.destroy());
  }
  if (what === 'endless') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    const timer = setInterval(() => response.write(chunk('word ')), 30);
    response.on('close', () => {
      clearInterval(timer);
      ++gone;
    });
    return;
  }
  whole(response, `you said ${question}`);
}

export async function startHostileServer(pages: string): Promise<{ url: string; stop: () => void }> {
  const server = createServer(async (request, response) => {
    const path = request.url ?? '/';
    if (path === '/gone') return void response.end(String(gone));
    if (path === '/cut') {
      for (const end of cut.splice(0)) end();
      return void response.end();
    }
    if (path === '/v1/models') {
      response.setHeader('Content-Type', 'application/json');
      return void response.end(JSON.stringify({ data: [{ id: '<b>hostile</b>' }] }));
    }
    if (path === '/v1/chat/completions') {
      let body = '';
      for await (const part of request) body += String(part);
      const { messages } = JSON.parse(body) as { messages: { content: string }[] };
      return answer(messages.at(-1)?.content ?? '', request, response);
    }
    const page = await fetch(pages + path, { headers: { 'Accept-Encoding': 'identity' } });
    const headers = Object.fromEntries(
      ['content-type', 'content-security-policy'].map((name) => [name, page.headers.get(name) ?? '']),
    );
    response.writeHead(page.status, headers);
    response.end(Buffer.from(await page.arrayBuffer()));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
