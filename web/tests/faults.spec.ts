// Faults that were found once, and must not come back.
import { answered, answers, ask, box, expect, expectAccessible, hostile, quern, questions, short, test } from './support';

test.use({ settings: short });

test('a notice leaves by itself and covers no message box', async ({ page }) => {
  await page.clock.install();
  await page.goto(quern());
  await page.getByRole('button', { name: 'Settings' }).click();
  const buffer = Buffer.from('{ not json');
  await page.getByLabel('Import').setInputFiles({ name: 'x.json', mimeType: 'application/json', buffer });
  const notice = page.getByText('This file cannot be imported: it is not JSON');
  await expect(notice).toBeVisible();
  const toast = (await page.locator('.toast').boundingBox())!;
  const message = (await box(page).boundingBox())!;
  expect(toast.y + toast.height).toBeLessThan(message.y);
  await page.mouse.move(0, 0);
  await box(page).focus();
  await page.clock.runFor(20_000);
  await expect(notice).toHaveCount(0);
});

test('a conversation has an address: a reload and the back button find it', async ({ page }) => {
  await page.goto(quern());
  await ask(page, 'First of two');
  await answered(page);
  const first = page.url();
  expect(first).toContain('#');
  const entries = await page.evaluate(() => history.length);
  await page.reload();
  await expect(questions(page)).toContainText('First of two');
  expect(await page.evaluate(() => history.length)).toBe(entries);
  await page.getByRole('button', { name: 'New chat' }).click();
  await ask(page, 'Second of two');
  await answered(page);
  expect(page.url()).not.toBe(first);
  await page.goBack();
  await page.goBack();
  await expect(questions(page)).toContainText('First of two');
  await page.goForward();
  await page.goForward();
  await expect(questions(page)).toContainText('Second of two');
  await page.goto(`${quern()}/#no-such-conversation`);
  await expect(page.getByText('What shall we talk about?')).toBeVisible();
});

test('a question asked before the store was read stays, with its answer', async ({ page }) => {
  await page.addInitScript(() => {
    Object.defineProperty(IDBOpenDBRequest.prototype, 'onsuccess', {
      set(this: IDBOpenDBRequest, handler: (event: Event) => void) {
        this.addEventListener('success', (event) => setTimeout(() => handler.call(this, event), 4000));
      },
    });
  });
  await page.goto(quern());
  await ask(page, 'Asked at once');
  await answered(page);
  await page.waitForTimeout(5000);
  await expect(questions(page)).toContainText('Asked at once');
  const listed = page.getByRole('navigation', { name: 'Conversations' });
  await expect(listed.getByRole('button', { name: 'Asked at once', exact: true })).toBeVisible();
});

test('reasoning is folded, in both forms, and is not sent back', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'think');
  await answered(page);
  const prose = answers(page).locator('.prose');
  await expect(prose).toHaveText('It is 42.');
  const reasoning = answers(page).locator('.reasoning-text');
  await expect(reasoning).toBeHidden();
  await answers(page).getByText('Reasoning').click();
  await expect(reasoning).toHaveText('Let me <b>see</b>.');
  await expectAccessible(page, 'reasoning');
  const [request] = await Promise.all([
    page.waitForRequest('**/v1/chat/completions'),
    ask(page, 'reason'),
  ]);
  const { messages } = request.postDataJSON() as { messages: object[] };
  expect(messages[1]).toEqual({ role: 'assistant', content: 'It is 42.' });
  await answered(page);
  await expect(prose.last()).toHaveText('Yes.');
  await answers(page).last().getByText('Reasoning').click();
  await expect(answers(page).last().locator('.reasoning-text')).toHaveText('Hm, hm.');
});

test('a server with a key asks for it before anything fails', async ({ page }) => {
  await page.route('**/v1/models', (route) =>
    route.request().headers()['authorization'] === 'Bearer let-me-in-please'
      ? route.continue()
      : route.fulfill({ status: 401, json: { error: { message: 'no' } } }),
  );
  await page.goto(quern());
  await expect(page.getByText('This server asks for an API key.')).toBeVisible();
  await expectAccessible(page, 'key');
  await page.getByLabel('API key').fill('wrong');
  await page.getByRole('button', { name: 'Use key' }).click();
  await expect(page.getByText('The server does not accept this key.')).toBeVisible();
  await page.getByLabel('API key').fill('let-me-in-please');
  await page.getByRole('button', { name: 'Use key' }).click();
  await expect(page.getByLabel('Model')).not.toHaveText('no model');
  await expect(page.getByLabel('API key')).toHaveCount(0);
});

