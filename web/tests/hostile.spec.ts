// The chat with a server that means harm, or is not well.
import { ATTACKS } from './hostile_server';
import { answered, answers, ask, expect, hostile, test } from './support';

test('nothing that a model writes is run or fetched', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'attack');
  await answered(page);
  const prose = answers(page).locator('.prose');
  await expect(prose).toContainText('<script>'); // shown as text
  for (const attack of ['<img src=x', '<iframe srcdoc=', '<form action=']) {
    await expect(prose).toContainText(attack);
  }
  const found = await prose.evaluate((element) => ({
    elements: [...element.querySelectorAll('script,img,iframe,form,input,style,link,base,meta,object')].map(
      (e) => e.outerHTML,
    ),
    handlers: [...element.querySelectorAll('*')].flatMap((e) =>
      e.getAttributeNames().filter((name) => name.startsWith('on')),
    ),
    links: [...element.querySelectorAll('a')].map((a) => [a.getAttribute('href'), a.rel, a.target]),
  }));
  expect(found.elements).toEqual([]);
  expect(found.handlers).toEqual([]);
  for (const [href, rel, target] of found.links) {
    if (href !== null) expect(href).toMatch(/^https?:\/\//);
    expect(rel).toContain('noopener');
    expect(target).toBe('_blank');
  }
  expect(found.links.some(([href]) => href === 'https://good.example/page')).toBe(true);
  expect(ATTACKS.length).toBeGreaterThan(20);

  await page.getByRole('button', { name: 'Token probabilities' }).click();
  await page.locator('.token').first().hover();
  await expect(page.locator('.alternative')).toHaveCount(1);
  expect(await page.evaluate(() => (window as { pwned?: number }).pwned)).toBeUndefined();
});

test('Markdown, code and formulas are set; code can be copied', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'markdown');
  await answered(page);
  const prose = answers(page).locator('.prose');
  await expect(prose.getByRole('heading', { name: 'A title' })).toBeVisible();
  await expect(prose.locator('td')).toHaveText(['a', '1']);
  await expect(prose.locator('.hljs-keyword').first()).toHaveText('def');
  await expect(prose.locator('.katex')).toHaveCount(2);
  await expect(prose.locator('.math.display .katex-display')).toHaveCount(1);
  await expect(prose).toContainText('it costs $5 and $10');
  // KaTeX places its parts by styles, which the policy lets no HTML carry.
  expect(await prose.locator('.katex .vlist > span').first().evaluate((e) => e.style.top)).not.toBe('');
  await prose.getByRole('button', { name: 'Copy code' }).click();
  await expect(prose.getByRole('button', { name: 'Copied' })).toBeVisible();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied).toBe('def double(x):\n    return 2 * x  # twice\n');
});

test('an answer stops when told to, and the server hears of it', async ({ page, request }) => {
  await page.goto(hostile());
  await ask(page, 'endless');
  await expect(answers(page)).toContainText('word word');
  const before = Number(await (await request.get(`${hostile()}/gone`)).text());
  await page.getByRole('button', { name: 'Stop' }).click();
  await expect(answers(page)).toContainText('Stopped.');
  await expect(answers(page)).toContainText('word word');
  await expect
    .poll(async () => Number(await (await request.get(`${hostile()}/gone`)).text()))
    .toBeGreaterThan(before);
  // And by key.
  await ask(page, 'endless');
  await expect(answers(page).last()).toContainText('word word');
  await page.keyboard.press('Escape');
  await expect(answers(page).last()).toContainText('Stopped.');
});

test('a wrong key is asked for and taken', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'key');
  const failure = page.locator('.failure');
  await expect(failure).toContainText('The server wants a valid API key.');
  await expect(failure).toContainText('the key is <b>wrong</b>');
  await failure.getByRole('button', { name: 'Enter key' }).click();
  await page.getByLabel('API key').fill('let-me-in-please');
  await page.keyboard.press('Escape');
  await failure.getByRole('button', { name: 'Try again' }).click();
  await expect(answers(page).locator('.prose')).toHaveText('in');
  await expect(page.getByText('1/2')).toHaveCount(0); // the failure is no version
  // It stays in this tab only.
  const kept = await page.evaluate(() => [sessionStorage.getItem('quern-key'), localStorage.getItem('quern-key')]);
  expect(kept).toEqual(['let-me-in-please', null]);
});

test('a network that is gone is said in words, and the question is not lost', async ({ page, context }) => {
  await page.goto(hostile());
  await context.setOffline(true);
  await ask(page, 'hello');
  await expect(page.locator('.failure')).toContainText('The server cannot be reached');
  await context.setOffline(false);
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(answers(page).locator('.prose')).toHaveText('you said hello');
});

test('a server that is busy says how long to wait, and can be asked again', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, `busy:${Date.now()}`);
  await expect(page.locator('.failure')).toContainText(/It asks for \d+ s of patience/);
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(answers(page).locator('.prose')).toHaveText('now there is room');
});

test('of an answer that breaks off what came is kept, and there can be another', async ({ page, request }) => {
  await page.goto(hostile());
  await ask(page, `break:${Date.now()}`);
  await expect(answers(page)).toContainText('half an ans');
  await request.get(`${hostile()}/cut`);
  await expect(page.locator('.failure')).toContainText('The connection broke before the answer was whole');
  await expect(answers(page)).toContainText('half an ans');
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(answers(page).locator('.prose')).toContainText('you said');
  await page.getByRole('button', { name: 'Previous version' }).click();
  await expect(answers(page).locator('.prose')).toHaveText('half an ans');
});

test('a refusal shows what the server says, as text', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'refuse');
  await expect(page.locator('.failure')).toContainText('top_p is <img src=x onerror=window.pwned=1>');
  expect(await page.evaluate(() => (window as { pwned?: number }).pwned)).toBeUndefined();
});
