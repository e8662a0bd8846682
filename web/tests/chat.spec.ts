// The chat with quern itself and the model that ships.
import { readFileSync } from 'node:fs';
import { answered, answers, ask, box, expect, quern, questions, short, test } from './support';

test.use({ settings: short });

test('an answer streams in, with its numbers and the probability of each token', async ({ page }) => {
  await page.goto(quern());
  await ask(page, 'Who are you?');
  await answered(page);
  await expect(answers(page).locator('.prose')).not.toBeEmpty();
  await expect(answers(page)).toContainText(/\d+ tokens · [\d.]+ tokens\/s/);
  await expect(page.getByTestId('spoken')).toContainText('Answer: ');

  const whole = await answers(page).locator('.prose').innerText();
  await page.getByRole('button', { name: 'Token probabilities' }).click();
  const tokens = page.locator('.token');
  expect((await tokens.allInnerTexts()).join('').trim()).toContain(whole.slice(0, 20).trim());
  await tokens.nth(2).hover();
  await expect(page.locator('.alternative')).toHaveCount(5);
  await page.locator('.tokens').focus();
  await page.keyboard.press('ArrowRight');
  await expect(page.locator('.tokens-frame [role=status]')).toContainText(/probability [\d<]/);
});

test('regenerating and editing make versions, and nothing is lost', async ({ page }) => {
  await page.goto(quern());
  await ask(page, 'Tell me a story.');
  await answered(page);
  const prose = answers(page).locator('.prose');
  const first = await prose.innerText();
  // Another seed, and so hot that the model does not begin each story alike: another answer.
  await page.getByRole('button', { name: 'Options' }).click();
  await page.getByLabel('Temperature').first().fill('2');
  await page.getByLabel('Seed').fill('77');
  await page.getByLabel('Seed').press('Tab');
  await page.getByRole('button', { name: 'Regenerate' }).click();
  await expect(answers(page)).toContainText('2/2');
  await answered(page);
  const second = await prose.innerText();
  expect(second).not.toBe(first);
  await page.getByRole('button', { name: 'Previous version' }).click();
  await expect(prose).toHaveText(first);

  await questions(page).hover();
  await questions(page).getByRole('button', { name: 'Edit' }).click();
  await page.getByLabel('Edit message').fill('Tell me about a dog.');
  await page.getByRole('button', { name: 'Save and send' }).click();
  await expect(questions(page)).toContainText('Tell me about a dog.');
  await answered(page);
  await expect(answers(page)).not.toContainText('/2');
  await questions(page).getByRole('button', { name: 'Previous version' }).click();
  await expect(questions(page)).toContainText('Tell me a story.');
  await expect(prose).toHaveText(first); // the version that was chosen there
});

test('conversations outlive a reload; they can be found, renamed and deleted', async ({ page }) => {
  await page.goto(quern());
  await ask(page, 'Something about geese');
  await answered(page);
  const said = await answers(page).locator('.prose').innerText();
  await page.getByRole('button', { name: 'New chat' }).click();
  await ask(page, 'Something about owls');
  await answered(page);
  await page.reload();
  const list = page.getByRole('navigation', { name: 'Conversations' });
  await expect(list.getByRole('listitem')).toHaveCount(2);
  await list.getByRole('button', { name: 'Something about geese', exact: true }).click();
  await expect(answers(page).locator('.prose')).toHaveText(said);

  await page.getByLabel('Search conversations').fill('owls');
  await expect(list.getByRole('listitem')).toHaveCount(1);
  await page.getByLabel('Search conversations').fill('');
  await list.getByRole('button', { name: 'More: Something about geese' }).click();
  await page.getByRole('button', { name: 'Rename' }).click();
  await page.getByLabel('New name').fill('Birds <b>one</b>');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Birds <b>one</b>');
  await list.getByRole('button', { name: 'More: Birds <b>one</b>' }).click();
  await page.getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(list.getByRole('listitem')).toHaveCount(1);
  await page.reload();
  await expect(list.getByRole('listitem')).toHaveCount(1);
});

test('the system prompt and what is set of sampling go to the server, and nothing else', async ({ page }) => {
  await page.goto(quern());
  await page.getByRole('button', { name: 'Options' }).click();
  await page.getByLabel('System prompt').fill('You are terse.');
  await page.getByLabel('Top-k').fill('5');
  await page.getByLabel('Temperature').first().fill('');
  await page.getByLabel('Top-k').press('Tab');
  const [request] = await Promise.all([
    page.waitForRequest('**/v1/chat/completions'),
    ask(page, 'Hello'),
  ]);
  const sent = request.postDataJSON() as object;
  expect(sent).toEqual({
    messages: [
      { role: 'system', content: 'You are terse.' },
      { role: 'user', content: 'Hello' },
    ],
    stream: true,
    stream_options: { include_usage: true },
    logprobs: true,
    top_logprobs: 5,
    max_tokens: 10,
    seed: 1,
    top_k: 5,
  });
  await answered(page);
});