test('the page of runs asks for the key in words', async ({ page }) => {
  await page.route('**/runs/data**', (route) =>
    route.request().headers()['authorization'] ? route.continue() : route.fulfill({ status: 401, json: {} }),
  );
  await page.goto(`${quern()}/runs`);
  await expect(page.getByText('This server asks for an API key.')).toBeVisible();
  await page.getByLabel('API key').fill('let-me-in-please');
  await page.getByRole('button', { name: 'Use key' }).click();
  await expect(page.getByRole('figure').first()).toBeVisible();
});

test('tables keep words whole, task lists have boxes', async ({ page }) => {
  await page.setViewportSize({ width: 400, height: 800 });
  await page.goto(hostile());
  await ask(page, 'table');
  await answered(page);
  // No word is cut: each code in the first column is as high as one line.
  for (const name of ['temperature', 'repetition_penalty']) {
    const code = answers(page).locator('td code', { hasText: name });
    const lines = await code.evaluate((element) => element.getClientRects().length);
    expect(lines, name).toBe(1);
  }
  const boxes = answers(page).getByRole('checkbox');
  await expect(boxes).toHaveCount(2);
  await expect(boxes.nth(0)).not.toBeChecked();
  await expect(boxes.nth(1)).toBeChecked();
  await expect(boxes.nth(1)).toBeDisabled();
  await expect(answers(page).locator('.prose')).toContainText('[y] neither');
  await expect(answers(page).locator('.prose')).not.toContainText('[x]');
});

test("a field's default is said, and what is out of bounds is not taken", async ({ page }) => {
  await page.goto(quern());
  await ask(page, 'Hello');
  await answered(page);
  await page.reload();
  await page.getByRole('button', { name: 'Options' }).click();
  await expect(page.getByLabel('Top-p').first()).toHaveAttribute('placeholder', /default: [\d.]+/);
  const longest = page.getByLabel('Longest answer, tokens');
  await longest.fill('-5');
  await longest.press('Tab');
  await expect(page.getByText('At least 1; not used as it is')).toBeVisible();
  await expect(longest).toHaveAttribute('aria-invalid', 'true');
  const [request] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask(page, 'Hi')]);
  expect(request.postDataJSON()).not.toHaveProperty('max_tokens');
  await longest.fill('7');
  await longest.press('Tab');
  await expect(page.getByText('At least 1; not used as it is')).toHaveCount(0);
});

test('a new conversation begins without the system prompt of the last one', async ({ page }) => {
  await page.goto(quern());
  await page.getByRole('button', { name: 'Options' }).click();
  await page.getByLabel('System prompt').fill('You are a pirate.');
  await ask(page, 'Hello');
  await answered(page);
  await page.getByRole('button', { name: 'New chat' }).click();
  await expect(page.getByLabel('System prompt')).toHaveValue('');
});

test('a model without a chat template is not offered', async ({ page }) => {
  await page.route('**/v1/models', (route) =>
    route.fulfill({
      json: {
        data: [
          { id: 'base', quern: { family: 'qwen2', chat: false, context: 100 } },
          { id: 'talks', quern: { family: 'qwen2', chat: true, context: 100 } },
        ],
      },
    }),
  );
  await page.goto(hostile());
  await expect(page.getByLabel('Model')).toHaveValue('talks');
  await expect(page.getByRole('option', { name: 'base (no chat)' })).toBeDisabled();
  const [request] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask(page, 'Hi')]);
  expect((request.postDataJSON() as { model: string }).model).toBe('talks');
});

test('what /save wrote in the terminal can be imported', async ({ page }) => {
  await page.goto(quern());
  await page.getByRole('button', { name: 'Settings' }).click();
  const saved = {
    messages: [
      { role: 'user', content: 'From a terminal' },
      { role: 'assistant', content: 'An answer from there' },
    ],
  };
  const buffer = Buffer.from(JSON.stringify(saved));
  await page.getByLabel('Import').setInputFiles({ name: 's.json', mimeType: 'application/json', buffer });
  await page.getByRole('button', { name: 'From a terminal', exact: true }).click();
  await expect(answers(page)).toContainText('An answer from there');
});

test('an answer of 114 KB is drawn as it comes', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'long');
  const begin = Date.now();
  await answered(page);
  // The server itself takes a second or two.
  expect(Date.now() - begin).toBeLessThan(12_000);
  await expect(answers(page).getByText('Part 59', { exact: true })).toBeVisible();
  await expect(answers(page).getByRole('heading')).toHaveCount(60);
  await expect(answers(page).locator('.katex').first()).toBeAttached();
});

test('every kind of formula keeps to the policy', async ({ page }) => {
  await page.goto(hostile());
  await ask(page, 'formulas');
  await answered(page);
  await expect(answers(page).locator('.katex')).toHaveCount(6);
  await expect(answers(page).locator('.katex-error')).toHaveCount(0);
});