test('what is exported comes back by import, also into another browser', async ({ page, browser }) => {
  await page.goto(quern());
  await ask(page, 'Keep this');
  await answered(page);
  const said = await answers(page).locator('.prose').innerText();
  await page.getByRole('button', { name: 'Token probabilities' }).click();
  const count = await page.locator('.token').count();
  expect(count).toBeGreaterThan(0);
  await page.getByRole('button', { name: 'Settings' }).click();
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Export all' }).click(),
  ]);
  const file = await download.path();

  const other = await (await browser.newContext({ locale: 'en-GB' })).newPage();
  await other.goto(quern());
  await other.getByRole('button', { name: 'Settings' }).click();
  await other.getByLabel('Import').setInputFiles(file);
  await expect(other.getByText('Imported: 1')).toBeVisible();
  await other.getByRole('button', { name: 'Keep this', exact: true }).click();
  await expect(answers(other).locator('.prose')).toHaveText(said);
  await other.getByRole('button', { name: 'Token probabilities' }).click();
  await expect(other.locator('.token')).toHaveCount(count);

  // A file with a bad field is refused by name, and leaves everything as it was.
  const broken = readFileSync(file, 'utf8').replace('"role": "user"', '"role": "root"');
  await other.getByRole('button', { name: 'Settings' }).click();
  await other
    .getByLabel('Import')
    .setInputFiles({ name: 'bad.json', mimeType: 'application/json', buffer: Buffer.from(broken) });
  await expect(other.getByText('conversations[0].messages[0].role is not as it should be')).toBeVisible();
  await expect(other.getByRole('listitem')).toHaveCount(1);
  await other.context().close();
});

test('everything works from the keyboard', async ({ page }) => {
  await page.goto(quern());
  await expect(box(page)).toBeFocused();
  await page.keyboard.type('First line');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('second line');
  await page.keyboard.press('Enter');
  await answered(page);
  await expect(questions(page).locator('.bubble')).toHaveText('First line\nsecond line');

  await page.keyboard.press('ArrowUp'); // edits the last message
  await expect(page.getByLabel('Edit message')).toBeFocused();
  await page.keyboard.press('Escape');
  await expect(box(page)).toBeFocused();

  await page.keyboard.press('Control+.');
  await expect(page.getByRole('complementary', { name: 'Options' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('complementary', { name: 'Options' })).toBeHidden();
  await page.keyboard.press('Control+,');
  await expect(page.getByRole('dialog', { name: 'Settings' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await page.keyboard.press('Control+k');
  await expect(page.getByLabel('Search conversations')).toBeFocused();
  await page.keyboard.press('Shift+Escape');
  await expect(box(page)).toBeFocused();
  await page.keyboard.press('Control+Shift+O');
  await expect(page.getByText('What shall we talk about?')).toBeVisible();

  // The skip link comes first, is seen once it has the focus, and leads to the box.
  const first = await page.evaluate(() => document.querySelector('a[href], button, input')!.className);
  expect(first).toBe('skip');
  const skip = page.getByRole('link', { name: 'Skip to the message box' });
  await skip.focus();
  await expect(skip).toBeInViewport();
  await page.keyboard.press('Enter');
  await expect(box(page)).toBeFocused();
  await page.keyboard.press('Shift+Tab'); // a starter
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement!).outlineStyle);
  expect(outline).toBe('solid');
});

test('the page comes compressed, under a strict policy, and is asked for once', async ({ page, request }) => {
  const answer = await request.get(quern());
  const headers = answer.headers();
  expect(headers['content-security-policy']).toContain("default-src 'none'");
  expect(headers['content-security-policy']).not.toContain('unsafe');
  expect(headers['x-content-type-options']).toBe('nosniff');
  const again = await request.get(quern(), { headers: { 'If-None-Match': headers['etag']! } });
  expect(again.status()).toBe(304);
  const [script] = await Promise.all([
    page.waitForResponse((response) => response.url().endsWith('.js')),
    page.goto(quern()),
  ]);
  expect(script.headers()['content-encoding']).toBe('gzip');
  expect(script.headers()['cache-control']).toContain('immutable');
});
